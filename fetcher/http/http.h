/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Registries as a source (source.h for the rules of sinks): byte ranges of blobs over HTTP, any number at once, on one loop.
 *
 * What comes from the network is judged before a byte of it is handed on: status, Content-Range, Content-Length and
 * Content-Encoding must be those of the range asked for. What fails is tried by the other routes (route.h), from where it
 * stopped; nothing waits here, and when all routes failed the registry's own word counts.
 *
 *   ENOENT 404, 410   EACCES 401, 403, certificates, plain HTTP where it is not allowed   EMSGSIZE a blob of another size
 *   EPROTO an address that cannot be used   EAGAIN 408, 429, 5xx, broken or short bodies, other answers that are no blob
 * ECONNREFUSED, EHOSTUNREACH, ECONNRESET, ETIMEDOUT what they say
 *
 * Plain HTTP is allowed to loopback addresses and to registries whose entry says insecure; redirects never lead from https
 * to http otherwise; where they led is remembered (redirect.h). Each hop is checked and authenticated by the settings of its
 * own host, and gets no header that was meant for another.
 */
#ifndef OBD_FETCHER_HTTP_H
#define OBD_FETCHER_HTTP_H

#include <stdint.h>

#include "common/config/config.h"
#include "common/daemon/loop.h"
#include "fetcher/source.h"
#include "fetcher/stats.h"

struct obd_auth;
struct obd_http;

/* Times in milliseconds; 0 anywhere: the default. */
struct obd_http_limits {
	uint32_t connect_ms; /* until the connection stands: 5 s */
	uint32_t stall_s;    /* less than 1 KiB/s for so long ends a transfer: 15 s */
	uint32_t total_ms;   /* all of a transfer: 300 s */
};

/* Copied by obd_http_get. */
struct obd_http_target {
	const char *url; /* of the repository's blobs, no trailing slash */
	const char *digest;
	uint64_t blob_bytes; /* 0: not known */
	uint32_t avoid;	     /* bits of routes to be tried last, see obd_source_end.routes */
	bool fresh;	     /* the registry itself has to say yes: no redirect is taken from memory */
};

/* config and stats outlive the source. NULL when memory is short. */
struct obd_http *obd_http_new(struct obd_loop *loop, const struct obd_config *config, const struct obd_http_limits *limits,
			      struct obd_fetch_stats *stats);

/* From now on registries get what they want to see. auth outlives the transfers. */
void obd_http_use_auth(struct obd_http *http, struct obd_auth *auth);

/* Reads bytes [start, end), start < end. 0 or -ENOMEM, then without a call of done. */
int obd_http_get(struct obd_http *http, const struct obd_http_target *target, uint64_t start, uint64_t end,
		 const struct obd_source_sink *sink, void *arg);

/* What came by these routes (obd_source_end.routes) was damaged: mirrors and proxies among them are put aside for a while. */
void obd_http_damaged(struct obd_http *http, const struct obd_http_target *target, uint32_t routes);

/* Ends all transfers without calling their done; frees. NULL is allowed. */
void obd_http_free(struct obd_http *http);

#endif
