/* SPDX-License-Identifier: GPL-2.0-or-later */
/* obd-cached without a process: what shmcache/cached/main.c does, on a loop of its own. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "test/stress/stress.h"

struct life {
	struct stress_actor *a;
	struct cached *c;
	struct obd_daemon d;
	struct obd_loop_timer *tick;
	uint64_t rnd;
};

/* --- private memory ------------------------------------------------------------------------------------------------------ */

static void retry(void *arg)
{
	obd_misses_turn(arg);
}

struct cached *stress_cached_new(struct stress_world *w, struct obd_daemon *d)
{
	struct cached *c = calloc(1, sizeof *c);
	if (!c)
		stress_fail("out of memory");
	c->seg = w->seg;
	c->d = d;
	c->random = w->opt.seed;
	c->window_blocks = 8;
	c->timer = obd_loop_timer_new(d->loop, retry, c);
	if (!c->timer || obd_frames_init(c) || obd_misses_init(c))
		stress_fail("out of memory");
	obd_jobs_init(c);
	obd_cached_adopt(c);
	obd_proc_start(&c->seg.table->proc, OBD_ROLE_CACHED, 0, d->incarnation);
	return c;
}

static void free_probes(struct obd_list *list)
{
	OBD_LIST_FOREACH_SAFE (it, list) {
		struct miss *m = OBD_LIST_ENTRY(it, struct miss, link);
		if (m->kind == OBD_JOB_PROBE)
			free(m);
	}
}

static void free_misses(struct cached *c)
{
	for (int i = 0; i < FLOW_CHAINS; i++)
		for (struct flow *f = c->flow_hash[i]; f; f = f->hash_next)
			for (int p = 0; p < PRIOS; p++)
				free_probes(&f->queue[p]);
	free_probes(&c->backoff);
	for (uint32_t f = 0; f < c->seg.geo.nfetchers; f++)
		for (uint32_t s = 0; s < OBD_JOB_SLOTS; s++)
			if (c->fetcher[f].job[s].live && c->fetcher[f].job[s].kind == OBD_JOB_PROBE)
				free(c->fetcher[f].job[s].miss[0]);
	for (uint32_t i = 0; i <= c->miss_mask; i++)
		for (struct miss *m = c->miss_hash[i], *next; m; m = next) {
			next = m->hash_next;
			free(m);
		}
	free(c->miss_hash);
	obd_flows_free(c);
}

/* Writes nothing that others see, like death. */
void stress_cached_free(struct cached *c)
{
	for (uint32_t id = 0; id < OBD_MAX_CLIENTS; id++)
		obd_client_down(c, id);
	free_misses(c);
	obd_frames_free(c);
	obd_loop_timer_free(c->timer);
	free(c);
}

/* --- hooks ---------------------------------------------------------------------------------------------------------------- */

/* A death between two steps. */
static bool dies(struct life *l)
{
	if (!stress_stopped(l->a))
		return false;
	obd_loop_stop(l->d.loop, 0);
	return true;
}

static bool turn(void *arg)
{
	struct life *l = arg;
	struct cached *c = l->c;
	if (dies(l))
		return false;
	bool did = obd_clients_poll(c);
	if (dies(l))
		return false;
	did |= obd_jobs_poll(c);
	if (dies(l))
		return false;
	obd_jobs_pump(c);
	if (stress_random(&l->rnd) % 64 == 0)
		stress_audit_cached(c);
	if (dies(l))
		return false;
	obd_jobs_wake(c);
	if (dies(l))
		return false;
	obd_clients_wake(c);
	if (c->queued[PRIO_DEMAND])
		obd_misses_alarm(c, obd_clock_ns() + 5 * OBD_MS_NS);
	return did;
}

static bool arm(void *arg)
{
	struct life *l = arg;
	obd_sleep_announce(&l->c->seg.table->proc);
	return obd_clients_have_work(l->c) || obd_jobs_have_work(l->c);
}

static void disarm(void *arg)
{
	struct life *l = arg;
	obd_sleep_cancel(&l->c->seg.table->proc);
}

static void bell(int fd, uint32_t events, void *arg)
{
	(void)events;
	(void)arg;
	obd_bell_drain(fd);
}

static void message(int fd, uint32_t events, void *arg)
{
	struct life *l = arg;
	struct stress_msg m;
	(void)events;
	if (recv(fd, &m, sizeof m, MSG_DONTWAIT) != (ssize_t)sizeof m)
		return;
	switch (m.type) {
	case OBD_MSG_CLIENT_UP:
		if (obd_client_up(l->c, m.index, m.arg))
			stress_fail("client %u cannot be served", m.index);
		break;
	case OBD_MSG_CLIENT_DOWN:
		obd_client_down(l->c, m.index);
		m.type = OBD_MSG_CLIENT_GONE;
		(void)!send(fd, &m, sizeof m, MSG_NOSIGNAL);
		break;
	default:
		obd_jobs_reaped(l->c, m.index, (uint32_t)m.arg);
	}
}

static void tick(void *arg)
{
	struct life *l = arg;
	obd_proc_heartbeat(&l->c->seg.table->proc);
	obd_clients_expire(l->c);
	stress_audit_cached(l->c);
	obd_loop_timer_set(l->tick, obd_clock_ns() + OBD_SECOND_NS);
}

void stress_cached_run(struct stress_actor *a)
{
	struct life *l = calloc(1, sizeof *l);
	if (!l)
		stress_fail("out of memory");
	l->a = a;
	l->rnd = a->seed;
	l->d = (struct obd_daemon){.loop = obd_loop_new(), .config = &a->w->cfg, .incarnation = a->incarnation};
	l->c = stress_cached_new(a->w, &l->d);
	obd_store_relaxed(&a->w->sh->adoptions, obd_load_relaxed(&a->w->sh->adoptions) + 1);
	stress_audit_cached(l->c);
	l->tick = obd_loop_timer_new(l->d.loop, tick, l);
	obd_loop_timer_set(l->tick, obd_clock_ns() + OBD_SECOND_NS);
	struct obd_loop_hooks hooks = {.poll = turn, .arm = arm, .disarm = disarm, .arg = l};
	if (obd_loop_watch(l->d.loop, l->c->seg.bell_cached, EPOLLIN, bell, l) ||
	    obd_loop_watch(l->d.loop, a->sock, EPOLLIN, message, l) || obd_loop_add_hooks(l->d.loop, &hooks))
		stress_fail("event loop");
	obd_loop_run(l->d.loop);
	obd_loop_timer_free(l->tick);
	stress_cached_free(l->c);
	obd_loop_free(l->d.loop);
	free(l);
}
