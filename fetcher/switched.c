/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Files are opened for each read: a file that was removed is not kept alive by us, and one that was exchanged is seen. Its
 * identity is compared before and after the read, so bytes of a file that was written to meanwhile are not believed.
 */
#include "fetcher/switched.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "fetcher/partial.h"
#include "shmcache/download.h"

#define THREADS 4u
#define LIMIT_NS (5 * OBD_SECOND_NS)
#define BAD_NS (10 * OBD_SECOND_NS)
#define BAD_LAYERS 64u
#define READ_BYTES_MAX (UINT64_C(64) << 20)

struct bad {
	uint32_t uid;
	uint64_t until_ns;
};

struct obd_switched {
	const struct obd_segment *seg;
	struct obd_fetch_stats *stats;
	struct obd_work *work;
	struct bad bad[BAD_LAYERS]; /* by uid; a later one takes the place */
};

struct read_item {
	struct obd_work_item item;
	struct obd_switched *sw;
	uint32_t uid;
	struct obd_local_now file;
	uint64_t start;
	size_t n;
	unsigned char *buf;
	const struct obd_source_sink *sink;
	void *arg;
	int err; /* positive */
};

static struct read_item *of(struct obd_work_item *item)
{
	return OBD_CONTAINER_OF(item, struct read_item, item);
}

/* --- on a thread ---------------------------------------------------------------------------------------------------------- */

static int check(int fd, const struct obd_local_now *f)
{
	struct stat st;
	if (fstat(fd, &st))
		return errno;
	int64_t mtime_ns = (int64_t)st.st_mtim.tv_sec * INT64_C(1000000000) + st.st_mtim.tv_nsec;
	bool same = S_ISREG(st.st_mode) && (uint64_t)st.st_dev == f->dev && (uint64_t)st.st_ino == f->ino &&
		    mtime_ns == f->mtime_ns && (uint64_t)st.st_size == f->bytes;
	return same ? 0 : ESTALE;
}

static int read_all(int fd, unsigned char *buf, size_t n, uint64_t at)
{
	while (n) {
		ssize_t k = pread(fd, buf, n, (off_t)at);
		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0)
			return k < 0 ? errno : EIO;
		buf += k;
		at += (uint64_t)k;
		n -= (size_t)k;
	}
	return 0;
}

static void run(struct obd_work_item *item)
{
	struct read_item *r = of(item);
	char path[OBD_DIR_BYTES + sizeof OBD_COMMIT_NAME + 1];
	snprintf(path, sizeof path, "%s/" OBD_COMMIT_NAME, r->file.dir);
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY); /* a fifo in the file's place must not hold us up */
	r->err = fd < 0 ? errno : check(fd, &r->file);
	if (r->err == 0)
		r->err = read_all(fd, r->buf, r->n, r->start);
	if (r->err == 0)
		r->err = check(fd, &r->file);
	if (fd >= 0)
		close(fd);
}

/* --- on the loop ---------------------------------------------------------------------------------------------------------- */

static struct bad *bad_of(struct obd_switched *sw, uint32_t uid)
{
	return &sw->bad[uid % BAD_LAYERS];
}

static void mark_bad(struct obd_switched *sw, uint32_t uid)
{
	*bad_of(sw, uid) = (struct bad){.uid = uid, .until_ns = obd_clock_ns() + BAD_NS};
}

static bool is_bad(struct obd_switched *sw, uint32_t uid)
{
	const struct bad *b = bad_of(sw, uid);
	return b->uid == uid && obd_clock_ns() < b->until_ns;
}

/* One line per layer and while. */
static void complain(struct read_item *r, int err)
{
	if (!is_bad(r->sw, r->uid))
		obd_warn("%s/" OBD_COMMIT_NAME ": %s; its registry is asked for a while", r->file.dir,
			 err == ESTALE ? "changed or exchanged" : strerror(err));
	mark_bad(r->sw, r->uid);
}

static void done(struct obd_work_item *item, int late)
{
	struct read_item *r = of(item);
	int err = late ? late : r->err;
	struct obd_source_end end = {.err = err, .reason = err ? strerror(err) : ""};
	if (err && late != EAGAIN) {
		complain(r, err);
	} else if (!err) {
		r->sw->stats->bytes_local += r->n;
		int rc = r->sink->data(r->arg, r->buf, r->n);
		end = (struct obd_source_end){.err = -rc, .reason = rc ? strerror(-rc) : ""};
	}
	r->sink->done(r->arg, &end);
}

static void drop(struct obd_work_item *item)
{
	struct read_item *r = of(item);
	free(r->buf);
	free(r);
}

bool obd_switched_has(struct obd_switched *sw, const struct obd_layer_view *layer)
{
	struct obd_local_now file;
	return obd_local_now(sw->seg, layer->slot, layer->uid, &file) && file.bytes == layer->blob_bytes &&
	       !is_bad(sw, layer->uid);
}

int obd_switched_read(struct obd_switched *sw, const struct obd_layer_view *layer, uint64_t start, uint64_t end,
		      const struct obd_source_sink *sink, void *arg)
{
	struct obd_local_now file;
	if (!obd_local_now(sw->seg, layer->slot, layer->uid, &file) || file.bytes != layer->blob_bytes || start >= end ||
	    end > file.bytes || end - start > READ_BYTES_MAX || is_bad(sw, layer->uid))
		return -ENOENT;
	struct read_item *r = calloc(1, sizeof *r);
	unsigned char *buf = malloc(end - start);
	if (!r || !buf) {
		free(r);
		free(buf);
		return -ENOMEM;
	}
	*r = (struct read_item){.item = {.run = run, .done = done, .drop = drop, .limit_ns = LIMIT_NS},
				.sw = sw,
				.uid = layer->uid,
				.file = file,
				.start = start,
				.n = end - start,
				.buf = buf,
				.sink = sink,
				.arg = arg};
	obd_work_submit(sw->work, &r->item);
	return 0;
}

void obd_switched_distrust(struct obd_switched *sw, const struct obd_layer_view *layer)
{
	struct obd_local_now file;
	if (is_bad(sw, layer->uid))
		return;
	if (obd_local_now(sw->seg, layer->slot, layer->uid, &file))
		obd_warn("%s/" OBD_COMMIT_NAME ": damaged; its registry is asked for a while", file.dir);
	mark_bad(sw, layer->uid);
}

struct obd_switched *obd_switched_new(struct obd_loop *loop, const struct obd_segment *seg, struct obd_fetch_stats *stats)
{
	struct obd_switched *sw = calloc(1, sizeof *sw);
	if (!sw)
		return NULL;
	*sw = (struct obd_switched){.seg = seg, .stats = stats, .work = obd_work_new(loop, THREADS, 0)};
	if (sw->work)
		return sw;
	free(sw);
	return NULL;
}

void obd_switched_free(struct obd_switched *sw)
{
	if (!sw)
		return;
	obd_work_free(sw->work);
	free(sw);
}
