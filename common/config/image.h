/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The image configuration: the JSON file that names a device's layers.
 *
 * Errors are one line that names file and field: "config.v1.json: lowers[2].digest: ...". Members that mean nothing here
 * are skipped and listed in warnings. A string is at most OBD_OPT_STR_MAX bytes without control characters; an empty
 * string and null are the same as an absent member. Paths are kept as they are written.
 */
#ifndef OBD_COMMON_CONFIG_IMAGE_H
#define OBD_COMMON_CONFIG_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/config/config.h"
#include "common/config/url.h"
#include "common/config/warnings.h"

#define OBD_IMAGE_LOWERS_MAX 255
#define OBD_IMAGE_BYTES_MAX (1u << 20)

/*
 * One read-only layer. Absent strings are NULL.
 *   file                 the local layer; nothing else counts
 *   else dir             dir/overlaybd.commit, if that exists (the caller looks)
 *   else digest + size   from the registry; the image then has a repo_blob_url
 * A layer has at least one of the three. A layer with dir but without digest, or without the image's repo_blob_url, can only
 * come from dir.
 */
struct obd_image_lower {
	char *file;
	char *dir;
	char *digest;  /* sha256:<64 lower-case hex digits> */
	uint64_t size; /* bytes of the blob; > 0 where it may come from the registry, else 0 when unknown; <= INT64_MAX */
};

/* Settings of background download, either one image's or those in force. */
struct obd_download {
	bool enable;
	uint32_t delay_sec;
	uint32_t delay_extra_sec;
	uint32_t max_mbps;
	uint32_t try_cnt;
	uint32_t block_size_bytes;
};

/* Which members of struct obd_download an image sets. */
enum {
	OBD_DOWNLOAD_ENABLE = 1 << 0,
	OBD_DOWNLOAD_DELAY = 1 << 1,
	OBD_DOWNLOAD_DELAY_EXTRA = 1 << 2,
	OBD_DOWNLOAD_MAX_MBPS = 1 << 3,
	OBD_DOWNLOAD_TRY_CNT = 1 << 4,
	OBD_DOWNLOAD_BLOCK_SIZE = 1 << 5,
};

struct obd_image_config {
	char *repo_blob_url;		/* without a trailing slash; NULL when absent */
	struct obd_repo_url repo;	/* its parts; all zero when absent */
	uint32_t lower_count;		/* 0 to OBD_IMAGE_LOWERS_MAX; 0 only with an upper */
	struct obd_image_lower *lowers; /* bottom to top */
	char *upper_data;		/* NULL: the device is read-only */
	char *upper_index;		/* NULL with upper_data set: a sparse upper */
	char *result_file;
	char *record_trace_path;
	bool acceleration_layer;
	uint32_t download_set; /* OBD_DOWNLOAD_* bits */
	struct obd_download download;
	struct obd_warnings warnings; /* for the caller to log */
};

/*
 * Reads a regular file of at most OBD_IMAGE_BYTES_MAX. On success *out is the caller's, to be freed with
 * obd_image_config_free(); otherwise *out is NULL, err is filled, and the return value is -EINVAL for what the file says,
 * -ENOTSUP for layers of a kind that is not supported, else the system's errno. Does not look at the layers themselves.
 */
int obd_image_config_load(const char *path, struct obd_image_config **out, struct obd_err *err);

/* The same from memory; name stands for the file in messages. */
int obd_image_config_parse(const char *buf, size_t len, const char *name, struct obd_image_config **out, struct obd_err *err);

/* NULL is allowed. */
void obd_image_config_free(struct obd_image_config *img);

/* The resultFile of an image configuration that may be wrong in every other way, so that its failure can be reported there.
 * Returns a string to free(), or NULL when the file cannot be read, is no JSON object or names none. */
char *obd_image_config_result_file(const char *path);

/* What is in force for this image: its own settings where it has them, else the global ones. */
void obd_image_download(const struct obd_image_config *img, const struct obd_config *cfg, struct obd_download *out);

#endif
