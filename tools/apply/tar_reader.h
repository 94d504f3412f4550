/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A layer tar as a sequence of entries: plain, gzip or zstd, from a descriptor that need not seek.
 *
 *     fd ──► sha256 ──► gunzip, unzstd ──► sha256 ──► tar ──► entries and their data
 *
 * Formats: ustar, GNU (long names, sparse), pax (any field, sparse, extended attributes of SCHILY and LIBARCHIVE).
 * Names are bytes; those in pax headers must be UTF-8 in a UTF-8 locale, else they are refused rather than changed.
 * Memory is bounded by the largest header (1 MiB) and sparse map, not by the number or size of entries.
 */
#ifndef OBD_TOOLS_APPLY_TAR_READER_H
#define OBD_TOOLS_APPLY_TAR_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/base/err.h"

struct obd_tar_xattr {
	const char *name; /* with its name space: "user.x" */
	const void *value;
	size_t bytes;
};

/* Valid until the next call on the reader. */
struct obd_tar_entry {
	const char *name; /* as in the tar */
	const char *link; /* target of a hard link or of a symbolic link, else NULL */
	bool hard_link;	  /* then the fields below mean nothing */
	mode_t mode;	  /* S_IFMT and permissions */
	uint32_t uid, gid;
	int64_t mtime_sec;
	uint32_t mtime_nsec;
	uint32_t major, minor;
	uint64_t bytes;			    /* of a regular file, holes included */
	const struct obd_tar_xattr *xattrs; /* sorted by name, each name once */
	size_t nxattrs;
};

struct obd_tar_digests {
	char tar[65];	/* of the bytes read, lower-case hex */
	char plain[65]; /* of the uncompressed tar: the layer's diff id */
};

struct obd_tar_reader;

/* Reads from fd, which stays the caller's. digests: compute them. NULL with a line in err. */
struct obd_tar_reader *obd_tar_reader_open(int fd, bool digests, struct obd_err *err);

/* The same over bytes in memory, which stay the caller's. */
struct obd_tar_reader *obd_tar_reader_open_mem(const void *buf, size_t len, struct obd_err *err);

void obd_tar_reader_close(struct obd_tar_reader *r);

/* 1: *e is the next entry; 0: the archive ended as it should; negative errno with a line in err. */
int obd_tar_next(struct obd_tar_reader *r, struct obd_tar_entry *e, struct obd_err *err);

/* The next piece of the current entry's data: 1; 0 at the end. Holes are left out. */
int obd_tar_data(struct obd_tar_reader *r, const void **buf, size_t *n, uint64_t *off, struct obd_err *err);

/* After the last entry: reads what follows the archive, so that the digests cover all of the input. out may be NULL. */
int obd_tar_finish(struct obd_tar_reader *r, struct obd_tar_digests *out, struct obd_err *err);

#endif
