/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tgtd as a child of the supervisor (frontend.manage), and what its files do for each other.
 *
 *     tgtadm, tgt-admin ──► the usual control socket ──► runtimeDir/tgtd.N ──► tgtd + bs_overlaybd.so
 *                            tgtd_door.c                  tgtd_call.c
 *
 *   tgtd.c       its life: start, what it is told first, heartbeat, death
 *   tgtd_door.c  the control socket that administrators know: requests come in here, one after the other
 *   tgtd_call.c  one request to tgtd and its answer
 *   record.c     what it was told, on disk
 *
 * The supervisor stands between because it must know, before an administrator is told "done", what tgtd has: a request is
 * passed on, noted durably once tgtd has carried it out, and only then answered. So whatever was answered is there again after
 * a death of tgtd, of the supervisor, or of both; and what was not answered, its sender asks for again.
 *
 *     DOWN ──fork──► STARTING ──answers──► TELLING ──all told──► SETTLING ──LUNs ready, or a moment over──► SERVING
 *       ▲                │                    │                     │                                         │
 *       └────────────────┴─── waitpid ────────┴─────────────────────┴─────────────────────────────────────────┘
 *
 * Until SERVING, tgtd's state is "offline": it closes each new connection at once. An initiator that comes back too early tries
 * again; it is never told that its target does not exist, which it would take for the end.
 *
 * If the supervisor dies, tgtd dies with it (PR_SET_PDEATHSIG): the next one starts another from the record. Two tgtds that
 * serve one device cannot be.
 */
#ifndef OBD_SUPERVISOR_TGTD_H
#define OBD_SUPERVISOR_TGTD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/base/err.h"
#include "supervisor/backoff.h"
#include "supervisor/record.h"
#include "supervisor/supervisor.h"

/* ---- tgtd_call.c ---- */

/* rc 0: answered, text (of len bytes, NUL-terminated) came with it; else a negative errno: not answered. */
typedef void obd_tgtd_answer_fn(void *arg, int rc, const struct obd_tgtadm_answer *answer, const char *text, size_t len);

/* One request at a time. All zero and fd -1: none. */
struct obd_tgtd_call {
	struct obd_loop *loop;
	int fd;
	uint64_t since_ns;
	char *out; /* the request */
	size_t out_len, out_done;
	char *in;
	size_t in_len, in_size;
	obd_tgtd_answer_fn *fn;
	void *arg;
};

/* Sends head and text; fn is called once, from the loop, unless the call is dropped before. head->bytes says how long both are.
 * 0 or a negative errno (-ENOENT, -ECONNREFUSED: nobody listens); then fn is not called. */
int obd_tgtd_call(struct obd_tgtd_call *c, struct obd_loop *loop, const char *path, const struct obd_tgtadm_head *head,
		  const char *text, obd_tgtd_answer_fn *fn, void *arg);
bool obd_tgtd_call_is_busy(const struct obd_tgtd_call *c);
/* Forgets a call that is under way: fn is not called. */
void obd_tgtd_call_drop(struct obd_tgtd_call *c);

/* ---- tgtd_door.c ---- */

struct obd_tgtd;
struct obd_tgtd_door;

/* Binds the control socket. -EBUSY with a line: another tgtd listens there. */
int obd_tgtd_door_open(struct obd_tgtd *t, struct obd_tgtd_door **door, struct obd_err *err);
void obd_tgtd_door_close(struct obd_tgtd_door *door);

/* The request whose turn it is, or NULL; answer it with one of the next two. text is NUL-terminated. */
const struct obd_tgtadm_head *obd_tgtd_door_next(struct obd_tgtd_door *door, const char **text);
void obd_tgtd_door_answer(struct obd_tgtd_door *door, const struct obd_tgtadm_answer *answer, const char *text, size_t len);
void obd_tgtd_door_refuse(struct obd_tgtd_door *door);

/* Drops who says nothing, or takes no answer, or has waited for too long. */
void obd_tgtd_door_tick(struct obd_tgtd_door *door, uint64_t now_ns);

/* ---- tgtd.c, for the door ---- */

/* A request has come in. */
void obd_tgtd_pump(struct obd_tgtd *t);
struct obd_supervisor *obd_tgtd_supervisor(struct obd_tgtd *t);

#endif
