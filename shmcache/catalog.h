/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Reading the indexer's tables from another process: checked copies, never pointers into them. */
#ifndef OBD_SHMCACHE_CATALOG_H
#define OBD_SHMCACHE_CATALOG_H

#include <stdint.h>

#include "shmcache/segment.h"

/* A layer as a fetcher or cached needs it: a consistent, checked copy; strings terminated; zf_base and zf_delta point into the
 * read-only index region and are as long as zf_nblocks demands (their contents stay hostile). */
struct obd_layer_view {
	uint32_t slot;
	uint32_t uid;
	enum obd_layer_state state;
	bool local;
	bool zfile;
	bool zf_verify;
	bool distrust; /* its bytes are not to be taken from the disk tier */
	uint64_t blob_bytes;
	uint64_t payload_offset;
	uint64_t payload_bytes;
	uint64_t file_bytes;
	uint64_t virtual_bytes;
	uint64_t host_hash;
	uint32_t zf_block_bytes;
	uint32_t zf_algorithm;
	uint32_t zf_dict_bytes;
	uint64_t zf_nblocks;
	const uint64_t *zf_base;  /* (zf_nblocks / 64) + 1 entries */
	const uint32_t *zf_delta; /* zf_nblocks + 1 entries */
	uint64_t dev;
	uint64_t ino;
	int64_t mtime_ns;
	char host[OBD_HOST_BYTES];
	char url[OBD_URL_BYTES];
	char digest[OBD_DIGEST_BYTES];
	char path[OBD_PATH_BYTES];
};

/* Copies layer (slot, uid). 0; -ESTALE when the slot holds another uid or none; -EPROTO when its fields cannot be. Does not
 * block. */
int obd_catalog_layer(const struct obd_segment *seg, uint32_t slot, uint32_t uid, struct obd_layer_view *out);

/* As obd_catalog_layer without the strings and without the table pointers: cheap enough for cached's every miss. */
struct obd_layer_brief {
	enum obd_layer_state state;
	bool local;
	uint64_t blob_bytes;
	uint64_t file_bytes;
	uint64_t host_hash;
};
int obd_catalog_layer_brief(const struct obd_segment *seg, uint32_t slot, uint32_t uid, struct obd_layer_brief *out);

/* How many blocks (raw: chunks) the layer has. */
uint64_t obd_layer_blocks(const struct obd_layer_brief *layer, bool raw, uint32_t block_bytes);

#endif
