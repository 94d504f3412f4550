/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <string.h>

#include "common/base/util.h"
#include "fetcher/http/range.h"
#include "fetcher/http/transfer.h"
#include "test/fetcher/fetcher_tests.h"

/* The request is [100, 200) of a blob of 1000 bytes. */
static const struct {
	long status;
	const char *header;
	int err;
	bool again;
} answers[] = {
	{206, "Content-Range: bytes 100-199/1000\r\n", 0, false},
	{206, "content-range:bytes 100-199/1000 \r\n", 0, false},
	{206, "CONTENT-RANGE: bytes 100-199/*\r\n", 0, false},
	{206, "Content-Range: bytes 100-199/1000\r\nContent-Length: 100\r\n", 0, false},
	{206, "Content-Range: bytes 100-199/1000\r\nContent-Encoding: identity\r\n", 0, false},
	{206, "Content-Range: bytes 100-199/1000\r\nContent-Encoding: gzip\r\n", EAGAIN, true},
	{206, "Content-Range: bytes 100-199/1000\r\nContent-Length: 99\r\n", EAGAIN, false},
	{206, "Content-Range: bytes 100-199/1000\r\nContent-Length: 101\r\n", EAGAIN, false},
	{206, "Content-Range: bytes 100-199/1000\r\nContent-Length: 100\r\nContent-Length: 99\r\n", EAGAIN, true},
	{206, "Content-Range: bytes 100-199/1000\r\nContent-Range: bytes 100-199/1000\r\n", EAGAIN, true},
	{206, "", EAGAIN, true},
	{206, "X-Content-Range: bytes 100-199/1000\r\n", EAGAIN, true},
	{206, "Content-Range: bytes 99-199/1000\r\n", EAGAIN, true},
	{206, "Content-Range: bytes 100-198/1000\r\n", EAGAIN, true},
	{206, "Content-Range: bytes 100-200/1000\r\n", EAGAIN, true},
	{206, "Content-Range: bytes 100-199/1001\r\n", EMSGSIZE, true},
	{206, "Content-Range: bytes 100-199\r\n", EAGAIN, true},
	{206, "Content-Range: bytes 100-199/150\r\n", EAGAIN, true},
	{206, "Content-Range: bytes -100-199/1000\r\n", EAGAIN, true},
	{206, "Content-Range: bytes 18446744073709551716-199/1000\r\n", EAGAIN, true},
	{206, "Content-Range: bytes 100-199/1000 more\r\n", EAGAIN, true},
	{206, "Content-Range: items 100-199/1000\r\n", EAGAIN, true},
	{206, "Content-Range: bytes 100-199/1000\r\nHTTP/1.1 206 again\r\n", EAGAIN, true},
	{200, "", 0, false},
	{200, "Content-Length: 1000\r\n", 0, false},
	{200, "Content-Length: 999\r\n", EMSGSIZE, true},
	{200, "Content-Encoding: gzip\r\n", EAGAIN, true},
	{204, "", EAGAIN, false},
	{304, "", EAGAIN, false},
	{400, "", EAGAIN, false},
	{401, "", EACCES, false},
	{403, "", EACCES, false},
	{404, "", ENOENT, false},
	{416, "", EMSGSIZE, true},
	{410, "", ENOENT, false},
	{408, "", EAGAIN, false},
	{429, "", EAGAIN, false},
	{500, "", EAGAIN, false},
	{503, "", EAGAIN, false},
};

START_TEST(test_judge)
{
	struct obd_http_answer a = {0};
	const char *line = answers[_i].header;
	while (*line) {
		size_t n = (size_t)(strchr(line, '\n') + 1 - line);
		obd_http_answer_line(&a, line, n);
		line += n;
	}
	struct obd_http_verdict v = obd_http_judge(&a, answers[_i].status, 100, 200, 1000);
	ck_assert_int_eq(v.err, answers[_i].err);
	ck_assert_int_eq(v.again, answers[_i].again);
	ck_assert_uint_eq(v.skip, answers[_i].status == 200 && !v.err ? 100 : 0);
}
END_TEST

START_TEST(test_whole_body_limit)
{
	struct obd_http_answer a = {0};
	uint64_t at = OBD_HTTP_DISCARD_MAX;
	ck_assert_int_eq(obd_http_judge(&a, 200, at, at + 1, 0).err, 0);
	ck_assert_int_eq(obd_http_judge(&a, 200, at + 1, at + 2, 0).err, EAGAIN);
}
END_TEST

static char lax_host[] = "lax.example:5000", none[] = "";
static struct obd_registry lax = {.host = lax_host, .insecure = true, .ca_file = none};
static const struct obd_config config = {.registry_count = 1, .registries = &lax, .user_agent = none};

static const struct {
	const char *from; /* NULL: first */
	const char *to;
	bool allowed;
} hops[] = {
	{NULL, "https://a.example/v2", true},
	{NULL, "http://a.example/v2", false},
	{NULL, "http://127.0.0.1:5000/v2", true},
	{NULL, "http://127.8.9.10/v2", true},
	{NULL, "http://localhost:5000/v2", true},
	{NULL, "http://[::1]:5000/v2", true},
	{NULL, "http://128.0.0.1/v2", false},
	{NULL, "http://127.evil.example/v2", false},
	{NULL, "http://localhost.evil.example/v2", false},
	{NULL, "http://lax.example:5000/v2", true},
	{NULL, "http://LAX.example:5000/v2", true},
	{NULL, "http://lax.example:5001/v2", false},
	{"https://a.example/", "https://b.example/x?sig=1", true},
	{"https://a.example/", "http://b.example/x", false},
	{"https://a.example/", "http://127.0.0.1/x", false},
	{"https://lax.example:5000/", "http://b.example/x", true},
	{"http://127.0.0.1/", "http://b.example/x", true},
	{"http://127.0.0.1/", "https://b.example/x", true},
};

START_TEST(test_hops)
{
	struct obd_http_hop from, to;
	const char *what;
	if (hops[_i].from)
		ck_assert_int_eq(obd_http_hop_parse(&config, hops[_i].from, &from, &what), 0);
	ck_assert_int_eq(obd_http_hop_parse(&config, hops[_i].to, &to, &what), 0);
	ck_assert_int_eq(obd_http_hop_allowed(hops[_i].from ? &from : NULL, &to), hops[_i].allowed);
}
END_TEST

START_TEST(test_bad_addresses)
{
	const char *bad[] = {
		"ftp://a.example/",	    "file:///etc/passwd", "https://user@a.example/", "https://u:p@a.example/", "",
		"https://a.example:99999/", "gopher://a"};
	struct obd_http_hop hop;
	const char *what;
	for (size_t i = 0; i < OBD_ARRAY_SIZE(bad); i++)
		ck_assert_msg(obd_http_hop_parse(&config, bad[i], &hop, &what) == EPROTO, "%s", bad[i]);
}
END_TEST

TCase *range_cases(void)
{
	TCase *t = tcase_create("range");
	tcase_add_loop_test(t, test_judge, 0, OBD_ARRAY_SIZE(answers));
	tcase_add_test(t, test_whole_body_limit);
	tcase_add_loop_test(t, test_hops, 0, OBD_ARRAY_SIZE(hops));
	tcase_add_test(t, test_bad_addresses);
	return t;
}
