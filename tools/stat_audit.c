/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The auditor. One pass notes for each frame how many bucket entries and how many live jobs name it, then judges every frame.
 * Whether the group moved is seen from its stamp: the words that change with every transition of a frame.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/clock.h"
#include "common/base/util.h"
#include "shmcache/lookup.h"
#include "tools/stat.h"

#define MAX_LINES 50
#define TRIES 40
#define PAUSE_NS (25 * OBD_MS_NS)

/* Per frame; counts stop at 255. */
struct seen {
	uint8_t entries;       /* bucket entries that name it */
	uint8_t right_entries; /* those in a bucket of its key, with its tag */
	uint8_t jobs;	       /* live jobs that name it with its generation */
};

struct pass {
	const struct obd_segment *seg;
	FILE *out; /* NULL: count only */
	struct seen *seen;
	uint64_t *keys; /* of VALID and FILLING frames */
	uint32_t nkeys;
	uint32_t by_state[OBD_FRAME_STATES];
	uint64_t faults;
};

__attribute__((format(printf, 2, 3))) static void fault(struct pass *p, const char *fmt, ...)
{
	va_list ap;
	p->faults++;
	if (!p->out || p->faults > MAX_LINES)
		return;
	va_start(ap, fmt);
	vfprintf(p->out, fmt, ap);
	va_end(ap);
	putc('\n', p->out);
}

static void more(uint8_t *n)
{
	if (*n < UINT8_MAX)
		++*n;
}

/* --- buckets -------------------------------------------------------------------------------------------------------------- */

static void note_entry(struct pass *p, uint32_t bucket, unsigned int way, uint64_t entry)
{
	const struct obd_geometry *geo = &p->seg->geo;
	uint32_t f = (uint32_t)entry - 1;
	if (f >= geo->nframes) {
		fault(p, "bucket %" PRIu32 " way %u: no frame %" PRIu32, bucket, way, f);
		return;
	}
	uint64_t hash = obd_key_hash(obd_load_relaxed(&p->seg->frame[f].key));
	bool here = bucket == obd_bucket_first(geo, hash) || bucket == obd_bucket_second(geo, hash);
	more(&p->seen[f].entries);
	if (here && (entry & ~UINT64_C(0x1ffffffff)) == obd_bucket_tag(hash))
		more(&p->seen[f].right_entries);
}

static void walk_buckets(struct pass *p)
{
	for (uint32_t b = 0; b < p->seg->geo.nbuckets; b++)
		for (unsigned int i = 0; i < OBD_BUCKET_WAYS; i++) {
			uint64_t entry = obd_load_relaxed(&p->seg->bucket[b].way[i]); /* a hint */
			if (entry)
				note_entry(p, b, i, entry);
		}
}

/* --- jobs ----------------------------------------------------------------------------------------------------------------- */

static void note_job(struct pass *p, uint32_t fetcher, uint32_t slot, const struct obd_job *j)
{
	uint32_t n = j->nblocks;
	if (n > OBD_JOB_FRAMES) {
		fault(p, "fetcher %" PRIu32 " job %" PRIu32 ": %" PRIu32 " blocks", fetcher, slot, n);
		return;
	}
	for (uint32_t i = 0; i < n; i++) {
		uint32_t f = j->frame[i];
		if (f >= p->seg->geo.nframes) {
			fault(p, "fetcher %" PRIu32 " job %" PRIu32 ": no frame %" PRIu32, fetcher, slot, f);
			continue;
		}
		const struct obd_frame *frame = &p->seg->frame[f];
		if (obd_load_relaxed(&frame->generation) == j->generation[i] && obd_load_relaxed(&frame->fetcher) == fetcher &&
		    obd_load_relaxed(&frame->job) == slot)
			more(&p->seen[f].jobs);
	}
}

static void walk_jobs(struct pass *p)
{
	for (uint32_t k = 0; k < p->seg->geo.nfetchers; k++)
		for (uint32_t s = 0; s < OBD_JOB_SLOTS; s++) {
			struct obd_job copy;
			memcpy((void *)&copy, (const void *)&p->seg->table->fetcher[k].job[s], sizeof copy);
			if (obd_word_state(obd_load_relaxed(&copy.word)) == OBD_JOB_ISSUED)
				note_job(p, k, s, &copy);
		}
}

/* --- frames --------------------------------------------------------------------------------------------------------------- */

static void judge_valid(struct pass *p, uint32_t f)
{
	const struct obd_frame *frame = &p->seg->frame[f];
	const struct obd_fill *fill = &p->seg->fills[f];
	uint64_t word = obd_load_acquire(&fill->word); /* edge: fill-publish */
	uint64_t key = obd_load_relaxed(&frame->key), fill_key = obd_load_relaxed(&fill->key);
	uint64_t generation = obd_load_relaxed(&frame->generation);
	uint32_t bytes = obd_load_relaxed(&fill->bytes), begin = obd_load_relaxed(&fill->begin);
	bool part = word == obd_word(generation, OBD_FILL_PART);
	if (p->seen[f].entries != 1 || p->seen[f].right_entries != 1)
		fault(p, "frame %" PRIu32 ": valid, but in %u bucket entries, %u of them where its key belongs", f,
		      p->seen[f].entries, p->seen[f].right_entries);
	if (!part && word != obd_word(generation, OBD_FILL_VALID))
		fault(p, "frame %" PRIu32 ": valid of generation %" PRIu64 ", but its fill word is %" PRIu64 " in state %u", f,
		      generation, obd_word_seq(word), obd_word_state(word));
	if (fill_key != key)
		fault(p, "frame %" PRIu32 ": key %#" PRIx64 ", but filled with key %#" PRIx64, f, key, fill_key);
	if (bytes > p->seg->geo.block_bytes)
		fault(p, "frame %" PRIu32 ": valid with %" PRIu32 " bytes, more than a block", f, bytes);
	if (part && begin >= bytes)
		fault(p, "frame %" PRIu32 ": a part from %" PRIu32 " to %" PRIu32, f, begin, bytes);
	if (key >> 32 == 0)
		fault(p, "frame %" PRIu32 ": valid, but its key is no block's", f);
}

static void judge_frame(struct pass *p, uint32_t f)
{
	const struct seen *seen = &p->seen[f];
	uint32_t state = obd_load_acquire(&p->seg->frame[f].state); /* edge: frame-state */
	if (state >= OBD_FRAME_STATES) {
		fault(p, "frame %" PRIu32 ": no state %" PRIu32, f, state);
		return;
	}
	p->by_state[state]++;
	if (state == OBD_FRAME_VALID || state == OBD_FRAME_FILLING)
		p->keys[p->nkeys++] = obd_load_relaxed(&p->seg->frame[f].key);
	if (state == OBD_FRAME_VALID)
		judge_valid(p, f);
	else if (seen->entries)
		fault(p, "frame %" PRIu32 ": %s, but in %u bucket entries", f, obd_stat_frame_state_name(state), seen->entries);
	if (state == OBD_FRAME_FILLING && seen->jobs != 1)
		fault(p, "frame %" PRIu32 ": filling, but in %u live jobs", f, seen->jobs);
	if (state == OBD_FRAME_FAILED || state == OBD_FRAME_EVICTING)
		fault(p, "frame %" PRIu32 ": still %s", f, obd_stat_frame_state_name(state));
}

static int by_value(const void *a, const void *b)
{
	uint64_t va = *(const uint64_t *)a, vb = *(const uint64_t *)b;
	return va < vb ? -1 : va > vb;
}

static void judge_keys(struct pass *p)
{
	qsort(p->keys, p->nkeys, sizeof *p->keys, by_value);
	for (uint32_t i = 1; i < p->nkeys; i++)
		if (p->keys[i] == p->keys[i - 1])
			fault(p, "key %#" PRIx64 ": in more than one frame", p->keys[i]);
}

static void judge_counts(struct pass *p)
{
	for (unsigned int s = 0; s < OBD_FRAME_STATES; s++) {
		uint32_t said = obd_load_relaxed(&p->seg->table->frames_by_state[s]);
		if (said != p->by_state[s])
			fault(p, "%s frames: %" PRIu32 " counted, %" PRIu32 " in the table's own count",
			      obd_stat_frame_state_name(s), p->by_state[s], said);
	}
}

/* --- passes --------------------------------------------------------------------------------------------------------------- */

/* Returns -ENOMEM, or 0 with p->faults set. */
static int run_pass(struct pass *p, const struct obd_segment *seg, FILE *out)
{
	memset(p, 0, sizeof *p);
	p->seg = seg;
	p->out = out;
	p->seen = calloc(seg->geo.nframes, sizeof *p->seen);
	p->keys = calloc(seg->geo.nframes, sizeof *p->keys);
	int rc = p->seen && p->keys ? 0 : -ENOMEM;
	if (rc == 0) {
		walk_buckets(p);
		walk_jobs(p);
		for (uint32_t f = 0; f < seg->geo.nframes; f++)
			judge_frame(p, f);
		judge_keys(p);
		judge_counts(p);
	}
	free(p->seen);
	free(p->keys);
	return rc;
}

struct stamp {
	uint64_t next_generation;
	uint64_t jobs;
	uint64_t evictions;
	uint32_t by_state[OBD_FRAME_STATES];
	uint64_t job_words; /* their sum */
};

static void take_stamp(const struct obd_segment *seg, struct stamp *s)
{
	memset(s, 0, sizeof *s);
	obd_fence_full(); /* what was read before is older than the stamp */
	s->next_generation = obd_load_relaxed(&seg->table->next_generation);
	s->jobs = obd_load_relaxed(&seg->table->proc.counters[OBD_C_jobs]);
	s->evictions = obd_load_relaxed(&seg->table->proc.counters[OBD_C_evictions]);
	for (unsigned int i = 0; i < OBD_FRAME_STATES; i++)
		s->by_state[i] = obd_load_relaxed(&seg->table->frames_by_state[i]);
	for (uint32_t k = 0; k < seg->geo.nfetchers; k++)
		for (uint32_t j = 0; j < OBD_JOB_SLOTS; j++)
			s->job_words += obd_load_relaxed(&seg->table->fetcher[k].job[j].word);
	obd_fence_full(); /* what is read after is younger */
}

static bool same(const struct stamp *a, const struct stamp *b)
{
	return memcmp(a, b, sizeof *a) == 0;
}

/* Two passes with a pause between them. 1: nothing moved and both saw the same; p is the second one's. */
static int try_once(struct pass *p, const struct obd_segment *seg)
{
	const struct timespec pause = {.tv_nsec = (long)PAUSE_NS};
	struct stamp before, after;
	take_stamp(seg, &before);
	int rc = run_pass(p, seg, NULL);
	uint64_t first_faults = p->faults;
	if (rc)
		return rc;
	if (first_faults) {
		nanosleep(&pause, NULL);
		rc = run_pass(p, seg, NULL);
	}
	take_stamp(seg, &after);
	return rc ? rc : same(&before, &after) && p->faults == first_faults;
}

static void report(FILE *out, struct pass *p, const struct obd_segment *seg, bool still)
{
	if (p->faults)
		run_pass(p, seg, out);
	if (p->faults > MAX_LINES)
		fprintf(out, "(and %" PRIu64 " more)\n", p->faults - MAX_LINES);
	fprintf(out, "audit: %" PRIu32 " frames", seg->geo.nframes);
	for (unsigned int s = 0; s < OBD_FRAME_STATES; s++)
		if (p->by_state[s])
			fprintf(out, ", %" PRIu32 " %s", p->by_state[s], obd_stat_frame_state_name(s));
	fprintf(out, "; %" PRIu64 " faults%s\n", p->faults, still ? "" : "; the group was busy, so this proves nothing");
}

int obd_stat_audit(FILE *out, const struct obd_segment *seg, struct obd_err *err)
{
	const struct timespec pause = {.tv_nsec = (long)PAUSE_NS};
	struct pass p;
	int still = 0;
	if (!seg->table || !seg->fills)
		return obd_err_set(err, ENODATA, "the group has no cache to audit");
	for (int i = 0; still == 0 && i < TRIES; i++) {
		if (i)
			nanosleep(&pause, NULL);
		still = try_once(&p, seg);
	}
	if (still < 0)
		return obd_err_set(err, -still, "%s", strerror(-still));
	report(out, &p, seg, still);
	return still && p.faults == 0 ? 0 : 1;
}
