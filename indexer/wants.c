/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Layers that are to be downloaded in the background (doc/architecture.md 4.10).
 *
 *     an open that is READY --take--> want (layer, dir), one reference --put--> the last one: FREE
 *
 * A want says no more than that somebody has the layer open who would like to have it in a directory. When and how is cached's
 * business, which reads the rows.
 * If this process dies: rows stay. The next one reads the configurations of the opens it adopts again and gives each want its
 * references back; a want that has none when all clients are known goes.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/testpoint.h"
#include "indexer/internal.h"

static struct obd_want *entry(const struct obd_indexer *ix, uint32_t slot)
{
	return &ix->cat->want[slot];
}

static void drop(struct obd_indexer *ix, uint32_t slot)
{
	obd_store_release(&entry(ix, slot)->word, obd_word(ix->want[slot].uid, OBD_WANT_FREE));
	obd_fence_release(); /* edge: want-seqlock. The entry changes only after its word did */
	OBD_TEST_POINT(want_freed);
	ix->want[slot] = (struct obd_ix_want){0};
}

static uint64_t random_ns(uint32_t up_to_sec)
{
	uint64_t r = 0;
	if (up_to_sec == 0 || getrandom(&r, sizeof r, GRND_NONBLOCK) != (ssize_t)sizeof r)
		return 0;
	return r % (up_to_sec * OBD_SECOND_NS);
}

static void publish(struct obd_indexer *ix, uint32_t slot, const struct obd_ix_layer *l, const char *dir,
		    const struct obd_download *d, bool own_rate)
{
	struct obd_want *w = entry(ix, slot);
	w->layer_slot = l->slot;
	w->layer_uid = l->uid;
	w->due_ns = obd_clock_ns() + d->delay_sec * OBD_SECOND_NS + random_ns(d->delay_extra_sec);
	w->block_bytes = d->block_size_bytes;
	w->max_mbps = own_rate ? d->max_mbps : 0;
	w->try_cnt = d->try_cnt;
	memset(w->dir, 0, sizeof w->dir);
	memcpy(w->dir, dir, strlen(dir));
	OBD_TEST_POINT(want_unpublished);
	obd_store_release(&w->word, obd_word(ix->want[slot].uid, OBD_WANT_WANTED)); /* edge: want-publish */
}

/* The want of that layer and directory, or OBD_WANT_SLOTS; *vacant: a free slot, or OBD_WANT_SLOTS. */
static uint32_t find(const struct obd_indexer *ix, const struct obd_ix_layer *l, const char *dir, uint32_t *vacant)
{
	*vacant = OBD_WANT_SLOTS;
	for (uint32_t i = 0; i < OBD_WANT_SLOTS; i++) {
		const struct obd_want *w = entry(ix, i);
		if (!ix->want[i].uid && *vacant == OBD_WANT_SLOTS)
			*vacant = i;
		if (ix->want[i].uid && w->layer_slot == l->slot && w->layer_uid == l->uid && strcmp(w->dir, dir) == 0)
			return i;
	}
	return OBD_WANT_SLOTS;
}

/* 0 with *slot, or a positive errno. */
static int want(struct obd_ix_open *o, const struct obd_ix_layer *l, const char *dir, const struct obd_download *d,
		bool own_rate, uint32_t *slot)
{
	struct obd_indexer *ix = o->ix;
	uint32_t vacant;
	if (dir[0] != '/' || strlen(dir) >= OBD_DIR_BYTES)
		return dir[0] == '/' ? ENAMETOOLONG : EINVAL;
	*slot = find(ix, l, dir, &vacant);
	if (*slot == OBD_WANT_SLOTS) {
		uint32_t uid = vacant < OBD_WANT_SLOTS ? obd_ix_new_uid(ix) : 0;
		if (!uid)
			return ENOSPC;
		*slot = vacant;
		ix->want[vacant].uid = uid;
		publish(ix, vacant, l, dir, d, own_rate);
	}
	ix->want[*slot].refs++;
	return 0;
}

static void want_lower(struct obd_ix_open *o, const struct obd_image_config *cfg, uint32_t number, const struct obd_download *d)
{
	const struct obd_image_lower *lower = &cfg->lowers[number];
	const struct obd_image *im = obd_ix_image_entry(o->ix, o->image);
	const struct obd_ix_layer *l = obd_ix_layer_by_id(o->ix, im->layer_slot[number], im->layer_uid[number]);
	uint32_t slot;
	if (!l || !lower->dir || !lower->digest || obd_ix_layer_entry(l)->local)
		return;
	int err = want(o, l, lower->dir, d, cfg->download_set & OBD_DOWNLOAD_MAX_MBPS, &slot);
	if (err == 0) {
		o->wants[o->nwants++] = (uint16_t)slot;
		return;
	}
	obd_count(&o->ix->cat->proc, download_errors, 1);
	obd_warn("%s: layer %u will not be downloaded to %.200s: %s", o->path, number, lower->dir, strerror(err));
}

void obd_ix_wants_take(struct obd_ix_open *o, const struct obd_image_config *cfg)
{
	struct obd_download d;
	uint32_t n = cfg->lower_count - (cfg->acceleration_layer && cfg->lower_count); /* which is not served */
	if (!o->ix->config || !o->image || o->wants || n != obd_ix_image_entry(o->ix, o->image)->nlayers)
		return;
	obd_image_download(cfg, o->ix->config, &d);
	if (!d.enable || n == 0 || o->record) /* what is recorded is the start as the registry serves it */
		return;
	o->wants = calloc(n, sizeof o->wants[0]);
	if (!o->wants) {
		obd_warn("%s: out of memory: no background download", o->path);
		return;
	}
	for (uint32_t i = 0; i < n; i++)
		want_lower(o, cfg, i, &d);
}

void obd_ix_wants_adopt(struct obd_ix_open *o)
{
	struct obd_image_config *cfg = NULL;
	struct obd_err err = {{0}};
	if (!o->ix->config || !o->image)
		return;
	if (obd_image_config_load(o->path, &cfg, &err) == 0)
		obd_ix_wants_take(o, cfg);
	else
		obd_warn("%s; its layers are not downloaded any more", err.msg);
	obd_image_config_free(cfg);
}

void obd_ix_wants_put(struct obd_ix_open *o)
{
	for (uint32_t i = 0; i < o->nwants; i++) {
		struct obd_ix_want *w = &o->ix->want[o->wants[i]];
		assert(w->refs);
		if (--w->refs == 0)
			drop(o->ix, o->wants[i]);
	}
	free(o->wants);
	o->wants = NULL;
	o->nwants = 0;
}

void obd_ix_wants_sweep(struct obd_indexer *ix)
{
	for (uint32_t i = 0; i < OBD_WANT_SLOTS; i++)
		if (ix->want[i].uid && !ix->want[i].refs)
			drop(ix, i);
}
