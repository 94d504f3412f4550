/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "supervisor/backoff.h"

#include "common/base/util.h"

uint64_t obd_backoff_death(struct obd_backoff *b, uint64_t lifetime_ns, bool was_ready)
{
	if (lifetime_ns >= OBD_BACKOFF_FORGET_NS)
		b->next_ns = 0;
	uint64_t wait_ns = b->next_ns;
	b->next_ns = wait_ns ? obd_min_u64(2 * wait_ns, OBD_BACKOFF_MAX_NS) : OBD_BACKOFF_FIRST_NS;
	return was_ready ? obd_min_u64(wait_ns, OBD_BACKOFF_FIRST_NS) : wait_ns;
}
