/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "common/format/marks.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/crc32c.h"
#include "common/base/le.h"
#include "common/base/util.h"

#define MAGIC "OBDMARKS"
#define PRESENT 0x31544e55u /* "UNT1" */
#define HEADER_USED 256u

enum { H_VERSION = 8, H_HEADER = 12, H_BLOCK = 16, H_MARK = 20, H_BLOB = 24, H_NRAW = 32, H_DIGEST = 40, H_CRC = 252 };
enum { M_START = 0, M_BYTES = 8, M_CRC = 12, M_AGE = OBD_MARK_AGE_AT, M_ZERO = 20, M_PRESENT = 24, M_CHECK = 28 };

static bool all_hex(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!((s[i] >= '0' && s[i] <= '9') || (s[i] >= 'a' && s[i] <= 'f')))
			return false;
	return true;
}

bool obd_marks_is_hash(const char *name)
{
	return strlen(name) == 64 && all_hex(name, 64);
}

bool obd_marks_digest_ok(const char *digest)
{
	return strncmp(digest, "sha256:", 7) == 0 && obd_marks_is_hash(digest + 7);
}

uint32_t obd_marks_crc(const void *buf, size_t n)
{
	return ~obd_crc32c_raw(UINT32_MAX, buf, n);
}

/* --- geometry ----------------------------------------------------------------------------------------------------------- */

static uint64_t raw_chunks(uint64_t blob_bytes, uint32_t block_bytes)
{
	uint64_t rest = blob_bytes > OBD_MARKS_RAW_HEAD_BYTES ? blob_bytes - OBD_MARKS_RAW_HEAD_BYTES : 0;
	return 1 + rest / block_bytes + (rest % block_bytes != 0);
}

static bool sizes_ok(uint32_t block_bytes, uint64_t blob_bytes)
{
	return obd_is_pow2(block_bytes) && block_bytes >= 4096 && block_bytes <= 1u << 20 && blob_bytes > 0 &&
	       blob_bytes <= INT64_MAX && raw_chunks(blob_bytes, block_bytes) <= (uint64_t)OBD_MARK_NUMBER_MAX + 1;
}

bool obd_marks_geo_init(struct obd_marks_geo *geo, uint32_t block_bytes, uint64_t blob_bytes, const char *digest)
{
	unsigned char buf[OBD_MARKS_HEADER_BYTES];
	memset(geo, 0, sizeof *geo);
	if (!obd_marks_digest_ok(digest) || !sizes_ok(block_bytes, blob_bytes))
		return false;
	geo->block_bytes = block_bytes;
	geo->blob_bytes = blob_bytes;
	geo->nraw = raw_chunks(blob_bytes, block_bytes);
	memcpy(geo->digest, digest, OBD_MARKS_DIGEST_BYTES);
	obd_marks_header_encode(geo, buf);
	geo->salt = obd_get_le32(buf + H_CRC);
	return true;
}

void obd_marks_header_encode(const struct obd_marks_geo *geo, unsigned char buf[OBD_MARKS_HEADER_BYTES])
{
	memset(buf, 0, OBD_MARKS_HEADER_BYTES);
	memcpy(buf, MAGIC, 8);
	obd_put_le32(buf + H_VERSION, OBD_MARKS_VERSION);
	obd_put_le32(buf + H_HEADER, OBD_MARKS_HEADER_BYTES);
	obd_put_le32(buf + H_BLOCK, geo->block_bytes);
	obd_put_le32(buf + H_MARK, OBD_MARK_BYTES);
	obd_put_le64(buf + H_BLOB, geo->blob_bytes);
	obd_put_le64(buf + H_NRAW, geo->nraw);
	memcpy(buf + H_DIGEST, geo->digest, OBD_MARKS_DIGEST_BYTES);
	obd_put_le32(buf + H_CRC, obd_marks_crc(buf, H_CRC));
}

int obd_marks_header_decode(const unsigned char *buf, size_t n, struct obd_marks_geo *geo)
{
	char digest[OBD_MARKS_DIGEST_BYTES];
	if (n < OBD_MARKS_HEADER_BYTES || memcmp(buf, MAGIC, 8) != 0 || obd_get_le32(buf + H_VERSION) != OBD_MARKS_VERSION ||
	    obd_get_le32(buf + H_HEADER) != OBD_MARKS_HEADER_BYTES || obd_get_le32(buf + H_MARK) != OBD_MARK_BYTES ||
	    obd_get_le32(buf + H_CRC) != obd_marks_crc(buf, H_CRC))
		return -EINVAL;
	memcpy(digest, buf + H_DIGEST, sizeof digest);
	digest[sizeof digest - 1] = '\0';
	if (!obd_marks_geo_init(geo, obd_get_le32(buf + H_BLOCK), obd_get_le64(buf + H_BLOB), digest))
		return -EINVAL;
	return geo->nraw == obd_get_le64(buf + H_NRAW) && geo->salt == obd_get_le32(buf + H_CRC) ? 0 : -EINVAL;
}

bool obd_marks_geo_equal(const struct obd_marks_geo *a, const struct obd_marks_geo *b)
{
	return a->block_bytes == b->block_bytes && a->blob_bytes == b->blob_bytes && a->nraw == b->nraw && a->salt == b->salt &&
	       strcmp(a->digest, b->digest) == 0;
}

/* --- marks -------------------------------------------------------------------------------------------------------------- */

uint64_t obd_marks_index(const struct obd_marks_geo *geo, bool raw, uint32_t number)
{
	return raw ? number : geo->nraw + number;
}

uint64_t obd_marks_offset(uint64_t index)
{
	return OBD_MARKS_HEADER_BYTES + index * OBD_MARK_BYTES;
}

static uint32_t check_of(const struct obd_marks_geo *geo, uint64_t index, const unsigned char buf[OBD_MARK_BYTES])
{
	unsigned char place[12];
	obd_put_le32(place, geo->salt);
	obd_put_le64(place + 4, index);
	uint32_t crc = obd_crc32c_raw(UINT32_MAX, place, sizeof place);
	crc = obd_crc32c_raw(crc, buf, M_AGE);
	return ~obd_crc32c_raw(crc, buf + M_ZERO, M_CHECK - M_ZERO);
}

void obd_mark_encode(const struct obd_marks_geo *geo, uint64_t index, const struct obd_mark *m,
		     unsigned char buf[OBD_MARK_BYTES])
{
	obd_put_le64(buf + M_START, m->start);
	obd_put_le32(buf + M_BYTES, m->bytes);
	obd_put_le32(buf + M_CRC, m->crc);
	obd_put_le32(buf + M_AGE, m->age);
	obd_put_le32(buf + M_ZERO, 0);
	obd_put_le32(buf + M_PRESENT, PRESENT);
	obd_put_le32(buf + M_CHECK, check_of(geo, index, buf));
}

static bool is_zero(const unsigned char buf[OBD_MARK_BYTES])
{
	static const unsigned char zero[OBD_MARK_BYTES];
	return memcmp(buf, zero, OBD_MARK_BYTES) == 0;
}

enum obd_mark_state obd_mark_decode(const struct obd_marks_geo *geo, uint64_t index, const unsigned char buf[OBD_MARK_BYTES],
				    struct obd_mark *m)
{
	uint64_t end;
	if (is_zero(buf))
		return OBD_MARK_ABSENT;
	m->start = obd_get_le64(buf + M_START);
	m->bytes = obd_get_le32(buf + M_BYTES);
	m->crc = obd_get_le32(buf + M_CRC);
	m->age = obd_get_le32(buf + M_AGE);
	if (obd_get_le32(buf + M_PRESENT) != PRESENT || obd_get_le32(buf + M_CHECK) != check_of(geo, index, buf))
		return OBD_MARK_GARBLED;
	if (m->bytes == 0 || m->bytes > OBD_MARK_UNIT_MAX || !obd_add_u64(m->start, m->bytes, &end) || end > geo->blob_bytes)
		return OBD_MARK_GARBLED;
	return OBD_MARK_PRESENT;
}

/* --- names -------------------------------------------------------------------------------------------------------------- */

void obd_marks_name(const struct obd_marks_geo *geo, bool marks, char name[OBD_MARKS_NAME_BYTES])
{
	assert(obd_marks_digest_ok(geo->digest));
	snprintf(name, OBD_MARKS_NAME_BYTES, "%.64s.%" PRIu64 ".%s", geo->digest + 7, geo->blob_bytes,
		 marks ? "marks" : "data");
}

bool obd_marks_name_parse(const char *name, bool *marks, char digest[OBD_MARKS_DIGEST_BYTES], uint64_t *blob_bytes)
{
	char again[OBD_MARKS_NAME_BYTES], *end;
	if (strnlen(name, OBD_MARKS_NAME_BYTES) < 70 || strnlen(name, OBD_MARKS_NAME_BYTES) >= OBD_MARKS_NAME_BYTES ||
	    !all_hex(name, 64) || name[64] != '.' || name[65] < '1' || name[65] > '9')
		return false;
	errno = 0;
	*blob_bytes = strtoull(name + 65, &end, 10);
	*marks = strcmp(end, ".marks") == 0;
	snprintf(digest, OBD_MARKS_DIGEST_BYTES, "sha256:%.64s", name);
	snprintf(again, sizeof again, "%.64s.%" PRIu64 ".%s", name, *blob_bytes, *marks ? "marks" : "data");
	return errno == 0 && strcmp(again, name) == 0;
}
