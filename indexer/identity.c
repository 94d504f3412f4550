/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a device is made of, as one number for the layers below and one for the upper layer. A client that opens a device again,
 * after the whole group died, compares them with what it had: writes that were not answered must not go into another layer that
 * has come to stand under the same path. Not a defence against somebody who looks for collisions: he may change the files.
 */
#include <string.h>

#include "indexer/internal.h"

#define FNV_START UINT64_C(0xcbf29ce484222325)
#define FNV_PRIME UINT64_C(0x100000001b3)

static uint64_t mix(uint64_t h, const void *p, size_t n)
{
	const unsigned char *c = p;
	for (size_t i = 0; i < n; i++)
		h = (h ^ c[i]) * FNV_PRIME;
	return h;
}

static uint64_t mix_text(uint64_t h, const char *text)
{
	return mix(h, text, strlen(text) + 1);
}

/* A layer with a digest is the same wherever it is read from; a file is what it is by its place and time. */
static uint64_t mix_lower(uint64_t h, const struct obd_image_lower *lower, const struct obd_layer *e)
{
	if (!lower->file && lower->digest)
		return mix_text(h, lower->digest);
	const uint64_t file[] = {e->dev, e->ino, (uint64_t)e->mtime_ns, e->blob_bytes};
	return mix(h, file, sizeof file);
}

static uint64_t not_zero(uint64_t h)
{
	return h ? h : 1;
}

uint64_t obd_ix_lowers_id(const struct obd_ix_open *o)
{
	uint64_t h = mix(FNV_START, &o->nlowers, sizeof o->nlowers);
	for (uint32_t i = 0; i < o->nlowers; i++)
		h = mix_lower(h, &o->cfg->lowers[i], obd_ix_layer_entry(o->lower[i].layer));
	return not_zero(h);
}

uint64_t obd_ix_upper_id(const struct obd_lsmt_info *info, uint64_t dev, uint64_t ino)
{
	const uint64_t place[] = {dev, ino};
	return not_zero(mix(mix_text(FNV_START, info->uuid), place, sizeof place));
}
