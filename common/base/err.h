/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One human line about what went wrong.
 *
 * Functions return 0 or a negative errno. Paths that parse or open something also fill a struct obd_err: lower case,
 * the object and the reason, no function name ("layer.tar: tar header: checksum is 12, expected 4711").
 */
#ifndef OBD_COMMON_BASE_ERR_H
#define OBD_COMMON_BASE_ERR_H

#define OBD_ERR_BYTES 512

struct obd_err {
	char msg[OBD_ERR_BYTES]; /* NUL-terminated; a longer text is cut, never overrun */
};

/* Fills err (may be NULL) with a formatted line and returns -code; code is a positive errno. */
int obd_err_set(struct obd_err *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Puts "prefix: " in front of what err already says and returns rc unchanged; does nothing when rc is 0. */
int obd_err_prefix(struct obd_err *err, int rc, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif
