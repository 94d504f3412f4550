/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What fetchers die of (doc/architecture.md 4.6). A wanted block that was in hand at two deaths is a suspect: it is fetched
 * alone, by a fetcher that is given nothing else meanwhile (jobs.c), so that what it had beside it is not taken for guilty.
 * Three deaths with nothing else in hand convict its layer, which is refused for a minute.
 *
 * Suspicion is private memory and goes with cached; who is refused stands in the table.
 */
#include <errno.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "shmcache/cached/cached.h"

enum { CONVICT_AFTER = 3 };
#define REFUSED_NS (60 * OBD_SECOND_NS)

static struct obd_table_refused *row_of(struct cached *c, uint32_t uid, uint64_t now)
{
	for (int i = 0; i < OBD_REFUSED; i++) {
		struct obd_table_refused *r = &c->seg.table->refused[i];
		if (obd_load_relaxed(&r->layer_uid) == uid && obd_load_relaxed(&r->until_ns) > now)
			return r;
	}
	return NULL;
}

bool obd_breaker_refuses(struct cached *c, uint32_t layer_uid)
{
	uint64_t now = obd_clock_ns();
	if (c->refused_until_ns <= now)
		return false;
	return row_of(c, layer_uid, now) != NULL;
}

void obd_breaker_init(struct cached *c)
{
	obd_list_init(&c->suspects);
	for (int i = 0; i < OBD_REFUSED; i++) {
		uint64_t until = obd_load_relaxed(&c->seg.table->refused[i].until_ns);
		if (until > c->refused_until_ns)
			c->refused_until_ns = until;
	}
}

/* The row that ends first is taken. */
static void refuse(struct cached *c, uint32_t uid, uint32_t deaths)
{
	struct obd_table_refused *row = &c->seg.table->refused[0];
	for (int i = 1; i < OBD_REFUSED; i++) {
		struct obd_table_refused *r = &c->seg.table->refused[i];
		if (obd_load_relaxed(&r->until_ns) < obd_load_relaxed(&row->until_ns))
			row = r;
	}
	c->refused_until_ns = obd_clock_ns() + REFUSED_NS;
	obd_store_relaxed(&row->layer_uid, 0);
	obd_store_relaxed(&row->deaths, deaths);
	obd_store_relaxed(&row->until_ns, c->refused_until_ns);
	obd_store_release(&row->layer_uid, uid); /* edge: layer-refused */
}

static void tell_log(struct cached *c, const struct miss *m)
{
	struct obd_layer_view layer;
	bool known = obd_catalog_layer(&c->seg, m->layer_slot, m->layer_uid, &layer) == 0;
	obd_error("layer %s: %u fetchers died with a block of it in hand, %u of them with nothing else: refused for %u s",
		  !known	? "that is closed"
		  : layer.local ? layer.path
				: layer.digest,
		  m->deaths, m->alone_deaths, (unsigned int)(REFUSED_NS / OBD_SECOND_NS));
}

/* All of the layer that nobody has in hand. A miss that fails may take others of its requests with it, so each chain is begun
 * again behind one. */
static void fail_others(struct cached *c, const struct miss *m)
{
	for (uint32_t i = 0; i <= c->miss_mask; i++) {
		struct miss *x = c->miss_hash[i];
		while (x) {
			bool goes = x != m && x->layer_uid == m->layer_uid && x->state != MISS_INFLIGHT && x->state != MISS_NEW;
			if (goes)
				obd_miss_failed(c, x, ENOTRECOVERABLE);
			x = goes ? c->miss_hash[i] : x->hash_next;
		}
	}
}

bool obd_breaker_died(struct cached *c, struct miss *m, bool alone)
{
	if (m->deaths < UINT8_MAX)
		m->deaths++;
	if (alone && m->alone_deaths < UINT8_MAX)
		m->alone_deaths++;
	if (obd_breaker_refuses(c, m->layer_uid))
		return true;
	if (m->alone_deaths < CONVICT_AFTER)
		return false;
	tell_log(c, m);
	refuse(c, m->layer_uid, m->deaths);
	fail_others(c, m);
	return true;
}
