/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Taking over the catalog of an earlier incarnation.
 *
 *     layers   not READY -> FREE            READY -> kept, extent reserved
 *     images   READY -> kept, extent reserved, its layers held
 *     wants    WANTED -> kept; the opens that want them take them again
 *     uppers   READY -> kept, the map's pieces reserved; their files are opened when their opens are seen
 *
 * The catalog is this role's own memory. A kill leaves every entry FREE, half built or whole, because words are stored last
 * when an entry grows and first when it goes; anything else - extents that overlap, an image over a layer that is not there -
 * was done by a defect, and this process aborts rather than publish more on top of it.
 */
#include "indexer/internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "common/base/testpoint.h"

static void must(bool good, const char *what, uint32_t slot)
{
	if (good)
		return;
	obd_error("catalog: %s %u contradicts the rest of the table", what, slot);
	abort();
}

static int reserve(struct obd_indexer *ix, uint64_t off, uint64_t bytes, const char *what, uint32_t slot)
{
	int rc = bytes ? obd_arena_reserve(&ix->arena, off, bytes) : 0;
	must(rc != -EINVAL, what, slot);
	return rc;
}

static bool text_ends(const char *text, size_t room)
{
	return strnlen(text, room) < room;
}

static int adopt_origin(struct obd_ix_layer *l, const struct obd_layer *e)
{
	struct obd_repo_url repo;
	struct obd_err err;
	if (e->local)
		return 0;
	must(obd_repo_url_parse(e->url, &repo, &err) == 0, "layer", l->slot);
	l->origin = strdup(repo.origin);
	return l->origin ? 0 : -ENOMEM;
}

static int adopt_layer(struct obd_indexer *ix, uint32_t slot)
{
	struct obd_layer *e = &ix->cat->layer[slot];
	struct obd_ix_layer *l = &ix->layer[slot];
	uint64_t word = obd_load_relaxed(&e->word);
	uint64_t uid = obd_word_seq(word);
	if (obd_word_state(word) != OBD_LAYER_READY) {
		if (obd_word_state(word) != OBD_LAYER_FREE)
			obd_store_release(&e->word, obd_word(uid, OBD_LAYER_FREE));
		return 0;
	}
	must(uid && uid <= obd_load_relaxed(&ix->cat->next_uid), "layer", slot);
	must(text_ends(e->url, sizeof e->url) && text_ends(e->path, sizeof e->path) && text_ends(e->host, sizeof e->host) &&
		     text_ends(e->digest, sizeof e->digest),
	     "layer", slot);
	l->uid = (uint32_t)uid;
	l->shared = true;
	l->arena_off = e->arena_off;
	l->arena_bytes = e->arena_bytes;
	int rc = reserve(ix, e->arena_off, e->arena_bytes, "layer", slot);
	return rc ? rc : adopt_origin(l, e);
}

static int adopt_image(struct obd_indexer *ix, uint32_t slot)
{
	struct obd_image *e = &ix->cat->image[slot];
	struct obd_ix_image *im = &ix->image[slot];
	uint64_t word = obd_load_relaxed(&e->word);
	uint64_t uid = obd_word_seq(word);
	uint64_t bytes;
	if (obd_word_state(word) != OBD_IMAGE_READY)
		return 0;
	must(uid && uid <= obd_load_relaxed(&ix->cat->next_uid), "image", slot);
	must(e->nlayers <= OBD_IMAGE_LAYERS, "image", slot);
	must(obd_mul_u64(e->index_count, sizeof(struct obd_lsmt_seg), &bytes), "image", slot);
	int rc = reserve(ix, e->index_off, bytes, "image", slot);
	if (rc)
		return rc;
	for (uint32_t i = 0; i < e->nlayers; i++) {
		uint32_t s = e->layer_slot[i];
		must(obd_ix_layer_by_id(ix, s, e->layer_uid[i]) != NULL, "image", slot);
		obd_ix_layer_hold(&ix->layer[s]);
	}
	im->uid = (uint32_t)uid;
	obd_store_relaxed(&e->refs, 0);
	return 0;
}

static void adopt_want(struct obd_indexer *ix, uint32_t slot)
{
	const struct obd_want *w = &ix->cat->want[slot];
	uint64_t word = obd_load_relaxed(&w->word);
	if (obd_word_state(word) != OBD_WANT_WANTED)
		return;
	must(obd_word_seq(word) && obd_word_seq(word) <= obd_load_relaxed(&ix->cat->next_uid), "want", slot);
	must(text_ends(w->dir, sizeof w->dir), "want", slot);
	ix->want[slot].uid = (uint32_t)obd_word_seq(word);
}

int obd_ix_adopt(struct obd_indexer *ix)
{
	int rc = 0;
	for (uint32_t i = 0; i < OBD_LAYER_SLOTS && !rc; i++)
		rc = adopt_layer(ix, i);
	OBD_TEST_POINT(adopt_layers);
	for (uint32_t i = 0; i < OBD_IMAGE_SLOTS && !rc; i++)
		rc = adopt_image(ix, i);
	for (uint32_t i = 0; i < OBD_UPPER_SLOTS && !rc; i++) {
		rc = obd_ix_upper_adopt(ix, i);
		must(rc != -EPROTO, "upper", i);
	}
	for (uint32_t i = 0; i < OBD_WANT_SLOTS; i++)
		adopt_want(ix, i);
	obd_store_relaxed(&ix->cat->arena_used_bytes, ix->arena.used_bytes);
	return rc;
}
