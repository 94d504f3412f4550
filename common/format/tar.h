/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The tar wrapper around a layer blob: one member that holds the layer, so that a registry client sees a tar.
 *
 *     old form   | ustar header 512 | payload ...                                    | zeros to 512 | 1024 zeros |
 *     new form   | pax header 512 | pax records 512·n | ustar header 512 | payload ... | zeros to 512 | 1024 zeros |
 *
 * Pure functions on memory; they never block and keep nothing.
 */
#ifndef OBD_COMMON_FORMAT_TAR_H
#define OBD_COMMON_FORMAT_TAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"

#define OBD_TAR_BLOCK_BYTES 512u
#define OBD_TAR_HEADER_BYTES 1536u /* of the form that we write */
#define OBD_TAR_TAIL_MAX_BYTES (OBD_TAR_BLOCK_BYTES - 1 + 2 * OBD_TAR_BLOCK_BYTES)
#define OBD_TAR_PROBE_BYTES 4096u /* of a blob's head that obd_tar_parse wants to see */
#define OBD_TAR_MAX_PAYLOAD (INT64_C(1) << 62)

struct obd_tar_info {
	bool wrapped;		 /* false: the blob is the payload */
	uint64_t payload_offset; /* bytes from the start of the blob */
	uint64_t payload_bytes;	 /* offset + bytes never exceeds the blob */
};

/*
 * Finds the payload. buf holds the first len bytes of a blob of blob_bytes; len >= min(blob_bytes, OBD_TAR_PROBE_BYTES).
 * A blob whose first block is no valid ustar header (magic and checksum) is not wrapped: that is no error.
 * 0, or -EINVAL with a line in err: a damaged wrapper, a size that does not parse, a payload that leaves the blob.
 */
int obd_tar_parse(const void *buf, size_t len, uint64_t blob_bytes, struct obd_tar_info *out, struct obd_err *err);

/* Fills the header blocks for a payload of that many bytes. The result depends on nothing else.
 * 0 or -EINVAL: payload_bytes above OBD_TAR_MAX_PAYLOAD. */
int obd_tar_header(void *buf, uint64_t payload_bytes);

/* How many zero bytes follow the payload: padding to 512 and the two blocks that end the archive. */
uint32_t obd_tar_tail_bytes(uint64_t payload_bytes);

#endif
