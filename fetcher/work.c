/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 *   todo ──► running ──► ended         lists, all under one lock; the eventfd says that ended has something
 *
 * told is the loop's: done was called. An item that was told while it ran is dropped when it comes to ended.
 */
#include "fetcher/work.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "common/base/clock.h"

#define LOOK_NS (100 * OBD_MS_NS)
#define STOP_NS (500 * OBD_MS_NS)

struct obd_work {
	struct obd_loop *loop;
	struct obd_loop_timer *timer; /* runs while an item has a limit */
	int event_fd;
	int nice;
	uint32_t nthreads;
	_Atomic uint32_t stop;
	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t more;  /* for threads: todo or stop */
	pthread_cond_t idle;  /* a thread has ended */
	uint32_t alive;
	struct obd_list todo;
	struct obd_list running;
	struct obd_list ended;
};

const _Atomic uint32_t *obd_work_stop_word(const struct obd_work_item *item)
{
	return &item->work->stop;
}

/* --- threads -------------------------------------------------------------------------------------------------------------- */

static void move(struct obd_work_item *item, struct obd_list *to)
{
	obd_list_remove(&item->link);
	obd_list_push_back(to, &item->link);
}

static struct obd_work_item *take(struct obd_work *w)
{
	struct obd_work_item *item = NULL;
	while (obd_list_empty(&w->todo) && !obd_load_relaxed(&w->stop))
		pthread_cond_wait(&w->more, &w->lock);
	if (!obd_load_relaxed(&w->stop)) {
		item = OBD_LIST_ENTRY(w->todo.next, struct obd_work_item, link);
		move(item, &w->running);
	}
	return item;
}

static void *worker(void *arg)
{
	struct obd_work *w = arg;
	struct obd_work_item *item;
	const uint64_t one = 1;
	if (w->nice)
		(void)!setpriority(PRIO_PROCESS, 0, w->nice); /* of this thread alone; a wish */
	pthread_mutex_lock(&w->lock);
	while ((item = take(w))) {
		pthread_mutex_unlock(&w->lock);
		item->run(item);
		pthread_mutex_lock(&w->lock);
		move(item, &w->ended);
		(void)!write(w->event_fd, &one, sizeof one); /* full: readable anyway */
	}
	w->alive--;
	pthread_cond_signal(&w->idle);
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

static int start_thread(struct obd_work *w)
{
	sigset_t all, old;
	pthread_attr_t attr;
	pthread_t thread;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_mutex_lock(&w->lock);
	int rc = pthread_create(&thread, &attr, worker, w);
	w->alive += rc == 0;
	pthread_mutex_unlock(&w->lock);
	pthread_attr_destroy(&attr);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return rc;
}

/* --- the loop's side ------------------------------------------------------------------------------------------------------ */

static void tell(struct obd_work_item *item, int err)
{
	if (item->told)
		return;
	item->told = true;
	item->done(item, err);
}

static struct obd_work_item *pop_ended(struct obd_work *w)
{
	struct obd_work_item *item = NULL;
	pthread_mutex_lock(&w->lock);
	if (!obd_list_empty(&w->ended)) {
		item = OBD_LIST_ENTRY(w->ended.next, struct obd_work_item, link);
		obd_list_remove(&item->link);
	}
	pthread_mutex_unlock(&w->lock);
	return item;
}

static void on_event(int fd, uint32_t events, void *arg)
{
	struct obd_work *w = arg;
	struct obd_work_item *item;
	uint64_t count;
	(void)events;
	(void)!read(fd, &count, sizeof count);
	while ((item = pop_ended(w))) {
		tell(item, 0);
		item->drop(item);
	}
}

/* An item of the list whose limit has passed, or NULL. More due times are set by pulses. */
static struct obd_work_item *find_late(struct obd_list *list, uint64_t now)
{
	OBD_LIST_FOREACH (it, list) {
		struct obd_work_item *item = OBD_LIST_ENTRY(it, struct obd_work_item, link);
		uint32_t pulse = obd_load_relaxed(&item->pulse); /* any change will do */
		if (pulse != item->last_pulse)
			item->due_ns = now + item->limit_ns;
		item->last_pulse = pulse;
		if (item->limit_ns && !item->told && item->due_ns <= now)
			return item;
	}
	return NULL;
}

/* Nobody has begun an item in todo, so it goes at once. */
static bool expire_one(struct obd_work *w, uint64_t now)
{
	pthread_mutex_lock(&w->lock);
	struct obd_work_item *item = find_late(&w->running, now);
	bool queued = false;
	if (!item && (item = find_late(&w->todo, now))) {
		queued = true;
		obd_list_remove(&item->link);
	}
	pthread_mutex_unlock(&w->lock);
	if (!item)
		return false;
	tell(item, queued ? EAGAIN : ETIMEDOUT);
	if (queued)
		item->drop(item);
	return true;
}

static void on_look(void *arg)
{
	struct obd_work *w = arg;
	uint64_t now = obd_clock_ns();
	while (expire_one(w, now))
		;
	pthread_mutex_lock(&w->lock);
	bool busy = !obd_list_empty(&w->todo) || !obd_list_empty(&w->running);
	pthread_mutex_unlock(&w->lock);
	obd_loop_timer_set(w->timer, busy ? now + LOOK_NS : 0);
}

void obd_work_submit(struct obd_work *work, struct obd_work_item *item)
{
	item->work = work;
	item->told = false;
	item->last_pulse = obd_load_relaxed(&item->pulse);
	item->due_ns = obd_clock_ns() + item->limit_ns;
	obd_list_init(&item->link);
	pthread_mutex_lock(&work->lock);
	bool idle = obd_list_empty(&work->todo) && obd_list_empty(&work->running);
	obd_list_push_back(&work->todo, &item->link);
	pthread_cond_signal(&work->more);
	pthread_mutex_unlock(&work->lock);
	if (idle)
		obd_loop_timer_set(work->timer, obd_clock_ns() + LOOK_NS);
}

/* --- life ----------------------------------------------------------------------------------------------------------------- */

struct obd_work *obd_work_new(struct obd_loop *loop, uint32_t nthreads, int nice)
{
	struct obd_work *w = calloc(1, sizeof *w);
	if (!w)
		return NULL;
	*w = (struct obd_work){.loop = loop, .nice = nice, .nthreads = nthreads};
	pthread_condattr_t attr;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->more, NULL);
	pthread_cond_init(&w->idle, &attr);
	pthread_condattr_destroy(&attr);
	obd_list_init(&w->todo);
	obd_list_init(&w->running);
	obd_list_init(&w->ended);
	w->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	w->timer = obd_loop_timer_new(loop, on_look, w);
	int rc = w->event_fd < 0 || !w->timer ? ENOMEM : -obd_loop_watch(loop, w->event_fd, EPOLLIN, on_event, w);
	for (uint32_t i = 0; rc == 0 && i < nthreads; i++)
		rc = start_thread(w);
	if (rc == 0)
		return w;
	obd_work_free(w);
	errno = rc;
	return NULL;
}

static void drop_all(struct obd_list *list)
{
	while (!obd_list_empty(list)) {
		struct obd_work_item *item = OBD_LIST_ENTRY(list->next, struct obd_work_item, link);
		obd_list_remove(&item->link);
		item->drop(item);
	}
}

/* False: some thread hangs. */
static bool stop_threads(struct obd_work *w)
{
	uint64_t until = obd_clock_ns() + STOP_NS;
	const struct timespec at = {.tv_sec = (time_t)(until / OBD_SECOND_NS), .tv_nsec = (long)(until % OBD_SECOND_NS)};
	int rc = 0;
	pthread_mutex_lock(&w->lock);
	obd_store_relaxed(&w->stop, 1);
	pthread_cond_broadcast(&w->more);
	while (w->alive && rc == 0)
		rc = pthread_cond_timedwait(&w->idle, &w->lock, &at);
	bool all = w->alive == 0;
	if (!all) {
		drop_all(&w->todo);
		drop_all(&w->ended);
	}
	pthread_mutex_unlock(&w->lock);
	return all;
}

void obd_work_free(struct obd_work *work)
{
	if (!work)
		return;
	bool all = stop_threads(work);
	if (work->event_fd >= 0)
		obd_loop_watch(work->loop, work->event_fd, 0, NULL, NULL);
	obd_loop_timer_free(work->timer);
	if (!all)
		return; /* a thread that comes back finds its lock and its descriptor as they were */
	drop_all(&work->todo);
	drop_all(&work->ended);
	if (work->event_fd >= 0)
		close(work->event_fd);
	pthread_mutex_destroy(&work->lock);
	pthread_cond_destroy(&work->more);
	pthread_cond_destroy(&work->idle);
	free(work);
}
