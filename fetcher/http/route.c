/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fetcher/http/route.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/util.h"

#define ASIDE_FIRST_NS OBD_SECOND_NS
#define ASIDE_LAST_NS (60 * OBD_SECOND_NS)
#define ABSENT_NS (10 * OBD_SECOND_NS)
#define ABSENT_SLOTS 1024u

struct obd_route_place {
	const char *name; /* as configured; the configuration's */
	const struct obd_registry *registry;
	uint32_t bit;
	uint32_t failures; /* in a row */
	uint64_t aside_ns; /* not before, while failures is not 0 */
	bool down;	   /* that was logged */
};

struct obd_routes {
	uint32_t nplaces;
	struct obd_route_place *place;
	struct {
		uint64_t hash; /* of address and digest */
		uint64_t until_ns;
	} absent[ABSENT_SLOTS];
};

/* --- the configuration ---------------------------------------------------------------------------------------------------- */

static uint32_t count_places(const struct obd_config *config)
{
	uint32_t n = 1;
	for (uint32_t i = 0; i < config->registry_count; i++)
		n += config->registries[i].mirrors.count;
	return n;
}

static void add_place(struct obd_routes *r, const struct obd_registry *registry, uint32_t bit, const char *name)
{
	r->place[r->nplaces++] = (struct obd_route_place){.name = name, .registry = registry, .bit = bit};
}

struct obd_routes *obd_routes_new(const struct obd_config *config)
{
	struct obd_routes *r = calloc(1, sizeof *r);
	if (!r)
		return NULL;
	r->place = calloc(count_places(config), sizeof *r->place);
	if (!r->place) {
		free(r);
		return NULL;
	}
	if (config->p2p_enable && config->p2p_address && config->p2p_address[0])
		add_place(r, NULL, 0, config->p2p_address);
	for (uint32_t i = 0; i < config->registry_count; i++) {
		const struct obd_registry *registry = &config->registries[i];
		for (uint32_t k = 0; k < registry->mirrors.count && k + 1 < OBD_ROUTE_REGISTRY_BIT; k++)
			add_place(r, registry, k + 1, registry->mirrors.item[k]);
	}
	return r;
}

void obd_routes_free(struct obd_routes *r)
{
	if (!r)
		return;
	free(r->place);
	free(r);
}

/* --- plans ---------------------------------------------------------------------------------------------------------------- */

/* SCHEME://HOST of one address, path of the other. */
static char *mirror_url(const char *mirror, const char *repo_url)
{
	const char *authority = strstr(repo_url, "://");
	char *url = NULL;
	if (!authority)
		return NULL;
	const char *path = authority + 3 + strcspn(authority + 3, "/");
	int scheme = strstr(mirror, "://") ? 0 : (int)(authority + 3 - repo_url);
	int n = (int)strlen(mirror);
	while (n > 0 && mirror[n - 1] == '/')
		n--;
	return asprintf(&url, "%.*s%.*s%s", scheme, repo_url, n, mirror, path) < 0 ? NULL : url;
}

static char *place_url(const struct obd_route_place *place, const char *repo_url)
{
	char *url = NULL;
	if (place->registry)
		return mirror_url(place->name, repo_url);
	int n = (int)strlen(place->name);
	while (n > 0 && place->name[n - 1] == '/')
		n--;
	return asprintf(&url, "%.*s/%s", n, place->name, repo_url) < 0 ? NULL : url;
}

static uint64_t hash_pair(const char *a, const char *b)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325);
	for (; *a; a++)
		h = (h ^ (unsigned char)*a) * UINT64_C(0x100000001b3);
	for (; *b; b++)
		h = (h ^ (unsigned char)*b) * UINT64_C(0x100000001b3);
	return h ^ h >> 32;
}

static bool is_absent(const struct obd_routes *r, const char *url, const char *digest, uint64_t now)
{
	uint64_t h = hash_pair(url, digest);
	return r->absent[h % ABSENT_SLOTS].hash == h && now < r->absent[h % ABSENT_SLOTS].until_ns;
}

enum standing { GOOD, ASIDE, AVOIDED, STANDINGS };

static enum standing standing_of(const struct obd_routes *r, const struct obd_route *route, const char *digest, uint32_t avoid)
{
	uint64_t now = obd_clock_ns();
	if (avoid >> route->bit & 1)
		return AVOIDED;
	if (route->place && ((route->place->failures && now < route->place->aside_ns) || is_absent(r, route->url, digest, now)))
		return ASIDE;
	return GOOD;
}

/* All ways in the order of the configuration; one for which there is no memory is left out. */
static uint32_t list_ways(struct obd_routes *r, const struct obd_registry *registry, const char *repo_url,
			  struct obd_route way[OBD_ROUTES])
{
	uint32_t n = 0;
	for (uint32_t i = 0; i < r->nplaces && n + 1 < OBD_ROUTES; i++) {
		struct obd_route_place *p = &r->place[i];
		if (p->registry && p->registry != registry)
			continue;
		way[n] = (struct obd_route){.url = place_url(p, repo_url), .bit = p->bit, .is_proxy = !p->registry, .place = p};
		n += way[n].url != NULL;
	}
	way[n] = (struct obd_route){.url = strdup(repo_url), .bit = OBD_ROUTE_REGISTRY_BIT};
	return n + (way[n].url != NULL);
}

uint32_t obd_routes_plan(struct obd_routes *r, const struct obd_registry *registry, const char *repo_url, const char *digest,
			 uint32_t avoid, struct obd_route out[OBD_ROUTES])
{
	struct obd_route way[OBD_ROUTES];
	enum standing standing[OBD_ROUTES];
	uint32_t n = list_ways(r, registry, repo_url, way), planned = 0;
	for (uint32_t i = 0; i < n; i++)
		standing[i] = standing_of(r, &way[i], digest, avoid);
	for (int s = 0; s < STANDINGS; s++)
		for (uint32_t i = 0; i < n; i++)
			if (standing[i] == (enum standing)s)
				out[planned++] = way[i];
	return planned;
}

void obd_routes_plan_free(struct obd_route *plan, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		free(plan[i].url);
}

/* --- standing ------------------------------------------------------------------------------------------------------------- */

static uint64_t aside_for(const struct obd_route_place *p)
{
	return obd_min_u64(ASIDE_FIRST_NS << (p->failures < 8 ? p->failures - 1 : 7), ASIDE_LAST_NS);
}

void obd_routes_take(struct obd_route *route)
{
	struct obd_route_place *p = route->place;
	uint64_t now = obd_clock_ns();
	if (!p || !p->failures || now < p->aside_ns)
		return;
	route->trial = true;
	p->aside_ns = now + aside_for(p); /* one at a time */
}

void obd_routes_good(struct obd_route *route)
{
	struct obd_route_place *p = route->place;
	if (!p)
		return;
	if (p->down)
		obd_info("%s %s answers again", p->registry ? "mirror" : "peer-to-peer proxy", p->name);
	p->down = false;
	p->failures = 0;
}

void obd_routes_failed(struct obd_route *route, uint32_t retry_ms)
{
	struct obd_route_place *p = route->place;
	uint64_t now = obd_clock_ns();
	if (!p || (p->failures && now < p->aside_ns && !route->trial)) /* others have said so just now */
		return;
	p->failures++;
	p->aside_ns = now + obd_max_u64(aside_for(p), retry_ms * OBD_MS_NS);
	if (p->failures == 3) {
		p->down = true;
		obd_warn("%s %s is put aside for now", p->registry ? "mirror" : "peer-to-peer proxy", p->name);
	}
}

void obd_routes_absent(struct obd_routes *r, const struct obd_route *route, const char *digest)
{
	if (!route->place)
		return;
	uint64_t h = hash_pair(route->url, digest);
	r->absent[h % ABSENT_SLOTS].hash = h;
	r->absent[h % ABSENT_SLOTS].until_ns = obd_clock_ns() + ABSENT_NS;
}
