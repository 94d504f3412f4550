/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One stored block to plain bytes. The only reader-side user of the codec libraries. */
#include <errno.h>
#include <lz4.h>
#include <stdlib.h>
#include <zstd.h>

#include "common/base/crc32c.h"
#include "common/base/le.h"
#include "common/format/zfile.h"
#include "common/format/zfile_layout.h"

struct obd_codec {
	ZSTD_DCtx *zstd;
};

struct obd_codec *obd_codec_new(void)
{
	struct obd_codec *c = malloc(sizeof(*c));
	if (!c)
		return NULL;
	c->zstd = ZSTD_createDCtx();
	if (!c->zstd) {
		free(c);
		return NULL;
	}
	return c;
}

void obd_codec_free(struct obd_codec *c)
{
	if (!c)
		return;
	ZSTD_freeDCtx(c->zstd);
	free(c);
}

int obd_zfile_decode_block(struct obd_codec *c, const struct obd_zfile_info *info, const void *src, size_t src_bytes, void *dst,
			   size_t dst_bytes)
{
	if (src_bytes > obd_zfile_stored_max(OBD_ZFILE_BLOCK_MAX) || dst_bytes > OBD_ZFILE_BLOCK_MAX)
		return -EINVAL;
	if (info->verify) {
		if (src_bytes < 5)
			return -EINVAL;
		src_bytes -= 4;
		uint32_t stored = obd_get_le32((const char *)src + src_bytes);
		if (obd_crc32c_raw(OBD_ZFILE_BLOCK_CRC_SEED, src, src_bytes) != stored)
			return -EBADMSG;
	}
	if (info->algorithm == OBD_ZFILE_LZ4) {
		int n = LZ4_decompress_safe(src, dst, (int)src_bytes, (int)dst_bytes);
		return n >= 0 && (size_t)n == dst_bytes ? 0 : -EBADMSG;
	}
	if (info->algorithm == OBD_ZFILE_ZSTD) {
		size_t n = ZSTD_decompressDCtx(c->zstd, dst, dst_bytes, src, src_bytes);
		return !ZSTD_isError(n) && n == dst_bytes ? 0 : -EBADMSG;
	}
	return -EINVAL;
}
