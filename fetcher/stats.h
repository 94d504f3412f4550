/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a fetcher counts while it works. Own memory, plain numbers: the sources know nothing of the segment. The fetcher adds
 * what is new to its process row once per turn of its loop.
 */
#ifndef OBD_FETCHER_STATS_H
#define OBD_FETCHER_STATS_H

#include <stdint.h>

/* X(name): each is a counter of OBD_COUNTER_TABLE, in shmcache/layout.h; the segment's library counts the others itself. */
#define OBD_FETCH_STATS(X)    \
	X(bytes_fetched)      \
	X(bytes_local)        \
	X(http_requests)      \
	X(connections)        \
	X(err_connect)        \
	X(err_timeout)        \
	X(err_http_4xx)       \
	X(err_http_5xx)       \
	X(err_protocol)       \
	X(err_corrupt)        \
	X(err_io)             \
	X(disk_hits)          \
	X(disk_misses)        \
	X(bytes_disk)         \
	X(disk_bytes_written) \
	X(disk_dropped)       \
	X(disk_corrupt)       \
	X(disk_errors)        \
	X(disk_timeouts)      \
	X(auth_requests)      \
	X(redirects)          \
	X(redirect_hits)      \
	X(failovers)          \
	X(throttled)          \
	X(auth_refused)       \
	X(download_bytes)     \
	X(download_fallbacks)

struct obd_fetch_stats {
#define X(name) uint64_t name;
	OBD_FETCH_STATS(X)
#undef X
};

#endif
