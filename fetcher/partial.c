/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Locks (flock) are those of the partial file: shared while a range is written, exclusive while it is emptied, and from the
 * check to the rename. Nobody waits for one: whoever gets none says EBUSY. After a lock the name must still lead to the file.
 *
 * The state file is overwritten in place, 512 bytes with a checksum; writers do not exclude each other. Each writes numbers
 * that are true, so the worst that comes of it is that a little is fetched again. After a reboot only synced_floor counts. If
 * the process dies anywhere: the file is longer than the state says, or is renamed and the state file left over. Both are taken
 * as they are.
 */
#include "fetcher/partial.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "common/base/crc32c.h"
#include "common/base/testpoint.h"
#include "common/base/util.h"

#define STATE_MAGIC UINT64_C(0x3144574e444c424f) /* "OBLDNWD1" */
#define SYNC_BYTES (UINT64_C(32) << 20)
#define HASH_BYTES ((size_t)1 << 20)
#define BOOT_ID_BYTES 40
#define OPEN_FLAGS                                                                                                \
	(O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY) /* a fifo or a link in the file's place must not fool us \
							  */

struct state {
	uint64_t magic;
	uint64_t blob_bytes;
	uint64_t floor;
	uint64_t synced_floor;
	char digest[72];
	char boot_id[BOOT_ID_BYTES];
	unsigned char zero[364];
	uint32_t crc; /* of everything before */
};
_Static_assert(sizeof(struct state) == 512, "one sector");

static int fail(struct obd_err *err, const struct obd_partial *p, int code, const char *name, const char *what)
{
	return obd_err_set(err, code, "%.200s/%s: %s", p->dir, name, what);
}

static int fail_errno(struct obd_err *err, const struct obd_partial *p, const char *name)
{
	int code = errno;
	return fail(err, p, code, name, strerror(code));
}

static int open_dir(const struct obd_partial *p, struct obd_err *err)
{
	int fd = open(p->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd >= 0 ? fd : obd_err_set(err, errno, "%.200s: %s", p->dir, strerror(errno));
}

static void discard(int dir)
{
	unlinkat(dir, OBD_PARTIAL_STATE_NAME, 0);
	unlinkat(dir, OBD_PARTIAL_NAME, 0);
}

/* --- the state file ------------------------------------------------------------------------------------------------------- */

static void read_boot_id(char id[BOOT_ID_BYTES])
{
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	memset(id, 0, BOOT_ID_BYTES);
	if (fd < 0)
		return;
	if (read(fd, id, BOOT_ID_BYTES - 4) < 0)
		id[0] = '\0';
	close(fd);
}

static uint32_t state_crc(const struct state *s)
{
	return obd_crc32c_raw(UINT32_MAX, s, offsetof(struct state, crc));
}

/* True: fd holds the state of this blob. */
static bool read_state(const struct obd_partial *p, int fd, struct state *s)
{
	return pread(fd, s, sizeof *s, 0) == (ssize_t)sizeof *s && s->magic == STATE_MAGIC && s->crc == state_crc(s) &&
	       s->blob_bytes == p->bytes && strncmp(s->digest, p->digest, sizeof s->digest) == 0 && s->floor <= p->bytes &&
	       s->synced_floor <= s->floor;
}

static bool write_state(int fd, struct state *s)
{
	s->crc = state_crc(s);
	return pwrite(fd, s, sizeof *s, 0) == (ssize_t)sizeof *s;
}

static void fresh_state(const struct obd_partial *p, struct state *s)
{
	memset(s, 0, sizeof *s);
	s->magic = STATE_MAGIC;
	s->blob_bytes = p->bytes;
	memcpy(s->digest, p->digest, strnlen(p->digest, sizeof s->digest - 1));
	read_boot_id(s->boot_id);
}

/* Without it a restart begins earlier, no more. */
static void note_floor(const struct obd_partial *p, int dir, int data, uint64_t floor)
{
	struct state s;
	int fd = openat(dir, OBD_PARTIAL_STATE_NAME, O_RDWR | OPEN_FLAGS);
	if (fd < 0)
		return;
	if (read_state(p, fd, &s) && floor > s.floor && floor <= p->bytes) {
		if (floor - s.synced_floor >= SYNC_BYTES && fdatasync(data) == 0)
			s.synced_floor = floor;
		s.floor = floor;
		(void)!write_state(fd, &s);
	}
	close(fd);
}

/* --- the partial file ----------------------------------------------------------------------------------------------------- */

/* File systems without flock go without. */
static int lock(int fd, int how)
{
	return flock(fd, how | LOCK_NB) && (errno == EWOULDBLOCK || errno == EINTR) ? -EBUSY : 0;
}

static bool name_leads_to(int dir, const struct stat *st)
{
	struct stat now;
	return fstatat(dir, OBD_PARTIAL_NAME, &now, AT_SYMLINK_NOFOLLOW) == 0 && now.st_ino == st->st_ino &&
	       now.st_dev == st->st_dev;
}

/* Opens and locks. A descriptor or a negative errno. */
static int open_partial(const struct obd_partial *p, int dir, int flags, int how, struct stat *st, struct obd_err *err)
{
	int fd = openat(dir, OBD_PARTIAL_NAME, O_RDWR | flags | OPEN_FLAGS, 0644);
	if (fd < 0)
		return fail_errno(err, p, OBD_PARTIAL_NAME);
	int rc = 0;
	if (fstat(fd, st))
		rc = fail_errno(err, p, OBD_PARTIAL_NAME);
	else if (!S_ISREG(st->st_mode))
		rc = fail(err, p, EINVAL, OBD_PARTIAL_NAME, "not a regular file");
	else if (lock(fd, how) || !name_leads_to(dir, st))
		rc = fail(err, p, EBUSY, OBD_PARTIAL_NAME, "in use");
	if (rc == 0)
		return fd;
	close(fd);
	return rc;
}

static int check_room(const struct obd_partial *p, int dir, uint64_t floor, struct obd_err *err)
{
	struct statvfs fs;
	uint64_t room;
	if (fstatvfs(dir, &fs) || fs.f_blocks == 0 || !obd_mul_u64(fs.f_bavail, fs.f_frsize, &room))
		return 0; /* a write will tell */
	if (room >= p->bytes - floor)
		return 0;
	return obd_err_set(err, ENOSPC, "%.200s: %s: %llu bytes are missing", p->dir, strerror(ENOSPC),
			   (unsigned long long)(p->bytes - floor - room));
}

static int empty(const struct obd_partial *p, int data, int state_fd, struct state *s, struct obd_err *err)
{
	if (lock(data, LOCK_EX))
		return fail(err, p, EBUSY, OBD_PARTIAL_NAME, "in use");
	fresh_state(p, s);
	if (ftruncate(data, 0))
		return fail_errno(err, p, OBD_PARTIAL_NAME);
	errno = ENOSPC; /* when the write is short */
	return write_state(state_fd, s) ? 0 : fail_errno(err, p, OBD_PARTIAL_STATE_NAME);
}

/* What of the state holds for the file as it is now. */
static int take_state(const struct obd_partial *p, int data, const struct stat *st, int state_fd, uint64_t *floor,
		      struct obd_err *err)
{
	struct state s;
	char boot_id[BOOT_ID_BYTES];
	int rc = 0;
	read_boot_id(boot_id);
	bool good = read_state(p, state_fd, &s);
	if (good && memcmp(s.boot_id, boot_id, sizeof boot_id) != 0) {
		memcpy(s.boot_id, boot_id, sizeof boot_id);
		s.floor = s.synced_floor;
		good = write_state(state_fd, &s);
	}
	if (!good || s.floor > (uint64_t)st->st_size)
		rc = empty(p, data, state_fd, &s, err);
	*floor = s.floor;
	return rc;
}

int obd_partial_prepare(const struct obd_partial *p, uint64_t *floor, struct obd_err *err)
{
	struct stat st;
	int data = -1, state_fd = -1;
	int dir = open_dir(p, err), rc = dir < 0 ? dir : 0;
	if (rc)
		return rc;
	*floor = p->bytes;
	if (fstatat(dir, OBD_COMMIT_NAME, &st, 0) == 0)
		goto out;
	data = open_partial(p, dir, O_CREAT, LOCK_SH, &st, err);
	if (data < 0) {
		rc = data;
		goto out;
	}
	state_fd = openat(dir, OBD_PARTIAL_STATE_NAME, O_RDWR | O_CREAT | OPEN_FLAGS, 0644);
	rc = state_fd < 0 ? fail_errno(err, p, OBD_PARTIAL_STATE_NAME) : take_state(p, data, &st, state_fd, floor, err);
	if (rc == 0)
		rc = check_room(p, dir, *floor, err);
out:
	if (state_fd >= 0)
		close(state_fd);
	if (data >= 0)
		close(data);
	close(dir);
	return rc;
}

static int write_all(int fd, uint64_t start, const unsigned char *buf, size_t n)
{
	while (n) {
		ssize_t k = pwrite(fd, buf, n, (off_t)start);
		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0)
			return k < 0 ? -errno : -EIO;
		buf += k;
		start += (uint64_t)k;
		n -= (size_t)k;
	}
	return 0;
}

int obd_partial_write(const struct obd_partial *p, uint64_t start, const unsigned char *buf, size_t n, uint64_t floor,
		      struct obd_err *err)
{
	struct stat st;
	int dir = open_dir(p, err);
	if (dir < 0)
		return dir;
	int data = open_partial(p, dir, 0, LOCK_SH, &st, err);
	int rc = data < 0 ? data : write_all(data, start, buf, n);
	if (data >= 0 && rc)
		fail(err, p, -rc, OBD_PARTIAL_NAME, strerror(-rc));
	if (rc == 0)
		note_floor(p, dir, data, floor);
	if (data >= 0)
		close(data);
	close(dir);
	return rc;
}

/* --- the whole ------------------------------------------------------------------------------------------------------------ */

static int hash_file(int fd, uint64_t bytes, const struct obd_partial_watch *watch, EVP_MD_CTX *ctx, unsigned char *buf)
{
	for (uint64_t at = 0; at < bytes;) {
		ssize_t n = pread(fd, buf, obd_min_u64(HASH_BYTES, bytes - at), (off_t)at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		if (!EVP_DigestUpdate(ctx, buf, (size_t)n))
			return -ENOMEM;
		at += (uint64_t)n;
		obd_counter_add(watch->pulse, 1);
		if (obd_load_relaxed(watch->stop))
			return -ECANCELED;
	}
	return 0;
}

static bool digest_equals(const char *digest, const unsigned char *md, unsigned int n)
{
	char text[2 * EVP_MAX_MD_SIZE + 8] = "sha256:";
	for (unsigned int i = 0; i < n; i++)
		snprintf(text + 7 + 2 * i, 3, "%02x", md[i]);
	return strcmp(text, digest) == 0;
}

/* 0; -EBADMSG: another digest; another negative errno: it cannot be told. */
static int check_digest(const struct obd_partial *p, int fd, const struct obd_partial_watch *watch)
{
	unsigned char md[EVP_MAX_MD_SIZE];
	unsigned int n = 0;
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	unsigned char *buf = malloc(HASH_BYTES);
	int rc = ctx && buf && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) ? 0 : -ENOMEM;
	if (rc == 0)
		rc = hash_file(fd, p->bytes, watch, ctx, buf);
	if (rc == 0 && !EVP_DigestFinal_ex(ctx, md, &n))
		rc = -ENOMEM;
	if (rc == 0 && !digest_equals(p->digest, md, n))
		rc = -EBADMSG;
	free(buf);
	EVP_MD_CTX_free(ctx);
	return rc;
}

static void identify(const struct stat *st, struct obd_partial_file *out)
{
	*out = (struct obd_partial_file){.dev = (uint64_t)st->st_dev,
					 .ino = (uint64_t)st->st_ino,
					 .mtime_ns = (int64_t)st->st_mtim.tv_sec * INT64_C(1000000000) + st->st_mtim.tv_nsec};
}

/* 1: there is none. */
static int check_commit(const struct obd_partial *p, int dir, const struct obd_partial_watch *watch,
			struct obd_partial_file *out, struct obd_err *err)
{
	struct stat st;
	int fd = openat(dir, OBD_COMMIT_NAME, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return errno == ENOENT ? 1 : fail_errno(err, p, OBD_COMMIT_NAME);
	int rc = fstat(fd, &st) ? -errno : 0;
	if (rc == 0)
		rc = S_ISREG(st.st_mode) && (uint64_t)st.st_size == p->bytes ? check_digest(p, fd, watch) : -EBADMSG;
	if (rc == -EBADMSG)
		rc = fail(err, p, EEXIST, OBD_COMMIT_NAME, "is there and is something else");
	else if (rc)
		rc = fail(err, p, -rc, OBD_COMMIT_NAME, strerror(-rc));
	else
		identify(&st, out);
	close(fd);
	return rc;
}

static int rename_it(const struct obd_partial *p, int dir, struct obd_err *err)
{
	struct stat st;
	int rc = renameat2(dir, OBD_PARTIAL_NAME, dir, OBD_COMMIT_NAME, RENAME_NOREPLACE) ? errno : 0;
	if (rc == EINVAL || rc == ENOSYS) { /* a file system without the flag */
		rc = fstatat(dir, OBD_COMMIT_NAME, &st, AT_SYMLINK_NOFOLLOW) == 0 ? EEXIST : 0;
		if (rc == 0)
			rc = renameat(dir, OBD_PARTIAL_NAME, dir, OBD_COMMIT_NAME) ? errno : 0;
	}
	if (rc == EEXIST) /* just now: the next try looks at it */
		return fail(err, p, EBUSY, OBD_COMMIT_NAME, "came meanwhile");
	return rc ? fail(err, p, rc, OBD_COMMIT_NAME, strerror(rc)) : 0;
}

/* The partial file under its exclusive lock. What proves bad is thrown away. */
static int finish_partial(const struct obd_partial *p, int dir, int data, const struct stat *st,
			  const struct obd_partial_watch *watch, struct obd_err *err)
{
	int rc = (uint64_t)st->st_size < p->bytes ? -EIO : 0;
	if (rc)
		fail(err, p, EIO, OBD_PARTIAL_NAME, "became shorter");
	else if ((uint64_t)st->st_size > p->bytes && ftruncate(data, (off_t)p->bytes))
		rc = fail_errno(err, p, OBD_PARTIAL_NAME);
	if (rc == 0 && (rc = check_digest(p, data, watch)))
		fail(err, p, -rc, OBD_PARTIAL_NAME, rc == -EBADMSG ? "the content is not what the digest says" : strerror(-rc));
	if (rc == 0 && fsync(data))
		rc = fail_errno(err, p, OBD_PARTIAL_NAME);
	if (rc && rc != -ECANCELED && rc != -ENOMEM)
		discard(dir);
	if (rc == 0)
		rc = rename_it(p, dir, err);
	OBD_TEST_POINT(down_renamed);
	if (rc == 0 && fsync(dir))
		rc = fail_errno(err, p, OBD_COMMIT_NAME);
	return rc;
}

int obd_partial_finish(const struct obd_partial *p, const struct obd_partial_watch *watch, struct obd_partial_file *out,
		       struct obd_err *err)
{
	struct stat st;
	int dir = open_dir(p, err);
	if (dir < 0)
		return dir;
	int rc = check_commit(p, dir, watch, out, err);
	if (rc == 1) {
		int data = open_partial(p, dir, 0, LOCK_EX, &st, err);
		rc = data < 0 ? data : finish_partial(p, dir, data, &st, watch, err);
		if (rc == 0 && fstat(data, &st))
			rc = fail_errno(err, p, OBD_COMMIT_NAME);
		if (rc == 0)
			identify(&st, out);
		if (data >= 0)
			close(data);
	}
	if (rc == 0)
		discard(dir); /* what is left of the state, or of a file that turned out not to be needed */
	close(dir);
	return rc;
}
