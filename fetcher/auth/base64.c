/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fetcher/auth/base64.h"

#include <stdint.h>

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void obd_base64_encode(const void *from, size_t n, char *to)
{
	const unsigned char *p = from;
	for (size_t i = 0; i < n; i += 3) {
		size_t have = n - i < 3 ? n - i : 3;
		uint32_t v = (uint32_t)p[i] << 16 | (have > 1 ? (uint32_t)p[i + 1] << 8 : 0) | (have > 2 ? p[i + 2] : 0);
		*to++ = digits[v >> 18];
		*to++ = digits[v >> 12 & 63];
		*to++ = have > 1 ? digits[v >> 6 & 63] : '=';
		*to++ = have > 2 ? digits[v & 63] : '=';
	}
	*to = '\0';
}

static int value_of(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '+' ? 62 : c == '/' ? 63 : -1;
}

ssize_t obd_base64_decode(const char *from, size_t n, unsigned char *to)
{
	uint32_t v = 0;
	size_t out = 0, digit = 0;
	for (int pad = 0; pad < 2 && n && from[n - 1] == '='; pad++)
		n--;
	for (; digit < n; digit++) {
		int d = value_of(from[digit]);
		if (d < 0)
			return -1;
		v = v << 6 | (uint32_t)d;
		if (digit % 4 != 0)
			to[out++] = (unsigned char)(v >> (6 - digit % 4 * 2));
	}
	return digit % 4 == 1 ? -1 : (ssize_t)out;
}
