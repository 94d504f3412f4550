/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Paths and names.
 *
 * What this layer itself brought must survive its own whiteouts, wherever they stand in the tar. A bit per inode says "made,
 * declared or passed through by this layer"; a hard link to a file of a lower layer has an inode that is not ours, so its
 * name is remembered (as a hash) instead.
 */
#include "tools/apply/ext4_impl.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tools/apply/path.h"

enum { SYMLINKS_MAX = 40, FAST_LINK_BYTES = 60 };

/* ---- what is ours ------------------------------------------------------------------------------------------------------ */

static bool is_mine(const struct obd_ext4 *fs, uint32_t ino)
{
	return ino <= fs->fs->super->s_inodes_count && fs->mine[ino / 8] >> ino % 8 & 1;
}

static void claim(struct obd_ext4 *fs, uint32_t ino)
{
	fs->mine[ino / 8] |= (uint8_t)(1u << ino % 8);
}

static uint64_t link_hash(uint32_t dir, const char *name, size_t len)
{
	uint64_t h = UINT64_C(14695981039346656037) ^ dir * UINT64_C(0x9E3779B97F4A7C15);
	for (size_t i = 0; i < len; i++)
		h = (h ^ (unsigned char)name[i]) * UINT64_C(1099511628211);
	return h ? h : 1;
}

static size_t link_slot(const struct obd_ext4 *fs, uint64_t hash)
{
	size_t slot = (size_t)(hash >> 7) & (fs->links_size - 1);
	while (fs->links[slot] && fs->links[slot] != hash)
		slot = (slot + 1) & (fs->links_size - 1);
	return slot;
}

static bool is_my_link(const struct obd_ext4 *fs, uint32_t dir, const char *name, size_t len)
{
	return fs->links_n && fs->links[link_slot(fs, link_hash(dir, name, len))];
}

static int claim_link(struct obd_ext4 *fs, uint32_t dir, const char *name, size_t len, struct obd_err *err)
{
	if (fs->links_n * 2 >= fs->links_size) {
		const size_t old_size = fs->links_size;
		uint64_t *old = fs->links, *bigger = calloc(old_size ? old_size * 2 : 64, sizeof(*bigger));
		if (!bigger)
			return obd_err_set(err, ENOMEM, "out of memory");
		fs->links = bigger;
		fs->links_size = old_size ? old_size * 2 : 64;
		for (size_t i = 0; i < old_size; i++)
			if (old[i])
				fs->links[link_slot(fs, old[i])] = old[i];
		free(old);
	}
	const uint64_t hash = link_hash(dir, name, len);
	const size_t slot = link_slot(fs, hash);
	fs->links_n += fs->links[slot] == 0;
	fs->links[slot] = hash;
	return 0;
}

/* ---- removing ---------------------------------------------------------------------------------------------------------- */

static int check_ino(struct obd_ext4 *fs, uint32_t ino, struct obd_err *err)
{
	if (obd_ext4_inode_ok(fs, ino) && ino != EXT2_ROOT_INO)
		return 0;
	return obd_err_set(err, EUCLEAN, "file system: a name for inode %u, which is not in use", ino);
}

/* Takes one name away from a file. */
static int drop_link(struct obd_ext4 *fs, uint32_t ino, struct obd_err *err)
{
	union obd_ext4_inode inode;
	int rc = check_ino(fs, ino, err);
	if (!rc)
		rc = obd_ext4_inode_read(fs, ino, &inode, err);
	if (rc)
		return rc;
	if (LINUX_S_ISDIR(inode.small.i_mode))
		return obd_err_set(err, EUCLEAN, "file system: inode %u is a directory, its name says otherwise", ino);
	if (inode.small.i_links_count > 1) {
		inode.small.i_links_count--;
		return obd_ext4_inode_write(fs, ino, &inode, err);
	}
	return obd_ext4_inode_free(fs, ino, &inode, err);
}

/* Directories still to be worked on. */
struct todo {
	struct {
		uint32_t ino;
		bool keep_mine;
	} * at;
	size_t n, cap;
};

static int push(struct todo *t, uint32_t ino, bool keep_mine, struct obd_err *err)
{
	if (t->n == t->cap) {
		const size_t cap = t->cap ? t->cap * 2 : 64;
		void *p = reallocarray(t->at, cap, sizeof(*t->at));
		if (!p)
			return obd_err_set(err, ENOMEM, "out of memory");
		t->at = p;
		t->cap = cap;
	}
	t->at[t->n].ino = ino;
	t->at[t->n++].keep_mine = keep_mine;
	return 0;
}

static bool keeps(const struct obd_ext4 *fs, const struct obd_ext4_dir *d, const struct obd_ext4_name *e)
{
	return is_mine(fs, e->ino) || e->ino == fs->lost_found || is_my_link(fs, d->ino, d->names + e->at, e->len);
}

static int prune_name(struct obd_ext4 *fs, struct obd_ext4_dir *d, struct obd_ext4_name *e, bool keep_mine, struct todo *t,
		      struct obd_err *err)
{
	const bool dir = e->type == EXT2_FT_DIR, kept = keep_mine && keeps(fs, d, e);
	const uint32_t ino = e->ino;
	if (kept)
		return dir && ino != fs->lost_found ? push(t, ino, true, err) : 0;
	if (keep_mine)
		obd_ext4_dir_remove(fs, d, e);
	return dir ? push(t, ino, false, err) : drop_link(fs, ino, err);
}

/* Empties one directory; one that is not kept goes itself. */
static int prune_one(struct obd_ext4 *fs, uint32_t ino, bool keep_mine, struct todo *t, struct obd_err *err)
{
	struct obd_ext4_dir *d;
	union obd_ext4_inode inode;
	int rc = keep_mine ? 0 : check_ino(fs, ino, err);
	if (!rc)
		rc = obd_ext4_dir_get(fs, ino, &d, err);
	for (uint32_t i = 0; !rc && i < d->n; i++)
		if (d->name[i].ino)
			rc = prune_name(fs, d, &d->name[i], keep_mine, t, err);
	if (rc || keep_mine)
		return rc;
	obd_ext4_dir_forget(fs, ino);
	rc = obd_ext4_inode_read(fs, ino, &inode, err);
	return rc ? rc : obd_ext4_inode_free(fs, ino, &inode, err);
}

static int prune(struct obd_ext4 *fs, uint32_t ino, bool keep_mine, struct obd_err *err)
{
	struct todo t = {0};
	int rc = push(&t, ino, keep_mine, err);
	while (!rc && t.n) {
		t.n--;
		rc = prune_one(fs, t.at[t.n].ino, t.at[t.n].keep_mine, &t, err);
		if (!rc)
			rc = obd_ext4_dirs_trim(fs, err);
	}
	free(t.at);
	return rc;
}

/* Removes the name and all that hangs on it. Directories may be written meanwhile: pointers to them end here. */
static int remove_name(struct obd_ext4 *fs, struct obd_ext4_dir *d, struct obd_ext4_name *e, struct obd_err *err)
{
	const uint32_t ino = e->ino;
	const bool dir = e->type == EXT2_FT_DIR;
	obd_ext4_dir_remove(fs, d, e);
	return dir ? prune(fs, ino, false, err) : drop_link(fs, ino, err);
}

/* ---- paths ------------------------------------------------------------------------------------------------------------- */

static const struct obd_tar_entry made_parent = {.mode = S_IFDIR | 0755};

static int add_name(struct obd_ext4 *fs, uint32_t dir, const char *name, size_t len, uint32_t ino, uint8_t type,
		    struct obd_err *err)
{
	struct obd_ext4_dir *d;
	const int rc = obd_ext4_dir_get(fs, dir, &d, err);
	return rc ? rc : obd_ext4_dir_add(fs, d, name, len, ino, type, err);
}

static int make_dir(struct obd_ext4 *fs, uint32_t parent, const char *name, size_t len, const struct obd_tar_entry *e,
		    uint32_t *ino, struct obd_err *err)
{
	union obd_ext4_inode inode;
	struct obd_ext4_dir *d;
	int rc = obd_ext4_inode_new(fs, true, ino, err);
	if (rc)
		return rc;
	obd_ext4_inode_fill(fs, e, &inode);
	inode.small.i_links_count = 2;
	inode.small.i_flags = EXT4_EXTENTS_FL;
	rc = obd_ext4_inode_write(fs, *ino, &inode, err);
	if (!rc)
		rc = obd_ext4_xattrs_put(fs, *ino, e, err);
	if (!rc)
		rc = obd_ext4_dir_new(fs, *ino, parent, &d, err);
	return rc ? rc : add_name(fs, parent, name, len, *ino, EXT2_FT_DIR, err);
}

struct walk {
	uint32_t dir;
	unsigned links;
	char rest[2 * PATH_MAX]; /* what is still to be walked; its last component is never followed */
	char *at;
};

/* The symbolic link's target takes its place before the rest. */
static int follow(struct obd_ext4 *fs, struct walk *w, uint32_t ino, struct obd_err *err)
{
	char target[PATH_MAX];
	const int rc = obd_ext4_symlink_read(fs, ino, target, err);
	if (rc)
		return rc;
	const size_t n = strlen(target), rest = strlen(w->at);
	if (++w->links > SYMLINKS_MAX)
		return obd_err_set(err, ELOOP, "more than %d symbolic links on the way", SYMLINKS_MAX);
	if (n + 1 + rest >= sizeof(w->rest))
		return obd_err_set(err, ENAMETOOLONG, "symbolic links make the path longer than %zu bytes",
				   sizeof(w->rest) - 1);
	memmove(w->rest + n + 1, w->at, rest + 1);
	memcpy(w->rest, target, n);
	w->rest[n] = '/';
	w->at = w->rest;
	if (target[0] == '/')
		w->dir = EXT2_ROOT_INO;
	return 0;
}

/* One component that is not the last. make: a directory is wanted here, whatever it takes. */
static int step(struct obd_ext4 *fs, struct walk *w, const char *name, size_t len, bool make, struct obd_err *err)
{
	struct obd_ext4_dir *d;
	int rc = obd_ext4_dir_get(fs, w->dir, &d, err);
	if (rc)
		return rc;
	if (len == 2 && name[0] == '.' && name[1] == '.') {
		w->dir = d->parent;
		return obd_ext4_inode_ok(fs, w->dir)
			       ? 0
			       : obd_err_set(err, EUCLEAN, "file system: damaged parent of inode %u", d->ino);
	}
	if (len > OBD_NAME_BYTES_MAX)
		return obd_err_set(err, ENAMETOOLONG, "a symbolic link on the way has a component of %zu bytes", len);
	struct obd_ext4_name *e = obd_ext4_dir_find(d, name, len);
	if (e && e->type == EXT2_FT_SYMLINK)
		return follow(fs, w, e->ino, err);
	if (e && e->type != EXT2_FT_DIR && make) {
		rc = remove_name(fs, d, e, err);
		e = NULL;
	}
	if (rc)
		return rc;
	if (e && e->type == EXT2_FT_DIR) {
		w->dir = e->ino;
		if (make && obd_ext4_inode_ok(fs, e->ino))
			claim(fs, e->ino);
		return obd_ext4_inode_ok(fs, e->ino) ? 0 : check_ino(fs, e->ino, err);
	}
	if (!make)
		return obd_err_set(err, e ? ENOTDIR : ENOENT, "no such file or directory");
	return make_dir(fs, w->dir, name, len, &made_parent, &w->dir, err);
}

/* Finds (or makes) the directory that the last component of the clean path lies in. w->at is that component then. */
static int walk_to(struct obd_ext4 *fs, struct walk *w, const char *path, bool make, struct obd_err *err)
{
	char name[PATH_MAX];
	int rc = obd_ext4_dirs_trim(fs, err);
	w->dir = EXT2_ROOT_INO;
	w->links = 0;
	strcpy(w->rest, path);
	w->at = w->rest;
	while (!rc) {
		w->at += strspn(w->at, "/");
		const size_t len = strcspn(w->at, "/");
		if (!w->at[len])
			return 0;
		memcpy(name, w->at, len);
		w->at += len;
		if (len != 1 || name[0] != '.')
			rc = step(fs, w, name, len, make, err);
	}
	return rc;
}

/* Looks the last component up: *e is NULL when it is not there. */
static int find_last(struct obd_ext4 *fs, struct walk *w, const char *path, bool make, struct obd_ext4_dir **d,
		     struct obd_ext4_name **e, struct obd_err *err)
{
	int rc = walk_to(fs, w, path, make, err);
	if (!rc)
		rc = obd_ext4_dir_get(fs, w->dir, d, err);
	if (!rc)
		*e = obd_ext4_dir_find(*d, w->at, strlen(w->at));
	return rc;
}

/* ---- entries ----------------------------------------------------------------------------------------------------------- */

static uint8_t type_of(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
		return EXT2_FT_REG_FILE;
	case S_IFLNK:
		return EXT2_FT_SYMLINK;
	case S_IFCHR:
		return EXT2_FT_CHRDEV;
	case S_IFBLK:
		return EXT2_FT_BLKDEV;
	case S_IFIFO:
		return EXT2_FT_FIFO;
	case S_IFSOCK:
		return EXT2_FT_SOCK;
	case S_IFDIR:
		return EXT2_FT_DIR;
	default:
		return EXT2_FT_UNKNOWN;
	}
}

static int fill_device(const struct obd_tar_entry *e, union obd_ext4_inode *inode, struct obd_err *err)
{
	if (e->major > 0xfff || e->minor > 0xfffff)
		return obd_err_set(err, ERANGE, "device %u,%u, allowed: up to 4095,1048575", e->major, e->minor);
	if (e->major < 256 && e->minor < 256)
		inode->small.i_block[0] = e->major << 8 | e->minor;
	else
		inode->small.i_block[1] = (e->minor & 0xff) | e->major << 8 | (e->minor & ~0xffu) << 12;
	return 0;
}

/* The target of a symbolic link as the data of a file. */
struct text {
	const char *at;
	size_t n;
};

static int text_data(void *ctx, const void **buf, size_t *n, uint64_t *off, struct obd_err *err)
{
	struct text *t = ctx;
	(void)err;
	*buf = t->at;
	*n = t->n;
	*off = 0;
	t->n = 0;
	return *n != 0;
}

static int fill_symlink(struct obd_ext4 *fs, uint32_t ino, const struct obd_tar_entry *e, union obd_ext4_inode *inode,
			struct obd_err *err)
{
	struct text t = {.at = e->link ? e->link : ""};
	t.n = strlen(t.at);
	if (t.n == 0)
		return obd_err_set(err, EINVAL, "a symbolic link to nothing");
	if (t.n >= PATH_MAX || t.n >= fs->fs->blocksize)
		return obd_err_set(err, ENAMETOOLONG, "the target of a symbolic link has %zu bytes", t.n);
	inode->small.i_size = (uint32_t)t.n;
	if (t.n >= FAST_LINK_BYTES)
		return obd_ext4_data_put(fs, ino, inode, t.n, text_data, &t, err);
	memcpy(inode->small.i_block, t.at, t.n);
	return 0;
}

static int fill_file(struct obd_ext4 *fs, uint32_t ino, const struct obd_tar_entry *e, union obd_ext4_inode *inode,
		     obd_ext4_data_fn *data, void *ctx, struct obd_err *err)
{
	const int rc = obd_ext4_data_put(fs, ino, inode, e->bytes, data, ctx, err);
	if (rc)
		return rc;
	const errcode_t code = ext2fs_inode_size_set(fs->fs, &inode->small, (ext2_off64_t)e->bytes);
	return code ? obd_ext4_fail(fs, code, err, "size") : 0;
}

/* A new inode with all that belongs to it, still without a name. */
static int make_inode(struct obd_ext4 *fs, const struct obd_tar_entry *e, obd_ext4_data_fn *data, void *ctx, uint32_t *ino,
		      struct obd_err *err)
{
	union obd_ext4_inode inode;
	int rc = obd_ext4_inode_new(fs, false, ino, err);
	if (rc)
		return rc;
	obd_ext4_inode_fill(fs, e, &inode);
	if (S_ISREG(e->mode))
		rc = fill_file(fs, *ino, e, &inode, data, ctx, err);
	else if (S_ISLNK(e->mode))
		rc = fill_symlink(fs, *ino, e, &inode, err);
	else if (S_ISCHR(e->mode) || S_ISBLK(e->mode))
		rc = fill_device(e, &inode, err);
	if (!rc)
		rc = obd_ext4_inode_write(fs, *ino, &inode, err);
	return rc ? rc : obd_ext4_xattrs_put(fs, *ino, e, err);
}

/* Clears the way for a new entry, then names it. */
static int replace(struct obd_ext4 *fs, struct walk *w, uint32_t ino, uint8_t type, struct obd_err *err)
{
	const size_t len = strlen(w->at);
	struct obd_ext4_dir *d;
	int rc = obd_ext4_dir_get(fs, w->dir, &d, err);
	struct obd_ext4_name *e = rc ? NULL : obd_ext4_dir_find(d, w->at, len);
	if (e)
		rc = remove_name(fs, d, e, err);
	return rc ? rc : add_name(fs, w->dir, w->at, len, ino, type, err);
}

static int put_dir(struct obd_ext4 *fs, const char *path, const struct obd_tar_entry *e, struct obd_err *err)
{
	struct walk w;
	struct obd_ext4_dir *d;
	struct obd_ext4_name *name;
	uint32_t ino;
	if (!*path)
		return obd_ext4_inode_update(fs, EXT2_ROOT_INO, e, err);
	int rc = find_last(fs, &w, path, true, &d, &name, err);
	if (rc)
		return rc;
	if (name && name->type == EXT2_FT_DIR) {
		ino = name->ino;
		rc = check_ino(fs, ino, err);
		if (rc)
			return rc;
		claim(fs, ino);
		return obd_ext4_inode_update(fs, ino, e, err);
	}
	if (name)
		rc = remove_name(fs, d, name, err);
	return rc ? rc : make_dir(fs, w.dir, w.at, strlen(w.at), e, &ino, err);
}

/* Gives the file one more name. */
static int count_link(struct obd_ext4 *fs, uint32_t ino, struct obd_err *err)
{
	union obd_ext4_inode inode;
	int rc = check_ino(fs, ino, err);
	if (!rc)
		rc = obd_ext4_inode_read(fs, ino, &inode, err);
	if (rc)
		return rc;
	if (inode.small.i_links_count >= OBD_EXT4_LINK_MAX)
		return obd_err_set(err, EMLINK, "the file has %u links already", inode.small.i_links_count);
	inode.small.i_links_count++;
	return obd_ext4_inode_write(fs, ino, &inode, err);
}

static int put_hard_link(struct obd_ext4 *fs, const char *path, const char *link, struct obd_err *err)
{
	struct walk w;
	struct obd_ext4_dir *d;
	struct obd_ext4_name *name;
	char target[PATH_MAX], shown[200];
	int rc = obd_path_clean(link, target, err);
	if (!rc)
		rc = find_last(fs, &w, target, false, &d, &name, err);
	if (!rc && (!*target || !name))
		rc = obd_err_set(err, ENOENT, "no such file or directory");
	if (!rc && name->type == EXT2_FT_DIR)
		rc = obd_err_set(err, EPERM, "a directory");
	if (rc)
		return obd_err_prefix(err, rc, "hard link to %s", obd_path_show(link, shown));
	const uint32_t ino = name->ino;
	const uint8_t type = name->type;
	rc = find_last(fs, &w, path, true, &d, &name, err);
	if (rc)
		return rc;
	if (!is_mine(fs, ino))
		rc = claim_link(fs, w.dir, w.at, strlen(w.at), err);
	if (rc || (name && name->ino == ino))
		return rc;
	/* Counted first: what is replaced may hold the file's last other name. */
	rc = count_link(fs, ino, err);
	return rc ? rc : replace(fs, &w, ino, type, err);
}

int obd_ext4_put(struct obd_ext4 *fs, const char *path, const struct obd_tar_entry *e, obd_ext4_data_fn *data, void *ctx,
		 struct obd_err *err)
{
	struct walk w;
	uint32_t ino;
	const uint8_t type = type_of(e->mode);
	if (S_ISDIR(e->mode) && !e->hard_link)
		return put_dir(fs, path, e, err);
	if (!*path)
		return obd_err_set(err, EINVAL, "the root can only be a directory");
	if (e->hard_link)
		return put_hard_link(fs, path, e->link, err);
	if (type == EXT2_FT_UNKNOWN)
		return obd_err_set(err, EINVAL, "unknown type %#o", (unsigned)e->mode & S_IFMT);
	int rc = walk_to(fs, &w, path, true, err);
	if (!rc)
		rc = make_inode(fs, e, data, ctx, &ino, err);
	return rc ? rc : replace(fs, &w, ino, type, err);
}

int obd_ext4_whiteout(struct obd_ext4 *fs, const char *path, struct obd_err *err)
{
	struct walk w;
	struct obd_ext4_dir *d;
	struct obd_ext4_name *name;
	const int rc = find_last(fs, &w, path, true, &d, &name, err);
	if (rc || !name || name->ino == fs->lost_found)
		return rc;
	if (!keeps(fs, d, name))
		return remove_name(fs, d, name, err);
	return name->type == EXT2_FT_DIR ? prune(fs, name->ino, true, err) : 0;
}

int obd_ext4_opaque(struct obd_ext4 *fs, const char *path, struct obd_err *err)
{
	struct walk w;
	char inside[PATH_MAX + 2];
	/* The component behind it is never looked up: the walk ends in the directory itself. */
	strcpy(inside, path);
	strcat(inside, "/.");
	if (!*path)
		return prune(fs, EXT2_ROOT_INO, true, err);
	const int rc = walk_to(fs, &w, inside, true, err);
	return rc ? rc : prune(fs, w.dir, true, err);
}
