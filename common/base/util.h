/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Small arithmetic that every room needs. */
#ifndef OBD_COMMON_BASE_UTIL_H
#define OBD_COMMON_BASE_UTIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OBD_ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define OBD_CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

static inline uint64_t obd_min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t obd_max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static inline bool obd_is_pow2(uint64_t v)
{
	return v && !(v & (v - 1));
}

/* align is a power of two. The sum must not overflow: callers bound v first. */
static inline uint64_t obd_align_up(uint64_t v, uint64_t align)
{
	return (v + align - 1) & ~(align - 1);
}

static inline uint64_t obd_align_down(uint64_t v, uint64_t align)
{
	return v & ~(align - 1);
}

/* True, and *sum set, when a + b fits. */
static inline bool obd_add_u64(uint64_t a, uint64_t b, uint64_t *sum)
{
	return !__builtin_add_overflow(a, b, sum);
}

static inline bool obd_mul_u64(uint64_t a, uint64_t b, uint64_t *product)
{
	return !__builtin_mul_overflow(a, b, product);
}

/* Makes the pages of zeroed memory be there before somebody waits for them. */
static inline void obd_touch_pages(void *p, size_t bytes)
{
	for (size_t i = 0; i < bytes; i += 4096)
		((volatile char *)p)[i] = 0;
}

#endif
