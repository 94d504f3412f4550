/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Client ids. An id names an area in two servers' minds, so it is given out again only after both have let go of its last
 * owner.
 *
 * Client 0 is the indexer. Its area is replaced at each death of the indexer, before the next one is started, and it has the
 * incarnation number of the indexer that will own it. Only cached holds client 0.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/testpoint.h"
#include "supervisor/fdstore.h"
#include "supervisor/supervisor.h"

static int new_bell_for(const struct obd_supervisor *sv, uint32_t id)
{
	if (id > 0)
		return obd_store_new_bell();
	int fd = fcntl(obd_store_get(&sv->store, OBD_KIND_BELL_INDEXER, 0), F_DUPFD_CLOEXEC, 0);
	return fd < 0 ? -errno : fd;
}

static void empty_place(struct obd_supervisor *sv, uint32_t id)
{
	struct obd_client *client = &sv->clients[id];
	obd_store_put(&sv->store, OBD_KIND_CLIENT, id, -1);
	obd_store_put(&sv->store, OBD_KIND_BELL_CLIENT, id, -1);
	obd_fdstore_put(sv, OBD_KIND_CLIENT, id, -1);
	obd_fdstore_put(sv, OBD_FDSTORE_CLIENT, id, -1);
	if (client->pidfd >= 0) {
		obd_loop_watch(sv->loop, client->pidfd, 0, NULL, NULL);
		close(client->pidfd);
		client->pidfd = -1;
	}
}

/* Whoever finds the segment after us must know who may still look at it. */
static void keep(struct obd_supervisor *sv, uint32_t id)
{
	obd_fdstore_put(sv, OBD_KIND_CLIENT, id, obd_store_get(&sv->store, OBD_KIND_CLIENT, id));
	obd_fdstore_put(sv, OBD_FDSTORE_CLIENT, id, sv->clients[id].pidfd);
	obd_fdstore_note(sv);
}

static int fill_place(struct obd_supervisor *sv, uint32_t id)
{
	int area = obd_store_new_area(&sv->store);
	if (area < 0)
		return area;
	obd_store_put(&sv->store, OBD_KIND_CLIENT, id, area);
	int bell = new_bell_for(sv, id);
	if (bell < 0) {
		empty_place(sv, id);
		return bell;
	}
	obd_store_put(&sv->store, OBD_KIND_BELL_CLIENT, id, bell);
	return 0;
}

static int bring_up(struct obd_supervisor *sv, uint32_t id, uint32_t incarnation, pid_t pid)
{
	struct obd_client *client = &sv->clients[id];
	struct obd_child *cached = obd_group_cached(sv), *indexer = obd_group_indexer(sv);
	int rc = fill_place(sv, id);
	if (rc < 0)
		return rc;
	client->state = OBD_CLIENT_UP;
	client->incarnation = incarnation;
	client->pid = pid;
	client->pidfd = pid ? obd_pidfd(pid) : -1;
	client->orphan = false;
	client->since_ns = obd_clock_ns();
	OBD_TEST_POINT(sv_attached);
	if (id > 0)
		keep(sv, id);
	if (obd_child_is_up(cached))
		obd_hand_out_client(cached, id);
	if (id > 0 && obd_child_is_up(indexer))
		obd_hand_out_client(indexer, id);
	return 0;
}

void obd_client_renew_indexer(struct obd_supervisor *sv)
{
	if (sv->stopping || !sv->segment_complete || sv->clients[0].state != OBD_CLIENT_FREE)
		return;
	int rc = bring_up(sv, 0, obd_group_indexer(sv)->incarnation, 0);
	if (rc < 0)
		obd_error("the indexer's area cannot be made: %s", strerror(-rc));
}

static void free_if_released(struct obd_supervisor *sv, uint32_t id)
{
	struct obd_client *client = &sv->clients[id];
	if (client->state != OBD_CLIENT_DOWN || client->held_by_cached || client->held_by_indexer)
		return;
	client->state = OBD_CLIENT_FREE;
	client->pid = 0;
	empty_place(sv, id);
	obd_fdstore_note(sv);
	if (id == 0)
		obd_client_renew_indexer(sv);
}

int obd_client_attach(struct obd_supervisor *sv, pid_t pid)
{
	for (uint32_t id = 1; id < OBD_MAX_CLIENTS; id++) {
		struct obd_client *client = &sv->clients[id];
		if (client->state != OBD_CLIENT_FREE)
			continue;
		int rc = bring_up(sv, id, client->incarnation + 1, pid);
		return rc < 0 ? rc : (int)id;
	}
	return 0;
}

void obd_client_detach(struct obd_supervisor *sv, uint32_t id)
{
	struct obd_client *client = &sv->clients[id];
	if (client->state != OBD_CLIENT_UP)
		return;
	client->state = OBD_CLIENT_DOWN;
	OBD_TEST_POINT(sv_detached);
	client->orphan = false;
	if (client->held_by_cached)
		obd_tell_client_down(obd_group_cached(sv), id);
	if (client->held_by_indexer)
		obd_tell_client_down(obd_group_indexer(sv), id);
	free_if_released(sv, id);
}

/* ---- orphans: clients of a group before ---- */

void obd_client_came_back(struct obd_supervisor *sv, uint32_t id, uint32_t incarnation, pid_t pid)
{
	if (id == 0 || id >= OBD_MAX_CLIENTS)
		return;
	const struct obd_client *client = &sv->clients[id];
	if (client->orphan && client->incarnation == incarnation && client->pid == pid)
		obd_client_detach(sv, id);
}

static void on_orphan_death(int fd, uint32_t events, void *arg)
{
	struct obd_supervisor *sv = arg;
	(void)events;
	obd_loop_watch(sv->loop, fd, 0, NULL, NULL);
	for (uint32_t id = 1; id < OBD_MAX_CLIENTS; id++) {
		struct obd_client *client = &sv->clients[id];
		if (client->pidfd != fd || !client->orphan)
			continue;
		obd_info("client %u (pid %d) of the group before has ended", id, (int)client->pid);
		obd_client_detach(sv, id);
	}
}

int obd_client_watch_orphan(struct obd_supervisor *sv, uint32_t id)
{
	return obd_loop_watch(sv->loop, sv->clients[id].pidfd, EPOLLIN, on_orphan_death, sv);
}

void obd_client_drop_orphans(struct obd_supervisor *sv)
{
	for (uint32_t id = 1; id < OBD_MAX_CLIENTS; id++) {
		if (!sv->clients[id].orphan)
			continue;
		sv->clients[id].state = OBD_CLIENT_FREE;
		sv->clients[id].orphan = false;
		empty_place(sv, id);
	}
}

int obd_client_released(struct obd_supervisor *sv, enum obd_role server, uint32_t id)
{
	if (id >= OBD_MAX_CLIENTS)
		return -EPROTO;
	struct obd_client *client = &sv->clients[id];
	bool *held = server == OBD_ROLE_CACHED ? &client->held_by_cached : &client->held_by_indexer;
	if (client->state != OBD_CLIENT_DOWN || !*held)
		return -EPROTO;
	*held = false;
	free_if_released(sv, id);
	return 0;
}

void obd_client_server_died(struct obd_supervisor *sv, enum obd_role server)
{
	for (uint32_t id = 0; id < OBD_MAX_CLIENTS; id++) {
		struct obd_client *client = &sv->clients[id];
		if (server == OBD_ROLE_CACHED)
			client->held_by_cached = false;
		else
			client->held_by_indexer = false;
		free_if_released(sv, id);
	}
}
