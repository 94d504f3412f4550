/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tools/apply/ext4_impl.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/le.h"
#include "common/base/log.h"
#include "tools/apply/path.h"

enum { EXTRA_BYTES = 32, ACL_HEADER = 4, ACL_ENTRY = 8 };

int obd_ext4_inode_read(struct obd_ext4 *fs, uint32_t ino, union obd_ext4_inode *out, struct obd_err *err)
{
	memset(out, 0, sizeof(*out));
	const errcode_t rc = ext2fs_read_inode_full(fs->fs, ino, &out->small, (int)fs->inode_bytes);
	return rc ? obd_ext4_fail(fs, rc, err, "inode %u", ino) : 0;
}

int obd_ext4_inode_write(struct obd_ext4 *fs, uint32_t ino, union obd_ext4_inode *in, struct obd_err *err)
{
	const errcode_t rc = ext2fs_write_inode_full(fs->fs, ino, &in->small, (int)fs->inode_bytes);
	return rc ? obd_ext4_fail(fs, rc, err, "inode %u", ino) : 0;
}

bool obd_ext4_inode_ok(struct obd_ext4 *fs, uint32_t ino)
{
	return (ino == EXT2_ROOT_INO || ino >= EXT2_FIRST_INODE(fs->fs->super)) && ino <= fs->fs->super->s_inodes_count &&
	       ext2fs_test_inode_bitmap2(fs->fs->inode_map, ino);
}

int obd_ext4_inode_new(struct obd_ext4 *fs, bool dir, uint32_t *ino, struct obd_err *err)
{
	union obd_ext4_inode empty = {0};
	const errcode_t rc = ext2fs_new_inode(fs->fs, 0, 0, NULL, ino);
	if (rc)
		return obd_ext4_fail(fs, rc, err, "a new inode");
	ext2fs_inode_alloc_stats2(fs->fs, *ino, 1, dir);
	fs->mine[*ino / 8] |= (uint8_t)(1u << *ino % 8);
	return obd_ext4_inode_write(fs, *ino, &empty, err);
}

/* ---- attributes -------------------------------------------------------------------------------------------------------- */

/* Seconds take 34 bits with the two low bits of the extra field, counted from 1901. */
static void put_time(int64_t sec, uint32_t nsec, bool wide, uint32_t *low, uint32_t *extra)
{
	const int64_t first = INT32_MIN, last = wide ? (INT64_C(1) << 34) + INT32_MIN - 1 : INT32_MAX;
	/* The kernel has no fractions at the two ends. */
	if (sec <= first || sec >= last) {
		sec = sec <= first ? first : last;
		nsec = 0;
	}
	*low = (uint32_t)sec;
	*extra = (uint32_t)((uint64_t)(sec - (int32_t)*low) >> 32 & 3) | nsec << 2;
}

static void put_attributes(struct obd_ext4 *fs, const struct obd_tar_entry *e, union obd_ext4_inode *out)
{
	struct ext2_inode_large *i = &out->large;
	const bool wide = fs->inode_bytes > EXT2_GOOD_OLD_INODE_SIZE && i->i_extra_isize >= EXTRA_BYTES - 4;
	uint32_t low, extra;
	put_time(e->mtime_sec, e->mtime_nsec, wide, &low, &extra);
	i->i_mode = (uint16_t)(S_ISLNK(e->mode) ? S_IFLNK | 0777 : e->mode);
	i->i_uid = (uint16_t)e->uid;
	i->i_gid = (uint16_t)e->gid;
	i->osd2.linux2.l_i_uid_high = (uint16_t)(e->uid >> 16);
	i->osd2.linux2.l_i_gid_high = (uint16_t)(e->gid >> 16);
	i->i_atime = i->i_ctime = i->i_mtime = low;
	if (!wide)
		return;
	i->i_atime_extra = i->i_ctime_extra = i->i_mtime_extra = i->i_crtime_extra = extra;
	i->i_crtime = low;
}

void obd_ext4_inode_fill(struct obd_ext4 *fs, const struct obd_tar_entry *e, union obd_ext4_inode *out)
{
	memset(out, 0, sizeof(*out));
	out->large.i_links_count = 1;
	if (fs->inode_bytes > EXT2_GOOD_OLD_INODE_SIZE)
		out->large.i_extra_isize = EXTRA_BYTES;
	put_attributes(fs, e, out);
}

static errcode_t drop_xattrs(struct obd_ext4 *fs, uint32_t ino, union obd_ext4_inode *inode)
{
	const uint32_t fixed = EXT2_GOOD_OLD_INODE_SIZE + inode->large.i_extra_isize;
	if (fs->inode_bytes > EXT2_GOOD_OLD_INODE_SIZE && fixed < fs->inode_bytes)
		memset(inode->raw + fixed, 0, fs->inode_bytes - fixed);
	return ext2fs_free_ext_attr(fs->fs, ino, &inode->large);
}

int obd_ext4_inode_update(struct obd_ext4 *fs, uint32_t ino, const struct obd_tar_entry *e, struct obd_err *err)
{
	union obd_ext4_inode inode;
	int rc = obd_ext4_inode_read(fs, ino, &inode, err);
	if (rc)
		return rc;
	const errcode_t code = drop_xattrs(fs, ino, &inode);
	if (code)
		return obd_ext4_fail(fs, code, err, "extended attributes of inode %u", ino);
	put_attributes(fs, e, &inode);
	rc = obd_ext4_inode_write(fs, ino, &inode, err);
	return rc ? rc : obd_ext4_xattrs_put(fs, ino, e, err);
}

/* ---- extended attributes ------------------------------------------------------------------------------------------------ */

static bool is_acl(const char *name)
{
	return strcmp(name, "system.posix_acl_access") == 0 || strcmp(name, "system.posix_acl_default") == 0;
}

/* What the kernel knows. Others (of other systems) could never be read back. */
static bool known_space(const char *name)
{
	static const char *const spaces[] = {"user.", "trusted.", "security."};
	for (size_t i = 0; i < OBD_ARRAY_SIZE(spaces); i++)
		if (strncmp(name, spaces[i], strlen(spaces[i])) == 0)
			return name[strlen(spaces[i])] != '\0';
	return is_acl(name);
}

/* libext2fs turns access lists into their form on disk and relies on their shape. */
static bool acl_ok(const unsigned char *p, size_t n)
{
	return n > ACL_HEADER && (n - ACL_HEADER) % ACL_ENTRY == 0 && obd_get_le32(p) == 2;
}

static int put_xattr(struct obd_ext4 *fs, struct ext2_xattr_handle *h, const struct obd_tar_xattr *x, struct obd_err *err)
{
	char shown[200];
	obd_path_show(x->name, shown);
	if (!known_space(x->name)) {
		obd_warn("extended attribute %s is left out: not of the user, trusted or security name space", shown);
		return 0;
	}
	if (is_acl(x->name) && !acl_ok(x->value, x->bytes))
		return obd_err_set(err, EINVAL, "extended attribute %s: not an access list", shown);
	if (strlen(x->name) > OBD_NAME_BYTES_MAX || x->bytes > fs->fs->blocksize)
		return obd_err_set(err, E2BIG, "extended attribute %s has %zu bytes, which do not fit", shown, x->bytes);
	const errcode_t rc = ext2fs_xattr_set(h, x->name, x->value, x->bytes);
	if (rc == EXT2_ET_EA_NO_SPACE)
		return obd_err_set(err, E2BIG, "extended attribute %s has %zu bytes, which do not fit beside the others", shown,
				   x->bytes);
	return rc ? obd_ext4_fail(fs, rc, err, "extended attribute %s", shown) : 0;
}

int obd_ext4_xattrs_put(struct obd_ext4 *fs, uint32_t ino, const struct obd_tar_entry *e, struct obd_err *err)
{
	struct ext2_xattr_handle *h;
	int rc = 0;
	if (e->nxattrs == 0)
		return 0;
	errcode_t code = ext2fs_xattrs_open(fs->fs, ino, &h);
	if (code)
		return obd_ext4_fail(fs, code, err, "extended attributes");
	for (size_t i = 0; i < e->nxattrs && !rc; i++)
		rc = put_xattr(fs, h, &e->xattrs[i], err);
	ext2fs_xattrs_close(&h);
	return rc;
}

/* ---- symbolic links ----------------------------------------------------------------------------------------------------- */

int obd_ext4_symlink_read(struct obd_ext4 *fs, uint32_t ino, char *buf, struct obd_err *err)
{
	union obd_ext4_inode inode;
	unsigned char block[OBD_IO_PAGE_BYTES];
	blk64_t pblk;
	const int rc = obd_ext4_inode_read(fs, ino, &inode, err);
	if (rc)
		return rc;
	const uint64_t bytes = EXT2_I_SIZE(&inode.small);
	if (bytes == 0 || bytes >= PATH_MAX || bytes >= fs->fs->blocksize)
		return obd_err_set(err, EUCLEAN, "the symbolic link with inode %u is damaged", ino);
	if (ext2fs_is_fast_symlink(&inode.small)) {
		memcpy(buf, inode.small.i_block, (size_t)bytes);
	} else {
		errcode_t code = ext2fs_bmap2(fs->fs, ino, &inode.small, NULL, 0, 0, NULL, &pblk);
		if (!code && pblk == 0)
			code = EXT2_ET_BAD_BLOCK_NUM;
		if (!code)
			code = io_channel_read_blk64(fs->fs->io, pblk, 1, block);
		if (code)
			return obd_ext4_fail(fs, code, err, "the symbolic link with inode %u", ino);
		memcpy(buf, block, (size_t)bytes);
	}
	buf[bytes] = '\0';
	return 0;
}

/* ---- the end ------------------------------------------------------------------------------------------------------------ */

int obd_ext4_inode_free(struct obd_ext4 *fs, uint32_t ino, union obd_ext4_inode *inode, struct obd_err *err)
{
	const bool dir = LINUX_S_ISDIR(inode->small.i_mode);
	errcode_t rc = ext2fs_free_ext_attr(fs->fs, ino, &inode->large);
	if (!rc && ext2fs_inode_has_valid_blocks2(fs->fs, &inode->small))
		rc = ext2fs_punch(fs->fs, ino, &inode->small, NULL, 0, ~0ULL);
	if (rc)
		return obd_ext4_fail(fs, rc, err, "freeing inode %u", ino);
	ext2fs_inode_alloc_stats2(fs->fs, ino, -1, dir);
	fs->mine[ino / 8] &= (uint8_t) ~(1u << ino % 8);
	memset(inode, 0, sizeof(*inode));
	return obd_ext4_inode_write(fs, ino, inode, err);
}
