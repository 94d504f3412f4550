/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where a file system's metadata lies: bytes in, wanted ranges out. Pure; knows no cache and no layers.
 *
 *     SUPER --> GROUPS --> [INODE_MAP] --> INODES --> EXTENTS, INDIRECT --> PLAIN (directories)
 *                  +------------------------------------------------------> PLAIN (bitmaps, last)
 *
 * Knows ext2, ext3 and ext4. A directory's blocks are found by its inode, and all used inodes are looked at, so that no
 * directory has to be parsed and three or four round trips find everything. The journal is left out. What is on the device is
 * hostile: every field is checked, every number is bounded, and a file system that cannot be is left alone from there on.
 */
#ifndef OBD_INDEXER_FSMETA_H
#define OBD_INDEXER_FSMETA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OBD_FSMETA_WANT_MAX 65536u     /* bytes of a range that is to be given back */
#define OBD_FSMETA_INODES_MAX 1048576u /* looked at */
#define OBD_FSMETA_GROUPS_MAX 131072u
#define OBD_FSMETA_WANTS_MAX 262144u   /* ranges waiting */
#define OBD_FSMETA_NODES_MAX 65536u    /* of maps of directories */
#define OBD_FSMETA_DIR_MAX (16u << 20) /* bytes of one directory */

enum obd_fsmeta_kind {
	OBD_FSMETA_PLAIN, /* only to be there */
	OBD_FSMETA_SUPER, /* these and the following: to be given back */
	OBD_FSMETA_GROUPS,
	OBD_FSMETA_INODE_MAP,
	OBD_FSMETA_INODES,
	OBD_FSMETA_EXTENTS,
	OBD_FSMETA_INDIRECT,
};

/* A range of the device. Inside of it; whole sectors. */
struct obd_fsmeta_want {
	uint64_t off;
	uint64_t len;
	uint8_t kind;
	uint8_t depth;	/* EXTENTS, INDIRECT: of the node */
	uint64_t arg;	/* GROUPS: first group; INODE_MAP: group; INODES: how many; EXTENTS, INDIRECT: bytes the directory may
			   have */
	uint64_t table; /* INODE_MAP: byte of the group's inode table */
};

struct obd_fsmeta_queue {
	struct obd_fsmeta_want *want;
	size_t count, next, room;
};

struct obd_fsmeta {
	uint64_t device_bytes;
	uint32_t block_bytes;
	uint64_t blocks;
	uint32_t inode_bytes;
	uint32_t inodes_per_group;
	uint32_t blocks_per_group;
	uint32_t descriptor_bytes;
	uint64_t groups;
	bool counts_unused; /* descriptors say how much of an inode table was never used */
	uint64_t inodes_left;
	uint64_t nodes_left;
	uint64_t directories; /* found */
	struct obd_fsmeta_queue now;
	struct obd_fsmeta_queue last;
};

void obd_fsmeta_init(struct obd_fsmeta *m, uint64_t device_bytes);
void obd_fsmeta_done(struct obd_fsmeta *m);

/* The next range. False: none at the moment; there may be after the next obd_fsmeta_give, until everything was given. */
bool obd_fsmeta_next(struct obd_fsmeta *m, struct obd_fsmeta_want *out);

/* The bytes of a range that obd_fsmeta_next told of and whose kind is not PLAIN, want->len of them. */
void obd_fsmeta_give(struct obd_fsmeta *m, const struct obd_fsmeta_want *want, const void *bytes);

#endif
