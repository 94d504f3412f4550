/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A trace file, once as it is and once with the length and the checksum that it should have, so that records are reached. */
#include <stdlib.h>
#include <string.h>

#include "common/base/util.h"
#include "common/format/trace.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void records(const unsigned char *file, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++) {
		struct obd_trace_record r;
		uint64_t first, count, bytes = UINT64_C(1) << (i % 40);
		obd_trace_get(file, i, &r);
		if (obd_trace_blocks(&r, bytes, 65536, &first, &count) && (count == 0 || first + count > bytes / 65536 + 1))
			abort();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct obd_err err;
	uint64_t n;
	if (obd_trace_check(data, size, &n, &err) == 0)
		records(data, n);
	if (size < OBD_TRACE_HEADER_BYTES)
		return 0;
	uint64_t whole = (size - OBD_TRACE_HEADER_BYTES) / OBD_TRACE_RECORD_BYTES;
	uint64_t bytes = OBD_TRACE_HEADER_BYTES + whole * OBD_TRACE_RECORD_BYTES;
	unsigned char *copy = malloc(bytes);
	if (!copy)
		return 0;
	memcpy(copy, data, bytes);
	obd_trace_header(copy, copy + OBD_TRACE_HEADER_BYTES, whole);
	if (obd_trace_check(copy, bytes, &n, &err) == 0)
		records(copy, n);
	else if (whole <= OBD_TRACE_RECORDS_MAX)
		abort();
	free(copy);
	return 0;
}
