/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The file through which a launcher learns how the launch of a device ended. */
#ifndef OBD_COMMON_CONFIG_RESULT_H
#define OBD_COMMON_CONFIG_RESULT_H

/*
 * Replaces result_file by text ("success", or "failed:REASON") as a whole: a reader sees the old file or the new one, also
 * after a crash. Control characters in text are written as '?', so it stays one line. A NULL or empty result_file is a
 * success. Returns 0 or a negative errno, with the old file left as it was. Blocks for an fsync: not for tgtd's thread on a
 * slow disk.
 */
int obd_result_write(const char *result_file, const char *text);

#endif
