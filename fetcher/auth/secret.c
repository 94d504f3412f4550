/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fetcher/auth/secret.h"

#include <jansson.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

/* Larger blocks than any buffer of ours (fetcher/http/transfer.c) are not asked for by whoever handles secrets. */
#define WIPE_MAX (320u << 10)

void obd_secret_wipe(void *p, size_t n)
{
	explicit_bzero(p, n);
}

void *obd_secret_malloc(size_t n)
{
	return malloc(n);
}

void *obd_secret_calloc(size_t count, size_t n)
{
	return calloc(count, n);
}

void obd_secret_free(void *p)
{
	if (!p)
		return;
	size_t n = malloc_usable_size(p);
	if (n <= WIPE_MAX)
		obd_secret_wipe(p, n);
	free(p);
}

void *obd_secret_realloc(void *p, size_t n)
{
	size_t old = p ? malloc_usable_size(p) : 0;
	if (!p || n == 0 || old > WIPE_MAX)
		return realloc(p, n);
	if (n <= old && n > old / 2)
		return p;
	void *grown = malloc(n);
	if (!grown)
		return NULL;
	memcpy(grown, p, n < old ? n : old);
	obd_secret_free(p);
	return grown;
}

char *obd_secret_strdup(const char *text)
{
	size_t n = strlen(text) + 1;
	char *copy = malloc(n);
	return copy ? memcpy(copy, text, n) : NULL;
}

void obd_secret_init(void)
{
	json_set_alloc_funcs(obd_secret_malloc, obd_secret_free);
}
