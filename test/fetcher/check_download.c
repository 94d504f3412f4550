/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The partial file of a download, and the threads that write it. */
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "fetcher/partial.h"
#include "fetcher/work.h"
#include "test/fetcher/fetcher_tests.h"

#define BYTES 300000u

static unsigned char content[BYTES];
static char dir[64];
static char digest[80];
static struct obd_partial blob;
static struct obd_err err;
static struct obd_loop *loop;
static _Atomic uint32_t pulse, stop;
static const struct obd_partial_watch watch = {.pulse = &pulse, .stop = &stop};
static struct obd_partial_file file;

static const char *in_dir(const char *name)
{
	static char path[128];
	snprintf(path, sizeof path, "%s/%s", dir, name);
	return path;
}

static void setup(void)
{
	unsigned char md[EVP_MAX_MD_SIZE];
	unsigned int n;
	snprintf(dir, sizeof dir, "/tmp/check_download.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	fill_noise(content, BYTES, 7);
	ck_assert(EVP_Digest(content, BYTES, md, &n, EVP_sha256(), NULL));
	strcpy(digest, "sha256:");
	for (unsigned int i = 0; i < n; i++)
		sprintf(digest + 7 + 2 * i, "%02x", md[i]);
	blob = (struct obd_partial){.dir = dir, .digest = digest, .bytes = BYTES};
	obd_store_relaxed(&stop, 0);
	loop = obd_loop_new();
}

static void teardown(void)
{
	static const char *const names[] = {OBD_COMMIT_NAME, OBD_PARTIAL_NAME, OBD_PARTIAL_STATE_NAME};
	for (size_t i = 0; i < OBD_ARRAY_SIZE(names); i++)
		unlink(in_dir(names[i]));
	rmdir(dir);
	obd_loop_free(loop);
}

static int put(uint64_t start, uint64_t end, uint64_t floor)
{
	return obd_partial_write(&blob, start, content + start, end - start, floor, &err);
}

static uint64_t prepared(void)
{
	uint64_t floor = 1;
	ck_assert_int_eq(obd_partial_prepare(&blob, &floor, &err), 0);
	return floor;
}

static bool there(const char *name)
{
	return access(in_dir(name), F_OK) == 0;
}

START_TEST(comes_in_pieces_and_goes_on)
{
	struct stat st;
	ck_assert_uint_eq(prepared(), 0);
	ck_assert_int_eq(put(0, 100000, 0), 0);
	ck_assert_int_eq(put(200000, BYTES, 0), 0);
	ck_assert_uint_eq(prepared(), 0); /* nobody said so yet */
	ck_assert_int_eq(put(100000, 200000, 100000), 0);
	ck_assert_uint_eq(prepared(), 100000);
	ck_assert_int_eq(put(100000, 110000, 90000), 0); /* what comes late takes nothing back */
	ck_assert_uint_eq(prepared(), 100000);
	ck_assert_int_eq(obd_partial_finish(&blob, &watch, &file, &err), 0);
	ck_assert(there(OBD_COMMIT_NAME) && !there(OBD_PARTIAL_NAME) && !there(OBD_PARTIAL_STATE_NAME));
	ck_assert_int_eq(stat(in_dir(OBD_COMMIT_NAME), &st), 0);
	ck_assert_uint_eq(file.ino, st.st_ino);
	ck_assert_uint_eq(st.st_size, BYTES);
	ck_assert_uint_eq(prepared(), BYTES);
	ck_assert_int_eq(obd_partial_finish(&blob, &watch, &file, &err), 0); /* as whoever died behind the rename asks again */
	ck_assert_int_eq(put(0, 10, 0), -ENOENT);
}
END_TEST

START_TEST(wrong_bytes_are_thrown_away)
{
	prepared();
	ck_assert_int_eq(put(0, BYTES, 0), 0);
	ck_assert_int_eq(obd_partial_write(&blob, 5, content, 10, BYTES, &err), 0);
	ck_assert_int_eq(obd_partial_finish(&blob, &watch, &file, &err), -EBADMSG);
	ck_assert_ptr_nonnull(strstr(err.msg, "not what the digest says"));
	ck_assert(!there(OBD_COMMIT_NAME) && !there(OBD_PARTIAL_NAME) && !there(OBD_PARTIAL_STATE_NAME));
	ck_assert_uint_eq(prepared(), 0);
}
END_TEST

START_TEST(another_files_name_is_respected)
{
	int fd = open(in_dir(OBD_COMMIT_NAME), O_WRONLY | O_CREAT, 0600);
	ck_assert_int_eq(write(fd, content, BYTES - 1), BYTES - 1);
	close(fd);
	ck_assert_uint_eq(prepared(), BYTES);
	ck_assert_int_eq(obd_partial_finish(&blob, &watch, &file, &err), -EEXIST);
	ck_assert(there(OBD_COMMIT_NAME));
}
END_TEST

/* Bytes of another blob, a state that is damaged, a file that was cut: from the start again. */
START_TEST(what_cannot_be_trusted_is_emptied)
{
	char other[80];
	prepared();
	ck_assert_int_eq(put(0, 100000, 0), 0);
	ck_assert_int_eq(put(100000, 200000, 100000), 0);
	ck_assert_int_eq(truncate(in_dir(OBD_PARTIAL_NAME), 99999), 0);
	ck_assert_uint_eq(prepared(), 0);
	ck_assert_int_eq(put(0, 100000, 0), 0);
	ck_assert_int_eq(put(100000, 200000, 100000), 0);
	int fd = open(in_dir(OBD_PARTIAL_STATE_NAME), O_WRONLY);
	ck_assert_int_eq(pwrite(fd, "x", 1, 20), 1);
	close(fd);
	ck_assert_uint_eq(prepared(), 0);
	ck_assert_int_eq(put(0, 100000, 0), 0);
	ck_assert_int_eq(put(100000, 200000, 100000), 0);
	strcpy(other, digest);
	other[10] = other[10] == '0' ? '1' : '0';
	blob.digest = other;
	ck_assert_uint_eq(prepared(), 0);
}
END_TEST

START_TEST(writers_and_checkers_exclude_each_other)
{
	prepared();
	ck_assert_int_eq(put(0, BYTES, 0), 0);
	int fd = open(in_dir(OBD_PARTIAL_NAME), O_RDWR);
	ck_assert_int_eq(flock(fd, LOCK_SH), 0);
	ck_assert_int_eq(obd_partial_finish(&blob, &watch, &file, &err), -EBUSY);
	ck_assert_int_eq(put(0, 10, 0), 0);
	ck_assert_int_eq(flock(fd, LOCK_EX), 0);
	ck_assert_int_eq(put(0, 10, 0), -EBUSY);
	close(fd);
	obd_store_relaxed(&stop, 1);
	ck_assert_int_eq(obd_partial_finish(&blob, &watch, &file, &err), -ECANCELED);
	ck_assert(there(OBD_PARTIAL_NAME));
}
END_TEST

START_TEST(bad_directories)
{
	uint64_t floor;
	blob.bytes = UINT64_C(1) << 60;
	ck_assert_int_eq(obd_partial_prepare(&blob, &floor, &err), -ENOSPC);
	blob.bytes = BYTES;
	ck_assert_int_eq(unlink(in_dir(OBD_PARTIAL_NAME)), 0);
	ck_assert_int_eq(symlink("/dev/null", in_dir(OBD_PARTIAL_NAME)), 0);
	ck_assert_int_eq(obd_partial_prepare(&blob, &floor, &err), -ELOOP);
	unlink(in_dir(OBD_PARTIAL_NAME));
	ck_assert_int_eq(mkfifo(in_dir(OBD_PARTIAL_NAME), 0600), 0);
	ck_assert_int_eq(obd_partial_prepare(&blob, &floor, &err), -EINVAL);
	blob.dir = "/nowhere/at/all";
	ck_assert_int_eq(obd_partial_prepare(&blob, &floor, &err), -ENOENT);
	ck_assert_int_eq(put(0, 10, 0), -ENOENT);
	ck_assert_int_eq(obd_partial_finish(&blob, &watch, &file, &err), -ENOENT);
}
END_TEST

/* --- threads -------------------------------------------------------------------------------------------------------------- */

struct probe {
	struct obd_work_item item;
	int blocks_on; /* reads a byte from here; -1: does not block */
	int dones, drops, err;
};

static int left;

static void probe_run(struct obd_work_item *item)
{
	struct probe *p = OBD_CONTAINER_OF(item, struct probe, item);
	char byte;
	if (p->blocks_on >= 0)
		ck_assert_int_eq(read(p->blocks_on, &byte, 1), 1);
}

static void one_less(void)
{
	if (--left == 0)
		obd_loop_stop(loop, 7);
}

static void probe_done(struct obd_work_item *item, int e)
{
	struct probe *p = OBD_CONTAINER_OF(item, struct probe, item);
	p->dones++;
	p->err = e;
	one_less();
}

static void probe_drop(struct obd_work_item *item)
{
	OBD_CONTAINER_OF(item, struct probe, item)->drops++;
	one_less();
}

static struct probe probe(int fd, uint64_t limit_ns)
{
	return (struct probe){.item = {.run = probe_run, .done = probe_done, .drop = probe_drop, .limit_ns = limit_ns},
			      .blocks_on = fd};
}

/* One hangs, one waits behind it until its own time is up, which is not its fault; both are told of in time, and dropped once.
 */
START_TEST(work_that_hangs)
{
	int fds[2];
	struct obd_work *w = obd_work_new(loop, 1, 0);
	ck_assert_int_eq(pipe(fds), 0);
	struct probe stuck = probe(fds[0], 50 * OBD_MS_NS), behind = probe(-1, 50 * OBD_MS_NS), after = probe(-1, 0);
	left = 3;
	obd_work_submit(w, &stuck.item);
	obd_work_submit(w, &behind.item);
	ck_assert_int_eq(obd_loop_run(loop), 7);
	ck_assert(stuck.dones == 1 && stuck.drops == 0 && stuck.err == ETIMEDOUT);
	ck_assert(behind.dones == 1 && behind.drops == 1 && behind.err == EAGAIN);
	left = 3;
	obd_work_submit(w, &after.item);
	ck_assert_int_eq(write(fds[1], "x", 1), 1);
	ck_assert_int_eq(obd_loop_run(loop), 7);
	ck_assert(stuck.dones == 1 && stuck.drops == 1);
	ck_assert(after.dones == 1 && after.drops == 1 && after.err == 0);
	obd_work_free(w);
	close(fds[0]);
	close(fds[1]);
}
END_TEST

START_TEST(work_is_dropped_at_the_end)
{
	int fds[2];
	struct obd_work *w = obd_work_new(loop, 2, 5);
	ck_assert_int_eq(pipe(fds), 0);
	struct probe p[8];
	left = 100;
	for (int i = 0; i < 8; i++) {
		p[i] = probe(fds[0], 0);
		obd_work_submit(w, &p[i].item);
	}
	ck_assert_int_eq(write(fds[1], "xxxxxxxx", 8), 8);
	obd_work_free(w);
	for (int i = 0; i < 8; i++)
		ck_assert(p[i].dones == 0 && p[i].drops == 1);
	close(fds[0]);
	close(fds[1]);
}
END_TEST

TCase *download_cases(void)
{
	TCase *t = tcase_create("download");
	tcase_set_timeout(t, 60);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, comes_in_pieces_and_goes_on);
	tcase_add_test(t, wrong_bytes_are_thrown_away);
	tcase_add_test(t, another_files_name_is_respected);
	tcase_add_test(t, what_cannot_be_trusted_is_emptied);
	tcase_add_test(t, writers_and_checkers_exclude_each_other);
	tcase_add_test(t, bad_directories);
	tcase_add_test(t, work_that_hangs);
	tcase_add_test(t, work_is_dropped_at_the_end);
	return t;
}
