/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Whose turn it is (flows.c) and how much may be under way (link.c), without a segment and with a clock of the test's own. */
#include <check.h>
#include <stdlib.h>

#include "common/base/clock.h"
#include "common/base/util.h"
#include "shmcache/cached/cached.h"

enum { KIB = 1024, HASH = 5 };

static struct cached *c;

static void set_up(void)
{
	c = calloc(1, sizeof *c);
	obd_flows_init(c);
	c->host[3].hash = HASH;
	c->host[4].hash = HASH + 1;
}

static void tear_down(void)
{
	obd_flows_free(c);
	free(c);
}

/* --- turns ---------------------------------------------------------------------------------------------------------------- */

static struct miss *push(uint32_t flow, enum prio prio, uint32_t cost)
{
	struct miss *m = calloc(1, sizeof *m);
	obd_list_init(&m->link);
	*m = (struct miss){.link = m->link, .host_hash = HASH, .flow = flow, .prio = (uint8_t)prio, .cost = cost};
	obd_list_init(&m->link);
	obd_flow_push(c, m, false);
	return m;
}

static uint32_t blocked = UINT32_MAX; /* a flow that may not be served */

static uint64_t may(struct cached *cc, const struct flow *f, enum prio prio)
{
	(void)cc, (void)prio;
	return f->id != blocked;
}

/* Serves one; returns its flow, UINT32_MAX: nobody. */
static uint32_t serve(enum prio prio)
{
	uint64_t room;
	struct miss *m = obd_flow_next(c, obd_host_known(c, HASH), prio, may, &room);
	if (!m)
		return UINT32_MAX;
	struct flow *f = m->in;
	uint32_t id = m->flow, cost = m->cost;
	f->jobs++;
	obd_flow_pull(c, m);
	obd_flow_charge(f, prio, cost);
	f->jobs--;
	obd_flow_put(c, f);
	free(m);
	return id;
}

START_TEST(a_storm_and_a_few)
{
	for (int i = 0; i < 1000; i++)
		push(1, PRIO_DEMAND, 64 * KIB);
	for (int i = 0; i < 10; i++)
		push(2, PRIO_DEMAND, 64 * KIB);
	uint32_t served[3] = {0};
	for (int i = 0; i < 20; i++)
		served[serve(PRIO_DEMAND)]++;
	ck_assert_uint_eq(served[1], 10);
	ck_assert_uint_eq(served[2], 10);
	ck_assert_uint_eq(c->queued[PRIO_DEMAND], 990);
	while (serve(PRIO_DEMAND) != UINT32_MAX)
		;
	ck_assert_uint_eq(c->queued[PRIO_DEMAND], 0);
	for (int i = 0; i < FLOW_CHAINS; i++)
		ck_assert_ptr_null(c->flow_hash[i]);
}
END_TEST

START_TEST(turns_are_by_bytes)
{
	uint64_t bytes[4] = {0};
	static const uint32_t cost[4] = {0, 1024 * KIB, 64 * KIB, 16 * KIB};
	for (int i = 0; i < 4000; i++)
		for (uint32_t f = 1; f < 4; f++)
			if (i % (int)(f == 1 ? 16 : 1) == 0)
				push(f, PRIO_DEMAND, cost[f]);
	while (bytes[1] < 32 * 1024 * KIB) {
		uint32_t f = serve(PRIO_DEMAND);
		bytes[f] += cost[f];
	}
	ck_assert_uint_ge(bytes[2], bytes[1] - 2 * 1024 * KIB);
	ck_assert_uint_le(bytes[2], bytes[1] + 2 * 1024 * KIB);
	ck_assert_uint_ge(bytes[3], bytes[1] - 2 * 1024 * KIB);
	ck_assert_uint_le(bytes[3], bytes[1] + 2 * 1024 * KIB);
	while (serve(PRIO_DEMAND) != UINT32_MAX)
		;
}
END_TEST

/* Who asks for one big thing at a time does not shed its debt by having nothing queued meanwhile. */
START_TEST(debts_stay_while_jobs_run)
{
	struct miss *big = push(1, PRIO_DEMAND, 1024 * KIB);
	struct flow *f = big->in;
	f->jobs++; /* its job runs on */
	ck_assert_uint_eq(serve(PRIO_DEMAND), 1);
	push(1, PRIO_DEMAND, 1024 * KIB);
	for (int i = 0; i < 20; i++)
		push(2, PRIO_DEMAND, 64 * KIB);
	for (int i = 0; i < 14; i++)
		ck_assert_uint_eq(serve(PRIO_DEMAND), 2);
	f->jobs--;
	while (serve(PRIO_DEMAND) != UINT32_MAX)
		;
}
END_TEST

START_TEST(who_may_not_keeps_the_place)
{
	for (int i = 0; i < 4; i++) {
		push(1, PRIO_READAHEAD, 64 * KIB);
		push(2, PRIO_READAHEAD, 64 * KIB);
	}
	blocked = 1;
	for (int i = 0; i < 4; i++)
		ck_assert_uint_eq(serve(PRIO_READAHEAD), 2);
	ck_assert_uint_eq(serve(PRIO_READAHEAD), UINT32_MAX);
	blocked = UINT32_MAX;
	for (int i = 0; i < 4; i++)
		ck_assert_uint_eq(serve(PRIO_READAHEAD), 1);
	ck_assert_uint_eq(serve(PRIO_DEMAND), UINT32_MAX);
}
END_TEST

START_TEST(hosts_and_priorities_are_apart)
{
	push(1, PRIO_PREFETCH, KIB);
	push(1, PRIO_DEMAND, KIB);
	ck_assert_uint_eq(obd_host_known(c, HASH)->queued[PRIO_PREFETCH], 1);
	ck_assert_uint_eq(obd_host_known(c, HASH)->queued[PRIO_DEMAND], 1);
	ck_assert_uint_eq(obd_host_known(c, HASH + 1)->queued[PRIO_DEMAND], 0);
	ck_assert(c->host[LOCAL_HOST].local);
	ck_assert_uint_eq(serve(PRIO_READAHEAD), UINT32_MAX);
	ck_assert_uint_eq(serve(PRIO_DEMAND), 1);
	ck_assert_uint_eq(serve(PRIO_DEMAND), UINT32_MAX);
	ck_assert_uint_eq(serve(PRIO_PREFETCH), 1);
}
END_TEST

/* --- links ---------------------------------------------------------------------------------------------------------------- */

/* A link with a queue, and jobs of JOB bytes that `flows` flows keep under way as far as they may. */
enum { JOB = 64 * KIB, UNDER_WAY = 4096 };

struct simulated {
	struct link link;
	uint64_t bytes_per_s;
	uint64_t delay_ns;
	uint64_t now_ns;
	uint64_t free_ns; /* when the link has sent all that it was given */
	uint64_t flow_bytes[LINK_FLOWS];
	uint64_t host_bytes;
	uint64_t came[LINK_FLOWS];
	struct {
		uint64_t issued_ns, done_ns, host_bytes;
		uint32_t flow;
	} job[UNDER_WAY];
	uint32_t first, count;
};

static void sim_issue(struct simulated *s, uint32_t flow)
{
	uint64_t begin = obd_max_u64(s->free_ns, s->now_ns);
	s->free_ns = begin + (uint64_t)(JOB * 1e9 / (double)s->bytes_per_s);
	ck_assert_uint_lt(s->count, UNDER_WAY);
	uint32_t at = (s->first + s->count++) % UNDER_WAY;
	s->flow_bytes[flow] += JOB;
	s->host_bytes += JOB;
	s->job[at].issued_ns = s->now_ns;
	s->job[at].done_ns = s->free_ns + s->delay_ns;
	s->job[at].host_bytes = s->host_bytes;
	s->job[at].flow = flow;
}

static void sim_fill(struct simulated *s, uint32_t flow)
{
	struct link_want w = {.flow = flow, .flow_bytes = s->flow_bytes[flow], .host_bytes = s->host_bytes};
	obd_link_demand(&s->link, flow, s->now_ns);
	while (s->count < UNDER_WAY && (obd_link_room(&s->link, &w, s->now_ns) || !s->flow_bytes[flow])) {
		sim_issue(s, flow);
		w.flow_bytes = s->flow_bytes[flow];
		w.host_bytes = s->host_bytes;
	}
}

/* Flows [0, flows) want all they can get for that long. */
static void sim_run(struct simulated *s, uint32_t flows, uint64_t ns)
{
	uint64_t end = s->now_ns + ns;
	for (uint32_t f = 0; f < flows; f++)
		sim_fill(s, f);
	while (s->now_ns < end) {
		uint32_t at = s->first, flow = s->job[at].flow;
		s->first = (s->first + 1) % UNDER_WAY;
		s->count--;
		s->now_ns = s->job[at].done_ns;
		s->flow_bytes[flow] -= JOB;
		s->host_bytes -= JOB;
		s->came[flow] += JOB;
		obd_link_done(&s->link, JOB, s->now_ns - s->job[at].issued_ns, s->job[at].host_bytes, s->now_ns);
		for (uint32_t f = 0; f < flows; f++)
			sim_fill(s, f);
	}
}

static uint64_t queue_ns(const struct simulated *s)
{
	return s->free_ns > s->now_ns ? s->free_ns - s->now_ns : 0;
}

static struct simulated *sim_new(uint64_t bytes_per_s, uint64_t delay_ns)
{
	struct simulated *s = calloc(1, sizeof *s);
	*s = (struct simulated){.bytes_per_s = bytes_per_s, .delay_ns = delay_ns, .now_ns = OBD_SECOND_NS};
	return s;
}

/* 25 Mbit/s, 30 ms: one flow fills it, and what it has in the queue is bounded. */
START_TEST(slow_and_alone)
{
	struct simulated *s = sim_new(25000000 / 8, 30 * OBD_MS_NS);
	sim_run(s, 1, 3 * OBD_SECOND_NS);
	ck_assert(s->link.narrow);
	s->came[0] = 0;
	sim_run(s, 1, 60 * OBD_SECOND_NS);
	ck_assert_uint_ge(s->came[0], 60 * s->bytes_per_s * 9 / 10);
	ck_assert_uint_le(queue_ns(s), OBD_SECOND_NS / 2);
	free(s);
}
END_TEST

/* Two that want all they can get keep it busy, and have little in the queue, for long and from the first seconds. */
START_TEST(slow_and_shared)
{
	struct simulated *s = sim_new(25000000 / 8, 30 * OBD_MS_NS);
	sim_run(s, 1, 3 * OBD_SECOND_NS);
	for (int i = 0; i < 30; i++) {
		sim_run(s, 2, 3 * OBD_SECOND_NS);
		ck_assert_uint_le(queue_ns(s), 150 * OBD_MS_NS);
	}
	ck_assert_uint_ge(s->came[0] + s->came[1], 93 * s->bytes_per_s * 85 / 100);
	free(s);
}
END_TEST

/* A flow that comes now and then finds the scan of another with no more than a job or two in front. */
START_TEST(slow_beside_a_scan)
{
	struct simulated *s = sim_new(25000000 / 8, 30 * OBD_MS_NS);
	uint64_t came = 0;
	sim_run(s, 1, 3 * OBD_SECOND_NS);
	obd_link_demand(&s->link, 7, s->now_ns);
	sim_run(s, 1, OBD_SECOND_NS); /* the queue of its time alone drains */
	for (int i = 0; i < 300; i++) {
		obd_link_demand(&s->link, 7, s->now_ns);
		came = s->came[0];
		sim_run(s, 1, 100 * OBD_MS_NS);
		ck_assert_uint_le(queue_ns(s), 60 * OBD_MS_NS);
	}
	ck_assert_uint_gt(s->came[0], came);
	free(s);
}
END_TEST

/* 10 Gbit/s, 10 ms: nothing is held back. */
START_TEST(fast_is_full_speed)
{
	struct simulated *s = sim_new(1250000000, 10 * OBD_MS_NS);
	sim_run(s, 1, OBD_SECOND_NS);
	s->came[0] = 0;
	sim_run(s, 1, 5 * OBD_SECOND_NS);
	ck_assert_uint_ge(s->came[0], 5 * s->bytes_per_s * 9 / 10);
	free(s);
}
END_TEST

/* The link becomes twenty times slower under way, and as fast as before again. */
START_TEST(a_link_that_changes)
{
	struct simulated *s = sim_new(100000000, 10 * OBD_MS_NS);
	sim_run(s, 1, 5 * OBD_SECOND_NS);
	s->bytes_per_s = 5000000;
	sim_run(s, 2, 20 * OBD_SECOND_NS);
	ck_assert_uint_le(queue_ns(s), 200 * OBD_MS_NS);
	s->bytes_per_s = 100000000;
	sim_run(s, 1, 30 * OBD_SECOND_NS);
	s->came[0] = 0;
	sim_run(s, 1, 10 * OBD_SECOND_NS);
	ck_assert_uint_ge(s->came[0], 10 * s->bytes_per_s * 8 / 10);
	free(s);
}
END_TEST

START_TEST(background_takes_what_is_left)
{
	struct simulated *s = sim_new(25000000 / 8, 30 * OBD_MS_NS);
	sim_run(s, 1, 3 * OBD_SECOND_NS);
	uint64_t bdp = obd_link_bdp(&s->link);
	struct link_want w = {.flow = 9, .background = true, .host_bytes = bdp + 1};
	ck_assert_uint_eq(obd_link_room(&s->link, &w, s->now_ns), 0); /* flow 0 had demand just now */
	ck_assert_uint_gt(obd_link_room(&s->link, &w, s->now_ns + 5 * OBD_SECOND_NS), 0);
	w.host_bytes = bdp / 2;
	ck_assert_uint_gt(obd_link_room(&s->link, &w, s->now_ns), 0);
	free(s);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("sched");
	TCase *t = tcase_create("sched");
	tcase_add_checked_fixture(t, set_up, tear_down);
	tcase_set_timeout(t, 120);
	tcase_add_test(t, a_storm_and_a_few);
	tcase_add_test(t, turns_are_by_bytes);
	tcase_add_test(t, debts_stay_while_jobs_run);
	tcase_add_test(t, who_may_not_keeps_the_place);
	tcase_add_test(t, hosts_and_priorities_are_apart);
	tcase_add_test(t, slow_and_alone);
	tcase_add_test(t, slow_and_shared);
	tcase_add_test(t, slow_beside_a_scan);
	tcase_add_test(t, fast_is_full_speed);
	tcase_add_test(t, a_link_that_changes);
	tcase_add_test(t, background_takes_what_is_left);
	suite_add_tcase(s, t);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
