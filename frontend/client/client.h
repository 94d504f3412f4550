/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The client library: open images of a running process group and read them, asynchronously, without a thread.
 *
 * One struct obd_client per process and group; every call on one thread; nothing blocks except where it says so. The host's
 * event loop watches one descriptor (obd_client_fd) and calls obd_client_dispatch when it is readable. Knows no SCSI.
 *
 * The group may go away at any time (its supervisor ends or is killed). The client then keeps every open device and every read
 * that has not been answered, reconnects with back-off, maps the new segment, opens the devices again and asks again for what
 * the reads still need. Callers see a pause, not an error. Time spent waiting does not count towards a read's own limits.
 */
#ifndef OBD_FRONTEND_CLIENT_CLIENT_H
#define OBD_FRONTEND_CLIENT_CLIENT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/list.h"

struct obd_client;
struct obd_device;

/* Connects to the group at runtime_dir (NULL: $OVERLAYBD_RUNTIME_DIR, else /run/overlaybd) and maps its segment. Blocks for the
 * handshake, at most two seconds. -ENOTCONN when no group runs there, with a line that says so. */
int obd_client_new(const char *runtime_dir, struct obd_client **out, struct obd_err *err);

/* Closes all devices; their pending ios end with -ECANCELED first. */
void obd_client_free(struct obd_client *c);

/* The one descriptor to wait on for input (level-triggered; belongs to the client). It stays the same across reconnects. */
int obd_client_fd(const struct obd_client *c);

/* Handles what is there: answers, open results, reconnects. Calls back into the caller's functions. */
void obd_client_dispatch(struct obd_client *c);

enum obd_device_state {
	OBD_DEVICE_OPENING, /* asked; no answer yet */
	OBD_DEVICE_PENDING, /* the group answered: needs the network, the result follows */
	OBD_DEVICE_READY,
	OBD_DEVICE_FAILED, /* obd_device_reason says why */
};

/* Called once, when a device becomes READY or FAILED. A device that was READY stays so: when a new group cannot open it again,
 * its reads wait and the open is repeated every second. When what it finds is another upper layer, or other layers below, its
 * ios end with -EIO until the ones it had are back. May call obd_client_close, except from within obd_client_wait. */
typedef void obd_device_fn(void *arg, struct obd_device *dev);

/* Asks the group to open an image config (path is made absolute). Returns at once. -ENAMETOOLONG, -EBUSY (too many open),
 * -ENOMEM. */
int obd_client_open(struct obd_client *c, const char *path, obd_device_fn *fn, void *arg, struct obd_device **out,
		    struct obd_err *err);

/* Dispatches until the device left OPENING, or timeout_ms went by; returns its state. This is the one call that blocks: the
 * indexer answers within a millisecond or so, since it waits for no network before PENDING. fn is called from within. */
enum obd_device_state obd_client_wait(struct obd_client *c, struct obd_device *dev, int timeout_ms);

/* Ends a device: its pending ios end with -ECANCELED (their fn is called), the indexer drops the reference. */
void obd_client_close(struct obd_device *dev);

enum obd_device_state obd_device_state(const struct obd_device *dev);
uint64_t obd_device_bytes(const struct obd_device *dev);     /* virtual size; 0 until READY */
const char *obd_device_reason(const struct obd_device *dev); /* one line; "" unless FAILED */
int obd_device_errno(const struct obd_device *dev);	     /* positive errno when FAILED */

struct obd_io;
/* Ends an io: the library does not touch io once this is called, which may start other ios but must not close the device.
 * result: 0 or a negative errno: -EIO, -ETIMEDOUT (readTimeoutSec went by), -EBADMSG (corrupt and stayed so), -ECANCELED … */
typedef void obd_io_fn(struct obd_io *io, int result);

/* One read or write. Filled in by the caller, who owns it and keeps it and buf alive until it is done; the fields below the
 * line are the library's. */
struct obd_io {
	struct obd_device *dev;
	uint64_t offset; /* bytes, any alignment; offset + len must not pass the device's end */
	uint64_t len;
	void *buf;
	obd_io_fn *fn; /* not called when the call returned anything but 1 */
	void *arg;
	/* ------------------------------------------------------------ */
	struct obd_list link;	   /* the device's ios under way */
	struct obd_list retry;	   /* the client's reads, or the device's ios, that want request slots */
	uint64_t resolved_to;	   /* bytes from the start that are copied, or stand in pieces, or (writing) are asked for */
	struct obd_pieces *pieces; /* what waits for blocks; NULL when nothing does */
	uint32_t outstanding;	   /* requests posted */
	unsigned char op;	   /* what is asked: enum obd_up_op */
	bool fua;
	bool behind; /* a read that first waits for what was given up */
};

/* Reads. 0: done, buf is filled, fn is not called: every block was in the cache (no system call was made). 1: under way, fn
 * will be called from obd_client_dispatch. -EINVAL (range), -ENODEV (device not READY), -ENOMEM. */
int obd_read(struct obd_io *io);

/*
 * Writing, for devices whose image has an upper layer (obd_device_writable). offset and len are multiples of 512 within the
 * device. 1: under way, fn will be called from obd_client_dispatch. 0: done, there was nothing to do (len 0). From the call
 * itself: -EROFS (no upper), -EINVAL (range), -ENODEV (not READY). Results besides those of reads: -ENOSPC (the upper's file
 * system, or the room for its map, is full; what was written before is kept, reading goes on).
 *
 * obd_write    buf is read until fn is called; the library copies it into the segment piece by piece as room comes free (a full
 *              segment is a pause, not an error). fua: on stable storage before fn is called.
 * obd_discard  the range reads as zeros; any length.
 * obd_sync     everything acknowledged before this call is on stable storage when fn is called.
 *
 * Overlapping requests that are under way at once are carried out in some order, each as a whole per 64 KiB. When the indexer
 * or the group dies, what was not answered is asked for again.
 */
int obd_write(struct obd_io *io, bool fua);
int obd_discard(struct obd_io *io, bool fua);
int obd_sync(struct obd_io *io);

bool obd_device_writable(const struct obd_device *dev);

/* As obd_read, but first waits for writes and discards of these bytes that were given up and are still under way: what is read,
 * and then written depending on it, must not have one of them between the two. */
int obd_read_behind(struct obd_io *io);

/*
 * Gathering. What obd_write and its kin post wakes the indexer if it sleeps, and every waking costs more than a small write. A
 * host that takes several commands in a row from those it serves can have the indexer woken once for all of them: fn is called
 * whenever something was posted that the indexer was not told of, from within these calls or obd_client_dispatch, and must call
 * nothing of the library; soon after, when no more commands come at once, the host calls obd_client_ring. The library does not
 * wait for that when it has gathered a good many. NULL, the default: told at once.
 */
void obd_client_gather(struct obd_client *c, void (*fn)(void *arg), void *arg);
void obd_client_ring(struct obd_client *c);

/* Gives up what is under way; fn is not called and buf not touched any more. Parts of a write or discard that the indexer has
 * already may still be carried out, each as a whole; no later write or discard of the same range is overtaken by them. */
void obd_io_cancel(struct obd_io *io);

#endif
