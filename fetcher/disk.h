/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The disk tier: bytes of registries' blobs, as they were fetched, in files under cacheDir (common/format/marks.h).
 *
 *   job.c ──read──►  todo ──► reader threads ──► done ──► got() in the loop        what is there, CRC checked
 *         ──write─►  todo ──► a writer thread                                     behind the answer, dropped when busy
 *
 * All I/O is done by threads of this module, none by the loop. A read that takes longer than OBD_DISK_DEADLINE_NS is given up:
 * its caller goes to the registry. Nothing that happens to the disk is an error of the caller: units that cannot be had are
 * missing, units that cannot be stored are dropped. What failed is said once per epoch by obd_disk_fault, until then the tier
 * is not used here; whether it is used at all is told by obd_disk_gate.
 *
 * A blob is known by its registry and its digest: what came from one registry is never given out as another's.
 */
#ifndef OBD_FETCHER_DISK_H
#define OBD_FETCHER_DISK_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/clock.h"
#include "common/daemon/loop.h"
#include "fetcher/stats.h"

#define OBD_DISK_UNITS 64u
#define OBD_DISK_DEADLINE_NS OBD_SECOND_NS
#define OBD_DISK_BUFFER_BYTES (32u << 20) /* waits to be written, at most */

struct obd_disk;
struct obd_disk_read;

/* Strings are copied. origin: scheme://host:port of the registry; digest: of the blob. */
struct obd_disk_blob {
	const char *origin;
	const char *digest;
	uint64_t blob_bytes;
};

/* A raw chunk, or the stored bytes of a block, with its place in the blob. */
struct obd_disk_unit {
	uint64_t start;
	uint32_t bytes;
	uint32_t number;
	bool raw;
};

/* What a read found: at[i] are the bytes of unit i if bit i of have is set. Valid during the call only. */
struct obd_disk_got {
	uint64_t have;
	const unsigned char *at[OBD_DISK_UNITS];
};

typedef void obd_disk_got_fn(void *arg, const struct obd_disk_got *got);

/* What the group says of the tier. */
struct obd_disk_gate {
	uint64_t epoch; /* another one: a fault is forgotten */
	bool read;
	bool write;
	uint64_t look; /* another one: room_bytes counts anew */
	uint64_t room_bytes;
};

/* Nothing is touched on disk before the first read or write. dir is copied; stats outlives it. NULL with errno set. */
struct obd_disk *obd_disk_new(struct obd_loop *loop, const char *dir, uint32_t block_bytes, struct obd_fetch_stats *stats);

/* Before the first call the tier is off. Cheap. */
void obd_disk_gate(struct obd_disk *d, const struct obd_disk_gate *gate);

/* What failed in this epoch: a positive errno, or 0. */
int obd_disk_fault(const struct obd_disk *d);

/*
 * Looks for 1 … OBD_DISK_UNITS units of a blob, all raw or all not, with numbers that lie within OBD_DISK_UNITS of each other.
 * 0: got is called later, once, from the loop; *out can be cancelled until then. -EAGAIN: the tier is not to be used now;
 * -ENOMEM; -EINVAL: a blob that cannot have a file. No call of got after an error.
 */
int obd_disk_read(struct obd_disk *d, const struct obd_disk_blob *blob, const struct obd_disk_unit *unit, uint32_t n,
		  obd_disk_got_fn *got, void *arg, struct obd_disk_read **out);
void obd_disk_cancel(struct obd_disk_read *read);

/* Memory for `bytes` bytes, of n units, that obd_disk_write may be given; NULL, with the units counted: nothing is written now.
 */
unsigned char *obd_disk_buffer(struct obd_disk *d, uint64_t bytes, uint32_t n);
void obd_disk_buffer_free(struct obd_disk *d, unsigned char *buf, uint64_t bytes);

/* Stores units, with numbers as in obd_disk_read. buf (of obd_disk_buffer, `bytes` long) holds the blob from byte `base` on and
 * covers every unit; it is taken in every case. */
void obd_disk_write(struct obd_disk *d, const struct obd_disk_blob *blob, const struct obd_disk_unit *unit, uint32_t n,
		    unsigned char *buf, uint64_t bytes, uint64_t base);

/* The bytes of this unit are wrong, though their CRC was right. */
void obd_disk_drop(struct obd_disk *d, const struct obd_disk_blob *blob, const struct obd_disk_unit *unit);

/* Writes what waits, for two seconds at most; then frees. A thread that the disk holds is left behind with its memory. Calls
 * nobody's got any more. NULL is allowed. */
void obd_disk_free(struct obd_disk *d);

#endif
