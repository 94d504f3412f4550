/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files of a writable layer hold: making, reading and repairing them. Their bytes may come from anywhere. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/util.h"
#include "common/format/merge.h"
#include "common/format/upper.h"
#include "common/format/upper_impl.h"

#define RECORDS_MAX OBD_UPPER_RECORDS_MAX
#define REPAIR_RECORDS 4096u

int obd_fd_pwrite_full(int fd, const void *buf, size_t n, uint64_t off)
{
	const char *p = buf;
	while (n) {
		ssize_t r = pwrite(fd, p, n, (off_t)off);
		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			return r < 0 ? -errno : -EIO;
		p += r;
		n -= (size_t)r;
		off += (uint64_t)r;
	}
	return 0;
}

bool obd_uuid_ok(const char *uuid)
{
	static const char hex[] = "0123456789abcdefABCDEF";
	if (strlen(uuid) != OBD_LSMT_UUID_BYTES - 1)
		return false;
	for (unsigned i = 0; i < OBD_LSMT_UUID_BYTES - 1; i++) {
		const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
		if (dash ? uuid[i] != '-' : !strchr(hex, uuid[i]))
			return false;
	}
	return true;
}

int obd_uuid_make(char uuid[OBD_LSMT_UUID_BYTES])
{
	static const char hex[] = "0123456789abcdef";
	unsigned char r[16];
	size_t at = 0;
	if (getrandom(r, sizeof(r), 0) != (ssize_t)sizeof(r))
		return -EIO;
	r[6] = (r[6] & 0x0f) | 0x40;
	r[8] = (r[8] & 0x3f) | 0x80;
	for (unsigned i = 0; i < sizeof(r); i++) {
		if (i == 4 || i == 6 || i == 8 || i == 10)
			uuid[at++] = '-';
		uuid[at++] = hex[r[i] >> 4];
		uuid[at++] = hex[r[i] & 15];
	}
	uuid[at] = '\0';
	return 0;
}

uint32_t obd_upper_hole_bytes(uint64_t st_blksize)
{
	uint32_t bytes = 4096;
	while (bytes < st_blksize && bytes <= OBD_UPPER_HOLE_MAX)
		bytes *= 2;
	return bytes <= OBD_UPPER_HOLE_MAX ? bytes : 0;
}

static int check_create(const struct obd_upper_create_opts *o, bool has_index, struct obd_err *err)
{
	if (!o->virtual_size || o->virtual_size % OBD_SECTOR_BYTES || o->virtual_size > OBD_UPPER_SIZE_MAX)
		return obd_err_set(err, EINVAL, "virtual size is %" PRIu64 ", allowed: a multiple of 512, up to 2^58",
				   o->virtual_size);
	if ((o->uuid && !obd_uuid_ok(o->uuid)) || (o->parent_uuid && !obd_uuid_ok(o->parent_uuid)))
		return obd_err_set(err, EINVAL, "uuid is \"%s\", allowed: 8-4-4-4-12 hexadecimal digits",
				   o->uuid && !obd_uuid_ok(o->uuid) ? o->uuid : o->parent_uuid);
	if (!o->sparse && !has_index)
		return obd_err_set(err, EINVAL, "an append-only layer needs an index file");
	return 0;
}

int obd_upper_format(int data_fd, int index_fd, const struct obd_upper_create_opts *opts, struct obd_err *err)
{
	unsigned char block[OBD_LSMT_HEADER_BYTES];
	char uuid[OBD_LSMT_UUID_BYTES];
	const uint32_t flags = OBD_LSMT_FLAG_HEADER | OBD_LSMT_FLAG_DATA | (opts->sparse ? OBD_LSMT_FLAG_SPARSE : 0);
	struct obd_lsmt_write_opts w = {
		.virtual_size = opts->virtual_size, .uuid = opts->uuid, .parent_uuid = opts->parent_uuid, .tag = opts->tag};
	int rc = check_create(opts, index_fd >= 0, err);
	if (rc)
		return rc;
	if (!w.uuid) {
		rc = obd_uuid_make(uuid);
		w.uuid = uuid;
	}
	obd_lsmt_put_header(block, &w, flags, 0, 0);
	if (!rc)
		rc = obd_fd_pwrite_full(data_fd, block, sizeof(block), 0);
	if (!rc && opts->sparse && ftruncate(data_fd, (off_t)(OBD_LSMT_HEADER_BYTES + opts->virtual_size)) < 0)
		rc = -errno;
	/* A sparse layer's index file stays empty: that is how other writers leave it. */
	obd_lsmt_put_header(block, &w, OBD_LSMT_FLAG_HEADER, OBD_LSMT_HEADER_BYTES, 0);
	if (!rc && !opts->sparse)
		rc = obd_fd_pwrite_full(index_fd, block, sizeof(block), 0);
	return rc ? obd_err_set(err, -rc, "header: %s", strerror(-rc)) : 0;
}

/* The header of one of the files. */
static int read_header(struct obd_file *f, const char *which, struct obd_lsmt_info *info, struct obd_err *err)
{
	unsigned char block[OBD_LSMT_HEADER_BYTES];
	uint64_t bytes;
	int rc = obd_file_size(f, &bytes);
	if (!rc)
		rc = obd_file_pread_full(f, block, sizeof(block), 0);
	if (rc == -ENODATA)
		return obd_err_set(err, EINVAL, "%s: size is %" PRIu64 ", allowed: at least 4096", which, bytes);
	if (rc)
		return obd_err_set(err, -rc, "%s: %s", which, strerror(-rc));
	return obd_err_prefix(err, obd_lsmt_parse_header(block, bytes, info, err), "%s", which);
}

static int check_data_header(const struct obd_lsmt_info *info, struct obd_err *err)
{
	if (!(info->flags & OBD_LSMT_FLAG_DATA))
		return obd_err_set(err, EINVAL, "data file: it is an index file (flags 0x%x)", info->flags);
	if (info->flags & OBD_LSMT_FLAG_SEALED)
		return obd_err_set(err, EINVAL, "data file: it is a read-only layer (flags 0x%x)", info->flags);
	if (!info->virtual_size || info->virtual_size > OBD_UPPER_SIZE_MAX)
		return obd_err_set(err, EINVAL, "data file: virtual_size is %" PRIu64 ", allowed: 512 to 2^58",
				   info->virtual_size);
	return 0;
}

static int check_index_header(const struct obd_lsmt_info *data, const struct obd_lsmt_info *index, struct obd_err *err)
{
	if (index->flags & OBD_LSMT_FLAG_DATA)
		return obd_err_set(err, EINVAL, "index file: it is a data file (flags 0x%x)", index->flags);
	if (strcmp(data->uuid, index->uuid) != 0)
		return obd_err_set(err, EINVAL, "index file: uuid is %s, the data file's %s", index->uuid, data->uuid);
	return 0;
}

/* Whether the record would come to life once the data file grows. */
static bool is_dead(struct obd_lsmt_seg s, uint64_t data_sectors)
{
	return obd_lsmt_seg_offset(s) != OBD_LSMT_PADDING && obd_lsmt_seg_length(s) && !obd_lsmt_seg_zeroed(s) &&
	       obd_lsmt_seg_moffset(s) + obd_lsmt_seg_length(s) > data_sectors;
}

static size_t count_dead(const unsigned char *raw, size_t records, uint64_t data_sectors)
{
	size_t n = 0;
	for (size_t i = 0; i < records; i++) {
		struct obd_lsmt_seg s;
		memcpy(&s, raw + i * sizeof(s), sizeof(s));
		n += is_dead(s, data_sectors);
	}
	return n;
}

static int load_append(struct obd_file *index, struct obd_upper_state *st, struct obd_err *err)
{
	uint64_t bytes;
	int rc = obd_file_size(index, &bytes);
	if (rc)
		return obd_err_set(err, -rc, "index file: %s", strerror(-rc));
	const uint64_t records = (bytes - OBD_LSMT_HEADER_BYTES) / sizeof(*st->seg);
	const uint64_t raw_bytes = records * sizeof(*st->seg);
	if (records > RECORDS_MAX)
		return obd_err_set(err, E2BIG, "index file: %" PRIu64 " records, allowed: up to %" PRIu64, records,
				   RECORDS_MAX);
	unsigned char *raw = malloc(raw_bytes ? raw_bytes : 1);
	if (!raw)
		return obd_err_set(err, ENOMEM, "index file: no memory for %" PRIu64 " records", records);
	rc = obd_file_pread_full(index, raw, raw_bytes, OBD_LSMT_HEADER_BYTES);
	if (rc)
		obd_err_set(err, -rc, "index file: %s", strerror(-rc));
	st->data_end = obd_align_down(st->info.file_bytes, OBD_SECTOR_BYTES);
	st->index_end = OBD_LSMT_HEADER_BYTES + raw_bytes;
	st->torn = st->index_end != bytes || st->data_end != st->info.file_bytes;
	if (!rc) {
		st->ndead = count_dead(raw, records, st->data_end / OBD_SECTOR_BYTES);
		rc = obd_lsmt_load_append_index(&st->info, raw, raw_bytes, st->data_end, &st->seg, &st->n, err);
	}
	free(raw);
	return rc;
}

static int push(struct obd_upper_state *st, size_t *cap, struct obd_lsmt_seg s)
{
	if (st->n == *cap) {
		const size_t more = *cap ? 2 * *cap : 256;
		struct obd_lsmt_seg *p = realloc(st->seg, more * sizeof(*p));
		if (!p)
			return -ENOMEM;
		st->seg = p;
		*cap = more;
	}
	st->seg[st->n++] = s;
	return 0;
}

/* Sectors [from, to) of the data file, as segments. */
static int push_range(struct obd_upper_state *st, size_t *cap, uint64_t from, uint64_t to)
{
	int rc = 0;
	while (from < to && !rc) {
		const uint32_t n = (uint32_t)obd_min_u64(to - from, OBD_LSMT_LENGTH_MAX);
		rc = push(st, cap, obd_lsmt_seg_make(from - OBD_LSMT_HEADER_SECTORS, n, from, false, 0));
		from += n;
	}
	return rc;
}

/* The next range of bytes at or behind *at that is no hole, widened to sectors. False: none before end. */
static bool next_extent(int fd, uint64_t at, uint64_t end, uint64_t *from, uint64_t *to)
{
	*from = at;
	*to = end;
	if (at >= end)
		return false;
	if (fd < 0)
		return true;
	off_t r = lseek(fd, (off_t)at, SEEK_DATA);
	if (r < 0 && errno == ENXIO)
		return false;
	if (r < 0)
		return true;
	*from = obd_align_down((uint64_t)r, OBD_SECTOR_BYTES);
	r = lseek(fd, r, SEEK_HOLE);
	if (r >= 0)
		*to = obd_align_up(obd_min_u64((uint64_t)r, end), OBD_SECTOR_BYTES);
	return *from < end;
}

static int load_sparse(int fd, struct obd_upper_state *st, struct obd_err *err)
{
	const uint64_t end = obd_min_u64(obd_align_down(st->info.file_bytes, OBD_SECTOR_BYTES),
					 OBD_LSMT_HEADER_BYTES + st->info.virtual_size);
	uint64_t from = 0, to = OBD_LSMT_HEADER_BYTES;
	size_t cap = 0;
	int rc = 0;
	while (!rc && next_extent(fd, to, end, &from, &to))
		rc = push_range(st, &cap, from / OBD_SECTOR_BYTES, to / OBD_SECTOR_BYTES);
	return rc ? obd_err_set(err, -rc, "data file: %s", strerror(-rc)) : 0;
}

static int load(struct obd_file *data, int data_fd, struct obd_file *index, struct obd_upper_state *st, struct obd_err *err)
{
	struct obd_lsmt_info info;
	uint64_t bytes = 0;
	int rc = read_header(data, "data file", &st->info, err);
	if (!rc)
		rc = check_data_header(&st->info, err);
	if (rc)
		return rc;
	st->sparse = st->info.flags & OBD_LSMT_FLAG_SPARSE;
	if (!st->sparse && !index)
		return obd_err_set(err, EINVAL, "an append-only layer needs its index file");
	if (index)
		rc = obd_file_size(index, &bytes);
	if (rc)
		return obd_err_set(err, -rc, "index file: %s", strerror(-rc));
	if (index && (!st->sparse || bytes)) {
		rc = read_header(index, "index file", &info, err);
		if (!rc)
			rc = check_index_header(&st->info, &info, err);
	}
	if (rc)
		return rc;
	return st->sparse ? load_sparse(data_fd, st, err) : load_append(index, st, err);
}

int obd_upper_load(struct obd_file *data, int data_fd, struct obd_file *index, struct obd_upper_state *st, struct obd_err *err)
{
	*st = (struct obd_upper_state){0};
	int rc = load(data, data_fd, index, st, err);
	if (rc) {
		free(st->seg);
		*st = (struct obd_upper_state){0};
	}
	return rc;
}

/* Turns dead ones among n records into padding; true when there were some. */
static bool bury(struct obd_lsmt_seg *s, size_t n, uint64_t data_sectors)
{
	bool any = false;
	for (size_t i = 0; i < n; i++) {
		if (!is_dead(s[i], data_sectors))
			continue;
		s[i] = obd_lsmt_seg_make(OBD_LSMT_PADDING, 0, 0, false, 0);
		any = true;
	}
	return any;
}

static int bury_all(int fd, const struct obd_upper_state *st)
{
	struct obd_lsmt_seg *buf = malloc(REPAIR_RECORDS * sizeof(*buf));
	int rc = buf ? 0 : -ENOMEM;
	for (uint64_t at = OBD_LSMT_HEADER_BYTES; !rc && at < st->index_end;) {
		const size_t n = (size_t)obd_min_u64(REPAIR_RECORDS * sizeof(*buf), st->index_end - at);
		ssize_t r = pread(fd, buf, n, (off_t)at);
		if (r != (ssize_t)n)
			rc = r < 0 ? -errno : -EIO;
		else if (bury(buf, n / sizeof(*buf), st->data_end / OBD_SECTOR_BYTES))
			rc = obd_fd_pwrite_full(fd, buf, n, at);
		at += n;
	}
	free(buf);
	return rc;
}

int obd_upper_repair(int data_fd, int index_fd, struct obd_upper_state *st, struct obd_err *err)
{
	int rc = 0;
	if (!st->torn && !st->ndead)
		return 0;
	if (st->ndead)
		rc = bury_all(index_fd, st);
	if (!rc && ftruncate(index_fd, (off_t)st->index_end) < 0)
		rc = -errno;
	if (!rc && fdatasync(index_fd) < 0)
		rc = -errno;
	if (!rc && (ftruncate(data_fd, (off_t)st->data_end) < 0 || fdatasync(data_fd) < 0))
		rc = -errno;
	if (rc)
		return obd_err_set(err, -rc, "repair after a crash: %s", strerror(-rc));
	st->torn = false;
	st->ndead = 0;
	return 0;
}
