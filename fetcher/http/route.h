/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * By which ways a blob can be had: a peer-to-peer proxy, the registry's mirrors in the order of the configuration, the
 * registry.
 *
 * A proxy or mirror that fails is put aside, for a second at first and at most a minute, each failure doubling it; when its
 * time has come one request tries it, and when that succeeds everybody goes by it again. A blob that a mirror has not, or
 * refuses, is not asked of it for a while; that says nothing about other blobs. The registry is never put aside. One thread.
 */
#ifndef OBD_FETCHER_HTTP_ROUTE_H
#define OBD_FETCHER_HTTP_ROUTE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/config/config.h"

#define OBD_ROUTES 18u		   /* proxy, 16 mirrors, registry */
#define OBD_ROUTE_REGISTRY_BIT 17u /* its bit; the proxy has 0, mirrors from 1 on */

struct obd_routes;
struct obd_route_place;

struct obd_route {
	char *url;		       /* of the repository's blobs by this way, no trailing slash */
	uint32_t bit;		       /* which way it is, the same in every plan for a repository */
	bool trial;		       /* on its way to a place that was put aside */
	bool is_proxy;		       /* a peer-to-peer proxy, whom the administrator named */
	struct obd_route_place *place; /* NULL: the registry */
};

/* config outlives it. NULL: no memory. Warns about mirrors that cannot be used. */
struct obd_routes *obd_routes_new(const struct obd_config *config);
void obd_routes_free(struct obd_routes *r);

/* The ways to a blob of the repository at repo_url, in the order in which they should be tried: those in good standing, those
 * put aside, and last those whose bit is in `avoid`. Returns how many, 0 when memory is short. */
uint32_t obd_routes_plan(struct obd_routes *r, const struct obd_registry *registry, const char *repo_url, const char *digest,
			 uint32_t avoid, struct obd_route out[OBD_ROUTES]);
void obd_routes_plan_free(struct obd_route *plan, uint32_t n);

/* A request takes this way now. */
void obd_routes_take(struct obd_route *route);

/* What became of it: bytes, a failure of the place (not before retry_ms, it said), or that it has not got the blob. */
void obd_routes_good(struct obd_route *route);
void obd_routes_failed(struct obd_route *route, uint32_t retry_ms);
void obd_routes_absent(struct obd_routes *r, const struct obd_route *route, const char *digest);

#endif
