/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Writable layers over files, and an image made of read-only layers with a writable one on top.
 *
 *     append-only   data file:  | header 4096 | data in order of writing ...          |
 *                   index file: | header 4096 | 16-byte records in order of writing ... |
 *     sparse        data file:  | header 4096 | the device, sector n at 4096 + 512·n; holes are unmapped |
 *                   index file: none, or empty, or a header alone
 *
 * Rules that every writer keeps, here and in asynchronous code that uses the parts below:
 *   - a record goes into the index file only after its data are in the data file;
 *   - a sync is fdatasync of the data file, then of the index file;
 *   - one writer at a time (flock), and it repairs what a crash left before it appends anything (obd_upper_load says what).
 *
 * Everything blocks and allocates unless said otherwise. Offsets and sizes of the device are bytes, multiples of 512.
 * Functions return 0 or a negative errno; those with an err put one line into it.
 */
#ifndef OBD_COMMON_FORMAT_UPPER_H
#define OBD_COMMON_FORMAT_UPPER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/base/err.h"
#include "common/format/file.h"
#include "common/format/lsmt.h"

/* ---- parts: pure functions on what the files hold ---------------------------------------------------------------------- */

#define OBD_UPPER_RECORDS_MAX (UINT64_C(1) << 26) /* in an index file: no reader takes more, no writer may make more */
#define OBD_UPPER_WRITE_MAX (4u << 20) /* bytes that one record of data covers at most: what existing writers keep to */
#define OBD_UPPER_DISCARD_MAX ((uint64_t)OBD_LSMT_LENGTH_MAX * OBD_SECTOR_BYTES)

/* How many of the next `bytes` of a write or discard one record takes. */
static inline uint64_t obd_upper_piece_bytes(uint64_t bytes, bool zeroed)
{
	const uint64_t most = zeroed ? OBD_UPPER_DISCARD_MAX : OBD_UPPER_WRITE_MAX;
	return bytes < most ? bytes : most;
}

/* The index record of one piece. data_end: byte of the data file where its data stand; for a discard, where the next data
 * would. Records are never joined in the file (in memory obd_lsmt_seg_joins tells which may be). */
static inline struct obd_lsmt_seg obd_upper_record(uint64_t offset, uint64_t bytes, uint64_t data_end, bool zeroed)
{
	return obd_lsmt_seg_make(offset / OBD_SECTOR_BYTES, (uint32_t)(bytes / OBD_SECTOR_BYTES), data_end / OBD_SECTOR_BYTES,
				 zeroed, 0);
}

/* What an open finds in the files. */
struct obd_upper_state {
	struct obd_lsmt_info info; /* of the data file's header */
	struct obd_lsmt_seg *seg;  /* sorted, not overlapping; free(seg) */
	size_t n;
	bool sparse;
	uint64_t data_end;  /* append-only: byte where the next data go */
	uint64_t index_end; /* append-only: byte where the next record goes */
	/* Append-only: bytes [index_end, file's end) and [data_end, file's end) are what a crash left: cut them off. */
	bool torn;
	/* Records before index_end whose data never reached the data file. They are not in seg, but would come to life when
	 * the data file grows over their place: a writer overwrites each by padding (obd_upper_repair) before it appends. */
	size_t ndead;
};

/*
 * Reads headers and index. data and index stay the caller's; index is NULL when none is named (sparse only). Sparse: the
 * segments come from the holes of data_fd (-1: taken as one without holes). -EINVAL: not a writable layer, or the two
 * files do not belong together; otherwise as obd_lsmt_load_append_index.
 */
int obd_upper_load(struct obd_file *data, int data_fd, struct obd_file *index, struct obd_upper_state *st, struct obd_err *err);

/* Makes the files fit for appending: dead records become padding, torn ends are cut off, both are synced. Append-only
 * state only; the state's ends hold afterwards. */
int obd_upper_repair(int data_fd, int index_fd, struct obd_upper_state *st, struct obd_err *err);

/* An index file of fewer records is left as it is. */
#define OBD_UPPER_COMPACT_RECORDS UINT64_C(65536)

/* Has the index file of this state many more records than it needs, or so many that it will be full? */
bool obd_upper_wants_compaction(const struct obd_upper_state *st);

/*
 * Replaces the index file, which is at index_path and open at *index_fd, by one that has st's segments and nothing else. Old
 * or new: no crash leaves anything between. 0: *index_fd and st are the new one's. Otherwise nothing has changed and the old
 * file may be used on, unless *fatal: then something is not on stable storage that ought to be, and nobody can say what. The
 * caller has the lock and a state that was repaired.
 */
int obd_upper_compact(int data_fd, int *index_fd, const char *index_path, struct obd_upper_state *st, bool *fatal,
		      struct obd_err *err);

/*
 * How coarse the holes of a file may be at most, as its file system says: a power of two from 4096 on. They may be finer, and
 * differ from place to place. 0: coarser than OBD_UPPER_HOLE_MAX, too coarse to be used.
 */
#define OBD_UPPER_HOLE_MAX (UINT32_C(16) << 20)
uint32_t obd_upper_hole_bytes(uint64_t st_blksize);

struct obd_upper_create_opts {
	uint64_t virtual_size; /* a multiple of 512, at least 512 */
	const char *uuid;      /* NULL: a random one */
	const char *parent_uuid;
	const char *tag;
	bool sparse;
};

/* Writes the headers of an empty layer into two empty files (index_fd -1: none; sparse only). Not synced. */
int obd_upper_format(int data_fd, int index_fd, const struct obd_upper_create_opts *opts, struct obd_err *err);

/* A random (version 4) uuid as text. 0 or a negative errno. */
int obd_uuid_make(char uuid[OBD_LSMT_UUID_BYTES]);

/* True for 36 characters of hexadecimal digits and dashes in their places. */
bool obd_uuid_ok(const char *uuid);

/* ---- a writable layer ------------------------------------------------------------------------------------------------- */

struct obd_upper;

/* Makes the files (mode 0644 less umask) and their headers; -EEXIST when one exists, nothing is left behind on failure.
 * -ENOTSUP: sparse, and the file system's holes are too coarse for it.
 * index NULL or "": none, sparse only. */
int obd_upper_create(const char *data, const char *index, const struct obd_upper_create_opts *opts, struct obd_err *err);

/*
 * Opens a layer; which form it is stands in the data file. index NULL or "": none (sparse). writable takes the lock
 * alone and repairs; reading takes it shared. -EBUSY: somebody else has it.
 */
int obd_upper_open(const char *data, const char *index, bool writable, struct obd_upper **out, struct obd_err *err);

/* Releases all; no sync. NULL is allowed. */
void obd_upper_close(struct obd_upper *u);

const struct obd_lsmt_info *obd_upper_info(const struct obd_upper *u);
bool obd_upper_is_sparse(const struct obd_upper *u);
uint64_t obd_upper_size(const struct obd_upper *u);

/* The data file, borrowed: source 0 of obd_lsmt_commit for the segments below. */
struct obd_file *obd_upper_data(struct obd_upper *u);

/* The layer's segments now: sorted, neighbours joined, free(*seg); NULL when *n is 0. 0 or -ENOMEM. */
int obd_upper_segments(const struct obd_upper *u, struct obd_lsmt_seg **seg, size_t *n);

enum obd_upper_what {
	OBD_UPPER_UNMAPPED, /* the layers below decide */
	OBD_UPPER_ZEROED,   /* zeros, whatever lies below */
	OBD_UPPER_DATA,
};

/* What is at off, and how many bytes from there on are alike (0 at the end of the device). Does not block. */
uint64_t obd_upper_at(const struct obd_upper *u, uint64_t off, enum obd_upper_what *what);

/* Reads n bytes at off, any alignment, short at the end of the device; what is unmapped is left as it is in buf. */
ssize_t obd_upper_pread(struct obd_upper *u, void *buf, size_t n, uint64_t off);

/* Writes; n and off are multiples of 512, all within the device (-EINVAL, -ENOSPC). After an error the range holds old
 * or new data by sector. A sparse file's holes may be as coarse as its file system's blocks: there, keep off and n to
 * multiples of obd_upper_granule, or fill the rest with what lies below; else a reopened layer shows zeros beside n. */
int obd_upper_pwrite(struct obd_upper *u, const void *buf, size_t n, uint64_t off);
uint32_t obd_upper_granule(const struct obd_upper *u); /* 512 for append-only layers */

/* The range reads as zeros from now on. below: some layer below maps part of it (a sparse layer then gets zeros, not a
 * hole; an append-only one takes no notice). Alignment and errors as obd_upper_pwrite. */
int obd_upper_discard(struct obd_upper *u, uint64_t off, uint64_t n, bool below);

int obd_upper_sync(struct obd_upper *u);

/* Gives the device another size, synced. -EINVAL: not a multiple of 512, or something is mapped behind the new end. */
int obd_upper_resize(struct obd_upper *u, uint64_t bytes, struct obd_err *err);

/*
 * Closes the layer for writing in place: sorted index and trailer go behind the data, so that the data file is a
 * read-only layer by itself (the index file is no longer needed). Append-only layers, opened writable, then only
 * obd_upper_close is allowed. -ENOTSUP: sparse. -E2BIG: too many entries.
 */
int obd_upper_seal(struct obd_upper *u, struct obd_err *err);

/* ---- an image that can be written ------------------------------------------------------------------------------------- */

/*
 * lower (a stack as one image, as obd_stack_open makes it; NULL: nothing below) with u on top, as one file of u's size:
 * reads are merged, writes go to u. Owns both on success; NULL with a line in err otherwise, both are then still the
 * caller's. Reads may have any alignment, writes must have multiples of 512 (-EINVAL).
 */
struct obd_file *obd_image_view_open(struct obd_file *lower, struct obd_upper *u, struct obd_err *err);

/* For files that obd_image_view_open made: */
int obd_image_view_discard(struct obd_file *view, uint64_t off, uint64_t n);
int obd_image_view_sync(struct obd_file *view);
struct obd_upper *obd_image_view_upper(struct obd_file *view); /* still owned by view */

#endif
