/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * LSMT on disk: data only. Integers are little-endian; a sector is 512 bytes.
 *
 *     header 4096 | data | index (16-byte entries) | trailer 4096
 */
#ifndef OBD_COMMON_FORMAT_LSMT_LAYOUT_H
#define OBD_COMMON_FORMAT_LSMT_LAYOUT_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the index is used as it lies on disk: little-endian machines only"
#endif

#define OBD_SECTOR_BYTES 512u
#define OBD_LSMT_HEADER_BYTES 4096u
#define OBD_LSMT_HEADER_SECTORS (OBD_LSMT_HEADER_BYTES / OBD_SECTOR_BYTES)
#define OBD_LSMT_STRUCT_BYTES 390u
#define OBD_LSMT_INDEX_ALIGN 4096u
#define OBD_LSMT_MAX_ENTRIES 1000000u /* in a read-only layer, padding included */
#define OBD_LSMT_MAX_LAYERS 255u

#define OBD_LSMT_FLAG_HEADER (1u << 0) /* else trailer */
#define OBD_LSMT_FLAG_DATA (1u << 1)   /* else index file of an append-only layer */
#define OBD_LSMT_FLAG_SEALED (1u << 2)
#define OBD_LSMT_FLAG_GC (1u << 3)
#define OBD_LSMT_FLAG_SPARSE (1u << 4)
#define OBD_LSMT_FLAG_INFO_VALID (1u << 5)

#define OBD_LSMT_UUID_BYTES 37u /* 36 characters and NUL */
#define OBD_LSMT_TAG_BYTES 256u

/* Header and trailer, at the start of 4096 bytes that are zero behind it. */
struct obd_lsmt_disk_header {
	uint8_t magic0[8];
	uint8_t magic1[16];
	uint32_t size; /* OBD_LSMT_STRUCT_BYTES */
	uint32_t flags;
	uint64_t index_offset; /* bytes */
	uint64_t index_size;   /* entries */
	uint64_t virtual_size; /* bytes */
	char uuid[OBD_LSMT_UUID_BYTES];
	char parent_uuid[OBD_LSMT_UUID_BYTES];
	uint16_t reserved;
	uint8_t version;
	uint8_t sub_version;
	char user_tag[OBD_LSMT_TAG_BYTES];
} __attribute__((packed));

static_assert(sizeof(struct obd_lsmt_disk_header) == OBD_LSMT_STRUCT_BYTES, "header size");
static_assert(offsetof(struct obd_lsmt_disk_header, flags) == 28, "flags");
static_assert(offsetof(struct obd_lsmt_disk_header, index_offset) == 32, "index_offset");
static_assert(offsetof(struct obd_lsmt_disk_header, virtual_size) == 48, "virtual_size");
static_assert(offsetof(struct obd_lsmt_disk_header, parent_uuid) == 93, "parent_uuid");
static_assert(offsetof(struct obd_lsmt_disk_header, version) == 132, "version");
static_assert(offsetof(struct obd_lsmt_disk_header, user_tag) == 134, "user_tag");

/*
 * One index entry. w0: bits 0-49 offset (logical sector), 50-63 length (sectors, 1 ... 16383).
 * w1: bits 0-54 moffset (sector in the uncompressed layer file), 55 zeroed, 56-63 tag.
 * The same 16 bytes serve on disk, in memory and in the shared segment. In a merged index the tag is the number of the
 * layer, 0 at the bottom.
 */
struct obd_lsmt_seg {
	uint64_t w0;
	uint64_t w1;
};

static_assert(sizeof(struct obd_lsmt_seg) == 16, "segment size");

#define OBD_LSMT_OFFSET_MASK ((UINT64_C(1) << 50) - 1)
#define OBD_LSMT_PADDING OBD_LSMT_OFFSET_MASK /* offset of an entry that only fills */
#define OBD_LSMT_LENGTH_MAX 16383u
#define OBD_LSMT_MOFFSET_MASK ((UINT64_C(1) << 55) - 1)
#define OBD_LSMT_ZEROED_BIT (UINT64_C(1) << 55)

static inline uint64_t obd_lsmt_seg_offset(struct obd_lsmt_seg s)
{
	return s.w0 & OBD_LSMT_OFFSET_MASK;
}

static inline uint32_t obd_lsmt_seg_length(struct obd_lsmt_seg s)
{
	return (uint32_t)(s.w0 >> 50);
}

/* First sector behind the segment; at most 2^50 + 16382, so sums with it do not overflow. */
static inline uint64_t obd_lsmt_seg_end(struct obd_lsmt_seg s)
{
	return obd_lsmt_seg_offset(s) + obd_lsmt_seg_length(s);
}

static inline uint64_t obd_lsmt_seg_moffset(struct obd_lsmt_seg s)
{
	return s.w1 & OBD_LSMT_MOFFSET_MASK;
}

static inline bool obd_lsmt_seg_zeroed(struct obd_lsmt_seg s)
{
	return (s.w1 & OBD_LSMT_ZEROED_BIT) != 0;
}

static inline uint8_t obd_lsmt_seg_tag(struct obd_lsmt_seg s)
{
	return (uint8_t)(s.w1 >> 56);
}

/* Values are cut to their fields: callers check ranges first. */
static inline struct obd_lsmt_seg obd_lsmt_seg_make(uint64_t offset, uint32_t length, uint64_t moffset, bool zeroed,
						    uint8_t tag)
{
	return (struct obd_lsmt_seg){
		.w0 = (offset & OBD_LSMT_OFFSET_MASK) | (uint64_t)length << 50,
		.w1 = (moffset & OBD_LSMT_MOFFSET_MASK) | (zeroed ? OBD_LSMT_ZEROED_BIT : 0) | (uint64_t)tag << 56,
	};
}

static inline struct obd_lsmt_seg obd_lsmt_seg_set_tag(struct obd_lsmt_seg s, uint8_t tag)
{
	s.w1 = (s.w1 & ~(UINT64_C(255) << 56)) | (uint64_t)tag << 56;
	return s;
}

#endif
