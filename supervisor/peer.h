/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One connected socket: a child, a frontend or obd-stat.
 *
 * Nothing here blocks. What a full socket does not take waits in a bounded queue. A peer whose queue overflows is *broken*: its
 * socket is shut down, and `closed` is called from the loop like for any other end, never from within a send.
 */
#ifndef OBD_SUPERVISOR_PEER_H
#define OBD_SUPERVISOR_PEER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/list.h"
#include "common/daemon/loop.h"
#include "common/daemon/wire.h"

#define OBD_PEER_QUEUE_MAX 2048

struct obd_peer;

struct obd_peer_ops {
	/* One message; fd (or -1) is the callee's to close. May free the peer. */
	void (*message)(struct obd_peer *peer, const struct obd_msg *msg, int fd);

	/* The connection has ended: why is NULL when the peer simply closed it, or says what it did wrong. Called once; the
	 * callee closes the peer now or later. */
	void (*closed)(struct obd_peer *peer, const char *why);

	/* The queue has become empty after messages waited in it. May be NULL. */
	void (*drained)(struct obd_peer *peer);
};

struct obd_peer {
	struct obd_loop *loop;
	const struct obd_peer_ops *ops;
	void *owner;
	int fd; /* -1: closed */
	bool ended;
	const char *broken; /* why this side gave it up, or NULL */
	struct obd_list queue;
	uint32_t queued;
	uint64_t progress_ns; /* when the queue was last empty or got shorter */
};

/* Takes fd in every case and makes it non-blocking. Returns 0 or a negative errno. */
int obd_peer_open(struct obd_peer *peer, struct obd_loop *loop, int fd, const struct obd_peer_ops *ops, void *owner);

/* Closes the socket and drops what waits. Harmless when closed. */
void obd_peer_close(struct obd_peer *peer);

/* Sends, or queues with a duplicate of fd, which stays the caller's. Nothing happens on a closed or broken peer. */
void obd_peer_send(struct obd_peer *peer, const struct obd_msg *msg, int fd);

/* Gives the peer up: `closed` follows from the loop with this reason. */
void obd_peer_break(struct obd_peer *peer, const char *why);

/* True when messages have waited for longer than limit_ns without any being taken. */
bool obd_peer_is_stuck(const struct obd_peer *peer, uint64_t now_ns, uint64_t limit_ns);

#endif
