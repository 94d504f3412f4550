/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the keeper does to the files of the disk tier (common/format/marks.h). Fetchers read and write them at the same time.
 *
 *     evict a unit    its mark is cleared, then a hole is punched where its bytes were
 *     drop a blob     both files are unlinked; fetchers that have them open see st_nlink 0
 *
 * Oldest first: a first pass over all marks finds the span of ages, a second one how many bytes are of which age, a third one
 * evicts what is older than the age that gives enough. Metadata (raw chunks) goes last, a whole blob at a time. A unit whose
 * bytes are also those of raw chunks (the end of a blob) takes no room of its own and stays.
 *
 * If the process dies: a unit without mark whose bytes are still there is room lost until the blob is dropped or the block is
 * fetched again.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "common/base/testpoint.h"
#include "common/base/util.h"
#include "common/format/marks.h"
#include "shmcache/cached/keeper.h"

#define AGES 4096u
#define BATCH 1024u	/* marks read at once */
#define ALIGN 4096u	/* holes reach to the next block of the file system where nothing else lies there */
#define IDLE_SECONDS 60 /* a blob without units is dropped when nobody wrote to it for so long */
#define ROUNDS 4u	/* evictions per look */
#define SLACK_MAX (UINT64_C(2) << 30)

/* --- going over all blobs ----------------------------------------------------------------------------------------------- */

struct blob {
	int dir_fd;
	const char *name; /* of the marks file */
	char data_name[OBD_MARKS_NAME_BYTES];
	int marks_fd;
	int data_fd;
	struct obd_marks_geo geo;
	uint64_t nmarks;
	uint64_t used_bytes; /* of both files */
	time_t mtime;
	bool bad; /* no header of ours */
};

typedef void blob_fn(struct blob *b, void *arg);

static bool stat_both(struct blob *b)
{
	struct stat marks, data;
	if (fstatat(b->dir_fd, b->name, &marks, AT_SYMLINK_NOFOLLOW) || !S_ISREG(marks.st_mode))
		return false;
	b->used_bytes = (uint64_t)marks.st_blocks * 512;
	b->mtime = marks.st_mtime;
	uint64_t size = (uint64_t)marks.st_size;
	b->nmarks = size > OBD_MARKS_HEADER_BYTES ? (size - OBD_MARKS_HEADER_BYTES) / OBD_MARK_BYTES : 0;
	if (fstatat(b->dir_fd, b->data_name, &data, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(data.st_mode))
		b->used_bytes += (uint64_t)data.st_blocks * 512;
	return true;
}

static bool open_both(struct blob *b)
{
	unsigned char buf[OBD_MARKS_HEADER_BYTES];
	const int flags = O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY;
	b->marks_fd = openat(b->dir_fd, b->name, flags);
	b->data_fd = openat(b->dir_fd, b->data_name, flags);
	if (b->marks_fd < 0)
		return false;
	ssize_t n = pread(b->marks_fd, buf, sizeof buf, 0);
	b->bad = n < 0 || obd_marks_header_decode(buf, (size_t)n, &b->geo) != 0;
	return true;
}

static void close_both(struct blob *b)
{
	if (b->marks_fd >= 0)
		close(b->marks_fd);
	if (b->data_fd >= 0)
		close(b->data_fd);
}

static void each_in_dir(int dir_fd, bool opened, blob_fn *fn, void *arg)
{
	int fd = fcntl(dir_fd, F_DUPFD_CLOEXEC, 0);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;
	if (fd >= 0 && !dir)
		close(fd);
	while (dir && (e = readdir(dir))) {
		struct blob b = {.dir_fd = dir_fd, .name = e->d_name, .marks_fd = -1, .data_fd = -1};
		char digest[OBD_MARKS_DIGEST_BYTES];
		uint64_t blob_bytes;
		bool marks;
		if (!obd_marks_name_parse(e->d_name, &marks, digest, &blob_bytes) || !marks)
			continue;
		snprintf(b.data_name, sizeof b.data_name, "%.64s.%llu.data", e->d_name, (unsigned long long)blob_bytes);
		if (stat_both(&b) && (!opened || open_both(&b)))
			fn(&b, arg);
		close_both(&b);
	}
	if (dir)
		closedir(dir);
}

/* Every blob of every registry; what is not ours by its name is left alone. */
static int each_blob(const char *path, bool opened, blob_fn *fn, void *arg)
{
	DIR *dir = opendir(path);
	struct dirent *e;
	if (!dir)
		return errno;
	while ((e = readdir(dir))) {
		if (!obd_marks_is_hash(e->d_name))
			continue;
		int fd = openat(dirfd(dir), e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (fd < 0)
			continue;
		each_in_dir(fd, opened, fn, arg);
		close(fd);
	}
	closedir(dir);
	return 0;
}

typedef void mark_fn(struct blob *b, uint64_t index, const struct obd_mark *m, void *arg);

/* Every good mark, in the order of the file: raw chunks, then blocks. */
static void each_mark(struct blob *b, mark_fn *fn, void *arg)
{
	unsigned char *buf = malloc(BATCH * OBD_MARK_BYTES);
	for (uint64_t at = 0; buf && at < b->nmarks; at += BATCH) {
		ssize_t n = pread(b->marks_fd, buf, BATCH * OBD_MARK_BYTES, (off_t)obd_marks_offset(at));
		for (uint64_t i = 0; n > 0 && i < (uint64_t)n / OBD_MARK_BYTES; i++) {
			struct obd_mark m;
			if (obd_mark_decode(&b->geo, at + i, buf + i * OBD_MARK_BYTES, &m) == OBD_MARK_PRESENT)
				fn(b, at + i, &m, arg);
		}
	}
	free(buf);
}

static bool is_raw(const struct blob *b, uint64_t index)
{
	return index < b->geo.nraw;
}

/* --- how much is used --------------------------------------------------------------------------------------------------- */

static void add_usage(struct blob *b, void *arg)
{
	struct obd_keeper_look *look = arg;
	look->used_bytes += b->used_bytes;
	look->blobs++;
}

static int measure(const struct obd_keeper_limits *limits, struct obd_keeper_look *look)
{
	struct statvfs fs;
	look->used_bytes = 0;
	look->blobs = 0;
	int err = each_blob(limits->dir, false, add_usage, look);
	if (err)
		return err;
	if (statvfs(limits->dir, &fs))
		return errno;
	look->free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
	return 0;
}

/* --- evicting ----------------------------------------------------------------------------------------------------------- */

struct eviction {
	uint64_t want;	/* bytes to free */
	uint64_t freed; /* in units' bytes; what it gives is measured afterwards */
	uint64_t units;
	uint32_t now;
	uint32_t oldest; /* age in seconds of the oldest unit */
	uint32_t cut;	 /* bucket: this and older ones go */
	uint64_t bytes[AGES];
	/* of the blob at hand */
	uint64_t raw_from; /* raw chunks hold the bytes from here on */
	bool raw_head;
};

static uint32_t age_of(const struct eviction *ev, const struct obd_mark *m)
{
	return ev->now > m->age ? ev->now - m->age : 0;
}

static uint32_t bucket_of(const struct eviction *ev, const struct obd_mark *m)
{
	return (uint32_t)((uint64_t)age_of(ev, m) * (AGES - 1) / (ev->oldest ? ev->oldest : 1));
}

/* Raw chunks come first in the file, so when the blocks come this is known. */
static void note_raw(struct blob *b, const struct obd_mark *m, struct eviction *ev)
{
	if (m->start == 0)
		ev->raw_head = true;
	else if (m->start < ev->raw_from && m->start + m->bytes <= b->geo.blob_bytes)
		ev->raw_from = m->start;
}

/* Does raw metadata hold a part of this unit? */
static bool is_shared(const struct eviction *ev, const struct obd_mark *m)
{
	return m->start + m->bytes > ev->raw_from || (ev->raw_head && m->start < OBD_MARKS_RAW_HEAD_BYTES);
}

static void begin_blob(struct blob *b, struct eviction *ev)
{
	ev->raw_from = b->geo.blob_bytes;
	ev->raw_head = false;
}

static bool candidate(struct blob *b, uint64_t index, const struct obd_mark *m, struct eviction *ev)
{
	if (is_raw(b, index)) {
		note_raw(b, m, ev);
		return false;
	}
	return !is_shared(ev, m);
}

static void see_age(struct blob *b, uint64_t index, const struct obd_mark *m, void *arg)
{
	struct eviction *ev = arg;
	if (candidate(b, index, m, ev) && age_of(ev, m) > ev->oldest)
		ev->oldest = age_of(ev, m);
}

static void see_bytes(struct blob *b, uint64_t index, const struct obd_mark *m, void *arg)
{
	struct eviction *ev = arg;
	if (candidate(b, index, m, ev))
		ev->bytes[obd_min_u64(bucket_of(ev, m), AGES - 1)] += m->bytes;
}

/* Is there no unit in front of (behind) this one, so that the hole may reach to the block's bound? */
static bool mark_absent(const struct blob *b, uint64_t index)
{
	unsigned char buf[OBD_MARK_BYTES];
	struct obd_mark m;
	if (index < b->geo.nraw)
		return true;
	if (pread(b->marks_fd, buf, sizeof buf, (off_t)obd_marks_offset(index)) != (ssize_t)sizeof buf)
		return true;
	return obd_mark_decode(&b->geo, index, buf, &m) != OBD_MARK_PRESENT;
}

static void punch(struct blob *b, uint64_t index, const struct obd_mark *m, const struct eviction *ev)
{
	uint64_t from = m->start, to = m->start + m->bytes;
	uint64_t down = obd_align_down(from, ALIGN), up = obd_align_up(to, ALIGN);
	if (mark_absent(b, index - 1) && !(ev->raw_head && down < OBD_MARKS_RAW_HEAD_BYTES))
		from = down;
	if (up <= ev->raw_from && mark_absent(b, index + 1))
		to = up;
	(void)fallocate(b->data_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)from, (off_t)(to - from));
}

static void evict_unit(struct blob *b, uint64_t index, const struct obd_mark *m, void *arg)
{
	static const unsigned char zero[OBD_MARK_BYTES];
	struct eviction *ev = arg;
	if (!candidate(b, index, m, ev) || bucket_of(ev, m) < ev->cut || ev->freed >= ev->want)
		return;
	if (pwrite(b->marks_fd, zero, sizeof zero, (off_t)obd_marks_offset(index)) != (ssize_t)sizeof zero)
		return;
	OBD_TEST_POINT(disk_unmarking);
	punch(b, index, m, ev);
	ev->freed += m->bytes;
	ev->units++;
}

static void blob_ages(struct blob *b, void *arg)
{
	begin_blob(b, arg);
	if (!b->bad)
		each_mark(b, see_age, arg);
}

static void blob_bytes(struct blob *b, void *arg)
{
	begin_blob(b, arg);
	if (!b->bad)
		each_mark(b, see_bytes, arg);
}

static void blob_evict(struct blob *b, void *arg)
{
	begin_blob(b, arg);
	if (!b->bad && b->data_fd >= 0)
		each_mark(b, evict_unit, arg);
}

/* The youngest bucket that must go so that enough is freed. */
static uint32_t find_cut(const struct eviction *ev)
{
	uint64_t sum = 0;
	for (uint32_t i = AGES; i-- > 0;) {
		sum += ev->bytes[i];
		if (sum >= ev->want)
			return i;
	}
	return 0;
}

/* --- dropping blobs ----------------------------------------------------------------------------------------------------- */

struct oldest_blob {
	bool idle_only; /* only blobs without any unit, or that are not ours inside */
	time_t before;
	time_t mtime; /* of the oldest; 0: none */
	char name[OBD_MARKS_NAME_BYTES];
	char data_name[OBD_MARKS_NAME_BYTES];
	int dir_fd; /* -1: none */
};

static void count_present(struct blob *b, uint64_t index, const struct obd_mark *m, void *arg)
{
	uint64_t *n = arg;
	(void)b, (void)index, (void)m;
	(*n)++;
}

static void see_blob(struct blob *b, void *arg)
{
	struct oldest_blob *o = arg;
	uint64_t present = 0;
	if (b->mtime >= o->before || (o->dir_fd >= 0 && b->mtime >= o->mtime))
		return;
	if (o->idle_only && !b->bad)
		each_mark(b, count_present, &present);
	if (present)
		return;
	if (o->dir_fd >= 0)
		close(o->dir_fd);
	o->dir_fd = fcntl(b->dir_fd, F_DUPFD_CLOEXEC, 0);
	o->mtime = b->mtime;
	snprintf(o->name, sizeof o->name, "%s", b->name);
	snprintf(o->data_name, sizeof o->data_name, "%s", b->data_name);
}

/* The blob that was written to longest ago goes with all it has. False: there is none. */
static bool drop_oldest(const char *path, bool idle_only, time_t before)
{
	struct oldest_blob o = {.idle_only = idle_only, .before = before, .dir_fd = -1};
	(void)each_blob(path, true, see_blob, &o);
	if (o.dir_fd < 0)
		return false;
	bool done = unlinkat(o.dir_fd, o.name, 0) == 0;
	(void)unlinkat(o.dir_fd, o.data_name, 0);
	close(o.dir_fd);
	return done;
}

/* --- keeping the limits ------------------------------------------------------------------------------------------------- */

static uint64_t over(uint64_t a, uint64_t b)
{
	return a > b ? a - b : 0;
}

/* How far below the limit room is made, so that it need not be made all the time. */
static uint64_t slack(uint64_t size_bytes)
{
	return obd_min_u64(size_bytes / 8, SLACK_MAX);
}

/* Bytes that must go; 0: the limits hold. low: make room beyond that. */
static uint64_t excess(const struct obd_keeper_limits *l, const struct obd_keeper_look *look, bool low)
{
	uint64_t extra = low ? slack(l->size_bytes) : 0;
	uint64_t size = over(look->used_bytes + extra, l->size_bytes);
	uint64_t disk = over(l->reserve_bytes + (low ? obd_min_u64(extra, l->reserve_bytes / 8) : 0), look->free_bytes);
	return obd_max_u64(size, disk);
}

/* Is there so little room left that nothing fits in? Fetchers stay below the limit, so that it alone would never be passed: a
 * full cache would keep what it has for ever. */
static bool crowded(const struct obd_keeper_limits *l, const struct obd_keeper_look *look)
{
	return excess(l, look, false) || look->used_bytes + slack(l->size_bytes) / 4 > l->size_bytes;
}

/* Frees about `want` bytes of units. */
static void evict(const struct obd_keeper_limits *limits, uint64_t want, struct obd_keeper_look *look)
{
	struct eviction *ev = calloc(1, sizeof *ev);
	if (!ev)
		return;
	ev->want = want;
	ev->now = (uint32_t)time(NULL);
	(void)each_blob(limits->dir, true, blob_ages, ev);
	(void)each_blob(limits->dir, true, blob_bytes, ev);
	ev->cut = find_cut(ev);
	(void)each_blob(limits->dir, true, blob_evict, ev);
	look->evictions += ev->units;
	free(ev);
}

/* Units first, then whole blobs. 0 or a positive errno. */
static int make_room(const struct obd_keeper_limits *limits, struct obd_keeper_look *look)
{
	int err = 0;
	for (uint32_t round = 0; round < ROUNDS && !err && crowded(limits, look); round++) {
		uint64_t before = look->evictions;
		evict(limits, excess(limits, look, true), look);
		err = measure(limits, look);
		if (look->evictions == before)
			break;
	}
	while (!err && excess(limits, look, false) && look->used_bytes) {
		if (!drop_oldest(limits->dir, false, time(NULL) + 1))
			break;
		look->evictions++;
		err = measure(limits, look);
	}
	return err;
}

/* --- may it be used ----------------------------------------------------------------------------------------------------- */

/* The supervisor holds the directory's lock and wrote its pid into it. Without that another group may be at work here. */
static int check_lock(int dir_fd)
{
	char text[32];
	int fd = openat(dir_fd, ".lock", O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0)
		return errno;
	ssize_t n = pread(fd, text, sizeof text - 1, 0);
	close(fd);
	if (n < 0)
		return errno;
	text[n] = '\0';
	return atoi(text) == getppid() ? 0 : EBUSY;
}

/* A disk that refused to be written to: does it take a few bytes now, and give them back? */
static int try_writing_to(int dir_fd)
{
	static const char text[] = "obd-cached looks whether this disk takes and gives bytes\n";
	char back[sizeof text];
	int fd = openat(dir_fd, ".probe", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return errno;
	int err = 0;
	errno = 0;
	if (pwrite(fd, text, sizeof text, 0) != (ssize_t)sizeof text || fdatasync(fd) ||
	    pread(fd, back, sizeof back, 0) != (ssize_t)sizeof back)
		err = errno ? errno : ENOSPC;
	close(fd);
	(void)unlinkat(dir_fd, ".probe", 0);
	return err;
}

/* What a full disk and a read-only one say: what is there can still be read. */
static bool only_writing(int err)
{
	return err == ENOSPC || err == EDQUOT || err == EROFS;
}

void obd_keeper_check(const struct obd_keeper_limits *limits, bool try_writing, struct obd_keeper_look *look)
{
	look->what[0] = '\0';
	look->err = look->write_err = 0;
	look->told = false;
	int fd = open(limits->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0) {
		look->err = errno;
		look->told = true;
		return;
	}
	look->err = check_lock(fd);
	look->told = look->err != 0;
	if (look->err)
		snprintf(look->what, sizeof look->what, "this group does not hold its lock");
	int err = !look->err && try_writing ? try_writing_to(fd) : 0;
	if (only_writing(err))
		look->write_err = err;
	else if (err)
		look->err = err;
	close(fd);
}

void obd_keeper_measure(const struct obd_keeper_limits *limits, struct obd_keeper_look *look)
{
	uint64_t evictions = look->evictions;
	look->room_bytes = 0;
	look->err = measure(limits, look);
	if (!look->err && crowded(limits, look))
		look->err = make_room(limits, look);
	if (look->err)
		return;
	while (look->evictions != evictions && drop_oldest(limits->dir, true, time(NULL) - IDLE_SECONDS))
		;
	if (excess(limits, look, false)) {
		look->write_err = ENOSPC;
		snprintf(look->what, sizeof look->what, "%llu MiB of disk are free, %llu MiB are to stay free",
			 (unsigned long long)(look->free_bytes >> 20), (unsigned long long)(limits->reserve_bytes >> 20));
	} else if (!look->write_err) {
		look->room_bytes =
			obd_min_u64(over(limits->size_bytes, look->used_bytes), over(look->free_bytes, limits->reserve_bytes));
	}
}
