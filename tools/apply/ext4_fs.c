/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tools/apply/ext4_impl.h"

#include <errno.h>
#include <et/com_err.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/util.h"

/* Features whose data are understood or left alone here. Any other one is refused by name. */
#define COMPAT_OK                                                                                              \
	(EXT3_FEATURE_COMPAT_HAS_JOURNAL | EXT2_FEATURE_COMPAT_EXT_ATTR | EXT2_FEATURE_COMPAT_RESIZE_INODE |   \
	 EXT2_FEATURE_COMPAT_DIR_INDEX | EXT4_FEATURE_COMPAT_SPARSE_SUPER2 | EXT4_FEATURE_COMPAT_FAST_COMMIT | \
	 EXT4_FEATURE_COMPAT_ORPHAN_FILE)
#define INCOMPAT_OK                                                                                       \
	(EXT2_FEATURE_INCOMPAT_FILETYPE | EXT2_FEATURE_INCOMPAT_META_BG | EXT3_FEATURE_INCOMPAT_EXTENTS | \
	 EXT4_FEATURE_INCOMPAT_64BIT | EXT4_FEATURE_INCOMPAT_FLEX_BG | EXT4_FEATURE_INCOMPAT_CSUM_SEED)
#define INCOMPAT_NEEDED (EXT2_FEATURE_INCOMPAT_FILETYPE | EXT3_FEATURE_INCOMPAT_EXTENTS)
#define RO_COMPAT_OK                                                                                                  \
	(EXT2_FEATURE_RO_COMPAT_SPARSE_SUPER | EXT2_FEATURE_RO_COMPAT_LARGE_FILE | EXT4_FEATURE_RO_COMPAT_HUGE_FILE | \
	 EXT4_FEATURE_RO_COMPAT_GDT_CSUM | EXT4_FEATURE_RO_COMPAT_DIR_NLINK | EXT4_FEATURE_RO_COMPAT_EXTRA_ISIZE |    \
	 EXT4_FEATURE_RO_COMPAT_METADATA_CSUM)

static int errno_of(errcode_t code)
{
	switch (code) {
	case EXT2_ET_BLOCK_ALLOC_FAIL:
	case EXT2_ET_INODE_ALLOC_FAIL:
	case EXT2_ET_DIR_NO_SPACE:
		return ENOSPC;
	case EXT2_ET_NO_MEMORY:
		return ENOMEM;
	default:
		return code > 0 && code < 4096 ? (int)code : EUCLEAN;
	}
}

int obd_ext4_fail(struct obd_ext4 *fs, errcode_t code, struct obd_err *err, const char *fmt, ...)
{
	char what[160];
	va_list ap;
	const int io = fs && fs->fs ? obd_io_last_errno(fs->fs->io) : 0;
	const int rc = io ? io : errno_of(code);
	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	if (rc == ENOSPC)
		return obd_err_set(err, rc, "%s: no space left in the file system", what);
	initialize_ext2_error_table();
	return obd_err_set(err, rc, "%s: %s", what, io ? strerror(io) : error_message(code));
}

static int check_features(const struct ext2_super_block *sb, struct obd_err *err)
{
	const uint32_t compat = sb->s_feature_compat & ~(uint32_t)COMPAT_OK;
	const uint32_t incompat = sb->s_feature_incompat & ~(uint32_t)INCOMPAT_OK;
	const uint32_t ro = sb->s_feature_ro_compat & ~(uint32_t)RO_COMPAT_OK;
	if (sb->s_feature_incompat & EXT3_FEATURE_INCOMPAT_RECOVER)
		return obd_err_set(err, EUCLEAN, "file system: its journal was not replayed; mount it or run e2fsck");
	if (compat || incompat || ro)
		return obd_err_set(err, EINVAL,
				   "file system: features that are not supported: compat %#x, incompat %#x, ro_compat %#x",
				   compat, incompat, ro);
	if ((sb->s_feature_incompat & INCOMPAT_NEEDED) != INCOMPAT_NEEDED)
		return obd_err_set(err, EINVAL, "file system: not an ext4 with extents and filetype");
	if ((uint32_t)EXT2_BLOCK_SIZE(sb) > OBD_IO_PAGE_BYTES || EXT2_INODE_SIZE(sb) > OBD_EXT4_INODE_MAX)
		return obd_err_set(err, EINVAL, "file system: blocks of %u bytes, inodes of %u, allowed: up to %u and %u",
				   EXT2_BLOCK_SIZE(sb), EXT2_INODE_SIZE(sb), OBD_IO_PAGE_BYTES, OBD_EXT4_INODE_MAX);
	return 0;
}

static int check_state(const struct obd_ext4 *fs, struct obd_err *err)
{
	struct ext2_super_block *sb = fs->fs->super;
	uint64_t image_bytes;
	if (sb->s_state & EXT2_ERROR_FS)
		return obd_err_set(err, EUCLEAN, "file system: marked as damaged; run e2fsck");
	if (!(sb->s_state & EXT2_VALID_FS))
		return obd_err_set(
			err, EUCLEAN,
			"file system: not clean: an earlier run did not finish; start again from an empty upper layer");
	if (sb->s_last_orphan)
		return obd_err_set(err, EUCLEAN, "file system: has orphaned inodes; mount it or run e2fsck");
	const int rc = obd_file_size(fs->image, &image_bytes);
	if (rc || image_bytes / EXT2_BLOCK_SIZE(sb) < ext2fs_blocks_count(sb))
		return obd_err_set(err, EINVAL, "file system: %llu blocks of %u bytes, the image is smaller",
				   (unsigned long long)ext2fs_blocks_count(sb), EXT2_BLOCK_SIZE(sb));
	return 0;
}

/* Until obd_ext4_finish, whoever looks sees that something is under way. */
static int mark_unclean(struct obd_ext4 *fs, struct obd_err *err)
{
	fs->fs->super->s_state &= (uint16_t)~EXT2_VALID_FS;
	fs->fs->flags |= EXT2_FLAG_MASTER_SB_ONLY | EXT2_FLAG_SUPER_ONLY;
	ext2fs_mark_super_dirty(fs->fs);
	const errcode_t rc = ext2fs_flush2(fs->fs, 0);
	fs->fs->flags &= ~EXT2_FLAG_SUPER_ONLY;
	return rc ? obd_ext4_fail(fs, rc, err, "superblock") : 0;
}

/* The totals in the superblock are only a sum, which the kernel does not keep up to date either. */
static void sum_groups(ext2_filsys fs)
{
	uint64_t blocks = 0, inodes = 0;
	for (dgrp_t g = 0; g < fs->group_desc_count; g++) {
		blocks += ext2fs_bg_free_blocks_count(fs, g);
		inodes += ext2fs_bg_free_inodes_count(fs, g);
	}
	ext2fs_free_blocks_count_set(fs->super, blocks);
	fs->super->s_free_inodes_count = (uint32_t)inodes;
}

static int find_lost_found(struct obd_ext4 *fs, struct obd_err *err)
{
	struct obd_ext4_dir *root;
	const int rc = obd_ext4_dir_get(fs, EXT2_ROOT_INO, &root, err);
	const struct obd_ext4_name *name = rc ? NULL : obd_ext4_dir_find(root, "lost+found", 10);
	fs->lost_found = name && name->type == EXT2_FT_DIR ? name->ino : 0;
	return rc;
}

static int prepare(struct obd_ext4 *fs, struct obd_err *err)
{
	int rc = check_features(fs->fs->super, err);
	if (!rc)
		rc = check_state(fs, err);
	if (rc)
		return rc;
	fs->fs->now = 1;
	fs->inode_bytes = EXT2_INODE_SIZE(fs->fs->super);
	fs->tail_bytes = ext2fs_has_feature_metadata_csum(fs->fs->super) ? sizeof(struct ext2_dir_entry_tail) : 0;
	fs->goal = fs->fs->super->s_first_data_block;
	fs->mine = calloc((size_t)fs->fs->super->s_inodes_count / 8 + 1, 1);
	if (!fs->mine)
		return obd_err_set(err, ENOMEM, "out of memory");
	const errcode_t code = ext2fs_read_bitmaps(fs->fs);
	if (code)
		return obd_ext4_fail(fs, code, err, "file system: bitmaps");
	sum_groups(fs->fs);
	if (!obd_ext4_inode_ok(fs, EXT2_ROOT_INO))
		return obd_err_set(err, EUCLEAN, "file system: the root directory is not in use");
	rc = find_lost_found(fs, err);
	return rc ? rc : mark_unclean(fs, err);
}

int obd_ext4_open(struct obd_file *image, struct obd_ext4 **out, struct obd_err *err)
{
	struct obd_ext4 *fs = calloc(1, sizeof(*fs));
	if (!fs)
		return obd_err_set(err, ENOMEM, "out of memory");
	fs->image = image;
	obd_list_init(&fs->dirs);
	obd_io_next_image(image);
	const errcode_t code = ext2fs_open2("image", NULL, EXT2_FLAG_RW | EXT2_FLAG_64BITS | EXT2_FLAG_SKIP_MMP, 0, 0,
					    &obd_io_manager, &fs->fs);
	int rc = code ? obd_ext4_fail(NULL, code, err, "file system") : prepare(fs, err);
	if (rc) {
		obd_ext4_close(fs);
		fs = NULL;
	}
	*out = fs;
	return rc;
}

static int write_all(struct obd_ext4 *fs, int (*sync)(void *ctx), void *ctx, struct obd_err *err)
{
	ext2fs_mark_super_dirty(fs->fs);
	const errcode_t code = ext2fs_flush2(fs->fs, 0);
	if (code)
		return obd_ext4_fail(fs, code, err, "writing");
	const int rc = sync ? sync(ctx) : 0;
	return rc ? obd_err_set(err, -rc, "syncing the image: %s", strerror(-rc)) : 0;
}

int obd_ext4_finish(struct obd_ext4 *fs, int (*sync)(void *ctx), void *ctx, struct obd_err *err)
{
	int rc = obd_ext4_dirs_flush(fs, err);
	if (!rc)
		rc = write_all(fs, sync, ctx, err);
	if (rc)
		return rc;
	fs->fs->super->s_state |= EXT2_VALID_FS;
	fs->fs->flags |= EXT2_FLAG_SUPER_ONLY;
	rc = write_all(fs, sync, ctx, err);
	fs->fs->flags &= ~EXT2_FLAG_SUPER_ONLY;
	return rc;
}

void obd_ext4_close(struct obd_ext4 *fs)
{
	if (!fs)
		return;
	obd_ext4_dirs_free(fs);
	if (fs->fs)
		ext2fs_free(fs->fs);
	free(fs->mine);
	free(fs->links);
	free(fs);
}
