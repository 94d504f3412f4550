/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The keeper of the disk tier's space: obd-cached's half of doc/architecture.md 4.14. A thread with memory of its own looks at
 * cacheDir, keeps it below its limit and keeps disk free; the loop hears of it through a mailbox, and never waits for a disk.
 *
 *   fetchers ──faults, bytes written──► loop ──orders──► thread ──looks──► loop ──► table.disk
 */
#ifndef OBD_SHMCACHE_CACHED_KEEPER_H
#define OBD_SHMCACHE_CACHED_KEEPER_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/base/clock.h"

struct obd_keeper_limits {
	const char *dir;
	uint64_t size_bytes;	/* of all files together */
	uint64_t reserve_bytes; /* that stay free on the file system */
};

/* What the thread saw. */
struct obd_keeper_look {
	int err;       /* positive errno: the directory cannot be used */
	int write_err; /* positive errno: nothing may be added */
	bool told;     /* the supervisor cannot use it either, and said so */
	char what[96]; /* says more than the errno; "": nothing */
	uint64_t used_bytes;
	uint64_t free_bytes;
	uint64_t room_bytes; /* may be written until the next look, all fetchers together */
	uint32_t blobs;
	uint64_t evictions; /* units, counts for ever */
};

/* May the directory be used, and (try_writing) does it take bytes? Sets err, write_err, what. Blocks. On the thread. */
void obd_keeper_check(const struct obd_keeper_limits *limits, bool try_writing, struct obd_keeper_look *look);

/* Usage and free space now, after making room if need be; evictions is added to. Blocks. On the thread, after a good check. */
void obd_keeper_measure(const struct obd_keeper_limits *limits, struct obd_keeper_look *look);

struct cached;

/* Starts the thread, if there is a disk tier, and waits for its first word, but not long. A tier that cannot be is a warning.
 */
void obd_keeper_start(struct cached *c);
void obd_keeper_stop(struct cached *c);

#endif
