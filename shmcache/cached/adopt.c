/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a cached finds when it starts: a fresh table (all zero: every frame FREE) or its predecessor's. Private memory is made
 * from the table alone, then the clients' tables are read when the supervisor names the clients.
 *
 *   job ISSUED            -> carried on; its FILLING frames get misses without waiters
 *   frame FILLING, no job -> its predecessor died before ISSUED: nobody writes it: FREE
 *   frame VALID           -> stays, if the fill word agrees; a fresh place in the eviction queues
 *   frame FAILED, EVICTING -> the removal is finished: FREE
 */
#include <assert.h>
#include <stdlib.h>

#include "common/base/testpoint.h"
#include "shmcache/cached/cached.h"

static void adopt_frame(struct cached *c, uint32_t f, const bool *in_job)
{
	struct obd_frame *fr = &c->seg.frame[f];
	uint32_t state = obd_load_relaxed(&fr->state);
	uint64_t generation = obd_load_relaxed(&fr->generation);
	if (generation > c->next_generation)
		c->next_generation = generation;
	switch (state) {
	case OBD_FRAME_FREE:
		c->free_frames[c->nfree++] = f;
		break;
	case OBD_FRAME_FILLING:
		if (!in_job[f])
			obd_frame_drop(c, f);
		break;
	case OBD_FRAME_VALID: {
		uint64_t key = obd_load_relaxed(&fr->key);
		uint64_t word = obd_load_acquire(&c->seg.fills[f].word); /* edge: fill-publish */
		if (word == obd_word(generation, OBD_FILL_VALID) && obd_load_relaxed(&c->seg.fills[f].key) == key &&
		    obd_frame_bind(c, f, key, false))
			obd_evict_insert(c, f, key);
		else
			obd_frame_drop(c, f);
		break;
	}
	default:
		obd_frame_drop(c, f);
	}
}

static void recount(struct cached *c)
{
	uint32_t n[OBD_FRAME_STATES] = {0};
	for (uint32_t f = 0; f < c->seg.geo.nframes; f++) {
		uint32_t state = obd_load_relaxed(&c->seg.frame[f].state);
		assert(state < OBD_FRAME_STATES);
		n[state]++;
	}
	for (int s = 0; s < OBD_FRAME_STATES; s++)
		obd_store_relaxed(&c->seg.table->frames_by_state[s], n[s]);
}

void obd_cached_adopt(struct cached *c)
{
	bool *in_job = calloc(c->seg.geo.nframes, sizeof *in_job);
	assert(in_job);
	c->next_generation = obd_load_relaxed(&c->seg.table->next_generation);
	recount(c);
	for (uint32_t b = 0; b < c->seg.geo.nbuckets; b++) /* readers miss for a moment and ask */
		for (unsigned int i = 0; i < OBD_BUCKET_WAYS; i++)
			obd_store_relaxed(&c->seg.bucket[b].way[i], 0);
	OBD_TEST_POINT(adopt_buckets);
	for (uint32_t f = 0; f < c->seg.geo.nfetchers; f++)
		for (uint32_t s = 0; s < OBD_JOB_SLOTS; s++) {
			obd_job_adopt(c, f, s);
			struct job *job = &c->fetcher[f].job[s];
			for (uint32_t i = 0; job->live && i < job->nblocks; i++)
				if (job->miss[i])
					in_job[job->miss[i]->frame] = true;
		}
	OBD_TEST_POINT(adopt_jobs);
	for (uint32_t f = 0; f < c->seg.geo.nframes; f++)
		adopt_frame(c, f, in_job);
	OBD_TEST_POINT(adopt_rings);
	free(in_job);
	for (uint32_t f = 0; f < c->seg.geo.nfetchers; f++) {
		obd_ring_skip(&c->seg.fetcher[f]->reports, &c->seg.table->fetcher[f].reports_tail);
		for (uint32_t s = 0; s < OBD_JOB_SLOTS; s++)
			if (c->fetcher[f].job[s].live) {
				obd_job_ring(c, f, s);
				obd_jobs_settle(c, f, s);
			}
	}
}
