/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Images: one merged index for each distinct list of layers, in the arena, shared by all opens of that list.
 *
 * An entry is written while it is FREE and published by its word (release; edge: image-publish); it is freed by its word first.
 * It holds its layers, so they are freed after it. Entries that no open holds are kept until their room is needed: an image
 * that is closed and opened again finds its index and its layers' blocks.
 * If this process dies in the middle: the entry is FREE or READY, never between; bytes in the arena that no entry names are
 * free for the next one.
 */
#include "common/base/testpoint.h"
#include "indexer/internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/format/merge.h"

struct obd_image *obd_ix_image_entry(const struct obd_indexer *ix, const struct obd_ix_image *im)
{
	return &ix->cat->image[im->slot];
}

struct obd_ix_image *obd_ix_image_by_id(struct obd_indexer *ix, uint32_t slot, uint32_t uid)
{
	if (slot >= OBD_IMAGE_SLOTS || !uid || ix->image[slot].uid != uid)
		return NULL;
	return &ix->image[slot];
}

/* --- room --------------------------------------------------------------------------------------------------------------- */

static struct obd_ix_image *image_oldest(struct obd_indexer *ix)
{
	struct obd_ix_image *oldest = NULL;
	for (uint32_t i = 0; i < OBD_IMAGE_SLOTS; i++) {
		struct obd_ix_image *im = &ix->image[i];
		if (im->uid && !im->refs && (!oldest || im->used_at < oldest->used_at))
			oldest = im;
	}
	return oldest;
}

bool obd_ix_drop_oldest(struct obd_indexer *ix)
{
	struct obd_ix_image *im = image_oldest(ix);
	struct obd_ix_layer *l = obd_ix_layer_oldest(ix);
	if (im && (!l || im->used_at <= l->used_at))
		obd_ix_image_drop(ix, im);
	else if (l)
		obd_ix_layer_drop(l);
	return im || l;
}

static void note_used(struct obd_indexer *ix)
{
	obd_store_relaxed(&ix->cat->arena_used_bytes, ix->arena.used_bytes);
}

int obd_ix_room(struct obd_indexer *ix, uint64_t bytes, uint64_t *off, struct obd_err *err)
{
	int rc = bytes <= ix->arena.bytes ? obd_arena_alloc(&ix->arena, bytes, off) : -ENOSPC;
	while (rc == -ENOSPC && bytes <= ix->arena.bytes && obd_ix_drop_oldest(ix))
		rc = obd_arena_alloc(&ix->arena, bytes, off);
	note_used(ix);
	if (rc == -ENOSPC)
		obd_err_set(err, ENOSPC, "index arena is full (sharedCache.indexMB = %llu)",
			    (unsigned long long)(ix->seg->geo.index_bytes >> 20));
	else if (rc)
		obd_err_set(err, -rc, "out of memory");
	return rc;
}

void obd_ix_room_release(struct obd_indexer *ix, uint64_t off)
{
	obd_arena_release(&ix->arena, off);
	note_used(ix);
}

/* --- entries ------------------------------------------------------------------------------------------------------------ */

void obd_ix_image_hold(struct obd_indexer *ix, struct obd_ix_image *im)
{
	im->refs++;
	im->used_at = ++ix->now_used;
	obd_store_relaxed(&obd_ix_image_entry(ix, im)->refs, im->refs);
}

void obd_ix_image_put(struct obd_indexer *ix, struct obd_ix_image *im)
{
	assert(im->refs);
	im->refs--;
	im->used_at = ++ix->now_used;
	obd_store_relaxed(&obd_ix_image_entry(ix, im)->refs, im->refs);
}

void obd_ix_image_drop(struct obd_indexer *ix, struct obd_ix_image *im)
{
	struct obd_image *e = obd_ix_image_entry(ix, im);
	assert(im->uid && !im->refs);
	obd_store_release(&e->word, obd_word(im->uid, OBD_IMAGE_FREE));
	obd_fence_release(); /* edge: image-seqlock. The entry and the index change only after the word did */
	OBD_TEST_POINT(image_freed);
	if (e->index_count)
		obd_ix_room_release(ix, e->index_off);
	for (uint32_t i = 0; i < e->nlayers; i++) {
		struct obd_ix_layer *l = &ix->layer[e->layer_slot[i]];
		assert(l->uid == e->layer_uid[i]);
		l->used_at = obd_max_u64(l->used_at, im->used_at);
		obd_ix_layer_put(l);
	}
	im->uid = 0;
}

static bool has_layers(const struct obd_image *e, const struct obd_ix_wait *lower, uint32_t n)
{
	if (e->nlayers != n)
		return false;
	for (uint32_t i = 0; i < n; i++)
		if (e->layer_uid[i] != lower[i].layer->uid)
			return false;
	return true;
}

struct obd_ix_image *obd_ix_image_find(struct obd_indexer *ix, const struct obd_ix_wait *lower, uint32_t n)
{
	for (uint32_t i = 0; i < OBD_IMAGE_SLOTS; i++)
		if (ix->image[i].uid && has_layers(&ix->cat->image[i], lower, n))
			return &ix->image[i];
	return NULL;
}

static struct obd_ix_image *take_slot(struct obd_indexer *ix)
{
	for (uint32_t i = 0; i < OBD_IMAGE_SLOTS; i++)
		if (!ix->image[i].uid)
			return &ix->image[i];
	struct obd_ix_image *im = image_oldest(ix);
	if (im)
		obd_ix_image_drop(ix, im);
	return im;
}

static int merge(const struct obd_ix_wait *lower, uint32_t n, struct obd_lsmt_seg **out, size_t *count)
{
	struct obd_lsmt_layer_index in[OBD_IMAGE_LAYERS];
	assert(n <= OBD_IMAGE_LAYERS);
	if (!n)
		return 0; /* a writable device over nothing */
	for (uint32_t i = 0; i < n; i++)
		in[i] = (struct obd_lsmt_layer_index){.seg = lower[i].layer->seg, .n = lower[i].layer->nseg};
	return obd_lsmt_merge(in, n, out, count);
}

static void publish(struct obd_indexer *ix, struct obd_ix_image *im, const struct obd_ix_wait *lower, uint32_t n, uint64_t off,
		    uint64_t count)
{
	struct obd_image *e = obd_ix_image_entry(ix, im);
	e->virtual_bytes = n ? obd_ix_layer_entry(lower[n - 1].layer)->virtual_bytes : 0;
	e->index_off = off;
	e->index_count = count;
	e->nlayers = n;
	obd_store_relaxed(&e->refs, 0);
	for (uint32_t i = 0; i < n; i++) {
		e->layer_slot[i] = lower[i].layer->slot;
		e->layer_uid[i] = lower[i].layer->uid;
		obd_ix_layer_hold(lower[i].layer);
	}
	OBD_TEST_POINT(image_unpublished);
	obd_store_release(&e->word, obd_word(im->uid, OBD_IMAGE_READY)); /* edge: image-publish */
	OBD_TEST_POINT(image_published);
}

struct obd_ix_image *obd_ix_image_build(struct obd_indexer *ix, const struct obd_ix_wait *lower, uint32_t n, int *code,
					struct obd_err *err)
{
	struct obd_lsmt_seg *seg = NULL;
	struct obd_ix_image *im = NULL;
	size_t count = 0;
	uint64_t off = 0;
	int rc = merge(lower, n, &seg, &count);
	if (rc) {
		obd_err_set(err, -rc, "merging the layers' indexes: %s", strerror(-rc));
		goto out;
	}
	im = take_slot(ix);
	if (!im) {
		rc = obd_err_set(err, ENOSPC, "the image table is full (%u images in use)", OBD_IMAGE_SLOTS);
		goto out;
	}
	if (count)
		rc = obd_ix_room(ix, count * sizeof(*seg), &off, err);
	if (rc)
		goto out;
	uint32_t uid = obd_ix_new_uid(ix);
	if (!uid) {
		if (count)
			obd_ix_room_release(ix, off);
		rc = obd_err_set(err, ENOSPC, "the segment has no more image numbers: restart the service");
		goto out;
	}
	if (count)
		memcpy(ix->seg->index + off, seg, count * sizeof(*seg));
	im->uid = uid;
	im->used_at = ++ix->now_used;
	publish(ix, im, lower, n, off, count);
out:
	free(seg);
	*code = rc;
	return rc ? NULL : im;
}
