/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where a key's block may be: two buckets of eight hints. Readers and cached share this file, so that they agree.
 * A reader believes a hint nothing; it checks the frame's fill word (doc/architecture.md 4.4).
 */
#ifndef OBD_SHMCACHE_LOOKUP_H
#define OBD_SHMCACHE_LOOKUP_H

#include "shmcache/segment.h"

#define OBD_NO_FRAME UINT32_MAX
#define OBD_BUCKET_MARK (UINT64_C(1) << 32) /* readahead goes on when a reader comes here */

static inline uint64_t obd_key_hash(uint64_t key)
{
	key *= UINT64_C(0x9e3779b97f4a7c15);
	key ^= key >> 29;
	key *= UINT64_C(0xbf58476d1ce4e5b9);
	return key ^ key >> 32;
}

/* The tag is the hash's top 31 bits with the lowest of them set, so that an entry is never 0. */
static inline uint64_t obd_bucket_tag(uint64_t hash)
{
	return (hash >> 33 | 1) << 33;
}

static inline uint32_t obd_bucket_first(const struct obd_geometry *geo, uint64_t hash)
{
	return (uint32_t)hash & (geo->nbuckets - 1);
}

static inline uint32_t obd_bucket_second(const struct obd_geometry *geo, uint64_t hash)
{
	return (uint32_t)((hash >> 20) * UINT64_C(0x9e3779b1) >> 12) & (geo->nbuckets - 1);
}

/* The frame that holds key, VALID or, if parts are welcome, PART, with its fill word in *word; OBD_NO_FRAME if none does.
 * *mark: the entry carries a readahead mark. */
static inline uint32_t obd_lookup(const struct obd_segment *seg, uint64_t key, bool parts, uint64_t *word, bool *mark)
{
	uint64_t hash = obd_key_hash(key);
	uint64_t tag = obd_bucket_tag(hash);
	uint32_t bucket = obd_bucket_first(&seg->geo, hash);
	for (int b = 0; b < 2; b++) {
		const struct obd_bucket *bk = &seg->bucket[bucket];
		for (unsigned int i = 0; i < OBD_BUCKET_WAYS; i++) {
			uint64_t e = obd_load_relaxed(&bk->way[i]); /* a hint */
			if ((e & ~UINT64_C(0x1ffffffff)) != tag)
				continue;
			uint32_t f = (uint32_t)e - 1;
			if (f >= seg->geo.nframes)
				continue;
			const struct obd_fill *fill = &seg->fills[f];
			uint64_t w = obd_load_acquire(&fill->word); /* edge: fill-publish */
			unsigned int state = obd_word_state(w);
			if ((state != OBD_FILL_VALID && (state != OBD_FILL_PART || !parts)) ||
			    obd_load_relaxed(&fill->key) != key)
				continue;
			*word = w;
			*mark = (e & OBD_BUCKET_MARK) != 0;
			return f;
		}
		bucket = obd_bucket_second(&seg->geo, hash);
	}
	return OBD_NO_FRAME;
}

/* Whole blocks only. */
static inline uint32_t obd_lookup_valid(const struct obd_segment *seg, uint64_t key, uint64_t *word, bool *mark)
{
	return obd_lookup(seg, key, false, word, mark);
}

/* After a copy: does the frame still hold what obd_lookup found? */
static inline bool obd_lookup_still(const struct obd_segment *seg, uint32_t f, uint64_t word)
{
	obd_fence_acquire(); /* edge: fill-begin. The copy's loads come before the second look at the word */
	return obd_load_relaxed(&seg->fills[f].word) == word;
}

#endif
