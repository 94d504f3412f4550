/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * C11 atomics with the order in the name, for words in shared memory.
 *
 * Used where the segment is: shmcache/, indexer/, frontend/client/ (and for the few process-local flags that signal handlers
 * set). Each edge is labelled at both ends in the code: "publishes: X" names what a release makes visible, "pairs with: X" its
 * acquire.
 */
#ifndef OBD_COMMON_BASE_ATOMIC_H
#define OBD_COMMON_BASE_ATOMIC_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define obd_load_relaxed(p) atomic_load_explicit((p), memory_order_relaxed)
#define obd_load_acquire(p) atomic_load_explicit((p), memory_order_acquire)
#define obd_store_relaxed(p, v) atomic_store_explicit((p), (v), memory_order_relaxed)
#define obd_store_release(p, v) atomic_store_explicit((p), (v), memory_order_release)

/* Puts v where expected stands; false when something else stood there, which expected then holds. */
#define obd_cas_acq_rel(p, expected, v) \
	atomic_compare_exchange_strong_explicit((p), (expected), (v), memory_order_acq_rel, memory_order_acquire)

#define obd_fence_acquire() atomic_thread_fence(memory_order_acquire)
#define obd_fence_release() atomic_thread_fence(memory_order_release)
#define obd_fence_full() atomic_thread_fence(memory_order_seq_cst)

/* A counter with one writer: no read-modify-write on the bus. */
#define obd_counter_add(p, n) obd_store_relaxed((p), obd_load_relaxed(p) + (n))

static inline void obd_cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ __volatile__("yield");
#endif
}

#endif
