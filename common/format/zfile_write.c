/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The ZFile writer: plain bytes are gathered into batches of blocks; a batch is compressed as a whole, by the caller or by
 * one of the writer's threads, and written by the caller, in order; the lengths become the jump table at the end.
 *
 *     batches, a ring:   tail .......... next .......... head
 *                        compressed or   queued          being filled
 *                        being so
 *
 * Each block is compressed by itself, so the number of threads does not show in the file. A batch belongs to the caller
 * but from `queued` until it is `done`, when it is the thread's that took it. The lock covers next, head, states and stop.
 */
#include <errno.h>
#include <inttypes.h>
#include <lz4.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "common/base/crc32c.h"
#include "common/base/le.h"
#include "common/base/util.h"
#include "common/format/zfile.h"
#include "common/format/zfile_layout.h"

#define WRITE_BLOCK_MIN 4096u
#define WRITE_BLOCK_MAX 65536u
#define BATCH_BYTES (256u << 10) /* whole blocks of any size */
#define COPY_BYTES (256u << 10)
#define PROGRESS_BYTES (4u << 20)
#define BATCHES_PER_THREAD 3u

struct batch {
	unsigned char *plain;
	unsigned char *stored;
	uint32_t *lengths; /* of the blocks in stored */
	uint32_t filled;   /* bytes in plain */
	uint32_t nblocks;
	size_t stored_bytes;
	int rc; /* of compressing */
	bool done;
};

struct obd_zfile_writer {
	struct obd_file *dst;
	struct obd_zfile_opts opts;
	ZSTD_CCtx *zstd;   /* the caller's; threads have their own */
	uint32_t *lengths; /* jump table so far */
	uint64_t nblocks;
	uint64_t cap;
	uint64_t at;	   /* bytes written */
	uint64_t original; /* plain bytes taken */
	uint32_t stored_cap;

	struct batch *ring;
	unsigned nbatches;
	unsigned nthreads; /* running; 0: the caller compresses */
	uint64_t tail, next, head;
	pthread_t *threads;
	pthread_mutex_t lock;
	pthread_cond_t queued;
	pthread_cond_t done;
	bool stop;
};

static void put_header(const struct obd_zfile_writer *w, uint64_t flags, bool with_index, uint32_t index_crc, void *buf)
{
	struct obd_zfile_disk_header h = {
		.size = OBD_ZFILE_STRUCT_BYTES,
		.flags = flags | OBD_ZFILE_FLAG_DATA | OBD_ZFILE_FLAG_DIGEST,
		.block_size = w->opts.block_bytes,
		.algorithm = (uint8_t)w->opts.algorithm,
		.verify = !w->opts.no_verify,
	};
	if (with_index) {
		h.index_offset = w->at;
		h.index_size = w->nblocks;
		h.original_file_size = w->original;
		h.index_crc = index_crc;
	}
	memcpy(h.magic0, obd_zfile_magic, sizeof(h.magic0));
	memcpy(h.magic1, obd_zfile_magic + sizeof(h.magic0), sizeof(h.magic1));
	memset(buf, 0, OBD_ZFILE_HEADER_BYTES);
	memcpy(buf, &h, sizeof(h));
	h.digest = obd_crc32c_raw(0, buf, OBD_ZFILE_HEADER_BYTES);
	memcpy(buf, &h, sizeof(h));
}

static int emit(struct obd_zfile_writer *w, const void *buf, size_t n)
{
	int rc = obd_file_pwrite(w->dst, buf, n, w->at);
	if (!rc)
		w->at += n;
	return rc;
}

/* Compresses n plain bytes. Returns the length or a negative errno. */
static int64_t compress_block(const struct obd_zfile_writer *w, ZSTD_CCtx *zstd, const void *plain, uint32_t n, void *stored)
{
	if (w->opts.algorithm == OBD_ZFILE_LZ4) {
		int r = LZ4_compress_default(plain, stored, (int)n, (int)w->stored_cap);
		return r > 0 ? r : -EIO;
	}
	size_t r =
		ZSTD_compressCCtx(zstd, stored, w->stored_cap, plain, n, w->opts.level ? w->opts.level : ZSTD_CLEVEL_DEFAULT);
	return ZSTD_isError(r) ? -EIO : (int64_t)r;
}

/* Any thread; touches nothing but the batch. */
static int compress_batch(const struct obd_zfile_writer *w, ZSTD_CCtx *zstd, struct batch *b)
{
	unsigned char *to = b->stored;
	b->nblocks = 0;
	for (uint32_t at = 0; at < b->filled; at += w->opts.block_bytes) {
		const uint32_t plain = (uint32_t)obd_min_u64(w->opts.block_bytes, b->filled - at);
		int64_t n = compress_block(w, zstd, b->plain + at, plain, to);
		if (n < 0)
			return (int)n;
		if (!w->opts.no_verify) {
			obd_put_le32(to + n, obd_crc32c_raw(OBD_ZFILE_BLOCK_CRC_SEED, to, (size_t)n));
			n += 4;
		}
		b->lengths[b->nblocks++] = (uint32_t)n;
		to += n;
	}
	b->stored_bytes = (size_t)(to - b->stored);
	return 0;
}

static void *worker(void *arg)
{
	struct obd_zfile_writer *w = arg;
	ZSTD_CCtx *zstd = ZSTD_createCCtx();
	pthread_mutex_lock(&w->lock);
	for (;;) {
		while (!w->stop && w->next == w->head)
			pthread_cond_wait(&w->queued, &w->lock);
		if (w->stop)
			break;
		struct batch *b = &w->ring[w->next++ % w->nbatches];
		pthread_mutex_unlock(&w->lock);
		int rc = zstd ? compress_batch(w, zstd, b) : -ENOMEM;
		pthread_mutex_lock(&w->lock);
		b->rc = rc;
		b->done = true;
		pthread_cond_signal(&w->done);
	}
	pthread_mutex_unlock(&w->lock);
	ZSTD_freeCCtx(zstd);
	return NULL;
}

static int note_lengths(struct obd_zfile_writer *w, const struct batch *b)
{
	if (w->nblocks + b->nblocks > w->cap) {
		const uint64_t cap = 2 * w->cap + BATCH_BYTES / WRITE_BLOCK_MIN;
		uint32_t *p = realloc(w->lengths, cap * sizeof(*p));
		if (!p)
			return -ENOMEM;
		w->lengths = p;
		w->cap = cap;
	}
	memcpy(w->lengths + w->nblocks, b->lengths, b->nblocks * sizeof(*b->lengths));
	w->nblocks += b->nblocks;
	return 0;
}

static int write_batch(struct obd_zfile_writer *w, struct batch *b)
{
	int rc = b->rc ? b->rc : note_lengths(w, b);
	return rc ? rc : emit(w, b->stored, b->stored_bytes);
}

/* Writes compressed batches in order until at most `leave` are under way. */
static int drain(struct obd_zfile_writer *w, uint64_t leave)
{
	int rc = 0;
	while (w->head - w->tail > leave && !rc) {
		struct batch *b = &w->ring[w->tail % w->nbatches];
		pthread_mutex_lock(&w->lock);
		while (!b->done)
			pthread_cond_wait(&w->done, &w->lock);
		pthread_mutex_unlock(&w->lock);
		rc = write_batch(w, b);
		w->tail++;
	}
	return rc;
}

/* Sends the batch that was being filled on its way; the next one is free afterwards. */
static int submit(struct obd_zfile_writer *w)
{
	struct batch *b = &w->ring[w->head % w->nbatches];
	int rc = 0;
	if (!w->nthreads) {
		b->rc = compress_batch(w, w->zstd, b);
		rc = write_batch(w, b);
	} else {
		pthread_mutex_lock(&w->lock);
		b->done = false;
		w->head++;
		pthread_cond_signal(&w->queued);
		pthread_mutex_unlock(&w->lock);
		rc = drain(w, w->nbatches - 1);
	}
	w->ring[w->head % w->nbatches].filled = 0;
	return rc;
}

static int check_opts(const struct obd_zfile_opts *o, struct obd_err *err)
{
	if (o->algorithm != OBD_ZFILE_LZ4 && o->algorithm != OBD_ZFILE_ZSTD)
		return obd_err_set(err, EINVAL, "zfile: algorithm is %d, allowed: 1 (lz4), 2 (zstd)", (int)o->algorithm);
	if (o->block_bytes < WRITE_BLOCK_MIN || o->block_bytes > WRITE_BLOCK_MAX || !obd_is_pow2(o->block_bytes))
		return obd_err_set(err, EINVAL, "zfile: block size is %u, allowed: a power of two, %u to %u", o->block_bytes,
				   WRITE_BLOCK_MIN, WRITE_BLOCK_MAX);
	if (o->threads > OBD_ZFILE_THREADS_MAX)
		return obd_err_set(err, EINVAL, "zfile: threads are %u, allowed: up to %u", o->threads, OBD_ZFILE_THREADS_MAX);
	if (o->level && (o->level < ZSTD_minCLevel() || o->level > ZSTD_maxCLevel()))
		return obd_err_set(err, EINVAL, "zfile: level is %d, allowed: %d to %d", o->level, ZSTD_minCLevel(),
				   ZSTD_maxCLevel());
	return 0;
}

static bool make_batches(struct obd_zfile_writer *w)
{
	const uint32_t blocks = BATCH_BYTES / w->opts.block_bytes;
	const unsigned n = w->opts.threads > 1 ? w->opts.threads * BATCHES_PER_THREAD : 1;
	w->ring = calloc(n, sizeof(*w->ring));
	if (!w->ring)
		return false;
	w->nbatches = n;
	for (unsigned i = 0; i < n; i++) {
		struct batch *b = &w->ring[i];
		b->plain = malloc(BATCH_BYTES);
		b->stored = malloc((size_t)blocks * obd_zfile_stored_max(w->opts.block_bytes));
		b->lengths = malloc(blocks * sizeof(*b->lengths));
		if (!b->plain || !b->stored || !b->lengths)
			return false;
	}
	return true;
}

/* As many as the system gives; with none the caller does it all. */
static bool start_threads(struct obd_zfile_writer *w)
{
	if (w->opts.threads <= 1)
		return true;
	w->threads = calloc(w->opts.threads, sizeof(*w->threads));
	if (!w->threads)
		return false;
	while (w->nthreads < w->opts.threads && pthread_create(&w->threads[w->nthreads], NULL, worker, w) == 0)
		w->nthreads++;
	return true;
}

struct obd_zfile_writer *obd_zfile_writer_new(struct obd_file *dst, const struct obd_zfile_opts *opts, struct obd_err *err)
{
	unsigned char header[OBD_ZFILE_HEADER_BYTES];
	int rc = check_opts(opts, err);
	if (rc) {
		errno = -rc;
		return NULL;
	}
	struct obd_zfile_writer *w = calloc(1, sizeof(*w));
	if (!w)
		goto nomem;
	w->dst = dst;
	w->opts = *opts;
	w->stored_cap = obd_zfile_stored_max(opts->block_bytes) - 4;
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->queued, NULL);
	pthread_cond_init(&w->done, NULL);
	w->zstd = ZSTD_createCCtx();
	if (!w->zstd || !make_batches(w) || !start_threads(w))
		goto nomem;
	put_header(w, OBD_ZFILE_FLAG_HEADER, false, 0, header);
	rc = emit(w, header, sizeof(header));
	if (!rc)
		return w;
	obd_err_set(err, -rc, "zfile header: write: %s", strerror(-rc));
	goto fail;
nomem:
	rc = obd_err_set(err, ENOMEM, "out of memory");
fail:
	obd_zfile_writer_free(w);
	errno = -rc;
	return NULL;
}

int obd_zfile_writer_append(struct obd_zfile_writer *w, const void *buf, size_t n)
{
	const unsigned char *p = buf;
	int rc = 0;
	while (n && !rc) {
		struct batch *b = &w->ring[w->head % w->nbatches];
		const uint32_t part = (uint32_t)obd_min_u64(n, BATCH_BYTES - b->filled);
		memcpy(b->plain + b->filled, p, part);
		b->filled += part;
		w->original += part;
		p += part;
		n -= part;
		rc = b->filled == BATCH_BYTES ? submit(w) : 0;
	}
	return rc;
}

int obd_zfile_writer_finish(struct obd_zfile_writer *w, uint64_t *bytes)
{
	unsigned char trailer[OBD_ZFILE_HEADER_BYTES], header[OBD_ZFILE_HEADER_BYTES];
	int rc = w->ring[w->head % w->nbatches].filled ? submit(w) : 0;
	if (!rc)
		rc = drain(w, 0);
	if (rc)
		return rc;
	/* Little-endian machines only (lsmt_layout.h says so): the array is the jump table. */
	const size_t table_bytes = (size_t)w->nblocks * sizeof(*w->lengths);
	const uint32_t crc = obd_crc32c_raw(0, w->lengths, table_bytes);
	put_header(w, OBD_ZFILE_FLAG_SEALED, true, crc, trailer);
	put_header(w, OBD_ZFILE_FLAG_HEADER | OBD_ZFILE_FLAG_OVERWRITTEN, true, crc, header);
	rc = table_bytes ? emit(w, w->lengths, table_bytes) : 0;
	if (!rc)
		rc = emit(w, trailer, sizeof(trailer));
	if (!rc && w->opts.overwrite_header)
		rc = obd_file_pwrite(w->dst, header, sizeof(header), 0);
	if (!rc && bytes)
		*bytes = w->at;
	return rc;
}

static void stop_threads(struct obd_zfile_writer *w)
{
	pthread_mutex_lock(&w->lock);
	w->stop = true;
	pthread_cond_broadcast(&w->queued);
	pthread_mutex_unlock(&w->lock);
	for (unsigned i = 0; i < w->nthreads; i++)
		pthread_join(w->threads[i], NULL);
	free(w->threads);
}

void obd_zfile_writer_free(struct obd_zfile_writer *w)
{
	if (!w)
		return;
	stop_threads(w);
	for (unsigned i = 0; i < w->nbatches; i++) {
		free(w->ring[i].plain);
		free(w->ring[i].stored);
		free(w->ring[i].lengths);
	}
	pthread_cond_destroy(&w->done);
	pthread_cond_destroy(&w->queued);
	pthread_mutex_destroy(&w->lock);
	ZSTD_freeCCtx(w->zstd);
	free(w->ring);
	free(w->lengths);
	free(w);
}

static int sink_pwrite(void *ctx, const void *buf, size_t n, uint64_t off)
{
	struct obd_zfile_writer *w = ctx;
	return off == w->original ? obd_zfile_writer_append(w, buf, n) : -ESPIPE;
}

static int sink_size(void *ctx, uint64_t *bytes)
{
	const struct obd_zfile_writer *w = ctx;
	*bytes = w->original;
	return 0;
}

static const struct obd_file_ops sink_ops = {.pwrite = sink_pwrite, .size = sink_size};

struct obd_file *obd_zfile_writer_file(struct obd_zfile_writer *w)
{
	return obd_file_new(&sink_ops, w);
}

static int copy_all(struct obd_file *src, uint64_t total, struct obd_zfile_writer *w, obd_progress_fn *progress, void *ctx)
{
	unsigned char *buf = malloc(COPY_BYTES);
	int rc = buf ? 0 : -ENOMEM;
	for (uint64_t at = 0; !rc && at < total;) {
		size_t n = (size_t)obd_min_u64(COPY_BYTES, total - at);
		rc = obd_file_pread_full(src, buf, n, at);
		if (!rc)
			rc = obd_zfile_writer_append(w, buf, n);
		at += n;
		if (!rc && progress && (at % PROGRESS_BYTES == 0 || at == total) && progress(ctx, at, total))
			rc = -ECANCELED;
	}
	free(buf);
	return rc;
}

int obd_zfile_write(struct obd_file *src, struct obd_file *dst, const struct obd_zfile_opts *opts, obd_progress_fn *progress,
		    void *progress_ctx, uint64_t *bytes, struct obd_err *err)
{
	uint64_t total;
	int rc = check_opts(opts, err);
	if (rc)
		return rc;
	rc = obd_file_size(src, &total);
	if (rc)
		return obd_err_set(err, -rc, "zfile: source: %s", strerror(-rc));
	struct obd_zfile_writer *w = obd_zfile_writer_new(dst, opts, err);
	if (!w)
		return -errno;
	rc = copy_all(src, total, w, progress, progress_ctx);
	if (!rc)
		rc = obd_zfile_writer_finish(w, bytes);
	if (rc)
		obd_err_set(err, -rc, "zfile: %s", strerror(-rc));
	obd_zfile_writer_free(w);
	return rc;
}
