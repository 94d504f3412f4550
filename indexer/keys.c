/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "indexer/keys.h"

#include <stdlib.h>

#include "shmcache/lookup.h"

#define FIRST_ROOM 512u

static size_t place(const struct obd_ix_keys *k, uint64_t key)
{
	size_t h = obd_key_hash(key) & (k->nslots - 1);
	while (k->slot[h] && k->key[k->slot[h] - 1] != key)
		h = (h + 1) & (k->nslots - 1);
	return h;
}

static bool grow(struct obd_ix_keys *k)
{
	size_t room = k->room ? 2 * k->room : FIRST_ROOM;
	uint64_t *key = realloc(k->key, room * sizeof *key);
	if (!key)
		return false;
	k->key = key;
	struct obd_part *part = realloc(k->part, room * sizeof *part);
	if (!part)
		return false;
	k->part = part;
	uint32_t *slot = calloc(2 * room, sizeof *slot);
	if (!slot)
		return false;
	free(k->slot);
	k->slot = slot;
	k->room = room;
	k->nslots = 2 * room;
	for (size_t i = 0; i < k->count; i++)
		slot[place(k, key[i])] = (uint32_t)i + 1;
	return true;
}

enum obd_ix_keys_result obd_ix_keys_add(struct obd_ix_keys *k, uint64_t key, struct obd_part part, uint32_t block_bytes,
					size_t most, size_t *at)
{
	uint32_t slot = k->count ? k->slot[place(k, key)] : 0;
	if (slot) {
		struct obd_part *old = &k->part[ *at = slot - 1];
		if (obd_part_covers(*old, part))
			return OBD_IX_KEYS_SAME;
		*old = obd_part_hull(*old, part, block_bytes);
		return OBD_IX_KEYS_GREW;
	}
	if (k->count >= most || k->count >= UINT32_MAX / 4 || (k->count == k->room && !grow(k)))
		return OBD_IX_KEYS_FULL;
	*at = k->count;
	k->part[k->count] = part;
	k->key[k->count++] = key;
	k->slot[place(k, key)] = (uint32_t)k->count;
	return OBD_IX_KEYS_FRESH;
}

void obd_ix_keys_free(struct obd_ix_keys *k)
{
	free(k->key);
	free(k->part);
	free(k->slot);
	*k = (struct obd_ix_keys){0};
}
