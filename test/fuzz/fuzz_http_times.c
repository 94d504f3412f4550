/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a server says of times: header lines of an answer, Retry-After, and the query of an address it sends us to. */
#include <stdlib.h>
#include <string.h>

#include "fetcher/http/expiry.h"
#include "fetcher/http/range.h"
#include "fetcher/http/redirect.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const int64_t now = INT64_C(1767323045);
	struct obd_http_answer a = {0};
	char *text = malloc(size + 1);
	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	if (obd_http_retry_after(text, size, now) > OBD_HTTP_RETRY_MAX_S)
		abort();
	for (size_t at = 0; at < size;) { /* each line in memory of its own, without NUL */
		const char *end = memchr(text + at, '\n', size - at);
		size_t n = end ? (size_t)(end + 1 - text) - at : size - at;
		char *line = malloc(n);
		if (!line)
			break;
		memcpy(line, text + at, n);
		obd_http_answer_line(&a, line, n);
		free(line);
		at += n;
	}
	uint64_t life = obd_redirects_life(obd_http_url_life(text, now), obd_http_answer_life(&a));
	if (life > 3600 || a.retry_s > OBD_HTTP_RETRY_MAX_S)
		abort();
	free(text);
	return 0;
}
