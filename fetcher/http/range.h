/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Judging an answer to a range request by its header. No curl here; nothing blocks. */
#ifndef OBD_FETCHER_HTTP_RANGE_H
#define OBD_FETCHER_HTTP_RANGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OBD_HTTP_DISCARD_MAX (1u << 20) /* so much of a whole body is read and thrown away to get at a range in it */

/* What the header of one answer said. All zero: nothing yet. */
struct obd_http_answer {
	bool has_range;
	bool bad_header; /* a header that we need does not parse, or came twice with different values */
	bool encoded;	 /* Content-Encoding other than identity */
	bool has_total;
	bool has_length;
	uint64_t first, last, total; /* Content-Range: bytes first-last/total */
	uint64_t length;	     /* Content-Length */
	/* How long things hold, in seconds; dates are seconds since 1970, 0: none. */
	uint32_t retry_s; /* Retry-After, from now on; 0: none */
	bool has_max_age;
	uint32_t max_age_s; /* Cache-Control: max-age; 0 for no-store and no-cache too */
	int64_t expires;    /* Expires */
	int64_t date;	    /* Date: the server's clock */
};

/* Takes note of one header line (n bytes, line end included); lines of no interest are ignored. A status line starts over. */
void obd_http_answer_line(struct obd_http_answer *a, const char *line, size_t n);

/* How many seconds the answer may be remembered, by its header; OBD_HTTP_LIFE_UNKNOWN (expiry.h): it does not say. */
int64_t obd_http_answer_life(const struct obd_http_answer *a);

struct obd_http_verdict {
	int err;	  /* 0: take the body; else a positive errno */
	bool again;	  /* the answer made no sense; another one may */
	const char *what; /* for people; "" when err is 0 */
	uint64_t skip;	  /* bytes of the body in front of the range */
};

/* Is an answer with this status one to the range [start, end) of a blob of blob_bytes (0: not known)? */
struct obd_http_verdict obd_http_judge(const struct obd_http_answer *a, long status, uint64_t start, uint64_t end,
				       uint64_t blob_bytes);

#endif
