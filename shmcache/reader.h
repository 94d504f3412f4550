/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The segment as a reader uses it: copy blocks that are cached, ask for those that are not (doc/architecture.md 4.4 and 4.5).
 * Used by the client library (frontends) and by the indexer (client 0). One per process, single-threaded, nothing blocks.
 */
#ifndef OBD_SHMCACHE_READER_H
#define OBD_SHMCACHE_READER_H

#include <stdbool.h>
#include <stdint.h>

#include "shmcache/segment.h"

/* An answer has come for the request of this cookie: err 0 (look again: the blocks are there) or a positive errno. */
typedef void obd_reader_answer_fn(void *arg, void *cookie, int err);

struct obd_reader {
	struct obd_segment *seg;
	struct obd_client_area *own;
	uint32_t client;
	uint32_t nfree;
	uint16_t free_slot[OBD_REQ_SLOTS];
	void *cookie[OBD_REQ_SLOTS];
	uint64_t block_shift;
};

/* Adopts client area `client` (fresh, all zero): writes its process row. */
void obd_reader_attach(struct obd_reader *r, struct obd_segment *seg, uint32_t client, enum obd_role role,
		       uint32_t incarnation);

/* Copies bytes [offset, offset + len) of one block (never across a block's end) of a layer into dst.
 * 0: hit. -EAGAIN: not in the cache, or that part of the block is not. -ERANGE: the cached block is shorter (the layer's file
 * ends there). */
int obd_reader_copy(struct obd_reader *r, uint32_t layer_slot, uint32_t uid, bool raw, uint32_t block, uint32_t offset,
		    uint32_t len, void *dst);

/* Asks cached for blocks [block, block + nblocks) of a layer (kind PROBE: nblocks 0) on behalf of `flow` (obd_flow: which
 * image, how urgent). The answer comes by obd_reader_poll. Returns the request slot, or -EBUSY when all slots are in use (ask
 * again after an answer). */
int obd_reader_post(struct obd_reader *r, enum obd_job_kind kind, uint32_t layer_slot, uint32_t uid, uint32_t block,
		    uint32_t nblocks, uint32_t flow, void *cookie);

/* The same for who needs less than whole blocks: bytes from need.begin of the first block to need.end of the last (0: its end).
 * Demand gets whole blocks all the same, unless the part is on its way already; prefetch gets no more than it asks for. */
int obd_reader_post_part(struct obd_reader *r, enum obd_job_kind kind, uint32_t layer_slot, uint32_t uid, uint32_t block,
			 uint32_t nblocks, struct obd_part need, uint32_t flow, void *cookie);

/* Gives a request up; its answer, if it still comes, is ignored. */
void obd_reader_cancel(struct obd_reader *r, int slot);

/* Wakes cached if it sleeps; call once after a batch of posts. */
void obd_reader_kick(struct obd_reader *r);

/* Consumes at most `budget` answers; calls fn for each. Returns how many were consumed. fn may post. */
unsigned int obd_reader_poll(struct obd_reader *r, unsigned int budget, obd_reader_answer_fn *fn, void *arg);

/* Is there an answer? For the arm hook. */
bool obd_reader_has_answer(const struct obd_reader *r);

#endif
