/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "common/format/tar.h"
#include "test/unit/golden.h"

#define SINGLE "31cf07f12a9d9913c1578f2232d1165c07d97c2f2a2a1d00f815214d58e95315"

static const char *const blobs[] = {
	"tar/commit-z-t.tar", "tar/commit-z-t-zstd.tar", "tar/commit-z-t-lz4-64k.tar", /* holds blocks of 65794 + 4 bytes */
	"tar/tgtera-zfile-t.tar", /* old form; ZFile header with garbage in its reserved bytes */
};

START_TEST(test_golden_content)
{
	for (size_t i = 0; i < OBD_ARRAY_SIZE(blobs); i++) {
		struct obd_err err = {""};
		struct obd_file *blob = golden(blobs[i]);
		struct obd_file *f = obd_stack_open(&blob, 1, &err);
		ck_assert_msg(f != NULL, "%s: %s", blobs[i], err.msg);
		expect_content(f, 2097152, SINGLE);
	}
}
END_TEST

START_TEST(test_golden_framing)
{
	unsigned char header[OBD_TAR_HEADER_BYTES];
	for (size_t i = 0; i < 3; i++) {
		struct obd_err err = {""};
		struct obd_tar_info info;
		struct buffer b = golden_bytes(blobs[i]);
		ck_assert_int_eq(obd_tar_parse(b.p, OBD_TAR_PROBE_BYTES, b.n, &info, &err), 0);
		ck_assert(info.wrapped);
		ck_assert_uint_eq(info.payload_offset, 1536);
		ck_assert_int_eq(obd_tar_header(header, info.payload_bytes), 0);
		ck_assert_mem_eq(header, b.p, sizeof(header));
		uint32_t tail = obd_tar_tail_bytes(info.payload_bytes);
		ck_assert_uint_eq(info.payload_offset + info.payload_bytes + tail, b.n);
		for (size_t at = b.n - tail; at < b.n; at++)
			ck_assert_uint_eq(b.p[at], 0);
		free(b.p);
	}
}
END_TEST

START_TEST(test_not_wrapped)
{
	struct obd_tar_info info;
	unsigned char buf[1024] = {0};
	ck_assert_int_eq(obd_tar_parse(buf, sizeof(buf), 5000, &info, NULL), 0);
	ck_assert(!info.wrapped);
	ck_assert_uint_eq(info.payload_offset, 0);
	ck_assert_uint_eq(info.payload_bytes, 5000);
	ck_assert_int_eq(obd_tar_parse(buf, 0, 0, &info, NULL), 0);
	ck_assert_uint_eq(info.payload_bytes, 0);
}
END_TEST

/* Recomputes the checksum of the block at p, as an attacker would. */
static void reseal(unsigned char *p)
{
	unsigned sum = 0;
	memset(p + 148, ' ', 8);
	for (int i = 0; i < 512; i++)
		sum += p[i];
	char text[8];
	snprintf(text, sizeof(text), "%06o", sum);
	memcpy(p + 148, text, 7);
}

START_TEST(test_size_fields)
{
	struct obd_tar_info info;
	struct obd_err err = {""};
	const char *good[] = {"00000001750", "       1750", "1750 ", "1750"};
	const char *wrong[] = {"1758", "x", "1750 1", "77777777777"};
	unsigned char buf[4096];
	for (size_t i = 0; i < OBD_ARRAY_SIZE(good) + OBD_ARRAY_SIZE(wrong); i++) {
		const bool ok = i < OBD_ARRAY_SIZE(good);
		const char *text = ok ? good[i] : wrong[i - OBD_ARRAY_SIZE(good)];
		struct buffer b = golden_bytes(blobs[3]);
		memcpy(buf, b.p, sizeof(buf));
		free(b.p);
		memset(buf + 124, 0, 12);
		memcpy(buf + 124, text, strlen(text));
		reseal(buf);
		int rc = obd_tar_parse(buf, sizeof(buf), 100000, &info, &err);
		ck_assert_msg((rc == 0) == ok, "'%s': %d %s", text, rc, err.msg);
		if (ok)
			ck_assert_uint_eq(info.payload_bytes, 1000);
	}
	memset(buf + 124, 0, 12);
	buf[124] = 0x80;
	buf[133] = 1;
	reseal(buf);
	ck_assert_int_eq(obd_tar_parse(buf, sizeof(buf), 100000, &info, &err), 0);
	ck_assert_uint_eq(info.payload_bytes, 65536);
	buf[124] = 0xff;
	reseal(buf);
	ck_assert_int_eq(obd_tar_parse(buf, sizeof(buf), 100000, &info, &err), -EINVAL);
}
END_TEST

START_TEST(test_pax_records)
{
	const struct {
		const char *text;
		int rc;
		uint64_t size;
	} cases[] = {
		{"13 size=1000\n", 0, 1000},
		{"14 mtime=1.00\n13 size=1000\n", 0, 1000},
		{"13 size=9999\n13 size=1000\n", 0, 1000},
		{"12 size=1000\n", -EINVAL, 0},
		{"14 size=1000\n", -EINVAL, 0},
		{"13 size=10x0\n", -EINVAL, 0},
		{"99 size=1000\n", -EINVAL, 0},
		{"0 size=1000\n", -EINVAL, 0},
		{"99999999999999999999999 size=1\n", -EINVAL, 0},
		{"32 size=99999999999999999999999\n", -EINVAL, 0},
		{"size=1000\n", -EINVAL, 0},
		{"15 size=999999\n", -EINVAL, 0},
	};
	for (size_t i = 0; i < OBD_ARRAY_SIZE(cases); i++) {
		struct obd_tar_info info;
		struct obd_err err = {""};
		unsigned char buf[4096] = {0};
		obd_tar_header(buf, 4711);
		memset(buf + 512, 0, 512);
		memcpy(buf + 512, cases[i].text, strlen(cases[i].text));
		memset(buf + 124, 0, 12);
		snprintf((char *)buf + 124, 12, "%08o", (unsigned)strlen(cases[i].text) & 511);
		reseal(buf);
		int rc = obd_tar_parse(buf, sizeof(buf), 100000, &info, &err);
		ck_assert_msg(rc == cases[i].rc, "case %zu: %d %s", i, rc, err.msg);
		if (!rc)
			ck_assert_uint_eq(info.payload_bytes, cases[i].size);
	}
}
END_TEST

/* Whatever one byte is, the answer stays inside of the blob; a flipped byte never passes for the original's checksum. */
START_TEST(test_hostile)
{
	for (size_t b = 0; b < OBD_ARRAY_SIZE(blobs); b++) {
		struct buffer file = golden_bytes(blobs[b]);
		const size_t headers = b < 3 ? 1536 : 512;
		for (size_t i = 0; i < headers; i++)
			for (int bit = 0; bit < 8; bit++) {
				struct obd_tar_info info = {0};
				struct obd_err err = {""};
				file.p[i] ^= (unsigned char)(1 << bit);
				int rc = obd_tar_parse(file.p, OBD_TAR_PROBE_BYTES, file.n, &info, &err);
				ck_assert(rc == 0 || (rc == -EINVAL && err.msg[0]));
				if (!rc)
					ck_assert_uint_le(info.payload_bytes, file.n - info.payload_offset);
				if (i >= 1024 && (i < 1024 + 148 || i >= 1024 + 156))
					ck_assert_int_eq(rc, -EINVAL);
				file.p[i] ^= (unsigned char)(1 << bit);
			}
		for (size_t n = 0; n <= file.n; n += n < 4096 ? 37 : 512) {
			struct obd_tar_info info = {0};
			unsigned char *copy = malloc(n ? n : 1);
			memcpy(copy, file.p, n);
			int rc = obd_tar_parse(copy, n, n, &info, NULL);
			ck_assert(rc == 0 || rc == -EINVAL);
			if (!rc)
				ck_assert_uint_le(info.payload_bytes, n - info.payload_offset);
			if (n >= 512 && n < file.n - 1536)
				ck_assert_int_eq(rc, -EINVAL);
			free(copy);
		}
		free(file.p);
	}
}
END_TEST

START_TEST(test_writer_limits)
{
	unsigned char header[OBD_TAR_HEADER_BYTES], blob[4096];
	const uint64_t sizes[] = {0, 1, 511, 512, 9, 99999, UINT64_C(1) << 40, (uint64_t)OBD_TAR_MAX_PAYLOAD};
	for (size_t i = 0; i < OBD_ARRAY_SIZE(sizes); i++) {
		struct obd_tar_info info;
		struct obd_err err = {""};
		ck_assert_int_eq(obd_tar_header(header, sizes[i]), 0);
		memset(blob, 0, sizeof(blob));
		memcpy(blob, header, sizeof(header));
		uint64_t all = 1536 + sizes[i] + obd_tar_tail_bytes(sizes[i]);
		ck_assert_uint_eq(all % 512, 0);
		ck_assert_msg(obd_tar_parse(blob, sizeof(blob), all, &info, &err) == 0, "%s", err.msg);
		ck_assert_uint_eq(info.payload_bytes, sizes[i]);
	}
	ck_assert_int_eq(obd_tar_header(header, (uint64_t)OBD_TAR_MAX_PAYLOAD + 1), -EINVAL);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {test_golden_content, test_golden_framing, test_not_wrapped,  test_size_fields,
				      test_pax_records,	   test_hostile,	test_writer_limits};
	return run_cases("tar", tests, OBD_ARRAY_SIZE(tests));
}
