/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is queued, and whose turn it is.
 *
 *   host -- priority -- ring of flows that have something queued -- each flow's misses, oldest first
 *
 * A flow is one image (client, open slot) at one host. The flows of a ring are served by deficit round robin: who has credit is
 * served and pays in bytes; when nobody who may be served has credit left, all of them get some. So a flow that asks for much
 * and one that asks for little get the same number of bytes while both have something queued, and nobody waits for more than
 * one job of each other. A flow that may not be served now (its share of the link is under way) keeps its place and gets no
 * credit.
 *
 * Private memory; if cached dies, it grows anew from the clients' requests.
 */
#include <stdlib.h>
#include <string.h>

#include "shmcache/cached/cached.h"

enum { QUANTUM = 64 << 10 };

static void flow_init(struct flow *f, struct host *h, uint32_t id)
{
	memset(f, 0, sizeof *f);
	f->host = h;
	f->id = id;
	for (int p = 0; p < PRIOS; p++) {
		obd_list_init(&f->queue[p]);
		obd_list_init(&f->turn[p]);
	}
}

void obd_flows_init(struct cached *c)
{
	for (int i = 0; i <= OBD_HOSTS; i++) {
		struct host *h = &c->host[i];
		h->local = i == LOCAL_HOST;
		for (int p = 0; p < PRIOS; p++)
			obd_list_init(&h->turns[p]);
		flow_init(&h->nobody, h, UINT32_MAX);
	}
}

void obd_flows_free(struct cached *c)
{
	for (int i = 0; i < FLOW_CHAINS; i++)
		while (c->flow_hash[i]) {
			struct flow *f = c->flow_hash[i];
			c->flow_hash[i] = f->hash_next;
			free(f);
		}
}

static struct flow **chain(struct cached *c, const struct host *h, uint32_t id)
{
	return &c->flow_hash[obd_key_hash((uint64_t)id << 8 | (uint64_t)(h - c->host)) % FLOW_CHAINS];
}

static struct flow *get(struct cached *c, struct host *h, uint32_t id)
{
	struct flow **first = chain(c, h, id);
	struct flow *f = *first;
	while (f && (f->id != id || f->host != h))
		f = f->hash_next;
	if (f)
		return f;
	f = malloc(sizeof *f);
	if (!f)
		return &h->nobody;
	flow_init(f, h, id);
	f->hash_next = *first;
	*first = f;
	return f;
}

void obd_flow_put(struct cached *c, struct flow *f)
{
	if (f->queued || f->jobs || f == &f->host->nobody)
		return;
	struct flow **p = chain(c, f->host, f->id);
	while (*p != f)
		p = &(*p)->hash_next;
	*p = f->hash_next;
	free(f);
}

void obd_flow_push(struct cached *c, struct miss *m, bool front)
{
	struct flow *f = get(c, obd_host(c, m), m->flow);
	if (obd_list_empty(&f->queue[m->prio])) {
		f->credit[m->prio] = f->credit[m->prio] < 0 ? f->credit[m->prio] + QUANTUM : QUANTUM; /* debts stay */
		obd_list_push_back(&f->host->turns[m->prio], &f->turn[m->prio]);
	}
	if (front)
		obd_list_push_front(&f->queue[m->prio], &m->link);
	else
		obd_list_push_back(&f->queue[m->prio], &m->link);
	m->in = f;
	f->queued++;
	f->host->queued[m->prio]++;
	c->queued[m->prio]++;
}

void obd_flow_pull(struct cached *c, struct miss *m)
{
	struct flow *f = m->in;
	obd_list_remove(&m->link);
	m->in = NULL;
	f->queued--;
	f->host->queued[m->prio]--;
	c->queued[m->prio]--;
	if (obd_list_empty(&f->queue[m->prio]))
		obd_list_remove(&f->turn[m->prio]);
	obd_flow_put(c, f);
}

/* The first flow of the ring that may be served and has credit. *poor: some that may have none. */
static struct flow *rich(struct cached *c, struct host *h, enum prio prio, obd_flow_may_fn *may, uint64_t *room, bool *poor)
{
	*poor = false;
	OBD_LIST_FOREACH (it, &h->turns[prio]) {
		struct flow *f = OBD_LIST_ENTRY(it - prio, struct flow, turn);
		*room = may(c, f, prio);
		if (*room && f->credit[prio] > 0)
			return f;
		*poor |= *room != 0;
	}
	return NULL;
}

static void give_credit(struct cached *c, struct host *h, enum prio prio, obd_flow_may_fn *may)
{
	OBD_LIST_FOREACH (it, &h->turns[prio]) {
		struct flow *f = OBD_LIST_ENTRY(it - prio, struct flow, turn);
		if (may(c, f, prio))
			f->credit[prio] += QUANTUM;
	}
}

struct miss *obd_flow_next(struct cached *c, struct host *h, enum prio prio, obd_flow_may_fn *may, uint64_t *room)
{
	struct flow *f;
	bool poor;
	while (!(f = rich(c, h, prio, may, room, &poor)) && poor)
		give_credit(c, h, prio, may);
	return f ? OBD_LIST_ENTRY(f->queue[prio].next, struct miss, link) : NULL;
}

void obd_flow_charge(struct flow *f, enum prio prio, uint64_t bytes)
{
	f->credit[prio] -= (int64_t)bytes;
	if (f->credit[prio] > 0 || obd_list_empty(&f->queue[prio]))
		return;
	obd_list_remove(&f->turn[prio]);
	obd_list_push_back(&f->host->turns[prio], &f->turn[prio]);
}
