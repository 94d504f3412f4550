/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "common/base/crc32c.h"

#include <pthread.h>
#include <string.h>

#define POLY_REFLECTED 0x82F63B78u

typedef uint32_t crc_fn(uint32_t crc, const unsigned char *p, size_t len);

static uint32_t tables[8][256];
static crc_fn *impl;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* Slicing by eight: one table look-up per byte, eight bytes a step, no dependency between them. */
static uint32_t crc_tables(uint32_t crc, const unsigned char *p, size_t len)
{
	for (; len >= 8; p += 8, len -= 8) {
		uint32_t a = crc ^ ((uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24);
		crc = tables[7][a & 255] ^ tables[6][a >> 8 & 255] ^ tables[5][a >> 16 & 255] ^ tables[4][a >> 24] ^
		      tables[3][p[4]] ^ tables[2][p[5]] ^ tables[1][p[6]] ^ tables[0][p[7]];
	}
	while (len--)
		crc = tables[0][(crc ^ *p++) & 255] ^ crc >> 8;
	return crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t crc_sse42(uint32_t crc, const unsigned char *p, size_t len)
{
	uint64_t c = crc;
	for (; len >= 8; p += 8, len -= 8) {
		uint64_t w;
		memcpy(&w, p, 8);
		c = __builtin_ia32_crc32di(c, w);
	}
	uint32_t r = (uint32_t)c;
	while (len--)
		r = __builtin_ia32_crc32qi(r, *p++);
	return r;
}
#endif

static void choose(void)
{
	for (uint32_t i = 0; i < 256; i++) {
		uint32_t c = i;
		for (int k = 0; k < 8; k++)
			c = c & 1 ? c >> 1 ^ POLY_REFLECTED : c >> 1;
		tables[0][i] = c;
	}
	for (int t = 1; t < 8; t++)
		for (int i = 0; i < 256; i++)
			tables[t][i] = tables[0][tables[t - 1][i] & 255] ^ tables[t - 1][i] >> 8;
	impl = crc_tables;
#if defined(__x86_64__)
	if (__builtin_cpu_supports("sse4.2"))
		impl = crc_sse42;
#endif
}

uint32_t obd_crc32c_raw(uint32_t seed, const void *data, size_t len)
{
	pthread_once(&once, choose);
	return impl(seed, data, len);
}
