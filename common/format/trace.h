/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Trace files: what a device read while it started, so that the next start can have it fetched ahead.
 *
 *     header 24 | record 24 | record 24 | ...
 *
 *     header   u32 magic, 4 bytes 0, u64 bytes of all records, u32 checksum, 4 bytes 0
 *     record   char op 'R', 3 bytes, u32 layer (0 is the bottom one), u64 count, u64 offset
 *
 * Offset and count are bytes of the layer's uncompressed file. The checksum is the CRC-32C register from 0 over the records as
 * they stand in the file; other writers leave anything in a record's three bytes. Pure: bytes in, records out. No allocation.
 */
#ifndef OBD_COMMON_FORMAT_TRACE_H
#define OBD_COMMON_FORMAT_TRACE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"

#define OBD_TRACE_MAGIC 3270449184u
#define OBD_TRACE_HEADER_BYTES 24u
#define OBD_TRACE_RECORD_BYTES 24u
#define OBD_TRACE_RECORDS_MAX 262144u /* more is refused: 16 GiB of single blocks, far beyond any start */
#define OBD_TRACE_COUNT_MAX 1048576u  /* what a record that we write asks for at most: other readers' buffers are this long */
#define OBD_TRACE_FILE_MAX (OBD_TRACE_HEADER_BYTES + (uint64_t)OBD_TRACE_RECORDS_MAX * OBD_TRACE_RECORD_BYTES)

struct obd_trace_record {
	uint32_t layer;
	uint64_t offset;
	uint64_t count;
};

/* Checks a whole file of len bytes: magic, lengths, checksum. 0 and *records, or -EINVAL or -EFBIG with a line. */
int obd_trace_check(const void *file, uint64_t len, uint64_t *records, struct obd_err *err);

/* Record i of a file that was checked. Its fields may hold anything. False: it is no read. */
bool obd_trace_get(const void *file, uint64_t i, struct obd_trace_record *out);

/* The same of a record that stands alone. */
bool obd_trace_decode(const void *record, struct obd_trace_record *out);
void obd_trace_encode(void *record, const struct obd_trace_record *r);

/* The header of a file with n records, which stand at `records`. */
void obd_trace_header(void *header, const void *records, uint64_t n);

/* Which blocks of a layer file of file_bytes bytes does the record touch? False: none of them. */
bool obd_trace_blocks(const struct obd_trace_record *r, uint64_t file_bytes, uint32_t block_bytes, uint64_t *first,
		      uint64_t *count);

/* Makes r longer by what `next` asks for, if that continues it and both fit into one record. */
bool obd_trace_join(struct obd_trace_record *r, const struct obd_trace_record *next);

#endif
