/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Shared by the files of upper.h; nobody else's. */
#ifndef OBD_COMMON_FORMAT_UPPER_IMPL_H
#define OBD_COMMON_FORMAT_UPPER_IMPL_H

#include <stddef.h>
#include <stdint.h>

/* Keeps every byte of a sparse file within off_t. */
#define OBD_UPPER_SIZE_MAX (UINT64_C(1) << 58)

/* Writes all n bytes at off, whatever pwrite(2) does in one go. 0 or a negative errno. */
int obd_fd_pwrite_full(int fd, const void *buf, size_t n, uint64_t off);

#endif
