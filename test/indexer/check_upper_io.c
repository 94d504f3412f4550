/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Writable devices: requests of a stand-in for a client, written by the real indexer into real files, compared with a model in
 * memory by way of the map, of the files, and of the library that knows nothing of the indexer. The indexer is dropped between
 * any two steps and takes its work up again.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sched.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/config/config.h"
#include "common/format/lsmt.h"
#include "common/format/upper.h"
#include "shmcache/ring.h"
#include "shmcache/upmap.h"
#include "test/indexer/fake.h"
#include "test/unit/golden.h"

#define DEVICE_BYTES ((2u << 20) + 3 * 512)
#define LOWER_BYTES (1536u << 10)
#define SECTOR 512u
#define BLOCK_BYTES 16384u
#define SLOTS 40u
#define OPEN 3u

static struct fake fk;
static bool sparse;
static unsigned char lower[DEVICE_BYTES];
static unsigned char shadow[DEVICE_BYTES];
static char data_path[160], index_path[160], lower_path[128];

static struct {
	bool on;
	enum obd_up_op op;
	uint64_t off, len;
	int err;
} flight[SLOTS];
static uint32_t outstanding;

/* Stand for the C library's in the whole program: disks that fail, and disks that hang. */
static _Atomic int sync_error; /* errno of every sync */
static _Atomic bool sync_hangs;
static int rename_error;

int fdatasync(int fd)
{
	while (sync_hangs)
		usleep(1000);
	if (!sync_error)
		return (int)syscall(SYS_fdatasync, fd);
	errno = sync_error;
	return -1;
}

int rename(const char *from, const char *to)
{
	if (!rename_error)
		return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
	errno = rename_error;
	return -1;
}

static uint64_t state;

static uint32_t pick(uint32_t n)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32_t)(state >> 16) % n;
}

static struct obd_client_area *area(void)
{
	return fk.seg.client[FAKE_CLIENT];
}

/* --- the device --------------------------------------------------------------------------------------------------------- */

static void make_lower(void)
{
	struct obd_err err = {""};
	const struct obd_lsmt_write_opts opts = {.uuid = NULL};
	memset(lower, 0, sizeof lower);
	for (int i = 0; i < 60; i++) {
		uint32_t at = pick(LOWER_BYTES / SECTOR) * SECTOR, n = (1 + pick(90)) * SECTOR;
		for (uint32_t k = at; k < at + n && k < LOWER_BYTES; k++)
			lower[k] = (unsigned char)(1 + pick(255));
	}
	struct obd_file *src = obd_file_open_mem(lower, LOWER_BYTES);
	struct obd_file *out = obd_file_open_path(lower_path, O_RDWR | O_CREAT | O_TRUNC, 0644, &err);
	ck_assert_msg(out != NULL, "%s", err.msg);
	ck_assert_int_eq(obd_lsmt_write_raw(src, SECTOR, out, &opts, NULL, NULL), 0);
	obd_file_close(src);
	obd_file_close(out);
}

static void make_upper(uint64_t bytes)
{
	struct obd_err err = {""};
	const struct obd_upper_create_opts o = {.virtual_size = bytes, .sparse = sparse};
	unlink(data_path);
	unlink(index_path);
	ck_assert_msg(obd_upper_create(data_path, sparse ? NULL : index_path, &o, &err) == 0, "%s", err.msg);
}

static const char *config(const char *lower_file)
{
	static char path[160];
	snprintf(path, sizeof path, "%s/config", fk.dir);
	FILE *f = fopen(path, "w");
	ck_assert_ptr_nonnull(f);
	fprintf(f, "{\"upper\": {\"data\": \"%s\"", data_path);
	if (!sparse)
		fprintf(f, ", \"index\": \"%s\"", index_path);
	fprintf(f, "}, \"lowers\": [");
	if (lower_file)
		fprintf(f, "{\"file\": \"%s\"}", lower_file);
	fprintf(f, "]}\n");
	fclose(f);
	return path;
}

static struct obd_reply open_device(uint32_t slot, const char *lower_file)
{
	struct obd_reply r = {.err = 0};
	fake_post(&fk, slot, config(lower_file));
	for (int i = 0; i < 20000; i++) {
		fake_run(&fk);
		enum obd_reply_status s = fake_reply(&fk, slot, &r);
		if (s == OBD_REPLY_READY || s == OBD_REPLY_FAILED)
			break;
		usleep(100);
	}
	if (fake_reply(&fk, slot, &r) == OBD_REPLY_READY)
		fake_hold(&fk, slot);
	return r;
}

static bool wait_reply(uint32_t slot, int turns)
{
	enum obd_reply_status s = OBD_REPLY_NONE;
	for (int i = 0; i < turns && s != OBD_REPLY_READY && s != OBD_REPLY_FAILED; i++) {
		usleep(100);
		fake_run(&fk);
		s = fake_reply(&fk, slot, NULL);
	}
	return s == OBD_REPLY_READY || s == OBD_REPLY_FAILED;
}

static struct obd_reply open_good(const char *lower_file)
{
	struct obd_reply r = open_device(OPEN, lower_file);
	ck_assert_msg(fake_reply(&fk, OPEN, NULL) == OBD_REPLY_READY, "%s", r.reason);
	ck_assert_uint_ne(r.upper_uid, 0);
	return r;
}

static void set_up_with(bool is_sparse, uint32_t engine, uint64_t seed)
{
	state = 88172645463325252u + seed;
	sparse = is_sparse;
	outstanding = 0;
	memset(flight, 0, sizeof flight);
	obd_log_set_level(getenv("OBD_TEST_LOG") ? OBD_LOG_DEBUG : OBD_LOG_ERROR);
	fake_init(&fk, BLOCK_BYTES, 32, 8u << 20);
	fk.engine = engine;
	snprintf(data_path, sizeof data_path, "%s/up.data", fk.dir);
	snprintf(index_path, sizeof index_path, "%s/up.index", fk.dir);
	snprintf(lower_path, sizeof lower_path, "%s/lower", fk.dir);
	make_lower();
	make_upper(DEVICE_BYTES);
	memcpy(shadow, lower, sizeof shadow);
	fake_start(&fk);
}

/* --- requests ----------------------------------------------------------------------------------------------------------- */

static void post(uint32_t slot, enum obd_up_op op, uint64_t off, uint64_t len, uint32_t flags)
{
	struct obd_upreq *r = &area()->up[slot];
	uint64_t seq = obd_word_seq(obd_load_relaxed(&r->word)) + 1;
	ck_assert(!flight[slot].on);
	obd_store_relaxed(&r->open_slot, OPEN);
	obd_store_relaxed(&r->op, op);
	obd_store_relaxed(&r->offset, off);
	obd_store_relaxed(&r->len, len);
	obd_store_relaxed(&r->flags, flags);
	obd_store_relaxed(&r->posted_ns, obd_clock_ns());
	obd_store_release(&r->word, obd_word(seq, OBD_UP_POSTED));
	ck_assert(obd_ring_push(&area()->ups, &fk.seg.catalog->client[FAKE_CLIENT].ups_tail, obd_entry(slot, seq, 0)));
	flight[slot].on = true;
	flight[slot].op = op;
	flight[slot].off = off;
	flight[slot].len = len;
	outstanding++;
}

static bool collect_one(void)
{
	uint64_t entry;
	if (obd_ring_pop(&fk.seg.catalog->client[FAKE_CLIENT].updones, &area()->updones_tail, &entry) != OBD_RING_ENTRY)
		return false;
	uint32_t slot = obd_entry_slot(entry);
	ck_assert_uint_lt(slot, SLOTS);
	struct obd_upreq *r = &area()->up[slot];
	uint64_t word = obd_load_relaxed(&r->word);
	if (obd_word_state(word) != OBD_UP_POSTED || (uint32_t)obd_word_seq(word) != obd_entry_seq(entry))
		return true;
	flight[slot].on = false;
	flight[slot].err = obd_entry_err(entry);
	outstanding--;
	obd_store_release(&r->word, obd_word(obd_word_seq(word), OBD_UP_FREE));
	return true;
}

static void collect(void)
{
	while (collect_one())
		;
}

static void drain(void)
{
	for (int i = 0; outstanding && i < 200000; i++) {
		fake_run(&fk);
		collect();
		if (outstanding)
			usleep(50);
	}
	ck_assert_uint_eq(outstanding, 0);
}

static int one(enum obd_up_op op, uint64_t off, uint64_t len, uint32_t flags)
{
	post(0, op, off, len, flags);
	drain();
	return flight[0].err;
}

static void all_good(void)
{
	for (uint32_t i = 0; i < SLOTS; i++)
		ck_assert_msg(flight[i].err == 0, "slot %u: op %d at %llu, %llu bytes: %s", i, (int)flight[i].op,
			      (unsigned long long)flight[i].off, (unsigned long long)flight[i].len, strerror(flight[i].err));
}

/* --- comparing ---------------------------------------------------------------------------------------------------------- */

/* Reads upper data by way of requests: what a frontend does. */
static void read_data(uint64_t moffset, uint64_t sectors, unsigned char *dst)
{
	while (sectors) {
		uint64_t n = sectors < 128 ? sectors : 128;
		ck_assert_int_eq(one(OBD_UP_READ, moffset * SECTOR, n * SECTOR, 0), 0);
		memcpy(dst, fk.seg.upread->buf[FAKE_CLIENT][0], n * SECTOR);
		moffset += n;
		sectors -= n;
		dst += n * SECTOR;
	}
}

static void read_device(unsigned char *dst, uint64_t bytes, const unsigned char *base)
{
	struct obd_upmap map;
	const struct obd_reply *r = &fk.seg.catalog->client[FAKE_CLIENT].reply[OPEN];
	ck_assert_int_eq(obd_upmap_open(&fk.seg, r->upper_slot, r->upper_uid, &map), 0);
	ck_assert_uint_eq(map.sectors, bytes / SECTOR);
	for (uint64_t s = 0, run; s < map.sectors; s += run) {
		uint64_t moffset;
		bool bad;
		enum obd_upmap_kind kind = obd_upmap_lookup(&fk.seg, &map, s, map.sectors - s, &run, &moffset, &bad);
		ck_assert(!bad && run);
		if (kind == OBD_UPMAP_NONE)
			memcpy(dst + s * SECTOR, base + s * SECTOR, run * SECTOR);
		else if (kind == OBD_UPMAP_ZERO)
			memset(dst + s * SECTOR, 0, run * SECTOR);
		else
			read_data(moffset, run, dst + s * SECTOR);
	}
}

static void expect_same(const unsigned char *got, const char *what)
{
	for (uint32_t s = 0; s < DEVICE_BYTES / SECTOR; s++)
		ck_assert_msg(memcmp(got + s * SECTOR, shadow + s * SECTOR, SECTOR) == 0, "%s: sector %u differs", what, s);
}

static void verify(const char *what)
{
	static unsigned char got[DEVICE_BYTES];
	read_device(got, DEVICE_BYTES, lower);
	expect_same(got, what);
}

static void verify_files(const char *what)
{
	static unsigned char got[DEVICE_BYTES];
	struct obd_err err = {""};
	struct obd_upper *u;
	ck_assert_msg(obd_upper_open(data_path, sparse ? NULL : index_path, false, &u, &err) == 0, "%s", err.msg);
	memcpy(got, lower, sizeof got);
	ck_assert_int_eq(obd_upper_pread(u, got, sizeof got, 0), (ssize_t)sizeof got);
	obd_upper_close(u);
	expect_same(got, what);
}

/* --- random work -------------------------------------------------------------------------------------------------------- */

static bool meets_others(uint64_t off, uint64_t len)
{
	for (uint32_t i = 0; i < SLOTS; i++)
		if (flight[i].on && flight[i].op != OBD_UP_SYNC && off < flight[i].off + flight[i].len &&
		    flight[i].off < off + len)
			return true;
	return false;
}

static void random_range(bool big, uint64_t *off, uint64_t *len)
{
	uint64_t sectors = DEVICE_BYTES / SECTOR, n = 1 + pick(big ? 900 : 40), at;
	if (pick(3) == 0)
		n = (1 + pick(big ? 64 : 16)) * 8;
	at = pick((uint32_t)(sectors - n + 1));
	if (pick(2))
		at -= at % 8;
	if (pick(30) == 0)
		at = sectors - n;
	*off = at * SECTOR;
	*len = n * SECTOR;
}

static void random_post(uint32_t slot, bool alone)
{
	uint64_t off, len;
	uint32_t what = pick(20), flags = pick(12) ? 0 : OBD_UP_FUA;
	if (what == 0) {
		post(slot, OBD_UP_SYNC, 0, 0, 0);
		return;
	}
	random_range(what < 4, &off, &len);
	if (alone && meets_others(off, len))
		return;
	if (what < 5) {
		memset(shadow + off, 0, len);
		post(slot, OBD_UP_DISCARD, off, len, flags);
		return;
	}
	for (uint64_t i = 0; i < len; i++)
		area()->staging[slot][i] = (unsigned char)pick(256);
	memcpy(shadow + off, area()->staging[slot], len);
	post(slot, OBD_UP_WRITE, off, len, flags);
}

static void step(bool kills)
{
	switch (pick(8)) {
	case 0:
	case 1:
		fake_serve(&fk);
		break;
	case 2:
		collect_one();
		break;
	case 3:
		usleep(pick(200));
		break;
	case 4:
		if (kills && pick(12) == 0)
			fake_start(&fk);
		break;
	default:
		obd_indexer_poll(fk.ix);
	}
}

static void random_work(uint32_t n, bool kills)
{
	fk.forgetful = pick(2);
	for (uint32_t i = 0; i < n; i++) {
		uint32_t slot = pick(SLOTS);
		if (!flight[slot].on)
			random_post(slot, kills);
		step(kills);
	}
	drain();
	fk.forgetful = false;
	all_good();
}

static uint64_t arena_used(void)
{
	return obd_load_relaxed(&fk.seg.catalog->arena_used_bytes);
}

static void quiet(void)
{
	fake_run(&fk);
	for (int i = 0; i < 100000 && !obd_indexer_idle(fk.ix); i++) {
		usleep(100);
		fake_run(&fk);
	}
	ck_assert(obd_indexer_idle(fk.ix));
}

static void close_device(void)
{
	fake_close(&fk, OPEN);
	quiet();
	for (uint32_t i = 0; i < OBD_UPPER_SLOTS; i++)
		ck_assert_uint_eq(obd_word_state(obd_load_relaxed(&fk.seg.catalog->upper[i].word)), OBD_UPPER_FREE);
}

/* Every engine and both forms: _i is engine × form. */
START_TEST(model)
{
	set_up_with(_i % 2, (uint32_t)_i / 2, 0);
	open_good(lower_path);
	uint64_t used = 0;
	for (int round = 0; round < 4; round++) {
		random_work(250, round % 2);
		verify("after work");
		close_device();
		if (used)
			ck_assert_uint_eq(arena_used(), used); /* maps leave nothing behind */
		used = arena_used();
		verify_files("by the library");
		if (round % 2)
			fake_start(&fk);
		open_good(lower_path);
		verify("after reopening");
	}
	fake_done(&fk);
}
END_TEST

START_TEST(no_lower)
{
	set_up_with(_i % 2, 0, 5);
	memset(lower, 0, sizeof lower);
	memset(shadow, 0, sizeof shadow);
	open_good(NULL);
	random_work(150, true);
	verify("over nothing");
	fake_start(&fk);
	verify("after a restart");
	close_device();
	verify_files("by the library");
	fake_done(&fk);
}
END_TEST

/* An answer that its client has not seen yet stands, whatever the staging buffer says by then. */
START_TEST(answered_once)
{
	set_up_with(_i, 0, 9);
	open_good(lower_path);
	memset(area()->staging[0], 'a', 8192);
	memset(shadow + 4096, 'a', 8192);
	post(0, OBD_UP_WRITE, 4096, 8192, 0);
	while (!obd_load_relaxed(&fk.seg.catalog->client[FAKE_CLIENT].updones.head))
		fake_run(&fk);
	memset(area()->staging[0], 'b', 8192);
	fake_start(&fk);
	for (int i = 0; i < 50; i++) {
		obd_indexer_tick(fk.ix);
		fake_run(&fk);
		usleep(100);
	}
	drain();
	verify("after a restart");
	fake_done(&fk);
}
END_TEST

START_TEST(in_use)
{
	struct obd_reply r;
	set_up_with(false, 0, 1);
	open_good(lower_path);
	r = open_device(4, lower_path);
	ck_assert_int_eq(fake_reply(&fk, 4, NULL), OBD_REPLY_FAILED);
	ck_assert_int_eq((int)r.err, EBUSY);
	ck_assert_msg(strstr(r.reason, "up.data is in use by another device") != NULL, "%s", r.reason);
	close_device();
	open_good(lower_path);
	close_device();
	ck_assert_int_eq(truncate(index_path, 100), 0);
	r = open_device(4, lower_path);
	ck_assert_int_eq(fake_reply(&fk, 4, NULL), OBD_REPLY_FAILED);
	ck_assert_msg(strstr(r.reason, "up.data") != NULL, "%s", r.reason);
	unlink(index_path);
	r = open_device(4, lower_path);
	ck_assert_int_eq((int)r.err, ENOENT);
	ck_assert_msg(strstr(r.reason, "up.index") != NULL, "%s", r.reason);
	fake_done(&fk);
}
END_TEST

static void limit(uint64_t bytes)
{
	struct rlimit l;
	getrlimit(RLIMIT_FSIZE, &l);
	l.rlim_cur = bytes ? bytes : l.rlim_max;
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &l), 0);
}

static uint64_t file_bytes(const char *path)
{
	struct stat st;
	ck_assert_int_eq(stat(path, &st), 0);
	return (uint64_t)st.st_size;
}

/* A file that cannot grow: requests fail, what was there stays, and all goes on when there is room again. */
START_TEST(no_space)
{
	set_up_with(false, (uint32_t)_i, 2);
	open_good(lower_path);
	random_work(40, false);
	limit(file_bytes(data_path) + 5000);
	memset(area()->staging[0], 'x', 65536);
	ck_assert_int_eq(one(OBD_UP_WRITE, 0, 65536, 0), EFBIG);
	ck_assert_int_eq(one(OBD_UP_WRITE, 512, 512, 0), EFBIG);
	limit(0);
	verify("after a write that failed");
	/* Now the index: its last record would be torn. */
	uint64_t bytes = file_bytes(index_path);
	limit(bytes + 7);
	ck_assert_int_eq(one(OBD_UP_DISCARD, 0, 4096, 0), EFBIG);
	ck_assert_uint_eq(file_bytes(index_path), bytes);
	limit(0);
	verify("after a record that failed");
	random_work(60, false);
	verify("with room again");
	fake_start(&fk);
	verify("after a restart");
	close_device();
	verify_files("by the library");
	fake_done(&fk);
}
END_TEST

enum { JOINT = 12 };

/* Writes that are all there before the indexer looks go to a thread together: the first `fit` of them find room. */
static void write_together(uint64_t bytes, uint64_t apart, uint64_t most, uint32_t fit, uint32_t flags)
{
	limit(most);
	for (uint32_t i = 0; i < JOINT; i++) {
		memset(area()->staging[i], 'a' + (int)i, bytes);
		if (i < fit)
			memset(shadow + i * apart, 'a' + (int)i, bytes);
		post(i, OBD_UP_WRITE, i * apart, bytes, flags);
	}
	drain();
	limit(0);
	for (uint32_t i = 0; i < JOINT; i++)
		ck_assert_int_eq(flight[i].err, i < fit ? 0 : EFBIG);
	verify("after writes that went together");
}

static void verify_again(void)
{
	fake_start(&fk);
	verify("after a restart");
	close_device();
	verify_files("by the library");
	fake_done(&fk);
}

/* Some find no room for their data: each has its own answer. */
START_TEST(together)
{
	const uint64_t apart = 8192;
	set_up_with(_i, 0, 9);
	open_good(lower_path);
	uint64_t most = sparse ? OBD_LSMT_HEADER_BYTES + 5 * apart : file_bytes(data_path) + 5 * 4096 + 100;
	write_together(4096, apart, most, 5, 0);
	write_together(4096, 4096, 0, JOINT, 0);
	write_together(1536, 2048, 0, JOINT, OBD_UP_FUA);
	verify_again();
}
END_TEST

/* Some find no room for their records. */
START_TEST(together_records)
{
	set_up_with(false, 0, 10);
	open_good(lower_path);
	for (uint32_t n = 0; n < 50; n++) {
		for (uint32_t i = 0; i < SLOTS; i++)
			post(i, OBD_UP_DISCARD, (n * SLOTS + i) * SECTOR, SECTOR, 0);
		memset(shadow + n * SLOTS * SECTOR, 0, SLOTS * SECTOR);
		drain();
	}
	all_good();
	uint64_t bytes = file_bytes(index_path);
	write_together(SECTOR, 4096, bytes + 3 * sizeof(struct obd_lsmt_seg) + 7, 3, 0);
	ck_assert_uint_eq(file_bytes(index_path), bytes + 3 * sizeof(struct obd_lsmt_seg));
	write_together(SECTOR, SECTOR, 0, JOINT, 0);
	verify_again();
}
END_TEST

/* Discards that are longer than one record, over GiBs that hold something here and there. */
START_TEST(huge_discard)
{
	const uint64_t bytes = UINT64_C(64) << 30;
	set_up_with(_i, 0, 3);
	make_upper(bytes);
	struct obd_reply r = open_good(lower_path);
	uint64_t places[] = {0, 1ull << 20, (1ull << 30) - 4096, 5ull << 30, (33ull << 30) + 512, bytes - 4096};
	for (size_t i = 0; i < sizeof places / sizeof places[0]; i++)
		ck_assert_int_eq(one(OBD_UP_WRITE, places[i], 4096, 0), 0);
	ck_assert_int_eq(one(OBD_UP_DISCARD, 512, bytes - 1024, OBD_UP_FUA), 0);
	for (int again = 0; again < 2; again++) {
		struct obd_upmap map;
		uint64_t run, moffset;
		bool bad;
		ck_assert_int_eq(obd_upmap_open(&fk.seg, r.upper_slot, r.upper_uid, &map), 0);
		ck_assert_int_eq(obd_upmap_lookup(&fk.seg, &map, 0, 1, &run, &moffset, &bad), OBD_UPMAP_DATA);
		ck_assert_int_eq(obd_upmap_lookup(&fk.seg, &map, bytes / SECTOR - 1, 1, &run, &moffset, &bad), OBD_UPMAP_DATA);
		for (size_t i = 1; i < 5; i++)
			ck_assert_int_ne(obd_upmap_lookup(&fk.seg, &map, places[i] / SECTOR, 1, &run, &moffset, &bad),
					 OBD_UPMAP_DATA);
		close_device();
		r = open_good(lower_path);
	}
	ck_assert_int_eq(one(OBD_UP_DISCARD, 0, bytes, 0), 0);
	fake_done(&fk);
}
END_TEST

static void fresh_area(void)
{
	obd_store_relaxed(&area()->ups.head, 0);
	obd_store_relaxed(&area()->opens.head, 0);
	obd_store_relaxed(&area()->updones_tail.tail, 0);
	obd_store_relaxed(&area()->replies_tail.tail, 0);
	obd_store_relaxed(&area()->open[OPEN].word, 0);
}

/* As obd_devices_again does, once it has read the indexer's tails. */
static void adopt_heads(uint64_t ups, uint64_t opens)
{
	const struct obd_catalog_client *peer = &fk.seg.catalog->client[FAKE_CLIENT];
	obd_store_relaxed(&area()->ups.head, ups);
	obd_store_relaxed(&area()->opens.head, opens);
	obd_store_relaxed(&area()->updones_tail.tail, obd_load_relaxed(&peer->updones.head));
	obd_store_relaxed(&area()->replies_tail.tail, obd_load_relaxed(&peer->replies.head));
}

/* The client goes while its writes are under way; its memory is used until they end. */
START_TEST(client_goes)
{
	set_up_with(_i % 2, (uint32_t)_i / 2, 4);
	for (int round = 0; round < 10; round++) {
		open_good(lower_path);
		for (uint32_t slot = 0; slot < SLOTS; slot++)
			random_post(slot, false);
		for (uint32_t i = pick(20); i; i--)
			step(false);
		obd_indexer_client_down(fk.ix, FAKE_CLIENT);
		while (!obd_indexer_client_idle(fk.ix, FAKE_CLIENT))
			fake_run(&fk);
		memset((void *)area()->up, 0, sizeof area()->up);
		memset(flight, 0, sizeof flight);
		outstanding = 0;
		fresh_area();
		if (pick(3) == 0)
			fake_start(&fk);
		/* The new client attaches before or after the indexer hears of it, or while it does. */
		const struct obd_catalog_client *peer = &fk.seg.catalog->client[FAKE_CLIENT];
		uint64_t ups = obd_load_relaxed(&peer->ups_tail.tail), opens = obd_load_relaxed(&peer->opens_tail.tail);
		bool late = pick(2);
		if (!late)
			adopt_heads(ups, opens);
		obd_indexer_client_up(fk.ix, FAKE_CLIENT, ++fk.incarnation);
		if (late)
			adopt_heads(ups, opens);
	}
	fake_done(&fk);
}
END_TEST

static void hostile_request(uint32_t slot)
{
	static const uint64_t odd[] = {
		0, 1, 511, 512, 4096, 65536, 65537, DEVICE_BYTES - 512, DEVICE_BYTES, UINT64_MAX - 511, UINT64_C(1) << 63};
	struct obd_upreq *r = &area()->up[slot];
	uint64_t seq = obd_word_seq(obd_load_relaxed(&r->word)) + pick(2);
	obd_store_relaxed(&r->open_slot, pick(3) ? OPEN : pick(1000));
	obd_store_relaxed(&r->op, pick(3) ? pick(4) : (uint32_t)state);
	obd_store_relaxed(&r->offset, pick(4) ? odd[pick(11)] : (uint64_t)pick(8000) * 512);
	obd_store_relaxed(&r->len, pick(4) ? odd[pick(11)] : (uint64_t)pick(200) * 512);
	obd_store_relaxed(&r->flags, pick(4));
	obd_store_release(&r->word, obd_word(seq, pick(5) ? OBD_UP_POSTED : pick(256)));
	(void)obd_ring_push(&area()->ups, &fk.seg.catalog->client[FAKE_CLIENT].ups_tail,
			    obd_entry(pick(9) ? slot : pick(65536), seq, 0));
}

START_TEST(hostile)
{
	set_up_with(_i % 2, (uint32_t)_i / 2, 6);
	open_good(lower_path);
	for (int i = 0; i < 3000; i++) {
		hostile_request(pick(SLOTS));
		if (pick(500) == 0)
			obd_store_relaxed(&area()->ups.head, state);
		if (pick(300) == 0)
			obd_store_relaxed(&area()->open[OPEN].word, obd_word(pick(5), pick(4)));
		if (pick(700) == 0) {
			fake_close(&fk, OPEN);
			fake_run(&fk);
			(void)open_device(OPEN, lower_path);
		}
		step(true);
	}
	fake_done(&fk);
}
END_TEST

static void spill(const char *path, struct obd_file *src)
{
	struct buffer b = read_all(src);
	FILE *f = fopen(path, "w");
	ck_assert_ptr_nonnull(f);
	ck_assert_uint_eq(fwrite(b.p, 1, b.n, f), b.n);
	ck_assert_int_eq(fclose(f), 0);
	free(b.p);
	obd_file_close(src);
}

/* What the reference implementation left when it died: served, and fit to be written. */
START_TEST(golden_crash)
{
	static unsigned char base[2 << 20], got[2 << 20];
	struct obd_image *im;
	set_up_with(false, 0, 7);
	spill(lower_path, golden_z("lsmt/crash-upper/l0.lsmt"));
	spill(data_path, golden_z("lsmt/crash-upper/up.data"));
	struct buffer idx = golden_bytes("lsmt/crash-upper/up.index");
	FILE *f = fopen(index_path, "w");
	ck_assert_ptr_nonnull(f);
	ck_assert_uint_eq(fwrite(idx.p, 1, idx.n, f), idx.n);
	ck_assert_int_eq(fclose(f), 0);
	free(idx.p);
	struct obd_reply r = open_good(lower_path);
	im = &fk.seg.catalog->image[r.image_slot];
	ck_assert(fake_image_read(&fk, im, 0, sizeof base, base));
	for (int again = 0; again < 2; again++) {
		read_device(got, sizeof got, base);
		ck_assert_str_eq(sha256(got, sizeof got), "13fc89d144665e1e129b6766a54ee528abefe01bab180b75a609a19084fce743");
		memcpy(area()->staging[0], got + 1536, 65536);
		ck_assert_int_eq(one(OBD_UP_WRITE, 1536, 65536, OBD_UP_FUA), 0);
		fake_start(&fk);
	}
	fake_done(&fk);
}
END_TEST

/* --- holes -------------------------------------------------------------------------------------------------------------- */

/* A tmpfs with huge pages has holes of 2 MiB, and says so. */
static bool mount_huge(const char *dir, const char *options)
{
	struct stat st;
	mkdir(dir, 0700);
	if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("tmpfs", dir, "tmpfs", 0, options) || stat(dir, &st))
		return false;
	return true;
}

static uint64_t block_of(const char *path)
{
	struct stat st;
	ck_assert_int_eq(stat(path, &st), 0);
	return (uint64_t)st.st_blksize;
}

static void reopen_and_verify(const char *what)
{
	verify(what);
	close_device();
	verify_files(what);
	open_good(lower_path);
	verify(what);
}

/* A layer whose file system says that its holes are coarser than they are, or that has some of either kind. */
START_TEST(coarse_holes)
{
	const struct obd_upper_create_opts o = {.virtual_size = DEVICE_BYTES, .sparse = true};
	struct obd_err err = {""};
	char dir[128];
	set_up_with(true, (uint32_t)_i, 20 + (uint64_t)_i);
	snprintf(dir, sizeof dir, "%s/huge", fk.dir);
	if (!mount_huge(dir, "size=64m,huge=never")) {
		printf("skip upper_io: coarse holes: no tmpfs with huge pages can be mounted here\n");
		fake_done(&fk);
		return;
	}
	snprintf(data_path, sizeof data_path, "%s/up.data", dir);
	make_upper(DEVICE_BYTES);
	if (_i) {
		open_good(lower_path);
		random_work(60, false);
		reopen_and_verify("after some work");
		close_device();
	}
	ck_assert_int_eq(mount("tmpfs", dir, NULL, MS_REMOUNT, "size=64m,huge=always"), 0);
	open_good(lower_path);
	ck_assert_uint_gt(block_of(data_path), 1 << 20);
	for (int round = 0; round < 6; round++) {
		random_work(round % 2 ? 60 : 8, round % 2);
		reopen_and_verify("after more");
	}
	close_device();
	snprintf(data_path, sizeof data_path, "%s/new.data", dir);
	ck_assert_int_eq(obd_upper_create(data_path, NULL, &o, &err), -ENOTSUP);
	ck_assert_int_eq(access(data_path, F_OK), -1);
	umount(dir);
	fake_done(&fk);
}
END_TEST

/* --- files that cannot be had again -------------------------------------------------------------------------------------- */

static int lock_data(void)
{
	int fd = open(data_path, O_RDONLY);
	ck_assert_int_eq(flock(fd, LOCK_EX | LOCK_NB), 0);
	return fd;
}

static void stop_indexer(void)
{
	obd_indexer_free(fk.ix);
	fk.ix = NULL;
}

static void some_turns(void)
{
	for (int i = 0; i < 300; i++) {
		fake_run(&fk);
		collect();
		usleep(100);
	}
}

/* The indexer starts again while a stranger has the lock, or the files are not there, and the image config is gone for good:
 * requests wait, and are carried out as soon as it can be. */
START_TEST(attach_again)
{
	char away[200];
	set_up_with(_i % 2, 0, 30);
	open_good(lower_path);
	random_work(40, false);
	stop_indexer();
	unlink(config(lower_path));
	snprintf(away, sizeof away, "%s.away", data_path);
	int fd = _i < 2 ? lock_data() : -1;
	if (_i >= 2)
		ck_assert_int_eq(rename(data_path, away), 0);
	fake_start(&fk);
	memset(area()->staging[0], 'q', 8192);
	memset(shadow + 8192, 'q', 8192);
	post(0, OBD_UP_WRITE, 8192, 8192, 0);
	post(1, OBD_UP_SYNC, 0, 0, 0);
	some_turns();
	ck_assert_uint_eq(outstanding, 2);
	if (fd >= 0)
		close(fd);
	else
		ck_assert_int_eq(rename(away, data_path), 0);
	drain();
	all_good();
	verify("when the files are back");
	random_work(40, true);
	verify("after more");
	close_device();
	verify_files("by the library");
	fake_done(&fk);
}
END_TEST

/* They do not wait for ever, and another file under the name is not taken. */
START_TEST(attach_timeout)
{
	static struct obd_config conf;
	char away[200];
	set_up_with(_i % 2, 0, 31);
	open_good(lower_path);
	random_work(20, false);
	stop_indexer();
	snprintf(away, sizeof away, "%s.away", data_path);
	ck_assert_int_eq(rename(data_path, away), 0);
	if (_i >= 2) {
		struct obd_err err = {""};
		const struct obd_upper_create_opts o = {.virtual_size = DEVICE_BYTES, .sparse = sparse};
		char other[200];
		snprintf(other, sizeof other, "%s.other", index_path);
		ck_assert_int_eq(obd_upper_create(data_path, sparse ? NULL : other, &o, &err), 0);
	}
	fake_start(&fk);
	conf.read_timeout_sec = 1;
	obd_indexer_set_config(fk.ix, &conf);
	post(0, OBD_UP_WRITE, 8192, 8192, 0);
	for (int i = 0; i < 10000 && outstanding; i++) {
		obd_indexer_tick(fk.ix);
		some_turns();
	}
	ck_assert_int_eq(flight[0].err, ETIMEDOUT);
	ck_assert_int_eq(rename(away, data_path), 0);
	for (int i = 0; i < 100 && one(OBD_UP_SYNC, 0, 0, 0); i++)
		usleep(1000);
	flight[0].err = 0;
	random_work(20, false);
	verify("when the files are back");
	fake_done(&fk);
}
END_TEST

/* --- closing ------------------------------------------------------------------------------------------------------------ */

/* Another device is being closed: who finds his files locked by a stranger hears so at once; who wants the very files that are
 * being closed gets them. */
START_TEST(waits_for_its_own)
{
	set_up_with(_i, 0, 40);
	open_good(lower_path);
	sync_hangs = true;
	post(0, OBD_UP_SYNC, 0, 0, 0);
	for (int i = 0; i < 100; i++)
		fake_run(&fk);
	fake_close(&fk, OPEN);
	fake_run(&fk);
	fake_post(&fk, 5, config(lower_path));
	ck_assert(!wait_reply(5, 300));
	snprintf(data_path, sizeof data_path, "%s/other.data", fk.dir);
	snprintf(index_path, sizeof index_path, "%s/other.index", fk.dir);
	make_upper(DEVICE_BYTES);
	int fd = lock_data();
	fake_post(&fk, 4, config(lower_path));
	ck_assert(wait_reply(4, 20000));
	ck_assert_int_eq(fake_reply(&fk, 4, NULL), OBD_REPLY_FAILED);
	ck_assert_int_eq(fake_reply(&fk, 5, NULL), OBD_REPLY_NONE);
	sync_hangs = false;
	ck_assert(wait_reply(5, 100000));
	ck_assert_int_eq(fake_reply(&fk, 5, NULL), OBD_REPLY_READY);
	close(fd);
	fake_done(&fk);
}
END_TEST

/* --- syncs that failed --------------------------------------------------------------------------------------------------- */

static void expect_sync(int err)
{
	ck_assert_int_eq(one(OBD_UP_SYNC, 0, 0, 0), err);
	flight[0].err = 0;
}

/* One failure is for good, whoever opens the layer: what was lost, nobody knows. Reading and writing go on. */
START_TEST(failed_sync)
{
	static struct obd_config conf;
	char cmd[256];
	set_up_with(_i, 0, 50);
	conf.read_timeout_sec = 60;
	conf.runtime_dir = fk.dir;
	obd_indexer_set_config(fk.ix, &conf);
	open_good(lower_path);
	random_work(30, false);
	sync_error = EIO;
	expect_sync(EIO);
	sync_error = 0;
	expect_sync(EIO);
	ck_assert_int_eq(one(OBD_UP_WRITE, 0, 512, OBD_UP_FUA), EIO);
	memcpy(shadow, area()->staging[0], 512);
	memset(area()->staging[0], 'w', 4096);
	memset(shadow + 4096, 'w', 4096);
	ck_assert_int_eq(one(OBD_UP_WRITE, 4096, 4096, 0), 0);
	verify("after a sync that failed");
	fake_start(&fk);
	obd_indexer_set_config(fk.ix, &conf);
	expect_sync(EIO);
	close_device();
	open_good(lower_path);
	expect_sync(EIO);
	verify("after reopening");
	close_device();
	snprintf(cmd, sizeof cmd, "rm %s/unsynced.*", fk.dir);
	ck_assert_int_eq(system(cmd), 0);
	open_good(lower_path);
	expect_sync(0);
	fake_done(&fk);
}
END_TEST

/* --- compaction ---------------------------------------------------------------------------------------------------------- */

/* Makes it n records long at least, by repeating all that it says. */
static void lengthen_index(uint64_t n)
{
	uint64_t bytes = file_bytes(index_path) - 4096;
	unsigned char *all = malloc(bytes);
	int fd = open(index_path, O_RDWR);
	ck_assert_int_eq(pread(fd, all, bytes, 4096), (ssize_t)bytes);
	for (uint64_t at = 4096 + bytes; at < 4096 + n * 16;
	     at += bytes) /* the whole list: a part would undo what comes later */
		ck_assert_int_eq(pwrite(fd, all, bytes, (off_t)at), (ssize_t)bytes);
	close(fd);
	free(all);
}

/* Long index files are written anew when they are opened; what goes wrong leaves the old one. */
START_TEST(compaction)
{
	char beside[200];
	struct stat before, after;
	set_up_with(false, 0, 60);
	open_good(lower_path);
	random_work(60, false);
	close_device();
	lengthen_index(OBD_UPPER_COMPACT_RECORDS + 10);
	ck_assert_int_eq(chmod(index_path, 0640), 0);
	ck_assert_int_eq(stat(index_path, &before), 0);
	snprintf(beside, sizeof beside, "%s.compact", index_path);
	close(open(beside, O_CREAT | O_WRONLY, 0600)); /* a crash left it */
	rename_error = ENOSPC;
	open_good(lower_path);
	verify("after a compaction that failed");
	ck_assert_uint_eq(file_bytes(index_path), (uint64_t)before.st_size);
	ck_assert_int_eq(access(beside, F_OK), -1);
	close_device();
	rename_error = 0;
	open_good(lower_path);
	verify("after a compaction");
	ck_assert_int_eq(stat(index_path, &after), 0);
	ck_assert_int_lt(after.st_size, 65536);
	ck_assert_uint_eq(after.st_mode, before.st_mode);
	ck_assert_int_eq(access(beside, F_OK), -1);
	random_work(60, true);
	verify("after more work");
	close_device();
	verify_files("by the library");
	fake_done(&fk);
}
END_TEST

/* --- power failures ------------------------------------------------------------------------------------------------------ */

#define OPS 28u
#define BLOCK 4096u

/* What was done, one at a time, and what there was after each. */
static struct {
	enum obd_up_op op;
	uint64_t off, len;
	uint64_t data_bytes, index_bytes; /* of the files, afterwards */
	unsigned char bytes[65536];
} done[OPS];
static unsigned char after[OPS + 1][DEVICE_BYTES];

/* Hundreds of repairs sync their files: in memory where there is some. */
static void in_memory(char *where)
{
	strcpy(where, access("/dev/shm", W_OK) ? "/tmp/check_power.XXXXXX" : "/dev/shm/check_power.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(where));
	snprintf(data_path, sizeof data_path, "%s/up.data", where);
	snprintf(index_path, sizeof index_path, "%s/up.index", where);
	make_upper(DEVICE_BYTES);
}

static void work_noted(uint32_t first, uint32_t last)
{
	for (uint32_t i = first; i < last; i++) {
		uint64_t off, len;
		random_range(false, &off, &len);
		done[i].op = i % 7 == 6 ? OBD_UP_SYNC : pick(4) ? OBD_UP_WRITE : OBD_UP_DISCARD;
		done[i].off = off;
		done[i].len = done[i].op == OBD_UP_SYNC ? 0 : len;
		if (done[i].op == OBD_UP_DISCARD)
			memset(done[i].bytes, 0, sizeof done[i].bytes);
		for (uint64_t k = 0; done[i].op == OBD_UP_WRITE && k < len; k++)
			done[i].bytes[k] = (unsigned char)pick(256);
		memcpy(area()->staging[0], done[i].bytes, len);
		ck_assert_int_eq(one(done[i].op, off, done[i].len, 0), 0);
		memcpy(shadow + off, done[i].bytes, done[i].len);
		memcpy(after[i + 1], shadow, sizeof shadow);
		done[i].data_bytes = file_bytes(data_path);
		done[i].index_bytes = sparse ? 0 : file_bytes(index_path);
	}
}

/* The first operation behind the last sync that was answered before operation i began. */
static uint32_t behind_sync(uint32_t i)
{
	while (i && done[i - 1].op != OBD_UP_SYNC)
		i--;
	return i;
}

static struct buffer load_file(const char *path)
{
	struct obd_err err = {""};
	struct obd_file *f = obd_file_open_path(path, O_RDONLY, 0, &err);
	ck_assert_msg(f != NULL, "%s", err.msg);
	struct buffer b = read_all(f);
	obd_file_close(f);
	return b;
}

static void put_file(const char *path, const unsigned char *p, uint64_t n)
{
	int fd = open(path, O_WRONLY | O_TRUNC);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(pwrite(fd, p, n, 0), (ssize_t)n);
	close(fd);
}

/* The state that so much of the files must give: whole records whose data are there, in their order. */
static void expect_after_cut(uint64_t data_bytes, uint64_t index_bytes)
{
	uint64_t record = 4096;
	memcpy(shadow, lower, sizeof shadow);
	for (uint32_t i = 0; i < OPS; i++) {
		if (done[i].op == OBD_UP_SYNC)
			continue;
		record += 16;
		if (record <= index_bytes && (done[i].op == OBD_UP_DISCARD || done[i].data_bytes <= data_bytes))
			memcpy(shadow + done[i].off, done[i].bytes, done[i].len);
	}
}

/* Everything that was synced is there, and nothing that never was. */
static void expect_synced_or_later(uint32_t synced, const unsigned char *got)
{
	for (uint64_t s = 0; s < DEVICE_BYTES; s += SECTOR) {
		uint32_t i = synced;
		while (i <= OPS && memcmp(got + s, after[i] + s, SECTOR) != 0)
			i++;
		ck_assert_msg(i <= OPS, "sector %llu is neither what was synced nor what came later",
			      (unsigned long long)(s / SECTOR));
	}
}

static void reopen_after_cut(uint32_t synced)
{
	static unsigned char got[DEVICE_BYTES];
	open_good(lower_path);
	read_device(got, DEVICE_BYTES, lower);
	expect_synced_or_later(synced, got);
	if (!sparse)
		expect_same(got, "after a cut");
	/* A writer must not bring back what was lost. */
	memcpy(shadow, got, sizeof shadow);
	memset(area()->staging[0], 'z', 65536);
	memset(shadow + 1024 * 1024 + 512, 'z', 65536);
	ck_assert_int_eq(one(OBD_UP_WRITE, 1024 * 1024 + 512, 65536, 0), 0);
	verify("written after a cut");
	close_device();
	verify_files("written after a cut");
}

/* Both files are cut anywhere behind what the last sync covered: at each record's end, and beside it. */
START_TEST(power_append)
{
	static const int beside[] = {0, 7, -1};
	char where[40], cmd[64];
	set_up_with(false, 0, 70 + (uint64_t)_i);
	in_memory(where);
	memcpy(after[0], shadow, sizeof shadow);
	open_good(lower_path);
	work_noted(0, OPS);
	close_device();
	struct buffer data = load_file(data_path), index = load_file(index_path);
	for (uint32_t i = 0; i < OPS; i++) {
		uint32_t synced = behind_sync(i);
		uint64_t data_min = synced ? done[synced - 1].data_bytes : 4096;
		uint64_t index_min = synced ? done[synced - 1].index_bytes : 4096;
		for (uint32_t k = 0; k < 3; k++) {
			uint64_t x = done[i].index_bytes + (uint64_t)(int64_t)beside[k % 3];
			uint64_t d = done[synced + pick(i - synced + 1)].data_bytes + (uint64_t)(int64_t)beside[pick(3)];
			x = x < index_min ? index_min : x > done[i].index_bytes ? done[i].index_bytes : x;
			d = d < data_min ? data_min : d > done[i].data_bytes ? done[i].data_bytes : d;
			put_file(data_path, data.p, d);
			put_file(index_path, index.p, x);
			expect_after_cut(d, x);
			reopen_after_cut(synced);
		}
	}
	free(data.p);
	free(index.p);
	fake_done(&fk);
	snprintf(cmd, sizeof cmd, "rm -rf %s", where);
	ck_assert_int_eq(system(cmd), 0);
}
END_TEST

/* Of the blocks that were changed since the last sync, each is on the disk or is not; holes too. */
static void mix_blocks(const unsigned char *old, const bool *old_hole, const unsigned char *new, const bool *new_hole,
		       uint64_t bytes)
{
	int fd = open(data_path, O_WRONLY | O_TRUNC);
	ck_assert_int_eq(ftruncate(fd, (off_t)bytes), 0);
	for (uint64_t b = 0; b * BLOCK < bytes; b++) {
		bool take_old = pick(2);
		uint64_t n = bytes - b * BLOCK < BLOCK ? bytes - b * BLOCK : BLOCK;
		if (take_old ? old_hole[b] : new_hole[b])
			continue;
		ck_assert_int_eq(pwrite(fd, (take_old ? old : new) + b * BLOCK, n, (off_t)(b * BLOCK)), (ssize_t)n);
	}
	close(fd);
}

static void note_holes(bool *hole, uint64_t bytes)
{
	int fd = open(data_path, O_RDONLY);
	for (uint64_t b = 0; b * BLOCK < bytes; b++)
		hole[b] = lseek(fd, (off_t)(b * BLOCK), SEEK_DATA) != (off_t)(b * BLOCK);
	close(fd);
}

START_TEST(power_sparse)
{
	static bool old_hole[DEVICE_BYTES / BLOCK + 3], new_hole[DEVICE_BYTES / BLOCK + 3];
	char where[40], cmd[64];
	set_up_with(true, 0, 80 + (uint64_t)_i);
	in_memory(where);
	memcpy(after[0], shadow, sizeof shadow);
	open_good(lower_path);
	for (uint32_t from = 0; from < OPS; from += 7) { /* the last one of seven is a sync */
		struct buffer old = load_file(data_path);
		note_holes(old_hole, old.n);
		work_noted(from, from + 6);
		close_device();
		struct buffer new = load_file(data_path);
		note_holes(new_hole, new.n);
		ck_assert_uint_eq(old.n, new.n);
		memcpy(shadow, after[from + 6], sizeof shadow);
		for (uint32_t i = from + 7; i <= OPS; i++)
			memcpy(after[i], shadow, sizeof shadow);
		for (int k = 0; k < 8; k++) {
			mix_blocks(old.p, old_hole, new.p, new_hole, new.n);
			reopen_after_cut(from);
		}
		mix_blocks(new.p, new_hole, new.p, new_hole, new.n);
		free(old.p);
		free(new.p);
		memcpy(shadow, after[from + 6], sizeof shadow);
		open_good(lower_path);
		work_noted(from + 6, from + 7);
	}
	fake_done(&fk);
	snprintf(cmd, sizeof cmd, "rm -rf %s", where);
	ck_assert_int_eq(system(cmd), 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("upper_io");
	TCase *t = tcase_create("upper_io");
	tcase_set_timeout(t, 300);
	tcase_add_loop_test(t, model, 0, 6);
	tcase_add_loop_test(t, no_lower, 0, 2);
	tcase_add_loop_test(t, answered_once, 0, 2);
	tcase_add_test(t, in_use);
	tcase_add_loop_test(t, no_space, 0, 3);
	tcase_add_loop_test(t, together, 0, 2);
	tcase_add_test(t, together_records);
	tcase_add_loop_test(t, huge_discard, 0, 2);
	tcase_add_loop_test(t, client_goes, 0, 6);
	tcase_add_loop_test(t, hostile, 0, 6);
	tcase_add_test(t, golden_crash);
	tcase_add_loop_test(t, coarse_holes, 0, 3);
	tcase_add_loop_test(t, attach_again, 0, 4);
	tcase_add_loop_test(t, attach_timeout, 0, 4);
	tcase_add_loop_test(t, waits_for_its_own, 0, 2);
	tcase_add_loop_test(t, failed_sync, 0, 2);
	tcase_add_test(t, compaction);
	suite_add_tcase(s, t);
	t = tcase_create("power");
	tcase_set_timeout(t, 300);
	tcase_add_loop_test(t, power_append, 0, 1);
	tcase_add_loop_test(t, power_sparse, 0, 1);
	suite_add_tcase(s, t);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
