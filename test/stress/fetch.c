/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A fetcher: runs several jobs at a time, a few bytes of one at a time, and can end between any two calls. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/util.h"
#include "shmcache/fetchside.h"
#include "test/stress/stress.h"

enum { RUNNING = 8, NEVER_MS = 3000 };

struct run {
	bool live;
	uint32_t next; /* frame */
	uint64_t done; /* bytes of it */
	struct obd_fetch_job job;
};

struct life {
	struct stress_actor *a;
	struct obd_fetchside fs;
	uint64_t rnd;
	struct run run[RUNNING];
};

static void own(struct life *l, uint32_t frame)
{
	uint32_t me = l->a->index + 1;
	uint32_t before = atomic_exchange(&l->a->w->sh->writer[frame], me);
	if (before && before != me)
		stress_fail("frame %u is written by fetchers %u and %u", frame, before - 1, me - 1);
}

static void disown(struct life *l, uint32_t frame)
{
	atomic_store(&l->a->w->sh->writer[frame], 0);
}

static void finish(struct life *l, struct run *r, int err)
{
	for (uint32_t i = 0; i < r->job.nblocks; i++)
		if (!(r->job.settled >> i & 1))
			own(l, r->job.frame[i]);
	for (uint32_t i = 0; i < r->job.nblocks; i++)
		if (!(r->job.settled >> i & 1))
			disown(l, r->job.frame[i]);
	obd_fetch_done(&l->fs, &r->job, err, err ? "made up" : NULL);
	r->live = false;
}

/* Compressed bytes that the cache has must be the blob's. */
static void check_raw(struct life *l, const struct obd_fetch_job *job)
{
	struct obd_layer_view view;
	uint64_t buf[512], start = stress_random(&l->rnd) % (STRESS_BLOB / 8 - 512) * 8, n;
	bool from_end = stress_random(&l->rnd) & 1;
	memset(&view, 0, sizeof view);
	view.uid = job->layer_uid;
	view.blob_bytes = STRESS_BLOB;
	n = obd_fetch_from_raw(&l->fs, &view, start, start + sizeof buf, from_end, (unsigned char *)buf);
	uint64_t at = from_end ? sizeof buf - n : 0;
	for (uint64_t i = at; i < at + n; i += 8)
		if (buf[i / 8] != stress_pattern(job->layer_uid, true, start + i))
			stress_fail("raw bytes of layer %u at %llu are wrong", job->layer_uid, (unsigned long long)(start + i));
}

/* A function of its own, so that the thread sanitizer's suppressions can name it. */
__attribute__((noinline)) static void stress_write(uint64_t *data, const struct obd_fetch_job *job, uint64_t start,
						   uint64_t from, uint64_t to)
{
	for (uint64_t at = from; at < to; at += 8)
		data[at / 8] = stress_pattern(job->layer_uid, job->kind == OBD_JOB_RAW, start + at);
}

/* The next bytes of the present frame, perhaps its end. */
static void step(struct life *l, struct run *r)
{
	struct obd_fetch_job *job = &r->job;
	bool raw = job->kind == OBD_JOB_RAW;
	uint64_t start, end;
	if (r->next == job->nblocks) {
		finish(l, r, stress_random(&l->rnd) % 64 ? 0 : EIO);
		return;
	}
	if (!stress_range(raw, job->block + r->next, &start, &end))
		stress_fail("job for block %u, which is not there", job->block + r->next);
	uint64_t from = r->next == 0 ? job->begin : 0;
	uint64_t to = r->next + 1 == job->nblocks && job->end ? obd_min_u64(job->end, end - start) : end - start;
	if (from >= to)
		stress_fail("job for bytes %llu to %llu of a block", (unsigned long long)from, (unsigned long long)to);
	if (r->done == 0) {
		own(l, job->frame[r->next]);
		obd_fetch_begin(&l->fs, job, r->next);
	}
	uint64_t until = obd_min_u64(to, from + r->done + 512 + stress_random(&l->rnd) % 16384 / 8 * 8);
	stress_write((uint64_t *)(void *)obd_fetch_data(&l->fs, job, r->next), job, start, from + r->done, until);
	r->done = until - from;
	if (until < to)
		return;
	disown(l, job->frame[r->next]);
	if (from == 0 && to == end - start)
		obd_fetch_valid(&l->fs, job, r->next, (uint32_t)until);
	else
		obd_fetch_part(&l->fs, job, r->next, (uint32_t)from, (uint32_t)until);
	atomic_fetch_add_explicit(&l->a->w->sh->fills, 1, memory_order_relaxed);
	r->next++;
	r->done = 0;
}

static void begin(struct life *l, struct run *r)
{
	struct obd_layer_brief layer;
	static const int errors[] = {EAGAIN, ECONNRESET, EBADMSG};
	r->live = true;
	r->next = 0;
	r->done = 0;
	if (obd_catalog_layer_brief(&l->fs.seg[0], r->job.layer_slot, r->job.layer_uid, &layer))
		finish(l, r, ESTALE);
	else if (stress_random(&l->rnd) % 200 == 0)
		finish(l, r, errors[stress_random(&l->rnd) % 3]);
	else
		check_raw(l, &r->job);
}

static bool take(struct life *l)
{
	for (uint32_t i = 0; i < RUNNING; i++)
		if (!l->run[i].live) {
			if (!obd_fetch_next(&l->fs, &l->run[i].job))
				return false;
			begin(l, &l->run[i]);
			return true;
		}
	return false;
}

static bool work(struct life *l)
{
	bool did = take(l);
	for (uint32_t i = 0; i < RUNNING && !stress_stopped(l->a); i++)
		if (l->run[i].live) {
			did = true;
			if (stress_random(&l->rnd) % 3)
				step(l, &l->run[i]);
		}
	return did;
}

static void nap(struct life *l)
{
	struct obd_proc *proc = &l->fs.own->proc;
	struct pollfd p = {.fd = l->fs.seg->bell_fetcher[l->a->index], .events = POLLIN};
	obd_sleep_announce(proc);
	if (!obd_fetch_has_work(&l->fs) && poll(&p, 1, NEVER_MS) == 0 && obd_fetch_has_work(&l->fs) && !stress_stopped(l->a))
		stress_fail("fetcher %u was not woken", l->a->index);
	obd_sleep_cancel(proc);
	obd_bell_drain(p.fd);
}

void stress_fetch_run(struct stress_actor *a)
{
	struct life *l = calloc(1, sizeof *l);
	if (!l)
		stress_fail("out of memory");
	l->a = a;
	l->rnd = a->seed;
	obd_fetch_attach(&l->fs, &a->w->seg, a->index, a->incarnation);
	while (!stress_stopped(a))
		if (!work(l))
			nap(l);
	free(l);
}
