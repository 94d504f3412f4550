/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a token service is asked, and what it answers. Nothing blocks; no message quotes an answer. */
#ifndef OBD_FETCHER_AUTH_TOKEN_H
#define OBD_FETCHER_AUTH_TOKEN_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "fetcher/auth/challenge.h"

#define OBD_TOKEN_ANSWER_MAX (64u << 10)
#define OBD_TOKEN_LIFE_S 60u /* when the answer does not say */
#define OBD_TOKEN_LIFE_MAX_S (7u * 86400)

struct obd_token_answer {
	char *token;	 /* printable ASCII without spaces; obd_secret_free */
	uint64_t life_s; /* 1 … OBD_TOKEN_LIFE_MAX_S, what is left of it */
};

/* Address of the request: the realm with service and scope. A challenge without a scope means to pull repo. NULL: no memory;
 * the caller frees. */
char *obd_token_url(const struct obd_challenge *c, const char *repo);

/*
 * Reads an answer: token or access_token, expires_in, issued_at. wall_s is now in seconds since 1970, by the service's clock if
 * it told (Date), else by ours. A token longer than max_bytes is refused. 0, -EINVAL or -ENOMEM.
 */
int obd_token_parse(const char *body, size_t n, int64_t wall_s, size_t max_bytes, struct obd_token_answer *out,
		    struct obd_err *err);

#endif
