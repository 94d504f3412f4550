/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The image that a configuration (or the path of a raw file) names, opened for writing. */
#ifndef OBD_TOOLS_APPLY_IMAGE_H
#define OBD_TOOLS_APPLY_IMAGE_H

#include "common/base/err.h"
#include "common/format/file.h"

/* Lower layers must be local: `file`, or `dir` with an overlaybd.commit in it. Writes go to the upper layer. NULL with a
 * line in err that names the layer. */
struct obd_file *obd_apply_open_config(const char *path, struct obd_err *err);

/* Makes what obd_apply_open_config's image holds durable. */
int obd_apply_sync_config(void *image);

/* A raw image: a regular file or a block device. *fd is its descriptor, owned by the result. */
struct obd_file *obd_apply_open_raw(const char *path, int *fd, struct obd_err *err);

/* fsync of the descriptor at ctx. */
int obd_apply_sync_raw(void *fd);

#endif
