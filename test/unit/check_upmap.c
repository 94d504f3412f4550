/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The map of writable devices against an array that has one word per sector. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/util.h"
#include "shmcache/upmap.h"
#include "test/unit/golden.h"

#define UNIT 64u
#define DEVICE_SECTORS (OBD_UPMAP_ROOT_SECTORS + 1234567u)

/* Check makes a note of each of its asserts, which is too slow within loops. */
#define MUST(cond)                                 \
	do {                                       \
		if (!(cond))                       \
			ck_abort_msg("%s", #cond); \
	} while (0)

static uint64_t seed = 88172645463325252u;

static uint64_t pick(uint64_t below)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return below ? seed % below : 0;
}

/* --- the arena: a mark per 64 bytes --------------------------------------------------------------------------------------- */

struct arena {
	unsigned char *used;
	uint64_t units;
	uint64_t hint;
	uint64_t taken; /* units */
};

/* 0: [at, at + n) is free; else how far to skip. */
static uint64_t clash(const struct arena *a, uint64_t at, uint64_t n)
{
	while (n && !a->used[at + n - 1])
		n--;
	return n;
}

/* Begins its search where a piece was freed last, so that pieces are used again at once. */
static int arena_alloc(void *arg, uint64_t bytes, uint64_t *off)
{
	struct arena *a = arg;
	uint64_t n = (bytes + UNIT - 1) / UNIT;
	for (uint64_t i = 0, skip; n <= a->units && i <= a->units; i += skip) {
		uint64_t at = (a->hint + i) % (a->units - n + 1);
		skip = clash(a, at, n);
		if (skip)
			continue;
		memset(a->used + at, 1, n);
		a->taken += n;
		a->hint = at + n;
		*off = at * UNIT;
		return 0;
	}
	return -ENOSPC;
}

static void arena_free(void *arg, uint64_t off, uint64_t bytes)
{
	struct arena *a = arg;
	uint64_t n = (bytes + UNIT - 1) / UNIT;
	MUST(off % UNIT == 0);
	for (uint64_t i = 0; i < n; i++) {
		MUST(a->used[off / UNIT + i] == 1);
		a->used[off / UNIT + i] = 0;
	}
	a->taken -= n;
	a->hint = off / UNIT;
}

struct world {
	struct obd_segment seg;
	struct arena arena;
	struct obd_upmap_writer w;
	uint64_t *model; /* a word per sector, as a detail record has it; NULL: none */
};

static void setup(struct world *x, uint64_t arena_bytes, uint64_t sectors, bool model)
{
	memset(x, 0, sizeof *x);
	x->seg.geo.index_bytes = arena_bytes;
	x->seg.index = aligned_alloc(UNIT, arena_bytes);
	for (uint64_t i = 0; i < arena_bytes / 8; i++) /* the content of fresh pieces is arbitrary */
		((uint64_t *)(void *)x->seg.index)[i] = pick(0) | seed;
	x->arena.units = arena_bytes / UNIT;
	x->arena.used = calloc(1, x->arena.units);
	x->w.seg = &x->seg;
	x->w.arena = (struct obd_upmap_arena){.alloc = arena_alloc, .free = arena_free, .arg = &x->arena};
	if (model)
		x->model = calloc(sectors, sizeof *x->model);
	ck_assert_int_eq(obd_upmap_create(&x->w, sectors), 0);
}

static void teardown(struct world *x)
{
	obd_upmap_destroy(&x->w);
	ck_assert_uint_eq(x->arena.taken, 0);
	free(x->seg.index);
	free(x->arena.used);
	free(x->model);
}

static void model_set(struct world *x, uint64_t sector, uint64_t n, enum obd_upmap_kind kind, uint64_t moffset)
{
	for (uint64_t i = 0; i < n; i++)
		x->model[sector + i] = obd_upmap_word(kind, kind == OBD_UPMAP_DATA ? moffset + i : 0);
}

/* Every sector of [sector, sector + n) is what the model says. */
static void expect(const struct world *x, uint64_t sector, uint64_t n)
{
	for (uint64_t at = sector, end = sector + n; at < end;) {
		uint64_t run, moffset;
		bool bad;
		enum obd_upmap_kind kind = obd_upmap_lookup(&x->seg, &x->w.map, at, end - at, &run, &moffset, &bad);
		MUST(!bad);
		MUST(run >= 1 && run <= end - at);
		for (uint64_t i = 0; i < run; i++) {
			uint64_t want = x->model[at + i];
			if (obd_upmap_word(kind, kind == OBD_UPMAP_DATA ? moffset + i : 0) != want)
				ck_abort_msg("sector %llu", (unsigned long long)(at + i));
		}
		at += run;
	}
}

struct range {
	uint64_t first, n;
};

/* Small pieces of blocks, whole blocks, long ranges, the device's ends. */
static struct range random_range(uint64_t sectors)
{
	static const uint64_t sizes[] = {1, 8, 16, 128, 4096, 20000};
	uint64_t n = 1 + pick(sizes[pick(OBD_ARRAY_SIZE(sizes))]);
	uint64_t first = pick(3) ? pick(sectors) : pick(2) ? pick(4096 * 3) : sectors - 1 - pick(9000);
	if (pick(2)) {
		first = obd_align_down(first, OBD_UPMAP_LEAF_SECTORS);
		n = obd_align_up(n, OBD_UPMAP_LEAF_SECTORS);
	}
	if (pick(8) == 0)
		n = sectors;
	return (struct range){first, obd_min_u64(n, sectors - first)};
}

/* One random request. False: there was no room for it, and then nothing is different. */
static bool step(struct world *x, uint64_t sectors)
{
	struct range r = random_range(sectors);
	enum obd_upmap_kind kind = pick(3) ? OBD_UPMAP_DATA : OBD_UPMAP_ZERO;
	uint64_t moffset = pick(UINT64_C(1) << 40);
	if (kind == OBD_UPMAP_DATA || x->arena.units < 100000)
		r.n = obd_min_u64(r.n, 30000);
	int rc = obd_upmap_reserve(&x->w, r.first, r.n);
	ck_assert(rc == 0 || rc == -ENOSPC);
	if (rc == 0) {
		ck_assert_int_eq(obd_upmap_set(&x->w, r.first, r.n, kind, moffset), 0);
		model_set(x, r.first, r.n, kind, moffset);
	}
	uint64_t from = r.first > 100 ? r.first - 100 : 0;
	expect(x, from, obd_min_u64(r.first + r.n + 100, sectors) - from);
	return rc == 0;
}

START_TEST(test_model)
{
	struct world x;
	setup(&x, 64 << 20, DEVICE_SECTORS, true);
	expect(&x, 0, DEVICE_SECTORS);
	for (int i = 0; i < 1500; i++)
		ck_assert(step(&x, DEVICE_SECTORS));
	expect(&x, 0, DEVICE_SECTORS);
	teardown(&x);
}
END_TEST

/* Ranges that make no nodes: whole words of the root and of nodes, and the device's last, broken GiB. */
START_TEST(test_huge)
{
	struct world x;
	setup(&x, 1 << 20, DEVICE_SECTORS, true);
	uint64_t empty = x.arena.taken;
	ck_assert_int_eq(obd_upmap_set(&x.w, 0, DEVICE_SECTORS, OBD_UPMAP_ZERO, 0), 0);
	model_set(&x, 0, DEVICE_SECTORS, OBD_UPMAP_ZERO, 0);
	ck_assert_uint_eq(x.arena.taken, empty);
	expect(&x, 0, DEVICE_SECTORS);
	ck_assert_int_eq(obd_upmap_set(&x.w, 5, 1, OBD_UPMAP_DATA, 77), 0);
	model_set(&x, 5, 1, OBD_UPMAP_DATA, 77);
	expect(&x, 0, DEVICE_SECTORS);
	ck_assert_int_eq(obd_upmap_set(&x.w, 0, DEVICE_SECTORS, OBD_UPMAP_NONE, 0), 0);
	model_set(&x, 0, DEVICE_SECTORS, OBD_UPMAP_NONE, 0);
	expect(&x, 0, DEVICE_SECTORS);
	uint64_t run, moffset;
	bool bad;
	ck_assert_int_eq(obd_upmap_lookup(&x.seg, &x.w.map, UINT64_MAX, 1, &run, &moffset, &bad), OBD_UPMAP_NONE);
	ck_assert_int_eq(obd_upmap_lookup(&x.seg, &x.w.map, 0, 0, &run, &moffset, &bad), OBD_UPMAP_NONE);
	teardown(&x);
}
END_TEST

START_TEST(test_no_space)
{
	struct world x;
	unsigned int refused = 0;
	setup(&x, 100 * 1024, DEVICE_SECTORS, true);
	for (int i = 0; i < 3000; i++)
		refused += !step(&x, DEVICE_SECTORS);
	ck_assert_uint_ge(refused, 10);
	expect(&x, 0, DEVICE_SECTORS);
	teardown(&x);
}
END_TEST

/* --- adopting ------------------------------------------------------------------------------------------------------------- */

static void mark(void *arg, uint64_t off, uint64_t bytes)
{
	struct arena *a = arg;
	for (uint64_t i = off / UNIT; i < (off + bytes + UNIT - 1) / UNIT; i++) {
		MUST(a->used[i] == 0);
		a->used[i] = 1;
		a->taken++;
	}
}

/* A successor finds every piece its predecessor had, each once, and goes on. */
START_TEST(test_adopt)
{
	struct world x;
	setup(&x, 16 << 20, DEVICE_SECTORS, true);
	for (int round = 0; round < 10; round++) {
		for (int i = 0; i < 60; i++)
			ck_assert(step(&x, DEVICE_SECTORS));
		struct arena next = {.used = calloc(1, x.arena.units), .units = x.arena.units};
		struct obd_upmap map = x.w.map;
		x.w.generation = 0;
		ck_assert_int_eq(obd_upmap_adopt(&x.w, &map, mark, &next), 0);
		ck_assert_uint_eq(next.taken, x.arena.taken);
		ck_assert_mem_eq(next.used, x.arena.used, next.units);
		free(x.arena.used);
		x.arena = next;
	}
	expect(&x, 0, DEVICE_SECTORS);
	teardown(&x);
}
END_TEST

/* --- hostile words -------------------------------------------------------------------------------------------------------- */

static void nothing(void *arg, uint64_t off, uint64_t bytes)
{
	const struct obd_segment *seg = arg;
	MUST(off <= seg->geo.index_bytes && bytes <= seg->geo.index_bytes - off);
}

/* Random words, many of which lead somewhere inside: a lookup ends, and stays inside (the region is exactly as long as its
 * memory, which the address sanitizer watches). */
START_TEST(test_hostile)
{
	const uint64_t bytes = 40 * 4096 + 192;
	struct obd_segment seg = {.geo.index_bytes = bytes, .index = aligned_alloc(UNIT, bytes)};
	uint64_t *word = (void *)seg.index;
	for (int round = 0; round < 300; round++) {
		for (uint64_t i = 0; i < bytes / 8; i++)
			word[i] = pick(4) ? pick(bytes / UNIT + 70) << 2 | pick(4) : (pick(0), seed);
		struct obd_upmap map = {
			.root_off = pick(bytes / UNIT - 4) * UNIT, .root_words = 4, .sectors = 4 * OBD_UPMAP_ROOT_SECTORS};
		for (int i = 0; i < 2000; i++) {
			uint64_t run, moffset, max = 1 + pick(100000);
			bool bad;
			enum obd_upmap_kind kind = obd_upmap_lookup(&seg, &map, pick(map.sectors), max, &run, &moffset, &bad);
			MUST(run >= 1 && run <= max);
			MUST(kind != OBD_UPMAP_DETAIL && (!bad || kind == OBD_UPMAP_NONE));
		}
		struct obd_upmap_writer w = {.seg = &seg};
		int rc = obd_upmap_adopt(&w, &map, nothing, &seg);
		ck_assert(rc == 0 || rc == -EPROTO);
	}
	free(seg.index);
}
END_TEST

START_TEST(test_open)
{
	struct obd_catalog *catalog = calloc(1, sizeof *catalog);
	struct obd_segment seg = {.geo.index_bytes = 1 << 20, .catalog = catalog};
	struct obd_upper_entry *e = &catalog->upper[3];
	struct obd_upmap map;
	*e = (struct obd_upper_entry){.virtual_bytes = UINT64_C(5) << 30, .root_off = 64, .root_words = 5};
	ck_assert_int_eq(obd_upmap_open(&seg, 3, 9, &map), -ESTALE);
	obd_store_release(&e->word, obd_word(9, OBD_UPPER_READY));
	ck_assert_int_eq(obd_upmap_open(&seg, 3, 9, &map), 0);
	ck_assert_uint_eq(map.sectors, UINT64_C(5) << 21);
	ck_assert_int_eq(obd_upmap_open(&seg, 3, 8, &map), -ESTALE);
	ck_assert_int_eq(obd_upmap_open(&seg, 3, 0, &map), -ESTALE);
	ck_assert_int_eq(obd_upmap_open(&seg, OBD_UPPER_SLOTS, 9, &map), -ESTALE);
	e->root_words = 4;
	ck_assert_int_eq(obd_upmap_open(&seg, 3, 9, &map), -EPROTO);
	e->root_words = UINT64_C(1) << 61;
	ck_assert_int_eq(obd_upmap_open(&seg, 3, 9, &map), -EPROTO);
	e->root_words = 5;
	e->root_off = (1 << 20) - 32;
	ck_assert_int_eq(obd_upmap_open(&seg, 3, 9, &map), -EPROTO);
	e->root_off = (1 << 20) - 64;
	ck_assert_int_eq(obd_upmap_open(&seg, 3, 9, &map), 0);
	e->root_off = 1 << 20;
	ck_assert_int_eq(obd_upmap_open(&seg, 3, 9, &map), -EPROTO);
	free(catalog);
}
END_TEST

/* --- a reader beside the writer ------------------------------------------------------------------------------------------- */

/* A sector's data stands at version << 12 | sector, so a reader can tell whose word it has got. */
enum { RACE_SECTORS = 4096, RACE_SETS = 40000 };

struct race {
	struct world x;
	_Atomic uint64_t version; /* of the last set that has begun */
	_Atomic bool stop;
	uint64_t lookups;
	const char *wrong;
};

static const char *check_run(struct race *r, uint64_t sector, uint64_t *seen)
{
	uint64_t run, moffset;
	bool bad;
	enum obd_upmap_kind kind = obd_upmap_lookup(&r->x.seg, &r->x.w.map, sector, 64, &run, &moffset, &bad);
	uint64_t newest = obd_load_acquire(&r->version);
	if (bad || kind == OBD_UPMAP_DETAIL)
		return "a word that cannot be";
	for (uint64_t i = 0; kind == OBD_UPMAP_DATA && i < run && sector + i < RACE_SECTORS; i++) {
		uint64_t version = (moffset + i) / RACE_SECTORS;
		if ((moffset + i) % RACE_SECTORS != sector + i)
			return "another sector's word";
		if (version > newest || version < seen[sector + i])
			return "a word of another time";
		seen[sector + i] = version;
	}
	return NULL;
}

static void *reader(void *arg)
{
	struct race *r = arg;
	static uint64_t seen[RACE_SECTORS];
	uint64_t at = 1;
	memset(seen, 0, sizeof seen);
	while (!obd_load_relaxed(&r->stop) && !r->wrong) {
		at = at * 6364136223846793005u + 1442695040888963407u;
		r->wrong = check_run(r, at >> 33 & (RACE_SECTORS - 1), seen);
		r->lookups++;
	}
	return NULL;
}

START_TEST(test_race)
{
	static struct race r;
	pthread_t t;
	memset(&r, 0, sizeof r);
	setup(&r.x, 256 * 1024, OBD_UPMAP_ROOT_SECTORS, false);
	ck_assert_int_eq(pthread_create(&t, NULL, reader, &r), 0);
	for (uint64_t v = 1; v <= RACE_SETS; v++) {
		uint64_t first = pick(RACE_SECTORS);
		uint64_t n = 1 + pick(pick(4) ? 12 : 200);
		n = obd_min_u64(n, RACE_SECTORS - first);
		enum obd_upmap_kind kind = pick(6) ? OBD_UPMAP_DATA : OBD_UPMAP_ZERO;
		obd_store_release(&r.version, v);
		MUST(obd_upmap_reserve(&r.x.w, first, n) == 0);
		MUST(obd_upmap_set(&r.x.w, first, n, kind, v * RACE_SECTORS + first) == 0);
	}
	obd_store_relaxed(&r.stop, true);
	pthread_join(t, NULL);
	ck_assert_msg(!r.wrong, "%s", r.wrong);
	ck_assert_uint_ge(r.lookups, 100);
	teardown(&r.x);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {test_model, test_huge, test_no_space, test_adopt, test_hostile, test_open, test_race};
	return run_cases("upmap", tests, OBD_ARRAY_SIZE(tests));
}
