/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "common/base/clock.h"
#include "common/format/merge.h"
#include "test/unit/golden.h"

#define MAP_SECTORS 40000u

/* The naive model: for each sector who maps it, and where. */
struct cell {
	uint64_t moffset;
	int16_t tag; /* -1: nobody */
	bool zeroed;
};

static struct cell map[MAP_SECTORS];

static void map_clear(void)
{
	for (uint32_t i = 0; i < MAP_SECTORS; i++)
		map[i] = (struct cell){.tag = -1};
}

static void map_put(struct obd_lsmt_seg s, int16_t tag)
{
	for (uint32_t i = 0; i < obd_lsmt_seg_length(s); i++)
		map[obd_lsmt_seg_offset(s) + i] =
			(struct cell){.moffset = obd_lsmt_seg_moffset(s) + i, .tag = tag, .zeroed = obd_lsmt_seg_zeroed(s)};
}

/* A sorted random layer in `span` sectors. */
static size_t random_layer(struct obd_lsmt_seg *seg, size_t max, uint32_t span, uint32_t longest, uint64_t *seed)
{
	uint64_t at = rnd(seed) % 50, moffset = 8;
	size_t n = 0;
	while (n < max && at < span) {
		uint32_t len = (uint32_t)obd_min_u64(1 + rnd(seed) % longest, span - at);
		bool zeroed = rnd(seed) % 4 == 0;
		seg[n++] = obd_lsmt_seg_make(at, len, moffset, zeroed, (uint8_t)rnd(seed));
		at += len + (rnd(seed) % 3 ? 0 : rnd(seed) % longest);
		if (!zeroed)
			moffset += len + (rnd(seed) % 2 ? 0 : 5);
	}
	return n;
}

/* Whether sector `at` may be missing from the index. */
static bool may_miss(uint32_t at, bool part)
{
	return map[at].tag < 0 || (!part && map[at].zeroed);
}

static bool cell_is(uint32_t at, struct obd_lsmt_seg s, bool part)
{
	const struct cell *c = &map[at];
	if (c->tag != obd_lsmt_seg_tag(s) || c->zeroed != obd_lsmt_seg_zeroed(s))
		return false;
	return c->zeroed ? part : c->moffset == obd_lsmt_seg_moffset(s) + at - obd_lsmt_seg_offset(s);
}

/* Form, content and joins of a merged index against the map. Plain ifs: Check's asserts cost a system call each. */
static void expect_map(const struct obd_lsmt_seg *seg, size_t n, uint32_t span, bool part)
{
	uint32_t at = 0;
	for (size_t i = 0; i < n; i++) {
		const uint64_t from = obd_lsmt_seg_offset(seg[i]), to = obd_lsmt_seg_end(seg[i]);
		if (from < at || from >= to || to > span)
			ck_abort_msg("segment %zu of %zu is out of order", i, n);
		if (i && obd_lsmt_seg_joins(seg[i - 1], seg[i]))
			ck_abort_msg("segment %zu should have been joined", i);
		for (; at < from; at++)
			if (!may_miss(at, part))
				ck_abort_msg("sector %u is missing", at);
		for (; at < to; at++)
			if (!cell_is(at, seg[i], part))
				ck_abort_msg("sector %u is wrong", at);
	}
	for (; at < span; at++)
		if (!may_miss(at, part))
			ck_abort_msg("sector %u is missing", at);
}

static void expect_lookup(const struct obd_lsmt_seg *seg, size_t n, uint32_t span)
{
	size_t i = 0;
	for (uint32_t s = 0; s < span + 5; s++) {
		while (i < n && obd_lsmt_seg_end(seg[i]) <= s)
			i++;
		if (obd_lsmt_lookup(seg, n, s) != i)
			ck_abort_msg("lookup of %u: expected %zu", s, i);
	}
}

static void one_merge(unsigned nlayers, size_t max, uint32_t span, uint32_t longest, uint64_t *seed)
{
	struct obd_lsmt_layer_index *layers = calloc(nlayers, sizeof(*layers));
	struct obd_lsmt_seg **bufs = calloc(nlayers, sizeof(*bufs)), *out;
	size_t n;
	map_clear();
	for (unsigned i = 0; i < nlayers; i++) {
		bufs[i] = malloc(max * sizeof(**bufs));
		layers[i].seg = bufs[i];
		layers[i].n = rnd(seed) % 7 ? random_layer(bufs[i], max, span, longest, seed) : 0;
		for (size_t k = 0; k < layers[i].n; k++)
			map_put(bufs[i][k], (int16_t)i);
	}
	ck_assert_int_eq(obd_lsmt_merge(layers, nlayers, &out, &n), 0);
	expect_map(out, n, span, false);
	expect_lookup(out, n, span);
	free(out);
	ck_assert_int_eq(obd_lsmt_merge_part(layers, nlayers, &out, &n), 0);
	expect_map(out, n, span, true);
	expect_lookup(out, n, span);
	free(out);
	for (unsigned i = 0; i < nlayers; i++)
		free(bufs[i]);
	free(bufs);
	free(layers);
}

START_TEST(test_against_model)
{
	uint64_t seed = 2026;
	for (int i = 0; i < 400; i++)
		one_merge(1 + (unsigned)(rnd(&seed) % 20), 200, 1000 + (uint32_t)(rnd(&seed) % 3000),
			  1 + (uint32_t)(rnd(&seed) % 80), &seed);
	for (int i = 0; i < 30; i++)
		one_merge(4, 100, MAP_SECTORS, OBD_LSMT_LENGTH_MAX, &seed);
	for (int i = 0; i < 4; i++)
		one_merge(255, 300, 20000, 60, &seed);
}
END_TEST

START_TEST(test_write_order)
{
	static struct obd_lsmt_seg rec[3000];
	uint64_t seed = 5;
	for (int round = 0; round < 150; round++) {
		const uint32_t span = 4000;
		const size_t n = rnd(&seed) % 3000;
		struct obd_lsmt_seg *out;
		size_t n_out;
		map_clear();
		for (size_t i = 0; i < n; i++) {
			uint64_t at = i && rnd(&seed) % 2 ? obd_lsmt_seg_end(rec[i - 1]) % span : rnd(&seed) % span;
			uint32_t len = (uint32_t)obd_min_u64(1 + rnd(&seed) % 100, span - at);
			rec[i] = obd_lsmt_seg_make(at, len, 8 + 101 * i, rnd(&seed) % 5 == 0, (uint8_t)(rnd(&seed) % 2));
			map_put(rec[i], obd_lsmt_seg_tag(rec[i]));
		}
		ck_assert_int_eq(obd_lsmt_normalise(rec, n, &out, &n_out), 0);
		expect_map(out, n_out, span, true);
		free(out);
	}
}
END_TEST

START_TEST(test_joins)
{
	const struct obd_lsmt_seg lower[] = {obd_lsmt_seg_make(0, 16000, 8, false, 0),
					     obd_lsmt_seg_make(16000, 383, 16008, false, 0),
					     obd_lsmt_seg_make(16383, 10, 16391, false, 0)};
	const struct obd_lsmt_seg upper[] = {obd_lsmt_seg_make(100, 1, 8, true, 0)};
	const struct obd_lsmt_layer_index layers[] = {{lower, 3}, {upper, 1}};
	struct obd_lsmt_seg *out;
	size_t n;
	ck_assert_int_eq(obd_lsmt_merge(layers, 1, &out, &n), 0);
	ck_assert_uint_eq(n, 2);
	ck_assert_uint_eq(obd_lsmt_seg_length(out[0]), OBD_LSMT_LENGTH_MAX);
	free(out);
	ck_assert_int_eq(obd_lsmt_merge(layers, 2, &out, &n), 0);
	ck_assert_uint_eq(n, 2);
	ck_assert_uint_eq(obd_lsmt_seg_end(out[0]), 100);
	ck_assert_uint_eq(obd_lsmt_seg_offset(out[1]), 101);
	ck_assert_uint_eq(obd_lsmt_seg_moffset(out[1]), 109);
	ck_assert_uint_eq(obd_lsmt_seg_end(out[1]), 16393);
	free(out);
	/* A stack of nothing but zeros is nothing. */
	const struct obd_lsmt_layer_index zeros = {upper, 1};
	ck_assert_int_eq(obd_lsmt_merge(&zeros, 1, &out, &n), 0);
	ck_assert_uint_eq(n, 0);
	ck_assert_ptr_null(out);
	ck_assert_int_eq(obd_lsmt_merge_part(&zeros, 1, &out, &n), 0);
	ck_assert_uint_eq(n, 1);
	free(out);
}
END_TEST

START_TEST(test_refusals)
{
	static struct obd_lsmt_layer_index many[256];
	struct obd_lsmt_seg *out, bad[2] = {obd_lsmt_seg_make(10, 5, 8, false, 0), obd_lsmt_seg_make(14, 5, 8, false, 0)};
	struct obd_lsmt_layer_index layer = {bad, 2};
	size_t n;
	ck_assert_int_eq(obd_lsmt_merge(many, 256, &out, &n), -EINVAL);
	ck_assert_int_eq(obd_lsmt_merge(many, 255, &out, &n), 0);
	ck_assert_int_eq(obd_lsmt_merge(many, 0, &out, &n), 0);
	ck_assert_uint_eq(n, 0);
	ck_assert_int_eq(obd_lsmt_merge(&layer, 1, &out, &n), -EINVAL);
	bad[1] = obd_lsmt_seg_make(20, 0, 8, false, 0);
	ck_assert_int_eq(obd_lsmt_merge(&layer, 1, &out, &n), -EINVAL);
	ck_assert_int_eq(obd_lsmt_normalise(bad, 2, &out, &n), -EINVAL);
	bad[1] = obd_lsmt_seg_make(OBD_LSMT_PADDING - 1, 2, 8, false, 0);
	ck_assert_int_eq(obd_lsmt_merge(&layer, 1, &out, &n), -EINVAL);
}
END_TEST

/* Random memory in place of an index: the answer is in range, nothing else is read (run under ASan). */
START_TEST(test_hostile_lookup)
{
	uint64_t seed = 77;
	for (int i = 0; i < 3000; i++) {
		size_t n = rnd(&seed) % 70;
		struct obd_lsmt_seg *seg = malloc(n ? n * sizeof(*seg) : 1);
		for (size_t k = 0; k < n; k++)
			seg[k] = (struct obd_lsmt_seg){.w0 = rnd(&seed), .w1 = rnd(&seed)};
		for (int k = 0; k < 50; k++)
			ck_assert_uint_le(obd_lsmt_lookup(seg, n, rnd(&seed) >> rnd(&seed) % 64), n);
		free(seg);
	}
}
END_TEST

/* 255 layers, a million segments. The limit is lax because sanitizers and busy machines are slow; the time is printed. */
START_TEST(test_time)
{
	enum { LAYERS = 255, EACH = 3922 };
	static struct obd_lsmt_layer_index layers[LAYERS];
	struct obd_lsmt_seg *all = malloc(sizeof(*all) * LAYERS * EACH), *out;
	uint64_t seed = 1;
	size_t n;
	for (unsigned i = 0; i < LAYERS; i++) {
		struct obd_lsmt_seg *seg = all + (size_t)i * EACH;
		uint64_t at = 0;
		for (unsigned k = 0; k < EACH; k++) {
			at += rnd(&seed) % 8000;
			seg[k] = obd_lsmt_seg_make(at, 1 + (uint32_t)(rnd(&seed) % 64), 8 + 64 * k, rnd(&seed) % 8 == 0, 0);
			at = obd_lsmt_seg_end(seg[k]);
		}
		layers[i] = (struct obd_lsmt_layer_index){seg, EACH};
	}
	uint64_t t = obd_clock_ns();
	ck_assert_int_eq(obd_lsmt_merge(layers, LAYERS, &out, &n), 0);
	uint64_t took = obd_clock_ns() - t, sum = 0;
	t = obd_clock_ns();
	for (int i = 0; i < 1000000; i++)
		sum += obd_lsmt_lookup(out, n, rnd(&seed) % 16000000);
	uint64_t look = obd_clock_ns() - t;
	printf("merge: %d segments of %d layers into %zu in %" PRIu64 " ms; lookup %" PRIu64 " ns (%" PRIu64 ")\n",
	       LAYERS * EACH, LAYERS, n, took / OBD_MS_NS, look / 1000000, sum & 1);
	ck_assert_uint_lt(took, 10 * OBD_SECOND_NS);
	free(out);
	free(all);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {test_against_model, test_write_order,    test_joins,
				      test_refusals,	  test_hostile_lookup, test_time};
	return run_cases("merge", tests, OBD_ARRAY_SIZE(tests));
}
