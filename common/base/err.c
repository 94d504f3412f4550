/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "common/base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int obd_err_set(struct obd_err *err, int code, const char *fmt, ...)
{
	if (err) {
		va_list ap;
		va_start(ap, fmt);
		vsnprintf(err->msg, sizeof err->msg, fmt, ap);
		va_end(ap);
	}
	return -code;
}

int obd_err_prefix(struct obd_err *err, int rc, const char *fmt, ...)
{
	if (!err || rc == 0)
		return rc;
	char old[OBD_ERR_BYTES];
	memcpy(old, err->msg, sizeof old);
	va_list ap;
	va_start(ap, fmt);
	int n = vsnprintf(err->msg, sizeof err->msg, fmt, ap);
	va_end(ap);
	if (n < 0)
		n = 0;
	size_t used = (size_t)n < sizeof err->msg ? (size_t)n : sizeof err->msg - 1;
	for (const char *p = ": "; *p && used < sizeof err->msg - 1;)
		err->msg[used++] = *p++;
	for (const char *p = old; *p && used < sizeof err->msg - 1;)
		err->msg[used++] = *p++;
	err->msg[used] = '\0';
	return rc;
}
