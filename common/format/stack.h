/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Synchronous readers for tools and tests: a layer blob in whatever wrapping, and a stack of them as one raw image.
 * Everything here blocks and allocates; a file made here is used by one thread at a time.
 */
#ifndef OBD_COMMON_FORMAT_STACK_H
#define OBD_COMMON_FORMAT_STACK_H

#include "common/base/err.h"
#include "common/format/file.h"
#include "common/format/lsmt.h"

/* The uncompressed layer file inside blob: takes off a tar wrapper and a ZFile where they are. The result owns blob.
 * NULL with a line in err, blob is then still the caller's. */
struct obd_file *obd_blob_open(struct obd_file *blob, struct obd_err *err);

/* A read-only layer with its checked index. */
struct obd_lsmt_layer {
	struct obd_file *blob;	   /* as it was opened */
	struct obd_file *file;	   /* its uncompressed bytes */
	struct obd_lsmt_info info; /* of the trailer */
	struct obd_lsmt_seg *seg;
	size_t n;
};

/* Opens a blob as a layer: *out owns it, obd_lsmt_layer_close releases all. 0 or a negative
 * errno, blob is then still the caller's. */
int obd_lsmt_layer_open(struct obd_file *blob, struct obd_lsmt_layer *out, struct obd_err *err);
void obd_lsmt_layer_close(struct obd_lsmt_layer *layer);

/* The raw image of a stack of blobs, blobs[0] at the bottom; its size is the top layer's virtual size. Owns all blobs on
 * success; on failure (NULL, err names the layer) they are all still the caller's. */
struct obd_file *obd_stack_open(struct obd_file *const blobs[], unsigned n, struct obd_err *err);

/* An image over open layers and a merged (or any sorted) index, tag = number in files[]; everything is borrowed. */
struct obd_file *obd_view_open(struct obd_file *const files[], unsigned nfiles, const struct obd_lsmt_seg *seg, size_t n,
			       uint64_t virtual_size);

#endif
