/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What local.c and its engines share. */
#ifndef OBD_FETCHER_LOCAL_IMPL_H
#define OBD_FETCHER_LOCAL_IMPL_H

#include <aio.h>
#include <libaio.h>
#include <sys/types.h>

#include "common/base/list.h"
#include "fetcher/fdcache.h"
#include "fetcher/local.h"

#define OBD_LOCAL_PIECE_BYTES (256u << 10)
#define OBD_LOCAL_ALIGN 4096u

/* One request: queued (waits for a turn), or with the engine (one piece at a time). */
struct obd_local_req {
	struct obd_list link;
	struct obd_local *local;
	struct obd_fd *file; /* NULL before its first turn */
	uint64_t start;	     /* the next byte that the sink has not got */
	uint64_t end;
	const struct obd_source_sink *sink;
	void *arg;
	/* the piece under way */
	unsigned char *buf;    /* where the engine reads to: the sink's room, or bounce */
	unsigned char *bounce; /* aligned, made when first needed */
	uint64_t at;	       /* where the piece begins in the file, at most start */
	size_t want;
	bool direct; /* the descriptor was O_DIRECT when the piece was begun */
	union {
		struct iocb iocb;
		struct aiocb aiocb;
	};
	/* identity */
	struct obd_local_target target;
	char path[];
};

struct obd_local_engine_ops {
	bool direct; /* opens with O_DIRECT, reads aligned pieces into bounce */
	int (*start)(struct obd_local *local);
	void (*stop)(struct obd_local *local); /* returns when no read is under way */
	/* Begins the read of req->want bytes at req->at into req->buf. 0, or a negative errno: not begun. */
	int (*submit)(struct obd_local *local, struct obd_local_req *req);
};

struct obd_local {
	struct obd_loop *loop;
	struct obd_fetch_stats *stats;
	const struct obd_local_engine_ops *ops;
	struct obd_fdcache *files;
	struct obd_list queued;
	struct obd_list running; /* with the engine */
	bool warned_direct;
	int event_fd;
	io_context_t aio_ctx;
};

extern const struct obd_local_engine_ops obd_local_psync;
extern const struct obd_local_engine_ops obd_local_libaio;
extern const struct obd_local_engine_ops obd_local_posix_aio;

/* The engine's report: n bytes came, or a negative errno. May be called from submit. */
void obd_local_came(struct obd_local_req *req, ssize_t n);

#endif
