/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Background downloads (doc/architecture.md 4.10): when, how fast, how often. The wants are the indexer's, the bytes and files
 * the fetchers'.
 *
 *   want ─► WAITING ─due─► RUNNING: PREPARE, then RANGE after RANGE ─all─► VERIFYING: FINISH ─► LOCAL
 *              ▲                │ a step failed                                │
 *              └─── pause ──────┴──────────────────────────────────────────────┘      after tryCnt failures: FAILED
 *
 * A few downloads run at once, a few ranges of them are under way, and those only as the token bucket allows; while others
 * wait for blocks one range at a time. What the registry cannot give for the moment costs a pause and no try.
 *
 * The row in the table is what the next cached goes on from. Private memory says only what is under way, so it is made anew
 * with a PREPARE, which asks the partial file how far it is.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/testpoint.h"
#include "common/config/config.h"
#include "shmcache/cached/cached.h"
#include "shmcache/download.h"

enum { RUNNING_MAX = 4, RANGES = 4 };
enum { LOST_MOST = 4 * RANGES }; /* a death takes as many steps with it at most */

#define UNDER_WAY_BYTES (UINT64_C(16) << 20) /* in ranges, by all downloads */
#define MB 1000000
#define SOON_NS (20 * OBD_MS_NS)
#define YIELD_NS OBD_SECOND_NS /* so long others may keep us from asking for anything */
#define SOFT_FIRST_NS OBD_SECOND_NS
#define SOFT_LAST_NS (60 * OBD_SECOND_NS)
#define TRY_FIRST_NS (2 * OBD_SECOND_NS)
#define TRY_LAST_NS (300 * OBD_SECOND_NS)

/* May go below zero by one request, and is waited for then. */
struct bucket {
	double tokens;
	uint64_t filled_ns;
};

enum range_state { RANGE_NONE, RANGE_ASKED, RANGE_AGAIN, RANGE_DONE };

struct range {
	uint64_t start;
	uint64_t end;
	enum range_state state;
};

/* A download that is not over. Its state is that of the row. */
struct download {
	struct obd_list running; /* in downloads.running */
	struct obd_want_view want;
	char digest[OBD_DIGEST_BYTES];
	uint64_t blob_bytes;
	uint64_t host_hash;
	struct bucket bucket;
	uint32_t under_way; /* its jobs, forgotten ones too */
	uint32_t lost;	    /* steps in a row that a fetcher died with */
	uint32_t soft;	    /* failures of the source in a row */
	bool prepared;
	uint64_t floor; /* all before is written */
	uint64_t next;	/* nothing from here on was asked for */
	struct range range[RANGES];
	uint64_t rated_bytes; /* done_bytes at the last tick */
};

struct downloads {
	struct obd_loop_timer *timer;
	struct bucket bucket;
	struct obd_list running; /* who was served least recently first */
	uint32_t nrunning;
	uint32_t under_way; /* jobs that are ours; an earlier cached's are not */
	uint64_t under_way_bytes;
	uint64_t asked_ns;
	uint64_t ticked_ns;
	bool due; /* to be pumped */
	struct download *of[OBD_WANT_SLOTS];
};

static struct obd_down *row_of(struct cached *c, uint32_t slot)
{
	return &c->seg.table->down[slot];
}

static uint32_t row_uid(struct cached *c, uint32_t slot)
{
	uint64_t word = obd_load_relaxed(&row_of(c, slot)->word);
	return obd_word_state(word) == OBD_DOWN_FREE ? 0 : (uint32_t)obd_word_seq(word);
}

static enum obd_down_state row_state(struct cached *c, uint32_t slot)
{
	return (enum obd_down_state)obd_word_state(obd_load_relaxed(&row_of(c, slot)->word));
}

static void set_state(struct cached *c, uint32_t slot, uint32_t uid, enum obd_down_state state)
{
	OBD_TEST_POINT(down_state);
	obd_store_release(&row_of(c, slot)->word, obd_word(uid, state)); /* edge: down-local */
}

/* --- rate ----------------------------------------------------------------------------------------------------------------- */

/* May something be asked for? mbps 0: always. A tenth of a second's worth can be saved up. */
static bool bucket_open(struct bucket *b, uint32_t mbps, uint64_t now)
{
	double per_sec = (double)mbps * MB;
	b->tokens += per_sec * (double)(now - b->filled_ns) / (double)OBD_SECOND_NS;
	b->filled_ns = now;
	if (b->tokens > per_sec / 10)
		b->tokens = per_sec / 10;
	return mbps == 0 || b->tokens > 0;
}

static void bucket_take(struct bucket *b, uint32_t mbps, uint64_t bytes)
{
	b->tokens = mbps ? b->tokens - (double)bytes : 0;
}

/* --- under way ------------------------------------------------------------------------------------------------------------ */

static void leave_running(struct cached *c, struct download *d)
{
	if (obd_list_empty(&d->running))
		return;
	obd_list_remove(&d->running);
	c->downloads->nrunning--;
}

/* Ranges under way are forgotten: their answers find none. */
static void reset(struct download *d)
{
	d->prepared = false;
	memset(d->range, 0, sizeof d->range);
}

static void wait_until(struct cached *c, struct download *d, uint64_t due_ns)
{
	struct obd_down *row = row_of(c, d->want.slot);
	leave_running(c, d);
	reset(d);
	obd_store_relaxed(&row->next_ns, due_ns);
	obd_store_relaxed(&row->rate_bytes_per_sec, 0);
	set_state(c, d->want.slot, d->want.uid, OBD_DOWN_WAITING);
}

static void forget(struct cached *c, uint32_t slot)
{
	struct download *d = c->downloads->of[slot];
	if (!d)
		return;
	leave_running(c, d);
	c->downloads->of[slot] = NULL;
	free(d);
}

/* Another download of the same layer, or into the same directory, goes first. */
static bool in_the_way(const struct download *d, const struct download *other)
{
	return d->want.layer_uid == other->want.layer_uid || strcmp(d->want.dir, other->want.dir) == 0;
}

static void start_due(struct cached *c, uint64_t now)
{
	struct downloads *ds = c->downloads;
	for (uint32_t i = 0; i < OBD_WANT_SLOTS && ds->nrunning < RUNNING_MAX; i++) {
		struct download *d = ds->of[i];
		bool blocked = !d || row_state(c, i) != OBD_DOWN_WAITING || obd_load_relaxed(&row_of(c, i)->next_ns) > now;
		if (blocked)
			continue;
		OBD_LIST_FOREACH (it, &ds->running)
			blocked |= in_the_way(d, OBD_LIST_ENTRY(it, struct download, running));
		if (blocked)
			continue;
		obd_list_push_back(&ds->running, &d->running);
		ds->nrunning++;
		set_state(c, i, d->want.uid, OBD_DOWN_RUNNING);
	}
}

/* --- asking --------------------------------------------------------------------------------------------------------------- */

static bool ask(struct cached *c, struct download *d, enum obd_down_op op, uint64_t start, uint64_t end, bool patient)
{
	const struct obd_down_order order = {
		.want_slot = d->want.slot, .want_uid = d->want.uid, .op = op, .start = start, .end = end, .floor = d->floor};
	const struct obd_down_from from = {.layer_slot = d->want.layer_slot,
					   .layer_uid = d->want.layer_uid,
					   .host_hash = d->host_hash,
					   .under_way_bytes = c->downloads->under_way_bytes,
					   .patient = patient};
	if (!obd_job_download(c, &order, &from))
		return false;
	d->under_way++;
	c->downloads->under_way++;
	c->downloads->under_way_bytes += end - start;
	return true;
}

/* Everybody else goes first, but does not keep us from getting on at all. */
static bool may_ask(struct cached *c, uint64_t bytes, bool patient)
{
	struct downloads *ds = c->downloads;
	uint32_t queued = 0, under_way = 0;
	for (int p = 0; p < PRIO_DOWNLOAD; p++) {
		queued += c->queued[p];
		under_way += c->inflight[p];
	}
	if (ds->under_way == 0)
		return queued == 0 || patient;
	return !queued && !under_way && ds->under_way < RANGES && ds->under_way_bytes + bytes <= UNDER_WAY_BYTES;
}

/* The next range to ask for, or NULL: none, or as many are under way as may be. */
static struct range *next_range(struct download *d)
{
	struct range *vacant = NULL, *again = NULL;
	for (int i = 0; i < RANGES; i++) {
		struct range *r = &d->range[i];
		if (r->state == RANGE_AGAIN && (!again || r->start < again->start))
			again = r;
		if (r->state == RANGE_NONE)
			vacant = r;
	}
	if (again)
		return again;
	if (!vacant || d->next >= d->blob_bytes)
		return NULL;
	vacant->start = d->next;
	vacant->end = obd_min_u64(d->next + d->want.block_bytes, d->blob_bytes);
	return vacant;
}

/* True: asked for something. *held: something is to be asked for later. */
static bool ask_range(struct cached *c, struct download *d, uint64_t now, bool *held)
{
	struct downloads *ds = c->downloads;
	uint32_t mbps = c->d->config->download_max_mbps;
	struct range *r = next_range(d);
	if (!r)
		return false;
	uint64_t bytes = r->end - r->start;
	bool open = bucket_open(&ds->bucket, mbps, now);
	open &= bucket_open(&d->bucket, d->want.max_mbps, now);
	bool patient = ds->under_way == 0 && now - ds->asked_ns >= YIELD_NS;
	if (!open || !may_ask(c, bytes, patient) || !ask(c, d, OBD_DOWN_RANGE, r->start, r->end, patient)) {
		*held = true;
		return false;
	}
	bucket_take(&ds->bucket, mbps, bytes);
	bucket_take(&d->bucket, d->want.max_mbps, bytes);
	ds->asked_ns = now;
	r->state = RANGE_ASKED;
	d->next = obd_max_u64(d->next, r->end);
	return true;
}

static bool ask_next(struct cached *c, struct download *d, uint64_t now, bool *held)
{
	bool did = false;
	if (d->prepared && d->floor < d->blob_bytes)
		return ask_range(c, d, now, held);
	if (d->under_way)
		return false;
	if (d->prepared)
		set_state(c, d->want.slot, d->want.uid, OBD_DOWN_VERIFYING);
	did = ask(c, d, d->prepared ? OBD_DOWN_FINISH : OBD_DOWN_PREPARE, 0, 0, true);
	*held |= !did;
	return did;
}

/* Goes round, a request each, until nobody can ask for more. */
static void pump(struct cached *c)
{
	struct downloads *ds = c->downloads;
	uint64_t now = obd_clock_ns();
	bool held = false, did = true;
	ds->due = false;
	start_due(c, now);
	while (did) {
		did = held = false;
		OBD_LIST_FOREACH_SAFE (it, &ds->running) {
			struct download *d = OBD_LIST_ENTRY(it, struct download, running);
			if (!ask_next(c, d, now, &held))
				continue;
			did = true;
			obd_list_remove(&d->running);
			obd_list_push_back(&ds->running, &d->running);
			break;
		}
	}
	obd_loop_timer_set(ds->timer, held ? now + SOON_NS : 0);
	obd_jobs_wake(c);
}

static void on_timer(void *arg)
{
	pump(arg);
}

/* --- what came of it ------------------------------------------------------------------------------------------------------ */

/* Which of the layer's downloads fetchers read, if any. */
static void hint_local(struct cached *c, uint32_t layer_slot)
{
	uint32_t hint = 0;
	for (uint32_t i = 0; i < OBD_WANT_SLOTS && !hint; i++)
		if (row_state(c, i) == OBD_DOWN_LOCAL && row_of(c, i)->layer_slot == layer_slot)
			hint = i + 1;
	OBD_TEST_POINT(down_local);
	obd_store_relaxed(&c->seg.table->local[layer_slot], hint); /* the row says whether it is true */
}

static void note_error(struct cached *c, struct download *d, int err, const char *reason)
{
	struct obd_down *row = row_of(c, d->want.slot);
	size_t n = strnlen(reason, sizeof row->reason - 1);
	obd_store_relaxed(&row->err, (uint32_t)err);
	memset(row->reason, 0, sizeof row->reason);
	memcpy(row->reason, reason, n);
}

static void now_local(struct cached *c, struct download *d, const struct obd_down_result *result)
{
	struct obd_down *row = row_of(c, d->want.slot);
	uint32_t slot = d->want.slot;
	row->dev = result->dev;
	row->ino = result->ino;
	row->mtime_ns = result->mtime_ns;
	row->bytes = d->blob_bytes;
	obd_store_relaxed(&row->done_bytes, d->blob_bytes);
	obd_store_relaxed(&row->rate_bytes_per_sec, 0);
	note_error(c, d, 0, "");
	set_state(c, slot, d->want.uid, OBD_DOWN_LOCAL);
	hint_local(c, d->want.layer_slot);
	obd_count(&c->seg.table->proc, downloads, 1);
	obd_info("%s: downloaded to %s, which is read from now on", d->digest, d->want.dir);
	forget(c, slot);
}

/* The registry is away, or somebody has the file: no try is lost. */
static void failed_softly(struct cached *c, struct download *d, const char *reason, bool busy)
{
	uint64_t pause = SOFT_FIRST_NS << (busy ? 0 : d->soft < 6 ? d->soft : 6);
	if (!busy && d->soft++ == 0)
		obd_warn("download of %s to %s waits: %s", d->digest, d->want.dir, reason);
	wait_until(c, d, obd_clock_ns() + obd_min_u64(pause, SOFT_LAST_NS));
}

static void failed_hard(struct cached *c, struct download *d, const char *reason, bool mismatch)
{
	struct obd_down *row = row_of(c, d->want.slot);
	uint32_t slot = d->want.slot, tries = obd_load_relaxed(&row->tries) + 1;
	uint64_t pause = obd_min_u64(TRY_FIRST_NS << 2 * obd_min_u64(tries - 1, 4), TRY_LAST_NS);
	obd_store_relaxed(&row->tries, tries);
	obd_count(&c->seg.table->proc, download_errors, 1);
	if (mismatch) {
		obd_count(&c->seg.table->proc, download_mismatches, 1);
		obd_store_relaxed(&row->done_bytes, 0);
		obd_error("download of %s: %s; the file was thrown away", d->digest, reason);
	}
	if (tries < d->want.try_cnt) {
		obd_warn("download of %s, try %" PRIu32 " of %" PRIu32 ": %s; next try in %" PRIu64 " s", d->digest, tries,
			 d->want.try_cnt, reason, pause / OBD_SECOND_NS);
		wait_until(c, d, obd_clock_ns() + pause);
		return;
	}
	obd_warn("download of %s, try %" PRIu32 " of %" PRIu32 ": %s; given up", d->digest, tries, d->want.try_cnt, reason);
	obd_store_relaxed(&row->rate_bytes_per_sec, 0);
	set_state(c, slot, d->want.uid, OBD_DOWN_FAILED);
	forget(c, slot);
}

static void failed(struct cached *c, struct download *d, int err, uint32_t fault, const char *reason)
{
	note_error(c, d, err, reason);
	if (err == ESTALE && fault == OBD_DOWN_FAULT_SOURCE)
		wait_until(c, d, obd_clock_ns() + SOFT_FIRST_NS); /* the want goes */
	else if (fault == OBD_DOWN_FAULT_BUSY || (fault == OBD_DOWN_FAULT_SOURCE && obd_miss_transient(err)))
		failed_softly(c, d, reason, fault == OBD_DOWN_FAULT_BUSY);
	else
		failed_hard(c, d, reason, fault == OBD_DOWN_FAULT_DIGEST);
}

static struct range *find_range(struct download *d, uint64_t start)
{
	for (int i = 0; i < RANGES; i++)
		if (d->range[i].state == RANGE_ASKED && d->range[i].start == start)
			return &d->range[i];
	return NULL;
}

/* The floor goes up to the first byte that is not there. */
static void advance(struct cached *c, struct download *d)
{
	uint64_t before = d->floor;
	for (int i = 0; i < RANGES; i++) {
		struct range *r = &d->range[i];
		if (r->state != RANGE_DONE || r->start != d->floor)
			continue;
		d->floor = r->end;
		r->state = RANGE_NONE;
		i = -1;
	}
	if (d->floor != before)
		d->soft = 0;
	obd_store_relaxed(&row_of(c, d->want.slot)->done_bytes, d->floor);
}

static void succeeded(struct cached *c, struct download *d, const struct obd_down_order *o, struct range *r,
		      const struct obd_down_result *result)
{
	switch (o->op) {
	case OBD_DOWN_PREPARE:
		d->prepared = true;
		d->floor = d->next = obd_min_u64(result->floor, d->blob_bytes);
		d->rated_bytes = d->floor;
		obd_store_relaxed(&row_of(c, d->want.slot)->done_bytes, d->floor);
		return;
	case OBD_DOWN_RANGE:
		r->state = RANGE_DONE;
		advance(c, d);
		return;
	default:
		now_local(c, d, result);
	}
}

void obd_download_settled(struct cached *c, const struct obd_down_order *o, int err, const struct obd_down_result *result,
			  const char *reason)
{
	struct downloads *ds = c->downloads;
	ds->under_way--;
	ds->under_way_bytes -= o->end - o->start;
	struct download *d = ds->of[o->want_slot];
	ds->due = true;
	if (!d || d->want.uid != o->want_uid)
		return;
	d->under_way--;
	struct range *r = o->op == OBD_DOWN_RANGE ? find_range(d, o->start) : NULL;
	if (o->op == OBD_DOWN_RANGE && !r)
		return; /* forgotten */
	d->lost = result ? 0 : d->lost + (r ? 1 : RANGES);
	if (d->lost >= LOST_MOST)
		failed(c, d, ENOTRECOVERABLE, OBD_DOWN_FAULT_DISK, "fetchers die of it");
	else if (!result && o->op == OBD_DOWN_RANGE)
		r->state = RANGE_AGAIN;
	else if (result && err)
		failed(c, d, err, result->fault, reason);
	else if (result)
		succeeded(c, d, o, r, result);
}

void obd_downloads_turn(struct cached *c)
{
	if (c->downloads->due)
		pump(c);
}

/* --- wants ---------------------------------------------------------------------------------------------------------------- */

static void fresh_row(struct cached *c, const struct obd_want_view *want, uint64_t blob_bytes)
{
	struct obd_down *row = row_of(c, want->slot);
	memset((char *)row + sizeof row->word, 0, sizeof *row - sizeof row->word);
	row->layer_slot = want->layer_slot;
	row->layer_uid = want->layer_uid;
	obd_store_relaxed(&row->total_bytes, blob_bytes);
	obd_store_relaxed(&row->next_ns, want->due_ns);
	set_state(c, want->slot, want->uid, OBD_DOWN_WAITING);
}

/* Begins a download, or goes on with one that an earlier cached began. */
static void take_want(struct cached *c, uint32_t slot, uint32_t uid)
{
	static struct obd_layer_view layer; /* too large for the stack's taste */
	struct download *d = calloc(1, sizeof *d);
	if (!d)
		return; /* the next tick tries again */
	obd_list_init(&d->running);
	int rc = obd_want_copy(&c->seg, slot, uid, &d->want);
	if (rc == 0)
		rc = obd_catalog_layer(&c->seg, d->want.layer_slot, d->want.layer_uid, &layer);
	if (rc || layer.local) {
		if (rc == -EPROTO)
			obd_count(&c->seg.table->proc, protocol_errors, 1);
		free(d);
		return;
	}
	memcpy(d->digest, layer.digest, sizeof d->digest);
	d->blob_bytes = layer.blob_bytes;
	d->host_hash = layer.host_hash;
	d->bucket.filled_ns = obd_clock_ns();
	if (row_uid(c, slot) == 0)
		fresh_row(c, &d->want, d->blob_bytes);
	c->downloads->of[slot] = d;
}

static void drop_row(struct cached *c, uint32_t slot)
{
	struct obd_down *row = row_of(c, slot);
	bool was_local = row_state(c, slot) == OBD_DOWN_LOCAL;
	forget(c, slot);
	set_state(c, slot, row_uid(c, slot), OBD_DOWN_FREE);
	obd_fence_release(); /* the row changes only after its word did */
	if (was_local)
		hint_local(c, row->layer_slot);
}

static void look_at_want(struct cached *c, uint32_t slot)
{
	uint32_t uid = obd_want_uid(&c->seg, slot);
	if (row_uid(c, slot) && row_uid(c, slot) != uid)
		drop_row(c, slot);
	enum obd_down_state state = row_state(c, slot);
	if (uid && !c->downloads->of[slot] && state != OBD_DOWN_LOCAL && state != OBD_DOWN_FAILED)
		take_want(c, slot, uid);
}

static void rate(struct cached *c, struct download *d, uint64_t dt_ns)
{
	struct obd_down *row = row_of(c, d->want.slot);
	uint64_t got = d->floor > d->rated_bytes ? d->floor - d->rated_bytes : 0;
	double now = (double)got * (double)OBD_SECOND_NS / (double)obd_max_u64(dt_ns, OBD_MS_NS);
	double before = (double)obd_load_relaxed(&row->rate_bytes_per_sec);
	obd_store_relaxed(&row->rate_bytes_per_sec, (uint64_t)(before > 0 ? (now + before) / 2 : now));
	d->rated_bytes = d->floor;
}

void obd_downloads_tick(struct cached *c)
{
	uint64_t now = obd_clock_ns();
	for (uint32_t i = 0; i < OBD_WANT_SLOTS; i++)
		look_at_want(c, i);
	OBD_LIST_FOREACH (it, &c->downloads->running)
		rate(c, OBD_LIST_ENTRY(it, struct download, running), now - c->downloads->ticked_ns);
	c->downloads->ticked_ns = now;
	pump(c);
}

/* --- life ----------------------------------------------------------------------------------------------------------------- */

/* What an earlier cached had running waits for a PREPARE. Wants that went meanwhile are seen by the first tick. */
static void adopt_row(struct cached *c, uint32_t slot)
{
	uint64_t word = obd_load_relaxed(&row_of(c, slot)->word);
	unsigned int state = obd_word_state(word);
	assert(state < OBD_DOWN_STATES && row_of(c, slot)->layer_slot < OBD_LAYER_SLOTS);
	if (state == OBD_DOWN_RUNNING || state == OBD_DOWN_VERIFYING)
		set_state(c, slot, (uint32_t)obd_word_seq(word), OBD_DOWN_WAITING);
	if (state == OBD_DOWN_LOCAL)
		hint_local(c, row_of(c, slot)->layer_slot);
}

int obd_downloads_init(struct cached *c)
{
	struct downloads *ds = calloc(1, sizeof *ds);
	if (!ds)
		return -ENOMEM;
	obd_list_init(&ds->running);
	ds->bucket.filled_ns = ds->ticked_ns = obd_clock_ns();
	ds->timer = obd_loop_timer_new(c->d->loop, on_timer, c);
	c->downloads = ds;
	if (!ds->timer)
		return -ENOMEM;
	for (uint32_t i = 0; i < OBD_WANT_SLOTS; i++)
		adopt_row(c, i);
	return 0;
}

void obd_downloads_free(struct cached *c)
{
	if (!c->downloads)
		return;
	for (uint32_t i = 0; i < OBD_WANT_SLOTS; i++)
		forget(c, i);
	obd_loop_timer_free(c->downloads->timer);
	free(c->downloads);
	c->downloads = NULL;
}
