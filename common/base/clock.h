/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Monotonic time in nanoseconds. Comparable between the processes of one host; never goes back. */
#ifndef OBD_COMMON_BASE_CLOCK_H
#define OBD_COMMON_BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

#define OBD_SECOND_NS UINT64_C(1000000000)
#define OBD_MS_NS UINT64_C(1000000)

static inline uint64_t obd_clock_ns(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * OBD_SECOND_NS + (uint64_t)ts.tv_nsec;
}

#endif
