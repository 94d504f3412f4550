/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The clients' tables of upper requests.
 *
 *     up[slot] POSTED s -> checked copy -> behind older ones that overlap -> engine -> updones: (slot, s, errno)
 *
 * The truth is in the tables; ring entries only say where to look. A request that was answered is never served again: its
 * client may have used the slot's staging buffer, and others may have written the same place, since. So the last answer to each
 * slot is remembered, and after a restart it is read out of the ring of answers, which is this role's own memory and still
 * holds every answer that its client has not consumed.
 *
 * If this process dies with a request under way, the request is still POSTED and its data still in the staging buffer: the next
 * one serves it from the start.
 */
#include "indexer/upper.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "common/base/clock.h"
#include "common/base/testpoint.h"
#include "indexer/internal.h"
#include "shmcache/ring.h"

static struct obd_client_area *area(const struct obd_indexer *ix, uint32_t c)
{
	return ix->seg->client[c];
}

/* --- answers ------------------------------------------------------------------------------------------------------------ */

static void ring_answer(struct obd_indexer *ix, uint32_t c, uint32_t slot)
{
	struct obd_ix_up_client *cl = &ix->client[c].ups;
	struct obd_catalog_client *half = &ix->cat->client[c];
	OBD_TEST_POINT(up_unanswered);
	bool pushed = obd_ring_push(&half->updones, &area(ix, c)->updones_tail, obd_entry(slot, cl->seq[slot], cl->err[slot]));
	OBD_TEST_POINT(up_answered);
	cl->unsent += !pushed && !cl->due[slot];
	cl->unsent -= pushed && cl->due[slot];
	cl->due[slot] = !pushed;
	cl->rings |= pushed;
}

/* One bell for all the answers of a round. */
static void ring_bell(struct obd_indexer *ix, uint32_t c)
{
	struct obd_ix_up_client *cl = &ix->client[c].ups;
	if (cl->rings && obd_wake(&area(ix, c)->proc, ix->seg->bell_client[c]))
		obd_count(&ix->cat->proc, wakeups, 1);
	cl->rings = false;
}

static void answer(struct obd_indexer *ix, uint32_t c, uint32_t slot, uint64_t seq, int err)
{
	struct obd_ix_up_client *cl = &ix->client[c].ups;
	cl->answered[slot] = true;
	cl->seq[slot] = (uint32_t)seq;
	cl->err[slot] = (uint16_t)(err > 0 && err < 4096 ? err : err ? EIO : 0);
	ring_answer(ix, c, slot);
}

bool obd_ix_up_flush(struct obd_indexer *ix)
{
	bool did = false;
	for (uint32_t c = 1; c < OBD_MAX_CLIENTS; c++) {
		struct obd_ix_up_client *cl = &ix->client[c].ups;
		for (uint32_t slot = 0; ix->client[c].up && cl->unsent && slot < OBD_UP_SLOTS; slot++) {
			if (!cl->due[slot])
				continue;
			ring_answer(ix, c, slot);
			if (cl->due[slot])
				break;
			did = true;
		}
		if (ix->client[c].up)
			ring_bell(ix, c);
	}
	return did;
}

/* --- order -------------------------------------------------------------------------------------------------------------- */

static bool overlap(const struct obd_ix_up *a, const struct obd_ix_up *b)
{
	return a->from < b->to && b->from < a->to;
}

static void ready(struct obd_ix_up *up)
{
	up->stage = OBD_IX_UP_READY;
	obd_list_push_back(&up->upper->ready, &up->queue);
	obd_ix_up_ready(up->upper);
}

void obd_ix_up_ready(struct obd_ix_upper *u)
{
	if (u->attached && !obd_list_empty(&u->ready) && u->running < OBD_IX_UPS_RUNNING && obd_list_empty(&u->turn))
		obd_list_push_back(&u->ix->ups_ready, &u->turn);
}

static void put_in_order(struct obd_ix_up *up)
{
	struct obd_ix_upper *u = up->upper;
	OBD_LIST_FOREACH (it, &u->requests)
		up->blockers += overlap(up, OBD_LIST_ENTRY(it, struct obd_ix_up, link));
	obd_list_push_back(&u->requests, &up->link);
	if (!up->blockers)
		ready(up);
}

/* Everything behind it in the list that overlaps it was waiting for it. */
static void leave_order(struct obd_ix_up *up)
{
	struct obd_ix_upper *u = up->upper;
	for (struct obd_list *it = up->link.next; it != &u->requests; it = it->next) {
		struct obd_ix_up *later = OBD_LIST_ENTRY(it, struct obd_ix_up, link);
		if (!overlap(up, later))
			continue;
		assert(later->blockers && later->stage == OBD_IX_UP_WAITING);
		if (!--later->blockers)
			ready(later);
	}
	obd_list_remove(&up->link);
}

static bool look(struct obd_indexer *ix, uint32_t c, uint32_t slot, uint32_t *rung);

void obd_ix_up_finish(struct obd_ix_up *up)
{
	struct obd_indexer *ix = up->ix;
	uint32_t c = up->client, slot = up->slot;
	bool forgotten = up->forgotten;
	obd_ix_posts_cancel(&up->posts);
	obd_list_remove(&up->queue);
	if (!forgotten) {
		ix->client[c].ups.up[slot] = NULL;
		answer(ix, c, slot, up->seq, up->err);
	}
	leave_order(up);
	up->stage = OBD_IX_UP_OVER;
	if (!up->pending)
		obd_ix_up_free(up);
	/* A client that gave up waiting may have posted another request in its slot. */
	if (!forgotten)
		look(ix, c, slot, NULL);
}

void obd_ix_up_drop(struct obd_ix_upper *u)
{
	for (struct obd_list *it = u->requests.prev, *prev = it->prev; it != &u->requests; it = prev, prev = it->prev) {
		struct obd_ix_up *up = OBD_LIST_ENTRY(it, struct obd_ix_up, link);
		if (up->stage == OBD_IX_UP_RUNNING)
			continue;
		up->err = ENODEV;
		obd_ix_up_finish(up); /* the youngest first: nobody waits for it */
	}
}

/* --- checks ------------------------------------------------------------------------------------------------------------- */

/* The device that a request names, if it is one of its client's. */
static struct obd_ix_upper *upper_of(struct obd_indexer *ix, uint32_t c, uint32_t open_slot)
{
	if (open_slot >= OBD_OPEN_SLOTS)
		return NULL;
	const struct obd_ix_open *o = ix->client[c].open[open_slot];
	if (!o || !o->finished || !o->upper || o->upper->state != OBD_IX_UPPER_LIVE)
		return NULL;
	return obd_load_acquire(&area(ix, c)->open[open_slot].word) == obd_word(o->seq, OBD_OPEN_HELD) ? o->upper : NULL;
}

/* Where the data file ends is looked at when the request runs: it may not be open yet. */
static bool range_is_good(const struct obd_ix_upper *u, const struct obd_ix_up *up)
{
	uint64_t end = up->op == OBD_UP_READ ? INT64_MAX : u->bytes;
	if (up->op == OBD_UP_SYNC)
		return true;
	if (!up->len || (up->off | up->len) % OBD_SECTOR_BYTES || up->off > end || up->len > end - up->off)
		return false;
	if (up->op == OBD_UP_READ && up->off < OBD_LSMT_HEADER_BYTES)
		return false;
	return up->op == OBD_UP_DISCARD || up->len <= OBD_UP_BUF_BYTES;
}

/* Copies the request; *up says all of it afterwards. 0 or a positive errno. */
static int check(struct obd_ix_up *up, const struct obd_upreq *r)
{
	struct obd_indexer *ix = up->ix;
	uint32_t op = obd_load_relaxed(&r->op);
	up->off = obd_load_relaxed(&r->offset);
	up->len = obd_load_relaxed(&r->len);
	up->fua = obd_load_relaxed(&r->flags) & OBD_UP_FUA;
	up->posted_ns = obd_min_u64(obd_load_relaxed(&r->posted_ns), obd_clock_ns());
	up->upper = upper_of(ix, up->client, obd_load_relaxed(&r->open_slot));
	if (!up->upper)
		return ENODEV;
	if (op >= OBD_UP_OPS)
		return EINVAL;
	up->op = (enum obd_up_op)op;
	if (!range_is_good(up->upper, up))
		return EINVAL;
	if (up->op == OBD_UP_WRITE || up->op == OBD_UP_DISCARD) {
		up->from = up->off;
		up->to = up->off + up->len;
		if (up->upper->sparse)
			obd_ix_sparse_widen(up->upper, &up->from, &up->to);
	}
	return 0;
}

/* --- the tables --------------------------------------------------------------------------------------------------------- */

static struct obd_ix_up *up_new(struct obd_indexer *ix, uint32_t c, uint32_t slot, uint64_t seq)
{
	struct obd_ix_up *up = calloc(1, sizeof *up);
	if (!up)
		return NULL;
	up->ix = ix;
	up->client = c;
	up->slot = slot;
	up->seq = seq;
	obd_list_init(&up->link);
	obd_list_init(&up->queue);
	obd_list_init(&up->posts);
	obd_list_init(&up->order);
	return up;
}

/* True: a request was taken. rung: the ring named this sequence, so its client wants an answer that was given once more. */
static bool look(struct obd_indexer *ix, uint32_t c, uint32_t slot, uint32_t *rung)
{
	struct obd_ix_up_client *cl = &ix->client[c].ups;
	const struct obd_upreq *r = &area(ix, c)->up[slot];
	uint64_t word = obd_load_acquire(&r->word); /* edge: up-post */
	uint64_t seq = obd_word_seq(word);
	if (obd_word_state(word) != OBD_UP_POSTED) {
		if (obd_word_state(word) != OBD_UP_FREE)
			obd_count(&ix->cat->proc, protocol_errors, 1);
		return false;
	}
	if (cl->up[slot] || (rung && *rung != (uint32_t)seq))
		return false;
	if (cl->answered[slot] && cl->seq[slot] == (uint32_t)seq) {
		if (rung && !cl->due[slot])
			ring_answer(ix, c, slot);
		return false;
	}
	struct obd_ix_up *up = up_new(ix, c, slot, seq);
	if (!up) {
		answer(ix, c, slot, seq, ENOMEM);
		return true;
	}
	int err = check(up, r);
	if (err) {
		obd_count(&ix->cat->proc, protocol_errors, err == EINVAL);
		free(up);
		answer(ix, c, slot, seq, err);
		return true;
	}
	cl->up[slot] = up;
	OBD_TEST_POINT(up_seen);
	put_in_order(up);
	return true;
}

unsigned int obd_ix_up_scan(struct obd_indexer *ix, uint32_t c)
{
	unsigned int n = 0;
	for (uint32_t slot = 0; slot < OBD_UP_SLOTS; slot++)
		n += look(ix, c, slot, NULL);
	return n;
}

unsigned int obd_ix_up_late(struct obd_indexer *ix, uint32_t c)
{
	uint64_t now = obd_clock_ns();
	unsigned int n = 0;
	for (uint32_t slot = 0; slot < OBD_UP_SLOTS; slot++) {
		uint64_t posted = obd_load_relaxed(&area(ix, c)->up[slot].posted_ns);
		n += look(ix, c, slot, NULL) && posted + OBD_SECOND_NS < now;
	}
	return n;
}

static bool take_ring(struct obd_indexer *ix, uint32_t c)
{
	const struct obd_ring *ring = &area(ix, c)->ups;
	struct obd_tail *tail = &ix->cat->client[c].ups_tail;
	bool did = false;
	for (unsigned int n = 0; n < OBD_UP_SLOTS; n++) { /* a client that never stops must not stop the others */
		uint64_t entry = 0;
		enum obd_ring_result got = obd_ring_pop(ring, tail, &entry);
		if (got == OBD_RING_EMPTY)
			break;
		did = true;
		uint32_t seq = obd_entry_seq(entry);
		if (got == OBD_RING_LOST || obd_entry_slot(entry) >= OBD_UP_SLOTS)
			obd_count(&ix->cat->proc, protocol_errors, 1);
		if (got == OBD_RING_LOST)
			obd_ix_up_scan(ix, c);
		else if (obd_entry_slot(entry) < OBD_UP_SLOTS)
			look(ix, c, obd_entry_slot(entry), &seq);
	}
	return did;
}

bool obd_ix_up_rings(struct obd_indexer *ix)
{
	bool did = false;
	for (uint32_t c = 1; c < OBD_MAX_CLIENTS; c++)
		if (ix->client[c].up)
			did |= take_ring(ix, c);
	return did;
}

bool obd_ix_up_ring_has(const struct obd_indexer *ix, uint32_t c)
{
	return obd_ring_has(&area(ix, c)->ups, &ix->cat->client[c].ups_tail);
}

/* --- clients ------------------------------------------------------------------------------------------------------------ */

/* What an earlier incarnation answered, oldest first, as far as the ring goes back. */
static void read_answers(struct obd_indexer *ix, uint32_t c)
{
	struct obd_ix_up_client *cl = &ix->client[c].ups;
	const struct obd_ring *ring = &ix->cat->client[c].updones;
	uint64_t head = obd_load_relaxed(&ring->head);
	/* The oldest cell is left out: whoever died in a push may have put the next answer there, which nobody was told of. */
	for (uint64_t i = head - obd_min_u64(head, OBD_RING_ENTRIES - 1); i != head; i++) {
		uint64_t entry = obd_load_relaxed(&ring->entry[i & OBD_RING_MASK]);
		uint32_t slot = obd_entry_slot(entry);
		assert(slot < OBD_UP_SLOTS);
		if (entry == 0) /* from before this client */
			continue;
		cl->answered[slot] = true;
		cl->seq[slot] = obd_entry_seq(entry);
		cl->err[slot] = (uint16_t)obd_entry_err(entry);
	}
}

void obd_ix_up_client_start(struct obd_indexer *ix, uint32_t c, bool same)
{
	if (same)
		read_answers(ix, c);
	obd_ring_skip(&area(ix, c)->ups, &ix->cat->client[c].ups_tail);
	obd_ix_up_scan(ix, c);
	/* Whoever died between an answer and the bell left it unrung. */
	if (same && obd_wake(&area(ix, c)->proc, ix->seg->bell_client[c]))
		obd_count(&ix->cat->proc, wakeups, 1);
}

/* Its opens are closed already: what is left is what the engine has. */
void obd_ix_up_client_reset(struct obd_indexer *ix, uint32_t c)
{
	struct obd_ix_up_client *cl = &ix->client[c].ups;
	struct obd_catalog_client *half = &ix->cat->client[c];
	for (uint32_t slot = 0; slot < OBD_UP_SLOTS; slot++) {
		if (cl->up[slot])
			cl->up[slot]->forgotten = true;
		cl->up[slot] = NULL;
		cl->due[slot] = cl->answered[slot] = false;
	}
	cl->unsent = 0;
	cl->rings = false;
	/* Heads and tails count on: the next client may be adopting them just now. What was answered to this one is wiped out.
	 */
	for (uint32_t i = 0; i < OBD_RING_ENTRIES; i++)
		obd_store_relaxed(&half->updones.entry[i], 0);
}

/* --- the engine's room -------------------------------------------------------------------------------------------------- */

bool obd_ix_up_start(struct obd_indexer *ix)
{
	bool did = false;
	while (!obd_list_empty(&ix->ups_ready)) { /* devices take turns */
		struct obd_ix_upper *u = OBD_LIST_ENTRY(ix->ups_ready.next, struct obd_ix_upper, turn);
		obd_list_remove(&u->turn);
		if (obd_list_empty(&u->ready) || u->running >= OBD_IX_UPS_RUNNING)
			continue;
		struct obd_ix_up *up = OBD_LIST_ENTRY(u->ready.next, struct obd_ix_up, queue);
		obd_list_remove(&up->queue);
		did = true;
		obd_ix_up_run(up);
		obd_ix_up_ready(u);
	}
	return did;
}

void obd_ix_up_resume(struct obd_indexer *ix)
{
	struct obd_list todo;
	obd_list_init(&todo);
	while (!obd_list_empty(&ix->ups_starved)) {
		struct obd_list *it = ix->ups_starved.next;
		obd_list_remove(it);
		obd_list_push_back(&todo, it);
	}
	while (!obd_list_empty(&todo)) {
		struct obd_ix_up *up = OBD_LIST_ENTRY(todo.next, struct obd_ix_up, queue);
		obd_list_remove(&up->queue);
		obd_ix_up_go_on(up);
	}
}
