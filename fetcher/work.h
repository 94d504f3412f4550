/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Threads for disk work that may block for ever: a loop hands over an item and hears of it once, in time.
 *
 *   submit ──► waits ──► run, on a thread ──► done(item, 0) on the loop ──► drop(item)
 *            │    └─ no pulse for the item's limit ──► done(item, ETIMEDOUT) … run returns at last ──► drop(item)
 *            └─ not begun within its limit ──► done(item, EAGAIN) ──► drop(item)
 *
 * The item's memory is the thread's from submit to drop but for what done says: after ETIMEDOUT its owner forgets it. drop is
 * called exactly once and frees it. Items begin in order of submission, as many at once as there are threads; an item that
 * stays in a hung directory keeps its thread, and when all threads are kept the others' limits pass while they wait: EAGAIN,
 * for nothing is known against what they would have done.
 *
 * Everything but run is called on the loop's thread.
 */
#ifndef OBD_FETCHER_WORK_H
#define OBD_FETCHER_WORK_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/atomic.h"
#include "common/base/list.h"
#include "common/daemon/loop.h"

struct obd_work;

struct obd_work_item {
	void (*run)(struct obd_work_item *item);
	void (*done)(struct obd_work_item *item, int err); /* 0, ETIMEDOUT or EAGAIN */
	void (*drop)(struct obd_work_item *item);
	uint64_t limit_ns;	/* 0: none */
	_Atomic uint32_t pulse; /* run adds to it: it still gets on */
	/* the pool's */
	struct obd_work *work;
	struct obd_list link;
	uint32_t last_pulse;
	uint64_t due_ns;
	bool told;
};

/* nice: of the threads, over the process's own. NULL with errno set. */
struct obd_work *obd_work_new(struct obd_loop *loop, uint32_t nthreads, int nice);

void obd_work_submit(struct obd_work *work, struct obd_work_item *item);

/* For run: a word that becomes other than 0 when the process ends, and nobody waits for the result. Lives as long as run. */
const _Atomic uint32_t *obd_work_stop_word(const struct obd_work_item *item);

/* Calls nobody's done any more. Drops what waits and what ends within half a second; what hangs beyond that is left as it is,
 * for the end of the process. NULL is allowed. */
void obd_work_free(struct obd_work *work);

#endif
