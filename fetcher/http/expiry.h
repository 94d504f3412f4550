/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How long something holds: Retry-After, and the end of a signed address. What is parsed comes from servers. Nothing blocks. */
#ifndef OBD_FETCHER_HTTP_EXPIRY_H
#define OBD_FETCHER_HTTP_EXPIRY_H

#include <stddef.h>
#include <stdint.h>

#define OBD_HTTP_RETRY_MAX_S 300
#define OBD_HTTP_LIFE_UNKNOWN INT64_MIN

/* An HTTP date of n characters as seconds since 1970; 0: it is none. */
int64_t obd_http_date(const char *text, size_t n);

/* The value of Retry-After (n characters: seconds or a date) as seconds from now_s on, 0 … OBD_HTTP_RETRY_MAX_S; 0 also for
 * what cannot be read. */
uint32_t obd_http_retry_after(const char *text, size_t n, int64_t now_s);

/*
 * How many seconds from now_s on an address is good for, by what signing services put into its query: X-Amz-Date and
 * X-Amz-Expires (S3), X-Goog-Date and X-Goog-Expires, Expires or exp (seconds since 1970: older S3, CloudFront, and others),
 * se (Azure). The earliest counts. May be negative; OBD_HTTP_LIFE_UNKNOWN: it does not say.
 */
int64_t obd_http_url_life(const char *url, int64_t now_s);

#endif
