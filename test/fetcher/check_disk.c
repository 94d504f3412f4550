/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The disk tier as a fetcher sees it: what is stored comes back, and what is damaged, foreign or gone does not. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/format/marks.h"
#include "fetcher/disk.h"
#include "test/fetcher/fetcher_tests.h"

#define BLOB_BYTES 1000000u
#define BLOCK_BYTES 65536u
#define UNITS 8u
#define DIGEST "sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
#define ORIGIN "https://a.example:443"

static unsigned char content[BLOB_BYTES];
static char dir[64];
static struct obd_loop *loop;
static struct obd_disk *disk;
static struct obd_fetch_stats stats;
static struct obd_disk_unit unit[UNITS];
static uint64_t have;
static int answers;

static const struct obd_disk_blob blob = {.origin = ORIGIN, .digest = DIGEST, .blob_bytes = BLOB_BYTES};
static const struct obd_disk_gate open_gate = {.epoch = 1, .read = true, .write = true, .look = 1, .room_bytes = 1 << 30};

static void open_disk(void)
{
	disk = obd_disk_new(loop, dir, BLOCK_BYTES, &stats);
	ck_assert_ptr_nonnull(disk);
	obd_disk_gate(disk, &open_gate);
}

static void setup(void)
{
	strcpy(dir, "check_disk.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	fill_noise(content, BLOB_BYTES, 3);
	memset(&stats, 0, sizeof stats);
	for (uint32_t i = 0; i < UNITS; i++)
		unit[i] = (struct obd_disk_unit){.start = 5000 + i * 30011, .bytes = 30011, .number = 7 + i};
	loop = obd_loop_new();
	open_disk();
}

/* Every file of the tier: calls fn with its path. */
static void each_file(const char *suffix, void (*fn)(const char *path))
{
	char path[1024];
	DIR *top = opendir(dir);
	for (struct dirent *e = readdir(top); e; e = readdir(top)) {
		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
		DIR *sub = opendir(path);
		for (struct dirent *f = readdir(sub); f; f = readdir(sub)) {
			char file[2048];
			snprintf(file, sizeof file, "%s/%s", path, f->d_name);
			if (f->d_name[0] != '.' && strstr(f->d_name, suffix))
				fn(file);
		}
		closedir(sub);
	}
	closedir(top);
}

static void remove_file(const char *path)
{
	ck_assert_int_eq(unlink(path), 0);
}

static void remove_dirs(void)
{
	char path[1024];
	DIR *top = opendir(dir);
	for (struct dirent *e = readdir(top); e; e = readdir(top)) {
		snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
		if (e->d_name[0] != '.')
			ck_assert_int_eq(rmdir(path), 0);
	}
	closedir(top);
	ck_assert_int_eq(rmdir(dir), 0);
}

static void teardown(void)
{
	obd_disk_free(disk);
	obd_loop_free(loop);
	each_file("", remove_file);
	remove_dirs();
}

static void got(void *arg, const struct obd_disk_got *g)
{
	(void)arg;
	have = g->have;
	answers++;
	for (uint32_t i = 0; i < UNITS; i++)
		if (have >> i & 1)
			ck_assert_int_eq(memcmp(g->at[i], content + unit[i].start, unit[i].bytes), 0);
	obd_loop_stop(loop, 0);
}

static uint64_t read_from(const struct obd_disk_blob *from)
{
	struct obd_disk_read *r;
	have = UINT64_MAX;
	ck_assert_int_eq(obd_disk_read(disk, from, unit, UNITS, got, NULL, &r), 0);
	ck_assert_int_eq(obd_loop_run(loop), 0);
	return have;
}

static uint64_t read_back(void)
{
	return read_from(&blob);
}

/* Stores units [0, UNITS). */
static void begin_store(void)
{
	uint64_t base = 4096, bytes = BLOB_BYTES - base;
	unsigned char *buf = obd_disk_buffer(disk, bytes, UNITS);
	ck_assert_ptr_nonnull(buf);
	memcpy(buf, content + base, bytes);
	obd_disk_write(disk, &blob, unit, UNITS, buf, bytes, base);
}

static struct obd_loop_timer *timer;
static uint64_t before;

static uint64_t ended(void)
{
	return stats.disk_bytes_written + stats.disk_dropped;
}

static void look(void *arg)
{
	(void)arg;
	if (ended() != before)
		obd_loop_stop(loop, 0);
	else
		obd_loop_timer_set(timer, obd_clock_ns() + OBD_MS_NS);
}

static void store(void)
{
	before = ended();
	timer = obd_loop_timer_new(loop, look, NULL);
	obd_loop_timer_set(timer, obd_clock_ns());
	begin_store();
	ck_assert_int_eq(obd_loop_run(loop), 0);
	obd_loop_timer_free(timer);
}

#define ALL ((UINT64_C(1) << UNITS) - 1)

START_TEST(stored_is_read)
{
	ck_assert_uint_eq(read_back(), 0);
	store();
	ck_assert_uint_eq(read_back(), ALL);
	ck_assert_uint_eq(stats.disk_hits, UNITS);
	ck_assert_uint_eq(stats.disk_misses, UNITS);
	ck_assert_uint_eq(stats.bytes_disk, UNITS * 30011);
	ck_assert_uint_eq(stats.disk_corrupt + stats.disk_errors + stats.disk_timeouts, 0);
	ck_assert_int_eq(obd_disk_fault(disk), 0);
}
END_TEST

START_TEST(what_waits_is_written_at_the_end)
{
	begin_store();
	obd_disk_free(disk);
	open_disk();
	ck_assert_uint_eq(read_back(), ALL);
}
END_TEST

START_TEST(other_places_and_blobs)
{
	struct obd_disk_blob other = blob;
	store();
	other.origin = "http://a.example:443";
	ck_assert_uint_eq(read_from(&other), 0); /* another registry's */
	other = blob;
	other.blob_bytes--;
	ck_assert_uint_eq(read_from(&other), 0);
	other = blob;
	other.digest = "sha256:../../../../../../etc/passwd/00112233445566778899aabbccddeeff00";
	struct obd_disk_read *r;
	ck_assert_int_eq(obd_disk_read(disk, &other, unit, UNITS, got, NULL, &r), -EINVAL);
	unit[2].start++; /* not what the mark says */
	ck_assert_uint_eq(read_back(), ALL & ~UINT64_C(4));
	ck_assert_uint_eq(stats.disk_corrupt, 1);
}
END_TEST

START_TEST(raw_chunks_fall)
{
	for (uint32_t i = 0; i < UNITS; i++)
		unit[i] = (struct obd_disk_unit){
			.start = BLOB_BYTES - (i + 1) * BLOCK_BYTES, .bytes = BLOCK_BYTES, .number = 1 + i, .raw = true};
	store();
	ck_assert_uint_eq(read_back(), ALL);
}
END_TEST

static void flip(const char *path)
{
	unsigned char c;
	int fd = open(path, O_RDWR);
	ck_assert_int_eq(pread(fd, &c, 1, 5000 + 2 * 30011 + 77), 1);
	c ^= 16;
	ck_assert_int_eq(pwrite(fd, &c, 1, 5000 + 2 * 30011 + 77), 1);
	close(fd);
}

START_TEST(bit_rot)
{
	store();
	each_file(".data", flip);
	ck_assert_uint_eq(read_back(), ALL & ~UINT64_C(4));
	ck_assert_uint_eq(stats.disk_corrupt, 1);
	ck_assert_uint_eq(read_back(), ALL & ~UINT64_C(4));
	ck_assert_uint_eq(stats.disk_corrupt, 1); /* it went with its mark */
	store();
	ck_assert_uint_eq(read_back(), ALL);
}
END_TEST

static void cut(const char *path)
{
	ck_assert_int_eq(truncate(path, 5000 + 2 * 30011 + 77), 0);
}

START_TEST(short_data)
{
	store();
	each_file(".data", cut);
	ck_assert_uint_eq(read_back(), 3);
	ck_assert_uint_eq(stats.disk_corrupt, UNITS - 2);
}
END_TEST

static long marks_at; /* what garble overwrites */

static void garble(const char *path)
{
	int fd = open(path, O_RDWR);
	ck_assert_int_eq(pwrite(fd, "garbage!", 8, marks_at), 8);
	close(fd);
}

START_TEST(garbled_marks)
{
	struct obd_marks_geo geo;
	ck_assert(obd_marks_geo_init(&geo, BLOCK_BYTES, BLOB_BYTES, DIGEST));
	store();
	marks_at = (long)obd_marks_offset(obd_marks_index(&geo, false, unit[3].number)) + 3;
	each_file(".marks", garble);
	ck_assert_uint_eq(read_back(), ALL & ~UINT64_C(8));
	ck_assert_uint_eq(stats.disk_corrupt, 1);
}
END_TEST

/* Bytes 8 on: the version; and its CRC does not fit any more. */
START_TEST(foreign_header)
{
	store();
	marks_at = 8;
	each_file(".marks", garble);
	obd_disk_free(disk);
	open_disk();
	ck_assert_uint_eq(read_back(), 0);
	store(); /* made anew */
	ck_assert_uint_eq(stats.disk_corrupt, 1);
	ck_assert_uint_eq(read_back(), ALL);
}
END_TEST

static void cut_marks(const char *path)
{
	ck_assert_int_eq(truncate(path, 4096 + 100), 0);
}

START_TEST(short_marks)
{
	store();
	each_file(".marks", cut_marks);
	ck_assert_uint_eq(read_back(), 0);
	store();
	ck_assert_uint_eq(read_back(), ALL);
}
END_TEST

START_TEST(files_taken_away)
{
	store();
	ck_assert_uint_eq(read_back(), ALL);
	each_file("", remove_file);
	ck_assert_uint_eq(read_back(), 0); /* open ones are noticed */
	store();
	ck_assert_uint_eq(read_back(), ALL);
}
END_TEST

START_TEST(symlinks_are_not_followed)
{
	char target[80], link[1024], name[OBD_MARKS_NAME_BYTES];
	struct obd_marks_geo geo;
	struct stat st;
	store();
	each_file(".data", remove_file);
	ck_assert(obd_marks_geo_init(&geo, BLOCK_BYTES, BLOB_BYTES, DIGEST));
	obd_marks_name(&geo, false, name);
	snprintf(target, sizeof target, "%s.target", dir);
	DIR *top = opendir(dir);
	for (struct dirent *e = readdir(top); e; e = readdir(top))
		if (e->d_name[0] != '.')
			snprintf(link, sizeof link, "%s/%s/%s", dir, e->d_name, name);
	closedir(top);
	ck_assert_int_eq(symlink(target, link), 0);
	obd_disk_free(disk);
	open_disk();
	store();
	ck_assert_int_eq(stat(target, &st), -1);
	ck_assert_int_ne(stats.disk_errors, 0);
}
END_TEST

START_TEST(the_gate)
{
	struct obd_disk_gate gate = open_gate;
	struct obd_disk_read *r;
	store();
	gate.write = false;
	obd_disk_gate(disk, &gate);
	ck_assert_ptr_null(obd_disk_buffer(disk, 1000, 3));
	ck_assert_uint_eq(stats.disk_dropped, 3);
	ck_assert_uint_eq(read_back(), ALL);
	gate.read = false;
	obd_disk_gate(disk, &gate);
	ck_assert_int_eq(obd_disk_read(disk, &blob, unit, UNITS, got, NULL, &r), -EAGAIN);
	gate = open_gate;
	gate.look = 2;
	gate.room_bytes = 5000;
	obd_disk_gate(disk, &gate);
	ck_assert_ptr_null(obd_disk_buffer(disk, 5001, 1));
	unsigned char *buf = obd_disk_buffer(disk, 5000, 1);
	ck_assert_ptr_nonnull(buf);
	obd_disk_buffer_free(disk, buf, 5000);
}
END_TEST

/* Whatever waits to be written is bounded. */
START_TEST(busy)
{
	unsigned char *buf[40];
	uint32_t n = 0;
	while (n < 40 && (buf[n] = obd_disk_buffer(disk, 1 << 20, 1)))
		n++;
	ck_assert_uint_eq(n, OBD_DISK_BUFFER_BYTES >> 20);
	while (n > 0)
		obd_disk_buffer_free(disk, buf[--n], 1 << 20);
}
END_TEST

START_TEST(a_directory_that_is_not_there)
{
	obd_disk_free(disk);
	ck_assert_int_eq(rmdir(dir), 0);
	open_disk();
	ck_assert_uint_eq(read_back(), 0);
	ck_assert_int_eq(obd_disk_fault(disk), 0);
	store();
	ck_assert_uint_eq(stats.disk_errors, 1);
	ck_assert_uint_eq(stats.disk_dropped, UNITS);
	ck_assert_int_eq(mkdir(dir, 0700), 0);
}
END_TEST

START_TEST(cancelled)
{
	struct obd_disk_read *r;
	store();
	answers = 0;
	ck_assert_int_eq(obd_disk_read(disk, &blob, unit, UNITS, got, NULL, &r), 0);
	obd_disk_cancel(r);
	ck_assert_uint_eq(read_back(), ALL);
	ck_assert_int_eq(answers, 1);
	ck_assert_int_eq(obd_disk_read(disk, &blob, unit, UNITS, got, NULL, &r), 0); /* and one that is there at the end */
}
END_TEST

TCase *disk_cases(void)
{
	TCase *t = tcase_create("disk");
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	tcase_add_test(t, stored_is_read);
	tcase_add_test(t, what_waits_is_written_at_the_end);
	tcase_add_test(t, other_places_and_blobs);
	tcase_add_test(t, raw_chunks_fall);
	tcase_add_test(t, bit_rot);
	tcase_add_test(t, short_data);
	tcase_add_test(t, garbled_marks);
	tcase_add_test(t, foreign_header);
	tcase_add_test(t, short_marks);
	tcase_add_test(t, files_taken_away);
	tcase_add_test(t, symlinks_are_not_followed);
	tcase_add_test(t, the_gate);
	tcase_add_test(t, busy);
	tcase_add_test(t, a_directory_that_is_not_there);
	tcase_add_test(t, cancelled);
	return t;
}
