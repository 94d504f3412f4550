/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * An ext4 file system inside an image, changed entry by entry through libext2fs, without a mount.
 *
 *     ext4_tree.c    paths, names, removal, what this layer itself brought
 *     ext4_dir.c     directories in memory; ext4_index.c lays large ones out as hash trees
 *     ext4_inode.c   inodes: attributes, extended attributes, their end
 *     ext4_data.c    contents of files, as extents
 *     ext4_fs.c      opening, checking, finishing; ext4_mkfs.c makes a file system
 *
 * The result depends on the image and the calls alone: no clock, no random numbers. Changes are complete in the image only
 * after obd_ext4_finish; until then its superblock says "not clean", which a later open reports.
 *
 * All functions block; none is safe for threads. They return 0 or a negative errno and put one line into err.
 */
#ifndef OBD_TOOLS_APPLY_EXT4_H
#define OBD_TOOLS_APPLY_EXT4_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/format/file.h"
#include "tools/apply/tar_reader.h"

/* The smallest image that obd_ext4_make takes. */
#define OBD_EXT4_MIN_BYTES (UINT64_C(4) << 20)

struct obd_ext4;

/* Makes an empty file system over all of the image; what was there is lost. */
int obd_ext4_make(struct obd_file *image, struct obd_err *err);

/*
 * Opens for changing and marks the file system as not clean. image stays the caller's and outlives *out. -EINVAL: no ext4,
 * or one with a feature that is not handled here; -EUCLEAN: an earlier change did not finish, or it needs e2fsck.
 */
int obd_ext4_open(struct obd_file *image, struct obd_ext4 **out, struct obd_err *err);

/* Writes everything and marks the file system clean. sync (may be NULL) is called before and after the mark is set. */
int obd_ext4_finish(struct obd_ext4 *fs, int (*sync)(void *ctx), void *ctx, struct obd_err *err);

/* Releases; what was not finished is dropped. NULL is allowed. */
void obd_ext4_close(struct obd_ext4 *fs);

/* Reads what the file holds: as obd_tar_data. */
typedef int obd_ext4_data_fn(void *ctx, const void **buf, size_t *n, uint64_t *off, struct obd_err *err);

/*
 * Puts an entry at the clean path: anything there that is no directory is replaced, as is a directory by something else;
 * a directory stays with what it holds and takes the entry's attributes. Parents that are missing are made (0755, root,
 * mtime 0); symbolic links on the way are followed inside the image. data: for regular files only.
 */
int obd_ext4_put(struct obd_ext4 *fs, const char *path, const struct obd_tar_entry *e, obd_ext4_data_fn *data, void *ctx,
		 struct obd_err *err);

/* Removes what is at the path and was there before this layer. */
int obd_ext4_whiteout(struct obd_ext4 *fs, const char *path, struct obd_err *err);

/* The same for everything in the directory, which is made when missing. */
int obd_ext4_opaque(struct obd_ext4 *fs, const char *path, struct obd_err *err);

#endif
