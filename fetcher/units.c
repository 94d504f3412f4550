/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fetcher/units.h"

#include "common/base/util.h"
#include "common/format/zfile.h"
#include "shmcache/segment.h"

static bool set(struct obd_disk_unit *unit, bool raw, uint64_t number, uint64_t start, uint64_t end)
{
	if (end <= start || end - start > UINT32_MAX || number > OBD_KEY_MAX_BLOCK)
		return false;
	*unit = (struct obd_disk_unit){
		.start = start, .bytes = (uint32_t)(end - start), .number = (uint32_t)number, .raw = raw};
	return true;
}

static bool plain_unit(const struct obd_layer_view *v, uint32_t block_bytes, uint32_t number, struct obd_disk_unit *unit)
{
	uint64_t start = (uint64_t)number * block_bytes;
	if (start >= v->file_bytes)
		return false;
	uint64_t end = obd_min_u64(start + block_bytes, v->file_bytes);
	return set(unit, false, number, v->payload_offset + start, v->payload_offset + end);
}

/* Both sizes are powers of two, so one divides the other. */
static bool zfile_unit(const struct obd_layer_view *v, uint32_t block_bytes, uint32_t number, struct obd_disk_unit *unit)
{
	const struct obd_zfile_table table = {.base = v->zf_base,
					      .delta = v->zf_delta,
					      .nblocks = v->zf_nblocks,
					      .first = OBD_ZFILE_HEADER_BYTES + (uint64_t)v->zf_dict_bytes,
					      .end = v->payload_bytes,
					      .stored_max = obd_zfile_stored_max(v->zf_block_bytes)};
	uint64_t at = (uint64_t)number * block_bytes, start, end, ignored;
	if (at >= v->file_bytes)
		return false;
	uint64_t first = at / v->zf_block_bytes;
	uint64_t last = (obd_min_u64(at + block_bytes, v->file_bytes) - 1) / v->zf_block_bytes;
	if (!obd_zfile_block_range(&table, first, &start, &ignored) || !obd_zfile_block_range(&table, last, &ignored, &end))
		return false;
	uint64_t unit_number = v->zf_block_bytes > block_bytes ? first : number;
	return set(unit, false, unit_number, v->payload_offset + start, v->payload_offset + end);
}

bool obd_unit_of(const struct obd_layer_view *v, enum obd_job_kind kind, uint32_t block_bytes, uint32_t number,
		 struct obd_disk_unit *unit)
{
	uint64_t start, end;
	if (kind == OBD_JOB_RAW)
		return obd_raw_chunk(v->blob_bytes, block_bytes, number, &start, &end) && set(unit, true, number, start, end);
	if (v->zfile)
		return zfile_unit(v, block_bytes, number, unit);
	return plain_unit(v, block_bytes, number, unit);
}
