/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What local.c and its engines share. */
#ifndef OBD_FETCHER_LOCAL_IMPL_H
#define OBD_FETCHER_LOCAL_IMPL_H

#include <aio.h>
#include <libaio.h>
#include <sys/types.h>

#include "common/base/err.h"
#include "common/base/list.h"
#include "fetcher/fdcache.h"
#include "fetcher/local.h"
#include "fetcher/work.h"

#define OBD_LOCAL_PIECE_BYTES (256u << 10)
#define OBD_LOCAL_ALIGN 4096u

/*
 * One request. Who has it:
 *
 *   queued ──► (held: too many of its disk are on threads) ──► running: on a thread ──► [in the kernel] ──► queued, or over
 *
 * Over is when its sink was told: then sink is NULL. What is over and still on a thread or in the kernel stays in running until
 * it comes back, and nobody looks at what it brings. So a piece is read into memory of the request's own.
 */
struct obd_local_req {
	struct obd_list link;
	struct obd_local *local;
	struct obd_fd *file;	   /* NULL before its first turn is over */
	uint32_t refs;		   /* of the sink, of the thread, of the kernel */
	bool on_thread, in_kernel; /* the loop's */
	bool in_pool;		   /* the pool has not dropped it */
	bool early;		   /* the kernel was faster than the thread: early_n */
	ssize_t early_n;
	bool checked;	 /* the file was found to be the right one */
	uint64_t due_ns; /* when the piece under way is given up; 0: not begun */
	uint64_t start;	 /* the next byte that the sink has not got */
	uint64_t end;
	const struct obd_source_sink *sink;
	void *arg;
	/* the piece under way */
	unsigned char *bounce; /* aligned, made when first needed */
	size_t bounce_bytes;
	uint64_t at; /* where the piece begins in the file, at most start */
	size_t want;
	bool direct; /* the descriptor was O_DIRECT when the piece was begun */
	/* the thread's, from submit to done */
	struct obd_work_item item;
	int fd;
	bool opened; /* fd is new */
	bool near;
	bool has_n; /* n is the read's result */
	int rc;
	ssize_t n;
	struct obd_err err;
	union {
		struct iocb iocb;
		struct aiocb aiocb;
	};
	/* identity */
	struct obd_local_target target;
	char path[];
};

struct obd_local_engine_ops {
	bool direct; /* opens with O_DIRECT, reads aligned pieces */
	int (*start)(struct obd_local *local);
	void (*stop)(struct obd_local *local); /* returns when no read is under way */
	/* Begins the read of req->want bytes at req->at of req->fd into req->bounce. 0, or a negative errno: not begun. NULL:
	 * the thread reads by itself. */
	int (*submit)(struct obd_local *local, struct obd_local_req *req);
	bool submit_blocks; /* so a thread does it */
};

struct obd_local {
	struct obd_loop *loop;
	struct obd_fetch_stats *stats;
	const struct obd_local_engine_ops *ops;
	struct obd_fdcache *files;
	struct obd_work *work;
	struct obd_loop_timer *timer; /* runs while something is running or held */
	bool watching;
	uint64_t limit_ns;
	struct obd_list queued;
	struct obd_list held;
	struct obd_list running;
	bool warned_direct;
	int event_fd;
	io_context_t aio_ctx;
};

extern const struct obd_local_engine_ops obd_local_psync;
extern const struct obd_local_engine_ops obd_local_libaio;
extern const struct obd_local_engine_ops obd_local_posix_aio;

/* The engine's report, on the loop: n bytes came, or a negative errno. */
void obd_local_came(struct obd_local_req *req, ssize_t n);

#endif
