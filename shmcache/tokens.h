/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Registry tokens that all fetchers of a group share, and who of them gets the next one (doc/architecture.md 4.13).
 *
 *   obd_tokens_find  -> a token that holds, or none
 *   obd_tokens_claim -> we are the one: … request … -> obd_tokens_publish or obd_tokens_fail
 *                    -> somebody else is: look again a little later
 *
 * A claim is lost when its holder dies (its next incarnation is admitted) or takes longer than OBD_TOKEN_CLAIM_MS. Two who
 * believe to hold one claim can at worst both get a token; what readers see is always a whole one. Lock-free; nothing blocks.
 * The same functions serve a process's own memory. All times are obd_clock_ns.
 */
#ifndef OBD_SHMCACHE_TOKENS_H
#define OBD_SHMCACHE_TOKENS_H

#include <stdbool.h>
#include <stdint.h>

#include "shmcache/layout.h"

#define OBD_TOKEN_CLAIM_MS 30000u

/* One process's view. */
struct obd_tokens_side {
	struct obd_tokens *tokens;     /* shared or own */
	const struct obd_table *table; /* to see which fetchers are dead; NULL: by time only */
	uint32_t index;
	uint32_t incarnation;
	uint64_t salt;
};

struct obd_token_key {
	const char *host;
	const char *repo;
	uint64_t cred_id;
};

/* A copy of a token that was whole when it was taken. Its owner wipes it. */
struct obd_token_view {
	uint32_t slot;
	uint64_t seq; /* 0: none */
	uint64_t obtained_ns;
	uint64_t refresh_ns;
	uint64_t expires_ns;
	bool forced;
	char origin[OBD_TOKEN_ORIGIN_BYTES]; /* the caller's: whatever it needs to get the next one */
	char token[OBD_TOKEN_BYTES];
};

struct obd_token_claim {
	uint32_t slot;
	uint64_t word; /* what stands in claim */
};

/* The token under key, expired ones too. False: there is none. */
bool obd_tokens_find(const struct obd_tokens_side *t, const struct obd_token_key *key, struct obd_token_view *out);

/* Become the one who gets the next token under key. 0 with *claim, -EBUSY when somebody is, -ENOSPC when there is no slot. */
int obd_tokens_claim(const struct obd_tokens_side *t, const struct obd_token_key *key, uint64_t now_ns,
		     struct obd_token_claim *claim);

/* Ends a claim with a token (shorter than OBD_TOKEN_BYTES). A claim that was lost changes nothing. */
void obd_tokens_publish(const struct obd_tokens_side *t, const struct obd_token_claim *claim, const struct obd_token_key *key,
			const struct obd_token_view *token);

/* Ends a claim without one. err: positive errno for those who wait; 0: there is nothing to say. */
void obd_tokens_fail(const struct obd_tokens_side *t, const struct obd_token_claim *claim, int err, uint64_t now_ns);

/* The errno of the last obd_tokens_fail under key at or after since_ns; 0: none. */
int obd_tokens_failed(const struct obd_tokens_side *t, const struct obd_token_key *key, uint64_t since_ns);

#endif
