/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The files of the disk tier, from the threads' side. Several processes work on them at once: the fetchers of the group, which
 * add units, and obd-cached's keeper, which clears marks, punches holes and unlinks files.
 *
 *     write    bytes into the data file, then the mark             killed between: no mark, the bytes are found by nobody
 *     read     mark, then bytes, then their CRC                    wrong CRC and the same mark as before: damage, mark cleared
 *     evict    mark cleared, then a hole                           a reader between: wrong CRC, but the mark has gone: a miss
 *
 * Everything goes by pread and pwrite rather than through a mapping, so that a disk which fails gives an errno and no SIGBUS.
 * Nothing is synced: after a power cut a mark may have reached the disk without its bytes, which the CRC tells.
 *
 * A blob's files are made under flock of the marks file. A keeper that drops a blob unlinks both; who still has them open sees
 * that the marks file has no name any more and opens again.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/base/io.h"
#include "common/base/le.h"
#include "common/base/log.h"
#include "common/base/testpoint.h"
#include "common/base/util.h"
#include "fetcher/disk_impl.h"

#define AGE_STEP_SECONDS 600u /* an age is written anew when it is off by more */

/* --- a blob's files ----------------------------------------------------------------------------------------------------- */

static int open_file(int dir_fd, const char *name, bool create)
{
	struct stat st;
	const int flags = O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY;
	int fd = openat(dir_fd, name, O_RDWR | flags | (create ? O_CREAT : 0), 0600);
	if (fd < 0 && !create && (errno == EROFS || errno == EACCES))
		fd = openat(dir_fd, name, O_RDONLY | flags);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
		return fd;
	close(fd);
	return -EINVAL;
}

/* The registry's directory, made if need be. */
static int open_dir(const struct obd_disk_store *s, const char *hash, bool create)
{
	int top = open(s->dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (top < 0)
		return -errno;
	if (create && mkdirat(top, hash, 0700) && errno != EEXIST) {
		int rc = -errno;
		close(top);
		return rc;
	}
	int fd = openat(top, hash, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	int rc = fd < 0 ? -errno : fd;
	close(top);
	return rc;
}

/* 1: the header is that of geo. 0: the file is empty. -EINVAL: anything else; or an errno of reading. */
static int look_at_header(int marks_fd, const struct obd_marks_geo *geo)
{
	unsigned char buf[OBD_MARKS_HEADER_BYTES];
	struct obd_marks_geo found;
	ssize_t n = obd_io_read(marks_fd, buf, sizeof buf, 0);
	if (n <= 0)
		return (int)n;
	if (obd_marks_header_decode(buf, (size_t)n, &found) || !obd_marks_geo_equal(&found, geo))
		return -EINVAL;
	return 1;
}

/* A blob's files start anew: what they hold is forgotten before the header is there. */
static int make_files(const struct obd_disk_files *f)
{
	unsigned char buf[OBD_MARKS_HEADER_BYTES];
	obd_marks_header_encode(&f->geo, buf);
	if (ftruncate(f->marks_fd, 0) || ftruncate(f->data_fd, 0) || ftruncate(f->data_fd, (off_t)f->geo.blob_bytes))
		return -errno;
	return obd_io_write(f->marks_fd, buf, sizeof buf, 0);
}

/* Marks of another geometry or version, or garbage: only a writer may put things right, a reader finds nothing. */
static int check_files(struct obd_disk_files *f, bool create, uint32_t *ncorrupt)
{
	int rc = look_at_header(f->marks_fd, &f->geo);
	if (rc == 1 || (rc < 0 && rc != -EINVAL))
		return rc == 1 ? 0 : rc;
	if (!create)
		return -ENOENT;
	if (flock(f->marks_fd, LOCK_EX))
		return -errno;
	rc = look_at_header(f->marks_fd, &f->geo); /* somebody else may have been faster */
	if (rc == 0 || rc == -EINVAL) {
		*ncorrupt += rc == -EINVAL;
		rc = make_files(f);
	}
	flock(f->marks_fd, LOCK_UN);
	return rc < 0 ? rc : 0;
}

static void close_files(struct obd_disk_files *f)
{
	if (f->marks_fd >= 0)
		close(f->marks_fd);
	if (f->data_fd >= 0)
		close(f->data_fd);
	f->marks_fd = f->data_fd = -1;
}

static int open_files(const struct obd_disk_store *s, struct obd_disk_req *req, struct obd_disk_files *f)
{
	char name[OBD_MARKS_NAME_BYTES];
	bool create = req->op == OBD_DISK_WRITE;
	*f = (struct obd_disk_files){.used = true, .geo = req->geo, .marks_fd = -1, .data_fd = -1};
	memcpy(f->hash, req->hash, sizeof f->hash);
	int dir = open_dir(s, req->hash, create);
	if (dir < 0)
		return dir;
	obd_marks_name(&req->geo, true, name);
	int rc = f->marks_fd = open_file(dir, name, create);
	obd_marks_name(&req->geo, false, name);
	if (rc >= 0)
		rc = f->data_fd = open_file(dir, name, create);
	close(dir);
	if (rc >= 0)
		rc = check_files(f, create, &req->ncorrupt);
	if (rc < 0)
		close_files(f);
	return rc < 0 ? rc : 0;
}

/* --- open blobs, shared by the threads ---------------------------------------------------------------------------------- */

void obd_disk_store_init(struct obd_disk_store *s, char *dir)
{
	memset(s, 0, sizeof *s);
	s->dir = dir;
	pthread_mutex_init(&s->lock, NULL);
}

void obd_disk_store_done(struct obd_disk_store *s)
{
	for (uint32_t i = 0; i < OBD_DISK_OPEN_BLOBS; i++)
		if (s->files[i].used)
			close_files(&s->files[i]);
	pthread_mutex_destroy(&s->lock);
	free(s->dir);
}

static struct obd_disk_files *find(struct obd_disk_store *s, const struct obd_disk_req *req)
{
	for (uint32_t i = 0; i < OBD_DISK_OPEN_BLOBS; i++) {
		struct obd_disk_files *f = &s->files[i];
		if (f->used && !f->stale && strcmp(f->hash, req->hash) == 0 && obd_marks_geo_equal(&f->geo, &req->geo))
			return f;
	}
	return NULL;
}

/* A free place, or that of the blob that was used least recently and that nobody uses now. */
static struct obd_disk_files *place(struct obd_disk_store *s)
{
	struct obd_disk_files *best = NULL;
	for (uint32_t i = 0; i < OBD_DISK_OPEN_BLOBS; i++) {
		struct obd_disk_files *f = &s->files[i];
		if (!f->used)
			return f;
		if (!f->refs && (!best || f->used_at < best->used_at))
			best = f;
	}
	if (best)
		close_files(best);
	return best;
}

static void put(struct obd_disk_store *s, struct obd_disk_files *f)
{
	pthread_mutex_lock(&s->lock);
	f->refs--;
	if (f->stale && !f->refs) {
		close_files(f);
		f->used = false;
	}
	pthread_mutex_unlock(&s->lock);
}

static struct obd_disk_files *look_up(struct obd_disk_store *s, const struct obd_disk_req *req)
{
	pthread_mutex_lock(&s->lock);
	struct obd_disk_files *f = find(s, req);
	if (f) {
		f->refs++;
		f->used_at = ++s->now_used;
	}
	pthread_mutex_unlock(&s->lock);
	return f;
}

/* Has the keeper taken the files away? */
static bool unlinked(const struct obd_disk_files *f)
{
	struct stat st;
	return fstat(f->marks_fd, &st) == 0 && st.st_nlink == 0;
}

static struct obd_disk_files *enter(struct obd_disk_store *s, const struct obd_disk_files *opened)
{
	pthread_mutex_lock(&s->lock);
	struct obd_disk_files *f = place(s);
	if (f) {
		*f = *opened;
		f->refs = 1;
		f->used_at = ++s->now_used;
	}
	pthread_mutex_unlock(&s->lock);
	return f;
}

/* The blob's files, with a reference. Negative errno, -ENOENT when there are none. */
static int get(struct obd_disk_store *s, struct obd_disk_req *req, struct obd_disk_files **out)
{
	struct obd_disk_files opened;
	struct obd_disk_files *f = look_up(s, req);
	if (f && unlinked(f)) {
		pthread_mutex_lock(&s->lock);
		f->stale = true;
		pthread_mutex_unlock(&s->lock);
		put(s, f);
		f = NULL;
	}
	if (!f) {
		int rc = open_files(s, req, &opened);
		if (rc)
			return rc;
		f = enter(s, &opened);
		if (!f) {
			close_files(&opened);
			return -EMFILE;
		}
	}
	*out = f;
	return 0;
}

/* --- marks of one request ----------------------------------------------------------------------------------------------- */

/* The marks from the lowest to the highest unit of a request, as they lie in the file. */
struct span {
	uint64_t first; /* index */
	uint32_t n;
	unsigned char raw[OBD_DISK_UNITS * OBD_MARK_BYTES];
};

static uint64_t index_of(const struct obd_disk_req *req, uint32_t i)
{
	return obd_marks_index(&req->geo, req->unit[i].raw, req->unit[i].number);
}

static void span_of(const struct obd_disk_req *req, struct span *sp)
{
	uint64_t last = sp->first = index_of(req, 0);
	for (uint32_t i = 1; i < req->n; i++) {
		sp->first = obd_min_u64(sp->first, index_of(req, i));
		last = obd_max_u64(last, index_of(req, i));
	}
	sp->n = (uint32_t)(last - sp->first + 1);
}

static int span_read(const struct obd_disk_files *f, struct span *sp)
{
	size_t n = (size_t)sp->n * OBD_MARK_BYTES;
	ssize_t got = obd_io_read(f->marks_fd, sp->raw, n, obd_marks_offset(sp->first));
	if (got < 0)
		return (int)got;
	memset(sp->raw + got, 0, n - (size_t)got);
	return 0;
}

static unsigned char *span_at(struct span *sp, uint64_t index)
{
	return sp->raw + (index - sp->first) * OBD_MARK_BYTES;
}

static uint32_t now_seconds(void)
{
	return (uint32_t)time(NULL);
}

static void clear_mark(const struct obd_disk_files *f, uint64_t index)
{
	static const unsigned char zero[OBD_MARK_BYTES];
	(void)obd_io_write(f->marks_fd, zero, sizeof zero,
			   obd_marks_offset(index)); /* a mark that stays is found wrong again */
}

/* Is the mark still what we saw? Another one came from a keeper or from a writer, and what we read was neither's. */
static bool mark_stands(const struct obd_disk_files *f, uint64_t index, const unsigned char *seen)
{
	unsigned char now[OBD_MARK_BYTES];
	return obd_io_read(f->marks_fd, now, sizeof now, obd_marks_offset(index)) == (ssize_t)sizeof now &&
	       memcmp(now, seen, OBD_MARK_AGE_AT) == 0;
}

/* --- reading ------------------------------------------------------------------------------------------------------------ */

/* Which units have a mark that says what the caller says? Garbled marks and marks of other places are cleared. */
static uint64_t marked(const struct obd_disk_files *f, struct obd_disk_req *req, struct span *sp)
{
	uint64_t there = 0;
	for (uint32_t i = 0; i < req->n; i++) {
		struct obd_mark m;
		uint64_t index = index_of(req, i);
		enum obd_mark_state state = obd_mark_decode(&f->geo, index, span_at(sp, index), &m);
		bool fits = state == OBD_MARK_PRESENT && m.start == req->unit[i].start && m.bytes == req->unit[i].bytes;
		if (fits) {
			there |= UINT64_C(1) << i;
		} else if (state != OBD_MARK_ABSENT) {
			req->ncorrupt++;
			clear_mark(f, index);
		}
	}
	return there;
}

static void refresh_age(const struct obd_disk_files *f, uint64_t index, uint32_t age)
{
	unsigned char buf[4];
	uint32_t now = now_seconds();
	if (now - age < AGE_STEP_SECONDS)
		return;
	obd_put_le32(buf, now);
	(void)obd_io_write(f->marks_fd, buf, sizeof buf, obd_marks_offset(index) + OBD_MARK_AGE_AT);
}

/* The bytes of unit i have been read (got of them). */
static void judge_unit(const struct obd_disk_files *f, struct obd_disk_req *req, struct span *sp, uint32_t i,
		       const unsigned char *bytes, uint64_t got)
{
	struct obd_mark m;
	uint64_t index = index_of(req, i);
	const unsigned char *seen = span_at(sp, index);
	(void)obd_mark_decode(&f->geo, index, seen, &m);
	if (got >= m.bytes && obd_marks_crc(bytes, m.bytes) == m.crc) {
		req->got.have |= UINT64_C(1) << i;
		req->got.at[i] = bytes;
		if (req->refresh)
			refresh_age(f, index, m.age);
	} else if (mark_stands(f, index, seen)) {
		req->ncorrupt++;
		clear_mark(f, index);
	}
}

/* How many units from i on (step 1 or -1) lie there and side by side in the blob. */
static uint32_t side_by_side(const struct obd_disk_req *req, uint64_t there, uint32_t i, int step)
{
	uint32_t n = 1, at = i;
	for (;;) {
		uint32_t next = at + (uint32_t)step;
		if (next >= req->n || !(there >> next & 1) ||
		    req->unit[next].start != req->unit[at].start + req->unit[at].bytes)
			return n;
		at = next;
		n++;
	}
}

static uint64_t total_bytes(const struct obd_disk_req *req, uint64_t there)
{
	uint64_t sum = 0;
	for (uint32_t i = 0; i < req->n; i++)
		if (there >> i & 1)
			sum += req->unit[i].bytes;
	return sum;
}

/* Units side by side are one read. Raw chunks lie in falling order of their numbers. */
static int read_units(const struct obd_disk_files *f, struct obd_disk_req *req, struct span *sp, uint64_t there)
{
	const int step = req->n > 1 && req->unit[0].start > req->unit[1].start ? -1 : 1;
	unsigned char *at = req->buf;
	for (uint32_t k = 0, run; k < req->n; k += run) {
		uint32_t i = step > 0 ? k : req->n - 1 - k;
		run = 1;
		if (!(there >> i & 1))
			continue;
		run = side_by_side(req, there, i, step);
		uint64_t want = 0;
		for (uint32_t j = 0, u = i; j < run; j++, u += (uint32_t)step)
			want += req->unit[u].bytes;
		ssize_t got = obd_io_read(f->data_fd, at, want, req->unit[i].start);
		if (got < 0)
			return (int)got;
		req->moved += (uint64_t)got;
		uint64_t left = (uint64_t)got;
		for (uint32_t j = 0, u = i; j < run; j++, u += (uint32_t)step) {
			judge_unit(f, req, sp, u, at, left);
			left -= obd_min_u64(left, req->unit[u].bytes);
			at += req->unit[u].bytes;
		}
	}
	return 0;
}

static int do_read(const struct obd_disk_files *f, struct obd_disk_req *req)
{
	struct span sp;
	span_of(req, &sp);
	int rc = span_read(f, &sp);
	if (rc)
		return rc;
	uint64_t there = marked(f, req, &sp);
	req->bytes = total_bytes(req, there);
	if (!req->bytes)
		return 0;
	req->buf = malloc(req->bytes);
	return req->buf ? read_units(f, req, &sp, there) : -ENOMEM;
}

/* --- writing ------------------------------------------------------------------------------------------------------------ */

static const unsigned char *bytes_of(const struct obd_disk_req *req, uint32_t i)
{
	return req->buf + (req->unit[i].start - req->base);
}

/* The bytes first, unit after unit (they lie in one buffer, so the page cache sees them one behind the other). */
static int write_data(const struct obd_disk_files *f, struct obd_disk_req *req)
{
	for (uint32_t i = 0; i < req->n; i++) {
		int rc = obd_io_write(f->data_fd, bytes_of(req, i), req->unit[i].bytes, req->unit[i].start);
		if (rc)
			return rc;
		req->moved += req->unit[i].bytes;
	}
	return 0;
}

static int do_write(const struct obd_disk_files *f, struct obd_disk_req *req)
{
	int rc = write_data(f, req);
	OBD_TEST_POINT(disk_unmarked);
	for (uint32_t i = 0; i < req->n && !rc; i++) {
		unsigned char buf[OBD_MARK_BYTES];
		const struct obd_disk_unit *u = &req->unit[i];
		const struct obd_mark m = {.start = u->start,
					   .bytes = u->bytes,
					   .crc = obd_marks_crc(bytes_of(req, i), u->bytes),
					   .age = now_seconds()};
		obd_mark_encode(&f->geo, index_of(req, i), &m, buf);
		rc = obd_io_write(f->marks_fd, buf, sizeof buf, obd_marks_offset(index_of(req, i)));
	}
	return rc;
}

/* --- any ---------------------------------------------------------------------------------------------------------------- */

/* What says something about our own process, or that nothing is there, is no fault of the disk. */
static int fault_of(int rc)
{
	switch (rc) {
	case 0:
	case -ENOMEM:
	case -EMFILE:
	case -ENFILE:
		return 0;
	default:
		return -rc;
	}
}

void obd_disk_run(struct obd_disk_store *s, struct obd_disk_req *req)
{
	struct obd_disk_files *f;
	int rc = get(s, req, &f);
	if (rc == 0) {
		if (req->op == OBD_DISK_READ)
			rc = do_read(f, req);
		else if (req->op == OBD_DISK_WRITE)
			rc = do_write(f, req);
		else
			clear_mark(f, index_of(req, 0));
		put(s, f);
	} else if (rc == -ENOENT && req->op != OBD_DISK_WRITE) {
		rc = 0;
	}
	if (rc)
		obd_debug("disk cache: %s: %s", req->geo.digest, strerror(-rc));
	if (rc && req->op == OBD_DISK_READ)
		req->got.have = 0;
	if (rc && req->op == OBD_DISK_WRITE)
		req->ndropped = req->n;
	req->err = fault_of(rc);
}
