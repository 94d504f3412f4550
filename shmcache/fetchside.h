/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The segment as a fetcher uses it: take jobs, fill frames, report (doc/architecture.md 4.4 and 4.6).
 *
 * One struct obd_fetchside per fetcher process, single-threaded. Nothing blocks. Life of a job:
 *
 *   obd_fetch_next -> job copy -> obd_fetch_begin(frame i) -> write obd_fetch_data(i) -> obd_fetch_valid(i, bytes) |
 * obd_fetch_fail(i, errno)
 *                  -> obd_fetch_done(job, errno, reason)
 *
 * Every frame of the job must be VALID or FAILED before obd_fetch_done; obd_fetch_done fails the ones that are not, with the
 * job's errno.
 */
#ifndef OBD_SHMCACHE_FETCHSIDE_H
#define OBD_SHMCACHE_FETCHSIDE_H

#include <stdbool.h>
#include <stdint.h>

#include "shmcache/catalog.h"
#include "shmcache/segment.h"

struct obd_fetch_job {
	uint32_t slot; /* job slot, 0 … OBD_JOB_SLOTS-1 */
	uint64_t seq;
	enum obd_job_kind kind;
	uint32_t layer_slot;
	uint32_t layer_uid;
	uint32_t block; /* first block or raw chunk; raw chunks count from the blob's end, see obd_raw_chunk */
	uint32_t nblocks;
	uint32_t begin; /* the first byte wanted of the first block */
	uint32_t end;	/* and where those of the last one end; 0: with the block */
	uint32_t frame[OBD_JOB_FRAMES];
	uint64_t generation[OBD_JOB_FRAMES];
	uint32_t retry_ms;	    /* see obd_fetch_retry_after */
	uint64_t settled;	    /* bit i: frame i is VALID or FAILED */
	uint64_t net_bytes;	    /* what came from the network for it: the fetcher adds, obd_fetch_done tells */
	struct obd_down_order down; /* kind DOWNLOAD; numbers as cached wrote them */
};

struct obd_fetchside {
	struct obd_segment *seg;
	struct obd_fetcher_area *own;
	uint32_t index;
	uint32_t incarnation;
	uint64_t running[OBD_JOB_SLOTS];    /* seq of the run in this process; 0: none */
	uint32_t rescan;		    /* next slot of the first scan; OBD_JOB_SLOTS: finished */
	uint64_t unreported[OBD_JOB_SLOTS]; /* reports a full ring did not take; repeated by obd_fetch_next */
};

/* Adopts area `index` after a start or restart: remembers nothing as running, so every live job is run (again). */
void obd_fetch_attach(struct obd_fetchside *fs, struct obd_segment *seg, uint32_t index, uint32_t incarnation);

/* Copies the next job to run; false: none now, or cached has not admitted this incarnation yet. Jobs this process runs or has
 * finished are skipped; jobs with impossible fields are counted (protocol_errors) and skipped. */
bool obd_fetch_next(struct obd_fetchside *fs, struct obd_fetch_job *job);

/* Is there something to take? For the arm hook. */
bool obd_fetch_has_work(const struct obd_fetchside *fs);

/* Frame i of the job (0 … nblocks-1) is going to be overwritten: readers of its old contents will notice. */
void obd_fetch_begin(struct obd_fetchside *fs, struct obd_fetch_job *job, uint32_t i);

/* Where its block_bytes go. Only between begin and valid/fail. */
unsigned char *obd_fetch_data(struct obd_fetchside *fs, const struct obd_fetch_job *job, uint32_t i);

/* Publishes the first `bytes` bytes of frame i; reports it at once if cached said that somebody waits for it. */
void obd_fetch_valid(struct obd_fetchside *fs, struct obd_fetch_job *job, uint32_t i, uint32_t bytes);

/* The same for bytes [begin, end) of the block, which is longer. */
void obd_fetch_part(struct obd_fetchside *fs, struct obd_fetch_job *job, uint32_t i, uint32_t begin, uint32_t end);

/* Publishes that frame i failed with a positive errno. Fine without begin. */
void obd_fetch_fail(struct obd_fetchside *fs, struct obd_fetch_job *job, uint32_t i, int err);

/*
 * Ends the job: err 0 or a positive errno for the frames not yet settled, reason one line (may be NULL). Wakes cached if it
 * sleeps. Errnos cached treats as transient (asks again until readTimeoutSec): EAGAIN, ETIMEDOUT, ECONNREFUSED, ECONNRESET,
 * EHOSTUNREACH, ENETUNREACH, EPIPE, EBUSY. Final: ENOENT (404), EACCES (401/403), EBADMSG (CRC wrong after retries), EIO,
 * ESTALE, EPROTO, …
 */
void obd_fetch_done(struct obd_fetchside *fs, struct obd_fetch_job *job, int err, const char *reason);

/* Before obd_fetch_done with a transient errno: the registry asked not to be asked again for so long. */
void obd_fetch_retry_after(struct obd_fetch_job *job, uint32_t ms);
/* What a job of kind DOWNLOAD led to; just before obd_fetch_done. */
void obd_fetch_down_result(struct obd_fetchside *fs, const struct obd_fetch_job *job, const struct obd_down_result *result);

/*
 * Copies compressed bytes [start, end) of the layer's blob from raw chunks in the cache, as far as a prefix of the range
 * (from_end false) or a suffix (from_end true) is there; returns how many bytes were copied to dst (prefix) or to dst + (end -
 * start - n) (suffix).
 */
uint64_t obd_fetch_from_raw(struct obd_fetchside *fs, const struct obd_layer_view *layer, uint64_t start, uint64_t end,
			    bool from_end, unsigned char *dst);

#endif
