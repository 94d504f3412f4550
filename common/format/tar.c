/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "common/format/tar.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/base/util.h"

/* POSIX ustar header, the fields used here. */
struct ustar {
	char name[100];
	char mode[8];
	char uid[8];
	char gid[8];
	char size[12];
	char mtime[12];
	char checksum[8];
	char typeflag;
	char linkname[100];
	char magic[6];
	char version[2];
	char uname[32];
	char gname[32];
	char rest[183];
};

static_assert(sizeof(struct ustar) == OBD_TAR_BLOCK_BYTES, "tar block");

static const char member_name[] = "overlaybd.commit";
static const char pax_name[] = "overlaybd.pax";

/* Sum of all bytes with the checksum field taken as spaces. */
static uint32_t sum_of(const struct ustar *h)
{
	const unsigned char *p = (const unsigned char *)h;
	const size_t from = offsetof(struct ustar, checksum), to = from + sizeof(h->checksum);
	uint32_t sum = 0;
	for (size_t i = 0; i < sizeof(*h); i++)
		sum += i >= from && i < to ? ' ' : p[i];
	return sum;
}

/* Octal digits between blanks, ended by a blank or NUL; a field of blanks is 0. False: something else, or too large. */
static bool parse_octal(const char *field, size_t len, uint64_t *out)
{
	uint64_t v = 0;
	size_t i = 0;
	while (i < len && field[i] == ' ')
		i++;
	for (; i < len && field[i] >= '0' && field[i] <= '7'; i++) {
		if (v >> 61)
			return false;
		v = v << 3 | (uint64_t)(field[i] - '0');
	}
	for (; i < len; i++)
		if (field[i] != ' ' && field[i] != '\0')
			return false;
	*out = v;
	return true;
}

/* Base-256: the top bit is set, the rest is a big-endian number. Negative and huge numbers are refused. */
static bool parse_number(const char *field, size_t len, uint64_t *out)
{
	const unsigned char *p = (const unsigned char *)field;
	if (!(p[0] & 0x80))
		return parse_octal(field, len, out);
	uint64_t v = p[0] & 0x7f;
	for (size_t i = 1; i < len; i++) {
		if (v >> 54)
			return false;
		v = v << 8 | p[i];
	}
	*out = v;
	return true;
}

/* Magic "ustar" with NUL or (GNU) blank, and a checksum that holds. */
static bool is_ustar(const struct ustar *h)
{
	uint64_t sum;
	if (memcmp(h->magic, "ustar", 5) != 0 || (h->magic[5] != '\0' && h->magic[5] != ' '))
		return false;
	return parse_octal(h->checksum, sizeof(h->checksum), &sum) && sum == sum_of(h);
}

/* The decimal number at *p, below 2^62; *p moves behind it. */
static bool parse_decimal(const char **p, const char *end, uint64_t *out)
{
	uint64_t v = 0;
	const char *s = *p;
	for (; s < end && *s >= '0' && *s <= '9'; s++) {
		if (v > (uint64_t)OBD_TAR_MAX_PAYLOAD / 10)
			return false;
		v = v * 10 + (uint64_t)(*s - '0');
	}
	bool any = s != *p;
	*p = s;
	*out = v;
	return any && v <= (uint64_t)OBD_TAR_MAX_PAYLOAD;
}

/* Looks for "size" among the records "LEN KEY=VALUE\n". The last one counts. */
static int parse_pax(const char *rec, size_t len, bool *found, uint64_t *size, struct obd_err *err)
{
	const char *p = rec, *end = rec + len;
	*found = false;
	while (p < end && *p != '\0') {
		const char *s = p;
		uint64_t reclen;
		if (!parse_decimal(&s, end, &reclen) || s == end || *s != ' ')
			return obd_err_set(err, EINVAL, "tar pax record: no decimal length at byte %zu", (size_t)(p - rec));
		if (reclen < (uint64_t)(s - p) + 2 || reclen > (uint64_t)(end - p))
			return obd_err_set(err, EINVAL, "tar pax record: length is %" PRIu64 ", at most %zu fit", reclen,
					   (size_t)(end - p));
		const char *last = p + reclen - 1;
		if (*last != '\n')
			return obd_err_set(err, EINVAL, "tar pax record: no newline at its end");
		s++;
		if (last - s >= 5 && memcmp(s, "size=", 5) == 0) {
			s += 5;
			if (!parse_decimal(&s, last, size) || s != last)
				return obd_err_set(err, EINVAL, "tar pax record: size is no decimal number up to %" PRId64,
						   OBD_TAR_MAX_PAYLOAD);
			*found = true;
		}
		p = last + 1;
	}
	return 0;
}

/* The pax header at offset 0, when there is one; *at moves to the header behind it. */
static int read_pax(const unsigned char *buf, size_t len, size_t *at, bool *found, uint64_t *size, struct obd_err *err)
{
	struct ustar h;
	uint64_t body;
	memcpy(&h, buf, sizeof(h));
	*found = false;
	if (h.typeflag != 'x')
		return 0;
	if (!parse_number(h.size, sizeof(h.size), &body))
		return obd_err_set(err, EINVAL, "tar pax header: size field is not a number");
	uint64_t padded = body <= len ? obd_align_up(body, OBD_TAR_BLOCK_BYTES) : body;
	if (padded > len || len - padded < 2 * OBD_TAR_BLOCK_BYTES)
		return obd_err_set(err, EINVAL, "tar pax header: size is %" PRIu64 ", but only %zu bytes of headers were read",
				   body, len);
	*at = OBD_TAR_BLOCK_BYTES + (size_t)padded;
	return parse_pax((const char *)buf + OBD_TAR_BLOCK_BYTES, (size_t)body, found, size, err);
}

static int whole(uint64_t blob_bytes, struct obd_tar_info *out)
{
	*out = (struct obd_tar_info){.payload_bytes = blob_bytes};
	return 0;
}

int obd_tar_parse(const void *buf, size_t len, uint64_t blob_bytes, struct obd_tar_info *out, struct obd_err *err)
{
	struct ustar h;
	size_t at = 0;
	bool pax_size;
	uint64_t size = 0;
	if (len > blob_bytes)
		len = (size_t)blob_bytes;
	if (len < sizeof(h))
		return whole(blob_bytes, out);
	memcpy(&h, buf, sizeof(h));
	if (!is_ustar(&h))
		return whole(blob_bytes, out);
	int rc = read_pax(buf, len, &at, &pax_size, &size, err);
	if (rc)
		return rc;
	memcpy(&h, (const char *)buf + at, sizeof(h));
	if (!is_ustar(&h))
		return obd_err_set(err, EINVAL, "tar header at byte %zu: bad magic or checksum", at);
	if (h.typeflag != '0' && h.typeflag != '\0')
		return obd_err_set(err, EINVAL, "tar header at byte %zu: typeflag is 0x%02x, expected a regular file ('0')", at,
				   (unsigned char)h.typeflag);
	if (!pax_size && !parse_number(h.size, sizeof(h.size), &size))
		return obd_err_set(err, EINVAL, "tar header at byte %zu: size field is not a number", at);
	uint64_t offset = at + OBD_TAR_BLOCK_BYTES;
	if (offset > blob_bytes || size > blob_bytes - offset)
		return obd_err_set(err, EINVAL, "tar header: payload size is %" PRIu64 ", the blob has room for %" PRIu64, size,
				   blob_bytes > offset ? blob_bytes - offset : 0);
	*out = (struct obd_tar_info){.wrapped = true, .payload_offset = offset, .payload_bytes = size};
	return 0;
}

/* v in octal, right-aligned in len - 1 characters, a blank behind it. */
static void put_octal(char *field, size_t len, uint32_t v)
{
	char text[16];
	snprintf(text, sizeof(text), "%*o ", (int)len - 1, v);
	memcpy(field, text, len);
}

/* Six characters, blank, NUL: what the small fields hold. */
static void put_octal8(char field[8], uint32_t v)
{
	char text[16];
	snprintf(text, sizeof(text), "%6o ", v);
	memcpy(field, text, 8);
}

static void fill_common(struct ustar *h, const char *name, char type)
{
	memcpy(h->name, name, strlen(name));
	h->typeflag = type;
	memcpy(h->magic, "ustar", 6);
	memcpy(h->version, "00", 2);
}

int obd_tar_header(void *buf, uint64_t payload_bytes)
{
	struct ustar pax = {0}, file = {0};
	char record[OBD_TAR_BLOCK_BYTES] = {0};
	if (payload_bytes > (uint64_t)OBD_TAR_MAX_PAYLOAD)
		return -EINVAL;
	/* The length counts itself: one digit when all is below 10 (it never is), else two. */
	int len = snprintf(record, sizeof(record), "00 size=%" PRIu64 "\n", payload_bytes);
	if (len < 10)
		len--;
	snprintf(record, sizeof(record), "%d size=%" PRIu64 "\n", len, payload_bytes);
	fill_common(&pax, pax_name, 'x');
	put_octal(pax.size, sizeof(pax.size), (uint32_t)len);
	put_octal8(pax.checksum, sum_of(&pax));
	fill_common(&file, member_name, '0');
	put_octal8(file.mode, 0100644);
	put_octal8(file.uid, 0);
	put_octal8(file.gid, 0);
	put_octal(file.size, sizeof(file.size), 0);
	put_octal(file.mtime, sizeof(file.mtime), 0);
	memcpy(file.uname, "root", 4);
	memcpy(file.gname, "root", 4);
	put_octal8(file.checksum, sum_of(&file));
	memcpy(buf, &pax, sizeof(pax));
	memcpy((char *)buf + OBD_TAR_BLOCK_BYTES, record, sizeof(record));
	memcpy((char *)buf + 2 * OBD_TAR_BLOCK_BYTES, &file, sizeof(file));
	return 0;
}

uint32_t obd_tar_tail_bytes(uint64_t payload_bytes)
{
	uint32_t over = (uint32_t)(payload_bytes % OBD_TAR_BLOCK_BYTES);
	return (over ? OBD_TAR_BLOCK_BYTES - over : 0) + 2 * OBD_TAR_BLOCK_BYTES;
}
