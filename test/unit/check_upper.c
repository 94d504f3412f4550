/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "common/base/le.h"
#include "common/format/lsmt.h"
#include "common/format/merge.h"
#include "common/format/segmap.h"
#include "common/format/upper.h"
#include "test/unit/golden.h"

#define UUID(n) "000000" #n "-0000-4000-8000-0000000000" #n

static char dir[40], data_path[64], index_path[64];

static void set_up_in(const char *where)
{
	snprintf(dir, sizeof(dir), "%s/obd-upper.XXXXXX", where);
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(data_path, sizeof(data_path), "%s/data", dir);
	snprintf(index_path, sizeof(index_path), "%s/index", dir);
}

static void set_up(void)
{
	set_up_in("/tmp");
}

static void tear_down(void)
{
	unlink(data_path);
	unlink(index_path);
	rmdir(dir);
}

static void create(const char *uuid, uint64_t size, bool sparse)
{
	struct obd_err err = {""};
	const struct obd_upper_create_opts o = {.virtual_size = size, .uuid = uuid, .sparse = sparse};
	unlink(data_path);
	unlink(index_path);
	ck_assert_msg(obd_upper_create(data_path, sparse ? NULL : index_path, &o, &err) == 0, "%s", err.msg);
}

static struct obd_upper *reopen(bool writable)
{
	struct obd_err err = {""};
	struct obd_upper *u;
	ck_assert_msg(obd_upper_open(data_path, access(index_path, F_OK) ? NULL : index_path, writable, &u, &err) == 0, "%s",
		      err.msg);
	return u;
}

static struct buffer slurp(const char *path)
{
	struct obd_err err = {""};
	struct obd_file *f = obd_file_open_path(path, O_RDONLY, 0, &err);
	ck_assert_msg(f != NULL, "%s", err.msg);
	struct buffer b = read_all(f);
	obd_file_close(f);
	return b;
}

static void spill(const char *path, const void *p, size_t n)
{
	FILE *f = fopen(path, "w");
	ck_assert_ptr_nonnull(f);
	ck_assert_uint_eq(fwrite(p, 1, n, f), n);
	ck_assert_int_eq(fclose(f), 0);
}

static void expect_file(const char *path, const char *digest)
{
	struct buffer b = slurp(path);
	ck_assert_msg(strcmp(sha256(b.p, b.n), digest) == 0, "%s differs", path);
	free(b.p);
}

/* ---- the operations that the golden layers were made with --------------------------------------------------------------- */

struct op {
	char kind; /* w, d */
	uint64_t off, n, seed;
	char fill; /* t, r, z */
};

static uint64_t splitmix(uint64_t *s)
{
	uint64_t z = *s += UINT64_C(0x9e3779b97f4a7c15);
	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

static void fill_sector(unsigned char *p, const struct op *op, uint64_t sector)
{
	char text[40];
	uint64_t s = (op->seed << 40) ^ sector;
	memset(p, 0, 512);
	snprintf(text, sizeof(text), "%08x-%016" PRIx64 "-obdgen", (unsigned)op->seed, sector);
	for (unsigned i = 0; i < 64 && op->fill == 'r'; i++)
		obd_put_le64(p + 8 * i, splitmix(&s));
	for (unsigned i = 0; i < 16 && op->fill == 't'; i++)
		memcpy(p + 32 * i, text, 32);
}

static unsigned char *op_bytes(const struct op *op)
{
	unsigned char *p = malloc(op->n);
	for (uint64_t i = 0; i < op->n; i += 512)
		fill_sector(p + i, op, (op->off + i) / 512);
	return p;
}

static unsigned read_ops(const char *name, struct op *ops, unsigned most)
{
	struct buffer b = golden_bytes(name);
	unsigned n = 0;
	char *save = NULL;
	b.p[b.n] = 0;
	for (char *line = strtok_r((char *)b.p, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		struct op *op = &ops[n];
		ck_assert_uint_lt(n, most);
		int got = sscanf(line, "%c %" SCNu64 " %" SCNu64 " %" SCNu64 " %c", &op->kind, &op->off, &op->n, &op->seed,
				 &op->fill);
		n += got == 5 || got == 3;
	}
	free(b.p);
	return n;
}

static void apply(struct obd_upper *u, const struct op *ops, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		unsigned char *p = ops[i].kind == 'w' ? op_bytes(&ops[i]) : NULL;
		ck_assert_int_eq(p ? obd_upper_pwrite(u, p, ops[i].n, ops[i].off)
				   : obd_upper_discard(u, ops[i].off, ops[i].n, false),
				 0);
		free(p);
	}
}

static void apply_model(unsigned char *image, const struct op *op)
{
	unsigned char *p = op->kind == 'w' ? op_bytes(op) : calloc(1, op->n);
	memcpy(image + op->off, p, op->n);
	free(p);
}

/* Our writer makes the files of the reference, byte for byte. */
START_TEST(test_replay)
{
	static const struct {
		const char *ops, *uuid;
		uint64_t size;
		const char *data, *index;
	} cases[] = {
		{"single/rw", UUID(51), 2 << 20, "e1cc76d158d0e08b9fc435f4dadd4ef93fbe18e0f24be435adbcca76dfaaf0ea",
		 "c9e32edbc13f4e738ca5d214206a4b7d2596b401f34309e39c82b62f62f9f306"},
		{"bigdiscard/l0rw", UUID(60), UINT64_C(64) << 30,
		 "d1ddcbe52a09e3ade71157e2cf58df5b72254cdadd39a180c54f32e5b08a2b23",
		 "3c609693f0a3a8d5646247e596168903a6c13290fc8859204dae2463eca6c54f"},
		{"bigdiscard/l1rw", UUID(62), UINT64_C(64) << 30,
		 "8fe6802f9498cef719c40c1f23d91c90963dd5d0d3234dbaf7b9c4858ae00248",
		 "d32935266d938f8aff58b2b2d35dbbf07d1b791aa1b98dbe1656a217e197872f"},
		{"crash-upper/up", UUID(92), 2 << 20, "f9769ef1e2a3540088121a4284605ce6316d1fbaaef63454f237ac9b9f2e4f78",
		 "311de7bd76d1a1fd8281677f0ef2e848938cda9a4fdb19558730c1668a2c75a4"},
		{"grow/l0", UUID(70), 1 << 20, "31207211ba8b46c197f379279a53fe051dfdb40aecb212ec565039804c0c32ac",
		 "6409aa0dcd4bb6fb801aefe0c488ca0bf978fffc94b686e08c2b45e18c188a17"},
		{"grow/l1", UUID(71), 2 << 20, "68380f4a64498dee0ae5e0ee31b9c2aeaba8eba5e337fa2c3047a903e9e10f71",
		 "699f675f70484e45cfe2d6b2406011aeef5065021753a02a1e5aaef16e962ffa"},
		{"nonzero-start/l0", UUID(72), 1 << 20, "3ce73795eb39922e0565b8636a2da0dd9afc7cc6cf557eb9a0eec711372859d6",
		 "02968e3eb21e17da31172f6fc5db024fbe6488fcd68245861512141808bf3220"},
	};
	struct op ops[64];
	set_up();
	for (size_t i = 0; i < OBD_ARRAY_SIZE(cases); i++) {
		char name[64];
		snprintf(name, sizeof(name), "lsmt/%s.ops", cases[i].ops);
		unsigned n = read_ops(name, ops, 64);
		create(cases[i].uuid, cases[i].size, false);
		/* In two sessions: the second goes on where the first one ended. */
		for (unsigned part = 0; part < 2; part++) {
			struct obd_upper *u = reopen(true);
			apply(u, ops + part * (n / 2), part ? n - n / 2 : n / 2);
			ck_assert_int_eq(obd_upper_sync(u), 0);
			obd_upper_close(u);
		}
		expect_file(data_path, cases[i].data);
		expect_file(index_path, cases[i].index);
	}
	tear_down();
}
END_TEST

static struct obd_file *over(struct obd_file *lower, struct obd_upper *u)
{
	struct obd_err err = {""};
	struct obd_file *f = obd_image_view_open(lower, u, &err);
	ck_assert_msg(f != NULL, "%s", err.msg);
	return f;
}

/* The sparse form: content, and the layer that the reference committed of it. */
START_TEST(test_replay_sparse)
{
	struct op ops[16];
	struct obd_err err = {""};
	struct obd_lsmt_seg *seg;
	size_t n;
	set_up();
	create(UUID(82), 2 << 20, true);
	struct obd_upper *u = reopen(true);
	apply(u, ops, read_ops("lsmt/sparse-upper/up.ops", ops, 16));
	obd_upper_close(u);
	expect_file(data_path, "467b2c68d16f04126fbdb9ad8d8aefa44fb300e1de87cf6838dd3f58ba7bfb85");
	/* Over the layer below it, as the reference reads it again: holes let that one through. */
	unsigned char *below = calloc(1, 2 << 20);
	for (unsigned i = 0, k = read_ops("lsmt/sparse-upper/l0.ops", ops, 16); i < k; i++)
		apply_model(below, &ops[i]);
	expect_content(over(obd_file_open_mem(below, 2 << 20), reopen(false)), 2 << 20,
		       "8c9f74f078bd9120dcbec9fff8ab743bc94f651990cbb548b196f83ab04c8883");
	free(below);
	u = reopen(false);
	ck_assert_int_eq(obd_upper_segments(u, &seg, &n), 0);
	struct obd_file *data = obd_upper_data(u), *out = obd_file_new_mem(MEM_MAX);
	const struct obd_lsmt_write_opts o = {.virtual_size = 2 << 20, .uuid = UUID(83), .parent_uuid = UUID(81)};
	ck_assert_msg(obd_lsmt_commit(seg, n, &data, 1, out, &o, NULL, &err) == 0, "%s", err.msg);
	struct buffer b = read_all(out);
	ck_assert_str_eq(sha256(b.p, b.n), "04ae2b6df57981597bc8e79aea2c3b91d4d8dfb3185c3bcf62cc0c5b1315e5cc");
	free(b.p);
	free(seg);
	obd_file_close(out);
	obd_upper_close(u);
	tear_down();
}
END_TEST

/* ---- crashes --------------------------------------------------------------------------------------------------------------
 */

static void unpack_crash(const char *index)
{
	struct obd_file *f = golden_z("lsmt/crash-upper/up.data");
	struct buffer data = read_all(f), idx = golden_bytes(index);
	spill(data_path, data.p, data.n);
	spill(index_path, idx.p, idx.n);
	free(data.p);
	free(idx.p);
	obd_file_close(f);
}

static struct obd_file *crash_lower(void)
{
	struct obd_err err = {""};
	struct obd_file *blob = golden_z("lsmt/crash-upper/l0.lsmt"), *f = obd_stack_open(&blob, 1, &err);
	ck_assert_msg(f != NULL, "%s", err.msg);
	return f;
}

/* What a process of the reference left that died, whole and with a torn index. */
START_TEST(test_crash)
{
	struct op ops[64];
	unsigned n;
	set_up();
	unpack_crash("lsmt/crash-upper/up.index");
	expect_content(over(crash_lower(), reopen(false)), 2 << 20,
		       "13fc89d144665e1e129b6766a54ee528abefe01bab180b75a609a19084fce743");
	n = read_ops("lsmt/crash-upper/up.ops", ops, 64);
	unpack_crash("lsmt/crash-upper/up-torn.index");
	struct obd_file *lower = crash_lower();
	struct buffer want = read_all(lower);
	for (unsigned i = 0; i < n - 6; i++)
		apply_model(want.p, &ops[i]);
	char digest[65];
	strcpy(digest, sha256(want.p, want.n));
	expect_content(over(lower, reopen(false)), 2 << 20, digest);
	/* Writing goes on behind what was torn; the last six operations again give what was there. */
	struct obd_upper *u = reopen(true);
	apply(u, ops + n - 6, 6);
	obd_upper_close(u);
	expect_content(over(crash_lower(), reopen(false)), 2 << 20,
		       "13fc89d144665e1e129b6766a54ee528abefe01bab180b75a609a19084fce743");
	free(want.p);
	tear_down();
}
END_TEST

/* The image that whole records before index_bytes with whole data before data_bytes give. */
static void model_of(const struct op *ops, unsigned n, size_t index_bytes, uint64_t data_bytes, unsigned char *image,
		     size_t bytes)
{
	uint64_t data = 4096;
	size_t records = (index_bytes - 4096) / 16;
	memset(image, 0, bytes);
	for (unsigned i = 0; i < n && i < records; i++) {
		data += ops[i].kind == 'w' ? ops[i].n : 0;
		if (ops[i].kind == 'd' || data <= data_bytes)
			apply_model(image, &ops[i]);
	}
}

static void expect_image(struct obd_file *f, const unsigned char *want, size_t n, const char *what, size_t a, size_t b)
{
	struct buffer got = read_all(f);
	ck_assert_uint_eq(got.n, n);
	ck_assert_msg(memcmp(got.p, want, n) == 0, "%s (index cut at %zu, data at %zu)", what, a, b);
	free(got.p);
	obd_file_close(f);
}

/* One pair of cuts: read-only, then a writer, which must not bring back what the cut took, then read again. */
static void try_cut(const struct op *ops, unsigned n, struct buffer data, struct buffer index, size_t d, size_t x,
		    unsigned char *image)
{
	const struct op more = {.kind = 'w', .off = 1 << 20, .n = 200 * 512, .seed = 7, .fill = 't'};
	const size_t bytes = 2 << 20;
	spill(data_path, data.p, d);
	spill(index_path, index.p, x);
	model_of(ops, n, x, d, image, bytes);
	expect_image(over(NULL, reopen(false)), image, bytes, "after the cut", x, d);
	struct obd_upper *u = reopen(true);
	apply(u, &more, 1);
	apply_model(image, &more);
	expect_image(over(NULL, u), image, bytes, "while writing", x, d);
	expect_image(over(NULL, reopen(false)), image, bytes, "after writing", x, d);
}

/* Both files cut at each record's border, and beside it, against each other. */
START_TEST(test_cuts)
{
	struct op ops[64];
	const unsigned n = read_ops("lsmt/crash-upper/up.ops", ops, 64);
	unsigned char *image = malloc(2 << 20);
	/* Hundreds of repairs sync their files: in memory where there is some. */
	set_up_in(access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
	create(UUID(92), 2 << 20, false);
	struct obd_upper *u = reopen(true);
	apply(u, ops, n);
	obd_upper_close(u);
	struct buffer data = slurp(data_path), index = slurp(index_path);
	uint64_t ends[65] = {4096};
	for (unsigned i = 0; i < n; i++)
		ends[i + 1] = ends[i] + (ops[i].kind == 'w' ? ops[i].n : 0);
	for (unsigned i = 0; i <= n; i++) {
		const size_t x = 4096 + 16 * (size_t)i;
		const unsigned late = i > 3 ? i - 3 : 0;
		try_cut(ops, n, data, index, ends[i], x, image);     /* both at the border */
		try_cut(ops, n, data, index, data.n, x, image);	     /* data without records */
		try_cut(ops, n, data, index, ends[late], x, image);  /* records without data */
		try_cut(ops, n, data, index, ends[i / 2], x, image); /* many of them */
		if (i == n)
			break;
		try_cut(ops, n, data, index, data.n, x + 1 + i % 15, image);
		try_cut(ops, n, data, index, ends[late] + 700, x + 15, image);
		try_cut(ops, n, data, index, ends[i + 1] - (ends[i + 1] > ends[i]), x + 16, image);
	}
	free(data.p);
	free(index.p);
	free(image);
	tear_down();
}
END_TEST

/* ---- the map --------------------------------------------------------------------------------------------------------------
 */

START_TEST(test_segmap)
{
	enum { SECTORS = 20000 };
	struct obd_segmap *m = obd_segmap_new();
	int64_t *model = malloc(SECTORS * sizeof(*model)); /* -1 unmapped, -2 zeroed, else moffset */
	uint64_t seed = 4711, moffset = 8;
	for (unsigned i = 0; i < SECTORS; i++)
		model[i] = -1;
	for (unsigned round = 0; round < 60000; round++) {
		const uint64_t off = rnd(&seed) % SECTORS, kind = rnd(&seed) % 16;
		const uint64_t most = round % 4096 == 0 ? SECTORS : 1 + rnd(&seed) % 12;
		const uint32_t n =
			(uint32_t)obd_min_u64(1 + rnd(&seed) % most, obd_min_u64(SECTORS - off, OBD_LSMT_LENGTH_MAX));
		for (uint32_t i = 0; i < n; i++)
			model[off + i] = kind == 0 ? -1 : kind < 4 ? -2 : (int64_t)(moffset + i);
		if (kind == 0)
			ck_assert_int_eq(obd_segmap_cut(m, off, off + n), 0);
		else
			ck_assert_int_eq(obd_segmap_put(m, obd_lsmt_seg_make(off, n, moffset, kind < 4, 0)), 0);
		moffset += kind < 4 ? 0 : n;
		if (round % 1000)
			continue;
		const size_t count = obd_segmap_count(m);
		struct obd_lsmt_seg *seg = malloc((count + 1) * sizeof(*seg)), at;
		obd_segmap_copy(m, seg);
		uint64_t s = 0;
		for (size_t k = 0; k < count; k++) {
			ck_assert_uint_ge(obd_lsmt_seg_offset(seg[k]), s);
			for (; s < obd_lsmt_seg_offset(seg[k]); s++)
				ck_assert_int_eq(model[s], -1);
			ck_assert(obd_segmap_at(m, s, &at) && at.w0 == seg[k].w0 && at.w1 == seg[k].w1);
			for (; s < obd_lsmt_seg_end(seg[k]); s++)
				ck_assert_int_eq(model[s], obd_lsmt_seg_zeroed(seg[k])
								   ? -2
								   : (int64_t)(obd_lsmt_seg_moffset(seg[k]) + s -
									       obd_lsmt_seg_offset(seg[k])));
		}
		for (; s < SECTORS; s++)
			ck_assert_int_eq(model[s], -1);
		ck_assert(!obd_segmap_at(m, SECTORS, &at));
		free(seg);
	}
	free(model);
	obd_segmap_free(m);
}
END_TEST

/* ---- views ----------------------------------------------------------------------------------------------------------------
 */

/* A lower image: text everywhere but in every fourth 64 KiB. */
static struct obd_file *make_lower(uint64_t bytes, unsigned char *image)
{
	struct obd_err err = {""};
	const struct op op = {.kind = 'w', .n = bytes, .seed = 99, .fill = 't'};
	const struct obd_lsmt_write_opts o = {0};
	struct obd_file *blob = obd_file_new_mem(MEM_MAX), *raw;
	memset(image, 0, bytes);
	apply_model(image, &op);
	for (uint64_t i = 0; i < bytes; i += 4 << 16)
		memset(image + i, 0, obd_min_u64(1 << 16, bytes - i));
	raw = obd_file_open_mem(image, bytes);
	ck_assert_msg(obd_lsmt_write_raw(raw, 4096, blob, &o, NULL, &err) == 0, "%s", err.msg);
	obd_file_close(raw);
	struct obd_file *f = obd_stack_open(&blob, 1, &err);
	ck_assert_msg(f != NULL, "%s", err.msg);
	return f;
}

static void random_op(struct obd_file *f, unsigned char *image, uint64_t bytes, uint64_t *seed)
{
	struct op op = {.kind = rnd(seed) % 4 ? 'w' : 'd', .fill = rnd(seed) % 8 ? 'r' : 'z', .seed = rnd(seed) % 4096};
	op.off = rnd(seed) % (bytes / 512) * 512;
	op.n = 512 * (1 + rnd(seed) % (rnd(seed) % 8 ? 20 : 400));
	op.n = obd_min_u64(op.n, bytes - op.off);
	unsigned char *p = op.kind == 'w' ? op_bytes(&op) : NULL;
	ck_assert_int_eq(p ? obd_file_pwrite(f, p, op.n, op.off) : obd_image_view_discard(f, op.off, op.n), 0);
	free(p);
	apply_model(image, &op);
}

static void expect_next_data(struct obd_file *f, const unsigned char *image, uint64_t bytes)
{
	uint64_t at = 0, next;
	while (at < bytes) {
		ck_assert_int_eq(obd_file_next_data(f, at, &next), 0);
		ck_assert_uint_ge(next, at);
		for (; at < next && at < bytes; at++)
			ck_assert_uint_eq(image[at], 0);
		at += 512;
	}
}

/* Random operations on both forms over a lower that is smaller than the device, with reopens in between. */
START_TEST(test_view)
{
	const uint64_t lower_bytes = 1536 << 10, bytes = (2 << 20) + 512 * 3;
	unsigned char *image = malloc(bytes);
	uint64_t seed = 42;
	set_up();
	for (unsigned sparse = 0; sparse < 2; sparse++) {
		create(NULL, bytes, sparse);
		memset(image, 0, bytes);
		for (unsigned session = 0; session < 6; session++) {
			unsigned char *lower_image = malloc(lower_bytes);
			struct obd_file *f = over(make_lower(lower_bytes, lower_image), reopen(true));
			if (!session)
				memcpy(image, lower_image, lower_bytes);
			free(lower_image);
			for (unsigned i = 0; i < 60; i++)
				random_op(f, image, bytes, &seed);
			struct buffer got = read_all(f);
			ck_assert(got.n == bytes && memcmp(got.p, image, bytes) == 0);
			free(got.p);
			expect_next_data(f, image, bytes);
			ck_assert_int_eq(obd_image_view_sync(f), 0);
			ck_assert_int_eq(obd_file_pwrite(f, image, 512, bytes), -ENOSPC);
			ck_assert_int_eq(obd_file_pwrite(f, image, 100, 0), -EINVAL);
			ck_assert_int_eq(obd_image_view_discard(f, 100, 512), -EINVAL);
			obd_file_close(f);
		}
	}
	free(image);
	tear_down();
}
END_TEST

/* ---- the rest -------------------------------------------------------------------------------------------------------------
 */

/* The disk is full for a while: what was refused is not there, what was acknowledged is, and writing goes on later. */
START_TEST(test_full)
{
	struct rlimit limit;
	unsigned char *image = calloc(1, 2 << 20);
	set_up();
	ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &limit), 0);
	signal(SIGXFSZ, SIG_IGN);
	for (unsigned which = 0; which < 2; which++) {
		create(NULL, 2 << 20, false);
		memset(image, 0, 2 << 20);
		struct obd_upper *u = reopen(true);
		unsigned failed = 0;
		for (unsigned i = 0; i < 60; i++) {
			/* The data file is stopped inside of a write, the index file inside of a record. */
			const rlim_t stop = which ? 4096 + 20 * 16 + 7 : 4096 + 40 * 1024 + 100;
			const struct op op = {
				.kind = which || i % 5 == 0 ? 'd' : 'w', .off = i * 1536, .n = 2048, .seed = i, .fill = 't'};
			const rlim_t old = limit.rlim_cur;
			limit.rlim_cur = i < 40 ? stop : old;
			ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
			unsigned char *p = op.kind == 'w' ? op_bytes(&op) : NULL;
			int rc = p ? obd_upper_pwrite(u, p, op.n, op.off) : obd_upper_discard(u, op.off, op.n, false);
			limit.rlim_cur = old;
			ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
			ck_assert(rc == 0 || (rc == -EFBIG && i < 40));
			failed += rc != 0;
			if (!rc)
				apply_model(image, &op);
			free(p);
		}
		ck_assert_uint_gt(failed, 5);
		expect_image(over(NULL, u), image, 2 << 20, "full disk", 0, 0);
		expect_image(over(NULL, reopen(false)), image, 2 << 20, "full disk, reopened", 0, 0);
	}
	free(image);
	tear_down();
}
END_TEST

START_TEST(test_locks)
{
	struct obd_err err = {""};
	struct obd_upper *other;
	set_up();
	create(NULL, 1 << 20, false);
	struct obd_upper *u = reopen(true);
	ck_assert_int_eq(obd_upper_open(data_path, index_path, true, &other, &err), -EBUSY);
	ck_assert_int_eq(obd_upper_open(data_path, index_path, false, &other, &err), -EBUSY);
	obd_upper_close(u);
	u = reopen(false);
	struct obd_upper *second = reopen(false);
	ck_assert_int_eq(obd_upper_open(data_path, index_path, true, &other, &err), -EBUSY);
	ck_assert_int_eq(obd_upper_pwrite(u, "", 0, 0), -EROFS);
	obd_upper_close(second);
	obd_upper_close(u);
	tear_down();
}
END_TEST

START_TEST(test_resize)
{
	struct obd_err err = {""};
	const struct op op = {.kind = 'w', .off = 1 << 20, .n = 4096, .seed = 5, .fill = 't'};
	set_up();
	for (unsigned sparse = 0; sparse < 2; sparse++) {
		create(NULL, 2 << 20, sparse);
		struct obd_upper *u = reopen(true);
		apply(u, &op, 1);
		ck_assert_int_eq(obd_upper_resize(u, 1 << 20, &err), -EINVAL);
		ck_assert_int_eq(obd_upper_resize(u, 1000, &err), -EINVAL);
		ck_assert_int_eq(obd_upper_resize(u, 3 << 20, &err), 0);
		ck_assert_uint_eq(obd_upper_size(u), 3 << 20);
		obd_upper_close(u);
		u = reopen(true);
		ck_assert_uint_eq(obd_upper_size(u), 3 << 20);
		ck_assert_int_eq(obd_upper_resize(u, (1 << 20) + 4096, &err), 0);
		obd_upper_close(u);
		u = reopen(false);
		unsigned char *image = calloc(1, (1 << 20) + 4096);
		apply_model(image, &op);
		expect_image(over(NULL, u), image, (1 << 20) + 4096, "resized", 0, 0);
		free(image);
	}
	tear_down();
}
END_TEST

/* A sealed layer reads by itself as the writable one did, and is the reference's up to the filling behind its index. */
START_TEST(test_seal)
{
	struct op ops[16];
	struct obd_err err = {""};
	set_up();
	create(UUID(51), 2 << 20, false);
	struct obd_upper *u = reopen(true);
	apply(u, ops, read_ops("lsmt/single/rw.ops", ops, 16));
	ck_assert_msg(obd_upper_seal(u, &err) == 0, "%s", err.msg);
	ck_assert_int_eq(obd_upper_pwrite(u, "", 0, 0), -EROFS);
	obd_upper_close(u);
	struct buffer ours = slurp(data_path);
	struct obd_file *f = golden_z("lsmt/single/sealed.lsmt");
	struct buffer theirs = read_all(f);
	const size_t fill = 382976 + 14 * 16;
	ck_assert_uint_eq(ours.n, theirs.n);
	memset(theirs.p + fill, 0, 383488 - fill);
	ck_assert(memcmp(ours.p, theirs.p, ours.n) == 0);
	obd_file_close(f);
	f = obd_file_open_path(data_path, O_RDONLY, 0, &err);
	f = obd_stack_open(&f, 1, &err);
	ck_assert_msg(f != NULL, "%s", err.msg);
	expect_content(f, 2 << 20, "31cf07f12a9d9913c1578f2232d1165c07d97c2f2a2a1d00f815214d58e95315");
	free(ours.p);
	free(theirs.p);
	tear_down();
}
END_TEST

START_TEST(test_refusals)
{
	struct obd_err err = {""};
	struct obd_upper *u;
	struct obd_upper_create_opts o = {.virtual_size = 1000};
	set_up();
	ck_assert_int_eq(obd_upper_create(data_path, index_path, &o, &err), -EINVAL);
	o = (struct obd_upper_create_opts){.virtual_size = 1024, .uuid = "x"};
	ck_assert_int_eq(obd_upper_create(data_path, index_path, &o, &err), -EINVAL);
	o.uuid = NULL;
	ck_assert_int_eq(obd_upper_create(data_path, "", &o, &err), -EINVAL);
	ck_assert_int_ne(access(data_path, F_OK), 0);
	ck_assert_int_ne(access(index_path, F_OK), 0);
	spill(index_path, "mine", 4);
	ck_assert_int_eq(obd_upper_create(data_path, index_path, &o, &err), -EEXIST);
	ck_assert_int_ne(access(data_path, F_OK), 0);
	expect_file(index_path, sha256("mine", 4));
	create(NULL, 1 << 20, false);
	ck_assert_int_eq(obd_upper_open(data_path, "", false, &u, &err), -EINVAL);
	ck_assert_int_eq(obd_upper_open(index_path, data_path, false, &u, &err), -EINVAL);
	ck_assert_int_eq(obd_upper_open(dir, index_path, false, &u, &err), -EINVAL);
	ck_assert_int_eq(obd_upper_open("/nowhere/x", index_path, false, &u, &err), -ENOENT);
	struct buffer index = slurp(index_path);
	create(NULL, 1 << 20, false);
	spill(index_path, index.p, index.n);
	ck_assert_int_eq(obd_upper_open(data_path, index_path, false, &u, &err), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.msg, "uuid"));
	free(index.p);
	tear_down();
}
END_TEST

/* More than one record takes is split as other writers split it. */
START_TEST(test_split)
{
	set_up();
	create(NULL, 64 << 20, false);
	struct obd_upper *u = reopen(true);
	const struct op op = {.kind = 'w', .off = 512, .n = (9 << 20) + 512, .seed = 3, .fill = 't'};
	apply(u, &op, 1);
	obd_upper_close(u);
	struct buffer b = slurp(index_path);
	static const uint64_t want[3][3] = {{1, 8192, 8}, {8193, 8192, 8200}, {16385, 2049, 16392}};
	ck_assert_uint_eq(b.n, 4096 + 3 * 16);
	for (unsigned i = 0; i < 3; i++) {
		struct obd_lsmt_seg s;
		memcpy(&s, b.p + 4096 + 16 * i, 16);
		ck_assert_uint_eq(obd_lsmt_seg_offset(s), want[i][0]);
		ck_assert_uint_eq(obd_lsmt_seg_length(s), want[i][1]);
		ck_assert_uint_eq(obd_lsmt_seg_moffset(s), want[i][2]);
	}
	free(b.p);
	tear_down();
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {test_replay, test_replay_sparse, test_crash,  test_cuts, test_segmap,   test_view,
				      test_full,   test_locks,	       test_resize, test_seal, test_refusals, test_split};
	return run_cases("upper", tests, OBD_ARRAY_SIZE(tests));
}
