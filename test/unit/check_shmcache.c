/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The segment's parts one by one, and what other processes may write into it. test/stress has the parts together. */
#include <check.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/util.h"
#include "common/config/config.h"
#include "shmcache/cached/cached.h"
#include "shmcache/download.h"
#include "shmcache/fetchside.h"
#include "shmcache/reader.h"

enum { BLOCK = 16384, FRAMES = 64, FETCHERS = 2, CLIENTS = 12 };

static uint64_t rnd(uint64_t *s)
{
	*s ^= *s >> 12;
	*s ^= *s << 25;
	*s ^= *s >> 27;
	return *s * UINT64_C(2685821657736338717);
}

/* --- a segment ------------------------------------------------------------------------------------------------------------ */

static struct obd_segment seg;
static struct obd_config cfg;
static struct obd_daemon daemon_;
static struct cached *c;

static void plan(struct obd_geometry *geo)
{
	*geo = (struct obd_geometry){.magic = OBD_SEG_MAGIC,
				     .version = OBD_SEG_VERSION,
				     .bytes = sizeof *geo,
				     .segment_id = 1,
				     .block_bytes = BLOCK,
				     .nframes = FRAMES,
				     .nbuckets = 64,
				     .nfetchers = FETCHERS,
				     .index_bytes = 1 << 20};
	obd_geometry_sizes(geo);
}

static void region(const char *name, uint32_t index, uint64_t bytes)
{
	struct obd_err err;
	int fd = memfd_create(name, MFD_CLOEXEC);
	ck_assert_int_eq(ftruncate(fd, (off_t)bytes), 0);
	ck_assert_int_eq(obd_segment_take(&seg, name, index, true, fd, &err), 0);
}

static void make_segment(void)
{
	struct obd_geometry geo;
	struct obd_err err;
	plan(&geo);
	obd_segment_init(&seg);
	int fd = memfd_create("geometry", MFD_CLOEXEC);
	ck_assert_int_eq(write(fd, &geo, sizeof geo), sizeof geo);
	ck_assert_int_eq(obd_segment_take(&seg, "geometry", 0, false, fd, &err), 0);
	region("frames", 0, geo.frames_bytes);
	region("fills", 0, geo.fills_bytes);
	region("table", 0, geo.table_bytes);
	region("catalog", 0, geo.catalog_bytes);
	region("index", 0, geo.index_bytes);
	region("recency", 0, geo.recency_bytes);
	for (uint32_t i = 0; i < FETCHERS; i++)
		region("fetcher", i, geo.fetcher_bytes);
	for (uint32_t i = 0; i < CLIENTS; i++)
		region("client", i, geo.client_bytes);
}

static void retry(void *arg)
{
	obd_misses_turn(arg);
}

static void start_cached(void)
{
	c = calloc(1, sizeof *c);
	daemon_ = (struct obd_daemon){.config = &cfg, .loop = obd_loop_new()};
	c->d = &daemon_;
	c->seg = seg;
	c->window_blocks = 8;
	c->timer = obd_loop_timer_new(daemon_.loop, retry, c);
	ck_assert_int_eq(obd_frames_init(c), 0);
	ck_assert_int_eq(obd_misses_init(c), 0);
	obd_jobs_init(c);
	obd_cached_adopt(c);
}

/* Each test is a process of its own, which frees all this. */
static void set_up(void)
{
	make_segment();
	ck_assert_int_eq(obd_config_defaults(&cfg), 0);
	start_cached();
}

static void make_layer(uint32_t slot, uint32_t uid, uint64_t bytes)
{
	struct obd_layer *l = &seg.catalog->layer[slot];
	l->blob_bytes = l->payload_bytes = l->file_bytes = bytes;
	l->host_hash = 1;
	obd_store_release(&l->word, obd_word(uid, OBD_LAYER_READY));
}

static void turn(void)
{
	obd_clients_poll(c);
	obd_jobs_poll(c);
	obd_jobs_pump(c);
	obd_jobs_wake(c);
	obd_clients_wake(c);
}

/* --- rings ---------------------------------------------------------------------------------------------------------------- */

static struct obd_ring ring;
static struct obd_tail tail;

static void ring_at(uint64_t at)
{
	memset((void *)&ring, 0, sizeof ring);
	obd_store_relaxed(&ring.head, at);
	obd_store_relaxed(&tail.tail, at);
}

static void run_through(uint64_t at)
{
	uint64_t e;
	ring_at(at);
	for (uint64_t i = 0; i < OBD_RING_ENTRIES; i++)
		ck_assert(obd_ring_push(&ring, &tail, i + 1));
	ck_assert(!obd_ring_push(&ring, &tail, 0));
	for (uint64_t i = 0; i < OBD_RING_ENTRIES; i++) {
		ck_assert_int_eq(obd_ring_pop(&ring, &tail, &e), OBD_RING_ENTRY);
		ck_assert_uint_eq(e, i + 1);
	}
	ck_assert_int_eq(obd_ring_pop(&ring, &tail, &e), OBD_RING_EMPTY);
	ck_assert(!obd_ring_has(&ring, &tail));
}

START_TEST(ring_order_and_room)
{
	run_through(0);
	run_through(OBD_RING_ENTRIES - 3);
	run_through(UINT32_MAX - 5);
	run_through(UINT64_MAX - 5);
}
END_TEST

START_TEST(ring_hostile_head)
{
	static const uint64_t heads[] = {OBD_RING_ENTRIES + 1, UINT64_MAX, UINT64_MAX - 1, UINT64_C(1) << 63};
	uint64_t e;
	for (size_t i = 0; i < OBD_ARRAY_SIZE(heads); i++) {
		ring_at(1000);
		obd_store_relaxed(&ring.head, 1000 + heads[i]);
		ck_assert_int_eq(obd_ring_pop(&ring, &tail, &e), OBD_RING_LOST);
		ck_assert_int_eq(obd_ring_pop(&ring, &tail, &e), OBD_RING_EMPTY);
	}
	ring_at(1000);
	obd_store_relaxed(&ring.head, 1000 + OBD_RING_ENTRIES); /* full is no fault */
	ck_assert_int_eq(obd_ring_pop(&ring, &tail, &e), OBD_RING_ENTRY);
}
END_TEST

START_TEST(ring_hostile_tail)
{
	static const uint64_t tails[] = {1001, 1000 - OBD_RING_ENTRIES, 0, UINT64_C(1) << 63};
	for (size_t i = 0; i < OBD_ARRAY_SIZE(tails); i++) {
		ring_at(1000);
		obd_store_relaxed(&tail.tail, tails[i]);
		if (tails[i] == 0)
			continue; /* a consumer 1000 behind */
		ck_assert(!obd_ring_push(&ring, &tail, 1));
		ck_assert_uint_eq(obd_load_relaxed(&ring.head), 1000);
	}
}
END_TEST

/* A client's number is used again: the area is new, the tail is not. cached hears of the client while that is attaching. */
START_TEST(ring_of_a_fresh_area)
{
	uint64_t e;
	ring_at(0);
	obd_store_relaxed(&tail.tail, 3 * OBD_RING_ENTRIES);
	uint64_t adopted = obd_load_acquire(&tail.tail); /* one half of obd_reader_attach */
	obd_ring_skip(&ring, &tail);			 /* obd_client_up */
	ck_assert(!obd_ring_has(&ring, &tail));
	ck_assert_int_eq(obd_ring_pop(&ring, &tail, &e), OBD_RING_EMPTY);
	obd_store_relaxed(&ring.head, adopted); /* the other half */
	ck_assert(!obd_ring_has(&ring, &tail));
	ck_assert(obd_ring_push(&ring, &tail, 7));
	ck_assert_int_eq(obd_ring_pop(&ring, &tail, &e), OBD_RING_ENTRY);
	ck_assert_uint_eq(e, 7);
	ck_assert_int_eq(obd_ring_pop(&ring, &tail, &e), OBD_RING_EMPTY);
}
END_TEST

START_TEST(entries)
{
	uint64_t e = obd_entry(OBD_REQ_SLOTS - 1, UINT64_C(0x1fffffffe), ETIMEDOUT);
	ck_assert_uint_eq(obd_entry_slot(e), OBD_REQ_SLOTS - 1);
	ck_assert_uint_eq(obd_entry_seq(e), 0xfffffffe);
	ck_assert_int_eq(obd_entry_err(e), ETIMEDOUT);
	ck_assert_uint_ne(obd_entry_kind(e), OBD_ENTRY_HINT);
	e = obd_entry(0, 1, UINT32_MAX); /* an errno that cannot be does not make a hint */
	ck_assert_uint_ne(obd_entry_kind(e), OBD_ENTRY_HINT);
	e = obd_entry_hint(OBD_LAYER_SLOTS - 1, OBD_KEY_MAX_BLOCK);
	ck_assert_uint_eq(obd_entry_kind(e), OBD_ENTRY_HINT);
	ck_assert_uint_eq(obd_entry_slot(e), OBD_LAYER_SLOTS - 1);
	ck_assert_uint_eq(obd_entry_seq(e), OBD_KEY_MAX_BLOCK);
}
END_TEST

/* --- raw chunks ----------------------------------------------------------------------------------------------------------- */

static void check_partition(uint64_t blob, uint32_t bb)
{
	struct obd_layer_brief brief = {.blob_bytes = blob};
	uint64_t blocks = obd_layer_blocks(&brief, true, bb), start, end, at = blob;
	ck_assert(!obd_raw_chunk(blob, bb, (uint32_t)blocks, &start, &end));
	for (uint32_t k = 1; k < blocks; k++) { /* from the end down to the head */
		ck_assert(obd_raw_chunk(blob, bb, k, &start, &end));
		ck_assert_uint_eq(end, at);
		ck_assert_uint_lt(start, end);
		ck_assert_uint_le(end - start, bb);
		at = start;
	}
	ck_assert(obd_raw_chunk(blob, bb, 0, &start, &end));
	ck_assert_uint_eq(start, 0);
	ck_assert_uint_eq(end, at);
	ck_assert_uint_eq(end, obd_min_u64(blob, OBD_RAW_HEAD_BYTES));
}

START_TEST(raw_chunks_cover_the_blob_once)
{
	static const uint32_t sizes[] = {16384, 65536, 1048576};
	uint64_t seed = 1, s, e;
	for (size_t i = 0; i < OBD_ARRAY_SIZE(sizes); i++) {
		for (uint64_t n = 0; n < 6; n++)
			for (uint64_t d = 0; d < 7; d++) {
				if (n * sizes[i] + d > 3)
					check_partition(n * sizes[i] + d - 3, sizes[i]);
				check_partition(OBD_RAW_HEAD_BYTES + n * sizes[i] + d + (n ? 0 : 1) - (n ? 3 : 0), sizes[i]);
			}
		for (int k = 0; k < 500; k++)
			check_partition(1 + rnd(&seed) % (20 * (uint64_t)sizes[i]), sizes[i]);
	}
	ck_assert(!obd_raw_chunk(0, 16384, 0, &s, &e));
	ck_assert(obd_raw_chunk(UINT64_MAX, 16384, OBD_KEY_MAX_BLOCK, &s, &e));
	ck_assert(s < e && e - s == 16384);
}
END_TEST

/* --- geometry ------------------------------------------------------------------------------------------------------------- */

START_TEST(geometry)
{
	struct obd_geometry good, geo;
	struct obd_err err;
	plan(&good);
	ck_assert_int_eq(obd_geometry_check(&good, &err), 0);
	for (size_t byte = 0; byte < sizeof good; byte++) {
		if (byte >= offsetof(struct obd_geometry, segment_id) && byte < offsetof(struct obd_geometry, block_bytes))
			continue;
		for (unsigned int bit = 0; bit < 8; bit++) {
			geo = good;
			((unsigned char *)&geo)[byte] ^= (unsigned char)(1u << bit);
			if (obd_geometry_check(&geo, &err) == 0) /* then it says what another one could say */
				ck_assert(byte < offsetof(struct obd_geometry, hugepages) ||
					  byte >= offsetof(struct obd_geometry, reserved));
		}
	}
	geo = good;
	geo.nbuckets = 0;
	obd_geometry_sizes(&geo);
	ck_assert_int_eq(obd_geometry_check(&geo, &err), -EPROTO);
	geo = good;
	geo.nframes = 0;
	obd_geometry_sizes(&geo);
	ck_assert_int_eq(obd_geometry_check(&geo, &err), -EPROTO);
}
END_TEST

START_TEST(region_too_short)
{
	struct obd_err err;
	int fd = memfd_create("short", MFD_CLOEXEC);
	ck_assert_int_eq(ftruncate(fd, (off_t)seg.geo.frames_bytes - 4096), 0);
	ck_assert_int_eq(obd_segment_take(&seg, "frames", 0, true, fd, &err), -EPROTO);
	fd = memfd_create("client", MFD_CLOEXEC);
	ck_assert_int_eq(obd_segment_take(&seg, "client", OBD_MAX_CLIENTS, true, fd, &err), -EINVAL);
}
END_TEST

/* --- frames and buckets --------------------------------------------------------------------------------------------------- */

static uint32_t make_valid(uint64_t key)
{
	uint32_t f = obd_frame_alloc(c);
	ck_assert_uint_ne(f, OBD_NO_FRAME);
	obd_frame_fill(c, f, key, 0, 0);
	struct obd_fill *fill = &seg.fills[f];
	fill->key = key;
	fill->bytes = BLOCK;
	obd_store_release(&fill->word, obd_word(seg.frame[f].generation, OBD_FILL_VALID));
	obd_frame_valid(c, f, false);
	return f;
}

static uint32_t lookup(uint64_t key)
{
	uint64_t word;
	bool mark;
	return obd_lookup_valid(&seg, key, &word, &mark);
}

START_TEST(buckets_hold_what_the_cache_holds)
{
	uint64_t seed = 3;
	for (int i = 0; i < 20 * FRAMES; i++) {
		uint64_t key = obd_key(1 + (uint32_t)(rnd(&seed) % 1000), rnd(&seed) & 1, (uint32_t)i);
		uint32_t f = make_valid(key);
		ck_assert_uint_eq(obd_frame_find(c, key), f);
		ck_assert_uint_eq(lookup(key), f);
		if (rnd(&seed) % 4 == 0) {
			obd_frame_drop(c, f);
			ck_assert_uint_eq(lookup(key), OBD_NO_FRAME);
		}
	}
}
END_TEST

/* The epoch goes on only when frames are filled, so no value of the recency bytes may keep every frame. */
START_TEST(recency_never_keeps_all)
{
	for (uint32_t i = 0; i < FRAMES; i++)
		make_valid(obd_key(1, false, i));
	for (uint32_t byte = 0; byte < 256; byte++) {
		for (uint32_t f = 0; f < FRAMES; f++)
			obd_store_relaxed(&seg.recency[f], (uint8_t)byte);
		make_valid(obd_key(2, false, byte));
	}
}
END_TEST

/* Nor may a frame that cannot go hide one that can. */
START_TEST(pins_do_not_hide_the_rest)
{
	for (uint32_t i = 0; i < FRAMES; i++)
		make_valid(obd_key(1, false, i));
	for (uint32_t keep = 0; keep < FRAMES; keep++) {
		for (uint32_t f = 0; f < FRAMES; f++)
			c->pins[f] = f != keep;
		ck_assert_uint_eq(make_valid(obd_key(3, false, keep)), keep);
	}
}
END_TEST

/* A key of the same two buckets as none but those of that hash: found by trying. */
static uint64_t key_in(uint32_t bucket, uint32_t *from)
{
	for (;; ++*from) {
		uint64_t hash = obd_key_hash(obd_key(7, false, *from));
		if (obd_bucket_first(&seg.geo, hash) == bucket && obd_bucket_second(&seg.geo, hash) == bucket + 1)
			return obd_key(7, false, (*from)++);
	}
}

START_TEST(two_buckets_and_no_more)
{
	uint32_t from = 0;
	for (uint32_t i = 0; i < 2 * OBD_BUCKET_WAYS; i++) {
		uint64_t key = key_in(4, &from);
		ck_assert_uint_ne(make_valid(key), OBD_NO_FRAME);
		uint32_t used[2] = {0, 0};
		for (uint32_t b = 0; b < 2; b++)
			for (uint32_t w = 0; w < OBD_BUCKET_WAYS; w++)
				used[b] += seg.bucket[4 + b].way[w] != 0;
		ck_assert_uint_le(used[0] > used[1] ? used[0] - used[1] : used[1] - used[0], 1);
	}
	uint64_t key = key_in(4, &from);
	uint32_t f = make_valid(key); /* no way is left: as if evicted at once */
	ck_assert_uint_eq(obd_frame_find(c, key), OBD_NO_FRAME);
	ck_assert_uint_eq(seg.frame[f].state, OBD_FRAME_FREE);
}
END_TEST

START_TEST(hostile_buckets_are_hints)
{
	uint64_t key = obd_key(5, false, 9), hash = obd_key_hash(key);
	uint32_t f = make_valid(obd_key(6, false, 9));
	struct obd_bucket *b = &seg.bucket[obd_bucket_first(&seg.geo, hash)];
	obd_store_relaxed(&b->way[0], obd_bucket_tag(hash) | 0xffffffff);
	obd_store_relaxed(&b->way[1], obd_bucket_tag(hash));
	obd_store_relaxed(&b->way[2], obd_bucket_tag(hash) | (FRAMES + 1));
	obd_store_relaxed(&b->way[3], obd_bucket_tag(hash) | (f + 1));
	ck_assert_uint_eq(lookup(key), OBD_NO_FRAME);
}
END_TEST

/* The table of doc/architecture.md 4.4, written once more. */
static bool may_follow(uint32_t from, uint32_t to)
{
	switch (from) {
	case OBD_FRAME_FREE:
		return to == OBD_FRAME_FILLING;
	case OBD_FRAME_FILLING:
		return to == OBD_FRAME_VALID || to == OBD_FRAME_FAILED || to == OBD_FRAME_FREE;
	case OBD_FRAME_VALID:
	case OBD_FRAME_FAILED:
		return to == OBD_FRAME_EVICTING;
	default:
		return to == OBD_FRAME_FREE;
	}
}

START_TEST(transitions_that_exist)
{
	for (uint32_t from = 0; from < OBD_FRAME_STATES; from++)
		for (uint32_t to = 0; to < OBD_FRAME_STATES; to++)
			if (may_follow(from, to)) {
				obd_store_relaxed(&seg.frame[3].state, from);
				c->nfree = 0;
				obd_frame_set(c, 3, (enum obd_frame_state)to);
				ck_assert_uint_eq(seg.frame[3].state, to);
			}
}
END_TEST

START_TEST(transitions_that_do_not)
{
	uint32_t from = (uint32_t)_i / OBD_FRAME_STATES, to = (uint32_t)_i % OBD_FRAME_STATES;
	if (may_follow(from, to))
		abort();
	obd_store_relaxed(&seg.frame[3].state, from);
	obd_frame_set(c, 3, (enum obd_frame_state)to);
}
END_TEST

/* --- the reader ----------------------------------------------------------------------------------------------------------- */

START_TEST(copies_stay_inside_the_block)
{
	static struct obd_reader r;
	static unsigned char buf[2 * BLOCK];
	uint32_t f = make_valid(obd_key(1, false, 2));
	obd_reader_attach(&r, &seg, 1, OBD_ROLE_FRONTEND, 0);
	ck_assert_int_eq(obd_reader_copy(&r, 0, 1, false, 2, 0, BLOCK, buf), 0);
	ck_assert_int_eq(obd_reader_copy(&r, 0, 1, false, 2, BLOCK - 1, 1, buf), 0);
	ck_assert_int_eq(obd_reader_copy(&r, 0, 1, false, 2, BLOCK, 1, buf), -ERANGE);
	ck_assert_int_eq(obd_reader_copy(&r, 0, 1, false, 2, 1, BLOCK, buf), -ERANGE);
	ck_assert_int_eq(obd_reader_copy(&r, 0, 1, false, 2, UINT32_MAX, 2, buf), -ERANGE);
	seg.fills[f].bytes = UINT32_MAX; /* a fetcher gone mad */
	ck_assert_int_eq(obd_reader_copy(&r, 0, 1, false, 2, 0, BLOCK, buf), -ERANGE);
	seg.fills[f].bytes = 100;
	ck_assert_int_eq(obd_reader_copy(&r, 0, 1, false, 2, 0, 101, buf), -ERANGE);
	ck_assert_int_eq(obd_reader_copy(&r, 0, 1, true, 2, 0, 1, buf), -EAGAIN);
}
END_TEST

static void no_answer(void *arg, void *cookie, int err)
{
	(void)arg;
	(void)cookie;
	ck_abort_msg("an answer that is not ours was taken (%d)", err);
}

START_TEST(answers_of_another_sequence)
{
	static struct obd_reader r;
	static struct obd_tail none;
	struct obd_ring *answers = &seg.table->client[1].answers;
	obd_reader_attach(&r, &seg, 1, OBD_ROLE_FRONTEND, 0);
	int slot = obd_reader_post(&r, OBD_JOB_BLOCKS, 0, 1, 0, 1, 0, &r);
	ck_assert_int_ge(slot, 0);
	ck_assert(obd_ring_push(answers, &none, obd_entry((uint32_t)slot, 2, 0)));
	ck_assert(obd_ring_push(answers, &none, obd_entry((uint32_t)slot + 1, 1, 0)));
	ck_assert(obd_ring_push(answers, &none, obd_entry(OBD_REQ_SLOTS, 1, 0)));
	obd_reader_cancel(&r, slot);
	ck_assert(obd_ring_push(answers, &none, obd_entry((uint32_t)slot, 1, 0)));
	ck_assert_uint_eq(obd_reader_poll(&r, 100, no_answer, NULL), 4);
	ck_assert_uint_eq(r.nfree, OBD_REQ_SLOTS);
	obd_store_relaxed(&answers->head, UINT64_MAX / 2);
	obd_reader_poll(&r, 100, no_answer, NULL);
	ck_assert(!obd_reader_has_answer(&r));
}
END_TEST

/* --- the catalog ---------------------------------------------------------------------------------------------------------- */

static void check_view(const struct obd_layer_view *v)
{
	ck_assert_ptr_nonnull(memchr(v->host, 0, sizeof v->host));
	ck_assert_ptr_nonnull(memchr(v->url, 0, sizeof v->url));
	ck_assert_ptr_nonnull(memchr(v->digest, 0, sizeof v->digest));
	ck_assert_ptr_nonnull(memchr(v->path, 0, sizeof v->path));
	if (v->state < OBD_LAYER_MAPPED)
		return;
	ck_assert_uint_le(v->payload_offset, v->blob_bytes);
	ck_assert_uint_le(v->payload_bytes, v->blob_bytes - v->payload_offset);
	if (!v->zfile)
		return;
	const unsigned char *end = seg.index + seg.geo.index_bytes;
	ck_assert((const unsigned char *)v->zf_base >= seg.index);
	ck_assert((const unsigned char *)(v->zf_base + v->zf_nblocks / 64 + 1) <= end);
	ck_assert((const unsigned char *)(v->zf_delta + v->zf_nblocks + 1) <= end);
}

static uint64_t odd_number(uint64_t *seed)
{
	static const uint64_t odd[] = {
		0, 1, 4096, 65536, 1 << 20, UINT32_MAX, UINT64_MAX, UINT64_MAX - 4095, UINT64_C(1) << 63};
	uint64_t r = rnd(seed);
	return r % 3 ? odd[r / 3 % OBD_ARRAY_SIZE(odd)] + r / 64 % 3 - 1 : r >> r % 61;
}

START_TEST(hostile_layers)
{
	struct obd_layer *l = &seg.catalog->layer[5];
	static struct obd_layer_view v;
	struct obd_layer_brief brief;
	uint64_t seed = 9;
	int good = 0;
	memset((void *)l, 'x', sizeof *l);
	for (int i = 0; i < 200000; i++) {
		uint64_t *field = (uint64_t *)(void *)l;
		for (size_t k = 1; k < offsetof(struct obd_layer, host) / 8; k++)
			if (rnd(&seed) % 4)
				field[k] = odd_number(&seed);
		l->local = rnd(&seed) % 8 == 0;
		l->zfile = rnd(&seed) % 8 != 0;
		l->zf_verify = rnd(&seed) % 2;
		l->zf_block_bytes = 1u << (10 + rnd(&seed) % 12);
		if (rnd(&seed) % 2)
			l->zf_nblocks = (l->file_bytes + l->zf_block_bytes - 1) / l->zf_block_bytes;
		obd_store_release(&l->word, obd_word(3, (unsigned int)(rnd(&seed) % 5)));
		if (obd_catalog_layer(&seg, 5, 3, &v) == 0) {
			check_view(&v);
			good++;
		}
		if (obd_catalog_layer_brief(&seg, 5, 3, &brief) == 0)
			ck_assert_uint_le(obd_layer_blocks(&brief, i & 1, BLOCK), (uint64_t)OBD_KEY_MAX_BLOCK + 1);
	}
	ck_assert_int_gt(good, 0);
	ck_assert_int_eq(obd_catalog_layer(&seg, 5, 4, &v), -ESTALE);
	ck_assert_int_eq(obd_catalog_layer(&seg, 5, 0, &v), -ESTALE);
	ck_assert_int_eq(obd_catalog_layer(&seg, OBD_LAYER_SLOTS, 3, &v), -ESTALE);
}
END_TEST

/* --- back-off ------------------------------------------------------------------------------------------------------------- */

static struct miss *fail_one(struct wait *w)
{
	struct miss *m = obd_miss_new(c, OBD_JOB_PROBE, 0, 1, 0, PRIO_DEMAND, 0);
	obd_list_push_back(&m->waits, &w->in_miss);
	obd_miss_failed(c, m, EAGAIN);
	return m;
}

static struct obd_loop_timer *again;
static unsigned int failures;

static void fail_again(void *arg)
{
	static struct wait w[200];
	(void)arg;
	fail_one(&w[failures]);
	if (++failures < OBD_ARRAY_SIZE(w))
		obd_loop_timer_set(again, obd_clock_ns() + 3 * OBD_MS_NS);
	else
		obd_loop_stop(daemon_.loop, 0);
}

START_TEST(failures_do_not_put_off_retries)
{
	struct wait w;
	struct miss *m = fail_one(&w);
	again = obd_loop_timer_new(daemon_.loop, fail_again, NULL);
	obd_loop_timer_set(again, obd_clock_ns() + 3 * OBD_MS_NS);
	obd_loop_run(daemon_.loop); /* much longer than the first back-off */
	ck_assert_int_eq(m->state, MISS_QUEUED);
}
END_TEST

/* --- pins ----------------------------------------------------------------------------------------------------------------- */

static void fetch_all(struct obd_fetchside *fs)
{
	struct obd_fetch_job job;
	for (turn(); obd_fetch_next(fs, &job); turn()) {
		for (uint32_t i = 0; i < job.nblocks; i++) {
			obd_fetch_begin(fs, &job, i);
			obd_fetch_valid(fs, &job, i, BLOCK);
		}
		obd_fetch_done(fs, &job, 0, NULL);
	}
}

static void took_answer(void *arg, void *cookie, int err)
{
	ck_assert_int_eq(err, 0);
	*(bool *)cookie = true;
	(void)arg;
}

/* Clients that never look at their answers. */
START_TEST(stopped_clients_leave_frames)
{
	static struct obd_fetchside fs;
	static struct obd_reader r[CLIENTS];
	bool answered = false;
	obd_fetch_attach(&fs, &seg, 0, 0);
	for (uint32_t i = 0; i < CLIENTS; i++) {
		make_layer(i, i + 1, 30 * BLOCK);
		obd_reader_attach(&r[i], &seg, i, OBD_ROLE_FRONTEND, 1);
		ck_assert_int_eq(obd_client_up(c, i, 1), 0);
		ck_assert_int_ge(obd_reader_post(&r[i], OBD_JOB_BLOCKS, i, i + 1, 0, 16, 0, &answered), 0);
		fetch_all(&fs);
	}
	obd_reader_poll(&r[CLIENTS - 1], 1, took_answer, NULL);
	ck_assert(answered);
	for (uint32_t i = 0; i < CLIENTS; i++)
		obd_client_down(c, i);
	for (uint32_t f = 0; f < FRAMES; f++)
		ck_assert_uint_eq(c->pins[f], 0);
	ck_assert_uint_eq(c->npinned, 0);
}
END_TEST

static void ask(struct obd_reader *r, uint32_t block, uint32_t nblocks, bool *answered)
{
	ck_assert_int_ge(obd_reader_post(r, OBD_JOB_BLOCKS, 0, 1, block, nblocks, 0, answered), 0);
}

/* A server that lives long has held more frames than 32 bits count. */
START_TEST(holds_are_many)
{
	static struct obd_fetchside fs;
	static struct obd_reader r;
	bool answered = false;
	make_layer(0, 1, 30 * BLOCK);
	obd_fetch_attach(&fs, &seg, 0, 0);
	obd_reader_attach(&r, &seg, 1, OBD_ROLE_FRONTEND, 1);
	ck_assert_int_eq(obd_client_up(c, 1, 1), 0);
	c->client[1].hold_head = c->client[1].hold_tail = UINT32_MAX - 3;
	ask(&r, 0, 4, &answered);
	fetch_all(&fs);
	ask(&r, 8, 4, &answered);
	fetch_all(&fs);
	ck_assert_uint_eq(c->npinned, 8);
	ck_assert_uint_eq(obd_reader_poll(&r, 2, took_answer, NULL), 2);
	turn();
	for (uint32_t f = 0; f < FRAMES; f++)
		ck_assert_uint_eq(c->pins[f], 0);
}
END_TEST

/* --- parts of blocks -------------------------------------------------------------------------------------------------------
 */

enum { STEP = BLOCK / 4 };

static struct obd_reader pr;
static struct obd_fetchside pf;
static bool part_answered[8];
static int part_err;

static void start_parts(void)
{
	make_layer(0, 1, 40 * BLOCK - 100);
	obd_reader_attach(&pr, &seg, 1, OBD_ROLE_FRONTEND, 1);
	ck_assert_int_eq(obd_client_up(c, 1, 1), 0);
	memset(part_answered, 0, sizeof part_answered);
}

static void post_bytes(uint32_t i, enum obd_req_prio prio, uint32_t block, uint32_t n, uint32_t begin, uint32_t end)
{
	ck_assert_int_ge(obd_reader_post_part(&pr, OBD_JOB_BLOCKS, 0, 1, block, n, (struct obd_part){begin, end},
					      obd_flow(1, prio), &part_answered[i]),
			 0);
	turn();
}

static void take_part_answer(void *arg, void *cookie, int err)
{
	(void)arg;
	*(bool *)cookie = true;
	part_err = err;
}

static bool is_answered(uint32_t i)
{
	turn();
	obd_reader_poll(&pr, 16, take_part_answer, NULL);
	return part_answered[i];
}

/* Takes the next job, which must be for these bytes, and publishes them, each byte the number of its block. */
static void expect_job(uint32_t block, uint32_t n, uint32_t begin, uint32_t end)
{
	struct obd_fetch_job job;
	turn();
	ck_assert(obd_fetch_next(&pf, &job));
	ck_assert_uint_eq(job.block, block);
	ck_assert_uint_eq(job.nblocks, n);
	ck_assert_uint_eq(job.begin, begin);
	ck_assert_uint_eq(job.end, end);
	for (uint32_t i = 0; i < n; i++) {
		uint32_t b = i ? 0 : begin, e = i + 1 == n && end ? end : BLOCK;
		obd_fetch_begin(&pf, &job, i);
		memset(obd_fetch_data(&pf, &job, i) + b, (int)(block + i), e - b);
		if (e - b == BLOCK)
			obd_fetch_valid(&pf, &job, i, BLOCK);
		else
			obd_fetch_part(&pf, &job, i, b, e);
	}
	obd_fetch_done(&pf, &job, 0, NULL);
	turn();
}

static void expect_no_job(void)
{
	struct obd_fetch_job job;
	turn();
	ck_assert(!obd_fetch_next(&pf, &job));
}

static int copy(uint32_t block, uint32_t offset, uint32_t len)
{
	static unsigned char buf[BLOCK];
	int rc = obd_reader_copy(&pr, 0, 1, false, block, offset, len, buf);
	for (uint32_t i = 0; !rc && i < len; i++)
		if (buf[i] != block)
			ck_abort_msg("byte %u of block %u is %u", offset + i, block, buf[i]);
	return rc;
}

START_TEST(a_part_is_there_and_no_more)
{
	start_parts();
	obd_fetch_attach(&pf, &seg, 0, 0);
	post_bytes(0, OBD_REQ_PREFETCH, 3, 1, STEP, 2 * STEP);
	expect_job(3, 1, STEP, 2 * STEP);
	ck_assert(is_answered(0));
	ck_assert_int_eq(copy(3, STEP, STEP), 0);
	ck_assert_int_eq(copy(3, STEP + 7, 100), 0);
	ck_assert_int_eq(copy(3, STEP - 1, 2), -EAGAIN);
	ck_assert_int_eq(copy(3, 2 * STEP - 1, 2), -EAGAIN);
	ck_assert_int_eq(copy(3, 0, BLOCK), -EAGAIN);
	ck_assert_uint_eq(lookup(obd_key(1, false, 3)), OBD_NO_FRAME); /* for who wants whole blocks */
	/* A demand for what is there costs nothing, any other gets the whole block, in one frame. */
	post_bytes(1, OBD_REQ_DEMAND, 3, 1, STEP + 1, STEP + 9);
	ck_assert(is_answered(1));
	expect_no_job();
	post_bytes(2, OBD_REQ_DEMAND, 3, 1, 0, 8);
	expect_job(3, 1, 0, 0);
	ck_assert(is_answered(2));
	ck_assert_int_eq(copy(3, 0, BLOCK), 0);
	ck_assert_uint_eq(obd_load_relaxed(&seg.table->frames_by_state[OBD_FRAME_VALID]), 1);
	ck_assert_uint_eq(obd_load_relaxed(&seg.table->frames_by_state[OBD_FRAME_FREE]), FRAMES - 1);
}
END_TEST

START_TEST(a_part_grows)
{
	start_parts();
	/* No fetcher yet: what is queued grows by each request. */
	post_bytes(0, OBD_REQ_PREFETCH, 3, 1, 2 * STEP, 3 * STEP);
	post_bytes(1, OBD_REQ_PREFETCH, 3, 1, STEP, STEP + 10);
	post_bytes(2, OBD_REQ_PREFETCH, 5, 1, 0, STEP);
	post_bytes(3, OBD_REQ_DEMAND, 5, 1, 10, 20); /* lends its urgency: that part is enough */
	post_bytes(4, OBD_REQ_PREFETCH, 7, 1, 0, STEP);
	post_bytes(5, OBD_REQ_DEMAND, 7, 1, STEP, STEP + 1);
	obd_fetch_attach(&pf, &seg, 0, 0);
	expect_job(5, 1, 0, STEP);
	expect_job(7, 1, 0, 0);
	expect_job(3, 1, STEP, 3 * STEP);
	for (uint32_t i = 0; i < 6; i++)
		ck_assert(is_answered(i));
	/* And what is there, too. */
	post_bytes(6, OBD_REQ_PREFETCH, 3, 1, 3 * STEP, BLOCK);
	ck_assert(!is_answered(6));
	expect_job(3, 1, STEP, BLOCK);
	ck_assert(is_answered(6));
	post_bytes(7, OBD_REQ_PREFETCH, 3, 1, 0, 1);
	expect_job(3, 1, 0, 0);
	ck_assert(is_answered(7));
	expect_no_job();
}
END_TEST

/* Both wait for a part that is under way; one of them needs more of the block than that. */
START_TEST(who_needs_more_waits_on)
{
	start_parts();
	obd_fetch_attach(&pf, &seg, 0, 0);
	post_bytes(0, OBD_REQ_PREFETCH, 3, 1, 0, STEP);
	post_bytes(1, OBD_REQ_DEMAND, 3, 1, 0, STEP);
	post_bytes(2, OBD_REQ_PREFETCH, 3, 1, STEP, 2 * STEP);
	post_bytes(3, OBD_REQ_PREFETCH, 4, 1, 0, STEP);
	post_bytes(4, OBD_REQ_PREFETCH, 4, 1, 2 * STEP, 3 * STEP);
	expect_job(3, 1, 0, STEP);
	ck_assert(is_answered(0) && is_answered(1) && !is_answered(2));
	expect_job(4, 1, 0, STEP);
	ck_assert(is_answered(3) && !is_answered(4));
	expect_job(3, 1, 0, 0); /* a demand had joined it */
	expect_job(4, 1, 0, 3 * STEP);
	ck_assert(is_answered(2) && is_answered(4));
	expect_no_job();
}
END_TEST

START_TEST(parts_that_meet_are_one_job)
{
	start_parts();
	post_bytes(0, OBD_REQ_PREFETCH, 3, 3, STEP, 2 * STEP);
	post_bytes(1, OBD_REQ_PREFETCH, 10, 1, 0, STEP);
	post_bytes(2, OBD_REQ_PREFETCH, 11, 1, 0, STEP);
	post_bytes(3, OBD_REQ_PREFETCH, 12, 1, STEP, 0);
	post_bytes(4, OBD_REQ_PREFETCH, 13, 1, 0, 0);
	obd_fetch_attach(&pf, &seg, 0, 0);
	expect_job(3, 3, STEP, 2 * STEP);
	expect_job(10, 1, 0, STEP);
	expect_job(11, 1, 0, STEP);
	expect_job(12, 2, STEP, 0);
	for (uint32_t i = 0; i < 5; i++)
		ck_assert(is_answered(i));
	ck_assert_int_eq(copy(4, 0, BLOCK), 0);
	ck_assert_int_eq(copy(12, 0, 1), -EAGAIN);
	ck_assert_int_eq(copy(12, STEP, BLOCK - STEP), 0);
}
END_TEST

/* A fetcher that gives less than it was asked for has failed; nobody goes round in circles with it. */
START_TEST(less_than_the_part_is_a_failure)
{
	struct obd_fetch_job job;
	start_parts();
	obd_fetch_attach(&pf, &seg, 0, 0);
	post_bytes(0, OBD_REQ_DEMAND, 3, 1, 0, 0);
	ck_assert(obd_fetch_next(&pf, &job));
	obd_fetch_begin(&pf, &job, 0);
	obd_fetch_part(&pf, &job, 0, 0, STEP);
	obd_fetch_done(&pf, &job, 0, NULL);
	ck_assert(is_answered(0));
	ck_assert_int_eq(part_err, EIO);
	ck_assert_int_eq(copy(3, 0, 1), -EAGAIN);
}
END_TEST

START_TEST(parts_that_cannot_be)
{
	static const struct {
		uint32_t kind, block, n, begin, end;
	} bad[] = {{OBD_JOB_BLOCKS, 30, 1, BLOCK, 0},
		   {OBD_JOB_BLOCKS, 26, 1, 0, BLOCK + 1},
		   {OBD_JOB_BLOCKS, 22, 1, 5, 5},
		   {OBD_JOB_BLOCKS, 18, 1, 100, 50},
		   {OBD_JOB_RAW, 3, 1, 0, 10},
		   {OBD_JOB_PROBE, 0, 0, 1, 2},
		   {OBD_JOB_BLOCKS, 39, 1, BLOCK - 100, 0},
		   {OBD_JOB_BLOCKS, 3, 2, UINT32_MAX, UINT32_MAX}};
	start_parts();
	obd_fetch_attach(&pf, &seg, 0, 0);
	for (size_t i = 0; i < OBD_ARRAY_SIZE(bad); i++) {
		part_answered[0] = false;
		ck_assert_int_ge(obd_reader_post_part(&pr, (enum obd_job_kind)bad[i].kind, 0, 1, bad[i].block, bad[i].n,
						      (struct obd_part){bad[i].begin, bad[i].end}, 0, &part_answered[0]),
				 0);
		ck_assert(is_answered(0));
		ck_assert_int_eq(part_err, EPROTO);
	}
	expect_no_job();
}
END_TEST

/* What a job under way fetches is in its row; what a frame holds is not known any more, so it goes. */
START_TEST(a_new_cached_knows_the_parts_under_way)
{
	start_parts();
	obd_fetch_attach(&pf, &seg, 0, 0);
	post_bytes(0, OBD_REQ_PREFETCH, 3, 1, 0, STEP);
	expect_job(3, 1, 0, STEP);
	ck_assert(is_answered(0));
	post_bytes(1, OBD_REQ_PREFETCH, 5, 1, STEP, 2 * STEP);
	static struct cached *killed; /* still to be found, so that it is not taken for a leak */
	killed = c;
	start_cached();
	ck_assert_ptr_ne(c, killed);
	ck_assert_int_eq(copy(3, 0, 1), -EAGAIN);
	ck_assert_int_eq(obd_client_up(c, 1, 1), 0);
	post_bytes(2, OBD_REQ_DEMAND, 5, 1, 0, 1);
	expect_job(5, 1, STEP, 2 * STEP);
	ck_assert(!is_answered(2));
	expect_job(5, 1, 0, 0);
	ck_assert(is_answered(2));
}
END_TEST

/* --- requests that were given up ------------------------------------------------------------------------------------------ */

/* No fetcher is there. What nobody wants any more is forgotten, and does not pile up. */
START_TEST(given_up_and_forgotten)
{
	static struct obd_reader r;
	make_layer(0, 1, 1u << 30);
	obd_reader_attach(&r, &seg, 1, OBD_ROLE_FRONTEND, 1);
	ck_assert_int_eq(obd_client_up(c, 1, 1), 0);
	for (uint32_t i = 0; i < 1000; i++) {
		enum obd_job_kind kind = i % 3 ? OBD_JOB_BLOCKS : OBD_JOB_PROBE;
		int slot = obd_reader_post(&r, kind, 0, 1, 20 * i, i % 3, 0, &r);
		ck_assert_int_ge(slot, 0);
		turn();
		obd_reader_cancel(&r, slot);
	}
	ck_assert_uint_le(c->nmisses, 2);
	obd_client_down(c, 1);
	ck_assert_uint_eq(c->nmisses, 0);
}
END_TEST

/* --- priorities ----------------------------------------------------------------------------------------------------------- */

static void want(struct obd_reader *r, uint32_t block, uint32_t flow)
{
	static bool answered;
	ck_assert_int_ge(obd_reader_post(r, OBD_JOB_BLOCKS, 0, 1, block, 1, flow, &answered), 0);
	turn();
}

/* More prefetch than may be under way does not hold up what somebody waits for, in whatever block. */
START_TEST(demand_goes_before_prefetch)
{
	static struct obd_fetchside fs;
	static struct obd_reader r;
	make_layer(0, 1, 1u << 30);
	obd_fetch_attach(&fs, &seg, 0, 0);
	obd_reader_attach(&r, &seg, 1, OBD_ROLE_FRONTEND, 1);
	ck_assert_int_eq(obd_client_up(c, 1, 1), 0);
	for (uint32_t i = 0; i < 50; i++)
		want(&r, 2 * i, obd_flow(1, OBD_REQ_PREFETCH));
	uint32_t queued = c->queued[PRIO_PREFETCH];
	ck_assert_uint_gt(queued, 1);
	ck_assert_uint_gt(c->inflight[PRIO_PREFETCH], 0);
	ck_assert_uint_le(c->inflight[PRIO_PREFETCH], FRAMES / 4);
	want(&r, 1001, obd_flow(2, OBD_REQ_DEMAND));
	ck_assert_uint_eq(c->queued[PRIO_DEMAND], 0);
	ck_assert_uint_eq(c->inflight[PRIO_DEMAND], 1);
	struct miss *m = obd_miss_find(c, obd_key(1, false, 98)); /* the last of those that are queued */
	ck_assert_int_eq(m->state, MISS_QUEUED);
	want(&r, 98, obd_flow(2, OBD_REQ_DEMAND));
	ck_assert_int_eq(m->state, MISS_INFLIGHT);
	ck_assert_uint_eq(c->queued[PRIO_PREFETCH], queued - 1);
	ck_assert_uint_eq(c->inflight[PRIO_DEMAND], 2);
}
END_TEST

/* One image's storm takes no more than its share of a host's jobs, and never the way of another's first. */
START_TEST(a_storm_leaves_a_way)
{
	static struct obd_fetchside fs[FETCHERS];
	static struct obd_reader r;
	make_layer(0, 1, 1u << 30);
	for (uint32_t f = 0; f < FETCHERS; f++)
		obd_fetch_attach(&fs[f], &seg, f, 0);
	obd_reader_attach(&r, &seg, 1, OBD_ROLE_FRONTEND, 1);
	ck_assert_int_eq(obd_client_up(c, 1, 1), 0);
	for (uint32_t i = 0; i < 200; i++)
		want(&r, 20 * i, obd_flow(1, OBD_REQ_DEMAND));
	uint32_t jobs = obd_host_known(c, 1)->jobs;
	ck_assert_uint_gt(c->queued[PRIO_DEMAND], 100);
	for (uint32_t flow = 2; flow < 5; flow++) {
		want(&r, 10000 + flow, obd_flow(flow, OBD_REQ_DEMAND));
		ck_assert_uint_eq(obd_host_known(c, 1)->jobs, ++jobs);
	}
}
END_TEST

/* --- readahead ------------------------------------------------------------------------------------------------------------ */

static void read_blocks(struct obd_reader *r, struct obd_fetchside *fs, uint32_t (*place)(uint32_t i), uint32_t n)
{
	static bool answered;
	for (uint32_t i = 0; i < n; i++) {
		unsigned char byte;
		uint32_t b = place(i);
		if (obd_reader_copy(r, 0, 1, false, b, 0, 1, &byte) == 0)
			continue;
		ck_assert_int_ge(obd_reader_post(r, OBD_JOB_BLOCKS, 0, 1, b, 1, obd_flow(1, OBD_REQ_DEMAND), &answered), 0);
		fetch_all(fs);
		obd_reader_poll(r, 16, took_answer, NULL);
	}
}

static uint32_t in_order(uint32_t i)
{
	return i;
}

static uint32_t at_random(uint32_t i)
{
	uint64_t seed = i + 1;
	return (uint32_t)(rnd(&seed) % 8192);
}

static uint64_t ahead(void)
{
	return obd_load_relaxed(&seg.table->proc.counters[OBD_C_readahead]);
}

START_TEST(readahead_knows_streams)
{
	static struct obd_fetchside fs;
	static struct obd_reader r;
	make_layer(0, 1, (uint64_t)8192 * BLOCK);
	obd_fetch_attach(&fs, &seg, 0, 0);
	obd_reader_attach(&r, &seg, 1, OBD_ROLE_FRONTEND, 1);
	ck_assert_int_eq(obd_client_up(c, 1, 1), 0);
	read_blocks(&r, &fs, at_random, 4000);
	ck_assert_uint_le(ahead(), 20); /* of 4000 */
	uint64_t before = ahead();
	read_blocks(&r, &fs, in_order, 2);
	ck_assert_uint_eq(ahead(), before);
	read_blocks(&r, &fs, in_order, 400);
	ck_assert_uint_ge(ahead(), before + 300);
	c->window_blocks = 0;
	before = ahead();
	read_blocks(&r, &fs, in_order, 800);
	ck_assert_uint_le(ahead(), before + 8); /* what was under way */
}
END_TEST

/* Nobody waits for a prefetch that was given up. */
START_TEST(given_up_prefetch)
{
	static struct obd_reader r;
	make_layer(0, 1, 1u << 30);
	obd_reader_attach(&r, &seg, 1, OBD_ROLE_FRONTEND, 1);
	ck_assert_int_eq(obd_client_up(c, 1, 1), 0);
	for (uint32_t i = 0; i < 50; i++)
		want(&r, 2 * i, obd_flow(i % 3, OBD_REQ_PREFETCH));
	obd_client_down(c, 1);
	ck_assert_uint_eq(c->nmisses, 0);
	ck_assert_uint_eq(c->queued[PRIO_PREFETCH], 0);
}
END_TEST

/* --- hostile areas -------------------------------------------------------------------------------------------------------- */

static void scribble_requests(struct obd_client_area *a, uint64_t *seed)
{
	for (int i = 0; i < 64; i++) {
		struct obd_req *q = &a->req[rnd(seed) % OBD_REQ_SLOTS];
		q->layer_slot = rnd(seed) % 4 ? (uint32_t)(rnd(seed) % 3) : (uint32_t)odd_number(seed);
		q->layer_uid = rnd(seed) % 4 ? (uint32_t)(rnd(seed) % 3) : (uint32_t)odd_number(seed);
		q->block = rnd(seed) % 2 ? (uint32_t)(rnd(seed) % 40) : (uint32_t)odd_number(seed);
		q->nblocks = rnd(seed) % 2 ? (uint32_t)(rnd(seed) % 70) : (uint32_t)odd_number(seed);
		q->kind = (uint32_t)(rnd(seed) % 4);
		q->posted_ns = odd_number(seed);
		q->flow = (uint32_t)odd_number(seed);
		obd_store_release(&q->word, obd_word(rnd(seed) % 5, (unsigned int)(rnd(seed) % 4)));
	}
}

static void scribble_client(struct obd_client_area *a, uint64_t *seed)
{
	uint64_t head = obd_load_relaxed(&a->requests.head);
	scribble_requests(a, seed);
	for (int i = 0; i < 64; i++)
		obd_store_relaxed(&a->requests.entry[head++ & OBD_RING_MASK],
				  rnd(seed) % 4 ? obd_entry((uint32_t)(rnd(seed) % OBD_REQ_SLOTS), 1, 0) : rnd(seed));
	obd_store_release(&a->requests.head, rnd(seed) % 16 ? head : odd_number(seed));
	if (rnd(seed) % 4 == 0)
		obd_store_relaxed(&a->answers_tail.tail, odd_number(seed));
	else
		obd_store_relaxed(&a->answers_tail.tail, obd_load_relaxed(&seg.table->client[1].answers.head));
}

static void scribble_fetcher(uint32_t f, uint64_t *seed)
{
	struct obd_fetcher_area *a = seg.fetcher[f];
	uint64_t head = obd_load_relaxed(&a->reports.head);
	obd_store_relaxed(&a->proc.magic, OBD_SEG_MAGIC);
	obd_store_relaxed(&a->proc.incarnation, rnd(seed) % 8 ? 0 : (uint32_t)rnd(seed));
	for (uint32_t s = 0; s < OBD_JOB_SLOTS; s++) {
		uint64_t seq = obd_word_seq(obd_load_relaxed(&seg.table->fetcher[f].job[s].word));
		if (rnd(seed) % 8 == 0)
			obd_store_relaxed(&a->done[s].word,
					  seq << 16 | (rnd(seed) % 3 ? rnd(seed) % 150 : odd_number(seed) % 65536));
	}
	for (int i = 0; i < 16; i++) {
		struct obd_fill *fill = &seg.fills[rnd(seed) % FRAMES];
		uint32_t frame = (uint32_t)(fill - seg.fills);
		fill->err = rnd(seed) % 2 ? EAGAIN : (uint32_t)odd_number(seed);
		fill->key = rnd(seed) % 4 ? seg.frame[frame].key : rnd(seed);
		obd_store_relaxed(&fill->word, obd_word(seg.frame[frame].generation, (unsigned int)(rnd(seed) % 5)));
	}
	for (int i = 0; i < 16; i++)
		obd_store_relaxed(&a->reports.entry[head++ & OBD_RING_MASK],
				  rnd(seed) % 4 ? rnd(seed) % OBD_JOB_SLOTS : rnd(seed));
	obd_store_release(&a->reports.head, rnd(seed) % 16 ? head : odd_number(seed) % 100000);
}

static uint32_t in_state(enum obd_frame_state state)
{
	uint32_t n = 0;
	for (uint32_t f = 0; f < FRAMES; f++)
		n += seg.frame[f].state == state;
	return n;
}

START_TEST(cached_survives_hostile_areas)
{
	uint64_t seed = 77 + (uint64_t)_i;
	make_layer(0, 1, 30 * BLOCK);
	make_layer(1, 2, 30 * BLOCK + 5);
	ck_assert_int_eq(obd_client_up(c, 1, 1), 0);
	for (int i = 0; i < 3000; i++) {
		scribble_client(seg.client[1], &seed);
		scribble_fetcher(rnd(&seed) % FETCHERS, &seed);
		turn();
		if (rnd(&seed) % 50 == 0) {
			obd_client_down(c, 1);
			ck_assert_int_eq(obd_client_up(c, 1, 1), 0);
		}
		if (rnd(&seed) % 50 == 0)
			obd_jobs_reaped(c, (uint32_t)(rnd(&seed) % 3), (uint32_t)(rnd(&seed) % 3));
		obd_misses_turn(c);
	}
	ck_assert_uint_eq(c->nfree, in_state(OBD_FRAME_FREE));
	ck_assert_uint_eq(in_state(OBD_FRAME_EVICTING) + in_state(OBD_FRAME_FAILED), 0);
	obd_client_down(c, 1);
	for (uint32_t f = 0; f < FRAMES; f++)
		ck_assert_uint_eq(c->pins[f], 0);
	ck_assert_uint_eq(c->nwaiting, 0);
}
END_TEST

/* --- background downloads ---------------------------------------------------------------------------------------------------
 */

enum { WANT_SLOT = 3, WANT_UID = 77, WANT_BLOCK = 16384 };

static void make_want(uint32_t try_cnt)
{
	struct obd_want *w = &seg.catalog->want[WANT_SLOT];
	*w = (struct obd_want){.layer_slot = 0, .layer_uid = 1, .block_bytes = WANT_BLOCK, .try_cnt = try_cnt, .dir = "/d"};
	obd_store_release(&w->word, obd_word(WANT_UID, OBD_WANT_WANTED));
}

static void download_turn(void)
{
	obd_jobs_poll(c);
	obd_downloads_turn(c);
}

static void end_step(struct obd_fetchside *fs, struct obd_fetch_job *job, int err, struct obd_down_result result)
{
	obd_fetch_down_result(fs, job, &result);
	obd_fetch_done(fs, job, err, err ? "why" : NULL);
	download_turn();
}

static void next_step(struct obd_fetchside *fs, struct obd_fetch_job *job, enum obd_down_op op)
{
	ck_assert(obd_fetch_next(fs, job));
	ck_assert_int_eq(job->kind, OBD_JOB_DOWNLOAD);
	ck_assert_uint_eq(job->down.op, op);
	ck_assert_uint_eq(job->down.want_uid, WANT_UID);
}

static unsigned int down_state(void)
{
	return obd_word_state(obd_load_relaxed(&seg.table->down[WANT_SLOT].word));
}

static struct cached *volatile earlier; /* as if it had been killed; kept so that it is no leak */

/* Through all states, with a fetcher's death and a cached's in between. */
START_TEST(download_from_want_to_local)
{
	struct obd_fetchside fs, next;
	struct obd_fetch_job job, job2;
	struct obd_local_now local;
	make_layer(0, 1, 3 * WANT_BLOCK);
	make_want(2);
	obd_fetch_attach(&fs, &seg, 0, 0);
	ck_assert_int_eq(obd_downloads_init(c), 0);
	obd_downloads_tick(c);
	next_step(&fs, &job, OBD_DOWN_PREPARE);
	end_step(&fs, &job, 0, (struct obd_down_result){.floor = WANT_BLOCK});
	next_step(&fs, &job, OBD_DOWN_RANGE);
	ck_assert_uint_ge(job.down.start, WANT_BLOCK);
	obd_jobs_reaped(c, 0, 0); /* it dies with the range: the next one gets the same */
	download_turn();
	obd_fetch_attach(&next, &seg, 0, 1);
	obd_downloads_tick(c);
	next_step(&next, &job, OBD_DOWN_RANGE);
	ck_assert_uint_ge(job.down.start, WANT_BLOCK);
	end_step(&next, &job, 0, (struct obd_down_result){.from_registry = 1});
	ck_assert_int_eq(down_state(), OBD_DOWN_RUNNING);
	earlier = c;
	start_cached(); /* another cached: PREPARE again, and the range under way is nobody's */
	ck_assert_int_eq(obd_downloads_init(c), 0);
	ck_assert_int_eq(down_state(), OBD_DOWN_WAITING);
	obd_downloads_tick(c);
	while (obd_fetch_next(&next, &job2))
		if (job2.down.op == OBD_DOWN_RANGE)
			end_step(&next, &job2, 0, (struct obd_down_result){.from_registry = 1});
		else
			job = job2;
	ck_assert_uint_eq(job.down.op, OBD_DOWN_PREPARE);
	end_step(&next, &job, 0, (struct obd_down_result){.floor = UINT64_MAX}); /* more than there is: all */
	next_step(&next, &job, OBD_DOWN_FINISH);
	ck_assert_int_eq(down_state(), OBD_DOWN_VERIFYING);
	ck_assert(!obd_local_now(&seg, 0, 1, &local));
	end_step(&next, &job, 0, (struct obd_down_result){.dev = 4, .ino = 5, .mtime_ns = 6});
	ck_assert_int_eq(down_state(), OBD_DOWN_LOCAL);
	ck_assert(obd_local_now(&seg, 0, 1, &local));
	ck_assert(local.ino == 5 && local.bytes == 3 * WANT_BLOCK && strcmp(local.dir, "/d") == 0);
	ck_assert(!obd_local_now(&seg, 0, 2, &local));
	obd_store_release(&seg.catalog->want[WANT_SLOT].word, obd_word(WANT_UID, OBD_WANT_FREE));
	ck_assert(!obd_local_now(&seg, 0, 1, &local));
	obd_downloads_tick(c);
	ck_assert_int_eq(down_state(), OBD_DOWN_FREE);
	ck_assert_uint_eq(obd_load_relaxed(&seg.table->local[0]), 0);
}
END_TEST

/* A registry that is away costs no try; a disk that is full does. */
START_TEST(download_tries)
{
	struct obd_fetchside fs;
	struct obd_fetch_job job;
	struct obd_down *row = &seg.table->down[WANT_SLOT];
	make_layer(0, 1, 3 * WANT_BLOCK);
	make_want(2);
	obd_fetch_attach(&fs, &seg, 0, 0);
	ck_assert_int_eq(obd_downloads_init(c), 0);
	static const struct {
		int err;
		enum obd_down_fault fault;
		uint32_t tries;
		enum obd_down_state state;
	} steps[] = {{EAGAIN, OBD_DOWN_FAULT_SOURCE, 0, OBD_DOWN_WAITING},
		     {EBUSY, OBD_DOWN_FAULT_BUSY, 0, OBD_DOWN_WAITING},
		     {ENOSPC, OBD_DOWN_FAULT_DISK, 1, OBD_DOWN_WAITING},
		     {EACCES, OBD_DOWN_FAULT_SOURCE, 2, OBD_DOWN_FAILED}};
	for (size_t i = 0; i < OBD_ARRAY_SIZE(steps); i++) {
		obd_downloads_tick(c);
		next_step(&fs, &job, OBD_DOWN_PREPARE);
		end_step(&fs, &job, steps[i].err, (struct obd_down_result){.fault = steps[i].fault});
		ck_assert_uint_eq(obd_load_relaxed(&row->tries), steps[i].tries);
		ck_assert_int_eq(down_state(), steps[i].state);
		ck_assert(i == 3 || obd_load_relaxed(&row->next_ns) > obd_clock_ns());
		ck_assert_str_eq(row->reason, "why");
		obd_store_relaxed(&row->next_ns, 0);
	}
	obd_downloads_tick(c);
	ck_assert(!obd_fetch_next(&fs, &job));
}
END_TEST

START_TEST(hostile_wants)
{
	struct obd_want_view v;
	struct obd_want *w = &seg.catalog->want[WANT_SLOT];
	make_want(1);
	ck_assert_int_eq(obd_want_copy(&seg, WANT_SLOT, WANT_UID, &v), 0);
	ck_assert_int_eq(obd_want_copy(&seg, WANT_SLOT, WANT_UID + 1, &v), -ESTALE);
	ck_assert_int_eq(obd_want_copy(&seg, OBD_WANT_SLOTS, WANT_UID, &v), -ESTALE);
	memset(w->dir, '/', sizeof w->dir);
	ck_assert_int_eq(obd_want_copy(&seg, WANT_SLOT, WANT_UID, &v), 0);
	ck_assert_uint_eq(strlen(v.dir), OBD_DIR_BYTES - 1);
	w->dir[0] = 'd';
	ck_assert_int_eq(obd_want_copy(&seg, WANT_SLOT, WANT_UID, &v), -EPROTO);
	make_want(0);
	ck_assert_int_eq(obd_want_copy(&seg, WANT_SLOT, WANT_UID, &v), -EPROTO);
	make_want(1);
	w->block_bytes = 1;
	ck_assert_int_eq(obd_want_copy(&seg, WANT_SLOT, WANT_UID, &v), -EPROTO);
	make_want(1);
	w->layer_slot = OBD_LAYER_SLOTS;
	ck_assert_int_eq(obd_want_copy(&seg, WANT_SLOT, WANT_UID, &v), -EPROTO);
}
END_TEST

START_TEST(fetchside_refuses_impossible_jobs)
{
	static struct obd_fetchside fs;
	struct obd_fetch_job job;
	struct obd_job *j = &seg.table->fetcher[0].job[7];
	obd_fetch_attach(&fs, &seg, 0, 0);
	for (int i = 0; i < 5; i++) {
		*j = (struct obd_job){.kind = OBD_JOB_BLOCKS, .layer_uid = 1, .nblocks = 1, .generation[0] = 1};
		if (i == 0)
			j->nblocks = OBD_JOB_FRAMES + 1;
		else if (i == 1)
			j->frame[0] = FRAMES;
		else if (i == 2)
			j->block = UINT32_MAX;
		else if (i == 3)
			j->kind = 77;
		else
			j->nblocks = 0;
		obd_store_release(&j->word, obd_word(1 + (uint64_t)i, OBD_JOB_ISSUED));
		fs.rescan = 0;
		ck_assert(!obd_fetch_next(&fs, &job));
	}
	ck_assert_uint_eq(obd_load_relaxed(&fs.own->proc.counters[OBD_C_protocol_errors]), 5);
	*j = (struct obd_job){.kind = OBD_JOB_BLOCKS, .layer_uid = 1, .nblocks = 1, .generation[0] = 1};
	obd_store_release(&j->word, obd_word(9, OBD_JOB_ISSUED));
	fs.rescan = 0;
	ck_assert(obd_fetch_next(&fs, &job));
	ck_assert_uint_eq(job.seq, 9);
	fs.rescan = 0;
	ck_assert(!obd_fetch_next(&fs, &job)); /* once only */
	obd_fetch_done(&fs, &job, EIO, NULL);
	fs.rescan = 0;
	ck_assert(!obd_fetch_next(&fs, &job)); /* nor when it is done and cached has not seen that */
	obd_fetch_attach(&fs, &seg, 0, 1);
	ck_assert(!obd_fetch_has_work(&fs)); /* not admitted */
	ck_assert(!obd_fetch_next(&fs, &job));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("shmcache");
	TCase *t = tcase_create("shmcache");
	tcase_add_checked_fixture(t, set_up, NULL);
	tcase_set_timeout(t, 300);
	tcase_add_test(t, ring_order_and_room);
	tcase_add_test(t, ring_hostile_head);
	tcase_add_test(t, ring_hostile_tail);
	tcase_add_test(t, ring_of_a_fresh_area);
	tcase_add_test(t, entries);
	tcase_add_test(t, raw_chunks_cover_the_blob_once);
	tcase_add_test(t, geometry);
	tcase_add_test(t, region_too_short);
	tcase_add_test(t, buckets_hold_what_the_cache_holds);
	tcase_add_test(t, recency_never_keeps_all);
	tcase_add_test(t, pins_do_not_hide_the_rest);
	tcase_add_test(t, two_buckets_and_no_more);
	tcase_add_test(t, hostile_buckets_are_hints);
	tcase_add_test(t, transitions_that_exist);
	tcase_add_loop_test_raise_signal(t, transitions_that_do_not, SIGABRT, 0, OBD_FRAME_STATES * OBD_FRAME_STATES);
	tcase_add_test(t, copies_stay_inside_the_block);
	tcase_add_test(t, answers_of_another_sequence);
	tcase_add_test(t, hostile_layers);
	tcase_add_test(t, stopped_clients_leave_frames);
	tcase_add_test(t, holds_are_many);
	tcase_add_test(t, a_part_is_there_and_no_more);
	tcase_add_test(t, a_part_grows);
	tcase_add_test(t, who_needs_more_waits_on);
	tcase_add_test(t, parts_that_meet_are_one_job);
	tcase_add_test(t, less_than_the_part_is_a_failure);
	tcase_add_test(t, parts_that_cannot_be);
	tcase_add_test(t, a_new_cached_knows_the_parts_under_way);
	tcase_add_test(t, given_up_and_forgotten);
	tcase_add_test(t, failures_do_not_put_off_retries);
	tcase_add_test(t, demand_goes_before_prefetch);
	tcase_add_test(t, a_storm_leaves_a_way);
	tcase_add_test(t, given_up_prefetch);
	tcase_add_test(t, readahead_knows_streams);
	tcase_add_loop_test(t, cached_survives_hostile_areas, 0, 4);
	tcase_add_test(t, download_from_want_to_local);
	tcase_add_test(t, download_tries);
	tcase_add_test(t, hostile_wants);
	tcase_add_test(t, fetchside_refuses_impossible_jobs);
	suite_add_tcase(s, t);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
