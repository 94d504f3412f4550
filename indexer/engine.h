/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How the files of writable layers are read and written without holding up the loop.
 *
 *     task   any blocking piece of work, on a thread                        obd_ix_engine_run
 *     io     one read or write of a data file, by the engine chosen         obd_ix_engine_way says how
 *
 *     ioEngine 0  psync      io is a task that calls pread or pwrite
 *              1  libaio     with O_DIRECT, for what is whole pages of the file on both sides; the rest as psync
 *              2  POSIX aio  the C library's threads
 *
 * Only whole, aligned pages go past the page cache. A page is then either all the cache's or all the device's during one io,
 * and two ios of one page never overlap in time, because requests that overlap wait for each other. So no write-back of a page
 * can carry old bytes over new ones, and each way sees what the other wrote: the kernel writes a dirty page out before a direct
 * io and drops it afterwards.
 *
 * A disk may hang for ever, and one that does must not hold up the others: there are as many threads as it takes (its users see
 * to it that one disk has few of them), and nothing that may wait for a disk is called on the loop. io_submit may: for room in
 * the device's queue, for a frozen file system, for blocks that are to be allocated.
 *
 * Everything is called on the loop's thread except run, which a worker calls, and what says so. done is called by
 * obd_ix_engine_reap, once for each task or io that was accepted.
 */
#ifndef OBD_INDEXER_ENGINE_H
#define OBD_INDEXER_ENGINE_H

#include <aio.h>
#include <libaio.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/list.h"

#define OBD_IX_THREADS 16u	/* from the start */
#define OBD_IX_THREADS_MAX 512u /* when all are busy */
#define OBD_IX_AIO_DEPTH 1024
#define OBD_IX_DIRECT_BYTES 4096u

enum obd_ix_engine_kind { OBD_IX_PSYNC = 0, OBD_IX_LIBAIO, OBD_IX_POSIX_AIO, OBD_IX_ENGINES };

struct obd_ix_engine;

struct obd_ix_task {
	struct obd_list link;
	void (*run)(struct obd_ix_task *task);
	void (*done)(struct obd_ix_task *task);
};

struct obd_ix_io {
	struct obd_ix_task task; /* done is the caller's */
	struct obd_ix_engine *engine;
	int fd;
	int direct_fd; /* -1: none */
	bool write;
	void *buf;
	uint64_t bytes;
	uint64_t off;
	int err; /* positive errno; a read that meets the file's end gives EIO */
	struct iocb iocb;
	struct aiocb aiocb;
};

struct obd_ix_engine {
	enum obd_ix_engine_kind kind;
	bool started;
	int event_fd; /* readable: something is done */
	io_context_t aio_ctx;
	struct obd_list aio_running; /* POSIX aio's */
	uint32_t running;	     /* accepted, done not called yet */
	pthread_t thread[OBD_IX_THREADS_MAX];
	uint32_t nthreads;
	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t more;
	uint32_t idle;	 /* threads that wait */
	uint32_t queued; /* in todo */
	struct obd_list todo;
	struct obd_list done;
	bool stop;
};

/* Makes threads and queues. 0, or a negative errno with a line; then nothing is left behind. */
int obd_ix_engine_start(struct obd_ix_engine *e, enum obd_ix_engine_kind kind, struct obd_err *err);

/* Waits for all that runs, calls nobody's done, frees. */
void obd_ix_engine_stop(struct obd_ix_engine *e);

void obd_ix_engine_run(struct obd_ix_engine *e, struct obd_ix_task *task);
void obd_ix_engine_io(struct obd_ix_engine *e, struct obd_ix_io *io);

/* How this io is to be done. */
enum obd_ix_way {
	OBD_IX_WAY_THREAD, /* obd_ix_io_now in a task */
	OBD_IX_WAY_SUBMIT, /* obd_ix_engine_expect, then obd_ix_engine_submit in a task */
	OBD_IX_WAY_LOOP,   /* obd_ix_engine_io */
};
enum obd_ix_way obd_ix_engine_way(const struct obd_ix_engine *e, const struct obd_ix_io *io);

/* The io's done will be called. */
void obd_ix_engine_expect(struct obd_ix_engine *e, struct obd_ix_io *io);

/* On any thread. 0: the kernel has it, and done may be called before this returns. Else it does not want it: it is done by
 * obd_ix_io_now, and withdrawn. */
int obd_ix_engine_submit(struct obd_ix_engine *e, struct obd_ix_io *io);
void obd_ix_engine_withdraw(struct obd_ix_engine *e, struct obd_ix_io *io);

/* Calls done for all that is done; true when there was something. */
bool obd_ix_engine_reap(struct obd_ix_engine *e);
bool obd_ix_engine_has_done(struct obd_ix_engine *e);

/* Blocking, on any thread: all bytes, or a positive errno. */
int obd_ix_io_now(int fd, bool write, void *buf, uint64_t bytes, uint64_t off);

/* From any thread: the task is done. */
void obd_ix_engine_finished(struct obd_ix_engine *e, struct obd_ix_task *task);

/* engine_libaio.c, engine_posix.c: 0 when the io was taken, else it is to be done by a thread. */
int obd_ix_libaio_start(struct obd_ix_engine *e);
void obd_ix_libaio_stop(struct obd_ix_engine *e);
bool obd_ix_libaio_fits(const struct obd_ix_io *io);
int obd_ix_libaio_submit(struct obd_ix_engine *e, struct obd_ix_io *io);
void obd_ix_libaio_reap(struct obd_ix_engine *e);
int obd_ix_posix_start(struct obd_ix_engine *e);
void obd_ix_posix_stop(void);
void obd_ix_posix_reap(struct obd_ix_engine *e);
int obd_ix_posix_submit(struct obd_ix_engine *e, struct obd_ix_io *io);

/* A thread does what the engine left undone of an io that it had taken. */
void obd_ix_engine_retry(struct obd_ix_engine *e, struct obd_ix_io *io);

#endif
