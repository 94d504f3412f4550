/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The map of a writable device: what its upper layer holds, sector by sector (doc/architecture.md 4.9).
 *
 *   root, one word per GiB -> node, one word per 2 MiB -> leaf, one word per 4 KiB -> detail, one word per sector
 *
 * A word's low two bits say what it is:
 *   NONE    the layers below decide          ZERO   reads as zeros, whatever lies below
 *   DATA    in root and node: where the next level stands (offset in region index, in 64-byte units); in leaf and detail: the
 *           sector of the upper's data file where this piece's first sector stands
 *   DETAIL  in leaf: where eight sector words stand (bits 2-33, 64-byte units) and a generation (bits 34-63)
 *
 * Lies in region "index", written by the indexer alone, one word at a time, each with a release store; readers take no lock.
 * Nodes and leaves are never freed while the device is open. A detail record is never changed in place: a new one is written
 * and the leaf's word is replaced; the old one may be used again, with another generation, so a reader looks at the leaf's word
 * once more after it has read a record (edge detail-seqlock). Readers trust no word: every offset is checked against the
 * region.
 *
 * If the indexer dies between two stores of one request, the map holds part of a request that was not acknowledged, and its
 * next incarnation serves the request again.
 */
#ifndef OBD_SHMCACHE_UPMAP_H
#define OBD_SHMCACHE_UPMAP_H

#include <stdint.h>

#include "shmcache/segment.h"

enum obd_upmap_kind { OBD_UPMAP_NONE = 0, OBD_UPMAP_ZERO, OBD_UPMAP_DATA, OBD_UPMAP_DETAIL };

#define OBD_UPMAP_FANOUT 512u /* words of a node or leaf */
#define OBD_UPMAP_NODE_BYTES 4096u
#define OBD_UPMAP_LEAF_SECTORS 8u /* sectors under one word of a leaf: 4 KiB */
#define OBD_UPMAP_DETAIL_BYTES 64u
#define OBD_UPMAP_ROOT_SECTORS (UINT64_C(1) << 21) /* sectors under one word of the root: 1 GiB */

static inline uint64_t obd_upmap_word(enum obd_upmap_kind kind, uint64_t value)
{
	return value << 2 | (uint64_t)kind;
}

static inline enum obd_upmap_kind obd_upmap_kind(uint64_t word)
{
	return (enum obd_upmap_kind)(word & 3);
}

/* Where a device's map is, as the catalog says: a checked copy. */
struct obd_upmap {
	uint64_t root_off;
	uint64_t root_words;
	uint64_t sectors; /* of the device */
};

/* Copies the map of upper (slot, uid) out of the catalog. 0, -ESTALE or -EPROTO. Does not block. */
int obd_upmap_open(const struct obd_segment *seg, uint32_t slot, uint32_t uid, struct obd_upmap *out);

/* What is at `sector`, for how many sectors it goes on alike (1 … max; found at small cost, so neighbours that are alike may
 * come as several runs), and for DATA the sector of the data file. Never blocks, never reads outside of the region. Any word
 * that cannot be makes it NONE with *bad set. */
enum obd_upmap_kind obd_upmap_lookup(const struct obd_segment *seg, const struct obd_upmap *map, uint64_t sector, uint64_t max,
				     uint64_t *run, uint64_t *moffset, bool *bad);

/* --- the indexer's side ----------------------------------------------------------------------------------------------- */

/* Gives and takes pieces of region index, 64-byte aligned: sizes are OBD_UPMAP_NODE_BYTES, OBD_UPMAP_DETAIL_BYTES or the
 * root's. */
struct obd_upmap_arena {
	int (*alloc)(void *arg, uint64_t bytes, uint64_t *off); /* 0 or -ENOSPC; content is arbitrary */
	void (*free)(void *arg, uint64_t off, uint64_t bytes);
	void *arg;
};

struct obd_upmap_writer {
	struct obd_segment *seg; /* index mapped writable */
	struct obd_upmap map;
	struct obd_upmap_arena arena;
	uint32_t generation; /* of detail records */
	uint64_t gone;	     /* obd_upmap_destroy_some: words of the root that are done */
	uint32_t gone_leaves;
};

/* Makes an empty map (its root). 0 or -ENOSPC. */
int obd_upmap_create(struct obd_upmap_writer *w, uint64_t sectors);

/* Adopts a map that a predecessor left; calls visit for every piece of the arena it uses (the root first), so that the arena's
 * own map can be rebuilt. -EPROTO when a word leads outside of the region (then it is to be built anew from the files). */
int obd_upmap_adopt(struct obd_upmap_writer *w, const struct obd_upmap *map,
		    void (*visit)(void *arg, uint64_t off, uint64_t bytes), void *arg);

/* Allocates all that obd_upmap_set of the same range may need, so that it cannot fail. 0 or -ENOSPC (nothing changed that
 * readers see). */
int obd_upmap_reserve(struct obd_upmap_writer *w, uint64_t sector, uint64_t count);

/* From now on `count` sectors from `sector` on are ZERO, or DATA at moffset, moffset + 1, …. -ENOSPC only without a reserve. */
int obd_upmap_set(struct obd_upmap_writer *w, uint64_t sector, uint64_t count, enum obd_upmap_kind kind, uint64_t moffset);

/* Frees every piece. Only when no reader has the device open any more. The second frees at most so many leaves with all that
 * hangs on them, and is called again until it returns true; nothing else may be done with the map meanwhile. */
void obd_upmap_destroy(struct obd_upmap_writer *w);
bool obd_upmap_destroy_some(struct obd_upmap_writer *w, uint32_t leaves);

#endif
