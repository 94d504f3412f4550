/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Local files as a source (source.h for the rules of sinks).
 *
 * A file is what it was when its layer was opened: device, inode, mtime and size are compared before every request, and a file
 * that differs gives ESTALE. Descriptors are kept for a while. One of three engines reads: psync by pread on threads, libaio
 * and POSIX aio in the kernel and in libc.
 *
 * No disk holds up the loop, or the files of other disks: whatever may block goes to threads, of which one disk gets a few. A
 * piece that takes longer than the limit is given up (ETIMEDOUT, worth another try), and as long as it hangs, reads of that
 * disk which find no thread fail at once.
 */
#ifndef OBD_FETCHER_LOCAL_H
#define OBD_FETCHER_LOCAL_H

#include <stdbool.h>
#include <stdint.h>

#include "common/daemon/loop.h"
#include "fetcher/source.h"
#include "fetcher/stats.h"

enum obd_local_engine { OBD_LOCAL_PSYNC, OBD_LOCAL_LIBAIO, OBD_LOCAL_POSIX_AIO, OBD_LOCAL_ENGINES };

/* Copied by obd_local_read; path is absolute. */
struct obd_local_target {
	const char *path;
	uint64_t dev;
	uint64_t ino;
	int64_t mtime_ns;
	uint64_t bytes; /* of the whole file */
};

struct obd_local;

/* NULL with errno set. stats (the caller's) outlives the source. */
struct obd_local *obd_local_new(struct obd_loop *loop, enum obd_local_engine engine, struct obd_fetch_stats *stats);

/* How long one piece may take; 5 s if nobody says otherwise. */
void obd_local_set_limit(struct obd_local *local, uint32_t ms);

/* Reads bytes [start, end); start == end only checks the file's identity. 0 or -ENOMEM, then without a call of done. */
int obd_local_read(struct obd_local *local, const struct obd_local_target *target, uint64_t start, uint64_t end,
		   const struct obd_source_sink *sink, void *arg);

/* Does a bounded amount of work; true when it did some. For the loop's poll hook. */
bool obd_local_poll(struct obd_local *local);

/* Is there work that obd_local_poll would do? */
bool obd_local_has_work(const struct obd_local *local);

/* Waits for the reads under way, but not long for threads that hang: then memory is left as it is for the end of the process.
 * Calls nobody's done any more. NULL is allowed. */
void obd_local_free(struct obd_local *local);

#endif
