/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fetcher/http/transfer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/util.h"
#include "fetcher/auth/secret.h"

/* --- result --------------------------------------------------------------------------------------------------------------- */

static void clean(char *s)
{
	for (; *s; s++)
		if ((unsigned char)*s < 0x20 || (unsigned char)*s >= 0x7f)
			*s = '?';
}

static void set_result(struct obd_http_transfer *t, int err, bool again, const char *what)
{
	t->err = err;
	t->again = again;
	if (err == 0)
		return;
	const char *via = t->hops > 1 ? " by way of " : "";
	obd_err_set(&t->reason, err, "registry %s%s%s: %s for %s", t->origin, via, t->hops > 1 ? t->hop.name : "", what,
		    t->digest);
	clean(t->reason.msg);
}

static void set_status_result(struct obd_http_transfer *t)
{
	const struct obd_http_verdict *v = &t->verdict;
	struct obd_fetch_stats *stats = t->http->stats;
	char what[160];
	long status = 0;
	curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
	snprintf(what, sizeof what, "HTTP %ld%s%s", status, v->what[0] ? ", " : "", v->what);
	if (status >= 500)
		stats->err_http_5xx++;
	else if (status >= 400)
		stats->err_http_4xx++;
	else
		stats->err_protocol++;
	set_result(t, v->err, v->again, what);
}

/* --- curl's errors -------------------------------------------------------------------------------------------------------- */

static const struct curl_case {
	CURLcode code;
	int err;
	bool connect; /* else a broken transfer */
} curl_cases[] = {
	{CURLE_COULDNT_RESOLVE_PROXY, EHOSTUNREACH, true},
	{CURLE_COULDNT_RESOLVE_HOST, EHOSTUNREACH, true},
	{CURLE_COULDNT_CONNECT, ECONNREFUSED, true},
	{CURLE_SSL_CONNECT_ERROR, ECONNRESET, true},
	{CURLE_PEER_FAILED_VERIFICATION, EACCES, true},
	{CURLE_SSL_CACERT_BADFILE, EACCES, true},
	{CURLE_SSL_ISSUER_ERROR, EACCES, true},
	{CURLE_SEND_ERROR, ECONNRESET, false},
	{CURLE_RECV_ERROR, ECONNRESET, false},
	{CURLE_GOT_NOTHING, ECONNRESET, false},
};

int obd_http_curl_errno(CURLcode code)
{
	if (code == CURLE_OPERATION_TIMEDOUT)
		return ETIMEDOUT;
	for (size_t i = 0; i < OBD_ARRAY_SIZE(curl_cases); i++)
		if (curl_cases[i].code == code)
			return curl_cases[i].err;
	return EAGAIN;
}

static bool connected(struct obd_http_transfer *t)
{
	curl_off_t us = 0;
	curl_easy_getinfo(t->easy, CURLINFO_PRETRANSFER_TIME_T, &us);
	return us > 0;
}

static void set_timeout_result(struct obd_http_transfer *t)
{
	bool up = connected(t);
	if (up)
		t->http->stats->err_timeout++;
	else
		t->http->stats->err_connect++;
	set_result(t, ETIMEDOUT, false, up ? "the transfer stalled" : "connecting took too long");
}

static void set_curl_result(struct obd_http_transfer *t, CURLcode code)
{
	struct obd_fetch_stats *stats = t->http->stats;
	if (code == CURLE_OPERATION_TIMEDOUT) {
		set_timeout_result(t);
		return;
	}
	for (size_t i = 0; i < OBD_ARRAY_SIZE(curl_cases); i++) {
		const struct curl_case *c = &curl_cases[i];
		if (c->code != code)
			continue;
		if (c->connect)
			stats->err_connect++;
		else
			stats->err_protocol++;
		set_result(t, c->err, false, c->err == EACCES && t->curl_error[0] ? t->curl_error : curl_easy_strerror(code));
		return;
	}
	stats->err_protocol++;
	set_result(t, EAGAIN, false, code == CURLE_UNSUPPORTED_PROTOCOL ? "no HTTP answer" : curl_easy_strerror(code));
}

/* --- the answer ----------------------------------------------------------------------------------------------------------- */

static void judge(struct obd_http_transfer *t)
{
	long status = 0;
	curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
	t->judged = true;
	t->redirect = status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
	t->refused = t->hops == 1 && (status == 401 || status == 403);
	t->verdict = obd_http_judge(&t->answer, status, t->start, t->end, t->blob_bytes);
	t->skip = t->verdict.skip;
}

static size_t on_header(char *line, size_t size, size_t n, void *arg)
{
	struct obd_http_transfer *t = arg;
	if (!t->judged) {
		obd_http_answer_line(&t->answer, line, size * n);
		obd_challenge_line(&t->challenge, line, size * n);
	}
	return size * n;
}

/* Throws n bytes away. False: that is enough, drop the connection. */
static bool drain(struct obd_http_transfer *t, size_t n)
{
	t->drained += n;
	return t->drained <= OBD_HTTP_DRAIN_MAX;
}

/* Takes of a good body what belongs to the range. False: drop the connection. */
static bool take(struct obd_http_transfer *t, const char *buf, size_t n)
{
	size_t skip = obd_min_u64(n, t->skip);
	t->skip -= skip;
	buf += skip;
	n -= skip;
	size_t mine = obd_min_u64(n, t->end - t->start - t->got);
	if (mine) {
		t->got += mine;
		t->sink_err = t->sink->data(t->arg, (const unsigned char *)buf, mine);
	}
	if (t->sink_err)
		return false;
	if (n == mine)
		return true;
	long status = 0;
	curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
	t->overlong = status == 206;
	return !t->overlong && drain(t, n - mine);
}

static size_t on_body(char *buf, size_t size, size_t n, void *arg)
{
	struct obd_http_transfer *t = arg;
	bool more;
	n *= size;
	t->http->stats->bytes_fetched += n;
	if (!t->judged)
		judge(t);
	if (t->verdict.err)
		more = drain(t, n);
	else
		more = take(t, buf, n);
	return more ? n : SIZE_MAX;
}

/* --- a hop ---------------------------------------------------------------------------------------------------------------- */

void obd_http_set_protocols(CURL *e)
{
#if LIBCURL_VERSION_NUM >= 0x075500
	curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
#else
	curl_easy_setopt(e, CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
}

static void set_limits(CURL *e, const struct obd_http_limits *l)
{
	curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, (long)l->connect_ms);
	curl_easy_setopt(e, CURLOPT_LOW_SPEED_LIMIT, 1024L);
	curl_easy_setopt(e, CURLOPT_LOW_SPEED_TIME, (long)l->stall_s);
	curl_easy_setopt(e, CURLOPT_TIMEOUT_MS, (long)l->total_ms);
	curl_easy_setopt(e, CURLOPT_TCP_KEEPALIVE, 1L);
	curl_easy_setopt(e, CURLOPT_BUFFERSIZE, 256L << 10);
}

void obd_http_set_trust(CURL *e, const struct obd_http_hop *hop)
{
	const struct obd_registry *r = hop->registry;
	if (r && r->insecure) {
		curl_easy_setopt(e, CURLOPT_SSL_VERIFYPEER, 0L);
		curl_easy_setopt(e, CURLOPT_SSL_VERIFYHOST, 0L);
	}
	if (r && r->ca_file[0])
		curl_easy_setopt(e, CURLOPT_CAINFO, r->ca_file);
	if (hop->loopback)
		curl_easy_setopt(e, CURLOPT_PROXY, "");
	curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS);
	curl_easy_setopt(e, CURLOPT_PIPEWAIT, hop->https ? 1L : 0L);
}

static bool add_header(struct obd_http_transfer *t, const char *line)
{
	struct curl_slist *grown = curl_slist_append(t->headers, line);
	if (grown)
		t->headers = grown;
	return grown != NULL;
}

/* The authorization is the first host's own. */
static bool set_headers(struct obd_http_transfer *t)
{
	curl_slist_free_all(t->headers);
	t->headers = NULL;
	bool good = add_header(t, "Accept-Encoding: identity");
	char *line = NULL;
	if (good && t->ask.authorization && t->hops == 1) {
		good = asprintf(&line, "Authorization: %s", t->ask.authorization) > 0 && add_header(t, line);
		obd_secret_free(line);
	}
	curl_easy_setopt(t->easy, CURLOPT_HTTPHEADER, t->headers);
	return good;
}

static bool set_request(struct obd_http_transfer *t, const char *url)
{
	char range[48];
	CURL *e = t->easy;
	bool good = curl_easy_setopt(e, CURLOPT_URL, url) == CURLE_OK;
	snprintf(range, sizeof range, "%llu-%llu", (unsigned long long)t->start, (unsigned long long)(t->end - 1));
	good = good && curl_easy_setopt(e, CURLOPT_RANGE, range) == CURLE_OK;
	curl_easy_setopt(e, CURLOPT_USERAGENT, t->http->user_agent);
	curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(e, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(e, CURLOPT_PRIVATE, &t->job);
	curl_easy_setopt(e, CURLOPT_ERRORBUFFER, t->curl_error);
	curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(e, CURLOPT_HEADERDATA, t);
	curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(e, CURLOPT_WRITEDATA, t);
	return good;
}

static void forget_answer(struct obd_http_transfer *t)
{
	memset(&t->answer, 0, sizeof t->answer);
	memset(&t->challenge, 0, sizeof t->challenge);
	t->judged = t->redirect = t->refused = t->overlong = false;
	t->skip = t->drained = 0;
	t->curl_error[0] = '\0';
}

/* Nothing of an earlier hop's settings is left over. url may belong to the handle, and the reset would free it. */
static bool set_up(struct obd_http_transfer *t, const char *url)
{
	char *copy = strdup(url);
	if (!copy)
		return false;
	curl_easy_reset(t->easy);
	forget_answer(t);
	obd_http_set_protocols(t->easy);
	set_limits(t->easy, &t->http->limits);
	obd_http_set_trust(t->easy, &t->hop);
	bool good = set_request(t, copy);
	free(copy);
	return good;
}

bool obd_http_transfer_aim(struct obd_http_transfer *t, const char *url)
{
	struct obd_http_hop to;
	const char *what;
	int rc = obd_http_hop_parse(t->http->config, url, &to, &what);
	bool allowed = rc == 0 && obd_http_hop_allowed(t->hops ? &t->hop : NULL, &to);
	if (rc == 0) {
		t->hop = to;
		if (t->hops == 0)
			snprintf(t->origin, sizeof t->origin, "%s", to.name);
		t->hops++;
	}
	if (rc || !allowed) {
		if (rc && t->hops) /* an address that a server made up; our own would stay wrong */
			rc = EAGAIN;
		set_result(t, rc ? rc : EACCES, false,
			   rc ? what : "plain http is not allowed (registries[].insecure is not set)");
		return false;
	}
	if (set_up(t, url))
		return true;
	set_result(t, EAGAIN, false, "no memory");
	return false;
}

bool obd_http_transfer_arm(struct obd_http_transfer *t)
{
	if (t->hops == 1 && t->ask.err) {
		char what[300];
		snprintf(what, sizeof what, "%s", t->ask.reason);
		set_result(t, t->ask.err, false, what);
		return false;
	}
	if (set_headers(t))
		return true;
	set_result(t, EAGAIN, false, "no memory");
	return false;
}

bool obd_http_transfer_again(struct obd_http_transfer *t)
{
	char *url = NULL;
	t->hops = 0;
	t->err = 0;
	t->again = false;
	bool good = asprintf(&url, "%s/%s", t->repo_url, t->digest) > 0 && obd_http_transfer_aim(t, url);
	free(url);
	return good;
}

static const char *redirected(struct obd_http_transfer *t)
{
	char *url = NULL;
	curl_easy_getinfo(t->easy, CURLINFO_REDIRECT_URL, &url);
	if (url && t->hops <= OBD_HTTP_HOPS)
		return url;
	t->http->stats->err_protocol++;
	set_result(t, EAGAIN, false, url ? "too many redirects" : "a redirect that leads nowhere");
	return NULL;
}

static void settle(struct obd_http_transfer *t, CURLcode code)
{
	if (t->sink_err)
		set_result(t, -t->sink_err, false, strerror(-t->sink_err));
	else if (t->judged && t->verdict.err)
		set_status_result(t);
	else if (t->overlong || (t->got < t->end - t->start && (code == CURLE_OK || code == CURLE_PARTIAL_FILE))) {
		t->http->stats->err_protocol++;
		set_result(t, EAGAIN, false, t->overlong ? "the body is too long" : "the body ended early");
	} else if (t->got < t->end - t->start)
		set_curl_result(t, code);
	else
		set_result(t, 0, false, "");
}

const char *obd_http_transfer_ended(struct obd_http_transfer *t, CURLcode code)
{
	long connects = 0;
	curl_easy_getinfo(t->easy, CURLINFO_NUM_CONNECTS, &connects);
	t->http->stats->connections += (uint64_t)connects;
	if (!t->judged && code == CURLE_OK)
		judge(t);
	if (t->redirect)
		return redirected(t);
	settle(t, code);
	return NULL;
}

/* --- life ----------------------------------------------------------------------------------------------------------------- */

struct obd_http_transfer *obd_http_transfer_new(struct obd_http *http, const struct obd_http_target *target, uint64_t start,
						uint64_t end, const struct obd_source_sink *sink, void *arg)
{
	struct obd_http_transfer *t = calloc(1, sizeof(*t));
	if (!t)
		return NULL;
	*t = (struct obd_http_transfer){
		.http = http, .start = start, .end = end, .blob_bytes = target->blob_bytes, .sink = sink, .arg = arg};
	obd_list_init(&t->link);
	snprintf(t->digest, sizeof t->digest, "%s", target->digest);
	t->easy = curl_easy_init();
	t->repo_url = strdup(target->url);
	if (!t->easy || !t->repo_url) {
		obd_http_transfer_free(t);
		return NULL;
	}
	return t;
}

void obd_http_transfer_free(struct obd_http_transfer *t)
{
	obd_list_remove(&t->link);
	if (t->easy)
		curl_easy_cleanup(t->easy);
	curl_slist_free_all(t->headers);
	obd_auth_end(&t->ask);
	free(t->repo_url);
	free(t);
}
