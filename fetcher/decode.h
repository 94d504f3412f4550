/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * From a blob's bytes, as they arrive, to whole blocks.
 *
 * A decoder is made for a run of blocks, tells which range of the payload it needs, and is then fed exactly that range, in
 * pieces of any size. It knows neither sources nor the segment: frames are what its sink says they are.
 *
 *     zfile   |  z0  | z1 |  z2   | z3 |   stored blocks, cut by the jump table, CRC checked, decompressed
 *              \____________/\_________/
 *     frames       frame 0      frame 1    (or the other way round: one stored block makes several frames)
 *
 * The jump table lies in shared memory: what is needed of it is copied and checked when the decoder is made. A stored block
 * that cannot be decoded makes its frames bad; decoding goes on behind it. Nothing here blocks.
 */
#ifndef OBD_FETCHER_DECODE_H
#define OBD_FETCHER_DECODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/format/zfile.h"

#define OBD_DECODE_FRAMES 64u

struct obd_decode_sink {
	/* block_bytes of room for frame i. Asked for often, always the same answer until whole. */
	unsigned char *(*frame)(void *arg, uint32_t i);
	/* What is wanted of frame i is complete and right: bytes [begin, end) of the block, at their places in the frame; begin
	 * is 0 but where less than the whole block is wanted. At most once per frame. */
	void (*whole)(void *arg, uint32_t i, uint32_t begin, uint32_t end);
	void *arg;
};

/* A piece of a plain range: so many bytes are what is wanted of that frame, from its byte `at` on. */
struct obd_decode_piece {
	uint32_t frame;
	uint32_t bytes;
	uint32_t at;
};

struct obd_decoder {
	struct obd_decode_sink sink;
	uint64_t need; /* bytes of the whole range */
	uint64_t fed;
	uint64_t bad; /* bit i: frame i has a stored block that is damaged */
	/* zfile */
	struct obd_codec *codec; /* NULL: plain */
	struct obd_zfile_info info;
	uint32_t block_bytes; /* of a frame */
	uint32_t frame0;      /* number of the run's first frame */
	uint32_t nframes;
	uint64_t first_block; /* block number of the run's first frame */
	uint64_t from, to;    /* bytes of the plain file that are decoded: what is wanted, out to the stored blocks' ends */
	uint64_t zfirst;      /* number of the first stored block */
	uint32_t zcount;
	uint32_t znext;	      /* the next to decode, 0 … zcount */
	uint32_t *stored_end; /* zcount: where each ends, from the start of the range */
	unsigned char *carry; /* a stored block that came in more than one piece */
	size_t carried;
	unsigned char *bounce; /* a decoded block that makes several frames */
	/* plain */
	struct obd_decode_piece piece[OBD_DECODE_FRAMES];
	uint32_t npieces;
	uint32_t at;	 /* current piece */
	uint32_t filled; /* of it */
};

/*
 * Blocks [block, block + nblocks) of a compressed layer become the frames frame0, frame0 + 1, … of the sink. info and codec:
 * of this layer, the codec stays the caller's; table: in shared memory, not used after the call. [*start, *end) is what must be
 * fed, from the payload's start. 0; -EPROTO: block numbers or the table cannot be; -ENOMEM. On error nothing is owned.
 */
int obd_decoder_init_zfile(struct obd_decoder *d, const struct obd_decode_sink *sink, struct obd_codec *codec,
			   const struct obd_zfile_info *info, const struct obd_zfile_table *table, uint32_t block_bytes,
			   uint64_t block, uint32_t nblocks, uint32_t frame0, uint64_t *start, uint64_t *end);

/* The same for bytes [from, to) of the plain file, which begin in `block` and end in the last of the blocks. More comes, out to
 * the ends of the stored blocks, and is told of. */
int obd_decoder_init_zfile_part(struct obd_decoder *d, const struct obd_decode_sink *sink, struct obd_codec *codec,
				const struct obd_zfile_info *info, const struct obd_zfile_table *table, uint32_t block_bytes,
				uint64_t from, uint64_t to, uint32_t frame0, uint64_t *start, uint64_t *end);

/* Bytes that are stored as they are: piece after piece, none empty, at most OBD_DECODE_FRAMES. */
void obd_decoder_init_plain(struct obd_decoder *d, const struct obd_decode_sink *sink, const struct obd_decode_piece *piece,
			    uint32_t npieces);

/* Where the next bytes could be stored without being copied again; NULL when there is no such place. *n: how many fit. */
unsigned char *obd_decoder_room(struct obd_decoder *d, size_t *n);

/* The next n bytes of the range. 0; -EOVERFLOW: more than was needed; -ENOMEM. Damage is no error here, see d->bad. */
int obd_decoder_feed(struct obd_decoder *d, const unsigned char *buf, size_t n);

/* Were all bytes fed? */
bool obd_decoder_complete(const struct obd_decoder *d);

void obd_decoder_free(struct obd_decoder *d);

#endif
