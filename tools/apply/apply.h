/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A layer tar onto the file system of an image. */
#ifndef OBD_TOOLS_APPLY_APPLY_H
#define OBD_TOOLS_APPLY_APPLY_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/format/file.h"
#include "tools/apply/tar_reader.h"

struct obd_apply_opts {
	bool make_fs;		     /* make a file system first */
	int (*sync)(void *sync_ctx); /* makes the image durable; may be NULL */
	void *sync_ctx;
};

struct obd_apply_result {
	uint64_t entries;
	struct obd_tar_digests digests; /* empty unless the reader computes them */
};

/*
 * Applies all entries in order, whiteouts included. The image stays the caller's. Blocks; memory is bounded whatever the
 * tar says, but for its largest directory. 0 or a negative errno with a line that names the entry; the file system is then
 * marked as not clean (unless nothing was begun), and applying to it again is refused.
 */
int obd_apply(struct obd_file *image, struct obd_tar_reader *tar, const struct obd_apply_opts *opts,
	      struct obd_apply_result *out, struct obd_err *err);

#endif
