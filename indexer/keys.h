/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Blocks in the order in which they were first named, each once, and what is wanted of them. Private memory. */
#ifndef OBD_INDEXER_KEYS_H
#define OBD_INDEXER_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/util.h"
#include "common/format/trace.h"
#include "shmcache/layout.h"

/* All zero: empty. */
struct obd_ix_keys {
	uint64_t *key;
	struct obd_part *part; /* by place: all that was named of it */
	size_t count;
	size_t room;
	uint32_t *slot; /* hash of a key -> its place + 1 */
	size_t nslots;	/* a power of two, at least twice count */
};

/* A block of an image: number of the layer, and of the block in it. */
static inline uint64_t obd_ix_key(uint32_t layer, uint64_t block)
{
	return (uint64_t)layer << 31 | block;
}

static inline uint32_t obd_ix_key_layer(uint64_t key)
{
	return (uint32_t)(key >> 31);
}

static inline uint32_t obd_ix_key_block(uint64_t key)
{
	return (uint32_t)(key & 0x7fffffff);
}

/* What a trace's record wants of the i-th of the n blocks that it touches (obd_trace_blocks). */
static inline struct obd_part obd_ix_trace_part(const struct obd_trace_record *r, uint64_t i, uint64_t n, uint32_t block_bytes)
{
	uint64_t last = (r->offset / block_bytes + n - 1) * block_bytes, end;
	if (!obd_add_u64(r->offset, r->count, &end) || end > last + block_bytes)
		end = last + block_bytes;
	return obd_part_of((uint32_t)(r->offset % block_bytes), (uint32_t)(end - last), (uint32_t)i, (uint32_t)n, block_bytes);
}

enum obd_ix_keys_result {
	OBD_IX_KEYS_FULL = 0, /* `most` keys are there already, or no memory */
	OBD_IX_KEYS_SAME,     /* all of it was named before */
	OBD_IX_KEYS_GREW,     /* some of the block was, now more is */
	OBD_IX_KEYS_FRESH,
};

/* Names part of a block; *at: its place, unless FULL. */
enum obd_ix_keys_result obd_ix_keys_add(struct obd_ix_keys *k, uint64_t key, struct obd_part part, uint32_t block_bytes,
					size_t most, size_t *at);
void obd_ix_keys_free(struct obd_ix_keys *k);

#endif
