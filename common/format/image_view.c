/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Read-only layers with a writable one on top, as one file. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/util.h"
#include "common/format/upper.h"

#define ZERO_BYTES (64u << 10)

struct view {
	struct obd_file *lower; /* NULL: nothing below */
	struct obd_upper *upper;
	uint64_t lower_bytes;
};

/* n bytes of the layers below; zeros behind their end. */
static int read_lower(struct view *v, char *buf, size_t n, uint64_t off)
{
	const size_t have = off < v->lower_bytes ? (size_t)obd_min_u64(n, v->lower_bytes - off) : 0;
	memset(buf + have, 0, n - have);
	return have ? obd_file_pread_full(v->lower, buf, have, off) : 0;
}

static ssize_t view_pread(void *ctx, void *buf, size_t n, uint64_t off)
{
	struct view *v = ctx;
	size_t done = 0;
	while (done < n) {
		enum obd_upper_what what;
		char *p = (char *)buf + done;
		const size_t part = (size_t)obd_min_u64(n - done, obd_upper_at(v->upper, off + done, &what));
		if (!part)
			break;
		ssize_t r = what == OBD_UPPER_UNMAPPED ? read_lower(v, p, part, off + done)
						       : obd_upper_pread(v->upper, p, part, off + done);
		if (r < 0)
			return r;
		done += part;
	}
	return (ssize_t)done;
}

static bool all_mapped(const struct view *v, uint64_t from, uint64_t to)
{
	while (from < to) {
		enum obd_upper_what what;
		const uint64_t n = obd_upper_at(v->upper, from, &what);
		if (!n || what == OBD_UPPER_UNMAPPED)
			return false;
		from += n;
	}
	return true;
}

/* Writes [off, off + n) and, around it, what else shares its first and last block [from, to) of a sparse file. */
static int write_widened(struct view *v, const void *buf, size_t n, uint64_t off, uint64_t from, uint64_t to)
{
	char *all = malloc((size_t)(to - from));
	const uint64_t end = off + n;
	if (!all)
		return -ENOMEM;
	ssize_t r = view_pread(v, all, (size_t)(off - from), from);
	if (r >= 0)
		r = view_pread(v, all + (end - from), (size_t)(to - end), end);
	memcpy(all + (off - from), buf, n);
	int rc = r < 0 ? (int)r : obd_upper_pwrite(v->upper, all, (size_t)(to - from), from);
	free(all);
	return rc;
}

static int view_pwrite(void *ctx, const void *buf, size_t n, uint64_t off)
{
	struct view *v = ctx;
	const uint64_t granule = obd_upper_granule(v->upper), size = obd_upper_size(v->upper), head = OBD_LSMT_HEADER_BYTES;
	if (granule == OBD_SECTOR_BYTES || !v->lower || off > size || n > size - off || (off | n) % OBD_SECTOR_BYTES)
		return obd_upper_pwrite(v->upper, buf, n, off);
	/* Blocks are counted from the start of the file, which has a header before the device. */
	const uint64_t from = obd_max_u64(obd_align_down(off + head, granule), head) - head;
	const uint64_t to = obd_min_u64(obd_align_up(off + n + head, granule) - head, size);
	if (all_mapped(v, from, off) && all_mapped(v, off + n, to))
		return obd_upper_pwrite(v->upper, buf, n, off);
	return write_widened(v, buf, n, off, from, to);
}

static int view_size(void *ctx, uint64_t *bytes)
{
	*bytes = obd_upper_size(((struct view *)ctx)->upper);
	return 0;
}

/* The first byte at or behind off that a layer below may give something for. */
static int next_below(struct view *v, uint64_t off, uint64_t *next)
{
	*next = UINT64_MAX;
	if (off >= v->lower_bytes)
		return 0;
	int rc = obd_file_next_data(v->lower, off, next);
	if (*next >= v->lower_bytes)
		*next = UINT64_MAX;
	return rc;
}

static int view_next_data(void *ctx, uint64_t off, uint64_t *next)
{
	struct view *v = ctx;
	for (;;) {
		enum obd_upper_what what;
		uint64_t below = UINT64_MAX;
		const uint64_t n = obd_upper_at(v->upper, off, &what);
		*next = off;
		if (!n || what == OBD_UPPER_DATA)
			return 0;
		int rc = what == OBD_UPPER_UNMAPPED ? next_below(v, off, &below) : 0;
		if (rc)
			return rc;
		if (below < off + n) {
			*next = below;
			return 0;
		}
		off += n;
	}
}

static void view_close(void *ctx)
{
	struct view *v = ctx;
	obd_file_close(v->lower);
	obd_upper_close(v->upper);
	free(v);
}

static const struct obd_file_ops view_ops = {
	.pread = view_pread,
	.pwrite = view_pwrite,
	.size = view_size,
	.next_data = view_next_data,
	.close = view_close,
};

struct obd_file *obd_image_view_open(struct obd_file *lower, struct obd_upper *u, struct obd_err *err)
{
	struct view *v = calloc(1, sizeof(*v));
	struct obd_file *f = NULL;
	int rc = 0;
	if (v && lower)
		rc = obd_file_size(lower, &v->lower_bytes);
	if (v && !rc)
		f = obd_file_new(&view_ops, v);
	if (!f) {
		obd_err_set(err, rc ? -rc : ENOMEM, "image: %s", rc ? strerror(-rc) : "out of memory");
		free(v);
		return NULL;
	}
	v->lower = lower;
	v->upper = u;
	return f;
}

struct obd_upper *obd_image_view_upper(struct obd_file *view)
{
	return ((struct view *)view->ctx)->upper;
}

/* A sparse layer: holes where nothing lies below, zeros elsewhere. */
static int discard_sparse(struct view *v, uint64_t off, uint64_t n)
{
	static const char zeros[ZERO_BYTES];
	const uint64_t end = off + n;
	int rc = 0;
	while (off < end && !rc) {
		uint64_t below;
		rc = next_below(v, off, &below);
		if (rc)
			break;
		below = obd_min_u64(below, end);
		if (below > off) {
			rc = obd_upper_discard(v->upper, off, below - off, false);
			off = below;
			continue;
		}
		const size_t part = (size_t)obd_min_u64(end - off, sizeof(zeros));
		rc = view_pwrite(v, zeros, part, off);
		off += part;
	}
	return rc;
}

int obd_image_view_discard(struct obd_file *view, uint64_t off, uint64_t n)
{
	struct view *v = view->ctx;
	const uint64_t size = obd_upper_size(v->upper);
	if (!obd_upper_is_sparse(v->upper) || off > size || n > size - off || (off | n) % OBD_SECTOR_BYTES)
		return obd_upper_discard(v->upper, off, n, true);
	return discard_sparse(v, off, n);
}

int obd_image_view_sync(struct obd_file *view)
{
	return obd_upper_sync(((struct view *)view->ctx)->upper);
}
