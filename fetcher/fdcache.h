/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Open layer files, the most recently used kept open. A file is found by its identity; what lies on the disk is looked at by
 * obd_fd_open and obd_fd_check, which may block and go on any thread. All else is one thread's and blocks nowhere.
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
	bool near;   /* fstat does not block: the user's to set */
	uint32_t refs;
	uint64_t dev;
	uint64_t ino;
};

struct obd_fdcache;

struct obd_fdcache *obd_fdcache_new(void);
void obd_fdcache_free(struct obd_fdcache *c); /* NULL is allowed */

/* The open file that target names, with one more reference; NULL: there is none. Its identity wants to be checked. */
struct obd_fd *obd_fdcache_find(struct obd_fdcache *c, const struct obd_local_target *target);

/* Takes fd in, with one reference. NULL: no memory, and fd is closed. */
struct obd_fd *obd_fdcache_add(struct obd_fdcache *c, const struct obd_local_target *target, int fd, bool direct);
void obd_fdcache_put(struct obd_fdcache *c, struct obd_fd *file);

/* A descriptor of target, checked. *direct asks for O_DIRECT and says whether it came to that. Or -ESTALE: another file, or
 * changed; -EINVAL: no regular file; the errno of open. */
int obd_fd_open(const struct obd_local_target *target, bool *direct, struct obd_err *err);

/* 0, or as above. */
int obd_fd_check(int fd, const struct obd_local_target *target, struct obd_err *err);

#endif
