/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What disk.c (queues, the loop's side) and disk_io.c (files, the threads' side) share. */
#ifndef OBD_FETCHER_DISK_IMPL_H
#define OBD_FETCHER_DISK_IMPL_H

#include <pthread.h>

#include "common/base/list.h"
#include "common/format/marks.h"
#include "fetcher/disk.h"

#define OBD_DISK_READERS 4u
#define OBD_DISK_THREADS (OBD_DISK_READERS + 1u) /* the last one writes */
#define OBD_DISK_OPEN_BLOBS 64u

enum obd_disk_op { OBD_DISK_READ, OBD_DISK_WRITE, OBD_DISK_DROP };

/* One piece of work. The loop's until it is queued, then a thread's, then (done) the loop's again. */
struct obd_disk_req {
	struct obd_list link; /* todo or done; under the lock */
	enum obd_disk_op op;
	bool taken; /* by a thread; under the lock */
	/* what */
	char hash[65]; /* of the origin: the directory */
	struct obd_marks_geo geo;
	uint32_t n;
	struct obd_disk_unit unit[OBD_DISK_UNITS];
	unsigned char *buf; /* WRITE: what to write; READ: what was read */
	uint64_t bytes;	    /* of buf */
	uint64_t base;	    /* WRITE: where in the blob it begins */
	bool refresh;	    /* READ: ages may be written */
	/* outcome */
	int err;	   /* positive errno of the disk: the tier does not work */
	uint64_t moved;	   /* bytes read or written */
	uint32_t ndropped; /* WRITE: units not stored */
	uint32_t ncorrupt;
	struct obd_disk_got got;
};

/* Files of one blob, open. */
struct obd_disk_files {
	bool used;
	bool stale; /* goes with its last reference */
	uint32_t refs;
	uint64_t used_at;
	char hash[65];
	struct obd_marks_geo geo;
	int marks_fd;
	int data_fd;
};

struct obd_disk_store {
	char *dir;
	pthread_mutex_t lock; /* of what follows */
	uint64_t now_used;
	struct obd_disk_files files[OBD_DISK_OPEN_BLOBS];
};

/* Does the work; blocks. On a thread. */
void obd_disk_run(struct obd_disk_store *s, struct obd_disk_req *req);

void obd_disk_store_init(struct obd_disk_store *s, char *dir);
void obd_disk_store_done(struct obd_disk_store *s);

#endif
