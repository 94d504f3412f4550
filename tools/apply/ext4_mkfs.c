/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A new file system, always the same one for the same size. No journal: image layers are written once, and a journal would
 * cost its size. Group checksums let unused groups' bitmaps stay unwritten, so 64 GiB take less than a megabyte.
 */
#include "tools/apply/ext4_impl.h"

#include <errno.h>
#include <string.h>

enum { BLOCK_BYTES = 4096, INODE_BYTES = 256, BYTES_PER_INODE = 16384, FLEX_LOG = 4 };

/* No random bits: equal layers must be equal files. Nobody mounts such an image by its uuid. */
static const unsigned char fixed_uuid[16] = {0x6f, 0x76, 0x65, 0x72, 0x6c, 0x61, 0x49, 0x62,
					     0x84, 0x2d, 0x65, 0x78, 0x74, 0x34, 0x66, 0x73};

static void set_features(struct ext2_super_block *sb)
{
	ext2fs_set_feature_xattr(sb);
	ext2fs_set_feature_dir_index(sb);
	ext2fs_set_feature_sparse_super2(sb);
	ext2fs_set_feature_filetype(sb);
	ext2fs_set_feature_extents(sb);
	ext2fs_set_feature_64bit(sb);
	ext2fs_set_feature_flex_bg(sb);
	ext2fs_set_feature_sparse_super(sb);
	ext2fs_set_feature_large_file(sb);
	ext2fs_set_feature_huge_file(sb);
	ext2fs_set_feature_gdt_csum(sb);
	ext2fs_set_feature_dir_nlink(sb);
	ext2fs_set_feature_extra_isize(sb);
}

static void set_params(struct ext2_super_block *sb, uint64_t bytes)
{
	const uint64_t inodes = bytes / BYTES_PER_INODE;
	memset(sb, 0, sizeof(*sb));
	sb->s_rev_level = EXT2_DYNAMIC_REV;
	sb->s_log_block_size = 2;
	sb->s_inode_size = INODE_BYTES;
	sb->s_inodes_count = (uint32_t)(inodes < (1u << 31) ? inodes : 1u << 31);
	sb->s_log_groups_per_flex = FLEX_LOG;
	sb->s_backup_bgs[0] = 1;
	sb->s_backup_bgs[1] = ~0u;
	sb->s_default_mount_opts = EXT2_DEFM_XATTR_USER | EXT2_DEFM_ACL;
	sb->s_max_mnt_count = -1;
	ext2fs_blocks_count_set(sb, bytes / BLOCK_BYTES);
	set_features(sb);
}

/* Unused inode tables must read as zeros: then the kernel has no zeroing to do when it mounts for writing. */
static errcode_t zero_tables(ext2_filsys fs)
{
	errcode_t rc = 0;
	for (dgrp_t g = 0; g < fs->group_desc_count && !rc; g++) {
		rc = obd_io_zero(fs->io, ext2fs_inode_table_loc(fs, g) * fs->blocksize,
				 (uint64_t)fs->inode_blocks_per_group * fs->blocksize);
		ext2fs_bg_flags_set(fs, g, EXT2_BG_INODE_ZEROED);
		ext2fs_group_desc_csum_set(fs, g);
	}
	return rc;
}

static errcode_t make_root(ext2_filsys fs)
{
	ext2_ino_t ino;
	errcode_t rc = ext2fs_mkdir(fs, EXT2_ROOT_INO, EXT2_ROOT_INO, NULL);
	for (ext2_ino_t i = EXT2_ROOT_INO + 1; i < EXT2_FIRST_INODE(fs->super) && !rc; i++)
		ext2fs_inode_alloc_stats2(fs, i, 1, 0);
	ext2fs_inode_alloc_stats2(fs, EXT2_BAD_INO, 1, 0);
	fs->umask = 077;
	if (!rc)
		rc = ext2fs_mkdir(fs, EXT2_ROOT_INO, 0, "lost+found");
	if (!rc)
		rc = ext2fs_lookup(fs, EXT2_ROOT_INO, "lost+found", 10, NULL, &ino);
	/* e2fsck wants to find room there; more blocks than this it makes itself. */
	for (int i = 0; i < 3 && !rc; i++)
		rc = ext2fs_expand_dir(fs, ino);
	return rc;
}

/* libext2fs takes the time from its own notion of now, which must not be 0; the image starts at the epoch all the same. */
static errcode_t reset_times(ext2_filsys fs, ext2_ino_t ino)
{
	union obd_ext4_inode inode = {0};
	errcode_t rc = ext2fs_read_inode_full(fs, ino, &inode.small, INODE_BYTES);
	inode.large.i_extra_isize = 32;
	inode.large.i_atime = inode.large.i_ctime = inode.large.i_mtime = inode.large.i_crtime = 0;
	inode.large.i_atime_extra = inode.large.i_ctime_extra = inode.large.i_mtime_extra = inode.large.i_crtime_extra = 0;
	return rc ? rc : ext2fs_write_inode_full(fs, ino, &inode.small, INODE_BYTES);
}

static errcode_t fill(ext2_filsys fs)
{
	ext2_ino_t lost = 0;
	fs->now = 1;
	fs->super->s_mkfs_time = fs->super->s_lastcheck = 0;
	fs->super->s_kbytes_written = 1;
	memcpy(fs->super->s_uuid, fixed_uuid, sizeof(fixed_uuid));
	memcpy(fs->super->s_hash_seed, fixed_uuid, sizeof(fixed_uuid));
	fs->super->s_def_hash_version = EXT2_HASH_HALF_MD4;
	fs->super->s_max_mnt_count = -1;
	ext2fs_init_csum_seed(fs);
	errcode_t rc = ext2fs_allocate_tables(fs);
	if (!rc)
		rc = ext2fs_convert_subcluster_bitmap(fs, &fs->block_map);
	if (!rc)
		rc = obd_io_zero(fs->io, 0, BLOCK_BYTES);
	if (!rc)
		rc = zero_tables(fs);
	if (!rc)
		rc = make_root(fs);
	if (!rc)
		rc = reset_times(fs, EXT2_ROOT_INO);
	if (!rc)
		rc = ext2fs_lookup(fs, EXT2_ROOT_INO, "lost+found", 10, NULL, &lost);
	return rc ? rc : reset_times(fs, lost);
}

int obd_ext4_make(struct obd_file *image, struct obd_err *err)
{
	struct ext2_super_block param;
	ext2_filsys fs = NULL;
	uint64_t bytes;
	int rc = obd_file_size(image, &bytes);
	if (rc)
		return obd_err_set(err, -rc, "%s", strerror(-rc));
	if (bytes < OBD_EXT4_MIN_BYTES)
		return obd_err_set(err, EINVAL, "an image of %llu bytes is too small for a file system, allowed: %llu or more",
				   (unsigned long long)bytes, (unsigned long long)OBD_EXT4_MIN_BYTES);
	set_params(&param, bytes);
	obd_io_next_image(image);
	errcode_t code = ext2fs_initialize("image", EXT2_FLAG_64BITS, &param, &obd_io_manager, &fs);
	if (!code)
		code = fill(fs);
	if (!code)
		code = ext2fs_flush2(fs, 0);
	if (code)
		rc = obd_ext4_fail(NULL, code, err, "making a file system");
	if (fs)
		ext2fs_free(fs);
	return rc;
}
