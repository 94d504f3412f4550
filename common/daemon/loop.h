/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * An epoll event loop for one thread, with the sleep-and-wake protocol of the segment built in.
 *
 * A turn: call every poll hook until none found work; then the arm hooks (they set the process's sleeping word and look at the
 * rings once more: a hook that returns true has found work and cancels the sleep); epoll_wait; disarm hooks; file and timer
 * callbacks. disarm is called for each hook whose arm was called, also when arm found work. A loop whose hooks never run out of
 * work still looks at its files and timers now and then. See doc/architecture.md 4.3. Nothing here is thread-safe; everything
 * is called on the loop's own thread.
 */
#ifndef OBD_COMMON_DAEMON_LOOP_H
#define OBD_COMMON_DAEMON_LOOP_H

#include <stdbool.h>
#include <stdint.h>

struct obd_loop;
struct obd_loop_timer;

typedef void obd_loop_fd_fn(int fd, uint32_t events, void *arg);
typedef void obd_loop_timer_fn(void *arg);

struct obd_loop_hooks {
	bool (*poll)(void *arg);   /* does what is there to do now; true: did something, ask again. May be NULL */
	bool (*arm)(void *arg);	   /* announces sleep and looks again; true: there is work, do not sleep. May be NULL */
	void (*disarm)(void *arg); /* takes the announcement back. May be NULL */
	void *arg;
};

/* NULL on ENOMEM or EMFILE. */
struct obd_loop *obd_loop_new(void);
void obd_loop_free(struct obd_loop *loop);

/* At most four sets of hooks, called in order of registration. Returns 0 or -ENOSPC. */
int obd_loop_add_hooks(struct obd_loop *loop, const struct obd_loop_hooks *hooks);

/* Watches fd (EPOLLIN, EPOLLOUT; level-triggered). events 0 stops watching; a second call replaces events, fn and arg.
 * The fd stays the caller's; call with events 0 before closing it. Safe inside callbacks, also for other descriptors.
 * Returns 0 or a negative errno. */
int obd_loop_watch(struct obd_loop *loop, int fd, uint32_t events, obd_loop_fd_fn *fn, void *arg);

/* One-shot timers on the monotonic clock. A timer belongs to the caller; arming again moves it; due_ns 0 disarms. */
struct obd_loop_timer *obd_loop_timer_new(struct obd_loop *loop, obd_loop_timer_fn *fn, void *arg);
void obd_loop_timer_set(struct obd_loop_timer *timer, uint64_t due_ns);
void obd_loop_timer_free(struct obd_loop_timer *timer);

/* Runs until obd_loop_stop. Returns the value given to it, or a negative errno when epoll itself fails. */
int obd_loop_run(struct obd_loop *loop);
void obd_loop_stop(struct obd_loop *loop, int status);

#endif
