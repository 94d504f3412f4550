/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The descriptors of the group: regions that cached deposits, client areas, doorbells. They outlive every process but this one.
 *
 * The supervisor maps none of them. A read-only grant is the same memory opened again through /proc/self/fd with O_RDONLY, so
 * that a writable mapping of it is refused by the kernel.
 */
#ifndef OBD_SUPERVISOR_STORE_H
#define OBD_SUPERVISOR_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "supervisor/grants.h"

struct obd_store {
	int *fds[OBD_KINDS];	    /* obd_kind_count() of them each; -1: none */
	uint64_t client_area_bytes; /* cached's SETTING; 0: not told yet */
};

/* An empty store. Returns 0 or -ENOMEM. */
int obd_store_init(struct obd_store *s);

/* Closes everything. */
void obd_store_free(struct obd_store *s);

/* The descriptor, which stays the store's, or -1. index is below obd_kind_count(). */
int obd_store_get(const struct obd_store *s, enum obd_kind kind, uint32_t index);

/* Puts fd, which is the store's from now on, in place of what was there (closed). fd -1 empties the place. */
void obd_store_put(struct obd_store *s, enum obd_kind kind, uint32_t index, int fd);

/* A DEPOSIT of cached. fd is taken in every case. Returns 0, or -EPROTO with a line: unknown name, index out of range, there is
 * one already, not memory. */
int obd_store_deposit(struct obd_store *s, const char *name, uint32_t index, int fd, struct obd_err *err);

/* A SETTING of cached. Returns 0, or -EPROTO with a line: unknown name, impossible value. */
int obd_store_setting(struct obd_store *s, const char *name, uint64_t value, struct obd_err *err);

/* Is everything there that a group with that many fetchers needs? 0, or -EPROTO with a line that names what is missing. */
int obd_store_check(const struct obd_store *s, uint32_t fetchers, struct obd_err *err);

/* Forgets deposits and settings: cached died while it was creating them. */
void obd_store_clear_deposits(struct obd_store *s);

/* New doorbell, and a new zeroed area of client_area_bytes that nobody can resize. A descriptor or a negative errno. */
int obd_store_new_bell(void);
int obd_store_new_area(const struct obd_store *s);

/* fd opened again for reading only: a new descriptor or a negative errno. */
int obd_store_read_only(int fd);

#endif
