/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Included before everything in cached's own files: each store to shared memory is a place where it may die. Stores that are
 * not atomic go to jobs that are not ISSUED, and mean nothing before the store that is. */
#ifndef OBD_TEST_STRESS_CRASH_HOOK_H
#define OBD_TEST_STRESS_CRASH_HOOK_H

#include "common/base/atomic.h"

void stress_stored(void);

#undef obd_store_relaxed
#undef obd_store_release
#define obd_store_relaxed(p, v)                                        \
	({                                                             \
		atomic_store_explicit((p), (v), memory_order_relaxed); \
		stress_stored();                                       \
	})
#define obd_store_release(p, v)                                        \
	({                                                             \
		atomic_store_explicit((p), (v), memory_order_release); \
		stress_stored();                                       \
	})

#endif
