/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Getting a token for everybody. Whoever holds the slot's claim asks the token service; the others look every few milliseconds
 * for what came of it. If we die meanwhile, the claim is taken over (doc/architecture.md 4.13).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "fetcher/auth/entry.h"
#include "fetcher/auth/secret.h"
#include "fetcher/auth/token.h"

static struct obd_token_key key_of(const struct obd_auth_entry *e)
{
	return (struct obd_token_key){.host = e->host, .repo = e->repo, .cred_id = e->token_cred_id};
}

static void give_up(struct obd_auth_entry *e, int err, const char *what)
{
	snprintf(e->reason, sizeof e->reason, "token service %.180s", what);
	obd_debug("registry %s: %s", e->host, e->reason);
	obd_tokens_fail(e->side, &e->claim, err, obd_clock_ns());
}

/* The renewal begins after two thirds to five sixths of the life, so that fetchers and tokens spread out. */
static uint64_t refresh_after(uint64_t life_ns, uint64_t now_ns)
{
	uint64_t noise = now_ns * UINT64_C(0x9e3779b97f4a7c15) >> 32; /* no secret depends on it */
	return life_ns / 3 * 2 + noise % 1000 * (life_ns / 6000);
}

static void publish(struct obd_auth_entry *e, const struct obd_token_answer *answer)
{
	struct obd_token_key key = key_of(e);
	uint64_t life_ns = answer->life_s * OBD_SECOND_NS;
	struct obd_token_view *view = obd_secret_calloc(1, sizeof *view);
	if (!view) {
		give_up(e, EAGAIN, "no memory");
		return;
	}
	view->obtained_ns = e->token_start_ns;
	view->refresh_ns = e->token_start_ns + refresh_after(life_ns, e->token_start_ns);
	view->expires_ns = e->token_start_ns + life_ns;
	view->forced = e->token_forced;
	snprintf(view->token, sizeof view->token, "%s", answer->token);
	obd_challenge_pack(&e->challenge, view->origin);
	obd_tokens_publish(e->side, &e->claim, &key, view);
	obd_secret_free(view);
}

static void take_answer(struct obd_auth_entry *e, const struct obd_http_doc_answer *answer)
{
	struct obd_token_answer token;
	struct obd_err err = {{0}};
	char what[180];
	int64_t wall_s = answer->date_s ? answer->date_s : (int64_t)time(NULL);
	if (obd_token_parse(answer->body, answer->bytes, wall_s, OBD_TOKEN_BYTES - 1, &token, &err)) {
		snprintf(what, sizeof what, "%.80s: %.80s", answer->host, err.msg);
		give_up(e, EAGAIN, what);
		return;
	}
	publish(e, &token);
	obd_secret_free(token.token);
}

static void on_answer(void *arg, const struct obd_http_doc_answer *answer)
{
	struct obd_auth_entry *e = arg;
	char what[180];
	long status = answer->status;
	e->token_doc = NULL;
	if (answer->err) {
		snprintf(what, sizeof what, "%.170s", answer->reason);
		give_up(e, answer->err, what);
	} else if (status == 200) {
		take_answer(e, answer);
	} else {
		bool refused = status >= 400 && status < 500 && status != 408 && status != 429;
		snprintf(what, sizeof what, "%.100s says HTTP %ld", answer->host, status);
		if (refused)
			obd_auth_credential_refused(e, e->token_start_ns);
		give_up(e, refused ? EACCES : EAGAIN, what);
	}
	obd_auth_entry_turn(e);
}

static int start(struct obd_auth_entry *e, const struct obd_cred *cred)
{
	char *url = obd_token_url(&e->challenge, e->repo);
	char *basic = cred ? obd_cred_basic(cred) : NULL;
	if (url && (basic || !cred)) {
		const struct obd_http_doc_request req = {.url = url,
							 .authorization = basic,
							 .for_host = e->host,
							 .timeout_ms = e->auth->limits.doc_ms,
							 .max_bytes = OBD_TOKEN_ANSWER_MAX};
		e->token_doc = obd_http_doc_get(e->auth->http, &req, on_answer, e);
	}
	free(url);
	obd_secret_free(basic);
	if (e->token_doc)
		return 0;
	give_up(e, EAGAIN, "no memory");
	return EAGAIN;
}

static void look_again_later(struct obd_auth_entry *e)
{
	if (!e->polling)
		obd_loop_timer_set(e->poll, obd_clock_ns() + e->auth->limits.poll_ms * OBD_MS_NS);
	e->polling = true;
}

int obd_auth_obtain(struct obd_auth_entry *e, const struct obd_token_key *key, const struct obd_cred *cred, bool forced)
{
	uint64_t now = obd_clock_ns();
	if (e->token_doc)
		return 0;
	int rc = obd_tokens_claim(e->side, key, now, &e->claim);
	if (rc == -ENOSPC && e->side != &e->auth->own) {
		e->side = &e->auth->own;
		rc = obd_tokens_claim(e->side, key, now, &e->claim);
	}
	if (rc == -EBUSY) {
		look_again_later(e);
		return 0;
	}
	if (rc) {
		snprintf(e->reason, sizeof e->reason, "too many tokens at once");
		return EAGAIN;
	}
	e->token_cred_id = key->cred_id;
	e->token_start_ns = now;
	e->token_forced = forced;
	return start(e, cred);
}
