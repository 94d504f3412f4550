/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Requests of clients (doc/architecture.md 4.5). A client's area is its own and hostile: slots, counts and blocks are copied
 * and checked. A frame that answers a request is pinned until the client's tail has passed the answer, within a budget per
 * client, so that a client which stops reading answers cannot pin the cache.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/testpoint.h"
#include "common/config/config.h"
#include "shmcache/cached/cached.h"

enum { POLL_BUDGET = 256 };

static uint32_t pin_budget(const struct cached *c)
{
	return c->seg.geo.nframes / 8;
}

/* --- holds ------------------------------------------------------------------------------------------------------------------
 */

/* All clients together leave half of the frames, or none could be filled while they wait for each other. */
static bool pin(struct cached *c, struct client *cl, uint32_t f)
{
	if (f == OBD_NO_FRAME || cl->npinned >= pin_budget(c) || c->npinned >= c->seg.geo.nframes / 2 ||
	    c->pins[f] == UINT16_MAX)
		return false;
	c->pins[f]++;
	c->npinned++;
	cl->npinned++;
	return true;
}

static void unpin(struct cached *c, struct client *cl, uint32_t f)
{
	c->pins[f]--;
	c->npinned--;
	cl->npinned--;
}

static void hold(struct client *cl, uint32_t f, uint64_t upto)
{
	cl->holds[cl->hold_tail++ % cl->hold_cap] = (struct hold){upto, f};
}

static void release_holds(struct cached *c, uint32_t id)
{
	struct client *cl = &c->client[id];
	if (cl->hold_head == cl->hold_tail)
		return;
	uint64_t tail = obd_load_acquire(&c->seg.client[id]->answers_tail.tail); /* edge: ring-consume */
	while (cl->hold_head != cl->hold_tail) {
		struct hold *h = &cl->holds[cl->hold_head % cl->hold_cap];
		if ((int64_t)(tail - h->upto) < 0)
			break;
		unpin(c, cl, h->frame);
		cl->hold_head++;
	}
}

/* --- answers ----------------------------------------------------------------------------------------------------------------
 */

static void drop_pins(struct cached *c, struct client *cl, struct request *r)
{
	for (uint32_t i = 0; i < r->npins; i++)
		unpin(c, cl, r->pins[i]);
	r->npins = 0;
}

/* Takes a request out of everything; its slot can be used again. */
static void forget(struct cached *c, struct request *r)
{
	OBD_LIST_FOREACH_SAFE (it, &r->waits) {
		struct wait *w = OBD_LIST_ENTRY(it, struct wait, in_req);
		obd_list_remove(&w->in_miss);
		obd_list_remove(&w->in_req);
		if (!w->miss) /* serve()'s guard is not ours */
			continue;
		obd_miss_left(c, w->miss);
		free(w);
	}
	drop_pins(c, &c->client[r->client], r);
	obd_list_remove(&r->link);
	r->active = false;
	c->nwaiting--;
}

static void push_answer(struct cached *c, uint32_t id, uint64_t entry)
{
	struct client *cl = &c->client[id];
	cl->wake = true;
	if (!obd_ring_push(&c->seg.table->client[id].answers, &c->seg.client[id]->answers_tail, entry) &&
	    cl->nunsent < OBD_REQ_SLOTS)
		cl->unsent[cl->nunsent++] = entry;
}

static void answer(struct cached *c, struct request *r, int err)
{
	struct client *cl = &c->client[r->client];
	OBD_TEST_POINT(answer_unsent);
	push_answer(c, r->client, obd_entry(r->slot, r->seq, (unsigned int)err));
	OBD_TEST_POINT(answer_sent);
	uint64_t upto = obd_load_relaxed(&c->seg.table->client[r->client].answers.head);
	for (uint32_t i = 0; i < r->npins; i++)
		hold(cl, r->pins[i], upto);
	r->npins = 0;
	forget(c, r);
}

static void send_unsent(struct cached *c, uint32_t id)
{
	struct client *cl = &c->client[id];
	uint32_t n = cl->nunsent;
	cl->nunsent = 0;
	for (uint32_t i = 0; i < n; i++)
		push_answer(c, id, cl->unsent[i]);
}

void obd_request_done_wait(struct cached *c, struct wait *w, uint32_t frame, int err)
{
	struct request *r = w->req;
	obd_list_remove(&w->in_miss);
	obd_list_remove(&w->in_req);
	free(w);
	if (err) {
		answer(c, r, err);
		return;
	}
	if (r->npins < OBD_REQ_BLOCKS && pin(c, &c->client[r->client], frame))
		r->pins[r->npins++] = frame;
	if (obd_list_empty(&r->waits))
		answer(c, r, 0);
}

static void give_up(struct cached *c, struct request *r, uint64_t now)
{
	if (!obd_list_empty(&r->waits)) {
		const struct wait *w = OBD_LIST_ENTRY(r->waits.next, struct wait, in_req);
		obd_host_gave_up(c, w->miss->host_hash, now - r->posted_ns);
	}
	answer(c, r, ETIMEDOUT);
}

/* --- requests ---------------------------------------------------------------------------------------------------------------
 */

struct wanted {
	uint32_t layer_slot;
	uint32_t uid;
	uint32_t block;
	uint32_t nblocks;
	uint32_t begin, end; /* bytes of the first and the last block */
	uint32_t kind;
	uint32_t flow;
	enum prio prio;
};

/* Numbers of bytes mean something for blocks only, where they lie in them and, at their beginning, inside the layer's file. */
static bool part_can_be(const struct cached *c, const struct wanted *w, const struct obd_layer_brief *layer)
{
	uint32_t bb = c->seg.geo.block_bytes;
	if (!w->begin && !w->end)
		return true;
	return w->kind == OBD_JOB_BLOCKS && w->begin < bb && w->end <= bb && (w->nblocks > 1 || !w->end || w->begin < w->end) &&
	       (uint64_t)w->block * bb + w->begin < layer->file_bytes;
}

static int check(struct cached *c, const struct wanted *w, struct obd_layer_brief *layer)
{
	if (w->kind > OBD_JOB_PROBE || w->nblocks > OBD_REQ_BLOCKS || (w->kind != OBD_JOB_PROBE && w->nblocks == 0))
		return EPROTO;
	int rc = obd_catalog_layer_brief(&c->seg, w->layer_slot, w->uid, layer);
	if (rc)
		return -rc;
	if (!part_can_be(c, w, layer))
		return EPROTO;
	if (obd_breaker_refuses(c, w->uid))
		return ENOTRECOVERABLE;
	if (w->kind == OBD_JOB_PROBE)
		return 0;
	if (w->kind == OBD_JOB_BLOCKS && layer->state < OBD_LAYER_MAPPED)
		return EPROTO;
	uint64_t blocks = obd_layer_blocks(layer, w->kind == OBD_JOB_RAW, c->seg.geo.block_bytes);
	return w->block < blocks && w->nblocks <= blocks - w->block ? 0 : ERANGE;
}

static int wait_for(struct request *r, struct miss *m, struct obd_part need)
{
	struct wait *w = malloc(sizeof *w);
	if (!w)
		return ENOMEM;
	w->miss = m;
	w->req = r;
	w->need = need;
	obd_list_push_back(&m->waits, &w->in_miss);
	obd_list_push_back(&r->waits, &w->in_req);
	return 0;
}

/* What is fetched for a need that nothing covers. Demand gets whole blocks: more of the same is likely to follow. */
static struct obd_part to_fetch(const struct wanted *w, struct obd_part need)
{
	return w->prio == PRIO_DEMAND ? (struct obd_part){0, 0} : need;
}

static struct miss *new_miss(struct cached *c, const struct wanted *w, uint32_t block, struct obd_part part,
			     const struct obd_layer_brief *layer)
{
	struct miss *m = obd_miss_new(c, (enum obd_job_kind)w->kind, w->layer_slot, w->uid, block, w->prio, w->flow);
	if (!m)
		return NULL;
	m->part = part;
	obd_miss_place(c, m, layer);
	obd_miss_queue(c, m, false);
	return m;
}

static int want_block(struct cached *c, struct request *r, const struct wanted *w, uint32_t i,
		      const struct obd_layer_brief *layer)
{
	uint32_t block = w->block + i, bb = c->seg.geo.block_bytes;
	uint64_t key = obd_key(w->uid, w->kind == OBD_JOB_RAW, block);
	struct obd_part need = obd_part_of(w->begin, w->end, i, w->nblocks, bb), part = to_fetch(w, need);
	uint32_t f = obd_frame_find(c, key);
	if (f != OBD_NO_FRAME && obd_part_covers(c->part[f], need)) {
		if (pin(c, &c->client[r->client], f))
			r->pins[r->npins++] = f;
		return 0;
	}
	struct miss *m = obd_miss_find(c, key);
	bool fresh = !m;
	if (fresh) {
		m = new_miss(c, w, block, f == OBD_NO_FRAME ? part : obd_part_hull(c->part[f], part, bb), layer);
		if (!m)
			return ENOMEM;
	} else {
		if (m->state != MISS_INFLIGHT && !obd_part_covers(m->part, need))
			obd_miss_grow(c, m, part, layer);
		obd_count(&c->seg.table->proc, joins, 1);
	}
	int err = wait_for(r, m, need);
	if (!err && !fresh)
		obd_miss_promote(c, m, w->prio, w->flow); /* may serve it at once, and r with it */
	return err;
}

static int want_probe(struct cached *c, struct request *r, const struct wanted *w, const struct obd_layer_brief *layer)
{
	struct miss *m = obd_miss_new(c, OBD_JOB_PROBE, w->layer_slot, w->uid, 0, w->prio, w->flow);
	if (!m)
		return ENOMEM;
	obd_miss_place(c, m, layer);
	obd_miss_queue(c, m, false);
	return wait_for(r, m, (struct obd_part){0, 0});
}

/* All blocks are asked for under a guard wait, so that r is not answered before the last one was looked at. */
static void serve(struct cached *c, struct request *r, const struct wanted *w)
{
	struct obd_layer_brief layer;
	uint64_t seq = r->seq;
	struct wait guard = {.req = r};
	obd_list_init(&guard.in_miss);
	obd_list_push_back(&r->waits, &guard.in_req);
	int err = check(c, w, &layer);
	if (!err && w->kind == OBD_JOB_PROBE)
		err = want_probe(c, r, w, &layer);
	for (uint32_t i = 0; !err && w->kind != OBD_JOB_PROBE && i < w->nblocks && r->active && r->seq == seq; i++)
		err = want_block(c, r, w, i, &layer);
	obd_list_remove(&guard.in_req);
	if (!r->active || r->seq != seq)
		return;
	if (err || obd_list_empty(&r->waits))
		answer(c, r, err);
}

static void take_request(struct cached *c, uint32_t id, uint32_t slot)
{
	const struct obd_req *q = &c->seg.client[id]->req[slot];
	struct request *r = &c->client[id].req[slot];
	uint64_t word = obd_load_acquire(&q->word); /* edge: request-post */
	if (obd_word_state(word) != OBD_REQ_POSTED || (r->active && r->seq == obd_word_seq(word)))
		return;
	if (r->active)
		forget(c, r);
	struct wanted w = {.layer_slot = obd_load_relaxed(&q->layer_slot),
			   .uid = obd_load_relaxed(&q->layer_uid),
			   .block = obd_load_relaxed(&q->block),
			   .nblocks = obd_load_relaxed(&q->nblocks),
			   .begin = obd_load_relaxed(&q->begin),
			   .end = obd_load_relaxed(&q->end),
			   .kind = obd_load_relaxed(&q->kind)};
	uint32_t flow = obd_load_relaxed(&q->flow);
	w.flow = id << 16 | (flow & 0xffff);
	w.prio = (flow >> 16 & 0xff) == OBD_REQ_DEMAND ? PRIO_DEMAND : PRIO_PREFETCH;
	r->client = (uint8_t)id;
	r->slot = (uint16_t)slot;
	r->seq = obd_word_seq(word);
	r->posted_ns = obd_min_u64(obd_load_relaxed(&q->posted_ns), obd_clock_ns());
	r->npins = 0;
	r->active = true;
	obd_list_init(&r->waits);
	obd_list_push_back(&c->client[id].active, &r->link);
	c->nwaiting++;
	obd_count(&c->seg.table->proc, requests, 1);
	OBD_TEST_POINT(request_seen);
	serve(c, r, &w);
	OBD_TEST_POINT(request_served);
	if (w.kind == OBD_JOB_BLOCKS && w.nblocks <= OBD_REQ_BLOCKS && w.prio == PRIO_DEMAND)
		obd_readahead_miss(c, w.flow, w.layer_slot, w.uid, w.block, w.nblocks);
}

void obd_client_scan(struct cached *c, uint32_t id)
{
	for (uint32_t slot = 0; slot < OBD_REQ_SLOTS; slot++)
		take_request(c, id, slot);
}

/* --- clients ----------------------------------------------------------------------------------------------------------------
 */

int obd_client_up(struct cached *c, uint32_t id, uint64_t incarnation)
{
	if (id >= OBD_MAX_CLIENTS || !c->seg.client[id])
		return -EINVAL;
	obd_client_down(c, id);
	struct client *cl = &c->client[id];
	memset(cl, 0, sizeof *cl);
	cl->hold_cap = pin_budget(c) + 1;
	cl->req = calloc(OBD_REQ_SLOTS, sizeof *cl->req);
	cl->holds = calloc(cl->hold_cap, sizeof *cl->holds);
	cl->unsent = calloc(OBD_REQ_SLOTS, sizeof *cl->unsent);
	obd_list_init(&cl->active);
	cl->up = true;
	if (!cl->req || !cl->holds || !cl->unsent) {
		obd_client_down(c, id);
		return -ENOMEM;
	}
	cl->incarnation = incarnation;
	obd_store_relaxed(&c->seg.table->client[id].incarnation, incarnation);
	/* Skip, then scan: whatever is posted after the skip rings again. */
	obd_ring_skip(&c->seg.client[id]->requests, &c->seg.table->client[id].requests_tail);
	OBD_TEST_POINT(client_skipped);
	obd_client_scan(c, id);
	return 0;
}

void obd_client_down(struct cached *c, uint32_t id)
{
	struct client *cl = &c->client[id];
	if (!cl->up)
		return;
	OBD_LIST_FOREACH_SAFE (it, &cl->active)
		forget(c, OBD_LIST_ENTRY(it, struct request, link));
	for (; cl->hold_head != cl->hold_tail; cl->hold_head++)
		unpin(c, cl, cl->holds[cl->hold_head % cl->hold_cap].frame);
	free(cl->req);
	free(cl->holds);
	free(cl->unsent);
	memset(cl, 0, sizeof *cl);
}

static void hint(struct cached *c, uint32_t id, uint64_t entry)
{
	obd_readahead_hint(c, id, obd_entry_slot(entry), obd_entry_seq(entry));
}

static bool poll_client(struct cached *c, uint32_t id)
{
	const struct obd_ring *ring = &c->seg.client[id]->requests;
	struct obd_tail *tail = &c->seg.table->client[id].requests_tail;
	release_holds(c, id);
	if (c->client[id].nunsent)
		send_unsent(c, id);
	unsigned int n = 0;
	for (; n < POLL_BUDGET; n++) {
		uint64_t entry;
		enum obd_ring_result got = obd_ring_pop(ring, tail, &entry);
		if (got == OBD_RING_EMPTY)
			break;
		if (got == OBD_RING_LOST ||
		    (obd_entry_kind(entry) != OBD_ENTRY_HINT && obd_entry_slot(entry) >= OBD_REQ_SLOTS)) {
			obd_count(&c->seg.table->proc, protocol_errors, 1);
			obd_client_scan(c, id);
			break;
		}
		if (obd_entry_kind(entry) == OBD_ENTRY_HINT)
			hint(c, id, entry);
		else
			take_request(c, id, obd_entry_slot(entry));
	}
	return n > 0;
}

bool obd_clients_poll(struct cached *c)
{
	bool did = false;
	for (uint32_t id = 0; id < OBD_MAX_CLIENTS; id++)
		if (c->client[id].up)
			did |= poll_client(c, id);
	return did;
}

bool obd_clients_have_work(struct cached *c)
{
	for (uint32_t id = 0; id < OBD_MAX_CLIENTS; id++)
		if (c->client[id].up && obd_ring_has(&c->seg.client[id]->requests, &c->seg.table->client[id].requests_tail))
			return true;
	return false;
}

void obd_clients_wake(struct cached *c)
{
	for (uint32_t id = 0; id < OBD_MAX_CLIENTS; id++) {
		if (!c->client[id].wake)
			continue;
		c->client[id].wake = false;
		if (obd_wake(&c->seg.client[id]->proc, c->seg.bell_client[id]))
			obd_count(&c->seg.table->proc, wakeups, 1);
	}
}

void obd_clients_expire(struct cached *c)
{
	uint64_t now = obd_clock_ns();
	uint64_t limit = c->d->config->read_timeout_sec * OBD_SECOND_NS;
	uint64_t oldest = 0;
	for (uint32_t id = 0; id < OBD_MAX_CLIENTS; id++) {
		if (!c->client[id].up)
			continue;
		OBD_LIST_FOREACH_SAFE (it, &c->client[id].active) {
			struct request *r = OBD_LIST_ENTRY(it, struct request, link);
			uint64_t word = obd_load_relaxed(&c->seg.client[id]->req[r->slot].word);
			if (word != obd_word(r->seq, OBD_REQ_POSTED))
				forget(c, r); /* given up */
			else if (limit && now - r->posted_ns > limit)
				give_up(c, r, now);
			else if (oldest == 0 || r->posted_ns < oldest)
				oldest = r->posted_ns;
		}
	}
	obd_store_relaxed(&c->seg.table->oldest_wait_ns, oldest);
	obd_store_relaxed(&c->seg.table->waiting_requests, c->nwaiting);
	obd_store_relaxed(&c->seg.table->backoff_blocks, c->nbackoff);
}
