/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Real file systems of several shapes: every block of every directory, every used inode and the bitmaps must be among what is
 * wanted, and not much else. What is true is asked of libext2fs. Then the same with rubbish in places.
 */
#include <check.h>
#include <ext2fs/ext2fs.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "indexer/fsmeta.h"

#define DEVICE_BYTES (24u << 20)

static char dir[64];
static char image[96];
static unsigned char *device;
static unsigned char *wanted; /* one byte per KiB */
static uint64_t rounds;

static void need(bool good, const char *what)
{
	if (good)
		return;
	perror(what);
	abort();
}

static void teardown(void)
{
	char cmd[128];
	snprintf(cmd, sizeof cmd, "rm -rf %s", dir);
	need(system(cmd) == 0, "rm");
	free(device);
	free(wanted);
}

/* 12 x 12 directories with a file in each, and one directory with 400 long names. */
static void make_tree(void)
{
	char cmd[640];
	snprintf(
		cmd, sizeof cmd,
		"mkdir -p %s/tree/big && cd %s/tree && for a in a b c d e f g h i j k l; do "
		"mkdir $a $a/1 $a/2 $a/3 $a/4 $a/5 $a/6 $a/7 $a/8 $a/9 $a/10 $a/11 $a/12; echo $a > $a/1/file; done; cd big && "
		"seq -f 'a-name-that-takes-some-room-in-its-directory-and-then-some-more-of-it-so-that-few-are-enough-"
		"to-fill-many-blocks-of-any-size-that-there-is-%%g' 400 | xargs touch",
		dir, dir);
	need(system(cmd) == 0, "tree");
}

static void setup(void)
{
	strcpy(dir, "/tmp/check_fsmeta.XXXXXX");
	need(mkdtemp(dir) != NULL, "mkdtemp");
	snprintf(image, sizeof image, "%s/image", dir);
	device = calloc(1, DEVICE_BYTES);
	wanted = calloc(1, DEVICE_BYTES / 1024);
	need(device && wanted, "memory");
	make_tree();
}

static void make_image(const char *options)
{
	char cmd[512];
	snprintf(cmd, sizeof cmd, "rm -f %s && truncate -s 24M %s && /sbin/mke2fs -q -F %s -d %s/tree %s", image, image,
		 options, dir, image);
	need(system(cmd) == 0, "mke2fs");
	int fd = open(image, O_RDONLY);
	need(fd >= 0 && pread(fd, device, DEVICE_BYTES, 0) == DEVICE_BYTES, image);
	close(fd);
}

/* Serves wants from the device. Returns bytes wanted in all, each KiB once. */
static uint64_t walk(void)
{
	struct obd_fsmeta m;
	struct obd_fsmeta_want w;
	uint64_t sum = 0;
	memset(wanted, 0, DEVICE_BYTES / 1024);
	obd_fsmeta_init(&m, DEVICE_BYTES);
	for (rounds = 0; obd_fsmeta_next(&m, &w); rounds++) {
		ck_assert_uint_le(w.off, DEVICE_BYTES);
		ck_assert_uint_le(w.len, DEVICE_BYTES - w.off);
		ck_assert(w.len && w.off % 512 == 0 && w.len % 512 == 0);
		for (uint64_t at = w.off; at < w.off + w.len; at += 1024) {
			sum += wanted[at / 1024] ? 0 : 1024;
			wanted[at / 1024] = 1;
		}
		if (w.kind != OBD_FSMETA_PLAIN) {
			ck_assert_uint_le(w.len, OBD_FSMETA_WANT_MAX);
			obd_fsmeta_give(&m, &w, device + w.off);
		}
	}
	obd_fsmeta_done(&m);
	return sum;
}

static void expect(uint64_t byte, const char *what, uint64_t of)
{
	ck_assert_msg(wanted[byte / 1024], "%s of %llu at byte %llu is not wanted", what, (unsigned long long)of,
		      (unsigned long long)byte);
}

static int expect_block(ext2_filsys fs, blk64_t *block, e2_blkcnt_t count, blk64_t ref, int off, void *arg)
{
	(void)count, (void)ref, (void)off;
	expect(*block * fs->blocksize, "a block", *(ext2_ino_t *)arg);
	return 0;
}

static void expect_inode(ext2_filsys fs, ext2_ino_t ino, struct ext2_inode *inode, bool inline_data)
{
	uint32_t per = fs->super->s_inodes_per_group;
	uint64_t table = ext2fs_inode_table_loc(fs, (ino - 1) / per) * fs->blocksize;
	expect(table + (uint64_t)((ino - 1) % per) * EXT2_INODE_SIZE(fs->super), "the inode", ino);
	if (LINUX_S_ISDIR(inode->i_mode) && !inline_data)
		need(!ext2fs_block_iterate3(fs, ino, BLOCK_FLAG_READ_ONLY, NULL, expect_block, &ino), "iterate");
}

/* Returns the number of directories. */
static unsigned int expect_all(void)
{
	ext2_filsys fs;
	ext2_inode_scan scan;
	ext2_ino_t ino;
	struct ext2_inode inode;
	unsigned int dirs = 0;
	need(!ext2fs_open(image, 0, 0, 0, unix_io_manager, &fs), "ext2fs_open");
	need(!ext2fs_open_inode_scan(fs, 0, &scan), "scan");
	while (!ext2fs_get_next_inode(scan, &ino, &inode) && ino) {
		if (!inode.i_links_count)
			continue;
		expect_inode(fs, ino, &inode, inode.i_flags & EXT4_INLINE_DATA_FL);
		dirs += LINUX_S_ISDIR(inode.i_mode);
	}
	for (dgrp_t g = 0; g < fs->group_desc_count; g++)
		expect(ext2fs_inode_bitmap_loc(fs, g) * fs->blocksize, "the bitmap", g);
	ext2fs_close_inode_scan(scan);
	ext2fs_close(fs);
	return dirs;
}

static const struct {
	const char *options;
	uint64_t most; /* bytes */
} shape[] = {
	{"-t ext4 -b 4096", 4u << 20},
	{"-t ext4 -b 1024", 4u << 20},
	{"-t ext4 -b 4096 -O 64bit,metadata_csum,^has_journal", 4u << 20},
	{"-t ext4 -b 4096 -O ^metadata_csum,^uninit_bg,^64bit", 4u << 20},
	{"-t ext4 -b 2048 -O inline_data", 4u << 20},
	{"-t ext4 -b 4096 -O ^flex_bg,^extent,^64bit -g 4096", 4u << 20},
	{"-t ext3 -b 1024 -I 128", 4u << 20},
	{"-t ext2 -b 1024 -N 60000", 4u << 20},
};

START_TEST(shapes)
{
	make_image(shape[_i].options);
	uint64_t bytes = walk();
	ck_assert_uint_ge(expect_all(), 12 * 13 + 2);
	ck_assert_uint_le(bytes, shape[_i].most);
}
END_TEST

START_TEST(no_file_system)
{
	ck_assert_uint_eq(walk(), 1024);
	memset(device, 0xff, DEVICE_BYTES);
	ck_assert_uint_eq(walk(), 1024);
	struct obd_fsmeta m;
	struct obd_fsmeta_want w;
	obd_fsmeta_init(&m, 1536); /* no room for a super block */
	ck_assert(!obd_fsmeta_next(&m, &w));
	obd_fsmeta_done(&m);
}
END_TEST

static uint64_t state = 88172645463325252u;

static uint32_t rnd(uint32_t n)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32_t)(state >> 16) % n;
}

/* Bytes of super block, descriptors and inodes change; the walk stays inside and ends. */
START_TEST(rubbish)
{
	make_image(_i ? "-t ext2 -b 1024" : "-t ext4 -b 4096");
	unsigned char *good = malloc(DEVICE_BYTES);
	need(good != NULL, "memory");
	memcpy(good, device, DEVICE_BYTES);
	for (int i = 0; i < 60; i++) {
		for (uint32_t k = 0; k < 1 + rnd(40); k++)
			device[1024 + rnd(i % 2 ? 400000 : 4096)] = (unsigned char)rnd(256);
		device[1024 + 0x38] = 0x53;
		device[1024 + 0x39] = 0xef;
		walk();
		ck_assert_uint_le(rounds, 2000000);
		memcpy(device, good, 512u << 10);
	}
	free(good);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("fsmeta");
	TCase *tc = tcase_create("fsmeta");
	tcase_set_timeout(tc, 120);
	tcase_add_unchecked_fixture(tc, setup, teardown); /* tests are children with copies of it */
	tcase_add_loop_test(tc, shapes, 0, (int)(sizeof shape / sizeof shape[0]));
	tcase_add_test(tc, no_file_system);
	tcase_add_loop_test(tc, rubbish, 0, 2);
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
