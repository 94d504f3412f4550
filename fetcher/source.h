/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where the bytes of blobs come from, as the jobs see it: somebody who is asked for the byte range [start, end) of a blob and
 * hands it over in order, in pieces of any size. local.h and http/http.h are the two sources.
 *
 * Rules: done is called exactly once per request, last, and never from inside the call that made the request. In done a new
 * request may be made; in data and room none. When data refuses (negative errno) the source stops and calls done with it.
 * done with err 0 means that all end - start bytes were handed over, no more and no less.
 */
#ifndef OBD_FETCHER_SOURCE_H
#define OBD_FETCHER_SOURCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct obd_source_end {
	int err;	    /* 0 or a positive errno */
	bool again;	    /* worth asking again at once: the answer made no sense */
	uint32_t retry_ms;  /* err transient: not before that, the other side says; 0: it did not say */
	uint32_t routes;    /* bits: the ways that gave bytes; 0 where there is only one */
	const char *reason; /* one line without secrets; only valid during the call; "" when err is 0 */
};

struct obd_source_sink {
	/* Where the next bytes would best be stored, and how many fit there; NULL: nowhere in particular. A source that reads
	 * there passes the same pointer to data. May be NULL. */
	unsigned char *(*room)(void *arg, size_t *n);
	/* The next n bytes. 0 or a negative errno. */
	int (*data)(void *arg, const unsigned char *buf, size_t n);
	void (*done)(void *arg, const struct obd_source_end *end);
};

#endif
