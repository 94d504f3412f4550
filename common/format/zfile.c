/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ZFile metadata: header, trailer, jump table. Nothing in here trusts a byte that it was given. */
#include "common/format/zfile.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "common/base/crc32c.h"
#include "common/base/le.h"
#include "common/base/util.h"
#include "common/format/zfile_layout.h"

#define BLOCKS_PER_BASE 64u
/* Behind the longest block that a codec makes of incompressible data: n + n/255 + 16 for lz4, n + n/256 + 64 covers zstd. */
#define STORED_EXTRA(n) ((n) / 128 + 128)

static_assert((uint64_t)(OBD_ZFILE_BLOCK_MAX + STORED_EXTRA(OBD_ZFILE_BLOCK_MAX) + 4) * BLOCKS_PER_BASE <= UINT32_MAX,
	      "64 stored blocks fit a delta");

const uint8_t obd_zfile_magic[24] = {'Z',  'F',	 'i',  'l',  'e',  0,	 1,    0,    0x74, 0x75, 0x6A, 0x69,
				     0x2E, 0x79, 0x79, 0x66, 0x40, 0x41, 0x6C, 0x69, 0x62, 0x61, 0x62, 0x61};

bool obd_zfile_is_zfile(const void *buf, size_t len)
{
	return len >= 8 && memcmp(buf, obd_zfile_magic, obd_min_u64(len, sizeof(obd_zfile_magic))) == 0;
}

/* The stored digest covers all 512 bytes with its own four taken as zero. */
static bool digest_matches(const unsigned char *buf, uint32_t stored)
{
	static const unsigned char zero[4];
	const size_t at = offsetof(struct obd_zfile_disk_header, digest);
	uint32_t crc = obd_crc32c_raw(0, buf, at);
	crc = obd_crc32c_raw(crc, zero, sizeof(zero));
	crc = obd_crc32c_raw(crc, buf + at + 4, OBD_ZFILE_HEADER_BYTES - at - 4);
	return crc == stored;
}

static int bad(struct obd_err *err, const char *what, const char *field, uint64_t value, const char *allowed)
{
	return obd_err_set(err, EINVAL, "zfile %s: %s is %" PRIu64 ", allowed: %s", what, field, value, allowed);
}

/* Magic and structure size: what makes 512 bytes a header or trailer of a ZFile at all. */
static int read_struct(const void *buf, uint64_t payload_bytes, const char *what, struct obd_zfile_disk_header *h,
		       struct obd_err *err)
{
	if (payload_bytes < 2 * OBD_ZFILE_HEADER_BYTES)
		return bad(err, what, "file size", payload_bytes, "at least 1024");
	if (payload_bytes > INT64_MAX)
		return bad(err, what, "file size", payload_bytes, "below 2^63");
	if (!obd_zfile_is_zfile(buf, OBD_ZFILE_HEADER_BYTES))
		return obd_err_set(err, EINVAL, "zfile %s: the magic is missing", what);
	memcpy(h, buf, sizeof(*h));
	if (h->size != OBD_ZFILE_STRUCT_BYTES)
		return bad(err, what, "structure size", h->size, "96");
	return 0;
}

static int check_codec(const struct obd_zfile_disk_header *h, const char *what, struct obd_err *err)
{
	if (h->block_size < OBD_ZFILE_BLOCK_MIN || h->block_size > OBD_ZFILE_BLOCK_MAX || !obd_is_pow2(h->block_size))
		return bad(err, what, "block_size", h->block_size, "a power of two, 512 to 1048576");
	if (h->algorithm != OBD_ZFILE_LZ4 && h->algorithm != OBD_ZFILE_ZSTD)
		return bad(err, what, "algorithm", h->algorithm, "1 (lz4) or 2 (zstd)");
	if (h->verify > 1)
		return bad(err, what, "verify", h->verify, "0 or 1");
	if (h->use_dict || h->dict_size)
		return obd_err_set(err, ENOTSUP, "zfile %s: use_dict is %u, dict_size %u: dictionaries are not supported", what,
				   h->use_dict, h->dict_size);
	return 0;
}

static uint64_t blocks_of(uint64_t original_bytes, uint32_t block_bytes)
{
	return original_bytes / block_bytes + (original_bytes % block_bytes != 0);
}

static int check_sizes(const struct obd_zfile_disk_header *h, const char *what, uint64_t payload_bytes, struct obd_err *err)
{
	const uint64_t last = payload_bytes - OBD_ZFILE_HEADER_BYTES;
	if (h->original_file_size > INT64_MAX)
		return bad(err, what, "original_file_size", h->original_file_size, "below 2^63");
	if (h->index_size > OBD_ZFILE_BLOCKS_MAX)
		return bad(err, what, "index_size", h->index_size, "up to 2^32 blocks");
	uint64_t expected = blocks_of(h->original_file_size, h->block_size);
	if (h->index_size != expected)
		return obd_err_set(err, EINVAL,
				   "zfile %s: index_size is %" PRIu64 ", but %" PRIu64 " bytes in blocks of %u make %" PRIu64,
				   what, h->index_size, h->original_file_size, h->block_size, expected);
	if (h->index_offset < OBD_ZFILE_HEADER_BYTES || h->index_offset > last)
		return obd_err_set(err, EINVAL, "zfile %s: index_offset is %" PRIu64 ", allowed: 512 to %" PRIu64, what,
				   h->index_offset, last);
	if (h->index_size * 4 > last - h->index_offset)
		return obd_err_set(err, EINVAL,
				   "zfile %s: index_size is %" PRIu64 ", between index_offset and trailer fit %" PRIu64, what,
				   h->index_size, (last - h->index_offset) / 4);
	return 0;
}

/* Fills info from a structure whose flags are known to be real. */
static int accept(const struct obd_zfile_disk_header *h, uint64_t flags, const char *what, uint64_t payload_bytes,
		  struct obd_zfile_info *info, struct obd_err *err)
{
	if (flags & OBD_ZFILE_FLAG_INDEX_COMPRESSED)
		return obd_err_set(err, ENOTSUP, "zfile %s: flags are 0x%" PRIx64 ": compressed jump tables are not supported",
				   what, flags);
	int rc = check_codec(h, what, err);
	if (!rc)
		rc = check_sizes(h, what, payload_bytes, err);
	if (rc)
		return rc;
	*info = (struct obd_zfile_info){
		.original_bytes = h->original_file_size,
		.payload_bytes = payload_bytes,
		.index_offset = h->index_offset,
		.nblocks = h->index_size,
		.flags = flags,
		.block_bytes = h->block_size,
		.index_crc = h->index_crc,
		.algorithm = h->algorithm,
		.verify = h->verify,
		.digest = (flags & OBD_ZFILE_FLAG_DIGEST) != 0,
		.level = h->level,
	};
	return 0;
}

int obd_zfile_parse_header(const void *buf, uint64_t payload_bytes, struct obd_zfile_info *info, struct obd_err *err)
{
	struct obd_zfile_disk_header h;
	int rc = read_struct(buf, payload_bytes, "header", &h, err);
	if (rc)
		return rc;
	/* Old writers left garbage where later ones keep flags: without a digest that matches, nothing here counts. */
	if (!(h.flags & OBD_ZFILE_FLAG_DIGEST) || !digest_matches(buf, h.digest))
		return OBD_ZFILE_NEED_TRAILER;
	if (!(h.flags & OBD_ZFILE_FLAG_OVERWRITTEN) || !(h.flags & OBD_ZFILE_FLAG_HEADER))
		return OBD_ZFILE_NEED_TRAILER;
	return accept(&h, h.flags & OBD_ZFILE_FLAGS_KNOWN, "header", payload_bytes, info, err);
}

int obd_zfile_parse_trailer(const void *buf, uint64_t payload_bytes, struct obd_zfile_info *info, struct obd_err *err)
{
	const uint64_t wanted = OBD_ZFILE_FLAG_DATA | OBD_ZFILE_FLAG_SEALED;
	struct obd_zfile_disk_header h;
	int rc = read_struct(buf, payload_bytes, "trailer", &h, err);
	if (rc)
		return rc;
	if ((h.flags & (wanted | OBD_ZFILE_FLAG_HEADER)) != wanted)
		return obd_err_set(err, EINVAL, "zfile trailer: flags are 0x%" PRIx64 ", expected a sealed data trailer (6)",
				   h.flags);
	uint64_t flags = h.flags & OBD_ZFILE_FLAGS_KNOWN;
	if (!(flags & OBD_ZFILE_FLAG_DIGEST))
		flags &= wanted;
	else if (!digest_matches(buf, h.digest))
		return obd_err_set(err, EBADMSG, "zfile trailer: digest 0x%08x does not match its bytes", h.digest);
	return accept(&h, flags, "trailer", payload_bytes, info, err);
}

bool obd_zfile_info_ok(const struct obd_zfile_info *info)
{
	const struct obd_zfile_disk_header h = {
		.flags = info->flags,
		.index_offset = info->index_offset,
		.index_size = info->nblocks,
		.original_file_size = info->original_bytes,
		.block_size = info->block_bytes,
		.algorithm = info->algorithm,
		.dict_size = info->dict_bytes,
		.verify = info->verify,
	};
	return info->payload_bytes >= 2 * OBD_ZFILE_HEADER_BYTES && info->payload_bytes <= INT64_MAX &&
	       check_codec(&h, "copy", NULL) == 0 && check_sizes(&h, "copy", info->payload_bytes, NULL) == 0;
}

uint64_t obd_zfile_index_bytes(const struct obd_zfile_info *info)
{
	return info->nblocks * 4;
}

uint32_t obd_zfile_stored_max(uint32_t block_bytes)
{
	return block_bytes + STORED_EXTRA(block_bytes) + 4;
}

uint32_t obd_zfile_block_plain_bytes(const struct obd_zfile_info *info, uint64_t block)
{
	if (block >= info->nblocks)
		return 0;
	return (uint32_t)obd_min_u64(info->block_bytes, info->original_bytes - block * info->block_bytes);
}

int obd_zfile_check_table(const struct obd_zfile_info *info, const void *jump_table, uint64_t len, struct obd_err *err)
{
	const unsigned char *table = jump_table;
	const uint32_t most = obd_zfile_stored_max(info->block_bytes), least = info->verify ? 5 : 1;
	uint64_t at = OBD_ZFILE_HEADER_BYTES + (uint64_t)info->dict_bytes;
	if (len != obd_zfile_index_bytes(info))
		return obd_err_set(err, EINVAL, "zfile jump table: %" PRIu64 " bytes given, %" PRIu64 " expected", len,
				   obd_zfile_index_bytes(info));
	if (info->digest && obd_crc32c_raw(0, table, len) != info->index_crc)
		return obd_err_set(err, EBADMSG, "zfile jump table: CRC does not match index_crc 0x%08x", info->index_crc);
	for (uint64_t i = 0; i < info->nblocks; i++) {
		uint32_t stored = obd_get_le32(table + 4 * i);
		if (stored < least || stored > most)
			return obd_err_set(err, EINVAL,
					   "zfile jump table: length of block %" PRIu64 " is %u, allowed: %u to %u", i, stored,
					   least, most);
		at += stored;
		if (at > info->index_offset)
			return obd_err_set(err, EINVAL,
					   "zfile jump table: block %" PRIu64 " ends at byte %" PRIu64
					   ", blocks end at index_offset %" PRIu64,
					   i, at, info->index_offset);
	}
	return 0;
}

static uint64_t bases_of(uint64_t nblocks)
{
	return nblocks / BLOCKS_PER_BASE + 1;
}

uint64_t obd_zfile_offsets_bytes(uint64_t nblocks)
{
	return bases_of(nblocks) * sizeof(uint64_t) + obd_align_up((nblocks + 1) * sizeof(uint32_t), 8);
}

void obd_zfile_build_offsets(const struct obd_zfile_info *info, const void *jump_table, void *mem)
{
	const unsigned char *table = jump_table;
	uint64_t *base = mem;
	uint32_t *delta = (uint32_t *)(base + bases_of(info->nblocks));
	uint64_t at = OBD_ZFILE_HEADER_BYTES + (uint64_t)info->dict_bytes;
	for (uint64_t i = 0; i <= info->nblocks; i++) {
		if (i % BLOCKS_PER_BASE == 0)
			base[i / BLOCKS_PER_BASE] = at;
		delta[i] = (uint32_t)(at - base[i / BLOCKS_PER_BASE]);
		if (i < info->nblocks)
			at += obd_get_le32(table + 4 * i);
	}
}

int obd_zfile_table_attach(struct obd_zfile_table *t, const struct obd_zfile_info *info, const void *mem, uint64_t mem_bytes)
{
	if (!obd_zfile_info_ok(info) || (uintptr_t)mem % sizeof(uint64_t) || mem_bytes < obd_zfile_offsets_bytes(info->nblocks))
		return -EINVAL;
	const uint64_t *base = mem;
	*t = (struct obd_zfile_table){
		.base = base,
		.delta = (const uint32_t *)(base + bases_of(info->nblocks)),
		.nblocks = info->nblocks,
		.first = OBD_ZFILE_HEADER_BYTES + (uint64_t)info->dict_bytes,
		.end = info->index_offset,
		.stored_max = obd_zfile_stored_max(info->block_bytes),
	};
	return 0;
}
