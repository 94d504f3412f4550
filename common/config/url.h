/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The parts of an image's repoBlobUrl. Plain data, no ownership. */
#ifndef OBD_COMMON_CONFIG_URL_H
#define OBD_COMMON_CONFIG_URL_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"

#define OBD_URL_HOST_MAX 253
#define OBD_URL_REPO_MAX 1024

struct obd_repo_url {
	bool https;
	uint16_t port;			 /* as written, else 443 or 80 */
	char host[OBD_URL_HOST_MAX + 3]; /* lower case; an IPv6 address in its brackets */
	char registry[OBD_URL_HOST_MAX +
		      9]; /* host or host:port as written, lower case: what registries[] and credentials name */
	char origin[OBD_URL_HOST_MAX + 17]; /* scheme://host:port, always with a port: equal for the same server only */
	char repo[OBD_URL_REPO_MAX + 1];    /* between /v2/ and /blobs */
};

/*
 * Splits http(s)://HOST[:PORT]/v2/REPO/blobs. REPO is one or more components of letters, digits, '.', '_' and '-', none of
 * them "." or "..". User information, queries, fragments and percent signs are refused. Returns 0, or -EINVAL with err
 * saying what is wrong with the text (the text itself is not repeated there). Does not look the host up.
 */
int obd_repo_url_parse(const char *text, struct obd_repo_url *out, struct obd_err *err);

/* What an address in the global configuration may look like. */
#define OBD_URL_BARE 1u	  /* HOST[:PORT] and nothing else */
#define OBD_URL_HTTP 2u	  /* http://HOST[:PORT][/PATH] */
#define OBD_URL_HTTPS 4u  /* https://HOST[:PORT][/PATH] */
#define OBD_URL_QUERY 8u  /* with those, a query may follow */
#define OBD_URL_SHORT 16u /* HOST[:PORT][/PATH] without a scheme */

/* 0, or -EINVAL with err saying what is wrong with the text and which forms are allowed. */
int obd_url_check(const char *text, unsigned int forms, struct obd_err *err);

#endif
