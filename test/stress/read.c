/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A reader: copies runs of blocks, asks for what is missing, checks every byte, gives up now and then. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/util.h"
#include "shmcache/reader.h"
#include "test/stress/stress.h"

enum { RUN_MAX = 31, NEVER_MS = 3000, ROUNDS_MAX = 5000, ANSWER_SEC = 40 };

struct life;

struct ask {
	struct life *l;
	uint32_t first, count;
	int slot; /* -1: answered */
};

/* One read: blocks [block, block + n) of a layer. */
struct life {
	struct stress_actor *a;
	struct obd_reader r;
	uint64_t rnd;
	uint32_t slot, uid, block, n;
	bool raw;
	uint32_t have; /* bit i: block + i was seen */
	bool failed;
	uint32_t nasks, open;
	struct ask ask[RUN_MAX];
	uint64_t buf[STRESS_BLOCK / 8];
};

/* 0, or -EAGAIN. */
static int look(struct life *l, uint32_t block)
{
	uint64_t start, end;
	if (!stress_range(l->raw, block, &start, &end))
		stress_fail("no block %u", block);
	uint32_t off = (uint32_t)(stress_random(&l->rnd) % ((end - start) / 8)) * 8;
	uint32_t len = (uint32_t)obd_min_u64(end - start - off, 8 + stress_random(&l->rnd) % STRESS_BLOCK / 8 * 8);
	int rc = obd_reader_copy(&l->r, l->slot, l->uid, l->raw, block, off, len, l->buf);
	if (rc == -EAGAIN)
		return rc;
	if (rc)
		stress_fail("block %u of layer %u is too short", block, l->uid);
	for (uint32_t i = 0; i < len; i += 8)
		if (l->buf[i / 8] != stress_pattern(l->uid, l->raw, start + off + i))
			stress_fail("block %u (raw %d) of layer %u is wrong at %u", block, l->raw, l->uid, off + i);
	atomic_fetch_add_explicit(&l->a->w->sh->verified, 1, memory_order_relaxed);
	return 0;
}

static void answered(void *arg, void *cookie, int err)
{
	struct ask *k = cookie;
	struct life *l = arg;
	k->slot = -1;
	l->open--;
	if (err) {
		bool gone = stress_layer_uid(l->a->w, l->slot) != l->uid;
		if (err != EBADMSG && err != EIO && !(err == ESTALE && gone))
			stress_fail("request failed: %s", strerror(err));
		atomic_fetch_add_explicit(&l->a->w->sh->errors, 1, memory_order_relaxed);
		l->failed = true;
		return;
	}
	for (uint32_t i = k->first; i < k->first + k->count; i++) {
		if (look(l, l->block + i) == 0)
			l->have |= 1u << i;
		else
			atomic_fetch_add_explicit(&l->a->w->sh->evicted_early, 1, memory_order_relaxed);
	}
}

/* Some bytes, from somewhere in the first of the blocks to somewhere in the last. */
static struct obd_part some_part(struct life *l, uint32_t block, uint32_t count)
{
	uint64_t start, end;
	if (!stress_range(false, block, &start, &end))
		stress_fail("no block %u", block);
	uint32_t begin = (uint32_t)(stress_random(&l->rnd) % ((end - start) / 8)) * 8;
	uint32_t behind = count == 1 ? begin : 0;
	uint32_t until = behind + 8 + (uint32_t)(stress_random(&l->rnd) % ((STRESS_BLOCK - behind) / 8)) * 8;
	return (struct obd_part){begin, until > STRESS_BLOCK ? 0 : until};
}

static void post(struct life *l, uint32_t first, uint32_t count)
{
	struct ask *k = &l->ask[l->nasks++];
	enum obd_job_kind kind = count == 0 ? OBD_JOB_PROBE : l->raw ? OBD_JOB_RAW : OBD_JOB_BLOCKS;
	*k = (struct ask){.l = l, .first = first, .count = count};
	enum obd_req_prio prio = first & 1 ? OBD_REQ_PREFETCH : OBD_REQ_DEMAND;
	struct obd_part need = {0, 0};
	if (kind == OBD_JOB_BLOCKS && stress_random(&l->rnd) % 3 == 0) {
		need = some_part(l, l->block + first, count);
		prio = stress_random(&l->rnd) % 4 ? OBD_REQ_PREFETCH : OBD_REQ_DEMAND;
	}
	k->slot =
		obd_reader_post_part(&l->r, kind, l->slot, l->uid, l->block + first, count, need, obd_flow(first % 3, prio), k);
	if (k->slot < 0)
		l->nasks--; /* the ring is full of hints: the next round asks again */
	else
		l->open++;
}

static void post_missing(struct life *l)
{
	l->nasks = 0;
	for (uint32_t i = 0; i < l->n;) {
		uint32_t count = 0;
		while (i + count < l->n && !(l->have >> (i + count) & 1))
			count++;
		if (count)
			post(l, i, count);
		i += count + 1;
	}
	if (stress_random(&l->rnd) % 16 == 0 && l->nasks < RUN_MAX)
		post(l, 0, 0);
	obd_reader_kick(&l->r);
}

static void cancel(struct life *l)
{
	for (uint32_t i = 0; i < l->nasks; i++)
		if (l->ask[i].slot >= 0)
			obd_reader_cancel(&l->r, l->ask[i].slot);
	l->open = 0;
	atomic_fetch_add_explicit(&l->a->w->sh->cancels, 1, memory_order_relaxed);
}

static void nap(struct life *l)
{
	struct obd_proc *proc = &l->r.own->proc;
	struct pollfd p = {.fd = l->r.seg->bell_client[l->a->index], .events = POLLIN};
	obd_sleep_announce(proc);
	if (!obd_reader_has_answer(&l->r) && poll(&p, 1, NEVER_MS) == 0 && obd_reader_has_answer(&l->r) &&
	    !stress_stopped(l->a))
		stress_fail("reader %u was not woken", l->a->index);
	obd_sleep_cancel(proc);
	obd_bell_drain(p.fd);
}

static void wait(struct life *l)
{
	uint64_t end = obd_clock_ns() + ANSWER_SEC * OBD_SECOND_NS;
	while (l->open && !stress_stopped(l->a)) {
		if (stress_random(&l->rnd) % 200 == 0 && !l->a->w->opt.quiet) {
			cancel(l);
			return;
		}
		if (obd_reader_poll(&l->r, 64, answered, l))
			continue;
		nap(l);
		if (l->open && obd_clock_ns() > end)
			stress_fail("reader %u waits for an answer in vain", l->a->index);
	}
}

static void choose(struct life *l)
{
	do {
		l->slot = (uint32_t)(stress_random(&l->rnd) % STRESS_LAYERS);
		l->uid = stress_layer_uid(l->a->w, l->slot);
	} while (!l->uid);
	l->raw = stress_random(&l->rnd) % 4 == 0;
	uint64_t start, end;
	uint32_t blocks = l->raw ? 20 : STRESS_FILE / STRESS_BLOCK + 1;
	if (stress_random(&l->rnd) % 2) { /* go on reading forward */
		l->block = (l->block + l->n) % blocks;
	} else {
		l->block = (uint32_t)(stress_random(&l->rnd) % blocks);
	}
	l->n = 1 + (uint32_t)(stress_random(&l->rnd) % l->a->w->opt.blocks);
	while (!stress_range(l->raw, l->block + l->n - 1, &start, &end))
		l->n--;
	l->have = 0;
	l->failed = false;
}

static void read_run(struct life *l)
{
	choose(l);
	for (uint32_t round = 0; !l->failed && !stress_stopped(l->a); round++) {
		if (round == ROUNDS_MAX)
			stress_fail("reader %u gets nowhere", l->a->index);
		for (uint32_t i = 0; i < l->n; i++)
			if (!(l->have >> i & 1) && look(l, l->block + i) == 0)
				l->have |= 1u << i;
		if (l->have == (1u << l->n) - 1)
			break;
		post_missing(l);
		wait(l);
	}
	if (l->open)
		cancel(l);
	atomic_fetch_add_explicit(&l->a->w->sh->ops, 1, memory_order_relaxed);
}

void stress_read_run(struct stress_actor *a)
{
	struct life *l = calloc(1, sizeof *l);
	if (!l)
		stress_fail("out of memory");
	l->a = a;
	l->rnd = a->seed;
	obd_reader_attach(&l->r, &a->w->seg, a->index, OBD_ROLE_FRONTEND, a->incarnation);
	while (!stress_stopped(a) && !obd_load_relaxed(&a->w->sh->finish))
		read_run(l);
	free(l);
}
