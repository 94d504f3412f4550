/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Checked copies of layer entries. The word is read before and after the copy: an entry that was freed or reused meanwhile is
 * ESTALE. Published fields do not change while the word carries the uid, so a copy between two equal words is whole.
 */
#include "shmcache/catalog.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "common/base/util.h"

static int check_bounds(const struct obd_layer *l)
{
	uint64_t end;
	if (l->local > 1 || l->zfile > 1 || l->blob_bytes == 0)
		return -EPROTO;
	if (!obd_add_u64(l->payload_offset, l->payload_bytes, &end) || end > l->blob_bytes)
		return -EPROTO;
	return 0;
}

/* Is [off, off + bytes) inside the index region and aligned? */
static bool in_arena(const struct obd_segment *seg, uint64_t off, uint64_t bytes, uint64_t align)
{
	uint64_t end;
	return off % align == 0 && obd_add_u64(off, bytes, &end) && end <= seg->geo.index_bytes;
}

static int view_tables(const struct obd_segment *seg, const struct obd_layer *l, struct obd_layer_view *v)
{
	if (!l->zfile)
		return l->file_bytes == l->payload_bytes ? 0 : -EPROTO;
	if (!obd_is_pow2(l->zf_block_bytes) || l->zf_block_bytes < 4096 || l->zf_block_bytes > 1048576 || l->zf_verify > 1)
		return -EPROTO;
	if (l->zf_nblocks > UINT32_MAX ||
	    l->zf_nblocks != l->file_bytes / l->zf_block_bytes + (l->file_bytes % l->zf_block_bytes != 0))
		return -EPROTO;
	if (!seg->index || !in_arena(seg, l->zf_base_off, (l->zf_nblocks / 64 + 1) * sizeof(uint64_t), 8) ||
	    !in_arena(seg, l->zf_delta_off, (l->zf_nblocks + 1) * sizeof(uint32_t), 4))
		return -EPROTO;
	v->zf_base = (const void *)(seg->index + l->zf_base_off);
	v->zf_delta = (const void *)(seg->index + l->zf_delta_off);
	return 0;
}

static void copy_strings(const struct obd_layer *l, struct obd_layer_view *v)
{
	memcpy(v->host, l->host, sizeof v->host);
	memcpy(v->url, l->url, sizeof v->url);
	memcpy(v->digest, l->digest, sizeof v->digest);
	memcpy(v->path, l->path, sizeof v->path);
	v->host[sizeof v->host - 1] = v->url[sizeof v->url - 1] = '\0';
	v->digest[sizeof v->digest - 1] = v->path[sizeof v->path - 1] = '\0';
}

/* A private copy of the fixed fields, so that every check is made on what is used. The strings follow them in the struct. */
#define FIXED_BYTES offsetof(struct obd_layer, host)

static int snapshot(const struct obd_segment *seg, uint32_t slot, uint32_t uid, struct obd_layer *out, uint64_t *word)
{
	if (slot >= OBD_LAYER_SLOTS || uid == 0)
		return -ESTALE;
	const struct obd_layer *l = &seg->catalog->layer[slot];
	*word = obd_load_acquire(&l->word); /* edge: layer-publish */
	unsigned int state = obd_word_state(*word);
	if (obd_word_seq(*word) != uid || state == OBD_LAYER_FREE)
		return -ESTALE;
	if (state > OBD_LAYER_READY)
		return -EPROTO;
	memcpy((void *)out, (const void *)l, FIXED_BYTES);
	return 0;
}

static bool changed(const struct obd_segment *seg, uint32_t slot, uint64_t word)
{
	obd_fence_acquire();
	return obd_word_seq(obd_load_relaxed(&seg->catalog->layer[slot].word)) != obd_word_seq(word);
}

int obd_catalog_layer(const struct obd_segment *seg, uint32_t slot, uint32_t uid, struct obd_layer_view *out)
{
	struct obd_layer l;
	uint64_t word;
	int rc = snapshot(seg, slot, uid, &l, &word);
	if (rc)
		return rc;
	memset(out, 0, sizeof *out);
	copy_strings(&seg->catalog->layer[slot], out);
	if (changed(seg, slot, word))
		return -ESTALE;
	out->slot = slot;
	out->uid = uid;
	out->state = (enum obd_layer_state)obd_word_state(word);
	out->local = l.local != 0;
	out->blob_bytes = l.blob_bytes;
	out->host_hash = l.host_hash;
	out->distrust = l.distrust != 0 && out->state < OBD_LAYER_READY;
	out->dev = l.dev;
	out->ino = l.ino;
	out->mtime_ns = l.mtime_ns;
	if (out->state == OBD_LAYER_SOURCE)
		return l.blob_bytes ? 0 : -EPROTO;
	rc = check_bounds(&l);
	if (rc == 0)
		rc = view_tables(seg, &l, out);
	if (rc)
		return rc;
	out->zfile = l.zfile != 0;
	out->zf_verify = l.zf_verify != 0;
	out->payload_offset = l.payload_offset;
	out->payload_bytes = l.payload_bytes;
	out->file_bytes = l.file_bytes;
	out->virtual_bytes = l.virtual_bytes;
	out->zf_block_bytes = l.zf_block_bytes;
	out->zf_algorithm = l.zf_algorithm;
	out->zf_dict_bytes = l.zf_dict_bytes;
	out->zf_nblocks = l.zf_nblocks;
	return 0;
}

int obd_catalog_layer_brief(const struct obd_segment *seg, uint32_t slot, uint32_t uid, struct obd_layer_brief *out)
{
	if (slot >= OBD_LAYER_SLOTS || uid == 0)
		return -ESTALE;
	const struct obd_layer *l = &seg->catalog->layer[slot];
	uint64_t word = obd_load_acquire(&l->word); /* edge: layer-publish */
	out->state = (enum obd_layer_state)obd_word_state(word);
	out->local = l->local != 0;
	out->blob_bytes = l->blob_bytes;
	out->file_bytes = out->state >= OBD_LAYER_MAPPED ? l->file_bytes : 0;
	out->host_hash = l->host_hash;
	if (obd_word_seq(word) != uid || out->state == OBD_LAYER_FREE || changed(seg, slot, word))
		return -ESTALE;
	return 0;
}

uint64_t obd_layer_blocks(const struct obd_layer_brief *layer, bool raw, uint32_t block_bytes)
{
	uint64_t bytes = layer->file_bytes;
	if (raw) /* chunk 0, then the rest from the end */
		bytes = layer->blob_bytes > OBD_RAW_HEAD_BYTES ? layer->blob_bytes - OBD_RAW_HEAD_BYTES : 0;
	uint64_t blocks = bytes / block_bytes + (bytes % block_bytes != 0) + (raw ? 1 : 0);
	return obd_min_u64(blocks, (uint64_t)OBD_KEY_MAX_BLOCK + 1);
}
