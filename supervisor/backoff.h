/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How long a dead child waits for its restart: not at all the first time, then 100 ms, doubling to 1 s. A child that lived for
 * a second has its earlier deaths forgotten: it does its work, and each pause is one of the devices. Back-off is for children
 * that cannot start: one that had become ready waits for 100 ms at most. Pure arithmetic; all times in nanoseconds.
 */
#ifndef OBD_SUPERVISOR_BACKOFF_H
#define OBD_SUPERVISOR_BACKOFF_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/clock.h"

#define OBD_BACKOFF_FIRST_NS (100 * OBD_MS_NS)
#define OBD_BACKOFF_MAX_NS OBD_SECOND_NS
#define OBD_BACKOFF_FORGET_NS OBD_SECOND_NS

/* All zero: no death yet. */
struct obd_backoff {
	uint64_t next_ns; /* what the next death costs */
};

/* A child died after lifetime_ns; was_ready: it had begun to serve. Returns how long to wait before it is started again. */
uint64_t obd_backoff_death(struct obd_backoff *b, uint64_t lifetime_ns, bool was_ready);

#endif
