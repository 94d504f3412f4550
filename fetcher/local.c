/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A request is either in `queued`, waiting for obd_local_poll to give it its next piece, or in `running`, with the engine.
 * Going round the queue piece by piece keeps a long read from holding up the others.
 */
#include "fetcher/local.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/log.h"
#include "common/base/util.h"
#include "fetcher/local_impl.h"

static const struct obd_local_engine_ops *const engines[OBD_LOCAL_ENGINES] = {
	[OBD_LOCAL_PSYNC] = &obd_local_psync,
	[OBD_LOCAL_LIBAIO] = &obd_local_libaio,
	[OBD_LOCAL_POSIX_AIO] = &obd_local_posix_aio,
};

struct obd_local *obd_local_new(struct obd_loop *loop, enum obd_local_engine engine, struct obd_fetch_stats *stats)
{
	if (engine >= OBD_LOCAL_ENGINES) {
		errno = EINVAL;
		return NULL;
	}
	struct obd_local *l = calloc(1, sizeof(*l));
	if (!l)
		return NULL;
	*l = (struct obd_local){.loop = loop, .stats = stats, .ops = engines[engine], .event_fd = -1};
	obd_list_init(&l->queued);
	obd_list_init(&l->running);
	l->files = obd_fdcache_new();
	int rc = l->files ? l->ops->start(l) : -ENOMEM;
	if (rc) {
		obd_fdcache_free(l->files);
		free(l);
		errno = -rc;
		return NULL;
	}
	return l;
}

int obd_local_read(struct obd_local *local, const struct obd_local_target *target, uint64_t start, uint64_t end,
		   const struct obd_source_sink *sink, void *arg)
{
	size_t path_bytes = strlen(target->path) + 1;
	struct obd_local_req *r = calloc(1, sizeof(*r) + path_bytes);
	if (!r)
		return -ENOMEM;
	r->local = local;
	r->start = start;
	r->end = end;
	r->sink = sink;
	r->arg = arg;
	memcpy(r->path, target->path, path_bytes);
	r->target = *target;
	r->target.path = r->path;
	obd_list_push_back(&local->queued, &r->link);
	return 0;
}

static void release(struct obd_local_req *r)
{
	obd_list_remove(&r->link);
	if (r->file)
		obd_fdcache_put(r->local->files, r->file);
	free(r->bounce);
	free(r);
}

static void finish(struct obd_local_req *r, int err, const char *reason)
{
	const struct obd_source_end end = {.err = err, .reason = reason};
	const struct obd_source_sink *sink = r->sink;
	void *arg = r->arg;
	if (err)
		r->local->stats->err_io++;
	release(r);
	sink->done(arg, &end);
}

static void finish_io(struct obd_local_req *r, int err, const char *what)
{
	char reason[OBD_ERR_BYTES];
	snprintf(reason, sizeof reason, "%.400s: %s at byte %llu", r->path, what, (unsigned long long)r->start);
	finish(r, err, reason);
}

/* The file system takes O_DIRECT at open and refuses it at the read. */
static int leave_direct(struct obd_local_req *r)
{
	int flags = fcntl(r->file->fd, F_GETFL);
	if (flags < 0 || fcntl(r->file->fd, F_SETFL, flags & ~O_DIRECT))
		return -errno;
	r->file->direct = false;
	return 0;
}

static void warn_direct(struct obd_local_req *r)
{
	if (r->local->warned_direct)
		return;
	r->local->warned_direct = true;
	obd_warn("%s: the file system refuses direct reads; reading through the page cache", r->path);
}

static int open_target(struct obd_local_req *r, struct obd_err *err)
{
	int rc = obd_fdcache_get(r->local->files, &r->target, r->local->ops->direct, &r->file, err);
	if (rc == 0 && r->local->ops->direct && !r->file->direct)
		warn_direct(r);
	return rc;
}

/* The next piece goes straight to where the sink wants it, unless the engine needs alignment or the sink has no wish. */
static int plan_piece(struct obd_local_req *r)
{
	size_t room = 0;
	r->buf = NULL;
	r->at = r->start;
	if (!r->local->ops->direct && r->sink->room)
		r->buf = r->sink->room(r->arg, &room);
	if (r->buf) {
		r->want = obd_min_u64(obd_min_u64(room, OBD_LOCAL_PIECE_BYTES), r->end - r->start);
		return 0;
	}
	if (!r->bounce && posix_memalign((void **)&r->bounce, OBD_LOCAL_ALIGN, OBD_LOCAL_PIECE_BYTES))
		return -ENOMEM;
	r->buf = r->bounce;
	if (r->local->ops->direct)
		r->at = obd_align_down(r->start, OBD_LOCAL_ALIGN);
	r->want = obd_min_u64(OBD_LOCAL_PIECE_BYTES, obd_align_up(r->end - r->at, OBD_LOCAL_ALIGN));
	if (!r->local->ops->direct)
		r->want = obd_min_u64(OBD_LOCAL_PIECE_BYTES, r->end - r->at);
	return 0;
}

static void requeue(struct obd_local_req *r)
{
	obd_list_remove(&r->link);
	obd_list_push_back(&r->local->queued, &r->link);
}

/* Hands a piece over. What was read in front of start, for alignment, is left out. */
static void deliver(struct obd_local_req *r, size_t n)
{
	uint64_t skip = r->start - r->at, got = obd_min_u64(n - skip, r->end - r->start);
	r->local->stats->bytes_local += got;
	int rc = r->sink->data(r->arg, r->buf + skip, got);
	r->start += got;
	if (rc)
		finish_io(r, -rc, strerror(-rc));
	else if (r->start == r->end)
		finish(r, 0, "");
	else
		requeue(r);
}

void obd_local_came(struct obd_local_req *req, ssize_t n)
{
	if (n == -EINVAL && req->direct) {
		warn_direct(req);
		if (leave_direct(req) == 0) {
			requeue(req);
			return;
		}
	}
	if (n < 0 && n != -EINTR && n != -EAGAIN)
		finish_io(req, EIO, strerror((int)-n));
	else if (n < 0)
		requeue(req);
	else if ((uint64_t)n <= req->start - req->at)
		finish_io(req, EIO, "the file ends early");
	else
		deliver(req, (size_t)n);
}

static void start_piece(struct obd_local_req *r)
{
	if (plan_piece(r)) {
		finish_io(r, EAGAIN, "no memory");
		return;
	}
	obd_list_remove(&r->link);
	obd_list_push_back(&r->local->running, &r->link);
	r->direct = r->file->direct;
	int rc = r->local->ops->submit(r->local, r);
	if (rc)
		obd_local_came(r, rc);
}

/* The identity is checked once, when a request has its first turn. */
static void turn(struct obd_local_req *r)
{
	struct obd_err err = {{0}};
	int rc = r->file ? 0 : open_target(r, &err);
	if (rc)
		finish(r, -rc, err.msg);
	else if (r->start == r->end)
		finish(r, 0, "");
	else
		start_piece(r);
}

bool obd_local_poll(struct obd_local *local)
{
	if (!obd_local_has_work(local))
		return false;
	turn(OBD_LIST_ENTRY(local->queued.next, struct obd_local_req, link));
	return true;
}

bool obd_local_has_work(const struct obd_local *local)
{
	return !obd_list_empty(&local->queued);
}

void obd_local_free(struct obd_local *local)
{
	if (!local)
		return;
	local->ops->stop(local);
	while (!obd_list_empty(&local->queued))
		release(OBD_LIST_ENTRY(local->queued.next, struct obd_local_req, link));
	while (!obd_list_empty(&local->running))
		release(OBD_LIST_ENTRY(local->running.next, struct obd_local_req, link));
	obd_fdcache_free(local->files);
	free(local);
}
