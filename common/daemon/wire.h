/* SPDX-License-Identifier: GPL-2.0-or-later */
/* clang-format off */
/*
 * Messages between the supervisor and everybody else: one fixed struct per SOCK_SEQPACKET packet, descriptors by SCM_RIGHTS.
 *
 *   child      -> supervisor   DEPOSIT  name, index, fd        a region's descriptor, to keep and to grant
 *                              SETTING  name, arg              a number the supervisor needs ("client_area_bytes")
 *                              READY                           once, when the child serves
 *                              HEARTBEAT                       every second
 *                              CLIENT_GONE  index              this child holds nothing of client `index` any more
 *   supervisor -> child        GRANT    name, index, flags, fd one descriptor (before GRANTS_DONE: those it starts with)
 *                              GRANTS_DONE
 *                              CLIENT_UP    index, arg         client's area and doorbell were granted just before;
 *                                                              arg: incarnation
 *                              CLIENT_DOWN  index, arg         the client has gone; arg: incarnation
 *                              CLIENTS_KNOWN                   all clients that live at a server's start were named
 *                              REAPED   role, index, arg       that process is dead and waited for;
 *                                                              arg: the incarnation that died
 *   frontend   -> supervisor   HELLO    arg = OBD_WIRE_VERSION, index, flags
 *                                                              index, flags: client id and incarnation that it had before,
 *                                                              whose memory it has unmapped; 0, 0: none
 *   supervisor -> frontend     GRANT..., WELCOME index, arg    index: client id; arg: incarnation
 *                              or REFUSED text
 *   supervisor -> its holder   KEEP     arg, index, fd         one descriptor to keep (supervisor/fdstore.h); arg: kind
 *                              DROP     arg, index             close it
 *   holder     -> supervisor   KEEP..., GRANTS_DONE            everything, to the next supervisor
 *   obd-stat   -> supervisor   STAT     arg = OBD_WIRE_VERSION
 *   supervisor -> obd-stat     GRANT..., PROC (one per process, text = JSON object), STAT_DONE
 *
 * Doorbells are granted like regions: name "doorbell:cached", "doorbell:indexer", "doorbell:fetcher", "doorbell:client".
 * "log" is granted when the supervisor has opened the log file again (SIGHUP): a child may not open it any more.
 * Region names: geometry frames fills table catalog index recency upread tokens fetcher client.
 *
 * Whatever arrives is checked by obd_msg_recv: size, magic, known type and role, strings terminated, descriptor count (DEPOSIT,
 * GRANT and KEEP carry exactly one, all others none).
 */
/* clang-format on */
#ifndef OBD_COMMON_DAEMON_WIRE_H
#define OBD_COMMON_DAEMON_WIRE_H

#include <stdint.h>

#define OBD_WIRE_MAGIC 0x4f42444du /* "OBDM" */
#define OBD_WIRE_VERSION 1u
#define OBD_WIRE_NAME_BYTES 32
#define OBD_WIRE_LOG "log" /* the name of a GRANT of the log file, opened again */
#define OBD_WIRE_TEXT_BYTES 448

#define OBD_MAX_CLIENTS 64 /* client 0 is the indexer's own area; frontends get 1 … 63 */
#define OBD_MAX_FETCHERS 32

enum obd_msg_type {
	OBD_MSG_DEPOSIT = 1,
	OBD_MSG_SETTING,
	OBD_MSG_READY,
	OBD_MSG_HEARTBEAT,
	OBD_MSG_CLIENT_GONE,
	OBD_MSG_GRANT,
	OBD_MSG_GRANTS_DONE,
	OBD_MSG_CLIENT_UP,
	OBD_MSG_CLIENT_DOWN,
	OBD_MSG_REAPED,
	OBD_MSG_HELLO,
	OBD_MSG_WELCOME,
	OBD_MSG_REFUSED,
	OBD_MSG_STAT,
	OBD_MSG_PROC,
	OBD_MSG_STAT_DONE,
	OBD_MSG_CLIENTS_KNOWN,
	OBD_MSG_KEEP,
	OBD_MSG_DROP,
	OBD_MSG_TYPES
};

enum obd_role {
	OBD_ROLE_SUPERVISOR = 0,
	OBD_ROLE_CACHED,
	OBD_ROLE_INDEXER,
	OBD_ROLE_FETCHER,
	OBD_ROLE_FRONTEND,
	OBD_ROLE_STAT,
	OBD_ROLES
};

/* flags of GRANT */
#define OBD_GRANT_WRITE 1u /* the descriptor may be mapped writable */

struct obd_msg {
	uint32_t magic;
	uint16_t type;	/* enum obd_msg_type */
	uint16_t role;	/* enum obd_role */
	uint32_t index; /* fetcher number, client id, region index; 0 when there is one only */
	uint32_t flags;
	uint64_t arg;
	char name[OBD_WIRE_NAME_BYTES];
	char text[OBD_WIRE_TEXT_BYTES];
};
_Static_assert(sizeof(struct obd_msg) == 24 + OBD_WIRE_NAME_BYTES + OBD_WIRE_TEXT_BYTES, "one packet, no holes");

/* "cached", "indexer", … for logs and tables. */
const char *obd_role_name(enum obd_role role);

/* An empty message of a type, magic set. */
void obd_msg_init(struct obd_msg *msg, enum obd_msg_type type);

/* Sends msg with one descriptor (fd >= 0, stays the caller's) or none (-1). Blocks only if the socket is blocking.
 * Returns 0, -EAGAIN (non-blocking socket is full) or another negative errno. Never raises SIGPIPE. */
int obd_msg_send(int sock, const struct obd_msg *msg, int fd);

/* Receives one message. *fd gets its descriptor (close-on-exec, the caller's to close) or -1. Descriptors of a
 * malformed packet are closed. Returns 1 for a message, 0 when the peer has closed, -EAGAIN, -EPROTO for a malformed packet, or
 * a negative errno. */
int obd_msg_recv(int sock, struct obd_msg *msg, int *fd);

#endif
