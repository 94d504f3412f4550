/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "common/format/trace.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "common/base/crc32c.h"
#include "common/base/le.h"
#include "common/base/util.h"

int obd_trace_check(const void *file, uint64_t len, uint64_t *records, struct obd_err *err)
{
	const unsigned char *p = file;
	if (len < OBD_TRACE_HEADER_BYTES)
		return obd_err_set(err, EINVAL, "trace: length is %" PRIu64 ", at least %u expected", len,
				   OBD_TRACE_HEADER_BYTES);
	if (obd_get_le32(p) != OBD_TRACE_MAGIC)
		return obd_err_set(err, EINVAL, "trace: magic is %u, %u expected", obd_get_le32(p), OBD_TRACE_MAGIC);
	uint64_t data = obd_get_le64(p + 8);
	if (data != len - OBD_TRACE_HEADER_BYTES)
		return obd_err_set(err, EINVAL, "trace: data_size is %" PRIu64 ", but %" PRIu64 " bytes follow", data,
				   len - OBD_TRACE_HEADER_BYTES);
	if (data % OBD_TRACE_RECORD_BYTES)
		return obd_err_set(err, EINVAL, "trace: data_size is %" PRIu64 ", not a multiple of %u", data,
				   OBD_TRACE_RECORD_BYTES);
	if (data / OBD_TRACE_RECORD_BYTES > OBD_TRACE_RECORDS_MAX)
		return obd_err_set(err, EFBIG, "trace: %" PRIu64 " records, %u at most", data / OBD_TRACE_RECORD_BYTES,
				   OBD_TRACE_RECORDS_MAX);
	uint32_t crc = obd_crc32c_raw(0, p + OBD_TRACE_HEADER_BYTES, data);
	if (crc != obd_get_le32(p + 16))
		return obd_err_set(err, EINVAL, "trace: checksum is %08x, %08x expected", obd_get_le32(p + 16), crc);
	*records = data / OBD_TRACE_RECORD_BYTES;
	return 0;
}

bool obd_trace_decode(const void *record, struct obd_trace_record *out)
{
	const unsigned char *p = record;
	*out = (struct obd_trace_record){
		.layer = obd_get_le32(p + 4), .count = obd_get_le64(p + 8), .offset = obd_get_le64(p + 16)};
	return p[0] == 'R';
}

bool obd_trace_get(const void *file, uint64_t i, struct obd_trace_record *out)
{
	return obd_trace_decode((const unsigned char *)file + OBD_TRACE_HEADER_BYTES + i * OBD_TRACE_RECORD_BYTES, out);
}

void obd_trace_encode(void *record, const struct obd_trace_record *r)
{
	unsigned char *p = record;
	memset(p, 0, OBD_TRACE_RECORD_BYTES);
	p[0] = 'R';
	obd_put_le32(p + 4, r->layer);
	obd_put_le64(p + 8, r->count);
	obd_put_le64(p + 16, r->offset);
}

void obd_trace_header(void *header, const void *records, uint64_t n)
{
	unsigned char *p = header;
	uint64_t bytes = n * OBD_TRACE_RECORD_BYTES;
	memset(p, 0, OBD_TRACE_HEADER_BYTES);
	obd_put_le32(p, OBD_TRACE_MAGIC);
	obd_put_le64(p + 8, bytes);
	obd_put_le32(p + 16, obd_crc32c_raw(0, records, bytes));
}

bool obd_trace_blocks(const struct obd_trace_record *r, uint64_t file_bytes, uint32_t block_bytes, uint64_t *first,
		      uint64_t *count)
{
	if (!r->count || r->offset >= file_bytes)
		return false;
	uint64_t last = r->offset + obd_min_u64(r->count, file_bytes - r->offset) - 1;
	*first = r->offset / block_bytes;
	*count = last / block_bytes - *first + 1;
	return true;
}

bool obd_trace_join(struct obd_trace_record *r, const struct obd_trace_record *next)
{
	if (r->layer != next->layer || r->offset + r->count != next->offset || r->count > OBD_TRACE_COUNT_MAX ||
	    next->count > OBD_TRACE_COUNT_MAX - r->count)
		return false;
	r->count += next->count;
	return true;
}
