/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A segment in this process, with a stand-in for cached and fetchers that answers client 0 when it is told to, and a stand-in
 * for a client that opens images. One thread; nothing happens between calls.
 */
#ifndef OBD_TEST_INDEXER_FAKE_H
#define OBD_TEST_INDEXER_FAKE_H

#include "common/format/zfile.h"
#include "indexer/indexer.h"
#include "shmcache/catalog.h"

#define FAKE_CLIENT 1u

struct fake {
	struct obd_segment seg;
	struct obd_indexer *ix;
	char dir[64]; /* blobs lie here, named by the hexadecimal part of their digest */
	uint32_t next_frame;
	uint64_t generation;
	uint64_t incarnation; /* of the client */
	uint32_t starts;
	uint32_t engine;	 /* for writable devices */
	bool hold_clients_known; /* a test calls obd_indexer_clients_known itself */
	struct obd_codec *codec;
	/* what goes wrong */
	bool deaf;		   /* answers nothing */
	bool forgetful;		   /* answers without having filled every third block */
	const char *refuse_url;	   /* requests of layers with this url fail */
	const char *refuse_digest; /* with this digest too */
	int refuse_err;
	/* what happened */
	uint32_t probes, raw_posts, block_posts;
};

void fake_init(struct fake *f, uint32_t block_bytes, uint32_t nframes, uint64_t index_bytes);
void fake_done(struct fake *f);

/* Starts the indexer; a second time as after kill -9 of the first. */
void fake_start(struct fake *f);

/* Serves what the clients asked of cached. Returns how many requests. */
unsigned int fake_serve(struct fake *f);

/* Serves and polls until nothing happens any more. */
void fake_run(struct fake *f);

/* The client is gone and the indexer knows; another one gets a fresh area and attaches. */
void fake_new_client(struct fake *f);

void fake_post(struct fake *f, uint32_t slot, const char *path);
void fake_close(struct fake *f, uint32_t slot);
void fake_hold(struct fake *f, uint32_t slot);

/* The reply to the slot's present open, or OBD_REPLY_NONE. */
enum obd_reply_status fake_reply(struct fake *f, uint32_t slot, struct obd_reply *out);

/* Plain bytes of a layer, decoded by what the catalog says. False: it cannot be read. */
bool fake_layer_read(struct fake *f, const struct obd_layer_view *v, uint64_t off, uint64_t len, void *dst);

/* Device bytes of a published image. */
bool fake_image_read(struct fake *f, const struct obd_image *im, uint64_t off, uint64_t len, void *dst);

#endif
