/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Wanted blocks. One miss per key, however many wait for it: this is the single flight of the whole host. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/config/config.h"
#include "shmcache/cached/cached.h"

#define BACKOFF_FIRST_NS (100 * OBD_MS_NS)
#define BACKOFF_LAST_NS (5 * OBD_SECOND_NS)
#define BACKOFF_ALIVE_NS (400 * OBD_MS_NS) /* the longest while the registry answers others: it is a fault, not an outage */
#define RETRY_AFTER_MAX_MS 30000u
#define DOUBTS_FIRST 2u /* how often a layer that was never read is asked for again when a registry says no */
#define DOUBTS_KNOWN 4u /* and one that was read before */

int obd_misses_init(struct cached *c)
{
	c->miss_mask = (1u << 16) - 1;
	c->miss_hash = calloc((size_t)c->miss_mask + 1, sizeof *c->miss_hash);
	obd_flows_init(c);
	obd_list_init(&c->backoff);
	if (!c->miss_hash)
		return -ENOMEM;
	obd_touch_pages(c->miss_hash, ((size_t)c->miss_mask + 1) * sizeof *c->miss_hash);
	return 0;
}

static struct miss **chain(struct cached *c, uint64_t key)
{
	return &c->miss_hash[obd_key_hash(key) & c->miss_mask];
}

struct miss *obd_miss_find(struct cached *c, uint64_t key)
{
	struct miss *m = *chain(c, key);
	while (m && m->key != key)
		m = m->hash_next;
	return m;
}

struct miss *obd_miss_new(struct cached *c, enum obd_job_kind kind, uint32_t layer_slot, uint32_t uid, uint32_t block,
			  enum prio prio, uint32_t flow)
{
	struct miss *m = calloc(1, sizeof *m);
	if (!m)
		return NULL;
	obd_list_init(&m->link);
	obd_list_init(&m->waits);
	m->kind = (uint8_t)kind;
	m->prio = (uint8_t)prio;
	m->flow = flow;
	m->layer_slot = layer_slot;
	m->layer_uid = uid;
	m->block = block;
	m->frame = OBD_NO_FRAME;
	if (kind != OBD_JOB_PROBE) {
		m->key = obd_key(uid, kind == OBD_JOB_RAW, block);
		m->hash_next = *chain(c, m->key);
		*chain(c, m->key) = m;
	}
	c->nmisses++;
	return m;
}

/* A layer's blocks are taken to be compressed alike. */
static uint32_t cost_of(const struct cached *c, const struct miss *m, const struct obd_layer_brief *layer)
{
	uint32_t block = c->seg.geo.block_bytes;
	if (m->kind == OBD_JOB_PROBE)
		return 1;
	if (m->kind == OBD_JOB_RAW)
		return m->block ? block : OBD_RAW_HEAD_BYTES;
	if (!obd_part_is_whole(m->part))
		block = m->part.end - m->part.begin;
	if (layer->blob_bytes >= layer->file_bytes)
		return block;
	return 1 + (uint32_t)((double)block * (double)layer->blob_bytes / (double)layer->file_bytes);
}

void obd_miss_place(struct cached *c, struct miss *m, const struct obd_layer_brief *layer)
{
	m->host_hash = layer->local ? 0 : layer->host_hash;
	m->cost = cost_of(c, m, layer);
}

void obd_miss_grow(struct cached *c, struct miss *m, struct obd_part part, const struct obd_layer_brief *layer)
{
	assert(m->state != MISS_INFLIGHT);
	m->part = obd_part_hull(m->part, part, c->seg.geo.block_bytes);
	obd_miss_place(c, m, layer);
}

void obd_miss_unlink(struct cached *c, struct miss *m)
{
	if (m->state == MISS_BACKOFF)
		c->nbackoff--;
	if (m->state == MISS_QUEUED)
		obd_flow_pull(c, m);
	obd_list_remove(&m->link);
	m->state = MISS_NEW;
}

static void release(struct cached *c, struct miss *m)
{
	obd_miss_unlink(c, m);
	if (m->key) {
		struct miss **p = chain(c, m->key);
		while (*p != m)
			p = &(*p)->hash_next;
		*p = m->hash_next;
	}
	c->nmisses--;
	free(m);
}

void obd_miss_left(struct cached *c, struct miss *m)
{
	if (obd_list_empty(&m->waits) && m->prio != PRIO_READAHEAD && m->state != MISS_INFLIGHT)
		release(c, m);
}

void obd_misses_free(struct cached *c)
{
	for (uint32_t i = 0; c->miss_hash && i <= c->miss_mask; i++)
		while (c->miss_hash[i])
			release(c, c->miss_hash[i]);
	free(c->miss_hash);
	c->miss_hash = NULL;
	obd_flows_free(c);
}

void obd_miss_queue(struct cached *c, struct miss *m, bool front)
{
	obd_miss_unlink(c, m);
	if (m->deaths >= OBD_SUSPECT_AFTER) {
		m->state = MISS_SUSPECT;
		obd_list_push_back(&c->suspects, &m->link);
		return;
	}
	m->state = MISS_QUEUED;
	obd_flow_push(c, m, front);
	if (m->prio == PRIO_DEMAND)
		obd_link_demand(&m->in->host->link, obd_flow_who(m->flow), obd_clock_ns());
}

void obd_miss_promote(struct cached *c, struct miss *m, enum prio prio, uint32_t flow)
{
	if (prio < m->prio) {
		bool queued = m->state == MISS_QUEUED;
		if (queued)
			obd_miss_unlink(c, m);
		m->prio = (uint8_t)prio;
		m->flow = flow;
		if (queued)
			obd_miss_queue(c, m, false);
	}
	if (m->state == MISS_INFLIGHT)
		obd_job_demand(c, m);
}

static void tell(struct cached *c, struct miss *m, int err)
{
	OBD_LIST_FOREACH_SAFE (it, &m->waits)
		obd_request_done_wait(c, OBD_LIST_ENTRY(it, struct wait, in_miss), m->frame, err);
}

/* Tells those whose bytes are there. Whoever needs more of the block than that waits on; true: somebody does. */
static bool tell_inside(struct cached *c, struct miss *m)
{
	struct obd_part have = c->part[m->frame];
	bool more = false;
	OBD_LIST_FOREACH_SAFE (it, &m->waits) {
		struct wait *w = OBD_LIST_ENTRY(it, struct wait, in_miss);
		if (obd_part_covers(have, w->need)) {
			obd_request_done_wait(c, w, m->frame, 0);
			continue;
		}
		m->part = obd_part_hull(more ? m->part : have, w->need, c->seg.geo.block_bytes);
		more = true;
	}
	return more;
}

/* A demand that came while only a part was under way gets the whole block, like any other. */
static void fetch_more(struct cached *c, struct miss *m)
{
	struct obd_layer_brief layer;
	if (m->prio == PRIO_DEMAND)
		m->part = (struct obd_part){0, 0};
	m->frame = OBD_NO_FRAME;
	if (obd_catalog_layer_brief(&c->seg, m->layer_slot, m->layer_uid, &layer) == 0)
		obd_miss_place(c, m, &layer);
	obd_miss_queue(c, m, false);
}

void obd_miss_served(struct cached *c, struct miss *m, uint32_t frame)
{
	m->frame = frame;
	if (frame != OBD_NO_FRAME && tell_inside(c, m)) {
		fetch_more(c, m);
		return;
	}
	tell(c, m, 0);
	release(c, m);
}

bool obd_miss_transient(int err)
{
	switch (err) {
	case EAGAIN:
	case ETIMEDOUT:
	case ECONNREFUSED:
	case ECONNRESET:
	case EHOSTUNREACH:
	case ENETUNREACH:
	case EPIPE:
	case EBUSY:
		return true;
	default:
		return false;
	}
}

/*
 * Registries and what stands in front of them say 404 or 403, give another size or damaged bytes and do not mean it. So a
 * definite answer is believed only when it was given several times in a row; the fetcher has tried every route before each.
 */
static bool doubtful(struct miss *m, int err)
{
	if (!m->host_hash || (err != ENOENT && err != EACCES && err != EMSGSIZE && err != EBADMSG))
		return false;
	bool known = m->kind == OBD_JOB_BLOCKS;
	if (m->doubts >= (known ? DOUBTS_KNOWN : DOUBTS_FIRST))
		return false;
	m->doubts++;
	return true;
}

/* Who probes wants to know at once that there is no way to the registry, and asks again himself (4.14, opens). */
static bool probe_is_over(const struct miss *m, int err)
{
	return m->kind == OBD_JOB_PROBE &&
	       (err == ECONNREFUSED || err == ETIMEDOUT || err == EHOSTUNREACH || err == ENETUNREACH);
}

/* Exponential, with a quarter of jitter, so that a host's clients do not come back in step. */
static uint64_t backoff_ns(struct cached *c, const struct miss *m)
{
	uint64_t ns = BACKOFF_FIRST_NS << (m->attempts < 8 ? m->attempts : 8);
	c->random = c->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	ns = obd_min_u64(ns, obd_host_answers(c, m->host_hash) ? BACKOFF_ALIVE_NS : BACKOFF_LAST_NS);
	ns = obd_max_u64(ns, obd_min_u64(m->retry_ms, RETRY_AFTER_MAX_MS) * OBD_MS_NS * 4 / 3);
	return ns - ns / 4 + (c->random >> 33) % (ns / 2);
}

void obd_miss_failed(struct cached *c, struct miss *m, int err)
{
	m->frame = OBD_NO_FRAME;
	if (!obd_list_empty(&m->waits) && !probe_is_over(m, err) && (obd_miss_transient(err) || doubtful(m, err))) {
		obd_miss_unlink(c, m);
		m->state = MISS_BACKOFF;
		m->due_ns = obd_clock_ns() + backoff_ns(c, m);
		if (m->attempts < UINT8_MAX)
			m->attempts++;
		obd_list_push_back(&c->backoff, &m->link);
		c->nbackoff++;
		obd_misses_alarm(c, obd_clock_ns() + 20 * OBD_MS_NS);
		return;
	}
	tell(c, m, err);
	release(c, m);
}

void obd_misses_alarm(struct cached *c, uint64_t due_ns)
{
	if (c->alarm_ns && c->alarm_ns <= due_ns)
		return;
	c->alarm_ns = due_ns;
	obd_loop_timer_set(c->timer, due_ns);
}

void obd_misses_turn(struct cached *c)
{
	uint64_t now = obd_clock_ns();
	c->alarm_ns = 0;
	OBD_LIST_FOREACH_SAFE (it, &c->backoff) {
		struct miss *m = OBD_LIST_ENTRY(it, struct miss, link);
		if (obd_list_empty(&m->waits)) {
			release(c, m);
		} else if (m->due_ns <= now) {
			obd_count(&c->seg.table->proc, retries, 1);
			obd_miss_queue(c, m, false);
		}
	}
	if (!obd_list_empty(&c->backoff))
		obd_misses_alarm(c, now + 20 * OBD_MS_NS);
}
