/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ZFile header and trailer as they lie on disk; data only, for the room's own files. */
#ifndef OBD_COMMON_FORMAT_ZFILE_LAYOUT_H
#define OBD_COMMON_FORMAT_ZFILE_LAYOUT_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#define OBD_ZFILE_STRUCT_BYTES 96u

#define OBD_ZFILE_FLAG_HEADER (UINT64_C(1) << 0) /* else trailer */
#define OBD_ZFILE_FLAG_DATA (UINT64_C(1) << 1)
#define OBD_ZFILE_FLAG_SEALED (UINT64_C(1) << 2)
#define OBD_ZFILE_FLAG_OVERWRITTEN (UINT64_C(1) << 3) /* the header alone suffices */
#define OBD_ZFILE_FLAG_DIGEST (UINT64_C(1) << 4)
#define OBD_ZFILE_FLAG_INDEX_COMPRESSED (UINT64_C(1) << 5)
#define OBD_ZFILE_FLAGS_KNOWN UINT64_C(63)

#define OBD_ZFILE_BLOCK_CRC_SEED 100007u

struct obd_zfile_disk_header {
	uint8_t magic0[8];
	uint8_t magic1[16];
	uint32_t size; /* OBD_ZFILE_STRUCT_BYTES */
	uint32_t digest;
	uint64_t flags;
	uint64_t index_offset;
	uint64_t index_size; /* entries */
	uint64_t original_file_size;
	uint32_t index_crc;
	uint32_t reserved0;
	uint32_t block_size;
	uint8_t algorithm;
	uint8_t level;
	uint8_t use_dict;
	uint8_t reserved1[5];
	uint32_t dict_size;
	uint8_t verify;
	uint8_t reserved2[7];
} __attribute__((packed));

static_assert(sizeof(struct obd_zfile_disk_header) == OBD_ZFILE_STRUCT_BYTES, "header size");
static_assert(offsetof(struct obd_zfile_disk_header, flags) == 32, "flags");
static_assert(offsetof(struct obd_zfile_disk_header, index_crc) == 64, "index_crc");
static_assert(offsetof(struct obd_zfile_disk_header, algorithm) == 76, "algorithm");
static_assert(offsetof(struct obd_zfile_disk_header, dict_size) == 84, "dict_size");
static_assert(offsetof(struct obd_zfile_disk_header, verify) == 88, "verify");

extern const uint8_t obd_zfile_magic[24]; /* magic0 and magic1 */

#endif
