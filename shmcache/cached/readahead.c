/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Readahead per stream. A stream is a client reading forward in one layer. Readahead begins when a second miss in a row follows
 * the last block seen: one that does is common among random reads of a small layer, two are not. Then a window of blocks is
 * fetched ahead, doubling up to readaheadKB. Hits send no message, so the first block of each window carries a mark in its
 * bucket entry: the reader that comes to it sends a hint, and the next window is asked for while this one is being read. A miss
 * that no stream expects fetches its own block and nothing else.
 */
#include <string.h>

#include "common/base/clock.h"
#include "common/base/util.h"
#include "shmcache/cached/cached.h"

enum { FIRST_WINDOW = 2, WAYS = 8, SLACK = 2, STEPS = 2 };

/* A client's streams of one layer lie in one set of the table. */
static struct stream *set_of(struct cached *c, uint32_t client, uint32_t uid)
{
	uint64_t h = obd_key_hash((uint64_t)uid << 8 | client);
	return &c->stream[h % (STREAMS / WAYS) * WAYS];
}

static bool expects(const struct stream *s, uint32_t block)
{
	return block + SLACK >= s->next && block <= s->ahead + SLACK;
}

static struct stream *find(struct cached *c, uint32_t client, uint32_t uid, uint32_t block)
{
	struct stream *set = set_of(c, client, uid);
	for (int i = 0; i < WAYS; i++)
		if (set[i].uid == uid && set[i].client == client && expects(&set[i], block))
			return &set[i];
	return NULL;
}

static struct stream *oldest(struct stream *set)
{
	struct stream *s = set;
	for (int i = 1; i < WAYS; i++)
		if (set[i].used_ns < s->used_ns)
			s = &set[i];
	return s;
}

static void want_ahead(struct cached *c, struct stream *s, uint32_t layer_slot, const struct obd_layer_brief *layer)
{
	uint64_t blocks = obd_layer_blocks(layer, false, c->seg.geo.block_bytes);
	uint64_t end = obd_min_u64((uint64_t)s->ahead + s->window, blocks);
	bool mark = true;
	for (uint32_t b = s->ahead; b < end; b++) {
		uint64_t key = obd_key(s->uid, false, b);
		uint32_t f = obd_frame_find(c, key);
		if ((f != OBD_NO_FRAME && obd_part_is_whole(c->part[f])) || obd_miss_find(c, key))
			continue;
		struct miss *m = obd_miss_new(c, OBD_JOB_BLOCKS, layer_slot, s->uid, b, PRIO_READAHEAD, s->flow);
		if (!m)
			return;
		obd_miss_place(c, m, layer);
		m->mark = mark;
		mark = false;
		obd_miss_queue(c, m, false);
	}
	s->ahead = (uint32_t)obd_max_u64(end, s->ahead);
}

/* [block, next) was read. What is only near counts for a stream that is known to be one, but does not make one. */
static void advance(struct cached *c, struct stream *s, uint32_t layer_slot, uint32_t block, uint32_t next)
{
	struct obd_layer_brief layer;
	bool behind = block + 1 >= s->next && block <= s->next;
	s->used_ns = obd_clock_ns();
	s->next = next;
	if (s->ahead < next)
		s->ahead = next;
	if (s->steps < STEPS && behind)
		s->steps++;
	if (s->steps < STEPS)
		return;
	if (obd_catalog_layer_brief(&c->seg, layer_slot, s->uid, &layer) != 0)
		return;
	uint32_t most = (uint32_t)obd_min_u64(c->window_blocks, c->seg.geo.nframes / 8);
	s->window = (uint32_t)obd_min_u64(s->window ? 2 * (uint64_t)s->window : FIRST_WINDOW, most);
	if (s->ahead - next <= most)
		want_ahead(c, s, layer_slot, &layer);
}

void obd_readahead_miss(struct cached *c, uint32_t flow, uint32_t layer_slot, uint32_t uid, uint32_t block, uint32_t nblocks)
{
	if (c->window_blocks == 0)
		return;
	uint32_t client = flow >> 16;
	struct stream *s = find(c, client, uid, block);
	if (s) {
		s->flow = flow;
		advance(c, s, layer_slot, block, block + nblocks);
		return;
	}
	s = oldest(set_of(c, client, uid));
	*s = (struct stream){.used_ns = obd_clock_ns(),
			     .client = client,
			     .flow = flow,
			     .uid = uid,
			     .next = block + nblocks,
			     .ahead = block + nblocks};
}

void obd_readahead_hint(struct cached *c, uint32_t client, uint32_t layer_slot, uint32_t block)
{
	if (c->window_blocks == 0 || layer_slot >= OBD_LAYER_SLOTS || block > OBD_KEY_MAX_BLOCK)
		return;
	uint32_t uid = (uint32_t)obd_word_seq(obd_load_acquire(&c->seg.catalog->layer[layer_slot].word));
	if (uid == 0 || !obd_frame_take_mark(c, obd_key(uid, false, block)))
		return;
	obd_count(&c->seg.table->proc, readahead_used, 1);
	struct stream *s = find(c, client, uid, block);
	if (s)
		advance(c, s, layer_slot, block, block + 1);
}
