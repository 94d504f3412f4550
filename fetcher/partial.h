/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The file that a background download fills, and what becomes of it (doc/architecture.md 4.10).
 *
 *   dir/.overlaybd.download        the blob's bytes at their offsets
 *   dir/.overlaybd.download.state  how many from the start are there
 *   dir/overlaybd.commit           the whole, checked
 *
 * Everything here blocks and knows nothing of loops or the segment; any thread may call it, in any process. Files are opened
 * for the call only. Errors are negative errnos with a line; among them
 *
 *   -EBUSY    somebody else has the file open, or exchanged it just now: try again soon
 *   -EBADMSG  the whole is not what the digest says, and was thrown away
 */
#ifndef OBD_FETCHER_PARTIAL_H
#define OBD_FETCHER_PARTIAL_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/atomic.h"
#include "common/base/err.h"

#define OBD_COMMIT_NAME "overlaybd.commit"
#define OBD_PARTIAL_NAME ".overlaybd.download"
#define OBD_PARTIAL_STATE_NAME ".overlaybd.download.state"

struct obd_partial {
	const char *dir;
	const char *digest; /* sha256:<64 lower-case hex digits> */
	uint64_t bytes;
};

/* Finds or makes the partial file; *floor: so many bytes from the start are there. A file of another blob, or one that nobody
 * knows the state of, is emptied. -ENOSPC when the rest would not fit. With an overlaybd.commit there already, *floor is all.
 */
int obd_partial_prepare(const struct obd_partial *p, uint64_t *floor, struct obd_err *err);

/* Writes n bytes at start. floor: everything before it is written, which is noted. */
int obd_partial_write(const struct obd_partial *p, uint64_t start, const unsigned char *buf, size_t n, uint64_t floor,
		      struct obd_err *err);

/* Identity of a finished file. */
struct obd_partial_file {
	uint64_t dev;
	uint64_t ino;
	int64_t mtime_ns;
};

/* Lets the caller follow a call that takes long, and end it. */
struct obd_partial_watch {
	_Atomic uint32_t *pulse;      /* counts up */
	const _Atomic uint32_t *stop; /* not 0: -ECANCELED soon */
};

/*
 * All bytes are written: checks the digest, syncs, renames. An overlaybd.commit that is there already is checked instead, and
 * stays in any case: -EEXIST when it is something else.
 */
int obd_partial_finish(const struct obd_partial *p, const struct obd_partial_watch *watch, struct obd_partial_file *out,
		       struct obd_err *err);

#endif
