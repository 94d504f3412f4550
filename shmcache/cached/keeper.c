/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The disk tier's state (doc/architecture.md 4.14), and the thread that works on its directory.
 *
 * The loop decides, from what fetchers and the thread say; it alone writes table.disk. One order to the thread at a time: check
 * the directory (and try to write, where that failed), measure, make room. A thread that does not come back is a disk that
 * hangs: the tier is off until it does.
 *
 * If cached dies: the state in the table stays as it is until the next one has looked.
 */
#include "shmcache/cached/keeper.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "common/base/util.h"
#include "common/config/config.h"
#include "shmcache/cached/cached.h"

#define TURN_NS (250 * OBD_MS_NS)
#define IDLE_NS (5 * OBD_SECOND_NS) /* between looks while nothing is written: others fill disks too */
#define HUNG_NS (30 * OBD_SECOND_NS)
#define FIRST_WORD_NS (500 * OBD_MS_NS)
#define RETRY_FIRST_NS (5 * OBD_SECOND_NS)
#define RETRY_LAST_NS (60 * OBD_SECOND_NS)
#define CALM_NS (600 * OBD_SECOND_NS) /* the same trouble again within this time is no second warning */

struct obd_keeper {
	struct obd_keeper_limits limits;
	char *dir;
	struct obd_loop_timer *timer;
	/* the loop's */
	uint64_t seen_looks;
	uint64_t seen_evictions;
	uint64_t seen_written; /* by fetchers, when the last order was given */
	uint64_t ordered_ns;   /* the order under way; 0: none */
	uint64_t next_ns;
	uint64_t retry_ns; /* how long to wait before writing is tried again */
	int warned_err;
	uint64_t warned_ns;
	/* the mailbox; under the lock */
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool order;
	bool try_writing;
	bool stop;
	uint64_t looks; /* counts words of the thread */
	bool last;	/* the word was the last of its order */
	struct obd_keeper_look look;
};

/* --- the thread --------------------------------------------------------------------------------------------------------- */

static void say(struct obd_keeper *k, const struct obd_keeper_look *look, bool last)
{
	pthread_mutex_lock(&k->lock);
	k->look = *look;
	k->last = last;
	k->looks++;
	pthread_cond_broadcast(&k->changed);
	pthread_mutex_unlock(&k->lock);
}

/* False: the end. */
static bool next_order(struct obd_keeper *k, bool *try_writing)
{
	pthread_mutex_lock(&k->lock);
	while (!k->order && !k->stop)
		pthread_cond_wait(&k->changed, &k->lock);
	*try_writing = k->try_writing;
	k->order = false;
	bool go_on = !k->stop;
	pthread_mutex_unlock(&k->lock);
	return go_on;
}

/* Measuring a large cache takes a while, and its blobs can be read before. */
static void *work(void *arg)
{
	struct obd_keeper *k = arg;
	struct obd_keeper_look look = {0};
	bool try_writing, first = true;
	while (next_order(k, &try_writing)) {
		obd_keeper_check(&k->limits, try_writing, &look);
		if (first)
			say(k, &look, false);
		first = false;
		if (!look.err)
			obd_keeper_measure(&k->limits, &look);
		say(k, &look, true);
	}
	return NULL;
}

/* --- the state ---------------------------------------------------------------------------------------------------------- */

static enum obd_disk_state state_of(const struct cached *c)
{
	return (enum obd_disk_state)obd_word_state(obd_load_relaxed(&c->seg.table->disk.word));
}

static uint64_t epoch_of(const struct cached *c)
{
	return obd_word_seq(obd_load_relaxed(&c->seg.table->disk.word));
}

static void enter(struct cached *c, enum obd_disk_state state, int err)
{
	struct obd_table_disk *t = &c->seg.table->disk;
	obd_store_relaxed(&t->err, (uint32_t)err);
	obd_store_release(&t->word, obd_word(epoch_of(c) + 1, state)); /* edge: disk-epoch */
}

/* told: the supervisor has said it already. */
static void complain(struct cached *c, enum obd_disk_state state, int err, const char *what, bool told)
{
	struct obd_keeper *k = c->keeper;
	uint64_t now = obd_clock_ns();
	bool again = told || (err == k->warned_err && now - k->warned_ns < CALM_NS);
	obd_log(again ? OBD_LOG_INFO : OBD_LOG_WARN, "disk cache %s: %s: %s%s%s; serving goes on", k->dir,
		state == OBD_DISK_OFF ? "off" : "nothing is added", strerror(err), what[0] ? ": " : "", what);
	if (!again)
		k->warned_ns = now;
	k->warned_err = err;
}

/* Trouble: the tier is off, or read-only, and is tried again later and later. */
static void fail(struct cached *c, enum obd_disk_state state, int err, const char *what, bool told)
{
	struct obd_keeper *k = c->keeper;
	if (state_of(c) == state && obd_load_relaxed(&c->seg.table->disk.err) == (uint32_t)err) {
		k->retry_ns = obd_min_u64(2 * k->retry_ns, RETRY_LAST_NS);
	} else {
		bool known = k->retry_ns && err == k->warned_err;
		k->retry_ns = known ? obd_min_u64(2 * k->retry_ns, RETRY_LAST_NS) : RETRY_FIRST_NS;
		enter(c, state, err);
		complain(c, state, err, what, told);
	}
	k->next_ns = obd_clock_ns() + k->retry_ns;
}

static void work_again(struct cached *c)
{
	struct obd_keeper *k = c->keeper;
	bool was_in_trouble = k->warned_err != 0;
	if (state_of(c) != OBD_DISK_ON) {
		enter(c, OBD_DISK_ON, 0);
		obd_log(was_in_trouble ? OBD_LOG_INFO : OBD_LOG_DEBUG, "disk cache %s: in use", k->dir);
	} else if (obd_clock_ns() - k->warned_ns > CALM_NS) {
		k->retry_ns = 0; /* it has worked for long enough */
	}
}

static bool only_writing(int err)
{
	return err == ENOSPC || err == EDQUOT || err == EROFS;
}

static void hear_fetchers(struct cached *c)
{
	for (uint32_t f = 0; f < c->seg.geo.nfetchers; f++) {
		uint64_t fault = obd_load_relaxed(&c->seg.fetcher[f]->disk_fault);
		int err = (int)(fault & 0xfff);
		if (fault >> 16 != epoch_of(c) || !err || state_of(c) < OBD_DISK_ON)
			continue;
		fail(c, only_writing(err) ? OBD_DISK_READ_ONLY : OBD_DISK_OFF, err, "", false);
	}
}

/* --- the thread's words ------------------------------------------------------------------------------------------------- */

static void publish(struct cached *c, const struct obd_keeper_look *look)
{
	struct obd_table_disk *t = &c->seg.table->disk;
	struct obd_keeper *k = c->keeper;
	obd_store_relaxed(&t->used_bytes, look->used_bytes);
	obd_store_relaxed(&t->free_bytes, look->free_bytes);
	obd_store_relaxed(&t->blobs, look->blobs);
	obd_store_relaxed(&t->room_bytes, look->room_bytes / c->seg.geo.nfetchers);
	obd_store_relaxed(&t->look, obd_load_relaxed(&t->look) + 1);
	obd_count(&c->seg.table->proc, disk_evictions, look->evictions - k->seen_evictions);
	k->seen_evictions = look->evictions;
}

/* A state that a fetcher's fault brought about ends only when writing was tried. */
static void judge(struct cached *c, const struct obd_keeper_look *look, bool tried)
{
	if (look->err) {
		obd_count(&c->seg.table->proc, disk_errors, 1);
		fail(c, OBD_DISK_OFF, look->err, look->what, look->told);
	} else if (look->write_err) {
		if (state_of(c) != OBD_DISK_READ_ONLY)
			obd_count(&c->seg.table->proc, disk_errors, 1);
		fail(c, OBD_DISK_READ_ONLY, look->write_err, look->what, false);
	} else if (tried || state_of(c) == OBD_DISK_ON) {
		work_again(c);
	}
}

/* True: there was a word. */
static bool hear_thread(struct cached *c)
{
	struct obd_keeper *k = c->keeper;
	pthread_mutex_lock(&k->lock);
	bool news = k->looks != k->seen_looks;
	struct obd_keeper_look look = k->look;
	bool last = k->last, tried = k->try_writing;
	k->seen_looks = k->looks;
	pthread_mutex_unlock(&k->lock);
	if (!news)
		return false;
	if (last) {
		k->ordered_ns = 0;
		publish(c, &look);
	}
	judge(c, &look, tried);
	return true;
}

static uint64_t written(const struct cached *c)
{
	uint64_t sum = 0;
	for (uint32_t f = 0; f < c->seg.geo.nfetchers; f++)
		sum += obd_load_relaxed(&c->seg.fetcher[f]->proc.counters[OBD_C_disk_bytes_written]);
	return sum;
}

static void order(struct cached *c)
{
	struct obd_keeper *k = c->keeper;
	k->seen_written = written(c);
	k->ordered_ns = obd_clock_ns();
	k->next_ns = k->ordered_ns + IDLE_NS;
	pthread_mutex_lock(&k->lock);
	k->order = true;
	k->try_writing = state_of(c) != OBD_DISK_ON;
	pthread_cond_broadcast(&k->changed);
	pthread_mutex_unlock(&k->lock);
}

static void turn(void *arg)
{
	struct cached *c = arg;
	struct obd_keeper *k = c->keeper;
	uint64_t now = obd_clock_ns();
	hear_fetchers(c);
	(void)hear_thread(c);
	if (k->ordered_ns && now - k->ordered_ns > HUNG_NS && state_of(c) != OBD_DISK_OFF)
		fail(c, OBD_DISK_OFF, ETIMEDOUT, "", false);
	bool busy = state_of(c) == OBD_DISK_ON && written(c) != k->seen_written;
	if (!k->ordered_ns && (busy || now >= k->next_ns))
		order(c);
	obd_loop_timer_set(k->timer, now + TURN_NS);
}

/* --- life --------------------------------------------------------------------------------------------------------------- */

/* OBD_TEST_DISK=SIZE:RESERVE, in bytes: tests have small disks. */
static void set_limits(struct cached *c, struct obd_keeper *k)
{
	const char *test = getenv("OBD_TEST_DISK");
	k->limits = (struct obd_keeper_limits){
		.dir = k->dir, .size_bytes = (uint64_t)c->d->config->cache_size_gb << 30, .reserve_bytes = UINT64_C(1) << 30};
	if (test && sscanf(test, "%" SCNu64 ":%" SCNu64, &k->limits.size_bytes, &k->limits.reserve_bytes) == 2)
		obd_info("disk cache %s: OBD_TEST_DISK: %s", k->dir, test);
	obd_store_relaxed(&c->seg.table->disk.limit_bytes, k->limits.size_bytes);
}

static int start_thread(struct obd_keeper *k)
{
	sigset_t all, old;
	sigfillset(&all);
	pthread_mutex_init(&k->lock, NULL);
	pthread_condattr_t monotonic; /* a clock that is set must not hold us up */
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&k->changed, &monotonic);
	pthread_condattr_destroy(&monotonic);
	pthread_sigmask(SIG_SETMASK, &all, &old); /* signals are the loop's */
	int rc = pthread_create(&k->thread, NULL, work, k);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return rc;
}

static void wait_for_first_word(struct obd_keeper *k)
{
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += (long)FIRST_WORD_NS;
	until.tv_sec += until.tv_nsec / (long)OBD_SECOND_NS;
	until.tv_nsec %= (long)OBD_SECOND_NS;
	pthread_mutex_lock(&k->lock);
	while (!k->looks && pthread_cond_timedwait(&k->changed, &k->lock, &until) == 0)
		;
	pthread_mutex_unlock(&k->lock);
}

static struct obd_keeper *keeper_new(struct cached *c)
{
	struct obd_keeper *k = calloc(1, sizeof *k);
	if (!k)
		return NULL;
	k->dir = strdup(c->d->config->cache_dir);
	k->timer = obd_loop_timer_new(c->d->loop, turn, c);
	if (k->dir && k->timer && start_thread(k) == 0)
		return k;
	obd_loop_timer_free(k->timer);
	free(k->dir);
	free(k);
	return NULL;
}

void obd_keeper_start(struct cached *c)
{
	if (c->d->config->cache_size_gb == 0) {
		enter(c, OBD_DISK_NONE, 0);
		return;
	}
	c->keeper = keeper_new(c);
	if (!c->keeper) {
		enter(c, OBD_DISK_OFF, ENOMEM);
		obd_warn("disk cache %s: off: no memory", c->d->config->cache_dir);
		return;
	}
	set_limits(c, c->keeper);
	order(c);
	wait_for_first_word(c->keeper);
	if (!hear_thread(c)) /* whatever a predecessor thought of it */
		enter(c, OBD_DISK_OFF, EINPROGRESS);
	obd_loop_timer_set(c->keeper->timer, obd_clock_ns());
}

void obd_keeper_stop(struct cached *c)
{
	struct obd_keeper *k = c->keeper;
	struct timespec until;
	if (!k)
		return;
	pthread_mutex_lock(&k->lock);
	k->stop = true;
	pthread_cond_broadcast(&k->changed);
	pthread_mutex_unlock(&k->lock);
	obd_loop_timer_free(k->timer);
	c->keeper = NULL;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 1;
	if (pthread_timedjoin_np(k->thread, NULL, &until)) /* the disk holds it, and it holds this memory */
		return;
	free(k->dir);
	free(k);
}
