/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "test/indexer/fake.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/util.h"
#include "common/format/merge.h"
#include "shmcache/lookup.h"
#include "shmcache/ring.h"

static void need(bool good, const char *what)
{
	if (good)
		return;
	perror(what);
	abort();
}

static void region(struct fake *f, const char *name, uint32_t index, uint64_t bytes)
{
	struct obd_err err;
	int fd = memfd_create(name, MFD_CLOEXEC);
	need(fd >= 0 && ftruncate(fd, (off_t)bytes) == 0, "memfd");
	need(obd_segment_take(&f->seg, name, index, true, fd, &err) == 0, name);
}

void fake_init(struct fake *f, uint32_t block_bytes, uint32_t nframes, uint64_t index_bytes)
{
	struct obd_err err;
	struct obd_geometry geo = {.magic = OBD_SEG_MAGIC,
				   .version = OBD_SEG_VERSION,
				   .bytes = sizeof geo,
				   .segment_id = 1,
				   .block_bytes = block_bytes,
				   .nframes = nframes,
				   .nbuckets = 1024,
				   .nfetchers = 1,
				   .index_bytes = index_bytes};
	memset(f, 0, sizeof *f);
	strcpy(f->dir, "/tmp/check_indexer.XXXXXX");
	need(mkdtemp(f->dir) != NULL, "mkdtemp");
	f->codec = obd_codec_new();
	obd_geometry_sizes(&geo);
	obd_segment_init(&f->seg);
	int fd = memfd_create("geometry", MFD_CLOEXEC);
	need(write(fd, &geo, sizeof geo) == (ssize_t)sizeof geo, "geometry");
	need(obd_segment_take(&f->seg, "geometry", 0, false, fd, &err) == 0, "geometry");
	region(f, "frames", 0, geo.frames_bytes);
	region(f, "fills", 0, geo.fills_bytes);
	region(f, "table", 0, geo.table_bytes);
	region(f, "catalog", 0, geo.catalog_bytes);
	region(f, "index", 0, geo.index_bytes);
	region(f, "recency", 0, geo.recency_bytes);
	region(f, "upread", 0, geo.upread_bytes);
	region(f, "client", FAKE_CLIENT, geo.client_bytes);
	f->incarnation = 7;
}

void fake_done(struct fake *f)
{
	char cmd[128];
	obd_indexer_free(f->ix);
	obd_segment_close(&f->seg);
	obd_codec_free(f->codec);
	snprintf(cmd, sizeof cmd, "rm -rf %s", f->dir);
	need(system(cmd) == 0, "rm");
}

void fake_start(struct fake *f)
{
	struct obd_err err = {{0}};
	obd_indexer_free(f->ix);
	/* The supervisor gives a fresh area, and cached forgets the old one. */
	region(f, "client", 0, f->seg.geo.client_bytes);
	obd_store_relaxed(&f->seg.table->client[0].requests_tail.tail, 0);
	f->ix = obd_indexer_new(&f->seg, f->starts++, &err);
	if (!f->ix)
		fprintf(stderr, "%s\n", err.msg);
	need(f->ix != NULL, "obd_indexer_new");
	obd_indexer_set_engine(f->ix, f->engine);
	obd_indexer_client_up(f->ix, FAKE_CLIENT, f->incarnation);
	if (!f->hold_clients_known)
		obd_indexer_clients_known(f->ix);
}

/* --- layers ------------------------------------------------------------------------------------------------------------- */

static int blob_open(const struct fake *f, const struct obd_layer_view *v)
{
	char path[256];
	if (v->local)
		return open(v->path, O_RDONLY);
	snprintf(path, sizeof path, "%s/%s", f->dir, v->digest + strlen("sha256:"));
	return open(path, O_RDONLY);
}

static bool read_at(int fd, uint64_t off, uint64_t len, void *dst)
{
	return pread(fd, dst, len, (off_t)off) == (ssize_t)len;
}

static uint64_t zf_start(const struct obd_layer_view *v, uint64_t i)
{
	return v->zf_base[i / 64] + v->zf_delta[i];
}

static bool read_zblock(struct fake *f, int fd, const struct obd_layer_view *v, uint64_t i, void *dst, uint64_t *len)
{
	const struct obd_zfile_info info = {.original_bytes = v->file_bytes,
					    .payload_bytes = v->payload_bytes,
					    .nblocks = v->zf_nblocks,
					    .block_bytes = v->zf_block_bytes,
					    .algorithm = (uint8_t)v->zf_algorithm,
					    .verify = v->zf_verify};
	uint64_t from = zf_start(v, i), to = zf_start(v, i + 1);
	static unsigned char stored[2u << 20];
	if (to <= from || to - from > sizeof stored || to > v->payload_bytes)
		return false;
	*len = obd_zfile_block_plain_bytes(&info, i);
	return read_at(fd, v->payload_offset + from, to - from, stored) &&
	       obd_zfile_decode_block(f->codec, &info, stored, to - from, dst, *len) == 0;
}

static bool read_plain(struct fake *f, int fd, const struct obd_layer_view *v, uint64_t off, uint64_t len, unsigned char *dst)
{
	static unsigned char plain[1u << 20];
	if (off > v->file_bytes || len > v->file_bytes - off)
		return false;
	if (!v->zfile)
		return read_at(fd, v->payload_offset + off, len, dst);
	while (len) {
		uint64_t i = off / v->zf_block_bytes, have, at = off % v->zf_block_bytes;
		if (!read_zblock(f, fd, v, i, plain, &have))
			return false;
		uint64_t n = obd_min_u64(have - at, len);
		memcpy(dst, plain + at, n);
		off += n;
		dst += n;
		len -= n;
	}
	return true;
}

bool fake_layer_read(struct fake *f, const struct obd_layer_view *v, uint64_t off, uint64_t len, void *dst)
{
	int fd = blob_open(f, v);
	bool good = fd >= 0 && read_plain(f, fd, v, off, len, dst);
	if (fd >= 0)
		close(fd);
	return good;
}

bool fake_image_read(struct fake *f, const struct obd_image *im, uint64_t off, uint64_t len, void *dst)
{
	const struct obd_lsmt_seg *seg = (const void *)(f->seg.index + im->index_off);
	uint64_t sector = off / 512, end = (off + len) / 512;
	memset(dst, 0, len);
	for (size_t i = obd_lsmt_lookup(seg, im->index_count, sector); i < im->index_count; i++) {
		uint64_t from = obd_max_u64(obd_lsmt_seg_offset(seg[i]), sector);
		uint64_t to = obd_min_u64(obd_lsmt_seg_end(seg[i]), end);
		uint32_t tag = obd_lsmt_seg_tag(seg[i]);
		struct obd_layer_view v;
		if (from >= end)
			break;
		if (tag >= im->nlayers || obd_catalog_layer(&f->seg, im->layer_slot[tag], im->layer_uid[tag], &v))
			return false;
		uint64_t at = (obd_lsmt_seg_moffset(seg[i]) + from - obd_lsmt_seg_offset(seg[i])) * 512;
		if (v.state != OBD_LAYER_READY ||
		    !fake_layer_read(f, &v, at, (to - from) * 512, (char *)dst + (from * 512 - off)))
			return false;
	}
	return true;
}

/* --- cached ------------------------------------------------------------------------------------------------------------- */

static void bucket_put(struct fake *f, uint64_t key, uint32_t frame)
{
	uint64_t hash = obd_key_hash(key);
	struct obd_bucket *b = &f->seg.bucket[obd_bucket_first(&f->seg.geo, hash)];
	uint32_t way = frame % OBD_BUCKET_WAYS;
	for (uint32_t i = 0; i < OBD_BUCKET_WAYS; i++)
		if (!obd_load_relaxed(&b->way[i]))
			way = i;
	obd_store_relaxed(&b->way[way], obd_bucket_tag(hash) | (frame + 1));
}

/* Fills no more than `part`; what had less of the block goes, for the whole. */
static int fill(struct fake *f, const struct obd_layer_view *v, bool raw, uint32_t block, struct obd_part part)
{
	uint64_t word, start, end, key = obd_key(v->uid, raw, block);
	bool mark;
	if (obd_lookup_valid(&f->seg, key, &word, &mark) != OBD_NO_FRAME)
		return 0;
	uint32_t old = obd_lookup(&f->seg, key, true, &word, &mark);
	if (old != OBD_NO_FRAME && !obd_part_is_whole(part) &&
	    obd_part_covers((struct obd_part){f->seg.fills[old].begin, f->seg.fills[old].bytes}, part))
		return 0;
	if (old != OBD_NO_FRAME) {
		obd_store_relaxed(&f->seg.fills[old].word, 0);
		part = (struct obd_part){0, 0};
	}
	uint32_t frame = f->next_frame++ % f->seg.geo.nframes;
	struct obd_fill *w = &f->seg.fills[frame];
	obd_store_relaxed(&w->word, obd_word(++f->generation, OBD_FILL_FILLING));
	int fd = blob_open(f, v);
	bool good;
	if (raw) {
		good = obd_raw_chunk(v->blob_bytes, f->seg.geo.block_bytes, block, &start, &end) &&
		       read_at(fd, start, end - start, obd_frame_data(&f->seg, frame));
	} else {
		start = (uint64_t)block * f->seg.geo.block_bytes;
		end = obd_min_u64(start + f->seg.geo.block_bytes, v->file_bytes);
		good = v->state >= OBD_LAYER_MAPPED && start < end &&
		       read_plain(f, fd, v, start, end - start, obd_frame_data(&f->seg, frame));
	}
	close(fd);
	if (!good)
		return EIO;
	obd_store_relaxed(&w->key, key);
	bool whole = obd_part_is_whole(part);
	obd_store_relaxed(&w->begin, part.begin);
	obd_store_relaxed(&w->bytes, whole ? (uint32_t)(end - start) : part.end);
	obd_store_release(&w->word, obd_word(f->generation, whole ? OBD_FILL_VALID : OBD_FILL_PART));
	bucket_put(f, key, frame);
	return 0;
}

static bool refused(const struct fake *f, const struct obd_layer_view *v)
{
	if (v->local)
		return false;
	return (f->refuse_url && strcmp(v->url, f->refuse_url) == 0) ||
	       (f->refuse_digest && strcmp(v->digest, f->refuse_digest) == 0);
}

/* As cached does: demand gets whole blocks. */
static struct obd_part part_of(const struct fake *f, const struct obd_req *req, uint32_t i, uint32_t n)
{
	if (obd_load_relaxed(&req->flow) >> 16 != OBD_REQ_PREFETCH)
		return (struct obd_part){0, 0};
	return obd_part_of(obd_load_relaxed(&req->begin), obd_load_relaxed(&req->end), i, n, f->seg.geo.block_bytes);
}

static int serve_one(struct fake *f, const struct obd_req *req)
{
	struct obd_layer_view v;
	uint32_t kind = obd_load_relaxed(&req->kind), n = obd_load_relaxed(&req->nblocks);
	int rc = obd_catalog_layer(&f->seg, obd_load_relaxed(&req->layer_slot), obd_load_relaxed(&req->layer_uid), &v);
	if (rc)
		return -rc;
	f->probes += kind == OBD_JOB_PROBE;
	f->raw_posts += kind == OBD_JOB_RAW;
	f->block_posts += kind == OBD_JOB_BLOCKS;
	if (refused(f, &v))
		return f->refuse_err;
	for (uint32_t i = 0; i < n && !rc; i++)
		if (!f->forgetful || f->generation++ % 3 != 2)
			rc = fill(f, &v, kind == OBD_JOB_RAW, obd_load_relaxed(&req->block) + i, part_of(f, req, i, n));
	return rc;
}

static unsigned int serve_client(struct fake *f, uint32_t c)
{
	struct obd_table_client *half = &f->seg.table->client[c];
	struct obd_client_area *area = f->seg.client[c];
	unsigned int n = 0;
	uint64_t entry;
	while (!f->deaf && obd_ring_pop(&area->requests, &half->requests_tail, &entry) == OBD_RING_ENTRY) {
		if (obd_entry_kind(entry))
			continue;
		const struct obd_req *req = &area->req[obd_entry_slot(entry)];
		uint64_t word = obd_load_acquire(&req->word);
		if (obd_word_state(word) != OBD_REQ_POSTED || (uint32_t)obd_word_seq(word) != obd_entry_seq(entry))
			continue;
		int err = serve_one(f, req);
		need(obd_ring_push(&half->answers, &area->answers_tail,
				   obd_entry(obd_entry_slot(entry), obd_word_seq(word), (unsigned int)err)),
		     "answers");
		n++;
	}
	return n;
}

unsigned int fake_serve(struct fake *f)
{
	return serve_client(f, 0) + serve_client(f, FAKE_CLIENT);
}

void fake_run(struct fake *f)
{
	bool did = true;
	while (did) {
		did = obd_indexer_poll(f->ix);
		did |= fake_serve(f) > 0;
	}
}

/* --- the client --------------------------------------------------------------------------------------------------------- */

void fake_new_client(struct fake *f)
{
	struct obd_client_area *area = f->seg.client[FAKE_CLIENT];
	const struct obd_catalog_client *peer = &f->seg.catalog->client[FAKE_CLIENT];
	memset((void *)area, 0, sizeof *area);
	obd_store_relaxed(&area->opens.head, obd_load_acquire(&peer->opens_tail.tail));
	obd_store_relaxed(&area->ups.head, obd_load_acquire(&peer->ups_tail.tail));
	obd_store_relaxed(&area->touches.head, obd_load_acquire(&peer->touches_tail.tail));
	obd_indexer_client_up(f->ix, FAKE_CLIENT, ++f->incarnation);
}

static void set_open(struct fake *f, uint32_t slot, uint64_t seq, enum obd_open_state state)
{
	struct obd_client_area *area = f->seg.client[FAKE_CLIENT];
	obd_store_release(&area->open[slot].word, obd_word(seq, state));
	need(obd_ring_push(&area->opens, &f->seg.catalog->client[FAKE_CLIENT].opens_tail, obd_entry(slot, seq, 0)), "opens");
}

static uint64_t open_seq(const struct fake *f, uint32_t slot)
{
	return obd_word_seq(obd_load_relaxed(&f->seg.client[FAKE_CLIENT]->open[slot].word));
}

void fake_post(struct fake *f, uint32_t slot, const char *path)
{
	struct obd_open *o = &f->seg.client[FAKE_CLIENT]->open[slot];
	char *room = f->seg.client[FAKE_CLIENT]->open_path[slot];
	memset(room, 'x', OBD_PATH_BYTES);
	strcpy(room, path);
	obd_store_relaxed(&o->posted_ns, obd_clock_ns());
	set_open(f, slot, open_seq(f, slot) + 1, OBD_OPEN_POSTED);
}

void fake_close(struct fake *f, uint32_t slot)
{
	set_open(f, slot, open_seq(f, slot), OBD_OPEN_FREE);
}

void fake_hold(struct fake *f, uint32_t slot)
{
	struct obd_open *o = &f->seg.client[FAKE_CLIENT]->open[slot];
	const struct obd_reply *r = &f->seg.catalog->client[FAKE_CLIENT].reply[slot];
	obd_store_relaxed(&o->image_slot, r->image_slot);
	obd_store_relaxed(&o->image_uid, r->image_uid);
	obd_store_release(&o->word, obd_word(open_seq(f, slot), OBD_OPEN_HELD));
}

enum obd_reply_status fake_reply(struct fake *f, uint32_t slot, struct obd_reply *out)
{
	const struct obd_reply *r = &f->seg.catalog->client[FAKE_CLIENT].reply[slot];
	uint64_t word = obd_load_acquire(&r->word);
	if (obd_word_seq(word) != open_seq(f, slot))
		return OBD_REPLY_NONE;
	if (out)
		memcpy((void *)out, (const void *)r, sizeof *out);
	return (enum obd_reply_status)obd_word_state(word);
}
