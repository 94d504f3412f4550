/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Recording (doc/architecture.md 4.12): the first touch of each block goes into the ring to the indexer, which knows what it
 * has already; the table of blocks seen lately only keeps the ring short. If this process dies, what is in the ring is taken
 * all the same.
 */
#include <stdlib.h>
#include <string.h>

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

void obd_touches_add(struct obd_device *dev, uint32_t layer, uint32_t block)
{
	struct obd_client *c = dev->client;
	struct obd_ring *ring = &c->reader.own->touches;
	const struct obd_tail *tail = &c->seg.catalog->client[c->id].touches_tail;
	uint64_t entry = obd_touch((uint32_t)dev->slot, dev->seq, layer, block);
	uint64_t *seen = &dev->touches->seen[obd_key_hash(entry) % OBD_TOUCHES];
	if (!obd_load_relaxed(dev->touches->wanted)) {
		obd_touches_stop(dev);
		return;
	}
	if (*seen == entry)
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
