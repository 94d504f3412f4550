/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The client library from inside.
 *
 *   link.c    the socket to the supervisor, the segment, reconnecting, dispatch
 *   device.c  opens: the open table, replies, adopting an image's index
 *   io.c      reads: index lookup, copies, requests for what is missing
 *   write.c   writes, and whatever else is asked of the indexer about an upper layer
 *   touch.c   what a device that records reads for the first time
 *
 * If this process dies, its socket closes, and cached and the indexer drop what it asked for. If the group dies, its
 * segment is unmapped at once, so that a new group can have its huge pages; when that one has granted its own, devices are
 * opened again and reads ask again.
 */
#ifndef OBD_FRONTEND_CLIENT_INTERNAL_H
#define OBD_FRONTEND_CLIENT_INTERNAL_H

#include "common/format/lsmt_layout.h"
#include "frontend/client/client.h"
#include "shmcache/reader.h"
#include "shmcache/upmap.h"

/* In obd_piece.layer: the upper layer's data file. */
#define OBD_LAYER_UPPER UINT32_MAX

/* One contiguous part of one block, or of the upper's data file, that a read still needs. */
struct obd_piece {
	struct obd_io *io;
	uint64_t io_offset; /* where in io->buf */
	uint64_t upper;	    /* byte of the data file; OBD_LAYER_UPPER only */
	uint32_t layer;	    /* index into the device's layer list, or OBD_LAYER_UPPER */
	uint32_t block;
	uint32_t offset; /* in the block */
	uint32_t len;
	uint16_t group; /* pieces that one request covers, counted at its first piece */
	int16_t slot;	/* request slot, at the first piece of a posted group; -1 otherwise */
	bool done;
};

enum { OBD_PIECES = 64 };

/* A read's window of pieces; from a free list of the client. */
struct obd_pieces {
	struct obd_pieces *next_free;
	uint32_t count;
	uint32_t first_open; /* pieces below are posted or done */
	struct obd_piece piece[OBD_PIECES];
};

/* What the client keeps of an upper request slot, beside struct obd_upreq. */
struct obd_up {
	struct obd_io *io;	 /* NULL: free, or given up before its answer */
	struct obd_piece *piece; /* READ */
	uint64_t io_offset;	 /* WRITE, DISCARD: where in the io it begins */
	uint64_t offset;	 /* WRITE, DISCARD: bytes of the device */
	uint64_t len;
	uint64_t seq;
	uint16_t open_slot;
	uint8_t op;
	bool posted;
};

enum link_state { LINK_DOWN, LINK_HANDSHAKE, LINK_UP };

struct obd_client {
	char socket_path[108];
	enum link_state state;
	int sock;
	int epfd;
	int timerfd;
	uint64_t backoff_ms;
	uint32_t id;
	uint32_t incarnation;
	bool mapped; /* seg and reader are usable */
	bool was_up;
	struct obd_segment seg;	 /* in use */
	struct obd_segment next; /* of the handshake under way */
	struct obd_reader reader;
	struct obd_list devices;
	struct obd_list retry; /* struct obd_io by retry: wait for request slots */
	struct obd_device *slot_owner[OBD_OPEN_SLOTS];
	uint16_t slot_ups[OBD_OPEN_SLOTS]; /* upper requests posted for an open slot */
	bool slot_closing[OBD_OPEN_SLOTS]; /* closed, but kept until these are answered */
	struct obd_up up[OBD_UP_SLOTS];	   /* by upper request slot */
	uint16_t up_free[OBD_UP_SLOTS];	   /* a stack of free ones */
	uint32_t up_nfree;
	uint32_t up_orphans;	 /* posted, and given up */
	uint32_t up_untold;	 /* posted since the indexer was last woken */
	struct obd_list up_turn; /* struct obd_device by up_turn: want upper request slots */
	void (*gather)(void *arg);
	void *gather_arg;
	bool up_pumping; /* within obd_ups_pump */
	bool up_grant;	 /* the io whose turn it is may take one slot */
	struct obd_pieces *free_pieces;
	struct obd_err why; /* the last failed handshake */
};

/* Blocks noted lately, so that the ring is told of each about once; forgetting one only has it told again. */
#define OBD_TOUCHES 8192u

struct obd_touches {
	const _Atomic uint32_t *wanted; /* in the reply: 0 when the recording has ended */
	uint64_t seen[OBD_TOUCHES];
};

struct obd_device {
	struct obd_list link;
	struct obd_client *client;
	char *path;
	obd_device_fn *fn;
	void *arg;
	enum obd_device_state state;
	bool usable;	/* image below belongs to the segment in use; false while it is being opened again */
	bool announced; /* fn was called */
	bool changed;	/* opened again it turned out to be another image: ios fail */
	int slot;	/* open slot; -1: none */
	uint64_t seq;
	uint64_t reopen_ns; /* when to open again after a failed re-open; 0: not waiting */
	uint64_t bytes;
	uint64_t lowers_id; /* what it was when it was opened first */
	uint64_t upper_id;
	int err;
	char reason[OBD_REASON_BYTES];
	struct obd_list ios;
	struct obd_list up_turn;	    /* on the client's list while up_wait has ios */
	struct obd_list up_wait;	    /* struct obd_io by retry: want upper request slots, first come first served */
	bool writable;			    /* has an upper layer */
	struct obd_upmap map;		    /* of the upper, when usable and writable */
	const _Atomic uint64_t *upper_word; /* while it is upper_seen, map is this device's */
	uint64_t upper_seen;
	struct obd_touches *touches; /* NULL: does not record */
	/* the image, copied out of the catalog and checked */
	const _Atomic uint64_t *image_word; /* while it is image_seen, index and layers are this image's */
	uint64_t image_seen;
	const struct obd_lsmt_seg *index;
	uint64_t index_count;
	uint32_t nlayers;
	uint32_t layer_slot[OBD_IMAGE_LAYERS + 1];
	uint32_t layer_uid[OBD_IMAGE_LAYERS + 1];
};

/* link.c */
/* Connects now, if the link is not up: blocks for the handshake, at most two seconds. 0 or -ENOTCONN. */
int obd_client_link(struct obd_client *c, struct obd_err *err);
void obd_client_arm_timer(struct obd_client *c, uint64_t ms);

/* device.c */
void obd_device_post(struct obd_device *dev); /* asks the indexer, when connected */
bool obd_devices_poll(struct obd_client *c);  /* replies; true: did something */
bool obd_devices_have_work(const struct obd_client *c);
void obd_devices_lost(struct obd_client *c);		      /* the segment is about to be replaced */
void obd_devices_again(struct obd_client *c);		      /* a new segment is there */
void obd_device_lost(struct obd_device *dev);		      /* its image is gone from the catalog: opens again */
bool obd_devices_turn(struct obd_client *c);		      /* timers; true: one still waits */
void obd_open_slot_free(struct obd_client *c, uint32_t slot); /* the last upper request of a closed device is answered */

/* io.c */
void obd_ios_resume(struct obd_device *dev); /* the device became usable (again) */
void obd_ios_again(struct obd_device *dev);  /* the image went away under it: reads start over when it is back */
void obd_ios_lost(struct obd_device *dev);   /* requests are gone with the segment */
void obd_ios_fail(struct obd_device *dev, int result);
void obd_ios_retry(struct obd_client *c); /* request slots may be free */
void obd_io_answer(void *arg, void *cookie, int err);
void obd_client_free_pieces(struct obd_client *c);
void obd_io_finish(struct obd_io *io, int result);
void obd_io_continue(struct obd_io *io);		/* a read: posts what it can */
void obd_io_walk(struct obd_io *io);			/* a read: begins */
void obd_io_upper_answer(struct obd_piece *p, int err); /* a read's piece of the upper is copied (err 0), or cannot be had */

/* touch.c */
void obd_touches_start(struct obd_device *dev, const struct obd_reply *r); /* usable, and r wants its first reads */
void obd_touches_stop(struct obd_device *dev);
/* Bytes [offset, offset + len) of a block were read; dev->touches is set. */
void obd_touches_add(struct obd_device *dev, uint32_t layer, uint32_t block, uint32_t offset, uint32_t len);

/* write.c */
void obd_ups_attach(struct obd_client *c); /* a new segment is there: all slots are free */
void obd_ups_forget(struct obd_client *c); /* the segment is gone, and all requests with it */
bool obd_ups_poll(struct obd_client *c);   /* answers; true: did something */
bool obd_ups_have_work(const struct obd_client *c);
void obd_ups_pump(struct obd_client *c);	/* posts what waits, as slots are free; wakes the indexer */
void obd_up_want(struct obd_io *io);		/* the io waits for upper request slots; obd_ups_pump goes on with it */
bool obd_up_want_more(const struct obd_io *io); /* a write: is there something that was not asked for yet? */
void obd_ups_give_up(struct obd_io *io);	/* its posted requests belong to nobody from now on */
/* Is a request under way that was given up and changes a byte of the device's [offset, offset + len)? */
bool obd_ups_behind_orphan(const struct obd_device *dev, uint64_t offset, uint64_t len);
uint64_t obd_ups_lowest(const struct obd_io *io); /* a write: everything before this byte of it is answered */
/* Posts the read of one piece of the upper. False: it is not the io's turn (obd_up_want). */
bool obd_up_post_read(struct obd_io *io, struct obd_piece *p);

#endif
