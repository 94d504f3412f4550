/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What outlives the supervisor: a process that only holds descriptors.
 *
 * It is forked, not executed, when the group is ready, and has no other work than to keep what it is given. When its supervisor
 * ends without a word it waits on runtimeDir/fdstore.sock for the next one, gives everything to it and ends. Nobody comes
 * for OBD_FDSTORE_KEEP_SEC, or the socket is removed: it ends, and the memory of the segment is free.
 *
 * An item is (kind, index) with one descriptor: the store's regions and client areas, pidfds of all processes that may
 * write to them, and STATE, a memfd in which the supervisor keeps its own memory: incarnations and clients.
 *
 * Nothing here blocks but obd_fdstore_take, which the next supervisor calls before it has anything else to do.
 */
#ifndef OBD_SUPERVISOR_FDSTORE_H
#define OBD_SUPERVISOR_FDSTORE_H

#include <stdbool.h>
#include <stdint.h>

#include "supervisor/grants.h"

#define OBD_FDSTORE_KEEP_SEC 60

struct obd_supervisor;

/* Items beside the store's, numbered after enum obd_kind. */
enum { OBD_FDSTORE_CHILD = OBD_KINDS, OBD_FDSTORE_CLIENT, OBD_FDSTORE_STATE, OBD_FDSTORE_KINDS };

/* Starts the holder with everything that is there now. Fails with a warning: then nothing outlives the supervisor. */
void obd_fdstore_start(struct obd_supervisor *sv);

/* Gives or (fd -1) takes back one item. fd stays the caller's. Nothing happens when there is no holder; one that does not
 * take what it is sent is ended, and obd_fdstore_tick starts another. */
void obd_fdstore_put(struct obd_supervisor *sv, uint32_t kind, uint32_t index, int fd);

/* The supervisor's memory has changed: writes it to STATE. Call it before the change can be seen by others. */
void obd_fdstore_note(struct obd_supervisor *sv);

/* Every tick: a holder that died is replaced. */
void obd_fdstore_tick(struct obd_supervisor *sv);

/* The group ends: so does the holder, and nothing is left to adopt. */
void obd_fdstore_stop(struct obd_supervisor *sv);

/* At the start: takes what a holder has, ends the processes of the group before (SIGKILL), and fills the store, incarnations
 * and clients. True: there is a whole segment, made by a group of this version with this configuration, and nobody writes to
 * it. Else nothing is taken, with a line when there was something; the holder is gone in either case. Blocks for up to 3 s. */
bool obd_fdstore_take(struct obd_supervisor *sv);

#endif
