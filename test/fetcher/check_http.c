/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Against a server in a thread, which the digest tells how to behave. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/util.h"
#include "fetcher/auth/auth.h"
#include "fetcher/http/http.h"
#include "test/fetcher/fetcher_tests.h"

#define BLOB_BYTES 300000u

static unsigned char blob[BLOB_BYTES];
static int listener;
static int port;
static char base_url[64];
static struct obd_loop *loop;
static struct obd_http *http;
static struct obd_fetch_stats stats;
static struct obd_registry registries[1];
static struct obd_config config;
static char other_host[] = "other.example", none[] = "";
static struct obd_auth *auth;
static char cred_path[64];
static char last_request[4096]; /* written by the server's threads, read when all is done */

/* --- the server ----------------------------------------------------------------------------------------------------------- */

static void put(int fd, const void *buf, size_t n)
{
	const char *p = buf;
	while (n) {
		ssize_t k = send(fd, p, n, MSG_NOSIGNAL);
		if (k <= 0)
			return;
		p += k;
		n -= (size_t)k;
	}
}

static void put_text(int fd, const char *text)
{
	put(fd, text, strlen(text));
}

/* Bytes a to b of the blob; the header says so but for say_a. */
static void put_partial(int fd, size_t a, size_t b, size_t say_a, size_t sent, const char *more)
{
	char head[400];
	snprintf(head, sizeof head, "HTTP/1.1 206 Partial\r\nContent-Range: bytes %zu-%zu/%u\r\nContent-Length: %zu\r\n%s\r\n",
		 say_a, b, BLOB_BYTES, b + 1 - a, more);
	put_text(fd, head);
	put(fd, blob + a, sent);
}

static void put_reset(int fd)
{
	struct linger now = {.l_onoff = 1, .l_linger = 0};
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
}

static void put_redirect(int fd, const char *to)
{
	char head[300];
	snprintf(head, sizeof head, "HTTP/1.1 307 Temporary\r\nLocation: %s\r\nContent-Length: 5\r\n\r\nmoved", to);
	put_text(fd, head);
}

static bool answer_broken(int fd, const char *how, size_t a, size_t b)
{
	if (strcmp(how, "short") == 0) {
		put_partial(fd, a, b, a, (b - a) / 2, "");
		return false;
	} else if (strcmp(how, "reset") == 0) {
		put_reset(fd);
		return false;
	} else if (strcmp(how, "close") == 0) {
		return false;
	} else if (strcmp(how, "garbage") == 0) {
		put_text(fd, "\x01\x02SSH-2.0 what is this\r\n\r\n");
		return false;
	} else if (strcmp(how, "hang") == 0) {
		sleep(4);
		return false;
	} else if (strcmp(how, "endless") == 0) { /* chunks, more than was asked for */
		put_text(fd, "HTTP/1.1 206 Partial\r\nTransfer-Encoding: chunked\r\nContent-Range: bytes "
			     "1000-1999/300000\r\n\r\n7d0\r\n");
		put(fd, blob + 1000, 2000);
		put_text(fd, "\r\n0\r\n\r\n");
	}
	return true;
}

static bool answer_status(int fd, const char *how)
{
	char head[200];
	int status = atoi(how);
	if (status < 100)
		return false;
	snprintf(head, sizeof head, "HTTP/1.1 %d Thing\r\nContent-Length: 4\r\n\r\nbody", status);
	put_text(fd, head);
	return true;
}

static void answer_whole(int fd)
{
	char head[100];
	snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nContent-Length: %u\r\n\r\n", BLOB_BYTES);
	put_text(fd, head);
	put(fd, blob, BLOB_BYTES);
}

/* Wants Basic user:pa:ss, and then behaves as told behind "basic-". */
static const char *behind_basic(int fd, const char *how, const char *req)
{
	static const char denied[] =
		"HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm=\"all of it\"\r\nContent-Length: 0\r\n\r\n";
	if (strncmp(how, "basic-", 6) != 0)
		return how;
	if (strstr(req, "\r\nAuthorization: Basic dXNlcjpwYTpzcw==\r\n"))
		return how + 6;
	put_text(fd, denied);
	return NULL;
}

/* False: close. */
static bool answer(int fd, const char *how, size_t a, size_t b)
{
	char url[100];
	if (answer_status(fd, how))
		return true;
	if (strcmp(how, "ok") == 0)
		put_partial(fd, a, b, a, b + 1 - a, "");
	else if (strcmp(how, "encoded") == 0)
		put_partial(fd, a, b, a, b + 1 - a, "Content-Encoding: gzip\r\n");
	else if (strcmp(how, "badrange") == 0)
		put_partial(fd, a, b, a + 1, b + 1 - a, "");
	else if (strcmp(how, "whole") == 0)
		answer_whole(fd);
	else if (strcmp(how, "redirect") == 0)
		put_redirect(fd, "/x/ok?sig=secret");
	else if (strcmp(how, "redirect-abs") == 0) {
		snprintf(url, sizeof url, "http://localhost:%d/x/ok", port);
		put_redirect(fd, url);
	} else if (strcmp(how, "redirect-404") == 0)
		put_redirect(fd, "/x/404?sig=secret");
	else if (strcmp(how, "redirect-file") == 0)
		put_redirect(fd, "file:///etc/passwd");
	else if (strcmp(how, "loop") == 0)
		put_redirect(fd, "/x/loop");
	else
		return answer_broken(fd, how, a, b);
	return true;
}

static bool serve_one(int fd)
{
	char req[4096], how[64];
	size_t n = 0, a = 0, b = 0;
	while (n < sizeof req - 1) {
		ssize_t k = recv(fd, req + n, 1, 0);
		if (k <= 0)
			return false;
		req[++n] = '\0';
		if (n >= 4 && memcmp(req + n - 4, "\r\n\r\n", 4) == 0)
			break;
	}
	const char *range = strstr(req, "Range: bytes=");
	if (!range || sscanf(range, "Range: bytes=%zu-%zu", &a, &b) != 2 || sscanf(req, "GET /x/%60[^ ?]", how) != 1)
		return false;
	memcpy(last_request, req, n + 1);
	const char *then = behind_basic(fd, how, req);
	return then ? answer(fd, then, a, b) : true;
}

static void *serve_connection(void *arg)
{
	int fd = (int)(intptr_t)arg;
	while (serve_one(fd))
		;
	close(fd);
	return NULL;
}

static void *serve(void *arg)
{
	(void)arg;
	for (;;) {
		pthread_t thread;
		int fd = accept(listener, NULL, NULL);
		if (fd < 0)
			return NULL;
		pthread_create(&thread, NULL, serve_connection, (void *)(intptr_t)fd);
		pthread_detach(thread);
	}
}

static void start_server(void)
{
	pthread_t thread;
	struct sockaddr_in sin = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof sin;
	listener = socket(AF_INET, SOCK_STREAM, 0);
	ck_assert_int_eq(bind(listener, (struct sockaddr *)&sin, len), 0);
	ck_assert_int_eq(listen(listener, 64), 0);
	ck_assert_int_eq(getsockname(listener, (struct sockaddr *)&sin, &len), 0);
	port = ntohs(sin.sin_port);
	pthread_create(&thread, NULL, serve, NULL);
	pthread_detach(thread);
}

/* --- fixture -------------------------------------------------------------------------------------------------------------- */

static void setup(void)
{
	const struct obd_http_limits limits = {.connect_ms = 1000, .stall_s = 2, .total_ms = 3000};
	fill_noise(blob, BLOB_BYTES, 2);
	start_server();
	snprintf(base_url, sizeof base_url, "http://127.0.0.1:%d/x", port);
	registries[0] = (struct obd_registry){.host = other_host, .ca_file = none};
	snprintf(cred_path, sizeof cred_path, "/tmp/check_http.%d.json", (int)getpid());
	config = (struct obd_config){
		.user_agent = none, .credential_path = cred_path, .registry_count = 1, .registries = registries};
	memset(&stats, 0, sizeof stats);
	loop = obd_loop_new();
	http = obd_http_new(loop, &config, &limits, &stats);
	ck_assert_ptr_nonnull(http);
	auth = obd_auth_new(loop, &config, http, NULL, NULL, &stats);
	ck_assert_ptr_nonnull(auth);
	obd_http_use_auth(http, auth);
}

static void teardown(void)
{
	obd_auth_free(auth);
	unlink(cred_path);
	obd_http_free(http);
	obd_loop_free(loop);
	close(listener);
}

static struct obd_http_target target(const char *how)
{
	return (struct obd_http_target){.url = base_url, .digest = how, .blob_bytes = BLOB_BYTES};
}

static struct keeper keeper(int *left, size_t room)
{
	return (struct keeper){.loop = loop, .buf = malloc(room + 1), .room = room, .left = left};
}

static struct keeper get_target(const struct obd_http_target *t, uint64_t start, uint64_t end)
{
	int left = 1;
	struct keeper k = keeper(&left, end - start);
	ck_assert_int_eq(obd_http_get(http, t, start, end, &keeper_sink, &k), 0);
	ck_assert_int_eq(k.dones, 0);
	ck_assert_int_eq(obd_loop_run(loop), 7);
	ck_assert_int_eq(k.dones, 1);
	if (k.err == 0) {
		ck_assert_uint_eq(k.got, end - start);
		ck_assert_mem_eq(k.buf, blob + start, end - start);
	} else {
		ck_assert_ptr_nonnull(strstr(k.reason, "registry "));
		ck_assert_ptr_null(strstr(k.reason, "secret"));
	}
	free(k.buf);
	return k;
}

static struct keeper get(const char *how, uint64_t start, uint64_t end)
{
	struct obd_http_target t = target(how);
	return get_target(&t, start, end);
}

static const struct {
	const char *how;
	int err;
	bool again;
} behaviours[] = {
	{"ok", 0, false},
	{"whole", 0, false},
	{"redirect", 0, false},
	{"redirect-abs", 0, false},
	{"redirect-404", ENOENT, false},
	{"redirect-file", EAGAIN, false},
	{"loop", EAGAIN, false},
	{"encoded", EAGAIN, true},
	{"badrange", EAGAIN, true},
	{"short", EAGAIN, false},
	{"endless", EAGAIN, false},
	{"garbage", EAGAIN, false},
	{"reset", ECONNRESET, false},
	{"close", ECONNRESET, false},
	{"hang", ETIMEDOUT, false},
	{"401", EACCES, false},
	{"403", EACCES, false},
	{"404", ENOENT, false},
	{"416", EMSGSIZE, true},
	{"429", EAGAIN, false},
	{"503", EAGAIN, false},
};

START_TEST(test_behaviours)
{
	struct keeper k = get(behaviours[_i].how, 1000, 2000);
	ck_assert_msg(k.err == behaviours[_i].err && k.again == behaviours[_i].again, "%s: errno %d, again %d: %s",
		      behaviours[_i].how, k.err, k.again, k.reason);
}
END_TEST

START_TEST(test_ranges_and_keep_alive)
{
	ck_assert_int_eq(get("ok", 0, 1).err, 0);
	ck_assert_int_eq(get("ok", 0, BLOB_BYTES).err, 0);
	ck_assert_int_eq(get("ok", BLOB_BYTES - 1, BLOB_BYTES).err, 0);
	ck_assert_int_eq(get("404", 0, 1).err, ENOENT);
	ck_assert_int_eq(get("ok", 77, 99999).err, 0);
	ck_assert_uint_eq(stats.http_requests, 5);
	ck_assert_uint_eq(stats.connections, 1);
	ck_assert_uint_eq(stats.err_http_4xx, 1);
	ck_assert_ptr_nonnull(strstr(last_request, "User-Agent: overlaybd/"));
	ck_assert_ptr_nonnull(strstr(last_request, "Accept-Encoding: identity"));
}
END_TEST

START_TEST(test_many_at_once_and_a_slow_one)
{
	enum { N = 40 };
	struct keeper k[N], slow;
	int left = N, never = 1;
	struct obd_http_target hang = target("hang"), ok = target("ok");
	slow = keeper(&never, 10);
	ck_assert_int_eq(obd_http_get(http, &hang, 0, 10, &keeper_sink, &slow), 0);
	for (int i = 0; i < N; i++) {
		k[i] = keeper(&left, 50000);
		ck_assert_int_eq(obd_http_get(http, &ok, (uint64_t)i * 1000, (uint64_t)i * 1000 + 50000, &keeper_sink, &k[i]),
				 0);
	}
	ck_assert_int_eq(obd_loop_run(loop), 7);
	ck_assert_int_eq(slow.dones, 0);
	for (int i = 0; i < N; i++) {
		ck_assert_int_eq(k[i].err, 0);
		ck_assert_mem_eq(k[i].buf, blob + (size_t)i * 1000, 50000);
		free(k[i].buf);
	}
	obd_http_free(http);
	http = NULL;
	ck_assert_int_eq(slow.dones, 0);
	free(slow.buf);
}
END_TEST

START_TEST(test_unreachable_and_refused)
{
	struct obd_http_target t = target("ok");
	t.url = "http://127.0.0.1:1/x";
	ck_assert_int_eq(get_target(&t, 0, 10).err, ECONNREFUSED);
	ck_assert_uint_eq(stats.err_connect, 1);
	t.url = "http://registry.example/x";
	struct keeper k = get_target(&t, 0, 10);
	ck_assert_int_eq(k.err, EACCES);
	ck_assert_ptr_nonnull(strstr(k.reason, "registry registry.example: plain http is not allowed"));
	t.url = "ftp://registry.example/x";
	ck_assert_int_eq(get_target(&t, 0, 10).err, EPROTO);
	ck_assert_uint_eq(stats.http_requests, 1);
}
END_TEST

static void write_credentials(const char *user, const char *password)
{
	FILE *f = fopen(cred_path, "w");
	ck_assert_ptr_nonnull(f);
	fprintf(f, "{\"auths\": {\"127.0.0.1:%d\": {\"username\": \"%s\", \"password\": \"%s\"}}}", port, user, password);
	fclose(f);
}

START_TEST(test_authorization_stays_at_home)
{
	write_credentials("user", "pa:ss");
	ck_assert_int_eq(get("basic-ok", 0, 10).err, 0);
	ck_assert_ptr_nonnull(strstr(last_request, "Authorization: Basic dXNlcjpwYTpzcw=="));
	ck_assert_uint_eq(stats.http_requests, 2);
	ck_assert_int_eq(get("basic-redirect-abs", 0, 10).err, 0);
	ck_assert_ptr_null(strstr(last_request, "Authorization"));
	ck_assert_uint_eq(stats.http_requests, 4);
}
END_TEST

START_TEST(test_sink_refuses)
{
	int left = 1;
	struct obd_http_target t = target("ok");
	struct keeper k = keeper(&left, BLOB_BYTES);
	k.refuse_at = 1;
	ck_assert_int_eq(obd_http_get(http, &t, 0, BLOB_BYTES, &keeper_sink, &k), 0);
	ck_assert_int_eq(obd_loop_run(loop), 7);
	ck_assert_int_eq(k.err, ENOSPC);
	free(k.buf);
}
END_TEST

TCase *http_cases(void)
{
	TCase *t = tcase_create("http");
	tcase_set_timeout(t, 30);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_loop_test(t, test_behaviours, 0, OBD_ARRAY_SIZE(behaviours));
	tcase_add_test(t, test_ranges_and_keep_alive);
	tcase_add_test(t, test_many_at_once_and_a_slow_one);
	tcase_add_test(t, test_unreachable_and_refused);
	tcase_add_test(t, test_authorization_stays_at_home);
	tcase_add_test(t, test_sink_refuses);
	return t;
}
