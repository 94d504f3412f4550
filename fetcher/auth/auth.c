/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Giving authorizations. An ask is looked at when it comes and whenever there is news for its entry, until it can be answered:
 * settle() is the whole decision, from what is known now.
 *
 * A refusal ends in one of three ways: there is something better to send (a newer token, another credential); what was sent had
 * expired on the way, which says nothing, so try again later; or we are refused.
 */
#include "fetcher/auth/auth.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/base/clock.h"
#include "fetcher/auth/entry.h"
#include "fetcher/auth/secret.h"

/* A token that was got because of a refusal and is refused too is not asked for again before half of its life, or so long. */
#define FORCED_NS (30 * OBD_SECOND_NS)
/* A credential that a token service refused is not tried again at once. */
#define REFUSED_NS (200 * OBD_MS_NS)
/* A token so close to its end may arrive too late. */
#define LATE_SHARE 20u

/* --- entries -------------------------------------------------------------------------------------------------------------- */

static uint32_t hash(const char *host, const char *repo, size_t repo_len)
{
	uint32_t h = 2166136261u;
	for (; *host; host++)
		h = (h ^ (unsigned char)*host) * 16777619u;
	for (size_t i = 0; i < repo_len; i++)
		h = (h ^ (unsigned char)repo[i]) * 16777619u;
	return h % OBD_AUTH_BUCKETS;
}

/* REPO in …/v2/REPO/blobs; "" when the address has another shape. */
static const char *find_repo(const char *url, size_t *len)
{
	const char *repo = strstr(url, "/v2/");
	size_t n = repo ? strlen(repo += 4) : 0;
	if (n < 7 || strcmp(repo + n - 6, "/blobs") != 0) {
		*len = 0;
		return "";
	}
	*len = n - 6;
	return repo;
}

static void entry_free(struct obd_auth_entry *e)
{
	OBD_LIST_FOREACH_SAFE (it, &e->asks) {
		struct obd_auth_ask *ask = OBD_LIST_ENTRY(it, struct obd_auth_ask, link);
		obd_list_remove(&ask->link);
		ask->entry = NULL;
		ask->waiting = false;
	}
	obd_list_remove(&e->link);
	obd_list_remove(&e->used);
	obd_http_doc_cancel(e->cred_doc);
	if (e->token_doc)
		obd_tokens_fail(e->side, &e->claim, 0, 0); /* the others need not wait for us */
	obd_http_doc_cancel(e->token_doc);
	obd_loop_timer_free(e->poll);
	obd_cred_free(&e->cred);
	e->auth->count--;
	free(e->host);
	free(e->repo);
	free(e->blob_url);
	free(e);
}

static bool is_idle(const struct obd_auth_entry *e)
{
	return obd_list_empty(&e->asks) && !e->busy && !e->cred_doc && !e->token_doc;
}

static void make_room(struct obd_auth *a)
{
	for (struct obd_list *it = a->used.prev, *prev; a->count >= OBD_AUTH_ENTRIES_MAX && it != &a->used; it = prev) {
		struct obd_auth_entry *e = OBD_LIST_ENTRY(it, struct obd_auth_entry, used);
		prev = it->prev;
		if (is_idle(e))
			entry_free(e);
	}
}

static void on_poll(void *arg)
{
	struct obd_auth_entry *e = arg;
	e->polling = false;
	obd_auth_entry_turn(e);
}

static struct obd_auth_entry *entry_new(struct obd_auth *a, const struct obd_auth_target *target, const char *repo,
					size_t repo_len)
{
	struct obd_auth_entry *e = calloc(1, sizeof *e);
	if (!e)
		return NULL;
	e->auth = a;
	e->side = a->shared.tokens ? &a->shared : &a->own;
	obd_list_init(&e->asks);
	obd_list_init(&e->link);
	obd_list_init(&e->used);
	a->count++;
	e->host = strdup(target->host);
	e->repo = strndup(repo, repo_len);
	e->poll = obd_loop_timer_new(a->loop, on_poll, e);
	if (asprintf(&e->blob_url, "%s/%s", target->repo_url, target->digest) < 0)
		e->blob_url = NULL;
	if (e->host && e->repo && e->poll && e->blob_url)
		return e;
	entry_free(e);
	return NULL;
}

/* A registry that wants Basic for one repository wants it for all. */
static void learn_from_sister(struct obd_auth_entry *e)
{
	OBD_LIST_FOREACH (it, &e->auth->used) {
		const struct obd_auth_entry *other = OBD_LIST_ENTRY(it, struct obd_auth_entry, used);
		if (other->challenge.scheme == OBD_AUTH_BASIC && strcasecmp(other->host, e->host) == 0)
			e->challenge.scheme = OBD_AUTH_BASIC;
	}
}

static struct obd_auth_entry *find_entry(struct obd_auth *a, const struct obd_auth_target *target)
{
	size_t n;
	const char *repo = find_repo(target->repo_url, &n);
	struct obd_list *bucket = &a->bucket[hash(target->host, repo, n)];
	struct obd_auth_entry *e = NULL;
	OBD_LIST_FOREACH (it, bucket) {
		struct obd_auth_entry *at = OBD_LIST_ENTRY(it, struct obd_auth_entry, link);
		if (strcmp(at->host, target->host) == 0 && strncmp(at->repo, repo, n) == 0 && at->repo[n] == '\0')
			e = at;
	}
	if (!e) {
		make_room(a);
		e = entry_new(a, target, repo, n);
		if (!e)
			return NULL;
		learn_from_sister(e);
		obd_list_push_back(bucket, &e->link);
	}
	obd_list_remove(&e->used);
	obd_list_push_front(&a->used, &e->used);
	return e;
}

/* --- answers to asks ------------------------------------------------------------------------------------------------------ */

static bool fail(struct obd_auth_ask *ask, int err, const char *reason)
{
	ask->err = err;
	snprintf(ask->reason, sizeof ask->reason, "%s", reason);
	return true;
}

static bool give_nothing(struct obd_auth_ask *ask)
{
	ask->given = OBD_AUTH_UNKNOWN;
	ask->cred_id = 0;
	ask->given_ns = obd_clock_ns();
	return true;
}

static bool give_basic(struct obd_auth_ask *ask, const struct obd_cred *cred)
{
	ask->given = OBD_AUTH_BASIC;
	ask->cred_id = cred->id;
	ask->given_ns = obd_clock_ns();
	ask->authorization = obd_cred_basic(cred);
	return ask->authorization ? true : fail(ask, EAGAIN, "no memory");
}

static bool give_token(struct obd_auth_ask *ask, uint64_t cred_id, const struct obd_token_view *view)
{
	static const char word[] = "Bearer ";
	size_t n = strlen(view->token);
	ask->given = OBD_AUTH_BEARER;
	ask->cred_id = cred_id;
	ask->token_seq = view->seq;
	ask->expires_ns = view->expires_ns;
	ask->given_ns = obd_clock_ns();
	ask->authorization = obd_secret_malloc(sizeof word + n);
	if (!ask->authorization)
		return fail(ask, EAGAIN, "no memory");
	memcpy(ask->authorization, word, sizeof word);
	memcpy(ask->authorization + sizeof word - 1, view->token, n + 1);
	return true;
}

static bool deny(const struct obd_auth_entry *e, struct obd_auth_ask *ask, const char *why)
{
	if (!e->auth->service && obd_cred_file_unsettled(&e->auth->file))
		return fail(ask, EAGAIN, "the credential file is being written");
	return fail(ask, EACCES, why);
}

/* --- the decision --------------------------------------------------------------------------------------------------------- */

static bool settle_basic(struct obd_auth_entry *e, struct obd_auth_ask *ask, const struct obd_cred *cred)
{
	if (ask->refusals && (cred ? cred->id : 0) == ask->cred_id)
		return deny(e, ask,
			    cred ? "authentication failed: the credential was refused"
				 : "authentication required, and there is no credential");
	return cred ? give_basic(ask, cred) : give_nothing(ask);
}

static bool is_late(const struct obd_token_view *view, uint64_t now_ns)
{
	return now_ns >= view->expires_ns - (view->expires_ns - view->obtained_ns) / LATE_SHARE;
}

/* After a renewal ahead of time failed, the next one waits so long. */
static uint64_t view_pause_ns(const struct obd_token_view *view)
{
	return obd_min_u64((view->expires_ns - view->obtained_ns) / 10, OBD_SECOND_NS);
}

/* Was this very token refused although it was got because of a refusal, not long ago? */
static bool is_hopeless(const struct obd_token_view *view, uint64_t now_ns)
{
	uint64_t half = (view->expires_ns - view->obtained_ns) / 2;
	return view->forced && now_ns - view->obtained_ns < obd_min_u64(half, FORCED_NS);
}

/* How the attempts that this ask waited for ended; 0: it waits on. */
static int attempt_failed(const struct obd_auth_entry *e, const struct obd_auth_ask *ask, const struct obd_token_key *key)
{
	int err = obd_tokens_failed(e->side, key, ask->asked_ns);
	if (err)
		return err;
	return obd_tokens_failed(e->side, key, ask->asked_ns - REFUSED_NS) == EACCES ? EACCES : 0;
}

static bool want_token(struct obd_auth_entry *e, struct obd_auth_ask *ask, const struct obd_token_key *key,
		       const struct obd_cred *cred, bool forced)
{
	int err = attempt_failed(e, ask, key);
	if (!err)
		err = obd_auth_obtain(e, key, cred, forced);
	if (!err)
		return false;
	if (!ask->refusals) { /* the challenge may not have been the registry's own: what it says to nothing is what it wants */
		e->challenge.scheme = OBD_AUTH_UNKNOWN;
		return give_nothing(ask);
	}
	if (err == EACCES)
		return deny(e, ask, e->reason[0] ? e->reason : "authentication failed at the token service");
	return fail(ask, err, e->reason[0] ? e->reason : "the token service does not answer");
}

static bool settle_bearer(struct obd_auth_entry *e, struct obd_auth_ask *ask, const struct obd_cred *cred)
{
	const struct obd_token_key key = {.host = e->host, .repo = e->repo, .cred_id = cred ? cred->id : 0};
	struct obd_token_view view;
	uint64_t now = obd_clock_ns();
	bool settled;
	bool found = obd_tokens_find(e->side, &key, &view);
	bool same = found && ask->refusals && ask->given == OBD_AUTH_BEARER && ask->cred_id == key.cred_id &&
		    ask->token_seq == view.seq;
	if (found && !same && !is_late(&view, now)) {
		settled = give_token(ask, key.cred_id, &view);
		if (now >= view.refresh_ns && !obd_tokens_failed(e->side, &key, now - view_pause_ns(&view)))
			obd_auth_obtain(e, &key, cred, false);
	} else if (same && is_hopeless(&view, now)) {
		settled = deny(e, ask, "authentication failed: the registry refuses its own token");
	} else {
		settled = want_token(e, ask, &key, cred, same);
	}
	obd_secret_wipe(&view, sizeof view);
	return settled;
}

/* Another fetcher may know what the registry wants, and have it. */
static void learn_from_token(struct obd_auth_entry *e)
{
	const struct obd_cred *cred = NULL;
	struct obd_token_view view;
	if (!e->auth->service)
		obd_auth_credential(e, 0, 0, &cred);
	const struct obd_token_key key = {.host = e->host, .repo = e->repo, .cred_id = cred ? cred->id : 0};
	if (obd_tokens_find(e->side, &key, &view) && !is_late(&view, obd_clock_ns()))
		obd_challenge_unpack(&e->challenge, view.origin);
	obd_secret_wipe(&view, sizeof view);
}

/* True: the ask has its result. */
static bool settle(struct obd_auth_entry *e, struct obd_auth_ask *ask)
{
	const struct obd_cred *cred;
	if (e->challenge.scheme == OBD_AUTH_UNKNOWN)
		learn_from_token(e);
	if (e->challenge.scheme == OBD_AUTH_UNKNOWN)
		return ask->refusals ? deny(e, ask, "access is denied") : give_nothing(ask);
	/* A credential that took part in a refusal must be asked for again. */
	uint64_t after_ns = ask->refusals ? ask->given_ns : 0;
	switch (obd_auth_credential(e, after_ns, ask->asked_ns, &cred)) {
	case OBD_AUTH_LATER:
		return false;
	case OBD_AUTH_FAILED:
		return fail(ask, e->cred_err, e->reason);
	case OBD_AUTH_HAVE:
		break;
	}
	return e->challenge.scheme == OBD_AUTH_BASIC ? settle_basic(e, ask, cred) : settle_bearer(e, ask, cred);
}

/* Asks are told one by one; telling may end others, or bring new ones, which settle by themselves. */
void obd_auth_entry_turn(struct obd_auth_entry *e)
{
	struct obd_auth_ask *next;
	e->busy++;
	do {
		next = NULL;
		OBD_LIST_FOREACH (it, &e->asks) {
			struct obd_auth_ask *ask = OBD_LIST_ENTRY(it, struct obd_auth_ask, link);
			if (ask->waiting && settle(e, ask)) {
				next = ask;
				break;
			}
		}
		if (next) {
			next->waiting = false;
			next->done(next);
		}
	} while (next);
	e->busy--;
}

/* --- what http calls ------------------------------------------------------------------------------------------------------ */

static bool begin(struct obd_auth_ask *ask)
{
	ask->err = 0;
	ask->asked_ns = obd_clock_ns();
	ask->waiting = !settle(ask->entry, ask);
	return !ask->waiting;
}

bool obd_auth_get(struct obd_auth *auth, struct obd_auth_ask *ask, const struct obd_auth_target *target)
{
	obd_auth_end(ask);
	ask->refusals = 0;
	ask->entry = find_entry(auth, target);
	if (!ask->entry)
		return fail(ask, EAGAIN, "no memory");
	obd_list_push_back(&ask->entry->asks, &ask->link);
	return begin(ask);
}

static void learn(struct obd_auth_entry *e, const struct obd_auth_ask *ask, const struct obd_challenge *challenge)
{
	if (challenge->scheme != OBD_AUTH_UNKNOWN)
		e->challenge = *challenge;
	else if (e->challenge.scheme == OBD_AUTH_UNKNOWN && ask->given == OBD_AUTH_UNKNOWN)
		e->challenge.scheme = OBD_AUTH_BASIC; /* it does not say what it wants: this is what we have */
}

bool obd_auth_refused(struct obd_auth *auth, struct obd_auth_ask *ask, const struct obd_challenge *challenge)
{
	bool expired = ask->given == OBD_AUTH_BEARER && obd_clock_ns() >= ask->expires_ns;
	obd_secret_free(ask->authorization);
	ask->authorization = NULL;
	auth->stats->auth_refused++;
	if (!ask->entry)
		return fail(ask, EACCES, "access is denied");
	if (++ask->refusals > 1)
		return expired ? fail(ask, EAGAIN, "the token expired on its way")
			       : deny(ask->entry, ask, "authentication failed");
	learn(ask->entry, ask, challenge);
	if (ask->given == OBD_AUTH_BASIC || ask->cred_id)
		obd_auth_credential_refused(ask->entry, ask->given_ns);
	return begin(ask);
}

void obd_auth_end(struct obd_auth_ask *ask)
{
	obd_secret_free(ask->authorization);
	ask->authorization = NULL;
	ask->waiting = false;
	if (ask->entry)
		obd_list_remove(&ask->link);
	ask->entry = NULL;
}

/* --- life ----------------------------------------------------------------------------------------------------------------- */

static struct obd_auth_limits with_defaults(const struct obd_auth_limits *given)
{
	struct obd_auth_limits l = given ? *given : (struct obd_auth_limits){0};
	l.doc_ms = l.doc_ms ? l.doc_ms : 20000;
	l.poll_ms = l.poll_ms ? l.poll_ms : 5;
	return l;
}

struct obd_auth *obd_auth_new(struct obd_loop *loop, const struct obd_config *config, struct obd_http *http,
			      const struct obd_tokens_side *shared, const struct obd_auth_limits *limits,
			      struct obd_fetch_stats *stats)
{
	struct obd_auth *a = calloc(1, sizeof *a);
	if (!a)
		return NULL;
	*a = (struct obd_auth){.loop = loop, .config = config, .http = http, .limits = with_defaults(limits), .stats = stats};
	a->service = config->credential_mode != OBD_CREDENTIAL_FILE;
	a->file.path = config->credential_path ? config->credential_path : "";
	if (shared)
		a->shared = *shared;
	obd_list_init(&a->used);
	for (unsigned int i = 0; i < OBD_AUTH_BUCKETS; i++)
		obd_list_init(&a->bucket[i]);
	obd_secret_init();
	a->own.salt = a->shared.salt;
	a->own.tokens = obd_secret_calloc(1, sizeof *a->own.tokens);
	if (a->own.tokens)
		return a;
	obd_auth_free(a);
	return NULL;
}

void obd_auth_free(struct obd_auth *auth)
{
	if (!auth)
		return;
	while (!obd_list_empty(&auth->used))
		entry_free(OBD_LIST_ENTRY(auth->used.next, struct obd_auth_entry, used));
	obd_cred_file_free(&auth->file);
	if (auth->own.tokens)
		obd_secret_wipe(auth->own.tokens, sizeof *auth->own.tokens);
	obd_secret_free(auth->own.tokens);
	free(auth);
}
