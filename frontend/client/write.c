/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Upper requests (doc/architecture.md 4.9): writes, discards and syncs, and the reads of what the upper layer holds.
 *
 *   io -> dev->up_wait -> (the device's turn) -> slot POSTED -> answer -> slot FREE
 *                                                    |
 *                              the io is given up: an orphan until its answer
 *
 * Slots are few, since each has a buffer in either direction; devices that want some take turns, one request at a time, and a
 * device's ios take turns among themselves.
 *
 * A slot that is POSTED belongs to the indexer, which may be reading its staging buffer or writing its upread buffer. So a slot
 * whose io was given up stays as it is until its answer comes, and a later write of the same range waits for that, so that an
 * indexer which dies in between cannot carry them out in the wrong order. So does a read on which a write depends
 * (obd_read_behind).
 *
 * If the indexer dies, POSTED requests are served by the next one. If the group dies, the slots go with the segment, and what
 * was not answered is asked for again once the device is open.
 */
#include <errno.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/testpoint.h"
#include "common/base/util.h"
#include "frontend/client/internal.h"
#include "shmcache/ring.h"

#define SECTOR UINT64_C(512)
#define PAGE UINT64_C(4096)

enum {
	BUDGET = 256,
	GATHERED = 16, /* the indexer has enough to do with these while more are gathered */
};

static struct obd_upreq *entry_of(const struct obd_client *c, uint32_t slot)
{
	return &c->reader.own->up[slot];
}

static const struct obd_catalog_client *peer(const struct obd_client *c)
{
	return &c->seg.catalog->client[c->id];
}

void obd_ups_attach(struct obd_client *c)
{
	obd_ring_skip(&peer(c)->updones, &c->reader.own->updones_tail);
	obd_store_relaxed(&c->reader.own->ups.head, obd_load_acquire(&peer(c)->ups_tail.tail));
	obd_ups_forget(c);
}

void obd_ups_forget(struct obd_client *c)
{
	memset(c->up, 0, sizeof c->up);
	memset(c->slot_ups, 0, sizeof c->slot_ups);
	c->up_orphans = 0;
	c->up_untold = 0;
	c->up_nfree = OBD_UP_SLOTS;
	for (uint32_t s = 0; s < OBD_UP_SLOTS; s++)
		c->up_free[s] = (uint16_t)(OBD_UP_SLOTS - 1 - s);
}

/* --- slots
 * ---------------------------------------------------------------------------------------------------------------------- */

static void push(struct obd_client *c, uint32_t slot)
{
	if (!obd_ring_push(&c->reader.own->ups, &peer(c)->ups_tail, obd_entry(slot, c->up[slot].seq, 0)))
		obd_warn("the indexer does not take requests"); /* it scans the tables when it starts over */
}

/* Posts u, whose buffer is filled if it is a WRITE, in the slot on top of the stack of free ones. */
static uint32_t post(struct obd_client *c, struct obd_up u, uint64_t offset, uint32_t flags)
{
	uint32_t slot = c->up_free[--c->up_nfree];
	struct obd_upreq *q = entry_of(c, slot);
	u.seq = obd_word_seq(obd_load_relaxed(&q->word)) + 1;
	u.open_slot = (uint16_t)u.io->dev->slot;
	u.posted = true;
	c->up[slot] = u;
	c->slot_ups[u.open_slot]++;
	obd_store_relaxed(&q->open_slot, u.open_slot);
	obd_store_relaxed(&q->op, u.op);
	obd_store_relaxed(&q->offset, offset);
	obd_store_relaxed(&q->len, u.len);
	obd_store_relaxed(&q->flags, flags);
	obd_store_relaxed(&q->posted_ns, obd_clock_ns());
	OBD_TEST_POINT(up_unposted);
	obd_store_release(&q->word, obd_word(u.seq, OBD_UP_POSTED)); /* edge: up-post */
	OBD_TEST_POINT(up_posted);
	push(c, slot);
	c->up_untold++;
	u.io->outstanding++;
	return slot;
}

static void release(struct obd_client *c, uint32_t slot)
{
	struct obd_up u = c->up[slot];
	obd_store_release(&entry_of(c, slot)->word, obd_word(u.seq, OBD_UP_FREE));
	c->up[slot] = (struct obd_up){0};
	c->up_free[c->up_nfree++] = (uint16_t)slot;
	if (!u.io)
		c->up_orphans--;
	if (--c->slot_ups[u.open_slot] == 0 && c->slot_closing[u.open_slot])
		obd_open_slot_free(c, u.open_slot);
}

void obd_ups_give_up(struct obd_io *io)
{
	struct obd_client *c = io->dev->client;
	for (uint32_t s = 0; c->mapped && s < OBD_UP_SLOTS; s++) {
		if (!c->up[s].posted || c->up[s].io != io)
			continue;
		c->up[s].io = NULL;
		c->up[s].piece = NULL;
		c->up_orphans++;
	}
}

uint64_t obd_ups_lowest(const struct obd_io *io)
{
	const struct obd_client *c = io->dev->client;
	uint64_t lowest = io->resolved_to;
	for (uint32_t s = 0; io->outstanding && s < OBD_UP_SLOTS; s++)
		if (c->up[s].posted && c->up[s].io == io)
			lowest = obd_min_u64(lowest, c->up[s].io_offset);
	return lowest;
}

bool obd_ups_behind_orphan(const struct obd_device *dev, uint64_t offset, uint64_t len)
{
	const struct obd_client *c = dev->client;
	for (uint32_t s = 0; c->up_orphans && s < OBD_UP_SLOTS; s++) {
		const struct obd_up *u = &c->up[s];
		if (u->posted && !u->io && u->open_slot == dev->slot && (u->op == OBD_UP_WRITE || u->op == OBD_UP_DISCARD) &&
		    offset < u->offset + u->len && u->offset < offset + len)
			return true;
	}
	return false;
}

/* --- turns
 * ---------------------------------------------------------------------------------------------------------------------- */

void obd_up_want(struct obd_io *io)
{
	struct obd_device *dev = io->dev;
	obd_list_remove(&io->retry);
	obd_list_push_back(&dev->up_wait, &io->retry);
	if (obd_list_empty(&dev->up_turn))
		obd_list_push_back(&dev->client->up_turn, &dev->up_turn);
}

bool obd_up_want_more(const struct obd_io *io)
{
	return io->resolved_to < (io->op == OBD_UP_SYNC ? 1 : io->len);
}

/* How much of a write the next request takes: the request after it begins at a page, where the map has its words. */
static uint64_t next_len(const struct obd_io *io, uint64_t offset)
{
	uint64_t left = io->len - io->resolved_to;
	return io->op == OBD_UP_WRITE ? obd_min_u64(left, OBD_UP_BUF_BYTES - offset % PAGE) : left;
}

/* Posts the next part of a write, discard or sync. */
static void post_part(struct obd_io *io)
{
	struct obd_client *c = io->dev->client;
	uint64_t offset = io->offset + io->resolved_to;
	struct obd_up u = {.io = io, .io_offset = io->resolved_to, .op = io->op};
	if (io->op == OBD_UP_SYNC) {
		io->resolved_to = 1;
		post(c, u, 0, 0);
		return;
	}
	u.offset = offset;
	u.len = next_len(io, offset);
	if (io->op == OBD_UP_WRITE)
		memcpy(c->reader.own->staging[c->up_free[c->up_nfree - 1]], (const char *)io->buf + io->resolved_to, u.len);
	io->resolved_to += u.len;
	post(c, u, offset, io->fua ? OBD_UP_FUA : 0);
}

bool obd_up_post_read(struct obd_io *io, struct obd_piece *p)
{
	struct obd_client *c = io->dev->client;
	if (!c->up_grant)
		return false;
	c->up_grant = false;
	uint64_t start = obd_align_down(p->upper, SECTOR);
	struct obd_up u = {.io = io, .piece = p, .op = OBD_UP_READ, .len = obd_align_up(p->upper + p->len, SECTOR) - start};
	p->slot = (int16_t)post(c, u, start, 0);
	return true;
}

/* Must the io's next part wait for one that was given up? */
static bool is_blocked(const struct obd_io *io)
{
	uint64_t offset = io->offset + io->resolved_to;
	if (io->op == OBD_UP_SYNC || (io->op == OBD_UP_READ && !io->behind))
		return false;
	return obd_ups_behind_orphan(io->dev, offset, io->op == OBD_UP_READ ? io->len : next_len(io, offset));
}

/* The first of the device's ios that may go on: what is blocked does not hold up what stands behind it. */
static struct obd_io *next_io(struct obd_device *dev)
{
	OBD_LIST_FOREACH (it, &dev->up_wait) {
		struct obd_io *io = OBD_LIST_ENTRY(it, struct obd_io, retry);
		if (!is_blocked(io))
			return io;
	}
	return NULL;
}

/* An io of the device takes a slot, and queues again if it wants more. False: all must wait for answers to orphans. */
static bool take_turn(struct obd_device *dev)
{
	struct obd_io *io = next_io(dev);
	if (!io)
		return false;
	obd_list_remove(&io->retry);
	if (io->behind) {
		io->behind = false;
		obd_io_walk(io);
	} else if (io->op == OBD_UP_READ) {
		dev->client->up_grant = true;
		obd_io_continue(io);
		dev->client->up_grant = false;
	} else {
		post_part(io);
		if (obd_up_want_more(io))
			obd_up_want(io);
	}
	return true;
}

/* A device whose disk hangs keeps its slots. So each leaves twice as many free as it has: some are left when several hang. */
static bool may_take(const struct obd_client *c, const struct obd_device *dev)
{
	uint32_t mine = c->slot_ups[dev->slot];
	return mine == 0 || 2 * mine < c->up_nfree;
}

void obd_client_gather(struct obd_client *c, void (*fn)(void *arg), void *arg)
{
	c->gather = fn;
	c->gather_arg = arg;
	if (!fn)
		obd_client_ring(c);
}

void obd_client_ring(struct obd_client *c)
{
	if (c->mapped && c->up_untold && obd_wake(&c->seg.catalog->proc, c->seg.bell_indexer))
		obd_count(&c->reader.own->proc, wakeups, 1);
	c->up_untold = 0;
}

static void tell(struct obd_client *c)
{
	if (c->gather && c->up_untold < GATHERED)
		c->gather(c->gather_arg);
	else
		obd_client_ring(c);
}

void obd_ups_pump(struct obd_client *c)
{
	struct obd_list stuck;
	uint32_t untold = c->up_untold;
	if (c->up_pumping || !c->mapped)
		return;
	c->up_pumping = true;
	obd_list_init(&stuck);
	while (c->up_nfree && !obd_list_empty(&c->up_turn)) {
		struct obd_device *dev = OBD_LIST_ENTRY(c->up_turn.next, struct obd_device, up_turn);
		obd_list_remove(&dev->up_turn);
		if (!dev->usable || obd_list_empty(&dev->up_wait))
			continue; /* its ios went away, or come back when it is open again */
		bool went_on = may_take(c, dev) && take_turn(dev);
		obd_list_remove(&dev->up_turn);
		if (!obd_list_empty(&dev->up_wait))
			obd_list_push_back(went_on ? &c->up_turn : &stuck, &dev->up_turn);
	}
	while (!obd_list_empty(&stuck)) {
		struct obd_list *e = stuck.next;
		obd_list_remove(e);
		obd_list_push_back(&c->up_turn, e);
	}
	c->up_pumping = false;
	if (c->up_untold != untold)
		tell(c);
}

/* --- answers
 * -------------------------------------------------------------------------------------------------------------------- */

static int result_of(int err)
{
	if (err == EDQUOT || err == EFBIG)
		return -ENOSPC; /* whichever limit it was: the upper layer cannot grow */
	return err == ENOSPC || err == EROFS || err == ETIMEDOUT || err == EBADMSG ? -err : -EIO;
}

static void copy_out(const struct obd_client *c, uint32_t slot)
{
	const struct obd_up *u = &c->up[slot];
	const struct obd_piece *p = u->piece;
	const unsigned char *from = c->seg.upread->buf[c->id][slot] + p->upper % SECTOR;
	memcpy((char *)u->io->buf + p->io_offset, from, p->len);
}

static void answered(struct obd_client *c, uint32_t slot, int err)
{
	struct obd_up u = c->up[slot];
	/* The indexer has let go of the device: the supervisor lost our connection, or took us for dead, and we have not
	 * noticed. */
	if (u.io && err == ENODEV && u.io->dev->usable) {
		obd_device_lost(u.io->dev); /* gives this request up with all others */
		u.io = NULL;
	}
	if (u.io && u.op == OBD_UP_READ && !err)
		copy_out(c, slot);
	OBD_TEST_POINT(up_answer_seen);
	release(c, slot);
	if (!u.io)
		return;
	u.io->outstanding--;
	if (u.op == OBD_UP_READ)
		obd_io_upper_answer(u.piece, err);
	else if (err)
		obd_io_finish(u.io, result_of(err));
	else if (u.io->outstanding == 0 && !obd_up_want_more(u.io))
		obd_io_finish(u.io, 0);
}

/* The entry is another process's word: it must name a slot of ours that is POSTED with that sequence, else it is old or wrong.
 */
static void take_answer(struct obd_client *c, uint64_t entry)
{
	uint32_t slot = obd_entry_slot(entry);
	if (slot >= OBD_UP_SLOTS)
		obd_count(&c->reader.own->proc, protocol_errors, 1);
	else if (c->up[slot].posted && (uint32_t)c->up[slot].seq == obd_entry_seq(entry))
		answered(c, slot, obd_entry_err(entry));
}

/* The ring's head cannot be: answers may be lost, so everything is asked for once more. */
static void ask_again(struct obd_client *c, uint64_t head)
{
	obd_count(&c->reader.own->proc, protocol_errors, 1);
	obd_store_release(&c->reader.own->updones_tail.tail, head);
	for (uint32_t s = 0; s < OBD_UP_SLOTS; s++)
		if (c->up[s].posted)
			push(c, s);
}

bool obd_ups_poll(struct obd_client *c)
{
	const struct obd_ring *ring = &peer(c)->updones;
	struct obd_tail *own = &c->reader.own->updones_tail;
	bool did = false;
	/* The tail moves after the slot is FREE: a restarted indexer takes what stands behind the tail for answered. */
	for (int n = 0; n < BUDGET; n++, did = true) {
		uint64_t tail = obd_load_relaxed(&own->tail);
		uint64_t head = obd_load_acquire(&ring->head); /* edge: ring-publish */
		if (head == tail)
			break;
		if (head - tail > OBD_RING_ENTRIES) {
			ask_again(c, head);
			continue;
		}
		take_answer(c, obd_load_relaxed(&ring->entry[tail & OBD_RING_MASK]));
		OBD_TEST_POINT(up_answer_freed);
		obd_store_release(&own->tail, tail + 1); /* edge: ring-consume */
	}
	if (did)
		obd_ups_pump(c);
	return did;
}

bool obd_ups_have_work(const struct obd_client *c)
{
	return obd_ring_has(&peer(c)->updones, &c->reader.own->updones_tail);
}

/* --- the caller's side
 * ------------------------------------------------------------------------------------------------------------ */

static int begin(struct obd_io *io, enum obd_up_op op, bool fua)
{
	struct obd_device *dev = io->dev;
	uint64_t end;
	if (dev->state != OBD_DEVICE_READY)
		return -ENODEV;
	if (dev->changed)
		return -EIO;
	if (!dev->writable)
		return -EROFS;
	if (op != OBD_UP_SYNC &&
	    (io->offset % SECTOR || io->len % SECTOR || !obd_add_u64(io->offset, io->len, &end) || end > dev->bytes))
		return -EINVAL;
	if (op != OBD_UP_SYNC && io->len == 0)
		return 0;
	io->op = (unsigned char)op;
	io->fua = fua;
	io->behind = false;
	io->resolved_to = 0;
	io->pieces = NULL;
	io->outstanding = 0;
	obd_list_init(&io->retry);
	obd_list_push_back(&dev->ios, &io->link);
	if (dev->usable) {
		obd_count(&dev->client->reader.own->proc, requests, 1);
		obd_up_want(io);
		obd_ups_pump(dev->client);
	}
	return 1;
}

int obd_write(struct obd_io *io, bool fua)
{
	return begin(io, OBD_UP_WRITE, fua);
}

int obd_discard(struct obd_io *io, bool fua)
{
	return begin(io, OBD_UP_DISCARD, fua);
}

int obd_sync(struct obd_io *io)
{
	return begin(io, OBD_UP_SYNC, false);
}
