/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/util.h"
#include "indexer/arena.h"

void obd_arena_init(struct obd_arena *a, uint64_t bytes)
{
	*a = (struct obd_arena){.bytes = obd_align_down(bytes, OBD_ARENA_ALIGN)};
}

void obd_arena_done(struct obd_arena *a)
{
	free(a->extent);
	*a = (struct obd_arena){0};
}

/* Number of the first extent at or behind off. */
static size_t first_at(const struct obd_arena *a, uint64_t off)
{
	size_t lo = 0, hi = a->count;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (a->extent[mid].off < off)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static int insert(struct obd_arena *a, size_t at, uint64_t off, uint64_t bytes)
{
	if (a->count == a->room) {
		size_t room = a->room ? 2 * a->room : 64;
		struct obd_arena_extent *more = realloc(a->extent, room * sizeof(*more));
		if (!more)
			return -ENOMEM;
		a->extent = more;
		a->room = room;
	}
	memmove(&a->extent[at + 1], &a->extent[at], (a->count - at) * sizeof(a->extent[0]));
	a->extent[at] = (struct obd_arena_extent){.off = off, .bytes = bytes};
	a->count++;
	a->used_bytes += bytes;
	return 0;
}

static uint64_t gap_start(const struct obd_arena *a, size_t at)
{
	return at ? a->extent[at - 1].off + a->extent[at - 1].bytes : 0;
}

static uint64_t gap_end(const struct obd_arena *a, size_t at)
{
	return at < a->count ? a->extent[at].off : a->bytes;
}

int obd_arena_alloc_aligned(struct obd_arena *a, uint64_t bytes, uint64_t align, uint64_t *off)
{
	assert(bytes && obd_is_pow2(align));
	if (bytes > a->bytes)
		return -ENOSPC;
	bytes = obd_align_up(bytes, OBD_ARENA_ALIGN);
	align = obd_max_u64(align, OBD_ARENA_ALIGN);
	size_t best = SIZE_MAX;
	uint64_t best_bytes = UINT64_MAX;
	for (size_t at = 0; at <= a->count; at++) {
		uint64_t start = obd_align_up(gap_start(a, at), align), end = gap_end(a, at);
		if (start <= end && end - start >= bytes && end - start < best_bytes) {
			best = at;
			best_bytes = end - start;
		}
	}
	if (best == SIZE_MAX)
		return -ENOSPC;
	*off = obd_align_up(gap_start(a, best), align);
	return insert(a, best, *off, bytes);
}

int obd_arena_alloc(struct obd_arena *a, uint64_t bytes, uint64_t *off)
{
	return obd_arena_alloc_aligned(a, bytes, OBD_ARENA_ALIGN, off);
}

int obd_arena_reserve(struct obd_arena *a, uint64_t off, uint64_t bytes)
{
	if (!bytes || off % OBD_ARENA_ALIGN || off > a->bytes || bytes > a->bytes - off)
		return -EINVAL;
	bytes = obd_align_up(bytes, OBD_ARENA_ALIGN); /* a->bytes is a multiple too: still inside */
	size_t at = first_at(a, off);
	if (gap_start(a, at) > off || gap_end(a, at) < off + bytes)
		return -EINVAL;
	return insert(a, at, off, bytes);
}

void obd_arena_release(struct obd_arena *a, uint64_t off)
{
	size_t at = first_at(a, off);
	assert(at < a->count && a->extent[at].off == off);
	a->used_bytes -= a->extent[at].bytes;
	a->count--;
	memmove(&a->extent[at], &a->extent[at + 1], (a->count - at) * sizeof(a->extent[0]));
}
