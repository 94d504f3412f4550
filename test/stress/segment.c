/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The segment, its layers, and what must be in them. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/base/util.h"
#include "test/stress/stress.h"

_Noreturn void stress_fail(const char *format, ...)
{
	va_list ap;
	va_start(ap, format);
	fputs("stress: ", stderr);
	vfprintf(stderr, format, ap);
	fputs("\n", stderr);
	va_end(ap);
	abort();
}

uint64_t stress_random(uint64_t *state)
{
	*state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return *state >> 33;
}

uint64_t stress_pattern(uint32_t uid, bool raw, uint64_t at)
{
	return obd_key_hash((uint64_t)uid << 40 ^ (uint64_t)raw << 39 ^ at);
}

bool stress_range(bool raw, uint32_t block, uint64_t *start, uint64_t *end)
{
	if (raw)
		return obd_raw_chunk(STRESS_BLOB, STRESS_BLOCK, block, start, end);
	*start = (uint64_t)block * STRESS_BLOCK;
	*end = obd_min_u64(*start + STRESS_BLOCK, STRESS_FILE);
	return *start < STRESS_FILE;
}

static void take(struct stress_world *w, const char *name, uint32_t index, int fd)
{
	struct obd_err err = {""};
	if (fd < 0 || obd_segment_take(&w->seg, name, index, true, fd, &err))
		stress_fail("%s %u: %s", name, index, err.msg);
}

static void region(struct stress_world *w, const char *name, uint32_t index, uint64_t bytes)
{
	int fd = memfd_create(name, MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, (off_t)bytes))
		stress_fail("memfd");
	take(w, name, index, fd);
}

static void bell(struct stress_world *w, const char *name, uint32_t index)
{
	take(w, name, index, eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
}

static void plan(const struct stress_options *opt, struct obd_geometry *geo)
{
	*geo = (struct obd_geometry){.magic = OBD_SEG_MAGIC,
				     .version = OBD_SEG_VERSION,
				     .bytes = sizeof *geo,
				     .segment_id = opt->seed,
				     .block_bytes = STRESS_BLOCK,
				     .nframes = opt->frames,
				     .nbuckets = 64,
				     .nfetchers = opt->fetchers,
				     .index_bytes = 4096};
	while (geo->nbuckets * OBD_BUCKET_WAYS < 2 * geo->nframes)
		geo->nbuckets *= 2;
	obd_geometry_sizes(geo);
}

static void make_regions(struct stress_world *w, const struct obd_geometry *geo)
{
	region(w, "frames", 0, geo->frames_bytes);
	region(w, "fills", 0, geo->fills_bytes);
	region(w, "table", 0, geo->table_bytes);
	region(w, "catalog", 0, geo->catalog_bytes);
	region(w, "index", 0, geo->index_bytes);
	region(w, "recency", 0, geo->recency_bytes);
	bell(w, "doorbell:cached", 0);
	for (uint32_t i = 0; i < w->opt.fetchers; i++) {
		region(w, "fetcher", i, geo->fetcher_bytes);
		bell(w, "doorbell:fetcher", i);
	}
	for (uint32_t i = 1; i <= w->opt.readers; i++) {
		region(w, "client", i, geo->client_bytes);
		bell(w, "doorbell:client", i);
	}
}

void stress_segment_make(struct stress_world *w)
{
	struct obd_geometry geo;
	plan(&w->opt, &geo);
	obd_segment_init(&w->seg);
	int fd = memfd_create("geometry", MFD_CLOEXEC);
	if (fd < 0 || write(fd, &geo, sizeof geo) != (ssize_t)sizeof geo)
		stress_fail("geometry");
	take(w, "geometry", 0, fd);
	make_regions(w, &geo);
	size_t bytes = sizeof *w->sh + geo.nframes * sizeof w->sh->writer[0];
	w->sh = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (w->sh == MAP_FAILED)
		stress_fail("mmap");
	for (uint32_t i = 0; i < STRESS_LAYERS; i++)
		stress_layer_put(w, i, i + 1);
}

/* Puts another layer into a slot, as the indexer does: the word goes first and comes last. */
void stress_layer_put(struct stress_world *w, uint32_t slot, uint32_t uid)
{
	struct obd_layer *l = &w->seg.catalog->layer[slot];
	obd_store_release(&l->word, obd_word(obd_word_seq(obd_load_relaxed(&l->word)), OBD_LAYER_FREE));
	obd_fence_release();
	memset((char *)l + sizeof l->word, 0, sizeof *l - sizeof l->word);
	l->blob_bytes = STRESS_BLOB;
	l->file_bytes = STRESS_FILE;
	l->host_hash = slot + 1;
	obd_store_release(&l->word, obd_word(uid, OBD_LAYER_READY));
}

uint32_t stress_layer_uid(const struct stress_world *w, uint32_t slot)
{
	uint64_t word = obd_load_acquire(&w->seg.catalog->layer[slot].word);
	return obd_word_state(word) == OBD_LAYER_FREE ? 0 : (uint32_t)obd_word_seq(word);
}
