/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who we are. A service is asked with GET ADDRESS?remote_url=BLOB, as users of overlaybd know it; what it says is kept for a
 * minute, and until it is refused.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/util.h"
#include "fetcher/auth/entry.h"

#define KEEP_NS (60 * OBD_SECOND_NS)

static void set_failure(struct obd_auth_entry *e, int err, const char *what)
{
	e->cred_err = err;
	e->cred_failed_ns = obd_clock_ns();
	snprintf(e->reason, sizeof e->reason, "credential service: %.160s", what);
	obd_warn("%s", e->reason);
}

static void take_answer(struct obd_auth_entry *e, const struct obd_http_doc_answer *answer)
{
	struct obd_creds *set;
	struct obd_err err = {{0}};
	unsigned int bad;
	if (obd_creds_parse_answer(answer->body, answer->bytes, "answer", &set, &bad, &err)) {
		set_failure(e, EAGAIN, err.msg);
		return;
	}
	const struct obd_cred none = {0}, *found = obd_creds_find(set, e->host, e->repo);
	if (obd_cred_copy(&e->cred, found ? found : &none) == 0)
		e->cred_asked_ns = e->cred_start_ns;
	else
		set_failure(e, EAGAIN, "no memory");
	obd_creds_free(set);
}

static void on_answer(void *arg, const struct obd_http_doc_answer *answer)
{
	struct obd_auth_entry *e = arg;
	char what[64];
	e->cred_doc = NULL;
	if (answer->err) {
		set_failure(e, answer->err == EACCES ? EACCES : answer->err, answer->reason);
	} else if (answer->status != 200) {
		snprintf(what, sizeof what, "HTTP %ld", answer->status);
		set_failure(e, EAGAIN, what);
	} else {
		take_answer(e, answer);
	}
	obd_auth_entry_turn(e);
}

static struct obd_http_doc *ask_service(struct obd_auth_entry *e)
{
	const struct obd_config *c = e->auth->config;
	bool uds = c->credential_mode == OBD_CREDENTIAL_UDS, https = c->credential_mode == OBD_CREDENTIAL_HTTPS;
	const char *address = uds ? "http://localhost/auth" : c->credential_path;
	char *url;
	if (asprintf(&url, "%s%cremote_url=%s", address, strchr(address, '?') ? '&' : '?', e->blob_url) < 0)
		return NULL;
	const struct obd_http_doc_request req = {.url = url,
						 .unix_socket = uds ? c->credential_path : NULL,
						 .ca_file = https ? c->credential_server_ca_path : NULL,
						 .cert_file = https ? c->credential_client_cert_path : NULL,
						 .key_file = https ? c->credential_client_key_path : NULL,
						 .timeout_ms = c->credential_timeout * 1000,
						 .max_bytes = OBD_CREDS_BYTES_MAX};
	struct obd_http_doc *doc = obd_http_doc_get(e->auth->http, &req, on_answer, e);
	free(url);
	return doc;
}

static enum obd_auth_have from_service(struct obd_auth_entry *e, uint64_t after_ns, uint64_t since_ns,
				       const struct obd_cred **out)
{
	const struct obd_config *c = e->auth->config;
	uint64_t now = obd_clock_ns();
	bool usable = e->cred_asked_ns && e->cred_asked_ns >= obd_max_u64(after_ns, e->cred_after_ns);
	*out = e->cred.id ? &e->cred : NULL;
	if (usable && now - e->cred_asked_ns < KEEP_NS)
		return OBD_AUTH_HAVE;
	if (e->cred_failed_ns && e->cred_failed_ns >= since_ns) /* a service that is away does not take away what it said */
		return usable ? OBD_AUTH_HAVE : OBD_AUTH_FAILED;
	if (c->credential_mode == OBD_CREDENTIAL_HTTPS && strncasecmp(c->credential_path, "https://", 8) != 0) {
		set_failure(e, EACCES, "credentialConfig.path is no https address");
		return OBD_AUTH_FAILED;
	}
	if (!e->cred_doc) {
		e->cred_start_ns = now;
		e->cred_doc = ask_service(e);
	}
	if (e->cred_doc)
		return OBD_AUTH_LATER;
	set_failure(e, EAGAIN, "no memory");
	return OBD_AUTH_FAILED;
}

enum obd_auth_have obd_auth_credential(struct obd_auth_entry *e, uint64_t after_ns, uint64_t since_ns,
				       const struct obd_cred **out)
{
	struct obd_auth *a = e->auth;
	if (a->service)
		return from_service(e, after_ns, since_ns, out);
	obd_cred_file_look(&a->file, false);
	*out = obd_creds_find(a->file.set, e->host, e->repo);
	return OBD_AUTH_HAVE;
}

void obd_auth_credential_refused(struct obd_auth_entry *e, uint64_t used_ns)
{
	if (e->auth->service)
		e->cred_after_ns = obd_max_u64(e->cred_after_ns, used_ns);
	else
		obd_cred_file_look(&e->auth->file, true);
}
