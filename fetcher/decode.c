/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fetcher/decode.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/util.h"

/* --- plain ---------------------------------------------------------------------------------------------------------------- */

void obd_decoder_init_plain(struct obd_decoder *d, const struct obd_decode_sink *sink, const struct obd_decode_piece *piece,
			    uint32_t npieces)
{
	assert(npieces <= OBD_DECODE_FRAMES);
	*d = (struct obd_decoder){.sink = *sink, .npieces = npieces};
	for (uint32_t i = 0; i < npieces; i++) {
		assert(piece[i].bytes > 0);
		d->piece[i] = piece[i];
		d->need += piece[i].bytes;
	}
}

unsigned char *obd_decoder_room(struct obd_decoder *d, size_t *n)
{
	if (d->codec || d->at == d->npieces)
		return NULL;
	const struct obd_decode_piece *p = &d->piece[d->at];
	*n = p->bytes - d->filled;
	return d->sink.frame(d->sink.arg, p->frame) + p->at + d->filled;
}

static size_t feed_plain(struct obd_decoder *d, const unsigned char *buf, size_t n)
{
	const struct obd_decode_piece *p = &d->piece[d->at];
	size_t room = 0;
	unsigned char *dst = obd_decoder_room(d, &room);
	assert(dst);
	if (n > room)
		n = room;
	if (dst != buf)
		memcpy(dst, buf, n);
	d->filled += (uint32_t)n;
	if (d->filled == p->bytes) {
		d->at++;
		d->filled = 0;
		d->sink.whole(d->sink.arg, p->frame, p->at, p->at + p->bytes);
	}
	return n;
}

/* --- zfile ---------------------------------------------------------------------------------------------------------------- */

/* Copies the ends of the stored blocks out of the shared table; each must begin where the one before it ended. */
static int copy_table(struct obd_decoder *d, const struct obd_zfile_table *table, uint64_t *start, uint64_t *end)
{
	uint64_t at = 0, a = 0, b = 0;
	for (uint32_t i = 0; i < d->zcount; i++) {
		if (!obd_zfile_block_range(table, d->zfirst + i, &a, &b))
			return -EPROTO;
		if (i == 0)
			*start = at = a;
		if (a != at || b - *start > UINT32_MAX)
			return -EPROTO;
		d->stored_end[i] = (uint32_t)(b - *start);
		at = b;
	}
	*end = at;
	d->need = at - *start;
	return 0;
}

/* The stored blocks that the run needs. */
static int cut_run(struct obd_decoder *d, uint64_t from, uint64_t to)
{
	uint64_t bytes = d->info.original_bytes, unit = d->info.block_bytes, frame = d->block_bytes;
	if (from >= to || from >= bytes || to > obd_align_up(bytes, frame) || from / frame > UINT32_MAX ||
	    (to - 1) / frame - from / frame >= OBD_DECODE_FRAMES - d->frame0)
		return -EPROTO;
	d->first_block = from / frame;
	d->nframes = (uint32_t)((to - 1) / frame - d->first_block + 1);
	d->zfirst = from / unit;
	d->zcount = (uint32_t)((obd_min_u64(to, bytes) + unit - 1) / unit - d->zfirst);
	d->from = obd_max_u64(d->zfirst * unit, d->first_block * frame);
	d->to = obd_min_u64(obd_min_u64((d->zfirst + d->zcount) * unit, (d->first_block + d->nframes) * frame), bytes);
	return 0;
}

int obd_decoder_init_zfile(struct obd_decoder *d, const struct obd_decode_sink *sink, struct obd_codec *codec,
			   const struct obd_zfile_info *info, const struct obd_zfile_table *table, uint32_t block_bytes,
			   uint64_t block, uint32_t nblocks, uint32_t frame0, uint64_t *start, uint64_t *end)
{
	if (block > UINT32_MAX || nblocks > OBD_DECODE_FRAMES)
		return -EPROTO;
	return obd_decoder_init_zfile_part(d, sink, codec, info, table, block_bytes, block * block_bytes,
					   (block + nblocks) * block_bytes, frame0, start, end);
}

int obd_decoder_init_zfile_part(struct obd_decoder *d, const struct obd_decode_sink *sink, struct obd_codec *codec,
				const struct obd_zfile_info *info, const struct obd_zfile_table *table, uint32_t block_bytes,
				uint64_t from, uint64_t to, uint32_t frame0, uint64_t *start, uint64_t *end)
{
	assert(obd_is_pow2(block_bytes) && block_bytes <= OBD_ZFILE_BLOCK_MAX);
	*d = (struct obd_decoder){.sink = *sink, .codec = codec, .info = *info, .block_bytes = block_bytes, .frame0 = frame0};
	if (!obd_is_pow2(info->block_bytes) || info->block_bytes < OBD_ZFILE_BLOCK_MIN ||
	    info->block_bytes > OBD_ZFILE_BLOCK_MAX || info->original_bytes > UINT64_C(1) << 60 || frame0 >= OBD_DECODE_FRAMES)
		return -EPROTO;
	int rc = cut_run(d, from, to);
	if (rc)
		return rc;
	d->stored_end = malloc(d->zcount * sizeof(*d->stored_end));
	if (info->block_bytes > block_bytes)
		d->bounce = malloc(info->block_bytes);
	rc = -ENOMEM;
	if (d->stored_end && (d->bounce || info->block_bytes <= block_bytes))
		rc = copy_table(d, table, start, end);
	if (rc)
		obd_decoder_free(d);
	return rc;
}

/* What of frame i the run decodes: bytes of the frame. */
static uint32_t frame_begin(const struct obd_decoder *d, uint32_t i)
{
	return i ? 0 : (uint32_t)(d->from - d->first_block * d->block_bytes);
}

static uint32_t frame_end(const struct obd_decoder *d, uint32_t i)
{
	uint64_t at = (d->first_block + i) * d->block_bytes;
	return (uint32_t)obd_min_u64(d->block_bytes, d->to - at);
}

/* One stored block is a frame or a part of one: decoded in place. */
static void decode_in_place(struct obd_decoder *d, const unsigned char *src, size_t n, uint64_t plain_at, uint32_t plain)
{
	uint32_t i = (uint32_t)(plain_at / d->block_bytes - d->first_block), off = (uint32_t)(plain_at % d->block_bytes);
	uint64_t bit = UINT64_C(1) << (d->frame0 + i);
	if (d->bad & bit)
		return;
	unsigned char *dst = d->sink.frame(d->sink.arg, d->frame0 + i);
	if (obd_zfile_decode_block(d->codec, &d->info, src, n, dst + off, plain))
		d->bad |= bit;
	else if (off + plain == frame_end(d, i))
		d->sink.whole(d->sink.arg, d->frame0 + i, frame_begin(d, i), off + plain);
}

/* One stored block makes several frames, of which the run may want only some. */
static void decode_bounced(struct obd_decoder *d, const unsigned char *src, size_t n, uint64_t plain_at, uint32_t plain)
{
	bool good = obd_zfile_decode_block(d->codec, &d->info, src, n, d->bounce, plain) == 0;
	for (uint32_t i = 0; i < d->nframes; i++) {
		uint64_t at = (d->first_block + i) * d->block_bytes;
		if (at < plain_at || at >= plain_at + plain)
			continue;
		if (!good) {
			d->bad |= UINT64_C(1) << (d->frame0 + i);
			continue;
		}
		uint32_t bytes = frame_end(d, i);
		memcpy(d->sink.frame(d->sink.arg, d->frame0 + i), d->bounce + (at - plain_at), bytes);
		d->sink.whole(d->sink.arg, d->frame0 + i, 0, bytes);
	}
}

static void decode_stored(struct obd_decoder *d, const unsigned char *src, size_t n)
{
	uint64_t plain_at = (d->zfirst + d->znext++) * d->info.block_bytes;
	uint32_t plain = (uint32_t)obd_min_u64(d->info.block_bytes, d->info.original_bytes - plain_at);
	if (d->bounce)
		decode_bounced(d, src, n, plain_at, plain);
	else
		decode_in_place(d, src, n, plain_at, plain);
}

/* Takes at most one stored block, or the part of one that came; *took: how many bytes. */
static int feed_zfile(struct obd_decoder *d, const unsigned char *buf, size_t n, size_t *took)
{
	uint32_t begin = d->znext ? d->stored_end[d->znext - 1] : 0, len = d->stored_end[d->znext] - begin;
	if (d->carried == 0 && n >= len) {
		decode_stored(d, buf, len);
		*took = len;
		return 0;
	}
	if (!d->carry)
		d->carry = malloc(obd_zfile_stored_max(d->info.block_bytes));
	if (!d->carry)
		return -ENOMEM;
	*took = obd_min_u64(n, len - d->carried);
	memcpy(d->carry + d->carried, buf, *took);
	d->carried += *took;
	if (d->carried == len) {
		decode_stored(d, d->carry, len);
		d->carried = 0;
	}
	return 0;
}

/* --- both ----------------------------------------------------------------------------------------------------------------- */

int obd_decoder_feed(struct obd_decoder *d, const unsigned char *buf, size_t n)
{
	if (n > d->need - d->fed)
		return -EOVERFLOW;
	while (n) {
		size_t took = 0;
		int rc = 0;
		if (d->codec)
			rc = feed_zfile(d, buf, n, &took);
		else
			took = feed_plain(d, buf, n);
		if (rc)
			return rc;
		d->fed += took;
		buf += took;
		n -= took;
	}
	return 0;
}

bool obd_decoder_complete(const struct obd_decoder *d)
{
	return d->fed == d->need;
}

void obd_decoder_free(struct obd_decoder *d)
{
	free(d->stored_end);
	free(d->carry);
	free(d->bounce);
	d->stored_end = NULL;
	d->carry = d->bounce = NULL;
}
