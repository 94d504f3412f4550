/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "common/base/crc32c.h"
#include "common/base/le.h"
#include "common/format/zfile.h"
#include "test/unit/golden.h"

#define SRC "2e35d76d564f511abdd40f67939183896f6fbf6ee9d6348cdd2abb743111ec70"
#define SRC_BYTES 1500007u

/* What the reference implementation wrote for the same source. Those of zstd hold for one version of the library. */
static const struct {
	enum obd_zfile_algorithm algorithm;
	uint32_t kib;
	bool no_verify, overwrite;
	const char *digest;
} written[] = {
	{OBD_ZFILE_LZ4, 4, false, false, "7773e9a4246be5fb44f05cf19b4433a030e5ca6577f6b805ea18f226837ca992"},
	{OBD_ZFILE_LZ4, 8, false, false, "ff1006be87851cda1044be3b1855bde2b5cd06c6d0b50932ba61c8080cd98c55"},
	{OBD_ZFILE_LZ4, 16, false, false, "735c43013bed0f0d3f609f5b91f731daa3f45fa8582236c36cd3011941dba682"},
	{OBD_ZFILE_LZ4, 32, false, false, "9fa3986737c42e4f834a032b2ce0c034c7fe7d42e1aa14b48fa6c557b93cd82a"},
	{OBD_ZFILE_LZ4, 64, false, false, "85c8768b3cc76ef51b27657fb099fbef44634bf1ac788cf6fb37f3651d9bc2a5"},
	{OBD_ZFILE_LZ4, 16, true, false, "16e651711ab165d86e2a5bf75368c33eb3e6ad09a5b073612c93ce9062eb2ea4"},
	{OBD_ZFILE_LZ4, 16, true, true, "3547e1c4e33a66f6985db0ac620cd4b3ae54917bf828257f5a43c421ed7e4944"},
	{OBD_ZFILE_LZ4, 16, false, true, "c20104d7bea1c78e2ebdb4bbe9a2725868627d8d0702e8f94d175d4637adda55"},
	{OBD_ZFILE_LZ4, 4, true, false, "d8a6df067ea4a00b1c27cb6ff7144590b6f8cca74d14b704afd4bf014cc56586"},
	{OBD_ZFILE_LZ4, 64, false, true, "73947855e6b2ea6c6261ba20dfb3e3b30ec694502ac922913c3b0732a7685faf"},
	{OBD_ZFILE_ZSTD, 4, false, false, "55b5baed4d97a9da616e6b2213933529d938bb0a452fc4119a355206f8808274"},
	{OBD_ZFILE_ZSTD, 16, false, false, "4f3b861c7f84a48a54ab8f36d8f0fcf81e5f617e6e944936d5f061391f1690ff"},
	{OBD_ZFILE_ZSTD, 32, false, false, "580c8095fa256128f6f795a11956a7ac3fcfa0e2615abdcf864eda320e965ce6"},
	{OBD_ZFILE_ZSTD, 64, false, false, "e863e55464f01593f9d706614e3e585fffa2fbfff84d8f4fefb130ad750ab9e2"},
	{OBD_ZFILE_ZSTD, 64, true, true, "85bccd5c225404ab565dc6fe5cb7c4374f996f3e1dd5e9dd6585a970d245e42b"},
	{OBD_ZFILE_ZSTD, 4, true, false, "b8b8df0a9cfd67050c19b96fa9a697f44083903601358cb0ec7f78797559881b"},
};

static struct obd_file *open_ok(struct obd_file *payload)
{
	struct obd_err err = {""};
	struct obd_file *f = obd_zfile_open(payload, &err);
	ck_assert_msg(f != NULL, "%s", err.msg);
	return f;
}

static struct buffer source(void)
{
	struct obd_file *f = open_ok(golden("zfile/lz4-64k.zfile"));
	struct buffer b = read_all(f);
	obd_file_close(f);
	return b;
}

START_TEST(test_golden_read)
{
	expect_content(open_ok(golden("zfile/lz4-64k.zfile")), SRC_BYTES, SRC);
	expect_content(open_ok(golden("zfile/tgtera-lz4-4k.zfile")), SRC_BYTES, SRC);
	expect_content(open_ok(golden("zfile/lz4-4k-one.zfile")), 4096,
		       "aa14fb967db06f7fc49f5c83ec3f0f3ffa22e2d00ee26d742ba0f8aacca80c7a");
	expect_content(open_ok(golden("zfile/lz4-4k-tiny.zfile")), 1,
		       "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881");
	expect_content(open_ok(golden("zfile/lz4-4k-empty.zfile")), 0,
		       "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}
END_TEST

/* Byte for byte what the reference wrote, and readable: so the reference's files are readable too. Threads change nothing. */
START_TEST(test_golden_write)
{
	struct buffer src = source();
	for (size_t k = 0; k < 3 * OBD_ARRAY_SIZE(written); k++) {
		const size_t i = k / 3;
		struct obd_err err = {""};
		struct obd_file *in = obd_file_open_mem(src.p, src.n), *out = obd_file_new_mem(MEM_MAX);
		struct obd_zfile_opts o = {.algorithm = written[i].algorithm,
					   .block_bytes = written[i].kib * 1024,
					   .no_verify = written[i].no_verify,
					   .threads = (unsigned)k % 3 * 2,
					   .overwrite_header = written[i].overwrite};
		uint64_t bytes;
		ck_assert_msg(obd_zfile_write(in, out, &o, NULL, NULL, &bytes, &err) == 0, "%s", err.msg);
		struct buffer b = read_all(out);
		ck_assert_uint_eq(b.n, bytes);
		if (strcmp(sha256(b.p, b.n), written[i].digest) != 0) {
			ck_assert_msg(written[i].algorithm == OBD_ZFILE_ZSTD, "case %zu differs from the reference", i);
			printf("SKIP zfile case %zu: this zstd makes other bytes than the reference's did\n", i);
		}
		free(b.p);
		expect_content(open_ok(out), SRC_BYTES, SRC);
		obd_file_close(in);
	}
	free(src.p);
}
END_TEST

START_TEST(test_random_reads)
{
	struct buffer src = source();
	struct obd_file *f = open_ok(golden("zfile/tgtera-lz4-4k.zfile"));
	static unsigned char buf[200000];
	uint64_t seed = 7;
	for (int i = 0; i < 300; i++) {
		uint64_t off = rnd(&seed) % (src.n + 1000);
		size_t n = rnd(&seed) % (i % 2 ? 5000 : sizeof(buf));
		size_t want = off < src.n ? (size_t)obd_min_u64(n, src.n - off) : 0;
		ck_assert_int_eq(obd_file_pread(f, buf, n, off), (ssize_t)want);
		if (want)
			ck_assert_mem_eq(buf, src.p + off, want);
	}
	obd_file_close(f);
	free(src.p);
}
END_TEST

/* Header, trailer and jump table as an event-driven reader takes them. */
struct parts {
	struct obd_zfile_info info;
	unsigned char *jump;
	uint64_t jump_bytes;
};

static int parse(const struct buffer *b, struct parts *p, struct obd_err *err)
{
	*p = (struct parts){0};
	if (b->n < 512)
		return -EINVAL;
	int rc = obd_zfile_parse_header(b->p, b->n, &p->info, err);
	if (rc == OBD_ZFILE_NEED_TRAILER)
		rc = obd_zfile_parse_trailer(b->p + b->n - 512, b->n, &p->info, err);
	if (rc)
		return rc;
	ck_assert(obd_zfile_info_ok(&p->info));
	p->jump_bytes = obd_zfile_index_bytes(&p->info);
	ck_assert_uint_le(p->info.index_offset + p->jump_bytes, b->n - 512);
	p->jump = b->p + p->info.index_offset;
	return obd_zfile_check_table(&p->info, p->jump, p->jump_bytes, err);
}

START_TEST(test_event_driven)
{
	struct buffer src = source(), b = golden_bytes("zfile/tgtera-lz4-4k.zfile");
	struct parts p;
	struct obd_err err = {""};
	struct obd_zfile_table t;
	unsigned char plain[4096];
	ck_assert_msg(parse(&b, &p, &err) == 0, "%s", err.msg);
	ck_assert_uint_eq(p.info.digest, 0);
	uint64_t bytes = obd_zfile_offsets_bytes(p.info.nblocks);
	ck_assert_uint_eq(bytes, 8 * (367 / 64 + 1) + 368 * 4);
	void *mem = malloc(bytes);
	obd_zfile_build_offsets(&p.info, p.jump, mem);
	ck_assert_int_eq(obd_zfile_table_attach(&t, &p.info, mem, bytes - 1), -EINVAL);
	ck_assert_int_eq(obd_zfile_table_attach(&t, &p.info, mem, bytes), 0);
	struct obd_codec *c = obd_codec_new();
	uint64_t expect = 512, start, end;
	for (uint64_t i = 0; i < p.info.nblocks; i++) {
		ck_assert(obd_zfile_block_range(&t, i, &start, &end));
		ck_assert_uint_eq(start, expect);
		expect = end;
		uint32_t n = obd_zfile_block_plain_bytes(&p.info, i);
		ck_assert_int_eq(obd_zfile_decode_block(c, &p.info, b.p + start, end - start, plain, n), 0);
		ck_assert_mem_eq(plain, src.p + i * 4096, n);
		/* Any flipped bit is noticed, and so is a wrong length. */
		b.p[start + i % (end - start)] ^= (unsigned char)(1 << i % 8);
		ck_assert_int_eq(obd_zfile_decode_block(c, &p.info, b.p + start, end - start, plain, n), -EBADMSG);
		b.p[start + i % (end - start)] ^= (unsigned char)(1 << i % 8);
		ck_assert_int_eq(obd_zfile_decode_block(c, &p.info, b.p + start, end - start, plain, n - 1), -EBADMSG);
	}
	ck_assert_uint_eq(expect, p.info.index_offset);
	ck_assert(!obd_zfile_block_range(&t, p.info.nblocks, &start, &end));
	ck_assert(!obd_zfile_block_range(&t, UINT64_MAX, &start, &end));
	ck_assert_uint_eq(obd_zfile_block_plain_bytes(&p.info, p.info.nblocks), 0);
	obd_codec_free(c);
	free(mem);
	free(b.p);
	free(src.p);
}
END_TEST

/* A table full of random bits never sends a reader outside of the payload. */
START_TEST(test_hostile_offsets)
{
	struct buffer b = golden_bytes("zfile/lz4-64k.zfile");
	struct parts p;
	struct obd_zfile_table t;
	uint64_t seed = 99, yes = 0;
	ck_assert_int_eq(parse(&b, &p, NULL), 0);
	uint64_t bytes = obd_zfile_offsets_bytes(p.info.nblocks);
	unsigned char *mem = malloc(bytes);
	for (int round = 0; round < 20000; round++) {
		obd_zfile_build_offsets(&p.info, p.jump, mem);
		for (int k = 0; k < 1 + round % 20; k++)
			mem[rnd(&seed) % bytes] = (unsigned char)rnd(&seed);
		ck_assert_int_eq(obd_zfile_table_attach(&t, &p.info, mem, bytes), 0);
		for (uint64_t i = 0; i <= p.info.nblocks; i++) {
			uint64_t start, end;
			if (!obd_zfile_block_range(&t, i, &start, &end))
				continue;
			yes++;
			ck_assert(start >= 512 && start < end && end <= p.info.index_offset);
			ck_assert_uint_le(end - start, obd_zfile_stored_max(p.info.block_bytes));
		}
	}
	ck_assert_uint_gt(yes, 0);
	free(mem);
	free(b.p);
}
END_TEST

/* Recomputes the digest of 512 bytes, as an attacker would. */
static void reseal(unsigned char *p)
{
	obd_put_le32(p + 28, 0);
	obd_put_le32(p + 28, obd_crc32c_raw(0, p, 512));
}

START_TEST(test_hostile_trailer)
{
	struct buffer b = golden_bytes("zfile/lz4-64k.zfile");
	unsigned char *trailer = b.p + b.n - 512, saved[512];
	struct obd_zfile_info info;
	memcpy(saved, trailer, 512);
	for (size_t i = 0; i < 512; i++)
		for (int bit = 0; bit < 8; bit++) {
			struct obd_err err = {""};
			trailer[i] ^= (unsigned char)(1 << bit);
			int rc = obd_zfile_parse_trailer(trailer, b.n, &info, &err);
			/* Only the digest's own flag can be cleared unnoticed: then there is none. */
			ck_assert_msg(rc < 0 || (i == 32 && bit == 4), "byte %zu bit %d", i, bit);
			ck_assert(rc == 0 || err.msg[0]);
			reseal(trailer);
			rc = obd_zfile_parse_trailer(trailer, b.n, &info, &err);
			if (!rc) {
				struct parts p;
				ck_assert(obd_zfile_info_ok(&info));
				rc = parse(&b, &p, &err);
			}
			memcpy(trailer, saved, 512);
		}
	free(b.p);
}
END_TEST

/* Field by field: the value, and a word that the refusal must contain. */
START_TEST(test_refusals)
{
	static const struct {
		size_t at;
		int bytes;
		uint64_t value;
		int rc;
		const char *word;
	} cases[] = {
		{24, 4, 97, -EINVAL, "structure size"},
		{32, 8, 23, -EINVAL, "flags"},
		{32, 8, 18, -EINVAL, "flags"},
		{32, 8, 54, -ENOTSUP, "compressed jump table"},
		{40, 8, 511, -EINVAL, "index_offset"},
		{40, 8, UINT64_MAX, -EINVAL, "index_offset"},
		{40, 8, 478600, -EINVAL, "index_size"},
		{48, 8, 24, -EINVAL, "index_size"},
		{48, 8, UINT64_MAX / 4 + 2, -EINVAL, "index_size"},
		{56, 8, UINT64_MAX, -EINVAL, "original_file_size"},
		{56, 8, 0, -EINVAL, "index_size"},
		{72, 4, 0, -EINVAL, "block_size"},
		{72, 4, 65537, -EINVAL, "block_size"},
		{72, 4, 1u << 31, -EINVAL, "block_size"},
		{76, 1, 3, -EINVAL, "algorithm"},
		{78, 1, 1, -ENOTSUP, "dict"},
		{84, 4, 1, -ENOTSUP, "dict"},
		{88, 1, 2, -EINVAL, "verify"},
	};
	struct buffer b = golden_bytes("zfile/lz4-64k.zfile");
	for (size_t i = 0; i < OBD_ARRAY_SIZE(cases); i++) {
		unsigned char t[512];
		struct obd_zfile_info info;
		struct obd_err err = {""};
		memcpy(t, b.p + b.n - 512, 512);
		for (int k = 0; k < cases[i].bytes; k++)
			t[cases[i].at + (size_t)k] = (unsigned char)(cases[i].value >> 8 * k);
		reseal(t);
		int rc = obd_zfile_parse_trailer(t, b.n, &info, &err);
		ck_assert_msg(rc == cases[i].rc && strstr(err.msg, cases[i].word), "case %zu: %d %s", i, rc, err.msg);
	}
	free(b.p);
}
END_TEST

START_TEST(test_hostile_table)
{
	struct buffer b = golden_bytes("zfile/lz4-64k.zfile");
	struct parts p;
	struct obd_err err = {""};
	ck_assert_int_eq(parse(&b, &p, &err), 0);
	unsigned char *jump = malloc(p.jump_bytes);
	for (uint64_t i = 0; i < p.jump_bytes; i++) {
		memcpy(jump, p.jump, p.jump_bytes);
		jump[i] ^= 0x10;
		ck_assert_int_eq(obd_zfile_check_table(&p.info, jump, p.jump_bytes, &err), -EBADMSG);
	}
	struct obd_zfile_info old = p.info;
	old.digest = 0;
	const uint32_t bad[] = {0, 4, obd_zfile_stored_max(65536) + 1, UINT32_MAX};
	for (size_t i = 0; i < OBD_ARRAY_SIZE(bad); i++) {
		memcpy(jump, p.jump, p.jump_bytes);
		obd_put_le32(jump + 4 * 5, bad[i]);
		ck_assert_int_eq(obd_zfile_check_table(&old, jump, p.jump_bytes, &err), -EINVAL);
		ck_assert_ptr_nonnull(strstr(err.msg, "block 5"));
	}
	memcpy(jump, p.jump, p.jump_bytes);
	obd_put_le32(jump, 65900);
	obd_put_le32(jump + 4, 65900);
	obd_put_le32(jump + 8, 65900);
	int rc = obd_zfile_check_table(&old, jump, p.jump_bytes, &err);
	ck_assert_msg(rc == -EINVAL && strstr(err.msg, "index_offset"), "%d %s", rc, err.msg);
	ck_assert_int_eq(obd_zfile_check_table(&old, p.jump, p.jump_bytes - 4, &err), -EINVAL);
	free(jump);
	free(b.p);
}
END_TEST

/* Files cut anywhere do not open; files with a flipped byte in front open and read right, or say no. */
START_TEST(test_hostile_files)
{
	struct buffer b = golden_bytes("zfile/lz4-64k.zfile"), src = source();
	for (size_t n = 0; n < b.n; n += 512) {
		struct obd_err err = {""};
		struct obd_file *m = obd_file_open_mem(b.p, n);
		ck_assert_ptr_null(obd_zfile_open(m, &err));
		ck_assert_int_ne(err.msg[0], 0);
		obd_file_close(m);
	}
	for (size_t i = 0; i < 512; i += 1) {
		struct obd_err err = {""};
		static unsigned char out[4096];
		b.p[i] ^= 0x41;
		struct obd_file *m = obd_file_open_mem(b.p, b.n), *f = obd_zfile_open(m, &err);
		ck_assert_msg(f != NULL || i < 28, "byte %zu: %s", i, err.msg);
		if (f)
			ck_assert_int_eq(obd_file_pread(f, out, sizeof(out), 700000), sizeof(out));
		if (f)
			ck_assert_mem_eq(out, src.p + 700000, sizeof(out));
		obd_file_close(f ? f : m);
		b.p[i] ^= 0x41;
	}
	free(b.p);
	free(src.p);
}
END_TEST

/* Sizes around the block's, incompressible and plain data, fed in uneven pieces. */
START_TEST(test_round_trip)
{
	static unsigned char data[70000], back[70000];
	uint64_t seed = 3;
	for (int i = 0; i < 240; i++) {
		const struct obd_zfile_opts o = {.algorithm = i % 2 ? OBD_ZFILE_ZSTD : OBD_ZFILE_LZ4,
						 .block_bytes = 4096u << i / 2 % 5,
						 .level = i % 7,
						 .no_verify = i % 3 == 0,
						 .threads = i % 6 == 0 ? 3 : 0,
						 .overwrite_header = i % 5 == 0};
		size_t n = i % 4 ? rnd(&seed) % sizeof(data) : o.block_bytes + rnd(&seed) % 3 - 1;
		for (size_t k = 0; k < n; k++)
			data[k] = (unsigned char)(i % 11 < 5 ? rnd(&seed) : k / 1000);
		struct obd_err err = {""};
		struct obd_file *out = obd_file_new_mem(MEM_MAX);
		struct obd_zfile_writer *w = obd_zfile_writer_new(out, &o, &err);
		struct obd_file *sink = obd_zfile_writer_file(w);
		for (size_t at = 0; at < n;) {
			size_t part = (size_t)obd_min_u64(n - at, 1 + rnd(&seed) % 9000);
			ck_assert_int_eq(obd_file_pwrite(sink, data + at, part, at), 0);
			at += part;
		}
		ck_assert_int_eq(obd_file_pwrite(sink, data, 1, n + 1), -ESPIPE);
		ck_assert_int_eq(obd_zfile_writer_finish(w, NULL), 0);
		obd_file_close(sink);
		obd_zfile_writer_free(w);
		struct obd_file *f = open_ok(out);
		ck_assert_int_eq(obd_file_pread(f, back, sizeof(back), 0), (ssize_t)n);
		if (n)
			ck_assert_mem_eq(back, data, n);
		obd_file_close(f);
	}
}
END_TEST

/* Takes some bytes, then no more. */
static int full_pwrite(void *ctx, const void *buf, size_t n, uint64_t off)
{
	(void)buf;
	return off + n > *(uint64_t *)ctx ? -ENOSPC : 0;
}

/* A writer whose destination fails while its threads are busy, and one that is given up. */
START_TEST(test_writer_stops)
{
	static const struct obd_file_ops full = {.pwrite = full_pwrite};
	static unsigned char data[4 << 20];
	const struct obd_zfile_opts o = {.algorithm = OBD_ZFILE_LZ4, .block_bytes = 4096, .threads = 4};
	uint64_t room = 100000, seed = 9;
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (unsigned char)rnd(&seed);
	for (unsigned i = 0; i < 20; i++, room += 400000) {
		struct obd_file *out = obd_file_new(&full, &room);
		struct obd_zfile_writer *w = obd_zfile_writer_new(out, &o, NULL);
		int rc = obd_zfile_writer_append(w, data, sizeof(data));
		if (!rc && i % 2)
			rc = obd_zfile_writer_finish(w, NULL);
		ck_assert(rc == 0 || rc == -ENOSPC);
		obd_zfile_writer_free(w);
		obd_file_close(out);
	}
}
END_TEST

static int stop(void *ctx, uint64_t done, uint64_t total)
{
	(void)total;
	*(uint64_t *)ctx = done;
	return 1;
}

START_TEST(test_writer_refusals)
{
	struct obd_err err = {""};
	struct obd_zfile_opts o = OBD_ZFILE_OPTS_DEFAULT;
	struct obd_file *in = obd_file_open_mem("abc", 3), *out = obd_file_new_mem(MEM_MAX);
	uint64_t seen = 0;
	ck_assert_int_eq(obd_zfile_write(in, out, &o, stop, &seen, NULL, &err), -ECANCELED);
	ck_assert_uint_eq(seen, 3);
	o.block_bytes = 4097;
	ck_assert_int_eq(obd_zfile_write(in, out, &o, NULL, NULL, NULL, &err), -EINVAL);
	o.block_bytes = 131072;
	ck_assert_int_eq(obd_zfile_write(in, out, &o, NULL, NULL, NULL, &err), -EINVAL);
	o.block_bytes = 4096;
	ck_assert_int_eq(obd_zfile_write(out, in, &o, NULL, NULL, NULL, &err), -EROFS);
	o.algorithm = 3;
	ck_assert_int_eq(obd_zfile_write(in, out, &o, NULL, NULL, NULL, &err), -EINVAL);
	obd_file_close(in);
	obd_file_close(out);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {test_golden_read,	    test_golden_write,	  test_random_reads, test_event_driven,
				      test_hostile_offsets, test_hostile_trailer, test_refusals,     test_hostile_table,
				      test_hostile_files,   test_round_trip,	  test_writer_stops, test_writer_refusals};
	return run_cases("zfile", tests, OBD_ARRAY_SIZE(tests));
}
