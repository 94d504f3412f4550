/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fetcher/http/transfer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/util.h"
#include "fetcher/auth/secret.h"
#include "fetcher/http/expiry.h"

#define BUFFER_MAX (256u << 10)
#define BUFFER_MIN (16u << 10)
#define HEAD_BYTES 1024u /* of an answer, mostly less */

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
	if (v->err == EAGAIN && t->answer.retry_s) {
		stats->throttled++;
		t->retry_ms = t->answer.retry_s * 1000;
	}
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
	t->seen += n;
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
	curl_easy_setopt(e, CURLOPT_CAPATH, NULL); /* the system's do not count then */
	if (hop->loopback)
		curl_easy_setopt(e, CURLOPT_PROXY, "");
	curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS);
	curl_easy_setopt(e, CURLOPT_PIPEWAIT, hop->https ? 1L : 0L);
}

/* Our certificate is for registries and their mirrors: neither proxies nor where redirects lead to get to see it. */
static void set_identity(struct obd_http_transfer *t)
{
	const struct obd_config *c = t->http->config;
	if (t->hops > 1 || t->route[t->at].is_proxy || !c->cert_file || !c->cert_file[0])
		return;
	curl_easy_setopt(t->easy, CURLOPT_SSLCERT, c->cert_file);
	curl_easy_setopt(t->easy, CURLOPT_SSLKEY, c->cert_key_file && c->cert_key_file[0] ? c->cert_key_file : c->cert_file);
}

/* Bytes that came and were never read, because the connection is of no more use, were sent all the same. */
static int on_close(void *arg, curl_socket_t fd)
{
	struct obd_http *h = arg;
	int unread = 0;
	if (ioctl(fd, FIONREAD, &unread) == 0 && unread > 0)
		h->stats->bytes_fetched += (uint64_t)unread;
	return close(fd);
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

/* curl has a receive buffer for each transfer: no larger than what is to come, so that many small ones stay in the processor's
 * cache. */
static long buffer_bytes(const struct obd_http_transfer *t)
{
	return (long)obd_min_u64(BUFFER_MAX, obd_max_u64(BUFFER_MIN, t->end - t->start + HEAD_BYTES));
}

static bool set_request(struct obd_http_transfer *t, const char *url)
{
	char range[48];
	CURL *e = t->easy;
	bool good = curl_easy_setopt(e, CURLOPT_URL, url) == CURLE_OK;
	snprintf(range, sizeof range, "%llu-%llu", (unsigned long long)t->start, (unsigned long long)(t->end - 1));
	good = good && curl_easy_setopt(e, CURLOPT_RANGE, range) == CURLE_OK;
	curl_easy_setopt(e, CURLOPT_BUFFERSIZE, buffer_bytes(t));
	curl_easy_setopt(e, CURLOPT_USERAGENT, t->http->user_agent);
	curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(e, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(e, CURLOPT_PRIVATE, &t->job);
	curl_easy_setopt(e, CURLOPT_ERRORBUFFER, t->curl_error);
	curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(e, CURLOPT_HEADERDATA, t);
	curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(e, CURLOPT_WRITEDATA, t);
	curl_easy_setopt(e, CURLOPT_CLOSESOCKETFUNCTION, on_close);
	curl_easy_setopt(e, CURLOPT_CLOSESOCKETDATA, t->http);
	return good;
}

static void forget_answer(struct obd_http_transfer *t)
{
	memset(&t->answer, 0, sizeof t->answer);
	memset(&t->challenge, 0, sizeof t->challenge);
	t->judged = t->redirect = t->refused = t->overlong = false;
	t->skip = t->drained = t->seen = 0;
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
	set_identity(t);
	bool good = set_request(t, copy);
	free(copy);
	return good;
}

bool obd_http_transfer_aim(struct obd_http_transfer *t, const char *url)
{
	struct obd_http_hop to;
	const char *what;
	int rc = obd_http_hop_parse(t->http->config, url, &to, &what);
	bool proxy = t->hops == 0 && t->route[t->at].is_proxy; /* by its address the administrator has allowed it */
	bool allowed = rc == 0 && (proxy || obd_http_hop_allowed(t->hops ? &t->hop : NULL, &to));
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
	char *url = obd_http_transfer_route(t);
	bool good = url && obd_http_transfer_aim(t, url);
	if (!url)
		set_result(t, EAGAIN, false, "no memory");
	free(url);
	return good;
}

/* Where the route's own host sent us. */
static void remember(struct obd_http_transfer *t, const char *to)
{
	char *from = NULL;
	t->http->stats->redirects++;
	if (t->hops != 1 || asprintf(&from, "%s/%s", t->route[t->at].url, t->digest) < 0)
		return;
	int64_t now_s = t->answer.date ? t->answer.date : (int64_t)time(NULL);
	uint64_t life_s = obd_redirects_life(obd_http_url_life(to, now_s), obd_http_answer_life(&t->answer));
	obd_redirects_put(t->http->redirects, from, to, obd_clock_ns(), life_s);
	free(from);
}

static void forget_redirect(struct obd_http_transfer *t)
{
	char *from = NULL;
	if (asprintf(&from, "%s/%s", t->route[t->at].url, t->digest) < 0)
		return;
	obd_redirects_drop(t->http->redirects, from);
	free(from);
}

static const char *redirected(struct obd_http_transfer *t)
{
	char *url = NULL;
	curl_easy_getinfo(t->easy, CURLINFO_REDIRECT_URL, &url);
	if (url && t->hops <= OBD_HTTP_HOPS) {
		remember(t, url);
		return url;
	}
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

/* What curl had read already when we gave a body up. */
static void count_rest(struct obd_http_transfer *t)
{
	curl_off_t read = 0;
	if (curl_easy_getinfo(t->easy, CURLINFO_SIZE_DOWNLOAD_T, &read) == CURLE_OK && read > 0 && (uint64_t)read > t->seen)
		t->http->stats->bytes_fetched += (uint64_t)read - t->seen;
}

const char *obd_http_transfer_ended(struct obd_http_transfer *t, CURLcode code)
{
	long connects = 0;
	curl_easy_getinfo(t->easy, CURLINFO_NUM_CONNECTS, &connects);
	t->http->stats->connections += (uint64_t)connects;
	count_rest(t);
	if (!t->judged && code == CURLE_OK)
		judge(t);
	if (t->redirect)
		return redirected(t);
	settle(t, code);
	return NULL;
}

/* --- routes --------------------------------------------------------------------------------------------------------------- */

char *obd_http_transfer_route(struct obd_http_transfer *t)
{
	char *url = NULL;
	t->start += t->got;
	t->got = 0;
	t->hops = 0;
	t->err = 0;
	t->again = t->short_cut = false;
	forget_answer(t);
	t->retry_ms = 0;
	t->reason.msg[0] = '\0';
	return asprintf(&url, "%s/%s", t->route[t->at].url, t->digest) < 0 ? NULL : url;
}

/* What the end of a try says about the place it was tried at. */
static void judge_route(struct obd_http_transfer *t)
{
	struct obd_route *route = &t->route[t->at];
	if (t->got)
		t->used |= 1u << route->bit;
	if (t->err == 0)
		obd_routes_good(route);
	else if (t->err == ENOENT || t->err == EACCES || t->err == EMSGSIZE)
		obd_routes_absent(t->http->routes, route, t->digest);
	else if (!t->sink_err)
		obd_routes_failed(route, t->retry_ms);
}

bool obd_http_transfer_reroute(struct obd_http_transfer *t)
{
	judge_route(t);
	if (t->err == 0 || t->sink_err)
		return false;
	if (t->hops > 1)
		forget_redirect(t);
	if (t->short_cut) {
		t->resolved = true;
		return true;
	}
	if (!t->route[t->at].place) {
		t->has_said = true;
		t->said = (struct obd_http_outcome){t->err, t->again, t->retry_ms, t->reason};
	}
	if (t->at + 1 < t->nroutes) {
		t->http->stats->failovers++;
		t->at++;
		t->resolved = false;
		return true;
	}
	if (t->has_said) {
		t->err = t->said.err;
		t->again = t->said.again;
		t->retry_ms = t->said.retry_ms;
		t->reason = t->said.reason;
	}
	return false;
}

/* --- life ----------------------------------------------------------------------------------------------------------------- */

/* *hop: where the registry itself is. */
static uint32_t plan_routes(struct obd_http *http, const struct obd_http_target *target, struct obd_http_hop *hop,
			    struct obd_route plan[OBD_ROUTES])
{
	const char *what;
	const struct obd_registry *registry =
		obd_http_hop_parse(http->config, target->url, hop, &what) == 0 ? hop->registry : NULL;
	return obd_routes_plan(http->routes, registry, target->url, target->digest, target->avoid, plan);
}

void obd_http_damaged(struct obd_http *http, const struct obd_http_target *target, uint32_t routes)
{
	struct obd_route plan[OBD_ROUTES];
	struct obd_http_hop hop;
	uint32_t n = plan_routes(http, target, &hop, plan);
	for (uint32_t i = 0; i < n; i++)
		if (routes >> plan[i].bit & 1)
			obd_routes_failed(&plan[i], 0);
	obd_routes_plan_free(plan, n);
}

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
	t->fresh = target->fresh;
	t->nroutes = plan_routes(http, target, &t->hop, t->route);
	memcpy(t->registry, t->hop.name, sizeof t->registry);
	if (!t->easy || !t->repo_url || !t->nroutes) {
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
	obd_routes_plan_free(t->route, t->nroutes);
	free(t);
}
