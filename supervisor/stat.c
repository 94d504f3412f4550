/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "supervisor/supervisor.h"

/* What one PROC message says. last_exit is a text of ours, without characters that JSON would quote. */
struct proc {
	enum obd_role role;
	uint32_t index;
	pid_t pid;
	const char *state;
	uint32_t restarts;
	uint64_t uptime_ns;
	uint64_t heartbeat_age_ns;
	const char *last_exit;
};

static void send_proc(struct obd_peer *peer, const struct proc *p)
{
	struct obd_msg msg;
	obd_msg_init(&msg, OBD_MSG_PROC);
	msg.role = (uint16_t)p->role;
	msg.index = p->index;
	snprintf(msg.text, sizeof msg.text,
		 "{\"role\":\"%s\",\"index\":%u,\"pid\":%d,\"state\":\"%s\",\"restarts\":%u,\"uptime_sec\":%llu,"
		 "\"heartbeat_age_ms\":%llu,\"last_exit\":\"%s\"}",
		 obd_role_name(p->role), p->index, (int)p->pid, p->state, p->restarts,
		 (unsigned long long)(p->uptime_ns / OBD_SECOND_NS), (unsigned long long)(p->heartbeat_age_ns / OBD_MS_NS),
		 p->last_exit);
	obd_peer_send(peer, &msg, -1);
}

static void send_child(struct obd_peer *peer, const struct obd_child *child, uint64_t now)
{
	static const char *const states[] = {[OBD_CHILD_DEAD] = "dead",
					     [OBD_CHILD_BACKOFF] = "backoff",
					     [OBD_CHILD_STARTING] = "starting",
					     [OBD_CHILD_RUNNING] = "running"};
	struct proc p = {.role = child->role,
			 .index = child->index,
			 .pid = child->pid,
			 .state = states[child->state],
			 .restarts = child->incarnation,
			 .last_exit = child->last_exit};
	if (child->pid > 0) {
		p.uptime_ns = now - child->started_ns;
		p.heartbeat_age_ns = now - child->beat_ns;
	}
	send_proc(peer, &p);
}

static void send_client(struct obd_peer *peer, const struct obd_client *client, uint32_t id, uint64_t now)
{
	struct proc p = {.role = OBD_ROLE_FRONTEND,
			 .index = id,
			 .pid = client->pid,
			 .state = client->state == OBD_CLIENT_UP ? "running" : "dead",
			 .uptime_ns = now - client->since_ns,
			 .last_exit = ""};
	send_proc(peer, &p);
}

void obd_stat_answer(struct obd_supervisor *sv, struct obd_peer *peer)
{
	uint64_t now = obd_clock_ns();
	struct proc own = {.role = OBD_ROLE_SUPERVISOR,
			   .pid = getpid(),
			   .state = "running",
			   .uptime_ns = now - sv->started_ns,
			   .last_exit = ""};
	struct obd_msg done;
	obd_hand_out_all(sv, peer, OBD_ROLE_STAT, UINT32_MAX);
	send_proc(peer, &own);
	for (uint32_t i = 0; i < sv->nchildren; i++)
		send_child(peer, &sv->children[i], now);
	for (uint32_t id = 1; id < OBD_MAX_CLIENTS; id++)
		if (sv->clients[id].state != OBD_CLIENT_FREE)
			send_client(peer, &sv->clients[id], id, now);
	obd_msg_init(&done, OBD_MSG_STAT_DONE);
	obd_peer_send(peer, &done, -1);
}
