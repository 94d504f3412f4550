/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Writable devices from the caller's side: the real client library and the real indexer on one thread, with a stand-in for
 * cached, and groups that die and come back with other files under the same names.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "common/base/log.h"
#include "common/format/lsmt.h"
#include "common/format/upper.h"
#include "frontend/client/internal.h"
#include "shmcache/ring.h"
#include "test/indexer/fake.h"

#define DEVICE_BYTES (1u << 20)
#define SECTOR 512u

/* Stands for the C library's in the whole program: a disk that hangs. */
static _Atomic bool sync_hangs;

int fdatasync(int fd)
{
	while (sync_hangs)
		usleep(1000);
	return (int)syscall(SYS_fdatasync, fd);
}

static struct fake fk;
static struct obd_client *client;
static struct obd_device *device;
static char dir[64], data_path[128], index_path[128], lower_path[128], config_path[128];

/* --- files -------------------------------------------------------------------------------------------------------------- */

static void make_lower(int fill)
{
	static unsigned char bytes[DEVICE_BYTES];
	struct obd_err err = {""};
	const struct obd_lsmt_write_opts opts = {.uuid = NULL};
	memset(bytes, fill, sizeof bytes);
	struct obd_file *src = obd_file_open_mem(bytes, sizeof bytes);
	struct obd_file *out = obd_file_open_path(lower_path, O_RDWR | O_CREAT | O_TRUNC, 0644, &err);
	ck_assert_msg(out != NULL, "%s", err.msg);
	ck_assert_int_eq(obd_lsmt_write_raw(src, SECTOR, out, &opts, NULL, NULL), 0);
	obd_file_close(src);
	obd_file_close(out);
}

static void make_upper(void)
{
	struct obd_err err = {""};
	const struct obd_upper_create_opts o = {.virtual_size = DEVICE_BYTES};
	ck_assert_msg(obd_upper_create(data_path, index_path, &o, &err) == 0, "%s", err.msg);
}

static void make_config(bool upper)
{
	FILE *f = fopen(config_path, "w");
	ck_assert_ptr_nonnull(f);
	fprintf(f, "{\"lowers\": [{\"file\": \"%s\"}]", lower_path);
	if (upper)
		fprintf(f, ", \"upper\": {\"data\": \"%s\", \"index\": \"%s\"}", data_path, index_path);
	fprintf(f, "}\n");
	ck_assert_int_eq(fclose(f), 0);
}

static uint64_t file_bytes(const char *path)
{
	struct stat st;
	ck_assert_int_eq(stat(path, &st), 0);
	return (uint64_t)st.st_size;
}

static void move(const char *path, const char *from, const char *to)
{
	char a[160], b[160];
	snprintf(a, sizeof a, "%s%s", path, from);
	snprintf(b, sizeof b, "%s%s", path, to);
	ck_assert_int_eq(rename(a, b), 0);
}

/* --- the group and its client ------------------------------------------------------------------------------------------- */

static void group_comes(void)
{
	fake_init(&fk, 16384, 128, 8u << 20);
	fake_start(&fk);
	client->seg = fk.seg;
	client->seg.bell_client[FAKE_CLIENT] = eventfd(0, EFD_NONBLOCK);
	client->seg.bell_indexer = eventfd(0, EFD_NONBLOCK);
	client->state = LINK_UP;
	obd_reader_attach(&client->reader, &client->seg, client->id, OBD_ROLE_FRONTEND, 7);
	client->mapped = true;
	obd_devices_again(client);
}

/* What the indexer has under way is carried out first: nobody knows whether it was. */
static void group_goes(void)
{
	obd_devices_lost(client);
	client->mapped = false;
	client->state = LINK_HANDSHAKE; /* the timer must not look for another group */
	close(client->seg.bell_client[FAKE_CLIENT]);
	close(client->seg.bell_indexer);
	fake_done(&fk);
}

static void client_new(void)
{
	struct epoll_event ev = {.events = EPOLLIN};
	client = calloc(1, sizeof *client);
	ck_assert_ptr_nonnull(client);
	client->sock = -1;
	client->id = FAKE_CLIENT;
	client->epfd = epoll_create1(EPOLL_CLOEXEC);
	client->timerfd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	ev.data.fd = client->timerfd;
	ck_assert_int_eq(epoll_ctl(client->epfd, EPOLL_CTL_ADD, client->timerfd, &ev), 0);
	obd_segment_init(&client->next);
	obd_list_init(&client->devices);
	obd_list_init(&client->retry);
	obd_list_init(&client->up_turn);
}

static void turn(void)
{
	if (client->mapped)
		fake_run(&fk);
	obd_client_dispatch(client);
}

static void came(void *arg, struct obd_device *dev)
{
	(void)arg;
	(void)dev;
}

static void open_device(void)
{
	struct obd_err err = {""};
	ck_assert_msg(obd_client_open(client, config_path, came, NULL, &device, &err) == 0, "%s", err.msg);
	for (int i = 0; i < 10000 && obd_device_state(device) != OBD_DEVICE_READY; i++) {
		turn();
		ck_assert_msg(obd_device_state(device) != OBD_DEVICE_FAILED, "%s", obd_device_reason(device));
		usleep(100);
	}
	ck_assert_int_eq(obd_device_state(device), OBD_DEVICE_READY);
}

static void set_up(void)
{
	obd_log_set_level(getenv("OBD_TEST_LOG") ? OBD_LOG_DEBUG : OBD_LOG_ERROR);
	strcpy(dir, "/tmp/check_writable.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(data_path, sizeof data_path, "%s/up.data", dir);
	snprintf(index_path, sizeof index_path, "%s/up.index", dir);
	snprintf(lower_path, sizeof lower_path, "%s/lower", dir);
	snprintf(config_path, sizeof config_path, "%s/config", dir);
	make_lower('l');
	make_upper();
	make_config(true);
	client_new();
	group_comes();
	open_device();
}

static void tear_down(void)
{
	char cmd[128];
	obd_client_close(device);
	turn();
	group_goes();
	obd_client_free_pieces(client);
	close(client->epfd);
	close(client->timerfd);
	free(client);
	snprintf(cmd, sizeof cmd, "rm -rf %s", dir);
	ck_assert_int_eq(system(cmd), 0);
}

/* --- ios ---------------------------------------------------------------------------------------------------------------- */

struct call {
	struct obd_io io;
	bool done;
	int result;
	unsigned char buf[8192];
};

static void call_done(struct obd_io *io, int result)
{
	struct call *call = io->arg;
	call->done = true;
	call->result = result;
}

static struct call *prepare(struct call *call, uint64_t off, uint64_t len, int fill)
{
	memset(call, 0, sizeof *call);
	memset(call->buf, fill, sizeof call->buf);
	call->io = (struct obd_io){.dev = device, .offset = off, .len = len, .buf = call->buf, .fn = call_done, .arg = call};
	return call;
}

static void started(struct call *call, int rc)
{
	if (rc == 1)
		return;
	call->done = true;
	call->result = rc;
}

static int finish(struct call *call)
{
	for (int i = 0; i < 100000 && !call->done; i++) {
		turn();
		usleep(100);
	}
	ck_assert(call->done);
	return call->result;
}

static int write_now(uint64_t off, uint64_t len, int fill)
{
	static struct call call;
	started(&call, obd_write(&prepare(&call, off, len, fill)->io, false));
	return finish(&call);
}

static int sync_now(void)
{
	static struct call call;
	started(&call, obd_sync(&prepare(&call, 0, 0, 0)->io));
	return finish(&call);
}

static int read_now(uint64_t off, uint64_t len, unsigned char *first)
{
	static struct call call;
	started(&call, obd_read(&prepare(&call, off, len, 0)->io));
	int rc = finish(&call);
	for (uint64_t i = 1; i < len && !rc; i++)
		ck_assert_uint_eq(call.buf[i], call.buf[0]);
	*first = call.buf[0];
	return rc;
}

static void expect(uint64_t off, uint64_t len, int wanted)
{
	unsigned char got;
	ck_assert_int_eq(read_now(off, len, &got), 0);
	ck_assert_uint_eq(got, (unsigned char)wanted);
}

/* --- the same and another upper ----------------------------------------------------------------------------------------- */

START_TEST(group_dies)
{
	static struct call call;
	set_up();
	expect(0, 4096, 'l');
	ck_assert_int_eq(write_now(0, 4096, 'a'), 0);
	started(&call, obd_write(&prepare(&call, 4096, 4096, 'b')->io, false));
	group_goes();
	ck_assert(!call.done);
	group_comes();
	ck_assert_int_eq(finish(&call), 0);
	expect(0, 4096, 'a');
	expect(4096, 4096, 'b');
	expect(8192, 4096, 'l');
	tear_down();
}
END_TEST

/* Writes that were not answered must not go into whatever the config names by now. */
START_TEST(other_upper)
{
	static struct call call;
	unsigned char got;
	set_up();
	ck_assert_int_eq(write_now(0, 4096, 'a'), 0);
	started(&call, obd_write(&prepare(&call, 4096, 4096, 'b')->io, false));
	group_goes();
	if (_i == 0) { /* other files under the same names */
		move(data_path, "", ".old");
		move(index_path, "", ".old");
		make_upper();
	} else { /* none at all */
		make_config(false);
	}
	group_comes();
	ck_assert_int_eq(finish(&call), -EIO);
	ck_assert_int_eq(write_now(0, 4096, 'c'), -EIO);
	ck_assert_int_eq(sync_now(), -EIO);
	ck_assert_int_eq(read_now(0, 4096, &got), -EIO);
	if (_i == 0) {
		ck_assert_uint_eq(file_bytes(index_path), 4096);
		ck_assert_uint_eq(file_bytes(data_path), 4096);
		move(data_path, ".old", "");
		move(index_path, ".old", "");
	} else {
		make_config(true);
	}
	for (int i = 0; i < 100000 && read_now(0, 4096, &got); i++) { /* it is tried again each second */
		turn();
		usleep(1000);
	}
	expect(0, 4096, 'a');
	expect(4096, 4096, 'l');
	ck_assert_int_eq(write_now(4096, 4096, 'd'), 0);
	expect(4096, 4096, 'd');
	tear_down();
}
END_TEST

START_TEST(other_lowers)
{
	static struct call call;
	set_up();
	ck_assert_int_eq(write_now(0, 4096, 'a'), 0);
	started(&call, obd_write(&prepare(&call, 4096, 512, 'b')->io, false));
	group_goes();
	unlink(lower_path);
	make_lower('m');
	group_comes();
	ck_assert_int_eq(finish(&call), -EIO);
	tear_down();
}
END_TEST

/* --- given up ----------------------------------------------------------------------------------------------------------- */

/* A read on which a write depends does not overtake a write that was given up, an ordinary one may. */
START_TEST(behind_orphans)
{
	static struct call gone, after, plain;
	set_up();
	started(&gone, obd_write(&prepare(&gone, 4096, 4096, 'o')->io, false));
	obd_io_cancel(&gone.io);
	started(&after, obd_read_behind(&prepare(&after, 0, 8192, 0)->io));
	started(&plain, obd_read_behind(&prepare(&plain, 16384, 512, 0)->io));
	for (int i = 0; i < 100; i++) {
		fake_serve(&fk);
		obd_client_dispatch(client);
	}
	ck_assert(!after.done);
	ck_assert_int_eq(finish(&plain), 0);
	ck_assert_int_eq(finish(&after), 0);
	ck_assert_uint_eq(after.buf[4095], 'l');
	ck_assert_uint_eq(after.buf[4096], 'o');
	ck_assert_uint_eq(after.buf[8191], 'o');
	ck_assert(!gone.done);
	started(&gone, obd_write(&prepare(&gone, 0, 4096, 'p')->io, false));
	obd_io_cancel(&gone.io);
	started(&after, obd_read_behind(&prepare(&after, 0, 8192, 0)->io));
	obd_io_cancel(&after.io);
	for (int i = 0; i < 100000 && client->up_orphans; i++) {
		turn();
		usleep(100);
	}
	ck_assert(!after.done);
	expect(0, 4096, 'p');
	tear_down();
}
END_TEST

/* The indexer knows nothing of the device any more: it is opened again, and the write is carried out there. */
START_TEST(dropped)
{
	static struct call call;
	set_up();
	started(&call, obd_write(&prepare(&call, 4096, 4096, 'd')->io, false));
	uint32_t slot = 0;
	while (!client->up[slot].posted)
		slot++;
	ck_assert(obd_ring_push(&fk.seg.catalog->client[FAKE_CLIENT].updones, &fk.seg.client[FAKE_CLIENT]->updones_tail,
				obd_entry(slot, client->up[slot].seq, ENODEV)));
	obd_client_dispatch(client);
	ck_assert(!call.done);
	ck_assert_int_eq(finish(&call), 0);
	expect(4096, 4096, 'd');
	tear_down();
}
END_TEST

/* What waits for a request that was given up does not hold up the rest of the device. */
START_TEST(not_behind_orphans)
{
	static struct call gone, same, other;
	set_up();
	sync_hangs = true;
	started(&gone, obd_write(&prepare(&gone, 4096, 4096, 'o')->io, true));
	while (!fk.ix || obd_indexer_idle(fk.ix))
		turn();
	obd_io_cancel(&gone.io);
	started(&same, obd_write(&prepare(&same, 4096, 512, 's')->io, false));
	started(&other, obd_write(&prepare(&other, 16384, 512, 'x')->io, false));
	ck_assert_int_eq(finish(&other), 0);
	ck_assert(!same.done);
	sync_hangs = false;
	ck_assert_int_eq(finish(&same), 0);
	expect(4096, 512, 's');
	expect(4608, 512, 'o');
	tear_down();
}
END_TEST

/* --- disks that hang ---------------------------------------------------------------------------------------------------- */

static struct obd_device *open_other(const char *name)
{
	struct obd_device *first = device, *opened;
	snprintf(data_path, sizeof data_path, "%s/%s.data", dir, name);
	snprintf(index_path, sizeof index_path, "%s/%s.index", dir, name);
	snprintf(config_path, sizeof config_path, "%s/%s.config", dir, name);
	make_upper();
	make_config(true);
	open_device();
	opened = device;
	device = first;
	return opened;
}

/* Devices whose disks hang, one after the other, with more requests each than there are slots; others still have some. */
START_TEST(hung_disks)
{
	enum { HUNG = 3, EACH = 300 };
	static struct call call[HUNG][EACH];
	struct obd_device *dev[HUNG], *fine;
	char name[8];
	set_up();
	for (int i = 0; i < HUNG; i++) {
		snprintf(name, sizeof name, "h%d", i);
		dev[i] = open_other(name);
	}
	fine = open_other("fine");
	struct obd_device *first = device;
	sync_hangs = true;
	for (int i = 0; i < HUNG; i++) {
		device = dev[i];
		for (int k = 0; k < EACH; k++)
			started(&call[i][k], obd_write(&prepare(&call[i][k], (uint64_t)k * 512, 512, 'h')->io, true));
		for (int k = 0; k < 50; k++)
			turn();
	}
	device = fine;
	for (uint64_t k = 0; k < 20; k++)
		ck_assert_int_eq(write_now(k * 4096, 4096, 'f'), 0);
	expect(0, 4096, 'f');
	for (int i = 0; i < HUNG; i++)
		for (int k = 0; k < EACH; k++)
			ck_assert(!call[i][k].done);
	sync_hangs = false;
	for (int i = 0; i < HUNG; i++)
		for (int k = 0; k < EACH; k++)
			ck_assert_int_eq(finish(&call[i][k]), 0);
	device = first;
	for (int i = 0; i < HUNG; i++)
		obd_client_close(dev[i]);
	obd_client_close(fine);
	tear_down();
}
END_TEST

/* --- no room ------------------------------------------------------------------------------------------------------------ */

static void limit(uint64_t bytes)
{
	struct rlimit l;
	getrlimit(RLIMIT_FSIZE, &l);
	l.rlim_cur = bytes ? bytes : l.rlim_max;
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &l), 0);
}

/* A file that may not grow and a quota that is used up are what a full disk is. */
START_TEST(no_room)
{
	set_up();
	for (int i = 0; i < 300; i++) /* the limit is also that of the file in which the test's facts are noted */
		ck_assert_int_eq(write_now(0, 4096, 'a'), 0);
	limit(file_bytes(data_path));
	ck_assert_int_eq(write_now(0, 8192, 'b'), -ENOSPC);
	expect(0, 4096, 'a');
	ck_assert_int_eq(sync_now(), 0);
	limit(0);
	ck_assert_int_eq(write_now(0, 8192, 'c'), 0);
	expect(0, 8192, 'c');
	tear_down();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("writable");
	TCase *t = tcase_create("writable");
	tcase_set_timeout(t, 300);
	tcase_add_test(t, group_dies);
	tcase_add_loop_test(t, other_upper, 0, 2);
	tcase_add_test(t, other_lowers);
	tcase_add_test(t, behind_orphans);
	tcase_add_test(t, not_behind_orphans);
	tcase_add_test(t, hung_disks);
	tcase_add_test(t, dropped);
	tcase_add_test(t, no_room);
	suite_add_tcase(s, t);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
