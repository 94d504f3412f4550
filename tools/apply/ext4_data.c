/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * File contents. Data come in ascending order; they are gathered into a buffer of whole blocks, and each time it is full (or
 * a hole follows) blocks are taken from where the last file ended, so that files lie one behind the other in the order of
 * the tar: what is read together is found together.
 */
#include "tools/apply/ext4_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { BUF_BYTES = 1 << 20, EXTENT_BLOCKS_MAX = 32768 };

struct writer {
	struct obd_ext4 *fs;
	uint32_t ino;
	union obd_ext4_inode *inode;
	ext2_extent_handle_t h;
	struct ext2fs_extent last; /* e_len 0: none yet */
	uint64_t first;		   /* file offset of buf, whole blocks */
	size_t filled;
	unsigned char *buf;
};

static errcode_t add_extent(struct writer *w, blk64_t lblk, blk64_t pblk, uint32_t len)
{
	struct ext2fs_extent *l = &w->last;
	if (l->e_len && l->e_lblk + l->e_len == lblk && l->e_pblk + l->e_len == pblk && l->e_len + len <= EXTENT_BLOCKS_MAX) {
		l->e_len += len;
		return ext2fs_extent_replace(w->h, 0, l);
	}
	const int flags = l->e_len ? EXT2_EXTENT_INSERT_AFTER : 0;
	*l = (struct ext2fs_extent){.e_lblk = lblk, .e_pblk = pblk, .e_len = len};
	return ext2fs_extent_insert(w->h, flags, l);
}

static errcode_t open_extents(struct writer *w)
{
	return w->h ? 0 : ext2fs_extent_open2(w->fs->fs, w->ino, &w->inode->small, &w->h);
}

/* Takes some blocks for the next want ones of the file and writes them. */
static errcode_t put_blocks(struct writer *w, blk64_t lblk, const unsigned char *buf, uint32_t want, uint32_t *done)
{
	ext2_filsys fs = w->fs->fs;
	blk64_t pblk, got;
	errcode_t rc = ext2fs_new_range(fs, 0, w->fs->goal, want, NULL, &pblk, &got);
	if (rc)
		return rc;
	*done = (uint32_t)got;
	ext2fs_block_alloc_stats_range(fs, pblk, (blk_t)got, 1);
	rc = ext2fs_iblk_add_blocks(fs, &w->inode->small, got);
	if (!rc)
		rc = add_extent(w, lblk, pblk, (uint32_t)got);
	if (!rc)
		rc = obd_io_write_data(fs->io, pblk * fs->blocksize, buf, (size_t)got * fs->blocksize);
	w->fs->goal = pblk + got;
	return rc;
}

static errcode_t flush(struct writer *w)
{
	const uint32_t bs = w->fs->fs->blocksize;
	const uint32_t nblocks = (uint32_t)((w->filled + bs - 1) / bs);
	errcode_t rc = nblocks ? open_extents(w) : 0;
	memset(w->buf + w->filled, 0, (size_t)nblocks * bs - w->filled);
	for (uint32_t at = 0, done = 0; at < nblocks && !rc; at += done)
		rc = put_blocks(w, w->first / bs + at, w->buf + (size_t)at * bs, nblocks - at, &done);
	w->first += (uint64_t)nblocks * bs;
	w->filled = 0;
	return rc;
}

/* Moves the buffer so that off can be added to it. */
static errcode_t seek(struct writer *w, uint64_t off)
{
	const uint32_t bs = w->fs->fs->blocksize;
	const uint64_t end = w->first + w->filled;
	/* The gap ends in the block where the data end: it is zeros, not a hole. */
	if (off / bs == end / bs && end % bs) {
		memset(w->buf + w->filled, 0, (size_t)(off - end));
		w->filled += (size_t)(off - end);
		return 0;
	}
	if (off == end)
		return 0;
	const errcode_t rc = flush(w);
	w->first = off / bs * bs;
	w->filled = (size_t)(off - w->first);
	memset(w->buf, 0, w->filled);
	return rc;
}

static errcode_t append(struct writer *w, const unsigned char *p, size_t n)
{
	errcode_t rc = 0;
	while (n && !rc) {
		const size_t room = BUF_BYTES - w->filled;
		const size_t part = n < room ? n : room;
		memcpy(w->buf + w->filled, p, part);
		w->filled += part;
		p += part;
		n -= part;
		if (w->filled == BUF_BYTES)
			rc = flush(w);
	}
	return rc;
}

static int copy_all(struct writer *w, uint64_t bytes, obd_ext4_data_fn *data, void *ctx, struct obd_err *err)
{
	const void *p;
	size_t n;
	uint64_t off;
	int rc;
	while ((rc = data(ctx, &p, &n, &off, err)) == 1) {
		if (off < w->first + w->filled)
			return obd_err_set(err, EINVAL, "data at %llu come after those at %llu", (unsigned long long)off,
					   (unsigned long long)(w->first + w->filled));
		if (off > bytes || n > bytes - off)
			return obd_err_set(err, EINVAL, "data end at %llu, the file at %llu", (unsigned long long)(off + n),
					   (unsigned long long)bytes);
		errcode_t code = seek(w, off);
		if (!code)
			code = append(w, p, n);
		if (code)
			return obd_ext4_fail(w->fs, code, err, "writing");
	}
	if (rc)
		return rc;
	const errcode_t code = flush(w);
	return code ? obd_ext4_fail(w->fs, code, err, "writing") : 0;
}

int obd_ext4_data_put(struct obd_ext4 *fs, uint32_t ino, union obd_ext4_inode *inode, uint64_t bytes, obd_ext4_data_fn *data,
		      void *ctx, struct obd_err *err)
{
	struct writer w = {.fs = fs, .ino = ino, .inode = inode};
	const uint64_t most = (uint64_t)(UINT32_MAX - 1) * fs->fs->blocksize;
	if (bytes > most)
		return obd_err_set(err, EFBIG, "%llu bytes, allowed: %llu", (unsigned long long)bytes,
				   (unsigned long long)most);
	w.buf = malloc(BUF_BYTES);
	if (!w.buf)
		return obd_err_set(err, ENOMEM, "out of memory");
	const int rc = copy_all(&w, bytes, data, ctx, err);
	if (w.h)
		ext2fs_extent_free(w.h);
	free(w.buf);
	return rc;
}
