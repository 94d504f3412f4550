/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Whole reads and writes at a place of a file: interrupted and short ones go on. They block, and may be called by any thread.
 */
#ifndef OBD_COMMON_BASE_IO_H
#define OBD_COMMON_BASE_IO_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Bytes read, fewer only at the file's end, or a negative errno; -EINVAL beyond what an off_t can say. */
ssize_t obd_io_read(int fd, void *buf, size_t n, uint64_t at);

/* 0 when all is written, or a negative errno; -EFBIG beyond what an off_t can say. */
int obd_io_write(int fd, const void *buf, size_t n, uint64_t at);

#endif
