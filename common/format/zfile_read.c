/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The synchronous reader: metadata at opening, then block by block, the last one kept. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/util.h"
#include "common/format/zfile.h"

struct reader {
	struct obd_file *payload;
	struct obd_zfile_info info;
	struct obd_zfile_table table;
	struct obd_codec *codec;
	void *offsets;
	unsigned char *stored; /* one block as it lies in the file */
	unsigned char *plain;  /* block number `have`, decoded */
	uint64_t have;	       /* UINT64_MAX: none */
};

static void reader_free(struct reader *r)
{
	if (!r)
		return;
	obd_codec_free(r->codec);
	free(r->offsets);
	free(r->stored);
	free(r->plain);
	free(r);
}

static int load_block(struct reader *r, uint64_t block)
{
	uint64_t start, end;
	if (r->have == block)
		return 0;
	r->have = UINT64_MAX;
	if (!obd_zfile_block_range(&r->table, block, &start, &end))
		return -EINVAL;
	int rc = obd_file_pread_full(r->payload, r->stored, (size_t)(end - start), start);
	if (!rc)
		rc = obd_zfile_decode_block(r->codec, &r->info, r->stored, (size_t)(end - start), r->plain,
					    obd_zfile_block_plain_bytes(&r->info, block));
	if (!rc)
		r->have = block;
	return rc;
}

static ssize_t reader_pread(void *ctx, void *buf, size_t n, uint64_t off)
{
	struct reader *r = ctx;
	size_t done = 0;
	if (off >= r->info.original_bytes)
		return 0;
	n = (size_t)obd_min_u64(n, r->info.original_bytes - off);
	while (done < n) {
		uint64_t at = off + done;
		uint32_t in = (uint32_t)(at % r->info.block_bytes);
		int rc = load_block(r, at / r->info.block_bytes);
		if (rc)
			return rc;
		size_t part = (size_t)obd_min_u64(n - done, r->info.block_bytes - in);
		memcpy((char *)buf + done, r->plain + in, part);
		done += part;
	}
	return (ssize_t)done;
}

static int reader_size(void *ctx, uint64_t *bytes)
{
	*bytes = ((struct reader *)ctx)->info.original_bytes;
	return 0;
}

static void reader_close(void *ctx)
{
	struct reader *r = ctx;
	obd_file_close(r->payload);
	reader_free(r);
}

static const struct obd_file_ops reader_ops = {.pread = reader_pread, .size = reader_size, .close = reader_close};

static int read_info(struct obd_file *payload, struct obd_zfile_info *info, struct obd_err *err)
{
	unsigned char buf[OBD_ZFILE_HEADER_BYTES];
	uint64_t bytes;
	int rc = obd_file_size(payload, &bytes);
	if (rc)
		return obd_err_set(err, -rc, "size: %s", strerror(-rc));
	if (bytes < 2 * sizeof(buf))
		return obd_err_set(err, EINVAL, "zfile header: file size is %" PRIu64 ", allowed: at least 1024", bytes);
	rc = obd_file_pread_full(payload, buf, sizeof(buf), 0);
	if (rc)
		return obd_err_set(err, -rc, "zfile header: %s", strerror(-rc));
	rc = obd_zfile_parse_header(buf, bytes, info, err);
	if (rc != OBD_ZFILE_NEED_TRAILER)
		return rc;
	rc = obd_file_pread_full(payload, buf, sizeof(buf), bytes - sizeof(buf));
	if (rc)
		return obd_err_set(err, -rc, "zfile trailer: %s", strerror(-rc));
	return obd_zfile_parse_trailer(buf, bytes, info, err);
}

/* The jump table is no longer than the file, so neither is what is allocated here (times 1.03). */
static int read_table(struct reader *r, struct obd_err *err)
{
	const uint64_t bytes = obd_zfile_index_bytes(&r->info), need = obd_zfile_offsets_bytes(r->info.nblocks);
	void *raw = malloc(bytes ? bytes : 1);
	r->offsets = malloc(need);
	int rc = raw && r->offsets ? 0 : obd_err_set(err, ENOMEM, "zfile jump table: no memory for %" PRIu64 " bytes", need);
	if (rc)
		goto out;
	rc = obd_file_pread_full(r->payload, raw, bytes, r->info.index_offset);
	if (rc) {
		obd_err_set(err, -rc, "zfile jump table: %s", strerror(-rc));
		goto out;
	}
	rc = obd_zfile_check_table(&r->info, raw, bytes, err);
	if (rc)
		goto out;
	obd_zfile_build_offsets(&r->info, raw, r->offsets);
	rc = obd_zfile_table_attach(&r->table, &r->info, r->offsets, need);
out:
	free(raw);
	return rc;
}

struct obd_file *obd_zfile_open(struct obd_file *payload, struct obd_err *err)
{
	struct reader *r = calloc(1, sizeof(*r));
	struct obd_file *f = NULL;
	if (!r)
		goto nomem;
	r->payload = payload;
	r->have = UINT64_MAX;
	if (read_info(payload, &r->info, err) || read_table(r, err))
		goto fail;
	r->codec = obd_codec_new();
	r->stored = malloc(obd_zfile_stored_max(r->info.block_bytes));
	r->plain = malloc(r->info.block_bytes);
	if (r->codec && r->stored && r->plain)
		f = obd_file_new(&reader_ops, r);
	if (f)
		return f;
nomem:
	obd_err_set(err, ENOMEM, "out of memory");
fail:
	reader_free(r);
	return NULL;
}
