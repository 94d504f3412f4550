/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The segment as one process sees it: its regions, mapped with the rights it was granted.
 *
 * A process collects descriptors (obd_segment_take), then maps them all (obd_segment_map). Pointers of regions it was not
 * granted stay NULL. Regions that come and go with their owner (fetcher and client areas) can be taken and dropped later.
 */
#ifndef OBD_SHMCACHE_SEGMENT_H
#define OBD_SHMCACHE_SEGMENT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/testpoint.h"
#include "shmcache/layout.h"

struct obd_segment {
	struct obd_geometry geo; /* a checked copy */
	unsigned char *frames;
	struct obd_fill *fills;
	struct obd_table *table;
	struct obd_frame *frame;   /* nframes, inside table */
	struct obd_bucket *bucket; /* nbuckets, inside table */
	struct obd_catalog *catalog;
	unsigned char *index; /* geo.index_bytes */
	struct obd_upread *upread;
	struct obd_tokens *tokens;
	_Atomic uint8_t *recency; /* nframes */
	struct obd_fetcher_area *fetcher[OBD_MAX_FETCHERS];
	struct obd_client_area *client[OBD_MAX_CLIENTS];
	/* doorbells, -1 when not granted; owned, closed by obd_segment_close */
	int bell_cached;
	int bell_indexer;
	int bell_fetcher[OBD_MAX_FETCHERS];
	int bell_client[OBD_MAX_CLIENTS];
	/* descriptors taken and not yet mapped */
	struct obd_segment_fd *pending;
	unsigned int npending;
};

void obd_segment_init(struct obd_segment *seg);

/* Takes a granted descriptor by its wire name, in every case (it is closed when refused). A region is mapped at once when the
 * geometry is known, else it waits for obd_segment_map. A second grant of an area or doorbell replaces the first.
 * Returns 0, -EINVAL for an unknown name or index, -EPROTO for a region whose size is not the geometry's, or an errno of mmap.
 */
int obd_segment_take(struct obd_segment *seg, const char *name, uint32_t index, bool writable, int fd, struct obd_err *err);

/* Reads and checks the geometry and maps what waits. -ENOENT when no geometry was granted. Does not block. */
int obd_segment_map(struct obd_segment *seg, struct obd_err *err);

/* Unmaps one client's area and closes its doorbell; harmless when there is none. */
void obd_segment_drop_client(struct obd_segment *seg, uint32_t client);

void obd_segment_close(struct obd_segment *seg);

/* Sizes of the regions from block_bytes, nframes, nbuckets, nfetchers and index_bytes of geo. */
void obd_geometry_sizes(struct obd_geometry *geo);

/* Is every field of geo possible, and does it agree with obd_geometry_sizes? 0 or -EPROTO with a line. */
int obd_geometry_check(const struct obd_geometry *geo, struct obd_err *err);

/* Address of a frame's data. f must be below nframes. */
static inline unsigned char *obd_frame_data(const struct obd_segment *seg, uint32_t f)
{
	return seg->frames + (uint64_t)f * seg->geo.block_bytes;
}

/*
 * The bytes of a blob that a raw chunk covers: chunk 0 is [0, min(4096, blob)); chunk k >= 1 is the k-th block_bytes counted
 * from the blob's end, cut at 4096. False when there is no such chunk.
 */
bool obd_raw_chunk(uint64_t blob_bytes, uint32_t block_bytes, uint32_t chunk, uint64_t *start, uint64_t *end);

/* Writes the row of a process into its own area: role, index, pid, incarnation, times, magic last. */
void obd_proc_start(struct obd_proc *proc, enum obd_role role, uint32_t index, uint32_t incarnation);
void obd_proc_heartbeat(struct obd_proc *proc);

#define obd_count(proc, name, n) obd_counter_add(&(proc)->counters[OBD_C_##name], (uint64_t)(n))

/* The waker's half of sleep-and-wake, after publishing: rings bell if the peer sleeps. Returns true if it rang. One system call
 * when the peer sleeps, none when it is awake. */
bool obd_wake(const struct obd_proc *peer, int bell);

/* The sleeper's half: announce (then look at every ring again), and take back. */
static inline void obd_sleep_announce(struct obd_proc *own)
{
	obd_store_relaxed(&own->sleeping, 1);
	obd_fence_full(); /* edge: sleep. Pairs with the fence in obd_wake */
	OBD_TEST_POINT(sleep_announced);
}

static inline void obd_sleep_cancel(struct obd_proc *own)
{
	obd_store_relaxed(&own->sleeping, 0);
}

/* Empties an eventfd. */
void obd_bell_drain(int bell);

#endif
