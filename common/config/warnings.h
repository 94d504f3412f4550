/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Lines about what a reader accepted but did not follow: ignored members, options without effect.
 *
 * A reader collects them beside its result and the caller logs them, so that parsing itself never writes anywhere.
 * Bounded: an input of a million unknown members costs OBD_WARNINGS_MAX lines.
 */
#ifndef OBD_COMMON_CONFIG_WARNINGS_H
#define OBD_COMMON_CONFIG_WARNINGS_H

#include <stdint.h>

#define OBD_WARNINGS_MAX 32

/* All zero is empty. */
struct obd_warnings {
	uint32_t count;	  /* lines in text[], at most OBD_WARNINGS_MAX */
	uint32_t dropped; /* lines that found no room */
	char *text[OBD_WARNINGS_MAX];
};

/* Adds one formatted line; one that finds no room or no memory is counted in dropped. */
void obd_warnings_add(struct obd_warnings *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Frees the lines and leaves w empty. */
void obd_warnings_free(struct obd_warnings *w);

#endif
