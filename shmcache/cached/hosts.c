/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Registries as cached knows them: what each is given at a time, and how it answers (doc/architecture.md 4.11).
 *
 * A host has a slot here and the row of the same number in the table, which obd-stat reads. The slot is taken with the first
 * block wanted of the host and given to another one when all are taken and this one has nothing queued or under way. With more
 * hosts busy at once than there are slots, several share one; they then share its limits, and the row shows the first of them.
 *
 * The rows are ours, so a restarted cached goes on with them. Reasons come from fetchers: copied within bounds, ended with NUL.
 */
#include <errno.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/testpoint.h"
#include "common/base/util.h"
#include "shmcache/cached/cached.h"

#define GAVE_UP_LOG_NS (5 * OBD_SECOND_NS)
#define RECENT_NS (2 * OBD_SECOND_NS)

static struct obd_table_host *row_of(struct cached *c, const struct host *h)
{
	return &c->seg.table->host[h - c->host];
}

/* The strings of a row change between two stores of its word, which is odd meanwhile. */
static void row_begin(struct obd_table_host *row)
{
	obd_store_relaxed(&row->word, obd_load_relaxed(&row->word) | 1);
	obd_fence_release(); /* edge: host-row */
	OBD_TEST_POINT(host_row);
}

static void row_end(struct obd_table_host *row)
{
	obd_store_release(&row->word, (obd_load_relaxed(&row->word) | 1) + 1); /* edge: host-row */
}

void obd_hosts_init(struct cached *c)
{
	for (int i = 0; i < OBD_HOSTS; i++) {
		c->host[i].hash = obd_load_relaxed(&c->seg.table->host[i].hash);
		obd_store_relaxed(&c->seg.table->host[i].jobs, 0);
	}
}

static bool idle(const struct host *h)
{
	uint32_t queued = 0;
	for (int p = 0; p < PRIOS; p++)
		queued += h->queued[p];
	return h->jobs == 0 && queued == 0;
}

/* The one of those with nothing to do that was used least recently; a slot that was never used is the oldest of all. */
static struct host *idle_slot(struct cached *c)
{
	struct host *best = NULL;
	for (int i = 0; i < OBD_HOSTS; i++) {
		struct host *h = &c->host[i];
		if (!idle(h))
			continue;
		if (!best || h->used_ns < best->used_ns)
			best = h;
	}
	return best;
}

static void name_row(struct cached *c, struct obd_table_host *row, const struct miss *m)
{
	struct obd_layer_view layer;
	row_begin(row);
	memset(row->name, 0, sizeof row->name);
	memset(row->reason, 0, sizeof row->reason);
	if (obd_catalog_layer(&c->seg, m->layer_slot, m->layer_uid, &layer) == 0)
		memcpy(row->name, layer.host, sizeof row->name - 1);
	obd_store_relaxed(&row->hash, m->host_hash);
	obd_store_relaxed(&row->first_failed_ns, 0);
	obd_store_relaxed(&row->last_failed_ns, 0);
	obd_store_relaxed(&row->last_answer_ns, 0);
	obd_store_relaxed(&row->failures, 0);
	obd_store_relaxed(&row->err, 0);
	obd_store_relaxed(&row->jobs, 0);
	row_end(row);
}

struct host *obd_host_known(struct cached *c, uint64_t hash)
{
	for (int i = 0; hash && i < OBD_HOSTS; i++)
		if (c->host[i].hash == hash)
			return &c->host[i];
	return NULL;
}

struct host *obd_host(struct cached *c, const struct miss *m)
{
	if (!m->host_hash)
		return &c->host[LOCAL_HOST];
	struct host *h = obd_host_known(c, m->host_hash);
	if (!h) {
		h = idle_slot(c);
		if (!h)
			return &c->host[m->host_hash % OBD_HOSTS];
		h->hash = m->host_hash;
		memset(&h->link, 0, sizeof h->link);
		h->down = false;
		h->gave_up = 0;
		h->gave_up_logged_ns = 0;
		name_row(c, row_of(c, h), m);
	}
	h->used_ns = obd_clock_ns();
	return h;
}

void obd_host_jobs(struct cached *c, const struct host *h)
{
	obd_store_relaxed(&row_of(c, h)->jobs, h->jobs);
}

/* --- how it answers ------------------------------------------------------------------------------------------------------- */

void obd_host_answered(struct cached *c, struct host *h)
{
	struct obd_table_host *row = row_of(c, h);
	obd_store_relaxed(&row->last_answer_ns, obd_clock_ns());
	if (obd_load_relaxed(&row->first_failed_ns) == 0)
		return;
	if (h->down) {
		uint64_t s = (obd_clock_ns() - obd_load_relaxed(&row->first_failed_ns)) / OBD_SECOND_NS;
		obd_warn("registry %s answers again after %llu s", row->name, (unsigned long long)s);
	}
	h->down = false;
	obd_store_relaxed(&row->failures, 0);
	obd_store_relaxed(&row->first_failed_ns, 0);
}

void obd_host_failed(struct cached *c, struct host *h, int err, const char reason[OBD_REASON_BYTES])
{
	struct obd_table_host *row = row_of(c, h);
	uint64_t now = obd_clock_ns();
	row_begin(row);
	memcpy(row->reason, reason, sizeof row->reason);
	row->reason[sizeof row->reason - 1] = '\0';
	obd_store_relaxed(&row->err, (uint32_t)err);
	row_end(row);
	obd_store_relaxed(&row->last_failed_ns, now);
	if (!obd_miss_transient(err)) { /* it said something, if not what we like to hear */
		obd_host_answered(c, h);
		return;
	}
	uint64_t first = obd_load_relaxed(&row->first_failed_ns);
	obd_store_relaxed(&row->failures, obd_load_relaxed(&row->failures) + 1);
	if (first == 0)
		obd_store_relaxed(&row->first_failed_ns, first = now);
	if (!h->down && now - first > OBD_SECOND_NS) {
		h->down = true;
		obd_warn("registry %s does not answer: %s", row->name, row->reason);
	}
}

bool obd_host_answers(struct cached *c, uint64_t hash)
{
	const struct host *h = obd_host_known(c, hash);
	if (!h)
		return false;
	uint64_t last = obd_load_relaxed(&row_of(c, h)->last_answer_ns);
	return last && obd_clock_ns() - last < RECENT_NS;
}

void obd_host_gave_up(struct cached *c, uint64_t hash, uint64_t waited_ns)
{
	struct host *h = obd_host_known(c, hash);
	uint64_t now = obd_clock_ns();
	if (!h)
		return;
	h->gave_up++;
	if (h->gave_up_logged_ns && now - h->gave_up_logged_ns < GAVE_UP_LOG_NS)
		return;
	const struct obd_table_host *row = row_of(c, h);
	obd_error("registry %s: timed out after %llu s, %llu reads given up; %s", row->name,
		  (unsigned long long)(waited_ns / OBD_SECOND_NS), (unsigned long long)h->gave_up,
		  row->reason[0] ? row->reason : "no answer");
	h->gave_up = 0;
	h->gave_up_logged_ns = now;
}
