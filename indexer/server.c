/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The indexer's process: descriptors in, hooks into the loop, messages of the supervisor.
 *
 * It sleeps under two process rows, the catalog's (clients look there) and that of client area 0 (cached looks there), and is
 * woken by its doorbell, or by that of client 0 where one was granted.
 */
#include "indexer/server.h"

#include <errno.h>
#include <linux/capability.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/util.h"
#include "common/config/config.h"
#include "common/daemon/sandbox.h"

static struct obd_indexer_server *server(struct obd_daemon *d)
{
	return d->priv;
}

static int grant(struct obd_daemon *d, const char *name, uint32_t index, uint32_t flags, int fd)
{
	struct obd_err err = {{0}};
	int rc = obd_segment_take(&server(d)->seg, name, index, (flags & OBD_GRANT_WRITE) != 0, fd, &err);
	if (rc)
		obd_error("%s", err.msg);
	return rc;
}

static void on_bell(int fd, uint32_t events, void *arg)
{
	(void)events;
	(void)arg;
	obd_bell_drain(fd);
}

/* The first writable device brings a descriptor along. */
static void watch_events(struct obd_daemon *d)
{
	struct obd_indexer_server *s = server(d);
	int fd = obd_indexer_event_fd(s->ix);
	if (fd == s->event_fd)
		return;
	int rc = obd_loop_watch(d->loop, fd, EPOLLIN, on_bell, NULL);
	if (rc)
		obd_error("event loop: %s", strerror(-rc));
	s->event_fd = rc ? s->event_fd : fd;
}

static void let_go(struct obd_daemon *d, uint32_t c)
{
	struct obd_indexer_server *s = server(d);
	s->leaving[c] = !obd_indexer_client_idle(s->ix, c);
	if (s->leaving[c])
		return;
	obd_segment_drop_client(&s->seg, c);
	int rc = obd_daemon_client_gone(d, c);
	if (rc)
		obd_warn("message to the supervisor: %s", strerror(-rc));
}

static bool poll_hook(void *arg)
{
	struct obd_daemon *d = arg;
	struct obd_indexer_server *s = server(d);
	bool did = obd_indexer_poll(s->ix);
	watch_events(d);
	for (uint32_t c = 0; c < OBD_MAX_CLIENTS; c++)
		if (s->leaving[c])
			let_go(d, c);
	obd_loop_timer_set(s->deadline, obd_indexer_deadline(s->ix));
	return did;
}

static bool arm_hook(void *arg)
{
	struct obd_indexer_server *s = server(arg);
	obd_sleep_announce(&s->seg.catalog->proc);
	obd_sleep_announce(&s->seg.client[0]->proc);
	return obd_indexer_has_work(s->ix);
}

static void disarm_hook(void *arg)
{
	struct obd_indexer_server *s = server(arg);
	obd_sleep_cancel(&s->seg.catalog->proc);
	obd_sleep_cancel(&s->seg.client[0]->proc);
}

static void on_deadline(void *arg)
{
	(void)arg; /* waking the loop is enough: it polls */
}

static int hook_up(struct obd_daemon *d)
{
	struct obd_indexer_server *s = server(d);
	const struct obd_loop_hooks hooks = {.poll = poll_hook, .arm = arm_hook, .disarm = disarm_hook, .arg = d};
	const int bell[2] = {s->seg.bell_indexer, s->seg.bell_client[0]};
	s->deadline = obd_loop_timer_new(d->loop, on_deadline, NULL);
	int rc = s->deadline ? obd_loop_add_hooks(d->loop, &hooks) : -ENOMEM;
	for (int i = 0; i < 2 && !rc; i++)
		if (bell[i] >= 0)
			rc = obd_loop_watch(d->loop, bell[i], EPOLLIN, on_bell, NULL);
	return rc;
}

/* Writes and replaces uppers, results, traces and lock files, which may be anybody's, and leaves them to their owners. */
static int drop_rights(void)
{
	static const int caps[] = {CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER, CAP_FSETID};
	const struct obd_sandbox s = {.caps = caps, .ncaps = OBD_ARRAY_SIZE(caps)};
	return obd_sandbox_enter(&s);
}

static int start(struct obd_daemon *d)
{
	struct obd_indexer_server *s = server(d);
	struct obd_err err = {{0}};
	int rc = drop_rights();
	if (!rc)
		rc = obd_segment_map(&s->seg, &err);
	if (!rc) {
		s->ix = obd_indexer_new(&s->seg, d->incarnation, &err);
		rc = s->ix ? 0 : -EINVAL;
		s->event_fd = -1;
	}
	if (rc) {
		obd_error("%s", err.msg[0] ? err.msg : strerror(-rc));
		return rc;
	}
	obd_indexer_set_engine(s->ix, d->config->io_engine);
	obd_indexer_set_config(s->ix, d->config);
	const char *meta = getenv("OBD_METADATA_FIRST"); /* for measurements */
	obd_indexer_set_prefetch(s->ix, d->config->prefetch_concurrency, !meta || strcmp(meta, "0") != 0);
	rc = hook_up(d);
	if (rc)
		obd_error("event loop: %s", strerror(-rc));
	return rc;
}

static void message(struct obd_daemon *d, const struct obd_msg *msg)
{
	struct obd_indexer_server *s = server(d);
	if (msg->type == OBD_MSG_CLIENT_UP) {
		obd_indexer_client_up(s->ix, msg->index, msg->arg);
	} else if (msg->type == OBD_MSG_CLIENTS_KNOWN) {
		obd_indexer_clients_known(s->ix);
	} else if (msg->type == OBD_MSG_CLIENT_DOWN && msg->index && msg->index < OBD_MAX_CLIENTS) {
		obd_indexer_client_down(s->ix, msg->index);
		let_go(d, msg->index);
	}
}

static void tick(struct obd_daemon *d)
{
	obd_indexer_tick(server(d)->ix);
}

static void stop(struct obd_daemon *d)
{
	struct obd_indexer_server *s = server(d);
	obd_loop_timer_free(s->deadline);
	obd_indexer_free(s->ix);
	obd_segment_close(&s->seg);
}

const struct obd_daemon_ops obd_indexer_ops = {
	.role = OBD_ROLE_INDEXER,
	.name = "obd-indexer",
	.heap_bytes = 8u << 20,
	.grant = grant,
	.start = start,
	.message = message,
	.tick = tick,
	.stop = stop,
};
