/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "common/config/json.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/config/file.h"

/* The deepest nesting of brackets outside strings. jansson recurses, with a limit of its own that is too deep for the small
 * stacks of some callers. */
static unsigned int nesting(const char *buf, size_t len)
{
	unsigned int depth = 0, deepest = 0;
	bool string = false;
	for (size_t i = 0; i < len; i++) {
		char c = buf[i];
		if (string) {
			if (c == '\\')
				i++;
			else if (c == '"')
				string = false;
		} else if (c == '"') {
			string = true;
		} else if (c == '[' || c == '{') {
			if (++depth > deepest)
				deepest = depth;
		} else if ((c == ']' || c == '}') && depth) {
			depth--;
		}
	}
	return deepest;
}

int obd_json_parse(const char *buf, size_t len, const char *name, json_t **out, struct obd_err *err)
{
	*out = NULL;
	if (nesting(buf, len) > OBD_JSON_DEPTH_MAX)
		return obd_err_set(err, EINVAL, "%s: nested more than %d levels deep", name, OBD_JSON_DEPTH_MAX);
	json_error_t je;
	*out = json_loadb(buf, len, JSON_REJECT_DUPLICATES, &je);
	if (*out)
		return 0;
	char *quote = strstr(je.text, " near '");
	if (quote)
		*quote = 0;
	return obd_err_set(err, EINVAL, "%s:%d: not valid JSON: %s", name, je.line < 1 ? 1 : je.line, je.text);
}

int obd_json_load_file(const char *path, size_t max_bytes, json_t **out, struct obd_err *err)
{
	char *buf;
	size_t len;
	*out = NULL;
	int rc = obd_file_read(path, max_bytes, &buf, &len, err);
	if (rc)
		return rc;
	rc = obd_json_parse(buf, len, path, out, err);
	free(buf);
	return rc;
}

int obd_json_string(const json_t *obj, const char *key, size_t max_bytes, const char **out, struct obd_err *err)
{
	*out = NULL;
	const json_t *v = json_object_get(obj, key);
	if (!v || json_is_null(v))
		return 0;
	if (!json_is_string(v))
		return obd_err_set(err, EINVAL, "%s: not a string", key);
	const char *s = json_string_value(v);
	size_t len = json_string_length(v);
	if (len > max_bytes)
		return obd_err_set(err, EINVAL, "%s: longer than %zu bytes", key, max_bytes);
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)s[i] < 0x20 || s[i] == 0x7f)
			return obd_err_set(err, EINVAL, "%s: has control characters", key);
	if (len)
		*out = s;
	return 0;
}
