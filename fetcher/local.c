/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Going round the queue piece by piece keeps a long read from holding up the others. Lists, and who has a request:
 * local_impl.h.
 *
 * A thread gets all of a piece that may block: opening the file and looking whether it is the right one (once per request), and
 * the read itself, or its submission. With direct engines a file that the file system reads only through the page cache is read
 * by the thread as well, since the kernel would do that inside of the submission.
 */
#include "fetcher/local.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/util.h"
#include "fetcher/local_impl.h"

#define THREADS 16u
#define PER_DISK 4u
#define LIMIT_NS (5 * OBD_SECOND_NS)

static const struct obd_local_engine_ops *const engines[OBD_LOCAL_ENGINES] = {
	[OBD_LOCAL_PSYNC] = &obd_local_psync,
	[OBD_LOCAL_LIBAIO] = &obd_local_libaio,
	[OBD_LOCAL_POSIX_AIO] = &obd_local_posix_aio,
};

static struct obd_local_req *of(struct obd_list *link)
{
	return OBD_LIST_ENTRY(link, struct obd_local_req, link);
}

static void move(struct obd_local_req *r, struct obd_list *to)
{
	obd_list_remove(&r->link);
	obd_list_push_back(to, &r->link);
}

/* --- how requests end ----------------------------------------------------------------------------------------------------- */

static void release(struct obd_local_req *r)
{
	obd_list_remove(&r->link);
	if (r->file)
		obd_fdcache_put(r->local->files, r->file);
	free(r->bounce);
	free(r);
}

static void put(struct obd_local_req *r)
{
	if (--r->refs == 0)
		release(r);
}

static void finish(struct obd_local_req *r, int err, const char *reason)
{
	const struct obd_source_end end = {.err = err, .reason = reason};
	const struct obd_source_sink *sink = r->sink;
	if (err)
		r->local->stats->err_io++;
	r->sink = NULL;
	sink->done(r->arg, &end);
	put(r);
}

static void finish_io(struct obd_local_req *r, int err, const char *what)
{
	char reason[OBD_ERR_BYTES];
	snprintf(reason, sizeof reason, "%.400s: %s at byte %llu", r->path, what, (unsigned long long)r->start);
	finish(r, err, reason);
}

/* --- on a thread ---------------------------------------------------------------------------------------------------------- */

/* File systems on which fstat of an open file asks nobody. */
static bool is_near(int fd)
{
	struct statfs fs;
	if (fstatfs(fd, &fs))
		return false;
	return fs.f_type == EXT4_SUPER_MAGIC || fs.f_type == XFS_SUPER_MAGIC || fs.f_type == BTRFS_SUPER_MAGIC ||
	       fs.f_type == TMPFS_MAGIC;
}

static int find_file(struct obd_local_req *r)
{
	if (r->fd >= 0)
		return r->checked ? 0 : obd_fd_check(r->fd, &r->target, &r->err);
	r->fd = obd_fd_open(&r->target, &r->direct, &r->err);
	r->opened = r->fd >= 0;
	r->near = r->opened && is_near(r->fd);
	return r->opened ? 0 : r->fd;
}

static void run(struct obd_work_item *item)
{
	struct obd_local_req *r = OBD_CONTAINER_OF(item, struct obd_local_req, item);
	const struct obd_local_engine_ops *ops = r->local->ops;
	r->rc = find_file(r);
	if (r->rc || r->start == r->end)
		return;
	r->has_n = !ops->submit || (ops->direct && !r->direct);
	if (r->has_n) {
		r->n = pread(r->fd, r->bounce, r->want, (off_t)r->at);
		r->n = r->n < 0 ? -errno : r->n;
	} else if (ops->submit_blocks) {
		r->n = ops->submit(r->local, r);
		r->has_n = r->n != 0; /* else the kernel has it */
	}
}

/* --- pieces --------------------------------------------------------------------------------------------------------------- */

/* The file system takes O_DIRECT at open and refuses it at the read. */
static int leave_direct(struct obd_local_req *r)
{
	int flags = r->file ? fcntl(r->file->fd, F_GETFL) : -1;
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

static int plan_piece(struct obd_local_req *r)
{
	bool direct = r->local->ops->direct;
	r->at = direct ? obd_align_down(r->start, OBD_LOCAL_ALIGN) : r->start;
	uint64_t left = direct ? obd_align_up(r->end - r->at, OBD_LOCAL_ALIGN) : r->end - r->at;
	r->want = obd_min_u64(OBD_LOCAL_PIECE_BYTES, left);
	if (r->want <= r->bounce_bytes)
		return 0;
	free(r->bounce);
	r->bounce_bytes = obd_align_up(r->want, OBD_LOCAL_ALIGN);
	if (posix_memalign((void **)&r->bounce, OBD_LOCAL_ALIGN, r->bounce_bytes) == 0)
		return 0;
	r->bounce = NULL;
	r->bounce_bytes = 0;
	return -ENOMEM;
}

static void go_round(struct obd_local_req *r)
{
	r->due_ns = 0;
	move(r, &r->local->queued);
}

/* What was read in front of start, for alignment, is left out. */
static void deliver(struct obd_local_req *r, const unsigned char *buf, size_t n)
{
	uint64_t skip = r->start - r->at, got = obd_min_u64(n - skip, r->end - r->start);
	r->local->stats->bytes_local += got;
	int rc = r->sink->data(r->arg, buf + skip, got);
	r->start += got;
	if (rc)
		finish_io(r, -rc, strerror(-rc));
	else if (r->start == r->end)
		finish(r, 0, "");
	else
		go_round(r);
}

static void judge(struct obd_local_req *r, ssize_t n)
{
	if (!r->sink)
		return;
	if (n == -EINVAL && r->direct) {
		warn_direct(r);
		if (leave_direct(r) == 0) {
			go_round(r);
			return;
		}
	}
	if (n < 0 && n != -EINTR && n != -EAGAIN)
		finish_io(r, EIO, strerror((int)-n));
	else if (n < 0)
		go_round(r);
	else if ((uint64_t)n <= r->start - r->at)
		finish_io(r, EIO, "the file ends early");
	else
		deliver(r, r->bounce, (size_t)n);
}

/* The kernel may be faster than the thread that asked it. */
void obd_local_came(struct obd_local_req *req, ssize_t n)
{
	if (req->on_thread) {
		req->early = true;
		req->early_n = n;
		return;
	}
	req->in_kernel = false;
	judge(req, n);
	put(req);
}

static void kernel_has_it(struct obd_local_req *r)
{
	r->in_kernel = true;
	r->refs++;
}

static void submit_here(struct obd_local_req *r)
{
	kernel_has_it(r);
	int rc = r->local->ops->submit(r->local, r);
	if (rc)
		obd_local_came(r, rc);
}

static void keep_file(struct obd_local_req *r)
{
	if (!r->opened)
		return;
	r->opened = false;
	r->file = obd_fdcache_add(r->local->files, &r->target, r->fd, r->direct);
	if (r->file)
		r->file->near = r->near;
	if (r->file && r->local->ops->direct && !r->direct)
		warn_direct(r);
}

/* The thread found the file, and read or began to. */
static void go_on(struct obd_local_req *r)
{
	r->checked = true;
	if (r->start == r->end && r->sink)
		finish(r, 0, "");
	else if (r->start == r->end)
		return;
	else if (r->has_n)
		judge(r, r->n);
	else if (r->early)
		judge(r, r->early_n);
	else if (r->local->ops->submit_blocks)
		kernel_has_it(r);
	else if (r->sink && r->file)
		submit_here(r);
	else if (r->sink)
		finish_io(r, EAGAIN, "no memory");
}

static void done(struct obd_work_item *item, int err)
{
	struct obd_local_req *r = OBD_CONTAINER_OF(item, struct obd_local_req, item);
	struct obd_list *held = &r->local->held;
	(void)err; /* the pool knows no limit: ours is for the kernel's part as well */
	r->on_thread = false;
	keep_file(r);
	while (!obd_list_empty(held))
		move(of(held->next), &r->local->queued);
	if (r->rc == 0)
		go_on(r);
	else if (r->sink)
		finish(r, -r->rc, r->err.msg);
}

static void drop(struct obd_work_item *item)
{
	struct obd_local_req *r = OBD_CONTAINER_OF(item, struct obd_local_req, item);
	r->in_pool = false;
	put(r);
}

/* --- turns ---------------------------------------------------------------------------------------------------------------- */

enum standing { READY, BUSY, HANGS };

/* A disk that has all the threads it may have; and one that some of them were given up for. */
static enum standing standing_of(const struct obd_local *l, uint64_t dev)
{
	uint32_t n = 0, lost = 0;
	OBD_LIST_FOREACH (it, &l->running) {
		const struct obd_local_req *r = of(it);
		if (r->target.dev != dev)
			continue;
		lost += !r->sink;
		n += r->on_thread || !r->sink;
	}
	return n < PER_DISK ? READY : lost ? HANGS : BUSY;
}

static void watch_time(struct obd_local_req *r)
{
	struct obd_local *l = r->local;
	if (!r->due_ns)
		r->due_ns = obd_clock_ns() + l->limit_ns;
	if (!l->watching)
		obd_loop_timer_set(l->timer, r->due_ns);
	l->watching = true;
}

static void start_piece(struct obd_local_req *r)
{
	r->fd = r->file ? r->file->fd : -1;
	r->direct = r->file ? r->file->direct : r->local->ops->direct;
	r->opened = r->has_n = r->early = false;
	r->item = (struct obd_work_item){.run = run, .done = done, .drop = drop};
	r->refs++;
	r->on_thread = r->in_pool = true;
	move(r, &r->local->running);
	watch_time(r);
	obd_work_submit(r->local->work, &r->item);
}

/* What is in the page cache of a local file system is read at once, to where the sink wants it. False: it may take a while. */
static bool read_now(struct obd_local_req *r)
{
	size_t room = 0;
	unsigned char *buf = r->sink->room ? r->sink->room(r->arg, &room) : NULL;
	if (!buf && plan_piece(r))
		return false;
	struct iovec iov = {.iov_base = buf ? buf : r->bounce,
			    .iov_len =
				    buf ? obd_min_u64(obd_min_u64(room, OBD_LOCAL_PIECE_BYTES), r->end - r->start) : r->want};
	ssize_t n = preadv2(r->file->fd, &iov, 1, (off_t)r->start, RWF_NOWAIT);
	if (n <= 0)
		return false;
	r->at = r->start;
	deliver(r, iov.iov_base, (size_t)n);
	return true;
}

static bool turn_now(struct obd_local_req *r)
{
	if (!r->file)
		r->file = obd_fdcache_find(r->local->files, &r->target);
	if (r->local->ops->submit || !r->file || !r->file->near)
		return false;
	int rc = r->checked ? 0 : obd_fd_check(r->file->fd, &r->target, &r->err);
	r->checked = true;
	if (rc == 0 && r->start < r->end)
		return read_now(r);
	finish(r, -rc, rc ? r->err.msg : "");
	return true;
}

static void turn(struct obd_local_req *r)
{
	if (turn_now(r))
		return;
	enum standing standing = standing_of(r->local, r->target.dev);
	if (standing == HANGS) {
		finish_io(r, ETIMEDOUT, "the disk does not answer");
	} else if (standing == BUSY) {
		move(r, &r->local->held);
		watch_time(r);
	} else if (r->start < r->end && plan_piece(r)) {
		finish_io(r, EAGAIN, "no memory");
	} else {
		start_piece(r);
	}
}

bool obd_local_poll(struct obd_local *local)
{
	if (!obd_local_has_work(local))
		return false;
	turn(of(local->queued.next));
	return true;
}

bool obd_local_has_work(const struct obd_local *local)
{
	return !obd_list_empty(&local->queued);
}

/* The first whose time is over; else *next is when that will be. */
static struct obd_local_req *find_late(const struct obd_list *list, uint64_t now, uint64_t *next)
{
	OBD_LIST_FOREACH (it, list) {
		struct obd_local_req *r = of(it);
		if (r->sink && r->due_ns <= now)
			return r;
		if (r->sink)
			*next = obd_min_u64(*next, r->due_ns);
	}
	return NULL;
}

static void on_time(void *arg)
{
	struct obd_local *l = arg;
	struct obd_local_req *r;
	uint64_t now = obd_clock_ns(), next;
	do {
		next = UINT64_MAX;
		r = find_late(&l->running, now, &next);
		if (!r)
			r = find_late(&l->held, now, &next);
		if (r)
			finish_io(r, ETIMEDOUT, "the disk does not answer");
	} while (r);
	l->watching = next != UINT64_MAX;
	obd_loop_timer_set(l->timer, l->watching ? next : 0);
}

int obd_local_read(struct obd_local *local, const struct obd_local_target *target, uint64_t start, uint64_t end,
		   const struct obd_source_sink *sink, void *arg)
{
	size_t path_bytes = strlen(target->path) + 1;
	struct obd_local_req *r = calloc(1, sizeof(*r) + path_bytes);
	if (!r)
		return -ENOMEM;
	r->local = local;
	r->refs = 1;
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

/* --- life ----------------------------------------------------------------------------------------------------------------- */

static int start(struct obd_local *l)
{
	l->files = obd_fdcache_new();
	l->timer = obd_loop_timer_new(l->loop, on_time, l);
	l->work = obd_work_new(l->loop, THREADS, 0);
	return l->files && l->timer && l->work ? l->ops->start(l) : -ENOMEM;
}

struct obd_local *obd_local_new(struct obd_loop *loop, enum obd_local_engine engine, struct obd_fetch_stats *stats)
{
	if (engine >= OBD_LOCAL_ENGINES) {
		errno = EINVAL;
		return NULL;
	}
	struct obd_local *l = calloc(1, sizeof(*l));
	if (!l)
		return NULL;
	*l = (struct obd_local){.loop = loop, .stats = stats, .ops = engines[engine], .limit_ns = LIMIT_NS, .event_fd = -1};
	obd_list_init(&l->queued);
	obd_list_init(&l->held);
	obd_list_init(&l->running);
	int rc = start(l);
	if (rc == 0)
		return l;
	obd_work_free(l->work);
	obd_loop_timer_free(l->timer);
	obd_fdcache_free(l->files);
	free(l);
	errno = -rc;
	return NULL;
}

void obd_local_set_limit(struct obd_local *local, uint32_t ms)
{
	local->limit_ns = ms * OBD_MS_NS;
}

static bool some_hang(const struct obd_local *l)
{
	OBD_LIST_FOREACH (it, &l->running)
		if (of(it)->in_pool)
			return true;
	return false;
}

static void release_all(struct obd_list *list)
{
	while (!obd_list_empty(list)) {
		struct obd_local_req *r = of(list->next);
		if (r->opened)
			close(r->fd); /* nobody came to take it over */
		release(r);
	}
}

void obd_local_free(struct obd_local *local)
{
	if (!local)
		return;
	OBD_LIST_FOREACH (it, &local->running)
		of(it)->refs++; /* the kernel may have what its thread gives back here */
	obd_work_free(local->work);
	obd_loop_timer_free(local->timer);
	if (some_hang(local))
		return;
	local->ops->stop(local);
	release_all(&local->queued);
	release_all(&local->held);
	release_all(&local->running);
	obd_fdcache_free(local->files);
	free(local);
}
