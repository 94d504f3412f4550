/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Hash trees of large directories, as the kernel reads them.
 *
 *     block 0   "." and ".." (whose record covers the rest) | kind of hash, levels | limit, count | (hash, block) ...
 *     nodes     with two levels: an empty record over all | limit, count | (hash, block) ...
 *     leaves    ordinary directory blocks, each with the names whose hash lies between its own and the next entry's
 *
 * The hash of an entry's first place is not stored: limit and count stand there. Bit 0 of a hash is set in an index entry
 * when names of the same hash stand in the leaf before, too.
 */
#include "tools/apply/ext4_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/le.h"

enum { ROOT_INFO = 24, ROOT_LIMIT = 32, NODE_LIMIT = 8, ENTRY = 8, LEVELS_MAX = 1 };

struct hashed {
	uint32_t hash, minor;
	const struct obd_ext4_name *name;
	const char *text;
};

static bool hash_of(struct obd_ext4 *fs, uint8_t version, const char *name, size_t len, uint32_t *hash, uint32_t *minor)
{
	const struct ext2_super_block *sb = fs->fs->super;
	int v = version;
	if (v > EXT2_HASH_TEA)
		return false;
	if (sb->s_flags & EXT2_FLAGS_UNSIGNED_HASH)
		v += 3;
	return ext2fs_dirhash2(v, name, (int)len, NULL, 0, sb->s_hash_seed, hash, minor) == 0;
}

/* How many entries fit behind offset at of a block. */
static uint32_t limit_of(const struct obd_ext4 *fs, uint32_t at)
{
	/* The checksum of an index block takes the place of one entry. */
	return (fs->fs->blocksize - at - (fs->tail_bytes ? ENTRY : 0)) / ENTRY;
}

/* ---- looking up -------------------------------------------------------------------------------------------------------- */

/* The last entry whose hash is not above. */
static bool step_down(const struct obd_ext4 *fs, const unsigned char *block, uint32_t at, uint32_t nblocks, uint32_t hash,
		      uint32_t *next)
{
	const uint32_t limit = obd_get_le16(block + at), count = obd_get_le16(block + at + 2);
	uint32_t lo = 1, hi = count;
	if (count == 0 || count > limit || limit > limit_of(fs, at))
		return false;
	while (lo < hi) {
		const uint32_t mid = (lo + hi) / 2;
		if (obd_get_le32(block + at + mid * ENTRY) > hash)
			hi = mid;
		else
			lo = mid + 1;
	}
	*next = obd_get_le32(block + at + (lo - 1) * ENTRY + 4) & 0x0fffffff;
	return *next > 0 && *next < nblocks;
}

bool obd_ext4_index_leaf(struct obd_ext4 *fs, const struct obd_ext4_dir *d, const char *name, size_t len, uint32_t *block)
{
	const unsigned char *info = d->buf + ROOT_INFO;
	uint32_t hash, minor;
	if (obd_get_le32(info) != 0 || info[5] != 8 || info[6] > LEVELS_MAX || info[7] != 0 ||
	    !hash_of(fs, info[4], name, len, &hash, &minor))
		return false;
	if (!step_down(fs, d->buf, ROOT_LIMIT, d->nblocks, hash, block))
		return false;
	for (unsigned level = info[6]; level; level--)
		if (!step_down(fs, d->buf + (size_t)*block * fs->fs->blocksize, NODE_LIMIT, d->nblocks, hash, block))
			return false;
	return true;
}

/* ---- building ---------------------------------------------------------------------------------------------------------- */

struct plan {
	struct obd_ext4 *fs;
	const struct obd_ext4_dir *d;
	struct hashed *names;
	uint32_t n;
	uint32_t *first; /* of each leaf: number of its first name */
	uint32_t nleaves;
	uint32_t nnodes; /* 0: the root points to the leaves */
	unsigned char *buf;
	uint32_t nblocks;
};

static int by_hash(const void *pa, const void *pb)
{
	const struct hashed *a = pa, *b = pb;
	if (a->hash != b->hash)
		return a->hash < b->hash ? -1 : 1;
	if (a->minor != b->minor)
		return a->minor < b->minor ? -1 : 1;
	const size_t n = a->name->len < b->name->len ? a->name->len : b->name->len;
	const int c = memcmp(a->text, b->text, n);
	return c ? c : (int)a->name->len - (int)b->name->len;
}

static uint32_t collect(struct obd_ext4 *fs, const struct obd_ext4_dir *d, struct hashed *out, bool hash)
{
	uint32_t n = 0;
	for (uint32_t i = 0; i < d->n; i++) {
		const struct obd_ext4_name *e = &d->name[i];
		if (!e->ino)
			continue;
		out[n] = (struct hashed){.name = e, .text = d->names + e->at};
		if (hash && !hash_of(fs, fs->fs->super->s_def_hash_version, out[n].text, e->len, &out[n].hash, &out[n].minor))
			return UINT32_MAX;
		n++;
	}
	return n;
}

/* Leaves keep an eighth free, so that a later layer that adds a name changes one block. */
static void cut_leaves(struct plan *p, uint32_t room)
{
	uint32_t used = 0;
	for (uint32_t i = 0; i < p->n; i++) {
		const uint32_t bytes = obd_ext4_rec_bytes(p->names[i].name->len);
		if (p->nleaves == 0 || used + bytes > room) {
			p->first[p->nleaves++] = i;
			used = 0;
		}
		used += bytes;
	}
}

static unsigned char *block_at(struct plan *p, uint32_t number)
{
	return p->buf + (size_t)number * p->fs->fs->blocksize;
}

static void put_record(unsigned char *at, uint32_t ino, uint32_t rec, const char *name, size_t len, uint8_t type)
{
	obd_put_le32(at, ino);
	obd_put_le16(at + 4, (uint16_t)rec);
	at[6] = (uint8_t)len;
	at[7] = type;
	memcpy(at + 8, name, len);
}

static void put_dots(struct plan *p, uint32_t dotdot_bytes)
{
	put_record(p->buf, p->d->ino, 12, ".", 1, EXT2_FT_DIR);
	put_record(p->buf + 12, p->d->parent, dotdot_bytes, "..", 2, EXT2_FT_DIR);
}

/* Fills a block from offset at with names [first, end). */
static void put_names(struct plan *p, unsigned char *block, uint32_t at, uint32_t first, uint32_t end)
{
	const uint32_t limit = p->fs->fs->blocksize - p->fs->tail_bytes;
	for (uint32_t i = first; i < end; i++) {
		const struct obd_ext4_name *e = p->names[i].name;
		const uint32_t rec = i + 1 == end ? limit - at : obd_ext4_rec_bytes(e->len);
		put_record(block + at, e->ino, rec, p->names[i].text, e->len, e->type);
		at += rec;
	}
	if (p->fs->tail_bytes)
		ext2fs_initialize_dirent_tail(p->fs->fs, (struct ext2_dir_entry_tail *)(void *)(block + limit));
}

static uint32_t leaf_end(const struct plan *p, uint32_t leaf)
{
	return leaf + 1 == p->nleaves ? p->n : p->first[leaf + 1];
}

static uint32_t leaf_hash(const struct plan *p, uint32_t leaf)
{
	const uint32_t first = p->first[leaf], hash = p->names[first].hash;
	return first && p->names[first - 1].hash == hash ? hash | 1 : hash;
}

/* Index entries for leaves [first, end) at offset at of a block; blocks of leaves start behind the nodes. */
static void put_leaf_entries(struct plan *p, unsigned char *block, uint32_t at, uint32_t first, uint32_t end)
{
	for (uint32_t leaf = first; leaf < end; leaf++) {
		unsigned char *e = block + at + (leaf - first) * ENTRY;
		obd_put_le32(e, leaf_hash(p, leaf));
		obd_put_le32(e + 4, 1 + p->nnodes + leaf);
	}
	obd_put_le16(block + at, (uint16_t)limit_of(p->fs, at));
	obd_put_le16(block + at + 2, (uint16_t)(end - first));
}

static void put_root(struct plan *p)
{
	unsigned char *info = p->buf + ROOT_INFO;
	put_dots(p, p->fs->fs->blocksize - 12);
	info[4] = p->fs->fs->super->s_def_hash_version;
	info[5] = 8;
	info[6] = p->nnodes ? 1 : 0;
}

static void put_nodes(struct plan *p)
{
	const uint32_t per_node = limit_of(p->fs, NODE_LIMIT);
	for (uint32_t node = 0; node < p->nnodes; node++) {
		unsigned char *block = block_at(p, 1 + node), *e = p->buf + ROOT_LIMIT + node * ENTRY;
		const uint32_t first = node * per_node;
		const uint32_t end = p->nleaves - first < per_node ? p->nleaves : first + per_node;
		put_record(block, 0, p->fs->fs->blocksize, "", 0, 0);
		put_leaf_entries(p, block, NODE_LIMIT, first, end);
		obd_put_le32(e, leaf_hash(p, first));
		obd_put_le32(e + 4, 1 + node);
	}
	obd_put_le16(p->buf + ROOT_LIMIT, (uint16_t)limit_of(p->fs, ROOT_LIMIT));
	obd_put_le16(p->buf + ROOT_LIMIT + 2, (uint16_t)p->nnodes);
}

static int allocate(struct plan *p, uint32_t nblocks, struct obd_err *err)
{
	p->nblocks = nblocks;
	if ((uint64_t)nblocks * p->fs->fs->blocksize <= OBD_EXT4_DIR_MAX)
		p->buf = calloc(nblocks, p->fs->fs->blocksize);
	else
		return obd_err_set(err, EFBIG, "a directory of more than %u bytes", OBD_EXT4_DIR_MAX);
	return p->buf ? 0 : obd_err_set(err, ENOMEM, "out of memory");
}

static int build_tree(struct plan *p, struct obd_err *err)
{
	const uint32_t room = p->fs->fs->blocksize - p->fs->tail_bytes;
	const uint32_t in_root = limit_of(p->fs, ROOT_LIMIT), in_node = limit_of(p->fs, NODE_LIMIT);
	qsort(p->names, p->n, sizeof(*p->names), by_hash);
	cut_leaves(p, room - room / 8);
	if (p->nleaves > in_root)
		p->nnodes = (p->nleaves + in_node - 1) / in_node;
	if (p->nnodes > in_root)
		return obd_err_set(err, EFBIG, "a directory of %u names", p->n);
	int rc = allocate(p, 1 + p->nnodes + p->nleaves, err);
	if (rc)
		return rc;
	put_root(p);
	if (p->nnodes)
		put_nodes(p);
	else
		put_leaf_entries(p, p->buf, ROOT_LIMIT, 0, p->nleaves);
	for (uint32_t leaf = 0; leaf < p->nleaves; leaf++)
		put_names(p, block_at(p, 1 + p->nnodes + leaf), 0, p->first[leaf], leaf_end(p, leaf));
	return 0;
}

/* Without an index: names in the order in which they came, the first block has the dots. */
static int build_list(struct plan *p, struct obd_err *err)
{
	const uint32_t room = p->fs->fs->blocksize - p->fs->tail_bytes;
	uint32_t used = 24;
	p->nleaves = 1;
	p->first[0] = 0;
	for (uint32_t i = 0; i < p->n; i++) {
		const uint32_t bytes = obd_ext4_rec_bytes(p->names[i].name->len);
		if (used + bytes > room) {
			p->first[p->nleaves++] = i;
			used = 0;
		}
		used += bytes;
	}
	int rc = allocate(p, p->nleaves, err);
	if (rc)
		return rc;
	put_names(p, p->buf, 24, 0, leaf_end(p, 0));
	put_dots(p, leaf_end(p, 0) ? 12 : room - 12);
	for (uint32_t leaf = 1; leaf < p->nleaves; leaf++)
		put_names(p, block_at(p, leaf), 0, p->first[leaf], leaf_end(p, leaf));
	return 0;
}

int obd_ext4_index_build(struct obd_ext4 *fs, const struct obd_ext4_dir *d, unsigned char **buf, uint32_t *nblocks,
			 bool *indexed, struct obd_err *err)
{
	struct plan p = {.fs = fs, .d = d};
	const bool small = d->live_bytes + 24 <= fs->fs->blocksize - fs->tail_bytes;
	*indexed = !small && ext2fs_has_feature_dir_index(fs->fs->super);
	p.names = calloc((size_t)d->live + 1, sizeof(*p.names));
	p.first = calloc((size_t)d->live + 1, sizeof(*p.first));
	int rc = p.names && p.first ? 0 : obd_err_set(err, ENOMEM, "out of memory");
	if (!rc)
		p.n = collect(fs, d, p.names, *indexed);
	if (!rc && p.n == UINT32_MAX)
		rc = obd_err_set(err, EINVAL, "the file system's directory hash %u is not supported",
				 fs->fs->super->s_def_hash_version);
	if (!rc)
		rc = *indexed ? build_tree(&p, err) : build_list(&p, err);
	free(p.names);
	free(p.first);
	*buf = p.buf;
	*nblocks = p.nblocks;
	return rc;
}
