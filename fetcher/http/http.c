/* SPDX-License-Identifier: GPL-2.0-or-later */
/* curl's multi handle on our loop: curl says which descriptors and when, the loop says what happened. */
#include "fetcher/http/http.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "common/base/clock.h"
#include "common/base/util.h"
#include "fetcher/auth/secret.h"
#include "fetcher/http/transfer.h"

#define KEEP_CONNECTIONS 64L
#define HOST_CONNECTIONS 32L

/* The result is told from a timer, so that no caller of obd_http_get is called back from inside. */
static void end_soon(struct obd_http_transfer *t)
{
	obd_list_remove(&t->link);
	obd_list_push_back(&t->http->ended, &t->link);
	obd_loop_timer_set(t->http->ended_timer, obd_clock_ns());
}

static void tell(struct obd_http_transfer *t)
{
	const struct obd_source_end end = {.err = t->err,
					   .again = t->again,
					   .retry_ms = t->retry_ms,
					   .routes = t->nroutes > 1 ? t->used : 0,
					   .reason = t->err ? t->reason.msg : ""};
	const struct obd_source_sink *sink = t->sink;
	void *arg = t->arg;
	obd_list_remove(&t->link);
	sink->done(arg, &end);
	obd_http_transfer_free(t);
}

static void on_ended(void *arg)
{
	struct obd_http *h = arg;
	while (!obd_list_empty(&h->ended))
		tell(OBD_LIST_ENTRY(h->ended.next, struct obd_http_transfer, link));
}

static void fail(struct obd_http_transfer *t);

static void dispatch(struct obd_http_transfer *t)
{
	if (!obd_http_transfer_arm(t)) {
		fail(t);
		return;
	}
	t->http->stats->http_requests++;
	if (curl_multi_add_handle(t->http->multi, t->easy) == CURLM_OK)
		return;
	fail(t);
}

static void on_authorized(struct obd_auth_ask *ask)
{
	dispatch(OBD_CONTAINER_OF(ask, struct obd_http_transfer, ask));
}

/*
 * A mirror is asked by its own name. A peer-to-peer proxy passes on what is meant for the registry, unless others could listen.
 * False: nothing is to be shown.
 */
static bool auth_target(const struct obd_http_transfer *t, struct obd_auth_target *target)
{
	const struct obd_route *route = &t->route[t->at];
	*target = (struct obd_auth_target){.host = t->hop.name, .repo_url = route->url, .digest = t->digest};
	if (t->hops > 1 || !t->http->auth)
		return false;
	if (!route->is_proxy)
		return true;
	target->host = t->registry;
	target->repo_url = t->repo_url;
	return t->hop.https || t->hop.loopback;
}

/* The first hop's request waits until we know what to show. */
static void begin(struct obd_http_transfer *t, const char *url)
{
	struct obd_auth_target target;
	if (!obd_http_transfer_aim(t, url)) {
		fail(t);
		return;
	}
	t->ask.done = on_authorized;
	if (!auth_target(t, &target) || obd_auth_get(t->http->auth, &t->ask, &target))
		dispatch(t);
}

/* Sets out on the current route, by a short cut if one is known. */
static void set_out(struct obd_http_transfer *t)
{
	struct obd_http *h = t->http;
	obd_auth_end(&t->ask);
	memset(&t->ask, 0, sizeof t->ask);
	obd_routes_take(&t->route[t->at]);
	char *url = obd_http_transfer_route(t);
	const char *to = NULL;
	if (url && !t->fresh && !t->resolved)
		to = obd_redirects_find(h->redirects, url, obd_clock_ns());
	if (to && obd_http_transfer_aim(t, url)) {
		h->stats->redirect_hits++;
		t->short_cut = true;
		begin(t, to);
	} else if (url && !t->err) {
		begin(t, url);
	} else {
		fail(t);
	}
	free(url);
}

/* Before a request was sent, so that the caller may still be in obd_http_get. */
static void fail(struct obd_http_transfer *t)
{
	if (!t->err) {
		t->err = EAGAIN;
		obd_err_set(&t->reason, EAGAIN, "registry %s: no memory", t->origin);
	}
	if (obd_http_transfer_reroute(t))
		set_out(t);
	else
		end_soon(t);
}

/* The same request with another authorization, or the reason why there is none. */
static void begin_again(struct obd_http_transfer *t)
{
	struct obd_challenge challenge = t->challenge;
	if (!obd_http_transfer_again(t))
		fail(t);
	else if (obd_auth_refused(t->http->auth, &t->ask, &challenge))
		dispatch(t);
}

static void on_transfer_ended(struct obd_http_job *job, CURLcode code)
{
	struct obd_http_transfer *t = OBD_CONTAINER_OF(job, struct obd_http_transfer, job);
	const char *next = obd_http_transfer_ended(t, code);
	if (next)
		begin(t, next);
	else if (t->refused && t->http->auth)
		begin_again(t);
	else if (obd_http_transfer_reroute(t))
		set_out(t);
	else
		tell(t);
}

static void reap(struct obd_http *h)
{
	CURLMsg *msg;
	int left;
	while ((msg = curl_multi_info_read(h->multi, &left))) {
		struct obd_http_job *job = NULL;
		CURLcode code = msg->data.result;
		if (msg->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, (char **)&job);
		curl_multi_remove_handle(h->multi, msg->easy_handle);
		job->ended(job, code);
	}
}

static void act(struct obd_http *h, curl_socket_t fd, int mask)
{
	int running;
	curl_multi_socket_action(h->multi, fd, mask, &running);
	reap(h);
}

static void on_ready(int fd, uint32_t events, void *arg)
{
	int mask = 0;
	if (events & (EPOLLIN | EPOLLHUP))
		mask |= CURL_CSELECT_IN;
	if (events & EPOLLOUT)
		mask |= CURL_CSELECT_OUT;
	if (events & EPOLLERR)
		mask |= CURL_CSELECT_ERR;
	act(arg, fd, mask);
}

static void on_due(void *arg)
{
	act(arg, CURL_SOCKET_TIMEOUT, 0);
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *unused)
{
	struct obd_http *h = arg;
	uint32_t events = 0;
	(void)easy, (void)unused;
	if (what & CURL_POLL_IN && what != CURL_POLL_REMOVE)
		events |= EPOLLIN;
	if (what & CURL_POLL_OUT && what != CURL_POLL_REMOVE)
		events |= EPOLLOUT;
	return obd_loop_watch(h->loop, fd, events, on_ready, h) ? -1 : 0;
}

static int on_timeout(CURLM *multi, long ms, void *arg)
{
	struct obd_http *h = arg;
	(void)multi;
	obd_loop_timer_set(h->timer, ms < 0 ? 0 : obd_clock_ns() + (uint64_t)ms * OBD_MS_NS);
	return 0;
}

static void set_up_multi(struct obd_http *h)
{
	curl_multi_setopt(h->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
	curl_multi_setopt(h->multi, CURLMOPT_SOCKETDATA, h);
	curl_multi_setopt(h->multi, CURLMOPT_TIMERFUNCTION, on_timeout);
	curl_multi_setopt(h->multi, CURLMOPT_TIMERDATA, h);
	curl_multi_setopt(h->multi, CURLMOPT_PIPELINING, (long)CURLPIPE_MULTIPLEX);
	curl_multi_setopt(h->multi, CURLMOPT_MAXCONNECTS, KEEP_CONNECTIONS);
	curl_multi_setopt(h->multi, CURLMOPT_MAX_HOST_CONNECTIONS, HOST_CONNECTIONS);
}

static struct obd_http_limits with_defaults(const struct obd_http_limits *given)
{
	struct obd_http_limits l = given ? *given : (struct obd_http_limits){0};
	l.connect_ms = l.connect_ms ? l.connect_ms : 5000;
	l.stall_s = l.stall_s ? l.stall_s : 15;
	l.total_ms = l.total_ms ? l.total_ms : 300000;
	return l;
}

struct obd_http *obd_http_new(struct obd_loop *loop, const struct obd_config *config, const struct obd_http_limits *limits,
			      struct obd_fetch_stats *stats)
{
	struct obd_http *h = calloc(1, sizeof(*h));
	if (!h)
		return NULL;
	*h = (struct obd_http){.loop = loop, .config = config, .limits = with_defaults(limits), .stats = stats};
	obd_list_init(&h->transfers);
	obd_list_init(&h->ended);
	const char *agent = config->user_agent;
	snprintf(h->user_agent, sizeof h->user_agent, "%s", agent && agent[0] ? agent : "overlaybd/" OBD_VERSION);
	if (curl_global_init_mem(CURL_GLOBAL_DEFAULT, obd_secret_malloc, obd_secret_free, obd_secret_realloc, obd_secret_strdup,
				 obd_secret_calloc) == CURLE_OK)
		h->multi = curl_multi_init();
	h->routes = obd_routes_new(config);
	h->redirects = obd_redirects_new();
	h->timer = obd_loop_timer_new(loop, on_due, h);
	h->ended_timer = obd_loop_timer_new(loop, on_ended, h);
	if (!h->multi || !h->timer || !h->ended_timer || !h->routes || !h->redirects) {
		obd_http_free(h);
		return NULL;
	}
	set_up_multi(h);
	return h;
}

void obd_http_use_auth(struct obd_http *http, struct obd_auth *auth)
{
	http->auth = auth;
}

int obd_http_get(struct obd_http *http, const struct obd_http_target *target, uint64_t start, uint64_t end,
		 const struct obd_source_sink *sink, void *arg)
{
	struct obd_http_transfer *t = obd_http_transfer_new(http, target, start, end, sink, arg);
	if (!t)
		return -ENOMEM;
	t->job.ended = on_transfer_ended;
	obd_list_push_back(&http->transfers, &t->link);
	set_out(t);
	return 0;
}

static void free_all(struct obd_http *h, struct obd_list *list)
{
	while (!obd_list_empty(list)) {
		struct obd_http_transfer *t = OBD_LIST_ENTRY(list->next, struct obd_http_transfer, link);
		curl_multi_remove_handle(h->multi, t->easy);
		obd_http_transfer_free(t);
	}
}

void obd_http_free(struct obd_http *http)
{
	if (!http)
		return;
	free_all(http, &http->transfers);
	free_all(http, &http->ended);
	if (http->multi)
		curl_multi_cleanup(http->multi);
	obd_loop_timer_free(http->timer);
	obd_loop_timer_free(http->ended_timer);
	obd_routes_free(http->routes);
	obd_redirects_free(http->redirects);
	free(http);
}
