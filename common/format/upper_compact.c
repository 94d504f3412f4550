/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Index files grow by a record with every write. A compacted one says the same with one record per segment.
 *
 *     data synced -> INDEX.compact: header, records -> synced -> renamed over INDEX -> directory synced
 *
 * The data must be on stable storage first: in the old index file, records that a power failure left without data gave way to
 * older ones of the same place, which the new one has no more. A crash before the rename leaves the old file, and perhaps one
 * beside it that the next try removes; after it the new one. The lock on the data file keeps others away.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/util.h"
#include "common/format/upper.h"
#include "common/format/upper_impl.h"

#define SUFFIX ".compact"

bool obd_upper_wants_compaction(const struct obd_upper_state *st)
{
	const uint64_t records = (st->index_end - OBD_LSMT_HEADER_BYTES) / sizeof(*st->seg);
	if (st->sparse || records < OBD_UPPER_COMPACT_RECORDS)
		return false;
	return st->n < records / 4 || (records > OBD_UPPER_RECORDS_MAX / 2 && st->n < records / 8 * 7);
}

/* The file's own path, if it is the one behind fd and goes by no other name. */
static int own_path(int fd, const char *path, char *real)
{
	struct stat by_fd, by_name;
	if (!realpath(path, real) || fstat(fd, &by_fd) < 0 || lstat(real, &by_name) < 0)
		return -errno;
	if (by_fd.st_dev != by_name.st_dev || by_fd.st_ino != by_name.st_ino)
		return -ESTALE;
	if (by_fd.st_nlink != 1)
		return -EMLINK;
	return strlen(real) + sizeof SUFFIX <= PATH_MAX ? 0 : -ENAMETOOLONG;
}

/* A new file with the owner and mode of the old one; or a negative errno. */
static int make_file(int old, const char *path)
{
	struct stat st;
	if (unlink(path) < 0 && errno != ENOENT)
		return -errno;
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	if (fstat(old, &st) == 0 && fchown(fd, st.st_uid, st.st_gid) == 0 && fchmod(fd, st.st_mode & 07777) == 0)
		return fd;
	int rc = -errno;
	close(fd);
	unlink(path);
	return rc;
}

static int fill(int old, int fd, const struct obd_upper_state *st)
{
	unsigned char head[OBD_LSMT_HEADER_BYTES];
	ssize_t n = pread(old, head, sizeof(head), 0);
	if (n != (ssize_t)sizeof(head))
		return n < 0 ? -errno : -EIO;
	int rc = obd_fd_pwrite_full(fd, head, sizeof(head), 0);
	if (!rc)
		rc = obd_fd_pwrite_full(fd, st->seg, st->n * sizeof(*st->seg), sizeof(head));
	return rc || fsync(fd) == 0 ? rc : -errno;
}

static int sync_directory(char *path)
{
	char *slash = strrchr(path, '/');
	slash[slash == path] = '\0';
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	int rc = fsync(fd) ? -errno : 0;
	close(fd);
	return rc;
}

int obd_upper_compact(int data_fd, int *index_fd, const char *index_path, struct obd_upper_state *st, bool *fatal,
		      struct obd_err *err)
{
	char real[PATH_MAX], beside[PATH_MAX + sizeof SUFFIX];
	*fatal = false;
	int rc = own_path(*index_fd, index_path, real);
	if (!rc && fdatasync(data_fd) < 0) {
		rc = -errno;
		*fatal = true;
	}
	if (rc)
		return obd_err_set(err, -rc, "index file: it is not compacted: %s", strerror(-rc));
	snprintf(beside, sizeof beside, "%s" SUFFIX, real);
	int fd = make_file(*index_fd, beside);
	if (fd < 0)
		return obd_err_set(err, -fd, "index file: it is not compacted: %s: %s", beside, strerror(-fd));
	rc = fill(*index_fd, fd, st);
	if (!rc && rename(beside, real) < 0)
		rc = -errno;
	if (rc) {
		close(fd);
		unlink(beside);
		return obd_err_set(err, -rc, "index file: it is not compacted: %s", strerror(-rc));
	}
	close(*index_fd);
	*index_fd = fd;
	st->index_end = OBD_LSMT_HEADER_BYTES + st->n * sizeof(*st->seg);
	rc = sync_directory(real);
	*fatal = rc != 0;
	return rc ? obd_err_set(err, -rc, "index file: its directory cannot be synced: %s", strerror(-rc)) : 0;
}
