/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/util.h"
#include "common/format/file.h"
#include "fetcher/decode.h"
#include "test/fetcher/fetcher_tests.h"

/* A compressed file and what it must decode to. */
struct sample {
	unsigned char *plain;
	size_t plain_bytes;
	unsigned char *stored;
	uint64_t stored_bytes;
	struct obd_zfile_info info;
	struct obd_zfile_table table;
	void *offsets;
};

static void make_stored(struct sample *s, const struct obd_zfile_opts *opts)
{
	struct obd_err err;
	struct obd_file *src = obd_file_open_mem(s->plain, s->plain_bytes), *dst = obd_file_new_mem(64u << 20);
	ck_assert_int_eq(obd_zfile_write(src, dst, opts, NULL, NULL, &s->stored_bytes, &err), 0);
	s->stored = malloc(s->stored_bytes);
	ck_assert_int_eq(obd_file_pread_full(dst, s->stored, s->stored_bytes, 0), 0);
	obd_file_close(src);
	obd_file_close(dst);
}

static void make_table(struct sample *s)
{
	struct obd_err err;
	const unsigned char *trailer = s->stored + s->stored_bytes - 512;
	ck_assert_int_eq(obd_zfile_parse_trailer(trailer, s->stored_bytes, &s->info, &err), 0);
	uint64_t n = obd_zfile_offsets_bytes(s->info.nblocks);
	s->offsets = calloc(1, n);
	obd_zfile_build_offsets(&s->info, s->stored + s->info.index_offset, s->offsets);
	ck_assert_int_eq(obd_zfile_table_attach(&s->table, &s->info, s->offsets, n), 0);
}

/* Half noise, half text that compresses. */
static struct sample make_sample(size_t bytes, uint32_t zblock, enum obd_zfile_algorithm algorithm)
{
	struct sample s = {.plain_bytes = bytes, .plain = malloc(bytes)};
	const struct obd_zfile_opts opts = {.algorithm = algorithm, .block_bytes = zblock};
	fill_noise(s.plain, bytes, 5);
	for (size_t i = 0; i < bytes; i++)
		if (i >> 15 & 1)
			s.plain[i] = (unsigned char)("lorem ipsum dolor"[i % 17] + (i >> 12));
	make_stored(&s, &opts);
	make_table(&s);
	return s;
}

static void free_sample(struct sample *s)
{
	free(s->plain);
	free(s->stored);
	free(s->offsets);
}

#define FRAMES 12u

static unsigned char arena[FRAMES << 20];

/* Frames as the segment would have them. */
struct frames {
	uint32_t block_bytes;
	unsigned char *data;
	uint32_t bytes[OBD_DECODE_FRAMES]; /* 0: not whole */
	uint32_t begin[OBD_DECODE_FRAMES];
};

static unsigned char *frame(void *arg, uint32_t i)
{
	struct frames *f = arg;
	if (i >= FRAMES || f->bytes[i])
		ck_abort();
	return f->data + (size_t)i * f->block_bytes;
}

static void whole(void *arg, uint32_t i, uint32_t begin, uint32_t bytes)
{
	struct frames *f = arg;
	f->begin[i] = begin;
	ck_assert_uint_eq(f->bytes[i], 0);
	ck_assert_uint_gt(bytes, 0);
	f->bytes[i] = bytes;
}

static struct frames make_frames(uint32_t block_bytes)
{
	return (struct frames){.block_bytes = block_bytes, .data = arena};
}

/* Checked once at the end: each ck_assert that holds costs a system call. */
static void feed_all(struct obd_decoder *d, const unsigned char *buf, size_t n, size_t chunk)
{
	bool good = true;
	for (size_t at = 0; at < n; at += chunk) {
		good = good && !obd_decoder_complete(d);
		good = good && obd_decoder_feed(d, buf + at, obd_min_u64(chunk, n - at)) == 0;
	}
	ck_assert(good);
	ck_assert(obd_decoder_complete(d));
	ck_assert_int_eq(obd_decoder_feed(d, buf, 1), -EOVERFLOW);
}

/* Decodes [block, block + n) to frames from frame0 on; returns the bad ones. */
static uint64_t decode(const struct sample *s, struct frames *f, uint32_t block, uint32_t n, uint32_t frame0, size_t chunk)
{
	struct obd_decoder d;
	struct obd_decode_sink sink = {.frame = frame, .whole = whole, .arg = f};
	struct obd_codec *codec = obd_codec_new();
	uint64_t start, end;
	ck_assert_int_eq(
		obd_decoder_init_zfile(&d, &sink, codec, &s->info, &s->table, f->block_bytes, block, n, frame0, &start, &end),
		0);
	ck_assert_uint_le(end, s->info.index_offset);
	feed_all(&d, s->stored + start, end - start, chunk);
	uint64_t bad = d.bad;
	obd_decoder_free(&d);
	obd_codec_free(codec);
	return bad;
}

static void expect_frames(const struct sample *s, const struct frames *f, uint32_t block, uint32_t n, uint32_t frame0)
{
	for (uint32_t i = 0; i < n; i++) {
		size_t at = (size_t)(block + i) * f->block_bytes;
		size_t bytes = obd_min_u64(f->block_bytes, s->plain_bytes - at);
		ck_assert_uint_eq(f->bytes[frame0 + i], bytes);
		ck_assert_mem_eq(f->data + (size_t)(frame0 + i) * f->block_bytes, s->plain + at, bytes);
	}
}

static const size_t chunks[] = {1, 2, 3, 17, 511, 4096, 4117, 16384, 65797, 1u << 30};
static const struct {
	uint32_t zblock, block;
} shapes[] = {{4096, 65536}, {4096, 16384}, {65536, 65536}, {65536, 16384}, {16384, 16384}, {32768, 1u << 20}};

START_TEST(test_every_shape_and_chunking)
{
	uint32_t zblock = shapes[_i % 6].zblock, block = shapes[_i % 6].block;
	struct sample s = make_sample(200001, zblock, _i / 6 ? OBD_ZFILE_ZSTD : OBD_ZFILE_LZ4);
	uint32_t nblocks = (uint32_t)((s.plain_bytes + block - 1) / block);
	for (size_t c = 0; c < OBD_ARRAY_SIZE(chunks); c++) {
		for (uint32_t first = 0; first < nblocks; first += 4) {
			struct frames f = make_frames(block);
			uint32_t n = (uint32_t)obd_min_u64(nblocks - first, 7);
			ck_assert_uint_eq(decode(&s, &f, first, n, 2, chunks[c]), 0);
			expect_frames(&s, &f, first, n, 2);
			ck_assert_uint_eq(f.bytes[1] + f.bytes[2 + n], 0);
		}
	}
	free_sample(&s);
}
END_TEST

START_TEST(test_incompressible_64k)
{
	struct sample s = {.plain_bytes = 200000, .plain = malloc(200000)};
	const struct obd_zfile_opts opts = {.algorithm = OBD_ZFILE_LZ4, .block_bytes = 65536};
	fill_noise(s.plain, s.plain_bytes, 9);
	make_stored(&s, &opts);
	make_table(&s);
	ck_assert_uint_gt(s.stored_bytes, s.plain_bytes);
	struct frames f = make_frames(65536);
	ck_assert_uint_eq(decode(&s, &f, 0, 4, 0, 1000), 0);
	expect_frames(&s, &f, 0, 4, 0);
	free_sample(&s);
}
END_TEST

/* One flipped bit: its frame (frames) bad and not whole, all others right. */
static void flip_and_decode(uint32_t zblock, uint32_t block, uint64_t zblock_hit, uint64_t expect_bad)
{
	struct sample s = make_sample(300001, zblock, OBD_ZFILE_LZ4);
	uint64_t a, b;
	ck_assert(obd_zfile_block_range(&s.table, zblock_hit, &a, &b));
	s.stored[(a + b) / 2] ^= 4;
	for (size_t c = 0; c < OBD_ARRAY_SIZE(chunks); c++) {
		struct frames f = make_frames(block);
		ck_assert_uint_eq(decode(&s, &f, 0, 4, 0, chunks[c]), expect_bad);
		for (uint32_t i = 0; i < 4; i++) {
			if (expect_bad >> i & 1)
				ck_assert_uint_eq(f.bytes[i], 0);
			else
				expect_frames(&s, &f, i, 1, i);
		}
	}
	free_sample(&s);
}

/* expect_frames maps block to frame0 one to one here because both are i. */
START_TEST(test_corrupt)
{
	flip_and_decode(4096, 65536, 17, 1u << 1);
	flip_and_decode(65536, 16384, 0, 0xf);
	flip_and_decode(16384, 16384, 3, 1u << 3);
}
END_TEST

static int try_init(const struct sample *s, uint32_t block_bytes, uint64_t block, uint32_t n, uint32_t frame0)
{
	struct obd_decoder d;
	struct frames f = {.block_bytes = block_bytes};
	struct obd_decode_sink sink = {.frame = frame, .whole = whole, .arg = &f};
	struct obd_codec *codec = obd_codec_new();
	uint64_t start, end;
	int rc = obd_decoder_init_zfile(&d, &sink, codec, &s->info, &s->table, block_bytes, block, n, frame0, &start, &end);
	if (rc == 0)
		obd_decoder_free(&d);
	obd_codec_free(codec);
	return rc;
}

START_TEST(test_impossible_runs)
{
	struct sample s = make_sample(300001, 4096, OBD_ZFILE_LZ4); /* five blocks of 64 KiB */
	ck_assert_int_eq(try_init(&s, 65536, 0, 5, 0), 0);
	ck_assert_int_eq(try_init(&s, 65536, 4, 1, 63), 0);
	ck_assert_int_eq(try_init(&s, 65536, 0, 6, 0), -EPROTO);
	ck_assert_int_eq(try_init(&s, 65536, 5, 1, 0), -EPROTO);
	ck_assert_int_eq(try_init(&s, 65536, 0, 0, 0), -EPROTO);
	ck_assert_int_eq(try_init(&s, 65536, 0, 2, 63), -EPROTO);
	ck_assert_int_eq(try_init(&s, 65536, UINT64_MAX, 2, 0), -EPROTO);
	free_sample(&s);
}
END_TEST

START_TEST(test_hostile_table)
{
	struct sample s = make_sample(300001, 4096, OBD_ZFILE_LZ4);
	uint64_t *base = s.offsets;
	uint32_t *delta = (uint32_t *)(base + s.info.nblocks / 64 + 1);
	uint32_t keep = delta[20];
	const uint32_t bad[] = {0, keep - 5000, keep + 9000, UINT32_MAX, delta[21], delta[19]};
	for (size_t i = 0; i < OBD_ARRAY_SIZE(bad); i++) {
		delta[20] = bad[i];
		ck_assert_int_eq(try_init(&s, 65536, 0, 5, 0), -EPROTO);
	}
	delta[20] = keep;
	base[0] = UINT64_MAX - 100;
	ck_assert_int_eq(try_init(&s, 65536, 0, 5, 0), -EPROTO);
	free_sample(&s);
}
END_TEST

/* Any bytes of the file: they come whole, and what comes beside them is told of and right, too. */
START_TEST(test_parts)
{
	uint32_t zblock = shapes[_i].zblock, block = shapes[_i].block;
	struct sample s = make_sample(200001, zblock, OBD_ZFILE_LZ4);
	uint64_t seed = 11 + (uint64_t)_i, start, end;
	for (int k = 0; k < 300; k++) {
		seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;
		uint64_t from = (seed >> 20) % s.plain_bytes;
		uint64_t to = from + 1 + (seed >> 44) % obd_min_u64(s.plain_bytes - from, 3u * block);
		struct frames f = make_frames(block);
		struct obd_decoder d;
		struct obd_decode_sink sink = {.frame = frame, .whole = whole, .arg = &f};
		struct obd_codec *codec = obd_codec_new();
		uint64_t first = from / block, n = (to - 1) / block - first + 1;
		ck_assert_int_eq(
			obd_decoder_init_zfile_part(&d, &sink, codec, &s.info, &s.table, block, from, to, 1, &start, &end), 0);
		feed_all(&d, s.stored + start, end - start, 5000);
		bool good = d.bad == 0 && f.bytes[0] == 0 && f.bytes[1 + n] == 0 &&
			    f.bytes[n] >= to - (first + n - 1) * block && f.begin[1] <= from - first * block &&
			    f.begin[1] % obd_min_u64(zblock, block) == 0;
		for (uint64_t i = 0; i < n && good; i++) {
			uint32_t b = f.begin[1 + i], e = f.bytes[1 + i];
			good = b < e && (i == 0 || b == 0) && (i + 1 == n || e == block) &&
			       memcmp(f.data + (1 + i) * block + b, s.plain + (first + i) * block + b, e - b) == 0;
		}
		ck_assert_msg(good, "bytes %llu to %llu", (unsigned long long)from, (unsigned long long)to);
		obd_decoder_free(&d);
		obd_codec_free(codec);
	}
	free_sample(&s);
}
END_TEST

START_TEST(test_plain)
{
	unsigned char src[3000];
	const struct obd_decode_piece pieces[] = {{2, 1000, 0}, {1, 1024, 0}, {0, 976, 48}};
	fill_noise(src, sizeof src, 3);
	for (size_t chunk = 1; chunk < 3001; chunk += 37) {
		struct frames f = make_frames(1024);
		struct obd_decode_sink sink = {.frame = frame, .whole = whole, .arg = &f};
		struct obd_decoder d;
		size_t room = 0;
		obd_decoder_init_plain(&d, &sink, pieces, 3);
		ck_assert_ptr_eq(obd_decoder_room(&d, &room), f.data + 2 * 1024);
		ck_assert_uint_eq(room, 1000);
		feed_all(&d, src, sizeof src, chunk);
		ck_assert_ptr_null(obd_decoder_room(&d, &room));
		ck_assert_mem_eq(f.data + 2048, src, 1000);
		ck_assert_mem_eq(f.data + 1024, src + 1000, 1024);
		ck_assert_mem_eq(f.data + 48, src + 2024, 976);
		ck_assert_uint_eq(f.begin[0], 48);
		ck_assert_uint_eq(f.bytes[0] + f.bytes[1] + f.bytes[2], 3048);
		obd_decoder_free(&d);
	}
}
END_TEST

TCase *decode_cases(void)
{
	TCase *t = tcase_create("decode");
	tcase_set_timeout(t, 120);
	tcase_add_loop_test(t, test_every_shape_and_chunking, 0, 12);
	tcase_add_test(t, test_incompressible_64k);
	tcase_add_test(t, test_corrupt);
	tcase_add_test(t, test_impossible_runs);
	tcase_add_test(t, test_hostile_table);
	tcase_add_loop_test(t, test_parts, 0, 6);
	tcase_add_test(t, test_plain);
	return t;
}
