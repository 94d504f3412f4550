/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * obd-mixed: random reads, writes, discards and syncs of one LUN, each read compared with a shadow file that is kept up to
 * date.
 *
 *   obd-mixed [-t SECONDS] [-q DEPTH] [-b MOST-BYTES] [-S SEED] SHADOW iscsi://HOST:PORT/IQN/LUN
 *
 * The shadow is the LUN's content, before and after. No two commands under way overlap, so every read has one right answer.
 * Prints one line. Exit 0; 1 for a usage error or a failed connection, 2 for a command that failed, 3 for a wrong byte.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>

#include "common/base/clock.h"
#include "common/base/util.h"

enum { SECTOR = 512, DEPTH_MOST = 128, PICKS = 64, EXIT_FAILED = 2, EXIT_WRONG = 3 };
enum op { READ, WRITE, WRITE_FUA, UNMAP, WRITE_SAME, SYNC, COMPARE_AND_WRITE, OPS };

/* How often of 100: reads take what is left. */
static const struct {
	enum op op;
	unsigned int percent;
} mix[] = {{WRITE, 35}, {WRITE_FUA, 3}, {UNMAP, 10}, {WRITE_SAME, 3}, {SYNC, 1}, {COMPARE_AND_WRITE, 3}};

struct slot {
	unsigned char *buf; /* twice the most bytes: COMPARE AND WRITE sends as much */
	enum op op;
	uint64_t sector;
	uint32_t count;
	struct unmap_list extent;
};

static struct iscsi_context *is;
static int lun;
static unsigned char *shadow;
static bool *busy; /* by sector */
static uint64_t sectors, begun, state = 1, end_ns;
static uint32_t most = 128;
static unsigned int under_way;
static int rc;
static struct slot slots[DEPTH_MOST];

__attribute__((noreturn)) static void die(const char *what)
{
	fprintf(stderr, "obd-mixed: %s: %s\n", what, is ? iscsi_get_error(is) : strerror(errno));
	_exit(1);
}

static uint64_t pick(uint64_t below)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state % below;
}

static void begin(struct slot *s);

static void mark(const struct slot *s, bool is_busy)
{
	memset(busy + s->sector, is_busy, s->count);
}

/* What the LUN holds once the command is done. */
static void apply(const struct slot *s)
{
	unsigned char *at = shadow + s->sector * SECTOR;
	uint64_t n = (uint64_t)s->count * SECTOR;
	switch (s->op) {
	case WRITE:
	case WRITE_FUA:
		memcpy(at, s->buf, n);
		break;
	case COMPARE_AND_WRITE:
		memcpy(at, s->buf + n, n);
		break;
	case UNMAP:
		memset(at, 0, n);
		break;
	case WRITE_SAME:
		for (uint64_t i = 0; i < n; i += SECTOR)
			memcpy(at + i, s->buf, SECTOR);
		break;
	default:
		break;
	}
}

static void judge(const struct slot *s)
{
	const unsigned char *want = shadow + s->sector * SECTOR;
	uint64_t i = 0;
	while (i < (uint64_t)s->count * SECTOR && s->buf[i] == want[i])
		i++;
	if (i == (uint64_t)s->count * SECTOR)
		return;
	fprintf(stderr, "obd-mixed: byte %" PRIu64 " is %02x, not %02x (read of %" PRIu32 " sectors at %" PRIu64 ")\n",
		s->sector * SECTOR + i, (unsigned int)s->buf[i], (unsigned int)want[i], s->count, s->sector);
	rc = EXIT_WRONG;
}

static void done(struct iscsi_context *ctx, int status, void *data, void *arg)
{
	struct slot *s = arg;
	struct scsi_task *task = data;
	(void)ctx;
	under_way--;
	mark(s, false);
	if (status == SCSI_STATUS_GOOD && s->op == READ)
		judge(s);
	else if (status == SCSI_STATUS_GOOD)
		apply(s);
	else if (rc == 0) {
		fprintf(stderr, "obd-mixed: op %d of %" PRIu32 " sectors at %" PRIu64 ": status %02x, %s\n", (int)s->op,
			s->count, s->sector, (unsigned int)status, iscsi_get_error(is));
		rc = EXIT_FAILED;
	}
	scsi_free_scsi_task(task);
	begin(s);
}

/* A range that nobody uses; false: none was found. */
static bool choose(struct slot *s)
{
	unsigned int dice = (unsigned int)pick(100);
	s->op = READ;
	for (size_t i = 0; i < OBD_ARRAY_SIZE(mix); i++) {
		if (dice < mix[i].percent) {
			s->op = mix[i].op;
			break;
		}
		dice -= mix[i].percent;
	}
	for (int i = 0; i < PICKS; i++) {
		s->count = (uint32_t)(1 + pick(pick(2) ? most : obd_min_u64(16, most)));
		s->sector = pick(sectors - s->count);
		if (s->op == SYNC)
			s->count = 0;
		if (s->op == COMPARE_AND_WRITE)
			s->count = (uint32_t)obd_min_u64(s->count, 100);
		if (!memchr(busy + s->sector, 1, s->count))
			return true;
	}
	return false;
}

static void fill(struct slot *s)
{
	uint64_t n = (uint64_t)s->count * SECTOR;
	uint64_t *word = (void *)s->buf;
	for (uint64_t i = 0; i < 2 * n / sizeof *word; i++)
		word[i] = state + i * 0x9e3779b97f4a7c15u;
	if (s->op == COMPARE_AND_WRITE)
		memcpy(s->buf, shadow + s->sector * SECTOR, n);
}

static struct scsi_task *task_of(struct slot *s)
{
	uint32_t n = s->count * SECTOR;
	switch (s->op) {
	case WRITE:
	case WRITE_FUA:
		return iscsi_write16_task(is, lun, s->sector, s->buf, n, SECTOR, 0, 0, s->op == WRITE_FUA, 0, 0, done, s);
	case UNMAP:
		s->extent = (struct unmap_list){.lba = s->sector, .num = s->count};
		return iscsi_unmap_task(is, lun, 0, 0, &s->extent, 1, done, s);
	case WRITE_SAME:
		return iscsi_writesame16_task(is, lun, s->sector, s->buf, SECTOR, s->count, 0, 0, 0, 0, done, s);
	case SYNC:
		return iscsi_synchronizecache10_task(is, lun, 0, 0, 0, 0, done, s);
	case COMPARE_AND_WRITE:
		return iscsi_compareandwrite_task(is, lun, s->sector, s->buf, 2 * n, SECTOR, 0, 0, 0, 0, 0, done, s);
	default:
		return iscsi_read16_task(is, lun, s->sector, n, SECTOR, 0, 0, 0, 0, 0, done, s);
	}
}

static void begin(struct slot *s)
{
	if (rc || obd_clock_ns() >= end_ns || !choose(s))
		return;
	fill(s);
	mark(s, true);
	struct scsi_task *task = task_of(s);
	if (!task)
		die("command");
	if (s->op == READ && scsi_task_add_data_in_buffer(task, (int)(s->count * SECTOR), s->buf))
		die("buffer");
	begun++;
	under_way++;
}

static void log_in(const char *text)
{
	is = iscsi_create_context("iqn.2025-01.test:obd-mixed");
	struct iscsi_url *u = is ? iscsi_parse_full_url(is, text) : NULL;
	if (!u)
		die("URL");
	iscsi_set_targetname(is, u->target);
	iscsi_set_session_type(is, ISCSI_SESSION_NORMAL);
	iscsi_set_noautoreconnect(is, 1);
	if (iscsi_full_connect_sync(is, u->portal, u->lun))
		die("login");
	lun = u->lun;
	iscsi_destroy_url(u);
}

static void open_shadow(const char *path)
{
	struct stat st;
	int fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) != 0)
		die(path);
	sectors = (uint64_t)st.st_size / SECTOR;
	shadow = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	busy = calloc(sectors + 1, sizeof *busy);
	if (shadow == MAP_FAILED || !busy || sectors < 2 * (uint64_t)most)
		die(path);
	close(fd);
}

static void run(unsigned int depth)
{
	for (unsigned int i = 0; i < depth; i++) {
		slots[i].buf = malloc((size_t)most * SECTOR * 2);
		if (!slots[i].buf)
			die("memory");
		begin(&slots[i]);
	}
	while (under_way) {
		struct pollfd p = {.fd = iscsi_get_fd(is), .events = (short)iscsi_which_events(is)};
		if (poll(&p, 1, 60000) == 0)
			die("no answer in a minute");
		if (iscsi_service(is, p.revents))
			die("connection");
	}
}

int main(int argc, char **argv)
{
	unsigned int depth = 16, seconds = 5;
	for (int c; (c = getopt(argc, argv, "t:q:b:S:")) != -1;) {
		unsigned long n = strtoul(optarg ? optarg : "0", NULL, 0);
		if (c == 't')
			seconds = (unsigned int)n;
		else if (c == 'q')
			depth = (unsigned int)obd_min_u64(n, DEPTH_MOST);
		else if (c == 'b')
			most = (uint32_t)(n / SECTOR);
		else if (c == 'S')
			state = n | 1;
		else
			return 1;
	}
	if (argc - optind != 2 || !depth || !most) {
		fprintf(stderr, "usage: obd-mixed [-t SECONDS] [-q DEPTH] [-b BYTES] [-S SEED] SHADOW URL\n");
		return 1;
	}
	log_in(argv[optind + 1]);
	open_shadow(argv[optind]);
	end_ns = obd_clock_ns() + seconds * OBD_SECOND_NS;
	run(depth);
	printf("%" PRIu64 " commands, %s\n", begun, rc == 0 ? "all right" : rc == EXIT_WRONG ? "wrong bytes" : "errors");
	iscsi_logout_sync(is);
	iscsi_destroy_context(is);
	return rc;
}
