/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Eviction: S3-FIFO. New blocks enter a small queue (a tenth of the frames); those that are read again in a later epoch move to
 * the main queue, the others leave and are remembered in a ghost list; a block that comes back while it is remembered enters
 * the main queue. So a scan passes through the small queue and leaves the hot set alone.
 *
 * "Read again" is told by epochs, since readers leave one byte per frame (doc/architecture.md 4.4): the epoch advances with
 * every sixteenth of the cache that is inserted, and a byte that is newer than the frame's own visit means a read in a later
 * epoch. Reads of one pass over a block fall into one epoch and count as one.
 *
 * Private memory of cached; nothing here is shared, and all of it may be lost.
 */
#include <stdlib.h>
#include <string.h>

#include "shmcache/cached/cached.h"

enum where { NOWHERE, SMALL, MAIN, QUEUES };

#define NIL UINT32_MAX

struct node {
	uint32_t prev;
	uint32_t next;
	uint8_t where;
	uint8_t visit; /* low byte of the epoch of insertion, or the recency byte when the hand passed last */
};

struct queue {
	uint32_t head; /* newest */
	uint32_t tail; /* oldest */
	uint32_t count;
};

struct evictor {
	uint32_t nframes;
	uint32_t epoch_left; /* insertions until the epoch advances */
	struct queue queue[QUEUES];
	/* ghost: a ring of keys, and an open-addressing set of the same keys */
	uint64_t *ring;
	uint64_t *set;
	uint64_t ring_pos;
	uint64_t set_mask;
	struct node node[];
};

struct evictor *obd_evict_new(uint32_t nframes)
{
	struct evictor *ev = calloc(1, sizeof *ev + nframes * sizeof ev->node[0]);
	if (!ev)
		return NULL;
	ev->nframes = nframes;
	ev->set_mask = 63;
	while (ev->set_mask < 4 * (uint64_t)nframes)
		ev->set_mask = ev->set_mask * 2 + 1;
	ev->ring = calloc(nframes, sizeof *ev->ring);
	ev->set = calloc(ev->set_mask + 1, sizeof *ev->set);
	for (int q = 0; q < QUEUES; q++)
		ev->queue[q].head = ev->queue[q].tail = NIL;
	if (ev->ring && ev->set)
		return ev;
	obd_evict_free(ev);
	return NULL;
}

void obd_evict_free(struct evictor *ev)
{
	if (ev) {
		free(ev->ring);
		free(ev->set);
	}
	free(ev);
}

/* --- ghost -----------------------------------------------------------------------------------------------------------------
 */

static uint64_t ghost_slot(const struct evictor *ev, uint64_t key)
{
	uint64_t i = obd_key_hash(key) & ev->set_mask;
	while (ev->set[i] && ev->set[i] != key)
		i = (i + 1) & ev->set_mask;
	return i;
}

/* Removal without tombstones: entries that follow in the same run move up. */
static void ghost_forget(struct evictor *ev, uint64_t key)
{
	uint64_t hole = ghost_slot(ev, key);
	if (!ev->set[hole])
		return;
	for (uint64_t i = (hole + 1) & ev->set_mask; ev->set[i]; i = (i + 1) & ev->set_mask) {
		uint64_t home = obd_key_hash(ev->set[i]) & ev->set_mask;
		if (((i - home) & ev->set_mask) >= ((i - hole) & ev->set_mask)) {
			ev->set[hole] = ev->set[i];
			hole = i;
		}
	}
	ev->set[hole] = 0;
}

static void ghost_remember(struct evictor *ev, uint64_t key)
{
	uint64_t *at = &ev->ring[ev->ring_pos++ % ev->nframes];
	if (*at)
		ghost_forget(ev, *at);
	*at = key;
	ev->set[ghost_slot(ev, key)] = key;
}

/* --- queues ------------------------------------------------------------------------------------------------------------------
 */

static void push(struct evictor *ev, enum where q, uint32_t f)
{
	struct node *n = &ev->node[f];
	n->where = (uint8_t)q;
	n->prev = NIL;
	n->next = ev->queue[q].head;
	if (n->next != NIL)
		ev->node[n->next].prev = f;
	else
		ev->queue[q].tail = f;
	ev->queue[q].head = f;
	ev->queue[q].count++;
}

void obd_evict_remove(struct evictor *ev, uint32_t f)
{
	struct node *n = &ev->node[f];
	if (n->where == NOWHERE)
		return;
	struct queue *q = &ev->queue[n->where];
	if (n->prev != NIL)
		ev->node[n->prev].next = n->next;
	else
		q->head = n->next;
	if (n->next != NIL)
		ev->node[n->next].prev = n->prev;
	else
		q->tail = n->prev;
	q->count--;
	n->where = NOWHERE;
}

static void advance_epoch(struct cached *c)
{
	struct evictor *ev = c->ev;
	if (ev->epoch_left-- > 0)
		return;
	ev->epoch_left = ev->nframes / 16;
	obd_store_relaxed(&c->seg.table->epoch, obd_load_relaxed(&c->seg.table->epoch) + 1);
}

void obd_evict_insert(struct cached *c, uint32_t f, uint64_t key)
{
	struct evictor *ev = c->ev;
	bool remembered = ev->set[ghost_slot(ev, key)] == key;
	advance_epoch(c);
	ev->node[f].visit = (uint8_t)obd_load_relaxed(&c->seg.table->epoch);
	push(ev, remembered ? MAIN : SMALL, f);
}

/* Was the frame read in an epoch later than its last visit? Bytes are compared round the corner; older than 127 epochs looks
 * new, once. */
static bool reused(struct cached *c, uint32_t f)
{
	uint8_t age = (uint8_t)(obd_load_relaxed(&c->seg.recency[f]) - c->ev->node[f].visit);
	return age > 0 && age < 128;
}

/* One step: looks at the oldest of a queue; a frame that stays goes to the front of main. force: reads are no reason to stay.
 */
static uint32_t step(struct cached *c, enum where q, bool force)
{
	struct evictor *ev = c->ev;
	uint32_t f = ev->queue[q].tail;
	if (f == NIL)
		return OBD_NO_FRAME;
	bool again = !force && reused(c, f);
	bool pinned = c->pins[f] != 0;
	obd_evict_remove(ev, f);
	if (!again && !pinned) {
		if (q == SMALL)
			ghost_remember(ev, obd_load_relaxed(&c->seg.frame[f].key));
		return f;
	}
	if (again) /* a byte that is ahead of the epoch must not look new for ever: the epoch may wait for this very frame */
		ev->node[f].visit = obd_load_relaxed(&c->seg.recency[f]);
	push(ev, again ? MAIN : q, f);
	return OBD_NO_FRAME;
}

uint32_t obd_evict_victim(struct cached *c)
{
	struct evictor *ev = c->ev;
	uint32_t small_target = ev->nframes / 10 + 1;
	for (uint64_t tries = 0; tries < 4 * (uint64_t)ev->nframes; tries++) {
		bool small = ev->queue[SMALL].count > small_target || ev->queue[MAIN].count == 0;
		bool force = tries > 2 * (uint64_t)ev->nframes; /* what the policy would take is pinned, or always read again */
		if (force)
			small = tries % 2;
		uint32_t f = step(c, small ? SMALL : MAIN, force);
		if (f != OBD_NO_FRAME)
			return f;
	}
	return OBD_NO_FRAME;
}
