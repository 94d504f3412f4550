/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reads. A read is resolved from left to right: zeros and cached blocks are copied on the spot, missing parts become pieces, up
 * to OBD_PIECES at a time. Neighbouring missing blocks of one layer are one request. When a request is answered its pieces are
 * copied at once, so a read makes progress even in a cache that is smaller than the read; when all pieces are done the walk
 * goes on behind them.
 *
 * A writable device's map is looked at first, run by run: what the upper layer holds is a piece as well, asked of the indexer;
 * only where the map says nothing do the layers below decide.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/util.h"
#include "common/format/merge.h"
#include "frontend/client/internal.h"

#define SECTOR UINT64_C(512)

enum resolve { RESOLVED, PARTLY, BROKEN, LOST };

static struct obd_pieces *take_pieces(struct obd_client *c)
{
	struct obd_pieces *p = c->free_pieces;
	if (p)
		c->free_pieces = p->next_free;
	else
		p = malloc(sizeof *p);
	if (p)
		p->count = p->first_open = 0;
	return p;
}

static void give_pieces(struct obd_client *c, struct obd_io *io)
{
	if (!io->pieces)
		return;
	io->pieces->next_free = c->free_pieces;
	c->free_pieces = io->pieces;
	io->pieces = NULL;
}

void obd_client_free_pieces(struct obd_client *c)
{
	while (c->free_pieces) {
		struct obd_pieces *p = c->free_pieces;
		c->free_pieces = p->next_free;
		free(p);
	}
}

/* --- resolving
 * ------------------------------------------------------------------------------------------------------------------ */

/* Notes a missing part; false: the window is full (or there is no memory for one). */
static bool add_piece(struct obd_io *io, struct obd_piece piece)
{
	if (!io->pieces)
		io->pieces = take_pieces(io->dev->client);
	struct obd_pieces *w = io->pieces;
	if (!w || w->count == OBD_PIECES)
		return false;
	piece.io = io;
	piece.slot = -1;
	w->piece[w->count++] = piece;
	return true;
}

/* Does [upper, upper + len) go on where the last piece ends, and do both fit into one request? Then it is made longer. */
static bool join_upper(struct obd_io *io, uint64_t upper, uint32_t len, uint64_t io_offset)
{
	struct obd_pieces *w = io->pieces;
	if (!w || !w->count)
		return false;
	struct obd_piece *p = &w->piece[w->count - 1];
	if (p->layer != OBD_LAYER_UPPER || p->upper + p->len != upper || p->io_offset + p->len != io_offset ||
	    p->upper % SECTOR + p->len + len > OBD_UP_BUF_BYTES)
		return false;
	p->len += len;
	return true;
}

/* [upper, upper + len) of the upper's data file goes to io->buf + io_offset; *did: how far it got. */
static enum resolve read_upper(struct obd_io *io, uint64_t upper, uint64_t len, uint64_t io_offset, uint64_t *did)
{
	for (*did = 0; *did < len;) {
		uint64_t pos = upper + *did;
		uint32_t n = (uint32_t)obd_min_u64(len - *did, OBD_UP_BUF_BYTES - pos % SECTOR);
		struct obd_piece p = {.io_offset = io_offset + *did, .layer = OBD_LAYER_UPPER, .upper = pos, .len = n};
		if (!join_upper(io, pos, n, p.io_offset) && !add_piece(io, p))
			return PARTLY;
		*did += n;
	}
	return RESOLVED;
}

/* [moff, moff + len) of a layer's file goes to io->buf + io_offset; *did: how far it got. */
static enum resolve read_layer(struct obd_io *io, uint32_t layer, uint64_t moff, uint64_t len, uint64_t io_offset,
			       uint64_t *did)
{
	struct obd_device *dev = io->dev;
	struct obd_reader *r = &dev->client->reader;
	uint64_t bb = r->seg->geo.block_bytes;
	for (*did = 0; *did < len;) {
		uint64_t pos = moff + *did;
		uint64_t block = pos >> r->block_shift;
		uint32_t in_block = (uint32_t)(pos & (bb - 1));
		uint32_t n = (uint32_t)obd_min_u64(len - *did, bb - in_block);
		if (block > OBD_KEY_MAX_BLOCK)
			return BROKEN;
		int rc = obd_reader_copy(r, dev->layer_slot[layer], dev->layer_uid[layer], false, (uint32_t)block, in_block, n,
					 (char *)io->buf + io_offset + *did);
		struct obd_piece p = {
			.io_offset = io_offset + *did, .layer = layer, .block = (uint32_t)block, .offset = in_block, .len = n};
		if (rc == -EAGAIN && !add_piece(io, p))
			return PARTLY;
		if (rc && rc != -EAGAIN)
			return BROKEN;
		if (__builtin_expect(dev->touches != NULL, 0))
			obd_touches_add(dev, layer, (uint32_t)block, in_block, n);
		*did += n;
	}
	return RESOLVED;
}

/* One step of the walk through the layers below, `left` bytes at most: the gap before or the part inside segment i. Returns
 * through *did how many bytes it settled. */
static enum resolve step_lower(struct obd_io *io, uint64_t pos, uint64_t left, uint64_t i, uint64_t *did)
{
	struct obd_device *dev = io->dev;
	uint64_t at = io->offset + pos;
	char *dst = (char *)io->buf + pos;
	struct obd_lsmt_seg s = {0, 0};
	if (i < dev->index_count)
		s = dev->index[i]; /* shared memory: one copy, then checks */
	uint64_t start = obd_lsmt_seg_offset(s) * SECTOR;
	uint64_t end = obd_lsmt_seg_end(s) * SECTOR;
	if (i >= dev->index_count || start >= at + left || end <= at) {
		*did = left; /* behind the last segment, or a segment that cannot be here */
		if (i < dev->index_count && end <= at)
			return BROKEN;
		memset(dst, 0, left);
		return RESOLVED;
	}
	if (start > at) {
		*did = start - at;
		memset(dst, 0, *did);
		return RESOLVED;
	}
	*did = obd_min_u64(left, end - at);
	if (obd_lsmt_seg_zeroed(s)) {
		memset(dst, 0, *did);
		return RESOLVED;
	}
	if (obd_lsmt_seg_tag(s) >= dev->nlayers)
		return BROKEN;
	return read_layer(io, obd_lsmt_seg_tag(s), obd_lsmt_seg_moffset(s) * SECTOR + (at - start), *did, pos, did);
}

/* One step of the walk. A writable device: as far as the map's word goes. */
static enum resolve step(struct obd_io *io, uint64_t pos, uint64_t i, uint64_t *did)
{
	struct obd_device *dev = io->dev;
	uint64_t left = io->len - pos;
	if (!dev->writable)
		return step_lower(io, pos, left, i, did);
	uint64_t at = io->offset + pos;
	uint64_t skip = at % SECTOR;
	uint64_t run, moffset;
	bool bad;
	enum obd_upmap_kind kind = obd_upmap_lookup(&dev->client->seg, &dev->map, at / SECTOR,
						    (skip + left + SECTOR - 1) / SECTOR, &run, &moffset, &bad);
	left = obd_min_u64(left, run * SECTOR - skip);
	*did = left;
	if (bad) {
		obd_count(&dev->client->reader.own->proc, protocol_errors, 1);
		return BROKEN;
	}
	if (kind == OBD_UPMAP_NONE)
		return step_lower(io, pos, left, i, did);
	if (kind == OBD_UPMAP_DATA)
		return read_upper(io, moffset * SECTOR + skip, left, pos, did);
	memset((char *)io->buf + pos, 0, left);
	return RESOLVED;
}

static enum resolve walk(struct obd_io *io)
{
	struct obd_device *dev = io->dev;
	uint64_t i = obd_lsmt_lookup(dev->index, dev->index_count, (io->offset + io->resolved_to) / SECTOR);
	while (io->resolved_to < io->len) {
		uint64_t did;
		enum resolve rc = step(io, io->resolved_to, i, &did);
		if (rc == BROKEN)
			return BROKEN;
		io->resolved_to += did;
		if (rc == PARTLY)
			break;
		while (i < dev->index_count && obd_lsmt_seg_end(dev->index[i]) * SECTOR <= io->offset + io->resolved_to)
			i++;
	}
	return io->pieces && io->pieces->count ? PARTLY : io->resolved_to == io->len ? RESOLVED : BROKEN;
}

/* What the walk found counts only if the image is still the one whose index it used (edge image-seqlock). */
static enum resolve resolve(struct obd_io *io)
{
	enum resolve rc = walk(io);
	obd_fence_acquire();
	if (io->dev->writable && obd_load_relaxed(io->dev->upper_word) != io->dev->upper_seen)
		return LOST;
	return obd_load_relaxed(io->dev->image_word) == io->dev->image_seen ? rc : LOST;
}

/* --- asking
 * --------------------------------------------------------------------------------------------------------------------- */

/* How many pieces from i on are one run of blocks of one layer (a block may be needed by several pieces). */
static uint32_t group_of(const struct obd_pieces *w, uint32_t i, uint32_t *nblocks)
{
	const struct obd_piece *first = &w->piece[i];
	uint32_t last = first->block;
	uint32_t n = 1;
	for (; i + n < w->count; n++) {
		const struct obd_piece *p = &w->piece[i + n];
		if (p->layer != first->layer || p->block < last || p->block > last + 1 ||
		    p->block - first->block >= OBD_REQ_BLOCKS)
			break;
		last = p->block;
	}
	*nblocks = last - first->block + 1;
	return n;
}

/* Which bytes a group needs of its first and last block. */
static struct obd_part need_of(const struct obd_piece *first, uint32_t count, uint32_t nblocks)
{
	struct obd_part need = {.begin = UINT32_MAX, .end = 0};
	uint32_t last = first->block + nblocks - 1;
	for (uint32_t k = 0; k < count; k++) {
		if (first[k].block == first->block && first[k].offset < need.begin)
			need.begin = first[k].offset;
		if (first[k].block == last && first[k].offset + first[k].len > need.end)
			need.end = first[k].offset + first[k].len;
	}
	return need;
}

/* False: no request slot; the read waits in the client's retry list. */
static bool post_group(struct obd_io *io, uint32_t i, uint32_t *count)
{
	struct obd_device *dev = io->dev;
	struct obd_piece *first = &io->pieces->piece[i];
	uint32_t nblocks;
	*count = group_of(io->pieces, i, &nblocks);
	int slot = obd_reader_post_part(&dev->client->reader, OBD_JOB_BLOCKS, dev->layer_slot[first->layer],
					dev->layer_uid[first->layer], first->block, nblocks, need_of(first, *count, nblocks),
					obd_flow((uint32_t)dev->slot, OBD_REQ_DEMAND), first);
	if (slot < 0)
		return false;
	first->slot = (int16_t)slot;
	first->group = (uint16_t)*count;
	io->outstanding++;
	return true;
}

static void post(struct obd_io *io)
{
	struct obd_client *c = io->dev->client;
	struct obd_pieces *w = io->pieces;
	bool blocks = false;
	bool wants_turn = false;
	while (w->first_open < w->count) {
		struct obd_piece *p = &w->piece[w->first_open];
		uint32_t n = 1;
		if (p->layer == OBD_LAYER_UPPER && obd_up_post_read(io, p)) {
			w->first_open++;
			continue;
		}
		if (p->layer == OBD_LAYER_UPPER) {
			wants_turn = true;
			obd_up_want(io);
			break;
		}
		blocks = true;
		if (!post_group(io, w->first_open, &n)) {
			obd_list_remove(&io->retry);
			obd_list_push_back(&c->retry, &io->retry);
			obd_client_arm_timer(c, 1000);
			break;
		}
		w->first_open += n;
	}
	if (blocks)
		obd_reader_kick(&c->reader);
	if (wants_turn)
		obd_ups_pump(c);
}

void obd_io_continue(struct obd_io *io)
{
	post(io);
}

/* --- ends
 * ----------------------------------------------------------------------------------------------------------------------- */

static void cancel_requests(struct obd_io *io)
{
	struct obd_client *c = io->dev->client;
	for (uint32_t i = 0; io->pieces && i < io->pieces->count; i++)
		if (io->pieces->piece[i].slot >= 0 && io->pieces->piece[i].layer != OBD_LAYER_UPPER)
			obd_reader_cancel(&c->reader, io->pieces->piece[i].slot);
	if (io->outstanding && io->dev->writable)
		obd_ups_give_up(io);
	io->outstanding = 0;
}

/* Takes the io out of everything. */
static void detach(struct obd_io *io)
{
	cancel_requests(io);
	give_pieces(io->dev->client, io);
	obd_list_remove(&io->link);
	obd_list_remove(&io->retry);
}

void obd_io_finish(struct obd_io *io, int result)
{
	if (result && io->dev->client->mapped)
		obd_count(&io->dev->client->reader.own->proc, io_errors, 1);
	detach(io);
	io->fn(io, result);
}

/* Walks on; finishes the read or posts what it needs. A write waits for its turn. */
static void advance(struct obd_io *io)
{
	if (io->op != OBD_UP_READ || io->behind) {
		obd_up_want(io);
		obd_ups_pump(io->dev->client);
		return;
	}
	if (io->pieces)
		io->pieces->count = io->pieces->first_open = 0;
	switch (resolve(io)) {
	case RESOLVED:
		obd_io_finish(io, 0);
		break;
	case PARTLY:
		post(io);
		break;
	case BROKEN:
		obd_io_finish(io, -EIO);
		break;
	case LOST:
		obd_device_lost(io->dev);
	}
}

void obd_io_walk(struct obd_io *io)
{
	advance(io);
}

/* --- answers
 * -------------------------------------------------------------------------------------------------------------------- */

static int copy_piece(struct obd_io *io, struct obd_piece *p)
{
	struct obd_device *dev = io->dev;
	return obd_reader_copy(&dev->client->reader, dev->layer_slot[p->layer], dev->layer_uid[p->layer], false, p->block,
			       p->offset, p->len, (char *)io->buf + p->io_offset);
}

/* Copies a group's pieces; the ones whose block went away meanwhile are kept, to be asked for again. */
static int copy_group(struct obd_io *io, struct obd_piece *first, uint32_t count)
{
	for (uint32_t k = 0; k < count; k++) {
		int rc = copy_piece(io, &first[k]);
		if (rc && rc != -EAGAIN)
			return -EIO;
		first[k].done = rc == 0;
	}
	return 0;
}

/* All requests are answered: keep what is not done, ask again, or walk on. */
static void settle(struct obd_io *io)
{
	struct obd_pieces *w = io->pieces;
	uint32_t kept = 0;
	for (uint32_t i = 0; i < w->count; i++)
		if (!w->piece[i].done)
			w->piece[kept++] = w->piece[i];
	for (uint32_t i = 0; i < kept; i++)
		w->piece[i].slot = -1;
	w->count = kept;
	w->first_open = 0;
	if (kept)
		post(io);
	else
		advance(io);
}

static int result_of(int err)
{
	return err == ETIMEDOUT || err == EBADMSG ? -err : -EIO;
}

void obd_io_answer(void *arg, void *cookie, int err)
{
	struct obd_piece *first = cookie;
	struct obd_io *io = first->io;
	(void)arg;
	first->slot = -1;
	io->outstanding--;
	int rc = err ? result_of(err) : copy_group(io, first, first->group);
	if (rc)
		obd_io_finish(io, rc);
	else if (io->outstanding == 0 && io->pieces->first_open == io->pieces->count)
		settle(io);
}

void obd_io_upper_answer(struct obd_piece *p, int err)
{
	struct obd_io *io = p->io;
	p->done = true;
	p->slot = -1;
	if (err)
		obd_io_finish(io, -EIO);
	else if (io->outstanding == 0 && io->pieces->first_open == io->pieces->count)
		settle(io);
}

void obd_ios_retry(struct obd_client *c)
{
	struct obd_list todo;
	if (obd_list_empty(&c->retry))
		return;
	todo = c->retry; /* moves the whole list: posting may put reads back */
	todo.next->prev = todo.prev->next = &todo;
	obd_list_init(&c->retry);
	while (!obd_list_empty(&todo)) {
		struct obd_io *io = OBD_LIST_ENTRY(todo.next, struct obd_io, retry);
		obd_list_remove(&io->retry);
		if (io->dev->usable && io->pieces)
			post(io);
	}
}

/* A write goes on from the first part that was not answered; what is under way of it is written by the indexer or it is not,
 * and is written again either way. */
static void start_over(struct obd_io *io)
{
	uint64_t from = io->op == OBD_UP_READ ? 0 : obd_ups_lowest(io);
	cancel_requests(io);
	give_pieces(io->dev->client, io);
	obd_list_remove(&io->retry);
	io->resolved_to = from;
}

void obd_ios_again(struct obd_device *dev)
{
	OBD_LIST_FOREACH (it, &dev->ios)
		start_over(OBD_LIST_ENTRY(it, struct obd_io, link));
}

void obd_ios_lost(struct obd_device *dev)
{
	OBD_LIST_FOREACH (it, &dev->ios) {
		struct obd_io *io = OBD_LIST_ENTRY(it, struct obd_io, link);
		obd_list_remove(&io->retry);
		io->resolved_to = io->op == OBD_UP_READ ? 0 : obd_ups_lowest(io);
		io->outstanding = 0; /* the slots went with the segment */
		give_pieces(dev->client, io);
	}
}

void obd_ios_resume(struct obd_device *dev)
{
	struct obd_list todo;
	obd_list_init(&todo);
	while (!obd_list_empty(&dev->ios)) {
		struct obd_list *e = dev->ios.next;
		obd_list_remove(e);
		obd_list_push_back(&todo, e);
	}
	while (!obd_list_empty(&todo)) {
		struct obd_io *io = OBD_LIST_ENTRY(todo.next, struct obd_io, link);
		obd_list_remove(&io->link);
		obd_list_push_back(&dev->ios, &io->link);
		if (dev->usable) /* it may be lost again meanwhile */
			advance(io);
	}
}

void obd_ios_fail(struct obd_device *dev, int result)
{
	while (!obd_list_empty(&dev->ios))
		obd_io_finish(OBD_LIST_ENTRY(dev->ios.next, struct obd_io, link), result);
}

/* --- the caller's side
 * ------------------------------------------------------------------------------------------------------------ */

static int begin(struct obd_io *io)
{
	const struct obd_device *dev = io->dev;
	uint64_t end;
	if (dev->state != OBD_DEVICE_READY)
		return -ENODEV;
	if (dev->changed)
		return -EIO;
	if (!obd_add_u64(io->offset, io->len, &end) || end > dev->bytes)
		return -EINVAL;
	io->resolved_to = 0;
	io->pieces = NULL;
	io->outstanding = 0;
	io->op = OBD_UP_READ;
	io->behind = false;
	obd_list_init(&io->retry);
	return 0;
}

int obd_read_behind(struct obd_io *io)
{
	struct obd_device *dev = io->dev;
	if (!obd_ups_behind_orphan(dev, io->offset, io->len))
		return obd_read(io);
	int rc = begin(io);
	if (rc)
		return rc;
	io->behind = true;
	obd_list_push_back(&dev->ios, &io->link);
	if (dev->usable) {
		obd_count(&dev->client->reader.own->proc, requests, 1);
		obd_up_want(io);
	}
	return 1;
}

int obd_read(struct obd_io *io)
{
	struct obd_device *dev = io->dev;
	int err = begin(io);
	if (err)
		return err;
	enum resolve rc = PARTLY;
	if (dev->usable) {
		obd_count(&dev->client->reader.own->proc, requests, 1);
		rc = resolve(io);
	}
	if (rc == RESOLVED)
		return 0;
	if (rc == BROKEN) {
		give_pieces(dev->client, io);
		obd_count(&dev->client->reader.own->proc, io_errors, 1);
		return -EIO;
	}
	obd_list_push_back(&dev->ios, &io->link);
	if (rc == LOST)
		obd_device_lost(dev);
	else if (dev->usable)
		post(io);
	return 1;
}

void obd_io_cancel(struct obd_io *io)
{
	detach(io);
}
