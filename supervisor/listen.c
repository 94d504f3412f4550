/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The socket in runtimeDir. It is bound under another name and renamed when the group is ready, so that its presence is the
 * group's readiness. Whoever connects is checked by the kernel's word (SO_PEERCRED) and then says HELLO or STAT, once.
 */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/testpoint.h"
#include "supervisor/socket.h"
#include "supervisor/supervisor.h"

#define CONNS_MAX 256
#define MUTE_NS (5 * OBD_SECOND_NS)   /* from connect to the first message */
#define STUCK_NS (10 * OBD_SECOND_NS) /* a full socket */

enum stage { NEW, ATTACHED, CLOSING };

struct conn {
	struct obd_supervisor *sv;
	struct obd_list link;
	struct obd_peer peer;
	enum stage stage;
	uint32_t client; /* its id when ATTACHED */
	pid_t pid;
	uint64_t opened_ns;
};

static void drop(struct conn *conn)
{
	struct obd_supervisor *sv = conn->sv;
	obd_peer_close(&conn->peer);
	obd_list_remove(&conn->link);
	sv->nconns--;
	if (conn->stage == ATTACHED) {
		obd_info("client %u (pid %d) detached", conn->client, (int)conn->pid);
		obd_client_detach(sv, conn->client);
	}
	free(conn);
}

/* Closes once everything is sent. */
static void finish(struct conn *conn)
{
	conn->stage = CLOSING;
	if (!conn->peer.queued)
		drop(conn);
}

static void refuse(struct conn *conn, const char *why)
{
	struct obd_msg msg;
	obd_warn("connection of pid %d refused: %s", (int)conn->pid, why);
	obd_msg_init(&msg, OBD_MSG_REFUSED);
	snprintf(msg.text, sizeof msg.text, "%s", why);
	obd_peer_send(&conn->peer, &msg, -1);
	finish(conn);
}

static void attach(struct conn *conn, const struct obd_msg *hello)
{
	struct obd_supervisor *sv = conn->sv;
	struct obd_msg msg;
	obd_client_came_back(sv, hello->index, hello->flags, conn->pid);
	int id = obd_client_attach(sv, conn->pid);
	if (id <= 0) {
		refuse(conn, id == 0 ? "all client ids are taken" : strerror(-id));
		return;
	}
	conn->client = (uint32_t)id;
	conn->stage = ATTACHED;
	OBD_TEST_POINT(sv_welcomed);
	obd_hand_out_all(sv, &conn->peer, OBD_ROLE_FRONTEND, conn->client);
	obd_msg_init(&msg, OBD_MSG_WELCOME);
	msg.role = OBD_ROLE_FRONTEND;
	msg.index = conn->client;
	msg.arg = sv->clients[id].incarnation;
	obd_peer_send(&conn->peer, &msg, -1);
	obd_info("client %u (pid %d) attached", conn->client, (int)conn->pid);
}

static void on_message(struct obd_peer *peer, const struct obd_msg *msg, int fd)
{
	struct conn *conn = peer->owner;
	if (fd >= 0)
		close(fd);
	if (conn->stage == CLOSING)
		return;
	if (conn->stage != NEW || (msg->type != OBD_MSG_HELLO && msg->type != OBD_MSG_STAT)) {
		obd_peer_break(peer, "a message that is not expected");
	} else if (msg->arg != OBD_WIRE_VERSION) {
		refuse(conn, "its protocol version is not ours");
	} else if (msg->type == OBD_MSG_HELLO) {
		attach(conn, msg);
	} else {
		obd_stat_answer(conn->sv, peer);
		finish(conn);
	}
}

static void on_closed(struct obd_peer *peer, const char *why)
{
	struct conn *conn = peer->owner;
	if (why)
		obd_warn("connection of pid %d ended: %s", (int)conn->pid, why);
	drop(conn);
}

static void on_drained(struct obd_peer *peer)
{
	struct conn *conn = peer->owner;
	if (conn->stage == CLOSING)
		drop(conn);
}

static const struct obd_peer_ops conn_ops = {.message = on_message, .closed = on_closed, .drained = on_drained};

/* ---- accepting ---- */

static bool is_allowed(int fd, pid_t *pid)
{
	struct ucred cred;
	bool allowed = obd_socket_is_trusted(fd, &cred);
	*pid = cred.pid;
	if (!allowed && cred.pid)
		obd_warn("connection of user %u (pid %d) refused: neither root nor our own user", (unsigned int)cred.uid,
			 (int)cred.pid);
	return allowed;
}

static void take_connection(struct obd_supervisor *sv, int fd)
{
	pid_t pid = 0;
	struct conn *conn = NULL;
	if (is_allowed(fd, &pid)) {
		if (sv->nconns < CONNS_MAX)
			conn = calloc(1, sizeof *conn);
		if (!conn)
			obd_warn("connection of pid %d refused: there are too many", (int)pid);
	}
	if (!conn) {
		close(fd);
		return;
	}
	conn->sv = sv;
	conn->pid = pid;
	conn->opened_ns = obd_clock_ns();
	int rc = obd_peer_open(&conn->peer, sv->loop, fd, &conn_ops, conn);
	if (rc < 0) {
		obd_warn("connection of pid %d: %s", (int)pid, strerror(-rc));
		free(conn);
		return;
	}
	obd_list_push_back(&sv->conns, &conn->link);
	sv->nconns++;
}

static void on_listen(int listen_fd, uint32_t events, void *arg)
{
	struct obd_supervisor *sv = arg;
	(void)events;
	int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd >= 0) {
		take_connection(sv, fd);
	} else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
		obd_warn("a connection cannot be accepted: %s", strerror(errno));
		obd_loop_watch(sv->loop, listen_fd, 0, NULL, NULL); /* until the next tick */
	}
}

/* ---- the socket ---- */

int obd_listen_open(struct obd_supervisor *sv)
{
	char hidden[OBD_PATH_BYTES], path[OBD_PATH_BYTES];
	obd_runtime_path(sv, ".supervisor.sock", hidden);
	obd_runtime_path(sv, "supervisor.sock", path);
	int fd = obd_socket_listen(hidden, SOCK_SEQPACKET | SOCK_NONBLOCK, 0660, 64);
	if (fd < 0) {
		unlink(hidden);
		return fd;
	}
	int rc = obd_loop_watch(sv->loop, fd, EPOLLIN, on_listen, sv);
	if (rc == 0 && rename(hidden, path) < 0)
		rc = -errno;
	if (rc < 0) {
		obd_loop_watch(sv->loop, fd, 0, NULL, NULL);
		unlink(hidden);
		close(fd);
		return rc;
	}
	sv->listen_fd = fd;
	return 0;
}

void obd_listen_close(struct obd_supervisor *sv)
{
	char path[OBD_PATH_BYTES];
	if (sv->listen_fd < 0)
		return;
	obd_runtime_path(sv, "supervisor.sock", path);
	unlink(path);
	obd_loop_watch(sv->loop, sv->listen_fd, 0, NULL, NULL);
	close(sv->listen_fd);
	sv->listen_fd = -1;
	OBD_LIST_FOREACH_SAFE (link, &sv->conns)
		drop(OBD_LIST_ENTRY(link, struct conn, link));
}

void obd_listen_tick(struct obd_supervisor *sv, uint64_t now_ns)
{
	if (sv->listen_fd < 0)
		return;
	obd_loop_watch(sv->loop, sv->listen_fd, EPOLLIN, on_listen, sv);
	OBD_LIST_FOREACH (link, &sv->conns) {
		struct conn *conn = OBD_LIST_ENTRY(link, struct conn, link);
		if (conn->stage == NEW && now_ns - conn->opened_ns > MUTE_NS)
			obd_peer_break(&conn->peer, "it says nothing");
		else if (obd_peer_is_stuck(&conn->peer, now_ns, STUCK_NS))
			obd_peer_break(&conn->peer, "it does not read what it is sent");
	}
}
