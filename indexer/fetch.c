/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Byte ranges of a blob or of its plain file, read through the cache into private memory.
 *
 *     [start, end)   a run of units: blocks of the plain file, or raw chunks (which count from the blob's end)
 *     unit           MISSING -> ASKED -> MISSING -> ... -> HERE
 *
 * A unit is copied as soon as a look into the cache finds it, in the callback of the answer at the latest, where cached still
 * holds its frame. At most OBD_IX_WINDOW requests of a read are under way, so that a jump table larger than the cache passes
 * through it. What was evicted before it was copied is asked for again, a bounded number of times.
 *
 * All of it is private memory: if this process dies, the next one starts the open anew.
 */
#include "indexer/internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"

enum { UNIT_MISSING = 0, UNIT_ASKED, UNIT_HERE };

/* --- requests ----------------------------------------------------------------------------------------------------------- */

static int post(struct obd_indexer *ix, struct obd_list *list, enum obd_job_kind kind, const struct obd_ix_layer *l,
		uint32_t first, uint32_t count, struct obd_part need, enum obd_req_prio prio, obd_ix_post_fn *fn, void *owner)
{
	struct obd_ix_post *p = malloc(sizeof *p);
	if (!p)
		return -ENOMEM;
	int slot = obd_reader_post_part(&ix->reader, kind, l->slot, l->uid, first, count, need, obd_flow(l->slot, prio), p);
	if (slot < 0) {
		free(p);
		return slot;
	}
	*p = (struct obd_ix_post){.ix = ix, .slot = slot, .fn = fn, .owner = owner, .first = first, .count = count};
	obd_list_push_back(list, &p->link);
	ix->posted = true;
	return 0;
}

int obd_ix_post(struct obd_indexer *ix, struct obd_list *list, enum obd_job_kind kind, const struct obd_ix_layer *l,
		uint32_t first, uint32_t count, enum obd_req_prio prio, obd_ix_post_fn *fn, void *owner)
{
	return post(ix, list, kind, l, first, count, (struct obd_part){0, 0}, prio, fn, owner);
}

int obd_ix_post_part(struct obd_indexer *ix, struct obd_list *list, const struct obd_ix_layer *l, uint32_t first,
		     uint32_t count, struct obd_part need, enum obd_req_prio prio, obd_ix_post_fn *fn, void *owner)
{
	return post(ix, list, OBD_JOB_BLOCKS, l, first, count, need, prio, fn, owner);
}

void obd_ix_posts_cancel(struct obd_list *list)
{
	OBD_LIST_FOREACH_SAFE (it, list) {
		struct obd_ix_post *p = OBD_LIST_ENTRY(it, struct obd_ix_post, link);
		obd_reader_cancel(&p->ix->reader, p->slot);
		obd_list_remove(&p->link);
		free(p);
	}
}

static void on_answer(void *arg, void *cookie, int err)
{
	struct obd_ix_post *p = cookie;
	(void)arg;
	obd_list_remove(&p->link);
	p->fn(p, err);
	free(p);
}

unsigned int obd_ix_answers(struct obd_indexer *ix)
{
	return obd_reader_poll(&ix->reader, OBD_RING_ENTRIES, on_answer, ix);
}

/* --- units -------------------------------------------------------------------------------------------------------------- */

static uint32_t block_bytes(const struct obd_ix_fetch *f)
{
	return f->layer->ix->seg->geo.block_bytes;
}

/* Bytes [*start, *end) of blob or file that a block or chunk holds. */
static void unit_range(const struct obd_ix_fetch *f, uint32_t number, uint64_t *start, uint64_t *end)
{
	const struct obd_layer *e = obd_ix_layer_entry(f->layer);
	if (f->raw) {
		bool there = obd_raw_chunk(e->blob_bytes, block_bytes(f), number, start, end);
		assert(there);
		return;
	}
	*start = (uint64_t)number * block_bytes(f);
	*end = obd_min_u64(*start + block_bytes(f), e->file_bytes);
}

/* The number of unit i of the read. */
static uint32_t unit_number(const struct obd_ix_fetch *f, uint32_t i)
{
	if (i < f->run[0].count)
		return f->run[0].first + i;
	return f->run[1].first + (i - f->run[0].count);
}

/* Is unit i + 1 the next block or chunk after unit i? */
static bool unit_continues(const struct obd_ix_fetch *f, uint32_t i)
{
	return i + 1 < f->units && unit_number(f, i + 1) == unit_number(f, i) + 1;
}

/* Raw chunks of [start, end): chunk 0 for the head, and those that count from the end. */
static void raw_runs(uint64_t blob_bytes, uint32_t bb, uint64_t start, uint64_t end, struct obd_ix_run run[2], uint32_t *nruns)
{
	*nruns = 0;
	if (start < OBD_RAW_HEAD_BYTES)
		run[(*nruns)++] = (struct obd_ix_run){.first = 0, .count = 1};
	uint64_t from = obd_max_u64(start, OBD_RAW_HEAD_BYTES);
	if (end <= from)
		return;
	uint64_t first = (blob_bytes - end) / bb + 1;
	uint64_t last = (blob_bytes - from - 1) / bb + 1;
	run[(*nruns)++] = (struct obd_ix_run){.first = (uint32_t)first, .count = (uint32_t)(last - first + 1)};
}

/* Copies unit i if the cache has it. 0, -EAGAIN, or another negative errno that ends the read. */
static int unit_copy(struct obd_ix_fetch *f, uint32_t i)
{
	struct obd_ix_layer *l = f->layer;
	uint64_t start, end;
	uint32_t number = unit_number(f, i);
	unit_range(f, number, &start, &end);
	uint64_t from = obd_max_u64(start, f->start), to = obd_min_u64(end, f->end);
	assert(from < to);
	int rc = obd_reader_copy(&l->ix->reader, l->slot, l->uid, f->raw, number, (uint32_t)(from - start),
				 (uint32_t)(to - from), f->buf + (from - f->start));
	if (rc)
		return rc;
	f->unit_state[i] = UNIT_HERE;
	f->missing--;
	return 0;
}

/* --- the read ----------------------------------------------------------------------------------------------------------- */

static void fail(struct obd_ix_fetch *f, int err)
{
	if (!f->err)
		f->err = err;
	obd_ix_posts_cancel(&f->posts);
	f->in_flight = 0;
	obd_list_remove(&f->starved);
}

static void answered(struct obd_ix_post *post, int err);

/* Asks for the missing units that start at i, as many as one request takes. Returns how many, or a negative errno. */
static int ask(struct obd_ix_fetch *f, uint32_t i)
{
	struct obd_ix_layer *l = f->layer;
	uint32_t n = 1;
	while (n < OBD_REQ_BLOCKS && unit_continues(f, i + n - 1) && f->unit_state[i + n] == UNIT_MISSING)
		n++;
	int rc = obd_ix_post(l->ix, &f->posts, f->raw ? OBD_JOB_RAW : OBD_JOB_BLOCKS, l, unit_number(f, i), n, OBD_REQ_DEMAND,
			     answered, f);
	if (rc)
		return rc;
	memset(f->unit_state + i, UNIT_ASKED, n);
	f->in_flight++;
	return (int)n;
}

/* Copies what is there and asks for what is not, as far as the window allows. */
static void pump(struct obd_ix_fetch *f)
{
	for (uint32_t i = 0; i < f->units && !f->err; i++) {
		if (f->unit_state[i] != UNIT_MISSING)
			continue;
		int rc = unit_copy(f, i);
		if (rc == 0 || (rc == -EAGAIN && f->in_flight >= OBD_IX_WINDOW))
			continue;
		if (rc == -EAGAIN)
			rc = ask(f, i);
		if (rc == -EBUSY) {
			obd_list_remove(&f->starved);
			obd_list_push_back(&f->layer->ix->starved_fetches, &f->starved);
			return;
		}
		if (rc < 0)
			fail(f, rc == -ERANGE ? EBADMSG : -rc);
	}
}

/* Is it worth asking once more? EAGAIN: evicted too early. ESTALE: whoever answered had not seen the entry's last change. */
static bool may_repeat(struct obd_ix_fetch *f, int err)
{
	if (err == ESTALE)
		return ++f->stale_tries <= OBD_IX_STALE_TRIES;
	return (err == 0 || err == EAGAIN) && ++f->tries <= OBD_IX_TRIES;
}

static void answered(struct obd_ix_post *post, int err)
{
	struct obd_ix_fetch *f = post->owner;
	bool lost = false;
	f->in_flight--;
	for (uint32_t i = 0; i < f->units && !f->err; i++) {
		uint32_t number = unit_number(f, i);
		if (number < post->first || number - post->first >= post->count || f->unit_state[i] != UNIT_ASKED)
			continue;
		f->unit_state[i] = UNIT_MISSING;
		int rc = err ? -EAGAIN : unit_copy(f, i);
		if (rc == -EAGAIN)
			lost = true;
		else if (rc)
			fail(f, rc == -ERANGE ? EBADMSG : -rc);
	}
	if (!f->err && lost && !may_repeat(f, err))
		fail(f, err ? err : EAGAIN);
	if (!f->err)
		pump(f);
	if (obd_ix_fetch_done(f))
		obd_ix_layer_queue(f->layer);
}

static void set_runs(struct obd_ix_fetch *f, const struct obd_ix_run run[2], uint32_t nruns)
{
	for (uint32_t i = 0; i < nruns; i++)
		f->run[i] = run[i];
	f->nruns = nruns;
}

struct obd_ix_fetch *obd_ix_fetch_start(struct obd_ix_layer *l, bool raw, uint64_t start, uint64_t end)
{
	const struct obd_layer *e = obd_ix_layer_entry(l);
	uint32_t bb = l->ix->seg->geo.block_bytes;
	assert(start < end && end <= (raw ? e->blob_bytes : e->file_bytes));
	struct obd_ix_run run[2] = {{0}};
	uint32_t nruns = 1;
	if (raw)
		raw_runs(e->blob_bytes, bb, start, end, run, &nruns);
	else
		run[0] = (struct obd_ix_run){.first = (uint32_t)(start / bb),
					     .count = (uint32_t)((end - 1) / bb - start / bb + 1)};
	uint32_t units = run[0].count + run[1].count;
	struct obd_ix_fetch *f = calloc(1, sizeof(*f) + units);
	unsigned char *buf = malloc(end - start);
	if (!f || !buf) {
		free(f);
		free(buf);
		return NULL;
	}
	obd_list_init(&f->posts);
	obd_list_init(&f->starved);
	f->layer = l;
	f->raw = raw;
	f->start = start;
	f->end = end;
	f->buf = buf;
	f->units = f->missing = units;
	set_runs(f, run, nruns);
	obd_list_push_back(&l->fetches, &f->link);
	pump(f);
	return f;
}

void obd_ix_fetch_free(struct obd_ix_fetch *f)
{
	obd_ix_posts_cancel(&f->posts);
	obd_list_remove(&f->starved);
	obd_list_remove(&f->link);
	free(f->buf);
	free(f);
}

void obd_ix_fetch_resume(struct obd_indexer *ix)
{
	struct obd_list todo;
	obd_list_init(&todo);
	while (!obd_list_empty(&ix->starved_fetches)) {
		struct obd_list *it = ix->starved_fetches.next;
		obd_list_remove(it);
		obd_list_push_back(&todo, it);
	}
	while (!obd_list_empty(&todo)) {
		struct obd_ix_fetch *f = OBD_LIST_ENTRY(todo.next, struct obd_ix_fetch, starved);
		obd_list_remove(&f->starved);
		pump(f);
		if (obd_ix_fetch_done(f))
			obd_ix_layer_queue(f->layer);
	}
}
