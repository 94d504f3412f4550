/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The file through which a launcher learns how the launch of a device ended. */
#ifndef OBD_COMMON_CONFIG_RESULT_H
#define OBD_COMMON_CONFIG_RESULT_H

/*
 * Replaces result_file by text ("success", or "failed:REASON") as a whole: a reader sees the old file or the new one. It is a
 * message to a launcher that is waiting, so it is not forced to the disk. Control characters in text are written as '?', so it
 * stays one line. A NULL or empty result_file is a success. Returns 0 or a negative errno, with the old file left as it was.
 * Blocks no longer than a small write to the page cache.
 */
int obd_result_write(const char *result_file, const char *text);

#endif
