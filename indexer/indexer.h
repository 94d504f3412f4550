/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The indexer as an object over a mapped segment: everything of obd-indexer but its process.
 *
 * It is the only writer of the regions `catalog` and `index`, and client 0 of the cache, through which it reads all metadata.
 * One per process, called on one thread; blocking work on writable layers has threads of its own. Nothing waits for the network
 * or for another process; what does block, shortly, are the reading of image configurations, traces and writable layers'
 * indexes, and the writing of result files and of the part files of recordings.
 */
#ifndef OBD_INDEXER_INDEXER_H
#define OBD_INDEXER_INDEXER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "shmcache/segment.h"

struct obd_config;
struct obd_indexer;

/*
 * Adopts what the catalog holds, or sets an empty one up, and attaches to client area 0 (which must be fresh). seg has
 * `catalog`, `index` and client area 0 writable and `frames`, `fills`, `table` at least readable; it stays the caller's.
 * NULL with a line in err: memory, or a region that is missing. Aborts when the catalog contradicts itself.
 */
struct obd_indexer *obd_indexer_new(struct obd_segment *seg, uint32_t incarnation, struct obd_err *err);

/* How files of writable layers are read and written: 0 psync, 1 libaio, 2 POSIX aio (ioEngine). Before the first client. */
void obd_indexer_set_engine(struct obd_indexer *ix, uint32_t engine);

/* Whose settings of background download are in force where an image has none, and of the disk cache. Before the first client;
 * outlives ix. Without it there is neither. */
void obd_indexer_set_config(struct obd_indexer *ix, const struct obd_config *config);

/* Prefetch: `most` requests under way at once (prefetchConfig.concurrency); whether file systems' metadata is fetched where
 * there is no trace. Before the first client. */
void obd_indexer_set_prefetch(struct obd_indexer *ix, uint32_t most, bool metadata_first);

/* Frees this process's memory. The segment stays as a kill would leave it. */
void obd_indexer_free(struct obd_indexer *ix);

/* Client c (1 ...) is there: its area is in seg. The same incarnation again changes nothing. */
void obd_indexer_client_up(struct obd_indexer *ix, uint32_t c, uint64_t incarnation);

/* Client c is gone: drops its opens, its references and its replies. The caller drops the area when the client is idle. */
void obd_indexer_client_down(struct obd_indexer *ix, uint32_t c);

/* Every client that lived when this incarnation started was named by obd_indexer_client_up. Before that nothing is opened or
 * dropped: an image that no known client holds may be held by one that was not named yet. */
void obd_indexer_clients_known(struct obd_indexer *ix);

/* False while writes read from the client's memory. */
bool obd_indexer_client_idle(const struct obd_indexer *ix, uint32_t c);

/* A descriptor that is readable when obd_indexer_poll has something to do that no bell tells of; -1: none yet (it is made when
 * the first writable device is opened). To be drained by the caller. */
int obd_indexer_event_fd(const struct obd_indexer *ix);

/* Is nothing under way, and nothing being closed? For tests. */
bool obd_indexer_idle(const struct obd_indexer *ix);

/* Does what is there to do now. True: did something, ask again. */
bool obd_indexer_poll(struct obd_indexer *ix);

/* Is there something in a ring? For the arm hook. */
bool obd_indexer_has_work(struct obd_indexer *ix);

/* When obd_indexer_poll wants to be called though nothing arrived (monotonic ns); 0: never. */
uint64_t obd_indexer_deadline(const struct obd_indexer *ix);

/* Once per second: heartbeats of both process rows, and a look at all open tables past the rings. */
void obd_indexer_tick(struct obd_indexer *ix);

#endif
