/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the parts of ext4.h share. */
#ifndef OBD_TOOLS_APPLY_EXT4_IMPL_H
#define OBD_TOOLS_APPLY_EXT4_IMPL_H

#include <ext2fs/ext2fs.h>

#include "common/base/list.h"
#include "tools/apply/ext4.h"
#include "tools/apply/io_manager.h"

#define OBD_EXT4_INODE_MAX 1024u    /* bytes of the largest inode handled here */
#define OBD_EXT4_DIR_MAX (1u << 28) /* bytes of the largest directory handled here */
#define OBD_EXT4_LINK_MAX 65000u

/* An inode as it is on disk; what is behind struct ext2_inode_large holds extended attributes. */
union obd_ext4_inode {
	struct ext2_inode small;
	struct ext2_inode_large large;
	unsigned char raw[OBD_EXT4_INODE_MAX];
};

/* ---- directories (ext4_dir.c) ------------------------------------------------------------------------------------------ */

struct obd_ext4_name {
	uint32_t ino; /* 0: removed */
	uint32_t at;  /* of the name in names */
	uint8_t len;
	uint8_t type; /* EXT2_FT_* */
};

/*
 * A directory, whole. While `rebuild` is false, buf is what will be on disk and changes are made in it, block by block;
 * then an entry found no room, from there on only the list counts and the flush lays it out anew.
 */
struct obd_ext4_dir {
	struct obd_list lru;
	struct obd_ext4_dir *next; /* in its bucket */
	uint32_t ino;
	uint32_t parent;
	unsigned char *buf;
	uint32_t nblocks;      /* in buf */
	uint32_t disk_nblocks; /* that the inode maps */
	uint8_t *dirty;	       /* a byte per block of buf */
	struct obd_ext4_name *name;
	uint32_t n, cap;     /* removed ones included */
	uint32_t live;	     /* without removed ones */
	uint64_t live_bytes; /* of their records */
	char *names;
	uint32_t names_len, names_cap;
	uint32_t *table; /* 1 + number of name, open addressing; 0: free */
	uint32_t table_size;
	uint32_t hint; /* first block that may have room, when there is no index */
	bool indexed;
	bool changed;
	bool rebuild;
};

#define OBD_EXT4_DIR_BUCKETS 4096u

struct obd_ext4 {
	ext2_filsys fs;
	struct obd_file *image;
	struct obd_list dirs; /* least recently used first */
	struct obd_ext4_dir *dir_bucket[OBD_EXT4_DIR_BUCKETS];
	uint64_t dir_bytes; /* memory that the directories take */
	uint8_t *mine;	    /* a bit per inode: made, declared or passed through by this layer */
	uint64_t *links;    /* hashes of names that this layer gave to inodes of lower layers */
	size_t links_size, links_n;
	blk64_t goal; /* where the next data go */
	uint32_t inode_bytes;
	uint32_t tail_bytes; /* checksum at the end of each directory block */
	uint32_t lost_found; /* its inode; 0: none */
};

/* Turns an error of libext2fs into a line and a negative errno. */
int obd_ext4_fail(struct obd_ext4 *fs, errcode_t code, struct obd_err *err, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* The directory, valid until the next obd_ext4_dirs_trim or obd_ext4_dir_forget. */
int obd_ext4_dir_get(struct obd_ext4 *fs, uint32_t ino, struct obd_ext4_dir **out, struct obd_err *err);
int obd_ext4_dir_new(struct obd_ext4 *fs, uint32_t ino, uint32_t parent, struct obd_ext4_dir **out, struct obd_err *err);
struct obd_ext4_name *obd_ext4_dir_find(struct obd_ext4_dir *d, const char *name, size_t len);
int obd_ext4_dir_add(struct obd_ext4 *fs, struct obd_ext4_dir *d, const char *name, size_t len, uint32_t ino, uint8_t type,
		     struct obd_err *err);
void obd_ext4_dir_remove(struct obd_ext4 *fs, struct obd_ext4_dir *d, struct obd_ext4_name *name);
/* Drops it without writing. */
void obd_ext4_dir_forget(struct obd_ext4 *fs, uint32_t ino);
/* Writes the least recently used ones until the rest fits the budget. */
int obd_ext4_dirs_trim(struct obd_ext4 *fs, struct obd_err *err);
/* Writes all, in the order of their inodes. */
int obd_ext4_dirs_flush(struct obd_ext4 *fs, struct obd_err *err);
void obd_ext4_dirs_free(struct obd_ext4 *fs);

/* Bytes of a record with a name of that length. */
static inline uint32_t obd_ext4_rec_bytes(size_t len)
{
	return (uint32_t)((8 + len + 3) & ~(size_t)3);
}

/* Puts a record into a block where there is room. */
bool obd_ext4_block_insert(struct obd_ext4 *fs, unsigned char *block, const char *name, size_t len, uint32_t ino, uint8_t type);
/* A block with one empty record (and the checksum's place). */
void obd_ext4_block_empty(struct obd_ext4 *fs, unsigned char *block);

/* ---- hash trees (ext4_index.c) ----------------------------------------------------------------------------------------- */

/* The leaf where the name belongs. False: the tree in buf is damaged or of an unknown kind. */
bool obd_ext4_index_leaf(struct obd_ext4 *fs, const struct obd_ext4_dir *d, const char *name, size_t len, uint32_t *block);

/* Lays the names of d out anew: *buf, *nblocks (allocated), *indexed. */
int obd_ext4_index_build(struct obd_ext4 *fs, const struct obd_ext4_dir *d, unsigned char **buf, uint32_t *nblocks,
			 bool *indexed, struct obd_err *err);

/* ---- inodes (ext4_inode.c) ---------------------------------------------------------------------------------------------- */

int obd_ext4_inode_read(struct obd_ext4 *fs, uint32_t ino, union obd_ext4_inode *out, struct obd_err *err);
int obd_ext4_inode_write(struct obd_ext4 *fs, uint32_t ino, union obd_ext4_inode *in, struct obd_err *err);
/* Allocates a number and clears the inode on disk. */
int obd_ext4_inode_new(struct obd_ext4 *fs, bool dir, uint32_t *ino, struct obd_err *err);
/* An empty inode with the entry's attributes. */
void obd_ext4_inode_fill(struct obd_ext4 *fs, const struct obd_tar_entry *e, union obd_ext4_inode *out);
/* The entry's attributes over those of a directory, extended ones included. */
int obd_ext4_inode_update(struct obd_ext4 *fs, uint32_t ino, const struct obd_tar_entry *e, struct obd_err *err);
int obd_ext4_xattrs_put(struct obd_ext4 *fs, uint32_t ino, const struct obd_tar_entry *e, struct obd_err *err);
/* Frees the inode with all its blocks. */
int obd_ext4_inode_free(struct obd_ext4 *fs, uint32_t ino, union obd_ext4_inode *inode, struct obd_err *err);
/* True for a number that names no reserved inode and is in use. */
bool obd_ext4_inode_ok(struct obd_ext4 *fs, uint32_t ino);
/* The whole target, NUL-terminated; buf has PATH_MAX bytes. */
int obd_ext4_symlink_read(struct obd_ext4 *fs, uint32_t ino, char *buf, struct obd_err *err);

/* ---- contents (ext4_data.c) -------------------------------------------------------------------------------------------- */

/* Writes what data gives into the empty inode, whose i_block and i_blocks follow; bytes: size of the file. */
int obd_ext4_data_put(struct obd_ext4 *fs, uint32_t ino, union obd_ext4_inode *inode, uint64_t bytes, obd_ext4_data_fn *data,
		      void *ctx, struct obd_err *err);

#endif
