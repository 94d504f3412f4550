/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Base64 as HTTP Basic and docker's files have it (RFC 4648, section 4). */
#ifndef OBD_FETCHER_AUTH_BASE64_H
#define OBD_FETCHER_AUTH_BASE64_H

#include <stddef.h>
#include <sys/types.h>

/* Characters that n bytes become, without the NUL. */
#define OBD_BASE64_CHARS(n) (((n) + 2) / 3 * 4)

/* Writes OBD_BASE64_CHARS(n) characters and a NUL. */
void obd_base64_encode(const void *from, size_t n, char *to);

/* Decodes n characters; padding may be missing. Returns the number of bytes, at most n / 4 * 3 + 2, or -1 for what is no
 * base64. */
ssize_t obd_base64_decode(const char *from, size_t n, unsigned char *to);

#endif
