/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One index out of a stack of layers, and the search in it.
 *
 *     layer 2 (top)      [ddd]        [zz]
 *     layer 1         [aaaaaaaa]   [bbbbbbb]
 *     merged          [1][222 ][1] [1b]  [1b]      z hides b; where nothing maps, reads give zeros
 */
#ifndef OBD_COMMON_FORMAT_MERGE_H
#define OBD_COMMON_FORMAT_MERGE_H

#include "common/format/lsmt_layout.h"

/* Sorted by offset, not overlapping, no empty segments: as obd_lsmt_load_index gives it. Tags are ignored. */
struct obd_lsmt_layer_index {
	const struct obd_lsmt_seg *seg;
	size_t n;
};

/*
 * The merged view of a complete stack, layers[0] at the bottom. *out is allocated (free it; NULL when *n_out is 0),
 * sorted, not overlapping; the tag of a segment is its layer's number; neighbours that continue each other both ways are
 * joined up to OBD_LSMT_LENGTH_MAX. Nothing lies below the stack, so zeroed segments are dropped from the result.
 * O(N log nlayers), about 64 bytes of working memory per input segment. 0, -EINVAL (nlayers > OBD_LSMT_MAX_LAYERS, an
 * input is not sorted), -ENOMEM. Does not block.
 */
int obd_lsmt_merge(const struct obd_lsmt_layer_index *layers, unsigned nlayers, struct obd_lsmt_seg **out, size_t *n_out);

/* The same for a part of a stack: zeroed segments stay, since they may hide something in layers below the part. */
int obd_lsmt_merge_part(const struct obd_lsmt_layer_index *layers, unsigned nlayers, struct obd_lsmt_seg **out, size_t *n_out);

/*
 * Sorts n segments in order of writing so that a later one overrides an earlier one; same result form as
 * obd_lsmt_merge_part, tags kept (segments of different tags are not joined). Empty and padding segments must be gone.
 */
int obd_lsmt_normalise(const struct obd_lsmt_seg *seg, size_t n, struct obd_lsmt_seg **out, size_t *n_out);

/* True when b continues a logically and physically (or both are zeroed) with the same tag, and they fit one segment. */
static inline bool obd_lsmt_seg_joins(struct obd_lsmt_seg a, struct obd_lsmt_seg b)
{
	if (obd_lsmt_seg_end(a) != obd_lsmt_seg_offset(b) || ((a.w1 ^ b.w1) >> 55) != 0)
		return false;
	if (obd_lsmt_seg_length(a) + obd_lsmt_seg_length(b) > OBD_LSMT_LENGTH_MAX)
		return false;
	return obd_lsmt_seg_zeroed(a) || obd_lsmt_seg_moffset(a) + obd_lsmt_seg_length(a) == obd_lsmt_seg_moffset(b);
}

/*
 * Number of the first segment that ends behind sector, n when there is none: the segment covers sector, or sector lies
 * in the gap before it. Whatever the memory holds, the answer is at most n and nothing outside of seg[0 ... n-1] is read:
 * callers in shared memory copy the segment and check it against what they asked. Hit path: no lock, no branch on data.
 */
static inline size_t obd_lsmt_lookup(const struct obd_lsmt_seg *seg, size_t n, uint64_t sector)
{
	const struct obd_lsmt_seg *at = seg;
	size_t left = n;
	while (left > 1) {
		size_t half = left / 2;
		/* Both places where the next step may look: at a million segments this halves the time. */
		__builtin_prefetch(&at[half / 2]);
		__builtin_prefetch(&at[half + half / 2]);
		/* Everything before at ends at or before sector; multiply, do not branch: the outcome is a coin toss. */
		uint64_t w0 = *(const volatile uint64_t *)&at[half - 1].w0;
		at += half * ((w0 & OBD_LSMT_OFFSET_MASK) + (w0 >> 50) <= sector);
		left -= half;
	}
	if (left) {
		uint64_t w0 = *(const volatile uint64_t *)&at->w0;
		at += (w0 & OBD_LSMT_OFFSET_MASK) + (w0 >> 50) <= sector;
	}
	return (size_t)(at - seg);
}

#endif
