/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A writable layer over its two files.
 *
 *     pwrite ──► data file at data_end ──► record at index_end ──► map          append-only
 *            ──► data file at 4096 + off ──────────────────────► map          sparse
 *
 * The map in memory is what the files would give on a reopen, but that a sparse file's holes are coarser than sectors.
 * If the process dies between two steps, data stand in the data file that no record names: lost space, nothing else.
 */
#include "common/format/upper.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/util.h"
#include "common/format/segmap.h"
#include "common/format/upper_impl.h"

#define ZERO_BYTES (64u << 10)

struct obd_upper {
	int data_fd;
	int index_fd;
	struct obd_file *data; /* data_fd as a file, borrowed by readers */
	struct obd_segmap *map;
	struct obd_lsmt_info info;
	uint64_t data_end;
	uint64_t index_end;
	uint32_t granule;
	bool sparse;
	bool writable;
	bool index_has_header;
};

static bool named(const char *path)
{
	return path && *path;
}

/* A new file; -1 with errno's line in err. */
static int create_file(const char *path, struct obd_err *err)
{
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (fd < 0)
		obd_err_set(err, errno, "%s: %s", path, strerror(errno));
	return fd;
}

/* A header that takes more of the file than itself hides what lies below the rest. */
static int check_holes(int fd, struct obd_err *err)
{
	off_t hole = lseek(fd, 0, SEEK_HOLE);
	if (hole < 0 || hole <= OBD_LSMT_HEADER_BYTES)
		return 0;
	return obd_err_set(
		err, ENOTSUP,
		"holes on this file system are coarser than %u bytes, or it does not tell of them: a sparse layer would hide "
		"what lies below it (make an append-only one)",
		OBD_LSMT_HEADER_BYTES);
}

int obd_upper_create(const char *data, const char *index, const struct obd_upper_create_opts *opts, struct obd_err *err)
{
	int data_fd, index_fd = -1, rc = 0;
	data_fd = create_file(data, err);
	if (data_fd < 0)
		return -errno;
	if (named(index)) {
		index_fd = create_file(index, err);
		rc = index_fd < 0 ? -errno : 0;
	}
	if (!rc)
		rc = obd_err_prefix(err, obd_upper_format(data_fd, index_fd, opts, err), "%s", data);
	if (!rc && opts->sparse)
		rc = obd_err_prefix(err, check_holes(data_fd, err), "%s", data);
	if (rc) {
		unlink(data);
		if (index_fd >= 0)
			unlink(index);
	}
	close(data_fd);
	if (index_fd >= 0)
		close(index_fd);
	return rc;
}

static int open_file(const char *path, bool writable, int *fd, struct obd_err *err)
{
	*fd = open(path, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC);
	if (*fd >= 0)
		return 0;
	return obd_err_set(err, errno, "%s: %s", path, strerror(errno));
}

static int lock_file(int fd, const char *path, bool writable, struct obd_err *err)
{
	if (flock(fd, (writable ? LOCK_EX : LOCK_SH) | LOCK_NB) == 0)
		return 0;
	if (errno == EWOULDBLOCK)
		return obd_err_set(err, EBUSY, "%s: another process uses this layer", path);
	return obd_err_set(err, errno, "%s: lock: %s", path, strerror(errno));
}

static int take_state(struct obd_upper *u, struct obd_upper_state *st, struct obd_err *err)
{
	u->info = st->info;
	u->sparse = st->sparse;
	u->data_end = st->data_end;
	u->index_end = st->index_end;
	int rc = 0;
	for (size_t i = 0; i < st->n && !rc; i++)
		rc = obd_segmap_put(u->map, st->seg[i]);
	return rc ? obd_err_set(err, ENOMEM, "out of memory") : 0;
}

/* Holes of a sparse file are whole blocks of its file system. */
static int find_granule(struct obd_upper *u, struct obd_err *err)
{
	struct stat st;
	u->granule = OBD_SECTOR_BYTES;
	if (!u->sparse)
		return 0;
	if (fstat(u->data_fd, &st) < 0)
		return obd_err_set(err, errno, "data file: %s", strerror(errno));
	u->granule = obd_upper_hole_bytes((uint64_t)st.st_blksize);
	if (!u->granule)
		return obd_err_set(err, ENOTSUP, "data file: blocks of %llu bytes, a sparse layer allows up to %u",
				   (unsigned long long)st.st_blksize, OBD_UPPER_HOLE_MAX);
	return 0;
}

static int load(struct obd_upper *u, struct obd_err *err)
{
	struct obd_upper_state st = {0};
	struct obd_file *index = NULL;
	uint64_t bytes = 0;
	int rc = -EINVAL;
	if (u->index_fd >= 0) {
		int fd = fcntl(u->index_fd, F_DUPFD_CLOEXEC, 0);
		index = fd >= 0 ? obd_file_open_fd(fd, err) : NULL;
		if (!index && fd >= 0)
			close(fd);
		if (!index)
			return rc;
		rc = obd_file_size(index, &bytes);
		u->index_has_header = bytes >= OBD_LSMT_HEADER_BYTES;
	}
	rc = obd_upper_load(u->data, u->data_fd, index, &st, err);
	if (!rc && !st.sparse && u->writable)
		rc = obd_upper_repair(u->data_fd, u->index_fd, &st, err);
	if (!rc)
		rc = take_state(u, &st, err);
	if (!rc)
		rc = find_granule(u, err);
	free(st.seg);
	obd_file_close(index);
	return rc;
}

static int open_files(struct obd_upper *u, const char *data, const char *index, struct obd_err *err)
{
	int fd, rc = open_file(data, u->writable, &fd, err);
	if (rc)
		return rc;
	u->data_fd = fd;
	rc = lock_file(fd, data, u->writable, err);
	if (!rc && named(index))
		rc = open_file(index, u->writable, &u->index_fd, err);
	if (rc)
		return rc;
	u->data = obd_file_open_fd(fd, err);
	u->map = obd_segmap_new();
	if (!u->data)
		return obd_err_prefix(err, -EINVAL, "%s", data);
	if (!u->map)
		return obd_err_set(err, ENOMEM, "out of memory");
	return obd_err_prefix(err, load(u, err), "%s", data);
}

int obd_upper_open(const char *data, const char *index, bool writable, struct obd_upper **out, struct obd_err *err)
{
	struct obd_upper *u = calloc(1, sizeof(*u));
	*out = NULL;
	if (!u)
		return obd_err_set(err, ENOMEM, "out of memory");
	*u = (struct obd_upper){.data_fd = -1, .index_fd = -1, .writable = writable};
	int rc = open_files(u, data, index, err);
	if (rc) {
		obd_upper_close(u);
		return rc;
	}
	*out = u;
	return 0;
}

void obd_upper_close(struct obd_upper *u)
{
	if (!u)
		return;
	if (u->data)
		obd_file_close(u->data);
	else if (u->data_fd >= 0)
		close(u->data_fd);
	if (u->index_fd >= 0)
		close(u->index_fd);
	obd_segmap_free(u->map);
	free(u);
}

const struct obd_lsmt_info *obd_upper_info(const struct obd_upper *u)
{
	return &u->info;
}

bool obd_upper_is_sparse(const struct obd_upper *u)
{
	return u->sparse;
}

uint64_t obd_upper_size(const struct obd_upper *u)
{
	return u->info.virtual_size;
}

uint32_t obd_upper_granule(const struct obd_upper *u)
{
	return u->granule;
}

struct obd_file *obd_upper_data(struct obd_upper *u)
{
	return u->data;
}

int obd_upper_segments(const struct obd_upper *u, struct obd_lsmt_seg **seg, size_t *n)
{
	*seg = NULL;
	*n = obd_segmap_count(u->map);
	if (!*n)
		return 0;
	*seg = malloc(*n * sizeof(**seg));
	if (!*seg)
		return -ENOMEM;
	obd_segmap_copy(u->map, *seg);
	return 0;
}

/* As obd_upper_at; *from gets the byte of the data file when it is data. */
static uint64_t look(const struct obd_upper *u, uint64_t off, enum obd_upper_what *what, uint64_t *from)
{
	struct obd_lsmt_seg s;
	*what = OBD_UPPER_UNMAPPED;
	if (off >= u->info.virtual_size)
		return 0;
	const uint64_t left = u->info.virtual_size - off;
	if (!obd_segmap_at(u->map, off / OBD_SECTOR_BYTES, &s))
		return left;
	const uint64_t begin = obd_lsmt_seg_offset(s) * OBD_SECTOR_BYTES;
	if (begin > off)
		return obd_min_u64(left, begin - off);
	*what = obd_lsmt_seg_zeroed(s) ? OBD_UPPER_ZEROED : OBD_UPPER_DATA;
	*from = obd_lsmt_seg_moffset(s) * OBD_SECTOR_BYTES + (off - begin);
	return obd_min_u64(left, obd_lsmt_seg_end(s) * OBD_SECTOR_BYTES - off);
}

uint64_t obd_upper_at(const struct obd_upper *u, uint64_t off, enum obd_upper_what *what)
{
	uint64_t from;
	return look(u, off, what, &from);
}

ssize_t obd_upper_pread(struct obd_upper *u, void *buf, size_t n, uint64_t off)
{
	size_t done = 0;
	while (done < n) {
		enum obd_upper_what what;
		uint64_t from = 0;
		const size_t part = (size_t)obd_min_u64(n - done, look(u, off + done, &what, &from));
		int rc = 0;
		if (!part)
			break;
		if (what == OBD_UPPER_DATA)
			rc = obd_file_pread_full(u->data, (char *)buf + done, part, from);
		else if (what == OBD_UPPER_ZEROED)
			memset((char *)buf + done, 0, part);
		if (rc)
			return rc;
		done += part;
	}
	return (ssize_t)done;
}

static int check_range(const struct obd_upper *u, uint64_t off, uint64_t n)
{
	if (!u->writable)
		return -EROFS;
	if (off % OBD_SECTOR_BYTES || n % OBD_SECTOR_BYTES)
		return -EINVAL;
	return off <= u->info.virtual_size && n <= u->info.virtual_size - off ? 0 : -ENOSPC;
}

/* The record of a piece whose data, if any, stand in the file up to data_end. */
static int add_record(struct obd_upper *u, struct obd_lsmt_seg s)
{
	int rc = obd_fd_pwrite_full(u->index_fd, &s, sizeof(s), u->index_end);
	if (rc)
		return rc;
	u->index_end += sizeof(s);
	return obd_segmap_put(u->map, s);
}

static int append(struct obd_upper *u, const char *buf, uint64_t n, uint64_t off)
{
	int rc = obd_segmap_reserve(u->map);
	if (!rc)
		rc = obd_fd_pwrite_full(u->data_fd, buf, n, u->data_end);
	if (rc)
		return rc;
	const struct obd_lsmt_seg s = obd_upper_record(off, n, u->data_end, false);
	/* Whatever becomes of the record: its place is never written again. */
	u->data_end += n;
	return add_record(u, s);
}

static int write_sparse(struct obd_upper *u, const char *buf, uint64_t n, uint64_t off)
{
	int rc = obd_segmap_reserve(u->map);
	if (!rc)
		rc = obd_fd_pwrite_full(u->data_fd, buf, n, OBD_LSMT_HEADER_BYTES + off);
	if (rc)
		return rc;
	return obd_segmap_put(u->map, obd_upper_record(off, n, OBD_LSMT_HEADER_BYTES + off, false));
}

int obd_upper_pwrite(struct obd_upper *u, const void *buf, size_t n, uint64_t off)
{
	const char *p = buf;
	int rc = check_range(u, off, n);
	for (uint64_t left = n, part; left && !rc; left -= part) {
		part = obd_upper_piece_bytes(left, false);
		rc = u->sparse ? write_sparse(u, p, part, off) : append(u, p, part, off);
		p += part;
		off += part;
	}
	return rc;
}

/* Real zeros: a range that is only preallocated counts as a hole for some file systems. */
static int write_zeros(struct obd_upper *u, uint64_t off, uint64_t n)
{
	static const char zeros[ZERO_BYTES];
	int rc = 0;
	for (uint64_t part; n && !rc; n -= part, off += part) {
		part = obd_min_u64(n, sizeof(zeros));
		rc = write_sparse(u, zeros, part, off);
	}
	return rc;
}

static int punch(struct obd_upper *u, uint64_t off, uint64_t n)
{
	int rc = obd_segmap_reserve(u->map);
	if (rc)
		return rc;
	if (fallocate(u->data_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(OBD_LSMT_HEADER_BYTES + off), (off_t)n) <
	    0)
		return errno == EOPNOTSUPP ? write_zeros(u, off, n) : -errno;
	return obd_segmap_cut(u->map, off / OBD_SECTOR_BYTES, (off + n) / OBD_SECTOR_BYTES);
}

static int discard_append(struct obd_upper *u, uint64_t off, uint64_t n)
{
	int rc = 0;
	for (uint64_t part; n && !rc; n -= part, off += part) {
		part = obd_upper_piece_bytes(n, true);
		rc = obd_segmap_reserve(u->map);
		if (!rc)
			rc = add_record(u, obd_upper_record(off, part, u->data_end, true));
	}
	return rc;
}

int obd_upper_discard(struct obd_upper *u, uint64_t off, uint64_t n, bool below)
{
	int rc = check_range(u, off, n);
	if (rc || !n)
		return rc;
	if (!u->sparse)
		return discard_append(u, off, n);
	return below ? write_zeros(u, off, n) : punch(u, off, n);
}

int obd_upper_sync(struct obd_upper *u)
{
	if (fdatasync(u->data_fd) < 0)
		return -errno;
	if (u->index_fd >= 0 && fdatasync(u->index_fd) < 0)
		return -errno;
	return 0;
}

static int put_size(int fd, uint64_t bytes)
{
	return obd_fd_pwrite_full(fd, &bytes, sizeof(bytes), offsetof(struct obd_lsmt_disk_header, virtual_size));
}

/* The data file's header decides, so it is written last. */
static int store_size(struct obd_upper *u, uint64_t bytes)
{
	int rc = 0;
	if (u->sparse && ftruncate(u->data_fd, (off_t)(OBD_LSMT_HEADER_BYTES + bytes)) < 0)
		return -errno;
	if (u->index_fd >= 0 && u->index_has_header)
		rc = put_size(u->index_fd, bytes);
	if (!rc && u->index_fd >= 0 && fsync(u->index_fd) < 0)
		rc = -errno;
	if (!rc)
		rc = put_size(u->data_fd, bytes);
	if (!rc && fsync(u->data_fd) < 0)
		rc = -errno;
	return rc;
}

int obd_upper_resize(struct obd_upper *u, uint64_t bytes, struct obd_err *err)
{
	struct obd_lsmt_seg last;
	if (!u->writable)
		return obd_err_set(err, EROFS, "the layer was opened for reading");
	if (!bytes || bytes % OBD_SECTOR_BYTES || bytes > OBD_UPPER_SIZE_MAX)
		return obd_err_set(err, EINVAL, "size is %" PRIu64 ", allowed: a multiple of 512, up to 2^58", bytes);
	if (obd_segmap_at(u->map, bytes / OBD_SECTOR_BYTES, &last))
		return obd_err_set(err, EINVAL,
				   "size is %" PRIu64 ", but the layer holds data up to byte %" PRIu64 " and beyond", bytes,
				   obd_lsmt_seg_end(last) * OBD_SECTOR_BYTES);
	int rc = store_size(u, bytes);
	if (rc)
		return obd_err_set(err, -rc, "resize: %s", strerror(-rc));
	u->info.virtual_size = bytes;
	return 0;
}

/* index | zeros to 512 | trailer, as one buffer. */
static unsigned char *seal_tail(const struct obd_upper *u, const struct obd_lsmt_seg *seg, size_t n, size_t *bytes)
{
	const size_t index_bytes = (size_t)obd_align_up(n * sizeof(*seg), OBD_SECTOR_BYTES);
	const struct obd_lsmt_write_opts o = {.virtual_size = u->info.virtual_size,
					      .uuid = u->info.uuid,
					      .parent_uuid = u->info.parent_uuid,
					      .tag = u->info.tag};
	unsigned char *p = calloc(1, index_bytes + OBD_LSMT_HEADER_BYTES);
	if (!p)
		return NULL;
	if (n)
		memcpy(p, seg, n * sizeof(*seg));
	obd_lsmt_put_header(p + index_bytes, &o, OBD_LSMT_FLAG_DATA | OBD_LSMT_FLAG_SEALED, u->data_end, n);
	*bytes = index_bytes + OBD_LSMT_HEADER_BYTES;
	return p;
}

int obd_upper_seal(struct obd_upper *u, struct obd_err *err)
{
	struct obd_lsmt_seg *seg;
	size_t n, bytes = 0;
	if (!u->writable)
		return obd_err_set(err, EROFS, "the layer was opened for reading");
	if (u->sparse)
		return obd_err_set(err, ENOTSUP, "a sparse layer cannot be sealed in place, commit it");
	int rc = obd_upper_segments(u, &seg, &n);
	if (rc)
		return obd_err_set(err, ENOMEM, "out of memory");
	if (n > OBD_LSMT_MAX_ENTRIES) {
		free(seg);
		return obd_err_set(err, E2BIG, "seal: the index has %zu entries, allowed: up to %u", n, OBD_LSMT_MAX_ENTRIES);
	}
	unsigned char *tail = seal_tail(u, seg, n, &bytes);
	rc = tail ? obd_fd_pwrite_full(u->data_fd, tail, bytes, u->data_end) : -ENOMEM;
	if (!rc && fdatasync(u->data_fd) < 0)
		rc = -errno;
	/* A half-written tail would be taken for data by the next writer: harmless, but it need not stay. */
	if (rc && ftruncate(u->data_fd, (off_t)u->data_end) < 0)
		(void)0;
	free(tail);
	free(seg);
	u->writable = false;
	return rc ? obd_err_set(err, -rc, "seal: %s", strerror(-rc)) : 0;
}
