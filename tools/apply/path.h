/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Names as layer tars hold them. Pure functions on text; nothing here looks at a file system.
 *
 * A clean path is relative to the root, has no empty, "." or ".." component and no slash at either end; "" is the root.
 */
#ifndef OBD_TOOLS_APPLY_PATH_H
#define OBD_TOOLS_APPLY_PATH_H

#include <limits.h>

#include "common/base/err.h"

#define OBD_NAME_BYTES_MAX 255u

enum obd_name_kind {
	OBD_NAME_ENTRY,	   /* a file, a directory, ... of this layer */
	OBD_NAME_WHITEOUT, /* hides what lower layers have under this path */
	OBD_NAME_OPAQUE,   /* hides what lower layers have in the directory of this path */
	OBD_NAME_IGNORE,   /* bookkeeping of other tools (".wh..wh.*") */
};

/*
 * Makes a path clean: "/a", "./a" and "x/../a" become "a", and ".." at the root stays there, so that no name leaves it.
 * 0, -EINVAL (empty), -ENAMETOOLONG (a component above 255 bytes, a path of PATH_MAX or more).
 */
int obd_path_clean(const char *name, char out[PATH_MAX], struct obd_err *err);

/* Tells what the clean path means in a layer and turns the path of a whiteout (an opaque marker) into that of what it hides
 * (the directory). 0 or -EINVAL: a whiteout of nothing, or something below a whiteout. */
int obd_path_classify(char *path, enum obd_name_kind *kind, struct obd_err *err);

/* name for a message: control characters become '?', and a long one is cut. Returns out. */
const char *obd_path_show(const char *name, char out[200]);

#endif
