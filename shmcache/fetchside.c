/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A fetcher's side. If the fetcher dies anywhere here, its done word is still the old one, and cached gives the job's unsettled
 * frames to a new job once the supervisor has reaped the process; VALID frames stay.
 */
#include "shmcache/fetchside.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/base/testpoint.h"
#include "common/base/util.h"
#include "shmcache/lookup.h"
#include "shmcache/ring.h"

static uint64_t done_seq(const struct obd_fetchside *fs, uint32_t slot)
{
	return obd_load_relaxed(&fs->own->done[slot].word) >> 16;
}

void obd_fetch_attach(struct obd_fetchside *fs, struct obd_segment *seg, uint32_t index, uint32_t incarnation)
{
	memset(fs, 0, sizeof *fs);
	fs->seg = seg;
	fs->index = index;
	fs->own = seg->fetcher[index];
	fs->incarnation = incarnation;
	obd_ring_skip(&seg->table->fetcher[index].jobs, &fs->own->jobs_tail); /* the scan below sees what they named */
	obd_proc_start(&fs->own->proc, OBD_ROLE_FETCHER, index, incarnation);
	obd_wake(&seg->table->proc, seg->bell_cached); /* it may have jobs that no living fetcher could take */
}

static bool possible(const struct obd_fetchside *fs, const struct obd_fetch_job *job)
{
	if (job->kind > OBD_JOB_DOWNLOAD || job->nblocks > OBD_JOB_FRAMES)
		return false;
	if ((job->nblocks == 0) != (job->kind == OBD_JOB_PROBE || job->kind == OBD_JOB_DOWNLOAD))
		return false;
	if ((uint64_t)job->block + job->nblocks > (uint64_t)OBD_KEY_MAX_BLOCK + 1)
		return false;
	if (job->begin || job->end) {
		uint32_t bb = fs->seg->geo.block_bytes;
		if (job->kind != OBD_JOB_BLOCKS || job->begin >= bb || job->end > bb ||
		    (job->nblocks == 1 && job->end && job->begin >= job->end))
			return false;
	}
	for (uint32_t i = 0; i < job->nblocks; i++)
		if (job->frame[i] >= fs->seg->geo.nframes || job->generation[i] == 0)
			return false;
	return true;
}

/* Copies job slot's live run, unless it is not live, is running here, or is done. */
static bool take(struct obd_fetchside *fs, uint32_t slot, struct obd_fetch_job *job)
{
	const struct obd_job *j = &fs->seg->table->fetcher[fs->index].job[slot];
	uint64_t word = obd_load_acquire(&j->word); /* edge: job-issue */
	uint64_t seq = obd_word_seq(word);
	if (obd_word_state(word) != OBD_JOB_ISSUED || seq == 0 || fs->running[slot] == seq || done_seq(fs, slot) == seq)
		return false;
	memset(job, 0, sizeof *job);
	job->slot = slot;
	job->seq = seq;
	job->kind = (enum obd_job_kind)j->kind;
	job->layer_slot = j->layer_slot;
	job->layer_uid = j->layer_uid;
	job->block = j->block;
	job->nblocks = j->nblocks;
	job->begin = j->begin;
	job->end = j->end;
	job->down = j->down;
	memcpy(job->frame, j->frame, sizeof job->frame);
	memcpy(job->generation, j->generation, sizeof job->generation);
	obd_fence_acquire();
	if (obd_load_relaxed(&j->word) != word)
		return false;
	if (!possible(fs, job)) {
		obd_count(&fs->own->proc, protocol_errors, 1);
		return false;
	}
	fs->running[slot] = seq;
	OBD_TEST_POINT(job_taken);
	obd_count(&fs->own->proc, requests, 1);
	return true;
}

static void repeat_reports(struct obd_fetchside *fs)
{
	const struct obd_tail *tail = &fs->seg->table->fetcher[fs->index].reports_tail;
	for (uint32_t slot = 0; slot < OBD_JOB_SLOTS; slot++)
		if (fs->unreported[slot] && obd_ring_push(&fs->own->reports, tail, obd_entry(slot, fs->unreported[slot], 0)))
			fs->unreported[slot] = 0;
}

/* Until cached has taken back what the previous incarnation held, its jobs are not ours to run. */
static bool admitted(const struct obd_fetchside *fs)
{
	return obd_load_acquire(&fs->seg->table->fetcher[fs->index].admitted) >= fs->incarnation; /* edge: fetcher-admit */
}

bool obd_fetch_next(struct obd_fetchside *fs, struct obd_fetch_job *job)
{
	if (!admitted(fs))
		return false;
	repeat_reports(fs);
	while (fs->rescan < OBD_JOB_SLOTS)
		if (take(fs, fs->rescan++, job))
			return true;
	uint64_t entry;
	for (;;) {
		switch (obd_ring_pop(&fs->seg->table->fetcher[fs->index].jobs, &fs->own->jobs_tail, &entry)) {
		case OBD_RING_EMPTY:
			return false;
		case OBD_RING_LOST:
			obd_count(&fs->own->proc, protocol_errors, 1);
			fs->rescan = 0;
			return false;
		case OBD_RING_ENTRY:
			if (obd_entry_slot(entry) < OBD_JOB_SLOTS && take(fs, obd_entry_slot(entry), job))
				return true;
		}
	}
}

bool obd_fetch_has_work(const struct obd_fetchside *fs)
{
	if (!admitted(fs))
		return false;
	return fs->rescan < OBD_JOB_SLOTS || obd_ring_has(&fs->seg->table->fetcher[fs->index].jobs, &fs->own->jobs_tail);
}

static uint64_t job_key(const struct obd_fetch_job *job, uint32_t i)
{
	return obd_key(job->layer_uid, job->kind == OBD_JOB_RAW, job->block + i);
}

void obd_fetch_begin(struct obd_fetchside *fs, struct obd_fetch_job *job, uint32_t i)
{
	assert(i < job->nblocks);
	struct obd_fill *fill = &fs->seg->fills[job->frame[i]];
	obd_store_relaxed(&fill->word, obd_word(job->generation[i], OBD_FILL_FILLING));
	obd_fence_release(); /* edge: fill-begin. The word leaves VALID before the first new byte; pairs with obd_lookup_still
			      */
	OBD_TEST_POINT(fill_begun);
}

unsigned char *obd_fetch_data(struct obd_fetchside *fs, const struct obd_fetch_job *job, uint32_t i)
{
	assert(i < job->nblocks);
	return obd_frame_data(fs->seg, job->frame[i]);
}

static void report(struct obd_fetchside *fs, const struct obd_fetch_job *job)
{
	struct obd_table_fetcher *peer = &fs->seg->table->fetcher[fs->index];
	if (!obd_ring_push(&fs->own->reports, &peer->reports_tail, obd_entry(job->slot, job->seq, 0)))
		fs->unreported[job->slot] = job->seq;
	if (obd_wake(&fs->seg->table->proc, fs->seg->bell_cached))
		obd_count(&fs->own->proc, wakeups, 1);
}

static void publish(struct obd_fetchside *fs, struct obd_fetch_job *job, uint32_t i, uint32_t begin, uint32_t end,
		    enum obd_fill_state state)
{
	assert(i < job->nblocks && begin <= end && end <= fs->seg->geo.block_bytes);
	struct obd_fill *fill = &fs->seg->fills[job->frame[i]];
	if (obd_load_relaxed(&fill->word) != obd_word(job->generation[i], OBD_FILL_FILLING)) {
		obd_count(&fs->own->proc, protocol_errors,
			  1); /* two jobs were given one frame; the block fails at the job's end */
		return;
	}
	obd_store_relaxed(&fill->key, job_key(job, i));
	obd_store_relaxed(&fill->begin, begin);
	obd_store_relaxed(&fill->bytes, end);
	obd_store_relaxed(&fill->err, 0);
	OBD_TEST_POINT(fill_unpublished);
	obd_store_release(&fill->word, obd_word(job->generation[i], state)); /* edge: fill-publish */
	OBD_TEST_POINT(fill_published);
	job->settled |= UINT64_C(1) << i;
	obd_count(&fs->own->proc, fills, 1);
	obd_fence_full(); /* edge: demand. Either cached sees VALID when it sets the bit, or the bit is seen here */
	if (obd_load_relaxed(&fs->seg->table->fetcher[fs->index].job[job->slot].demand) >> i & 1)
		report(fs, job);
}

void obd_fetch_valid(struct obd_fetchside *fs, struct obd_fetch_job *job, uint32_t i, uint32_t bytes)
{
	publish(fs, job, i, 0, bytes, OBD_FILL_VALID);
}

void obd_fetch_part(struct obd_fetchside *fs, struct obd_fetch_job *job, uint32_t i, uint32_t begin, uint32_t end)
{
	publish(fs, job, i, begin, end, OBD_FILL_PART);
}

void obd_fetch_fail(struct obd_fetchside *fs, struct obd_fetch_job *job, uint32_t i, int err)
{
	assert(i < job->nblocks);
	struct obd_fill *fill = &fs->seg->fills[job->frame[i]];
	obd_store_relaxed(&fill->word, obd_word(job->generation[i], OBD_FILL_FILLING));
	obd_fence_release(); /* edge: fill-begin. Readers of the frame's old contents must see the word move before the key does
			      */
	obd_store_relaxed(&fill->key, job_key(job, i));
	obd_store_relaxed(&fill->bytes, 0);
	obd_store_relaxed(&fill->err, (uint32_t)err);
	obd_store_release(&fill->word, obd_word(job->generation[i], OBD_FILL_FAILED)); /* edge: fill-publish */
	OBD_TEST_POINT(fill_failed);
	job->settled |= UINT64_C(1) << i;
	obd_count(&fs->own->proc, fill_errors, 1);
}

void obd_fetch_retry_after(struct obd_fetch_job *job, uint32_t ms)
{
	if (ms > job->retry_ms)
		job->retry_ms = ms;
}

void obd_fetch_done(struct obd_fetchside *fs, struct obd_fetch_job *job, int err, const char *reason)
{
	for (uint32_t i = 0; i < job->nblocks; i++)
		if (!(job->settled >> i & 1))
			obd_fetch_fail(fs, job, i, err ? err : EIO);
	obd_store_relaxed(&fs->own->done[job->slot].retry_ms, job->retry_ms);
	obd_store_relaxed(&fs->own->done[job->slot].net_bytes, job->net_bytes);
	snprintf(fs->own->done[job->slot].reason, OBD_REASON_BYTES, "%s", reason ? reason : "");
	OBD_TEST_POINT(job_undone);
	obd_store_release(&fs->own->done[job->slot].word, job->seq << 16 | (uint64_t)(err & 0xffff)); /* edge: job-done */
	OBD_TEST_POINT(job_done);
	fs->running[job->slot] = 0;
	report(fs, job);
}

void obd_fetch_down_result(struct obd_fetchside *fs, const struct obd_fetch_job *job, const struct obd_down_result *result)
{
	fs->own->down[job->slot] = *result; /* published by the done word */
}

/* --- compressed bytes that are already here ----------------------------------------------------------------------------- */

/* Copies [start, end) of the blob, which one raw chunk covers. */
static bool copy_chunk(const struct obd_segment *seg, const struct obd_layer_view *layer, uint32_t chunk, uint64_t start,
		       uint64_t end, unsigned char *dst)
{
	uint64_t cs, ce, word;
	bool mark;
	if (chunk > OBD_KEY_MAX_BLOCK || !obd_raw_chunk(layer->blob_bytes, seg->geo.block_bytes, chunk, &cs, &ce))
		return false;
	uint32_t f = obd_lookup_valid(seg, obd_key(layer->uid, true, chunk), &word, &mark);
	if (f == OBD_NO_FRAME || start < cs || end > ce || obd_load_relaxed(&seg->fills[f].bytes) != ce - cs)
		return false;
	memcpy(dst, obd_frame_data(seg, f) + (start - cs), end - start);
	return obd_lookup_still(seg, f, word);
}

static uint32_t chunk_of(const struct obd_layer_view *layer, uint32_t block_bytes, uint64_t pos)
{
	if (pos < OBD_RAW_HEAD_BYTES)
		return 0;
	uint64_t back = (layer->blob_bytes - 1 - pos) / block_bytes;
	return back >= OBD_KEY_MAX_BLOCK ? OBD_KEY_MAX_BLOCK : (uint32_t)back + 1;
}

uint64_t obd_fetch_from_raw(struct obd_fetchside *fs, const struct obd_layer_view *layer, uint64_t start, uint64_t end,
			    bool from_end, unsigned char *dst)
{
	const struct obd_segment *seg = fs->seg;
	uint32_t bb = seg->geo.block_bytes;
	uint64_t got = 0;
	uint64_t len = end - start;
	while (got < len) {
		uint64_t pos = from_end ? end - got - 1 : start + got;
		uint32_t chunk = chunk_of(layer, bb, pos);
		uint64_t cs, ce;
		if (pos >= layer->blob_bytes || !obd_raw_chunk(layer->blob_bytes, bb, chunk, &cs, &ce))
			break;
		uint64_t s = obd_max_u64(cs, start);
		uint64_t e = obd_min_u64(ce, end);
		if (from_end)
			e = end - got;
		else
			s = start + got;
		if (s >= e || !copy_chunk(seg, layer, chunk, s, e, dst + (s - start)))
			break;
		got += e - s;
	}
	obd_count(&fs->own->proc, raw_reuse_bytes, got);
	return got;
}
