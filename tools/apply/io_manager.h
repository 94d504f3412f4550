/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * libext2fs over a struct obd_file, with a cache that holds back what is written.
 *
 * libext2fs writes small and often: an inode at a time, a bitmap again and again. On an append-only layer each write costs
 * its bytes for good, so pages of 4 KiB are collected, compared with what the image has, and written in ascending order
 * in long pieces. Memory: OBD_IO_PAGES_MAX pages. A page that cannot be written stays dirty and the error is returned.
 */
#ifndef OBD_TOOLS_APPLY_IO_MANAGER_H
#define OBD_TOOLS_APPLY_IO_MANAGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <ext2fs/ext2fs.h>

#include "common/format/file.h"

#define OBD_IO_PAGE_BYTES 4096u
#define OBD_IO_PAGES_MAX 16384u

/* The manager for ext2fs_open2 and ext2fs_initialize. */
extern struct struct_io_manager obd_io_manager;

/* The image that the next open of this thread gets; it stays the caller's and must outlive the channel. The name handed
 * to libext2fs is for messages only. */
void obd_io_next_image(struct obd_file *image);

/* Writes file data: n bytes at off, both multiples of the block size. Long pieces go straight to the image, short ones are
 * collected. */
errcode_t obd_io_write_data(io_channel channel, uint64_t off, const void *buf, size_t n);

/* Makes the range read as zeros; writes only where it does not yet. */
errcode_t obd_io_zero(io_channel channel, uint64_t off, uint64_t n);

/* The error of the image that made a call fail last, as a positive errno; 0: none. */
int obd_io_last_errno(io_channel channel);

#endif
