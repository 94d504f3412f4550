/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/base/log.h"
#include "common/base/testpoint.h"
#include "supervisor/supervisor.h"

/* Is the descriptor alive? Those of a client that is down wait only for their old holders. */
static bool is_current(const struct obd_supervisor *sv, enum obd_kind kind, uint32_t index)
{
	if (obd_store_get(&sv->store, kind, index) < 0)
		return false;
	if (kind == OBD_KIND_CLIENT || kind == OBD_KIND_BELL_CLIENT)
		return sv->clients[index].state == OBD_CLIENT_UP;
	return true;
}

static void hand_out(struct obd_supervisor *sv, struct obd_peer *peer, enum obd_role role, uint32_t own, enum obd_kind kind,
		     uint32_t index)
{
	enum obd_access access = obd_grant_access(kind, index, role, own);
	struct obd_msg msg;
	if (access == OBD_ACCESS_NONE || !is_current(sv, kind, index))
		return;

	int stored = obd_store_get(&sv->store, kind, index);
	int fd = stored;
	obd_msg_init(&msg, OBD_MSG_GRANT);
	msg.role = (uint16_t)role;
	msg.index = index;
	snprintf(msg.name, sizeof msg.name, "%s", obd_kind_name(kind));
	if (access == OBD_ACCESS_RW) {
		msg.flags = OBD_GRANT_WRITE;
	} else {
		fd = obd_store_read_only(stored);
		if (fd < 0) {
			obd_error("%s %u cannot be opened for reading: %s", msg.name, index, strerror(-fd));
			obd_peer_break(peer, "it cannot be given what it needs");
			return;
		}
	}
	obd_peer_send(peer, &msg, fd);
	if (fd != stored)
		close(fd);
}

void obd_hand_out_all(struct obd_supervisor *sv, struct obd_peer *peer, enum obd_role role, uint32_t own)
{
	for (unsigned int k = 0; k < OBD_KINDS; k++)
		for (uint32_t i = 0; i < obd_kind_count((enum obd_kind)k); i++)
			hand_out(sv, peer, role, own, (enum obd_kind)k, i);
}

static void tell_client(struct obd_child *server, enum obd_msg_type type, uint32_t id)
{
	struct obd_msg msg;
	obd_msg_init(&msg, type);
	msg.role = OBD_ROLE_FRONTEND;
	msg.index = id;
	msg.arg = server->sv->clients[id].incarnation;
	obd_peer_send(&server->peer, &msg, -1);
}

static void tell_client_up(struct obd_child *server, uint32_t id)
{
	struct obd_client *client = &server->sv->clients[id];
	if (server->role == OBD_ROLE_CACHED)
		client->held_by_cached = true;
	else
		client->held_by_indexer = true;
	tell_client(server, OBD_MSG_CLIENT_UP, id);
}

void obd_hand_out_client(struct obd_child *server, uint32_t id)
{
	hand_out(server->sv, &server->peer, server->role, server->index, OBD_KIND_CLIENT, id);
	hand_out(server->sv, &server->peer, server->role, server->index, OBD_KIND_BELL_CLIENT, id);
	tell_client_up(server, id);
}

void obd_tell_client_down(struct obd_child *server, uint32_t id)
{
	tell_client(server, OBD_MSG_CLIENT_DOWN, id);
}

void obd_tell_reaped(struct obd_child *to, const struct obd_child *dead, uint32_t incarnation)
{
	struct obd_msg msg;
	obd_msg_init(&msg, OBD_MSG_REAPED);
	msg.role = (uint16_t)dead->role;
	msg.index = dead->index;
	msg.arg = incarnation;
	obd_peer_send(&to->peer, &msg, -1);
}

/* A starting cached must not take the jobs of a fetcher for running that died while cached was away. */
static void tell_dead_fetchers(struct obd_child *cached)
{
	struct obd_supervisor *sv = cached->sv;
	for (uint32_t i = 0; i < sv->nchildren; i++) {
		const struct obd_child *c = &sv->children[i];
		if (c->role == OBD_ROLE_FETCHER && c->incarnation > 0)
			obd_tell_reaped(cached, c, c->incarnation - 1);
	}
}

void obd_hand_out_start(struct obd_child *child)
{
	struct obd_supervisor *sv = child->sv;
	struct obd_msg msg;
	obd_hand_out_all(sv, &child->peer, child->role, child->index);
	obd_msg_init(&msg, OBD_MSG_GRANTS_DONE);
	msg.role = (uint16_t)child->role;
	obd_peer_send(&child->peer, &msg, -1);
	OBD_TEST_POINT(sv_granted);
	if (child->role == OBD_ROLE_FETCHER)
		return;
	if (child->role == OBD_ROLE_CACHED)
		tell_dead_fetchers(child);
	/* The indexer is client 0 and need not be told of itself. */
	for (uint32_t id = child->role == OBD_ROLE_INDEXER ? 1 : 0; id < OBD_MAX_CLIENTS; id++)
		if (sv->clients[id].state == OBD_CLIENT_UP)
			tell_client_up(child, id);
	obd_msg_init(&msg, OBD_MSG_CLIENTS_KNOWN);
	msg.role = (uint16_t)child->role;
	obd_peer_send(&child->peer, &msg, -1);
}
