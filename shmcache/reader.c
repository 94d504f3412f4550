/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A reader's side. The hit path is obd_reader_copy: two cache lines of tables, then the copy; it stores nothing but the recency
 * byte. If this process dies: its requests die with its area, which cached drops when the supervisor says so.
 */
#include "shmcache/reader.h"

#include <errno.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/testpoint.h"
#include "shmcache/lookup.h"
#include "shmcache/ring.h"

enum { COPY_TRIES = 8 };

void obd_reader_attach(struct obd_reader *r, struct obd_segment *seg, uint32_t client, enum obd_role role, uint32_t incarnation)
{
	memset(r, 0, sizeof *r);
	r->seg = seg;
	r->client = client;
	r->own = seg->client[client];
	r->nfree = OBD_REQ_SLOTS;
	for (uint32_t i = 0; i < OBD_REQ_SLOTS; i++)
		r->free_slot[i] = (uint16_t)(OBD_REQ_SLOTS - 1 - i);
	r->block_shift = (uint64_t)__builtin_ctz(seg->geo.block_bytes);
	/* Answers to whoever had this area's number before are not ours. */
	obd_ring_skip(&seg->table->client[client].answers, &r->own->answers_tail);
	/* Our ring goes on where cached stopped reading its predecessor. */
	obd_store_relaxed(&r->own->requests.head, obd_load_acquire(&seg->table->client[client].requests_tail.tail));
	obd_proc_start(&r->own->proc, role, client, incarnation);
}

/* Continues readahead: a hint needs no answer and may be lost. */
static void pass_mark(struct obd_reader *r, uint32_t layer_slot, uint32_t block)
{
	struct obd_ring *ring = &r->own->requests;
	const struct obd_tail *tail = &r->seg->table->client[r->client].requests_tail;
	uint64_t used = obd_load_relaxed(&ring->head) - obd_load_relaxed(&tail->tail);
	if (used < OBD_RING_ENTRIES / 2 && obd_ring_push(ring, tail, obd_entry_hint(layer_slot, block)))
		obd_reader_kick(r);
}

static inline void touch(struct obd_reader *r, uint32_t frame)
{
	uint8_t epoch = (uint8_t)obd_load_relaxed(&r->seg->table->epoch);
	if (obd_load_relaxed(&r->seg->recency[frame]) != epoch)
		obd_store_relaxed(&r->seg->recency[frame], epoch);
}

int obd_reader_copy(struct obd_reader *r, uint32_t layer_slot, uint32_t uid, bool raw, uint32_t block, uint32_t offset,
		    uint32_t len, void *dst)
{
	const struct obd_segment *seg = r->seg;
	uint64_t key = obd_key(uid, raw, block);
	for (int tries = 0; tries < COPY_TRIES; tries++) {
		uint64_t word;
		bool mark;
		uint32_t f = obd_lookup(seg, key, true, &word, &mark);
		if (f == OBD_NO_FRAME)
			break;
		uint32_t bytes = obd_load_relaxed(&seg->fills[f].bytes);
		bool part = obd_word_state(word) == OBD_FILL_PART;
		uint32_t begin = part ? obd_load_relaxed(&seg->fills[f].begin) : 0;
		bool inside = bytes <= seg->geo.block_bytes && offset >= begin && offset <= bytes && len <= bytes - offset;
		if (inside)
			memcpy(dst, obd_frame_data(seg, f) + offset, len);
		OBD_TEST_POINT(copied);
		if (!obd_lookup_still(seg, f, word))
			continue;
		if (!inside)
			return part ? -EAGAIN : -ERANGE;
		touch(r, f);
		if (__builtin_expect(mark, 0))
			pass_mark(r, layer_slot, block);
		obd_count(&r->own->proc, hits, 1);
		obd_count(&r->own->proc, bytes_read, len);
		return 0;
	}
	return -EAGAIN;
}

int obd_reader_post(struct obd_reader *r, enum obd_job_kind kind, uint32_t layer_slot, uint32_t uid, uint32_t block,
		    uint32_t nblocks, uint32_t flow, void *cookie)
{
	const struct obd_part whole = {0, 0};
	return obd_reader_post_part(r, kind, layer_slot, uid, block, nblocks, whole, flow, cookie);
}

int obd_reader_post_part(struct obd_reader *r, enum obd_job_kind kind, uint32_t layer_slot, uint32_t uid, uint32_t block,
			 uint32_t nblocks, struct obd_part need, uint32_t flow, void *cookie)
{
	if (r->nfree == 0)
		return -EBUSY;
	uint32_t slot = r->free_slot[r->nfree - 1];
	struct obd_req *req = &r->own->req[slot];
	uint64_t seq = obd_word_seq(obd_load_relaxed(&req->word)) + 1;
	obd_store_relaxed(&req->layer_slot, layer_slot);
	obd_store_relaxed(&req->layer_uid, uid);
	obd_store_relaxed(&req->block, block);
	obd_store_relaxed(&req->nblocks, nblocks);
	obd_store_relaxed(&req->kind, (uint32_t)kind);
	obd_store_relaxed(&req->flow, flow);
	obd_store_relaxed(&req->begin, need.begin);
	obd_store_relaxed(&req->end, need.end);
	obd_store_relaxed(&req->posted_ns, obd_clock_ns());
	OBD_TEST_POINT(request_unposted);
	obd_store_release(&req->word, obd_word(seq, OBD_REQ_POSTED)); /* edge: request-post; publishes the fields */
	OBD_TEST_POINT(request_posted);
	if (!obd_ring_push(&r->own->requests, &r->seg->table->client[r->client].requests_tail, obd_entry(slot, seq, 0))) {
		obd_store_release(&req->word, obd_word(seq, OBD_REQ_FREE));
		return -EBUSY;
	}
	r->nfree--;
	r->cookie[slot] = cookie;
	obd_count(&r->own->proc, misses, nblocks);
	return (int)slot;
}

static void release_slot(struct obd_reader *r, uint32_t slot)
{
	struct obd_req *req = &r->own->req[slot];
	uint64_t seq = obd_word_seq(obd_load_relaxed(&req->word));
	obd_store_release(&req->word, obd_word(seq, OBD_REQ_FREE));
	r->cookie[slot] = NULL;
	r->free_slot[r->nfree++] = (uint16_t)slot;
}

void obd_reader_cancel(struct obd_reader *r, int slot)
{
	if (slot >= 0 && slot < (int)OBD_REQ_SLOTS &&
	    obd_word_state(obd_load_relaxed(&r->own->req[slot].word)) == OBD_REQ_POSTED)
		release_slot(r, (uint32_t)slot);
}

void obd_reader_kick(struct obd_reader *r)
{
	if (obd_wake(&r->seg->table->proc, r->seg->bell_cached))
		obd_count(&r->own->proc, wakeups, 1);
}

/* The entry is another process's word: it must name a slot of ours that is POSTED with that sequence, else it is old or wrong.
 */
static bool accept_answer(struct obd_reader *r, uint64_t entry, void **cookie)
{
	uint32_t slot = obd_entry_slot(entry);
	if (slot >= OBD_REQ_SLOTS) {
		obd_count(&r->own->proc, protocol_errors, 1);
		return false;
	}
	uint64_t word = obd_load_relaxed(&r->own->req[slot].word);
	if (obd_word_state(word) != OBD_REQ_POSTED || (uint32_t)obd_word_seq(word) != obd_entry_seq(entry))
		return false;
	OBD_TEST_POINT(answer_seen);
	*cookie = r->cookie[slot];
	release_slot(r, slot);
	return true;
}

unsigned int obd_reader_poll(struct obd_reader *r, unsigned int budget, obd_reader_answer_fn *fn, void *arg)
{
	const struct obd_ring *ring = &r->seg->table->client[r->client].answers;
	unsigned int n = 0;
	for (; n < budget; n++) {
		/* The tail moves after the callback has copied, since it is what lets cached evict the frames (holds, 4.5). */
		uint64_t tail = obd_load_relaxed(&r->own->answers_tail.tail);
		uint64_t head = obd_load_acquire(&ring->head); /* edge: ring-publish */
		if (head == tail)
			break;
		if (head - tail > OBD_RING_ENTRIES) {
			obd_count(&r->own->proc, protocol_errors, 1);
			obd_store_release(&r->own->answers_tail.tail, head);
			break;
		}
		uint64_t entry = obd_load_relaxed(&ring->entry[tail & OBD_RING_MASK]);
		void *cookie;
		if (accept_answer(r, entry, &cookie))
			fn(arg, cookie, obd_entry_err(entry));
		OBD_TEST_POINT(answer_freed);
		obd_store_release(&r->own->answers_tail.tail, tail + 1); /* edge: ring-consume */
	}
	return n;
}

bool obd_reader_has_answer(const struct obd_reader *r)
{
	return obd_ring_has(&r->seg->table->client[r->client].answers, &r->own->answers_tail);
}
