/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Files of the disk tier (doc/formats.md): for each blob a data file, sparse, which holds bytes of the blob at their own
 * offsets, and a marks file, which says what of it is there.
 *
 *     CACHEDIR/<64 hex>/<64 hex>.<size>.data      bytes of the blob
 *     CACHEDIR/<64 hex>/<64 hex>.<size>.marks     header 4096 | raw marks | block marks, 32 bytes each
 *
 * A mark stands for a unit: one raw chunk, or the stored bytes of one block. It carries their place and CRC and a check of
 * itself, which depends on its own place and on the blob, so that a mark is good in one place of one file only. Whatever else
 * lies in the file reads as "absent" or "garbled": the file is hostile input.
 *
 * Numbers are little-endian. Nothing here blocks or allocates.
 */
#ifndef OBD_COMMON_FORMAT_MARKS_H
#define OBD_COMMON_FORMAT_MARKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OBD_MARKS_VERSION 1u
#define OBD_MARKS_HEADER_BYTES 4096u
#define OBD_MARK_BYTES 32u
#define OBD_MARK_AGE_AT 16u		/* where in a mark its age stands, 4 bytes; not covered by the check */
#define OBD_MARK_UNIT_MAX (4u << 20)	/* no unit is longer */
#define OBD_MARK_NUMBER_MAX 0x7fffffffu /* highest number of a unit */
#define OBD_MARKS_DIGEST_BYTES 72u	/* "sha256:", 64 hex digits, NUL */
#define OBD_MARKS_NAME_BYTES 96u	/* of a file's name, NUL included */
#define OBD_MARKS_RAW_HEAD_BYTES 4096u	/* raw chunk 0; the others count from the blob's end */

/* What a marks file is about. Two files with equal geometry name units alike. */
struct obd_marks_geo {
	uint32_t block_bytes; /* of the cache */
	uint32_t salt;	      /* follows from the others */
	uint64_t blob_bytes;
	uint64_t nraw; /* raw chunks, and so raw marks */
	char digest[OBD_MARKS_DIGEST_BYTES];
};

struct obd_mark {
	uint64_t start; /* in the blob */
	uint32_t bytes; /* 1 ... OBD_MARK_UNIT_MAX */
	uint32_t crc;	/* obd_marks_crc of them */
	uint32_t age;	/* seconds since 1970 of the last use, as far as it was noted */
};

enum obd_mark_state { OBD_MARK_ABSENT, OBD_MARK_PRESENT, OBD_MARK_GARBLED };

/* "sha256:" and 64 lower-case hexadecimal digits, nothing else? */
bool obd_marks_digest_ok(const char *digest);

/* False: the digest is not one, or block_bytes or blob_bytes cannot be. */
bool obd_marks_geo_init(struct obd_marks_geo *geo, uint32_t block_bytes, uint64_t blob_bytes, const char *digest);

void obd_marks_header_encode(const struct obd_marks_geo *geo, unsigned char buf[OBD_MARKS_HEADER_BYTES]);

/* buf: the file's first n bytes. 0; -EINVAL: not a header of this version, damaged, or with fields that cannot be. */
int obd_marks_header_decode(const unsigned char *buf, size_t n, struct obd_marks_geo *geo);

bool obd_marks_geo_equal(const struct obd_marks_geo *a, const struct obd_marks_geo *b);

/* Which mark of the file is that of raw chunk or block `number`? */
uint64_t obd_marks_index(const struct obd_marks_geo *geo, bool raw, uint32_t number);

/* Where it stands in the file. */
uint64_t obd_marks_offset(uint64_t index);

void obd_mark_encode(const struct obd_marks_geo *geo, uint64_t index, const struct obd_mark *m,
		     unsigned char buf[OBD_MARK_BYTES]);

/* PRESENT: m is filled, and lies inside the blob. */
enum obd_mark_state obd_mark_decode(const struct obd_marks_geo *geo, uint64_t index, const unsigned char buf[OBD_MARK_BYTES],
				    struct obd_mark *m);

/* Of a unit's bytes. */
uint32_t obd_marks_crc(const void *buf, size_t n);

/* "<hex of the digest>.<size>.data" or ".marks". The digest must be good. */
void obd_marks_name(const struct obd_marks_geo *geo, bool marks, char name[OBD_MARKS_NAME_BYTES]);

/* Is it such a name, written exactly so? */
bool obd_marks_name_parse(const char *name, bool *marks, char digest[OBD_MARKS_DIGEST_BYTES], uint64_t *blob_bytes);

/* 64 lower-case hexadecimal digits? */
bool obd_marks_is_hash(const char *name);

#endif
