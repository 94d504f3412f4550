/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What an image is going to need, asked for before anybody reads it (doc/architecture.md 4.12).
 *
 *     a trace  ---------------------> keys, in order --> requests of priority prefetch, OBD_IX_PREFETCH_BLOCKS at most each
 *     a file system's metadata -----^      |                          |
 *          ^---- fsmeta.c, bytes of what came <-----------------------+
 *
 * One of the two per open. Nobody waits for it; it goes when the device is closed. All images together have prefetch_most
 * requests under way, and take turns.
 */
#ifndef OBD_INDEXER_PREFETCH_H
#define OBD_INDEXER_PREFETCH_H

#include "indexer/indexer.h"

#define OBD_IX_PREFETCH_BLOCKS 16u

struct obd_ix_open;
struct obd_ix_prefetch;

/* Looks at what the configuration says about traces: sets record_to or trace, *nlowers without an acceleration layer. A trace
 * that cannot be used is a warning. 0, or a negative errno with a line. Reads files. */
int obd_ix_prefetch_plan(struct obd_ix_open *o, uint32_t *nlowers, struct obd_err *err);

/* The image is held: begins, once. */
void obd_ix_prefetch_start(struct obd_ix_open *o);

/* Gives up what is under way. */
void obd_ix_prefetch_stop(struct obd_ix_open *o);

/* Asks for more, as far as allowed. True: there is more to do now. */
bool obd_ix_prefetch_pump(struct obd_indexer *ix);

/* Frees private memory only. */
void obd_ix_prefetch_free_all(struct obd_indexer *ix);

#endif
