/* SPDX-License-Identifier: GPL-2.0-or-later */
/* LSMT metadata: header, trailer, indexes. Nothing in here trusts a byte that it was given. */
#include "common/format/lsmt.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/util.h"
#include "common/format/merge.h"

static const uint8_t magic[24] = {'L',	'S',  'M',  'T',  0,	1,    2,    0,	  0x65, 0x7E, 0x63, 0xD2,
				  0x94, 0x44, 0x08, 0x4C, 0xA2, 0xD2, 0xC8, 0xEC, 0x4F, 0xCF, 0xAE, 0x8A};

bool obd_lsmt_is_lsmt(const void *buf, size_t len)
{
	return len >= 8 && memcmp(buf, magic, obd_min_u64(len, sizeof(magic))) == 0;
}

/* Copies a text field; dst has one byte more than the field or the field's last byte is overwritten by NUL. */
static void copy_text(char *dst, size_t dst_len, const char *field, size_t len)
{
	size_t n = strnlen(field, obd_min_u64(len, dst_len - 1));
	memset(dst, 0, dst_len);
	memcpy(dst, field, n);
}

static int bad(struct obd_err *err, const char *what, const char *field, uint64_t value, const char *allowed)
{
	return obd_err_set(err, EINVAL, "lsmt %s: %s is %" PRIu64 ", allowed: %s", what, field, value, allowed);
}

/* What header and trailer have in common. */
static int parse_struct(const void *buf, uint64_t file_bytes, const char *what, struct obd_lsmt_info *info, struct obd_err *err)
{
	struct obd_lsmt_disk_header h;
	if (!obd_lsmt_is_lsmt(buf, OBD_LSMT_HEADER_BYTES))
		return obd_err_set(err, EINVAL, "lsmt %s: the magic is missing", what);
	memcpy(&h, buf, sizeof(h));
	if (h.size != OBD_LSMT_STRUCT_BYTES)
		return bad(err, what, "structure size", h.size, "390");
	if (h.version > 1)
		return bad(err, what, "version", h.version, "up to 1");
	if (h.virtual_size % OBD_SECTOR_BYTES || h.virtual_size / OBD_SECTOR_BYTES > OBD_LSMT_PADDING)
		return bad(err, what, "virtual_size", h.virtual_size, "a multiple of 512 below 2^59");
	*info = (struct obd_lsmt_info){
		.index_offset = h.index_offset,
		.index_entries = h.index_size,
		.virtual_size = h.virtual_size,
		.file_bytes = file_bytes,
		.flags = h.flags,
		.version = h.version,
		.sub_version = h.sub_version,
	};
	copy_text(info->uuid, sizeof(info->uuid), h.uuid, sizeof(h.uuid));
	copy_text(info->parent_uuid, sizeof(info->parent_uuid), h.parent_uuid, sizeof(h.parent_uuid));
	copy_text(info->tag, sizeof(info->tag), h.user_tag, sizeof(h.user_tag));
	return 0;
}

int obd_lsmt_parse_header(const void *buf, uint64_t file_bytes, struct obd_lsmt_info *info, struct obd_err *err)
{
	if (file_bytes < OBD_LSMT_HEADER_BYTES)
		return bad(err, "header", "file size", file_bytes, "at least 4096");
	int rc = parse_struct(buf, file_bytes, "header", info, err);
	if (rc)
		return rc;
	if (!(info->flags & OBD_LSMT_FLAG_HEADER))
		return obd_err_set(err, EINVAL, "lsmt header: flags are 0x%x, expected bit 0 (header) set", info->flags);
	return 0;
}

static int check_index_place(const struct obd_lsmt_info *info, struct obd_err *err)
{
	const uint64_t last = info->file_bytes - OBD_LSMT_HEADER_BYTES;
	if (info->index_entries > OBD_LSMT_MAX_ENTRIES)
		return bad(err, "trailer", "index_size", info->index_entries, "up to 1000000 entries");
	if (info->index_offset < OBD_LSMT_HEADER_BYTES || info->index_offset > last)
		return obd_err_set(err, EINVAL, "lsmt trailer: index_offset is %" PRIu64 ", allowed: 4096 to %" PRIu64,
				   info->index_offset, last);
	if (obd_lsmt_index_bytes(info) > last - info->index_offset)
		return obd_err_set(err, EINVAL,
				   "lsmt trailer: index_size is %" PRIu64 ", between index_offset and trailer fit %" PRIu64,
				   info->index_entries, (last - info->index_offset) / sizeof(struct obd_lsmt_seg));
	return 0;
}

int obd_lsmt_parse_trailer(const void *buf, uint64_t file_bytes, struct obd_lsmt_info *info, struct obd_err *err)
{
	const uint32_t wanted = OBD_LSMT_FLAG_DATA | OBD_LSMT_FLAG_SEALED;
	if (file_bytes < 2 * OBD_LSMT_HEADER_BYTES || file_bytes > INT64_MAX)
		return bad(err, "trailer", "file size", file_bytes, "8192 to 2^63 - 1");
	int rc = parse_struct(buf, file_bytes, "trailer", info, err);
	if (rc)
		return rc;
	if ((info->flags & (wanted | OBD_LSMT_FLAG_HEADER)) != wanted)
		return obd_err_set(err, EINVAL, "lsmt trailer: flags are 0x%x, expected a sealed data file's trailer (6)",
				   info->flags);
	return check_index_place(info, err);
}

uint64_t obd_lsmt_index_bytes(const struct obd_lsmt_info *info)
{
	return info->index_entries * sizeof(struct obd_lsmt_seg);
}

static int bad_entry(struct obd_err *err, uint64_t i, const char *field, uint64_t value, uint64_t least, uint64_t most)
{
	return obd_err_set(err, EINVAL, "lsmt index entry %" PRIu64 ": %s is %" PRIu64 ", allowed: %" PRIu64 " to %" PRIu64, i,
			   field, value, least, most);
}

/* Logical range against the device, physical range against the data, both in sectors. */
static int check_entry(struct obd_lsmt_seg s, uint64_t i, uint64_t prev_end, uint64_t device, uint64_t data, bool foreign,
		       struct obd_err *err)
{
	const uint32_t len = obd_lsmt_seg_length(s);
	if (!len)
		return bad_entry(err, i, "length", len, 1, OBD_LSMT_LENGTH_MAX);
	if (obd_lsmt_seg_offset(s) < prev_end || obd_lsmt_seg_offset(s) > device)
		return bad_entry(err, i, "offset", obd_lsmt_seg_offset(s), prev_end, device);
	if (len > device - obd_lsmt_seg_offset(s))
		return bad_entry(err, i, "length", len, 1, device - obd_lsmt_seg_offset(s));
	if (obd_lsmt_seg_zeroed(s) || foreign)
		return 0;
	if (obd_lsmt_seg_moffset(s) < OBD_LSMT_HEADER_SECTORS || obd_lsmt_seg_moffset(s) > data)
		return bad_entry(err, i, "moffset", obd_lsmt_seg_moffset(s), OBD_LSMT_HEADER_SECTORS, data);
	if (len > data - obd_lsmt_seg_moffset(s))
		return obd_err_set(err, EINVAL,
				   "lsmt index entry %" PRIu64 ": moffset is %" PRIu64
				   " and length %u, data end at sector %" PRIu64,
				   i, obd_lsmt_seg_moffset(s), len, data);
	return 0;
}

static int load(const struct obd_lsmt_info *info, const void *raw, uint64_t len, bool tagged, struct obd_lsmt_seg *out,
		size_t *n, struct obd_err *err)
{
	const uint64_t device = info->virtual_size / OBD_SECTOR_BYTES, data = info->index_offset / OBD_SECTOR_BYTES;
	uint64_t end = 0;
	size_t kept = 0;
	*n = 0;
	if (len != obd_lsmt_index_bytes(info))
		return obd_err_set(err, EINVAL, "lsmt index: %" PRIu64 " bytes given, %" PRIu64 " expected", len,
				   obd_lsmt_index_bytes(info));
	for (uint64_t i = 0; i < info->index_entries; i++) {
		struct obd_lsmt_seg s;
		memcpy(&s, (const char *)raw + i * sizeof(s), sizeof(s));
		if (obd_lsmt_seg_offset(s) == OBD_LSMT_PADDING)
			continue;
		int rc = check_entry(s, i, end, device, data, tagged && obd_lsmt_seg_tag(s), err);
		if (rc)
			return rc;
		end = obd_lsmt_seg_end(s);
		out[kept++] = tagged ? s : obd_lsmt_seg_set_tag(s, 0);
	}
	*n = kept;
	return 0;
}

int obd_lsmt_load_index(const struct obd_lsmt_info *info, const void *raw, uint64_t len, struct obd_lsmt_seg *out, size_t *n,
			struct obd_err *err)
{
	return load(info, raw, len, false, out, n, err);
}

int obd_lsmt_load_index_tagged(const struct obd_lsmt_info *info, const void *raw, uint64_t len, struct obd_lsmt_seg *out,
			       size_t *n, struct obd_err *err)
{
	return load(info, raw, len, true, out, n, err);
}

/* Padding, nothing, or data that never reached the file: a record that a reader passes over. */
static bool is_void(struct obd_lsmt_seg s, uint64_t data)
{
	if (obd_lsmt_seg_offset(s) == OBD_LSMT_PADDING || !obd_lsmt_seg_length(s))
		return true;
	return !obd_lsmt_seg_zeroed(s) && obd_lsmt_seg_moffset(s) + obd_lsmt_seg_length(s) > data;
}

int obd_lsmt_load_append_index(const struct obd_lsmt_info *index_header, const void *raw, size_t len, uint64_t data_bytes,
			       struct obd_lsmt_seg **out, size_t *n, struct obd_err *err)
{
	const uint64_t device = index_header->virtual_size / OBD_SECTOR_BYTES, data = data_bytes / OBD_SECTOR_BYTES;
	const size_t records = len / sizeof(struct obd_lsmt_seg);
	size_t kept = 0;
	int rc = 0;
	*out = NULL;
	*n = 0;
	struct obd_lsmt_seg *list = records ? malloc(records * sizeof(*list)) : NULL;
	if (records && !list)
		return obd_err_set(err, ENOMEM, "lsmt index: no memory for %zu records", records);
	for (size_t i = 0; i < records && !rc; i++) {
		struct obd_lsmt_seg s;
		memcpy(&s, (const char *)raw + i * sizeof(s), sizeof(s));
		if (is_void(s, data))
			continue;
		rc = check_entry(s, i, 0, device, data, false, err);
		list[kept++] = obd_lsmt_seg_set_tag(s, 0);
	}
	if (!rc) {
		rc = obd_lsmt_normalise(list, kept, out, n);
		if (rc)
			obd_err_set(err, -rc, "lsmt index: %s", strerror(-rc));
	}
	free(list);
	return rc;
}

static void put_text(char *field, size_t len, const char *text)
{
	if (text)
		memcpy(field, text, strnlen(text, len - 1));
}

void obd_lsmt_put_header(void *buf, const struct obd_lsmt_write_opts *opts, uint32_t flags, uint64_t index_offset,
			 uint64_t index_entries)
{
	static const char no_uuid[] = "00000000-0000-0000-0000-000000000000";
	struct obd_lsmt_disk_header h = {
		.size = OBD_LSMT_STRUCT_BYTES,
		.flags = flags,
		.index_offset = index_offset,
		.index_size = index_entries,
		.virtual_size = opts->virtual_size,
		.version = 1,
		.sub_version = 1,
	};
	memcpy(h.magic0, magic, sizeof(h.magic0));
	memcpy(h.magic1, magic + sizeof(h.magic0), sizeof(h.magic1));
	put_text(h.uuid, sizeof(h.uuid), opts->uuid ? opts->uuid : no_uuid);
	put_text(h.parent_uuid, sizeof(h.parent_uuid), opts->parent_uuid ? opts->parent_uuid : no_uuid);
	put_text(h.user_tag, sizeof(h.user_tag), opts->tag);
	memset(buf, 0, OBD_LSMT_HEADER_BYTES);
	memcpy(buf, &h, sizeof(h));
}
