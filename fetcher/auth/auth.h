/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a request for a blob must say to be answered: nothing, Basic, or a Bearer token, per (registry, repository).
 *
 * Whoever sends a request holds a struct obd_auth_ask for it:
 *
 *   obd_auth_get      -> authorization, to be sent to that host only
 *   … 401 or 403      -> obd_auth_refused -> another authorization, once, or why there is none
 *   obd_auth_end
 *
 * A registry is asked without credentials until it challenges. Tokens are shared with the other fetchers (shmcache/tokens.h),
 * got once for everybody who waits, and renewed ahead of their end. Credentials come from a file, which is looked at before
 * every use and read again when they are refused, or from a service. One thread, driven by the loop. No secret reaches a log
 * or a reason, and memory that held one is wiped.
 */
#ifndef OBD_FETCHER_AUTH_AUTH_H
#define OBD_FETCHER_AUTH_AUTH_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/list.h"
#include "common/config/config.h"
#include "common/daemon/loop.h"
#include "fetcher/auth/challenge.h"
#include "fetcher/stats.h"
#include "shmcache/tokens.h"

struct obd_auth;
struct obd_auth_entry;
struct obd_http;

/* For whom. Lent during the call. */
struct obd_auth_target {
	const char *host;     /* host or host:port that the request goes to */
	const char *repo_url; /* of the repository's blobs, …/v2/REPO/blobs */
	const char *digest;
};

/* All zero but for done before obd_auth_get. Must not move while it is in use. */
struct obd_auth_ask {
	/* Called when a call said "later", never from inside one. */
	void (*done)(struct obd_auth_ask *ask);
	/* the result */
	int err;	     /* 0; EACCES: refused; else why it cannot be told now (EAGAIN, ETIMEDOUT, …) */
	char *authorization; /* value of the header; NULL: send none */
	char reason[256];    /* when err is not 0 */
	/* auth's own */
	struct obd_list link;
	struct obd_auth_entry *entry;
	bool waiting;
	unsigned int refusals;
	enum obd_auth_scheme given;
	uint64_t asked_ns; /* when it began to wait */
	uint64_t given_ns;
	uint64_t cred_id;
	uint64_t token_seq;
	uint64_t expires_ns;
};

/* How much of the last seconds of a token is left unused, and what else times; 0 anywhere: the default. */
struct obd_auth_limits {
	uint32_t doc_ms;  /* a token service may take so long: 20 s */
	uint32_t poll_ms; /* between looks at a token that another fetcher gets: 5 ms */
};

/* config, http and stats outlive it. shared: where the group's tokens are; tokens NULL: nowhere, so each process gets its own.
 * NULL when memory is short. */
struct obd_auth *obd_auth_new(struct obd_loop *loop, const struct obd_config *config, struct obd_http *http,
			      const struct obd_tokens_side *shared, const struct obd_auth_limits *limits,
			      struct obd_fetch_stats *stats);

/* Asks that are still held are detached: obd_auth_end is harmless then, done is not called. NULL is allowed. */
void obd_auth_free(struct obd_auth *auth);

/* True: the result is there. False: done comes later. */
bool obd_auth_get(struct obd_auth *auth, struct obd_auth_ask *ask, const struct obd_auth_target *target);

/* The registry said 401 or 403 to what was given; challenge is what came with it. Drops the old authorization. True and false
 * as above. */
bool obd_auth_refused(struct obd_auth *auth, struct obd_auth_ask *ask, const struct obd_challenge *challenge);

/* Gives the ask up or back, at any time, any number of times. Wipes the authorization. */
void obd_auth_end(struct obd_auth_ask *ask);

#endif
