/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The object: its life, its clients, and the order in which work is done. */
#include "indexer/indexer.h"

#include <errno.h>
#include <stdlib.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/testpoint.h"
#include "indexer/internal.h"
#include "shmcache/ring.h"

uint32_t obd_ix_new_uid(struct obd_indexer *ix)
{
	uint32_t uid = obd_load_relaxed(&ix->cat->next_uid);
	if (uid == UINT32_MAX)
		return 0;
	uid++;
	obd_store_release(&ix->cat->next_uid, uid); /* before anything carries it: a kill may skip a uid, never repeat one */
	return uid;
}

static void init_tables(struct obd_indexer *ix)
{
	for (uint32_t i = 0; i < OBD_LAYER_SLOTS; i++) {
		struct obd_ix_layer *l = &ix->layer[i];
		l->ix = ix;
		l->slot = i;
		obd_list_init(&l->fetches);
		obd_list_init(&l->waiters);
		obd_list_init(&l->work);
	}
	for (uint32_t i = 0; i < OBD_IMAGE_SLOTS; i++)
		ix->image[i].slot = i;
	obd_list_init(&ix->layer_work);
	obd_list_init(&ix->open_work);
	obd_list_init(&ix->starved_fetches);
	obd_list_init(&ix->starved_opens);
	obd_list_init(&ix->warming);
	obd_list_init(&ix->probing);
	obd_list_init(&ix->forgotten);
	obd_list_init(&ix->records);
	obd_list_init(&ix->trace_writes);
	obd_list_init(&ix->prefetches);
	obd_list_init(&ix->ups_gates);
	obd_list_init(&ix->ups_ready);
	obd_list_init(&ix->ups_starved);
	ix->engine.event_fd = -1;
	ix->prefetch_most = OBD_IX_PREFETCH_BLOCKS;
	ix->metadata_first = true;
}

static bool all_regions(const struct obd_segment *seg)
{
	return seg->catalog && seg->index && seg->client[0] && seg->frames && seg->fills && seg->table && seg->recency;
}

struct obd_indexer *obd_indexer_new(struct obd_segment *seg, uint32_t incarnation, struct obd_err *err)
{
	if (!all_regions(seg)) {
		obd_err_set(err, EINVAL, "a region that the indexer needs was not granted");
		return NULL;
	}
	struct obd_indexer *ix = calloc(1, sizeof *ix);
	if (!ix) {
		obd_err_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	ix->seg = seg;
	ix->cat = seg->catalog;
	init_tables(ix);
	obd_arena_init(&ix->arena, seg->geo.index_bytes);
	bool found = obd_load_acquire(&ix->cat->proc.magic) == OBD_SEG_MAGIC;
	if (obd_ix_upper_init(ix) || (found && obd_ix_adopt(ix))) {
		obd_err_set(err, ENOMEM, "out of memory");
		obd_indexer_free(ix);
		return NULL;
	}
	obd_reader_attach(&ix->reader, seg, 0, OBD_ROLE_INDEXER, incarnation);
	obd_proc_start(&ix->cat->proc, OBD_ROLE_INDEXER, 0, incarnation);
	return ix;
}

/* Private memory only: nothing here may change the segment. */
static void free_posts(struct obd_list *list)
{
	OBD_LIST_FOREACH_SAFE (it, list)
		free(OBD_LIST_ENTRY(it, struct obd_ix_post, link));
}

static void free_open(struct obd_ix_open *o)
{
	free_posts(&o->posts);
	free(o->record_to);
	free(o->trace);
	obd_image_config_free(o->cfg);
	free(o->lower);
	free(o->wants);
	free(o->path);
	free(o);
}

static void free_layer(struct obd_ix_layer *l)
{
	OBD_LIST_FOREACH_SAFE (it, &l->fetches) {
		struct obd_ix_fetch *f = OBD_LIST_ENTRY(it, struct obd_ix_fetch, link);
		free_posts(&f->posts);
		free(f->buf);
		free(f);
	}
	free(l->seg);
	free(l->origin);
}

void obd_indexer_free(struct obd_indexer *ix)
{
	if (!ix)
		return;
	obd_ix_engine_stop(&ix->engine);
	obd_ix_record_free_all(ix);
	obd_ix_prefetch_free_all(ix);
	for (uint32_t c = 0; c < OBD_MAX_CLIENTS; c++)
		for (uint32_t i = 0; i < OBD_OPEN_SLOTS; i++)
			if (ix->client[c].open[i])
				free_open(ix->client[c].open[i]);
	for (uint32_t i = 0; i < OBD_LAYER_SLOTS; i++)
		free_layer(&ix->layer[i]);
	free_posts(&ix->forgotten);
	obd_ix_upper_free_all(ix);
	obd_arena_done(&ix->arena);
	free(ix);
}

void obd_indexer_set_engine(struct obd_indexer *ix, uint32_t engine)
{
	ix->engine_kind = engine < OBD_IX_ENGINES ? (enum obd_ix_engine_kind)engine : OBD_IX_PSYNC;
}

void obd_indexer_set_config(struct obd_indexer *ix, const struct obd_config *config)
{
	ix->config = config;
}

void obd_indexer_set_prefetch(struct obd_indexer *ix, uint32_t most, bool metadata_first)
{
	ix->prefetch_most = most;
	ix->metadata_first = metadata_first;
}

int obd_indexer_event_fd(const struct obd_indexer *ix)
{
	return ix->engine.event_fd;
}

/* --- clients ------------------------------------------------------------------------------------------------------------ */

static bool is_client(const struct obd_indexer *ix, uint32_t c)
{
	return c > 0 && c < OBD_MAX_CLIENTS && ix->seg->client[c];
}

/* What lies in the ring is skipped before the table is scanned: what is posted later rings again. */
void obd_indexer_client_up(struct obd_indexer *ix, uint32_t c, uint64_t incarnation)
{
	if (!is_client(ix, c) || (ix->client[c].up && ix->client[c].incarnation == incarnation))
		return;
	struct obd_catalog_client *half = &ix->cat->client[c];
	bool same = !ix->client[c].up && obd_load_relaxed(&half->incarnation) == incarnation;
	if (!same) {
		obd_ix_client_reset(ix, c);
		obd_store_release(&half->incarnation, incarnation); /* edge: client-half; the replies are this client's */
	}
	obd_ix_record_client_up(ix, c);
	ix->client[c].up = true;
	ix->client[c].incarnation = incarnation;
	obd_ring_skip(&ix->seg->client[c]->opens, &half->opens_tail);
	obd_ix_open_scan(ix, c);
	obd_ix_upper_sweep(ix, c);
	obd_ix_up_client_start(ix, c, same);
}

bool obd_indexer_client_idle(const struct obd_indexer *ix, uint32_t c)
{
	return c >= OBD_MAX_CLIENTS || !ix->client[c].ups.busy;
}

bool obd_indexer_idle(const struct obd_indexer *ix)
{
	return !ix->engine.running && obd_list_empty(&ix->upper_work) && obd_list_empty(&ix->upper_late) &&
	       obd_list_empty(&ix->ups_gates);
}

void obd_indexer_client_down(struct obd_indexer *ix, uint32_t c)
{
	if (c == 0 || c >= OBD_MAX_CLIENTS)
		return;
	obd_store_release(&ix->cat->client[c].incarnation, OBD_IX_NO_CLIENT);
	obd_ix_client_reset(ix, c);
	ix->client[c].up = false;
}

void obd_indexer_clients_known(struct obd_indexer *ix)
{
	ix->clients_known = true;
	OBD_TEST_POINT(adopt_known);
	for (uint32_t c = 1; c < OBD_MAX_CLIENTS; c++)
		if (!ix->client[c].up)
			obd_ix_upper_sweep(ix, c);
	obd_ix_wants_sweep(ix);
}

/* --- work --------------------------------------------------------------------------------------------------------------- */

static void run_layers(struct obd_indexer *ix)
{
	while (!obd_list_empty(&ix->layer_work)) {
		struct obd_ix_layer *l = OBD_LIST_ENTRY(ix->layer_work.next, struct obd_ix_layer, work);
		obd_list_remove(&l->work);
		obd_ix_layer_step(l);
	}
}

static bool run_work(struct obd_indexer *ix)
{
	bool did = false;
	while (!obd_list_empty(&ix->layer_work) || !obd_list_empty(&ix->open_work)) {
		did = true;
		run_layers(ix);
		if (obd_list_empty(&ix->open_work))
			continue;
		struct obd_ix_open *o = OBD_LIST_ENTRY(ix->open_work.next, struct obd_ix_open, work);
		obd_list_remove(&o->work);
		obd_ix_open_step(o);
	}
	return did;
}

/* Request slots may be free again. */
static void resume(struct obd_indexer *ix)
{
	obd_ix_fetch_resume(ix);
	obd_ix_up_resume(ix);
	while (!obd_list_empty(&ix->starved_opens)) {
		struct obd_ix_open *o = OBD_LIST_ENTRY(ix->starved_opens.next, struct obd_ix_open, starved);
		obd_list_remove(&o->starved);
		obd_ix_open_queue(o);
	}
}

/* Opens that have waited long enough for warm blocks go on without them, and probes whose time has come are sent again. */
static void expire(struct obd_indexer *ix)
{
	if (obd_list_empty(&ix->warming) && obd_list_empty(&ix->probing))
		return;
	uint64_t now = obd_clock_ns();
	OBD_LIST_FOREACH_SAFE (it, &ix->probing) {
		struct obd_ix_open *o = OBD_LIST_ENTRY(it, struct obd_ix_open, probing);
		if (now < o->probe_again_ns)
			continue;
		obd_list_remove(&o->probing);
		obd_ix_open_queue(o);
	}
	OBD_LIST_FOREACH (it, &ix->warming) {
		struct obd_ix_open *o = OBD_LIST_ENTRY(it, struct obd_ix_open, warming);
		if (now >= o->warm_until_ns)
			obd_ix_open_queue(o);
	}
}

bool obd_indexer_poll(struct obd_indexer *ix)
{
	if (!ix->clients_known)
		return false;
	bool did = obd_ix_record_poll(ix); /* before an open that is closed takes its recording along */
	did |= obd_ix_open_rings(ix);
	did |= obd_ix_up_rings(ix);
	did |= obd_ix_engine_reap(&ix->engine);
	if (obd_ix_answers(ix)) {
		did = true;
		resume(ix);
	}
	if (ix->bounce_freed) {
		ix->bounce_freed = false;
		obd_ix_up_resume(ix);
	}
	expire(ix);
	did |= obd_ix_uppers_work(ix);
	did |= run_work(ix);
	did |= obd_ix_up_start(ix);
	did |= obd_ix_gates_open(ix);
	did |= obd_ix_replies_flush(ix);
	did |= obd_ix_up_flush(ix);
	did |= obd_ix_prefetch_pump(ix);
	if (ix->posted)
		obd_reader_kick(&ix->reader);
	ix->posted = false;
	return did;
}

bool obd_indexer_has_work(struct obd_indexer *ix)
{
	if (!ix->clients_known)
		return false;
	for (uint32_t c = 1; c < OBD_MAX_CLIENTS; c++)
		if (ix->client[c].up &&
		    (obd_ix_up_ring_has(ix, c) || obd_ring_has(&ix->seg->client[c]->opens, &ix->cat->client[c].opens_tail)))
			return true;
	if (!obd_list_empty(&ix->ups_gates) || !obd_list_empty(&ix->ups_ready) || !obd_list_empty(&ix->upper_work))
		return true;
	return obd_ix_engine_has_done(&ix->engine) || obd_reader_has_answer(&ix->reader) || !obd_list_empty(&ix->layer_work) ||
	       !obd_list_empty(&ix->open_work);
}

uint64_t obd_indexer_deadline(const struct obd_indexer *ix)
{
	uint64_t due = obd_ix_uppers_deadline(ix);
	OBD_LIST_FOREACH (it, &ix->warming) {
		uint64_t at = OBD_LIST_ENTRY(it, struct obd_ix_open, warming)->warm_until_ns;
		due = due ? obd_min_u64(due, at) : at;
	}
	OBD_LIST_FOREACH (it, &ix->probing) {
		uint64_t at = OBD_LIST_ENTRY(it, struct obd_ix_open, probing)->probe_again_ns;
		due = due ? obd_min_u64(due, at) : at;
	}
	return due;
}

/* Opens that the rings did not tell of. A client posts the word before it rings, so only one that is old was lost. */
static void second_look(struct obd_indexer *ix, uint32_t c)
{
	uint64_t now = obd_clock_ns();
	for (uint32_t slot = 0; slot < OBD_OPEN_SLOTS; slot++) {
		uint64_t posted = obd_load_relaxed(&ix->seg->client[c]->open[slot].posted_ns);
		bool is_new = !ix->client[c].open[slot];
		if (obd_ix_open_look(ix, c, slot) && is_new && posted + OBD_SECOND_NS < now)
			obd_count(&ix->cat->proc, late_wakeups, 1);
	}
	obd_count(&ix->cat->proc, late_wakeups, obd_ix_up_late(ix, c));
}

void obd_indexer_tick(struct obd_indexer *ix)
{
	obd_proc_heartbeat(&ix->cat->proc);
	obd_proc_heartbeat(&ix->seg->client[0]->proc);
	if (!ix->clients_known)
		return;
	obd_ix_record_tick(ix);
	obd_ix_open_rings(ix);
	obd_ix_up_rings(ix);
	for (uint32_t c = 1; c < OBD_MAX_CLIENTS; c++)
		if (ix->client[c].up)
			second_look(ix, c);
	obd_ix_uppers_tick(ix);
	obd_ix_fetch_resume(ix);
	obd_ix_up_resume(ix);
}
