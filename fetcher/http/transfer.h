/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One range request and its hops. http.c owns the curl multi handle and the loop; transfer.c owns what is asked and what is
 * made of the answers.
 *
 *   obd_http_get -> hop_prepare -> (curl) -> on_header, on_body -> transfer_ended --redirect--> hop_prepare …
 *                                                                               \--else-----> result -> sink->done
 */
#ifndef OBD_FETCHER_HTTP_TRANSFER_H
#define OBD_FETCHER_HTTP_TRANSFER_H

#include <curl/curl.h>

#include "common/base/err.h"
#include "common/base/list.h"
#include "fetcher/auth/auth.h"
#include "fetcher/http/http.h"
#include "fetcher/http/range.h"
#include "fetcher/http/redirect.h"
#include "fetcher/http/route.h"

#define OBD_HTTP_HOPS 5u
#define OBD_HTTP_DRAIN_MAX (64u << 10) /* an unwanted body up to here is read, so that the connection can be used again */
#define OBD_HTTP_NAME_BYTES 300u

struct obd_http {
	struct obd_loop *loop;
	const struct obd_config *config;
	struct obd_http_limits limits;
	struct obd_fetch_stats *stats;
	struct obd_auth *auth; /* NULL: everything is asked for anonymously */
	char user_agent[1100];
	struct obd_routes *routes;
	struct obd_redirects *redirects;
	CURLM *multi;
	struct obd_loop_timer *timer;	    /* curl's */
	struct obd_list transfers;	    /* all but those in ended */
	struct obd_list ended;		    /* whose done is due */
	struct obd_loop_timer *ended_timer; /* due when ended is not empty */
};

/* What a curl handle's private pointer points to. ended: curl is through with it and it is off the multi handle. */
struct obd_http_job {
	void (*ended)(struct obd_http_job *job, CURLcode code);
};

/* Where a hop goes. */
struct obd_http_hop {
	char name[OBD_HTTP_NAME_BYTES];	     /* host or host:port */
	const struct obd_registry *registry; /* its entry in the configuration, or NULL */
	bool https;
	bool loopback;
};

/* What became of a request by one route. */
struct obd_http_outcome {
	int err;
	bool again;
	uint32_t retry_ms;
	struct obd_err reason;
};

struct obd_http_transfer {
	struct obd_http_job job;
	struct obd_list link;
	struct obd_http *http;
	CURL *easy;
	struct curl_slist *headers;
	char *repo_url;			    /* the registry's */
	char registry[OBD_HTTP_NAME_BYTES]; /* its name */
	struct obd_route route[OBD_ROUTES]; /* in the order in which they are tried */
	uint32_t nroutes;
	uint32_t at;	/* the one being tried */
	uint32_t used;	/* bits of routes that gave bytes */
	bool fresh;	/* the registry itself must say yes: no remembered redirects */
	bool short_cut; /* this request went straight to where an earlier redirect led */
	bool resolved;	/* such a short cut failed on this route */
	bool has_said;	/* the registry was tried, and that came of it: */
	struct obd_http_outcome said;
	struct obd_auth_ask ask;	  /* for the first hop */
	char origin[OBD_HTTP_NAME_BYTES]; /* the first hop's name */
	char digest[80];
	struct obd_http_hop hop;
	uint32_t hops;
	/* asked */
	uint64_t start;
	uint64_t end;
	uint64_t blob_bytes;
	const struct obd_source_sink *sink;
	void *arg;
	/* answered */
	struct obd_http_answer answer;
	struct obd_challenge challenge;
	bool judged;
	bool redirect;
	bool refused; /* 401 or 403 of the first hop */
	bool overlong;
	int sink_err; /* negative errno of the sink */
	struct obd_http_verdict verdict;
	uint64_t skip;	  /* body bytes still in front of the range */
	uint64_t got;	  /* bytes handed to the sink */
	uint64_t seen;	  /* body bytes that curl gave us in this hop */
	uint64_t drained; /* body bytes thrown away behind the range, or of a refused answer */
	char curl_error[CURL_ERROR_SIZE];
	/* result */
	int err;
	bool again;
	uint32_t retry_ms;
	struct obd_err reason;
};

/* Parses url into hop. 0 or a positive errno with what is wrong in *what. */
int obd_http_hop_parse(const struct obd_config *config, const char *url, struct obd_http_hop *hop, const char **what);

/* May a request go to `to`? from: the hop that redirected, NULL for the first. */
bool obd_http_hop_allowed(const struct obd_http_hop *from, const struct obd_http_hop *to);

/* Starts over with the current route: what was handed on stays, the rest is asked for. Returns its address (to be freed) or
 * NULL. */
char *obd_http_transfer_route(struct obd_http_transfer *t);

/* The current route failed: goes to the next try, or to the next route. False: there is none, and the result is the registry's.
 */
bool obd_http_transfer_reroute(struct obd_http_transfer *t);

/* A transfer that nobody has started. NULL: no memory. */
struct obd_http_transfer *obd_http_transfer_new(struct obd_http *http, const struct obd_http_target *target, uint64_t start,
						uint64_t end, const struct obd_source_sink *sink, void *arg);
void obd_http_transfer_free(struct obd_http_transfer *t);

/* Sets the handle up for a request to url. False: the transfer has its result (err, reason) instead. */
bool obd_http_transfer_aim(struct obd_http_transfer *t, const char *url);

/* The last step before the request is sent: its headers, the first hop's with what t->ask has. True and false as above. */
bool obd_http_transfer_arm(struct obd_http_transfer *t);

/* Starts over with the first hop, for which there may be another authorization. */
bool obd_http_transfer_again(struct obd_http_transfer *t);

/* curl is through with it. Returns the URL of the next hop (for obd_http_transfer_aim; curl's, gone with the next aim), or
 * NULL: the transfer has its result. */
const char *obd_http_transfer_ended(struct obd_http_transfer *t, CURLcode code);

/* Settings that every request has, by the host it goes to. */
void obd_http_set_protocols(CURL *e);
void obd_http_set_trust(CURL *e, const struct obd_http_hop *hop);

/* What a failure of curl means: a positive errno. */
int obd_http_curl_errno(CURLcode code);

/* Is a host, or host:port, of this machine? */
bool obd_http_is_loopback(const char *name);

#endif
