/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "common/config/warnings.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/err.h"

void obd_warnings_add(struct obd_warnings *w, const char *fmt, ...)
{
	char line[OBD_ERR_BYTES];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(line, sizeof line, fmt, ap);
	va_end(ap);

	char *copy = w->count < OBD_WARNINGS_MAX ? strdup(line) : NULL;
	if (copy)
		w->text[w->count++] = copy;
	else
		w->dropped++;
}

void obd_warnings_free(struct obd_warnings *w)
{
	for (uint32_t i = 0; i < w->count; i++)
		free(w->text[i]);
	memset(w, 0, sizeof *w);
}
