/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Buckets: durations below LATENCY_STEPS ns have one each; above, a power of two is cut into LATENCY_STEPS equal parts,
 * so a bucket is named by the position of the highest bit and the five bits that follow it.
 */
#include "test/tools/latency.h"

#define STEP_BITS 5

static unsigned bucket_of(uint64_t ns)
{
	if (ns < LATENCY_STEPS)
		return (unsigned)ns;
	unsigned shift = 63u - (unsigned)__builtin_clzll(ns) - STEP_BITS;
	unsigned i = (shift + 1) * LATENCY_STEPS + (unsigned)((ns >> shift) - LATENCY_STEPS);
	return i < LATENCY_BUCKETS ? i : LATENCY_BUCKETS - 1;
}

static uint64_t bucket_low_ns(unsigned i)
{
	if (i < LATENCY_STEPS)
		return i;
	return (uint64_t)(LATENCY_STEPS + i % LATENCY_STEPS) << (i / LATENCY_STEPS - 1);
}

void latency_add(struct latency *l, uint64_t ns)
{
	l->bucket[bucket_of(ns)]++;
	l->count++;
	if (ns > l->max_ns)
		l->max_ns = ns;
}

double latency_percentile_us(const struct latency *l, double percent)
{
	uint64_t want = (uint64_t)((double)l->count * percent / 100 + 0.5), seen = 0;

	for (unsigned i = 0; l->count && i < LATENCY_BUCKETS; i++) {
		seen += l->bucket[i];
		if (seen >= want && seen)
			return (double)bucket_low_ns(i) / 1e3;
	}
	return 0;
}
