/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Plain bytes into a blob: [tar[ZFile[...]]]. The tar header is written last, when the payload's size is known. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/format/tar.h"
#include "tools/layer/tool.h"

uint64_t segments_bytes(const struct obd_lsmt_seg *seg, size_t n)
{
	uint64_t sectors = 0;
	for (size_t i = 0; i < n; i++)
		sectors += obd_lsmt_seg_zeroed(seg[i]) ? 0 : obd_lsmt_seg_length(seg[i]);
	return sectors * OBD_SECTOR_BYTES;
}

static int write_compressed(struct obd_file *dst, const struct blob_opts *opts, blob_fill_fn *fill, void *ctx,
			    struct obd_err *err)
{
	struct obd_zfile_writer *w = obd_zfile_writer_new(dst, &opts->zfile, err);
	if (!w)
		return -errno;
	struct obd_file *plain = obd_zfile_writer_file(w);
	int rc = plain ? fill(ctx, plain, err) : obd_err_set(err, ENOMEM, "out of memory");
	if (!rc) {
		rc = obd_zfile_writer_finish(w, NULL);
		if (rc)
			obd_err_set(err, -rc, "zfile: %s", strerror(-rc));
	}
	obd_file_close(plain);
	obd_zfile_writer_free(w);
	return rc;
}

static int write_payload(struct obd_file *dst, const struct blob_opts *opts, blob_fill_fn *fill, void *ctx, struct obd_err *err)
{
	return opts->compress ? write_compressed(dst, opts, fill, ctx, err) : fill(ctx, dst, err);
}

static struct obd_file *payload_of(struct obd_file *dst)
{
	struct obd_file *borrowed = obd_file_borrow(dst);
	struct obd_file *f = borrowed ? obd_file_window(borrowed, OBD_TAR_HEADER_BYTES, UINT64_MAX) : NULL;
	if (!f)
		obd_file_close(borrowed);
	return f;
}

static int wrap(struct obd_file *dst, uint64_t payload, struct obd_err *err)
{
	unsigned char header[OBD_TAR_HEADER_BYTES], zeros[OBD_TAR_TAIL_MAX_BYTES] = {0};
	int rc = obd_file_pwrite(dst, zeros, obd_tar_tail_bytes(payload), OBD_TAR_HEADER_BYTES + payload);
	if (!rc)
		rc = obd_tar_header(header, payload);
	if (!rc)
		rc = obd_file_pwrite(dst, header, sizeof(header), 0);
	return rc ? obd_err_set(err, -rc, "tar wrapper: %s", strerror(-rc)) : 0;
}

int blob_write(struct obd_file *dst, const struct blob_opts *opts, blob_fill_fn *fill, void *ctx, struct obd_err *err)
{
	uint64_t bytes = 0;
	if (!opts->tar)
		return write_payload(dst, opts, fill, ctx, err);
	struct obd_file *payload = payload_of(dst);
	if (!payload)
		return obd_err_set(err, ENOMEM, "out of memory");
	int rc = write_payload(payload, opts, fill, ctx, err);
	if (!rc) {
		rc = obd_file_size(payload, &bytes);
		rc = rc ? obd_err_set(err, -rc, "size: %s", strerror(-rc)) : wrap(dst, bytes, err);
	}
	obd_file_close(payload);
	return rc;
}

int blob_write_target(const struct blob_target *target, blob_fill_fn *fill, void *ctx, struct obd_err *err)
{
	char digest[72] = "";
	struct output *out = output_new(target->path, target->force, err);
	if (!out)
		return -EINVAL;
	int rc = 0;
	if (target->digest && output_want_digest(out))
		rc = obd_err_set(err, ENOMEM, "out of memory");
	if (!rc) {
		rc = blob_write(output_file(out), &target->opts, fill, ctx, err);
		obd_err_prefix(err, rc, "%s", target->path);
	}
	if (!rc)
		rc = output_finish(out, digest, err);
	if (!rc && target->digest)
		fprintf(strcmp(target->path, "-") ? stdout : stderr, "%s\n", digest);
	output_free(out);
	return rc;
}
