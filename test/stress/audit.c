/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Is the frame table whole? */
#include <stdlib.h>
#include <string.h>

#include "test/stress/stress.h"

static const char *const names[] = {
#define X(name, successors) #name,
	OBD_FRAME_STATE_TABLE(X)
#undef X
};

/* --- a dead cached's table ------------------------------------------------------------------------------------------------ */

static void audit_job(const struct obd_segment *seg, const struct obd_job *j, uint8_t *seen)
{
	if (obd_word_state(obd_load_relaxed(&j->word)) != OBD_JOB_ISSUED)
		return;
	if (j->nblocks > OBD_JOB_FRAMES || j->kind > OBD_JOB_PROBE)
		stress_fail("audit: a job of %u blocks, kind %u", j->nblocks, j->kind);
	for (uint32_t i = 0; i < j->nblocks; i++) {
		uint32_t f = j->frame[i];
		if (f >= seg->geo.nframes)
			stress_fail("audit: a job has frame %u", f);
		const struct obd_frame *fr = &seg->frame[f];
		if (obd_load_relaxed(&fr->generation) != j->generation[i])
			continue; /* settled, dropped and used again */
		if (obd_load_relaxed(&fr->state) == OBD_FRAME_FILLING && seen[f]++)
			stress_fail("audit: frame %u is being filled by two jobs", f);
	}
}

static int by_key(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;
	return *x < *y ? -1 : *x > *y;
}

static void audit_keys(const struct obd_segment *seg)
{
	uint64_t *key = calloc(seg->geo.nframes, sizeof *key);
	uint32_t n = 0;
	if (!key)
		stress_fail("out of memory");
	for (uint32_t f = 0; f < seg->geo.nframes; f++)
		if (obd_load_relaxed(&seg->frame[f].state) == OBD_FRAME_VALID)
			key[n++] = obd_load_relaxed(&seg->frame[f].key);
	qsort(key, n, sizeof *key, by_key);
	for (uint32_t i = 1; i < n; i++)
		if (key[i] == key[i - 1])
			stress_fail("audit: two frames hold key %#llx", (unsigned long long)key[i]);
	free(key);
}

void stress_audit_table(const struct obd_segment *seg)
{
	uint8_t *seen = calloc(seg->geo.nframes, 1);
	if (!seen)
		stress_fail("out of memory");
	for (uint32_t f = 0; f < seg->geo.nframes; f++) {
		if (obd_load_relaxed(&seg->frame[f].state) >= OBD_FRAME_STATES)
			stress_fail("audit: frame %u has no state", f);
		if (obd_load_relaxed(&seg->frame[f].generation) > obd_load_relaxed(&seg->table->next_generation))
			stress_fail("audit: frame %u has a generation that was not given out", f);
	}
	for (uint32_t k = 0; k < seg->geo.nfetchers; k++)
		for (uint32_t s = 0; s < OBD_JOB_SLOTS; s++)
			audit_job(seg, &seg->table->fetcher[k].job[s], seen);
	audit_keys(seg);
	free(seen);
}

/* --- a living cached ------------------------------------------------------------------------------------------------------ */

struct places {
	uint8_t free, job, bucket;
};

static void note_misses(struct cached *c, struct places *p)
{
	for (uint32_t k = 0; k < c->seg.geo.nfetchers; k++)
		for (uint32_t s = 0; s < OBD_JOB_SLOTS; s++) {
			const struct job *job = &c->fetcher[k].job[s];
			uint32_t open = 0;
			for (uint32_t i = 0; job->live && i < job->nblocks; i++)
				if (job->miss[i]) {
					open++;
					p[job->miss[i]->frame].job++;
				}
			if (job->live && open != job->open_blocks)
				stress_fail("audit: job %u has %u open blocks, counts %u", s, open, job->open_blocks);
		}
}

static void note_buckets(struct cached *c, struct places *p)
{
	for (uint32_t b = 0; b < c->seg.geo.nbuckets; b++)
		for (unsigned int i = 0; i < OBD_BUCKET_WAYS; i++) {
			uint64_t e = obd_load_relaxed(&c->seg.bucket[b].way[i]);
			if (e && (uint32_t)e - 1 >= c->seg.geo.nframes)
				stress_fail("audit: bucket %u names frame %u", b, (uint32_t)e - 1);
			if (e)
				p[(uint32_t)e - 1].bucket++;
		}
}

static void audit_frame(struct cached *c, uint32_t f, const struct places *p)
{
	const struct obd_frame *fr = &c->seg.frame[f];
	const struct obd_fill *fill = &c->seg.fills[f];
	uint32_t state = obd_load_relaxed(&fr->state);
	bool good = p->free == (state == OBD_FRAME_FREE) && p->job == (state == OBD_FRAME_FILLING) &&
		    p->bucket == (state == OBD_FRAME_VALID);
	if (state == OBD_FRAME_VALID)
		good = good && obd_word_seq(obd_load_relaxed(&fill->word)) == obd_load_relaxed(&fr->generation) &&
		       (obd_word_state(obd_load_relaxed(&fill->word)) == OBD_FILL_VALID ||
			obd_word_state(obd_load_relaxed(&fill->word)) == OBD_FILL_PART) &&
		       obd_load_relaxed(&fill->key) == obd_load_relaxed(&fr->key) &&
		       obd_frame_find(c, obd_load_relaxed(&fr->key)) == f;
	if (!good || state == OBD_FRAME_EVICTING || state == OBD_FRAME_FAILED)
		stress_fail("audit: frame %u is %s, %u times free, in %u jobs, in %u buckets", f,
			    state < OBD_FRAME_STATES ? names[state] : "?", p->free, p->job, p->bucket);
}

static void audit_counts(struct cached *c)
{
	uint32_t n[OBD_FRAME_STATES] = {0};
	for (uint32_t f = 0; f < c->seg.geo.nframes; f++)
		n[obd_load_relaxed(&c->seg.frame[f].state)]++;
	for (uint32_t s = 0; s < OBD_FRAME_STATES; s++)
		if (n[s] != obd_load_relaxed(&c->seg.table->frames_by_state[s]))
			stress_fail("audit: %u frames are %s, the table counts %u", n[s], names[s],
				    obd_load_relaxed(&c->seg.table->frames_by_state[s]));
}

static void audit_pins(struct cached *c)
{
	uint64_t frames = 0, clients = 0;
	for (uint32_t f = 0; f < c->seg.geo.nframes; f++)
		frames += c->pins[f];
	for (uint32_t id = 0; id < OBD_MAX_CLIENTS; id++)
		clients += c->client[id].npinned;
	if (frames != clients)
		stress_fail("audit: frames have %llu pins, clients %llu", (unsigned long long)frames,
			    (unsigned long long)clients);
}

void stress_audit_cached(struct cached *c)
{
	uint32_t n = c->seg.geo.nframes;
	struct places *p = calloc(n, sizeof *p);
	if (!p)
		stress_fail("out of memory");
	for (uint32_t i = 0; i < c->nfree; i++)
		p[c->free_frames[i]].free++;
	note_misses(c, p);
	note_buckets(c, p);
	for (uint32_t f = 0; f < n; f++)
		audit_frame(c, f, &p[f]);
	audit_counts(c);
	audit_pins(c);
	free(p);
}

void stress_audit_evictor(struct cached *c)
{
	uint32_t valid = obd_load_relaxed(&c->seg.table->frames_by_state[OBD_FRAME_VALID]), f;
	while ((f = obd_evict_victim(c)) != OBD_NO_FRAME) {
		if (obd_load_relaxed(&c->seg.frame[f].state) != OBD_FRAME_VALID)
			stress_fail("audit: frame %u is to be evicted and not valid", f);
		obd_frame_drop(c, f);
		valid--;
	}
	if (valid)
		stress_fail("audit: %u valid frames cannot be evicted", valid);
}
