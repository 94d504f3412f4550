/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which bytes of the `index` region are in use.
 *
 * The map lies in this process's memory only: a restarted indexer makes it again from what the catalog says
 * (obd_arena_reserve). Offsets are multiples of OBD_ARENA_ALIGN. Best fit over a sorted array of extents: there are a few
 * thousand at most and they change when images are opened, never when blocks are read. Nothing blocks.
 */
#ifndef OBD_INDEXER_ARENA_H
#define OBD_INDEXER_ARENA_H

#include <stddef.h>
#include <stdint.h>

#define OBD_ARENA_ALIGN 64u

struct obd_arena_extent {
	uint64_t off;
	uint64_t bytes; /* rounded up to OBD_ARENA_ALIGN */
};

struct obd_arena {
	uint64_t bytes;
	uint64_t used_bytes;
	struct obd_arena_extent *extent; /* sorted by off, not overlapping */
	size_t count;
	size_t room;
};

/* An empty map of a region of that many bytes. */
void obd_arena_init(struct obd_arena *a, uint64_t bytes);
void obd_arena_done(struct obd_arena *a);

/* Finds room for bytes (> 0). 0 and *off, -ENOSPC when no gap is long enough, -ENOMEM. */
int obd_arena_alloc(struct obd_arena *a, uint64_t bytes, uint64_t *off);

/* The same at a multiple of align, a power of two. */
int obd_arena_alloc_aligned(struct obd_arena *a, uint64_t bytes, uint64_t align, uint64_t *off);

/* Takes exactly [off, off + bytes). 0; -EINVAL: not aligned, not inside, or overlapping something taken; -ENOMEM. */
int obd_arena_reserve(struct obd_arena *a, uint64_t off, uint64_t bytes);

/* Gives back the extent that starts at off; there must be one. */
void obd_arena_release(struct obd_arena *a, uint64_t off);

#endif
