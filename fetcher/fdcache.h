/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Open layer files, the most recently used kept open. A file is found by its identity, and the identity is checked by every
 * obd_fdcache_get. Own memory, one thread; opening may block.
 */
#ifndef OBD_FETCHER_FDCACHE_H
#define OBD_FETCHER_FDCACHE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/list.h"

#define OBD_FDCACHE_KEEP 64u

struct obd_local_target;

struct obd_fd {
	struct obd_list link;
	int fd;
	bool direct; /* opened with O_DIRECT */
	uint32_t refs;
	uint64_t dev;
	uint64_t ino;
};

struct obd_fdcache;

struct obd_fdcache *obd_fdcache_new(void);
void obd_fdcache_free(struct obd_fdcache *c); /* NULL is allowed */

/*
 * The open file that target names, with one more reference. direct asks for O_DIRECT; where the file system refuses, the file
 * is opened without it (see (*out)->direct). 0; -ESTALE: another file, or changed; the errno of open; -EINVAL: no regular file.
 */
int obd_fdcache_get(struct obd_fdcache *c, const struct obd_local_target *target, bool direct, struct obd_fd **out,
		    struct obd_err *err);
void obd_fdcache_put(struct obd_fdcache *c, struct obd_fd *file);

#endif
