/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * LSMT layers: reading and checking their metadata, and writing committed layers.
 *
 * An event-driven reader fetches the last 4096 bytes of the uncompressed layer file, obd_lsmt_parse_trailer, fetches
 * [index_offset, + obd_lsmt_index_bytes), obd_lsmt_load_index; obd_lsmt_merge (merge.h) makes one index of many.
 * Offsets are bytes from the start of the uncompressed layer file, moffsets its sectors.
 *
 * Parse functions do not block, allocate or keep pointers, unless said otherwise; every refusal puts one line into err
 * that names the field, its value and what is allowed.
 */
#ifndef OBD_COMMON_FORMAT_LSMT_H
#define OBD_COMMON_FORMAT_LSMT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/format/file.h"
#include "common/format/lsmt_layout.h"

/* Plain data, no pointers. Texts are NUL-terminated here whatever the file held. */
struct obd_lsmt_info {
	uint64_t index_offset;	/* bytes; 0 in a header */
	uint64_t index_entries; /* padding included; 0 in a header */
	uint64_t virtual_size;	/* bytes of the device, a multiple of 512 */
	uint64_t file_bytes;	/* what the caller said the file's size is */
	uint32_t flags;		/* OBD_LSMT_FLAG_* */
	uint8_t version;
	uint8_t sub_version;
	char uuid[OBD_LSMT_UUID_BYTES];
	char parent_uuid[OBD_LSMT_UUID_BYTES];
	char tag[OBD_LSMT_TAG_BYTES + 1];
};

/* True when buf (len bytes, 24 wanted) starts with the magic. */
bool obd_lsmt_is_lsmt(const void *buf, size_t len);

/* buf: the last 4096 bytes of a layer file of file_bytes. 0; -EINVAL: not the trailer of a sealed layer, or a field is
 * out of range (index outside of the file, too many entries). */
int obd_lsmt_parse_trailer(const void *buf, uint64_t file_bytes, struct obd_lsmt_info *info, struct obd_err *err);

/* buf: the first 4096 bytes of a layer, data or index file. The caller decides by info->flags what it is. */
int obd_lsmt_parse_header(const void *buf, uint64_t file_bytes, struct obd_lsmt_info *info, struct obd_err *err);

/* Bytes of the index as stored: 16 * index_entries. */
uint64_t obd_lsmt_index_bytes(const struct obd_lsmt_info *info);

/*
 * The index of a read-only or sealed layer: drops padding, strips tags, checks that entries are sorted, do not overlap,
 * lie within virtual_size and point (unless zeroed) into the data before the index. raw: len = obd_lsmt_index_bytes
 * bytes, any alignment; out has room for info->index_entries (may be raw itself); *n gets the count.
 * 0 or -EINVAL naming the entry. (Sealed layers keep a sorted index too; only append-only index files are in write order.)
 */
int obd_lsmt_load_index(const struct obd_lsmt_info *info, const void *raw, uint64_t len, struct obd_lsmt_seg *out, size_t *n,
			struct obd_err *err);

/* The same with tags left as they are, for the turboOCI form (0: file-system metadata, 1: original tar). moffsets of
 * entries with a tag other than 0 point into another file and are not checked. */
int obd_lsmt_load_index_tagged(const struct obd_lsmt_info *info, const void *raw, uint64_t len, struct obd_lsmt_seg *out,
			       size_t *n, struct obd_err *err);

/*
 * The records of an append-only index file in write order: raw is what follows the file's 4096-byte header. A later
 * record overrides an earlier one. A partial record at the end, padding, empty records and records whose data lie beyond
 * data_bytes (size of the data file) are skipped; records outside of virtual_size are refused. *out is allocated
 * (free it), sorted and not overlapping; NULL when *n is 0. 0, -EINVAL, -ENOMEM. O(n log n).
 */
int obd_lsmt_load_append_index(const struct obd_lsmt_info *index_header, const void *raw, size_t len, uint64_t data_bytes,
			       struct obd_lsmt_seg **out, size_t *n, struct obd_err *err);

/* The header of a file as our writer makes it; buf: 4096 bytes, filled completely. Texts longer than their field are cut.
 * NULL uuids: all zeros. */
struct obd_lsmt_write_opts {
	uint64_t virtual_size; /* bytes, multiple of 512 */
	const char *uuid;
	const char *parent_uuid;
	const char *tag;    /* commit message; NULL: none */
	bool keep_seg_tags; /* store the tag bytes of the segments; else 0 */
};

void obd_lsmt_put_header(void *buf, const struct obd_lsmt_write_opts *opts, uint32_t flags, uint64_t index_offset,
			 uint64_t index_entries);

/*
 * The core of every writer: a committed layer from a sorted, non-overlapping list of segments. Data of a segment are
 * read from sources[tag] at moffset sectors; data are written in logical order, neighbours joined. dst is written from
 * offset 0 and only at the end, so it may be a sink. sources and dst stay the caller's. *bytes (may be NULL) gets the
 * layer's size. Blocks. 0 or negative errno: -EINVAL (segments, tag >= nsources), -E2BIG (more than
 * OBD_LSMT_MAX_ENTRIES), -ENODATA (a source ends early).
 */
int obd_lsmt_commit(const struct obd_lsmt_seg *segs, size_t n, struct obd_file *const sources[], unsigned nsources,
		    struct obd_file *dst, const struct obd_lsmt_write_opts *opts, uint64_t *bytes, struct obd_err *err);

/*
 * A layer of a raw image: runs of zeros of granule_bytes (512 ... 1 MiB, power of two; 4096 keeps indexes small) are left
 * out. opts->virtual_size 0: the image's size. The image is read twice.
 */
int obd_lsmt_write_raw(struct obd_file *raw, uint32_t granule_bytes, struct obd_file *dst,
		       const struct obd_lsmt_write_opts *opts, uint64_t *bytes, struct obd_err *err);

/*
 * A layer that turns image base into image raw: granules that differ become data, those that became zeros zeroed
 * entries. Where base ends before raw it reads as zeros. opts->virtual_size 0: raw's size.
 */
int obd_lsmt_write_diff(struct obd_file *base, struct obd_file *raw, uint32_t granule_bytes, struct obd_file *dst,
			const struct obd_lsmt_write_opts *opts, uint64_t *bytes, struct obd_err *err);

#endif
