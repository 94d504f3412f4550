/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Little-endian integers at any alignment, as files and wires hold them. */
#ifndef OBD_COMMON_BASE_LE_H
#define OBD_COMMON_BASE_LE_H

#include <stdint.h>
#include <string.h>

static inline uint16_t obd_get_le16(const void *p)
{
	const unsigned char *b = p;
	return (uint16_t)(b[0] | b[1] << 8);
}

static inline uint32_t obd_get_le32(const void *p)
{
	const unsigned char *b = p;
	return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

static inline uint64_t obd_get_le64(const void *p)
{
	return (uint64_t)obd_get_le32(p) | (uint64_t)obd_get_le32((const char *)p + 4) << 32;
}

static inline void obd_put_le16(void *p, uint16_t v)
{
	unsigned char *b = p;
	b[0] = (unsigned char)v;
	b[1] = (unsigned char)(v >> 8);
}

static inline void obd_put_le32(void *p, uint32_t v)
{
	unsigned char *b = p;
	for (int i = 0; i < 4; i++)
		b[i] = (unsigned char)(v >> 8 * i);
}

static inline void obd_put_le64(void *p, uint64_t v)
{
	unsigned char *b = p;
	for (int i = 0; i < 8; i++)
		b[i] = (unsigned char)(v >> 8 * i);
}

#endif
