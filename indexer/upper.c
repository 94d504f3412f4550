/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Uppers: catalog entries, maps, and when files are opened and closed.
 *
 *     open     a job (upper_files.c), then the map, slice by slice      entry FREE: nobody sees it
 *     publish  fields, then word (edge: upper-publish)                  entry READY; then the open is replied
 *     close    word FREE; the engine ends what it has; files on a thread; the map, slice by slice
 *
 * Nothing here waits for a disk, and nothing is long: a device that is opened or closed does not hold up the others.
 *
 * Who finds the files locked waits for a close of this very process that is under way, of these very files, and for nothing
 * else.
 *
 * If this process dies: a READY entry names a map that is whole, and what it does not have yet stands in the index file behind
 * applied_bytes. The next incarnation reserves the map's pieces before it gives out any, and opens the files again when it sees
 * the open that they belong to, by the names in the entry. While that fails it is tried again, and requests wait. The lock died
 * with the process.
 */
#include "indexer/upper.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/testpoint.h"
#include "common/format/upper.h"
#include "indexer/internal.h"

#define SLICE_SEGMENTS 1024u
#define SLICE_SECTORS (UINT64_C(1) << 21) /* 1 GiB: at most so many go into the map at a time */
#define SLICE_LEAVES 256u
#define LOCK_RETRY_NS (20 * OBD_MS_NS)
#define LOCK_WAIT_NS (5 * OBD_SECOND_NS) /* for a close that is under way */
#define BACKOFF_FIRST_NS (10 * OBD_MS_NS)
#define BACKOFF_LAST_NS OBD_SECOND_NS

static struct obd_upper_entry *entry_of(const struct obd_ix_upper *u)
{
	return &u->ix->cat->upper[u->slot];
}

/* --- room for maps ------------------------------------------------------------------------------------------------------ */

static int chunk_get(void *arg, uint64_t *off)
{
	struct obd_indexer *ix = arg;
	int rc;
	do
		rc = obd_arena_alloc_aligned(&ix->arena, OBD_PAGES_CHUNK_BYTES, OBD_PAGES_CHUNK_BYTES, off);
	while (rc == -ENOSPC && obd_ix_drop_oldest(ix));
	obd_store_relaxed(&ix->cat->arena_used_bytes, ix->arena.used_bytes);
	return rc;
}

static int chunk_take(void *arg, uint64_t off)
{
	struct obd_indexer *ix = arg;
	return obd_arena_reserve(&ix->arena, off, OBD_PAGES_CHUNK_BYTES);
}

static void chunk_put(void *arg, uint64_t off)
{
	obd_ix_room_release(arg, off);
}

/* The root is allocated first and is as long as the device wants; all others are nodes and records. */
static int map_alloc(void *arg, uint64_t bytes, uint64_t *off)
{
	struct obd_ix_upper *u = arg;
	struct obd_err err;
	int rc;
	if (!u->has_map)
		rc = obd_ix_room(u->ix, bytes, off, &err);
	else
		rc = obd_pages_alloc(&u->ix->pages, bytes, off);
	return rc ? -ENOSPC : 0;
}

static void map_free(void *arg, uint64_t off, uint64_t bytes)
{
	struct obd_ix_upper *u = arg;
	if (off == u->map.map.root_off)
		obd_ix_room_release(u->ix, off);
	else
		obd_pages_free(&u->ix->pages, off, bytes);
}

/* --- slots -------------------------------------------------------------------------------------------------------------- */

static void free_load(struct obd_ix_upper *u)
{
	free(u->load);
	u->load = NULL;
	u->nload = u->loaded = 0;
}

static void reset(struct obd_ix_upper *u)
{
	free_load(u);
	free(u->data_path);
	free(u->index_path);
	u->data_path = u->index_path = NULL;
	u->dev = u->ino = 0;
	u->uid = 0;
	u->state = OBD_IX_UPPER_FREE;
	u->attached = false;
	u->sparse = false;
	u->granule = OBD_SECTOR_BYTES;
	u->data_fd = u->direct_fd = u->index_fd = -1;
	u->image = NULL;
	u->open = NULL;
	u->has_map = false;
	u->index_torn = false;
	u->unsynced = u->stray = false;
	u->running = 0;
	u->retry_ns = u->backoff_ns = u->give_up_ns = 0;
	u->rc = 0;
	u->map = (struct obd_upmap_writer){.seg = u->ix->seg, .arena = {.alloc = map_alloc, .free = map_free, .arg = u}};
}

int obd_ix_upper_init(struct obd_indexer *ix)
{
	const struct obd_pages_source source = {.get = chunk_get, .take = chunk_take, .put = chunk_put, .arg = ix};
	obd_list_init(&ix->upper_work);
	obd_list_init(&ix->upper_late);
	for (uint32_t i = 0; i < OBD_UPPER_SLOTS; i++) {
		struct obd_ix_upper *u = &ix->upper[i];
		u->ix = ix;
		u->slot = i;
		obd_list_init(&u->requests);
		obd_list_init(&u->recorded);
		obd_list_init(&u->gates);
		obd_list_init(&u->alone);
		obd_list_init(&u->joint);
		obd_list_init(&u->ready);
		obd_list_init(&u->turn);
		obd_list_init(&u->work);
		obd_list_init(&u->late);
		pthread_mutex_init(&u->record_lock, NULL);
		pthread_mutex_init(&u->order_lock, NULL);
		pthread_mutex_init(&u->sync_lock, NULL);
		pthread_cond_init(&u->synced, NULL);
		reset(u);
	}
	return obd_pages_init(&ix->pages, ix->seg->geo.index_bytes, &source);
}

static void free_requests(struct obd_ix_upper *u)
{
	OBD_LIST_FOREACH_SAFE (it, &u->recorded) {
		struct obd_ix_up *up = OBD_LIST_ENTRY(it, struct obd_ix_up, order);
		if (up->stage == OBD_IX_UP_OVER)
			obd_ix_up_free(up);
	}
	OBD_LIST_FOREACH_SAFE (it, &u->requests)
		obd_ix_up_free(OBD_LIST_ENTRY(it, struct obd_ix_up, link));
}

void obd_ix_upper_free_all(struct obd_indexer *ix)
{
	for (uint32_t i = 0; i < OBD_UPPER_SLOTS; i++) {
		struct obd_ix_upper *u = &ix->upper[i];
		free_requests(u);
		free_load(u);
		obd_ix_files_free(u->files);
		obd_ix_files_close(&u->data_fd, &u->direct_fd, &u->index_fd);
		free(u->data_path);
		free(u->index_path);
		pthread_mutex_destroy(&u->record_lock);
		pthread_mutex_destroy(&u->order_lock);
		pthread_mutex_destroy(&u->sync_lock);
		pthread_cond_destroy(&u->synced);
	}
	obd_pages_done(&ix->pages);
}

/* --- the map ------------------------------------------------------------------------------------------------------------ */

static void queue_work(struct obd_ix_upper *u)
{
	if (obd_list_empty(&u->work))
		obd_list_push_back(&u->ix->upper_work, &u->work);
}

static void queue_late(struct obd_ix_upper *u, uint64_t ns)
{
	u->retry_ns = obd_clock_ns() + ns;
	obd_list_remove(&u->late);
	obd_list_push_back(&u->ix->upper_late, &u->late);
}

/* How many of the segments from i on are zeros without a gap: as one range they need no leaves at the seams. */
static size_t zero_run(const struct obd_lsmt_seg *seg, size_t i, size_t n)
{
	size_t k = i + 1;
	while (k < n && obd_lsmt_seg_zeroed(seg[k]) && obd_lsmt_seg_offset(seg[k]) == obd_lsmt_seg_end(seg[k - 1]))
		k++;
	return k - i;
}

/* The next segments of u->load. 0 or -ENOSPC: then all before u->loaded are in the map. */
static int load_slice(struct obd_ix_upper *u)
{
	uint64_t sectors = 0;
	for (uint32_t n = 0; u->loaded < u->nload && n < SLICE_SEGMENTS && sectors < SLICE_SECTORS; n++) {
		const struct obd_lsmt_seg *seg = &u->load[u->loaded];
		bool zeroed = obd_lsmt_seg_zeroed(*seg);
		size_t k = zeroed ? zero_run(u->load, u->loaded, u->nload) : 1;
		uint64_t len = obd_lsmt_seg_end(seg[k - 1]) - obd_lsmt_seg_offset(*seg);
		int rc = obd_upmap_set(&u->map, obd_lsmt_seg_offset(*seg), len, zeroed ? OBD_UPMAP_ZERO : OBD_UPMAP_DATA,
				       obd_lsmt_seg_moffset(*seg));
		if (rc)
			return rc;
		u->loaded += k;
		sectors += len;
	}
	return 0;
}

static int no_room(struct obd_ix_upper *u)
{
	return obd_err_set(&u->err, ENOSPC, "index arena is full (sharedCache.indexMB = %llu)",
			   (unsigned long long)(u->ix->seg->geo.index_bytes >> 20));
}

static void cannot_open(struct obd_ix_upper *u, int rc)
{
	u->rc = rc;
	obd_ix_open_queue(u->open);
}

/* The files are open and the map has all of them. */
static void loaded(struct obd_ix_upper *u)
{
	free_load(u);
	if (u->state == OBD_IX_UPPER_OPENING) {
		u->state = OBD_IX_UPPER_OPENED;
		obd_ix_open_queue(u->open);
		return;
	}
	if (u->backoff_ns)
		obd_info("upper %s: open again", u->data_path);
	entry_of(u)->applied_bytes = u->index_end;
	u->stray = true; /* whoever died may have been in the middle of a write */
	u->attached = true;
	obd_ix_up_ready(u);
}

static void load_some(struct obd_ix_upper *u)
{
	if (load_slice(u)) {
		if (u->state == OBD_IX_UPPER_OPENING)
			cannot_open(u, no_room(u));
		else
			queue_late(u, BACKOFF_LAST_NS); /* another device may be closed */
	} else if (u->loaded < u->nload) {
		queue_work(u);
	} else {
		loaded(u);
	}
}

/* --- files -------------------------------------------------------------------------------------------------------------- */

/* Is a close of the same files under way in this process? */
static bool is_closing(const struct obd_ix_upper *u, uint64_t dev, uint64_t ino)
{
	for (uint32_t i = 0; i < OBD_UPPER_SLOTS; i++) {
		const struct obd_ix_upper *o = &u->ix->upper[i];
		if (o->state != OBD_IX_UPPER_CLOSING)
			continue;
		if ((o->dev == dev && o->ino == ino) || (o->files && strcmp(o->data_path, u->data_path) == 0))
			return true; /* one that is still being opened has no identity yet */
	}
	return false;
}

static void try_later(struct obd_ix_upper *u, int rc, const char *why)
{
	if (!u->backoff_ns)
		obd_error("upper %s: cannot be opened again, requests wait: %s", u->data_path, *why ? why : strerror(-rc));
	u->backoff_ns = u->backoff_ns ? obd_min_u64(2 * u->backoff_ns, BACKOFF_LAST_NS) : BACKOFF_FIRST_NS;
	queue_late(u, u->backoff_ns);
}

static void no_files(struct obd_ix_upper *u, const struct obd_ix_files *f)
{
	if (u->state == OBD_IX_UPPER_LIVE) {
		try_later(u, f->rc, f->err.msg);
	} else if (f->rc == -EBUSY && obd_clock_ns() < u->give_up_ns && is_closing(u, f->dev, f->ino)) {
		queue_late(u, LOCK_RETRY_NS);
	} else {
		u->err = f->err;
		cannot_open(u, f->rc);
	}
}

static void take_files(struct obd_ix_upper *u, struct obd_ix_files *f)
{
	u->data_fd = f->data_fd;
	u->direct_fd = f->direct_fd;
	u->index_fd = f->index_fd;
	f->data_fd = f->direct_fd = f->index_fd = -1;
	u->dev = f->dev;
	u->ino = f->ino;
	u->id = f->id;
	u->sparse = f->st.sparse;
	u->bytes = f->st.info.virtual_size;
	u->granule = f->granule;
	u->data_end = f->st.data_end;
	u->index_end = f->st.index_end;
	u->index_torn = false;
	memcpy(u->uuid, f->st.info.uuid, sizeof u->uuid);
	if (f->unsynced)
		u->unsynced = true;
	u->load = f->st.seg;
	u->nload = f->st.n;
	u->loaded = 0;
	f->st.seg = NULL;
}

static void files_done(struct obd_ix_task *task)
{
	struct obd_ix_files *f = OBD_CONTAINER_OF(task, struct obd_ix_files, task);
	struct obd_ix_upper *u = f->upper;
	u->files = NULL;
	if (!f->rc)
		take_files(u, f);
	if (u->state == OBD_IX_UPPER_CLOSING) {
		obd_ix_upper_settle(u);
	} else if (f->rc) {
		no_files(u, f);
	} else if (!u->has_map && obd_upmap_create(&u->map, u->bytes / OBD_SECTOR_BYTES)) {
		cannot_open(u, no_room(u));
	} else {
		u->has_map = true;
		queue_work(u);
	}
	obd_ix_files_free(f);
}

static int start_job(struct obd_ix_upper *u)
{
	struct obd_indexer *ix = u->ix;
	const struct obd_upper_entry *e = entry_of(u);
	int rc = ix->engine.started ? 0 : obd_ix_engine_start(&ix->engine, ix->engine_kind, &u->err);
	if (rc)
		return rc;
	struct obd_ix_files *f = obd_ix_files_new(u->data_path, u->index_path);
	if (!f)
		return obd_err_set(&u->err, ENOMEM, "out of memory");
	f->upper = u;
	f->note_dir = ix->config ? ix->config->runtime_dir : NULL;
	f->direct = ix->engine.kind == OBD_IX_LIBAIO;
	f->attach = u->state == OBD_IX_UPPER_LIVE;
	if (f->attach) {
		f->was_sparse = u->sparse;
		f->was_bytes = u->bytes;
		f->applied_bytes = e->applied_bytes;
		f->dev = u->dev;
		f->ino = u->ino;
	}
	f->task.done = files_done;
	u->files = f;
	obd_ix_engine_run(&ix->engine, &f->task);
	return 0;
}

static void start_files(struct obd_ix_upper *u)
{
	int rc = start_job(u);
	if (rc && u->state == OBD_IX_UPPER_LIVE)
		try_later(u, rc, u->err.msg);
	else if (rc)
		cannot_open(u, rc);
}

/* --- opening ------------------------------------------------------------------------------------------------------------ */

static struct obd_ix_upper *take_slot(struct obd_indexer *ix)
{
	for (uint32_t i = 0; i < OBD_UPPER_SLOTS; i++)
		if (ix->upper[i].state == OBD_IX_UPPER_FREE)
			return &ix->upper[i];
	return NULL;
}

static int take_names(struct obd_ix_upper *u, const char *data, const char *index, struct obd_err *err)
{
	if (strlen(data) >= OBD_PATH_BYTES || (index && strlen(index) >= OBD_PATH_BYTES))
		return obd_err_set(err, ENAMETOOLONG, "upper: a path is longer than %u bytes", OBD_PATH_BYTES - 1);
	u->data_path = strdup(data);
	u->index_path = index && *index ? strdup(index) : NULL;
	return u->data_path && (u->index_path || !index || !*index) ? 0 : obd_err_set(err, ENOMEM, "out of memory");
}

static int begin_open(struct obd_ix_open *o, struct obd_err *err)
{
	struct obd_indexer *ix = o->ix;
	struct obd_ix_upper *u = take_slot(ix);
	uint32_t uid = u ? obd_ix_new_uid(ix) : 0;
	if (!ix->seg->upread)
		return obd_err_set(err, EINVAL, "region upread was not granted");
	if (!uid)
		return obd_err_set(err, ENOSPC, "the table of writable devices is full (%u in use)", OBD_UPPER_SLOTS);
	int rc = take_names(u, o->cfg->upper_data, o->cfg->upper_index, err);
	if (rc) {
		reset(u);
		return rc;
	}
	u->uid = uid;
	u->state = OBD_IX_UPPER_OPENING;
	u->client = o->client;
	u->open_slot = o->slot;
	u->open = o;
	u->give_up_ns = obd_clock_ns() + LOCK_WAIT_NS;
	o->upper = u;
	start_files(u);
	return 0;
}

int obd_ix_upper_open(struct obd_ix_open *o, struct obd_err *err)
{
	int rc = o->upper ? 0 : begin_open(o, err);
	if (rc)
		return rc;
	if (o->upper->state == OBD_IX_UPPER_OPENED)
		return 0;
	if (o->upper->rc)
		*err = o->upper->err;
	return o->upper->rc ? o->upper->rc : -EINPROGRESS;
}

void obd_ix_upper_publish(struct obd_ix_open *o)
{
	struct obd_ix_upper *u = o->upper;
	struct obd_upper_entry *e = entry_of(u);
	u->image = o->image;
	u->open = NULL;
	u->state = OBD_IX_UPPER_LIVE;
	u->attached = true;
	e->virtual_bytes = u->bytes;
	e->root_off = u->map.map.root_off;
	e->root_words = u->map.map.root_words;
	e->applied_bytes = u->index_end;
	e->client = u->client;
	e->open_slot = u->open_slot;
	e->sparse = u->sparse;
	e->granule = u->granule;
	e->unsynced = u->unsynced;
	e->id = u->id;
	e->dev = u->dev;
	e->ino = u->ino;
	strncpy(e->data_path, u->data_path, sizeof e->data_path);
	strncpy(e->index_path, u->index_path ? u->index_path : "", sizeof e->index_path);
	OBD_TEST_POINT(upper_unpublished);
	obd_store_release(&e->word, obd_word(u->uid, OBD_UPPER_READY)); /* edge: upper-publish; the map too */
	OBD_TEST_POINT(upper_published);
}

/* --- closing ------------------------------------------------------------------------------------------------------------ */

/* Opens that wait for a lock look again. */
static void wake_openers(struct obd_indexer *ix)
{
	OBD_LIST_FOREACH (it, &ix->upper_late) {
		struct obd_ix_upper *u = OBD_LIST_ENTRY(it, struct obd_ix_upper, late);
		if (u->state == OBD_IX_UPPER_OPENING)
			u->retry_ns = 0;
	}
}

static void run_close(struct obd_ix_task *task)
{
	struct obd_ix_upper *u = OBD_CONTAINER_OF(task, struct obd_ix_upper, close_task);
	obd_ix_files_close(&u->data_fd, &u->direct_fd, &u->index_fd);
}

static void close_done(struct obd_ix_task *task)
{
	struct obd_ix_upper *u = OBD_CONTAINER_OF(task, struct obd_ix_upper, close_task);
	u->closing_files = false;
	wake_openers(u->ix);
	obd_ix_upper_settle(u);
}

void obd_ix_upper_settle(struct obd_ix_upper *u)
{
	if (u->state != OBD_IX_UPPER_CLOSING || u->running || u->files || u->closing_files)
		return;
	assert(obd_list_empty(&u->requests) && obd_list_empty(&u->recorded));
	if (u->data_fd >= 0) {
		u->closing_files = true;
		u->close_task.run = run_close;
		u->close_task.done = close_done;
		obd_ix_engine_run(&u->ix->engine, &u->close_task);
	} else if (u->has_map) {
		queue_work(u);
	} else {
		obd_list_remove(&u->work);
		reset(u);
	}
}

static void destroy_some(struct obd_ix_upper *u)
{
	u->has_map = !obd_upmap_destroy_some(&u->map, SLICE_LEAVES);
	if (u->has_map)
		queue_work(u);
	else
		obd_ix_upper_settle(u);
}

void obd_ix_upper_close(struct obd_ix_upper *u)
{
	assert(u->state != OBD_IX_UPPER_FREE && u->state != OBD_IX_UPPER_CLOSING);
	obd_store_release(&entry_of(u)->word, obd_word(u->uid, OBD_UPPER_FREE));
	obd_fence_release(); /* edge: image-seqlock. The map changes only after the word did */
	OBD_TEST_POINT(upper_freed);
	u->state = OBD_IX_UPPER_CLOSING;
	u->image = NULL;
	u->open = NULL;
	free_load(u);
	obd_list_remove(&u->work);
	obd_list_remove(&u->late);
	obd_ix_up_drop(u);
	obd_ix_upper_settle(u);
}

/* --- turns -------------------------------------------------------------------------------------------------------------- */

static void due(struct obd_ix_upper *u)
{
	obd_list_remove(&u->late);
	if (u->data_fd >= 0)
		queue_work(u);
	else
		start_files(u);
}

static bool begin_due(struct obd_indexer *ix)
{
	uint64_t now = obd_list_empty(&ix->upper_late) ? 0 : obd_clock_ns();
	bool did = false;
	OBD_LIST_FOREACH_SAFE (it, &ix->upper_late) {
		struct obd_ix_upper *u = OBD_LIST_ENTRY(it, struct obd_ix_upper, late);
		if (u->retry_ns > now)
			continue;
		due(u);
		did = true;
	}
	return did;
}

bool obd_ix_uppers_work(struct obd_indexer *ix)
{
	bool did = begin_due(ix);
	if (obd_list_empty(&ix->upper_work))
		return did;
	struct obd_ix_upper *u = OBD_LIST_ENTRY(ix->upper_work.next, struct obd_ix_upper, work);
	obd_list_remove(&u->work);
	if (u->state == OBD_IX_UPPER_CLOSING)
		destroy_some(u);
	else
		load_some(u);
	return true;
}

uint64_t obd_ix_uppers_deadline(const struct obd_indexer *ix)
{
	uint64_t first = 0;
	OBD_LIST_FOREACH (it, &ix->upper_late) {
		uint64_t at = obd_max_u64(OBD_LIST_ENTRY(it, struct obd_ix_upper, late)->retry_ns, 1);
		first = first ? obd_min_u64(first, at) : at;
	}
	return first;
}

void obd_ix_uppers_tick(struct obd_indexer *ix)
{
	uint64_t limit = (ix->config ? ix->config->read_timeout_sec : 0) * OBD_SECOND_NS;
	uint64_t now = obd_clock_ns();
	for (uint32_t i = 0; i < OBD_UPPER_SLOTS && limit; i++) {
		struct obd_ix_upper *u = &ix->upper[i];
		if (u->state != OBD_IX_UPPER_LIVE || u->attached)
			continue;
		OBD_LIST_FOREACH_SAFE (it, &u->ready) {
			struct obd_ix_up *up = OBD_LIST_ENTRY(it, struct obd_ix_up, queue);
			if (now < up->posted_ns || now - up->posted_ns < limit)
				continue;
			up->err = ETIMEDOUT;
			obd_ix_up_finish(up);
		}
	}
}

/* --- after a restart ---------------------------------------------------------------------------------------------------- */

struct visit {
	struct obd_ix_upper *u;
	int rc;
};

static void reserve_piece(void *arg, uint64_t off, uint64_t bytes)
{
	struct visit *v = arg;
	struct obd_indexer *ix = v->u->ix;
	int rc = off == v->u->map.map.root_off ? obd_arena_reserve(&ix->arena, off, bytes)
					       : obd_pages_mark(&ix->pages, off, bytes);
	if (!v->rc)
		v->rc = rc;
}

static bool is_sane(const struct obd_indexer *ix, const struct obd_upper_entry *e)
{
	uint64_t uid = obd_word_seq(obd_load_relaxed(&e->word));
	return uid && uid <= obd_load_relaxed(&ix->cat->next_uid) && e->client < OBD_MAX_CLIENTS &&
	       e->open_slot < OBD_OPEN_SLOTS && e->virtual_bytes && e->virtual_bytes % OBD_SECTOR_BYTES == 0 &&
	       obd_is_pow2(e->granule) && e->granule >= OBD_SECTOR_BYTES && e->granule <= OBD_UPPER_HOLE_MAX &&
	       memchr(e->data_path, 0, sizeof e->data_path) && memchr(e->index_path, 0, sizeof e->index_path);
}

int obd_ix_upper_adopt(struct obd_indexer *ix, uint32_t slot)
{
	const struct obd_upper_entry *e = &ix->cat->upper[slot];
	struct obd_ix_upper *u = &ix->upper[slot];
	uint64_t word = obd_load_relaxed(&e->word);
	struct visit v = {.u = u};
	struct obd_err err;
	if (obd_word_state(word) != OBD_UPPER_READY)
		return 0;
	if (!is_sane(ix, e))
		return -EPROTO;
	const struct obd_upmap map = {
		.root_off = e->root_off, .root_words = e->root_words, .sectors = e->virtual_bytes / OBD_SECTOR_BYTES};
	int rc = obd_upmap_adopt(&u->map, &map, reserve_piece, &v);
	if (rc || v.rc)
		return rc || v.rc != -ENOMEM ? -EPROTO : v.rc;
	if (take_names(u, e->data_path, e->index_path, &err))
		return -ENOMEM;
	u->has_map = true;
	u->uid = (uint32_t)obd_word_seq(word);
	u->state = OBD_IX_UPPER_ORPHAN;
	u->client = e->client;
	u->open_slot = e->open_slot;
	u->bytes = e->virtual_bytes;
	u->sparse = e->sparse;
	u->granule = e->granule;
	u->unsynced = e->unsynced;
	u->id = e->id;
	u->dev = e->dev;
	u->ino = e->ino;
	return 0;
}

struct obd_ix_upper *obd_ix_upper_attach(struct obd_ix_open *o, const struct obd_reply *r)
{
	struct obd_indexer *ix = o->ix;
	struct obd_ix_upper *u = r->upper_slot < OBD_UPPER_SLOTS ? &ix->upper[r->upper_slot] : NULL;
	if (!u || !r->upper_uid || u->uid != r->upper_uid || u->state != OBD_IX_UPPER_ORPHAN || u->client != o->client ||
	    u->open_slot != o->slot)
		return NULL;
	u->state = OBD_IX_UPPER_LIVE;
	u->image = o->image;
	start_files(u);
	return u;
}

void obd_ix_upper_sweep(struct obd_indexer *ix, uint32_t c)
{
	for (uint32_t i = 0; i < OBD_UPPER_SLOTS; i++)
		if (ix->upper[i].state == OBD_IX_UPPER_ORPHAN && ix->upper[i].client == c)
			obd_ix_upper_close(&ix->upper[i]);
}
