/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Trace files: bytes that another writer made, our own, and wrong ones. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/crc32c.h"
#include "common/base/le.h"
#include "common/base/util.h"
#include "common/format/trace.h"

/* Two records with rubbish in their padding, as a C++ struct on a stack has it: checksum computed by an independent program. */
static const unsigned char foreign[] = {
	0x20, 0x18, 0xef, 0xc2, 0, 0, 0, 0, 48, 0,    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, /* checksum set below */
	'R',  0x7f, 0,	  0x12, 2, 0, 0, 0, 0,	0x10, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, /* layer 2: 4096 at 65536 */
	'W',  0,    0,	  0,	0, 0, 0, 0, 1,	0,    0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0,
};

/* A slow CRC of our own: the library's must agree with the polynomial, not with itself. */
static uint32_t slow_crc(const unsigned char *p, size_t n)
{
	uint32_t crc = 0;
	for (size_t i = 0; i < n; i++) {
		crc ^= p[i];
		for (int k = 0; k < 8; k++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
	}
	return crc;
}

START_TEST(test_foreign)
{
	unsigned char file[sizeof foreign];
	struct obd_trace_record r;
	uint64_t n;
	memcpy(file, foreign, sizeof file);
	obd_put_le32(file + 16, slow_crc(file + 24, sizeof file - 24));
	ck_assert_uint_eq(obd_get_le32(file), OBD_TRACE_MAGIC);
	ck_assert_int_eq(obd_trace_check(file, sizeof file, &n, NULL), 0);
	ck_assert_uint_eq(n, 2);
	ck_assert(obd_trace_get(file, 0, &r));
	ck_assert_uint_eq(r.layer, 2);
	ck_assert_uint_eq(r.count, 4096);
	ck_assert_uint_eq(r.offset, 65536);
	ck_assert(!obd_trace_get(file, 1, &r));
}
END_TEST

START_TEST(test_own)
{
	unsigned char file[24 + 3 * 24];
	uint64_t n;
	for (uint32_t i = 0; i < 3; i++) {
		const struct obd_trace_record r = {.layer = i, .offset = i * UINT64_C(0x123456789), .count = 1 + i};
		struct obd_trace_record back;
		obd_trace_encode(file + 24 + i * 24, &r);
		ck_assert(obd_trace_decode(file + 24 + i * 24, &back));
		ck_assert(back.layer == r.layer && back.offset == r.offset && back.count == r.count);
	}
	obd_trace_header(file, file + 24, 3);
	ck_assert_uint_eq(obd_get_le32(file + 16), slow_crc(file + 24, 72));
	ck_assert_uint_eq(obd_get_le64(file + 8), 72);
	ck_assert_uint_eq(obd_get_le32(file + 4) | obd_get_le32(file + 20), 0);
	ck_assert_int_eq(obd_trace_check(file, sizeof file, &n, NULL), 0);
	ck_assert_uint_eq(n, 3);
	obd_trace_header(file, file + 24, 0);
	ck_assert_int_eq(obd_trace_check(file, 24, &n, NULL), 0);
	ck_assert_uint_eq(n, 0);
}
END_TEST

START_TEST(test_wrong)
{
	unsigned char file[24 + 48];
	struct obd_err err;
	uint64_t n;
	memset(file, 0, sizeof file);
	obd_trace_header(file, file + 24, 2);
	ck_assert_int_eq(obd_trace_check(file, sizeof file, &n, &err), 0);
	for (size_t len = 0; len < sizeof file; len++)
		ck_assert_int_eq(obd_trace_check(file, len, &n, &err), -EINVAL);
	for (size_t i = 0; i < sizeof file; i++) {
		bool padding = (i >= 4 && i < 8) || (i >= 20 && i < 24);
		file[i] ^= 0x40;
		ck_assert_int_eq(obd_trace_check(file, sizeof file, &n, &err), padding ? 0 : -EINVAL);
		file[i] ^= 0x40;
	}
	obd_put_le64(file + 8, 47);
	ck_assert_int_eq(obd_trace_check(file, 24 + 47, &n, &err), -EINVAL);
	uint64_t big = OBD_TRACE_FILE_MAX + OBD_TRACE_RECORD_BYTES;
	unsigned char *p = calloc(1, big);
	obd_trace_header(p, p + 24, OBD_TRACE_RECORDS_MAX + 1);
	ck_assert_int_eq(obd_trace_check(p, big, &n, &err), -EFBIG);
	free(p);
}
END_TEST

START_TEST(test_blocks)
{
	uint64_t first, count;
	struct obd_trace_record r = {.offset = 65535, .count = 2};
	ck_assert(obd_trace_blocks(&r, 200000, 65536, &first, &count));
	ck_assert_uint_eq(first, 0);
	ck_assert_uint_eq(count, 2);
	r = (struct obd_trace_record){.offset = 1, .count = UINT64_MAX};
	ck_assert(obd_trace_blocks(&r, 200000, 65536, &first, &count));
	ck_assert_uint_eq(count, 4);
	r = (struct obd_trace_record){.offset = UINT64_MAX, .count = UINT64_MAX};
	ck_assert(!obd_trace_blocks(&r, 200000, 65536, &first, &count));
	r = (struct obd_trace_record){.offset = 199999, .count = 5};
	ck_assert(obd_trace_blocks(&r, 200000, 65536, &first, &count));
	ck_assert_uint_eq(first, 3);
	ck_assert_uint_eq(count, 1);
	r.count = 0;
	ck_assert(!obd_trace_blocks(&r, 200000, 65536, &first, &count));
}
END_TEST

START_TEST(test_join)
{
	struct obd_trace_record r = {.layer = 1, .offset = 65536, .count = 65536};
	const struct obd_trace_record next = {.layer = 1, .offset = 131072, .count = 65536};
	struct obd_trace_record other = next;
	other.layer = 2;
	ck_assert(!obd_trace_join(&r, &other));
	ck_assert(obd_trace_join(&r, &next));
	ck_assert_uint_eq(r.count, 131072);
	ck_assert(!obd_trace_join(&r, &next));
	other = (struct obd_trace_record){.layer = 1, .offset = 196608, .count = OBD_TRACE_COUNT_MAX};
	ck_assert(!obd_trace_join(&r, &other));
	other.count = OBD_TRACE_COUNT_MAX - 131072;
	ck_assert(obd_trace_join(&r, &other));
	ck_assert_uint_eq(r.count, OBD_TRACE_COUNT_MAX);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("trace");
	TCase *tc = tcase_create("trace");
	tcase_add_test(tc, test_foreign);
	tcase_add_test(tc, test_own);
	tcase_add_test(tc, test_wrong);
	tcase_add_test(tc, test_blocks);
	tcase_add_test(tc, test_join);
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
