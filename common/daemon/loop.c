/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The event loop.
 *
 *   watches   an array indexed by descriptor. Each has a generation, which travels in epoll's data word, so that an event
 *             of this turn for a descriptor that a callback of this turn closed (and perhaps got again) is dropped.
 *   timers    a binary heap of pointers with the earliest on top. Room for every timer that exists is made when the
 *             timer is made, so arming cannot fail.
 *   hooks     the segment's sleep protocol (doc/architecture.md 4.3). A process that always finds work still looks at its
 *             descriptors and timers every POLL_ROUNDS rounds, otherwise its heartbeat would stop.
 */
#include "common/daemon/loop.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/util.h"

#define MAX_HOOKS 4
#define MAX_EVENTS 64
#define POLL_ROUNDS 64

struct watch {
	obd_loop_fd_fn *fn; /* NULL: not watched */
	void *arg;
	uint32_t generation;
};

struct obd_loop_timer {
	struct obd_loop *loop;
	obd_loop_timer_fn *fn;
	void *arg;
	uint64_t due_ns;
	size_t at; /* place in the heap plus one; 0: not armed */
};

struct obd_loop {
	int epoll_fd;
	bool stopped;
	int status;

	struct obd_loop_hooks hooks[MAX_HOOKS];
	size_t nhooks;

	struct watch *watches;
	size_t nwatches;

	struct obd_loop_timer **heap;
	size_t armed;	 /* used places of heap */
	size_t capacity; /* of heap; never less than ntimers */
	size_t ntimers;
};

struct obd_loop *obd_loop_new(void)
{
	struct obd_loop *loop = calloc(1, sizeof *loop);
	if (!loop)
		return NULL;
	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (loop->epoll_fd < 0) {
		free(loop);
		return NULL;
	}
	return loop;
}

void obd_loop_free(struct obd_loop *loop)
{
	if (!loop)
		return;
	close(loop->epoll_fd);
	free(loop->watches);
	free(loop->heap);
	free(loop);
}

/* ---- hooks ---- */

int obd_loop_add_hooks(struct obd_loop *loop, const struct obd_loop_hooks *hooks)
{
	if (loop->nhooks == MAX_HOOKS)
		return -ENOSPC;
	loop->hooks[loop->nhooks++] = *hooks;
	return 0;
}

static bool poll_once(struct obd_loop *loop)
{
	bool worked = false;
	for (size_t i = 0; i < loop->nhooks && !loop->stopped; i++)
		if (loop->hooks[i].poll && loop->hooks[i].poll(loop->hooks[i].arg))
			worked = true;
	return worked;
}

/* Returns true when no hook has work left, false when the rounds ran out. */
static bool poll_all(struct obd_loop *loop)
{
	for (int i = 0; i < POLL_ROUNDS; i++)
		if (!poll_once(loop))
			return true;
	return false;
}

static void disarm(struct obd_loop *loop, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (loop->hooks[i].disarm)
			loop->hooks[i].disarm(loop->hooks[i].arg);
}

/* Announces sleep. Returns false, with every announcement taken back, when a hook found work. */
static bool arm(struct obd_loop *loop)
{
	for (size_t i = 0; i < loop->nhooks; i++) {
		if (loop->hooks[i].arm && loop->hooks[i].arm(loop->hooks[i].arg)) {
			disarm(loop, i + 1);
			return false;
		}
	}
	return true;
}

/* ---- descriptors ---- */

static int reserve_watch(struct obd_loop *loop, int fd)
{
	size_t want = (size_t)fd + 1;
	if (want <= loop->nwatches)
		return 0;
	want = (size_t)obd_align_up(want, 64);
	struct watch *grown = reallocarray(loop->watches, want, sizeof *grown);
	if (!grown)
		return -ENOMEM;
	memset(grown + loop->nwatches, 0, (want - loop->nwatches) * sizeof *grown);
	loop->watches = grown;
	loop->nwatches = want;
	return 0;
}

static int unwatch(struct obd_loop *loop, int fd)
{
	if ((size_t)fd >= loop->nwatches || !loop->watches[fd].fn)
		return 0;
	loop->watches[fd].fn = NULL;
	loop->watches[fd].generation++;
	/* ENOENT, EBADF: closed already, and the kernel has forgotten it with that. */
	if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, fd, NULL) < 0 && errno != ENOENT && errno != EBADF)
		return -errno;
	return 0;
}

int obd_loop_watch(struct obd_loop *loop, int fd, uint32_t events, obd_loop_fd_fn *fn, void *arg)
{
	if (fd < 0)
		return -EBADF;
	if (!events)
		return unwatch(loop, fd);
	int rc = reserve_watch(loop, fd);
	if (rc < 0)
		return rc;

	struct watch *w = &loop->watches[fd];
	bool known = w->fn != NULL;
	uint32_t generation = known ? w->generation : w->generation + 1;
	struct epoll_event ev = {.events = events, .data.u64 = (uint64_t)generation << 32 | (uint32_t)fd};
	rc = epoll_ctl(loop->epoll_fd, known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &ev);
	if (rc < 0 && known && errno == ENOENT) /* closed behind our back and opened again as something else */
		rc = epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &ev);
	if (rc < 0)
		return -errno;
	*w = (struct watch){.fn = fn, .arg = arg, .generation = generation};
	return 0;
}

static void dispatch(struct obd_loop *loop, const struct epoll_event *ev)
{
	size_t fd = (uint32_t)ev->data.u64;
	uint32_t generation = (uint32_t)(ev->data.u64 >> 32);
	const struct watch *w = &loop->watches[fd];
	if (w->fn && w->generation == generation)
		w->fn((int)fd, ev->events, w->arg);
}

/* ---- timers ---- */

static void heap_put(struct obd_loop *loop, size_t at, struct obd_loop_timer *timer)
{
	loop->heap[at] = timer;
	timer->at = at + 1;
}

static void heap_up(struct obd_loop *loop, size_t at)
{
	struct obd_loop_timer *timer = loop->heap[at];
	while (at > 0 && loop->heap[(at - 1) / 2]->due_ns > timer->due_ns) {
		heap_put(loop, at, loop->heap[(at - 1) / 2]);
		at = (at - 1) / 2;
	}
	heap_put(loop, at, timer);
}

static void heap_down(struct obd_loop *loop, size_t at)
{
	struct obd_loop_timer *timer = loop->heap[at];
	for (size_t child; (child = 2 * at + 1) < loop->armed; at = child) {
		if (child + 1 < loop->armed && loop->heap[child + 1]->due_ns < loop->heap[child]->due_ns)
			child++;
		if (loop->heap[child]->due_ns >= timer->due_ns)
			break;
		heap_put(loop, at, loop->heap[child]);
	}
	heap_put(loop, at, timer);
}

static void timer_disarm(struct obd_loop_timer *timer)
{
	struct obd_loop *loop = timer->loop;
	if (!timer->at)
		return;
	size_t hole = timer->at - 1;
	struct obd_loop_timer *last = loop->heap[--loop->armed];
	timer->at = 0;
	if (last == timer)
		return;
	heap_put(loop, hole, last);
	heap_up(loop, hole);
	heap_down(loop, last->at - 1);
}

struct obd_loop_timer *obd_loop_timer_new(struct obd_loop *loop, obd_loop_timer_fn *fn, void *arg)
{
	if (loop->ntimers == loop->capacity) {
		size_t want = loop->capacity ? 2 * loop->capacity : 16;
		struct obd_loop_timer **grown = reallocarray(loop->heap, want, sizeof(*grown));
		if (!grown)
			return NULL;
		loop->heap = grown;
		loop->capacity = want;
	}
	struct obd_loop_timer *timer = calloc(1, sizeof *timer);
	if (!timer)
		return NULL;
	timer->loop = loop;
	timer->fn = fn;
	timer->arg = arg;
	loop->ntimers++;
	return timer;
}

void obd_loop_timer_set(struct obd_loop_timer *timer, uint64_t due_ns)
{
	struct obd_loop *loop = timer->loop;
	timer_disarm(timer);
	if (!due_ns)
		return;
	assert(loop->armed < loop->capacity);
	timer->due_ns = due_ns;
	heap_put(loop, loop->armed++, timer);
	heap_up(loop, timer->at - 1);
}

void obd_loop_timer_free(struct obd_loop_timer *timer)
{
	if (!timer)
		return;
	timer_disarm(timer);
	timer->loop->ntimers--;
	free(timer);
}

/* Fires what was due when the turn began; a timer that its own callback arms again waits for the next turn. */
static void fire_timers(struct obd_loop *loop)
{
	if (!loop->armed)
		return;
	uint64_t now = obd_clock_ns();
	for (size_t left = loop->armed; left && loop->armed && !loop->stopped; left--) {
		struct obd_loop_timer *timer = loop->heap[0];
		if (timer->due_ns > now)
			return;
		timer_disarm(timer);
		timer->fn(timer->arg);
	}
}

/* Milliseconds until the first timer, rounded up so that it is due when epoll_wait returns. -1: no timer. */
static int next_timeout_ms(const struct obd_loop *loop)
{
	if (!loop->armed)
		return -1;
	uint64_t now = obd_clock_ns();
	uint64_t due = loop->heap[0]->due_ns;
	if (due <= now)
		return 0;
	uint64_t ms = (due - now - 1) / OBD_MS_NS + 1;
	return ms > INT_MAX ? INT_MAX : (int)ms;
}

/* ---- the turn ---- */

static int wait_for_events(struct obd_loop *loop, struct epoll_event *events)
{
	bool idle = poll_all(loop);
	if (loop->stopped)
		return 0;
	bool sleeping = idle && arm(loop);
	int n = epoll_wait(loop->epoll_fd, events, MAX_EVENTS, sleeping ? next_timeout_ms(loop) : 0);
	int rc = n < 0 ? -errno : n;
	if (sleeping)
		disarm(loop, loop->nhooks);
	return rc == -EINTR ? 0 : rc;
}

int obd_loop_run(struct obd_loop *loop)
{
	struct epoll_event events[MAX_EVENTS];
	int rc = 0;
	while (!loop->stopped) {
		rc = wait_for_events(loop, events);
		if (rc < 0)
			return rc;
		for (int i = 0; i < rc && !loop->stopped; i++)
			dispatch(loop, &events[i]);
		fire_timers(loop);
	}
	loop->stopped = false;
	return loop->status;
}

void obd_loop_stop(struct obd_loop *loop, int status)
{
	loop->stopped = true;
	loop->status = status;
}
