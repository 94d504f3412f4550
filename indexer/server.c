/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The indexer's process: descriptors in, hooks into the loop, messages of the supervisor.
 *
 * It sleeps under two process rows, the catalog's (clients look there) and that of client area 0 (cached looks there), and is
 * woken by its doorbell, or by that of client 0 where one was granted.
 */
#include "indexer/server.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>

#include "common/base/log.h"

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

static bool poll_hook(void *arg)
{
	struct obd_indexer_server *s = arg;
	bool did = obd_indexer_poll(s->ix);
	obd_loop_timer_set(s->deadline, obd_indexer_deadline(s->ix));
	return did;
}

static bool arm_hook(void *arg)
{
	struct obd_indexer_server *s = arg;
	obd_sleep_announce(&s->seg.catalog->proc);
	obd_sleep_announce(&s->seg.client[0]->proc);
	return obd_indexer_has_work(s->ix);
}

static void disarm_hook(void *arg)
{
	struct obd_indexer_server *s = arg;
	obd_sleep_cancel(&s->seg.catalog->proc);
	obd_sleep_cancel(&s->seg.client[0]->proc);
}

static void on_bell(int fd, uint32_t events, void *arg)
{
	(void)events;
	(void)arg;
	obd_bell_drain(fd);
}

static void on_deadline(void *arg)
{
	(void)arg; /* waking the loop is enough: it polls */
}

static int hook_up(struct obd_daemon *d)
{
	struct obd_indexer_server *s = server(d);
	const struct obd_loop_hooks hooks = {.poll = poll_hook, .arm = arm_hook, .disarm = disarm_hook, .arg = s};
	const int bell[2] = {s->seg.bell_indexer, s->seg.bell_client[0]};
	s->deadline = obd_loop_timer_new(d->loop, on_deadline, NULL);
	int rc = s->deadline ? obd_loop_add_hooks(d->loop, &hooks) : -ENOMEM;
	for (int i = 0; i < 2 && !rc; i++)
		if (bell[i] >= 0)
			rc = obd_loop_watch(d->loop, bell[i], EPOLLIN, on_bell, NULL);
	return rc;
}

static int start(struct obd_daemon *d)
{
	struct obd_indexer_server *s = server(d);
	struct obd_err err = {{0}};
	int rc = obd_segment_map(&s->seg, &err);
	if (!rc) {
		s->ix = obd_indexer_new(&s->seg, d->incarnation, &err);
		rc = s->ix ? 0 : -EINVAL;
	}
	if (rc) {
		obd_error("%s", err.msg[0] ? err.msg : strerror(-rc));
		return rc;
	}
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
	} else if (msg->type == OBD_MSG_CLIENT_DOWN && msg->index) {
		obd_indexer_client_down(s->ix, msg->index);
		obd_segment_drop_client(&s->seg, msg->index);
		int rc = obd_daemon_client_gone(d, msg->index);
		if (rc)
			obd_warn("message to the supervisor: %s", strerror(-rc));
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
	.grant = grant,
	.start = start,
	.message = message,
	.tick = tick,
	.stop = stop,
};
