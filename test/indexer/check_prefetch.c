/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Recording over a death of the indexer, hostile touches; replays within their bounds; metadata without a trace. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/base/log.h"
#include "common/base/util.h"
#include "common/format/lsmt.h"
#include "common/format/trace.h"
#include "shmcache/ring.h"
#include "test/indexer/fake.h"

#define BLOCK_BYTES 16384u
#define FRAMES 256u
#define DEVICE_BYTES (4u << 20)
#define DIGEST "sha256:0000000000000000000000000000000000000000000000000000000000000007"
#define REPO "https://reg.example/v2/a/blobs"

static struct fake fk;
static unsigned char device[DEVICE_BYTES];
static uint64_t layer_bytes;
static char trace[128];

static const char *in_dir(const char *name)
{
	static char path[4][192];
	static int turn;
	char *p = path[turn++ % 4];
	snprintf(p, 192, "%s/%s", fk.dir, name);
	return p;
}

static void save_layer(void)
{
	struct stat st;
	const struct obd_lsmt_write_opts opts = {.uuid = NULL};
	const char *path = in_dir(DIGEST + 7);
	struct obd_file *src = obd_file_open_mem(device, DEVICE_BYTES);
	struct obd_file *dst = obd_file_open_path(path, O_RDWR | O_CREAT | O_TRUNC, 0644, NULL);
	ck_assert_int_eq(obd_lsmt_write_raw(src, 512, dst, &opts, NULL, NULL), 0);
	obd_file_close(src);
	obd_file_close(dst);
	ck_assert_int_eq(stat(path, &st), 0);
	layer_bytes = (uint64_t)st.st_size;
}

static void setup(void)
{
	obd_log_set_level(getenv("OBD_TEST_LOG") ? OBD_LOG_DEBUG : 4);
	fake_init(&fk, BLOCK_BYTES, FRAMES, 8u << 20);
	for (uint32_t i = 0; i < DEVICE_BYTES; i++)
		device[i] = (unsigned char)(i * 2654435761u >> 24 | 1);
	save_layer();
	snprintf(trace, sizeof trace, "%s/trace", fk.dir);
	fake_start(&fk);
}

static void teardown(void)
{
	fake_done(&fk);
}

static const char *config(const char *name, bool remote, const char *extra)
{
	const char *path = in_dir(name);
	FILE *f = fopen(path, "w");
	ck_assert_ptr_nonnull(f);
	if (remote)
		fprintf(f, "{%s \"repoBlobUrl\": \"" REPO "\", \"lowers\": [{\"digest\": \"" DIGEST "\", \"size\": %llu}]}\n",
			extra, (unsigned long long)layer_bytes);
	else
		fprintf(f, "{%s \"lowers\": [{\"file\": \"%s\"}]}\n", extra, in_dir(DIGEST + 7));
	fclose(f);
	return path;
}

static const char *traced(bool remote)
{
	char extra[192];
	snprintf(extra, sizeof extra, "\"recordTracePath\": \"%s\",", trace);
	return config("traced", remote, extra);
}

static bool beside(const char *suffix)
{
	char path[160];
	struct stat st;
	snprintf(path, sizeof path, "%s%s", trace, suffix);
	return lstat(path, &st) == 0;
}

static void drop(const char *suffix)
{
	char path[160];
	snprintf(path, sizeof path, "%s%s", trace, suffix);
	ck_assert_int_eq(unlink(path), 0);
}

static void put_trace(const void *bytes, size_t n)
{
	int fd = open(trace, O_WRONLY | O_CREAT | O_TRUNC, 0640);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq((int)write(fd, bytes, n), (int)n);
	close(fd);
}

static uint64_t count(enum obd_counter which)
{
	return obd_load_relaxed(&fk.seg.catalog->proc.counters[which]);
}

static struct obd_reply open_ready(uint32_t slot, const char *path)
{
	struct obd_reply r;
	fake_post(&fk, slot, path);
	fake_run(&fk);
	ck_assert_int_eq(fake_reply(&fk, slot, &r), OBD_REPLY_READY);
	fake_hold(&fk, slot);
	return r;
}

/* --- a disk that hangs: nothing is written before that is over ------------------------------------------------------------ */

static pthread_mutex_t disk_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t disk_back = PTHREAD_COND_INITIALIZER;
static bool hanging;

static void set_hanging(bool yes)
{
	pthread_mutex_lock(&disk_lock);
	hanging = yes;
	pthread_cond_broadcast(&disk_back);
	pthread_mutex_unlock(&disk_lock);
}

ssize_t pwrite64(int fd, const void *buf, size_t n, off64_t at)
{
	pthread_mutex_lock(&disk_lock);
	while (hanging)
		pthread_cond_wait(&disk_back, &disk_lock);
	pthread_mutex_unlock(&disk_lock);
	return syscall(SYS_pwrite64, fd, buf, n, at);
}

/* --- recording ---------------------------------------------------------------------------------------------------------- */

static void touch_part(uint32_t slot, uint64_t seq, uint32_t layer, uint32_t block, uint32_t first, uint32_t last)
{
	ck_assert(obd_ring_push(&fk.seg.client[FAKE_CLIENT]->touches, &fk.seg.catalog->client[FAKE_CLIENT].touches_tail,
				obd_touch(slot, seq, layer, block, first, last)));
}

static void touch(uint32_t slot, uint64_t seq, uint32_t layer, uint32_t block)
{
	touch_part(slot, seq, layer, block, 0, OBD_TOUCH_STEPS - 1);
}

static uint64_t seq_of(uint32_t slot)
{
	return obd_word_seq(obd_load_relaxed(&fk.seg.client[FAKE_CLIENT]->open[slot].word));
}

/* The trace's records, when the thread has written it. */
static uint64_t finished(struct obd_trace_record *out, uint64_t most)
{
	static unsigned char bytes[1 << 16];
	struct obd_err err;
	uint64_t n;
	for (int i = 0; i < 2000 && !beside(".ok"); i++) {
		obd_indexer_poll(fk.ix);
		usleep(10000);
	}
	ck_assert(beside(".ok") && !beside(".lock") && !beside(".part") && !beside(".tmp"));
	int fd = open(trace, O_RDONLY);
	ssize_t len = read(fd, bytes, sizeof bytes);
	close(fd);
	ck_assert_int_eq(obd_trace_check(bytes, (uint64_t)len, &n, &err), 0);
	ck_assert_uint_le(n, most);
	for (uint64_t i = 0; i < n; i++)
		ck_assert(obd_trace_get(bytes, i, &out[i]));
	return n;
}

/* Once a second's work, until what was touched is in the part file (or cannot be). */
static void tick(void)
{
	const struct obd_ring *ring = &fk.seg.client[FAKE_CLIENT]->touches;
	const _Atomic uint64_t *tail = &fk.seg.catalog->client[FAKE_CLIENT].touches_tail.tail;
	obd_indexer_tick(fk.ix);
	for (int i = 0; i < 2000 && (obd_load_relaxed(tail) != obd_load_relaxed(&ring->head) || !obd_indexer_idle(fk.ix));
	     i++) {
		obd_indexer_poll(fk.ix);
		usleep(10000);
	}
	ck_assert_uint_eq(obd_load_relaxed(tail), obd_load_relaxed(&ring->head));
}

START_TEST(record)
{
	struct obd_trace_record r[8];
	put_trace("", 0);
	struct obd_reply reply = open_ready(3, traced(false));
	ck_assert_uint_eq(obd_load_relaxed(&reply.recording), 1);
	ck_assert(beside(".lock") && !beside(".ok"));
	uint64_t seq = seq_of(3);
	const uint32_t first[] = {9, 10, 2, 9, 10};
	for (size_t i = 0; i < OBD_ARRAY_SIZE(first); i++)
		touch(3, seq, 0, first[i]);
	tick();
	/* Killed: what it had is in the part file, what it had not is still in the ring. */
	touch(3, seq, 0, 3);
	fake_start(&fk);
	touch(3, seq, 0, 10);
	touch(3, seq, 0, (uint32_t)((layer_bytes - 1) / BLOCK_BYTES));
	/* Nobody's, an older open's, no such layer, no such block. */
	touch(4, seq, 0, 20);
	touch(3, seq + 1, 0, 21);
	touch(3, seq, 1, 22);
	touch(3, seq, 0, (uint32_t)(layer_bytes / BLOCK_BYTES) + 1);
	tick();
	ck_assert(beside(".lock"));
	drop(".lock");
	tick();
	ck_assert_uint_eq(obd_load_relaxed(&fk.seg.catalog->client[FAKE_CLIENT].reply[3].recording), 0);
	ck_assert_uint_eq(finished(r, 8), 3);
	ck_assert(r[0].layer == 0 && r[0].offset == 9 * BLOCK_BYTES && r[0].count == 2 * BLOCK_BYTES);
	ck_assert(r[1].offset == 2 * BLOCK_BYTES && r[1].count == 2 * BLOCK_BYTES);
	ck_assert_uint_eq(r[2].offset + r[2].count, layer_bytes);
	struct stat st;
	ck_assert(stat(trace, &st) == 0 && (st.st_mode & 0777) == 0640);
	/* What comes late is nobody's. */
	touch(3, seq, 0, 30);
	obd_indexer_tick(fk.ix);
	ck_assert_uint_eq(count(OBD_C_protocol_errors), 0);
}
END_TEST

/* Parts of blocks, which grow before and after a death of the indexer. */
START_TEST(record_parts)
{
	const uint64_t step = BLOCK_BYTES / OBD_TOUCH_STEPS;
	struct obd_trace_record r[8];
	put_trace("", 0);
	open_ready(3, traced(false));
	uint64_t seq = seq_of(3);
	touch_part(3, seq, 0, 9, 4, 5);
	touch_part(3, seq, 0, 2, 8, 15);
	obd_indexer_tick(fk.ix);
	touch_part(3, seq, 0, 9, 2, 2);
	obd_indexer_tick(fk.ix);
	fake_start(&fk);
	touch_part(3, seq, 0, 9, 3, 6);
	touch_part(3, seq, 0, 3, 0, 0);
	touch_part(3, seq, 0, 5, 7, 3); /* backwards: nothing */
	obd_indexer_tick(fk.ix);
	drop(".lock");
	obd_indexer_tick(fk.ix);
	ck_assert_uint_eq(finished(r, 8), 2);
	ck_assert_uint_eq(r[0].offset, 9 * BLOCK_BYTES + 2 * step);
	ck_assert_uint_eq(r[0].count, 5 * step);
	ck_assert_uint_eq(r[1].offset, 2 * BLOCK_BYTES + 8 * step); /* goes on into the next block */
	ck_assert_uint_eq(r[1].count, 9 * step);
}
END_TEST

START_TEST(record_ends_with_device)
{
	struct obd_trace_record r[4];
	put_trace("", 0);
	open_ready(0, traced(false));
	struct obd_reply other;
	fake_post(&fk, 1, traced(false)); /* a second device cannot record into the same file, and opens */
	fake_run(&fk);
	ck_assert_int_eq(fake_reply(&fk, 1, &other), OBD_REPLY_READY);
	ck_assert_uint_eq(obd_load_relaxed(&other.recording), 0);
	touch(0, seq_of(0), 0, 5);
	fake_close(&fk, 0);
	obd_indexer_poll(fk.ix);
	ck_assert_uint_eq(finished(r, 4), 1);
	ck_assert_uint_eq(r[0].offset, 5 * BLOCK_BYTES);
}
END_TEST

/* The lock file goes while there is no indexer: the next one makes no new one, and ends. */
START_TEST(record_lock_gone_meanwhile)
{
	struct obd_trace_record r[4];
	put_trace("", 0);
	open_ready(0, traced(false));
	touch(0, seq_of(0), 0, 5);
	drop(".lock");
	fake_start(&fk);
	tick();
	ck_assert_uint_eq(finished(r, 4), 1);
}
END_TEST

START_TEST(hostile_ring)
{
	put_trace("", 0);
	open_ready(0, traced(false));
	struct obd_ring *ring = &fk.seg.client[FAKE_CLIENT]->touches;
	obd_store_release(&ring->head, obd_load_relaxed(&ring->head) + OBD_RING_ENTRIES + 1);
	tick();
	ck_assert_uint_eq(count(OBD_C_protocol_errors), 1);
	ck_assert_uint_eq(obd_load_relaxed(&fk.seg.catalog->client[FAKE_CLIENT].touches_tail.tail),
			  obd_load_relaxed(&ring->head));
	for (uint64_t i = 0; i < OBD_RING_ENTRIES; i++)
		obd_store_relaxed(&ring->entry[i], i * UINT64_C(0x9e3779b97f4a7c15));
	obd_store_release(&ring->head, obd_load_relaxed(&ring->head) + OBD_RING_ENTRIES);
	tick();
	ck_assert(beside(".lock"));
}
END_TEST

/* A disk that takes half a record: the next process finds whole ones, and those that were written later. */
START_TEST(record_short_write)
{
	struct obd_trace_record r[8];
	struct rlimit small = {.rlim_cur = 2 * OBD_TRACE_RECORD_BYTES + 7, .rlim_max = RLIM_INFINITY}, old;
	put_trace("", 0);
	open_ready(0, traced(false));
	signal(SIGXFSZ, SIG_IGN);
	ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &old), 0);
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &small), 0);
	for (uint32_t i = 0; i < 3; i++)
		touch(0, seq_of(0), 0, 9 - 2 * i);
	tick();
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &old), 0);
	touch(0, seq_of(0), 0, 20);
	tick();
	fake_start(&fk);
	drop(".lock");
	tick();
	ck_assert_uint_eq(finished(r, 8), 4);
	for (uint32_t i = 0; i < 3; i++)
		ck_assert_uint_eq(r[i].offset, (9 - 2 * i) * BLOCK_BYTES);
	ck_assert_uint_eq(r[3].offset, 20 * BLOCK_BYTES);
}
END_TEST

/* The disk under the trace hangs: the loop does not. */
START_TEST(record_hung_disk)
{
	struct obd_trace_record r[4];
	put_trace("", 0);
	open_ready(0, traced(false));
	set_hanging(true);
	touch(0, seq_of(0), 0, 5);
	for (int i = 0; i < 3; i++)
		obd_indexer_tick(fk.ix);
	open_ready(1, config("other", false, ""));
	set_hanging(false);
	drop(".lock");
	tick();
	ck_assert_uint_eq(finished(r, 4), 1);
}
END_TEST

/* --- replay ------------------------------------------------------------------------------------------------------------- */

static uint32_t prefetches_posted(void)
{
	uint32_t n = 0;
	for (uint32_t i = 0; i < OBD_REQ_SLOTS; i++) {
		const struct obd_req *q = &fk.seg.client[0]->req[i];
		n += obd_word_state(obd_load_relaxed(&q->word)) == OBD_REQ_POSTED &&
		     obd_load_relaxed(&q->flow) >> 16 == OBD_REQ_PREFETCH;
	}
	return n;
}

/* Runs until nothing happens; the greatest number of prefetches that were under way at once. */
static uint32_t run_and_watch(void)
{
	uint32_t most = 0;
	bool did = true;
	while (did) {
		did = obd_indexer_poll(fk.ix);
		uint32_t n = prefetches_posted();
		most = n > most ? n : most;
		did |= fake_serve(&fk) > 0;
	}
	return most;
}

static void put_records(const struct obd_trace_record *r, uint64_t n)
{
	unsigned char *file = malloc(24 + n * 24);
	for (uint64_t i = 0; i < n; i++)
		obd_trace_encode(file + 24 + i * 24, &r[i]);
	obd_trace_header(file, file + 24, n);
	put_trace(file, 24 + n * 24);
	free(file);
}

START_TEST(replay)
{
	struct obd_trace_record r[40];
	for (uint32_t i = 0; i < 40; i++)
		r[i] = (struct obd_trace_record){.offset = (i * 37 % 40) * 3 * BLOCK_BYTES + 5, .count = 100};
	put_records(r, 40);
	open_ready(5, config("plain", false, "")); /* warm: from here on only the replay asks without haste */
	obd_indexer_set_prefetch(fk.ix, 2, false);
	fake_post(&fk, 0, traced(false));
	ck_assert_uint_eq(run_and_watch(), 2);
	ck_assert_int_eq(fake_reply(&fk, 0, NULL), OBD_REPLY_READY);
	ck_assert(!beside(".lock"));
	uint64_t there = count(OBD_C_prefetch_skipped);
	ck_assert_uint_eq(count(OBD_C_prefetch_asked) + there, 40);
	ck_assert_uint_le(there, 4); /* what opening reads */
	/* Again: everything is there. */
	fake_post(&fk, 1, traced(false));
	ck_assert_uint_eq(run_and_watch(), 0);
	ck_assert_uint_eq(count(OBD_C_prefetch_skipped) - there, 40);
}
END_TEST

/* Asked for is what the trace says, to the byte; what lies side by side in one go, several pieces of a block as one. */
START_TEST(replay_parts)
{
	const uint64_t b = BLOCK_BYTES;
	put_records((struct obd_trace_record[]){{.offset = 20 * b + 1000, .count = 50},
						{.offset = 30 * b + 4096, .count = 2 * b},
						{.offset = 20 * b + 3000, .count = 10}},
		    3);
	open_ready(1, config("plain", false, ""));
	obd_indexer_set_prefetch(fk.ix, 8, false);
	fk.deaf = true;
	fake_post(&fk, 0, traced(false));
	obd_indexer_poll(fk.ix);
	obd_indexer_poll(fk.ix);
	ck_assert_uint_eq(prefetches_posted(), 2);
	uint32_t right = 0;
	for (uint32_t i = 0; i < OBD_REQ_SLOTS; i++) {
		const struct obd_req *q = &fk.seg.client[0]->req[i];
		if (obd_word_state(obd_load_relaxed(&q->word)) != OBD_REQ_POSTED)
			continue;
		right += q->block == 20 && q->nblocks == 1 && q->begin == 1000 && q->end == 3010;
		right += q->block == 30 && q->nblocks == 3 && q->begin == 4096 && q->end == 4096;
	}
	ck_assert_uint_eq(right, 2);
	fk.deaf = false;
	fake_run(&fk);
	ck_assert_uint_eq(count(OBD_C_prefetch_asked), 4);
	fake_post(&fk, 2, traced(false)); /* parts that are there are not asked for again */
	fake_run(&fk);
	ck_assert_uint_eq(count(OBD_C_prefetch_asked), 4);
	ck_assert_uint_eq(count(OBD_C_prefetch_skipped), 4);
}
END_TEST

START_TEST(replay_hostile)
{
	struct obd_trace_record r[2000];
	for (uint32_t i = 0; i < 2000;
	     i++) /* all of the layer, again and again, layers that are not there, ends of the world */
		r[i] = (struct obd_trace_record){.layer = i % 3 ? 0 : i, .offset = i % 5 ? 0 : UINT64_MAX, .count = UINT64_MAX};
	put_records(r, 2000);
	fake_post(&fk, 0, traced(false));
	run_and_watch();
	ck_assert_int_eq(fake_reply(&fk, 0, NULL), OBD_REPLY_READY);
	ck_assert_uint_le(count(OBD_C_prefetch_asked), FRAMES / 4);
	ck_assert_uint_ge(count(OBD_C_prefetch_asked), FRAMES / 8);
	put_trace("no trace at all, and longer than a header", 40);
	fake_post(&fk, 1, traced(false));
	run_and_watch();
	ck_assert_int_eq(fake_reply(&fk, 1, NULL), OBD_REPLY_READY);
}
END_TEST

START_TEST(replay_stops_with_device)
{
	struct obd_trace_record r[30];
	for (uint32_t i = 0; i < 30; i++)
		r[i] = (struct obd_trace_record){.offset = i * 2 * BLOCK_BYTES, .count = 1};
	open_ready(1, config("plain", false, "")); /* so that the image is there, and only prefetch asks */
	put_records(r, 30);
	obd_indexer_set_prefetch(fk.ix, 3, false);
	fk.deaf = true;
	fake_post(&fk, 0, traced(false));
	obd_indexer_poll(fk.ix);
	obd_indexer_poll(fk.ix);
	ck_assert_uint_eq(prefetches_posted(), 3);
	fake_close(&fk, 0);
	obd_indexer_poll(fk.ix);
	ck_assert_uint_eq(prefetches_posted(), 0);
	fk.deaf = false;
	fake_post(&fk, 2, traced(false)); /* what was given up does not count any more */
	ck_assert_uint_eq(run_and_watch(), 3);
}
END_TEST

START_TEST(acceleration)
{
	char extra[256];
	snprintf(extra, sizeof extra, "\"accelerationLayer\": true, \"recordTracePath\": \"%s\",", trace);
	struct obd_reply r;
	fake_post(&fk, 0, config("both", false, extra));
	fake_run(&fk);
	ck_assert_int_eq(fake_reply(&fk, 0, &r), OBD_REPLY_FAILED);
	ck_assert_ptr_nonnull(strstr(r.reason, "recordTracePath"));
	put_records((struct obd_trace_record[]){{.offset = 7 * BLOCK_BYTES, .count = 1}}, 1);
	const char *path = in_dir("accelerated");
	FILE *f = fopen(path, "w");
	fprintf(f, "{\"accelerationLayer\": true, \"lowers\": [{\"file\": \"%s\"}, {\"dir\": \"%s\"}]}", in_dir(DIGEST + 7),
		fk.dir);
	fclose(f);
	r = open_ready(1, path);
	ck_assert_uint_eq(fk.seg.catalog->image[r.image_slot].nlayers, 1);
	ck_assert_uint_eq(count(OBD_C_prefetch_asked), 1);
}
END_TEST

/* --- metadata ----------------------------------------------------------------------------------------------------------- */

START_TEST(metadata)
{
	char cmd[512];
	snprintf(cmd, sizeof cmd,
		 "cd %s && mkdir -p tree/a/b tree/c && echo x >tree/a/b/x && truncate -s 4M raw && /sbin/mke2fs -q -F -b 4096 "
		 "-t ext4 -O "
		 "^has_journal -d tree raw",
		 fk.dir);
	ck_assert_int_eq(system(cmd), 0);
	int fd = open(in_dir("raw"), O_RDONLY);
	ck_assert_int_eq((int)pread(fd, device, DEVICE_BYTES, 0), (int)DEVICE_BYTES);
	close(fd);
	save_layer();
	open_ready(0, config("local", false, ""));
	ck_assert_uint_eq(count(OBD_C_prefetch_asked), 0); /* a local layer needs none */
	obd_indexer_set_prefetch(fk.ix, 2, true);
	fake_post(&fk, 1, config("remote", true, ""));
	ck_assert_uint_le(run_and_watch(), 2);
	ck_assert_int_eq(fake_reply(&fk, 1, NULL), OBD_REPLY_READY);
	uint64_t seen = count(OBD_C_prefetch_asked) + count(OBD_C_prefetch_skipped);
	ck_assert_uint_ge(seen, 2);
	ck_assert_uint_le(seen, FRAMES / 8);
	obd_indexer_set_prefetch(fk.ix, 2, false);
	fake_post(&fk, 2, config("again", true, ""));
	fake_run(&fk);
	ck_assert_uint_eq(count(OBD_C_prefetch_asked) + count(OBD_C_prefetch_skipped), seen);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("prefetch");
	TCase *tc = tcase_create("prefetch");
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, record);
	tcase_add_test(tc, record_parts);
	tcase_add_test(tc, record_ends_with_device);
	tcase_add_test(tc, record_lock_gone_meanwhile);
	tcase_add_test(tc, record_short_write);
	tcase_add_test(tc, record_hung_disk);
	tcase_add_test(tc, hostile_ring);
	tcase_add_test(tc, replay);
	tcase_add_test(tc, replay_parts);
	tcase_add_test(tc, replay_hostile);
	tcase_add_test(tc, replay_stops_with_device);
	tcase_add_test(tc, acceleration);
	tcase_add_test(tc, metadata);
	suite_add_tcase(s, tc);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
