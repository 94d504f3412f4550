/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A histogram of durations: constant size, about 3 % resolution, any range. One thread. */
#ifndef OBD_TEST_TOOLS_LATENCY_H
#define OBD_TEST_TOOLS_LATENCY_H

#include <stdint.h>

#define LATENCY_STEPS 32 /* buckets per power of two */
#define LATENCY_BUCKETS (60 * LATENCY_STEPS)

struct latency {
	uint64_t bucket[LATENCY_BUCKETS];
	uint64_t count;
	uint64_t max_ns;
};

void latency_add(struct latency *l, uint64_t ns);

/* The duration that `percent` of the samples do not exceed, in microseconds; 0 without samples. */
double latency_percentile_us(const struct latency *l, double percent);

#endif
