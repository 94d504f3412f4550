/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Recording what a device reads first into a trace file (doc/architecture.md 4.12).
 *
 *     TRACE        empty while the recording goes on, whole afterwards
 *     TRACE.lock   is there while it goes on; whoever removes it ends it
 *     TRACE.part   records so far, in the order of their first touch
 *     TRACE.ok     made when the trace is whole
 *
 * Threads append to the part file, look for the lock file once a second, and write the whole trace: one step of each recording
 * at a time, so a disk that hangs holds up its own recording alone. Only the beginning, while the device opens, makes and opens
 * files on the loop. Called on the loop's thread only.
 */
#ifndef OBD_INDEXER_RECORD_H
#define OBD_INDEXER_RECORD_H

#include "indexer/indexer.h"

struct obd_ix_open;

/* The open is about to be answered READY, its image is held: starts recording, or goes on with what an earlier process began,
 * if its configuration names an empty trace file. True: it records. What stands in the way is a warning. */
bool obd_ix_record_start(struct obd_ix_open *o, const char *trace);

/* An open whose READY reply of an earlier incarnation says that it records: goes on. */
void obd_ix_record_resume(struct obd_ix_open *o);

/* Ends the open's recording, if it has one, and has the trace written. */
void obd_ix_record_end(struct obd_ix_open *o);

/* Takes first touches out of the clients' rings. True: there were some. */
bool obd_ix_record_poll(struct obd_indexer *ix);

/* The client is up: its ring begins where the catalog says. */
void obd_ix_record_client_up(struct obd_indexer *ix, uint32_t c);

/* Once a second: ends recordings whose lock files are gone. */
void obd_ix_record_tick(struct obd_indexer *ix);

/* Frees private memory; files stay, and a later process goes on. The engine is stopped. */
void obd_ix_record_free_all(struct obd_indexer *ix);

#endif
