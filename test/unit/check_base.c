/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/atomic.h"
#include "common/base/clock.h"
#include "common/base/crc32c.h"
#include "common/base/err.h"
#include "common/base/le.h"
#include "common/base/list.h"
#include "common/base/log.h"
#include "common/base/util.h"

static uint32_t crc32c(const void *data, size_t len)
{
	return ~obd_crc32c_raw(~0u, data, len);
}

START_TEST(crc_known_vectors)
{
	unsigned char b[32];
	ck_assert_uint_eq(crc32c("123456789", 9), 0xe3069283u);
	ck_assert_uint_eq(crc32c("", 0), 0);
	/* RFC 3720, B.4 */
	memset(b, 0, sizeof b);
	ck_assert_uint_eq(crc32c(b, 32), 0x8a9136aau);
	memset(b, 0xff, sizeof b);
	ck_assert_uint_eq(crc32c(b, 32), 0x62a8ab43u);
	for (unsigned int i = 0; i < 32; i++)
		b[i] = (unsigned char)i;
	ck_assert_uint_eq(crc32c(b, 32), 0x46dd794eu);
	for (unsigned int i = 0; i < 32; i++)
		b[i] = (unsigned char)(31 - i);
	ck_assert_uint_eq(crc32c(b, 32), 0x113fdb5cu);
}
END_TEST

/* Bit by bit, straight from the definition. */
static uint32_t crc_slow(uint32_t crc, const unsigned char *p, size_t len)
{
	while (len--) {
		crc ^= *p++;
		for (int i = 0; i < 8; i++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
	}
	return crc;
}

START_TEST(crc_any_length_and_alignment)
{
	static unsigned char b[8192 + 64];
	uint32_t x = 1;
	for (size_t i = 0; i < sizeof b; i++) {
		x = x * 1103515245u + 12345u;
		b[i] = (unsigned char)(x >> 16);
	}
	for (size_t at = 0; at < 16; at++)
		for (size_t len = 0; len < 300; len++)
			ck_assert_uint_eq(obd_crc32c_raw(100007, b + at, len), crc_slow(100007, b + at, len));
	ck_assert_uint_eq(obd_crc32c_raw(0, b + 3, 8192), crc_slow(0, b + 3, 8192));
	/* A sum goes on from the sum before it. */
	uint32_t head = obd_crc32c_raw(7, b, 1000);
	ck_assert_uint_eq(obd_crc32c_raw(head, b + 1000, 777), obd_crc32c_raw(7, b, 1777));
}
END_TEST

START_TEST(err_set_and_prefix)
{
	struct obd_err e;
	ck_assert_int_eq(obd_err_set(&e, ENOENT, "no %s", "file"), -ENOENT);
	ck_assert_str_eq(e.msg, "no file");
	ck_assert_int_eq(obd_err_prefix(&e, -ENOENT, "%s", "a.tar"), -ENOENT);
	ck_assert_str_eq(e.msg, "a.tar: no file");
	ck_assert_int_eq(obd_err_prefix(&e, 0, "b"), 0);
	ck_assert_str_eq(e.msg, "a.tar: no file");
	ck_assert_int_eq(obd_err_set(NULL, EIO, "x"), -EIO);
	ck_assert_int_eq(obd_err_prefix(NULL, -EIO, "x"), -EIO);
}
END_TEST

START_TEST(err_is_cut_not_overrun)
{
	struct {
		struct obd_err e;
		char guard[16];
	} s;
	char big[2 * OBD_ERR_BYTES];
	memset(big, 'x', sizeof big - 1);
	big[sizeof big - 1] = 0;
	memset(s.guard, 0x5a, sizeof s.guard);
	obd_err_set(&s.e, EIO, "%s", big);
	ck_assert_uint_eq(strlen(s.e.msg), OBD_ERR_BYTES - 1);
	obd_err_prefix(&s.e, -EIO, "head");
	ck_assert_uint_eq(strlen(s.e.msg), OBD_ERR_BYTES - 1);
	ck_assert_int_eq(strncmp(s.e.msg, "head: xxx", 9), 0);
	obd_err_prefix(&s.e, -EIO, "%s", big);
	ck_assert_uint_eq(strlen(s.e.msg), OBD_ERR_BYTES - 1);
	for (size_t i = 0; i < sizeof s.guard; i++)
		ck_assert_int_eq(s.guard[i], 0x5a);
}
END_TEST

static char *slurp(const char *path)
{
	static char text[65536];
	int fd = open(path, O_RDONLY);
	ck_assert_int_ge(fd, 0);
	ssize_t n = read(fd, text, sizeof text - 1);
	ck_assert_int_ge(n, 0);
	text[n] = 0;
	close(fd);
	return text;
}

static unsigned int count(const char *text, const char *what)
{
	unsigned int n = 0;
	for (const char *p = text; (p = strstr(p, what)); p += strlen(what))
		n++;
	return n;
}

static char dir[64], log_file[128];

static void log_setup(void)
{
	snprintf(dir, sizeof dir, "/tmp/check_base.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(log_file, sizeof log_file, "%s/log", dir);
	obd_log_ident("check");
	ck_assert_int_eq(obd_log_open(log_file, OBD_LOG_INFO), 0);
}

static void log_teardown(void)
{
	char rotated[160];
	obd_log_open(NULL, OBD_LOG_INFO);
	snprintf(rotated, sizeof rotated, "%s.1", log_file);
	unlink(rotated);
	unlink(log_file);
	ck_assert_int_eq(rmdir(dir), 0);
}

START_TEST(log_levels_and_form)
{
	obd_debug("too low");
	obd_warn("half %d", 50);
	const char *text = slurp(log_file);
	char tail[64];
	snprintf(tail, sizeof tail, "Z check[%d] warning: half 50\n", (int)getpid());
	ck_assert_ptr_nonnull(strstr(text, tail));
	ck_assert_ptr_null(strstr(text, "too low"));
	ck_assert_uint_eq(count(text, "\n"), 1);
	obd_log_set_level(OBD_LOG_DEBUG);
	obd_debug("low enough");
	ck_assert_ptr_nonnull(strstr(slurp(log_file), "debug: low enough\n"));
}
END_TEST

START_TEST(log_folds_repeats)
{
	for (int i = 0; i < 5; i++)
		obd_warn("same");
	obd_error("same"); /* another level is another message */
	obd_warn("other");
	const char *text = slurp(log_file);
	ck_assert_uint_eq(count(text, "warning: same\n"), 1);
	ck_assert_uint_eq(count(text, "last message repeated 4 times\n"), 1);
	ck_assert_uint_eq(count(text, "error: same\n"), 1);
	ck_assert_uint_eq(count(text, "\n"), 4);
}
END_TEST

START_TEST(log_keeps_one_line)
{
	obd_warn("%s", "a\nb\rc\x1b[31m\x7f");
	const char *text = slurp(log_file);
	ck_assert_uint_eq(count(text, "\n"), 1);
	ck_assert_ptr_nonnull(strstr(text, "a?b?c?[31m?"));
}
END_TEST

START_TEST(log_keeps_errno_and_reopens)
{
	char rotated[160];
	errno = ENOTTY;
	obd_warn("before");
	ck_assert_int_eq(errno, ENOTTY);
	snprintf(rotated, sizeof rotated, "%s.1", log_file);
	ck_assert_int_eq(rename(log_file, rotated), 0);
	ck_assert_int_eq(obd_log_reopen(), 0);
	obd_warn("after");
	ck_assert_ptr_null(strstr(slurp(log_file), "before"));
	ck_assert_ptr_nonnull(strstr(slurp(log_file), "after"));
	ck_assert_int_eq(obd_log_open("/nonexistent/dir/log", OBD_LOG_INFO), -ENOENT);
	obd_warn("still");
	ck_assert_ptr_nonnull(strstr(slurp(log_file), "still"));
}
END_TEST

START_TEST(list_order_and_removal)
{
	struct element {
		int n;
		struct obd_list link;
	} e[4];
	struct obd_list head;
	obd_list_init(&head);
	ck_assert(obd_list_empty(&head));
	for (int i = 0; i < 4; i++) {
		e[i].n = i;
		if (i)
			obd_list_push_back(&head, &e[i].link);
		else
			obd_list_push_front(&head, &e[i].link);
	}
	obd_list_remove(&e[2].link);
	obd_list_remove(&e[2].link);
	obd_list_push_front(&head, &e[2].link);
	int seen = 0;
	OBD_LIST_FOREACH_SAFE (it, &head) {
		seen = seen * 10 + OBD_LIST_ENTRY(it, struct element, link)->n;
		obd_list_remove(it);
	}
	ck_assert_int_eq(seen, 2013);
	ck_assert(obd_list_empty(&head));
}
END_TEST

START_TEST(little_endian)
{
	static const unsigned char b[9] = {0, 0xf1, 0xe2, 0xd3, 0xc4, 0xb5, 0xa6, 0x97, 0x88};
	unsigned char w[9] = {0};
	ck_assert_uint_eq(obd_get_le16(b + 1), 0xe2f1);
	ck_assert_uint_eq(obd_get_le32(b + 1), 0xc4d3e2f1u);
	ck_assert_uint_eq(obd_get_le64(b + 1), UINT64_C(0x8897a6b5c4d3e2f1));
	obd_put_le64(w + 1, UINT64_C(0x8897a6b5c4d3e2f1));
	ck_assert_mem_eq(w, b, 9);
	obd_put_le32(w + 1, 1);
	obd_put_le16(w + 5, 0x0203);
	ck_assert_mem_eq(w + 1, "\1\0\0\0\3\2\x97\x88", 8);
}
END_TEST

START_TEST(small_arithmetic)
{
	uint64_t r;
	ck_assert(obd_is_pow2(1) && obd_is_pow2(UINT64_C(1) << 63) && !obd_is_pow2(0) && !obd_is_pow2(3));
	ck_assert_uint_eq(obd_align_up(4097, 4096), 8192);
	ck_assert_uint_eq(obd_align_up(4096, 4096), 4096);
	ck_assert_uint_eq(obd_align_down(8191, 4096), 4096);
	ck_assert(obd_add_u64(UINT64_MAX - 1, 1, &r) && r == UINT64_MAX);
	ck_assert(!obd_add_u64(UINT64_MAX, 1, &r));
	ck_assert(obd_mul_u64(UINT64_C(1) << 32, UINT32_MAX, &r) && r == (uint64_t)UINT32_MAX << 32);
	ck_assert(!obd_mul_u64(UINT64_C(1) << 32, UINT64_C(1) << 32, &r));
	uint64_t t = obd_clock_ns();
	ck_assert_uint_ge(obd_clock_ns(), t);
	_Atomic uint64_t c = 5;
	obd_counter_add(&c, 2);
	ck_assert_uint_eq(obd_load_acquire(&c), 7);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("base");
	TCase *t = tcase_create("values");
	tcase_add_test(t, crc_known_vectors);
	tcase_add_test(t, crc_any_length_and_alignment);
	tcase_add_test(t, err_set_and_prefix);
	tcase_add_test(t, err_is_cut_not_overrun);
	tcase_add_test(t, list_order_and_removal);
	tcase_add_test(t, little_endian);
	tcase_add_test(t, small_arithmetic);
	suite_add_tcase(s, t);
	t = tcase_create("log");
	tcase_add_checked_fixture(t, log_setup, log_teardown);
	tcase_add_test(t, log_levels_and_form);
	tcase_add_test(t, log_folds_repeats);
	tcase_add_test(t, log_keeps_one_line);
	tcase_add_test(t, log_keeps_errno_and_reopens);
	suite_add_tcase(s, t);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
