/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The head of a blob, whose whole size is taken from the last eight bytes so that large payloads are reached too. */
#include <stdlib.h>
#include <string.h>

#include "common/base/le.h"
#include "common/format/tar.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct obd_tar_info info;
	struct obd_err err;
	uint64_t blob = size;
	if (obd_tar_parse(data, size, blob, &info, &err) == 0 && info.payload_bytes > blob - info.payload_offset)
		abort();
	if (size < 8)
		return 0;
	blob = obd_get_le64(data + size - 8);
	if (obd_tar_parse(data, size, blob, &info, &err) == 0 &&
	    (info.payload_offset > blob || info.payload_bytes > blob - info.payload_offset))
		abort();
	return 0;
}
