/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Merging by a tree of pairs. Every input is a run: sorted, not overlapping. One round lays each odd run over its even
 * neighbour in one linear pass and halves the number of runs; two buffers take turns.
 *
 *     round 0   r0   r1   r2   r3   r4        later runs lie above earlier ones
 *     round 1   r0+r1     r2+r3     r4
 *     round 2   r0+r1+r2+r3         r4
 *     round 3   all
 *
 * n segments have at most 2n borders, so never more than 2n - 1 pieces come out of them, whatever the order: a run made of
 * k input segments gets 2k places, from twice its first input's number on, and a round needs no allocation.
 */
#include "common/format/merge.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/util.h"

struct run {
	size_t at;   /* first segment in the buffer */
	size_t n;    /* segments */
	size_t room; /* places from at on */
};

/* Joining is greedy: a piece that does not fit starts a new segment. */
static inline void put(struct obd_lsmt_seg *out, size_t *n, struct obd_lsmt_seg s)
{
	if (*n && obd_lsmt_seg_joins(out[*n - 1], s))
		out[*n - 1].w0 += s.w0 & ~OBD_LSMT_OFFSET_MASK;
	else
		out[(*n)++] = s;
}

/* What is left of s from sector `from` on. */
static inline struct obd_lsmt_seg cut_front(struct obd_lsmt_seg s, uint64_t from)
{
	uint64_t d = from - obd_lsmt_seg_offset(s);
	s.w0 = (s.w0 + d) - (d << 50);
	if (!obd_lsmt_seg_zeroed(s))
		s.w1 = (s.w1 & ~OBD_LSMT_MOFFSET_MASK) | ((s.w1 + d) & OBD_LSMT_MOFFSET_MASK);
	return s;
}

/* What is left of s before sector `to`. */
static inline struct obd_lsmt_seg cut_back(struct obd_lsmt_seg s, uint64_t to)
{
	s.w0 = obd_lsmt_seg_offset(s) | (to - obd_lsmt_seg_offset(s)) << 50;
	return s;
}

/* Lays up over lo; returns the number of segments at out. */
static size_t overlay(const struct obd_lsmt_seg *lo, size_t nlo, const struct obd_lsmt_seg *up, size_t nup,
		      struct obd_lsmt_seg *out)
{
	const struct obd_lsmt_seg *lo_end = lo + nlo;
	struct obd_lsmt_seg cur = nlo ? *lo : (struct obd_lsmt_seg){0};
	size_t n = 0;
	for (size_t i = 0; i < nup; i++) {
		const uint64_t from = obd_lsmt_seg_offset(up[i]), to = obd_lsmt_seg_end(up[i]);
		while (lo < lo_end && obd_lsmt_seg_end(cur) <= from) {
			put(out, &n, cur);
			if (++lo < lo_end)
				cur = *lo;
		}
		if (lo < lo_end && obd_lsmt_seg_offset(cur) < from)
			put(out, &n, cut_back(cur, from));
		put(out, &n, up[i]);
		while (lo < lo_end && obd_lsmt_seg_end(cur) <= to)
			if (++lo < lo_end)
				cur = *lo;
		if (lo < lo_end && obd_lsmt_seg_offset(cur) < to)
			cur = cut_front(cur, to);
	}
	while (lo < lo_end) {
		put(out, &n, cur);
		if (++lo < lo_end)
			cur = *lo;
	}
	return n;
}

/* One round from src into dst; returns the number of runs left. */
static size_t merge_round(struct run *runs, size_t nruns, const struct obd_lsmt_seg *src, struct obd_lsmt_seg *dst)
{
	size_t left = 0;
	for (size_t i = 0; i < nruns; i += 2) {
		struct run r = runs[i];
		if (i + 1 < nruns) {
			r.room += runs[i + 1].room;
			r.n = overlay(src + r.at, r.n, src + runs[i + 1].at, runs[i + 1].n, dst + r.at);
		} else {
			memcpy(dst + r.at, src + r.at, r.n * sizeof(*src));
		}
		runs[left++] = r;
	}
	return left;
}

/* Runs in a (2 * total places) become one list in *out, which is cut to size. Frees both buffers. */
static int merge_runs(struct obd_lsmt_seg *a, size_t total, struct run *runs, size_t nruns, bool drop_zeroed,
		      struct obd_lsmt_seg **out, size_t *n_out)
{
	struct obd_lsmt_seg *b = nruns > 1 ? malloc(2 * total * sizeof(*b)) : NULL;
	if (nruns > 1 && !b) {
		free(a);
		return -ENOMEM;
	}
	while (nruns > 1) {
		nruns = merge_round(runs, nruns, a, b);
		struct obd_lsmt_seg *t = a;
		a = b;
		b = t;
	}
	free(b);
	size_t n = 0;
	/* A last pass joins what the inputs themselves left unjoined. */
	for (size_t i = 0; i < runs[0].n; i++)
		if (!drop_zeroed || !obd_lsmt_seg_zeroed(a[i]))
			put(a, &n, a[i]);
	if (!n) {
		free(a);
		a = NULL;
	}
	struct obd_lsmt_seg *fit = n ? realloc(a, n * sizeof(*a)) : NULL;
	*out = fit ? fit : a;
	*n_out = n;
	return 0;
}

/* Copies a layer behind the runs so far. -EINVAL when it is not sorted. */
static int add_layer(struct obd_lsmt_seg *dst, const struct obd_lsmt_layer_index *layer, uint8_t tag)
{
	uint64_t end = 0;
	for (size_t i = 0; i < layer->n; i++) {
		struct obd_lsmt_seg s = layer->seg[i];
		if (!obd_lsmt_seg_length(s) || obd_lsmt_seg_offset(s) < end || obd_lsmt_seg_end(s) > OBD_LSMT_PADDING)
			return -EINVAL;
		end = obd_lsmt_seg_end(s);
		dst[i] = obd_lsmt_seg_set_tag(s, tag);
	}
	return 0;
}

static int merge(const struct obd_lsmt_layer_index *layers, unsigned nlayers, bool drop_zeroed, struct obd_lsmt_seg **out,
		 size_t *n_out)
{
	struct run runs[OBD_LSMT_MAX_LAYERS];
	size_t total = 0, at = 0;
	*out = NULL;
	*n_out = 0;
	if (nlayers > OBD_LSMT_MAX_LAYERS)
		return -EINVAL;
	for (unsigned i = 0; i < nlayers; i++)
		if (__builtin_add_overflow(total, layers[i].n, &total) || total > SIZE_MAX / 4 / sizeof(**out))
			return -EINVAL;
	if (!total)
		return 0;
	struct obd_lsmt_seg *a = malloc(2 * total * sizeof(*a));
	if (!a)
		return -ENOMEM;
	for (unsigned i = 0; i < nlayers; i++) {
		runs[i] = (struct run){.at = at, .n = layers[i].n, .room = 2 * layers[i].n};
		if (add_layer(a + at, &layers[i], (uint8_t)i)) {
			free(a);
			return -EINVAL;
		}
		at += runs[i].room;
	}
	return merge_runs(a, total, runs, nlayers, drop_zeroed, out, n_out);
}

int obd_lsmt_merge(const struct obd_lsmt_layer_index *layers, unsigned nlayers, struct obd_lsmt_seg **out, size_t *n_out)
{
	return merge(layers, nlayers, true, out, n_out);
}

int obd_lsmt_merge_part(const struct obd_lsmt_layer_index *layers, unsigned nlayers, struct obd_lsmt_seg **out, size_t *n_out)
{
	return merge(layers, nlayers, false, out, n_out);
}

/* Whether seg[i] starts a new run: it does not lie behind seg[i - 1]. */
static bool starts_run(const struct obd_lsmt_seg *seg, size_t i)
{
	return i == 0 || obd_lsmt_seg_offset(seg[i]) < obd_lsmt_seg_end(seg[i - 1]);
}

int obd_lsmt_normalise(const struct obd_lsmt_seg *seg, size_t n, struct obd_lsmt_seg **out, size_t *n_out)
{
	size_t nruns = 0, r = 0;
	*out = NULL;
	*n_out = 0;
	if (!n)
		return 0;
	if (n > SIZE_MAX / 4 / sizeof(*seg))
		return -EINVAL;
	for (size_t i = 0; i < n; i++) {
		if (!obd_lsmt_seg_length(seg[i]) || obd_lsmt_seg_end(seg[i]) > OBD_LSMT_PADDING)
			return -EINVAL;
		nruns += starts_run(seg, i);
	}
	struct run *runs = malloc(nruns * sizeof(*runs));
	struct obd_lsmt_seg *a = malloc(2 * n * sizeof(*a));
	if (!runs || !a) {
		free(runs);
		free(a);
		return -ENOMEM;
	}
	for (size_t i = 0; i < n; i++) {
		if (starts_run(seg, i))
			runs[r++] = (struct run){.at = 2 * i};
		struct run *last = &runs[r - 1];
		a[last->at + last->n++] = seg[i];
		last->room += 2;
	}
	int rc = merge_runs(a, n, runs, nruns, false, out, n_out);
	free(runs);
	return rc;
}
