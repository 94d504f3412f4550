/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "shmcache/cached/link.h"

#include <stddef.h>

#include "common/base/clock.h"
#include "common/base/util.h"

#define DEMAND_NS (2 * OBD_SECOND_NS)	 /* a flow competes that long after its last demand */
#define SPAN_NS (4 * OBD_SECOND_NS)	 /* rates are forgotten after one to two of these */
#define SHORTEST_NS (10 * OBD_SECOND_NS) /* how long the shortest time is believed */
#define WIDEN_NS (10 * OBD_SECOND_NS)
#define PROBE_NS OBD_SECOND_NS
#define PERIOD_LEAST_NS (20 * OBD_MS_NS)
#define PERIOD_MOST_NS (500 * OBD_MS_NS)
#define JITTER_NS (15 * OBD_MS_NS) /* later than that is not by chance */

#define BDP_FIRST (UINT64_C(256) << 10) /* before anything was measured */
#define BDP_LEAST (UINT64_C(64) << 10)
#define WIDE_LEAST (UINT64_C(1) << 20)

enum { ALONE = 4 }; /* times the BDP: the rate can grow that much per period */

void obd_link_demand(struct link *l, uint32_t flow, uint64_t now_ns)
{
	size_t oldest = 0;
	for (size_t i = 0; i < LINK_FLOWS; i++) {
		if (l->demand[i].flow == flow && l->demand[i].seen_ns) {
			l->demand[i].seen_ns = now_ns;
			return;
		}
		if (l->demand[i].seen_ns < l->demand[oldest].seen_ns)
			oldest = i;
	}
	l->demand[oldest].flow = flow;
	l->demand[oldest].seen_ns = now_ns;
}

/* How many flows beside w's had demand lately, LINK_FLOWS at most. In the background all are others. */
static uint32_t others(const struct link *l, const struct link_want *w, uint64_t now_ns)
{
	uint32_t n = 0;
	for (size_t i = 0; i < LINK_FLOWS; i++)
		n += l->demand[i].seen_ns && now_ns - l->demand[i].seen_ns < DEMAND_NS &&
		     (w->background || l->demand[i].flow != w->flow);
	return n;
}

bool obd_link_alone(const struct link *l, uint32_t flow, uint64_t now_ns)
{
	const struct link_want w = {.flow = flow};
	return others(l, &w, now_ns) == 0;
}

static uint64_t rate(const struct link *l)
{
	return obd_max_u64(l->best[0], l->best[1]);
}

uint64_t obd_link_bdp(const struct link *l)
{
	if (!rate(l) || !l->shortest_ns)
		return BDP_FIRST;
	double bytes = (double)rate(l) * (double)l->shortest_ns / 1e9;
	return bytes < (double)BDP_LEAST ? BDP_LEAST : (uint64_t)bytes;
}

/* --- room ----------------------------------------------------------------------------------------------------------------- */

static bool probing(struct link *l, uint64_t now_ns)
{
	if (l->shortest_ns && !l->probe_until_ns && now_ns - l->shortest_at_ns > SHORTEST_NS)
		l->probe_until_ns = now_ns + PROBE_NS;
	if (l->probe_until_ns && now_ns > l->probe_until_ns) { /* nothing came of it: as before */
		l->probe_until_ns = 0;
		l->shortest_at_ns = now_ns;
	}
	return l->probe_until_ns != 0;
}

/* What may be under way (of this flow alone, or in all), and how much of it one job may be. */
struct limit {
	uint64_t bytes;
	uint64_t job;
	bool own;
};

static struct limit limit_of(struct link *l, const struct link_want *w, uint64_t now_ns)
{
	uint64_t bdp = obd_link_bdp(l);
	if (l->narrow && now_ns - l->pressed_ns > WIDEN_NS)
		l->narrow = false;
	if (!l->narrow)
		return (struct limit){obd_max_u64(ALONE * bdp, WIDE_LEAST), UINT64_MAX, false};
	if (probing(l, now_ns))
		return (struct limit){bdp / 2, bdp / 4, false};
	uint32_t n = others(l, w, now_ns);
	if (w->background)
		return (struct limit){n ? bdp : 2 * bdp, bdp / 4, false};
	if (n)
		return (struct limit){bdp / n, bdp / n / 2, true};
	return (struct limit){ALONE * bdp, bdp, false};
}

uint64_t obd_link_room(struct link *l, const struct link_want *w, uint64_t now_ns)
{
	struct limit limit = limit_of(l, w, now_ns);
	if ((limit.own ? w->flow_bytes : w->host_bytes) < limit.bytes)
		return limit.job ? limit.job : 1;
	l->pressed_ns = now_ns;
	return 0;
}

/* --- measuring ------------------------------------------------------------------------------------------------------------ */

/* Several jobs' times, so that a period holds enough of them to be a measure; never long enough to be slow to learn. */
static uint64_t period_length(const struct link *l)
{
	return obd_min_u64(obd_max_u64(4 * l->shortest_ns, PERIOD_LEAST_NS), PERIOD_MOST_NS);
}

/* Rates are forgotten only where later ones show what the link can do, not how little was asked of it. */
static void note_rate(struct link *l, uint64_t now_ns)
{
	uint64_t length = now_ns - l->period_ns;
	if (length < period_length(l))
		return;
	uint64_t got = (uint64_t)((double)l->period_bytes * 1e9 / (double)length);
	if (l->pressed_ns > l->span_ns && now_ns - l->span_ns > SPAN_NS) {
		l->best[1] = l->best[0];
		l->best[0] = 0;
		l->span_ns = now_ns;
	}
	l->best[0] = obd_max_u64(l->best[0], got);
	l->period_ns = now_ns;
	l->period_bytes = 0;
}

static void note_time(struct link *l, uint64_t took_ns, uint64_t host_bytes, uint64_t now_ns)
{
	bool calm = host_bytes <= obd_link_bdp(l);
	if (!l->shortest_ns || took_ns < l->shortest_ns || (calm && now_ns - l->shortest_at_ns > SHORTEST_NS / 2)) {
		l->shortest_ns = took_ns;
		l->shortest_at_ns = now_ns;
		l->probe_until_ns = 0;
	}
	if (took_ns > 2 * l->shortest_ns + JITTER_NS && !l->narrow) {
		l->narrow = true;
		l->pressed_ns = now_ns;
	}
}

void obd_link_done(struct link *l, uint64_t bytes, uint64_t took_ns, uint64_t host_bytes, uint64_t now_ns)
{
	if (!bytes || !took_ns)
		return;
	note_time(l, took_ns, host_bytes, now_ns);
	if (!l->period_ns || now_ns - l->period_ns > OBD_SECOND_NS) { /* an idle time measures nothing */
		l->period_ns = now_ns - took_ns;
		l->period_bytes = 0;
	}
	l->period_bytes += bytes;
	note_rate(l, now_ns);
}
