/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The frame table. obd_frame_set is the one place where a frame's state changes; it knows the transition table of layout.h.
 * The free list and the pins are private; the buckets are hints for readers and this process's own way from key to frame.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "common/base/testpoint.h"
#include "shmcache/cached/cached.h"

static const uint32_t successors[OBD_FRAME_STATES] = {
#define X(name, next) [OBD_FRAME_##name] = (next),
	OBD_FRAME_STATE_TABLE(X)
#undef X
};

int obd_frames_init(struct cached *c)
{
	uint32_t n = c->seg.geo.nframes;
	c->free_frames = calloc(n, sizeof *c->free_frames);
	c->pins = calloc(n, sizeof *c->pins);
	c->part = calloc(n, sizeof *c->part);
	c->ev = obd_evict_new(n);
	return c->free_frames && c->pins && c->part && c->ev ? 0 : -ENOMEM;
}

void obd_frames_free(struct cached *c)
{
	free(c->free_frames);
	free(c->pins);
	free(c->part);
	obd_evict_free(c->ev);
	c->free_frames = NULL;
	c->pins = NULL;
	c->part = NULL;
	c->ev = NULL;
}

static void count_state(struct cached *c, uint32_t state, int32_t by)
{
	_Atomic uint32_t *n = &c->seg.table->frames_by_state[state];
	obd_store_relaxed(n, obd_load_relaxed(n) + (uint32_t)by);
}

void obd_frame_set(struct cached *c, uint32_t f, enum obd_frame_state to)
{
	struct obd_frame *fr = &c->seg.frame[f];
	uint32_t from = obd_load_relaxed(&fr->state);
	assert(from < OBD_FRAME_STATES && (successors[from] >> to & 1));
	obd_store_release(&fr->state, to); /* edge: frame-state; the next cached reads it */
	count_state(c, from, -1);
	count_state(c, to, 1);
	if (to == OBD_FRAME_FREE)
		c->free_frames[c->nfree++] = f;
}

/* --- buckets ------------------------------------------------------------------------------------------------------------- */

/* The entry that names frame f in the buckets of key, or NULL. */
static _Atomic uint64_t *find_entry(struct cached *c, uint64_t key, uint32_t f)
{
	uint64_t hash = obd_key_hash(key);
	uint64_t want = obd_bucket_tag(hash) | ((uint64_t)f + 1);
	uint32_t bucket[2] = {obd_bucket_first(&c->seg.geo, hash), obd_bucket_second(&c->seg.geo, hash)};
	for (int b = 0; b < 2; b++)
		for (unsigned int i = 0; i < OBD_BUCKET_WAYS; i++) {
			_Atomic uint64_t *way = &c->seg.bucket[bucket[b]].way[i];
			if ((obd_load_relaxed(way) & ~OBD_BUCKET_MARK) == want)
				return way;
		}
	return NULL;
}

uint32_t obd_frame_find(struct cached *c, uint64_t key)
{
	uint64_t hash = obd_key_hash(key);
	uint64_t tag = obd_bucket_tag(hash);
	uint32_t bucket[2] = {obd_bucket_first(&c->seg.geo, hash), obd_bucket_second(&c->seg.geo, hash)};
	for (int b = 0; b < 2; b++)
		for (unsigned int i = 0; i < OBD_BUCKET_WAYS; i++) {
			uint64_t e = obd_load_relaxed(&c->seg.bucket[bucket[b]].way[i]);
			uint32_t f = (uint32_t)e - 1;
			if (e && (e & ~UINT64_C(0x1ffffffff)) == tag && obd_load_relaxed(&c->seg.frame[f].key) == key &&
			    obd_load_relaxed(&c->seg.frame[f].state) == OBD_FRAME_VALID)
				return f;
		}
	return OBD_NO_FRAME;
}

static _Atomic uint64_t *empty_way(struct cached *c, uint32_t bucket, unsigned int *used)
{
	_Atomic uint64_t *found = NULL;
	*used = 0;
	for (unsigned int i = 0; i < OBD_BUCKET_WAYS; i++) {
		_Atomic uint64_t *way = &c->seg.bucket[bucket].way[i];
		if (obd_load_relaxed(way))
			++*used;
		else if (!found)
			found = way;
	}
	return found;
}

/* The emptier of a key's two buckets takes the entry, which keeps both far from full at half load. */
bool obd_frame_bind(struct cached *c, uint32_t f, uint64_t key, bool mark)
{
	uint64_t hash = obd_key_hash(key);
	unsigned int used1, used2;
	_Atomic uint64_t *way1 = empty_way(c, obd_bucket_first(&c->seg.geo, hash), &used1);
	_Atomic uint64_t *way2 = empty_way(c, obd_bucket_second(&c->seg.geo, hash), &used2);
	_Atomic uint64_t *way = !way1 || (way2 && used2 < used1) ? way2 : way1;
	if (!way)
		return false;
	obd_store_release(way, obd_bucket_tag(hash) | (mark ? OBD_BUCKET_MARK : 0) | ((uint64_t)f + 1)); /* a hint */
	return true;
}

static void unbind(struct cached *c, uint32_t f)
{
	_Atomic uint64_t *way = find_entry(c, obd_load_relaxed(&c->seg.frame[f].key), f);
	if (way)
		obd_store_release(way, 0);
}

bool obd_frame_take_mark(struct cached *c, uint64_t key)
{
	uint32_t f = obd_frame_find(c, key);
	_Atomic uint64_t *way = f == OBD_NO_FRAME ? NULL : find_entry(c, key, f);
	if (!way)
		return false;
	uint64_t e = obd_load_relaxed(way);
	obd_store_relaxed(way, e & ~OBD_BUCKET_MARK);
	return (e & OBD_BUCKET_MARK) != 0;
}

/* --- life ---------------------------------------------------------------------------------------------------------------- */

uint32_t obd_frame_alloc(struct cached *c)
{
	if (c->nfree == 0) {
		uint32_t victim = obd_evict_victim(c);
		if (victim == OBD_NO_FRAME)
			return OBD_NO_FRAME;
		obd_frame_drop(c, victim);
		obd_count(&c->seg.table->proc, evictions, 1);
	}
	return c->free_frames[--c->nfree];
}

void obd_frame_fill(struct cached *c, uint32_t f, uint64_t key, uint32_t fetcher, uint32_t job)
{
	struct obd_frame *fr = &c->seg.frame[f];
	obd_store_relaxed(&c->seg.table->next_generation, ++c->next_generation);
	obd_store_relaxed(&fr->generation, c->next_generation);
	obd_store_relaxed(&fr->key, key);
	obd_store_relaxed(&fr->fetcher, fetcher);
	obd_store_relaxed(&fr->job, job);
	c->part[f] = (struct obd_part){0, 0};
	obd_frame_set(c, f, OBD_FRAME_FILLING);
	OBD_TEST_POINT(frame_filling);
}

void obd_frame_valid(struct cached *c, uint32_t f, bool mark)
{
	struct obd_frame *fr = &c->seg.frame[f];
	uint64_t key = obd_load_relaxed(&fr->key);
	obd_store_relaxed(&fr->insert_epoch, obd_load_relaxed(&c->seg.table->epoch));
	obd_frame_set(c, f, OBD_FRAME_VALID);
	OBD_TEST_POINT(frame_unbound);
	if (obd_frame_bind(c, f, key, mark))
		obd_evict_insert(c, f, key);
	else
		obd_frame_drop(c, f); /* both buckets full, which half load makes a rarity: as if evicted at once */
}

void obd_frame_drop(struct cached *c, uint32_t f)
{
	uint32_t state = obd_load_relaxed(&c->seg.frame[f].state);
	obd_evict_remove(c->ev, f);
	if (state == OBD_FRAME_FILLING) {
		obd_frame_set(c, f, OBD_FRAME_FREE);
		return;
	}
	if (state != OBD_FRAME_EVICTING)
		obd_frame_set(c, f, OBD_FRAME_EVICTING);
	OBD_TEST_POINT(frame_evicting);
	unbind(c, f);
	OBD_TEST_POINT(frame_evicted);
	obd_frame_set(c, f, OBD_FRAME_FREE);
}
