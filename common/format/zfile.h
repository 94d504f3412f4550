/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ZFile: a file compressed in blocks that can be read at random.
 *
 *     header 512 | block 0 [crc] | block 1 [crc] | ... | jump table u32[nblocks] | trailer 512
 *
 * How an event-driven reader uses it: fetch the first 512 and the last 512 bytes of the payload; obd_zfile_parse_header;
 * when it answers OBD_ZFILE_NEED_TRAILER, obd_zfile_parse_trailer; fetch [index_offset, + obd_zfile_index_bytes);
 * obd_zfile_check_table; obd_zfile_build_offsets into memory of obd_zfile_offsets_bytes. After that
 * obd_zfile_block_range gives the stored range of a block and obd_zfile_decode_block makes plain bytes of it.
 *
 * Offsets count from the start of the payload (add the tar wrapper's payload_offset for the blob's).
 * Unless a comment says otherwise: no function blocks, allocates or keeps a pointer; all may be called from any thread.
 */
#ifndef OBD_COMMON_FORMAT_ZFILE_H
#define OBD_COMMON_FORMAT_ZFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/format/file.h"

#define OBD_ZFILE_HEADER_BYTES 512u
#define OBD_ZFILE_BLOCK_MIN 512u
#define OBD_ZFILE_BLOCK_MAX (1u << 20)
/* More blocks than this are refused: 2^32 blocks of 4 KiB are a layer of 16 TiB. */
#define OBD_ZFILE_BLOCKS_MAX (UINT64_C(1) << 32)

enum obd_zfile_algorithm {
	OBD_ZFILE_LZ4 = 1,
	OBD_ZFILE_ZSTD = 2,
};

/* Plain data, no pointers: may be copied into shared memory and back (check it again with obd_zfile_info_ok). */
struct obd_zfile_info {
	uint64_t original_bytes; /* of the file before compression */
	uint64_t payload_bytes;	 /* of the ZFile */
	uint64_t index_offset;	 /* of the jump table; blocks end at or before it */
	uint64_t nblocks;	 /* = ceil(original_bytes / block_bytes), entries of the jump table */
	uint64_t flags;		 /* as stored, with bits that cannot be trusted cleared */
	uint32_t block_bytes;	 /* power of two, OBD_ZFILE_BLOCK_MIN ... MAX */
	uint32_t index_crc;	 /* meaningful when digest is set */
	uint32_t dict_bytes;	 /* always 0 so far: dictionaries are refused */
	uint8_t algorithm;	 /* enum obd_zfile_algorithm */
	uint8_t verify;		 /* 1: each block ends in a u32 CRC of its compressed bytes */
	uint8_t digest;		 /* 1: index_crc is to be checked */
	uint8_t level;
};

/* buf: the first 8 or more bytes of a payload. True when they carry the magic (24 bytes are compared when len allows). */
bool obd_zfile_is_zfile(const void *buf, size_t len);

#define OBD_ZFILE_NEED_TRAILER 1

/*
 * buf: the payload's first 512 bytes. 0: *info is complete, the trailer need not be read. OBD_ZFILE_NEED_TRAILER: the
 * header is a ZFile's but says nothing that can be trusted; read the trailer. Negative: not a ZFile, or refused.
 */
int obd_zfile_parse_header(const void *buf, uint64_t payload_bytes, struct obd_zfile_info *info, struct obd_err *err);

/* buf: the payload's last 512 bytes. 0 and *info complete, or negative: -EINVAL (a field is wrong), -EBADMSG (digest),
 * -ENOTSUP (compressed jump table, dictionary). */
int obd_zfile_parse_trailer(const void *buf, uint64_t payload_bytes, struct obd_zfile_info *info, struct obd_err *err);

/* True when every field is in its range and they agree with each other; for an info that passed through shared memory. */
bool obd_zfile_info_ok(const struct obd_zfile_info *info);

/* Bytes of the jump table: 4 * nblocks. */
uint64_t obd_zfile_index_bytes(const struct obd_zfile_info *info);

/* The longest that a stored block may be, its CRC included. Fits 32 bits with 64 such blocks added up. */
uint32_t obd_zfile_stored_max(uint32_t block_bytes);

/* How many plain bytes block holds: block_bytes, fewer for the last, 0 behind the end. */
uint32_t obd_zfile_block_plain_bytes(const struct obd_zfile_info *info, uint64_t block);

/* Checks the jump table: its CRC when there is a digest, each length, and that the blocks end at or before it.
 * 0, -EINVAL (len is not obd_zfile_index_bytes, a length is out of range), -EBADMSG (CRC). */
int obd_zfile_check_table(const struct obd_zfile_info *info, const void *jump_table, uint64_t len, struct obd_err *err);

/*
 * The random-access table: u64 base[nblocks / 64 + 1], then u32 delta[nblocks + 1]; block i starts at
 * base[i / 64] + delta[i], and "block nblocks" starts where the last one ends. It is meant to lie in shared memory and be
 * read by processes that do not trust it.
 */
struct obd_zfile_table {
	const volatile uint64_t *base;	/* shared, never trusted */
	const volatile uint32_t *delta; /* shared, never trusted */
	uint64_t nblocks;		/* these four are the reader's own copy */
	uint64_t first;			/* no block starts before this byte */
	uint64_t end;			/* no block ends behind this byte */
	uint32_t stored_max;		/* no block is longer */
};

/* Bytes of the table for that many blocks; mem must be aligned to 8. */
uint64_t obd_zfile_offsets_bytes(uint64_t nblocks);

/* Fills mem (obd_zfile_offsets_bytes) from a jump table that obd_zfile_check_table has passed. */
void obd_zfile_build_offsets(const struct obd_zfile_info *info, const void *jump_table, void *mem);

/* Points t at a table of mem_bytes at mem. 0; -EINVAL: info is not sane, mem is too small or not aligned. */
int obd_zfile_table_attach(struct obd_zfile_table *t, const struct obd_zfile_info *info, const void *mem, uint64_t mem_bytes);

/* Stored range [*start, *end) of a block. False: no such block, or the table holds nonsense. Whatever the table holds,
 * a true answer lies within the payload and is at most stored_max long. */
static inline bool obd_zfile_block_range(const struct obd_zfile_table *t, uint64_t block, uint64_t *start, uint64_t *end)
{
	if (block >= t->nblocks)
		return false;
	uint64_t a = t->base[block >> 6], b = t->base[(block + 1) >> 6];
	if (a > t->end || b > t->end)
		return false;
	a += t->delta[block];
	b += t->delta[block + 1];
	if (a < t->first || b > t->end || a >= b || b - a > t->stored_max)
		return false;
	*start = a;
	*end = b;
	return true;
}

/* What decoding needs besides the bytes. One thread at a time; allocates only when it is made. */
struct obd_codec;

struct obd_codec *obd_codec_new(void); /* NULL: memory */
void obd_codec_free(struct obd_codec *c);

/*
 * Checks the CRC of a stored block (when info->verify) and decompresses it straight into dst. dst_bytes is the exact
 * length that must come out (obd_zfile_block_plain_bytes). 0; -EBADMSG: CRC, damaged data or another length, dst then
 * holds garbage; -EINVAL: src shorter than a block can be, or an unknown algorithm.
 */
int obd_zfile_decode_block(struct obd_codec *c, const struct obd_zfile_info *info, const void *src, size_t src_bytes, void *dst,
			   size_t dst_bytes);

/* A reader for tools and tests: the plain bytes of payload as a file, which owns payload. NULL with a line in err. Each
 * read decodes the blocks it touches; the last one is kept. */
struct obd_file *obd_zfile_open(struct obd_file *payload, struct obd_err *err);

#define OBD_ZFILE_THREADS_MAX 64u

struct obd_zfile_opts {
	enum obd_zfile_algorithm algorithm;
	uint32_t block_bytes;  /* power of two, 4096 ... 65536 */
	int level;	       /* zstd: 0 = the default; lz4: ignored. Not stored in the file (existing writers store 0) */
	bool no_verify;	       /* leave the CRCs of blocks out */
	unsigned threads;      /* that compress besides the caller; 0 or 1: none. The file does not depend on it */
	bool overwrite_header; /* write the header again at the end so that readers need no trailer: dst must allow it */
};

#define OBD_ZFILE_OPTS_DEFAULT                                  \
	(struct obd_zfile_opts)                                 \
	{                                                       \
		.algorithm = OBD_ZFILE_LZ4, .block_bytes = 4096 \
	}

/* A writer that is fed plain bytes in order. Writes to dst from offset 0, only ever at the end (but for
 * overwrite_header), so dst may be a pipe-like sink. Blocks, allocates; used by one thread, and all writes to dst
 * are made by it. */
struct obd_zfile_writer;

/* dst stays the caller's and must outlive the writer. NULL with a line in err and the reason in errno. */
struct obd_zfile_writer *obd_zfile_writer_new(struct obd_file *dst, const struct obd_zfile_opts *opts, struct obd_err *err);

/* Appends n plain bytes. 0 or a negative errno, after which only obd_zfile_writer_free is allowed. */
int obd_zfile_writer_append(struct obd_zfile_writer *w, const void *buf, size_t n);

/* Writes what is left, the jump table and the trailer; *bytes (may be NULL) gets the size of the ZFile. */
int obd_zfile_writer_finish(struct obd_zfile_writer *w, uint64_t *bytes);

void obd_zfile_writer_free(struct obd_zfile_writer *w); /* NULL is allowed */

/* A write-only file whose writes must come in order and go to w (borrowed): lets a layer be committed and compressed in
 * one pass. */
struct obd_file *obd_zfile_writer_file(struct obd_zfile_writer *w);

/* Called about every 4 MiB with plain bytes done and in all; non-zero stops with -ECANCELED. */
typedef int obd_progress_fn(void *ctx, uint64_t done, uint64_t total);

/* Compresses all of src into dst (both stay the caller's). */
int obd_zfile_write(struct obd_file *src, struct obd_file *dst, const struct obd_zfile_opts *opts, obd_progress_fn *progress,
		    void *progress_ctx, uint64_t *bytes, struct obd_err *err);

#endif
