/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 *     leaves[]    [ 0 ]      [ 1 ]      [ 2 ]         sorted; no leaf is empty
 *                 sss..      ssss.      s....         sorted, not overlapping, across leaves too
 *
 * A put first cuts its range free, then goes into the leaf of its left neighbour; a full leaf gives its upper half to a new
 * one. Cutting makes at most one segment more, putting another: two new leaves at most, which are kept in stock so that
 * nothing fails half-way.
 */
#include "common/format/segmap.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/format/merge.h"

#define LEAF_SEGS 256u
#define STOCK 2u

struct leaf {
	uint32_t n;
	struct obd_lsmt_seg seg[LEAF_SEGS];
};

struct obd_segmap {
	struct leaf **leaves;
	size_t nleaves;
	size_t cap;
	size_t count;
	struct leaf *stock[STOCK];
};

/* A place in the map: leaf number and segment in it; the end is {nleaves, 0}. */
struct place {
	size_t leaf;
	uint32_t i;
};

struct obd_segmap *obd_segmap_new(void)
{
	return calloc(1, sizeof(struct obd_segmap));
}

void obd_segmap_free(struct obd_segmap *m)
{
	if (!m)
		return;
	for (size_t i = 0; i < m->nleaves; i++)
		free(m->leaves[i]);
	for (unsigned i = 0; i < STOCK; i++)
		free(m->stock[i]);
	free(m->leaves);
	free(m);
}

int obd_segmap_reserve(struct obd_segmap *m)
{
	if (m->nleaves + STOCK > m->cap) {
		const size_t cap = 2 * m->cap + 16;
		struct leaf **p = realloc(m->leaves, cap * sizeof(*p));
		if (!p)
			return -ENOMEM;
		m->leaves = p;
		m->cap = cap;
	}
	for (unsigned i = 0; i < STOCK; i++) {
		if (!m->stock[i])
			m->stock[i] = malloc(sizeof(struct leaf));
		if (!m->stock[i])
			return -ENOMEM;
	}
	return 0;
}

static struct leaf *take_stock(struct obd_segmap *m)
{
	for (unsigned i = 0; i < STOCK; i++) {
		struct leaf *l = m->stock[i];
		if (!l)
			continue;
		m->stock[i] = NULL;
		l->n = 0;
		return l;
	}
	abort(); /* no call makes more leaves than it reserved */
}

static void insert_leaf(struct obd_segmap *m, size_t at, struct leaf *l)
{
	memmove(&m->leaves[at + 1], &m->leaves[at], (m->nleaves - at) * sizeof(*m->leaves));
	m->leaves[at] = l;
	m->nleaves++;
}

static void remove_leaf(struct obd_segmap *m, size_t at)
{
	free(m->leaves[at]);
	m->nleaves--;
	memmove(&m->leaves[at], &m->leaves[at + 1], (m->nleaves - at) * sizeof(*m->leaves));
}

/* The first segment that ends behind sector. */
static struct place find(const struct obd_segmap *m, uint64_t sector)
{
	size_t lo = 0, hi = m->nleaves;
	while (lo < hi) {
		const size_t mid = lo + (hi - lo) / 2;
		const struct leaf *l = m->leaves[mid];
		if (obd_lsmt_seg_end(l->seg[l->n - 1]) <= sector)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (lo == m->nleaves)
		return (struct place){.leaf = lo};
	return (struct place){.leaf = lo, .i = (uint32_t)obd_lsmt_lookup(m->leaves[lo]->seg, m->leaves[lo]->n, sector)};
}

/* Puts s before place p; p stays the place of s. */
static void insert(struct obd_segmap *m, struct place p, struct obd_lsmt_seg s)
{
	/* Behind the last segment of a leaf is also before the first one of the next. */
	if (p.i == 0 && p.leaf > 0) {
		p.leaf--;
		p.i = m->leaves[p.leaf]->n;
	} else if (p.leaf == m->nleaves) {
		insert_leaf(m, p.leaf, take_stock(m));
	}
	struct leaf *l = m->leaves[p.leaf];
	if (l->n == LEAF_SEGS) {
		struct leaf *upper = take_stock(m);
		/* Writing in rising order leaves full leaves behind. */
		const uint32_t keep = p.i == LEAF_SEGS && p.leaf + 1 == m->nleaves ? LEAF_SEGS - 1 : LEAF_SEGS / 2;
		upper->n = LEAF_SEGS - keep;
		memcpy(upper->seg, l->seg + keep, upper->n * sizeof(*upper->seg));
		l->n = keep;
		insert_leaf(m, p.leaf + 1, upper);
		if (p.i > keep) {
			l = upper;
			p.i -= keep;
		}
	}
	memmove(&l->seg[p.i + 1], &l->seg[p.i], (l->n - p.i) * sizeof(*l->seg));
	l->seg[p.i] = s;
	l->n++;
	m->count++;
}

/* Takes segments [from, to) out of a leaf. */
static void erase(struct obd_segmap *m, size_t leaf, uint32_t from, uint32_t to)
{
	struct leaf *l = m->leaves[leaf];
	memmove(&l->seg[from], &l->seg[to], (l->n - to) * sizeof(*l->seg));
	l->n -= to - from;
	m->count -= to - from;
	if (!l->n)
		remove_leaf(m, leaf);
}

/* The part [from, to) of s. */
static struct obd_lsmt_seg part(struct obd_lsmt_seg s, uint64_t from, uint64_t to)
{
	const uint64_t skip = obd_lsmt_seg_zeroed(s) ? 0 : from - obd_lsmt_seg_offset(s);
	return obd_lsmt_seg_make(from, (uint32_t)(to - from), obd_lsmt_seg_moffset(s) + skip, obd_lsmt_seg_zeroed(s),
				 obd_lsmt_seg_tag(s));
}

/* Frees [from, to): the segment that reaches in from the left, those within, the one that reaches out to the right. */
static void cut(struct obd_segmap *m, uint64_t from, uint64_t to)
{
	struct place p = find(m, from);
	if (p.leaf == m->nleaves)
		return;
	const struct obd_lsmt_seg first = m->leaves[p.leaf]->seg[p.i];
	if (obd_lsmt_seg_offset(first) < from) {
		m->leaves[p.leaf]->seg[p.i] = part(first, obd_lsmt_seg_offset(first), from);
		if (obd_lsmt_seg_end(first) > to) {
			p.i++;
			if (p.i == m->leaves[p.leaf]->n)
				p = (struct place){.leaf = p.leaf + 1};
			insert(m, p, part(first, to, obd_lsmt_seg_end(first)));
			return;
		}
		p = find(m, from);
	}
	while (p.leaf < m->nleaves) {
		struct leaf *l = m->leaves[p.leaf];
		uint32_t end = p.i;
		while (end < l->n && obd_lsmt_seg_end(l->seg[end]) <= to)
			end++;
		const bool on = end == l->n;
		if (!on && obd_lsmt_seg_offset(l->seg[end]) < to)
			l->seg[end] = part(l->seg[end], to, obd_lsmt_seg_end(l->seg[end]));
		const bool whole = p.i == 0 && on;
		if (end > p.i)
			erase(m, p.leaf, p.i, end);
		if (!on)
			return;
		p = (struct place){.leaf = whole ? p.leaf : p.leaf + 1};
	}
}

int obd_segmap_cut(struct obd_segmap *m, uint64_t from, uint64_t to)
{
	int rc = obd_segmap_reserve(m);
	if (!rc && from < to)
		cut(m, from, to);
	return rc;
}

/* The segment before place p; NULL when p is the first. */
static struct obd_lsmt_seg *before(const struct obd_segmap *m, struct place p)
{
	if (p.i)
		return &m->leaves[p.leaf]->seg[p.i - 1];
	return p.leaf ? &m->leaves[p.leaf - 1]->seg[m->leaves[p.leaf - 1]->n - 1] : NULL;
}

int obd_segmap_put(struct obd_segmap *m, struct obd_lsmt_seg s)
{
	int rc = obd_segmap_reserve(m);
	if (rc)
		return rc;
	assert(obd_lsmt_seg_length(s) && obd_lsmt_seg_end(s) <= OBD_LSMT_PADDING);
	cut(m, obd_lsmt_seg_offset(s), obd_lsmt_seg_end(s));
	const struct place p = find(m, obd_lsmt_seg_offset(s));
	struct obd_lsmt_seg *left = before(m, p);
	if (left && obd_lsmt_seg_joins(*left, s)) {
		left->w0 += s.w0 & ~OBD_LSMT_OFFSET_MASK;
		return 0;
	}
	/* A neighbour to the right takes s in: its offset and moffset move down. */
	struct obd_lsmt_seg *right = p.leaf < m->nleaves ? &m->leaves[p.leaf]->seg[p.i] : NULL;
	if (right && obd_lsmt_seg_joins(s, *right)) {
		s.w0 += right->w0 & ~OBD_LSMT_OFFSET_MASK;
		*right = s;
		return 0;
	}
	insert(m, p, s);
	return 0;
}

bool obd_segmap_at(const struct obd_segmap *m, uint64_t sector, struct obd_lsmt_seg *s)
{
	const struct place p = find(m, sector);
	if (p.leaf == m->nleaves)
		return false;
	*s = m->leaves[p.leaf]->seg[p.i];
	return true;
}

size_t obd_segmap_count(const struct obd_segmap *m)
{
	return m->count;
}

void obd_segmap_copy(const struct obd_segmap *m, struct obd_lsmt_seg *out)
{
	for (size_t i = 0; i < m->nleaves; i++) {
		memcpy(out, m->leaves[i]->seg, m->leaves[i]->n * sizeof(*out));
		out += m->leaves[i]->n;
	}
}
