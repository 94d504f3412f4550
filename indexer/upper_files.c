/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The files of an upper layer, from their names to what the loop needs of them, on a thread: any of this may wait for a disk.
 *
 *     open     files, flock, headers and index, repair, [compaction]            -> segments
 *     attach   files, flock, the same files as before?, headers, index, repair  -> segments of the records behind applied_bytes
 *
 * A job is its thread's alone from the start to done. It names nothing of the indexer's but strings that do not change.
 *
 * Syncs that failed. The kernel tells of a failed write-back once, and then takes the pages for clean: a later fdatasync
 * succeeds and means nothing. So whoever sees one fail notes it in a file of the group's directory, under the data file's
 * identity, before anybody is told; while the note is there, no sync of the layer succeeds, whoever opened it. It holds until
 * the machine is booted again (then what is on the disk is all there is) or somebody removes it.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/log.h"
#include "common/format/upper.h"
#include "indexer/internal.h"

#define BOOT_ID_FILE "/proc/sys/kernel/random/boot_id"
#define BOOT_ID_BYTES 36u

/* --- notes of failed syncs ------------------------------------------------------------------------------------------------ */

static bool note_path(const char *dir, uint64_t dev, uint64_t ino, char *path)
{
	int n = dir ? snprintf(path, OBD_PATH_BYTES, "%s/unsynced.%llx.%llx", dir, (unsigned long long)dev,
			       (unsigned long long)ino)
		    : -1;
	return n > 0 && n < (int)OBD_PATH_BYTES;
}

/* What a note says in its first line: this boot, this layer. */
static void note_key(const char *uuid, char *key, size_t room)
{
	char boot[BOOT_ID_BYTES + 1] = "";
	FILE *f = fopen(BOOT_ID_FILE, "re");
	if (f && !fgets(boot, sizeof boot, f))
		boot[0] = '\0';
	if (f)
		fclose(f);
	snprintf(key, room, "%s %s\n", boot, uuid);
}

void obd_ix_note_unsynced(const char *dir, uint64_t dev, uint64_t ino, const char *uuid, const char *data_path)
{
	char path[OBD_PATH_BYTES], key[128];
	obd_error("upper %s: a sync failed: what was written may not be on the disk, and no sync succeeds from now on",
		  data_path);
	if (!note_path(dir, dev, ino, path))
		return;
	note_key(uuid, key, sizeof key);
	FILE *f = fopen(path, "we");
	bool good = f && fputs(key, f) >= 0 && fprintf(f, "%s\n", data_path) > 0;
	if ((f && fclose(f)) || !good)
		obd_error("%s: %s", path, strerror(errno));
}

static bool is_noted(const struct obd_ix_files *f)
{
	char path[OBD_PATH_BYTES], key[128], line[128] = "";
	if (!note_path(f->note_dir, f->dev, f->ino, path))
		return false;
	FILE *note = fopen(path, "re");
	if (!note)
		return false;
	note_key(f->st.info.uuid, key, sizeof key);
	bool same = fgets(line, sizeof line, note) && strcmp(line, key) == 0;
	fclose(note);
	if (same)
		obd_warn("upper %s: a sync of it failed earlier, so none succeeds: once it is checked, remove %s", f->data_path,
			 path);
	else
		unlink(path); /* of another layer that had this place, or of an earlier boot */
	return same;
}

/* --- opening ------------------------------------------------------------------------------------------------------------ */

static int open_file(const char *path, int *fd, struct stat *st, struct obd_err *err)
{
	*fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (*fd < 0)
		return obd_err_set(err, errno, "upper %s: %s", path, strerror(errno));
	if (fstat(*fd, st) < 0)
		return obd_err_set(err, errno, "upper %s: %s", path, strerror(errno));
	return S_ISREG(st->st_mode) ? 0 : obd_err_set(err, EINVAL, "upper %s: not a regular file", path);
}

static int lock_file(int fd, const char *path, struct obd_err *err)
{
	if (flock(fd, LOCK_EX | LOCK_NB) == 0)
		return 0;
	if (errno == EWOULDBLOCK)
		return obd_err_set(err, EBUSY, "upper %s is in use by another device", path);
	return obd_err_set(err, errno, "upper %s: lock: %s", path, strerror(errno));
}

static struct obd_file *borrow(int fd, struct obd_err *err)
{
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (copy < 0) {
		obd_err_set(err, errno, "%s", strerror(errno));
		return NULL;
	}
	struct obd_file *f = obd_file_open_fd(copy, err);
	if (!f)
		close(copy);
	return f;
}

static int load_state(struct obd_ix_files *f)
{
	struct obd_file *data = borrow(f->data_fd, &f->err);
	struct obd_file *index = data && f->index_fd >= 0 ? borrow(f->index_fd, &f->err) : NULL;
	int rc = data && (index || f->index_fd < 0) ? 0 : -EIO;
	if (!rc)
		rc = obd_upper_load(data, f->data_fd, index, &f->st, &f->err);
	obd_file_close(index);
	obd_file_close(data);
	return rc;
}

static void note(struct obd_ix_files *f)
{
	obd_ix_note_unsynced(f->note_dir, f->dev, f->ino, f->st.info.uuid, f->data_path);
	f->unsynced = true;
}

/* A repair that was cut short leaves files that the next one takes for sound: so a sync of it that failed is noted, and one
 * that somebody was killed before is made up for here, before anything is written behind it. */
static int repair(struct obd_ix_files *f)
{
	if (f->st.sparse)
		return 0;
	int rc = obd_upper_repair(f->data_fd, f->index_fd, &f->st, &f->err);
	if (!rc && fdatasync(f->index_fd) < 0)
		rc = obd_err_set(&f->err, errno, "%s: %s", f->index_path, strerror(errno));
	if (rc)
		note(f);
	return rc;
}

static int compact(struct obd_ix_files *f)
{
	struct obd_err err = {{0}};
	bool fatal;
	if (f->attach || f->unsynced || !obd_upper_wants_compaction(&f->st))
		return 0;
	uint64_t before = f->st.index_end;
	int rc = obd_upper_compact(f->data_fd, &f->index_fd, f->index_path, &f->st, &fatal, &err);
	if (!rc)
		obd_info("upper %s: index file compacted from %llu to %llu bytes", f->index_path, (unsigned long long)before,
			 (unsigned long long)f->st.index_end);
	else
		obd_warn("upper %s: %s", f->index_path, err.msg);
	if (fatal)
		note(f);
	return 0;
}

/* What the index file has behind applied_bytes, instead of all of it. */
static int take_tail(struct obd_ix_files *f)
{
	struct obd_upper_state *st = &f->st;
	free(st->seg);
	st->seg = NULL;
	st->n = 0;
	if (st->sparse)
		return 0;
	if (f->applied_bytes < OBD_LSMT_HEADER_BYTES || f->applied_bytes > st->index_end)
		return obd_err_set(&f->err, EINVAL, "index file: it became shorter");
	uint64_t bytes = st->index_end - f->applied_bytes;
	void *raw = malloc(bytes ? bytes : 1);
	if (!raw)
		return obd_err_set(&f->err, ENOMEM, "out of memory");
	int rc = -obd_ix_io_now(f->index_fd, false, raw, bytes, f->applied_bytes);
	if (rc)
		obd_err_set(&f->err, -rc, "index file: %s", strerror(-rc));
	else
		rc = obd_lsmt_load_append_index(&st->info, raw, bytes, st->data_end, &st->seg, &st->n, &f->err);
	free(raw);
	return rc;
}

static int check_same(const struct obd_ix_files *f, struct obd_err *err)
{
	if (!f->attach || (f->st.sparse == f->was_sparse && f->st.info.virtual_size == f->was_bytes))
		return 0;
	return obd_err_set(err, ESTALE, "it is another one than before");
}

static int measure_holes(struct obd_ix_files *f, const struct stat *st)
{
	f->granule = f->st.sparse ? obd_upper_hole_bytes((uint64_t)st->st_blksize) : OBD_SECTOR_BYTES;
	if (f->granule)
		return 0;
	return obd_err_set(&f->err, ENOTSUP, "its file system has blocks of %llu bytes, a sparse layer allows up to %u",
			   (unsigned long long)st->st_blksize, OBD_UPPER_HOLE_MAX);
}

static int load(struct obd_ix_files *f, const struct stat *st)
{
	int rc = load_state(f);
	if (!rc)
		rc = check_same(f, &f->err);
	if (!rc)
		rc = measure_holes(f, st);
	if (!rc) {
		f->id = obd_ix_upper_id(&f->st.info, f->dev, f->ino);
		f->unsynced = is_noted(f);
		rc = repair(f);
	}
	if (!rc)
		rc = f->attach ? take_tail(f) : compact(f);
	return obd_err_prefix(&f->err, rc, "upper %s", f->data_path);
}

static int open_all(struct obd_ix_files *f)
{
	struct stat st, index_st;
	int rc = open_file(f->data_path, &f->data_fd, &st, &f->err);
	if (rc)
		return rc;
	if (f->attach && (f->dev != st.st_dev || f->ino != st.st_ino))
		return obd_err_set(&f->err, ESTALE, "upper %s: it is another one than before", f->data_path);
	f->dev = st.st_dev;
	f->ino = st.st_ino;
	rc = lock_file(f->data_fd, f->data_path, &f->err);
	if (!rc && f->index_path)
		rc = open_file(f->index_path, &f->index_fd, &index_st, &f->err);
	if (!rc)
		rc = load(f, &st);
	if (!rc && f->direct)
		f->direct_fd = open(f->data_path, O_RDWR | O_CLOEXEC | O_DIRECT); /* without it all goes through the cache */
	return rc;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void obd_ix_files_close(int *data_fd, int *direct_fd, int *index_fd)
{
	close_fd(index_fd);
	close_fd(direct_fd);
	close_fd(data_fd); /* and with it the lock */
}

static void run(struct obd_ix_task *task)
{
	struct obd_ix_files *f = OBD_CONTAINER_OF(task, struct obd_ix_files, task);
	f->rc = open_all(f);
	if (f->rc)
		obd_ix_files_close(&f->data_fd, &f->direct_fd, &f->index_fd);
}

struct obd_ix_files *obd_ix_files_new(const char *data_path, const char *index_path)
{
	struct obd_ix_files *f = calloc(1, sizeof *f);
	if (!f)
		return NULL;
	f->data_fd = f->direct_fd = f->index_fd = -1;
	f->task.run = run;
	f->data_path = strdup(data_path);
	f->index_path = index_path && *index_path ? strdup(index_path) : NULL;
	if (f->data_path && (f->index_path || !index_path || !*index_path))
		return f;
	obd_ix_files_free(f);
	return NULL;
}

void obd_ix_files_free(struct obd_ix_files *f)
{
	if (!f)
		return;
	obd_ix_files_close(&f->data_fd, &f->direct_fd, &f->index_fd);
	free(f->st.seg);
	free(f->data_path);
	free(f->index_path);
	free(f);
}
