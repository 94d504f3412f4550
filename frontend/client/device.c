/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Devices: the open table's life (doc/architecture.md 4.7) and what a device knows of its image. */
#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/testpoint.h"
#include "common/base/util.h"
#include "frontend/client/internal.h"
#include "shmcache/ring.h"

#define REOPEN_NS OBD_SECOND_NS

static struct obd_open *entry_of(const struct obd_device *dev)
{
	return &dev->client->reader.own->open[dev->slot];
}

static const struct obd_catalog_client *peer(const struct obd_client *c)
{
	return &c->seg.catalog->client[c->id];
}

/* --- asking
 * --------------------------------------------------------------------------------------------------------------------- */

static void ring_indexer(struct obd_client *c, uint32_t slot, uint64_t seq)
{
	if (!obd_ring_push(&c->reader.own->opens, &peer(c)->opens_tail, obd_entry(slot, seq, 0)))
		obd_warn("the indexer does not take requests"); /* it scans the tables when it starts over */
	if (obd_wake(&c->seg.catalog->proc, c->seg.bell_indexer))
		obd_count(&c->reader.own->proc, wakeups, 1);
}

static int take_slot(struct obd_device *dev)
{
	struct obd_client *c = dev->client;
	for (int s = 0; s < (int)OBD_OPEN_SLOTS; s++)
		if (!c->slot_owner[s] && !c->slot_closing[s]) {
			c->slot_owner[s] = dev;
			return s;
		}
	return -1;
}

void obd_device_post(struct obd_device *dev)
{
	struct obd_client *c = dev->client;
	dev->reopen_ns = 0;
	if (dev->slot < 0)
		dev->slot = take_slot(dev);
	if (dev->slot < 0) { /* all are taken, or kept for requests that are not answered yet */
		dev->reopen_ns = obd_clock_ns() + REOPEN_NS;
		obd_client_arm_timer(c, 1000);
		return;
	}
	if (!c->mapped)
		return;
	struct obd_open *e = entry_of(dev);
	dev->seq = obd_word_seq(obd_load_relaxed(&e->word)) + 1;
	memcpy(c->reader.own->open_path[dev->slot], dev->path, strlen(dev->path) + 1);
	obd_store_relaxed(&e->posted_ns, obd_clock_ns());
	OBD_TEST_POINT(open_unposted);
	obd_store_release(&e->word, obd_word(dev->seq, OBD_OPEN_POSTED)); /* edge: open-post */
	OBD_TEST_POINT(open_posted);
	ring_indexer(c, (uint32_t)dev->slot, dev->seq);
}

void obd_open_slot_free(struct obd_client *c, uint32_t slot)
{
	struct obd_open *e = &c->reader.own->open[slot];
	uint64_t seq = obd_word_seq(obd_load_relaxed(&e->word));
	obd_store_release(&e->word, obd_word(seq, OBD_OPEN_FREE)); /* edge: open-post */
	OBD_TEST_POINT(open_closed);
	c->slot_closing[slot] = false;
	ring_indexer(c, slot, seq);
}

/* An upper request names its device by the open slot, so the slot is not given away while one is under way: a restarted indexer
 * would carry it out on another device. */
static void give_slot(struct obd_device *dev)
{
	struct obd_client *c = dev->client;
	if (dev->slot < 0)
		return;
	if (c->slot_ups[dev->slot])
		c->slot_closing[dev->slot] = true;
	else if (c->mapped)
		obd_open_slot_free(c, (uint32_t)dev->slot);
	c->slot_owner[dev->slot] = NULL;
	dev->slot = -1;
}

/* --- results
 * -------------------------------------------------------------------------------------------------------------------- */

/* Copies image (slot, uid) and checks that the index lies in its region. */
static int adopt_image(struct obd_device *dev, uint32_t slot, uint32_t uid, uint64_t *bytes)
{
	struct obd_client *c = dev->client;
	if (slot >= OBD_IMAGE_SLOTS)
		return -EPROTO;
	const struct obd_image *im = &c->seg.catalog->image[slot];
	uint64_t word = obd_load_acquire(&im->word); /* edge: image-publish */
	if (word != obd_word(uid, OBD_IMAGE_READY))
		return -ESTALE;
	uint64_t off = im->index_off, count = im->index_count, size, end;
	uint32_t n = im->nlayers;
	if (n > OBD_IMAGE_LAYERS || off % 8 || !obd_mul_u64(count, sizeof *dev->index, &size) ||
	    !obd_add_u64(off, size, &end) || end > c->seg.geo.index_bytes)
		return -EPROTO;
	memcpy(dev->layer_slot, im->layer_slot, n * sizeof dev->layer_slot[0]);
	memcpy(dev->layer_uid, im->layer_uid, n * sizeof dev->layer_uid[0]);
	*bytes = im->virtual_bytes;
	obd_fence_acquire();
	if (obd_load_relaxed(&im->word) != word)
		return -ESTALE;
	dev->image_word = &im->word;
	dev->image_seen = word;
	dev->index = (const void *)(c->seg.index + off);
	dev->index_count = count;
	dev->nlayers = n;
	return 0;
}

static void announce(struct obd_device *dev)
{
	if (!dev->announced) {
		dev->announced = true;
		dev->fn(dev->arg, dev);
	}
}

static void fail(struct obd_device *dev, int err, const char *reason)
{
	bool was_ready = dev->state == OBD_DEVICE_READY;
	give_slot(dev);
	if (was_ready) { /* opened before, by a group that is gone: reads wait, we try again */
		obd_warn("%s: cannot be opened again: %s", dev->path, reason);
		dev->reopen_ns = obd_clock_ns() + REOPEN_NS;
		obd_client_arm_timer(dev->client, 1000);
		return;
	}
	dev->state = OBD_DEVICE_FAILED;
	dev->err = err;
	strncpy(dev->reason, reason, sizeof dev->reason - 1);
	announce(dev);
}

/* The map of the upper, which also says how large the device is. */
static int adopt_upper(struct obd_device *dev, uint32_t slot, uint32_t uid, uint64_t *bytes)
{
	struct obd_client *c = dev->client;
	if (uid == 0)
		return 0;
	if (!c->seg.upread)
		return -EPROTO;
	int rc = obd_upmap_open(&c->seg, slot, uid, &dev->map);
	if (rc == 0) {
		*bytes = dev->map.sectors * 512;
		dev->upper_word = &c->seg.catalog->upper[slot].word;
		dev->upper_seen = obd_word(uid, OBD_UPPER_READY);
	}
	return rc;
}

/* A device that was open before must be what it was: its initiators have parts of it in their caches, and writes that were not
 * answered yet are about to be carried out again. */
static const char *what_changed(const struct obd_device *dev, uint64_t bytes, const struct obd_reply *r)
{
	if (dev->state != OBD_DEVICE_READY)
		return NULL;
	if (r->upper_id != dev->upper_id)
		return dev->upper_id && !r->upper_id ? "the image has no upper layer any more"
						     : "the image has another upper layer now";
	if (r->lowers_id != dev->lowers_id)
		return "the image has other layers now";
	return bytes != dev->bytes ? "the image has another size now" : NULL;
}

/* r: in the catalog. copy: of it, checked. */
static void ready(struct obd_device *dev, const struct obd_reply *r, const struct obd_reply *copy)
{
	uint32_t image_slot = copy->image_slot, image_uid = copy->image_uid;
	uint64_t bytes;
	int rc = adopt_image(dev, image_slot, image_uid, &bytes);
	if (rc == 0)
		rc = adopt_upper(dev, copy->upper_slot, copy->upper_uid, &bytes);
	const char *changed = rc ? NULL : what_changed(dev, bytes, copy);
	if (rc || changed) {
		fail(dev, rc ? -rc : ESTALE, rc ? "the indexer's answer cannot be used" : changed);
		dev->changed |= changed != NULL;
		if (changed)
			obd_ios_fail(dev, -EIO);
		return;
	}
	struct obd_open *e = entry_of(dev);
	obd_store_relaxed(&e->image_slot, image_slot);
	obd_store_relaxed(&e->image_uid, image_uid);
	OBD_TEST_POINT(reply_seen);
	obd_store_release(&e->word, obd_word(dev->seq, OBD_OPEN_HELD)); /* edge: open-held */
	OBD_TEST_POINT(open_held);
	dev->bytes = bytes;
	dev->lowers_id = copy->lowers_id;
	dev->upper_id = copy->upper_id;
	dev->writable = copy->upper_uid != 0;
	dev->changed = false;
	dev->usable = true;
	dev->state = OBD_DEVICE_READY;
	obd_touches_start(dev, r);
	obd_ios_resume(dev);
	announce(dev);
}

static void handle_reply(struct obd_client *c, uint32_t slot)
{
	struct obd_device *dev = c->slot_owner[slot];
	if (!dev || dev->usable)
		return;
	const struct obd_reply *r = &peer(c)->reply[slot];
	uint64_t word = obd_load_acquire(&r->word); /* edge: open-reply */
	if (obd_word_seq(word) != dev->seq)
		return;
	struct obd_reply copy;
	memcpy((char *)&copy + sizeof r->word, (const char *)r + sizeof r->word, sizeof copy - sizeof r->word);
	copy.reason[sizeof copy.reason - 1] = '\0';
	obd_fence_acquire();
	if (obd_load_relaxed(&r->word) != word)
		return; /* it is being written again; the ring will say so */
	if (obd_word_state(word) == OBD_REPLY_PENDING && dev->state == OBD_DEVICE_OPENING)
		dev->state = OBD_DEVICE_PENDING;
	else if (obd_word_state(word) == OBD_REPLY_READY)
		ready(dev, r, &copy);
	else if (obd_word_state(word) == OBD_REPLY_FAILED)
		fail(dev, copy.err > 0 && copy.err < 4096 ? (int)copy.err : EIO, copy.reason);
}

bool obd_devices_poll(struct obd_client *c)
{
	bool did = false;
	uint64_t entry;
	enum obd_ring_result got;
	while (c->mapped && (got = obd_ring_pop(&peer(c)->replies, &c->reader.own->replies_tail, &entry)) != OBD_RING_EMPTY) {
		did = true;
		if (got == OBD_RING_ENTRY && obd_entry_slot(entry) < OBD_OPEN_SLOTS) {
			handle_reply(c, obd_entry_slot(entry));
			continue;
		}
		obd_count(&c->reader.own->proc, protocol_errors, 1);
		for (uint32_t s = 0; s < OBD_OPEN_SLOTS; s++)
			handle_reply(c, s);
	}
	return did;
}

bool obd_devices_have_work(const struct obd_client *c)
{
	return obd_ring_has(&peer(c)->replies, &c->reader.own->replies_tail);
}

/* An image that we hold is never freed by a sound indexer. If it is all the same, or if the supervisor lost our connection and
 * we have not noticed yet, nothing that was read through its index counts. */
void obd_device_lost(struct obd_device *dev)
{
	if (!dev->usable)
		return;
	obd_warn("%s: its image was dropped, opening it again", dev->path);
	obd_count(&dev->client->reader.own->proc, protocol_errors, 1);
	dev->usable = false;
	obd_touches_stop(dev);
	obd_ios_again(dev);
	give_slot(dev);
	obd_device_post(dev);
}

/* --- the group came and went
 * ------------------------------------------------------------------------------------------------------ */

void obd_devices_lost(struct obd_client *c)
{
	OBD_LIST_FOREACH (it, &c->devices) {
		struct obd_device *dev = OBD_LIST_ENTRY(it, struct obd_device, link);
		dev->usable = false;
		obd_touches_stop(dev);
		dev->slot = -1;
		dev->index = NULL;
		dev->index_count = 0;
		obd_ios_lost(dev);
	}
	memset(c->slot_owner, 0, sizeof c->slot_owner);
	memset(c->slot_closing, 0, sizeof c->slot_closing);
	obd_ups_forget(c);
}

void obd_devices_again(struct obd_client *c)
{
	obd_ring_skip(&peer(c)->replies, &c->reader.own->replies_tail);
	obd_store_relaxed(&c->reader.own->opens.head, obd_load_acquire(&peer(c)->opens_tail.tail));
	obd_store_relaxed(&c->reader.own->touches.head, obd_load_acquire(&peer(c)->touches_tail.tail));
	obd_ups_attach(c);
	OBD_LIST_FOREACH (it, &c->devices) {
		struct obd_device *dev = OBD_LIST_ENTRY(it, struct obd_device, link);
		if (dev->state != OBD_DEVICE_FAILED)
			obd_device_post(dev);
	}
}

bool obd_devices_turn(struct obd_client *c)
{
	bool waits = false;
	uint64_t now = obd_clock_ns();
	OBD_LIST_FOREACH (it, &c->devices) {
		struct obd_device *dev = OBD_LIST_ENTRY(it, struct obd_device, link);
		if (dev->reopen_ns && dev->reopen_ns <= now)
			obd_device_post(dev);
		waits |= dev->reopen_ns != 0;
	}
	return waits;
}

/* --- the caller's side
 * ------------------------------------------------------------------------------------------------------------ */

static int absolute(const char *path, char **out, struct obd_err *err)
{
	char cwd[PATH_MAX] = "";
	if (path[0] != '/' && !getcwd(cwd, sizeof cwd))
		return obd_err_set(err, errno, "%s: the working directory is not known: %s", path, strerror(errno));
	size_t n = strlen(cwd) + 1 + strlen(path) + 1;
	if (n > OBD_PATH_BYTES)
		return obd_err_set(err, ENAMETOOLONG, "%.64s…: the path is longer than %u bytes", path, OBD_PATH_BYTES - 1);
	*out = malloc(n);
	if (!*out)
		return obd_err_set(err, ENOMEM, "out of memory");
	**out = '\0';
	if (path[0] != '/') {
		strcpy(*out, cwd);
		strcat(*out, "/");
	}
	strcat(*out, path);
	return 0;
}

int obd_client_open(struct obd_client *c, const char *path, obd_device_fn *fn, void *arg, struct obd_device **out,
		    struct obd_err *err)
{
	assert(fn);
	int rc = obd_client_link(c, err);
	if (rc)
		return rc;
	struct obd_device *dev = calloc(1, sizeof *dev);
	if (!dev)
		return obd_err_set(err, ENOMEM, "out of memory");
	rc = absolute(path, &dev->path, err);
	if (rc) {
		free(dev);
		return rc;
	}
	dev->client = c;
	dev->fn = fn;
	dev->arg = arg;
	dev->slot = -1;
	obd_list_init(&dev->ios);
	obd_list_init(&dev->up_turn);
	obd_list_init(&dev->up_wait);
	obd_list_push_back(&c->devices, &dev->link);
	obd_device_post(dev);
	if (dev->slot < 0) {
		rc = obd_err_set(err, EBUSY, "%s: %u images are open already, which is all there can be", dev->path,
				 OBD_OPEN_SLOTS);
		obd_client_close(dev);
		return rc;
	}
	*out = dev;
	return 0;
}

void obd_client_close(struct obd_device *dev)
{
	obd_ios_fail(dev, -ECANCELED);
	obd_touches_stop(dev);
	give_slot(dev);
	obd_list_remove(&dev->up_turn);
	obd_list_remove(&dev->link);
	free(dev->path);
	free(dev);
}

enum obd_device_state obd_device_state(const struct obd_device *dev)
{
	return dev->state;
}

bool obd_device_writable(const struct obd_device *dev)
{
	return dev->writable;
}

uint64_t obd_device_bytes(const struct obd_device *dev)
{
	return dev->bytes;
}

const char *obd_device_reason(const struct obd_device *dev)
{
	return dev->reason;
}

int obd_device_errno(const struct obd_device *dev)
{
	return dev->err;
}
