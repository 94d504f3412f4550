/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "common/format/stack.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/util.h"
#include "common/format/merge.h"
#include "common/format/tar.h"
#include "common/format/zfile.h"

/* Where the payload lies in the blob and whether it is a ZFile. */
static int probe(struct obd_file *blob, struct obd_tar_info *tar, bool *zfile, struct obd_err *err)
{
	unsigned char buf[OBD_TAR_PROBE_BYTES];
	uint64_t bytes;
	int rc = obd_file_size(blob, &bytes);
	if (rc)
		return obd_err_set(err, -rc, "size: %s", strerror(-rc));
	ssize_t n = obd_file_pread(blob, buf, sizeof(buf), 0);
	if (n < 0)
		return obd_err_set(err, (int)-n, "read of the first bytes: %s", strerror((int)-n));
	rc = obd_tar_parse(buf, (size_t)n, bytes, tar, err);
	if (rc)
		return rc;
	n = obd_file_pread(blob, buf, (size_t)obd_min_u64(24, tar->payload_bytes), tar->payload_offset);
	if (n < 0)
		return obd_err_set(err, (int)-n, "read at byte %" PRIu64 ": %s", tar->payload_offset, strerror((int)-n));
	*zfile = obd_zfile_is_zfile(buf, (size_t)n);
	return 0;
}

/* The layer file inside blob, which is only borrowed. */
static struct obd_file *unwrap(struct obd_file *blob, struct obd_err *err)
{
	struct obd_tar_info tar;
	bool zfile;
	if (probe(blob, &tar, &zfile, err))
		return NULL;
	struct obd_file *inner = obd_file_borrow(blob);
	struct obd_file *payload = inner ? obd_file_window(inner, tar.payload_offset, tar.payload_bytes) : NULL;
	if (!payload) {
		obd_file_close(inner);
		obd_err_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	if (!zfile)
		return payload;
	struct obd_file *plain = obd_zfile_open(payload, err);
	if (!plain)
		obd_file_close(payload);
	return plain;
}

struct obd_file *obd_blob_open(struct obd_file *blob, struct obd_err *err)
{
	struct obd_file *f = unwrap(blob, err);
	struct obd_file *both = f ? obd_file_own_also(f, blob) : NULL;
	if (f && !both) {
		obd_file_close(f);
		obd_err_set(err, ENOMEM, "out of memory");
	}
	return both;
}

static int read_trailer(struct obd_file *f, struct obd_lsmt_info *info, struct obd_err *err)
{
	unsigned char buf[OBD_LSMT_HEADER_BYTES];
	uint64_t bytes;
	int rc = obd_file_size(f, &bytes);
	if (rc)
		return obd_err_set(err, -rc, "size: %s", strerror(-rc));
	if (bytes < 2 * sizeof(buf))
		return obd_err_set(err, EINVAL, "lsmt trailer: file size is %" PRIu64 ", allowed: at least 8192", bytes);
	rc = obd_file_pread_full(f, buf, sizeof(buf), bytes - sizeof(buf));
	if (rc)
		return obd_err_set(err, -rc, "lsmt trailer: %s", strerror(-rc));
	return obd_lsmt_parse_trailer(buf, bytes, info, err);
}

static int read_index(struct obd_lsmt_layer *l, struct obd_err *err)
{
	const uint64_t bytes = obd_lsmt_index_bytes(&l->info);
	l->seg = malloc(bytes ? bytes : 1);
	if (!l->seg)
		return obd_err_set(err, ENOMEM, "lsmt index: no memory for %" PRIu64 " bytes", bytes);
	int rc = obd_file_pread_full(l->file, l->seg, bytes, l->info.index_offset);
	if (rc)
		return obd_err_set(err, -rc, "lsmt index: %s", strerror(-rc));
	return obd_lsmt_load_index(&l->info, l->seg, bytes, l->seg, &l->n, err);
}

static void layer_drop(struct obd_lsmt_layer *l)
{
	obd_file_close(l->file);
	free(l->seg);
	*l = (struct obd_lsmt_layer){0};
}

int obd_lsmt_layer_open(struct obd_file *blob, struct obd_lsmt_layer *out, struct obd_err *err)
{
	struct obd_lsmt_layer l = {.blob = blob};
	l.file = unwrap(blob, err);
	int rc = l.file ? read_trailer(l.file, &l.info, err) : -EINVAL;
	if (!rc)
		rc = read_index(&l, err);
	if (rc)
		layer_drop(&l);
	*out = l;
	return rc;
}

void obd_lsmt_layer_close(struct obd_lsmt_layer *layer)
{
	struct obd_file *blob = layer->blob;
	layer_drop(layer);
	obd_file_close(blob);
}

/* A view: files, an index that names them by tag, and, when it is a stack, the layers that are closed with it. */
struct view {
	struct obd_file **files;
	unsigned nfiles;
	const struct obd_lsmt_seg *seg;
	size_t n;
	uint64_t bytes;
	struct obd_lsmt_layer *layers;
	struct obd_lsmt_seg *own_seg;
};

/* Bytes from `at` on that are alike: *seg set and mapped, or zeros. */
static uint64_t piece(const struct view *v, uint64_t at, struct obd_lsmt_seg *seg, bool *mapped)
{
	const uint64_t sector = at / OBD_SECTOR_BYTES;
	const size_t i = obd_lsmt_lookup(v->seg, v->n, sector);
	*mapped = false;
	if (i == v->n)
		return v->bytes - at;
	*seg = v->seg[i];
	if (obd_lsmt_seg_offset(*seg) > sector)
		return obd_lsmt_seg_offset(*seg) * OBD_SECTOR_BYTES - at;
	*mapped = !obd_lsmt_seg_zeroed(*seg);
	return obd_lsmt_seg_end(*seg) * OBD_SECTOR_BYTES - at;
}

static int read_mapped(const struct view *v, struct obd_lsmt_seg s, uint64_t at, void *buf, size_t n)
{
	if (obd_lsmt_seg_tag(s) >= v->nfiles)
		return -EINVAL;
	const uint64_t in = at - obd_lsmt_seg_offset(s) * OBD_SECTOR_BYTES;
	return obd_file_pread_full(v->files[obd_lsmt_seg_tag(s)], buf, n, obd_lsmt_seg_moffset(s) * OBD_SECTOR_BYTES + in);
}

static ssize_t view_pread(void *ctx, void *buf, size_t n, uint64_t off)
{
	const struct view *v = ctx;
	size_t done = 0;
	if (off >= v->bytes)
		return 0;
	n = (size_t)obd_min_u64(n, v->bytes - off);
	while (done < n) {
		struct obd_lsmt_seg s;
		bool mapped;
		const size_t part = (size_t)obd_min_u64(n - done, piece(v, off + done, &s, &mapped));
		if (mapped) {
			int rc = read_mapped(v, s, off + done, (char *)buf + done, part);
			if (rc)
				return rc;
		} else {
			memset((char *)buf + done, 0, part);
		}
		done += part;
	}
	return (ssize_t)done;
}

static int view_size(void *ctx, uint64_t *bytes)
{
	*bytes = ((struct view *)ctx)->bytes;
	return 0;
}

static int view_next_data(void *ctx, uint64_t off, uint64_t *next)
{
	const struct view *v = ctx;
	struct obd_lsmt_seg s;
	bool mapped = false;
	while (off < v->bytes) {
		const uint64_t n = piece(v, off, &s, &mapped);
		if (mapped)
			break;
		off += obd_min_u64(n, v->bytes - off);
	}
	*next = off;
	return 0;
}

static void view_close(void *ctx)
{
	struct view *v = ctx;
	for (unsigned i = 0; v->layers && i < v->nfiles; i++)
		obd_lsmt_layer_close(&v->layers[i]);
	free(v->layers);
	free(v->own_seg);
	free(v->files);
	free(v);
}

static const struct obd_file_ops view_ops = {
	.pread = view_pread,
	.size = view_size,
	.next_data = view_next_data,
	.close = view_close,
};

struct obd_file *obd_view_open(struct obd_file *const files[], unsigned nfiles, const struct obd_lsmt_seg *seg, size_t n,
			       uint64_t virtual_size)
{
	struct view *v = calloc(1, sizeof(*v));
	struct obd_file **copy = malloc((nfiles ? nfiles : 1) * sizeof(*copy));
	struct obd_file *f = v && copy ? obd_file_new(&view_ops, v) : NULL;
	if (!f) {
		free(v);
		free(copy);
		return NULL;
	}
	for (unsigned i = 0; i < nfiles; i++)
		copy[i] = files[i];
	*v = (struct view){.files = copy, .nfiles = nfiles, .seg = seg, .n = n, .bytes = virtual_size};
	return f;
}

/* Opens the layers and merges their indexes. On failure nothing stays open. */
static int open_layers(struct obd_file *const blobs[], unsigned n, struct obd_lsmt_layer *layers, struct obd_lsmt_seg **seg,
		       size_t *nseg, struct obd_err *err)
{
	struct obd_lsmt_layer_index index[OBD_LSMT_MAX_LAYERS];
	unsigned opened = 0;
	int rc = 0;
	for (; opened < n && !rc; opened++) {
		rc = obd_lsmt_layer_open(blobs[opened], &layers[opened], err);
		if (rc)
			obd_err_prefix(err, rc, "layer %u", opened);
		index[opened] = (struct obd_lsmt_layer_index){.seg = layers[opened].seg, .n = layers[opened].n};
	}
	if (!rc) {
		rc = obd_lsmt_merge(index, n, seg, nseg);
		if (rc)
			obd_err_set(err, -rc, "merge: %s", strerror(-rc));
	}
	for (unsigned i = 0; rc && i < opened; i++)
		layer_drop(&layers[i]);
	return rc;
}

struct obd_file *obd_stack_open(struct obd_file *const blobs[], unsigned n, struct obd_err *err)
{
	struct obd_file *files[OBD_LSMT_MAX_LAYERS], *f = NULL;
	struct obd_lsmt_seg *seg = NULL;
	size_t nseg = 0;
	if (!n || n > OBD_LSMT_MAX_LAYERS) {
		obd_err_set(err, EINVAL, "stack: number of layers is %u, allowed: 1 to %u", n, OBD_LSMT_MAX_LAYERS);
		return NULL;
	}
	struct obd_lsmt_layer *layers = calloc(n, sizeof(*layers));
	if (!layers) {
		obd_err_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	if (open_layers(blobs, n, layers, &seg, &nseg, err))
		goto out;
	for (unsigned i = 0; i < n; i++)
		files[i] = layers[i].file;
	f = obd_view_open(files, n, seg, nseg, layers[n - 1].info.virtual_size);
	if (f) {
		((struct view *)f->ctx)->layers = layers;
		((struct view *)f->ctx)->own_seg = seg;
		return f;
	}
	obd_err_set(err, ENOMEM, "out of memory");
	for (unsigned i = 0; i < n; i++)
		layer_drop(&layers[i]);
out:
	free(seg);
	free(layers);
	return NULL;
}
