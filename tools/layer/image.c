/* SPDX-License-Identifier: GPL-2.0-or-later */
/* An image as its configuration names it, as far as its layers are local. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/config/image.h"
#include "common/format/stack.h"
#include "common/format/upper.h"
#include "tools/layer/tool.h"

static struct obd_file *open_lower(const struct obd_image_lower *l, unsigned i, struct obd_err *err)
{
	char path[4096];
	if (l->file)
		snprintf(path, sizeof(path), "%s", l->file);
	else if (l->dir)
		snprintf(path, sizeof(path), "%s/overlaybd.commit", l->dir);
	else {
		obd_err_set(err, ENOENT, "lowers[%u]: only its registry has it, and this program reads local files", i);
		return NULL;
	}
	return obd_file_open_path(path, O_RDONLY, 0, err);
}

int image_lowers(const struct obd_image_config *config, struct obd_file ***blobs, unsigned *n, struct obd_err *err)
{
	struct obd_file **list = calloc(config->lower_count ? config->lower_count : 1, sizeof(struct obd_file *));
	*blobs = NULL;
	*n = 0;
	if (!list)
		return obd_err_set(err, ENOMEM, "out of memory");
	for (unsigned i = 0; i < config->lower_count; i++) {
		list[i] = open_lower(&config->lowers[i], i, err);
		if (list[i])
			continue;
		while (i)
			obd_file_close(list[--i]);
		free(list);
		return -ENOENT;
	}
	*blobs = list;
	*n = config->lower_count;
	return 0;
}

static int open_stack(const struct obd_image_config *config, struct obd_file **stack, struct obd_err *err)
{
	struct obd_file **blobs;
	unsigned n;
	*stack = NULL;
	int rc = image_lowers(config, &blobs, &n, err);
	if (rc || !n) {
		free(blobs);
		return rc;
	}
	*stack = obd_stack_open(blobs, n, err);
	for (unsigned i = 0; !*stack && i < n; i++)
		obd_file_close(blobs[i]);
	free(blobs);
	return *stack ? 0 : -EINVAL;
}

static struct obd_file *open_image(const struct obd_image_config *config, bool writable, struct obd_err *err)
{
	struct obd_file *stack, *view = NULL;
	struct obd_upper *upper = NULL;
	if (writable && !config->upper_data) {
		obd_err_set(err, EROFS, "the image has no upper layer to write to");
		return NULL;
	}
	if (open_stack(config, &stack, err))
		return NULL;
	if (!config->upper_data)
		return stack;
	if (!obd_upper_open(config->upper_data, config->upper_index, writable, &upper, err))
		view = obd_image_view_open(stack, upper, err);
	if (!view) {
		obd_upper_close(upper);
		obd_file_close(stack);
	}
	return view;
}

struct obd_file *image_open(const char *config_path, bool writable, struct obd_err *err)
{
	struct obd_image_config *config;
	if (obd_image_config_load(config_path, &config, err))
		return NULL;
	struct obd_file *f = open_image(config, writable, err);
	if (!f)
		obd_err_prefix(err, -EINVAL, "%s", config_path);
	obd_image_config_free(config);
	return f;
}
