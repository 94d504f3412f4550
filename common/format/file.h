/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A file as a table of operations: what synchronous users of the formats (tools, tests) read from and write to.
 *
 * Ownership: whoever holds a struct obd_file * closes it once with obd_file_close. A wrapper (window, zfile, stack) that
 * opens successfully owns the file below it and closes it with itself; when opening fails the file stays the caller's.
 * All calls may block. One file is used by one thread at a time unless its implementation says otherwise.
 */
#ifndef OBD_COMMON_FORMAT_FILE_H
#define OBD_COMMON_FORMAT_FILE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/base/err.h"

struct obd_file_ops {
	/* Reads up to n bytes at off. Returns the count (short only at the end of the file) or a negative errno. */
	ssize_t (*pread)(void *ctx, void *buf, size_t n, uint64_t off);
	/* Writes all n bytes at off. Returns 0 or a negative errno. NULL: read-only. */
	int (*pwrite)(void *ctx, const void *buf, size_t n, uint64_t off);
	/* Stores the size in bytes. Returns 0 or a negative errno. */
	int (*size)(void *ctx, uint64_t *bytes);
	/* Optional: stores the first offset >= off that may hold something other than zeros, the size when there is none.
	 * Returns 0 or a negative errno. Without it every byte counts as data. */
	int (*next_data)(void *ctx, uint64_t off, uint64_t *next);
	/* Releases ctx. NULL: nothing to release. */
	void (*close)(void *ctx);
};

struct obd_file {
	const struct obd_file_ops *ops;
	void *ctx;
};

/* A new file over ops and ctx; NULL when memory is short (ctx then stays the caller's). */
struct obd_file *obd_file_new(const struct obd_file_ops *ops, void *ctx);

/* Closes and frees; NULL is allowed. */
void obd_file_close(struct obd_file *f);

/* Reads up to n bytes at off; short only at the end. Returns the count or a negative errno. */
ssize_t obd_file_pread(struct obd_file *f, void *buf, size_t n, uint64_t off);

/* Reads exactly n bytes. 0, -ENODATA when the file ends before off + n, or the errno of the read. */
int obd_file_pread_full(struct obd_file *f, void *buf, size_t n, uint64_t off);

/* Writes all n bytes. 0 or a negative errno; -EROFS when the file has no write operation. */
int obd_file_pwrite(struct obd_file *f, const void *buf, size_t n, uint64_t off);

int obd_file_size(struct obd_file *f, uint64_t *bytes);

/* The first offset >= off that may hold something other than zeros (holes are skipped); off itself when not known. */
int obd_file_next_data(struct obd_file *f, uint64_t off, uint64_t *next);

/* A file over descriptor fd, which the file then owns (closed with it). Regular files and block devices; usable from
 * several threads at once. NULL and errno's line in err on failure, fd is then still the caller's. */
struct obd_file *obd_file_open_fd(int fd, struct obd_err *err);

/* open(2) with O_CLOEXEC added, then obd_file_open_fd. mode matters with O_CREAT only. */
struct obd_file *obd_file_open_path(const char *path, int flags, mode_t mode, struct obd_err *err);

/* A read-only file over len bytes at buf, which stay the caller's and must outlive the file. */
struct obd_file *obd_file_open_mem(const void *buf, size_t len);

/* An empty file in memory that grows as it is written, up to max_bytes (-EFBIG beyond it). */
struct obd_file *obd_file_new_mem(uint64_t max_bytes);

/* The bytes [offset, offset + bytes) of base as a file of its own. bytes = UINT64_MAX: to the end, and writes may grow
 * it. The window owns base. */
struct obd_file *obd_file_window(struct obd_file *base, uint64_t offset, uint64_t bytes);

/* The same file as f, which it owns; closing it closes `also` after f. */
struct obd_file *obd_file_own_also(struct obd_file *f, struct obd_file *also);

/* The same file without its ownership: closing the result leaves base open. */
struct obd_file *obd_file_borrow(struct obd_file *base);

#endif
