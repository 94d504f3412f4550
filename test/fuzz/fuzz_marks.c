/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A marks file of the disk tier, as it may lie in a directory that others could write to: header, then marks; and its name. */
#include <stdlib.h>
#include <string.h>

#include "common/format/marks.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_name(const uint8_t *data, size_t size)
{
	char name[OBD_MARKS_NAME_BYTES + 8], again[OBD_MARKS_NAME_BYTES], digest[OBD_MARKS_DIGEST_BYTES];
	struct obd_marks_geo geo;
	uint64_t bytes;
	bool marks;
	size_t n = size < sizeof name - 1 ? size : sizeof name - 1;
	memcpy(name, data, n);
	name[n] = '\0';
	if (!obd_marks_name_parse(name, &marks, digest, &bytes) || !obd_marks_geo_init(&geo, 4096, bytes, digest))
		return;
	obd_marks_name(&geo, marks, again);
	if (strcmp(name, again) != 0 || strchr(name, '/'))
		abort();
}

static void try_marks(const struct obd_marks_geo *geo, const uint8_t *data, size_t size)
{
	for (uint64_t i = 0; obd_marks_offset(i + 1) <= size; i++) {
		unsigned char again[OBD_MARK_BYTES];
		struct obd_mark m;
		if (obd_mark_decode(geo, i, data + obd_marks_offset(i), &m) != OBD_MARK_PRESENT)
			continue;
		if (m.bytes == 0 || m.bytes > OBD_MARK_UNIT_MAX || m.start > geo->blob_bytes ||
		    m.bytes > geo->blob_bytes - m.start)
			abort();
		obd_mark_encode(geo, i, &m, again);
		if (memcmp(again, data + obd_marks_offset(i), sizeof again) != 0)
			abort();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct obd_marks_geo geo;
	try_name(data, size);
	if (obd_marks_header_decode(data, size, &geo) == 0)
		try_marks(&geo, data, size);
	/* whatever the header says, marks of a good one */
	if (size >= OBD_MARKS_HEADER_BYTES &&
	    obd_marks_geo_init(&geo, 65536, 1000000, "sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"))
		try_marks(&geo, data, size);
	return 0;
}
