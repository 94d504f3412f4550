/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "shmcache/download.h"

#include <errno.h>
#include <string.h>

#include "common/base/util.h"

#define BLOCK_BYTES_MIN UINT64_C(4096)
#define BLOCK_BYTES_MAX (UINT64_C(64) << 20)

uint32_t obd_want_uid(const struct obd_segment *seg, uint32_t slot)
{
	uint64_t word = obd_load_relaxed(&seg->catalog->want[slot].word); /* whoever goes on copies the want */
	return obd_word_state(word) == OBD_WANT_WANTED ? (uint32_t)obd_word_seq(word) : 0;
}

int obd_want_copy(const struct obd_segment *seg, uint32_t slot, uint32_t uid, struct obd_want_view *out)
{
	if (slot >= OBD_WANT_SLOTS || uid == 0)
		return -ESTALE;
	const struct obd_want *w = &seg->catalog->want[slot];
	uint64_t word = obd_load_acquire(&w->word); /* edge: want-publish */
	if (word != obd_word(uid, OBD_WANT_WANTED))
		return -ESTALE;
	*out = (struct obd_want_view){.slot = slot,
				      .uid = uid,
				      .layer_slot = w->layer_slot,
				      .layer_uid = w->layer_uid,
				      .due_ns = w->due_ns,
				      .block_bytes = w->block_bytes,
				      .max_mbps = w->max_mbps,
				      .try_cnt = w->try_cnt};
	memcpy(out->dir, w->dir, sizeof out->dir);
	obd_fence_acquire(); /* edge: want-seqlock */
	if (obd_load_relaxed(&w->word) != word)
		return -ESTALE;
	out->dir[sizeof out->dir - 1] = '\0';
	if (out->dir[0] != '/' || out->layer_slot >= OBD_LAYER_SLOTS || out->layer_uid == 0 || out->try_cnt == 0 ||
	    out->block_bytes < BLOCK_BYTES_MIN || out->block_bytes > BLOCK_BYTES_MAX)
		return -EPROTO;
	return 0;
}

bool obd_local_now(const struct obd_segment *seg, uint32_t layer_slot, uint32_t layer_uid, struct obd_local_now *out)
{
	struct obd_want_view want;
	uint32_t slot = layer_slot < OBD_LAYER_SLOTS ? obd_load_relaxed(&seg->table->local[layer_slot]) : 0; /* a hint */
	if (slot == 0 || slot > OBD_WANT_SLOTS)
		return false;
	const struct obd_down *d = &seg->table->down[slot - 1];
	uint64_t word = obd_load_acquire(&d->word); /* edge: down-local */
	if (obd_word_state(word) != OBD_DOWN_LOCAL || d->layer_slot != layer_slot || d->layer_uid != layer_uid)
		return false;
	*out = (struct obd_local_now){.dev = d->dev, .ino = d->ino, .mtime_ns = d->mtime_ns, .bytes = d->bytes};
	obd_fence_acquire();
	if (obd_load_relaxed(&d->word) != word || obd_want_copy(seg, slot - 1, (uint32_t)obd_word_seq(word), &want) ||
	    want.layer_slot != layer_slot || want.layer_uid != layer_uid)
		return false;
	memcpy(out->dir, want.dir, sizeof out->dir);
	return true;
}
