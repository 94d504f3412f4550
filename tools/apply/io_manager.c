/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tools/apply/io_manager.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/util.h"

enum { DIRECT_BYTES = 64 << 10, BUCKETS = 1 << 14, RUN_BYTES = 1 << 20 };

struct page {
	uint64_t number;   /* byte offset / page size */
	struct page *next; /* in its bucket */
	bool dirty;
	unsigned char data[OBD_IO_PAGE_BYTES];
};

struct cache {
	struct obd_file *image;
	uint64_t bytes; /* of the image */
	struct page *bucket[BUCKETS];
	size_t npages;
	int last_errno;
};

static _Thread_local struct obd_file *next_image;

void obd_io_next_image(struct obd_file *image)
{
	next_image = image;
}

static size_t bucket_of(uint64_t number)
{
	return (size_t)((number * UINT64_C(0x9E3779B97F4A7C15)) >> 50) % BUCKETS;
}

static struct page *find(struct cache *c, uint64_t number)
{
	struct page *p = c->bucket[bucket_of(number)];
	while (p && p->number != number)
		p = p->next;
	return p;
}

static errcode_t failed(struct cache *c, int rc)
{
	c->last_errno = -rc;
	return rc == -ENOSPC ? EXT2_ET_BLOCK_ALLOC_FAIL : (errcode_t)-rc;
}

/* What lies behind the end of the image reads as zeros. */
static errcode_t image_read(struct cache *c, void *buf, size_t n, uint64_t off)
{
	const ssize_t r = obd_file_pread(c->image, buf, n, off);
	if (r < 0)
		return failed(c, (int)r);
	memset((char *)buf + r, 0, n - (size_t)r);
	return 0;
}

static errcode_t image_write(struct cache *c, const void *buf, size_t n, uint64_t off)
{
	const int rc = obd_file_pwrite(c->image, buf, n, off);
	return rc ? failed(c, rc) : 0;
}

static int by_number(const void *a, const void *b)
{
	const struct page *x = *(struct page *const *)a, *y = *(struct page *const *)b;
	return (x->number > y->number) - (x->number < y->number);
}

/* Writes n pages that follow each other. */
static errcode_t write_run(struct cache *c, struct page **pages, size_t n, unsigned char *run)
{
	for (size_t i = 0; i < n; i++)
		memcpy(run + i * OBD_IO_PAGE_BYTES, pages[i]->data, OBD_IO_PAGE_BYTES);
	const uint64_t off = pages[0]->number * OBD_IO_PAGE_BYTES;
	errcode_t rc = image_write(c, run, (size_t)obd_min_u64(n * OBD_IO_PAGE_BYTES, c->bytes - off), off);
	for (size_t i = 0; i < n && !rc; i++)
		pages[i]->dirty = false;
	return rc;
}

static size_t collect_dirty(struct cache *c, struct page **out)
{
	size_t n = 0;
	for (size_t b = 0; b < BUCKETS; b++)
		for (struct page *p = c->bucket[b]; p; p = p->next)
			if (p->dirty)
				out[n++] = p;
	qsort(out, n, sizeof(struct page *), by_number);
	return n;
}

static errcode_t write_back(struct cache *c)
{
	struct page **pages = malloc((c->npages + 1) * sizeof(struct page *));
	unsigned char *run = malloc(RUN_BYTES);
	errcode_t rc = pages && run ? 0 : ENOMEM;
	const size_t n = rc ? 0 : collect_dirty(c, pages);
	for (size_t i = 0, end; i < n && !rc; i = end) {
		for (end = i + 1; end < n && end - i < RUN_BYTES / OBD_IO_PAGE_BYTES; end++)
			if (pages[end]->number != pages[end - 1]->number + 1)
				break;
		rc = write_run(c, pages + i, end - i, run);
	}
	free(pages);
	free(run);
	return rc;
}

static void drop_pages(struct cache *c)
{
	for (size_t b = 0; b < BUCKETS; b++)
		for (struct page *p = c->bucket[b], *next; p; p = next) {
			next = p->next;
			free(p);
		}
	memset(c->bucket, 0, sizeof(c->bucket));
	c->npages = 0;
}

/* The page, new ones filled from the image unless blind. */
static errcode_t get_page(struct cache *c, uint64_t number, bool blind, struct page **out)
{
	errcode_t rc;
	struct page *p = find(c, number);
	if (!p) {
		if (c->npages >= OBD_IO_PAGES_MAX) {
			rc = write_back(c);
			if (rc)
				return rc;
			drop_pages(c);
		}
		p = malloc(sizeof(*p));
		if (!p)
			return ENOMEM;
		p->number = number;
		p->dirty = false;
		rc = blind ? 0 : image_read(c, p->data, sizeof(p->data), number * OBD_IO_PAGE_BYTES);
		if (rc) {
			free(p);
			return rc;
		}
		p->next = c->bucket[bucket_of(number)];
		c->bucket[bucket_of(number)] = p;
		c->npages++;
	}
	*out = p;
	return 0;
}

/* Applies fn to each page's part of the range. */
static errcode_t cached(struct cache *c, uint64_t off, unsigned char *in, const unsigned char *out, size_t n, bool blind)
{
	while (n) {
		const size_t at = off % OBD_IO_PAGE_BYTES;
		const size_t part = (size_t)obd_min_u64(n, OBD_IO_PAGE_BYTES - at);
		struct page *p;
		const errcode_t rc = get_page(c, off / OBD_IO_PAGE_BYTES, blind && part == OBD_IO_PAGE_BYTES, &p);
		if (rc)
			return rc;
		if (in) {
			memcpy(in, p->data + at, part);
			in += part;
		} else {
			if (blind || memcmp(p->data + at, out, part)) {
				memcpy(p->data + at, out, part);
				p->dirty = true;
			}
			out += part;
		}
		off += part;
		n -= part;
	}
	return 0;
}

static struct cache *cache_of(io_channel channel)
{
	return channel->private_data;
}

static bool inside(const struct cache *c, uint64_t off, uint64_t n)
{
	uint64_t end;
	return obd_add_u64(off, n, &end) && end <= c->bytes;
}

static errcode_t channel_open(const char *name, int flags, io_channel *out)
{
	(void)flags;
	struct cache *c = calloc(1, sizeof(*c));
	io_channel channel = calloc(1, sizeof(*channel));
	char *copy = strdup(name);
	if (!c || !channel || !copy || !next_image || obd_file_size(next_image, &c->bytes)) {
		free(c);
		free(channel);
		free(copy);
		return next_image ? ENOMEM : EXT2_ET_BAD_DEVICE_NAME;
	}
	c->image = next_image;
	channel->magic = EXT2_ET_MAGIC_IO_CHANNEL;
	channel->manager = &obd_io_manager;
	channel->name = copy;
	channel->block_size = 1024;
	channel->refcount = 1;
	channel->private_data = c;
	*out = channel;
	return 0;
}

/* What was not flushed is dropped: a run that failed must not look finished. */
static errcode_t channel_close(io_channel channel)
{
	if (--channel->refcount > 0)
		return 0;
	drop_pages(cache_of(channel));
	free(channel->private_data);
	free(channel->name);
	free(channel);
	return 0;
}

static errcode_t channel_set_blksize(io_channel channel, int blksize)
{
	channel->block_size = blksize;
	return 0;
}

/* A negative count is a number of bytes. */
static bool range_of(io_channel channel, unsigned long long block, int count, uint64_t *off, size_t *n)
{
	*n = count < 0 ? (size_t) - (int64_t)count : (size_t)count * (size_t)channel->block_size;
	return obd_mul_u64(block, (uint64_t)channel->block_size, off) && inside(cache_of(channel), *off, *n);
}

static errcode_t channel_read64(io_channel channel, unsigned long long block, int count, void *data)
{
	uint64_t off;
	size_t n;
	if (!range_of(channel, block, count, &off, &n))
		return EXT2_ET_SHORT_READ;
	return cached(cache_of(channel), off, data, NULL, n, false);
}

static errcode_t channel_write64(io_channel channel, unsigned long long block, int count, const void *data)
{
	uint64_t off;
	size_t n;
	if (!range_of(channel, block, count, &off, &n))
		return EXT2_ET_SHORT_WRITE;
	return cached(cache_of(channel), off, NULL, data, n, false);
}

static errcode_t channel_read(io_channel channel, unsigned long block, int count, void *data)
{
	return channel_read64(channel, block, count, data);
}

static errcode_t channel_write(io_channel channel, unsigned long block, int count, const void *data)
{
	return channel_write64(channel, block, count, data);
}

static errcode_t channel_flush(io_channel channel)
{
	return write_back(cache_of(channel));
}

static errcode_t channel_discard(io_channel channel, unsigned long long block, unsigned long long count)
{
	(void)channel;
	(void)block;
	(void)count;
	return EXT2_ET_UNIMPLEMENTED;
}

static errcode_t channel_zeroout(io_channel channel, unsigned long long block, unsigned long long count)
{
	uint64_t off, n;
	if (!obd_mul_u64(block, (uint64_t)channel->block_size, &off) || !obd_mul_u64(count, (uint64_t)channel->block_size, &n))
		return EXT2_ET_SHORT_WRITE;
	return obd_io_zero(channel, off, n);
}

struct struct_io_manager obd_io_manager = {
	.magic = EXT2_ET_MAGIC_IO_MANAGER,
	.name = "overlaybd image",
	.open = channel_open,
	.close = channel_close,
	.set_blksize = channel_set_blksize,
	.read_blk = channel_read,
	.write_blk = channel_write,
	.flush = channel_flush,
	.read_blk64 = channel_read64,
	.write_blk64 = channel_write64,
	.discard = channel_discard,
	.zeroout = channel_zeroout,
};

/* A long piece overtakes the cache: pages that lie in it get its bytes and need no writing of their own. */
static void refresh(struct cache *c, uint64_t off, const unsigned char *buf, size_t n)
{
	for (size_t at = 0; at < n; at += OBD_IO_PAGE_BYTES) {
		struct page *p = find(c, (off + at) / OBD_IO_PAGE_BYTES);
		if (p) {
			memcpy(p->data, buf + at, OBD_IO_PAGE_BYTES);
			p->dirty = false;
		}
	}
}

errcode_t obd_io_write_data(io_channel channel, uint64_t off, const void *buf, size_t n)
{
	struct cache *c = cache_of(channel);
	if (!inside(c, off, n))
		return EXT2_ET_SHORT_WRITE;
	if (n < DIRECT_BYTES || off % OBD_IO_PAGE_BYTES || n % OBD_IO_PAGE_BYTES)
		return cached(c, off, NULL, buf, n, true);
	const errcode_t rc = image_write(c, buf, n, off);
	if (!rc)
		refresh(c, off, buf, n);
	return rc;
}

static bool all_zero(const unsigned char *p, size_t n)
{
	return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

errcode_t obd_io_zero(io_channel channel, uint64_t off, uint64_t n)
{
	struct cache *c = cache_of(channel);
	unsigned char *buf = malloc(2 * RUN_BYTES);
	errcode_t rc = !buf ? ENOMEM : inside(c, off, n) ? 0 : EXT2_ET_SHORT_WRITE;
	if (!rc)
		memset(buf + RUN_BYTES, 0, RUN_BYTES);
	for (const uint64_t end = off + n; !rc && off < end;) {
		uint64_t data = off;
		const size_t part = (size_t)obd_min_u64(RUN_BYTES, end - off);
		if (c->npages == 0 && obd_file_next_data(c->image, off, &data) == 0 && data > off) {
			off = data;
			continue;
		}
		rc = image_read(c, buf, part, off);
		if (!rc && (c->npages || !all_zero(buf, part)))
			rc = cached(c, off, NULL, buf + RUN_BYTES, part, false);
		off += part;
	}
	free(buf);
	return rc;
}

int obd_io_last_errno(io_channel channel)
{
	return cache_of(channel)->last_errno;
}
