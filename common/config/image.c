/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "common/config/image.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/util.h"
#include "common/config/doc.h"
#include "common/config/file.h"
#include "common/config/json.h"
#include "common/config/value.h"

#define DIGEST_HEAD "sha256:"
#define DIGEST_HEX 64

static const char *const root_members[] = {"repoBlobUrl",     "lowers",		  "upper", "resultFile", "download",
					   "recordTracePath", "accelerationLayer"};
static const char *const lower_members[] = {"file", "dir", "digest", "size", "targetFile", "targetDigest", "gzipIndex"};
static const char *const upper_members[] = {"data", "index", "target", "gzipIndex"};

static void warn_unknown(struct obd_image_config *img, const json_t *obj, const char *where, const char *const *known,
			 size_t count)
{
	const char *key;
	json_t *value;
	json_object_foreach((json_t *)obj, key, value)
	{
		size_t i = 0;
		while (i < count && strcmp(known[i], key) != 0)
			i++;
		if (i == count)
			obd_warnings_add(&img->warnings, "%s%.64s is ignored", where, key);
	}
}

/* A copy of a string member; NULL when absent or empty. */
static int take_string(const json_t *obj, const char *key, char **to, struct obd_err *err)
{
	const char *s;
	int rc = obd_json_string(obj, key, OBD_OPT_STR_MAX, &s, err);
	if (rc || !s)
		return rc;
	*to = strdup(s);
	return *to ? 0 : obd_err_set(err, ENOMEM, "%s: no memory", key);
}

/* Refuses a member that marks a layer converted in place from a tar. */
static int refuse_turbo(const json_t *obj, const char *key, struct obd_err *err)
{
	const char *s;
	int rc = obd_json_string(obj, key, OBD_OPT_STR_MAX, &s, err);
	return rc || !s ? rc : obd_err_set(err, ENOTSUP, "%s: turboOCI layers are not supported", key);
}

/* For a member that must be an object where it is there at all; *out is NULL when it is absent or null. */
static int take_object(const json_t *obj, const char *key, const json_t **out, struct obd_err *err)
{
	*out = json_object_get(obj, key);
	if (json_is_null(*out))
		*out = NULL;
	return *out && !json_is_object(*out) ? obd_err_set(err, EINVAL, "%s: not an object", key) : 0;
}

static int take_size(const json_t *obj, uint64_t *to, struct obd_err *err)
{
	const json_t *v = json_object_get(obj, "size");
	if (!v || json_is_null(v))
		return 0;
	if (!json_is_integer(v) || json_integer_value(v) < 0)
		return obd_err_set(err, EINVAL, "size: not an integer of 0 or more");
	*to = (uint64_t)json_integer_value(v);
	return 0;
}

static int check_digest(const char *digest, struct obd_err *err)
{
	static const char head[] = DIGEST_HEAD;
	size_t n = sizeof head - 1;
	if (strncmp(digest, head, n) == 0 && strspn(digest + n, "0123456789abcdef") == DIGEST_HEX && !digest[n + DIGEST_HEX])
		return 0;
	return obd_err_set(err, EINVAL, "digest: \"%.100s\" is not sha256:<64 hex digits>", digest);
}

/* Rules between the members of one layer; has_repo: the image has a repoBlobUrl. */
static int check_lower(const struct obd_image_lower *l, bool has_repo, struct obd_err *err)
{
	int rc = l->digest ? check_digest(l->digest, err) : 0;
	if (rc || l->file)
		return rc;
	if (!l->digest && !l->dir)
		return obd_err_set(err, EINVAL, "file: missing, and there is no digest either");
	if (l->digest && !has_repo && !l->dir)
		return obd_err_set(err, EINVAL, "digest: the image has no repoBlobUrl to fetch it from");
	if (l->digest && has_repo && l->size == 0)
		return obd_err_set(err, EINVAL, "size: must be above 0 for a layer in a registry");
	return 0;
}

static int take_lower(struct obd_image_config *img, const json_t *obj, struct obd_image_lower *l, const char *where,
		      struct obd_err *err)
{
	char members[48];
	int rc;
	snprintf(members, sizeof members, "%s.", where);
	warn_unknown(img, obj, members, lower_members, OBD_ARRAY_SIZE(lower_members));
	if ((rc = refuse_turbo(obj, "targetFile", err)) || (rc = refuse_turbo(obj, "targetDigest", err)) ||
	    (rc = refuse_turbo(obj, "gzipIndex", err)) || (rc = take_string(obj, "file", &l->file, err)) ||
	    (rc = take_string(obj, "dir", &l->dir, err)) || (rc = take_string(obj, "digest", &l->digest, err)) ||
	    (rc = take_size(obj, &l->size, err)))
		return rc;
	return check_lower(l, img->repo_blob_url, err);
}

/* Puts "where." in front of the reason. */
static int name_member(struct obd_err *err, int rc, const char *where)
{
	if (rc == 0 || !err)
		return rc;
	struct obd_err why = *err;
	return obd_err_set(err, -rc, "%s.%s", where, why.msg);
}

static int take_lowers(struct obd_image_config *img, const json_t *root, struct obd_err *err)
{
	const json_t *list = json_object_get(root, "lowers");
	char where[32];
	if (!list || json_is_null(list))
		return 0;
	if (!json_is_array(list))
		return obd_err_set(err, EINVAL, "lowers: not a list");
	size_t n = json_array_size(list);
	if (n > OBD_IMAGE_LOWERS_MAX)
		return obd_err_set(err, EINVAL, "lowers: %zu layers, more than %d", n, OBD_IMAGE_LOWERS_MAX);
	img->lowers = calloc(n + 1, sizeof *img->lowers);
	if (!img->lowers)
		return obd_err_set(err, ENOMEM, "no memory");
	img->lower_count = (uint32_t)n;
	for (size_t i = 0; i < n; i++) {
		snprintf(where, sizeof where, "lowers[%zu]", i);
		const json_t *obj = json_array_get(list, i);
		if (!json_is_object(obj))
			return obd_err_set(err, EINVAL, "%s: not an object", where);
		int rc = take_lower(img, obj, &img->lowers[i], where, err);
		if (rc)
			return name_member(err, rc, where);
	}
	return 0;
}

static int take_upper_members(struct obd_image_config *img, const json_t *obj, struct obd_err *err)
{
	int rc;
	warn_unknown(img, obj, "upper.", upper_members, OBD_ARRAY_SIZE(upper_members));
	if ((rc = refuse_turbo(obj, "target", err)) || (rc = refuse_turbo(obj, "gzipIndex", err)) ||
	    (rc = take_string(obj, "data", &img->upper_data, err)) || (rc = take_string(obj, "index", &img->upper_index, err)))
		return rc;
	if (img->upper_index && !img->upper_data)
		return obd_err_set(err, EINVAL, "data: missing, but index is given");
	return 0;
}

static int take_upper(struct obd_image_config *img, const json_t *root, struct obd_err *err)
{
	const json_t *obj;
	int rc = take_object(root, "upper", &obj, err);
	return rc || !obj ? rc : name_member(err, take_upper_members(img, obj, err), "upper");
}

static int take_repo(struct obd_image_config *img, const json_t *root, struct obd_err *err)
{
	int rc = take_string(root, "repoBlobUrl", &img->repo_blob_url, err);
	if (rc || !img->repo_blob_url)
		return rc;
	size_t len = strlen(img->repo_blob_url);
	if (img->repo_blob_url[len - 1] == '/')
		img->repo_blob_url[len - 1] = 0;
	rc = obd_repo_url_parse(img->repo_blob_url, &img->repo, err);
	return obd_err_prefix(err, rc, "repoBlobUrl");
}

/* Which bit of download_set a member of download{} is; 0: none of them. */
static uint32_t download_bit(const char *key)
{
	static const char *const keys[] = {"enable", "delay", "delayExtra", "maxMBps", "tryCnt", "blockSize"};
	for (uint32_t i = 0; i < OBD_ARRAY_SIZE(keys); i++)
		if (strcmp(keys[i], key) == 0)
			return 1u << i;
	return 0;
}

static void download_from_config(const struct obd_config *cfg, struct obd_download *out)
{
	*out = (struct obd_download){
		.enable = cfg->download_enable,
		.delay_sec = cfg->download_delay,
		.delay_extra_sec = cfg->download_delay_extra,
		.max_mbps = cfg->download_max_mbps,
		.try_cnt = cfg->download_try_cnt,
		.block_size_bytes = cfg->download_block_size,
	};
}

/* The same rows of the table as the global download section, so the same types and ranges. */
static int set_download(struct obd_config *scratch, const char *key, json_t *value, struct obd_err *err)
{
	char name[64], text[32] = "";
	struct obd_doc node = {.kind = OBD_DOC_PLAIN, .json = true, .text = text};
	snprintf(name, sizeof name, "download.%s", key);
	const struct obd_option *o = obd_option_find(obd_config_options, obd_config_option_count, name);
	if (json_is_boolean(value))
		snprintf(text, sizeof text, "%s", json_is_true(value) ? "true" : "false");
	else if (json_is_integer(value))
		snprintf(text, sizeof text, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
	else
		return obd_err_set(err, EINVAL, "%s: neither an integer nor true or false", key);
	return obd_err_prefix(err, obd_option_set(o, scratch, &node, err), "%s", key);
}

static int take_download_members(struct obd_image_config *img, const json_t *obj, struct obd_err *err)
{
	struct obd_config scratch = {0};
	const char *key;
	json_t *value;
	json_object_foreach((json_t *)obj, key, value)
	{
		uint32_t bit = download_bit(key);
		if (!bit)
			obd_warnings_add(&img->warnings, "download.%.64s is ignored", key);
		if (!bit || json_is_null(value))
			continue;
		int rc = set_download(&scratch, key, value, err);
		if (rc)
			return rc;
		img->download_set |= bit;
	}
	download_from_config(&scratch, &img->download);
	return 0;
}

static int take_download(struct obd_image_config *img, const json_t *root, struct obd_err *err)
{
	const json_t *obj;
	int rc = take_object(root, "download", &obj, err);
	return rc || !obj ? rc : name_member(err, take_download_members(img, obj, err), "download");
}

static int take_acceleration(struct obd_image_config *img, const json_t *root, struct obd_err *err)
{
	const json_t *v = json_object_get(root, "accelerationLayer");
	if (v && !json_is_null(v) && !json_is_boolean(v))
		return obd_err_set(err, EINVAL, "accelerationLayer: not true or false");
	img->acceleration_layer = json_is_true(v);
	return 0;
}

static int take_root(struct obd_image_config *img, const json_t *root, struct obd_err *err)
{
	int rc;
	if (!json_is_object(root))
		return obd_err_set(err, EINVAL, "not a JSON object");
	warn_unknown(img, root, "", root_members, OBD_ARRAY_SIZE(root_members));
	if ((rc = take_string(root, "resultFile", &img->result_file, err)) ||
	    (rc = take_string(root, "recordTracePath", &img->record_trace_path, err)) || (rc = take_repo(img, root, err)) ||
	    (rc = take_upper(img, root, err)) || (rc = take_lowers(img, root, err)) || (rc = take_download(img, root, err)) ||
	    (rc = take_acceleration(img, root, err)))
		return rc;
	if (img->lower_count == 0 && !img->upper_data)
		return obd_err_set(err, EINVAL, "lowers: no layer, and no upper either");
	return 0;
}

int obd_image_config_parse(const char *buf, size_t len, const char *name, struct obd_image_config **out, struct obd_err *err)
{
	json_t *root;
	*out = NULL;
	if (len > OBD_IMAGE_BYTES_MAX)
		return obd_err_set(err, EFBIG, "%s: larger than %u bytes", name, OBD_IMAGE_BYTES_MAX);
	int rc = obd_json_parse(buf, len, name, &root, err);
	if (rc)
		return rc;
	struct obd_image_config *img = calloc(1, sizeof *img);
	rc = img ? take_root(img, root, err) : obd_err_set(err, ENOMEM, "no memory");
	obd_err_prefix(err, rc, "%s", name);
	json_decref(root);
	if (rc) {
		obd_image_config_free(img);
		return rc;
	}
	*out = img;
	return 0;
}

int obd_image_config_load(const char *path, struct obd_image_config **out, struct obd_err *err)
{
	char *buf;
	size_t len;
	*out = NULL;
	int rc = obd_file_read(path, OBD_IMAGE_BYTES_MAX, &buf, &len, err);
	if (rc)
		return rc;
	rc = obd_image_config_parse(buf, len, path, out, err);
	free(buf);
	return rc;
}

void obd_image_config_free(struct obd_image_config *img)
{
	if (!img)
		return;
	for (uint32_t i = 0; i < img->lower_count; i++) {
		free(img->lowers[i].file);
		free(img->lowers[i].dir);
		free(img->lowers[i].digest);
	}
	free(img->lowers);
	free(img->repo_blob_url);
	free(img->upper_data);
	free(img->upper_index);
	free(img->result_file);
	free(img->record_trace_path);
	obd_warnings_free(&img->warnings);
	free(img);
}

char *obd_image_config_result_file(const char *path)
{
	json_t *root;
	char *result = NULL;
	if (obd_json_load_file(path, OBD_IMAGE_BYTES_MAX, &root, NULL))
		return NULL;
	if (take_string(root, "resultFile", &result, NULL))
		result = NULL;
	json_decref(root);
	return result;
}

void obd_image_download(const struct obd_image_config *img, const struct obd_config *cfg, struct obd_download *out)
{
	download_from_config(cfg, out);
	if (img->download_set & OBD_DOWNLOAD_ENABLE)
		out->enable = img->download.enable;
	if (img->download_set & OBD_DOWNLOAD_DELAY)
		out->delay_sec = img->download.delay_sec;
	if (img->download_set & OBD_DOWNLOAD_DELAY_EXTRA)
		out->delay_extra_sec = img->download.delay_extra_sec;
	if (img->download_set & OBD_DOWNLOAD_MAX_MBPS)
		out->max_mbps = img->download.max_mbps;
	if (img->download_set & OBD_DOWNLOAD_TRY_CNT)
		out->try_cnt = img->download.try_cnt;
	if (img->download_set & OBD_DOWNLOAD_BLOCK_SIZE)
		out->block_size_bytes = img->download.block_size_bytes;
}
