/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Checked copies of what the segment says about background downloads (doc/architecture.md 4.10). Nothing here blocks. */
#ifndef OBD_SHMCACHE_DOWNLOAD_H
#define OBD_SHMCACHE_DOWNLOAD_H

#include <stdbool.h>
#include <stdint.h>

#include "shmcache/segment.h"

/* A want as cached and fetchers use it: bounded numbers, a terminated absolute path. */
struct obd_want_view {
	uint32_t slot;
	uint32_t uid;
	uint32_t layer_slot;
	uint32_t layer_uid;
	uint64_t due_ns;
	uint64_t block_bytes; /* 4096 … 64 MiB */
	uint32_t max_mbps;
	uint32_t try_cnt; /* at least 1 */
	char dir[OBD_DIR_BYTES];
};

/* Copies want (slot, uid). 0; -ESTALE when the slot holds another one or none; -EPROTO when its fields cannot be. */
int obd_want_copy(const struct obd_segment *seg, uint32_t slot, uint32_t uid, struct obd_want_view *out);

/* The uid of the want in a slot; 0: none. */
uint32_t obd_want_uid(const struct obd_segment *seg, uint32_t slot);

/* Where a layer of a registry can be read instead. */
struct obd_local_now {
	uint64_t dev;
	uint64_t ino;
	int64_t mtime_ns;
	uint64_t bytes;
	char dir[OBD_DIR_BYTES]; /* holds overlaybd.commit */
};

/* False: the layer was not downloaded, or what is said about it cannot be. */
bool obd_local_now(const struct obd_segment *seg, uint32_t layer_slot, uint32_t layer_uid, struct obd_local_now *out);

#endif
