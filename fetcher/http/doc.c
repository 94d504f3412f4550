/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fetcher/http/doc.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/base/clock.h"
#include "fetcher/auth/secret.h"
#include "fetcher/http/transfer.h"

struct obd_http_doc {
	struct obd_http_job job;
	struct obd_http *http;
	CURL *easy;
	struct curl_slist *headers;
	struct obd_loop_timer *failed; /* due when it never came to a request */
	obd_http_doc_fn *done;
	void *arg;
	char *body;
	size_t bytes, max_bytes;
	bool too_long;
	int64_t date_s;
	struct obd_http_hop hop;
	int err;
	char reason[OBD_HTTP_NAME_BYTES + 200];
};

/* --- where it may go ------------------------------------------------------------------------------------------------------ */

/* The same host, whatever the ports. */
static bool same_host(const char *a, const char *b)
{
	const char *a_port = strrchr(a, ':'), *b_port = strrchr(b, ':');
	size_t n = a_port && !strchr(a_port, ']') ? (size_t)(a_port - a) : strlen(a);
	size_t m = b_port && !strchr(b_port, ']') ? (size_t)(b_port - b) : strlen(b);
	return n == m && strncasecmp(a, b, n) == 0;
}

/* The registry's entry counts for its token service too when that is the same host at another port. */
static void settle_trust(const struct obd_config *config, const char *for_host, struct obd_http_hop *to)
{
	if (for_host && !to->registry && same_host(for_host, to->name))
		to->registry = obd_config_registry(config, for_host);
}

static bool may_go(const char *for_host, const struct obd_http_hop *to)
{
	if (to->https || !for_host)
		return true;
	if (to->registry && to->registry->insecure)
		return true;
	return to->loopback && obd_http_is_loopback(for_host);
}

/* --- the answer ----------------------------------------------------------------------------------------------------------- */

static size_t on_header(char *line, size_t size, size_t n, void *arg)
{
	struct obd_http_doc *d = arg;
	char date[64];
	n *= size;
	if (n > 5 && n - 5 < sizeof date && strncasecmp(line, "date:", 5) == 0) {
		memcpy(date, line + 5, n - 5);
		date[n - 5] = '\0';
		date[strcspn(date, "\r\n")] = '\0';
		time_t t = curl_getdate(date, NULL);
		d->date_s = t > 0 ? (int64_t)t : 0;
	}
	return n;
}

static size_t on_body(char *buf, size_t size, size_t n, void *arg)
{
	struct obd_http_doc *d = arg;
	n *= size;
	d->too_long = d->bytes + n > d->max_bytes;
	if (d->too_long)
		return SIZE_MAX;
	char *grown = obd_secret_realloc(d->body, d->bytes + n + 1);
	if (!grown)
		return SIZE_MAX;
	d->body = grown;
	memcpy(grown + d->bytes, buf, n);
	d->bytes += n;
	grown[d->bytes] = '\0';
	return n;
}

static void doc_free(struct obd_http_doc *d)
{
	if (d->easy) {
		curl_multi_remove_handle(d->http->multi, d->easy);
		curl_easy_cleanup(d->easy);
	}
	curl_slist_free_all(d->headers);
	obd_loop_timer_free(d->failed);
	obd_secret_free(d->body);
	free(d);
}

static void tell(struct obd_http_doc *d)
{
	struct obd_http_doc_answer answer = {
		.err = d->err, .reason = d->reason, .host = d->hop.name, .body = d->body ? d->body : "", .bytes = d->bytes};
	answer.date_s = d->date_s;
	curl_easy_getinfo(d->easy, CURLINFO_RESPONSE_CODE, &answer.status);
	d->done(d->arg, &answer);
	doc_free(d);
}

static void on_failed(void *arg)
{
	tell(arg);
}

static void on_ended(struct obd_http_job *job, CURLcode code)
{
	struct obd_http_doc *d = OBD_CONTAINER_OF(job, struct obd_http_doc, job);
	if (code != CURLE_OK) {
		d->err = obd_http_curl_errno(code);
		snprintf(d->reason, sizeof d->reason, "%s: %s", d->hop.name,
			 d->too_long ? "the answer is too long" : curl_easy_strerror(code));
	}
	tell(d);
}

/* --- the request ---------------------------------------------------------------------------------------------------------- */

static bool add_header(struct obd_http_doc *d, const char *name, const char *value)
{
	size_t room = strlen(name) + strlen(value) + 3;
	char *line = obd_secret_malloc(room);
	struct curl_slist *grown = NULL;
	if (line) {
		snprintf(line, room, "%s: %s", name, value);
		grown = curl_slist_append(d->headers, line);
	}
	if (grown)
		d->headers = grown;
	obd_secret_free(line);
	return grown != NULL;
}

static bool is_given(const char *text)
{
	return text && text[0];
}

static void set_trust(struct obd_http_doc *d, const struct obd_http_doc_request *req)
{
	obd_http_set_trust(d->easy, &d->hop);
	if (is_given(req->ca_file)) {
		curl_easy_setopt(d->easy, CURLOPT_CAINFO, req->ca_file);
		curl_easy_setopt(d->easy, CURLOPT_CAPATH, NULL);
	}
	if (is_given(req->cert_file))
		curl_easy_setopt(d->easy, CURLOPT_SSLCERT, req->cert_file);
	if (is_given(req->key_file))
		curl_easy_setopt(d->easy, CURLOPT_SSLKEY, req->key_file);
	if (is_given(req->unix_socket)) {
		curl_easy_setopt(d->easy, CURLOPT_UNIX_SOCKET_PATH, req->unix_socket);
		curl_easy_setopt(d->easy, CURLOPT_PROXY, "");
	}
}

static bool set_up(struct obd_http_doc *d, const struct obd_http_doc_request *req)
{
	CURL *e = d->easy;
	bool good = curl_easy_setopt(e, CURLOPT_URL, req->url) == CURLE_OK && add_header(d, "Accept", "application/json");
	if (good && req->authorization)
		good = add_header(d, "Authorization", req->authorization);
	obd_http_set_protocols(e);
	curl_easy_setopt(e, CURLOPT_HTTPHEADER, d->headers);
	curl_easy_setopt(e, CURLOPT_USERAGENT, d->http->user_agent);
	curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(e, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, (long)d->http->limits.connect_ms);
	curl_easy_setopt(e, CURLOPT_TIMEOUT_MS, (long)req->timeout_ms);
	curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(e, CURLOPT_HEADERDATA, d);
	curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(e, CURLOPT_WRITEDATA, d);
	curl_easy_setopt(e, CURLOPT_PRIVATE, &d->job);
	set_trust(d, req);
	return good;
}

/* Starts it, or leaves err and reason. */
static void start(struct obd_http_doc *d, const struct obd_http_doc_request *req)
{
	const char *what = "";
	d->err = obd_http_hop_parse(d->http->config, req->url, &d->hop, &what);
	if (d->err == 0) {
		settle_trust(d->http->config, req->for_host, &d->hop);
		if (!may_go(req->for_host, &d->hop)) {
			d->err = EACCES;
			what = "plain http is not allowed";
		} else if (!set_up(d, req) || curl_multi_add_handle(d->http->multi, d->easy) != CURLM_OK) {
			d->err = EAGAIN;
			what = "no memory";
		}
	}
	if (d->err)
		snprintf(d->reason, sizeof d->reason, "%s: %s", d->hop.name[0] ? d->hop.name : "?", what);
}

struct obd_http_doc *obd_http_doc_get(struct obd_http *http, const struct obd_http_doc_request *req, obd_http_doc_fn *done,
				      void *arg)
{
	struct obd_http_doc *d = calloc(1, sizeof *d);
	if (!d)
		return NULL;
	*d = (struct obd_http_doc){.job.ended = on_ended, .http = http, .done = done, .arg = arg, .max_bytes = req->max_bytes};
	d->easy = curl_easy_init();
	d->failed = obd_loop_timer_new(http->loop, on_failed, d);
	if (!d->easy || !d->failed) {
		doc_free(d);
		return NULL;
	}
	start(d, req);
	if (d->err)
		obd_loop_timer_set(d->failed, obd_clock_ns());
	else
		http->stats->auth_requests++;
	return d;
}

void obd_http_doc_cancel(struct obd_http_doc *doc)
{
	if (doc)
		doc_free(doc);
}
