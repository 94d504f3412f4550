/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Writing committed layers. First the index is laid out (data in logical order, so moffsets are known before a byte is
 * written), then everything goes out in one pass: header, data, index, trailer. Images become layers by making the list
 * of segments that differ and committing it with the image as its only source.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/util.h"
#include "common/format/lsmt.h"
#include "common/format/merge.h"

#define COPY_BYTES (1u << 20)
#define GRANULE_MAX (1u << 20)

struct seg_list {
	struct obd_lsmt_seg *seg;
	size_t n;
	size_t cap;
};

static int list_push(struct seg_list *l, struct obd_lsmt_seg s)
{
	if (l->n == l->cap) {
		size_t cap = l->cap ? l->cap * 2 : 1024;
		struct obd_lsmt_seg *p = realloc(l->seg, cap * sizeof(*p));
		if (!p)
			return -ENOMEM;
		l->seg = p;
		l->cap = cap;
	}
	l->seg[l->n++] = s;
	return 0;
}

static int list_add(struct seg_list *l, struct obd_lsmt_seg s)
{
	if (!l->n || !obd_lsmt_seg_joins(l->seg[l->n - 1], s))
		return list_push(l, s);
	l->seg[l->n - 1].w0 += s.w0 & ~OBD_LSMT_OFFSET_MASK;
	return 0;
}

/* The index of the layer to be written. */
static int lay_out(const struct obd_lsmt_seg *segs, size_t n, unsigned nsources, const struct obd_lsmt_write_opts *opts,
		   struct seg_list *out, uint64_t *data_end, struct obd_err *err)
{
	uint64_t end = 0, at = OBD_LSMT_HEADER_SECTORS;
	const uint64_t device = opts->virtual_size / OBD_SECTOR_BYTES;
	for (size_t i = 0; i < n; i++) {
		const struct obd_lsmt_seg s = segs[i];
		const bool zeroed = obd_lsmt_seg_zeroed(s);
		if (!obd_lsmt_seg_length(s) || obd_lsmt_seg_offset(s) < end || obd_lsmt_seg_end(s) > device)
			return obd_err_set(err, EINVAL,
					   "lsmt commit: segment %zu (sectors %" PRIu64 " to %" PRIu64
					   ") is empty, out of order or outside of the device",
					   i, obd_lsmt_seg_offset(s), obd_lsmt_seg_end(s));
		if (!zeroed && obd_lsmt_seg_tag(s) >= nsources)
			return obd_err_set(err, EINVAL, "lsmt commit: segment %zu has tag %u, there are %u sources", i,
					   obd_lsmt_seg_tag(s), nsources);
		end = obd_lsmt_seg_end(s);
		int rc = list_add(out, obd_lsmt_seg_make(obd_lsmt_seg_offset(s), obd_lsmt_seg_length(s), at, zeroed,
							 opts->keep_seg_tags ? obd_lsmt_seg_tag(s) : 0));
		if (rc)
			return obd_err_set(err, -rc, "out of memory");
		at += zeroed ? 0 : obd_lsmt_seg_length(s);
	}
	*data_end = at * OBD_SECTOR_BYTES;
	return 0;
}

/* Copies bytes from src at from to dst at *to, which moves on. */
static int copy(struct obd_file *src, uint64_t from, uint64_t bytes, struct obd_file *dst, uint64_t *to, void *buf,
		struct obd_err *err)
{
	while (bytes) {
		size_t n = (size_t)obd_min_u64(bytes, COPY_BYTES);
		int rc = obd_file_pread_full(src, buf, n, from);
		if (rc)
			return obd_err_set(err, -rc, "lsmt commit: read of source at byte %" PRIu64 ": %s", from,
					   strerror(-rc));
		rc = obd_file_pwrite(dst, buf, n, *to);
		if (rc)
			return obd_err_set(err, -rc, "lsmt commit: write at byte %" PRIu64 ": %s", *to, strerror(-rc));
		*to += n;
		from += n;
		bytes -= n;
	}
	return 0;
}

static int copy_data(const struct obd_lsmt_seg *segs, size_t n, struct obd_file *const sources[], struct obd_file *dst,
		     uint64_t *at, struct obd_err *err)
{
	void *buf = malloc(COPY_BYTES);
	int rc = buf ? 0 : obd_err_set(err, ENOMEM, "out of memory");
	for (size_t i = 0; i < n && !rc; i++)
		if (!obd_lsmt_seg_zeroed(segs[i]))
			rc = copy(sources[obd_lsmt_seg_tag(segs[i])], obd_lsmt_seg_moffset(segs[i]) * OBD_SECTOR_BYTES,
				  (uint64_t)obd_lsmt_seg_length(segs[i]) * OBD_SECTOR_BYTES, dst, at, buf, err);
	free(buf);
	return rc;
}

static int put(struct obd_file *dst, const void *buf, size_t n, uint64_t *at, struct obd_err *err)
{
	int rc = n ? obd_file_pwrite(dst, buf, n, *at) : 0;
	if (rc)
		return obd_err_set(err, -rc, "lsmt commit: write at byte %" PRIu64 ": %s", *at, strerror(-rc));
	*at += n;
	return 0;
}

/* Fills the index up to whole 4096 bytes. */
static int pad(struct seg_list *l, struct obd_err *err)
{
	const size_t per_page = OBD_LSMT_INDEX_ALIGN / sizeof(struct obd_lsmt_seg);
	int rc = 0;
	while (l->n % per_page && !rc)
		rc = list_push(l, obd_lsmt_seg_make(OBD_LSMT_PADDING, 0, 0, false, 0));
	if (rc)
		return obd_err_set(err, -rc, "out of memory");
	if (l->n > OBD_LSMT_MAX_ENTRIES)
		return obd_err_set(err, E2BIG, "lsmt commit: the index has %zu entries, allowed: up to %u", l->n,
				   OBD_LSMT_MAX_ENTRIES);
	return 0;
}

int obd_lsmt_commit(const struct obd_lsmt_seg *segs, size_t n, struct obd_file *const sources[], unsigned nsources,
		    struct obd_file *dst, const struct obd_lsmt_write_opts *opts, uint64_t *bytes, struct obd_err *err)
{
	const uint32_t trailer_flags = OBD_LSMT_FLAG_DATA | OBD_LSMT_FLAG_SEALED;
	unsigned char block[OBD_LSMT_HEADER_BYTES];
	struct seg_list index = {0};
	uint64_t data_end = 0, at = 0;
	if (opts->virtual_size % OBD_SECTOR_BYTES || opts->virtual_size / OBD_SECTOR_BYTES > OBD_LSMT_PADDING)
		return obd_err_set(err, EINVAL,
				   "lsmt commit: virtual size is %" PRIu64 ", allowed: a multiple of 512 below 2^59",
				   opts->virtual_size);
	int rc = lay_out(segs, n, nsources, opts, &index, &data_end, err);
	if (!rc)
		rc = pad(&index, err);
	if (rc)
		goto out;
	obd_lsmt_put_header(block, opts, trailer_flags | OBD_LSMT_FLAG_HEADER, 0, 0);
	rc = put(dst, block, sizeof(block), &at, err);
	if (!rc)
		rc = copy_data(segs, n, sources, dst, &at, err);
	if (!rc)
		rc = put(dst, index.seg, index.n * sizeof(*index.seg), &at, err);
	if (rc)
		goto out;
	obd_lsmt_put_header(block, opts, trailer_flags, data_end, index.n);
	rc = put(dst, block, sizeof(block), &at, err);
	if (!rc && bytes)
		*bytes = at;
out:
	free(index.seg);
	return rc;
}

/* Comparing two images, chunk by chunk. */
struct scan {
	struct obd_file *raw;
	struct obd_file *base; /* NULL: nothing below */
	uint64_t raw_bytes;
	uint64_t base_bytes;
	uint32_t granule;
	unsigned char *now;    /* COPY_BYTES of raw */
	unsigned char *before; /* the same range of base */
	struct seg_list list;
};

static bool is_zero(const unsigned char *p, size_t n)
{
	return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

/* Reads n bytes of a file of that size; what lies behind its end is zeros. */
static int read_or_zero(struct obd_file *f, uint64_t bytes, unsigned char *buf, size_t n, uint64_t at)
{
	size_t have = at < bytes ? (size_t)obd_min_u64(n, bytes - at) : 0;
	memset(buf + have, 0, n - have);
	return have ? obd_file_pread_full(f, buf, have, at) : 0;
}

/* Adds [at, at + n), at most a granule, to the list. The limit only keeps memory bounded; the commit knows the real one. */
static int add_range(struct scan *s, uint64_t at, size_t n, bool zeroed)
{
	const uint32_t sectors = (uint32_t)(n / OBD_SECTOR_BYTES);
	const uint64_t sector = at / OBD_SECTOR_BYTES;
	if (s->list.n > 2 * (size_t)OBD_LSMT_MAX_ENTRIES)
		return -E2BIG;
	return list_add(&s->list, obd_lsmt_seg_make(sector, sectors, sector, zeroed, 0));
}

/* Decides about each granule of n bytes at `at`, which are in now and before. */
static int scan_chunk(struct scan *s, uint64_t at, size_t n)
{
	int rc = 0;
	for (size_t i = 0; i < n && !rc; i += s->granule) {
		const size_t part = (size_t)obd_min_u64(s->granule, n - i);
		const bool zero = is_zero(s->now + i, part);
		if (!s->base && !zero)
			rc = add_range(s, at + i, part, false);
		else if (s->base && memcmp(s->now + i, s->before + i, part) != 0)
			rc = add_range(s, at + i, part, zero);
	}
	return rc;
}

/* The next place worth reading, at or behind *at: holes that both images share are passed over. */
static int skip_holes(struct scan *s, uint64_t *at)
{
	uint64_t next, base_next = UINT64_MAX;
	int rc = obd_file_next_data(s->raw, *at, &next);
	if (!rc && s->base && *at < s->base_bytes) {
		rc = obd_file_next_data(s->base, *at, &base_next);
		if (base_next >= s->base_bytes)
			base_next = UINT64_MAX;
	}
	next = obd_min_u64(next, base_next);
	if (!rc && next > *at)
		*at = obd_align_down(obd_min_u64(next, s->raw_bytes), COPY_BYTES);
	return rc;
}

static int scan(struct scan *s, struct obd_err *err)
{
	for (uint64_t at = 0; at < s->raw_bytes;) {
		const uint64_t from = at;
		int rc = skip_holes(s, &at);
		at = obd_max_u64(at, from);
		const size_t n = (size_t)obd_min_u64(COPY_BYTES, s->raw_bytes - at);
		if (!rc)
			rc = obd_file_pread_full(s->raw, s->now, n, at);
		if (!rc && s->base)
			rc = read_or_zero(s->base, s->base_bytes, s->before, n, at);
		if (!rc)
			rc = scan_chunk(s, at, n);
		if (rc == -E2BIG)
			return obd_err_set(err, E2BIG, "image: more than %u segments, take a larger granularity",
					   OBD_LSMT_MAX_ENTRIES);
		if (rc)
			return obd_err_set(err, -rc, "image: read at byte %" PRIu64 ": %s", at, strerror(-rc));
		at += n;
	}
	return 0;
}

static int check_image(struct scan *s, const struct obd_lsmt_write_opts *opts, struct obd_err *err)
{
	int rc = obd_file_size(s->raw, &s->raw_bytes);
	if (!rc && s->base)
		rc = obd_file_size(s->base, &s->base_bytes);
	if (rc)
		return obd_err_set(err, -rc, "image: size: %s", strerror(-rc));
	if (s->granule < OBD_SECTOR_BYTES || s->granule > GRANULE_MAX || !obd_is_pow2(s->granule))
		return obd_err_set(err, EINVAL, "granularity is %u, allowed: a power of two, 512 to %u", s->granule,
				   GRANULE_MAX);
	if (s->raw_bytes % OBD_SECTOR_BYTES)
		return obd_err_set(err, EINVAL, "image: size is %" PRIu64 ", allowed: a multiple of 512", s->raw_bytes);
	if (opts->virtual_size && opts->virtual_size < s->raw_bytes)
		return obd_err_set(err, EINVAL, "image: size is %" PRIu64 ", the virtual size %" PRIu64 " is less",
				   s->raw_bytes, opts->virtual_size);
	return 0;
}

int obd_lsmt_write_diff(struct obd_file *base, struct obd_file *raw, uint32_t granule_bytes, struct obd_file *dst,
			const struct obd_lsmt_write_opts *opts, uint64_t *bytes, struct obd_err *err)
{
	struct scan s = {.raw = raw, .base = base, .granule = granule_bytes};
	struct obd_lsmt_write_opts o = *opts;
	int rc = check_image(&s, opts, err);
	if (rc)
		return rc;
	s.now = malloc(COPY_BYTES);
	s.before = base ? malloc(COPY_BYTES) : NULL;
	if (!s.now || (base && !s.before))
		rc = obd_err_set(err, ENOMEM, "out of memory");
	if (!rc)
		rc = scan(&s, err);
	if (!o.virtual_size)
		o.virtual_size = s.raw_bytes;
	if (!rc)
		rc = obd_lsmt_commit(s.list.seg, s.list.n, &raw, 1, dst, &o, bytes, err);
	free(s.now);
	free(s.before);
	free(s.list.seg);
	return rc;
}

int obd_lsmt_write_raw(struct obd_file *raw, uint32_t granule_bytes, struct obd_file *dst,
		       const struct obd_lsmt_write_opts *opts, uint64_t *bytes, struct obd_err *err)
{
	return obd_lsmt_write_diff(NULL, raw, granule_bytes, dst, opts, bytes, err);
}
