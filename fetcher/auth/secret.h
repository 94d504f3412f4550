/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Memory that held secrets is overwritten when it is given back. curl and jansson use these functions too (obd_secret_init),
 * since headers, answers and parsed credentials pass through them.
 */
#ifndef OBD_FETCHER_AUTH_SECRET_H
#define OBD_FETCHER_AUTH_SECRET_H

#include <stdbool.h>
#include <stddef.h>

/* As malloc, free, calloc, realloc and strdup. Freed by obd_secret_free only. */
void *obd_secret_malloc(size_t n);
void *obd_secret_calloc(size_t count, size_t n);
void *obd_secret_realloc(void *p, size_t n);
char *obd_secret_strdup(const char *text);
void obd_secret_free(void *p);

/* Overwrites n bytes; no compiler leaves it out. */
void obd_secret_wipe(void *p, size_t n);

/* Gives these functions to jansson. Before its first use in the process. */
void obd_secret_init(void);

#endif
