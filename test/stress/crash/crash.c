/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * obd-cached dies after every single store. Its files are compiled with hook.h here. Whenever the frames, buckets or jobs of
 * the table have changed, a copy of the table is adopted as the next cached would do, and audited; now and then cached really
 * ends there, in the middle of whatever it did, and the script goes on with the next one. The script is one client, and
 * fetchers that work, fail and die. One thread.
 */
#include <errno.h>
#include <getopt.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "common/base/clock.h"
#include "shmcache/fetchside.h"
#include "shmcache/reader.h"
#include "test/stress/crash/hook.h"
#include "test/stress/stress.h"

enum { JOBS_WATCHED = 8, CLIENT = 1, RUNS = 64, LIFE = 3000, DEATHS_MAX = 1000 };
enum order { ORDER_TURN, ORDER_REAPED, ORDER_CLIENT_UP, ORDER_BIRTH };

/* The part of the table that is compared at every step. */
struct watched {
	uint64_t next_generation;
	uint32_t admitted[STRESS_FETCHERS_MAX];
	struct obd_job job[STRESS_FETCHERS_MAX][JOBS_WATCHED];
	unsigned char frames[]; /* descriptors and buckets */
};

struct crash {
	struct stress_world *w;
	struct cached *c;
	struct obd_daemon d;
	jmp_buf dead;
	bool busy; /* what is stored now is not the living cached's */
	size_t watched_bytes, frames_bytes;
	struct watched *now, *before;
	struct stress_world copy; /* of w; its table is private */
	uint64_t stores, changes, deaths;
	struct obd_reader reader;
	struct obd_fetchside fs[STRESS_FETCHERS_MAX];
	struct obd_fetch_job run[STRESS_FETCHERS_MAX][RUNS];
	uint64_t begun[STRESS_FETCHERS_MAX][RUNS];
	bool running[STRESS_FETCHERS_MAX][RUNS];
};

static struct crash *crash;
static struct cached *graves[DEATHS_MAX]; /* whose memory cannot be given back: it died in the middle */

/* --- the next cached ------------------------------------------------------------------------------------------------------ */

static void watch(const struct crash *k, struct watched *out)
{
	const struct obd_table *t = k->w->seg.table;
	out->next_generation = obd_load_relaxed(&t->next_generation);
	for (uint32_t f = 0; f < k->w->opt.fetchers; f++) {
		out->admitted[f] = obd_load_relaxed(&t->fetcher[f].admitted);
		memcpy((void *)out->job[f], (const void *)t->fetcher[f].job, sizeof out->job[f]);
	}
	memcpy(out->frames, (const void *)k->w->seg.frame, k->frames_bytes);
}

/* Whoever writes a frame writes it still; nobody else may get it. */
static void check_writers(const struct crash *k)
{
	for (uint32_t f = 0; f < k->w->opt.fetchers; f++)
		for (uint32_t r = 0; r < RUNS; r++) {
			const struct obd_fetch_job *job = &k->run[f][r];
			for (uint32_t i = 0; k->running[f][r] && i < job->nblocks; i++) {
				const struct obd_frame *fr = &k->copy.seg.frame[job->frame[i]];
				if (!(job->settled >> i & 1) && (obd_load_relaxed(&fr->state) != OBD_FRAME_FILLING ||
								 obd_load_relaxed(&fr->generation) != job->generation[i]))
					stress_fail("frame %u is taken from fetcher %u, which writes it", job->frame[i], f);
			}
		}
}

static void copy_part(struct crash *k, const void *part, size_t bytes)
{
	memcpy((char *)k->copy.seg.table + ((const char *)part - (const char *)k->w->seg.table), part, bytes);
}

/* All that is used of it; most is room for clients and fetchers that there are not. */
static void copy_table(struct crash *k)
{
	const struct obd_table *t = k->w->seg.table;
	copy_part(k, t, offsetof(struct obd_table, client));
	copy_part(k, &t->client[CLIENT], sizeof t->client[CLIENT]);
	copy_part(k, t->fetcher, k->w->opt.fetchers * sizeof t->fetcher[0]);
	copy_part(k, k->w->seg.frame, k->frames_bytes);
}

static void adopt_copy(struct crash *k)
{
	struct obd_daemon d = {.loop = obd_loop_new(), .config = &k->w->cfg};
	struct obd_segment *seg = &k->copy.seg;
	copy_table(k);
	stress_audit_table(seg);
	struct cached *c = stress_cached_new(&k->copy, &d);
	stress_audit_cached(c);
	check_writers(k);
	if (obd_client_up(c, CLIENT, 1))
		stress_fail("the client cannot be served");
	obd_jobs_pump(c);
	stress_audit_cached(c);
	check_writers(k);
	stress_cached_free(c);
	obd_loop_free(d.loop);
}

/* --- deaths --------------------------------------------------------------------------------------------------------------- */

static uint32_t chance(struct crash *k, uint32_t n)
{
	return (uint32_t)(stress_random(&k->w->rnd) % n);
}

void stress_stored(void)
{
	struct crash *k = crash;
	if (!k || k->busy)
		return;
	k->stores++;
	watch(k, k->now);
	if (memcmp(k->now, k->before, k->watched_bytes) != 0) {
		struct watched *old = k->before;
		k->before = k->now;
		k->now = old;
		k->changes++;
		k->busy = true;
		adopt_copy(k);
		k->busy = false;
	}
	if (chance(k, LIFE) == 0 && k->deaths < DEATHS_MAX)
		longjmp(k->dead, 1);
}

static void obey(struct crash *k, enum order what, uint32_t index, uint32_t arg)
{
	struct cached *c = k->c;
	switch (what) {
	case ORDER_BIRTH:
		k->d = (struct obd_daemon){.loop = obd_loop_new(), .config = &k->w->cfg};
		k->c = stress_cached_new(k->w, &k->d);
		break;
	case ORDER_REAPED:
		obd_jobs_reaped(c, index, arg);
		break;
	case ORDER_CLIENT_UP:
		(void)obd_client_up(c, CLIENT, 1);
		break;
	default:
		obd_clients_poll(c);
		obd_jobs_poll(c);
		obd_misses_turn(c);
		obd_jobs_pump(c);
		obd_jobs_wake(c);
		obd_clients_wake(c);
	}
}

/* False: it died of it. */
static bool order(struct crash *k, enum order what, uint32_t index, uint32_t arg)
{
	bool lived = setjmp(k->dead) == 0;
	k->busy = false;
	if (lived)
		obey(k, what, index, arg);
	k->busy = true;
	if (!lived)
		graves[k->deaths++] = k->c;
	return lived;
}

static bool born(struct crash *k)
{
	bool lives = order(k, ORDER_BIRTH, 0, 0);
	for (uint32_t f = 0; lives && f < k->w->opt.fetchers; f++)
		if (k->fs[f].incarnation)
			lives = order(k, ORDER_REAPED, f, k->fs[f].incarnation - 1);
	return lives && order(k, ORDER_CLIENT_UP, 0, 0);
}

/* What it is told until it has done it, by as many of them as it takes. */
static void command(struct crash *k, enum order what, uint32_t index, uint32_t arg)
{
	if (order(k, what, index, arg))
		return;
	while (!born(k))
		;
	if (what == ORDER_REAPED)
		command(k, what, index, arg);
}

/* --- the script ----------------------------------------------------------------------------------------------------------- */

static void answered(void *arg, void *cookie, int err)
{
	(void)arg;
	(void)cookie;
	(void)err;
}

static void client_acts(struct crash *k)
{
	uint32_t slot = chance(k, STRESS_LAYERS);
	obd_reader_poll(&k->reader, chance(k, 4), answered, NULL);
	int r = obd_reader_post(&k->reader, chance(k, 8) ? OBD_JOB_BLOCKS : OBD_JOB_RAW, slot, stress_layer_uid(k->w, slot),
				chance(k, 12), 1 + chance(k, 6), obd_flow(chance(k, 3), (enum obd_req_prio)chance(k, 2)), k);
	if (r >= 0 && chance(k, 6) == 0)
		obd_reader_cancel(&k->reader, r);
}

static void run_acts(struct crash *k, uint32_t f, uint32_t r)
{
	struct obd_fetch_job *job = &k->run[f][r];
	uint32_t i = chance(k, job->nblocks + 2);
	uint64_t bit = UINT64_C(1) << i;
	if (i >= job->nblocks) {
		obd_fetch_done(&k->fs[f], job, chance(k, 2) ? EAGAIN : 0, NULL);
		k->running[f][r] = false;
	} else if (!(job->settled & bit)) {
		if (!(k->begun[f][r] & bit))
			obd_fetch_begin(&k->fs[f], job, i);
		else
			obd_fetch_valid(&k->fs[f], job, i, STRESS_BLOCK);
		k->begun[f][r] |= bit;
	}
}

static void fetcher_acts(struct crash *k, uint32_t f)
{
	for (uint32_t r = 0; r < RUNS; r++) {
		if (k->running[f][r]) {
			for (uint32_t n = chance(k, 12); n && k->running[f][r]; n--)
				run_acts(k, f, r);
		} else if (obd_fetch_next(&k->fs[f], &k->run[f][r])) {
			k->running[f][r] = true;
			k->begun[f][r] = 0;
		}
	}
}

/* It may be told before or after the next one has begun. */
static void fetcher_dies(struct crash *k, uint32_t f)
{
	uint32_t incarnation = k->fs[f].incarnation;
	bool first = chance(k, 2);
	memset(k->running[f], 0, sizeof k->running[f]);
	if (first)
		obd_fetch_attach(&k->fs[f], &k->w->seg, f, incarnation + 1);
	command(k, ORDER_REAPED, f, incarnation);
	if (!first)
		obd_fetch_attach(&k->fs[f], &k->w->seg, f, incarnation + 1);
}

static void round_of(struct crash *k)
{
	client_acts(k);
	for (uint32_t f = 0; f < k->w->opt.fetchers; f++)
		fetcher_acts(k, f);
	if (chance(k, 10) == 0)
		fetcher_dies(k, chance(k, k->w->opt.fetchers));
	command(k, ORDER_TURN, 0, 0);
}

static void *pages(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		stress_fail("mmap: %s", strerror(errno));
	return p;
}

static void prepare(struct crash *k, struct stress_world *w)
{
	const struct obd_segment *seg = &w->seg;
	k->w = w;
	k->frames_bytes = (size_t)((char *)&seg->bucket[seg->geo.nbuckets] - (char *)seg->frame);
	k->watched_bytes = sizeof *k->now + k->frames_bytes;
	k->now = calloc(1, k->watched_bytes);
	k->before = calloc(1, k->watched_bytes);
	k->copy = *w;
	k->copy.seg.table = pages(seg->geo.table_bytes);
	char *base = (char *)k->copy.seg.table;
	k->copy.seg.frame = (void *)(base + ((char *)seg->frame - (char *)seg->table));
	k->copy.seg.bucket = (void *)(base + ((char *)seg->bucket - (char *)seg->table));
	if (!k->now || !k->before)
		stress_fail("out of memory");
}

static void script(struct crash *k)
{
	struct stress_world *w = k->w;
	uint64_t end = obd_clock_ns() + w->opt.seconds * OBD_SECOND_NS, rounds = 0;
	for (uint32_t f = 0; f < w->opt.fetchers; f++)
		obd_fetch_attach(&k->fs[f], &w->seg, f, 0);
	obd_reader_attach(&k->reader, &w->seg, CLIENT, OBD_ROLE_FRONTEND, 1);
	k->busy = true;
	crash = k;
	while (!born(k))
		;
	for (; obd_clock_ns() < end; rounds++)
		round_of(k);
	stress_audit_cached(k->c);
	printf("crash: seed %llu: %llu rounds, a look after each of %llu stores, %llu different tables adopted, %llu deaths\n",
	       (unsigned long long)w->opt.seed, (unsigned long long)rounds, (unsigned long long)k->stores,
	       (unsigned long long)k->changes, (unsigned long long)k->deaths);
}

int main(int argc, char **argv)
{
	static struct stress_world w; /* static: what died in the middle stays in reach of the leak check */
	static struct crash k;
	int opt;
	w.opt = (struct stress_options){.seconds = 5, .seed = 1, .readers = CLIENT, .fetchers = 2, .frames = 16};
	while ((opt = getopt(argc, argv, "t:s:n:")) != -1) {
		unsigned long v = strtoul(optarg ? optarg : "", NULL, 0);
		if (opt == 't')
			w.opt.seconds = (unsigned int)v;
		else if (opt == 's')
			w.opt.seed = v;
		else if (opt == 'n' && v >= 8 && v <= 4096)
			w.opt.frames = (uint32_t)v;
		else
			return 2;
	}
	w.rnd = w.opt.seed;
	if (obd_config_defaults(&w.cfg))
		return 1;
	stress_segment_make(&w);
	prepare(&k, &w);
	script(&k);
	return 0;
}
