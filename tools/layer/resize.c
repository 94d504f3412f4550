/* SPDX-License-Identifier: GPL-2.0-or-later */
/* overlaybd-resize: another size for the device of an image with a writable layer. See overlaybd-resize(1). */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/config/image.h"
#include "common/format/upper.h"
#include "tools/layer/tool.h"

static const char usage[] = "usage: overlaybd-resize --config CONFIG --size GB [--shrink]\n"
			    "  --config CONFIG   the image; it must have an upper layer, and nothing may use it\n"
			    "  --size SIZE       gigabytes, or with a suffix: B, K, M, G, T\n"
			    "  --shrink          allow a smaller size\n";

enum { OPT_CONFIG = TOOL_OPT_OWN, OPT_SIZE, OPT_SHRINK };

static const struct option options[] = {
	{"config", required_argument, NULL, OPT_CONFIG},
	{"size", required_argument, NULL, OPT_SIZE},
	{"shrink", no_argument, NULL, OPT_SHRINK},
	TOOL_COMMON_OPTIONS,
	{0},
};

static int resize_upper(const struct obd_image_config *image, uint64_t bytes, bool shrink, struct obd_err *err)
{
	struct obd_upper *u;
	if (!image->upper_data)
		return obd_err_set(err, EROFS, "the image has no upper layer");
	int rc = obd_upper_open(image->upper_data, image->upper_index, true, &u, err);
	if (rc)
		return rc;
	if (bytes < obd_upper_size(u) && !shrink)
		rc = obd_err_set(err, EINVAL, "the size is %" PRIu64 " now; less needs --shrink", obd_upper_size(u));
	else
		rc = obd_upper_resize(u, bytes, err);
	obd_upper_close(u);
	return rc;
}

static int resize(const char *config, uint64_t bytes, bool shrink, struct obd_err *err)
{
	struct obd_image_config *image;
	int rc = obd_image_config_load(config, &image, err);
	if (rc)
		return rc;
	rc = obd_err_prefix(err, resize_upper(image, bytes, shrink, err), "%s", config);
	obd_image_config_free(image);
	return rc;
}

int main(int argc, char **argv)
{
	const char *config = NULL, *size = NULL;
	struct obd_err err = {""};
	bool shrink = false;
	uint64_t bytes = 0;
	int c;
	tool_start("overlaybd-resize");
	while ((c = getopt_long(argc, argv, "v", options, NULL)) != -1) {
		if (c == OPT_CONFIG)
			config = optarg;
		else if (c == OPT_SIZE)
			size = optarg;
		else if (c == OPT_SHRINK)
			shrink = true;
		else
			tool_common_option(c, usage);
	}
	if (!config || !size || argc != optind)
		tool_usage("--config and --size are needed, and nothing else; --help tells more");
	if (!tool_size(size, &bytes))
		tool_usage("--size is \"%s\", allowed: a number of gigabytes, or with a suffix B, K, M, G, T", size);
	return tool_end(resize(config, bytes, shrink, &err), &err);
}
