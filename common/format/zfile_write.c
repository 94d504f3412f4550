/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The ZFile writer: plain bytes are gathered into blocks; each block is compressed, its CRC appended and written; the
 * lengths become the jump table at the end. The state between two blocks is the position and the lengths so far, so
 * compressing several blocks in parallel later changes write_block only.
 */
#include <errno.h>
#include <inttypes.h>
#include <lz4.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "common/base/crc32c.h"
#include "common/base/le.h"
#include "common/base/util.h"
#include "common/format/zfile.h"
#include "common/format/zfile_layout.h"

#define WRITE_BLOCK_MIN 4096u
#define WRITE_BLOCK_MAX 65536u
#define COPY_BYTES (256u << 10)
#define PROGRESS_BYTES (4u << 20)

struct obd_zfile_writer {
	struct obd_file *dst;
	struct obd_zfile_opts opts;
	ZSTD_CCtx *zstd;
	unsigned char *plain;  /* the block being gathered */
	unsigned char *stored; /* the block being written */
	uint32_t *lengths;     /* jump table so far */
	uint64_t nblocks;
	uint64_t cap;
	uint64_t at;	   /* bytes written */
	uint64_t original; /* plain bytes taken */
	uint32_t filled;   /* bytes in plain */
	uint32_t stored_cap;
};

static void put_header(const struct obd_zfile_writer *w, uint64_t flags, bool with_index, uint32_t index_crc, void *buf)
{
	struct obd_zfile_disk_header h = {
		.size = OBD_ZFILE_STRUCT_BYTES,
		.flags = flags | OBD_ZFILE_FLAG_DATA | OBD_ZFILE_FLAG_DIGEST,
		.block_size = w->opts.block_bytes,
		.algorithm = (uint8_t)w->opts.algorithm,
		.verify = !w->opts.no_verify,
	};
	if (with_index) {
		h.index_offset = w->at;
		h.index_size = w->nblocks;
		h.original_file_size = w->original;
		h.index_crc = index_crc;
	}
	memcpy(h.magic0, obd_zfile_magic, sizeof(h.magic0));
	memcpy(h.magic1, obd_zfile_magic + sizeof(h.magic0), sizeof(h.magic1));
	memset(buf, 0, OBD_ZFILE_HEADER_BYTES);
	memcpy(buf, &h, sizeof(h));
	h.digest = obd_crc32c_raw(0, buf, OBD_ZFILE_HEADER_BYTES);
	memcpy(buf, &h, sizeof(h));
}

static int emit(struct obd_zfile_writer *w, const void *buf, size_t n)
{
	int rc = obd_file_pwrite(w->dst, buf, n, w->at);
	if (!rc)
		w->at += n;
	return rc;
}

/* Compresses n bytes of plain into stored. Returns the length or a negative errno. */
static int64_t compress_block(struct obd_zfile_writer *w, uint32_t n)
{
	if (w->opts.algorithm == OBD_ZFILE_LZ4) {
		int r = LZ4_compress_default((const char *)w->plain, (char *)w->stored, (int)n, (int)w->stored_cap);
		return r > 0 ? r : -EIO;
	}
	size_t r = ZSTD_compressCCtx(w->zstd, w->stored, w->stored_cap, w->plain, n,
				     w->opts.level ? w->opts.level : ZSTD_CLEVEL_DEFAULT);
	return ZSTD_isError(r) ? -EIO : (int64_t)r;
}

static int note_length(struct obd_zfile_writer *w, uint32_t length)
{
	if (w->nblocks == w->cap) {
		uint64_t cap = w->cap ? w->cap * 2 : 1024;
		uint32_t *p = realloc(w->lengths, cap * sizeof(*p));
		if (!p)
			return -ENOMEM;
		w->lengths = p;
		w->cap = cap;
	}
	w->lengths[w->nblocks++] = length;
	return 0;
}

static int write_block(struct obd_zfile_writer *w)
{
	int64_t n = compress_block(w, w->filled);
	if (n < 0)
		return (int)n;
	w->original += w->filled;
	w->filled = 0;
	if (!w->opts.no_verify) {
		obd_put_le32(w->stored + n, obd_crc32c_raw(OBD_ZFILE_BLOCK_CRC_SEED, w->stored, (size_t)n));
		n += 4;
	}
	int rc = note_length(w, (uint32_t)n);
	return rc ? rc : emit(w, w->stored, (size_t)n);
}

static int check_opts(const struct obd_zfile_opts *o, struct obd_err *err)
{
	if (o->algorithm != OBD_ZFILE_LZ4 && o->algorithm != OBD_ZFILE_ZSTD)
		return obd_err_set(err, EINVAL, "zfile: algorithm is %d, allowed: 1 (lz4), 2 (zstd)", (int)o->algorithm);
	if (o->block_bytes < WRITE_BLOCK_MIN || o->block_bytes > WRITE_BLOCK_MAX || !obd_is_pow2(o->block_bytes))
		return obd_err_set(err, EINVAL, "zfile: block size is %u, allowed: a power of two, %u to %u", o->block_bytes,
				   WRITE_BLOCK_MIN, WRITE_BLOCK_MAX);
	if (o->level && (o->level < ZSTD_minCLevel() || o->level > ZSTD_maxCLevel()))
		return obd_err_set(err, EINVAL, "zfile: level is %d, allowed: %d to %d", o->level, ZSTD_minCLevel(),
				   ZSTD_maxCLevel());
	return 0;
}

struct obd_zfile_writer *obd_zfile_writer_new(struct obd_file *dst, const struct obd_zfile_opts *opts, struct obd_err *err)
{
	unsigned char header[OBD_ZFILE_HEADER_BYTES];
	int rc = check_opts(opts, err);
	if (rc) {
		errno = -rc;
		return NULL;
	}
	struct obd_zfile_writer *w = calloc(1, sizeof(*w));
	if (!w)
		goto nomem;
	w->dst = dst;
	w->opts = *opts;
	w->stored_cap = obd_zfile_stored_max(opts->block_bytes) - 4;
	w->zstd = ZSTD_createCCtx();
	w->plain = malloc(opts->block_bytes);
	w->stored = malloc(obd_zfile_stored_max(opts->block_bytes));
	if (!w->zstd || !w->plain || !w->stored)
		goto nomem;
	put_header(w, OBD_ZFILE_FLAG_HEADER, false, 0, header);
	rc = emit(w, header, sizeof(header));
	if (!rc)
		return w;
	obd_err_set(err, -rc, "zfile header: write: %s", strerror(-rc));
	goto fail;
nomem:
	rc = obd_err_set(err, ENOMEM, "out of memory");
fail:
	obd_zfile_writer_free(w);
	errno = -rc;
	return NULL;
}

int obd_zfile_writer_append(struct obd_zfile_writer *w, const void *buf, size_t n)
{
	const unsigned char *p = buf;
	while (n) {
		uint32_t part = (uint32_t)obd_min_u64(n, w->opts.block_bytes - w->filled);
		memcpy(w->plain + w->filled, p, part);
		w->filled += part;
		p += part;
		n -= part;
		int rc = w->filled == w->opts.block_bytes ? write_block(w) : 0;
		if (rc)
			return rc;
	}
	return 0;
}

int obd_zfile_writer_finish(struct obd_zfile_writer *w, uint64_t *bytes)
{
	unsigned char trailer[OBD_ZFILE_HEADER_BYTES], header[OBD_ZFILE_HEADER_BYTES];
	int rc = w->filled ? write_block(w) : 0;
	if (rc)
		return rc;
	/* Little-endian machines only (lsmt_layout.h says so): the array is the jump table. */
	const size_t table_bytes = (size_t)w->nblocks * sizeof(*w->lengths);
	const uint32_t crc = obd_crc32c_raw(0, w->lengths, table_bytes);
	put_header(w, OBD_ZFILE_FLAG_SEALED, true, crc, trailer);
	put_header(w, OBD_ZFILE_FLAG_HEADER | OBD_ZFILE_FLAG_OVERWRITTEN, true, crc, header);
	rc = table_bytes ? emit(w, w->lengths, table_bytes) : 0;
	if (!rc)
		rc = emit(w, trailer, sizeof(trailer));
	if (!rc && w->opts.overwrite_header)
		rc = obd_file_pwrite(w->dst, header, sizeof(header), 0);
	if (!rc && bytes)
		*bytes = w->at;
	return rc;
}

void obd_zfile_writer_free(struct obd_zfile_writer *w)
{
	if (!w)
		return;
	ZSTD_freeCCtx(w->zstd);
	free(w->plain);
	free(w->stored);
	free(w->lengths);
	free(w);
}

static int sink_pwrite(void *ctx, const void *buf, size_t n, uint64_t off)
{
	struct obd_zfile_writer *w = ctx;
	return off == w->original + w->filled ? obd_zfile_writer_append(w, buf, n) : -ESPIPE;
}

static int sink_size(void *ctx, uint64_t *bytes)
{
	const struct obd_zfile_writer *w = ctx;
	*bytes = w->original + w->filled;
	return 0;
}

static const struct obd_file_ops sink_ops = {.pwrite = sink_pwrite, .size = sink_size};

struct obd_file *obd_zfile_writer_file(struct obd_zfile_writer *w)
{
	return obd_file_new(&sink_ops, w);
}

static int copy_all(struct obd_file *src, uint64_t total, struct obd_zfile_writer *w, obd_progress_fn *progress, void *ctx)
{
	unsigned char *buf = malloc(COPY_BYTES);
	int rc = buf ? 0 : -ENOMEM;
	for (uint64_t at = 0; !rc && at < total;) {
		size_t n = (size_t)obd_min_u64(COPY_BYTES, total - at);
		rc = obd_file_pread_full(src, buf, n, at);
		if (!rc)
			rc = obd_zfile_writer_append(w, buf, n);
		at += n;
		if (!rc && progress && (at % PROGRESS_BYTES == 0 || at == total) && progress(ctx, at, total))
			rc = -ECANCELED;
	}
	free(buf);
	return rc;
}

int obd_zfile_write(struct obd_file *src, struct obd_file *dst, const struct obd_zfile_opts *opts, obd_progress_fn *progress,
		    void *progress_ctx, uint64_t *bytes, struct obd_err *err)
{
	uint64_t total;
	int rc = check_opts(opts, err);
	if (rc)
		return rc;
	rc = obd_file_size(src, &total);
	if (rc)
		return obd_err_set(err, -rc, "zfile: source: %s", strerror(-rc));
	struct obd_zfile_writer *w = obd_zfile_writer_new(dst, opts, err);
	if (!w)
		return -errno;
	rc = copy_all(src, total, w, progress, progress_ctx);
	if (!rc)
		rc = obd_zfile_writer_finish(w, bytes);
	if (rc)
		obd_err_set(err, -rc, "zfile: %s", strerror(-rc));
	obd_zfile_writer_free(w);
	return rc;
}
