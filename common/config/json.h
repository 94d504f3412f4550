/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * JSON from files that somebody else wrote: bounded in size and depth, no member twice, no NUL in strings.
 *
 * For every JSON reader of the project; jansson itself is used on the values. Reentrant.
 */
#ifndef OBD_COMMON_CONFIG_JSON_H
#define OBD_COMMON_CONFIG_JSON_H

#include <jansson.h>
#include <stddef.h>

#include "common/base/err.h"

#define OBD_JSON_DEPTH_MAX 64

/* Parses len bytes whose root is an object or an array. On success *out is a new reference for the caller. Otherwise -EINVAL,
 * *out NULL, and err "NAME:LINE: reason", which never quotes the input: it may hold secrets. */
int obd_json_parse(const char *buf, size_t len, const char *name, json_t **out, struct obd_err *err);

/* The same from a regular file of at most max_bytes; other errors as in obd_file_read(). */
int obd_json_load_file(const char *path, size_t max_bytes, json_t **out, struct obd_err *err);

/*
 * Fetches the string member key of obj. Absent, null and "" give 0 with *out NULL; a string gives 0 with *out lent by obj.
 * Otherwise -EINVAL and err "KEY: reason": another type, longer than max_bytes, or with control characters.
 */
int obd_json_string(const json_t *obj, const char *key, size_t max_bytes, const char **out, struct obd_err *err);

#endif
