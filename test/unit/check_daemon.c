/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Messages with descriptors, and the event loop. */
#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/daemon/loop.h"
#include "common/daemon/wire.h"

/* ---- wire ---- */

static int pair[2];

static void open_pair(void)
{
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
}

static void close_pair(void)
{
	close(pair[0]);
	close(pair[1]);
}

static int count_fds(void)
{
	int n = 0;
	DIR *dir = opendir("/proc/self/fd");
	ck_assert_ptr_nonnull(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

START_TEST(message_arrives_whole)
{
	struct obd_msg out, in;
	int fd;
	obd_msg_init(&out, OBD_MSG_CLIENT_UP);
	out.role = OBD_ROLE_FRONTEND;
	out.index = 7;
	out.arg = UINT64_C(0x123456789abcdef);
	strcpy(out.text, "text");
	ck_assert_int_eq(obd_msg_send(pair[0], &out, -1), 0);
	ck_assert_int_eq(obd_msg_recv(pair[1], &in, &fd), 1);
	ck_assert_int_eq(fd, -1);
	ck_assert_mem_eq(&in, &out, sizeof in);
	ck_assert_int_eq(obd_msg_recv(pair[1], &in, &fd), -EAGAIN);
}
END_TEST

START_TEST(descriptor_travels)
{
	struct obd_msg out, in;
	int fd;
	int bell = eventfd(0, EFD_NONBLOCK);
	uint64_t one = 1, got = 0;
	obd_msg_init(&out, OBD_MSG_GRANT);
	strcpy(out.name, "doorbell:cached");
	ck_assert_int_eq(obd_msg_send(pair[0], &out, bell), 0);
	ck_assert_int_eq(obd_msg_recv(pair[1], &in, &fd), 1);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_ne(fd, bell);
	ck_assert_int_eq(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	ck_assert_int_eq((int)write(bell, &one, sizeof one), (int)sizeof one);
	ck_assert_int_eq((int)read(fd, &got, sizeof got), (int)sizeof got);
	ck_assert_uint_eq(got, 1);
	close(fd);
	close(bell);
}
END_TEST

START_TEST(closed_peer_is_zero)
{
	struct obd_msg in;
	int fd;
	struct obd_msg out;
	obd_msg_init(&out, OBD_MSG_READY);
	ck_assert_int_eq(obd_msg_send(pair[1], &out, -1), 0); /* left unread: the kernel says ECONNRESET */
	close(pair[0]);
	ck_assert_int_eq(obd_msg_recv(pair[1], &in, &fd), 0);
	ck_assert_int_eq(obd_msg_send(pair[1], &out, -1), -EPIPE);
	pair[0] = dup(pair[1]);
}
END_TEST

static void send_raw(const void *data, size_t len, const int *fds, size_t nfds)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(32 * sizeof(int))];
	} control;
	struct iovec iov = {.iov_base = (void *)(uintptr_t)data, .iov_len = len};
	struct msghdr hdr = {.msg_iov = &iov, .msg_iovlen = 1};
	if (nfds) {
		memset(&control, 0, sizeof control);
		hdr.msg_control = control.buf;
		hdr.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
		struct cmsghdr *c = CMSG_FIRSTHDR(&hdr);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(nfds * sizeof(int));
		memcpy(CMSG_DATA(c), fds, nfds * sizeof(int));
	}
	ck_assert_int_eq((int)sendmsg(pair[0], &hdr, MSG_NOSIGNAL), (int)len);
}

static void expect_malformed(const void *data, size_t len, const int *fds, size_t nfds)
{
	struct obd_msg in;
	int fd = 4711;
	int before = count_fds();
	send_raw(data, len, fds, nfds);
	ck_assert_int_eq(obd_msg_recv(pair[1], &in, &fd), -EPROTO);
	ck_assert_int_eq(fd, -1);
	ck_assert_int_eq(count_fds(), before);
}

START_TEST(malformed_packets_are_refused)
{
	struct obd_msg good, bad;
	char longer[sizeof good + 1];
	obd_msg_init(&good, OBD_MSG_READY);

	expect_malformed(&good, sizeof good - 1, NULL, 0);
	expect_malformed(&good, 1, NULL, 0);
	memset(longer, 0, sizeof longer);
	memcpy(longer, &good, sizeof good);
	expect_malformed(longer, sizeof longer, NULL, 0);

	bad = good;
	bad.magic++;
	expect_malformed(&bad, sizeof bad, NULL, 0);
	bad = good;
	bad.type = 0;
	expect_malformed(&bad, sizeof bad, NULL, 0);
	bad.type = OBD_MSG_TYPES;
	expect_malformed(&bad, sizeof bad, NULL, 0);
	bad = good;
	bad.role = OBD_ROLES;
	expect_malformed(&bad, sizeof bad, NULL, 0);
	bad = good;
	memset(bad.name, 'x', sizeof bad.name);
	expect_malformed(&bad, sizeof bad, NULL, 0);
	bad = good;
	memset(bad.text, 'x', sizeof bad.text);
	expect_malformed(&bad, sizeof bad, NULL, 0);
}
END_TEST

START_TEST(wrong_descriptor_counts_are_refused)
{
	struct obd_msg ready, grant;
	int fds[20];
	for (size_t i = 0; i < 20; i++)
		fds[i] = STDERR_FILENO;
	obd_msg_init(&ready, OBD_MSG_READY);
	obd_msg_init(&grant, OBD_MSG_GRANT);
	expect_malformed(&ready, sizeof ready, fds, 1);
	expect_malformed(&grant, sizeof grant, NULL, 0);
	expect_malformed(&grant, sizeof grant, fds, 2);
	expect_malformed(&grant, sizeof grant, fds, 8);
	expect_malformed(&grant, sizeof grant, fds, 20);
	expect_malformed(&grant, 3, fds, 20);
}
END_TEST

START_TEST(full_socket_says_again)
{
	struct obd_msg out;
	int rc = 0, sent = 0;
	obd_msg_init(&out, OBD_MSG_HEARTBEAT);
	while ((rc = obd_msg_send(pair[0], &out, -1)) == 0 && sent < 100000)
		sent++;
	ck_assert_int_eq(rc, -EAGAIN);
}
END_TEST

/* ---- loop ---- */

static struct obd_loop *loop;
static char trace[64]; /* one letter per call */

static void note(char c)
{
	size_t n = strlen(trace);
	if (n + 1 < sizeof trace) {
		trace[n] = c;
		trace[n + 1] = '\0';
	}
}

static void open_loop(void)
{
	loop = obd_loop_new();
	ck_assert_ptr_nonnull(loop);
	trace[0] = '\0';
}

static void close_loop(void)
{
	obd_loop_free(loop);
}

static void stop_timer(void *arg)
{
	(void)arg;
	note('S');
	obd_loop_stop(loop, 42);
}

static void note_timer(void *arg)
{
	note(*(const char *)arg);
}

START_TEST(timers_fire_in_order)
{
	static const char names[] = "abcdefgh";
	struct obd_loop_timer *timers[8], *stop;
	uint64_t now = obd_clock_ns();
	static const unsigned int when[8] = {5, 3, 8, 1, 7, 2, 6, 4};
	for (size_t i = 0; i < 8; i++) {
		timers[i] = obd_loop_timer_new(loop, note_timer, (void *)(uintptr_t)&names[i]);
		obd_loop_timer_set(timers[i], now + when[i] * OBD_MS_NS);
	}
	stop = obd_loop_timer_new(loop, stop_timer, NULL);
	obd_loop_timer_set(stop, now + 9 * OBD_MS_NS);
	obd_loop_timer_set(timers[2], 0);		    /* disarmed */
	obd_loop_timer_set(timers[3], now + 8 * OBD_MS_NS); /* moved */
	ck_assert_int_eq(obd_loop_run(loop), 42);
	ck_assert_str_eq(trace, "fbhagedS");
	ck_assert_uint_ge(obd_clock_ns(), now + 9 * OBD_MS_NS);
	for (size_t i = 0; i < 8; i++)
		obd_loop_timer_free(timers[i]);
	obd_loop_timer_free(stop);
}
END_TEST

START_TEST(many_timers)
{
	enum { N = 200 };
	struct obd_loop_timer *timers[N], *stop;
	uint64_t now = obd_clock_ns();
	uint32_t seed = 1;
	for (int i = 0; i < N; i++)
		timers[i] = obd_loop_timer_new(loop, note_timer, (void *)(uintptr_t) "x");
	for (int round = 0; round < 10; round++) {
		for (int i = 0; i < N; i++) {
			seed = seed * 1103515245 + 12345;
			obd_loop_timer_set(timers[i], seed & 0x10000 ? 0 : now + 1 + (seed >> 8) % 1000);
		}
	}
	for (int i = 0; i < N; i += 2)
		obd_loop_timer_free(timers[i]);
	for (int i = 1; i < N; i += 2)
		obd_loop_timer_set(timers[i], now + (uint64_t)(i < 10 ? 1 : 3600 * OBD_SECOND_NS));
	stop = obd_loop_timer_new(loop, stop_timer, NULL);
	obd_loop_timer_set(stop, now + OBD_MS_NS);
	ck_assert_int_eq(obd_loop_run(loop), 42);
	ck_assert_str_eq(trace, "xxxxxS");
	for (int i = 1; i < N; i += 2)
		obd_loop_timer_free(timers[i]);
	obd_loop_timer_free(stop);
}
END_TEST

struct rearm {
	struct obd_loop_timer *timer;
	int left;
};

static void rearm_now(void *arg)
{
	struct rearm *r = arg;
	note('r');
	if (--r->left)
		obd_loop_timer_set(r->timer, 1); /* long due */
	else
		obd_loop_stop(loop, 0);
}

START_TEST(timer_may_arm_itself)
{
	struct rearm r = {.left = 3};
	r.timer = obd_loop_timer_new(loop, rearm_now, &r);
	obd_loop_timer_set(r.timer, 1);
	ck_assert_int_eq(obd_loop_run(loop), 0);
	ck_assert_str_eq(trace, "rrr");
	obd_loop_timer_free(r.timer);
}
END_TEST

static int other_fd;

/* Both descriptors are ready in the same turn; the first callback stops the second. */
static void drop_other(int fd, uint32_t events, void *arg)
{
	(void)arg;
	ck_assert_uint_eq(events & EPOLLIN, EPOLLIN);
	note('w');
	ck_assert_int_eq(obd_loop_watch(loop, fd == other_fd ? *(int *)arg : other_fd, 0, NULL, NULL), 0);
	ck_assert_int_eq(obd_loop_watch(loop, fd, 0, NULL, NULL), 0);
	obd_loop_stop(loop, 0);
}

START_TEST(unwatched_descriptor_is_silent)
{
	int first = eventfd(1, EFD_NONBLOCK);
	other_fd = eventfd(1, EFD_NONBLOCK);
	ck_assert_int_eq(obd_loop_watch(loop, first, EPOLLIN, drop_other, &first), 0);
	ck_assert_int_eq(obd_loop_watch(loop, other_fd, EPOLLIN, drop_other, &first), 0);
	ck_assert_int_eq(obd_loop_run(loop), 0);
	ck_assert_str_eq(trace, "w");
	struct obd_loop_timer *stop = obd_loop_timer_new(loop, stop_timer, NULL);
	obd_loop_timer_set(stop, obd_clock_ns() + 2 * OBD_MS_NS);
	ck_assert_int_eq(obd_loop_run(loop), 42);
	ck_assert_str_eq(trace, "wS");
	obd_loop_timer_free(stop);
	close(first);
	close(other_fd);
}
END_TEST

static void note_watch(int fd, uint32_t events, void *arg)
{
	uint64_t value;
	(void)events;
	ck_assert_int_eq((int)read(fd, &value, sizeof value), (int)sizeof value);
	note(*(const char *)arg);
	obd_loop_stop(loop, 0);
}

START_TEST(second_watch_replaces_the_first)
{
	int fd = eventfd(1, EFD_NONBLOCK);
	ck_assert_int_eq(obd_loop_watch(loop, fd, EPOLLIN, note_watch, (void *)(uintptr_t) "a"), 0);
	ck_assert_int_eq(obd_loop_watch(loop, fd, EPOLLIN, note_watch, (void *)(uintptr_t) "b"), 0);
	ck_assert_int_eq(obd_loop_run(loop), 0);
	ck_assert_str_eq(trace, "b");
	ck_assert_int_eq(obd_loop_watch(loop, fd, 0, NULL, NULL), 0);
	ck_assert_int_eq(obd_loop_watch(loop, fd, 0, NULL, NULL), 0);
	ck_assert_int_eq(obd_loop_watch(loop, -1, EPOLLIN, note_watch, NULL), -EBADF);
	close(fd);
	/* Closed while watched, and the number used again. */
	int again = eventfd(1, EFD_NONBLOCK);
	ck_assert_int_eq(obd_loop_watch(loop, again, EPOLLIN, note_watch, (void *)(uintptr_t) "c"), 0);
	close(again);
	int reused = eventfd(1, EFD_NONBLOCK);
	ck_assert_int_eq(reused, again);
	ck_assert_int_eq(obd_loop_watch(loop, reused, EPOLLIN, note_watch, (void *)(uintptr_t) "d"), 0);
	ck_assert_int_eq(obd_loop_run(loop), 0);
	ck_assert_str_eq(trace, "bd");
	close(reused);
}
END_TEST

/* Hooks write their letter; poll finds work as often as `work` says, arm finds work once per `late`. */
struct hook {
	const char *letters; /* poll, arm, disarm */
	int work;
	int late;
};

static bool hook_poll(void *arg)
{
	struct hook *h = arg;
	note(h->letters[0]);
	return h->work > 0 && h->work--;
}

static bool hook_arm(void *arg)
{
	struct hook *h = arg;
	note(h->letters[1]);
	return h->late > 0 && h->late--;
}

static void hook_disarm(void *arg)
{
	struct hook *h = arg;
	note(h->letters[2]);
}

static void add_hook(struct hook *h)
{
	struct obd_loop_hooks hooks = {.poll = hook_poll, .arm = hook_arm, .disarm = hook_disarm, .arg = h};
	ck_assert_int_eq(obd_loop_add_hooks(loop, &hooks), 0);
}

static void run_one_sleep(void)
{
	struct obd_loop_timer *stop = obd_loop_timer_new(loop, stop_timer, NULL);
	obd_loop_timer_set(stop, obd_clock_ns() + 2 * OBD_MS_NS);
	ck_assert_int_eq(obd_loop_run(loop), 42);
	obd_loop_timer_free(stop);
}

START_TEST(hooks_are_called_in_order)
{
	struct hook a = {.letters = "paz", .work = 1}, b = {.letters = "qby"};
	add_hook(&a);
	add_hook(&b);
	run_one_sleep();
	ck_assert_str_eq(trace, "pqpqabzyS"); /* poll until idle, arm both, sleep, disarm both */
}
END_TEST

START_TEST(late_work_cancels_the_sleep)
{
	struct hook a = {.letters = "paz"}, b = {.letters = "qby", .late = 1}, c = {.letters = "rcx"};
	add_hook(&a);
	add_hook(&b);
	add_hook(&c);
	run_one_sleep();
	/* b finds work when it looks again: c is not armed, a and b take it back, everything is polled again */
	ck_assert_str_eq(trace, "pqrabzypqrabczyxS");
}
END_TEST

START_TEST(busy_hooks_do_not_stop_the_timers)
{
	struct hook busy = {.letters = "paz", .work = INT32_MAX};
	add_hook(&busy);
	run_one_sleep();
	ck_assert_ptr_null(strchr(trace, 'a'));
}
END_TEST

START_TEST(at_most_four_hooks)
{
	struct hook h = {.letters = "paz"};
	struct obd_loop_hooks hooks = {.arg = &h};
	for (int i = 0; i < 4; i++)
		ck_assert_int_eq(obd_loop_add_hooks(loop, &hooks), 0);
	ck_assert_int_eq(obd_loop_add_hooks(loop, &hooks), -ENOSPC);
	run_one_sleep(); /* empty hooks are allowed */
	ck_assert_str_eq(trace, "S");
}
END_TEST

static bool stop_poll(void *arg)
{
	(void)arg;
	note('p');
	obd_loop_stop(loop, 7);
	return true;
}

START_TEST(stop_in_a_hook_ends_the_run)
{
	struct obd_loop_hooks hooks = {.poll = stop_poll};
	ck_assert_int_eq(obd_loop_add_hooks(loop, &hooks), 0);
	ck_assert_int_eq(obd_loop_run(loop), 7);
	ck_assert_str_eq(trace, "p");
	obd_loop_stop(loop, 8); /* before the run: it ends at once */
	ck_assert_int_eq(obd_loop_run(loop), 8);
	ck_assert_str_eq(trace, "p");
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("daemon");
	TCase *wire = tcase_create("wire");
	tcase_add_checked_fixture(wire, open_pair, close_pair);
	tcase_add_test(wire, message_arrives_whole);
	tcase_add_test(wire, descriptor_travels);
	tcase_add_test(wire, closed_peer_is_zero);
	tcase_add_test(wire, malformed_packets_are_refused);
	tcase_add_test(wire, wrong_descriptor_counts_are_refused);
	tcase_add_test(wire, full_socket_says_again);
	suite_add_tcase(suite, wire);
	TCase *turns = tcase_create("loop");
	tcase_add_checked_fixture(turns, open_loop, close_loop);
	tcase_add_test(turns, timers_fire_in_order);
	tcase_add_test(turns, many_timers);
	tcase_add_test(turns, timer_may_arm_itself);
	tcase_add_test(turns, unwatched_descriptor_is_silent);
	tcase_add_test(turns, second_watch_replaces_the_first);
	tcase_add_test(turns, hooks_are_called_in_order);
	tcase_add_test(turns, late_work_cancels_the_sleep);
	tcase_add_test(turns, busy_hooks_do_not_stop_the_timers);
	tcase_add_test(turns, at_most_four_hooks);
	tcase_add_test(turns, stop_in_a_hook_ends_the_run);
	suite_add_tcase(suite, turns);
	SRunner *runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
