/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Layers: from "here is a blob" to "its index is checked".
 *
 *     FREE --get--> SOURCE --map_step--> MAPPED --index_step--> READY --drop--> FREE        (words in the catalog)
 *                   raw head and tail    LSMT trailer and index
 *                   in one go            through decoded blocks
 *
 * A step asks for the bytes it needs (bytes_at). When they are not there, a read is started and the step ends; it runs again
 * from its beginning when the reads are done. That costs some parsing twice and saves all state between.
 *
 * Who changes what: this process alone writes entries; the word is stored last when an entry gets more (release; edge:
 * layer-publish), and first when it is freed, so that a kill between leaves either the old state or a free entry. Fields do not
 * change while the word carries the uid, but for those that the next state adds.
 * If this process dies: READY entries are kept (adopt.c), others are freed, and the private copies of the layers' own indexes
 * are gone; they are read again through the cache when another image needs them.
 */
#include "indexer/internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/log.h"
#include "common/base/testpoint.h"
#include "common/format/tar.h"
#include "common/format/zfile.h"

#define FIRST_TAIL_BYTES 16384u
#define FIRST_FILE_BYTES 8192u
#define ZF_BLOCK_MIN 4096u /* what the segment's readers take */

struct obd_layer *obd_ix_layer_entry(const struct obd_ix_layer *l)
{
	return &l->ix->cat->layer[l->slot];
}

enum obd_layer_state obd_ix_layer_state(const struct obd_ix_layer *l)
{
	return (enum obd_layer_state)obd_word_state(obd_load_relaxed(&obd_ix_layer_entry(l)->word));
}

static void publish(struct obd_ix_layer *l, enum obd_layer_state state)
{
	OBD_TEST_POINT(layer_unpublished);
	obd_store_release(&obd_ix_layer_entry(l)->word, obd_word(l->uid, state)); /* edge: layer-publish */
}

const struct obd_ix_layer *obd_ix_layer_by_id(const struct obd_indexer *ix, uint32_t slot, uint32_t uid)
{
	if (slot >= OBD_LAYER_SLOTS || !uid || ix->layer[slot].uid != uid)
		return NULL;
	return &ix->layer[slot];
}

void obd_ix_layer_queue(struct obd_ix_layer *l)
{
	if (obd_list_empty(&l->work))
		obd_list_push_back(&l->ix->layer_work, &l->work);
}

/* --- the life of an entry ----------------------------------------------------------------------------------------------- */

static void fetches_free(struct obd_ix_layer *l)
{
	OBD_LIST_FOREACH_SAFE (it, &l->fetches)
		obd_ix_fetch_free(OBD_LIST_ENTRY(it, struct obd_ix_fetch, link));
}

static void unload(struct obd_ix_layer *l)
{
	l->ix->seg_bytes -= l->nseg * sizeof(l->seg[0]);
	free(l->seg);
	l->seg = NULL;
	l->nseg = 0;
	l->loaded = false;
}

void obd_ix_layer_drop(struct obd_ix_layer *l)
{
	assert(l->uid && !l->refs && obd_list_empty(&l->waiters));
	publish(l, OBD_LAYER_FREE);
	obd_fence_release(); /* the entry changes only after its word did */
	OBD_TEST_POINT(layer_freed);
	fetches_free(l);
	unload(l);
	obd_list_remove(&l->work);
	if (l->arena_bytes)
		obd_ix_room_release(l->ix, l->arena_off);
	l->arena_bytes = 0;
	free(l->origin);
	l->origin = NULL;
	l->stage = OBD_IX_IDLE;
	l->shared = false;
	l->uid = 0;
}

struct obd_ix_layer *obd_ix_layer_oldest(struct obd_indexer *ix)
{
	struct obd_ix_layer *oldest = NULL;
	for (uint32_t i = 0; i < OBD_LAYER_SLOTS; i++) {
		struct obd_ix_layer *l = &ix->layer[i];
		if (l->uid && !l->refs && (!oldest || l->used_at < oldest->used_at))
			oldest = l;
	}
	return oldest;
}

void obd_ix_layer_hold(struct obd_ix_layer *l)
{
	l->refs++;
	l->used_at = ++l->ix->now_used;
}

/* Whoever opens it next would start it anew all the same, so one that nobody holds is kept only when it is READY. */
void obd_ix_layer_put(struct obd_ix_layer *l)
{
	assert(l->refs);
	l->refs--;
	if (l->refs)
		return;
	if (obd_ix_layer_state(l) != OBD_LAYER_READY || !l->shared) {
		obd_ix_layer_drop(l);
	} else if (l->stage != OBD_IX_IDLE) { /* only its index was being read again */
		fetches_free(l);
		l->stage = OBD_IX_IDLE;
	}
}

void obd_ix_layer_trim(struct obd_indexer *ix)
{
	while (ix->seg_bytes > OBD_IX_SEG_BYTES_MAX) {
		struct obd_ix_layer *oldest = NULL;
		for (uint32_t i = 0; i < OBD_LAYER_SLOTS; i++) {
			struct obd_ix_layer *l = &ix->layer[i];
			if (l->uid && l->seg && obd_list_empty(&l->waiters) && (!oldest || l->used_at < oldest->used_at))
				oldest = l;
		}
		if (!oldest)
			return;
		unload(oldest);
	}
}

/* --- failure ------------------------------------------------------------------------------------------------------------ */

void obd_ix_layer_errno_text(const struct obd_ix_layer *l, int err, struct obd_err *out)
{
	const struct obd_layer *e = obd_ix_layer_entry(l);
	const char *where = e->local ? "its file" : e->host;
	switch (err) {
	case ENOENT:
		obd_err_set(out, err, "not found at %s", where);
		return;
	case EACCES:
		if (e->local)
			obd_err_set(out, err, "its file may not be read by fetchers (see layerDirs)");
		else
			obd_err_set(out, err, "authentication failed at %s", where);
		return;
	case ETIMEDOUT:
		obd_err_set(out, err, "timed out at %s", where);
		return;
	case EMSGSIZE:
		obd_err_set(out, err, "has another size at %s", where);
		return;
	case EBADMSG:
		obd_err_set(out, err, "corrupt data");
		return;
	case ENOTRECOVERABLE:
		obd_err_set(out, err, "fetchers died of it, so it is refused for a minute");
		return;
	case ESTALE:
		obd_err_set(out, err, "%s changed while it was read", where);
		return;
	case EAGAIN:
		obd_err_set(out, err, "metadata was evicted %u times before it was read; the cache is too small", OBD_IX_TRIES);
		return;
	default:
		obd_err_set(out, err, "%s: %s", where, strerror(err));
	}
}

/* Tells all opens that wait, then gives the entry up; one that is READY for images in use stays. err is negative. */
static void layer_fail(struct obd_ix_layer *l, int err, const char *text)
{
	fetches_free(l);
	l->stage = OBD_IX_IDLE;
	if (obd_ix_layer_state(l) != OBD_LAYER_READY)
		l->shared = false;
	l->refs++; /* ours, while the opens let go of theirs */
	while (!obd_list_empty(&l->waiters)) {
		struct obd_ix_wait *w = OBD_LIST_ENTRY(l->waiters.next, struct obd_ix_wait, link);
		obd_list_remove(&w->link);
		w->layer = NULL;
		l->refs--;
		obd_ix_open_layer_failed(w, l, -err, text);
	}
	obd_ix_layer_put(l);
}

static void layer_fail_errno(struct obd_ix_layer *l, int err)
{
	struct obd_err text = {{0}};
	obd_ix_layer_errno_text(l, err, &text);
	layer_fail(l, -err, text.msg);
}

static void wake_waiters(struct obd_ix_layer *l)
{
	OBD_LIST_FOREACH (it, &l->waiters)
		obd_ix_open_queue(OBD_LIST_ENTRY(it, struct obd_ix_wait, link)->open);
}

/* --- bytes -------------------------------------------------------------------------------------------------------------- */

/* [start, start + bytes) of blob or file, which the caller has checked to lie inside; NULL: on its way (or *rc negative). */
static const unsigned char *bytes_at(struct obd_ix_layer *l, bool raw, uint64_t start, uint64_t bytes, int *rc)
{
	*rc = 0;
	OBD_LIST_FOREACH (it, &l->fetches) {
		const struct obd_ix_fetch *f = OBD_LIST_ENTRY(it, struct obd_ix_fetch, link);
		if (f->raw != raw || start < f->start || start + bytes > f->end)
			continue;
		*rc = -f->err;
		return f->missing ? NULL : f->buf + (start - f->start);
	}
	struct obd_ix_fetch *f = obd_ix_fetch_start(l, raw, start, start + bytes);
	if (!f)
		*rc = -ENOMEM;
	else if (f->err)
		*rc = -f->err;
	else if (!f->missing)
		return f->buf;
	return NULL;
}

/* Head and tail in one go. The jump table is about 1/512 of the blob; before it stands the file's last block, with the trailer
 * and mostly all of the index, which then costs no round trip of its own. */
static int start_map(struct obd_ix_layer *l)
{
	const struct obd_layer *e = obd_ix_layer_entry(l);
	uint64_t blob = e->blob_bytes;
	uint32_t bb = l->ix->seg->geo.block_bytes;
	uint64_t chunks = (FIRST_TAIL_BYTES + blob / 256 + 2 * (uint64_t)bb - 1) / bb;
	uint64_t tail = obd_min_u64(chunks, OBD_IX_TAIL_CHUNKS) * bb;
	l->stage = OBD_IX_MAP;
	if (!obd_ix_fetch_start(l, true, 0, obd_min_u64(blob, OBD_RAW_HEAD_BYTES)))
		return -ENOMEM;
	if (blob <= OBD_RAW_HEAD_BYTES)
		return 0;
	uint64_t from = blob > tail ? obd_max_u64(blob - tail, OBD_RAW_HEAD_BYTES) : OBD_RAW_HEAD_BYTES;
	return obd_ix_fetch_start(l, true, from, blob) ? 0 : -ENOMEM;
}

/* --- SOURCE -> MAPPED --------------------------------------------------------------------------------------------------- */

/* Reads header and, where the header does not say all, trailer. 0, -EINPROGRESS, or a negative errno with a line. */
static int zfile_info(struct obd_ix_layer *l, const struct obd_tar_info *tar, const void *head, struct obd_zfile_info *info,
		      struct obd_err *err)
{
	uint64_t n = tar->payload_bytes;
	if (n < 2 * OBD_ZFILE_HEADER_BYTES)
		return obd_err_set(err, EINVAL, "zfile: length is %llu, at least 1024 expected", (unsigned long long)n);
	int rc = obd_zfile_parse_header(head, n, info, err);
	if (rc == OBD_ZFILE_NEED_TRAILER) {
		uint64_t at = tar->payload_offset + n - OBD_ZFILE_HEADER_BYTES;
		const void *trailer = bytes_at(l, true, at, OBD_ZFILE_HEADER_BYTES, &rc);
		if (!trailer)
			return rc ? rc : -EINPROGRESS;
		rc = obd_zfile_parse_trailer(trailer, n, info, err);
	}
	if (rc)
		return rc;
	if (info->block_bytes < ZF_BLOCK_MIN)
		return obd_err_set(err, ENOTSUP, "zfile: block_size is %u, at least %u expected", info->block_bytes,
				   ZF_BLOCK_MIN);
	if (info->nblocks >= UINT32_MAX)
		return obd_err_set(err, ENOTSUP, "zfile: index_size is %llu, too many blocks",
				   (unsigned long long)info->nblocks);
	return 0;
}

/* The extent is taken before the jump table is read, so that all tables on their way together are no larger than the arena. */
static int zfile_table(struct obd_ix_layer *l, const struct obd_tar_info *tar, const struct obd_zfile_info *info,
		       struct obd_err *err)
{
	uint64_t bytes = obd_zfile_index_bytes(info);
	int rc;
	if (!l->arena_bytes) {
		uint64_t want = obd_zfile_offsets_bytes(info->nblocks);
		rc = obd_ix_room(l->ix, want, &l->arena_off, err);
		if (rc)
			return rc;
		l->arena_bytes = want;
	}
	const void *table = "";
	if (bytes && !(table = bytes_at(l, true, tar->payload_offset + info->index_offset, bytes, &rc)))
		return rc ? rc : -EINPROGRESS;
	rc = obd_zfile_check_table(info, table, bytes, err);
	if (rc)
		return rc;
	obd_zfile_build_offsets(info, table, l->ix->seg->index + l->arena_off);
	return 0;
}

static void publish_mapped(struct obd_ix_layer *l, const struct obd_tar_info *tar, const struct obd_zfile_info *info)
{
	struct obd_layer *e = obd_ix_layer_entry(l);
	e->payload_offset = tar->payload_offset;
	e->payload_bytes = tar->payload_bytes;
	e->file_bytes = info ? info->original_bytes : tar->payload_bytes;
	e->zfile = info != NULL;
	e->zf_block_bytes = info ? info->block_bytes : 0;
	e->zf_algorithm = info ? info->algorithm : 0;
	e->zf_verify = info ? info->verify : 0;
	e->zf_dict_bytes = info ? info->dict_bytes : 0;
	e->zf_nblocks = info ? info->nblocks : 0;
	e->arena_off = l->arena_off;
	e->arena_bytes = l->arena_bytes;
	e->zf_base_off = l->arena_off;
	e->zf_delta_off = l->arena_off + (info ? (info->nblocks / 64 + 1) * sizeof(uint64_t) : 0);
	publish(l, OBD_LAYER_MAPPED);
}

/* Blocks are numbered in 31 bits, and a shorter file cannot be a layer. */
static int check_file_bytes(const struct obd_ix_layer *l, uint64_t file_bytes, struct obd_err *err)
{
	if (file_bytes < 2 * OBD_LSMT_HEADER_BYTES)
		return obd_err_set(err, EINVAL, "lsmt: file length is %llu, at least %u expected",
				   (unsigned long long)file_bytes, 2 * OBD_LSMT_HEADER_BYTES);
	if ((file_bytes - 1) / l->ix->seg->geo.block_bytes > OBD_KEY_MAX_BLOCK)
		return obd_err_set(err, EFBIG, "lsmt: file length is %llu, too long for the cache's block size",
				   (unsigned long long)file_bytes);
	return 0;
}

static int map_step(struct obd_ix_layer *l, struct obd_err *err)
{
	uint64_t blob = obd_ix_layer_entry(l)->blob_bytes;
	uint64_t head_bytes = obd_min_u64(blob, OBD_RAW_HEAD_BYTES);
	struct obd_tar_info tar;
	struct obd_zfile_info info;
	int rc;
	const unsigned char *head = bytes_at(l, true, 0, head_bytes, &rc);
	if (!head)
		return rc ? rc : -EINPROGRESS;
	rc = obd_tar_parse(head, head_bytes, blob, &tar, err);
	if (rc)
		return rc;
	if (tar.payload_bytes < OBD_ZFILE_HEADER_BYTES)
		return obd_err_set(err, EINVAL, "payload length is %llu, too short for a layer",
				   (unsigned long long)tar.payload_bytes);
	const unsigned char *payload = bytes_at(l, true, tar.payload_offset, OBD_ZFILE_HEADER_BYTES, &rc);
	if (!payload)
		return rc ? rc : -EINPROGRESS;
	bool zfile = obd_zfile_is_zfile(payload, OBD_ZFILE_HEADER_BYTES);
	if (zfile) {
		rc = zfile_info(l, &tar, payload, &info, err);
		if (!rc)
			rc = check_file_bytes(l, info.original_bytes, err);
		if (!rc)
			rc = zfile_table(l, &tar, &info, err);
	} else {
		rc = check_file_bytes(l, tar.payload_bytes, err);
	}
	if (rc)
		return rc;
	publish_mapped(l, &tar, zfile ? &info : NULL);
	return 0;
}

/* --- MAPPED -> READY ---------------------------------------------------------------------------------------------------- */

static void start_index(struct obd_ix_layer *l)
{
	fetches_free(l);
	l->stage = OBD_IX_INDEX;
}

static int index_step(struct obd_ix_layer *l, struct obd_err *err)
{
	struct obd_layer *e = obd_ix_layer_entry(l);
	struct obd_lsmt_info info;
	int rc;
	if (obd_list_empty(&l->fetches)) { /* the last block: what else the index needs is asked for when that is known */
		uint32_t bb = l->ix->seg->geo.block_bytes;
		uint64_t from = e->file_bytes > FIRST_FILE_BYTES ? e->file_bytes - FIRST_FILE_BYTES : 0;
		if (!obd_ix_fetch_start(l, false, obd_align_down(from, bb), e->file_bytes))
			return -ENOMEM;
	}
	const void *trailer = bytes_at(l, false, e->file_bytes - OBD_LSMT_HEADER_BYTES, OBD_LSMT_HEADER_BYTES, &rc);
	if (!trailer)
		return rc ? rc : -EINPROGRESS;
	rc = obd_lsmt_parse_trailer(trailer, e->file_bytes, &info, err);
	if (rc)
		return rc;
	uint64_t bytes = obd_lsmt_index_bytes(&info);
	const void *raw = "";
	if (bytes && !(raw = bytes_at(l, false, info.index_offset, bytes, &rc)))
		return rc ? rc : -EINPROGRESS;
	struct obd_lsmt_seg *seg = malloc(bytes ? bytes : 1);
	if (!seg)
		return -ENOMEM;
	size_t n = 0;
	rc = obd_lsmt_load_index(&info, raw, bytes, seg, &n, err);
	if (rc) {
		free(seg);
		return rc;
	}
	unload(l);
	struct obd_lsmt_seg *fit = n ? realloc(seg, n * sizeof(*seg)) : NULL; /* padding went */
	if (!n)
		free(seg);
	l->seg = fit ? fit : n ? seg : NULL;
	l->nseg = n;
	l->loaded = true;
	l->ix->seg_bytes += n * sizeof(*seg);
	if (obd_ix_layer_state(l) != OBD_LAYER_READY) {
		e->virtual_bytes = info.virtual_size;
		publish(l, OBD_LAYER_READY);
	}
	return 0;
}

void obd_ix_layer_load(struct obd_ix_layer *l)
{
	if (l->loaded || l->stage != OBD_IX_IDLE || obd_ix_layer_state(l) != OBD_LAYER_READY)
		return;
	start_index(l);
	obd_ix_layer_queue(l);
}

static bool reads_under_way(const struct obd_ix_layer *l, int *err)
{
	*err = 0;
	bool waiting = false;
	OBD_LIST_FOREACH (it, &l->fetches) {
		const struct obd_ix_fetch *f = OBD_LIST_ENTRY(it, struct obd_ix_fetch, link);
		if (f->err && !*err)
			*err = f->err;
		waiting |= !obd_ix_fetch_done(f);
	}
	return waiting;
}

/* A fault of the layer's bytes has a line; a failed read has only an errno. */
static void step_failed(struct obd_ix_layer *l, int rc, const struct obd_err *err)
{
	if (err->msg[0])
		layer_fail(l, rc, err->msg);
	else
		layer_fail_errno(l, -rc);
}

void obd_ix_layer_step(struct obd_ix_layer *l)
{
	struct obd_err err = {{0}};
	int failed;
	bool waiting = reads_under_way(l, &failed);
	if (l->stage == OBD_IX_IDLE)
		return;
	if (failed) {
		layer_fail_errno(l, failed);
		return;
	}
	if (waiting)
		return;
	int rc = 0;
	if (l->stage == OBD_IX_MAP) {
		rc = map_step(l, &err);
		if (!rc)
			start_index(l);
	}
	if (!rc)
		rc = index_step(l, &err);
	if (rc == -EINPROGRESS)
		return;
	if (rc) {
		step_failed(l, rc, &err);
		return;
	}
	fetches_free(l);
	l->stage = OBD_IX_IDLE;
	wake_waiters(l);
}

/* --- getting one -------------------------------------------------------------------------------------------------------- */

static bool same_file(const struct obd_layer *e, const struct obd_ix_source *src)
{
	return e->dev == src->dev && e->ino == src->ino && e->mtime_ns == src->mtime_ns && e->blob_bytes == src->blob_bytes;
}

/* Does the path by which the layer was opened still lead to it? Two names of one file share an entry, and a name may go. */
static bool path_still_good(const struct obd_layer *e)
{
	struct stat st;
	if (stat(e->path, &st))
		return false;
	struct obd_ix_source now = {.dev = (uint64_t)st.st_dev,
				    .ino = (uint64_t)st.st_ino,
				    .mtime_ns = (int64_t)st.st_mtim.tv_sec * INT64_C(1000000000) + st.st_mtim.tv_nsec,
				    .blob_bytes = (uint64_t)st.st_size};
	return same_file(e, &now);
}

/* No open finds it any more; it goes when nobody holds it. */
static void make_private(struct obd_ix_layer *l)
{
	l->shared = false;
	if (!l->refs)
		obd_ix_layer_drop(l);
}

static struct obd_ix_layer *find_file(struct obd_indexer *ix, const struct obd_ix_source *src)
{
	struct obd_ix_layer *found = NULL;
	for (uint32_t i = 0; i < OBD_LAYER_SLOTS; i++) {
		struct obd_ix_layer *l = &ix->layer[i];
		const struct obd_layer *e = &ix->cat->layer[i];
		if (!l->uid || !l->shared || !e->local)
			continue;
		bool same_path = strcmp(e->path, src->path) == 0;
		if (same_file(e, src) && (same_path || path_still_good(e)))
			found = l;
		else if (same_file(e, src) || same_path)
			make_private(l);
	}
	return found;
}

/* The size is part of what must agree: a configuration with a wrong size fails by itself, not for others. */
static struct obd_ix_layer *find_blob(struct obd_indexer *ix, const struct obd_ix_source *src)
{
	for (uint32_t i = 0; i < OBD_LAYER_SLOTS; i++) {
		struct obd_ix_layer *l = &ix->layer[i];
		const struct obd_layer *e = &ix->cat->layer[i];
		if (l->uid && l->shared && !e->local && e->blob_bytes == src->blob_bytes &&
		    strcmp(e->digest, src->digest) == 0 && strcmp(l->origin, src->repo->origin) == 0)
			return l;
	}
	return NULL;
}

static struct obd_ix_layer *free_slot(struct obd_indexer *ix)
{
	for (uint32_t i = 0; i < OBD_LAYER_SLOTS; i++)
		if (!ix->layer[i].uid)
			return &ix->layer[i];
	return NULL;
}

static struct obd_ix_layer *take_slot(struct obd_indexer *ix)
{
	struct obd_ix_layer *l;
	while (!(l = free_slot(ix)))
		if (!obd_ix_drop_oldest(ix))
			return NULL;
	return l;
}

static uint64_t hash_text(const char *text)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325);
	for (; *text; text++)
		h = (h ^ (unsigned char)*text) * UINT64_C(0x100000001b3);
	return h | 1; /* 0 is for files */
}

static void copy_text(char *dst, size_t room, const char *text)
{
	size_t n = strlen(text);
	assert(n < room);
	memcpy(dst, text, n + 1);
}

/* The entry is FREE, so nobody reads it. */
static void fill_entry(struct obd_layer *e, const struct obd_ix_source *src)
{
	memset((char *)e + sizeof(e->word), 0, sizeof(*e) - sizeof(e->word));
	e->blob_bytes = src->blob_bytes;
	if (src->path) {
		e->local = 1;
		e->dev = src->dev;
		e->ino = src->ino;
		e->mtime_ns = src->mtime_ns;
		copy_text(e->path, sizeof e->path, src->path);
		return;
	}
	e->host_hash = hash_text(src->repo->origin);
	e->distrust = src->distrust;
	copy_text(e->host, sizeof e->host, src->repo->registry);
	copy_text(e->url, sizeof e->url, src->url);
	copy_text(e->digest, sizeof e->digest, src->digest);
}

static int check_source(const struct obd_indexer *ix, const struct obd_ix_source *src, struct obd_err *err)
{
	if (!src->blob_bytes)
		return obd_err_set(err, EINVAL, "its length is 0");
	if (src->blob_bytes > INT64_MAX || src->blob_bytes / ix->seg->geo.block_bytes >= OBD_KEY_MAX_BLOCK)
		return obd_err_set(err, EFBIG, "its length %llu is too long for the cache's block size",
				   (unsigned long long)src->blob_bytes);
	if (src->path && strlen(src->path) >= OBD_PATH_BYTES)
		return obd_err_set(err, ENAMETOOLONG, "its path is longer than %u bytes", OBD_PATH_BYTES - 1);
	if (!src->path && (strlen(src->url) >= OBD_URL_BYTES || strlen(src->digest) >= OBD_DIGEST_BYTES ||
			   strlen(src->repo->registry) >= OBD_HOST_BYTES))
		return obd_err_set(err, EINVAL, "its address is too long");
	return 0;
}

static int layer_new(struct obd_indexer *ix, const struct obd_ix_source *src, struct obd_ix_layer **out, struct obd_err *err)
{
	struct obd_ix_layer *l = take_slot(ix);
	if (!l)
		return obd_err_set(err, ENOSPC, "the layer table is full (%u layers in use)", OBD_LAYER_SLOTS);
	char *origin = src->path ? NULL : strdup(src->repo->origin);
	if (!src->path && !origin)
		return obd_err_set(err, ENOMEM, "out of memory");
	uint32_t uid = obd_ix_new_uid(ix);
	if (!uid) {
		free(origin);
		return obd_err_set(err, ENOSPC, "the segment has no more layer numbers: restart the service");
	}
	l->uid = uid;
	l->origin = origin;
	fill_entry(obd_ix_layer_entry(l), src);
	publish(l, OBD_LAYER_SOURCE);
	*out = l;
	return 0;
}

int obd_ix_layer_get(struct obd_indexer *ix, const struct obd_ix_source *src, bool shared, struct obd_ix_layer **out,
		     bool *fresh, struct obd_err *err)
{
	int rc = check_source(ix, src, err);
	if (rc)
		return rc;
	struct obd_ix_layer *l = NULL;
	if (shared)
		l = src->path ? find_file(ix, src) : find_blob(ix, src);
	if (!l) {
		rc = layer_new(ix, src, &l, err);
		if (rc)
			return rc;
		l->shared = shared;
		if (shared) {
			rc = start_map(l);
			obd_ix_layer_queue(l);
		}
		if (rc) {
			obd_ix_layer_drop(l);
			return obd_err_set(err, -rc, "out of memory");
		}
	}
	const struct obd_layer *e = obd_ix_layer_entry(l);
	*fresh = obd_ix_layer_state(l) != OBD_LAYER_READY && (e->local || strcmp(e->url, src->url) == 0);
	*out = l;
	return 0;
}
