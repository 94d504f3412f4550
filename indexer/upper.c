/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The files of writable devices and their catalog entries.
 *
 *     open     files, flock, repair, map in the arena           entry FREE: nobody sees it
 *     publish  fields, then word (edge: upper-publish)          entry READY; then the open is replied
 *     close    word FREE; the engine ends what it has; map, files, lock
 *
 * If this process dies: a READY entry names a map that is whole, and what it does not have yet stands in the index file behind
 * applied_bytes. The next incarnation reserves the map's pieces before it gives out any, and opens the files again when it sees
 * the open that they belong to. The lock died with the process.
 */
#include "indexer/upper.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/log.h"
#include "common/format/upper.h"
#include "indexer/internal.h"

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

static void reset(struct obd_ix_upper *u)
{
	u->uid = 0;
	u->state = OBD_IX_UPPER_FREE;
	u->broken = false;
	u->sparse = false;
	u->granule = OBD_SECTOR_BYTES;
	u->data_fd = u->direct_fd = u->index_fd = -1;
	u->image = NULL;
	u->has_map = false;
	u->index_torn = false;
	u->unsynced = false;
	u->running = 0;
	u->map = (struct obd_upmap_writer){.seg = u->ix->seg, .arena = {.alloc = map_alloc, .free = map_free, .arg = u}};
}

int obd_ix_upper_init(struct obd_indexer *ix)
{
	const struct obd_pages_source source = {.get = chunk_get, .take = chunk_take, .put = chunk_put, .arg = ix};
	for (uint32_t i = 0; i < OBD_UPPER_SLOTS; i++) {
		struct obd_ix_upper *u = &ix->upper[i];
		u->ix = ix;
		u->slot = i;
		obd_list_init(&u->requests);
		obd_list_init(&u->recorded);
		obd_list_init(&u->gates);
		obd_list_init(&u->alone);
		obd_list_init(&u->joint);
		pthread_mutex_init(&u->record_lock, NULL);
		pthread_mutex_init(&u->order_lock, NULL);
		reset(u);
	}
	return obd_pages_init(&ix->pages, ix->seg->geo.index_bytes, &source);
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void close_files(struct obd_ix_upper *u)
{
	close_fd(&u->index_fd);
	close_fd(&u->direct_fd);
	close_fd(&u->data_fd); /* and with it the lock */
}

static void release(struct obd_ix_upper *u)
{
	assert(obd_list_empty(&u->requests) && obd_list_empty(&u->recorded));
	close_files(u);
	if (u->has_map)
		obd_upmap_destroy(&u->map);
	reset(u);
}

void obd_ix_upper_free_all(struct obd_indexer *ix)
{
	for (uint32_t i = 0; i < OBD_UPPER_SLOTS; i++) {
		struct obd_ix_upper *u = &ix->upper[i];
		OBD_LIST_FOREACH_SAFE (it, &u->recorded) {
			struct obd_ix_up *up = OBD_LIST_ENTRY(it, struct obd_ix_up, order);
			if (up->stage == OBD_IX_UP_OVER)
				obd_ix_up_free(up);
		}
		OBD_LIST_FOREACH_SAFE (it, &u->requests)
			obd_ix_up_free(OBD_LIST_ENTRY(it, struct obd_ix_up, link));
		close_files(u);
		pthread_mutex_destroy(&u->record_lock);
		pthread_mutex_destroy(&u->order_lock);
	}
	obd_pages_done(&ix->pages);
}

/* --- files -------------------------------------------------------------------------------------------------------------- */

static int open_file(const char *path, int *fd, struct obd_err *err)
{
	struct stat st;
	*fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (*fd < 0)
		return obd_err_set(err, errno, "upper %s: %s", path, strerror(errno));
	if (fstat(*fd, &st) < 0)
		return obd_err_set(err, errno, "upper %s: %s", path, strerror(errno));
	return S_ISREG(st.st_mode) ? 0 : obd_err_set(err, EINVAL, "upper %s: not a regular file", path);
}

static int lock_file(int fd, const char *path, struct obd_err *err)
{
	if (flock(fd, LOCK_EX | LOCK_NB) == 0)
		return 0;
	if (errno == EWOULDBLOCK)
		return obd_err_set(err, EBUSY, "upper %s is in use by another device", path);
	return obd_err_set(err, errno, "upper %s: lock: %s", path, strerror(errno));
}

static struct obd_file *borrow(int fd, struct obd_err *err)
{
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (copy < 0) {
		obd_err_set(err, errno, "%s", strerror(errno));
		return NULL;
	}
	struct obd_file *f = obd_file_open_fd(copy, err);
	if (!f)
		close(copy);
	return f;
}

static int load_state(struct obd_ix_upper *u, struct obd_upper_state *st, struct obd_err *err)
{
	struct obd_file *data = borrow(u->data_fd, err);
	struct obd_file *index = data && u->index_fd >= 0 ? borrow(u->index_fd, err) : NULL;
	int rc = data && (index || u->index_fd < 0) ? 0 : -EIO;
	if (!rc)
		rc = obd_upper_load(data, u->data_fd, index, st, err);
	if (!rc && !st->sparse)
		rc = obd_upper_repair(u->data_fd, u->index_fd, st, err);
	obd_file_close(index);
	obd_file_close(data);
	return rc;
}

static void note_geometry(struct obd_ix_upper *u, const struct obd_upper_state *st, const char *path)
{
	struct stat s = {.st_dev = 0};
	(void)fstat(u->data_fd, &s);
	u->id = obd_ix_upper_id(&st->info, s.st_dev, s.st_ino);
	u->sparse = st->sparse;
	u->bytes = st->info.virtual_size;
	u->data_end = st->data_end;
	u->index_end = st->index_end;
	u->index_torn = false;
	u->granule = OBD_SECTOR_BYTES;
	if (u->sparse && s.st_blksize > OBD_SECTOR_BYTES && s.st_blksize <= 1 << 20 && obd_is_pow2((uint64_t)s.st_blksize))
		u->granule = (uint32_t)s.st_blksize;
	if (u->ix->engine.kind == OBD_IX_LIBAIO)
		u->direct_fd = open(path, O_RDWR | O_CLOEXEC | O_DIRECT); /* without it everything goes by the threads */
}

/* Opens what cfg names. On success st is the caller's to free; on failure nothing is open. */
static int open_files(struct obd_ix_upper *u, const struct obd_image_config *cfg, struct obd_upper_state *st,
		      struct obd_err *err)
{
	*st = (struct obd_upper_state){0};
	int rc = open_file(cfg->upper_data, &u->data_fd, err);
	if (!rc)
		rc = lock_file(u->data_fd, cfg->upper_data, err);
	if (!rc && cfg->upper_index)
		rc = open_file(cfg->upper_index, &u->index_fd, err);
	if (!rc)
		rc = obd_err_prefix(err, load_state(u, st, err), "upper %s", cfg->upper_data);
	if (rc) {
		free(st->seg);
		st->seg = NULL;
		close_files(u);
		return rc;
	}
	note_geometry(u, st, cfg->upper_data);
	return 0;
}

/* How many of the segments from i on are zeros without a gap: as one range they need no leaves at the seams. */
static size_t zero_run(const struct obd_lsmt_seg *seg, size_t i, size_t n)
{
	size_t k = i + 1;
	while (k < n && obd_lsmt_seg_zeroed(seg[k]) && obd_lsmt_seg_offset(seg[k]) == obd_lsmt_seg_end(seg[k - 1]))
		k++;
	return k - i;
}

static int map_put(struct obd_ix_upper *u, const struct obd_lsmt_seg *seg, size_t n)
{
	int rc = 0;
	for (size_t i = 0, k; i < n && !rc; i += k) {
		bool zeroed = obd_lsmt_seg_zeroed(seg[i]);
		k = zeroed ? zero_run(seg, i, n) : 1;
		rc = obd_upmap_set(&u->map, obd_lsmt_seg_offset(seg[i]),
				   obd_lsmt_seg_end(seg[i + k - 1]) - obd_lsmt_seg_offset(seg[i]),
				   zeroed ? OBD_UPMAP_ZERO : OBD_UPMAP_DATA, obd_lsmt_seg_moffset(seg[i]));
	}
	return rc;
}

/* --- opening ------------------------------------------------------------------------------------------------------------ */

static struct obd_ix_upper *take_slot(struct obd_indexer *ix)
{
	for (uint32_t i = 0; i < OBD_UPPER_SLOTS; i++)
		if (ix->upper[i].state == OBD_IX_UPPER_FREE)
			return &ix->upper[i];
	return NULL;
}

static bool any_closing(const struct obd_indexer *ix)
{
	for (uint32_t i = 0; i < OBD_UPPER_SLOTS; i++)
		if (ix->upper[i].state == OBD_IX_UPPER_CLOSING)
			return true;
	return false;
}

static int make_map(struct obd_ix_upper *u, const struct obd_upper_state *st, struct obd_err *err)
{
	int rc = obd_upmap_create(&u->map, u->bytes / OBD_SECTOR_BYTES);
	u->has_map = rc == 0;
	if (!rc)
		rc = map_put(u, st->seg, st->n);
	return rc ? obd_err_set(err, ENOSPC, "index arena is full (sharedCache.indexMB = %llu)",
				(unsigned long long)(u->ix->seg->geo.index_bytes >> 20))
		  : 0;
}

int obd_ix_upper_open(struct obd_ix_open *o, struct obd_err *err)
{
	struct obd_upper_state st;
	struct obd_indexer *ix = o->ix;
	struct obd_ix_upper *u = take_slot(ix);
	uint32_t uid = u ? obd_ix_new_uid(ix) : 0;
	if (!ix->seg->upread)
		return obd_err_set(err, EINVAL, "region upread was not granted");
	if (!uid)
		return obd_err_set(err, ENOSPC, "the table of writable devices is full (%u in use)", OBD_UPPER_SLOTS);
	int rc = ix->engine.started ? 0 : obd_ix_engine_start(&ix->engine, ix->engine_kind, err);
	if (!rc)
		rc = open_files(u, o->cfg, &st, err);
	if (rc == -EBUSY && any_closing(ix)) {
		reset(u);
		return -EINPROGRESS;
	}
	if (rc) {
		reset(u);
		return rc;
	}
	rc = make_map(u, &st, err);
	free(st.seg);
	if (rc) {
		release(u);
		return rc;
	}
	u->uid = uid;
	u->state = OBD_IX_UPPER_OPENING;
	u->client = o->client;
	u->open_slot = o->slot;
	o->upper = u;
	return 0;
}

void obd_ix_upper_publish(struct obd_ix_open *o)
{
	struct obd_ix_upper *u = o->upper;
	struct obd_upper_entry *e = entry_of(u);
	u->image = o->image;
	u->state = OBD_IX_UPPER_LIVE;
	e->virtual_bytes = u->bytes;
	e->root_off = u->map.map.root_off;
	e->root_words = u->map.map.root_words;
	e->applied_bytes = u->index_end;
	e->client = u->client;
	e->open_slot = u->open_slot;
	e->sparse = u->sparse;
	struct stat s = {.st_dev = 0};
	(void)fstat(u->data_fd, &s);
	e->dev = s.st_dev;
	e->ino = s.st_ino;
	obd_store_release(&e->word, obd_word(u->uid, OBD_UPPER_READY)); /* edge: upper-publish; the map too */
}

/* --- closing ------------------------------------------------------------------------------------------------------------ */

static void wake_opens(struct obd_indexer *ix)
{
	for (uint32_t c = 1; c < OBD_MAX_CLIENTS; c++)
		for (uint32_t s = 0; ix->client[c].up && s < OBD_OPEN_SLOTS; s++) {
			struct obd_ix_open *o = ix->client[c].open[s];
			if (o && !o->finished && o->cfg && o->cfg->upper_data && !o->upper)
				obd_ix_open_queue(o);
		}
}

void obd_ix_upper_settle(struct obd_ix_upper *u)
{
	if (u->state != OBD_IX_UPPER_CLOSING || u->running)
		return;
	release(u);
	wake_opens(u->ix);
}

void obd_ix_upper_close(struct obd_ix_upper *u)
{
	assert(u->state != OBD_IX_UPPER_FREE && u->state != OBD_IX_UPPER_CLOSING);
	obd_store_release(&entry_of(u)->word, obd_word(u->uid, OBD_UPPER_FREE));
	obd_fence_release(); /* edge: image-seqlock. The map changes only after the word did */
	u->state = OBD_IX_UPPER_CLOSING;
	u->image = NULL;
	obd_ix_up_drop(u);
	obd_ix_upper_settle(u);
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

int obd_ix_upper_adopt(struct obd_indexer *ix, uint32_t slot)
{
	const struct obd_upper_entry *e = &ix->cat->upper[slot];
	struct obd_ix_upper *u = &ix->upper[slot];
	uint64_t word = obd_load_relaxed(&e->word), uid = obd_word_seq(word);
	struct visit v = {.u = u};
	if (obd_word_state(word) != OBD_UPPER_READY)
		return 0;
	if (!uid || uid > obd_load_relaxed(&ix->cat->next_uid) || e->client >= OBD_MAX_CLIENTS ||
	    e->open_slot >= OBD_OPEN_SLOTS || !e->virtual_bytes || e->virtual_bytes % OBD_SECTOR_BYTES)
		return -EPROTO;
	const struct obd_upmap map = {
		.root_off = e->root_off, .root_words = e->root_words, .sectors = e->virtual_bytes / OBD_SECTOR_BYTES};
	int rc = obd_upmap_adopt(&u->map, &map, reserve_piece, &v);
	if (rc || v.rc)
		return rc || v.rc != -ENOMEM ? -EPROTO : v.rc;
	u->has_map = true;
	u->uid = (uint32_t)uid;
	u->state = OBD_IX_UPPER_ORPHAN;
	u->client = e->client;
	u->open_slot = e->open_slot;
	u->bytes = e->virtual_bytes;
	u->sparse = e->sparse;
	return 0;
}

/* What the index file has behind applied_bytes goes into the map, as one set: each word goes to its last value at once. */
static int apply_tail(struct obd_ix_upper *u, const struct obd_upper_state *st, struct obd_err *err)
{
	struct obd_upper_entry *e = entry_of(u);
	uint64_t from = e->applied_bytes;
	struct obd_lsmt_seg *seg = NULL;
	size_t n = 0;
	if (u->sparse)
		return 0;
	if (from < OBD_LSMT_HEADER_BYTES || from > st->index_end)
		return obd_err_set(err, EINVAL, "index file: it became shorter");
	uint64_t bytes = st->index_end - from;
	void *raw = malloc(bytes ? bytes : 1);
	if (!raw)
		return obd_err_set(err, ENOMEM, "out of memory");
	int rc = -obd_ix_io_now(u->index_fd, false, raw, bytes, from);
	if (rc)
		obd_err_set(err, -rc, "index file: %s", strerror(-rc));
	else
		rc = obd_lsmt_load_append_index(&st->info, raw, bytes, st->data_end, &seg, &n, err);
	if (!rc && map_put(u, seg, n))
		rc = obd_err_set(err, ENOSPC, "index arena is full");
	if (!rc)
		e->applied_bytes = st->index_end;
	free(seg);
	free(raw);
	return rc;
}

static int reopen(struct obd_ix_upper *u, const struct obd_image_config *cfg, struct obd_err *err)
{
	struct obd_upper_state st;
	uint64_t bytes = u->bytes;
	bool sparse = u->sparse;
	int rc = open_files(u, cfg, &st, err);
	if (rc)
		return rc;
	struct stat s = {.st_dev = 0};
	(void)fstat(u->data_fd, &s);
	if (u->bytes != bytes || u->sparse != sparse || s.st_dev != entry_of(u)->dev || s.st_ino != entry_of(u)->ino)
		rc = obd_err_set(err, EINVAL, "upper %s: it is another one than before", cfg->upper_data);
	else
		rc = apply_tail(u, &st, err);
	free(st.seg);
	u->bytes = bytes;
	u->sparse = sparse;
	return rc;
}

struct obd_ix_upper *obd_ix_upper_attach(struct obd_ix_open *o, const struct obd_reply *r)
{
	struct obd_indexer *ix = o->ix;
	struct obd_ix_upper *u = r->upper_slot < OBD_UPPER_SLOTS ? &ix->upper[r->upper_slot] : NULL;
	struct obd_image_config *cfg = NULL;
	struct obd_err err = {{0}};
	if (!u || !r->upper_uid || u->uid != r->upper_uid || u->state != OBD_IX_UPPER_ORPHAN || u->client != o->client ||
	    u->open_slot != o->slot)
		return NULL;
	int rc = ix->engine.started ? 0 : obd_ix_engine_start(&ix->engine, ix->engine_kind, &err);
	if (!rc)
		rc = obd_image_config_load(o->path, &cfg, &err);
	if (!rc && !cfg->upper_data)
		rc = obd_err_set(&err, EINVAL, "the configuration names no upper any more");
	if (!rc)
		rc = reopen(u, cfg, &err);
	obd_image_config_free(cfg);
	u->broken = rc != 0;
	if (rc)
		obd_error("%s: the device fails from now on: %s", o->path, err.msg[0] ? err.msg : strerror(-rc));
	u->state = OBD_IX_UPPER_LIVE;
	u->image = o->image;
	return u;
}

void obd_ix_upper_sweep(struct obd_indexer *ix, uint32_t c)
{
	for (uint32_t i = 0; i < OBD_UPPER_SLOTS; i++)
		if (ix->upper[i].state == OBD_IX_UPPER_ORPHAN && ix->upper[i].client == c)
			obd_ix_upper_close(&ix->upper[i]);
}
