/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Jobs (doc/architecture.md 4.6): neighbouring wanted blocks become one job, one byte range of a blob. The job table lies in
 * our own region; what a fetcher says of a job (reports, done words, fill words) is in its region and is checked.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/testpoint.h"
#include "common/base/util.h"
#include "shmcache/cached/cached.h"

/* Jobs that a fetcher may have under way, by the priority of the next: the last ones are for those who wait. */
enum { LIVE_MAX = 48 };
static const uint32_t live_max[PRIOS] = {LIVE_MAX, LIVE_MAX / 4, LIVE_MAX / 4, LIVE_MAX / 8};

void obd_jobs_init(struct cached *c)
{
	c->max_job_blocks = (1u << 20) / c->seg.geo.block_bytes;
	if (c->max_job_blocks > OBD_JOB_FRAMES)
		c->max_job_blocks = OBD_JOB_FRAMES;
	obd_hosts_init(c);
	obd_breaker_init(c);
}

/* --- what is under way ------------------------------------------------------------------------------------------------------
 */

static uint32_t job_blocks(const struct job *job)
{
	return job->nblocks ? job->nblocks : 1;
}

/* `by` is 1 or -1, as unsigned numbers add up all the same. */
static void count_job(struct cached *c, uint32_t f, const struct job *job, uint32_t by)
{
	struct host *h = job->host;
	uint32_t low = job->prio == PRIO_DEMAND ? 0 : by;
	c->fetcher[f].live += by;
	c->fetcher[f].live_by_prio[job->prio] += by;
	c->inflight[job->prio] += by * job_blocks(job);
	h->jobs += by;
	h->frames += by * job->nblocks;
	h->low_jobs += low;
	h->low_frames += low * job->nblocks;
	if (job->flow)
		job->flow->frames += by * job->nblocks;
	if (!h->local)
		obd_host_jobs(c, h);
}

static void job_begin(struct cached *c, uint32_t f, struct job *job)
{
	count_job(c, f, job, 1);
	job->host->bytes += job->cost;
	job->host_bytes = job->host->bytes;
	if (job->flow)
		job->flow->bytes += job->cost;
}

static void job_over(struct cached *c, uint32_t f, struct job *job)
{
	count_job(c, f, job, UINT32_MAX);
	job->host->bytes -= job->cost;
	if (!job->flow)
		return;
	job->flow->bytes -= job->cost;
	job->flow->jobs--;
	obd_flow_put(c, job->flow);
}

/* --- who may ----------------------------------------------------------------------------------------------------------------
 * No host gets more than half of the job slots, or of the frames; no flow more than two thirds of its host's, and what nobody
 * waits for no more than half of that. The first job of a flow that waits is above that, and above what its link has room for:
 * a storm that is stuck leaves the others of its host a way through.
 */

/* What one flow may have of the frames. */
static uint32_t flow_frames(const struct cached *c)
{
	uint32_t most = c->seg.geo.nframes / 2;
	return most - most / 3;
}

static uint64_t may(struct cached *c, const struct flow *f, enum prio prio)
{
	struct host *h = f->host;
	uint32_t most = c->seg.geo.nfetchers * LIVE_MAX / 2, most_frames = c->seg.geo.nframes / 2;
	bool first = prio == PRIO_DEMAND && f->jobs == 0;
	if (h->local)
		return UINT64_MAX;
	if (h->frames >= most_frames)
		return 0;
	if (!first && (h->jobs >= most || f->jobs >= most - most / 3 || f->frames >= flow_frames(c)))
		return 0;
	if (prio != PRIO_DEMAND && (h->low_jobs >= most / 2 || h->low_frames >= most_frames / 2))
		return 0;
	/* The indexer's: an open, which bounds it itself. Cut into pieces it would take a round trip for each, which nobody
	 * gains by while nobody else waits. */
	bool metadata = obd_flow_who(f->id) == FLOW_METADATA && prio == PRIO_DEMAND;
	if (metadata && (!h->link.narrow || obd_link_alone(&h->link, FLOW_METADATA, c->pump_ns)))
		return UINT64_MAX;
	struct link_want w = {.flow = obd_flow_who(f->id),
			      .background = prio > PRIO_READAHEAD,
			      .flow_bytes = f->bytes,
			      .host_bytes = h->bytes};
	uint64_t room = obd_link_room(&h->link, &w, c->pump_ns);
	return !room && (first || h->jobs == 0) ? 1 : room;
}

/* --- issue
 * --------------------------------------------------------------------------------------------------------------------- */

static bool usable(struct cached *c, uint32_t f)
{
	const struct obd_proc *p = &c->seg.fetcher[f]->proc;
	return obd_load_acquire(&p->magic) == OBD_SEG_MAGIC &&
	       obd_load_relaxed(&p->incarnation) == obd_load_relaxed(&c->seg.table->fetcher[f].admitted);
}

/* The least busy fetcher that may take one more job of that priority, or -1. */
static int pick_fetcher(struct cached *c, enum prio prio)
{
	int best = -1;
	for (uint32_t f = 0; f < c->seg.geo.nfetchers; f++)
		if (f + 1 != c->apart && c->fetcher[f].live < LIVE_MAX && c->fetcher[f].live_by_prio[prio] < live_max[prio] &&
		    usable(c, f) && (best < 0 || c->fetcher[f].live < c->fetcher[best].live))
			best = (int)f;
	return best;
}

static uint32_t free_job(struct cached *c, uint32_t f)
{
	for (uint32_t s = 0; s < OBD_JOB_SLOTS; s++)
		if (!c->fetcher[f].job[s].live)
			return s;
	assert(!"a fetcher below its limit has a free job slot");
	return 0;
}

static struct miss *queued_neighbour(struct cached *c, const struct miss *m, uint32_t block)
{
	struct miss *n = obd_miss_find(c, obd_key(m->layer_uid, m->kind == OBD_JOB_RAW, block));
	return n && n->state == MISS_QUEUED ? n : NULL;
}

/* Do the bytes wanted of two neighbours meet? */
static bool meet(const struct cached *c, const struct miss *left, const struct miss *right)
{
	bool to_end = left->part.end == 0 || left->part.end == c->seg.geo.block_bytes;
	return to_end && right->part.begin == 0;
}

/* The run of wanted blocks around m, of `room` bytes unless m alone has more. What is less urgent goes behind m, never before
 * it. Raw chunk 0 is the blob's head and stands alone. */
static uint32_t collect(struct cached *c, struct miss *m, uint64_t room, struct miss **run)
{
	uint32_t used = m->in->frames, frames = flow_frames(c);
	uint32_t most = used < frames ? (uint32_t)obd_min_u64(c->max_job_blocks, frames - used) : 1;
	struct miss *before[OBD_JOB_FRAMES];
	uint32_t nbefore = 0, n = 0;
	uint32_t lowest = m->kind == OBD_JOB_RAW ? 1 : 0;
	uint64_t bytes = m->cost;
	for (uint32_t b = m->block; b > lowest && nbefore + 1 < most; b--) {
		struct miss *x = queued_neighbour(c, m, b - 1);
		if (!x || x->prio > m->prio || bytes + x->cost > room || !meet(c, x, nbefore ? before[nbefore - 1] : m))
			break;
		bytes += x->cost;
		before[nbefore++] = x;
	}
	while (nbefore > 0)
		run[n++] = before[--nbefore];
	run[n++] = m;
	bool alone = m->kind == OBD_JOB_RAW && m->block == 0;
	for (uint32_t b = m->block; !alone && b < OBD_KEY_MAX_BLOCK && n < most; b++) {
		struct miss *x = queued_neighbour(c, m, b + 1);
		if (!x || bytes + x->cost > room || !meet(c, run[n - 1], x))
			break;
		bytes += x->cost;
		run[n++] = x;
	}
	return n;
}

void obd_job_ring(struct cached *c, uint32_t f, uint32_t s)
{
	uint64_t seq = obd_word_seq(obd_load_relaxed(&c->seg.table->fetcher[f].job[s].word));
	obd_ring_push(&c->seg.table->fetcher[f].jobs, &c->seg.fetcher[f]->jobs_tail, obd_entry(s, seq, 0));
	c->fetcher[f].wake = true;
}

static void put_block(struct cached *c, uint32_t f, uint32_t s, uint32_t i, struct miss *m, uint32_t frame)
{
	struct obd_job *j = &c->seg.table->fetcher[f].job[s];
	uint32_t old = obd_frame_find(c, m->key); /* a part: a key is in one frame at most */
	if (old != OBD_NO_FRAME)
		obd_frame_drop(c, old);
	obd_frame_fill(c, frame, m->key, f, s);
	c->part[frame] = m->part;
	j->frame[i] = frame;
	j->generation[i] = obd_load_relaxed(&c->seg.frame[frame].generation);
	obd_miss_unlink(c, m);
	m->state = MISS_INFLIGHT;
	m->frame = frame;
	m->fetcher = (uint16_t)f;
	m->job = (uint16_t)s;
	m->job_bit = (uint8_t)i;
}

/* Takes frames for as many of the run as can be had; a probe needs none. */
static void put_blocks(struct cached *c, uint32_t f, uint32_t s, struct miss **run, uint32_t n)
{
	struct job *job = &c->fetcher[f].job[s];
	if (run[0]->kind == OBD_JOB_PROBE) {
		obd_miss_unlink(c, run[0]);
		run[0]->state = MISS_INFLIGHT;
		job->miss[0] = run[0];
		job->cost = run[0]->cost;
		return;
	}
	for (uint32_t i = 0; i < n; i++) {
		uint32_t frame = obd_frame_alloc(c);
		if (frame == OBD_NO_FRAME)
			return;
		put_block(c, f, s, i, run[i], frame);
		job->miss[i] = run[i];
		job->cost += run[i]->cost;
		job->nblocks++;
	}
}

static uint64_t demanded(const struct job *job)
{
	uint64_t demand = 0;
	for (uint32_t i = 0; i < job->nblocks; i++)
		demand |= (uint64_t)!obd_list_empty(&job->miss[i]->waits) << i;
	return demand;
}

/* Frames are FILLING already; then the fields, then ISSUED, then the ring: the order of table 4.6. */
static void publish(struct cached *c, uint32_t f, uint32_t s, const struct miss *first)
{
	struct obd_job *j = &c->seg.table->fetcher[f].job[s];
	struct job *job = &c->fetcher[f].job[s];
	job->live = true;
	job->open_blocks = job->nblocks;
	j->kind = first->kind;
	j->layer_slot = first->layer_slot;
	j->layer_uid = first->layer_uid;
	j->block = first->block;
	j->nblocks = job->nblocks;
	j->begin = first->part.begin;
	j->end = job->nblocks ? job->miss[job->nblocks - 1]->part.end : 0;
	obd_store_relaxed(&j->demand, demanded(job));
	uint64_t seq = obd_word_seq(obd_load_relaxed(&j->word)) + 1;
	OBD_TEST_POINT(job_unissued);
	obd_store_release(&j->word, obd_word(seq, OBD_JOB_ISSUED)); /* edge: job-issue */
	OBD_TEST_POINT(job_issued);
	job_begin(c, f, job);
	obd_count(&c->seg.table->proc, jobs, 1);
	obd_job_ring(c, f, s);
}

/* False: no frame could be had. */
static bool issue(struct cached *c, uint32_t f, struct miss *m, struct miss **run, uint32_t n)
{
	uint32_t s = free_job(c, f);
	struct job *job = &c->fetcher[f].job[s];
	struct miss *first = run[0];
	*job = (struct job){.kind = first->kind, .prio = m->prio, .flow = m->in, .host = m->in->host, .issued_ns = c->pump_ns};
	job->flow->jobs++; /* it stays when its queue is empty */
	put_blocks(c, f, s, run, n);
	if (!job->miss[0]) {
		job->flow->jobs--;
		return false;
	}
	publish(c, f, s, first);
	obd_flow_charge(job->flow, (enum prio)job->prio, job->cost);
	return true;
}

/* --- suspects
 * ------------------------------------------------------------------------------------------------------------------ */

/* The fetcher that is kept for suspects, the least busy one when there is none yet; -1: none can be had. */
static int keep_apart(struct cached *c)
{
	int best = -1;
	if (c->apart && usable(c, c->apart - 1))
		return (int)c->apart - 1;
	for (uint32_t f = 0; f < c->seg.geo.nfetchers; f++)
		if (usable(c, f) && (best < 0 || c->fetcher[f].live < c->fetcher[best].live))
			best = (int)f;
	c->apart = (uint32_t)(best + 1);
	return best;
}

static void issue_alone(struct cached *c, uint32_t f, struct miss *m)
{
	uint32_t s = free_job(c, f);
	struct job *job = &c->fetcher[f].job[s];
	*job = (struct job){.kind = m->kind, .prio = m->prio, .host = obd_host(c, m), .issued_ns = c->pump_ns, .alone = true};
	put_blocks(c, f, s, &m, 1);
	if (!job->miss[0])
		return;
	c->alone_jobs++;
	publish(c, f, s, m);
}

/* One suspect at a time, once its fetcher has done what it had. */
static void pump_suspects(struct cached *c)
{
	if (c->alone_jobs)
		return;
	if (obd_list_empty(&c->suspects)) {
		c->apart = 0;
		return;
	}
	int f = keep_apart(c);
	if (f >= 0 && c->fetcher[f].live == 0)
		issue_alone(c, (uint32_t)f, OBD_LIST_ENTRY(c->suspects.next, struct miss, link));
}

/* --- more to issue
 * ------------------------------------------------------------------------------------------------------------- */

/* May a download have bytes of this host under way, too? Only what everybody else leaves, unless nobody asks. */
static bool link_allows(struct cached *c, struct host *h, uint64_t bytes, uint64_t download_bytes)
{
	struct link_want w = {.flow = UINT32_MAX, .background = true, .flow_bytes = download_bytes, .host_bytes = h->bytes};
	if (h->local || h->jobs == 0)
		return true;
	return h->low_jobs < c->seg.geo.nfetchers * LIVE_MAX / 4 && obd_link_room(&h->link, &w, obd_clock_ns()) >= bytes;
}

bool obd_job_download(struct cached *c, const struct obd_down_order *order, const struct obd_down_from *from)
{
	const struct miss of = {.host_hash = order->op == OBD_DOWN_RANGE ? from->host_hash : 0,
				.layer_slot = from->layer_slot,
				.layer_uid = from->layer_uid};
	struct host *h = obd_host(c, &of);
	uint64_t bytes = order->end - order->start;
	int f = pick_fetcher(c, PRIO_DOWNLOAD);
	if (f < 0 || (!from->patient && !link_allows(c, h, bytes, from->under_way_bytes)))
		return false;
	uint32_t s = free_job(c, (uint32_t)f);
	struct obd_job *j = &c->seg.table->fetcher[f].job[s];
	struct job *job = &c->fetcher[f].job[s];
	*job = (struct job){
		.live = true, .kind = OBD_JOB_DOWNLOAD, .host = h, .prio = PRIO_DOWNLOAD, .cost = bytes, .down = *order};
	j->kind = OBD_JOB_DOWNLOAD;
	j->layer_slot = from->layer_slot;
	j->layer_uid = from->layer_uid;
	j->block = j->nblocks = j->begin = j->end = 0;
	j->down = *order;
	obd_store_relaxed(&j->demand, 0);
	uint64_t seq = obd_word_seq(obd_load_relaxed(&j->word)) + 1;
	OBD_TEST_POINT(job_unissued);
	obd_store_release(&j->word, obd_word(seq, OBD_JOB_ISSUED)); /* edge: job-issue */
	OBD_TEST_POINT(job_issued);
	job_begin(c, (uint32_t)f, job);
	obd_count(&c->seg.table->proc, jobs, 1);
	obd_job_ring(c, (uint32_t)f, s);
	return true;
}

/* One job of a host. *did: there was one. False: no fetcher or no frame can be had. */
static bool pump_host(struct cached *c, struct host *h, enum prio prio, bool *did)
{
	struct miss *run[OBD_JOB_FRAMES];
	uint64_t room;
	uint32_t n = 1;
	int f = pick_fetcher(c, prio);
	if (f < 0)
		return false;
	struct miss *m = obd_flow_next(c, h, prio, may, &room);
	if (!m)
		return true;
	run[0] = m;
	if (m->kind != OBD_JOB_PROBE)
		n = collect(c, m, room, run);
	*did = true;
	return issue(c, (uint32_t)f, m, run, n);
}

/* One job of each host that has something queued, beginning with the one whose turn it is. True: there may be more to do. */
static bool pump_round(struct cached *c, enum prio prio)
{
	bool did = false;
	uint32_t from = c->next_host;
	for (uint32_t i = 0; i <= OBD_HOSTS; i++) {
		uint32_t at = (from + i) % (OBD_HOSTS + 1);
		if (!c->host[at].queued[prio])
			continue;
		if (!pump_host(c, &c->host[at], prio, &did))
			return false;
		c->next_host = (at + 1) % (OBD_HOSTS + 1);
	}
	return did;
}

void obd_jobs_pump(struct cached *c)
{
	c->pump_ns = obd_clock_ns();
	pump_suspects(c);
	for (int p = 0; p < PRIOS; p++)
		while (c->queued[p] && pump_round(c, (enum prio)p))
			;
	for (int p = 0; p < PRIOS; p++) {
		obd_store_relaxed(&c->seg.table->queued[p], c->queued[p]);
		obd_store_relaxed(&c->seg.table->inflight[p], c->inflight[p]);
	}
}

/* --- settle
 * -------------------------------------------------------------------------------------------------------------------- */

static void settle_valid(struct cached *c, struct job *job, uint32_t i)
{
	struct miss *m = job->miss[i];
	uint32_t frame = m->frame;
	job->miss[i] = NULL;
	job->open_blocks--;
	if (m->prio == PRIO_READAHEAD)
		obd_count(&c->seg.table->proc, readahead, 1);
	obd_frame_valid(c, frame, m->mark);
	obd_miss_served(c, m, frame);
}

static void settle_failed(struct cached *c, struct job *job, uint32_t i, int err)
{
	struct miss *m = job->miss[i];
	job->miss[i] = NULL;
	job->open_blocks--;
	obd_frame_set(c, m->frame, OBD_FRAME_FAILED);
	OBD_TEST_POINT(frame_failed);
	obd_frame_drop(c, m->frame);
	obd_miss_failed(c, m, err);
}

/* Is the fill word's frame whole, or the part of it there that was asked for? A fetcher may have had more of the block. */
static bool holds(struct cached *c, const struct miss *m, const struct obd_fill *fill, uint64_t word)
{
	struct obd_part part = {0, 0};
	if (obd_load_relaxed(&fill->key) != m->key)
		return false;
	if (obd_word_state(word) == OBD_FILL_PART) {
		part = (struct obd_part){obd_load_relaxed(&fill->begin), obd_load_relaxed(&fill->bytes)};
		if (part.begin >= part.end || part.end > c->seg.geo.block_bytes || !obd_part_covers(part, m->part))
			return false;
	} else if (obd_word_state(word) != OBD_FILL_VALID) {
		return false;
	}
	c->part[m->frame] = part;
	return true;
}

/* Looks at the fill word of block i; err_rest: what an unfinished one counts as when the job is over, 0: it goes on. */
static void settle_block(struct cached *c, struct job *job, uint32_t i, int err_rest)
{
	struct miss *m = job->miss[i];
	const struct obd_fill *fill = &c->seg.fills[m->frame];
	uint64_t word = obd_load_acquire(&fill->word); /* edge: fill-publish */
	bool ours = obd_word_seq(word) == obd_load_relaxed(&c->seg.frame[m->frame].generation);
	if (ours && holds(c, m, fill, word)) {
		settle_valid(c, job, i);
	} else if (ours && obd_word_state(word) == OBD_FILL_FAILED) {
		uint32_t err = obd_load_relaxed(&fill->err);
		settle_failed(c, job, i, err > 0 && err < 4096 ? (int)err : EIO);
	} else if (err_rest) {
		settle_failed(c, job, i, err_rest);
	}
}

/* What the job says of its registry; the reason is the fetcher's text and copied as it is. */
static void note_host(struct cached *c, uint32_t f, uint32_t s, int err)
{
	struct job *job = &c->fetcher[f].job[s];
	char reason[OBD_REASON_BYTES];
	const struct obd_down_result *down = &c->seg.fetcher[f]->down[s];
	if (job->host->local)
		return;
	if (job->kind == OBD_JOB_DOWNLOAD && (err ? down->fault != OBD_DOWN_FAULT_SOURCE : !down->from_registry))
		return;
	memcpy(reason, c->seg.fetcher[f]->done[s].reason, sizeof reason);
	if (err)
		obd_host_failed(c, job->host, err, reason);
	else
		obd_host_answered(c, job->host);
}

/* Before the misses fail: how long the registry wants to be left alone. */
static void note_retry(struct cached *c, uint32_t f, uint32_t s)
{
	struct job *job = &c->fetcher[f].job[s];
	uint32_t ms = obd_load_relaxed(&c->seg.fetcher[f]->done[s].retry_ms);
	for (uint32_t i = 0; i < OBD_JOB_FRAMES; i++)
		if (job->miss[i])
			job->miss[i]->retry_ms = ms;
}

/* net_bytes is the fetcher's word: no job takes more than its blocks and some. */
static void measure(struct cached *c, const struct job *job, uint64_t net_bytes)
{
	uint64_t now = obd_clock_ns();
	uint64_t most = 2 * (uint64_t)job->nblocks * c->seg.geo.block_bytes;
	if (job->issued_ns && !job->host->local)
		obd_link_done(&job->host->link, obd_min_u64(net_bytes, most), now - job->issued_ns, job->host_bytes, now);
}

static void finish(struct cached *c, uint32_t f, uint32_t s)
{
	struct obd_job *j = &c->seg.table->fetcher[f].job[s];
	struct job *job = &c->fetcher[f].job[s];
	job->live = false;
	c->alone_jobs -= job->alone;
	job_over(c, f, job);
	obd_store_release(&j->word, obd_word(obd_word_seq(obd_load_relaxed(&j->word)), OBD_JOB_FREE));
	obd_fence_release(); /* the job's fields change only after its word did */
	OBD_TEST_POINT(job_freed);
}

/* The job's slot is free again, so that what follows can use it. lost: its fetcher died. */
static void settle_download(struct cached *c, uint32_t f, uint32_t s, int err, bool lost)
{
	const struct obd_fetcher_area *area = c->seg.fetcher[f];
	const struct obd_down_order order = c->fetcher[f].job[s].down;
	const struct obd_down_result result = area->down[s];
	char reason[OBD_REASON_BYTES];
	memcpy(reason, area->done[s].reason, sizeof reason);
	reason[sizeof reason - 1] = '\0';
	for (char *p = reason; *p; p++)
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			*p = '?';
	if (!c->fetcher[f].job[s].adopted)
		obd_download_settled(c, &order, err, lost ? NULL : &result, reason);
}

void obd_jobs_settle(struct cached *c, uint32_t f, uint32_t s)
{
	struct job *job = &c->fetcher[f].job[s];
	if (!job->live)
		return;
	uint64_t seq = obd_word_seq(obd_load_relaxed(&c->seg.table->fetcher[f].job[s].word));
	uint64_t done = obd_load_acquire(&c->seg.fetcher[f]->done[s].word); /* edge: job-done */
	bool over = done >> 16 == seq;
	int err = over ? (int)(done & 0xfff) : 0;
	if (err)
		note_retry(c, f, s);
	for (uint32_t i = 0; i < job->nblocks; i++)
		if (job->miss[i])
			settle_block(c, job, i, over ? EIO : 0);
	if (!over)
		return;
	struct miss *probe = job->kind == OBD_JOB_PROBE ? job->miss[0] : NULL;
	note_host(c, f, s, err);
	if (!err && !probe && job->kind != OBD_JOB_DOWNLOAD) /* that took the time of a disk, too */
		measure(c, job, obd_load_relaxed(&c->seg.fetcher[f]->done[s].net_bytes));
	OBD_TEST_POINT(job_settled);
	finish(c, f, s);
	if (job->kind == OBD_JOB_DOWNLOAD)
		settle_download(c, f, s, (int)(done & 0xffff ? done & 0xfff ? done & 0xfff : EIO : 0), false);
	if (probe && err)
		obd_miss_failed(c, probe, err);
	else if (probe)
		obd_miss_served(c, probe, OBD_NO_FRAME);
}

void obd_job_demand(struct cached *c, struct miss *m)
{
	if (m->kind == OBD_JOB_PROBE)
		return;
	struct obd_job *j = &c->seg.table->fetcher[m->fetcher].job[m->job];
	obd_store_relaxed(&j->demand, obd_load_relaxed(&j->demand) | UINT64_C(1) << m->job_bit);
	obd_fence_full(); /* edge: demand. Either we see VALID here or the fetcher sees the bit and reports */
	struct job *job = &c->fetcher[m->fetcher].job[m->job];
	settle_block(c, job, m->job_bit, 0);
}

/* At most a ring of reports per turn: a fetcher that goes on and on must not keep the loop. */
static bool poll_fetcher(struct cached *c, uint32_t f)
{
	uint32_t n = 0;
	for (; n < OBD_RING_ENTRIES; n++) {
		uint64_t entry;
		enum obd_ring_result got =
			obd_ring_pop(&c->seg.fetcher[f]->reports, &c->seg.table->fetcher[f].reports_tail, &entry);
		if (got == OBD_RING_EMPTY)
			break;
		if (got == OBD_RING_ENTRY && obd_entry_slot(entry) < OBD_JOB_SLOTS) {
			obd_jobs_settle(c, f, obd_entry_slot(entry));
			continue;
		}
		obd_count(&c->seg.table->proc, protocol_errors, 1);
		for (uint32_t s = 0; s < OBD_JOB_SLOTS; s++)
			obd_jobs_settle(c, f, s);
	}
	return n > 0;
}

bool obd_jobs_poll(struct cached *c)
{
	bool did = false;
	for (uint32_t f = 0; f < c->seg.geo.nfetchers; f++)
		did |= poll_fetcher(c, f);
	return did;
}

bool obd_jobs_have_work(struct cached *c)
{
	for (uint32_t f = 0; f < c->seg.geo.nfetchers; f++)
		if (obd_ring_has(&c->seg.fetcher[f]->reports, &c->seg.table->fetcher[f].reports_tail))
			return true;
	return false;
}

void obd_jobs_wake(struct cached *c)
{
	for (uint32_t f = 0; f < c->seg.geo.nfetchers; f++) {
		if (!c->fetcher[f].wake)
			continue;
		c->fetcher[f].wake = false;
		if (obd_wake(&c->seg.fetcher[f]->proc, c->seg.bell_fetcher[f]))
			obd_count(&c->seg.table->proc, wakeups, 1);
	}
}

/* --- a fetcher died
 * ------------------------------------------------------------------------------------------------------------- */

static void take_back(struct cached *c, uint32_t f, uint32_t s)
{
	struct job *job = &c->fetcher[f].job[s];
	obd_jobs_settle(c, f, s); /* what it finished stays */
	if (!job->live)
		return;
	for (uint32_t i = 0; i < job->nblocks || (i == 0 && job->kind == OBD_JOB_PROBE); i++) {
		struct miss *m = job->miss[i];
		if (!m)
			continue;
		if (m->frame != OBD_NO_FRAME)
			obd_frame_drop(c, m->frame);
		m->frame = OBD_NO_FRAME;
		bool refused = obd_breaker_died(c, m, job->alone);
		if (obd_list_empty(&m->waits)) { /* nobody wants it: it may be what the fetcher died of */
			obd_miss_failed(c, m, EAGAIN);
			continue;
		}
		if (refused) {
			obd_miss_failed(c, m, ENOTRECOVERABLE);
			continue;
		}
		obd_miss_queue(c, m, true);
		obd_count(&c->seg.table->proc, retries, 1);
	}
	finish(c, f, s);
	if (job->kind == OBD_JOB_DOWNLOAD)
		settle_download(c, f, s, 0, true);
	OBD_TEST_POINT(reap_half);
}

void obd_jobs_reaped(struct cached *c, uint32_t f, uint32_t incarnation)
{
	if (f >= c->seg.geo.nfetchers || obd_load_relaxed(&c->seg.table->fetcher[f].admitted) > incarnation)
		return;
	OBD_TEST_POINT(reap_begun);
	for (uint32_t s = 0; s < OBD_JOB_SLOTS; s++)
		take_back(c, f, s);
	OBD_TEST_POINT(reap_unadmitted);
	obd_store_release(&c->seg.table->fetcher[f].admitted, incarnation + 1); /* edge: fetcher-admit */
	c->fetcher[f].wake = true;
}

/* --- a cached starts over
 * -------------------------------------------------------------------------------------------------------- */

static struct miss *adopt_block(struct cached *c, const struct obd_job *j, uint32_t f, uint32_t s, uint32_t i)
{
	uint32_t frame = j->frame[i];
	assert(frame < c->seg.geo.nframes);
	const struct obd_frame *fr = &c->seg.frame[frame];
	if (obd_load_relaxed(&fr->state) != OBD_FRAME_FILLING || obd_load_relaxed(&fr->generation) != j->generation[i])
		return NULL; /* settled already */
	struct miss *m =
		obd_miss_new(c, (enum obd_job_kind)j->kind, j->layer_slot, j->layer_uid, j->block + i, PRIO_READAHEAD, 0);
	assert(m && m->key == obd_load_relaxed(&fr->key));
	m->state = MISS_INFLIGHT;
	m->frame = frame;
	m->fetcher = (uint16_t)f;
	m->job = (uint16_t)s;
	m->job_bit = (uint8_t)i;
	if (j->kind == OBD_JOB_BLOCKS)
		m->part = obd_part_of(j->begin, j->end, i, j->nblocks, c->seg.geo.block_bytes);
	c->part[frame] = m->part;
	return m;
}

void obd_job_adopt(struct cached *c, uint32_t f, uint32_t s)
{
	const struct obd_job *j = &c->seg.table->fetcher[f].job[s];
	struct job *job = &c->fetcher[f].job[s];
	if (obd_word_state(obd_load_relaxed(&j->word)) != OBD_JOB_ISSUED)
		return;
	assert(j->nblocks <= OBD_JOB_FRAMES);
	job->live = true;
	job->kind = (uint8_t)j->kind;
	job->nblocks = j->nblocks;
	job->prio = job->kind == OBD_JOB_DOWNLOAD ? PRIO_DOWNLOAD : PRIO_READAHEAD;
	job->adopted = true;
	job->host = &c->host[LOCAL_HOST];
	struct obd_layer_brief layer;
	bool known = obd_catalog_layer_brief(&c->seg, j->layer_slot, j->layer_uid, &layer) == 0;
	for (uint32_t i = 0; i < j->nblocks; i++) {
		job->miss[i] = adopt_block(c, j, f, s, i);
		job->open_blocks += job->miss[i] != NULL;
		if (job->miss[i] && known)
			obd_miss_place(c, job->miss[i], &layer);
	}
	if (known && !layer.local) {
		const struct miss of = {.host_hash = layer.host_hash, .layer_slot = j->layer_slot, .layer_uid = j->layer_uid};
		job->host = obd_host(c, &of);
	}
	job->cost = (uint64_t)job->nblocks * c->seg.geo.block_bytes;
	job_begin(c, f, job);
}
