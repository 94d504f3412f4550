/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Threads that do blocking work for the loop: two queues under one lock, and an eventfd.
 *
 *     loop --run--> todo --> worker: task->run --> done --eventfd--> loop: task->done
 *
 * There are a few threads at first, and one more whenever there is more to do than there are idle ones.
 *
 * If the process dies, the kernel finishes or drops what runs before anybody can take the files' lock again.
 */
#include "indexer/engine.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/base/util.h"

int obd_ix_io_now(int fd, bool write, void *buf, uint64_t bytes, uint64_t off)
{
	unsigned char *p = buf;
	while (bytes) {
		ssize_t n = write ? pwrite(fd, p, bytes, (off_t)off) : pread(fd, p, bytes, (off_t)off);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? errno : EIO;
		p += n;
		bytes -= (uint64_t)n;
		off += (uint64_t)n;
	}
	return 0;
}

/* --- queues ------------------------------------------------------------------------------------------------------------- */

void obd_ix_engine_finished(struct obd_ix_engine *e, struct obd_ix_task *task)
{
	uint64_t one = 1;
	pthread_mutex_lock(&e->lock);
	obd_list_push_back(&e->done, &task->link);
	ssize_t n = write(e->event_fd, &one, sizeof one); /* under the lock: nobody frees the engine before it is written */
	pthread_mutex_unlock(&e->lock);
	assert(n == (ssize_t)sizeof one || errno == EAGAIN);
}

static struct obd_ix_task *next_task(struct obd_ix_engine *e)
{
	struct obd_ix_task *task = NULL;
	pthread_mutex_lock(&e->lock);
	e->idle++;
	while (obd_list_empty(&e->todo) && !e->stop)
		pthread_cond_wait(&e->more, &e->lock);
	e->idle--;
	if (!obd_list_empty(&e->todo)) {
		task = OBD_LIST_ENTRY(e->todo.next, struct obd_ix_task, link);
		obd_list_remove(&task->link);
		e->queued--;
	}
	pthread_mutex_unlock(&e->lock);
	return task;
}

static void *worker(void *arg)
{
	struct obd_ix_engine *e = arg;
	struct obd_ix_task *task;
	while ((task = next_task(e))) {
		task->run(task);
		obd_ix_engine_finished(e, task);
	}
	return NULL;
}

/* Signals are the loop's: the threads take none. */
static int add_thread(struct obd_ix_engine *e)
{
	sigset_t all, old;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	int rc = pthread_create(&e->thread[e->nthreads], NULL, worker, e);
	e->nthreads += !rc;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return -rc;
}

/* On the loop's thread. */
static void queue(struct obd_ix_engine *e, struct obd_ix_task *task)
{
	pthread_mutex_lock(&e->lock);
	obd_list_push_back(&e->todo, &task->link);
	bool more = ++e->queued > e->idle;
	pthread_cond_signal(&e->more);
	pthread_mutex_unlock(&e->lock);
	if (more && e->nthreads < OBD_IX_THREADS_MAX)
		(void)add_thread(e); /* without it the task waits for one that is there */
}

void obd_ix_engine_run(struct obd_ix_engine *e, struct obd_ix_task *task)
{
	e->running++;
	queue(e, task);
}

/* --- io ----------------------------------------------------------------------------------------------------------------- */

static void run_io(struct obd_ix_task *task)
{
	struct obd_ix_io *io = OBD_CONTAINER_OF(task, struct obd_ix_io, task);
	io->err = obd_ix_io_now(io->fd, io->write, io->buf, io->bytes, io->off);
}

void obd_ix_engine_retry(struct obd_ix_engine *e, struct obd_ix_io *io)
{
	io->task.run = run_io;
	queue(e, &io->task);
}

enum obd_ix_way obd_ix_engine_way(const struct obd_ix_engine *e, const struct obd_ix_io *io)
{
	if (e->kind == OBD_IX_POSIX_AIO)
		return OBD_IX_WAY_LOOP;
	return e->kind == OBD_IX_LIBAIO && obd_ix_libaio_fits(io) ? OBD_IX_WAY_SUBMIT : OBD_IX_WAY_THREAD;
}

void obd_ix_engine_expect(struct obd_ix_engine *e, struct obd_ix_io *io)
{
	io->engine = e;
	io->err = 0;
	e->running++;
}

int obd_ix_engine_submit(struct obd_ix_engine *e, struct obd_ix_io *io)
{
	return obd_ix_libaio_submit(e, io);
}

void obd_ix_engine_withdraw(struct obd_ix_engine *e, struct obd_ix_io *io)
{
	obd_ix_engine_finished(e, &io->task);
}

void obd_ix_engine_io(struct obd_ix_engine *e, struct obd_ix_io *io)
{
	obd_ix_engine_expect(e, io);
	if (obd_ix_posix_submit(e, io))
		obd_ix_engine_retry(e, io);
}

bool obd_ix_engine_has_done(struct obd_ix_engine *e)
{
	if (!e->running)
		return false;
	if (e->kind == OBD_IX_LIBAIO)
		obd_ix_libaio_reap(e);
	else if (e->kind == OBD_IX_POSIX_AIO)
		obd_ix_posix_reap(e);
	pthread_mutex_lock(&e->lock);
	bool any = !obd_list_empty(&e->done);
	pthread_mutex_unlock(&e->lock);
	return any;
}

static struct obd_ix_task *take_done(struct obd_ix_engine *e)
{
	struct obd_ix_task *task = NULL;
	pthread_mutex_lock(&e->lock);
	if (!obd_list_empty(&e->done)) {
		task = OBD_LIST_ENTRY(e->done.next, struct obd_ix_task, link);
		obd_list_remove(&task->link);
	}
	pthread_mutex_unlock(&e->lock);
	return task;
}

bool obd_ix_engine_reap(struct obd_ix_engine *e)
{
	struct obd_ix_task *task;
	bool did = false;
	if (!obd_ix_engine_has_done(e))
		return false;
	while ((task = take_done(e))) {
		e->running--;
		did = true;
		task->done(task);
	}
	return did;
}

/* --- life --------------------------------------------------------------------------------------------------------------- */

static void join_all(struct obd_ix_engine *e)
{
	pthread_mutex_lock(&e->lock);
	e->stop = true;
	pthread_cond_broadcast(&e->more);
	pthread_mutex_unlock(&e->lock);
	for (uint32_t i = 0; i < e->nthreads; i++)
		pthread_join(e->thread[i], NULL);
	e->nthreads = 0;
}

static int start_threads(struct obd_ix_engine *e)
{
	int rc = 0;
	while (e->nthreads < OBD_IX_THREADS && !rc)
		rc = add_thread(e);
	return rc;
}

static int start_kind(struct obd_ix_engine *e)
{
	if (e->kind == OBD_IX_LIBAIO)
		return obd_ix_libaio_start(e);
	return e->kind == OBD_IX_POSIX_AIO ? obd_ix_posix_start(e) : 0;
}

int obd_ix_engine_start(struct obd_ix_engine *e, enum obd_ix_engine_kind kind, struct obd_err *err)
{
	*e = (struct obd_ix_engine){.kind = kind};
	obd_list_init(&e->todo);
	obd_list_init(&e->done);
	obd_list_init(&e->aio_running);
	signal(SIGXFSZ, SIG_IGN); /* a file that may not grow is an error of one request */
	e->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (e->event_fd < 0)
		return obd_err_set(err, errno, "eventfd: %s", strerror(errno));
	pthread_mutex_init(&e->lock, NULL);
	pthread_cond_init(&e->more, NULL);
	int rc = start_kind(e);
	if (!rc) {
		e->started = true;
		rc = start_threads(e);
	}
	if (rc) {
		obd_ix_engine_stop(e);
		return obd_err_set(err, -rc, "ioEngine %d cannot be used for writing: %s", (int)kind, strerror(-rc));
	}
	return 0;
}

/* What still runs has its memory in use; its done is not called. */
static void drain(struct obd_ix_engine *e)
{
	while (e->running) {
		if (!obd_ix_engine_has_done(e)) {
			usleep(1000);
			continue;
		}
		while (take_done(e))
			e->running--;
	}
}

void obd_ix_engine_stop(struct obd_ix_engine *e)
{
	if (e->started) {
		drain(e);
		join_all(e);
		if (e->kind == OBD_IX_LIBAIO)
			obd_ix_libaio_stop(e);
		else if (e->kind == OBD_IX_POSIX_AIO)
			obd_ix_posix_stop();
	}
	e->started = false;
	if (e->event_fd >= 0) {
		pthread_cond_destroy(&e->more);
		pthread_mutex_destroy(&e->lock);
		close(e->event_fd);
	}
	e->event_fd = -1;
}
