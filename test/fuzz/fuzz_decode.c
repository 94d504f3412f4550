/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The streaming decoder with everything hostile: the layer's geometry, the jump table as it lies in shared memory, the stored
 * bytes, and how they are cut. A frame may only be written inside its bounds and become whole once.
 *
 * Input: 12 bytes of shape, then nblocks u32 lengths, then stored bytes.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/le.h"
#include "common/base/util.h"
#include "fetcher/decode.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define BLOCKS 40u
#define BLOCK_BYTES 16384u

static unsigned char *frames[OBD_DECODE_FRAMES];
static uint64_t is_whole;

static unsigned char *frame(void *arg, uint32_t i)
{
	(void)arg;
	if (i >= OBD_DECODE_FRAMES || is_whole >> i & 1)
		abort();
	if (!frames[i])
		frames[i] = malloc(BLOCK_BYTES); /* one by one, so that a sanitizer sees the ends */
	return frames[i];
}

static void whole(void *arg, uint32_t i, uint32_t begin, uint32_t bytes)
{
	(void)arg;
	if (i >= OBD_DECODE_FRAMES || is_whole >> i & 1 || bytes == 0 || begin >= bytes || bytes > BLOCK_BYTES)
		abort();
	is_whole |= UINT64_C(1) << i;
}

static void feed(struct obd_decoder *d, const uint8_t *buf, size_t n, size_t chunk)
{
	size_t at = 0;
	while (at < n) {
		size_t k = obd_min_u64(obd_min_u64(chunk, n - at), d->need - d->fed);
		if (k == 0)
			return;
		if (obd_decoder_feed(d, buf + at, k))
			abort();
		at += k;
	}
}

static void run(struct obd_codec *codec, const uint8_t *shape, const struct obd_zfile_info *info,
		const struct obd_zfile_table *table, const uint8_t *buf, size_t n)
{
	const struct obd_decode_sink sink = {.frame = frame, .whole = whole};
	struct obd_decoder d;
	uint64_t start, end;
	is_whole = 0;
	if (obd_decoder_init_zfile(&d, &sink, codec, info, table, BLOCK_BYTES, shape[6], shape[7], shape[8], &start, &end))
		return;
	if (end - start != d.need || end > table->end)
		abort();
	feed(&d, buf, n, (size_t)shape[9] + 1);
	if (d.bad & is_whole)
		abort();
	obd_decoder_free(&d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint64_t base[BLOCKS / 64 + 1] = {0};
	uint32_t delta[BLOCKS + 1] = {0};
	if (size < 12 + 4 * BLOCKS)
		return 0;
	struct obd_zfile_info info = {.original_bytes = obd_get_le32(data) % (1u << 22),
				      .block_bytes = 512u << data[4] % 13,
				      .nblocks = BLOCKS,
				      .payload_bytes = size,
				      .algorithm = data[5] & 3,
				      .verify = data[5] >> 2 & 1};
	base[0] = (data[10] & 1) ? obd_get_le32(data) : 0;
	for (uint32_t i = 0; i < BLOCKS; i++)
		delta[i + 1] = delta[i] + obd_get_le32(data + 12 + 4 * i) % (data[11] ? 2 * info.block_bytes : UINT32_MAX);
	const struct obd_zfile_table table = {.base = base,
					      .delta = delta,
					      .nblocks = BLOCKS,
					      .end = UINT64_C(1) << 32,
					      .stored_max = obd_zfile_stored_max(info.block_bytes)};
	struct obd_codec *codec = obd_codec_new();
	run(codec, data, &info, &table, data + 12 + 4 * BLOCKS, size - 12 - 4 * BLOCKS);
	obd_codec_free(codec);
	for (size_t i = 0; i < OBD_DECODE_FRAMES; i++) {
		free(frames[i]);
		frames[i] = NULL;
	}
	return 0;
}
