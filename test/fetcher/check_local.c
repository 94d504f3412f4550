/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <aio.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/util.h"
#include "fetcher/fdcache.h"
#include "fetcher/local.h"
#include "test/fetcher/fetcher_tests.h"

#define FILE_BYTES 1000003u

static unsigned char content[FILE_BYTES];
static char path[64];
static struct obd_loop *loop;
static struct obd_local *local;
static struct obd_fetch_stats stats;

/* --- a disk that hangs: files whose name ends in ".hangs" are opened, and read by pread, when hanging is over
 * ------------------- */

static pthread_mutex_t disk_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t disk_back = PTHREAD_COND_INITIALIZER;
static bool hanging;
static int hanging_fd = -1;

static void touch_disk(void)
{
	pthread_mutex_lock(&disk_lock);
	while (hanging)
		pthread_cond_wait(&disk_back, &disk_lock);
	pthread_mutex_unlock(&disk_lock);
}

static void set_hanging(bool yes)
{
	pthread_mutex_lock(&disk_lock);
	hanging = yes;
	pthread_cond_broadcast(&disk_back);
	pthread_mutex_unlock(&disk_lock);
}

int open64(const char *name, int flags, ...)
{
	va_list ap;
	va_start(ap, flags);
	unsigned int mode = flags & O_CREAT ? va_arg(ap, unsigned int) : 0;
	va_end(ap);
	if (strstr(name, ".hangs"))
		touch_disk();
	return (int)syscall(SYS_openat, AT_FDCWD, name, flags, mode);
}

ssize_t pread64(int fd, void *buf, size_t n, off64_t at)
{
	if (fd == __atomic_load_n(&hanging_fd, __ATOMIC_RELAXED))
		touch_disk();
	return syscall(SYS_pread64, fd, buf, n, at);
}

ssize_t preadv64v2(int fd, const struct iovec *iov, int n, off64_t at, int flags)
{
	if (fd == __atomic_load_n(&hanging_fd, __ATOMIC_RELAXED)) {
		errno = EAGAIN; /* would wait */
		return -1;
	}
	return syscall(SYS_preadv2, fd, iov, n, at, 0L, flags);
}

/* -------------------------------------------------------------------------------------------------------------------------- */

static void write_file(void)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, content, FILE_BYTES), FILE_BYTES);
	close(fd);
}

static void setup(void)
{
	snprintf(path, sizeof path, "check_fetcher.%d.tmp", (int)getpid()); /* not on a tmpfs: direct reads */
	fill_noise(content, FILE_BYTES, 1);
	write_file();
	memset(&stats, 0, sizeof stats);
	loop = obd_loop_new();
#ifdef __SANITIZE_THREAD__
	/* The sanitizer does not know of threads that libc's own threads start. */
	aio_init(&(struct aioinit){.aio_threads = 1, .aio_num = 64});
#endif
}

static void teardown(void)
{
	set_hanging(false);
	obd_local_free(local);
	obd_loop_free(loop);
	local = NULL;
	unlink(path);
}

static bool poll_local(void *arg)
{
	(void)arg;
	return obd_local_poll(local);
}

static bool arm_local(void *arg)
{
	(void)arg;
	return obd_local_has_work(local);
}

static void open_engine(int engine)
{
	const struct obd_loop_hooks hooks = {.poll = poll_local, .arm = arm_local};
	local = obd_local_new(loop, (enum obd_local_engine)engine, &stats);
	ck_assert_ptr_nonnull(local);
	ck_assert_int_eq(obd_loop_add_hooks(loop, &hooks), 0);
}

static struct obd_local_target target(void)
{
	struct stat st;
	ck_assert_int_eq(stat(path, &st), 0);
	return (struct obd_local_target){.path = path,
					 .dev = st.st_dev,
					 .ino = st.st_ino,
					 .mtime_ns = st.st_mtim.tv_sec * 1000000000L + st.st_mtim.tv_nsec,
					 .bytes = (uint64_t)st.st_size};
}

static struct keeper keeper(int *left, size_t room)
{
	return (struct keeper){.loop = loop, .buf = malloc(room + 1), .room = room, .left = left};
}

static const struct {
	uint32_t start, end;
} ranges[] = {{0, FILE_BYTES},	{1, 2},	   {4095, 4097}, {5, 300000}, {999000, FILE_BYTES}, {FILE_BYTES - 1, FILE_BYTES},
	      {262144, 524288}, {100, 100}};
#define RANGES OBD_ARRAY_SIZE(ranges)

START_TEST(test_engines_read_the_same)
{
	struct keeper k[RANGES];
	int left = RANGES;
	open_engine(_i / 2);
	struct obd_local_target t = target();
	for (size_t i = 0; i < RANGES; i++) {
		k[i] = keeper(&left, ranges[i].end - ranges[i].start);
		k[i].direct = _i % 2;
		ck_assert_int_eq(obd_local_read(local, &t, ranges[i].start, ranges[i].end, &keeper_sink, &k[i]), 0);
	}
	ck_assert_int_eq(obd_loop_run(loop), 7);
	for (size_t i = 0; i < RANGES; i++) {
		ck_assert_int_eq(k[i].err, 0);
		ck_assert_int_eq(k[i].dones, 1);
		ck_assert_uint_eq(k[i].got, k[i].room);
		ck_assert_mem_eq(k[i].buf, content + ranges[i].start, k[i].room);
		free(k[i].buf);
	}
	ck_assert_uint_ge(stats.bytes_local, FILE_BYTES);
}
END_TEST

static struct keeper read_one(const struct obd_local_target *t, uint64_t start, uint64_t end, int refuse_at)
{
	int left = 1;
	struct keeper k = keeper(&left, end - start);
	k.refuse_at = refuse_at;
	ck_assert_int_eq(obd_local_read(local, t, start, end, &keeper_sink, &k), 0);
	ck_assert_int_eq(k.dones, 0);
	ck_assert_int_eq(obd_loop_run(loop), 7);
	ck_assert_int_eq(k.dones, 1);
	free(k.buf);
	return k;
}

START_TEST(test_changed_file_is_stale)
{
	open_engine(_i);
	struct obd_local_target t = target();
	ck_assert_int_eq(read_one(&t, 0, 100, 0).err, 0);
	ck_assert_int_eq(truncate(path, FILE_BYTES - 1), 0);
	struct keeper k = read_one(&t, 0, 100, 0);
	ck_assert_int_eq(k.err, ESTALE);
	ck_assert_uint_eq(k.got, 0);
	ck_assert_ptr_nonnull(strstr(k.reason, "changed while open"));
	unlink(path);
	write_file();
	t = target();
	t.ino++;
	ck_assert_int_eq(read_one(&t, 0, 0, 0).err, ESTALE);
	unlink(path);
	ck_assert_int_eq(read_one(&t, 0, 0, 0).err, ENOENT);
}
END_TEST

START_TEST(test_replaced_file_is_still_read)
{
	open_engine(_i);
	struct obd_local_target t = target();
	ck_assert_int_eq(read_one(&t, 0, 100, 0).err, 0);
	char other[80];
	snprintf(other, sizeof other, "%s.other", path);
	ck_assert_int_eq(rename(path, other), 0);
	write_file();
	ck_assert_int_eq(read_one(&t, 0, 100, 0).err, 0);
	unlink(other);
}
END_TEST

START_TEST(test_short_file_is_an_error)
{
	open_engine(_i);
	struct obd_local_target t = target();
	struct keeper k = read_one(&t, FILE_BYTES - 10, FILE_BYTES + 10, 0);
	ck_assert_int_eq(k.err, EIO);
	ck_assert_ptr_nonnull(strstr(k.reason, "ends early"));
	ck_assert_int_eq(read_one(&t, 0, FILE_BYTES, 1).err, ENOSPC);
}
END_TEST

START_TEST(test_not_a_file)
{
	struct stat st;
	open_engine(_i);
	ck_assert_int_eq(unlink(path), 0);
	ck_assert_int_eq(mkfifo(path, 0600), 0);
	ck_assert_int_eq(stat(path, &st), 0);
	struct obd_local_target t = target();
	ck_assert_int_ne(read_one(&t, 0, 10, 0).err, 0);
}
END_TEST

START_TEST(test_freed_while_reading)
{
	struct keeper k[8];
	int left = 8;
	open_engine(_i);
	struct obd_local_target t = target();
	for (int i = 0; i < 8; i++) {
		k[i] = keeper(&left, FILE_BYTES);
		ck_assert_int_eq(obd_local_read(local, &t, 0, FILE_BYTES, &keeper_sink, &k[i]), 0);
	}
	for (int i = 0; i < 5; i++)
		obd_local_poll(local);
	obd_local_free(local);
	local = NULL;
	for (int i = 0; i < 8; i++)
		free(k[i].buf);
}
END_TEST

/* The same file on another disk, which hangs. */
static struct obd_local_target on_hanging_disk(char name[80])
{
	struct obd_local_target t = target();
	snprintf(name, 80, "%s.hangs", path);
	t.path = name;
	t.dev++;
	return t;
}

static void ask(struct keeper *k, int n, int *left, const struct obd_local_target *t)
{
	for (int i = 0; i < n; i++) {
		k[i] = keeper(left, 1000);
		ck_assert_int_eq(obd_local_read(local, t, 0, 1000, &keeper_sink, &k[i]), 0);
	}
}

static void check_and_free(struct keeper *k, int n, int err)
{
	for (int i = 0; i < n; i++) {
		ck_assert_int_eq(k[i].dones, 1);
		ck_assert_int_eq(k[i].err, err);
		free(k[i].buf);
	}
}

/* Files of one disk are read while another hangs: more reads than there are threads for it, and before the others. */
START_TEST(test_one_disk_hangs)
{
	enum { HUNG = 40, GOOD = 5 };
	struct keeper hung[HUNG], good[GOOD];
	int nhung = HUNG, ngood = GOOD;
	char name[80];
	open_engine(_i);
	obd_local_set_limit(local, 600000);
	struct obd_local_target t = target(), h = on_hanging_disk(name);
	set_hanging(true);
	ask(hung, HUNG, &nhung, &h);
	ask(good, GOOD, &ngood, &t);
	ck_assert_int_eq(obd_loop_run(loop), 7);
	check_and_free(good, GOOD, 0);
	ck_assert_int_eq(nhung, HUNG);
	set_hanging(false);
	ck_assert_int_eq(obd_loop_run(loop), 7);
	check_and_free(hung, HUNG, ENOENT);
}
END_TEST

static void stop_loop(void *arg)
{
	obd_loop_stop(arg, 7);
}

static void run_for_a_moment(void)
{
	struct obd_loop_timer *timer = obd_loop_timer_new(loop, stop_loop, loop);
	obd_loop_timer_set(timer, obd_clock_ns() + 10 * OBD_MS_NS);
	ck_assert_int_eq(obd_loop_run(loop), 7);
	obd_loop_timer_free(timer);
}

START_TEST(test_a_hung_read_is_given_up)
{
	enum { HUNG = 9 };
	struct keeper hung[HUNG], k;
	int nhung = HUNG;
	char name[80];
	open_engine(_i);
	struct obd_local_target h = on_hanging_disk(name);
	set_hanging(true);
	obd_local_set_limit(local, 100);
	ask(hung, HUNG, &nhung, &h);
	ck_assert_int_eq(obd_loop_run(loop), 7);
	ck_assert_ptr_nonnull(strstr(hung[0].reason, ".hangs: the disk does not answer at byte 0"));
	check_and_free(hung, HUNG, ETIMEDOUT);
	obd_local_set_limit(local, 600000);
	ck_assert_int_eq(read_one(&h, 0, 1000, 0).err, ETIMEDOUT); /* at once: it has its threads already */
	set_hanging(false);
	do {
		run_for_a_moment();
		k = read_one(&h, 0, 1000, 0);
	} while (k.err == ETIMEDOUT);
	ck_assert_int_eq(k.err, ENOENT);
}
END_TEST

/* A read that was given up does not write to where the bytes were wanted. */
START_TEST(test_a_late_read_is_not_believed)
{
	struct obd_local_target t = target();
	struct keeper k = {0};
	int left = 1;
	open_engine(OBD_LOCAL_PSYNC);
	ck_assert_int_eq(read_one(&t, 0, 1000, 0).err, 0);
	int fd = open(path, O_RDONLY);
	__atomic_store_n(&hanging_fd, fd - 1, __ATOMIC_RELAXED); /* what the source keeps open */
	close(fd);
	set_hanging(true);
	obd_local_set_limit(local, 100);
	ask(&k, 1, &left, &t);
	ck_assert_int_eq(obd_loop_run(loop), 7);
	check_and_free(&k, 1, ETIMEDOUT);
	set_hanging(false);
	ck_assert_int_eq(read_one(&t, 0, 1000, 0).err, 0);
}
END_TEST

START_TEST(test_fdcache_keeps_few)
{
	struct obd_fdcache *c = obd_fdcache_new();
	char name[80];
	for (int i = 0; i < 200; i++) {
		struct obd_err err;
		struct obd_fd *file;
		struct stat st;
		snprintf(name, sizeof name, "%s.%d", path, i);
		int fd = open(name, O_CREAT | O_RDWR, 0600);
		ck_assert_int_eq(fstat(fd, &st), 0);
		close(fd);
		struct obd_local_target t = {.path = name,
					     .dev = st.st_dev,
					     .ino = st.st_ino,
					     .mtime_ns = st.st_mtim.tv_sec * 1000000000L + st.st_mtim.tv_nsec};
		bool direct = false;
		fd = obd_fd_open(&t, &direct, &err);
		ck_assert_int_ge(fd, 0);
		ck_assert_int_lt(fd, 120);
		ck_assert_ptr_null(obd_fdcache_find(c, &t));
		file = obd_fdcache_add(c, &t, fd, direct);
		ck_assert_ptr_eq(obd_fdcache_find(c, &t), file);
		obd_fdcache_put(c, file);
		obd_fdcache_put(c, file);
	}
	obd_fdcache_free(c);
	for (int i = 0; i < 200; i++) {
		snprintf(name, sizeof name, "%s.%d", path, i);
		unlink(name);
	}
}
END_TEST

TCase *local_cases(void)
{
	TCase *t = tcase_create("local");
	tcase_set_timeout(t, 60);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_loop_test(t, test_engines_read_the_same, 0, 2 * OBD_LOCAL_ENGINES);
	tcase_add_loop_test(t, test_changed_file_is_stale, 0, OBD_LOCAL_ENGINES);
	tcase_add_loop_test(t, test_replaced_file_is_still_read, 0, OBD_LOCAL_ENGINES);
	tcase_add_loop_test(t, test_short_file_is_an_error, 0, OBD_LOCAL_ENGINES);
	tcase_add_loop_test(t, test_not_a_file, 0, OBD_LOCAL_ENGINES);
	tcase_add_loop_test(t, test_freed_while_reading, 0, OBD_LOCAL_ENGINES);
	tcase_add_loop_test(t, test_one_disk_hangs, 0, OBD_LOCAL_ENGINES);
	tcase_add_loop_test(t, test_a_hung_read_is_given_up, 0, OBD_LOCAL_ENGINES);
	tcase_add_test(t, test_a_late_read_is_not_believed);
	tcase_add_test(t, test_fdcache_keeps_few);
	return t;
}
