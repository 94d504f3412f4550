/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The image configuration. What is accepted keeps the promises of image.h. */
#include <stdlib.h>
#include <string.h>

#include "common/config/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_lower(const struct obd_image_config *img, const struct obd_image_lower *l)
{
	if (!l->file && !l->dir && !l->digest)
		abort();
	if (l->digest && strlen(l->digest) != 7 + 64)
		abort();
	if (!l->file && l->digest && (img->repo_blob_url ? l->size == 0 : !l->dir))
		abort();
	if (l->size > INT64_MAX)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct obd_image_config *img;
	struct obd_err err = {{0}};
	if (obd_image_config_parse((const char *)data, size, "fuzz", &img, &err)) {
		if (img || !err.msg[0])
			abort();
		return 0;
	}
	if (img->lower_count > OBD_IMAGE_LOWERS_MAX || (!img->lower_count && !img->upper_data))
		abort();
	for (uint32_t i = 0; i < img->lower_count; i++)
		check_lower(img, &img->lowers[i]);
	if (img->repo_blob_url && (!img->repo.repo[0] || !img->repo.host[0] || !img->repo.port))
		abort();
	obd_image_config_free(img);
	return 0;
}
