/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Directories in memory.
 *
 * A layer touches the same directories again and again, and looks every name up before it is added. So a directory is read
 * once, its names go into a hash table, and it is written when memory runs out or at the end. Blocks that did not change are
 * not written. What was read from the image is not trusted: every record is checked before it is used.
 */
#include "tools/apply/ext4_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/le.h"

/* Memory for directories, the one in use apart. */
enum { BUDGET_BYTES = 64 << 20 };

/* ---- blocks ------------------------------------------------------------------------------------------------------------ */

static uint32_t rec_len(const unsigned char *e)
{
	return obd_get_le16(e + 4);
}

static bool is_tail(const struct obd_ext4 *fs, const unsigned char *block, uint32_t at)
{
	return fs->tail_bytes && at == fs->fs->blocksize - fs->tail_bytes && obd_get_le32(block + at) == 0 &&
	       rec_len(block + at) == fs->tail_bytes;
}

/* The record at offset at lies in its block and holds its name. */
static bool record_ok(const struct obd_ext4 *fs, const unsigned char *block, uint32_t at)
{
	const uint32_t bs = fs->fs->blocksize;
	if (at + 8 > bs)
		return false;
	const uint32_t len = rec_len(block + at);
	return len >= 12 - 4 && len % 4 == 0 && len <= bs - at && obd_ext4_rec_bytes(block[at + 6]) <= len;
}

static void put_record(unsigned char *at, uint32_t ino, uint32_t rec, const char *name, size_t len, uint8_t type)
{
	obd_put_le32(at, ino);
	obd_put_le16(at + 4, (uint16_t)rec);
	at[6] = (uint8_t)len;
	at[7] = type;
	memcpy(at + 8, name, len);
	memset(at + 8 + len, 0, obd_ext4_rec_bytes(len) - 8 - len);
}

void obd_ext4_block_empty(struct obd_ext4 *fs, unsigned char *block)
{
	const uint32_t limit = fs->fs->blocksize - fs->tail_bytes;
	memset(block, 0, fs->fs->blocksize);
	put_record(block, 0, limit, "", 0, 0);
	if (fs->tail_bytes)
		ext2fs_initialize_dirent_tail(fs->fs, (struct ext2_dir_entry_tail *)(void *)(block + limit));
}

bool obd_ext4_block_insert(struct obd_ext4 *fs, unsigned char *block, const char *name, size_t len, uint32_t ino, uint8_t type)
{
	const uint32_t bs = fs->fs->blocksize, need = obd_ext4_rec_bytes(len);
	for (uint32_t at = 0; at < bs && !is_tail(fs, block, at); at += rec_len(block + at)) {
		if (!record_ok(fs, block, at))
			return false;
		const uint32_t have = rec_len(block + at);
		const uint32_t used = obd_get_le32(block + at) ? obd_ext4_rec_bytes(block[at + 6]) : 0;
		if (have - used < need)
			continue;
		if (used)
			obd_put_le16(block + at + 4, (uint16_t)used);
		put_record(block + at + used, ino, have - used, name, len, type);
		return true;
	}
	return false;
}

/* Takes the record out: the one before it swallows it, or it stays as an empty one. */
static bool block_remove(const struct obd_ext4 *fs, unsigned char *block, const char *name, size_t len)
{
	uint32_t before = UINT32_MAX;
	for (uint32_t at = 0; at < fs->fs->blocksize && record_ok(fs, block, at); before = at, at += rec_len(block + at)) {
		if (!obd_get_le32(block + at) || block[at + 6] != len || memcmp(block + at + 8, name, len))
			continue;
		const uint32_t rec = rec_len(block + at);
		memset(block + at + 8, 0, obd_ext4_rec_bytes(len) - 8);
		if (before != UINT32_MAX) {
			obd_put_le16(block + before + 4, (uint16_t)(rec_len(block + before) + rec));
			memset(block + at, 0, 8);
		} else {
			put_record(block + at, 0, rec, "", 0, 0);
		}
		return true;
	}
	return false;
}

/* ---- names ------------------------------------------------------------------------------------------------------------- */

static uint32_t text_hash(const char *name, size_t len)
{
	uint32_t h = 2166136261u;
	for (size_t i = 0; i < len; i++)
		h = (h ^ (unsigned char)name[i]) * 16777619u;
	return h ^ h >> 15;
}

static uint32_t slot_of(const struct obd_ext4_dir *d, const char *name, size_t len)
{
	uint32_t slot = text_hash(name, len) & (d->table_size - 1);
	while (d->table[slot]) {
		const struct obd_ext4_name *e = &d->name[d->table[slot] - 1];
		if (e->len == len && memcmp(d->names + e->at, name, len) == 0)
			break;
		slot = (slot + 1) & (d->table_size - 1);
	}
	return slot;
}

static int grow_table(struct obd_ext4 *fs, struct obd_ext4_dir *d)
{
	const uint32_t size = d->table_size ? d->table_size * 2 : 64;
	uint32_t *old = d->table, *table = calloc(size, sizeof(*table));
	if (!table)
		return -ENOMEM;
	fs->dir_bytes += (size - d->table_size) * sizeof(*table);
	d->table = table;
	d->table_size = size;
	for (uint32_t i = 0; i < d->n; i++)
		table[slot_of(d, d->names + d->name[i].at, d->name[i].len)] = i + 1;
	free(old);
	return 0;
}

static int grow_lists(struct obd_ext4 *fs, struct obd_ext4_dir *d, size_t len)
{
	if (d->n == d->cap) {
		const uint32_t cap = d->cap ? d->cap * 2 : 32;
		void *p = reallocarray(d->name, cap, sizeof(*d->name));
		if (!p)
			return -ENOMEM;
		fs->dir_bytes += (cap - d->cap) * sizeof(*d->name);
		d->name = p;
		d->cap = cap;
	}
	if (len > d->names_cap - d->names_len) {
		const uint32_t cap = d->names_cap * 2 + 1024;
		void *p = realloc(d->names, cap);
		if (!p)
			return -ENOMEM;
		fs->dir_bytes += cap - d->names_cap;
		d->names = p;
		d->names_cap = cap;
	}
	return 0;
}

/* Adds a name to the list, or brings a removed one back. The caller knows that it is not there. */
static int list_add(struct obd_ext4 *fs, struct obd_ext4_dir *d, const char *name, size_t len, uint32_t ino, uint8_t type)
{
	if (d->n >= OBD_EXT4_DIR_MAX / 16)
		return -EFBIG;
	if (d->n * 4 >= d->table_size * 3 && grow_table(fs, d))
		return -ENOMEM;
	const uint32_t slot = slot_of(d, name, len);
	if (!d->table[slot]) {
		if (grow_lists(fs, d, len))
			return -ENOMEM;
		d->name[d->n] = (struct obd_ext4_name){.at = d->names_len, .len = (uint8_t)len};
		memcpy(d->names + d->names_len, name, len);
		d->names_len += (uint32_t)len;
		d->table[slot] = ++d->n;
	}
	struct obd_ext4_name *e = &d->name[d->table[slot] - 1];
	if (e->ino)
		return -EEXIST;
	e->ino = ino;
	e->type = type;
	d->live++;
	d->live_bytes += obd_ext4_rec_bytes(len);
	return 0;
}

struct obd_ext4_name *obd_ext4_dir_find(struct obd_ext4_dir *d, const char *name, size_t len)
{
	const uint32_t slot = slot_of(d, name, len);
	struct obd_ext4_name *e = d->table[slot] ? &d->name[d->table[slot] - 1] : NULL;
	return e && e->ino ? e : NULL;
}

/* ---- cache ------------------------------------------------------------------------------------------------------------- */

static struct obd_ext4_dir **bucket_of(struct obd_ext4 *fs, uint32_t ino)
{
	return &fs->dir_bucket[ino % OBD_EXT4_DIR_BUCKETS];
}

static void free_dir(struct obd_ext4 *fs, struct obd_ext4_dir *d)
{
	struct obd_ext4_dir **at = bucket_of(fs, d->ino);
	while (*at != d)
		at = &(*at)->next;
	*at = d->next;
	obd_list_remove(&d->lru);
	fs->dir_bytes -= sizeof(*d) + (uint64_t)d->nblocks * (fs->fs->blocksize + 1) + d->cap * sizeof(*d->name) +
			 d->names_cap + d->table_size * sizeof(*d->table);
	free(d->buf);
	free(d->dirty);
	free(d->name);
	free(d->names);
	free(d->table);
	free(d);
}

/* An empty structure in the cache, with room for nblocks. */
static struct obd_ext4_dir *add_dir(struct obd_ext4 *fs, uint32_t ino, uint32_t nblocks)
{
	struct obd_ext4_dir *d = calloc(1, sizeof(*d));
	if (!d)
		return NULL;
	d->buf = calloc(nblocks, fs->fs->blocksize);
	d->dirty = calloc(nblocks, 1);
	if (!d->buf || !d->dirty) {
		free(d->buf);
		free(d->dirty);
		free(d);
		return NULL;
	}
	d->ino = ino;
	d->nblocks = nblocks;
	d->next = *bucket_of(fs, ino);
	*bucket_of(fs, ino) = d;
	obd_list_push_back(&fs->dirs, &d->lru);
	fs->dir_bytes += sizeof(*d) + (uint64_t)nblocks * (fs->fs->blocksize + 1);
	if (grow_table(fs, d)) {
		free_dir(fs, d);
		return NULL;
	}
	return d;
}

static struct obd_ext4_dir *cached_dir(struct obd_ext4 *fs, uint32_t ino)
{
	struct obd_ext4_dir *d = *bucket_of(fs, ino);
	while (d && d->ino != ino)
		d = d->next;
	return d;
}

void obd_ext4_dir_forget(struct obd_ext4 *fs, uint32_t ino)
{
	struct obd_ext4_dir *d = cached_dir(fs, ino);
	if (d)
		free_dir(fs, d);
}

void obd_ext4_dirs_free(struct obd_ext4 *fs)
{
	while (!obd_list_empty(&fs->dirs))
		free_dir(fs, OBD_CONTAINER_OF(fs->dirs.next, struct obd_ext4_dir, lru));
}

/* ---- reading ----------------------------------------------------------------------------------------------------------- */

static int damaged(const struct obd_ext4_dir *d, struct obd_err *err)
{
	return obd_err_set(err, EUCLEAN, "the directory with inode %u is damaged", d->ino);
}

static int take_record(struct obd_ext4 *fs, struct obd_ext4_dir *d, const unsigned char *e, struct obd_err *err)
{
	const uint32_t ino = obd_get_le32(e);
	const char *name = (const char *)e + 8;
	const size_t len = e[6];
	if (!ino)
		return 0;
	if (len == 1 && name[0] == '.')
		return ino == d->ino ? 0 : damaged(d, err);
	if (len == 2 && name[0] == '.' && name[1] == '.') {
		d->parent = ino;
		return 0;
	}
	if (len == 0 || memchr(name, '/', len) || memchr(name, 0, len))
		return damaged(d, err);
	const int rc = list_add(fs, d, name, len, ino, e[7]);
	if (rc == -EEXIST)
		return damaged(d, err);
	return rc ? obd_err_set(err, -rc, "the directory with inode %u is too large", d->ino) : 0;
}

static int parse(struct obd_ext4 *fs, struct obd_ext4_dir *d, struct obd_err *err)
{
	const uint32_t bs = fs->fs->blocksize;
	for (uint32_t b = 0; b < d->nblocks; b++) {
		const unsigned char *block = d->buf + (size_t)b * bs;
		for (uint32_t at = 0; at < bs && !is_tail(fs, block, at); at += rec_len(block + at)) {
			if (!record_ok(fs, block, at))
				return damaged(d, err);
			const int rc = take_record(fs, d, block + at, err);
			if (rc)
				return rc;
		}
	}
	/* The rest relies on "." and ".." being the first two. */
	if (rec_len(d->buf) != 12 || d->buf[6] != 1 || d->buf[8] != '.' || !d->parent || d->buf[12 + 6] != 2 ||
	    memcmp(d->buf + 12 + 8, "..", 2))
		return damaged(d, err);
	return 0;
}

static int read_blocks(struct obd_ext4 *fs, struct obd_ext4_dir *d, union obd_ext4_inode *inode, struct obd_err *err)
{
	for (uint32_t b = 0; b < d->nblocks; b++) {
		blk64_t pblk;
		errcode_t rc = ext2fs_bmap2(fs->fs, d->ino, &inode->small, NULL, 0, b, NULL, &pblk);
		if (!rc && pblk == 0)
			return damaged(d, err);
		if (!rc)
			rc = ext2fs_read_dir_block4(fs->fs, pblk, d->buf + (size_t)b * fs->fs->blocksize, 0, d->ino);
		if (rc)
			return obd_ext4_fail(fs, rc, err, "the directory with inode %u", d->ino);
	}
	return 0;
}

static int load(struct obd_ext4 *fs, uint32_t ino, struct obd_ext4_dir **out, struct obd_err *err)
{
	union obd_ext4_inode inode;
	int rc = obd_ext4_inode_read(fs, ino, &inode, err);
	if (rc)
		return rc;
	const uint64_t bytes = EXT2_I_SIZE(&inode.small);
	if (!LINUX_S_ISDIR(inode.small.i_mode) || bytes == 0 || bytes % fs->fs->blocksize || bytes > OBD_EXT4_DIR_MAX)
		return obd_err_set(err, EUCLEAN, "inode %u: not a directory of a size that can be", ino);
	struct obd_ext4_dir *d = add_dir(fs, ino, (uint32_t)(bytes / fs->fs->blocksize));
	if (!d)
		return obd_err_set(err, ENOMEM, "out of memory");
	d->disk_nblocks = d->nblocks;
	d->indexed = (inode.small.i_flags & EXT2_INDEX_FL) != 0;
	rc = read_blocks(fs, d, &inode, err);
	if (!rc)
		rc = parse(fs, d, err);
	if (rc)
		free_dir(fs, d);
	else
		*out = d;
	return rc;
}

int obd_ext4_dir_get(struct obd_ext4 *fs, uint32_t ino, struct obd_ext4_dir **out, struct obd_err *err)
{
	struct obd_ext4_dir *d = cached_dir(fs, ino);
	if (!d)
		return load(fs, ino, out, err);
	obd_list_remove(&d->lru);
	obd_list_push_back(&fs->dirs, &d->lru);
	*out = d;
	return 0;
}

int obd_ext4_dir_new(struct obd_ext4 *fs, uint32_t ino, uint32_t parent, struct obd_ext4_dir **out, struct obd_err *err)
{
	struct obd_ext4_dir *d = add_dir(fs, ino, 1);
	if (!d)
		return obd_err_set(err, ENOMEM, "out of memory");
	obd_ext4_block_empty(fs, d->buf);
	obd_ext4_block_insert(fs, d->buf, ".", 1, ino, EXT2_FT_DIR);
	obd_ext4_block_insert(fs, d->buf, "..", 2, parent, EXT2_FT_DIR);
	d->parent = parent;
	d->changed = true;
	d->dirty[0] = 1;
	*out = d;
	return 0;
}

/* ---- changing ---------------------------------------------------------------------------------------------------------- */

static unsigned char *block_of(struct obd_ext4 *fs, struct obd_ext4_dir *d, uint32_t b)
{
	return d->buf + (size_t)b * fs->fs->blocksize;
}

static bool insert_in_place(struct obd_ext4 *fs, struct obd_ext4_dir *d, const char *name, size_t len, uint32_t ino,
			    uint8_t type)
{
	uint32_t b = d->hint;
	if (d->indexed) {
		if (!obd_ext4_index_leaf(fs, d, name, len, &b) ||
		    !obd_ext4_block_insert(fs, block_of(fs, d, b), name, len, ino, type))
			return false;
		d->dirty[b] = 1;
		return true;
	}
	for (; b < d->nblocks; b++) {
		if (obd_ext4_block_insert(fs, block_of(fs, d, b), name, len, ino, type)) {
			d->dirty[b] = 1;
			return true;
		}
		d->hint = b + 1;
	}
	return false;
}

int obd_ext4_dir_add(struct obd_ext4 *fs, struct obd_ext4_dir *d, const char *name, size_t len, uint32_t ino, uint8_t type,
		     struct obd_err *err)
{
	const int rc = list_add(fs, d, name, len, ino, type);
	if (rc)
		return obd_err_set(err, -rc, "the directory takes no more names: %s", strerror(-rc));
	d->changed = true;
	if (!d->rebuild)
		d->rebuild = !insert_in_place(fs, d, name, len, ino, type);
	return 0;
}

/* Where the record stands: the leaf of the index, or the first block that has it. */
static void remove_in_place(struct obd_ext4 *fs, struct obd_ext4_dir *d, const char *name, size_t len)
{
	uint32_t b = 0;
	if (d->indexed && obd_ext4_index_leaf(fs, d, name, len, &b) && block_remove(fs, block_of(fs, d, b), name, len)) {
		d->dirty[b] = 1;
		return;
	}
	for (b = 0; b < d->nblocks; b++) {
		if (block_remove(fs, block_of(fs, d, b), name, len)) {
			d->dirty[b] = 1;
			if (b < d->hint)
				d->hint = b;
			return;
		}
	}
	d->rebuild = true;
}

void obd_ext4_dir_remove(struct obd_ext4 *fs, struct obd_ext4_dir *d, struct obd_ext4_name *name)
{
	if (!d->rebuild)
		remove_in_place(fs, d, d->names + name->at, name->len);
	name->ino = 0;
	d->live--;
	d->live_bytes -= obd_ext4_rec_bytes(name->len);
	d->changed = true;
}

/* ---- writing ----------------------------------------------------------------------------------------------------------- */

/* Replaces buf by a new layout; blocks that come out as they were stay clean. */
static int rebuild(struct obd_ext4 *fs, struct obd_ext4_dir *d, struct obd_err *err)
{
	const uint32_t bs = fs->fs->blocksize;
	unsigned char *buf;
	uint32_t nblocks;
	bool indexed;
	int rc = obd_ext4_index_build(fs, d, &buf, &nblocks, &indexed, err);
	if (rc)
		return rc;
	uint8_t *dirty = malloc(nblocks);
	if (!dirty) {
		free(buf);
		return obd_err_set(err, ENOMEM, "out of memory");
	}
	for (uint32_t b = 0; b < nblocks; b++)
		dirty[b] = b >= d->nblocks || d->dirty[b] || memcmp(buf + (size_t)b * bs, d->buf + (size_t)b * bs, bs) != 0;
	fs->dir_bytes += (uint64_t)nblocks * (bs + 1);
	fs->dir_bytes -= (uint64_t)d->nblocks * (bs + 1);
	free(d->buf);
	free(d->dirty);
	d->buf = buf;
	d->dirty = dirty;
	d->nblocks = nblocks;
	d->indexed = indexed;
	d->rebuild = false;
	d->hint = 0;
	return 0;
}

static errcode_t write_blocks(struct obd_ext4 *fs, struct obd_ext4_dir *d, union obd_ext4_inode *inode)
{
	errcode_t rc = 0;
	for (uint32_t b = 0; b < d->nblocks && !rc; b++) {
		const bool fresh = b >= d->disk_nblocks;
		blk64_t pblk = 0;
		if (!fresh && !d->dirty[b])
			continue;
		rc = ext2fs_bmap2(fs->fs, d->ino, &inode->small, NULL, fresh ? BMAP_ALLOC : 0, b, NULL, &pblk);
		if (!rc && pblk == 0)
			rc = EXT2_ET_DIR_CORRUPTED;
		if (!rc)
			rc = ext2fs_write_dir_block4(fs->fs, pblk, block_of(fs, d, b), 0, d->ino);
	}
	if (!rc && d->nblocks < d->disk_nblocks)
		rc = ext2fs_punch(fs->fs, d->ino, &inode->small, NULL, d->nblocks, ~0ULL);
	return rc;
}

static uint16_t link_count(const struct obd_ext4_dir *d)
{
	uint32_t n = 2;
	for (uint32_t i = 0; i < d->n; i++)
		n += d->name[i].ino && d->name[i].type == EXT2_FT_DIR;
	return (uint16_t)(n > OBD_EXT4_LINK_MAX ? 1 : n);
}

static int write_dir(struct obd_ext4 *fs, struct obd_ext4_dir *d, struct obd_err *err)
{
	union obd_ext4_inode inode;
	int rc = 0;
	if (!d->changed)
		return 0;
	if (d->nblocks > 1 && d->live_bytes * 4 < (uint64_t)d->nblocks * fs->fs->blocksize && d->ino != fs->lost_found)
		d->rebuild = true;
	if (d->rebuild)
		rc = rebuild(fs, d, err);
	if (!rc)
		rc = obd_ext4_inode_read(fs, d->ino, &inode, err);
	if (rc)
		return rc;
	errcode_t code = write_blocks(fs, d, &inode);
	if (!code)
		code = ext2fs_inode_size_set(fs->fs, &inode.small, (ext2_off64_t)((uint64_t)d->nblocks * fs->fs->blocksize));
	if (code)
		return obd_ext4_fail(fs, code, err, "writing a directory");
	inode.small.i_links_count = link_count(d);
	inode.small.i_flags &= ~(uint32_t)EXT2_INDEX_FL;
	inode.small.i_flags |= d->indexed ? EXT2_INDEX_FL : 0;
	rc = obd_ext4_inode_write(fs, d->ino, &inode, err);
	d->changed = false;
	d->disk_nblocks = d->nblocks;
	memset(d->dirty, 0, d->nblocks);
	return rc;
}

int obd_ext4_dirs_trim(struct obd_ext4 *fs, struct obd_err *err)
{
	while (fs->dir_bytes > BUDGET_BYTES && !obd_list_empty(&fs->dirs)) {
		struct obd_ext4_dir *d = OBD_CONTAINER_OF(fs->dirs.next, struct obd_ext4_dir, lru);
		const int rc = write_dir(fs, d, err);
		if (rc)
			return rc;
		free_dir(fs, d);
	}
	return 0;
}

static int by_ino(const void *pa, const void *pb)
{
	const struct obd_ext4_dir *a = *(struct obd_ext4_dir *const *)pa, *b = *(struct obd_ext4_dir *const *)pb;
	return (a->ino > b->ino) - (a->ino < b->ino);
}

int obd_ext4_dirs_flush(struct obd_ext4 *fs, struct obd_err *err)
{
	size_t n = 0;
	int rc = 0;
	for (struct obd_list *l = fs->dirs.next; l != &fs->dirs; l = l->next)
		n++;
	struct obd_ext4_dir **all = malloc((n + 1) * sizeof(struct obd_ext4_dir *));
	if (!all)
		return obd_err_set(err, ENOMEM, "out of memory");
	n = 0;
	for (struct obd_list *l = fs->dirs.next; l != &fs->dirs; l = l->next)
		all[n++] = OBD_CONTAINER_OF(l, struct obd_ext4_dir, lru);
	qsort(all, n, sizeof(struct obd_ext4_dir *), by_ino);
	for (size_t i = 0; i < n && !rc; i++)
		rc = write_dir(fs, all[i], err);
	free(all);
	return rc;
}
