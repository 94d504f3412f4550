/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Single-producer single-consumer rings whose halves lie in two regions (doc/architecture.md 4.2).
 *
 * Producer: obd_ring_push. Consumer: obd_ring_pop. Neither blocks, neither makes a system call. Waking the peer is obd_wake's.
 */
#ifndef OBD_SHMCACHE_RING_H
#define OBD_SHMCACHE_RING_H

#include <stdbool.h>

#include "common/base/testpoint.h"
#include "shmcache/layout.h"

#define OBD_RING_MASK (OBD_RING_ENTRIES - 1)

/*
 * A fresh area is all zero until its owner has adopted its heads (4.2). So head 0 says that nothing is there, whatever the tail
 * is; if the consumer took its tail to 0, the owner might adopt the one before that.
 */
static inline bool obd_ring_begun(uint64_t head)
{
	return head != 0;
}

/* False when the consumer is a whole ring behind (or its tail is nonsense: then as well nothing is overwritten). */
static inline bool obd_ring_push(struct obd_ring *ring, const struct obd_tail *peer, uint64_t entry)
{
	uint64_t head = obd_load_relaxed(&ring->head); /* ours alone */
	uint64_t tail = obd_load_acquire(&peer->tail); /* edge: ring-consume */
	if (head - tail >= OBD_RING_ENTRIES)
		return false;
	obd_store_relaxed(&ring->entry[head & OBD_RING_MASK], entry);
	OBD_TEST_POINT(ring_unpublished);
	obd_store_release(&ring->head, head + 1); /* edge: ring-publish; publishes the entry and the table it names */
	OBD_TEST_POINT(ring_published);
	return true;
}

enum obd_ring_result {
	OBD_RING_EMPTY,
	OBD_RING_ENTRY,
	OBD_RING_LOST, /* the peer's head cannot be: tail was set to it, scan the table */
};

static inline enum obd_ring_result obd_ring_pop(const struct obd_ring *peer, struct obd_tail *own, uint64_t *entry)
{
	uint64_t tail = obd_load_relaxed(&own->tail);
	uint64_t head = obd_load_acquire(&peer->head); /* edge: ring-publish */
	if (head == tail || !obd_ring_begun(head))
		return OBD_RING_EMPTY;
	if (head - tail > OBD_RING_ENTRIES) {
		obd_store_release(&own->tail, head); /* edge: ring-consume */
		return OBD_RING_LOST;
	}
	*entry = obd_load_relaxed(&peer->entry[tail & OBD_RING_MASK]);
	OBD_TEST_POINT(ring_untaken);
	obd_store_release(&own->tail, tail + 1); /* edge: ring-consume */
	OBD_TEST_POINT(ring_taken);
	return OBD_RING_ENTRY;
}

static inline bool obd_ring_has(const struct obd_ring *peer, const struct obd_tail *own)
{
	uint64_t head = obd_load_acquire(&peer->head); /* edge: ring-publish */
	return head != obd_load_relaxed(&own->tail) && obd_ring_begun(head);
}

/* A consumer that starts over: everything published so far is skipped; the caller scans the table afterwards. */
static inline void obd_ring_skip(const struct obd_ring *peer, struct obd_tail *own)
{
	uint64_t head = obd_load_acquire(&peer->head); /* edge: ring-publish */
	if (obd_ring_begun(head))
		obd_store_release(&own->tail, head); /* edge: ring-consume */
}

#endif
