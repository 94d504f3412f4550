/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "common/base/le.h"
#include "common/format/lsmt.h"
#include "common/format/merge.h"
#include "common/format/zfile.h"
#include "test/unit/golden.h"

#define SINGLE "31cf07f12a9d9913c1578f2232d1165c07d97c2f2a2a1d00f815214d58e95315"
#define NO_UUID "00000000-0000-0000-0000-000000000000"

static struct obd_file *open_stack(struct obd_file *const blobs[], unsigned n)
{
	struct obd_err err = {""};
	struct obd_file *f = obd_stack_open(blobs, n, &err);
	ck_assert_msg(f != NULL, "%s", err.msg);
	return f;
}

/* lsmt/DIR/l00 ... or l0 ... as one image. */
static struct obd_file *golden_stack(const char *dir, unsigned n, const char *format)
{
	struct obd_file *blobs[16];
	for (unsigned i = 0; i < n; i++) {
		char name[64];
		snprintf(name, sizeof(name), "lsmt/%s/l%0*u.lsmt", dir, format[0] == '2' ? 2 : 1, i);
		blobs[i] = golden_z(name);
	}
	return open_stack(blobs, n);
}

static struct buffer index_file(const char *name)
{
	struct buffer b = golden_bytes(name);
	ck_assert_uint_ge(b.n, 4096);
	return b;
}

START_TEST(test_golden_read)
{
	static const struct {
		const char *dir, *width, *digest;
		unsigned n;
		uint64_t size;
	} cases[] = {
		{"stack3", "2", "906036516d7430d621eb641e8225d49543e2643a49e1e461bc2edac655e7e59a", 3, 2097152},
		{"stack12", "2", "bc2c5d9bee11e2b70c78525c4cd5bcb0a3c4432deb11547d3709386f3de06ec1", 12, 2097152},
		{"grow", "1", "78490089f47b028b2e413fa292e33d5938919ce3d80ddad739f3d190f0a6a257", 2, 2097152},
		{"idx256", "1", "9a2a2523e78b4869055257ef6ff3abbd4c146b127fd988fba9c83a1898f6c075", 1, 1048576},
		{"idx257", "1", "5bf8272e0d9f5ca9c94010cff3f210f5aac797102f5978f4c60ed36685e21cb9", 1, 1048576},
		{"nonzero-start", "1", "546783046f773e16f045258caea360bb1acc32ffc39e17e9f3ff1f59ca8697e9", 1, 1048576},
	};
	for (size_t i = 0; i < OBD_ARRAY_SIZE(cases); i++)
		expect_content(golden_stack(cases[i].dir, cases[i].n, cases[i].width), cases[i].size, cases[i].digest);
	struct obd_file *sealed = golden_z("lsmt/single/sealed.lsmt");
	expect_content(open_stack(&sealed, 1), 2097152, SINGLE);
	struct obd_file *empty = golden_stack("empty", 1, "1");
	struct buffer b = read_all(empty);
	ck_assert_uint_eq(b.n, 1048576);
	for (size_t i = 0; i < b.n; i++)
		ck_assert_uint_eq(b.p[i], 0);
	free(b.p);
	obd_file_close(empty);
}
END_TEST

/* 64 GiB with discards longer than a segment: single windows of the merged image. */
START_TEST(test_golden_windows)
{
	struct buffer text = golden_bytes("lsmt/bigdiscard/windows.txt");
	struct obd_file *f = golden_stack("bigdiscard", 2, "1");
	unsigned windows = 0;
	text.p[text.n] = 0;
	for (char *line = strtok((char *)text.p, "\n"); line; line = strtok(NULL, "\n")) {
		uint64_t off, n;
		char digest[65];
		ck_assert_int_eq(sscanf(line, "%" SCNu64 " %" SCNu64 " %64s", &off, &n, digest), 3);
		unsigned char *p = malloc(n);
		ck_assert_int_eq(obd_file_pread(f, p, n, off), (ssize_t)n);
		ck_assert_str_eq(sha256(p, n), digest);
		free(p);
		windows++;
	}
	ck_assert_uint_gt(windows, 5);
	obd_file_close(f);
	free(text.p);
}
END_TEST

START_TEST(test_trailer_fields)
{
	struct obd_lsmt_layer l;
	struct obd_err err = {""};
	ck_assert_msg(obd_lsmt_layer_open(golden_z("lsmt/single/sealed.lsmt"), &l, &err) == 0, "%s", err.msg);
	ck_assert_str_eq(l.info.uuid, "00000051-0000-4000-8000-000000000051");
	ck_assert_str_eq(l.info.parent_uuid, NO_UUID);
	ck_assert_uint_eq(l.info.index_entries, 14);
	ck_assert_uint_eq(l.info.virtual_size, 2097152);
	ck_assert_uint_eq(l.info.flags, 6);
	ck_assert_uint_eq(l.info.version, 1);
	ck_assert_uint_eq(l.n, 14);
	obd_lsmt_layer_close(&l);
}
END_TEST

/* The segments of an append-only layer. */
static struct obd_lsmt_seg *load_append(const char *index_name, uint64_t data_bytes, size_t *n)
{
	struct buffer b = index_file(index_name);
	struct obd_lsmt_info info;
	struct obd_lsmt_seg *segs;
	struct obd_err err = {""};
	ck_assert_msg(obd_lsmt_parse_header(b.p, b.n, &info, &err) == 0, "%s", err.msg);
	ck_assert_uint_eq(info.flags, OBD_LSMT_FLAG_HEADER);
	int rc = obd_lsmt_load_append_index(&info, b.p + 4096, b.n - 4096, data_bytes, &segs, n, &err);
	ck_assert_msg(rc == 0, "%s", err.msg);
	free(b.p);
	return segs;
}

/* Commits segs of data and compares with the digest of what the reference committed; content too when given. */
static void expect_commit(const struct obd_lsmt_seg *segs, size_t n, struct obd_file *data, const struct obd_lsmt_write_opts *o,
			  const char *digest, const char *content)
{
	struct obd_err err = {""};
	uint64_t bytes;
	struct obd_file *out = obd_file_new_mem(MEM_MAX);
	int rc = obd_lsmt_commit(segs, n, &data, 1, out, o, &bytes, &err);
	ck_assert_msg(rc == 0, "%s", err.msg);
	struct buffer b = read_all(out);
	ck_assert_uint_eq(b.n, bytes);
	ck_assert_str_eq(sha256(b.p, b.n), digest);
	free(b.p);
	if (content)
		expect_content(open_stack(&out, 1), o->virtual_size, content);
	else
		obd_file_close(out);
}

START_TEST(test_golden_commit)
{
	const struct obd_lsmt_write_opts head = {.virtual_size = 2097152,
						 .uuid = "00000052-0000-4000-8000-000000000052",
						 .parent_uuid = "00000050-0000-4000-8000-000000000050",
						 .tag = "golden single"},
					 tgt_era = {.virtual_size = 2097152,
						    .uuid = "495FA9FE-9FCD-467B-A84E-9E25C128D98B",
						    .parent_uuid = "00000050-0000-4000-8000-000000000050",
						    .tag = "golden single tgt-era"},
					 plain = {.virtual_size = 2097152};
	size_t n;
	struct obd_lsmt_seg *segs = load_append("lsmt/single/rw.index", 382976, &n);
	/* The data file is the sealed one without what sealing added. */
	struct obd_file *data = obd_file_window(golden_z("lsmt/single/sealed.lsmt"), 0, 382976);
	expect_commit(segs, n, data, &head, "ab7b9f4c84ca9cbca94054f46d71d54f8951b474fa541f36198a85013142992b", SINGLE);
	expect_commit(segs, n, data, &tgt_era, "bb1fba378e8ba60a6b6d408e5c458329424ed767143a6cfc104d84aa9c45b21d", SINGLE);
	obd_file_close(data);
	free(segs);
	struct obd_lsmt_layer sealed;
	ck_assert_int_eq(obd_lsmt_layer_open(golden_z("lsmt/single/sealed.lsmt"), &sealed, NULL), 0);
	expect_commit(sealed.seg, sealed.n, sealed.file, &plain,
		      "a62e69e73e7d8e4ffd49a05285cf86f6706c180a74fbd81fd95a7d99d2faa8d5", SINGLE);
	obd_lsmt_layer_close(&sealed);
}
END_TEST

START_TEST(test_golden_commit_discards)
{
	const struct obd_lsmt_write_opts o = {.virtual_size = UINT64_C(64) << 30,
					      .uuid = "00000063-0000-4000-8000-000000000063",
					      .parent_uuid = "00000061-0000-4000-8000-000000000061"};
	struct obd_file *data = golden_z("lsmt/bigdiscard/l1rw.data");
	uint64_t bytes;
	size_t n;
	ck_assert_int_eq(obd_file_size(data, &bytes), 0);
	struct obd_lsmt_seg *segs = load_append("lsmt/bigdiscard/l1rw.index", bytes, &n);
	expect_commit(segs, n, data, &o, "f09740318ac21765668e48e0122773fdd203d5ed536bed03ad1147ed9250dc70", NULL);
	obd_file_close(data);
	free(segs);
}
END_TEST

/* Twelve layers into one, tags kept: the reference's merge byte for byte, but that it numbers layers from the top. */
START_TEST(test_golden_merge)
{
	struct obd_lsmt_layer layers[12];
	struct obd_lsmt_layer_index index[12];
	struct obd_file *files[12];
	struct obd_err err = {""};
	struct obd_lsmt_seg *segs;
	size_t n;
	for (unsigned i = 0; i < 12; i++) {
		char name[64];
		snprintf(name, sizeof(name), "lsmt/stack12/l%02u.lsmt", i);
		ck_assert_int_eq(obd_lsmt_layer_open(golden_z(name), &layers[i], &err), 0);
		index[i] = (struct obd_lsmt_layer_index){.seg = layers[i].seg, .n = layers[i].n};
		files[11 - i] = layers[i].file;
	}
	ck_assert_int_eq(obd_lsmt_merge_part(index, 12, &segs, &n), 0);
	for (size_t i = 0; i < n; i++)
		segs[i] = obd_lsmt_seg_set_tag(segs[i], (uint8_t)(11 - obd_lsmt_seg_tag(segs[i])));
	struct obd_file *out = obd_file_new_mem(MEM_MAX);
	const struct obd_lsmt_write_opts o = {.virtual_size = 2097152, .keep_seg_tags = true};
	ck_assert_msg(obd_lsmt_commit(segs, n, files, 12, out, &o, NULL, &err) == 0, "%s", err.msg);
	struct buffer b = read_all(out);
	ck_assert_str_eq(sha256(b.p, b.n), "bf79347599e78cf0fd8e454747d0d6c303f89c976e1c0e198c6d6e0c332e6639");
	free(b.p);
	expect_content(open_stack(&out, 1), 2097152, "bc2c5d9bee11e2b70c78525c4cd5bcb0a3c4432deb11547d3709386f3de06ec1");
	free(segs);
	for (unsigned i = 0; i < 12; i++)
		obd_lsmt_layer_close(&layers[i]);
}
END_TEST

/* What a process left that died while writing: the whole index, and one that was cut inside of a record. */
START_TEST(test_golden_crash)
{
	struct obd_lsmt_layer lower;
	struct obd_file *data = golden_z("lsmt/crash-upper/up.data");
	uint64_t bytes;
	size_t n, torn_n, merged_n;
	struct obd_lsmt_seg *merged;
	ck_assert_int_eq(obd_file_size(data, &bytes), 0);
	struct obd_lsmt_seg *segs = load_append("lsmt/crash-upper/up.index", bytes, &n);
	struct obd_lsmt_seg *torn = load_append("lsmt/crash-upper/up-torn.index", bytes, &torn_n);
	ck_assert_int_eq(obd_lsmt_layer_open(golden_z("lsmt/crash-upper/l0.lsmt"), &lower, NULL), 0);
	const struct obd_lsmt_layer_index index[] = {{lower.seg, lower.n}, {segs, n}};
	struct obd_file *files[] = {lower.file, data};
	ck_assert_int_eq(obd_lsmt_merge(index, 2, &merged, &merged_n), 0);
	expect_content(obd_view_open(files, 2, merged, merged_n, lower.info.virtual_size), 2097152,
		       "13fc89d144665e1e129b6766a54ee528abefe01bab180b75a609a19084fce743");
	ck_assert_uint_gt(torn_n, 0);
	free(merged);
	free(segs);
	free(torn);
	obd_lsmt_layer_close(&lower);
	obd_file_close(data);
}
END_TEST

START_TEST(test_append_index)
{
	const struct obd_lsmt_info h = {.virtual_size = 1000 * 512, .flags = OBD_LSMT_FLAG_HEADER};
	struct obd_lsmt_seg rec[8], *out;
	struct obd_err err = {""};
	size_t n;
	rec[0] = obd_lsmt_seg_make(100, 50, 8, false, 9);
	rec[1] = obd_lsmt_seg_make(OBD_LSMT_PADDING, 0, 0, false, 0);
	rec[2] = obd_lsmt_seg_make(120, 0, 8, false, 0);
	rec[3] = obd_lsmt_seg_make(110, 10, 58, false, 0);
	rec[4] = obd_lsmt_seg_make(0, 10, 990, false, 0); /* data that never came: ends at 1000, the file at 999 */
	rec[5] = obd_lsmt_seg_make(140, 20, 0, true, 0);
	rec[6] = obd_lsmt_seg_make(990, 10, 900, false, 0);
	ck_assert_int_eq(obd_lsmt_load_append_index(&h, rec, 7 * 16 + 15, 999 * 512, &out, &n, &err), 0);
	ck_assert_uint_eq(n, 5);
	const struct obd_lsmt_seg want[] = {obd_lsmt_seg_make(100, 10, 8, false, 0), obd_lsmt_seg_make(110, 10, 58, false, 0),
					    obd_lsmt_seg_make(120, 20, 28, false, 0), obd_lsmt_seg_make(140, 20, 0, true, 0),
					    obd_lsmt_seg_make(990, 10, 900, false, 0)};
	ck_assert_mem_eq(out, want, sizeof(want));
	free(out);
	rec[6] = obd_lsmt_seg_make(991, 10, 900, false, 0);
	ck_assert_int_eq(obd_lsmt_load_append_index(&h, rec, 7 * 16, 999 * 512, &out, &n, &err), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.msg, "entry 6"));
	ck_assert_ptr_null(out);
	rec[6] = obd_lsmt_seg_make(900, 10, 7, false, 0);
	ck_assert_int_eq(obd_lsmt_load_append_index(&h, rec, 7 * 16, 999 * 512, &out, &n, &err), -EINVAL);
	ck_assert_int_eq(obd_lsmt_load_append_index(&h, rec, 15, 999 * 512, &out, &n, &err), 0);
	ck_assert_uint_eq(n, 0);
}
END_TEST

static struct buffer committed(void)
{
	struct obd_file *f = golden_z("lsmt/stack3/l00.lsmt");
	struct buffer b = read_all(f);
	obd_file_close(f);
	return b;
}

START_TEST(test_refusals)
{
	static const struct {
		size_t at;
		int bytes;
		uint64_t value;
		const char *word;
	} cases[] = {
		{0, 1, 'M', "magic"},
		{23, 1, 0, "magic"},
		{24, 4, 389, "structure size"},
		{28, 4, 7, "flags"},
		{28, 4, 2, "flags"},
		{28, 4, 4, "flags"},
		{32, 8, 4095, "index_offset"},
		{32, 8, UINT64_MAX - 10, "index_offset"},
		{32, 8, 0, "index_offset"},
		{40, 8, 1000001, "index_size"},
		{40, 8, UINT64_MAX, "index_size"},
		{40, 8, 257, "index_size"},
		{48, 8, 513, "virtual_size"},
		{48, 8, UINT64_MAX - 511, "virtual_size"},
		{132, 1, 2, "version"},
	};
	struct buffer b = committed();
	for (size_t i = 0; i < OBD_ARRAY_SIZE(cases); i++) {
		unsigned char t[4096];
		struct obd_lsmt_info info;
		struct obd_err err = {""};
		memcpy(t, b.p + b.n - 4096, 4096);
		for (int k = 0; k < cases[i].bytes; k++)
			t[cases[i].at + (size_t)k] = (unsigned char)(cases[i].value >> 8 * k);
		int rc = obd_lsmt_parse_trailer(t, b.n, &info, &err);
		ck_assert_msg(rc == -EINVAL && strstr(err.msg, cases[i].word), "case %zu: %d %s", i, rc, err.msg);
	}
	free(b.p);
}
END_TEST

START_TEST(test_refused_entries)
{
	/* Device of 100 sectors, data at sectors 8 to 107. */
	const struct obd_lsmt_info info = {
		.virtual_size = 100 * 512, .index_offset = 108 * 512, .index_entries = 2, .file_bytes = 200 * 512};
	const struct {
		struct obd_lsmt_seg seg;
		const char *word;
	} cases[] = {
		{obd_lsmt_seg_make(9, 1, 8, false, 0), "offset is 9, allowed: 10"},
		{obd_lsmt_seg_make(101, 1, 8, false, 0), "offset"},
		{obd_lsmt_seg_make(100, 1, 8, false, 0), "length"},
		{obd_lsmt_seg_make(20, 0, 8, false, 0), "length"},
		{obd_lsmt_seg_make(20, 81, 8, false, 0), "length"},
		{obd_lsmt_seg_make(OBD_LSMT_PADDING - 1, 16383, 8, false, 0), "offset"},
		{obd_lsmt_seg_make(20, 1, 7, false, 0), "moffset"},
		{obd_lsmt_seg_make(20, 1, 108, false, 0), "moffset"},
		{obd_lsmt_seg_make(20, 2, 107, false, 0), "moffset"},
		{obd_lsmt_seg_make(20, 2, OBD_LSMT_MOFFSET_MASK, false, 0), "moffset"},
	};
	struct obd_lsmt_seg raw[2] = {obd_lsmt_seg_make(0, 10, 8, false, 77)}, out[2];
	size_t n;
	for (size_t i = 0; i < OBD_ARRAY_SIZE(cases); i++) {
		struct obd_err err = {""};
		raw[1] = cases[i].seg;
		int rc = obd_lsmt_load_index(&info, raw, 32, out, &n, &err);
		ck_assert_msg(rc == -EINVAL && strstr(err.msg, cases[i].word) && strstr(err.msg, "entry 1"), "case %zu: %d %s",
			      i, rc, err.msg);
	}
	raw[1] = obd_lsmt_seg_make(20, 80, 5, true, 3);
	ck_assert_int_eq(obd_lsmt_load_index(&info, raw, 31, out, &n, NULL), -EINVAL);
	ck_assert_int_eq(obd_lsmt_load_index(&info, raw, 32, out, &n, NULL), 0);
	ck_assert_uint_eq(n, 2);
	ck_assert_uint_eq(obd_lsmt_seg_tag(out[0]), 0);
	ck_assert_uint_eq(obd_lsmt_seg_tag(out[1]), 0);
	raw[1] = obd_lsmt_seg_make(20, 80, UINT64_C(1) << 40, false, 1);
	ck_assert_int_eq(obd_lsmt_load_index(&info, raw, 32, out, &n, NULL), -EINVAL);
	raw[0] = obd_lsmt_seg_set_tag(raw[0], 0);
	ck_assert_int_eq(obd_lsmt_load_index_tagged(&info, raw, 32, out, &n, NULL), 0);
	ck_assert_uint_eq(obd_lsmt_seg_tag(out[1]), 1);
}
END_TEST

/* Reads all of a file that may be anything: errors are fine, crashes are not. */
static void try_all(const void *p, size_t n)
{
	static unsigned char buf[65536];
	struct obd_err err = {""};
	uint64_t size;
	struct obd_file *m = obd_file_open_mem(p, n), *f = obd_stack_open(&m, 1, &err);
	if (!f) {
		ck_assert_int_ne(err.msg[0], 0);
		obd_file_close(m);
		return;
	}
	ck_assert_int_eq(obd_file_size(f, &size), 0);
	for (uint64_t at = 0; at < size && at < 4 << 20; at += sizeof(buf))
		(void)!obd_file_pread(f, buf, sizeof(buf), at);
	obd_file_close(f);
}

START_TEST(test_hostile)
{
	struct buffer b = committed();
	for (size_t n = 0; n < b.n; n += 512) {
		struct obd_err err = {""};
		struct obd_file *m = obd_file_open_mem(b.p, n);
		ck_assert_ptr_null(obd_stack_open(&m, 1, &err));
		obd_file_close(m);
	}
	const size_t trailer = b.n - 4096, index = obd_get_le64(b.p + trailer + 32);
	for (size_t i = trailer; i < trailer + 400; i++) {
		b.p[i] ^= 0xff;
		try_all(b.p, b.n);
		b.p[i] ^= 0xff;
	}
	for (size_t i = index; i < index + 16 * 40; i++) {
		b.p[i] ^= (unsigned char)(1 << i % 8);
		try_all(b.p, b.n);
		b.p[i] ^= (unsigned char)(1 << i % 8);
	}
	free(b.p);
}
END_TEST

/* A random image; before is what it was. */
static void mutate(unsigned char *p, size_t n, uint64_t *seed)
{
	for (int i = 0; i < 60; i++) {
		size_t at = rnd(seed) % n, len = (size_t)obd_min_u64(n - at, rnd(seed) % 20000);
		if (rnd(seed) % 3)
			for (size_t k = 0; k < len; k++)
				p[at + k] = (unsigned char)rnd(seed);
		else
			memset(p + at, 0, len);
	}
}

static struct obd_file *layer_of(const void *base, size_t base_bytes, const void *raw, size_t raw_bytes, uint32_t granule)
{
	struct obd_err err = {""};
	const struct obd_lsmt_write_opts o = {0};
	struct obd_file *out = obd_file_new_mem(MEM_MAX), *r = obd_file_open_mem(raw, raw_bytes);
	struct obd_file *b = base ? obd_file_open_mem(base, base_bytes) : NULL;
	uint64_t bytes, size;
	int rc = b ? obd_lsmt_write_diff(b, r, granule, out, &o, &bytes, &err)
		   : obd_lsmt_write_raw(r, granule, out, &o, &bytes, &err);
	ck_assert_msg(rc == 0, "%s", err.msg);
	ck_assert_int_eq(obd_file_size(out, &size), 0);
	ck_assert_uint_eq(size, bytes);
	obd_file_close(r);
	obd_file_close(b);
	return out;
}

START_TEST(test_image_round_trip)
{
	enum { FIRST = 1500 * 512, SECOND = 2301 * 512 };
	static unsigned char one[SECOND], two[SECOND];
	uint64_t seed = 11;
	for (int i = 0; i < 40; i++) {
		const uint32_t granule = 512u << i % 8;
		memset(one, 0, sizeof(one));
		mutate(one, FIRST, &seed);
		memcpy(two, one, sizeof(two));
		mutate(two, SECOND, &seed);
		struct obd_file *blobs[] = {layer_of(NULL, 0, one, FIRST, granule), layer_of(one, FIRST, two, SECOND, granule)};
		struct obd_file *lower = obd_file_borrow(blobs[0]), *image = open_stack(&lower, 1);
		struct buffer b = read_all(image);
		ck_assert_uint_eq(b.n, FIRST);
		ck_assert_mem_eq(b.p, one, FIRST);
		free(b.p);
		obd_file_close(image);
		image = open_stack(blobs, 2);
		b = read_all(image);
		ck_assert_uint_eq(b.n, SECOND);
		ck_assert_mem_eq(b.p, two, SECOND);
		free(b.p);
		obd_file_close(image);
	}
}
END_TEST

START_TEST(test_image_layout)
{
	static unsigned char one[64 * 512], two[64 * 512];
	struct obd_lsmt_layer l;
	memset(one + 8 * 512, 1, 16 * 512);
	memcpy(two, one, sizeof(two));
	memset(two + 8 * 512, 0, 8 * 512);
	memset(two + 40 * 512, 2, 1);
	ck_assert_int_eq(obd_lsmt_layer_open(layer_of(one, sizeof(one), two, sizeof(two), 4096), &l, NULL), 0);
	const struct obd_lsmt_seg want[] = {obd_lsmt_seg_make(8, 8, 8, true, 0), obd_lsmt_seg_make(40, 8, 8, false, 0)};
	ck_assert_uint_eq(l.n, 2);
	ck_assert_mem_eq(l.seg, want, sizeof(want));
	obd_lsmt_layer_close(&l);
	/* Equal images make an empty layer. */
	ck_assert_int_eq(obd_lsmt_layer_open(layer_of(one, sizeof(one), one, sizeof(one), 512), &l, NULL), 0);
	ck_assert_uint_eq(l.n, 0);
	ck_assert_uint_eq(l.info.file_bytes, 8192);
	obd_lsmt_layer_close(&l);
}
END_TEST

/* A sparse file of 1 GiB with data at three places: holes are passed over, longer runs than a segment are cut. */
START_TEST(test_sparse_image)
{
	char path[] = "/tmp/obd-check-lsmt-XXXXXX";
	struct obd_err err = {""};
	int fd = mkstemp(path);
	ck_assert_int_ge(fd, 0);
	unlink(path);
	struct obd_file *raw = obd_file_open_fd(fd, &err), *out = obd_file_new_mem(MEM_MAX);
	static unsigned char chunk[9 << 20];
	memset(chunk, 7, sizeof(chunk));
	ck_assert_int_eq(ftruncate(fd, 1 << 30), 0);
	ck_assert_int_eq(obd_file_pwrite(raw, chunk, sizeof(chunk), 300 << 20), 0);
	ck_assert_int_eq(obd_file_pwrite(raw, "x", 1, (1 << 30) - 1), 0);
	const struct obd_lsmt_write_opts o = {.virtual_size = UINT64_C(2) << 30};
	ck_assert_msg(obd_lsmt_write_raw(raw, 4096, out, &o, NULL, &err) == 0, "%s", err.msg);
	struct obd_lsmt_layer l;
	ck_assert_int_eq(obd_lsmt_layer_open(out, &l, &err), 0);
	ck_assert_uint_eq(l.info.virtual_size, UINT64_C(2) << 30);
	uint64_t sectors = 0;
	for (size_t i = 0; i < l.n; i++)
		sectors += obd_lsmt_seg_length(l.seg[i]);
	ck_assert_uint_eq(sectors, sizeof(chunk) / 512 + 8);
	ck_assert_uint_eq(l.n, 3);
	obd_lsmt_layer_close(&l);
	obd_file_close(raw);
}
END_TEST

/* A commit that goes straight into a ZFile, without a file in between. */
START_TEST(test_commit_through_zfile)
{
	struct obd_err err = {""};
	struct obd_file *out = obd_file_new_mem(MEM_MAX);
	const struct obd_zfile_opts z = OBD_ZFILE_OPTS_DEFAULT;
	struct obd_zfile_writer *w = obd_zfile_writer_new(out, &z, &err);
	struct obd_file *sink = obd_zfile_writer_file(w),
			*data = obd_file_window(golden_z("lsmt/single/sealed.lsmt"), 0, 382976);
	const struct obd_lsmt_write_opts o = {.virtual_size = 2097152};
	size_t n;
	struct obd_lsmt_seg *segs = load_append("lsmt/single/rw.index", 382976, &n);
	ck_assert_msg(obd_lsmt_commit(segs, n, &data, 1, sink, &o, NULL, &err) == 0, "%s", err.msg);
	ck_assert_int_eq(obd_zfile_writer_finish(w, NULL), 0);
	obd_file_close(sink);
	obd_zfile_writer_free(w);
	expect_content(open_stack(&out, 1), 2097152, SINGLE);
	obd_file_close(data);
	free(segs);
}
END_TEST

START_TEST(test_commit_refusals)
{
	struct obd_err err = {""};
	struct obd_file *src = obd_file_open_mem("short", 5), *out = obd_file_new_mem(MEM_MAX);
	struct obd_lsmt_write_opts o = {.virtual_size = 100 * 512};
	struct obd_lsmt_seg s[2] = {obd_lsmt_seg_make(10, 5, 8, false, 0), obd_lsmt_seg_make(14, 5, 8, false, 0)};
	ck_assert_int_eq(obd_lsmt_commit(s, 2, &src, 1, out, &o, NULL, &err), -EINVAL);
	ck_assert_int_eq(obd_lsmt_commit(s, 1, &src, 1, out, &o, NULL, &err), -ENODATA);
	s[0] = obd_lsmt_seg_make(10, 5, 8, false, 1);
	ck_assert_int_eq(obd_lsmt_commit(s, 1, &src, 1, out, &o, NULL, &err), -EINVAL);
	s[0] = obd_lsmt_seg_make(98, 5, 8, true, 0);
	ck_assert_int_eq(obd_lsmt_commit(s, 1, &src, 1, out, &o, NULL, &err), -EINVAL);
	o.virtual_size = 1000;
	ck_assert_int_eq(obd_lsmt_commit(s, 0, &src, 1, out, &o, NULL, &err), -EINVAL);
	ck_assert_int_eq(obd_lsmt_write_raw(src, 4096, out, &o, NULL, &err), -EINVAL);
	ck_assert_int_eq(obd_lsmt_write_raw(src, 1000, out, &o, NULL, &err), -EINVAL);
	obd_file_close(src);
	obd_file_close(out);
}
END_TEST

/* A blob that is refused stays the caller's; a stack reports which layer it was. */
START_TEST(test_ownership)
{
	struct obd_err err = {""};
	struct obd_file *blobs[] = {golden_z("lsmt/stack3/l00.lsmt"), obd_file_open_mem("rubbish", 7)};
	ck_assert_ptr_null(obd_stack_open(blobs, 2, &err));
	ck_assert_ptr_nonnull(strstr(err.msg, "layer 1: "));
	ck_assert_ptr_null(obd_stack_open(blobs, 0, &err));
	ck_assert_ptr_null(obd_stack_open(blobs, 256, &err));
	obd_file_close(blobs[0]);
	obd_file_close(blobs[1]);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {test_golden_read,
				      test_golden_windows,
				      test_trailer_fields,
				      test_golden_commit,
				      test_golden_commit_discards,
				      test_golden_merge,
				      test_golden_crash,
				      test_append_index,
				      test_refusals,
				      test_refused_entries,
				      test_hostile,
				      test_image_round_trip,
				      test_image_layout,
				      test_sparse_image,
				      test_commit_through_zfile,
				      test_commit_refusals,
				      test_ownership};
	return run_cases("lsmt", tests, OBD_ARRAY_SIZE(tests));
}
