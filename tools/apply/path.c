/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tools/apply/path.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#define WHITEOUT ".wh."
#define META ".wh..wh."
#define OPAQUE ".wh..wh..opq"

static bool is_dots(const char *name, size_t len)
{
	return (len == 1 && name[0] == '.') || (len == 2 && name[0] == '.' && name[1] == '.');
}

static bool starts(const char *name, const char *prefix)
{
	return strncmp(name, prefix, strlen(prefix)) == 0;
}

/* Takes the last component off; the root stays the root. */
static size_t cut_last(const char *path, size_t len)
{
	while (len && path[len - 1] != '/')
		len--;
	return len ? len - 1 : 0;
}

int obd_path_clean(const char *name, char out[PATH_MAX], struct obd_err *err)
{
	size_t len = 0;
	if (!*name)
		return obd_err_set(err, EINVAL, "empty name");
	while (*name) {
		const size_t n = strcspn(name, "/");
		if (n == 2 && is_dots(name, n)) {
			len = cut_last(out, len);
		} else if (n && !is_dots(name, n)) {
			if (n > OBD_NAME_BYTES_MAX)
				return obd_err_set(err, ENAMETOOLONG, "a component of the path has %zu bytes, allowed: %u", n,
						   OBD_NAME_BYTES_MAX);
			if (len + n + 2 > PATH_MAX)
				return obd_err_set(err, ENAMETOOLONG, "the path is longer than %d bytes", PATH_MAX - 1);
			if (len)
				out[len++] = '/';
			memcpy(out + len, name, n);
			len += n;
		}
		name += n;
		name += strspn(name, "/");
	}
	out[len] = '\0';
	return 0;
}

/* A component before the last one that looks like a whiteout. */
static int check_parents(const char *path, const char *last, enum obd_name_kind *kind, struct obd_err *err)
{
	for (const char *at = path; at < last; at = strchr(at, '/') + 1) {
		if (starts(at, META))
			*kind = OBD_NAME_IGNORE;
		else if (starts(at, WHITEOUT))
			return obd_err_set(err, EINVAL, "the path leads through a whiteout");
	}
	return 0;
}

int obd_path_classify(char *path, enum obd_name_kind *kind, struct obd_err *err)
{
	char *slash = strrchr(path, '/');
	char *last = slash ? slash + 1 : path;
	*kind = OBD_NAME_ENTRY;
	const int rc = check_parents(path, last, kind, err);
	if (rc || *kind == OBD_NAME_IGNORE || !starts(last, WHITEOUT))
		return rc;
	if (strcmp(last, OPAQUE) == 0) {
		*kind = OBD_NAME_OPAQUE;
		*(slash ? slash : path) = '\0';
		return 0;
	}
	if (starts(last, META)) {
		*kind = OBD_NAME_IGNORE;
		return 0;
	}
	const char *hidden = last + strlen(WHITEOUT);
	if (!*hidden || is_dots(hidden, strlen(hidden)))
		return obd_err_set(err, EINVAL, "a whiteout of no name");
	*kind = OBD_NAME_WHITEOUT;
	memmove(last, hidden, strlen(hidden) + 1);
	return 0;
}

const char *obd_path_show(const char *name, char out[200])
{
	size_t i;
	for (i = 0; name[i] && i < 195; i++)
		out[i] = (unsigned char)name[i] < 0x20 || name[i] == 0x7f ? '?' : name[i];
	strcpy(out + i, name[i] ? "..." : "");
	return out;
}
