/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The supervisor's arithmetic and tables: back-off, rights, descriptors. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/util.h"
#include "supervisor/backoff.h"
#include "supervisor/grants.h"
#include "supervisor/peer.h"
#include "supervisor/store.h"

#define HUGE_BYTES (2u << 20)

/* ---- back-off ---- */

START_TEST(waits_double_up_to_a_second)
{
	static const unsigned int want_ms[] = {0, 100, 200, 400, 800, 1000, 1000};
	struct obd_backoff b = {0};
	for (size_t i = 0; i < OBD_ARRAY_SIZE(want_ms); i++)
		ck_assert_uint_eq(obd_backoff_death(&b, OBD_BACKOFF_FORGET_NS - 1, false), want_ms[i] * OBD_MS_NS);
}
END_TEST

START_TEST(a_long_life_is_forgiven)
{
	struct obd_backoff b = {0};
	for (int i = 0; i < 6; i++)
		obd_backoff_death(&b, 0, false);
	ck_assert_uint_eq(obd_backoff_death(&b, OBD_BACKOFF_FORGET_NS, true), 0);
	ck_assert_uint_eq(obd_backoff_death(&b, OBD_BACKOFF_FORGET_NS - 1, false), OBD_BACKOFF_FIRST_NS);
}
END_TEST

/* Killed every two seconds for as long as one likes: never a wait, or devices would be down more than up. */
START_TEST(steady_kills_cost_no_wait)
{
	struct obd_backoff b = {0};
	for (int i = 0; i < 300; i++)
		ck_assert_uint_eq(obd_backoff_death(&b, 2 * OBD_SECOND_NS, true), 0);
}
END_TEST

/* Killed whenever it serves: a tenth of a second, not a whole one, on top of its start. */
START_TEST(one_that_serves_waits_little)
{
	struct obd_backoff b = {0};
	ck_assert_uint_eq(obd_backoff_death(&b, 0, true), 0);
	for (int i = 0; i < 20; i++)
		ck_assert_uint_eq(obd_backoff_death(&b, 50 * OBD_MS_NS, true), OBD_BACKOFF_FIRST_NS);
	ck_assert_uint_eq(obd_backoff_death(&b, 50 * OBD_MS_NS, false), OBD_BACKOFF_MAX_NS);
}
END_TEST

/* ---- rights ---- */

/* Which roles may write a region: as doc/architecture.md names its writers. */
START_TEST(each_region_has_one_writing_role)
{
	static const int writers[OBD_KINDS] = {
		[OBD_KIND_GEOMETRY] = 0,
		[OBD_KIND_FRAMES] = 1 << OBD_ROLE_FETCHER,
		[OBD_KIND_FILLS] = 1 << OBD_ROLE_FETCHER,
		[OBD_KIND_TABLE] = 1 << OBD_ROLE_CACHED,
		[OBD_KIND_CATALOG] = 1 << OBD_ROLE_INDEXER,
		[OBD_KIND_INDEX] = 1 << OBD_ROLE_INDEXER,
		[OBD_KIND_RECENCY] = 1 << OBD_ROLE_FRONTEND | 1 << OBD_ROLE_INDEXER, /* it reads as client 0 */
		[OBD_KIND_UPREAD] = 1 << OBD_ROLE_INDEXER,
		[OBD_KIND_TOKENS] = 1 << OBD_ROLE_FETCHER,
		[OBD_KIND_FETCHER] = 1 << OBD_ROLE_FETCHER,
		[OBD_KIND_CLIENT] = 1 << OBD_ROLE_FRONTEND | 1 << OBD_ROLE_INDEXER,
	};
	for (unsigned int k = OBD_KIND_GEOMETRY; k <= OBD_KIND_CLIENT; k++) {
		for (unsigned int role = 0; role < OBD_ROLES; role++) {
			bool may = obd_grant_access((enum obd_kind)k, 0, (enum obd_role)role, 0) == OBD_ACCESS_RW;
			ck_assert_msg(may == !!(writers[k] & 1 << role), "%s by %s", obd_kind_name((enum obd_kind)k),
				      obd_role_name((enum obd_role)role));
		}
	}
}
END_TEST

START_TEST(areas_are_written_by_their_owner_only)
{
	for (uint32_t own = 0; own < OBD_MAX_FETCHERS; own++) {
		for (uint32_t i = 0; i < OBD_MAX_FETCHERS; i++) {
			ck_assert_int_eq(obd_grant_access(OBD_KIND_FETCHER, i, OBD_ROLE_FETCHER, own),
					 i == own ? OBD_ACCESS_RW : OBD_ACCESS_NONE);
			ck_assert_int_eq(obd_grant_access(OBD_KIND_BELL_FETCHER, i, OBD_ROLE_FETCHER, own),
					 i == own ? OBD_ACCESS_RW : OBD_ACCESS_NONE);
		}
	}
	for (uint32_t i = 1; i < OBD_MAX_CLIENTS; i++) {
		ck_assert_int_eq(obd_grant_access(OBD_KIND_CLIENT, i, OBD_ROLE_FRONTEND, 5),
				 i == 5 ? OBD_ACCESS_RW : OBD_ACCESS_NONE);
		ck_assert_int_eq(obd_grant_access(OBD_KIND_CLIENT, i, OBD_ROLE_INDEXER, 0), OBD_ACCESS_RO);
		ck_assert_int_eq(obd_grant_access(OBD_KIND_CLIENT, i, OBD_ROLE_CACHED, 0), OBD_ACCESS_RO);
		ck_assert_int_eq(obd_grant_access(OBD_KIND_BELL_CLIENT, i, OBD_ROLE_INDEXER, 0), OBD_ACCESS_RW);
	}
	ck_assert_int_eq(obd_grant_access(OBD_KIND_BELL_CLIENT, 0, OBD_ROLE_INDEXER, 0), OBD_ACCESS_NONE);
	ck_assert_int_eq(obd_grant_access(OBD_KIND_BELL_CLIENT, 0, OBD_ROLE_CACHED, 0), OBD_ACCESS_RW);
}
END_TEST

START_TEST(stat_and_supervisor_write_nothing)
{
	for (unsigned int k = 0; k < OBD_KINDS; k++) {
		bool shown = k <= OBD_KIND_CLIENT && k != OBD_KIND_TOKENS; /* secrets are nobody's but the fetchers' */
		enum obd_access want = shown ? OBD_ACCESS_RO : OBD_ACCESS_NONE;
		ck_assert_int_eq(obd_grant_access((enum obd_kind)k, 0, OBD_ROLE_STAT, UINT32_MAX), want);
		ck_assert_int_eq(obd_grant_access((enum obd_kind)k, 0, OBD_ROLE_SUPERVISOR, 0), OBD_ACCESS_NONE);
	}
}
END_TEST

START_TEST(names_and_kinds_agree)
{
	for (unsigned int k = 0; k < OBD_KINDS; k++) {
		ck_assert_uint_eq(obd_kind_by_name(obd_kind_name((enum obd_kind)k)), k);
		ck_assert_uint_lt(strlen(obd_kind_name((enum obd_kind)k)), OBD_WIRE_NAME_BYTES);
	}
	ck_assert_uint_eq(obd_kind_by_name(""), OBD_KINDS);
	ck_assert_uint_eq(obd_kind_by_name("frame"), OBD_KINDS);
	ck_assert(obd_kind_is_deposited(OBD_KIND_FETCHER));
	ck_assert(!obd_kind_is_deposited(OBD_KIND_CLIENT));
	ck_assert(!obd_kind_is_deposited(OBD_KIND_BELL_CACHED));
}
END_TEST

/* ---- store ---- */

static struct obd_store store;

static void open_store(void)
{
	ck_assert_int_eq(obd_store_init(&store), 0);
}

static void close_store(void)
{
	obd_store_free(&store);
}

static int memory(void)
{
	int fd = memfd_create("test", MFD_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, 4096), 0);
	return fd;
}

static void expect_refused(const char *name, uint32_t index, int fd, const char *why)
{
	struct obd_err err = {{0}};
	ck_assert_int_eq(obd_store_deposit(&store, name, index, fd, &err), -EPROTO);
	ck_assert_msg(strstr(err.msg, why), "%s", err.msg);
	ck_assert_int_eq(fcntl(fd, F_GETFD), -1); /* taken all the same */
}

START_TEST(deposits_are_checked)
{
	struct obd_err err = {{0}};
	expect_refused("nonsense", 0, memory(), "not a region");
	expect_refused("client", 1, memory(), "not a region");
	expect_refused("doorbell:cached", 0, memory(), "not a region");
	expect_refused("frames", 1, memory(), "only 1");
	expect_refused("fetcher", OBD_MAX_FETCHERS, memory(), "only 32");
	expect_refused("frames", 0, eventfd(0, 0), "not a descriptor of memory");
	ck_assert_int_eq(obd_store_deposit(&store, "frames", 0, memory(), &err), 0);
	expect_refused("frames", 0, memory(), "already");
}
END_TEST

START_TEST(settings_are_checked)
{
	struct obd_err err = {{0}};
	ck_assert_int_eq(obd_store_setting(&store, "colour", 4096, &err), -EPROTO);
	ck_assert_int_eq(obd_store_setting(&store, "client_area_bytes", 0, &err), -EPROTO);
	ck_assert_int_eq(obd_store_setting(&store, "client_area_bytes", 4097, &err), -EPROTO);
	ck_assert_int_eq(obd_store_setting(&store, "client_area_bytes", UINT64_C(1) << 40, &err), -EPROTO);
	ck_assert_int_eq(obd_store_setting(&store, "client_area_bytes", 8192, &err), 0);
	ck_assert_int_eq(obd_store_setting(&store, "client_area_bytes", 8192, &err), 0);
	ck_assert_int_eq(obd_store_setting(&store, "client_area_bytes", 4096, &err), -EPROTO);
}
END_TEST

START_TEST(completeness_is_checked)
{
	static const char *const names[] = {"geometry", "frames",  "fills",  "table", "catalog",
					    "index",	"recency", "upread", "tokens"};
	struct obd_err err = {{0}};
	for (size_t i = 0; i < OBD_ARRAY_SIZE(names); i++) {
		ck_assert_int_eq(obd_store_check(&store, 2, &err), -EPROTO);
		ck_assert_ptr_nonnull(strstr(err.msg, names[i]));
		ck_assert_int_eq(obd_store_deposit(&store, names[i], 0, memory(), &err), 0);
	}
	ck_assert_int_eq(obd_store_deposit(&store, "fetcher", 0, memory(), &err), 0);
	ck_assert_int_eq(obd_store_check(&store, 2, &err), -EPROTO);
	ck_assert_ptr_nonnull(strstr(err.msg, "fetcher 1"));
	ck_assert_int_eq(obd_store_deposit(&store, "fetcher", 1, memory(), &err), 0);
	ck_assert_int_eq(obd_store_check(&store, 2, &err), -EPROTO);
	ck_assert_int_eq(obd_store_setting(&store, "client_area_bytes", 4096, &err), 0);
	ck_assert_int_eq(obd_store_check(&store, 2, &err), 0);
	obd_store_clear_deposits(&store);
	ck_assert_int_eq(obd_store_get(&store, OBD_KIND_FRAMES, 0), -1);
	ck_assert_uint_eq(store.client_area_bytes, 0);
}
END_TEST

START_TEST(areas_cannot_be_resized)
{
	store.client_area_bytes = 8192;
	int fd = obd_store_new_area(&store);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, 4096), -1);
	ck_assert_int_eq(errno, EPERM);
	ck_assert_int_eq(ftruncate(fd, 16384), -1);
	ck_assert_int_eq(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
	void *p = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ck_assert_ptr_ne(p, MAP_FAILED);
	munmap(p, 8192);
	close(fd);
}
END_TEST

static void expect_read_only(int fd, size_t bytes)
{
	int ro = obd_store_read_only(fd);
	ck_assert_int_ge(ro, 0);
	ck_assert_ptr_eq(mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, ro, 0), MAP_FAILED);
	ck_assert_int_eq(errno, EACCES);
	volatile char *rw = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	volatile char *view = mmap(NULL, bytes, PROT_READ, MAP_SHARED, ro, 0);
	ck_assert_ptr_ne((void *)(uintptr_t)rw, MAP_FAILED);
	ck_assert_ptr_ne((void *)(uintptr_t)view, MAP_FAILED);
	ck_assert_int_eq(mprotect((void *)(uintptr_t)view, bytes, PROT_READ | PROT_WRITE), -1);
	rw[17] = 'x';
	ck_assert_int_eq(view[17], 'x');
	munmap((void *)(uintptr_t)rw, bytes);
	munmap((void *)(uintptr_t)view, bytes);
	close(ro);
}

START_TEST(read_only_cannot_be_mapped_writable)
{
	int fd = memory();
	expect_read_only(fd, 4096);
	close(fd);
}
END_TEST

/* Needs a page of the pool: `sysctl vm.nr_hugepages=8`. */
START_TEST(read_only_works_on_huge_pages)
{
	int fd = memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB);
	if (fd < 0 || ftruncate(fd, HUGE_BYTES) < 0 || fallocate(fd, 0, 0, HUGE_BYTES) < 0) {
		fprintf(stderr, "skipped: read_only_works_on_huge_pages: no huge page to be had\n");
		if (fd >= 0)
			close(fd);
		return;
	}
	expect_read_only(fd, HUGE_BYTES);
	close(fd);
}
END_TEST

/* ---- peer ---- */

struct seen {
	struct obd_loop *loop;
	int messages;
	int closed;
	int drained;
	char why[64];
};

static void peer_message(struct obd_peer *peer, const struct obd_msg *msg, int fd)
{
	struct seen *s = peer->owner;
	(void)msg;
	if (fd >= 0)
		close(fd);
	s->messages++;
	obd_loop_stop(s->loop, 0);
}

static void peer_closed(struct obd_peer *peer, const char *why)
{
	struct seen *s = peer->owner;
	s->closed++;
	snprintf(s->why, sizeof s->why, "%s", why ? why : "");
	obd_peer_close(peer);
	obd_loop_stop(s->loop, 0);
}

static void peer_drained(struct obd_peer *peer)
{
	struct seen *s = peer->owner;
	s->drained++;
	obd_loop_stop(s->loop, 0);
}

static const struct obd_peer_ops peer_ops = {.message = peer_message, .closed = peer_closed, .drained = peer_drained};

static struct seen seen;
static struct obd_peer peer;
static int other;

static void open_peer(void)
{
	int pair[2];
	memset(&seen, 0, sizeof seen);
	seen.loop = obd_loop_new();
	ck_assert_ptr_nonnull(seen.loop);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	ck_assert_int_eq(obd_peer_open(&peer, seen.loop, pair[0], &peer_ops, &seen), 0);
	other = pair[1];
}

static void close_peer(void)
{
	obd_peer_close(&peer);
	close(other);
	obd_loop_free(seen.loop);
}

START_TEST(queued_messages_arrive_in_order)
{
	enum { N = 1500 };
	struct obd_msg msg, got;
	int bell = eventfd(0, 0), fd;
	int flags = fcntl(other, F_GETFL);
	for (uint32_t i = 0; i < N; i++) {
		obd_msg_init(&msg, OBD_MSG_GRANT);
		msg.index = i;
		obd_peer_send(&peer, &msg, bell);
	}
	ck_assert_uint_gt(peer.queued, 0);
	ck_assert(obd_peer_is_stuck(&peer, peer.progress_ns + 11, 10));
	close(bell); /* the queue has its own */
	fcntl(other, F_SETFL, flags | O_NONBLOCK);
	for (uint32_t i = 0; i < N; i++) {
		while (obd_msg_recv(other, &got, &fd) == -EAGAIN) {
			ck_assert_uint_gt(peer.queued, 0);
			struct obd_msg ping; /* stops the loop after a turn that also flushes */
			obd_msg_init(&ping, OBD_MSG_HEARTBEAT);
			ck_assert_int_eq(obd_msg_send(other, &ping, -1), 0);
			ck_assert_int_eq(obd_loop_run(seen.loop), 0);
		}
		ck_assert_uint_eq(got.index, i);
		ck_assert_int_ge(fd, 0);
		close(fd);
	}
	ck_assert_uint_eq(peer.queued, 0);
	ck_assert_int_eq(seen.drained, 1);
	ck_assert(!obd_peer_is_stuck(&peer, peer.progress_ns + 11, 10));
}
END_TEST

START_TEST(a_deaf_peer_is_given_up)
{
	struct obd_msg msg;
	obd_msg_init(&msg, OBD_MSG_GRANTS_DONE);
	for (int i = 0; i < 100000 && !peer.broken; i++)
		obd_peer_send(&peer, &msg, -1);
	ck_assert_ptr_nonnull(peer.broken);
	ck_assert_int_eq(seen.closed, 0); /* not from within a send */
	ck_assert_int_eq(obd_loop_run(seen.loop), 0);
	ck_assert_int_eq(seen.closed, 1);
	ck_assert_str_eq(seen.why, "it does not read what it is sent");
	obd_peer_send(&peer, &msg, -1); /* harmless */
}
END_TEST

START_TEST(a_malformed_packet_ends_it)
{
	ck_assert_int_eq((int)send(other, "rude", 4, 0), 4);
	ck_assert_int_eq(obd_loop_run(seen.loop), 0);
	ck_assert_int_eq(seen.closed, 1);
	ck_assert_str_eq(seen.why, "malformed packet");
}
END_TEST

START_TEST(a_closed_peer_is_told_once)
{
	struct obd_msg msg;
	obd_msg_init(&msg, OBD_MSG_READY);
	ck_assert_int_eq(obd_msg_send(other, &msg, -1), 0);
	shutdown(other, SHUT_RDWR);
	obd_peer_send(&peer, &msg, -1); /* EPIPE: not the end yet */
	ck_assert_int_eq(obd_loop_run(seen.loop), 0);
	ck_assert_int_eq(seen.messages, 1); /* what was sent before is not lost */
	ck_assert_int_eq(seen.closed, 0);
	ck_assert_int_eq(obd_loop_run(seen.loop), 0);
	ck_assert_int_eq(seen.closed, 1);
	ck_assert_str_eq(seen.why, "");
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("supervisor");
	TCase *pure = tcase_create("tables");
	tcase_add_test(pure, waits_double_up_to_a_second);
	tcase_add_test(pure, a_long_life_is_forgiven);
	tcase_add_test(pure, steady_kills_cost_no_wait);
	tcase_add_test(pure, one_that_serves_waits_little);
	tcase_add_test(pure, each_region_has_one_writing_role);
	tcase_add_test(pure, areas_are_written_by_their_owner_only);
	tcase_add_test(pure, stat_and_supervisor_write_nothing);
	tcase_add_test(pure, names_and_kinds_agree);
	suite_add_tcase(suite, pure);
	TCase *fds = tcase_create("store");
	tcase_add_checked_fixture(fds, open_store, close_store);
	tcase_add_test(fds, deposits_are_checked);
	tcase_add_test(fds, settings_are_checked);
	tcase_add_test(fds, completeness_is_checked);
	tcase_add_test(fds, areas_cannot_be_resized);
	tcase_add_test(fds, read_only_cannot_be_mapped_writable);
	tcase_add_test(fds, read_only_works_on_huge_pages);
	suite_add_tcase(suite, fds);
	TCase *sockets = tcase_create("peer");
	tcase_add_checked_fixture(sockets, open_peer, close_peer);
	tcase_add_test(sockets, queued_messages_arrive_in_order);
	tcase_add_test(sockets, a_deaf_peer_is_given_up);
	tcase_add_test(sockets, a_malformed_packet_ends_it);
	tcase_add_test(sockets, a_closed_peer_is_told_once);
	suite_add_tcase(suite, sockets);
	SRunner *runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
