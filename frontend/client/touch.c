/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Recording (doc/architecture.md 4.12): the first touch of each block, and each that goes beyond what was read of it before,
 * goes into the ring to the indexer, which knows what it has already; the table of blocks seen lately only keeps the ring
 * short. If this process dies, what is in the ring is taken all the same.
 */
#include <stdlib.h>
#include <string.h>

#include "common/base/util.h"
#include "frontend/client/internal.h"
#include "shmcache/lookup.h"
#include "shmcache/ring.h"

void obd_touches_start(struct obd_device *dev, const struct obd_reply *r)
{
	if (!obd_load_relaxed(&r->recording))
		return;
	dev->touches = malloc(sizeof *dev->touches);
	if (!dev->touches)
		return;
	memset(dev->touches->seen, 0xff, sizeof dev->touches->seen);
	dev->touches->wanted = &r->recording;
}

void obd_touches_stop(struct obd_device *dev)
{
	free(dev->touches);
	dev->touches = NULL;
}

/* The part of both, if they are of one block. */
static uint64_t both(uint64_t seen, uint64_t entry)
{
	uint64_t mask = OBD_TOUCH_STEPS - 1;
	if ((seen ^ entry) & ~UINT64_C(0xff))
		return entry;
	uint64_t first = obd_min_u64(seen & mask, entry & mask), last = obd_max_u64(seen >> 4 & mask, entry >> 4 & mask);
	return (entry & ~UINT64_C(0xff)) | last << 4 | first;
}

void obd_touches_add(struct obd_device *dev, uint32_t layer, uint32_t block, uint32_t offset, uint32_t len)
{
	struct obd_client *c = dev->client;
	struct obd_ring *ring = &c->reader.own->touches;
	const struct obd_tail *tail = &c->seg.catalog->client[c->id].touches_tail;
	uint32_t step = c->seg.geo.block_bytes / OBD_TOUCH_STEPS;
	uint64_t entry = obd_touch((uint32_t)dev->slot, dev->seq, layer, block, offset / step, (offset + len - 1) / step);
	uint64_t *seen = &dev->touches->seen[obd_key_hash(entry >> 8) % OBD_TOUCHES];
	if (!obd_load_relaxed(dev->touches->wanted)) {
		obd_touches_stop(dev);
		return;
	}
	entry = both(*seen, entry);
	if (*seen == entry || block > OBD_TOUCH_BLOCK_MAX)
		return;
	*seen = entry;
	if (!obd_ring_push(ring, tail, entry)) {
		obd_count(&c->reader.own->proc, touches_dropped, 1);
		return;
	}
	obd_count(&c->reader.own->proc, touches, 1);
	/* The indexer comes by once a second. Whoever reads faster than that wakes it now and then. */
	if (obd_load_relaxed(&ring->head) % (OBD_RING_ENTRIES / 8) == 0 && obd_wake(&c->seg.catalog->proc, c->seg.bell_indexer))
		obd_count(&c->reader.own->proc, wakeups, 1);
}
