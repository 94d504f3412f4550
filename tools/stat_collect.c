/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * From the regions into a plain struct. Bounds are this program's own (slots, nframes of the checked geometry). An entry is
 * copied, then its word is read again; one that changed meanwhile is left out, as it would have been a moment earlier.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/util.h"
#include "shmcache/catalog.h"
#include "shmcache/download.h"
#include "tools/stat.h"

/* --- counters ------------------------------------------------------------------------------------------------------------- */

static void add_row(struct obd_stat *st, enum obd_role role, const struct obd_proc *row)
{
	for (unsigned int i = 0; i < OBD_C_COUNT; i++) {
		uint64_t v = obd_load_relaxed(&row->counters[i]);
		st->by_role[role][i] += v;
		st->total[i] += v;
	}
}

static bool is_set_up(const struct obd_proc *row)
{
	return obd_load_acquire(&row->magic) == OBD_SEG_MAGIC;
}

static void add_rows(struct obd_stat *st, const struct obd_segment *seg)
{
	if (seg->table)
		add_row(st, OBD_ROLE_CACHED, &seg->table->proc);
	if (seg->catalog)
		add_row(st, OBD_ROLE_INDEXER, &seg->catalog->proc);
	for (uint32_t i = 0; i < OBD_MAX_FETCHERS; i++)
		if (seg->fetcher[i] && is_set_up(&seg->fetcher[i]->proc))
			add_row(st, OBD_ROLE_FETCHER, &seg->fetcher[i]->proc);
	for (uint32_t i = 0; i < OBD_MAX_CLIENTS; i++)
		if (seg->client[i] && is_set_up(&seg->client[i]->proc))
			add_row(st, i ? OBD_ROLE_FRONTEND : OBD_ROLE_INDEXER, &seg->client[i]->proc);
}

/* The rows of one process; the indexer has a second one, as client 0. */
static void rows_of(const struct obd_segment *seg, const struct obd_stat_proc *p, const struct obd_proc *row[2])
{
	row[0] = row[1] = NULL;
	if (p->role == OBD_ROLE_CACHED && seg->table)
		row[0] = &seg->table->proc;
	if (p->role == OBD_ROLE_INDEXER && seg->catalog)
		row[0] = &seg->catalog->proc;
	if (p->role == OBD_ROLE_INDEXER && seg->client[0])
		row[1] = &seg->client[0]->proc;
	if (p->role == OBD_ROLE_FETCHER && p->index < OBD_MAX_FETCHERS && seg->fetcher[p->index])
		row[0] = &seg->fetcher[p->index]->proc;
	if (p->role == OBD_ROLE_FRONTEND && p->index < OBD_MAX_CLIENTS && seg->client[p->index])
		row[0] = &seg->client[p->index]->proc;
}

static void fill_proc(struct obd_stat_proc *p, const struct obd_segment *seg, uint64_t now)
{
	const struct obd_proc *row[2];
	rows_of(seg, p, row);
	p->has_counters = false;
	memset(p->counters, 0, sizeof p->counters);
	for (int r = 0; r < 2; r++)
		for (unsigned int i = 0; row[r] && i < OBD_C_COUNT; i++) {
			p->counters[i] += obd_load_relaxed(&row[r]->counters[i]);
			p->has_counters = true;
		}
	if (p->role == OBD_ROLE_FRONTEND && row[0]) { /* it sends the supervisor none */
		uint64_t beat = obd_load_relaxed(&row[0]->heartbeat_ns);
		p->heartbeat_age_ms = beat < now ? (now - beat) / OBD_MS_NS : 0;
	}
}

/* --- catalog -------------------------------------------------------------------------------------------------------------- */

/* Room for one more element behind n of them; arrays grow by doubling. */
static void *grow(void *array, uint32_t n, size_t element_bytes)
{
	if (n && !obd_is_pow2(n))
		return array;
	return reallocarray(array, n ? (size_t)n * 2 : 1, element_bytes);
}

static int add_layer(struct obd_stat *st, const struct obd_layer_view *v)
{
	struct obd_stat_layer *array = grow(st->layers, st->nlayers, sizeof *array);
	if (!array)
		return -ENOMEM;
	st->layers = array;
	char *name = strdup(v->local ? v->path : v->digest);
	if (!name)
		return -ENOMEM;
	struct obd_stat_layer *l = &array[st->nlayers++];
	*l = (struct obd_stat_layer){
		.slot = v->slot,
		.uid = v->uid,
		.state = v->state,
		.local = v->local,
		.zfile = v->zfile,
		.blob_bytes = v->blob_bytes,
		.file_bytes = v->file_bytes,
		.name = name,
		.host_hash = v->local ? 0 : v->host_hash,
	};
	memcpy(l->host, v->host, sizeof l->host);
	return 0;
}

static int collect_layers(struct obd_stat *st, const struct obd_segment *seg)
{
	struct obd_layer_view *view = malloc(sizeof *view);
	int rc = view ? 0 : -ENOMEM;
	for (uint32_t slot = 0; rc == 0 && slot < OBD_LAYER_SLOTS; slot++) {
		uint64_t word = obd_load_relaxed(&seg->catalog->layer[slot].word);
		if (obd_word_state(word) == OBD_LAYER_FREE)
			continue;
		rc = obd_catalog_layer(seg, slot, (uint32_t)obd_word_seq(word), view);
		if (rc == 0)
			rc = add_layer(st, view);
		else if (rc == -EPROTO)
			st->bad_entries++;
		if (rc != -ENOMEM)
			rc = 0;
	}
	free(view);
	return rc;
}

static int add_image(struct obd_stat *st, uint32_t slot, const struct obd_image *e, uint64_t word)
{
	if (e->nlayers > OBD_IMAGE_LAYERS) {
		st->bad_entries++;
		return 0;
	}
	struct obd_stat_image *array = grow(st->images, st->nimages, sizeof *array);
	if (!array)
		return -ENOMEM;
	st->images = array;
	struct obd_stat_image *im = &array[st->nimages++];
	*im = (struct obd_stat_image){
		.slot = slot,
		.uid = (uint32_t)obd_word_seq(word),
		.virtual_bytes = e->virtual_bytes,
		.index_segments = e->index_count,
		.refs = obd_load_relaxed(&e->refs),
		.nlayers = e->nlayers,
	};
	memcpy(im->layer_uid, e->layer_uid, im->nlayers * sizeof im->layer_uid[0]);
	return 0;
}

static int collect_images(struct obd_stat *st, const struct obd_segment *seg)
{
	int rc = 0;
	for (uint32_t slot = 0; rc == 0 && slot < OBD_IMAGE_SLOTS; slot++) {
		const struct obd_image *entry = &seg->catalog->image[slot];
		struct obd_image copy;
		uint64_t word = obd_load_acquire(&entry->word); /* edge: image-publish */
		if (obd_word_state(word) != OBD_IMAGE_READY)
			continue;
		memcpy((void *)&copy, (const void *)entry, sizeof copy);
		obd_fence_acquire();
		if (obd_load_relaxed(&entry->word) == word)
			rc = add_image(st, slot, &copy, word);
	}
	return rc;
}

/* --- downloads ------------------------------------------------------------------------------------------------------------ */

static void copy_digest(const struct obd_segment *seg, const struct obd_want_view *want, char *digest)
{
	static struct obd_layer_view view; /* 8 KiB */
	if (obd_catalog_layer(seg, want->layer_slot, want->layer_uid, &view) == 0)
		memcpy(digest, view.digest, sizeof view.digest);
}

/* Numbers are those of one moment each; only the row's word and the want must agree. */
static int add_download(struct obd_stat *st, const struct obd_segment *seg, uint32_t slot, uint64_t now)
{
	struct obd_want_view want;
	const struct obd_down *row = &seg->table->down[slot];
	uint64_t word = obd_load_acquire(&row->word); /* edge: down-local */
	unsigned int state = obd_word_state(word);
	if (state == OBD_DOWN_FREE || state >= OBD_DOWN_STATES || obd_want_copy(seg, slot, (uint32_t)obd_word_seq(word), &want))
		return 0;
	struct obd_stat_download *array = grow(st->downloads, st->ndownloads, sizeof *array);
	if (!array)
		return -ENOMEM;
	st->downloads = array;
	struct obd_stat_download *d = &array[st->ndownloads++];
	uint64_t next = state == OBD_DOWN_WAITING ? obd_load_relaxed(&row->next_ns) : 0;
	*d = (struct obd_stat_download){.state = (enum obd_down_state)state,
					.layer_uid = want.layer_uid,
					.done_bytes = obd_load_relaxed(&row->done_bytes),
					.total_bytes = obd_load_relaxed(&row->total_bytes),
					.rate_bytes_per_sec = obd_load_relaxed(&row->rate_bytes_per_sec),
					.next_ns = next > now ? next - now : 0,
					.tries = obd_load_relaxed(&row->tries),
					.try_cnt = want.try_cnt,
					.err = obd_load_relaxed(&row->err)};
	memcpy(d->reason, row->reason, sizeof d->reason);
	d->reason[sizeof d->reason - 1] = '\0';
	memcpy(d->dir, want.dir, sizeof d->dir);
	copy_digest(seg, &want, d->digest);
	return 0;
}

static int collect_downloads(struct obd_stat *st, const struct obd_segment *seg, uint64_t now)
{
	int rc = 0;
	for (uint32_t slot = 0; rc == 0 && slot < OBD_WANT_SLOTS; slot++)
		rc = add_download(st, seg, slot, now);
	return rc;
}

/* --- frames --------------------------------------------------------------------------------------------------------------- */

static int by_uid(const void *a, const void *b)
{
	const struct obd_stat_layer *const *la = a, *const *lb = b;
	return (*la)->uid < (*lb)->uid ? -1 : (*la)->uid > (*lb)->uid;
}

static struct obd_stat_layer *find_uid(struct obd_stat_layer **sorted, uint32_t n, uint32_t uid)
{
	struct obd_stat_layer want = {.uid = uid}, *key = &want;
	struct obd_stat_layer **hit = n ? bsearch(&key, sorted, n, sizeof(struct obd_stat_layer *), by_uid) : NULL;
	return hit ? *hit : NULL;
}

static void count_frame(struct obd_stat *st, const struct obd_frame *frame, struct obd_stat_layer **sorted)
{
	uint32_t state = obd_load_acquire(&frame->state); /* edge: frame-state */
	if (state >= OBD_FRAME_STATES) {
		st->frames_odd++;
		return;
	}
	st->frames_by_state[state]++;
	if (state != OBD_FRAME_VALID)
		return;
	uint64_t key = obd_load_relaxed(&frame->key);
	bool raw = (key & OBD_KEY_RAW) != 0;
	struct obd_stat_layer *layer = find_uid(sorted, st->nlayers, (uint32_t)(key >> 32));
	st->cached_frames_raw += raw;
	if (layer && raw)
		layer->cached_chunks++;
	else if (layer)
		layer->cached_blocks++;
}

static int collect_frames(struct obd_stat *st, const struct obd_segment *seg)
{
	struct obd_stat_layer **sorted = calloc(st->nlayers + 1u, sizeof(struct obd_stat_layer *));
	if (!sorted)
		return -ENOMEM;
	for (uint32_t i = 0; i < st->nlayers; i++)
		sorted[i] = &st->layers[i];
	qsort(sorted, st->nlayers, sizeof(struct obd_stat_layer *), by_uid);
	for (uint32_t f = 0; f < seg->geo.nframes; f++)
		count_frame(st, &seg->frame[f], sorted);
	free(sorted);
	return 0;
}

/* --- clients' tables ------------------------------------------------------------------------------------------------------ */

static uint64_t age(uint64_t since_ns, uint64_t now)
{
	return since_ns && since_ns < now ? now - since_ns : 0;
}

/* Layers are in the order of their slots. */
static struct obd_stat_layer *find_slot(const struct obd_stat *st, uint32_t slot, uint32_t uid)
{
	uint32_t low = 0, high = st->nlayers;
	while (low < high) {
		uint32_t mid = low + (high - low) / 2;
		if (st->layers[mid].slot < slot)
			low = mid + 1;
		else
			high = mid;
	}
	return low < st->nlayers && st->layers[low].slot == slot && st->layers[low].uid == uid ? &st->layers[low] : NULL;
}

static void collect_requests(struct obd_stat *st, const struct obd_client_area *area, uint64_t now)
{
	for (uint32_t i = 0; i < OBD_REQ_SLOTS; i++) {
		uint64_t word = obd_load_acquire(&area->req[i].word); /* edge: request-post */
		if (obd_word_state(word) != OBD_REQ_POSTED)
			continue;
		uint64_t waits = age(obd_load_relaxed(&area->req[i].posted_ns), now);
		st->requests_posted++;
		st->requests_oldest_ns = obd_max_u64(st->requests_oldest_ns, waits);
		struct obd_stat_layer *l =
			find_slot(st, obd_load_relaxed(&area->req[i].layer_slot), obd_load_relaxed(&area->req[i].layer_uid));
		if (!l)
			continue;
		l->waiting++;
		l->oldest_ns = obd_max_u64(l->oldest_ns, waits);
	}
}

static int add_pending(struct obd_stat *st, uint32_t client, const struct obd_client_area *area, uint32_t slot, uint64_t word,
		       uint64_t now)
{
	const struct obd_open *open = &area->open[slot];
	char path[OBD_PATH_BYTES];
	memcpy(path, area->open_path[slot], sizeof path);
	path[sizeof path - 1] = '\0';
	uint64_t waits = age(obd_load_relaxed(&open->posted_ns), now);
	obd_fence_acquire();
	if (obd_load_relaxed(&open->word) != word)
		return 0;
	struct obd_stat_pending *array = grow(st->pending, st->npending, sizeof *array);
	if (!array)
		return -ENOMEM;
	st->pending = array;
	char *copy = strdup(path);
	if (!copy)
		return -ENOMEM;
	array[st->npending++] = (struct obd_stat_pending){.client = client, .age_ns = waits, .path = copy};
	return 0;
}

static int collect_opens(struct obd_stat *st, uint32_t client, const struct obd_client_area *area, uint64_t now)
{
	int rc = 0;
	for (uint32_t i = 0; rc == 0 && i < OBD_OPEN_SLOTS; i++) {
		uint64_t word = obd_load_acquire(&area->open[i].word); /* edge: open-post */
		if (obd_word_state(word) == OBD_OPEN_HELD)
			st->opens_held++;
		else if (obd_word_state(word) == OBD_OPEN_POSTED)
			rc = add_pending(st, client, area, i, word, now);
	}
	return rc;
}

static int collect_clients(struct obd_stat *st, const struct obd_segment *seg, uint64_t now)
{
	int rc = 0;
	for (uint32_t c = 0; rc == 0 && c < OBD_MAX_CLIENTS; c++) {
		if (!seg->client[c] || !is_set_up(&seg->client[c]->proc))
			continue;
		collect_requests(st, seg->client[c], now);
		rc = collect_opens(st, c, seg->client[c], now);
	}
	return rc;
}

/* -------------------------------------------------------------------------------------------------------------------------- */

static void collect_disk(struct obd_stat *st, const struct obd_table_disk *t)
{
	unsigned int state = obd_word_state(obd_load_acquire(&t->word)); /* edge: disk-epoch */
	st->disk = (struct obd_stat_disk){.state = state <= OBD_DISK_READ_ONLY ? (enum obd_disk_state)state : OBD_DISK_NONE,
					  .err = obd_load_relaxed(&t->err),
					  .blobs = obd_load_relaxed(&t->blobs),
					  .used_bytes = obd_load_relaxed(&t->used_bytes),
					  .limit_bytes = obd_load_relaxed(&t->limit_bytes),
					  .free_bytes = obd_load_relaxed(&t->free_bytes)};
}

static int collect_table(struct obd_stat *st, const struct obd_segment *seg, uint64_t now)
{
	st->waiting_requests = obd_load_relaxed(&seg->table->waiting_requests);
	st->backoff_blocks = obd_load_relaxed(&seg->table->backoff_blocks);
	for (int p = 0; p < OBD_PRIOS; p++) {
		st->queued[p] = obd_load_relaxed(&seg->table->queued[p]);
		st->inflight[p] = obd_load_relaxed(&seg->table->inflight[p]);
	}
	st->oldest_wait_ns = age(obd_load_relaxed(&seg->table->oldest_wait_ns), now);
	collect_disk(st, &seg->table->disk);
	return collect_frames(st, seg);
}

/* Layers that fetchers died of (4.6). */
static void collect_refused(struct obd_stat *st, const struct obd_segment *seg, uint64_t now)
{
	for (int i = 0; i < OBD_REFUSED; i++) {
		const struct obd_table_refused *r = &seg->table->refused[i];
		uint32_t uid = obd_load_acquire(&r->layer_uid); /* edge: layer-refused */
		uint64_t until = obd_load_relaxed(&r->until_ns);
		for (uint32_t k = 0; uid && until > now && k < st->nlayers; k++) {
			if (st->layers[k].uid != uid)
				continue;
			st->layers[k].refused_ns = until - now;
			st->layers[k].fetcher_deaths = obd_load_relaxed(&r->deaths);
		}
	}
}

static int collect_catalog(struct obd_stat *st, const struct obd_segment *seg)
{
	st->arena_used_bytes = obd_load_relaxed(&seg->catalog->arena_used_bytes);
	int rc = collect_layers(st, seg);
	return rc ? rc : collect_images(st, seg);
}

/* --- registries ----------------------------------------------------------------------------------------------------------- */

#define SILENT_NS (400 * OBD_MS_NS) /* so long nobody wonders that there is no answer yet */

/* False: nobody's row, or it changed meanwhile. */
static bool copy_host(struct obd_stat_host *h, const struct obd_table_host *row, uint64_t now)
{
	uint64_t word = obd_load_acquire(&row->word); /* edge: host-row */
	memset(h, 0, sizeof *h);
	h->hash = obd_load_relaxed(&row->hash);
	if (!h->hash || word & 1)
		return false;
	memcpy(h->name, row->name, sizeof h->name - 1);
	memcpy(h->reason, row->reason, sizeof h->reason - 1);
	h->err = obd_load_relaxed(&row->err);
	h->jobs = obd_load_relaxed(&row->jobs);
	h->failures = obd_load_relaxed(&row->failures);
	h->err_age_ns = age(obd_load_relaxed(&row->last_failed_ns), now);
	obd_fence_acquire(); /* edge: host-row */
	return obd_load_relaxed(&row->word) == word;
}

static void judge_host(struct obd_stat_host *h, const struct obd_table_host *row, uint64_t now)
{
	uint64_t failed = obd_load_relaxed(&row->first_failed_ns), answered = obd_load_relaxed(&row->last_answer_ns);
	uint64_t quiet = answered ? obd_min_u64(age(answered, now), h->oldest_ns) : h->oldest_ns;
	if (failed) {
		h->state = OBD_STAT_HOST_FAILING;
		h->since_ns = age(failed, now);
	} else if (h->waiting && quiet > SILENT_NS) {
		h->state = OBD_STAT_HOST_SILENT;
		h->since_ns = quiet;
	}
}

static void collect_hosts(struct obd_stat *st, const struct obd_segment *seg, uint64_t now)
{
	for (uint32_t i = 0; i < OBD_HOSTS; i++) {
		struct obd_stat_host *h = &st->host[st->nhosts];
		bool good = false;
		for (int tries = 0; !good && tries < 10; tries++)
			good = copy_host(h, &seg->table->host[i], now);
		if (!good)
			continue;
		for (uint32_t k = 0; k < st->nlayers; k++) {
			if (st->layers[k].host_hash != h->hash)
				continue;
			h->waiting += st->layers[k].waiting;
			h->oldest_ns = obd_max_u64(h->oldest_ns, st->layers[k].oldest_ns);
		}
		judge_host(h, &seg->table->host[i], now);
		st->nhosts++;
	}
}

int obd_stat_collect(struct obd_stat *st, struct obd_stat_link *link)
{
	const struct obd_segment *seg = &link->seg;
	uint64_t now = obd_clock_ns();
	int rc = 0;
	memset(st, 0, sizeof *st);
	st->geo = seg->geo;
	st->has_geometry = seg->geo.magic != 0;
	st->has_table = seg->table != NULL;
	st->has_catalog = seg->catalog != NULL;
	for (uint32_t i = 0; i < link->nprocs; i++)
		fill_proc(&link->procs[i], seg, now);
	add_rows(st, seg);
	if (st->has_catalog)
		rc = collect_catalog(st, seg);
	if (rc == 0 && st->has_table)
		rc = collect_table(st, seg, now);
	if (rc == 0 && st->has_table && st->has_catalog)
		rc = collect_downloads(st, seg, now);
	if (rc == 0 && st->has_table)
		collect_refused(st, seg, now);
	if (rc == 0)
		rc = collect_clients(st, seg, now);
	if (rc == 0 && st->has_table)
		collect_hosts(st, seg, now);
	return rc;
}

void obd_stat_free(struct obd_stat *st)
{
	for (uint32_t i = 0; i < st->nlayers; i++)
		free(st->layers[i].name);
	for (uint32_t i = 0; i < st->npending; i++)
		free(st->pending[i].path);
	free(st->layers);
	free(st->images);
	free(st->pending);
	free(st->downloads);
	memset(st, 0, sizeof *st);
}

double obd_stat_hit_ratio(const struct obd_stat *st)
{
	double hits = (double)st->total[OBD_C_hits], misses = (double)st->total[OBD_C_misses];
	return hits + misses > 0 ? hits / (hits + misses) : -1;
}
