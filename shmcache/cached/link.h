/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How much to have under way at one host. Private arithmetic of cached: no clock, no shared memory.
 *
 * The more is under way on a link, the longer everybody waits for what was asked for last; with less than its bandwidth-delay
 * product (BDP) it idles. Both factors are measured from the jobs that end:
 *
 *   rate      bytes that came per second, the best of the last periods
 *   shortest  the shortest time a job took
 *
 *   WIDE  ---a job took much longer than the shortest: bytes queue--->  NARROW
 *         <---nobody was refused room for a while--------------------
 *
 * While a link is wide, some times the BDP may be under way, so that what is asked for grows to what the link gives. On a
 * narrow one a flow that is alone may still have some times the BDP, since it delays nobody but itself; where several compete,
 * the others of any one have about one BDP among them, which keeps the link full and its queue short. From time to time little
 * is sent, to see the shortest time again. Only bytes that a fetcher had from the network count; what a disk gave says nothing
 * about a link.
 */
#ifndef OBD_SHMCACHE_CACHED_LINK_H
#define OBD_SHMCACHE_CACHED_LINK_H

#include <stdbool.h>
#include <stdint.h>

enum { LINK_FLOWS = 8 };

struct link {
	uint64_t period_ns;    /* when the running period began; 0: none */
	uint64_t period_bytes; /* came since */
	uint64_t best[2];      /* bytes per second: of the running span of periods, and of the one before */
	uint64_t span_ns;      /* when the running span began */
	uint64_t pressed_ns;   /* when room was refused last */
	uint64_t shortest_ns;  /* 0: unknown */
	uint64_t shortest_at_ns;
	uint64_t probe_until_ns; /* little is sent until then, or until a job shows the shortest time again; 0: no */
	bool narrow;
	struct {
		uint32_t flow;
		uint64_t seen_ns;
	} demand[LINK_FLOWS];
};

/* Who asks for room. */
struct link_want {
	uint32_t flow;
	bool background;     /* neither demand nor readahead: only what others leave */
	uint64_t flow_bytes; /* under way of this flow */
	uint64_t host_bytes; /* and of all */
};

/* Somebody of `flow` waits for bytes of this host. */
void obd_link_demand(struct link *l, uint32_t flow, uint64_t now_ns);

/* Has no other flow waited for this host lately? */
bool obd_link_alone(const struct link *l, uint32_t flow, uint64_t now_ns);

/* Rate x shortest; something to begin with while they are unknown. */
uint64_t obd_link_bdp(const struct link *l);

/* How many bytes the next job may have; 0: none now. */
uint64_t obd_link_room(struct link *l, const struct link_want *w, uint64_t now_ns);

/* A job ended well: `bytes` came from the network, took_ns since it was issued, when host_bytes were under way with it. */
void obd_link_done(struct link *l, uint64_t bytes, uint64_t took_ns, uint64_t host_bytes, uint64_t now_ns);

#endif
