/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The arena against a model; whole opens over a stand-in for cached; kills between any two steps. */
#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/log.h"
#include "common/format/lsmt.h"
#include "common/format/tar.h"
#include "common/format/zfile.h"
#include "indexer/arena.h"
#include "test/indexer/fake.h"

#define DEVICE_BYTES (3u << 20)
#define LAYERS 3
#define BLOCK_BYTES 16384u
#define REPO_A "https://reg.example:5000/v2/team/a/blobs"
#define REPO_B "https://reg.example:5000/v2/team/b/blobs"
#define OTHER "https://other.example/v2/team/a/blobs"

static struct fake fk;
static unsigned char raw[LAYERS][DEVICE_BYTES];

/* --- arena -------------------------------------------------------------------------------------------------------------- */

static uint64_t state = 88172645463325252u;

static uint32_t rnd(uint32_t n)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32_t)(state >> 16) % n;
}

START_TEST(arena_model)
{
	enum { UNITS = 256, HANDLES = 64 };
	unsigned char owner[UNITS] = {0};
	struct {
		uint64_t off, units;
	} h[HANDLES] = {{0}};
	struct obd_arena a;
	obd_arena_init(&a, UNITS * OBD_ARENA_ALIGN + 5);
	for (int step = 0; step < 20000; step++) {
		uint32_t k = rnd(HANDLES);
		if (h[k].units) {
			obd_arena_release(&a, h[k].off * OBD_ARENA_ALIGN);
			memset(owner + h[k].off, 0, h[k].units);
			h[k].units = 0;
		} else {
			uint64_t bytes = 1 + rnd(20 * OBD_ARENA_ALIGN), off;
			uint64_t units = (bytes + OBD_ARENA_ALIGN - 1) / OBD_ARENA_ALIGN, gap = 0, longest = 0;
			for (int i = 0; i < UNITS; i++) {
				gap = owner[i] ? 0 : gap + 1;
				longest = gap > longest ? gap : longest;
			}
			int rc = obd_arena_alloc(&a, bytes, &off);
			ck_assert_int_eq(rc, longest >= units ? 0 : -ENOSPC);
			if (rc)
				continue;
			ck_assert_uint_eq(off % OBD_ARENA_ALIGN, 0);
			h[k].off = off / OBD_ARENA_ALIGN;
			h[k].units = units;
			ck_assert_uint_le(h[k].off + units, UNITS);
			for (uint64_t i = 0; i < units; i++)
				ck_assert_uint_eq(owner[h[k].off + i], 0);
			memset(owner + h[k].off, 1, units);
		}
		uint64_t used = 0;
		for (int i = 0; i < UNITS; i++)
			used += owner[i];
		ck_assert_uint_eq(a.used_bytes, used * OBD_ARENA_ALIGN);
	}
	/* The same map again, from what is taken; nothing that overlaps gets in. */
	struct obd_arena b;
	obd_arena_init(&b, UNITS * OBD_ARENA_ALIGN);
	for (int k = 0; k < HANDLES; k++) {
		if (!h[k].units)
			continue;
		uint64_t off = h[k].off * OBD_ARENA_ALIGN, bytes = h[k].units * OBD_ARENA_ALIGN;
		ck_assert_int_eq(obd_arena_reserve(&b, off, bytes), 0);
		ck_assert_int_eq(obd_arena_reserve(&b, off, 1), -EINVAL);
		ck_assert_int_eq(obd_arena_reserve(&b, off + bytes - OBD_ARENA_ALIGN, bytes), -EINVAL);
	}
	ck_assert_uint_eq(a.used_bytes, b.used_bytes);
	ck_assert_int_eq(obd_arena_reserve(&b, 1, 64), -EINVAL);
	ck_assert_int_eq(obd_arena_reserve(&b, UINT64_MAX - 63, 64), -EINVAL);
	ck_assert_int_eq(obd_arena_reserve(&b, 0, UINT64_MAX), -EINVAL);
	obd_arena_done(&a);
	obd_arena_done(&b);
}
END_TEST

/* --- layers to open ----------------------------------------------------------------------------------------------------- */

static void change(unsigned char *dev, int pieces)
{
	for (int i = 0; i < pieces; i++) {
		uint32_t sector = rnd(DEVICE_BYTES / 512), n = 1 + rnd(64);
		bool zero = rnd(4) == 0;
		for (uint32_t k = sector * 512; k < (sector + n) * 512 && k < DEVICE_BYTES; k++)
			dev[k] = zero ? 0 : (unsigned char)rnd(rnd(2) ? 256 : 4);
	}
}

static void put_bytes(struct obd_file *dst, struct obd_file *src, uint64_t at)
{
	static unsigned char buf[1 << 16];
	uint64_t off = 0;
	ssize_t n;
	while ((n = obd_file_pread(src, buf, sizeof buf, off)) > 0) {
		ck_assert_int_eq(obd_file_pwrite(dst, buf, (size_t)n, at + off), 0);
		off += (uint64_t)n;
	}
}

static struct obd_file *zipped(struct obd_file *lsmt, enum obd_zfile_algorithm algorithm, uint32_t block_bytes)
{
	struct obd_zfile_opts opts = OBD_ZFILE_OPTS_DEFAULT;
	struct obd_file *out = obd_file_new_mem(1u << 30);
	opts.algorithm = algorithm;
	opts.block_bytes = block_bytes;
	ck_assert_int_eq(obd_zfile_write(lsmt, out, &opts, NULL, NULL, NULL, NULL), 0);
	obd_file_close(lsmt);
	return out;
}

static struct obd_file *tarred(struct obd_file *payload)
{
	unsigned char head[OBD_TAR_HEADER_BYTES], zero[OBD_TAR_TAIL_MAX_BYTES] = {0};
	struct obd_file *out = obd_file_new_mem(1u << 30);
	uint64_t bytes;
	ck_assert_int_eq(obd_file_size(payload, &bytes), 0);
	ck_assert_int_eq(obd_tar_header(head, bytes), 0);
	ck_assert_int_eq(obd_file_pwrite(out, head, sizeof head, 0), 0);
	put_bytes(out, payload, sizeof head);
	ck_assert_int_eq(obd_file_pwrite(out, zero, obd_tar_tail_bytes(bytes), sizeof head + bytes), 0);
	obd_file_close(payload);
	return out;
}

static const char *digest(int i)
{
	static char text[4][80];
	snprintf(text[i], sizeof text[i], "sha256:%064d", i + 1);
	return text[i];
}

static const char *blob_path(int i)
{
	static char path[4][384];
	snprintf(path[i], sizeof path[i], "%s/%s", fk.dir, digest(i) + 7);
	return path[i];
}

static uint64_t blob_bytes(int i)
{
	struct stat st;
	ck_assert_int_eq(stat(blob_path(i), &st), 0);
	return (uint64_t)st.st_size;
}

static void save(struct obd_file *src, int i)
{
	struct obd_file *dst = obd_file_open_path(blob_path(i), O_RDWR | O_CREAT | O_TRUNC, 0644, NULL);
	ck_assert_ptr_nonnull(dst);
	put_bytes(dst, src, 0);
	obd_file_close(dst);
	obd_file_close(src);
}

static struct obd_file *lsmt_layer(int i)
{
	struct obd_file *out = obd_file_new_mem(1u << 30), *src = obd_file_open_mem(raw[i], DEVICE_BYTES);
	const struct obd_lsmt_write_opts opts = {.uuid = NULL};
	if (i == 0) {
		ck_assert_int_eq(obd_lsmt_write_raw(src, 512, out, &opts, NULL, NULL), 0);
	} else {
		struct obd_file *base = obd_file_open_mem(raw[i - 1], DEVICE_BYTES);
		ck_assert_int_eq(obd_lsmt_write_diff(base, src, 512, out, &opts, NULL, NULL), 0);
		obd_file_close(base);
	}
	obd_file_close(src);
	return out;
}

static void make_layers(void)
{
	memset(raw, 0, sizeof raw);
	change(raw[0], 400);
	for (int i = 1; i < LAYERS; i++) {
		memcpy(raw[i], raw[i - 1], DEVICE_BYTES);
		change(raw[i], 60);
	}
	save(tarred(zipped(lsmt_layer(0), OBD_ZFILE_LZ4, 4096)), 0);
	save(tarred(lsmt_layer(1)), 1);
	save(zipped(lsmt_layer(2), OBD_ZFILE_ZSTD, 65536), 2);
}

/* A configuration over layers [0, n): those in the bit mask remote from the registry. extra: members to add. */
static const char *config(const char *name, const char *repo, int n, unsigned int remote, const char *extra)
{
	static char path[8][256];
	static int turn;
	char *p = path[turn++ % 8];
	snprintf(p, 256, "%s/%s", fk.dir, name);
	FILE *f = fopen(p, "w");
	ck_assert_ptr_nonnull(f);
	fprintf(f, "{ %s", extra ? extra : "");
	if (repo)
		fprintf(f, "\"repoBlobUrl\": \"%s\", ", repo);
	fprintf(f, "\"resultFile\": \"%s/result\", \"lowers\": [", fk.dir);
	for (int i = 0; i < n; i++) {
		if (i)
			fprintf(f, ", ");
		if (remote & 1u << i)
			fprintf(f, "{\"digest\": \"%s\", \"size\": %llu, \"dir\": \"%s/none\"}", digest(i),
				(unsigned long long)blob_bytes(i), fk.dir);
		else
			fprintf(f, "{\"file\": \"%s\"}", blob_path(i));
	}
	fprintf(f, "]}\n");
	fclose(f);
	return p;
}

static const char *result_text(void)
{
	static char text[512];
	char path[128];
	memset(text, 0, sizeof text);
	snprintf(path, sizeof path, "%s/result", fk.dir);
	FILE *f = fopen(path, "r");
	if (!f)
		return "";
	size_t n = fread(text, 1, sizeof text - 1, f);
	fclose(f);
	text[n] = '\0';
	return text;
}

static void setup(void)
{
	state = 88172645463325252u;
	obd_log_set_level(getenv("OBD_TEST_LOG") ? OBD_LOG_DEBUG : 4);
	fake_init(&fk, BLOCK_BYTES, 64, 8u << 20);
	make_layers();
	fake_start(&fk);
}

static void teardown(void)
{
	fake_done(&fk);
}

static void check_image(uint32_t slot, int n)
{
	static unsigned char dev[DEVICE_BYTES];
	struct obd_reply r;
	ck_assert_int_eq(fake_reply(&fk, slot, &r), OBD_REPLY_READY);
	const struct obd_image *im = &fk.seg.catalog->image[r.image_slot];
	ck_assert_uint_eq(obd_load_relaxed(&im->word), obd_word(r.image_uid, OBD_IMAGE_READY));
	ck_assert_uint_eq(im->virtual_bytes, DEVICE_BYTES);
	ck_assert_uint_eq(im->nlayers, (unsigned)n);
	ck_assert(fake_image_read(&fk, im, 0, DEVICE_BYTES, dev));
	ck_assert(memcmp(dev, raw[n - 1], DEVICE_BYTES) == 0);
}

static void check_failed(uint32_t slot, int err, const char *text)
{
	struct obd_reply r;
	for (int i = 0; i < 2000 && fake_reply(&fk, slot, &r) == 0; i++) { /* a thread looks at the files of an upper */
		usleep(10000);
		fake_run(&fk);
	}
	ck_assert_int_eq(fake_reply(&fk, slot, &r), OBD_REPLY_FAILED);
	ck_assert_msg(strstr(r.reason, text) != NULL, "reason is \"%s\", \"%s\" expected", r.reason, text);
	ck_assert_int_eq((int)r.err, err);
}

static uint32_t count_layers(void)
{
	uint32_t n = 0;
	for (uint32_t i = 0; i < OBD_LAYER_SLOTS; i++)
		n += obd_word_state(obd_load_relaxed(&fk.seg.catalog->layer[i].word)) != OBD_LAYER_FREE;
	return n;
}

static uint32_t count_images(void)
{
	uint32_t n = 0;
	for (uint32_t i = 0; i < OBD_IMAGE_SLOTS; i++)
		n += obd_word_state(obd_load_relaxed(&fk.seg.catalog->image[i].word)) != OBD_IMAGE_FREE;
	return n;
}

/* --- opens -------------------------------------------------------------------------------------------------------------- */

START_TEST(open_local)
{
	fake_post(&fk, 3, config("a", NULL, 3, 0, NULL));
	obd_indexer_poll(fk.ix);
	ck_assert_int_eq(fake_reply(&fk, 3, NULL), OBD_REPLY_NONE); /* local: no PENDING */
	fake_run(&fk);
	check_image(3, 3);
	ck_assert_str_eq(result_text(), "success");
	ck_assert_uint_eq(fk.probes, 0);
	/* Again, and a part of it: what is known is shared. */
	uint32_t posts = fk.raw_posts;
	fake_post(&fk, 4, config("a", NULL, 3, 0, NULL));
	fake_post(&fk, 5, config("b", NULL, 2, 0, NULL));
	fake_run(&fk);
	check_image(4, 3);
	check_image(5, 2);
	ck_assert_uint_eq(fk.raw_posts, posts);
	ck_assert_uint_eq(count_images(), 2);
	ck_assert_uint_eq(count_layers(), 3);
}
END_TEST

START_TEST(open_registry)
{
	fake_post(&fk, 0, config("a", REPO_A, 3, 7, NULL));
	obd_indexer_poll(fk.ix);
	ck_assert_int_eq(fake_reply(&fk, 0, NULL), OBD_REPLY_PENDING);
	fake_run(&fk);
	check_image(0, 3);
	ck_assert_uint_eq(fk.probes, 0); /* fetched by its own URL */
	uint32_t posts = fk.raw_posts;
	fake_post(&fk, 1, config("a", REPO_A, 3, 7, NULL));
	obd_indexer_poll(fk.ix);
	ck_assert_int_eq(fake_reply(&fk, 1, NULL), OBD_REPLY_PENDING);
	fake_run(&fk);
	check_image(1, 3);
	ck_assert_uint_eq(fk.probes, 1);
	fake_post(&fk, 2, config("b", REPO_B, 3, 7, NULL));
	fake_run(&fk);
	check_image(2, 3);
	ck_assert_uint_eq(fk.probes, 2);
	ck_assert_uint_eq(fk.raw_posts, posts);
	ck_assert_uint_eq(count_layers(), 3); /* the entry for the probe is gone */
	ck_assert_uint_eq(count_images(), 1);
	/* Another registry shares nothing. */
	fake_post(&fk, 5, config("c", OTHER, 3, 7, NULL));
	fake_run(&fk);
	check_image(5, 3);
	ck_assert_uint_eq(count_layers(), 6);
}
END_TEST

START_TEST(probe_refused)
{
	fake_post(&fk, 0, config("a", REPO_A, 3, 6, NULL));
	fake_run(&fk);
	check_image(0, 3);
	fk.refuse_url = REPO_B;
	fk.refuse_err = EACCES;
	fake_post(&fk, 1, config("b", REPO_B, 3, 6, NULL));
	fake_run(&fk);
	check_failed(1, EACCES, "authentication failed at reg.example:5000");
	ck_assert_uint_eq(count_layers(), 3);
}
END_TEST

/* B waits for a layer that A's repository refuses; B's own has it. */
START_TEST(other_repository_refused)
{
	fk.refuse_url = REPO_A;
	fk.refuse_err = ENOENT;
	fk.deaf = true;
	fake_post(&fk, 0, config("a", REPO_A, 3, 7, NULL));
	fake_post(&fk, 1, config("b", REPO_B, 3, 7, NULL));
	obd_indexer_poll(fk.ix);
	fk.deaf = false;
	fake_run(&fk);
	check_failed(0, ENOENT, "not found at reg.example:5000");
	check_image(1, 3);
}
END_TEST

START_TEST(mixed_pending_after_local)
{
	fk.deaf = true;
	fake_post(&fk, 0, config("a", REPO_A, 3, 4, NULL));
	fake_run(&fk);
	ck_assert_int_eq(fake_reply(&fk, 0, NULL), OBD_REPLY_NONE);
	fk.deaf = false;
	fake_run(&fk);
	check_image(0, 3);
	ck_assert_uint_eq(fk.probes, 0);
}
END_TEST

START_TEST(failures)
{
	fake_post(&fk, 0, "relative");
	fake_post(&fk, 1, "/nonexistent/config.v1.json");
	fake_post(&fk, 2, config("u", NULL, 1, 0, "\"upper\": {\"data\": \"/nonexistent/x\", \"index\": \"/y\"}, "));
	fake_run(&fk);
	check_failed(0, EINVAL, "absolute");
	check_failed(1, ENOENT, "/nonexistent/config.v1.json");
	check_failed(2, ENOENT, "upper /nonexistent/x: No such file");
	ck_assert_str_eq(result_text(), "failed:upper /nonexistent/x: No such file or directory");
	fk.refuse_digest = digest(1);
	fk.refuse_err = ETIMEDOUT;
	fake_post(&fk, 3, config("t", REPO_A, 3, 7, NULL));
	fake_run(&fk);
	check_failed(3, ETIMEDOUT, "layer 1 (sha256:");
	check_failed(3, ETIMEDOUT, "timed out at reg.example:5000");
	fk.refuse_digest = NULL;
	fake_post(&fk, 3, config("t", REPO_A, 3, 7, NULL)); /* a failed layer is tried anew */
	fake_run(&fk);
	check_image(3, 3);
}
END_TEST

static void patch(int i, long off, const void *bytes, size_t n)
{
	int fd = open(blob_path(i), O_RDWR);
	if (off < 0)
		off += (long)blob_bytes(i);
	ck_assert_int_eq(pwrite(fd, bytes, n, off), (int)n);
	close(fd);
}

START_TEST(bad_layers)
{
	patch(2, -512 + 40, "\xff\xff\xff\xff\xff\xff\xff\x7f", 8); /* index_offset of the ZFile's trailer */
	fake_post(&fk, 0, config("a", REPO_A, 3, 1, NULL));
	fake_run(&fk);
	check_failed(0, EBADMSG, "bad layer 2 (");
	make_layers();
	ck_assert_int_eq(truncate(blob_path(1), 5000), 0);
	fake_post(&fk, 1, config("b", NULL, 3, 0, NULL));
	fake_run(&fk);
	check_failed(1, EINVAL, "bad layer 1 (");
	ck_assert_int_eq(truncate(blob_path(1), 0), 0);
	fake_post(&fk, 2, config("b", NULL, 3, 0, NULL));
	fake_run(&fk);
	check_failed(2, EINVAL, "the file is empty");
	ck_assert_int_eq(unlink(blob_path(1)), 0);
	fake_post(&fk, 3, config("b", NULL, 3, 0, NULL));
	fake_run(&fk);
	check_failed(3, ENOENT, "layer 1: ");
}
END_TEST

/* Any byte of the metadata may be wrong: the open ends, one way or the other. */
START_TEST(damage)
{
	for (int round = 0; round < 150; round++) {
		unsigned char junk[8];
		int i = (int)rnd(LAYERS);
		long end = (long)blob_bytes(i);
		for (size_t k = 0; k < sizeof junk; k++)
			junk[k] = (unsigned char)rnd(256);
		patch(i, rnd(2) ? (long)rnd(2048) : end - 9 - (long)rnd(6000), junk, 1 + rnd(8));
		fake_post(&fk, 9, config("d", REPO_A, 3, 1u << i, NULL));
		fake_run(&fk);
		enum obd_reply_status s = fake_reply(&fk, 9, NULL);
		ck_assert(s == OBD_REPLY_READY || s == OBD_REPLY_FAILED);
		fake_close(&fk, 9);
		if (round % 10 == 9)
			make_layers();
	}
}
END_TEST

START_TEST(evicted_too_early)
{
	fk.forgetful = true;
	fake_post(&fk, 0, config("a", REPO_A, 3, 7, NULL));
	fake_run(&fk);
	check_image(0, 3);
}
END_TEST

START_TEST(changed_file)
{
	fake_post(&fk, 0, config("a", NULL, 3, 0, NULL));
	fake_run(&fk);
	check_image(0, 3);
	struct obd_reply before, after;
	fake_reply(&fk, 0, &before);
	fake_close(&fk, 0);
	usleep(20000);
	change(raw[2], 20);
	save(zipped(lsmt_layer(2), OBD_ZFILE_LZ4, 4096), 2);
	fake_post(&fk, 1, config("a", NULL, 3, 0, NULL));
	fake_run(&fk);
	check_image(1, 3);
	fake_reply(&fk, 1, &after);
	ck_assert_uint_ne(before.image_uid, after.image_uid);
	/* The file under another name, the old one gone. */
	char path[400];
	snprintf(path, sizeof path, "%s.moved", blob_path(1));
	ck_assert_int_eq(rename(blob_path(1), path), 0);
	ck_assert_int_eq(symlink(path, blob_path(1)), 0);
	fake_post(&fk, 2, config("a", NULL, 3, 0, NULL));
	fake_run(&fk);
	check_image(2, 3);
}
END_TEST

START_TEST(close_while_opening)
{
	for (int steps = 0; steps < 6; steps++) {
		fake_post(&fk, 0, config("a", REPO_A, 3, 7, NULL));
		fake_post(&fk, 1, config("a", REPO_A, 2, 3, NULL));
		for (int i = 0; i < steps; i++) {
			obd_indexer_poll(fk.ix);
			fake_serve(&fk);
		}
		fake_close(&fk, 0);
		fake_run(&fk);
		ck_assert_int_eq(fake_reply(&fk, 1, NULL), OBD_REPLY_READY);
		obd_indexer_client_down(fk.ix, FAKE_CLIENT);
		ck_assert_int_eq(fake_reply(&fk, 1, NULL), OBD_REPLY_NONE);
		for (uint32_t k = 0; k < OBD_IMAGE_SLOTS; k++)
			ck_assert_uint_eq(obd_load_relaxed(&fk.seg.catalog->image[k].refs), 0);
		fake_new_client(&fk);
	}
}
END_TEST

/* Killed after any number of steps, the next one finishes what was asked. */
START_TEST(killed)
{
	for (unsigned int steps = 0; steps < 24; steps++) {
		teardown();
		setup();
		fake_post(&fk, 0, config("a", REPO_A, 3, 7, NULL));
		fake_post(&fk, 1, config("b", NULL, 3, 0, NULL));
		fake_post(&fk, 2, config("c", REPO_B, 2, 3, NULL));
		for (unsigned int i = 0; i < steps; i++) {
			if (i % 2)
				fake_serve(&fk);
			else
				obd_indexer_poll(fk.ix);
			if (steps % 3 == 0 && i % 4 == 0)
				fake_start(&fk);
		}
		if (fake_reply(&fk, 1, NULL) == OBD_REPLY_READY)
			fake_hold(&fk, 1);
		fake_start(&fk);
		fake_run(&fk);
		check_image(0, 3);
		check_image(1, 3);
		check_image(2, 2);
		for (uint32_t k = 0; k < 3; k++)
			fake_hold(&fk, k);
		uint64_t used = obd_load_relaxed(&fk.seg.catalog->arena_used_bytes);
		uint32_t images = count_images();
		fake_start(&fk);
		fake_run(&fk);
		ck_assert_uint_eq(used, obd_load_relaxed(&fk.seg.catalog->arena_used_bytes));
		ck_assert_uint_eq(images, count_images());
		check_image(0, 3);
		fake_post(&fk, 7, config("d", REPO_A, 1, 1, NULL)); /* reads the layer's index again */
		fake_run(&fk);
		check_image(7, 1);
		fake_close(&fk, 0);
		fake_run(&fk);
	}
}
END_TEST

/* Many images in a small arena: unused ones make room; when all are in use, the open fails and says what to change. */
/* A restarted indexer that needs room must not take it from an image whose holder it has not been told of yet. */
START_TEST(restart_waits_for_all_clients)
{
	fake_post(&fk, 0, config("a", NULL, 3, 0, NULL));
	fake_run(&fk);
	fake_hold(&fk, 0);
	fk.hold_clients_known = true;
	fake_start(&fk);
	fake_post(&fk, 1, config("b", NULL, 2, 0, NULL));
	for (int i = 0; i < 8; i++) {
		ck_assert(!obd_indexer_has_work(fk.ix));
		ck_assert(!obd_indexer_poll(fk.ix));
		obd_indexer_tick(fk.ix);
		fake_serve(&fk);
	}
	ck_assert_int_eq(fake_reply(&fk, 1, NULL), OBD_REPLY_NONE);
	obd_indexer_clients_known(fk.ix);
	fake_run(&fk);
	check_image(1, 2);
	fk.hold_clients_known = false;
}
END_TEST

START_TEST(arena_full)
{
	teardown();
	fake_init(&fk, BLOCK_BYTES, 64, 12u << 10);
	make_layers();
	fake_start(&fk);
	uint32_t failed = 0;
	for (uint32_t i = 0; i < 12; i++) {
		int n = 1 + (int)(i % 3);
		char name[16];
		snprintf(name, sizeof name, "c%u", i);
		fake_post(&fk, i, config(name, i % 2 ? REPO_A : NULL, n, i % 2 ? 7 : 0, NULL));
		fake_run(&fk);
		if (fake_reply(&fk, i, NULL) == OBD_REPLY_FAILED) {
			check_failed(i, ENOSPC, "index arena is full (sharedCache.indexMB = ");
			failed++;
			for (uint32_t k = 0; k < i; k++)
				fake_close(&fk, k);
			fake_close(&fk, i);
			fake_post(&fk, i, config(name, i % 2 ? REPO_A : NULL, n, i % 2 ? 7 : 0, NULL));
			fake_run(&fk);
		}
		check_image(i, n);
	}
	ck_assert_uint_gt(failed, 0);
}
END_TEST

/* A client that writes nonsense hurts nobody. */
START_TEST(hostile_client)
{
	struct obd_client_area *area = fk.seg.client[FAKE_CLIENT];
	fake_post(&fk, 0, config("a", NULL, 3, 0, NULL));
	fake_run(&fk);
	check_image(0, 3);
	fake_hold(&fk, 0);
	for (int round = 0; round < 200; round++) {
		uint32_t slot = 1 + rnd(OBD_OPEN_SLOTS - 1);
		struct obd_open *o = &area->open[slot];
		memset(area->open_path[slot], '/', OBD_PATH_BYTES);
		obd_store_relaxed(&o->image_slot, rnd(3) ? rnd(4) : UINT32_MAX);
		obd_store_relaxed(&o->image_uid, rnd(10));
		obd_store_relaxed(&o->word, obd_word(rnd(5), rnd(5)));
		obd_store_relaxed(&area->opens.entry[rnd(OBD_RING_ENTRIES)], (uint64_t)rnd(UINT32_MAX) << rnd(32));
		uint64_t head = obd_load_relaxed(&area->opens.head);
		obd_store_release(&area->opens.head, rnd(10) ? head + rnd(64) : (uint64_t)rnd(UINT32_MAX) << 20);
		obd_store_relaxed(&area->replies_tail.tail, (uint64_t)rnd(100));
		obd_indexer_poll(fk.ix);
		obd_indexer_tick(fk.ix);
	}
	obd_indexer_client_down(fk.ix, FAKE_CLIENT);
	for (uint32_t k = 0; k < OBD_IMAGE_SLOTS; k++)
		ck_assert_uint_eq(obd_load_relaxed(&fk.seg.catalog->image[k].refs), 0);
	ck_assert_uint_gt(obd_load_relaxed(&fk.seg.catalog->proc.counters[OBD_C_protocol_errors]), 0);
	fake_new_client(&fk);
	fake_post(&fk, 0, config("a", NULL, 3, 0, NULL));
	fake_run(&fk);
	check_image(0, 3);
}
END_TEST

/* --- what other writers wrote ------------------------------------------------------------------------------------------- */

static unsigned char golden_want[2u << 20], golden_got[2u << 20];

/* Opens these layers (shell pattern below dir) as one image and compares it with a raw one. */
static void check_golden(const char *pattern, const char *want)
{
	char cmd[1024], path[128];
	struct obd_reply r = {.image_slot = 0};
	snprintf(path, sizeof path, "%s/golden.json", fk.dir);
	snprintf(cmd, sizeof cmd,
		 "cd %s && { echo '{\"lowers\": ['; sep=; for f in %s; do echo \"$sep{\\\"file\\\": \\\"$PWD/$f\\\"}\"; sep=,; "
		 "done; echo ']}'; } > golden.json",
		 fk.dir, pattern);
	ck_assert_int_eq(system(cmd), 0);
	fake_post(&fk, 0, path);
	fake_run(&fk);
	ck_assert_msg(fake_reply(&fk, 0, &r) == OBD_REPLY_READY, "%s: %s", pattern, r.reason);
	const struct obd_image *im = &fk.seg.catalog->image[r.image_slot];
	snprintf(path, sizeof path, "%s/%s", fk.dir, want);
	struct obd_file *f = obd_file_open_path(path, O_RDONLY, 0, NULL);
	ck_assert_ptr_nonnull(f);
	ssize_t n = obd_file_pread(f, golden_want, sizeof golden_want, 0);
	obd_file_close(f);
	ck_assert_int_eq(im->virtual_bytes, (uint64_t)n);
	ck_assert_msg(fake_image_read(&fk, im, 0, (uint64_t)n, golden_got), "%s cannot be read", pattern);
	ck_assert_msg(memcmp(golden_want, golden_got, (size_t)n) == 0, "%s reads wrong", pattern);
	fake_close(&fk, 0);
}

START_TEST(golden)
{
	static const char *const one[] = {"lsmt/single/committed.lsmt",
					  "lsmt/single/commit_of_sealed.lsmt",
					  "lsmt/single/sealed.lsmt",
					  "lsmt/single/committed-tgtera.lsmt",
					  "tar/commit-z-t-zstd.tar",
					  "tar/commit-z-t-lz4-64k.tar",
					  "tar/commit-z-t-threads2.tar",
					  "tar/tgtera-zfile-t.tar",
					  "tar/commit-z.zfile",
					  "tar/commit-z-t.tar",
					  "tar/commit-t.tar"};
	static const char *const many[] = {"stack2", "stack3",	      "stack12", "stack40",
					   "grow",   "nonzero-start", "idx256",	 "idx257"};
	const char *data = getenv("OBD_TEST_DATA");
	char cmd[512], pattern[64], want[64];
	snprintf(cmd, sizeof cmd, "zstd -dcq '%s/golden-images.tar.zst' | tar -x -C %s", data ? data : "test/data", fk.dir);
	if (system(cmd) != 0) {
		fprintf(stderr, "SKIPPED golden: golden-images.tar.zst cannot be unpacked\n");
		return;
	}
	for (size_t i = 0; i < sizeof one / sizeof one[0]; i++)
		check_golden(one[i], "lsmt/single/expected.raw");
	for (size_t i = 0; i < sizeof many / sizeof many[0]; i++) {
		snprintf(pattern, sizeof pattern, "lsmt/%s/l*.lsmt", many[i]);
		snprintf(want, sizeof want, "lsmt/%s/expected.raw", many[i]);
		check_golden(pattern, want);
	}
	check_golden("merge/merged.zfile.lsmt", "merge/expected.raw");
	check_golden("merge/merged.tar", "merge/expected.raw");
	check_golden("merge/merged-lib.lsmt", "merge/expected.raw");
}
END_TEST

int main(void)
{
	Suite *s = suite_create("indexer");
	TCase *arena = tcase_create("arena"), *opens = tcase_create("opens");
	tcase_add_test(arena, arena_model);
	tcase_add_checked_fixture(opens, setup, teardown);
	tcase_set_timeout(opens, 120);
	tcase_add_test(opens, open_local);
	tcase_add_test(opens, open_registry);
	tcase_add_test(opens, probe_refused);
	tcase_add_test(opens, other_repository_refused);
	tcase_add_test(opens, mixed_pending_after_local);
	tcase_add_test(opens, failures);
	tcase_add_test(opens, bad_layers);
	tcase_add_test(opens, damage);
	tcase_add_test(opens, evicted_too_early);
	tcase_add_test(opens, changed_file);
	tcase_add_test(opens, close_while_opening);
	tcase_add_test(opens, killed);
	tcase_add_test(opens, restart_waits_for_all_clients);
	tcase_add_test(opens, arena_full);
	tcase_add_test(opens, hostile_client);
	tcase_add_test(opens, golden);
	suite_add_tcase(s, arena);
	suite_add_tcase(s, opens);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
