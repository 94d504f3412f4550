/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "indexer/prefetch.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/format/merge.h"
#include "common/format/trace.h"
#include "indexer/fsmeta.h"
#include "indexer/internal.h"
#include "shmcache/lookup.h"

#define TRACE_SHARE 4u /* of the cache, that one launch may have fetched ahead */
#define META_SHARE 8u
#define META_NS (60 * OBD_SECOND_NS)
#define PARSED_MAX 64u	      /* ranges of metadata under way */
#define LOOKED_PER_KEY 16u    /* how often a hostile source may name what was named already */
#define LOOKED_PER_PUMP 4096u /* blocks looked up before others get their turn */

/* A range of metadata that is to be given to the parser. */
struct parsed {
	struct obd_list link;
	struct obd_fsmeta_want want;
	uint64_t have; /* bytes copied */
	unsigned char bytes[];
};

struct obd_ix_prefetch {
	struct obd_list link; /* in ix->prefetches */
	struct obd_ix_open *open;
	struct obd_list posts;
	uint32_t in_flight; /* posts */
	struct obd_ix_keys keys;
	size_t next;   /* the next key to ask for */
	size_t *again; /* places before it of which more is wanted by now */
	size_t nagain, again_room;
	size_t most;	/* keys */
	uint64_t looks; /* how many more times a block may be named */
	uint64_t begun_ns;
	uint64_t asked, skipped;
	bool meta; /* else a trace */
	struct obd_fsmeta fs;
	struct obd_list parsed;
	uint32_t nparsed;
};

/* --- what the configuration says ---------------------------------------------------------------------------------------- */

/* The whole of a trace file. 0: there, 1: there is none, 2: it is empty; else a negative errno with a line. */
static int load(const char *path, unsigned char **out, uint64_t *len, struct obd_err *err)
{
	struct stat st;
	unsigned char *buf = NULL;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return errno == ENOENT || errno == ENOTDIR ? 1 : obd_err_set(err, errno, "%s", strerror(errno));
	int rc = fstat(fd, &st) ? obd_err_set(err, errno, "%s", strerror(errno)) : 0;
	if (!rc && !S_ISREG(st.st_mode))
		rc = obd_err_set(err, EINVAL, "not a regular file");
	if (!rc && st.st_size > (off_t)OBD_TRACE_FILE_MAX)
		rc = obd_err_set(err, EFBIG, "trace: length is %lld, %llu at most", (long long)st.st_size,
				 (unsigned long long)OBD_TRACE_FILE_MAX);
	if (!rc && st.st_size == 0)
		rc = 2;
	if (!rc && !(buf = malloc((size_t)st.st_size)))
		rc = obd_err_set(err, ENOMEM, "out of memory");
	if (!rc && pread(fd, buf, (size_t)st.st_size, 0) != st.st_size)
		rc = obd_err_set(err, EIO, "cannot be read");
	close(fd);
	if (rc) {
		free(buf);
		return rc;
	}
	*out = buf;
	*len = (uint64_t)st.st_size;
	return 0;
}

/* What there is to replay; a trace that is empty may be recorded. */
static void look_at_trace(struct obd_ix_open *o, const char *path, bool may_record)
{
	struct obd_err err = {{0}};
	uint64_t len = 0;
	int rc = load(path, &o->trace, &len, &err);
	if (!rc)
		rc = obd_trace_check(o->trace, len, &o->trace_records, &err);
	if (rc < 0) {
		obd_warn("%s: the trace %s is not used: %s", o->path, path, err.msg);
		free(o->trace);
		o->trace = NULL;
	} else if (rc == 2 && may_record) {
		o->record_to = strdup(path);
	} else if (rc == 1) {
		obd_info("%s: there is no trace %s", o->path, path);
	}
}

/* The acceleration layer holds the trace of the layers below, not data: an image converter unpacks it into the layer's dir. */
static void acceleration_layer(struct obd_ix_open *o, const struct obd_image_lower *top)
{
	char path[OBD_PATH_BYTES + 8];
	if (!top->dir) {
		obd_info("%s: the acceleration layer has no dir, so there is no trace", o->path);
		return;
	}
	snprintf(path, sizeof path, "%s/trace", top->dir);
	look_at_trace(o, path, false);
}

int obd_ix_prefetch_plan(struct obd_ix_open *o, uint32_t *nlowers, struct obd_err *err)
{
	const struct obd_image_config *cfg = o->cfg;
	*nlowers = cfg->lower_count;
	if (cfg->acceleration_layer && cfg->record_trace_path)
		return obd_err_set(err, EINVAL, "recordTracePath: an image with an acceleration layer cannot be recorded");
	if (cfg->acceleration_layer && *nlowers) {
		--*nlowers;
		acceleration_layer(o, &cfg->lowers[*nlowers]);
	} else if (cfg->record_trace_path) {
		look_at_trace(o, cfg->record_trace_path, true);
	}
	return 0;
}

/* --- keys --------------------------------------------------------------------------------------------------------------- */

static const struct obd_image *image_of(const struct obd_ix_prefetch *p)
{
	return obd_ix_image_entry(p->open->ix, p->open->image);
}

static uint32_t block_bytes(const struct obd_ix_prefetch *p)
{
	return p->open->ix->seg->geo.block_bytes;
}

static bool note_again(struct obd_ix_prefetch *p, size_t at)
{
	if (p->nagain == p->again_room) {
		size_t room = p->again_room ? 2 * p->again_room : 64;
		size_t *more = realloc(p->again, room * sizeof *more);
		if (!more)
			return false;
		p->again = more;
		p->again_room = room;
	}
	p->again[p->nagain++] = at;
	return true;
}

/* Names part of a block of a layer. False: that is all there may be. */
static bool name_part(struct obd_ix_prefetch *p, uint32_t layer, uint64_t block, struct obd_part part)
{
	size_t at = 0;
	if (!p->looks)
		return false;
	p->looks--;
	switch (obd_ix_keys_add(&p->keys, obd_ix_key(layer, block), part, block_bytes(p), p->most, &at)) {
	case OBD_IX_KEYS_FULL:
		return false;
	case OBD_IX_KEYS_GREW:
		return at >= p->next || note_again(p, at);
	default:
		return true;
	}
}

/* Is there something to ask for? */
static bool pending(const struct obd_ix_prefetch *p)
{
	return p->next < p->keys.count || p->nagain;
}

static void name_trace(struct obd_ix_prefetch *p)
{
	const struct obd_image *e = image_of(p);
	bool room = true;
	for (uint64_t i = 0; i < p->open->trace_records && room; i++) {
		struct obd_trace_record r;
		uint64_t first, n;
		if (!obd_trace_get(p->open->trace, i, &r) || r.layer >= e->nlayers)
			continue;
		uint64_t bytes = p->open->ix->cat->layer[e->layer_slot[r.layer]].file_bytes;
		if (!obd_trace_blocks(&r, bytes, block_bytes(p), &first, &n))
			continue;
		for (uint64_t k = 0; k < n && room; k++)
			room = name_part(p, r.layer, first + k, obd_ix_trace_part(&r, k, n, block_bytes(p)));
	}
	free(p->open->trace);
	p->open->trace = NULL;
}

/* --- metadata: from the device to layers -------------------------------------------------------------------------------- */

/* What lies at byte `at` of the device: *len bytes at most, cut to one block; *layer UINT32_MAX: zeros. */
static void locate(const struct obd_ix_prefetch *p, uint64_t at, uint64_t *len, uint32_t *layer, uint64_t *moff)
{
	const struct obd_indexer *ix = p->open->ix;
	const struct obd_image *e = image_of(p);
	const struct obd_lsmt_seg *seg = (const void *)(ix->seg->index + e->index_off);
	uint32_t bb = ix->seg->geo.block_bytes;
	size_t i = obd_lsmt_lookup(seg, e->index_count, at / OBD_SECTOR_BYTES);
	*layer = UINT32_MAX;
	if (i >= e->index_count)
		return;
	uint64_t start = obd_lsmt_seg_offset(seg[i]) * OBD_SECTOR_BYTES, end = obd_lsmt_seg_end(seg[i]) * OBD_SECTOR_BYTES;
	if (start > at) {
		*len = obd_min_u64(*len, start - at);
		return;
	}
	*len = obd_min_u64(*len, end - at);
	if (obd_lsmt_seg_zeroed(seg[i]))
		return;
	*layer = obd_lsmt_seg_tag(seg[i]);
	*moff = obd_lsmt_seg_moffset(seg[i]) * OBD_SECTOR_BYTES + (at - start);
	*len = obd_min_u64(*len, bb - *moff % bb);
}

/* Names what lies under a range of the device. */
static bool name_range(struct obd_ix_prefetch *p, uint64_t off, uint64_t len)
{
	uint32_t bb = block_bytes(p);
	while (len) {
		uint64_t n = len, moff = 0;
		uint32_t layer;
		locate(p, off, &n, &layer, &moff);
		uint32_t in = (uint32_t)(moff % bb);
		if (layer != UINT32_MAX && !name_part(p, layer, moff / bb, obd_part_make(in, in + (uint32_t)n, bb)))
			return false;
		off += n;
		len -= n;
	}
	return true;
}

static void drop_parsed(struct obd_ix_prefetch *p, struct parsed *r)
{
	obd_list_remove(&r->link);
	p->nparsed--;
	free(r);
}

/* Copies what is there. True: all of it. */
static bool copy_parsed(struct obd_ix_prefetch *p, struct parsed *r)
{
	struct obd_indexer *ix = p->open->ix;
	const struct obd_image *e = image_of(p);
	uint32_t bb = ix->seg->geo.block_bytes;
	while (r->have < r->want.len) {
		uint64_t n = r->want.len - r->have, moff = 0;
		uint32_t layer;
		locate(p, r->want.off + r->have, &n, &layer, &moff);
		if (layer == UINT32_MAX)
			memset(r->bytes + r->have, 0, n);
		else if (obd_reader_copy(&ix->reader, e->layer_slot[layer], e->layer_uid[layer], false, (uint32_t)(moff / bb),
					 (uint32_t)(moff % bb), (uint32_t)n, r->bytes + r->have))
			return false;
		r->have += n;
	}
	return true;
}

/* Gives the parser what came. True: it may want more now. */
static bool parse(struct obd_ix_prefetch *p)
{
	bool did = false;
	OBD_LIST_FOREACH_SAFE (it, &p->parsed) {
		struct parsed *r = OBD_LIST_ENTRY(it, struct parsed, link);
		if (!copy_parsed(p, r))
			continue;
		obd_fsmeta_give(&p->fs, &r->want, r->bytes);
		drop_parsed(p, r);
		did = true;
	}
	return did;
}

/* Takes what the parser wants until PARSED_MAX ranges wait. False: that is all there may be. */
static bool take_wants(struct obd_ix_prefetch *p)
{
	struct obd_fsmeta_want w;
	while (p->nparsed < PARSED_MAX && obd_fsmeta_next(&p->fs, &w)) {
		if (!name_range(p, w.off, w.len))
			return false;
		if (w.kind == OBD_FSMETA_PLAIN)
			continue;
		struct parsed *r = malloc(sizeof *r + w.len);
		if (!r)
			return false;
		r->want = w;
		r->have = 0;
		obd_list_push_back(&p->parsed, &r->link);
		p->nparsed++;
	}
	return true;
}

/* What waits when nothing is on its way any more cannot be had. */
static void drop_lost(struct obd_ix_prefetch *p)
{
	while (!p->in_flight && !pending(p) && !obd_list_empty(&p->parsed))
		drop_parsed(p, OBD_LIST_ENTRY(p->parsed.next, struct parsed, link));
}

/* Goes on with the metadata. False: there is no more. */
static bool more_metadata(struct obd_ix_prefetch *p)
{
	if (obd_clock_ns() - p->begun_ns > META_NS)
		return false;
	bool room = true;
	do
		room = take_wants(p);
	while (parse(p) && room);
	drop_lost(p);
	return room;
}

/* --- requests ----------------------------------------------------------------------------------------------------------- */

static void answered(struct obd_ix_post *post, int err)
{
	struct obd_ix_prefetch *p = post->owner;
	p->in_flight--;
	post->ix->prefetch_in_flight--;
	if (err)
		obd_count(&post->ix->cat->proc, prefetch_failed, post->count);
	if (p->meta)
		parse(p); /* here the blocks are still held for us */
}

/* Is what is wanted of that block in the cache? */
static bool cached(const struct obd_ix_prefetch *p, size_t at)
{
	const struct obd_segment *seg = p->open->ix->seg;
	uint64_t word, key = p->keys.key[at];
	bool mark;
	uint32_t uid = image_of(p)->layer_uid[obd_ix_key_layer(key)];
	uint32_t f = obd_lookup(seg, obd_key(uid, false, obd_ix_key_block(key)), true, &word, &mark);
	if (f == OBD_NO_FRAME)
		return false;
	struct obd_part have = {obd_load_relaxed(&seg->fills[f].begin), obd_load_relaxed(&seg->fills[f].bytes)};
	return obd_word_state(word) == OBD_FILL_VALID ||
	       (have.end && obd_part_covers(have, p->keys.part[at]) && obd_lookup_still(seg, f, word));
}

/* Does key `at` go on where the one before it ends, byte for byte? */
static bool goes_on(const struct obd_ix_prefetch *p, size_t at)
{
	const struct obd_part *before = &p->keys.part[at - 1];
	return p->keys.key[at] == p->keys.key[at - 1] + 1 && (before->end == 0 || before->end == block_bytes(p)) &&
	       p->keys.part[at].begin == 0;
}

static int post_run(struct obd_ix_prefetch *p, size_t at, size_t n)
{
	struct obd_indexer *ix = p->open->ix;
	uint64_t first = p->keys.key[at];
	const struct obd_ix_layer *l = &ix->layer[image_of(p)->layer_slot[obd_ix_key_layer(first)]];
	const struct obd_part need = {p->keys.part[at].begin, p->keys.part[at + n - 1].end};
	int rc = obd_ix_post_part(ix, &p->posts, l, obd_ix_key_block(first), (uint32_t)n, need, OBD_REQ_PREFETCH, answered, p);
	if (rc)
		return rc;
	p->asked += n;
	p->in_flight++;
	ix->prefetch_in_flight++;
	obd_count(&ix->cat->proc, prefetch_asked, n);
	return 0;
}

static int ask_again(struct obd_ix_prefetch *p, uint32_t *looks)
{
	int rc = post_run(p, p->again[p->nagain - 1], 1);
	if (rc)
		return rc;
	p->nagain--;
	++*looks;
	return 0;
}

/* Asks for the next run of blocks. 0, -EBUSY, -ENOMEM; 1: there is nothing to ask for now. *looks: blocks looked up. */
static int ask(struct obd_ix_prefetch *p, uint32_t *looks)
{
	struct obd_indexer *ix = p->open->ix;
	size_t n = 1;
	if (p->nagain)
		return ask_again(p, looks);
	for (; p->next < p->keys.count && cached(p, p->next); p->next++, ++*looks) {
		p->skipped++;
		obd_count(&ix->cat->proc, prefetch_skipped, 1);
	}
	if (p->next == p->keys.count)
		return 1;
	while (n < OBD_IX_PREFETCH_BLOCKS && p->next + n < p->keys.count && goes_on(p, p->next + n) && !cached(p, p->next + n))
		n++;
	*looks += (uint32_t)n;
	int rc = post_run(p, p->next, n);
	if (!rc)
		p->next += n;
	return rc;
}

static void finish(struct obd_ix_prefetch *p)
{
	struct obd_indexer *ix = p->open->ix;
	ix->prefetch_in_flight -= p->in_flight;
	obd_ix_posts_cancel(&p->posts);
	while (!obd_list_empty(&p->parsed))
		drop_parsed(p, OBD_LIST_ENTRY(p->parsed.next, struct parsed, link));
	obd_list_remove(&p->link);
	p->open->prefetch = NULL;
	obd_ix_keys_free(&p->keys);
	free(p->again);
	obd_fsmeta_done(&p->fs);
	free(p);
}

/* True: it has done its work. */
static bool is_over(struct obd_ix_prefetch *p, bool more)
{
	if (more || p->in_flight || pending(p))
		return false;
	obd_info("%s: prefetched %s: %" PRIu64 " blocks asked for, %" PRIu64 " were there, %" PRIu64 " ms", p->open->path,
		 p->meta ? "file-system metadata" : "the trace", p->asked, p->skipped,
		 (obd_clock_ns() - p->begun_ns) / OBD_MS_NS);
	return true;
}

/* One image's turn. False: no request can be made by anybody now. */
static bool turn(struct obd_ix_prefetch *p, uint32_t *looks)
{
	bool more = p->meta && more_metadata(p) &&
		    (p->nparsed || p->fs.now.next < p->fs.now.count || p->fs.last.next < p->fs.last.count);
	int rc = ask(p, looks);
	if (rc == 1 && is_over(p, more))
		finish(p);
	return rc >= 0;
}

/* Once round for each request, so that images take turns; ends when a whole round did nothing. */
bool obd_ix_prefetch_pump(struct obd_indexer *ix)
{
	uint32_t looks = 0, before;
	do {
		before = looks;
		OBD_LIST_FOREACH_SAFE (it, &ix->prefetches) {
			struct obd_ix_prefetch *p = OBD_LIST_ENTRY(it, struct obd_ix_prefetch, link);
			uint32_t had = ix->prefetch_in_flight;
			if (had >= ix->prefetch_most || !turn(p, &looks))
				return false;
			if (ix->prefetch_in_flight > had) { /* it has posted, so it is not over: the others first */
				obd_list_remove(&p->link);
				obd_list_push_back(&ix->prefetches, &p->link);
			}
		}
	} while (looks > before && looks < LOOKED_PER_PUMP);
	return looks > before;
}

/* --- life --------------------------------------------------------------------------------------------------------------- */

static bool has_remote(const struct obd_ix_open *o)
{
	for (uint32_t i = 0; i < o->nlowers; i++)
		if (!o->lower[i].local)
			return true;
	return false;
}

void obd_ix_prefetch_start(struct obd_ix_open *o)
{
	struct obd_indexer *ix = o->ix;
	bool meta = !o->trace;
	if (o->prefetch_tried || !o->image)
		return;
	o->prefetch_tried = true;
	if (meta && (!ix->metadata_first || !has_remote(o)))
		return;
	struct obd_ix_prefetch *p = calloc(1, sizeof *p);
	if (!p)
		return;
	p->open = o;
	p->meta = meta;
	p->begun_ns = obd_clock_ns();
	p->most = ix->seg->geo.nframes / (meta ? META_SHARE : TRACE_SHARE);
	p->looks = (uint64_t)p->most * LOOKED_PER_KEY;
	obd_list_init(&p->posts);
	obd_list_init(&p->parsed);
	obd_list_push_back(&ix->prefetches, &p->link);
	o->prefetch = p;
	if (meta)
		obd_fsmeta_init(&p->fs, image_of(p)->virtual_bytes);
	else
		name_trace(p);
}

void obd_ix_prefetch_stop(struct obd_ix_open *o)
{
	if (o->prefetch)
		finish(o->prefetch);
}

void obd_ix_prefetch_free_all(struct obd_indexer *ix)
{
	OBD_LIST_FOREACH_SAFE (it, &ix->prefetches) {
		struct obd_ix_prefetch *p = OBD_LIST_ENTRY(it, struct obd_ix_prefetch, link);
		OBD_LIST_FOREACH_SAFE (post, &p->posts)
			free(OBD_LIST_ENTRY(post, struct obd_ix_post, link));
		obd_list_init(&p->posts);
		p->in_flight = 0;
		finish(p);
	}
}
