/* SPDX-License-Identifier: GPL-2.0-or-later */
/* obd-cached: the cache manager, the only writer of region "table". See cached.h for its parts, doc/architecture.md 4 for the
 * protocol. */
#include <errno.h>
#include <linux/capability.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/testpoint.h"
#include "common/config/config.h"
#include "common/daemon/sandbox.h"
#include "shmcache/cached/cached.h"
#include "shmcache/cached/keeper.h"

#define STARVED_NS (5 * OBD_MS_NS)

static int grant(struct obd_daemon *d, const char *name, uint32_t index, uint32_t flags, int fd)
{
	struct cached *c = d->priv;
	struct obd_err err = {""};
	int rc = obd_segment_take(&c->seg, name, index, (flags & OBD_GRANT_WRITE) != 0, fd, &err);
	if (rc)
		obd_error("%s", err.msg);
	return rc;
}

static bool turn(void *arg)
{
	struct cached *c = arg;
	bool did = obd_clients_poll(c);
	did |= obd_jobs_poll(c);
	obd_jobs_pump(c);
	obd_downloads_turn(c);
	obd_jobs_wake(c);
	obd_clients_wake(c);
	if (c->queued[PRIO_DEMAND] ||
	    !obd_list_empty(&c->suspects)) /* no frame or no fetcher: holds are released without a message */
		obd_misses_alarm(c, obd_clock_ns() + STARVED_NS);
	return did;
}

static bool arm(void *arg)
{
	struct cached *c = arg;
	obd_sleep_announce(&c->seg.table->proc);
	return obd_clients_have_work(c) || obd_jobs_have_work(c);
}

static void disarm(void *arg)
{
	struct cached *c = arg;
	obd_sleep_cancel(&c->seg.table->proc);
}

static void bell(int fd, uint32_t events, void *arg)
{
	(void)events;
	(void)arg;
	obd_bell_drain(fd);
}

static void retry(void *arg)
{
	obd_misses_turn(arg);
}

static int prepare(struct cached *c)
{
	struct obd_err err = {""};
	int rc = obd_segment_map(&c->seg, &err);
	if (rc == -ENOENT)
		return obd_cached_create(c);
	if (rc)
		obd_error("%s", err.msg);
	return rc;
}

/* The disk cache's files are the fetchers'. */
static int drop_rights(void)
{
	static const int caps[] = {CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH};
	const struct obd_sandbox s = {.caps = caps, .ncaps = OBD_ARRAY_SIZE(caps)};
	return obd_sandbox_enter(&s);
}

static int start(struct obd_daemon *d)
{
	struct cached *c = d->priv;
	c->d = d;
	int rc = prepare(c);
	if (rc == 0)
		rc = drop_rights();
	if (rc)
		return rc;
	c->random = c->seg.geo.segment_id ^ obd_clock_ns();
	c->window_blocks = d->config->readahead_kb * 1024 / c->seg.geo.block_bytes;
	c->timer = obd_loop_timer_new(d->loop, retry, c);
	if (!c->timer || obd_frames_init(c) || obd_misses_init(c))
		return -ENOMEM;
	obd_jobs_init(c);
	obd_cached_adopt(c);
	if (obd_downloads_init(c))
		return -ENOMEM;
	obd_proc_start(&c->seg.table->proc, OBD_ROLE_CACHED, 0, d->incarnation);
	obd_keeper_start(c);
	rc = obd_loop_watch(d->loop, c->seg.bell_cached, EPOLLIN, bell, c);
	struct obd_loop_hooks hooks = {.poll = turn, .arm = arm, .disarm = disarm, .arg = c};
	return rc ? rc : obd_loop_add_hooks(d->loop, &hooks);
}

static void message(struct obd_daemon *d, const struct obd_msg *msg)
{
	struct cached *c = d->priv;
	int rc = 0;
	switch (msg->type) {
	case OBD_MSG_CLIENT_UP:
		rc = obd_client_up(c, msg->index, msg->arg);
		break;
	case OBD_MSG_CLIENT_DOWN:
		if (msg->index >= OBD_MAX_CLIENTS)
			break;
		obd_client_down(c, msg->index);
		OBD_TEST_POINT(client_dropped);
		obd_segment_drop_client(&c->seg, msg->index);
		rc = obd_daemon_client_gone(d, msg->index);
		break;
	case OBD_MSG_REAPED:
		if (msg->role == OBD_ROLE_FETCHER)
			obd_jobs_reaped(c, msg->index, (uint32_t)msg->arg);
		break;
	default:
		break;
	}
	if (rc)
		obd_error("client %u: %s", msg->index, "cannot be served");
}

/* The second look of 4.3: a request that has stood in a ring for a second without being taken was not rung for. */
static bool overlooked(struct cached *c, uint32_t id, uint64_t now)
{
	const struct obd_ring *ring = &c->seg.client[id]->requests;
	const struct obd_tail *tail = &c->seg.table->client[id].requests_tail;
	if (!obd_ring_has(ring, tail))
		return false;
	uint64_t entry = obd_load_relaxed(&ring->entry[obd_load_relaxed(&tail->tail) & OBD_RING_MASK]);
	uint32_t slot = obd_entry_slot(entry);
	if (obd_entry_kind(entry) == OBD_ENTRY_HINT || slot >= OBD_REQ_SLOTS)
		return false;
	uint64_t posted = obd_load_relaxed(&c->seg.client[id]->req[slot].posted_ns);
	return posted < now && now - posted > OBD_SECOND_NS;
}

static void second_look(struct cached *c)
{
	uint64_t now = obd_clock_ns();
	for (uint32_t id = 0; id < OBD_MAX_CLIENTS; id++)
		if (c->client[id].up && overlooked(c, id, now))
			obd_count(&c->seg.table->proc, late_wakeups, 1);
}

static void tick(struct obd_daemon *d)
{
	struct cached *c = d->priv;
	obd_proc_heartbeat(&c->seg.table->proc);
	second_look(c);
	obd_clients_expire(c);
	obd_downloads_tick(c);
}

static void stop(struct obd_daemon *d)
{
	struct cached *c = d->priv;
	for (uint32_t id = 0; id < OBD_MAX_CLIENTS; id++)
		obd_client_down(c, id);
	obd_keeper_stop(c);
	obd_downloads_free(c);
	obd_misses_free(c);
	obd_frames_free(c);
	obd_loop_timer_free(c->timer);
	obd_segment_close(&c->seg);
	free(c);
}

int main(int argc, char **argv)
{
	static const struct obd_daemon_ops ops = {.role = OBD_ROLE_CACHED,
						  .name = "obd-cached",
						  .grant = grant,
						  .start = start,
						  .message = message,
						  .tick = tick,
						  .stop = stop};
	struct cached *c = calloc(1, sizeof *c);
	if (!c)
		return 1;
	obd_segment_init(&c->seg);
	return obd_daemon_main(argc, argv, &ops, c);
}
