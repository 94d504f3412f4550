/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "shmcache/upmap.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "common/base/testpoint.h"
#include "common/base/util.h"

#define FANOUT OBD_UPMAP_FANOUT
#define UNIT UINT64_C(64)
#define LEAF_SECTORS ((uint64_t)FANOUT * OBD_UPMAP_LEAF_SECTORS) /* under one leaf: 2 MiB */
#define GENERATION_BITS 30
#define DETAIL_UNIT_MASK ((UINT64_C(1) << 32) - 1)

typedef _Atomic uint64_t word_t;

/* --- words and offsets ---------------------------------------------------------------------------------------------------- */

static word_t *at(const struct obd_segment *seg, uint64_t off)
{
	return (word_t *)(void *)(seg->index + off);
}

/* Does [off, off + bytes) lie in the region? off comes out of a word. */
static bool inside(const struct obd_segment *seg, uint64_t off, uint64_t bytes)
{
	return off <= seg->geo.index_bytes && bytes <= seg->geo.index_bytes - off;
}

static uint64_t child_off(uint64_t word)
{
	uint64_t units = word >> 2;
	return units > UINT64_MAX / UNIT ? UINT64_MAX : units * UNIT;
}

static uint64_t detail_off(uint64_t word)
{
	return (word >> 2 & DETAIL_UNIT_MASK) * UNIT;
}

static uint64_t detail_word(uint64_t off, uint32_t generation)
{
	uint64_t g = generation & ((1u << GENERATION_BITS) - 1);
	return g << 34 | obd_upmap_word(OBD_UPMAP_DETAIL, off / UNIT);
}

/* --- reading ----------------------------------------------------------------------------------------------------------------
 */

int obd_upmap_open(const struct obd_segment *seg, uint32_t slot, uint32_t uid, struct obd_upmap *out)
{
	if (slot >= OBD_UPPER_SLOTS || uid == 0)
		return -ESTALE;
	const struct obd_upper_entry *e = &seg->catalog->upper[slot];
	uint64_t word = obd_load_acquire(&e->word); /* edge: upper-publish */
	if (word != obd_word(uid, OBD_UPPER_READY))
		return -ESTALE;
	out->root_off = e->root_off;
	out->root_words = e->root_words;
	out->sectors = e->virtual_bytes / 512;
	obd_fence_acquire();
	if (obd_load_relaxed(&e->word) != word)
		return -ESTALE;
	uint64_t bytes;
	if (out->root_off % UNIT || !obd_mul_u64(out->root_words, sizeof(word_t), &bytes) || !inside(seg, out->root_off, bytes))
		return -EPROTO;
	return out->sectors <= out->root_words * OBD_UPMAP_ROOT_SECTORS ? 0 : -EPROTO;
}

/* The run of a word that covers `span` sectors, aligned, seen from `sector` on. */
static uint64_t rest(uint64_t sector, uint64_t span, uint64_t max)
{
	return obd_min_u64(max, span - sector % span);
}

/* One sector word of a detail record, read under the leaf's word. False: the record was replaced meanwhile. */
static bool read_detail(const struct obd_segment *seg, const word_t *leaf_word, uint64_t lw, uint64_t sector, uint64_t max,
			uint64_t *run, uint64_t *word)
{
	const word_t *rec = at(seg, detail_off(lw));
	uint64_t i = sector % OBD_UPMAP_LEAF_SECTORS;
	uint64_t n = 1;
	*word = obd_load_relaxed(&rec[i]);
	for (; n < rest(sector, OBD_UPMAP_LEAF_SECTORS, max); n++) {
		uint64_t next = obd_load_relaxed(&rec[i + n]);
		uint64_t want = obd_upmap_kind(*word) == OBD_UPMAP_DATA ? *word + (n << 2) : *word;
		if (next != want)
			break;
	}
	*run = n;
	obd_fence_acquire(); /* edge: detail-seqlock */
	return obd_load_relaxed(leaf_word) == lw;
}

static enum obd_upmap_kind verdict(uint64_t word, uint64_t skip, uint64_t *moffset, bool *bad)
{
	enum obd_upmap_kind kind = obd_upmap_kind(word);
	if (kind == OBD_UPMAP_DETAIL) {
		*bad = true;
		return OBD_UPMAP_NONE;
	}
	*moffset = (word >> 2) + skip;
	return kind;
}

static enum obd_upmap_kind lookup_leaf(const struct obd_segment *seg, uint64_t leaf, uint64_t sector, uint64_t max,
				       uint64_t *run, uint64_t *moffset, bool *bad)
{
	const word_t *lw = at(seg, leaf) + sector % LEAF_SECTORS / OBD_UPMAP_LEAF_SECTORS;
	uint64_t skip = sector % OBD_UPMAP_LEAF_SECTORS;
	for (;;) {
		uint64_t w = obd_load_acquire(lw); /* edge: upmap-publish */
		uint64_t word;
		if (obd_upmap_kind(w) != OBD_UPMAP_DETAIL) {
			*run = rest(sector, OBD_UPMAP_LEAF_SECTORS, max);
			return verdict(w, skip, moffset, bad);
		}
		if (!inside(seg, detail_off(w), OBD_UPMAP_DETAIL_BYTES)) {
			*bad = true;
			return OBD_UPMAP_NONE;
		}
		if (read_detail(seg, lw, w, sector, max, run, &word))
			return verdict(word, 0, moffset, bad);
	}
}

enum obd_upmap_kind obd_upmap_lookup(const struct obd_segment *seg, const struct obd_upmap *map, uint64_t sector, uint64_t max,
				     uint64_t *run, uint64_t *moffset, bool *bad)
{
	*bad = false;
	*moffset = 0;
	*run = max;
	uint64_t i = sector / OBD_UPMAP_ROOT_SECTORS;
	if (i >= map->root_words || max == 0)
		return OBD_UPMAP_NONE;
	uint64_t span = OBD_UPMAP_ROOT_SECTORS;
	uint64_t w = obd_load_acquire(at(seg, map->root_off) + i); /* edge: upmap-publish */
	for (int level = 0; level < 2; level++) {
		*run = rest(sector, span, max);
		if (obd_upmap_kind(w) == OBD_UPMAP_NONE || obd_upmap_kind(w) == OBD_UPMAP_ZERO)
			return obd_upmap_kind(w);
		uint64_t off = child_off(w);
		if (obd_upmap_kind(w) != OBD_UPMAP_DATA || !inside(seg, off, OBD_UPMAP_NODE_BYTES)) {
			*bad = true;
			return OBD_UPMAP_NONE;
		}
		if (level == 1)
			return lookup_leaf(seg, off, sector, max, run, moffset, bad);
		span = LEAF_SECTORS;
		w = obd_load_acquire(at(seg, off) + sector % OBD_UPMAP_ROOT_SECTORS / span); /* edge: upmap-publish */
	}
	return OBD_UPMAP_NONE;
}

/* --- writing ----------------------------------------------------------------------------------------------------------------
 */

static uint64_t root_words_of(uint64_t sectors)
{
	return sectors / OBD_UPMAP_ROOT_SECTORS + (sectors % OBD_UPMAP_ROOT_SECTORS != 0);
}

int obd_upmap_create(struct obd_upmap_writer *w, uint64_t sectors)
{
	uint64_t words = root_words_of(sectors);
	uint64_t off;
	int rc = w->arena.alloc(w->arena.arg, words * sizeof(word_t), &off);
	if (rc)
		return rc;
	for (uint64_t i = 0; i < words; i++)
		obd_store_relaxed(at(w->seg, off) + i, 0);
	w->map = (struct obd_upmap){.root_off = off, .root_words = words, .sectors = sectors};
	return 0;
}

/* The child under *word, made if need be, filled with what the word said of its whole range. NULL: no space. */
static word_t *descend(struct obd_upmap_writer *w, word_t *word)
{
	uint64_t v = obd_load_relaxed(word);
	if (obd_upmap_kind(v) == OBD_UPMAP_DATA)
		return at(w->seg, child_off(v));
	uint64_t off;
	if (w->arena.alloc(w->arena.arg, OBD_UPMAP_NODE_BYTES, &off))
		return NULL;
	word_t *node = at(w->seg, off);
	obd_fence_release(); /* edge: detail-seqlock. Where the node comes to stand, a detail record may have stood */
	for (uint32_t i = 0; i < FANOUT; i++)
		obd_store_relaxed(&node[i], v);
	OBD_TEST_POINT(up_node);
	obd_store_release(word, obd_upmap_word(OBD_UPMAP_DATA, off / UNIT)); /* edge: upmap-publish */
	return node;
}

static word_t *root_word(struct obd_upmap_writer *w, uint64_t sector)
{
	return at(w->seg, w->map.root_off) + sector / OBD_UPMAP_ROOT_SECTORS;
}

/* One block of a leaf becomes a detail record: the old content, with [first, first + n) replaced. Copy, then one store. */
static int set_detail(struct obd_upmap_writer *w, word_t *leaf_word, uint32_t first, uint32_t n, enum obd_upmap_kind kind,
		      uint64_t moffset)
{
	uint64_t old = obd_load_relaxed(leaf_word);
	uint64_t off;
	int rc = w->arena.alloc(w->arena.arg, OBD_UPMAP_DETAIL_BYTES, &off);
	if (rc)
		return rc;
	word_t *rec = at(w->seg, off);
	bool had = obd_upmap_kind(old) == OBD_UPMAP_DETAIL;
	obd_fence_release(); /* edge: detail-seqlock. A recycled record changes only after the word that named it did */
	for (uint32_t i = 0; i < OBD_UPMAP_LEAF_SECTORS; i++) {
		uint64_t v = had				     ? obd_load_relaxed(at(w->seg, detail_off(old)) + i)
			     : obd_upmap_kind(old) == OBD_UPMAP_DATA ? old + ((uint64_t)i << 2)
								     : old;
		if (i >= first && i < first + n)
			v = obd_upmap_word(kind, kind == OBD_UPMAP_DATA ? moffset + (i - first) : 0);
		obd_store_relaxed(&rec[i], v);
	}
	OBD_TEST_POINT(up_detail);
	obd_store_release(leaf_word, detail_word(off, ++w->generation)); /* edge: upmap-publish */
	if (had)
		w->arena.free(w->arena.arg, detail_off(old), OBD_UPMAP_DETAIL_BYTES);
	return 0;
}

static void set_block(struct obd_upmap_writer *w, word_t *leaf_word, uint64_t value)
{
	uint64_t old = obd_load_relaxed(leaf_word);
	obd_store_release(leaf_word, value); /* edge: upmap-publish */
	if (obd_upmap_kind(old) == OBD_UPMAP_DETAIL)
		w->arena.free(w->arena.arg, detail_off(old), OBD_UPMAP_DETAIL_BYTES);
}

/* [sector, sector + count) lies under one leaf. */
static int set_leaf(struct obd_upmap_writer *w, word_t *leaf, uint64_t sector, uint64_t count, enum obd_upmap_kind kind,
		    uint64_t moffset)
{
	while (count) {
		word_t *lw = leaf + sector % LEAF_SECTORS / OBD_UPMAP_LEAF_SECTORS;
		uint64_t n = rest(sector, OBD_UPMAP_LEAF_SECTORS, count);
		int rc = 0;
		if (n == OBD_UPMAP_LEAF_SECTORS)
			set_block(w, lw, obd_upmap_word(kind, kind == OBD_UPMAP_DATA ? moffset : 0));
		else
			rc = set_detail(w, lw, (uint32_t)(sector % OBD_UPMAP_LEAF_SECTORS), (uint32_t)n, kind, moffset);
		if (rc)
			return rc;
		sector += n;
		count -= n;
		moffset += n;
	}
	return 0;
}

/* A whole range under one word becomes ZERO or NONE without a child, when it has none; a child that is there stays (it is never
 * freed while the device is open) and its words are set. */
static bool whole_word(word_t *word, uint64_t count, uint64_t span, enum obd_upmap_kind kind)
{
	if (count != span || kind == OBD_UPMAP_DATA || obd_upmap_kind(obd_load_relaxed(word)) == OBD_UPMAP_DATA)
		return false;
	obd_store_release(word, obd_upmap_word(kind, 0)); /* edge: upmap-publish */
	return true;
}

static int set_under_root(struct obd_upmap_writer *w, word_t *word, uint64_t sector, uint64_t count, enum obd_upmap_kind kind,
			  uint64_t moffset)
{
	word_t *node = descend(w, word);
	while (node && count) {
		word_t *nw = node + sector % OBD_UPMAP_ROOT_SECTORS / LEAF_SECTORS;
		uint64_t n = rest(sector, LEAF_SECTORS, count);
		if (!whole_word(nw, n, LEAF_SECTORS, kind)) {
			word_t *leaf = descend(w, nw);
			int rc = leaf ? set_leaf(w, leaf, sector, n, kind, moffset) : -ENOSPC;
			if (rc)
				return rc;
		}
		sector += n;
		count -= n;
		moffset += n;
	}
	return node ? 0 : -ENOSPC;
}

int obd_upmap_set(struct obd_upmap_writer *w, uint64_t sector, uint64_t count, enum obd_upmap_kind kind, uint64_t moffset)
{
	assert(sector <= w->map.sectors && count <= w->map.sectors - sector);
	while (count) {
		uint64_t n = rest(sector, OBD_UPMAP_ROOT_SECTORS, count);
		word_t *word = root_word(w, sector);
		/* The device's last GiB may be a part of one: its word may go whole when the range reaches the device's end. */
		bool whole =
			n == OBD_UPMAP_ROOT_SECTORS || (sector % OBD_UPMAP_ROOT_SECTORS == 0 && sector + n == w->map.sectors);
		if (!whole || !whole_word(word, n, n, kind)) {
			int rc = set_under_root(w, word, sector, n, kind, moffset);
			if (rc)
				return rc;
		}
		sector += n;
		count -= n;
		moffset += n;
	}
	return 0;
}

/* The nodes and leaves on the way to the range's sectors, and spare detail records for its two ragged ends, are allocated now.
 * Nodes that are made here say what their parent said, so readers see no change. */
int obd_upmap_reserve(struct obd_upmap_writer *w, uint64_t sector, uint64_t count)
{
	uint64_t end = sector + count;
	uint64_t spare[2];
	for (uint64_t s = sector; s < end; s += rest(s, LEAF_SECTORS, end - s)) {
		word_t *node = descend(w, root_word(w, s));
		if (!node || !descend(w, node + s % OBD_UPMAP_ROOT_SECTORS / LEAF_SECTORS))
			return -ENOSPC;
	}
	for (int i = 0; i < 2; i++)
		if (w->arena.alloc(w->arena.arg, OBD_UPMAP_DETAIL_BYTES, &spare[i])) {
			if (i)
				w->arena.free(w->arena.arg, spare[0], OBD_UPMAP_DETAIL_BYTES);
			return -ENOSPC;
		}
	for (int i = 0; i < 2; i++)
		w->arena.free(w->arena.arg, spare[i], OBD_UPMAP_DETAIL_BYTES);
	return 0;
}

/* --- walking
 * ------------------------------------------------------------------------------------------------------------------ */

typedef void visit_fn(void *arg, uint64_t off, uint64_t bytes);

static int walk_leaf(struct obd_upmap_writer *w, uint64_t off, visit_fn *visit, void *arg)
{
	for (uint32_t i = 0; i < FANOUT; i++) {
		uint64_t v = obd_load_relaxed(at(w->seg, off) + i);
		if (obd_upmap_kind(v) != OBD_UPMAP_DETAIL)
			continue;
		if (!inside(w->seg, detail_off(v), OBD_UPMAP_DETAIL_BYTES))
			return -EPROTO;
		if ((uint32_t)(v >> 34) > w->generation)
			w->generation = (uint32_t)(v >> 34);
		visit(arg, detail_off(v), OBD_UPMAP_DETAIL_BYTES);
	}
	visit(arg, off, OBD_UPMAP_NODE_BYTES);
	return 0;
}

/* Visits the children of n words; level 0: words of the root. The piece itself is visited after its children, so that a visitor
 * may free. */
static int walk(struct obd_upmap_writer *w, uint64_t off, uint64_t n, int level, visit_fn *visit, void *arg)
{
	for (uint64_t i = 0; i < n; i++) {
		uint64_t v = obd_load_relaxed(at(w->seg, off) + i);
		if (obd_upmap_kind(v) == OBD_UPMAP_DETAIL)
			return -EPROTO;
		if (obd_upmap_kind(v) != OBD_UPMAP_DATA)
			continue;
		if (!inside(w->seg, child_off(v), OBD_UPMAP_NODE_BYTES))
			return -EPROTO;
		int rc = level == 0 ? walk(w, child_off(v), FANOUT, 1, visit, arg) : walk_leaf(w, child_off(v), visit, arg);
		if (rc)
			return rc;
	}
	visit(arg, off, n * sizeof(word_t));
	return 0;
}

int obd_upmap_adopt(struct obd_upmap_writer *w, const struct obd_upmap *map, visit_fn *visit, void *arg)
{
	uint64_t bytes;
	w->map = *map;
	if (map->root_off % UNIT || !obd_mul_u64(map->root_words, sizeof(word_t), &bytes) ||
	    !inside(w->seg, map->root_off, bytes) || root_words_of(map->sectors) != map->root_words)
		return -EPROTO;
	return walk(w, map->root_off, map->root_words, 0, visit, arg);
}

static void free_piece(void *arg, uint64_t off, uint64_t bytes)
{
	struct obd_upmap_writer *w = arg;
	w->arena.free(w->arena.arg, off, bytes);
}

/* The leaves of one node, from w->gone_leaves on. False: no more for now. */
static bool free_leaves(struct obd_upmap_writer *w, uint64_t node, uint32_t *leaves)
{
	for (; w->gone_leaves < FANOUT; w->gone_leaves++) {
		uint64_t v = obd_load_relaxed(at(w->seg, node) + w->gone_leaves);
		if (obd_upmap_kind(v) != OBD_UPMAP_DATA)
			continue;
		if (*leaves == 0)
			return false;
		assert(inside(w->seg, child_off(v), OBD_UPMAP_NODE_BYTES));
		int rc = walk_leaf(w, child_off(v), free_piece, w);
		assert(rc == 0);
		--*leaves;
	}
	w->gone_leaves = 0;
	return true;
}

/* A node goes after its leaves, the root at the end: what is freed is not looked at again. */
bool obd_upmap_destroy_some(struct obd_upmap_writer *w, uint32_t leaves)
{
	for (; w->gone < w->map.root_words; w->gone++) {
		uint64_t v = obd_load_relaxed(at(w->seg, w->map.root_off) + w->gone);
		if (obd_upmap_kind(v) != OBD_UPMAP_DATA)
			continue;
		assert(inside(w->seg, child_off(v), OBD_UPMAP_NODE_BYTES));
		if (!free_leaves(w, child_off(v), &leaves))
			return false;
		free_piece(w, child_off(v), OBD_UPMAP_NODE_BYTES);
	}
	w->gone = 0;
	free_piece(w, w->map.root_off, w->map.root_words * sizeof(word_t));
	return true;
}

void obd_upmap_destroy(struct obd_upmap_writer *w)
{
	while (!obd_upmap_destroy_some(w, UINT32_MAX))
		;
}
