/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fetcher/http/redirect.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/util.h"
#include "fetcher/http/expiry.h"

#define SLOTS 1024u
#define LIFE_DEFAULT_S 60
#define LIFE_MAX_S 3600

struct entry {
	char *from;
	char *to;
	uint64_t until_ns;
};

struct obd_redirects {
	struct entry slot[SLOTS];
};

struct obd_redirects *obd_redirects_new(void)
{
	return calloc(1, sizeof(struct obd_redirects));
}

static void clear(struct entry *e)
{
	free(e->from);
	free(e->to);
	*e = (struct entry){0};
}

void obd_redirects_free(struct obd_redirects *r)
{
	if (!r)
		return;
	for (unsigned int i = 0; i < SLOTS; i++)
		clear(&r->slot[i]);
	free(r);
}

static struct entry *slot_of(struct obd_redirects *r, const char *from)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325);
	for (const char *p = from; *p; p++)
		h = (h ^ (unsigned char)*p) * UINT64_C(0x100000001b3);
	return &r->slot[(h ^ h >> 32) % SLOTS];
}

const char *obd_redirects_find(struct obd_redirects *r, const char *from, uint64_t now_ns)
{
	struct entry *e = slot_of(r, from);
	if (!e->from || strcmp(e->from, from) != 0)
		return NULL;
	if (now_ns < e->until_ns)
		return e->to;
	clear(e);
	return NULL;
}

void obd_redirects_put(struct obd_redirects *r, const char *from, const char *to, uint64_t now_ns, uint64_t life_s)
{
	struct entry *e = slot_of(r, from);
	char *from_copy = life_s ? strdup(from) : NULL, *to_copy = life_s ? strdup(to) : NULL;
	clear(e);
	if (!from_copy || !to_copy) { /* the next request asks the registry again */
		free(from_copy);
		free(to_copy);
		return;
	}
	*e = (struct entry){.from = from_copy, .to = to_copy, .until_ns = now_ns + life_s * OBD_SECOND_NS};
}

void obd_redirects_drop(struct obd_redirects *r, const char *from)
{
	struct entry *e = slot_of(r, from);
	if (e->from && strcmp(e->from, from) == 0)
		clear(e);
}

uint64_t obd_redirects_life(int64_t url_life_s, int64_t header_life_s)
{
	int64_t s = url_life_s;
	if (s == OBD_HTTP_LIFE_UNKNOWN)
		s = header_life_s;
	if (s == OBD_HTTP_LIFE_UNKNOWN)
		return LIFE_DEFAULT_S;
	if (s <= 0)
		return 0;
	s -= s / 10;
	return obd_min_u64((uint64_t)s, LIFE_MAX_S);
}
