/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Blocks in the order in which they were first named, each once. Private memory. */
#ifndef OBD_INDEXER_KEYS_H
#define OBD_INDEXER_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* All zero: empty. */
struct obd_ix_keys {
	uint64_t *key;
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

/* True: it is there now; *fresh says whether it was not before. False: `most` keys are there already, or no memory. */
bool obd_ix_keys_add(struct obd_ix_keys *k, uint64_t key, size_t most, bool *fresh);
void obd_ix_keys_free(struct obd_ix_keys *k);

#endif
