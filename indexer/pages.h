/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Small pieces of the arena, for the maps of writable devices.
 *
 * A map takes thousands of pieces of 4096 and of 64 bytes, and changes with every write: too many for the arena's sorted array.
 * So the arena gives chunks of 64 KiB, aligned to their size, and this cuts them up. A page of 4 KiB is one bit mask: its bits
 * are pieces of 64 bytes, and a piece of 4096 bytes is a whole page. A chunk without pieces goes back to the arena.
 *
 * Private memory: after a restart the maps' owner marks what its maps use. Nothing blocks.
 */
#ifndef OBD_INDEXER_PAGES_H
#define OBD_INDEXER_PAGES_H

#include <stdint.h>

#include "common/base/list.h"

#define OBD_PAGES_CHUNK_BYTES 65536u
#define OBD_PAGES_PAGE_BYTES 4096u
#define OBD_PAGES_UNIT_BYTES 64u

struct obd_page {
	struct obd_list link; /* in empty, partial, or in none: full, or not ours */
	uint64_t used;	      /* bit i: piece i is taken */
};

struct obd_chunk {
	uint32_t used_pages;
	bool ours;
};

/* Where chunks come from: 0 and *off, aligned to OBD_PAGES_CHUNK_BYTES, or -ENOSPC, -ENOMEM. */
struct obd_pages_source {
	int (*get)(void *arg, uint64_t *off);
	int (*take)(void *arg, uint64_t off); /* this very chunk; -EINVAL: somebody else has it */
	void (*put)(void *arg, uint64_t off);
	void *arg;
};

struct obd_pages {
	struct obd_pages_source source;
	struct obd_page *page;
	struct obd_chunk *chunk;
	uint64_t npages;
	struct obd_list empty;
	struct obd_list partial;
};

/* For a region of `bytes`. 0 or -ENOMEM. */
int obd_pages_init(struct obd_pages *p, uint64_t bytes, const struct obd_pages_source *source);
void obd_pages_done(struct obd_pages *p);

/* bytes is 64 or 4096. 0 and *off, or what the source says. */
int obd_pages_alloc(struct obd_pages *p, uint64_t bytes, uint64_t *off);
void obd_pages_free(struct obd_pages *p, uint64_t off, uint64_t bytes);

/* Takes exactly this piece. 0; -EINVAL: it is not a piece, or taken; -ENOMEM. */
int obd_pages_mark(struct obd_pages *p, uint64_t off, uint64_t bytes);

#endif
