/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tools/apply/image.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/base/log.h"
#include "common/config/image.h"
#include "common/format/stack.h"
#include "common/format/upper.h"

static struct obd_file *open_lower(const struct obd_image_lower *lower, unsigned number, struct obd_err *err)
{
	char path[PATH_MAX];
	const char *from = lower->file;
	if (!from && lower->dir && snprintf(path, sizeof(path), "%s/overlaybd.commit", lower->dir) < (int)sizeof(path))
		from = path;
	if (!from) {
		obd_err_set(err, ENOENT, "lowers[%u]: not a local layer: fetch it and name it by file or dir", number);
		return NULL;
	}
	struct obd_file *f = obd_file_open_path(from, O_RDONLY, 0, err);
	if (!f)
		obd_err_prefix(err, -1, "lowers[%u]", number);
	return f;
}

/* All lower layers as one image; NULL with *rc 0 when there are none. */
static struct obd_file *open_lowers(const struct obd_image_config *cfg, int *rc, struct obd_err *err)
{
	struct obd_file *blobs[OBD_IMAGE_LOWERS_MAX], *stack = NULL;
	unsigned n = 0;
	*rc = 0;
	if (cfg->lower_count == 0)
		return NULL;
	while (n < cfg->lower_count && (blobs[n] = open_lower(&cfg->lowers[n], n, err)))
		n++;
	if (n == cfg->lower_count)
		stack = obd_stack_open(blobs, n, err);
	if (!stack) {
		*rc = -1;
		while (n)
			obd_file_close(blobs[--n]);
	}
	return stack;
}

static struct obd_file *open_view(const struct obd_image_config *cfg, struct obd_err *err)
{
	struct obd_upper *upper = NULL;
	struct obd_file *view;
	int rc;
	if (!cfg->upper_data) {
		obd_err_set(err, EROFS, "no upper layer to write to");
		return NULL;
	}
	struct obd_file *lowers = open_lowers(cfg, &rc, err);
	if (rc)
		return NULL;
	if (obd_upper_open(cfg->upper_data, cfg->upper_index, true, &upper, err)) {
		obd_file_close(lowers);
		return NULL;
	}
	view = obd_image_view_open(lowers, upper, err);
	if (!view) {
		obd_file_close(lowers);
		obd_upper_close(upper);
	}
	return view;
}

struct obd_file *obd_apply_open_config(const char *path, struct obd_err *err)
{
	struct obd_image_config *cfg;
	if (obd_image_config_load(path, &cfg, err))
		return NULL;
	struct obd_file *view = open_view(cfg, err);
	if (!view)
		obd_err_prefix(err, -1, "%s", path);
	obd_image_config_free(cfg);
	return view;
}

int obd_apply_sync_config(void *image)
{
	return obd_image_view_sync(image);
}

struct obd_file *obd_apply_open_raw(const char *path, int *fd, struct obd_err *err)
{
	*fd = open(path, O_RDWR | O_CLOEXEC);
	if (*fd < 0) {
		obd_err_set(err, errno, "%s: %s", path, strerror(errno));
		return NULL;
	}
	struct obd_file *f = obd_file_open_fd(*fd, err);
	if (!f)
		close(*fd);
	return f;
}

int obd_apply_sync_raw(void *fd)
{
	return fsync(*(int *)fd) ? -errno : 0;
}
