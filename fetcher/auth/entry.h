/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is known of one (registry, repository), and what is under way for it. auth.c gives authorizations, credential.c knows
 * who we are, obtain.c gets tokens.
 *
 *   asks that wait ──► credential (a service may have to be asked) ──► token (find, or claim and get) ──► given
 */
#ifndef OBD_FETCHER_AUTH_ENTRY_H
#define OBD_FETCHER_AUTH_ENTRY_H

#include "fetcher/auth/auth.h"
#include "fetcher/auth/creds.h"
#include "fetcher/http/doc.h"

#define OBD_AUTH_BUCKETS 256u
#define OBD_AUTH_ENTRIES_MAX 1024u

struct obd_auth {
	struct obd_loop *loop;
	const struct obd_config *config;
	struct obd_http *http;
	struct obd_auth_limits limits;
	struct obd_fetch_stats *stats;
	struct obd_cred_file file;
	bool service; /* credentials come from one, not from file */
	struct obd_tokens_side shared;
	struct obd_tokens_side own; /* when the shared table is full or not there */
	struct obd_list bucket[OBD_AUTH_BUCKETS];
	struct obd_list used; /* all entries, those used last first */
	unsigned int count;
};

struct obd_auth_entry {
	struct obd_list link; /* in its bucket */
	struct obd_list used;
	struct obd_auth *auth;
	char *host;
	char *repo;
	char *blob_url; /* of one blob: what a credential service is asked about */
	struct obd_challenge challenge;
	struct obd_list asks; /* all that hold the entry */
	/* credential from a service */
	struct obd_http_doc *cred_doc;
	struct obd_cred cred;
	uint64_t cred_asked_ns; /* when the request was sent that cred is the answer to; 0: never */
	uint64_t cred_start_ns;
	uint64_t cred_after_ns; /* what was asked for before was refused */
	uint64_t cred_failed_ns;
	int cred_err;
	/* token */
	struct obd_http_doc *token_doc;
	struct obd_token_claim claim;
	struct obd_tokens_side *side;
	uint64_t token_cred_id;
	uint64_t token_start_ns;
	bool token_forced;
	struct obd_loop_timer *poll; /* looks again at a token that somebody else gets */
	bool polling;
	char reason[200];  /* of the last failure */
	unsigned int busy; /* turns under way */
};

/* Something changed: every ask that waits is looked at again. */
void obd_auth_entry_turn(struct obd_auth_entry *e);

/* --- credential.c --------------------------------------------------------------------------------------------------------- */

enum obd_auth_have { OBD_AUTH_HAVE, OBD_AUTH_LATER, OBD_AUTH_FAILED };

/* Our credential for the entry, no older than after_ns; *out NULL: we have none. LATER: a service was asked. FAILED: it failed
 * since since_ns; entry->cred_err and reason say how. */
enum obd_auth_have obd_auth_credential(struct obd_auth_entry *e, uint64_t after_ns, uint64_t since_ns,
				       const struct obd_cred **out);

/* What was used at used_ns was refused: read the file again, or believe no earlier answer of the service. */
void obd_auth_credential_refused(struct obd_auth_entry *e, uint64_t used_ns);

/* --- obtain.c ------------------------------------------------------------------------------------------------------------- */

/* Sees to it that a new token under key is got, by us or by somebody else; obd_auth_entry_turn is called when there is news. 0,
 * or a positive errno with entry->reason. */
int obd_auth_obtain(struct obd_auth_entry *e, const struct obd_token_key *key, const struct obd_cred *cred, bool forced);

#endif
