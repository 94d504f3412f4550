/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Requests for sparse uppers.
 *
 * What a sparse file holds is told by its holes, which are whole units of its file system. How large a unit is cannot be known
 * for sure: st_blksize is taken for the most it may be, and it may be smaller, here or everywhere. So nothing is built on a
 * unit's size but this: what the map calls NONE is a run of whole units, and a run of NONE ends at the latest where a block of
 * u->granule bytes ends.
 *
 *     write        where it begins or ends inside a run of NONE, the rest of the run, within the block, gets its bytes from the
 *                  layers below, in the same pwrite
 *     discard      of whole blocks: a hole where nothing lies below, else zeros, because a hole would show what lies below
 *                  of a part of a block: zeros where something is mapped; where not, nothing if nothing lies below, else the
 *                  run of NONE from below with zeros in it
 *
 * A request keeps others from the whole blocks it touches. Bytes from below are read through the cache, block by block, in the
 * callback of cached's answer at the latest. If the process dies while filling, nothing has happened yet.
 */
#include "indexer/upper.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/format/merge.h"
#include "indexer/internal.h"

#define BOUNCE_ALIGN 4096u
#define BOUNCE_BYTES_MAX (UINT64_C(64) << 20) /* of all requests together, unless one alone wants more */

/* --- blocks ------------------------------------------------------------------------------------------------------------- */

/* Start and end of the file system's block around a byte, as bytes of the device, cut at its ends. */
static uint64_t block_start(const struct obd_ix_upper *u, uint64_t off)
{
	uint64_t at = obd_align_down(OBD_LSMT_HEADER_BYTES + off, u->granule);
	return at < OBD_LSMT_HEADER_BYTES ? 0 : at - OBD_LSMT_HEADER_BYTES;
}

static uint64_t block_end(const struct obd_ix_upper *u, uint64_t end)
{
	return obd_min_u64(u->bytes, obd_align_up(OBD_LSMT_HEADER_BYTES + end, u->granule) - OBD_LSMT_HEADER_BYTES);
}

void obd_ix_sparse_widen(const struct obd_ix_upper *u, uint64_t *from, uint64_t *to)
{
	*from = block_start(u, *from);
	*to = block_end(u, *to);
}

/* What the map says at byte `off`, for *run bytes of [off, end) at least. */
static enum obd_upmap_kind kind_at(const struct obd_ix_upper *u, uint64_t off, uint64_t end, uint64_t *run)
{
	uint64_t moffset;
	bool bad;
	enum obd_upmap_kind kind = obd_upmap_lookup(u->ix->seg, &u->map.map, off / OBD_SECTOR_BYTES,
						    (end - off) / OBD_SECTOR_BYTES, run, &moffset, &bad);
	*run *= OBD_SECTOR_BYTES;
	return kind;
}

static bool is_hole(const struct obd_ix_upper *u, uint64_t off)
{
	uint64_t run;
	return kind_at(u, off, off + OBD_SECTOR_BYTES, &run) == OBD_UPMAP_NONE;
}

/* Where the run of NONE begins that ends at `off`, within the block; `off` itself when the sector before it is none. */
static uint64_t hole_start(const struct obd_ix_upper *u, uint64_t off)
{
	uint64_t from = block_start(u, off), at = from, run;
	for (; at < off; at += run)
		if (kind_at(u, at, off, &run) != OBD_UPMAP_NONE)
			from = at + run;
	return from;
}

/* Where the run of NONE ends that begins at `off`, within the block of the byte before. */
static uint64_t hole_end(const struct obd_ix_upper *u, uint64_t off)
{
	uint64_t end = block_end(u, off), run;
	while (off < end && kind_at(u, off, end, &run) == OBD_UPMAP_NONE)
		off += run;
	return off;
}

/* --- what lies below ---------------------------------------------------------------------------------------------------- */

static const struct obd_lsmt_seg *below(const struct obd_ix_upper *u, size_t *n)
{
	const struct obd_image *e = obd_ix_image_entry(u->ix, u->image);
	*n = (size_t)e->index_count;
	return (const void *)(u->ix->seg->index + e->index_off);
}

/* The next range with data in [at, end). False: there is none. *seg is its segment. */
static bool next_below(const struct obd_ix_upper *u, uint64_t at, uint64_t end, uint64_t *from, uint64_t *to,
		       struct obd_lsmt_seg *seg)
{
	size_t n;
	const struct obd_lsmt_seg *s = below(u, &n);
	size_t i = obd_lsmt_lookup(s, n, at / OBD_SECTOR_BYTES);
	if (at >= end || i >= n)
		return false;
	*seg = s[i];
	*from = obd_max_u64(at, obd_lsmt_seg_offset(s[i]) * OBD_SECTOR_BYTES);
	*to = obd_min_u64(end, obd_lsmt_seg_end(s[i]) * OBD_SECTOR_BYTES);
	return *from < *to;
}

static bool nothing_below(const struct obd_ix_upper *u, uint64_t from, uint64_t to)
{
	uint64_t a, b;
	struct obd_lsmt_seg seg;
	return !next_below(u, from, to, &a, &b, &seg);
}

/* --- plans -------------------------------------------------------------------------------------------------------------- */

/* Room for one more of what grows at powers of two. */
static void *grow(void *array, size_t n, size_t bytes)
{
	return n & (n - 1) ? array : realloc(array, (n ? 2 * n : 1) * bytes);
}

static int add_piece(struct obd_ix_up *up, uint64_t from, uint64_t to, enum obd_ix_piece_how how, const void *src)
{
	struct obd_ix_piece *last = up->npieces ? &up->piece[up->npieces - 1] : NULL;
	if (from == to)
		return 0;
	if (last && last->how == how && how != OBD_IX_COPY && last->off + last->len == from) {
		last->len += to - from;
		return 0;
	}
	struct obd_ix_piece *more = grow(up->piece, up->npieces, sizeof *more);
	if (!more)
		return -ENOMEM;
	up->piece = more;
	up->piece[up->npieces++] = (struct obd_ix_piece){.off = from, .len = to - from, .how = how, .src = src};
	return 0;
}

static int add_fill(struct obd_ix_up *up, uint64_t from, uint64_t to, unsigned char *dst)
{
	if (from == to)
		return 0;
	struct obd_ix_fill *more = grow(up->fill, up->nfills, sizeof *more);
	if (!more)
		return -ENOMEM;
	up->fill = more;
	up->fill[up->nfills++] = (struct obd_ix_fill){.off = from, .len = to - from, .dst = dst};
	return 0;
}

/* [from, to) in one pwrite: `data` (NULL: zeros) stands at [off, end), the rest is as it is below. */
static int add_filled(struct obd_ix_up *up, uint64_t from, uint64_t off, uint64_t end, uint64_t to, const void *data)
{
	struct obd_indexer *ix = up->ix;
	uint64_t bytes = obd_align_up(to - from, BOUNCE_ALIGN);
	if (ix->bounce_bytes > up->bounce_bytes && ix->bounce_bytes + bytes > BOUNCE_BYTES_MAX)
		return -EBUSY;
	unsigned char *b = aligned_alloc(BOUNCE_ALIGN, bytes);
	if (!b)
		return -ENOMEM;
	memset(b, 0, bytes);
	if (data)
		memcpy(b + (off - from), data, end - off);
	int rc = add_piece(up, from, to, OBD_IX_COPY, b);
	if (rc) {
		free(b);
		return rc;
	}
	up->piece[up->npieces - 1].own = b;
	up->bounce_bytes += bytes;
	ix->bounce_bytes += bytes;
	rc = add_fill(up, from, off, b);
	return rc ? rc : add_fill(up, end, to, b + (end - from));
}

static int plan_write(struct obd_ix_up *up)
{
	const struct obd_ix_upper *u = up->upper;
	const unsigned char *data = up->ix->seg->client[up->client]->staging[up->slot];
	uint64_t end = up->off + up->len;
	uint64_t from = is_hole(u, up->off) ? hole_start(u, up->off) : up->off;
	uint64_t to = is_hole(u, end - OBD_SECTOR_BYTES) ? hole_end(u, end) : end;
	if (from == up->off && to == end)
		return add_piece(up, up->off, end, OBD_IX_COPY, data);
	return add_filled(up, from, up->off, end, to, data);
}

/* [from, to) is a part of one block. */
static int plan_part(struct obd_ix_up *up, uint64_t from, uint64_t to)
{
	const struct obd_ix_upper *u = up->upper;
	uint64_t run;
	int rc = 0;
	for (; from < to && !rc; from += run) {
		if (kind_at(u, from, to, &run) != OBD_UPMAP_NONE) {
			rc = add_piece(up, from, from + run, OBD_IX_ZEROS, NULL);
			continue;
		}
		uint64_t end = obd_min_u64(to, hole_end(u, from + run));
		run = end - from;
		if (u->stray || !nothing_below(u, from, end))
			rc = add_filled(up, hole_start(u, from), from, end, hole_end(u, end), NULL);
	}
	return rc;
}

/* [from, to) is whole blocks. */
static int plan_whole(struct obd_ix_up *up, uint64_t from, uint64_t to)
{
	const struct obd_ix_upper *u = up->upper;
	uint64_t a, b;
	struct obd_lsmt_seg seg;
	int rc = 0;
	while (!rc && next_below(u, from, to, &a, &b, &seg)) {
		a = obd_max_u64(from, block_start(u, a));
		b = obd_min_u64(to, block_end(u, b));
		rc = add_piece(up, from, a, OBD_IX_PUNCH, NULL);
		if (!rc)
			rc = add_piece(up, a, b, OBD_IX_ZEROS, NULL);
		from = b;
	}
	return rc ? rc : add_piece(up, from, to, OBD_IX_PUNCH, NULL);
}

static int plan_discard(struct obd_ix_up *up)
{
	const struct obd_ix_upper *u = up->upper;
	uint64_t from = up->off, to = up->off + up->len;
	int rc = 0;
	if (block_start(u, from) != from) {
		uint64_t end = obd_min_u64(to, block_end(u, from + OBD_SECTOR_BYTES));
		rc = plan_part(up, from, end);
		from = end;
	}
	uint64_t last = block_end(u, to) == to ? to : obd_max_u64(from, block_start(u, to));
	if (!rc && from < last)
		rc = plan_whole(up, from, last);
	return rc || last == to ? rc : plan_part(up, last, to);
}

static void forget_plan(struct obd_ix_up *up)
{
	for (size_t i = 0; i < up->npieces; i++)
		free(up->piece[i].own);
	up->ix->bounce_bytes -= up->bounce_bytes;
	up->bounce_bytes = 0;
	up->npieces = up->nfills = 0;
	free(up->piece);
	free(up->fill);
	up->piece = NULL;
	up->fill = NULL;
}

int obd_ix_sparse_plan(struct obd_ix_up *up)
{
	int rc = up->op == OBD_UP_WRITE ? plan_write(up) : plan_discard(up);
	if (rc)
		forget_plan(up);
	return rc;
}

/* --- filling ------------------------------------------------------------------------------------------------------------ */

static void answered(struct obd_ix_post *post, int err)
{
	struct obd_ix_up *up = post->owner;
	bool again = err == 0 || err == EAGAIN || err == ESTALE;
	obd_list_remove(&post->link);
	if (again && ++up->fill_tries <= OBD_IX_TRIES) {
		obd_ix_sparse_fill(up);
		return;
	}
	up->err = err ? err : EIO;
	obd_ix_up_finish(up);
}

/* Copies at most `max` bytes that stand at byte `at` of a layer's file, all of one block. Returns how many. */
static int64_t copy_block(struct obd_ix_up *up, const struct obd_ix_layer *l, uint64_t at, uint64_t max, unsigned char *dst)
{
	struct obd_indexer *ix = up->ix;
	uint32_t bb = ix->seg->geo.block_bytes;
	uint32_t block = (uint32_t)(at / bb), in = (uint32_t)(at % bb);
	uint32_t n = (uint32_t)obd_min_u64(max, bb - in);
	int rc = obd_reader_copy(&ix->reader, l->slot, l->uid, false, block, in, n, dst);
	if (rc == -EAGAIN) {
		rc = obd_ix_post(ix, &up->posts, OBD_JOB_BLOCKS, l, block, 1, OBD_REQ_DEMAND, answered, up);
		return rc ? rc : -EINPROGRESS;
	}
	return rc ? (rc == -ERANGE ? -EBADMSG : rc) : (int64_t)n;
}

/* Goes on with one range. 0: there; -EINPROGRESS, -EBUSY, or another negative errno. */
static int go_on(struct obd_ix_up *up, struct obd_ix_fill *f)
{
	const struct obd_ix_upper *u = up->upper;
	const struct obd_image *e = obd_ix_image_entry(u->ix, u->image);
	while (f->len) {
		uint64_t from, to;
		struct obd_lsmt_seg seg;
		int64_t n = (int64_t)f->len; /* zeros, if nothing lies below: they stand there already */
		if (next_below(u, f->off, f->off + f->len, &from, &to, &seg)) {
			uint64_t at = (obd_lsmt_seg_moffset(seg) - obd_lsmt_seg_offset(seg)) * OBD_SECTOR_BYTES + f->off;
			uint32_t tag = obd_lsmt_seg_tag(seg);
			assert(tag < e->nlayers);
			if (from > f->off)
				n = (int64_t)(from - f->off);
			else
				n = copy_block(up, &u->ix->layer[e->layer_slot[tag]], at, to - from, f->dst);
		}
		if (n < 0)
			return (int)n;
		up->fill_tries = 0;
		f->off += (uint64_t)n;
		f->dst += n;
		f->len -= (uint64_t)n;
	}
	return 0;
}

void obd_ix_sparse_fill(struct obd_ix_up *up)
{
	int rc = 0;
	for (size_t i = 0; i < up->nfills && !rc; i++)
		rc = go_on(up, &up->fill[i]);
	if (rc == -EINPROGRESS)
		return;
	if (rc == -EBUSY) {
		obd_list_push_back(&up->ix->ups_starved, &up->queue);
		return;
	}
	if (rc) {
		up->err = -rc;
		obd_ix_up_finish(up);
	} else {
		obd_ix_up_run_pieces(up);
	}
}
