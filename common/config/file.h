/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Reading a small file as a whole. */
#ifndef OBD_COMMON_CONFIG_FILE_H
#define OBD_COMMON_CONFIG_FILE_H

#include <stddef.h>

#include "common/base/err.h"

/*
 * Reads a regular file of at most max_bytes. On success *buf holds *len bytes and a NUL behind them, to be freed by the
 * caller. Otherwise err is "PATH: reason" and nothing is owned: -EINVAL when it is no regular file, -EFBIG when it is larger,
 * else the system's errno. Never waits on a fifo or a device.
 */
int obd_file_read(const char *path, size_t max_bytes, char **buf, size_t *len, struct obd_err *err);

#endif
