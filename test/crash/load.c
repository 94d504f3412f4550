/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * obd-crash-load: reads, opens, closes and writes by the client library, every byte compared, while something dies.
 *
 *   obd-crash-load [-r RUNTIMEDIR] [-c CONTROL -p POINT] [-m MS] [-a MS] [-q DEPTH] [-S SEED] SITUATION CONFIG RAW [STATE]
 *
 * SITUATION: idle, hot, read (anywhere), scan (from front to back), open (open, read a little, close), close (close with reads
 * under way), write (with STATE, see below), check (STATE, nothing else).
 * It goes on for -m milliseconds (1000), or, once the POINT of the CONTROL file has struck, for -a more (300); an io or an open
 * that takes -w milliseconds (30000) is a failure. The last line it prints says what it saw:
 *
 *   ios=N opens=N slowest_ms=N pause_ms=N struck=0|1
 *
 * pause_ms is the longest time that an io took which was under way or began when the point struck or after.
 * Exit status: 0; 1 cannot; 2 an io or an open failed or took too long; 3 wrong data.
 *
 * A writable device is written in pages. STATE (a file, made when it is not there) has two versions of each: the one that was
 * acknowledged, and the one that is being written. A page holds what its number and version say; version 0 is RAW. So whoever
 * comes after a writer that was killed knows what may stand there.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/util.h"
#include "frontend/client/client.h"
#include "test/crash/control.h"

enum { EXIT_CANNOT = 1, EXIT_IO = 2, EXIT_DATA = 3 };
enum { DEPTH_MOST = 64, PAGE = 4096, IO_BYTES = 65536, HOT_BYTES = 4 << 20, PAGES_MOST = IO_BYTES / PAGE };
enum situation { IDLE, HOT, READ, SCAN, OPEN, CLOSE, WRITE, CHECK, SITUATIONS };

static const char *const names[SITUATIONS] = {"idle", "hot", "read", "scan", "open", "close", "write", "check"};

static struct {
	const char *runtime_dir, *config, *raw, *state;
	enum situation situation;
	uint64_t limit_ns, after_ns, patience_ns, seed;
	unsigned int depth;
} opt = {.limit_ns = OBD_SECOND_NS, .after_ns = 300 * OBD_MS_NS, .patience_ns = 30 * OBD_SECOND_NS, .seed = 1, .depth = 8};

#define ZEROED UINT32_C(0x80000000) /* in a version: the page was discarded */

struct page {
	uint32_t stable;
	uint32_t next; /* the same as stable: nothing is being written */
};

enum op { OP_READ, OP_WRITE, OP_DISCARD, OP_SYNC };

struct slot {
	struct obd_io io;
	unsigned char *buf;
	enum op op;
	uint64_t begun_ns;
	bool busy;
};

static struct obd_client *client;
static struct obd_device *device;
static const unsigned char *raw;
static struct page *pages;
static bool *page_busy;
static uint64_t bytes, npages, cursor, begun_ns, ios, opens, slowest_ns, pause_ns;
static struct obd_test_cell *cell; /* of the point that is waited for; NULL: none */
static uint64_t struck_before;
static struct slot slots[DEPTH_MOST];
static unsigned int under_way;
static bool draining;

__attribute__((format(printf, 2, 3), noreturn)) static void die(int status, const char *fmt, ...)
{
	va_list ap;
	fputs("obd-crash-load: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	putc('\n', stderr);
	_exit(status);
}

static uint64_t pick(uint64_t below)
{
	opt.seed ^= opt.seed << 13;
	opt.seed ^= opt.seed >> 7;
	opt.seed ^= opt.seed << 17;
	return opt.seed % below;
}

/* --- time ---------------------------------------------------------------------------------------------------------------- */

/* When the point struck; 0: not yet. */
static uint64_t struck_ns(void)
{
	if (!cell || __atomic_load_n(&cell->struck, __ATOMIC_SEQ_CST) == struck_before)
		return 0;
	return __atomic_load_n(&cell->struck_ns, __ATOMIC_RELAXED);
}

static bool time_is_up(void)
{
	uint64_t now = obd_clock_ns(), struck = struck_ns();
	return struck ? now > struck + opt.after_ns : now > begun_ns + opt.limit_ns;
}

static void note_time(uint64_t from_ns)
{
	uint64_t now = obd_clock_ns(), struck = struck_ns();
	slowest_ns = obd_max_u64(slowest_ns, now - from_ns);
	if (struck && now >= struck)
		pause_ns = obd_max_u64(pause_ns, now - from_ns);
}

static void must_not_hang(void)
{
	for (unsigned int i = 0; i < opt.depth; i++)
		if (slots[i].busy && obd_clock_ns() - slots[i].begun_ns > opt.patience_ns)
			die(EXIT_IO, "an io (op %d) of %" PRIu64 " bytes at %" PRIu64 " takes longer than %" PRIu64 " ms",
			    (int)slots[i].op, slots[i].io.len, slots[i].io.offset, opt.patience_ns / OBD_MS_NS);
}

static void dispatch(int ms)
{
	struct pollfd p = {.fd = obd_client_fd(client), .events = POLLIN};
	poll(&p, 1, ms);
	obd_client_dispatch(client);
	must_not_hang();
}

/* --- content ------------------------------------------------------------------------------------------------------------- */

static uint64_t mixed(uint64_t x)
{
	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

static void fill_page(unsigned char *to, uint64_t page, uint32_t version)
{
	if (version == 0) {
		memcpy(to, raw + page * PAGE, PAGE);
	} else if (version & ZEROED) {
		memset(to, 0, PAGE);
	} else {
		uint64_t seed = mixed(page << 32 | version);
		for (size_t i = 0; i < PAGE / sizeof seed; i++, seed += UINT64_C(0x9e3779b97f4a7c15))
			memcpy(to + i * sizeof seed, &seed, sizeof seed);
	}
}

/* The version that the page holds; it must be one of the two. */
static void judge_page(const unsigned char *got, uint64_t page)
{
	unsigned char want[PAGE];
	fill_page(want, page, pages[page].stable);
	if (memcmp(got, want, PAGE) == 0)
		return;
	fill_page(want, page, pages[page].next);
	if (memcmp(got, want, PAGE) != 0)
		die(EXIT_DATA, "page %" PRIu64 " is neither version %" PRIu32 " nor %" PRIu32, page, pages[page].stable,
		    pages[page].next);
}

static void judge(const struct slot *s)
{
	const struct obd_io *io = &s->io;
	if (pages) {
		for (uint64_t i = 0; i < io->len / PAGE; i++)
			judge_page(s->buf + i * PAGE, io->offset / PAGE + i);
		return;
	}
	for (uint64_t i = 0; memcmp(s->buf, raw + io->offset, io->len) != 0 && i < io->len; i++)
		if (s->buf[i] != raw[io->offset + i])
			die(EXIT_DATA, "byte %" PRIu64 " is %02x, not %02x (read of %" PRIu64 " at %" PRIu64 ")",
			    io->offset + i, s->buf[i], raw[io->offset + i], io->len, io->offset);
}

/* --- ios ----------------------------------------------------------------------------------------------------------------- */

static void occupy(const struct slot *s, bool busy)
{
	if (pages)
		memset(page_busy + s->io.offset / PAGE, busy, s->io.len / PAGE);
}

static void settle(const struct slot *s)
{
	for (uint64_t p = s->io.offset / PAGE; p < (s->io.offset + s->io.len) / PAGE; p++)
		__atomic_store_n(&pages[p].stable, pages[p].next, __ATOMIC_SEQ_CST);
}

static void over(struct slot *s, int result)
{
	s->busy = false;
	under_way--;
	occupy(s, false);
	if (result == -ECANCELED && draining)
		return;
	if (result)
		die(EXIT_IO, "io (op %d) of %" PRIu64 " bytes at %" PRIu64 ": %s", (int)s->op, s->io.len, s->io.offset,
		    strerror(-result));
	ios++;
	note_time(s->begun_ns);
	if (s->op == OP_READ)
		judge(s);
	else if (s->op != OP_SYNC)
		settle(s);
}

static void on_done(struct obd_io *io, int result)
{
	over(io->arg, result);
}

static bool place_is_free(uint64_t offset, uint64_t len)
{
	for (uint64_t p = offset / PAGE; pages && p < (offset + len) / PAGE; p++)
		if (page_busy[p])
			return false;
	return true;
}

static void choose_place(struct slot *s)
{
	uint64_t most = obd_min_u64(bytes, opt.situation == HOT ? HOT_BYTES : bytes);
	s->io.len = PAGE * (1 + pick(PAGES_MOST));
	if (opt.situation == SCAN || opt.situation == CHECK) {
		s->io.len = obd_min_u64(IO_BYTES, bytes - cursor);
		s->io.offset = cursor;
		cursor = (cursor + s->io.len) % bytes;
		return;
	}
	do
		s->io.offset = obd_align_down(pick(most - s->io.len + 1), PAGE);
	while (!place_is_free(s->io.offset, s->io.len));
}

static void choose_op(struct slot *s)
{
	uint64_t dice = pick(100);
	s->op = OP_READ;
	if (opt.situation == WRITE)
		s->op = dice < 45 ? OP_WRITE : dice < 55 ? OP_DISCARD : dice < 57 ? OP_SYNC : OP_READ;
	for (uint64_t p = s->io.offset / PAGE;
	     (s->op == OP_WRITE || s->op == OP_DISCARD) && p < (s->io.offset + s->io.len) / PAGE; p++) {
		uint32_t version = ((pages[p].stable & ~ZEROED) + 1) | (s->op == OP_DISCARD ? ZEROED : 0);
		__atomic_store_n(&pages[p].next, version, __ATOMIC_SEQ_CST);
		fill_page(s->buf + p * PAGE - s->io.offset, p, version);
	}
}

static void begin(struct slot *s)
{
	s->io = (struct obd_io){.dev = device, .buf = s->buf, .fn = on_done, .arg = s};
	choose_place(s);
	choose_op(s);
	s->begun_ns = obd_clock_ns();
	s->busy = true;
	under_way++;
	occupy(s, true);
	int rc = s->op == OP_READ      ? obd_read(&s->io)
		 : s->op == OP_WRITE   ? obd_write(&s->io, pick(16) == 0)
		 : s->op == OP_DISCARD ? obd_discard(&s->io, false)
				       : obd_sync(&s->io);
	if (rc != 1)
		over(s, rc);
}

static void begin_all(unsigned int n)
{
	for (unsigned int i = 0; i < n; i++)
		if (!slots[i].busy)
			begin(&slots[i]);
}

static void drain(void)
{
	while (under_way)
		dispatch(100);
}

/* --- devices ------------------------------------------------------------------------------------------------------------- */

/* Its state is looked at instead. */
static void on_opened(void *arg, struct obd_device *dev)
{
	(void)arg, (void)dev;
}

/* What was never connected is not connected again by the library, and the group may die meanwhile. */
static void connect_to_group(void)
{
	struct obd_err err = {{0}};
	int rc = obd_client_new(opt.runtime_dir, &client, &err);
	while (rc == -ENOTCONN && obd_clock_ns() - begun_ns < opt.patience_ns) {
		usleep(10000);
		rc = obd_client_new(opt.runtime_dir, &client, &err);
	}
	if (rc)
		die(EXIT_CANNOT, "%s", err.msg);
}

static void open_device(void)
{
	struct obd_err err = {{0}};
	uint64_t from = obd_clock_ns();
	int rc = obd_client_open(client, opt.config, on_opened, NULL, &device, &err);
	while (rc == -ENOTCONN && obd_clock_ns() - from < opt.patience_ns) { /* the group is being replaced */
		dispatch(20);
		rc = obd_client_open(client, opt.config, on_opened, NULL, &device, &err);
	}
	if (rc)
		die(EXIT_IO, "%s", err.msg);
	while (obd_device_state(device) != OBD_DEVICE_READY) {
		dispatch(100);
		if (obd_device_state(device) == OBD_DEVICE_FAILED)
			die(EXIT_IO, "%s: %s", opt.config, obd_device_reason(device));
		if (obd_clock_ns() - from > opt.patience_ns)
			die(EXIT_IO, "%s: the open takes longer than %" PRIu64 " ms", opt.config, opt.patience_ns / OBD_MS_NS);
	}
	opens++;
	note_time(from);
	if (obd_device_bytes(device) != bytes)
		die(EXIT_DATA, "the device has %" PRIu64 " bytes, not %" PRIu64, obd_device_bytes(device), bytes);
}

static void close_device(void)
{
	draining = true;
	obd_client_close(device);
	draining = false;
	device = NULL;
}

/* --- situations ---------------------------------------------------------------------------------------------------------- */

static void stay_idle(void)
{
	begin_all(1);
	drain();
	while (!time_is_up())
		dispatch(20);
	begin_all(opt.depth);
	drain();
}

static void keep_busy(void)
{
	while (!time_is_up()) {
		begin_all(opt.depth);
		dispatch(under_way ? 100 : 0);
	}
	drain();
}

static void open_and_close(void)
{
	close_device();
	while (!time_is_up()) {
		open_device();
		begin_all(opt.situation == OPEN ? 2 : opt.depth);
		if (opt.situation == OPEN)
			drain();
		close_device();
	}
	open_device();
	begin_all(opt.depth);
	drain();
}

/* Every page, and from then on it is what it is. */
static void check_all(void)
{
	cursor = 0;
	opt.situation = CHECK;
	for (uint64_t done = 0; done < bytes; done += IO_BYTES * opt.depth) {
		for (unsigned int i = 0; i < opt.depth && (i == 0 || cursor); i++)
			begin(&slots[i]);
		drain();
		if (!cursor)
			break;
	}
	for (uint64_t p = 0; pages && p < npages; p++) {
		if (pages[p].next == pages[p].stable)
			continue;
		unsigned char want[PAGE];
		struct slot *s = &slots[0];
		cursor = p * PAGE;
		begin(s);
		drain();
		fill_page(want, p, pages[p].next);
		if (memcmp(s->buf, want, PAGE) == 0)
			pages[p].stable = pages[p].next;
		pages[p].next = pages[p].stable;
	}
}

static void run(void)
{
	switch (opt.situation) {
	case IDLE:
		stay_idle();
		break;
	case OPEN:
	case CLOSE:
		open_and_close();
		break;
	case CHECK:
		check_all();
		break;
	default:
		keep_busy();
	}
}

/* --- start --------------------------------------------------------------------------------------------------------------- */

static void *map_file(const char *path, bool writable, uint64_t size)
{
	struct stat st;
	int fd = open(path, (writable ? O_RDWR | O_CREAT : O_RDONLY) | O_CLOEXEC, 0644);
	if (fd < 0 || fstat(fd, &st) != 0 || (writable && ftruncate(fd, (off_t)size) != 0))
		die(EXIT_CANNOT, "%s: %s", path, strerror(errno));
	if (!writable)
		bytes = (uint64_t)st.st_size;
	void *p = mmap(NULL, writable ? size : bytes, PROT_READ | (writable ? PROT_WRITE : 0), MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		die(EXIT_CANNOT, "%s: %s", path, strerror(errno));
	close(fd);
	return p;
}

static void find_point(const char *control, const char *point)
{
	struct obd_test_control *c = control_map(control);
	int i = control_find(point);
	if (!c || i < 0)
		die(EXIT_CANNOT, "%s: %s", c ? point : control, c ? "no such point" : "no control file");
	cell = &c->cell[i];
}

static uint64_t number(const char *text)
{
	return strtoull(text, NULL, 0);
}

static void parse(int argc, char **argv)
{
	static const char usage[] = "usage: obd-crash-load [options] SITUATION CONFIG RAW [STATE]";
	const char *control = NULL, *point = NULL;
	int o;
	while ((o = getopt(argc, argv, "r:c:p:m:a:w:q:S:")) != -1) {
		switch (o) {
		case 'r':
			opt.runtime_dir = optarg;
			break;
		case 'c':
			control = optarg;
			break;
		case 'p':
			point = optarg;
			break;
		case 'm':
			opt.limit_ns = number(optarg) * OBD_MS_NS;
			break;
		case 'a':
			opt.after_ns = number(optarg) * OBD_MS_NS;
			break;
		case 'w':
			opt.patience_ns = number(optarg) * OBD_MS_NS;
			break;
		case 'q':
			opt.depth = (unsigned int)obd_min_u64(number(optarg), DEPTH_MOST);
			break;
		case 'S':
			opt.seed = mixed(number(optarg) + 1) | 1;
			break;
		default:
			die(EXIT_CANNOT, "%s", usage);
		}
	}
	if (argc - optind < 3 || argc - optind > 4 || !opt.depth)
		die(EXIT_CANNOT, "%s", usage);
	while (opt.situation < SITUATIONS && strcmp(names[opt.situation], argv[optind]) != 0)
		opt.situation++;
	opt.config = argv[optind + 1];
	opt.raw = argv[optind + 2];
	opt.state = argv[optind + 3];
	if (opt.situation == SITUATIONS || (opt.situation == WRITE && !opt.state))
		die(EXIT_CANNOT, "%s", usage);
	if (control && point)
		find_point(control, point);
}

int main(int argc, char **argv)
{
	parse(argc, argv);
	raw = map_file(opt.raw, false, 0);
	npages = bytes / PAGE;
	if (opt.state)
		pages = map_file(opt.state, true, npages * sizeof *pages);
	page_busy = calloc(npages, 1);
	for (unsigned int i = 0; i < opt.depth; i++)
		slots[i].buf = malloc(IO_BYTES);
	begun_ns = obd_clock_ns();
	connect_to_group();
	open_device();
	run();
	close_device();
	obd_client_free(client);
	printf("ios=%" PRIu64 " opens=%" PRIu64 " slowest_ms=%" PRIu64 " pause_ms=%" PRIu64 " struck=%d\n", ios, opens,
	       slowest_ns / OBD_MS_NS, pause_ns / OBD_MS_NS, struck_ns() != 0);
	for (unsigned int i = 0; i < opt.depth; i++)
		free(slots[i].buf);
	free(page_busy);
	return 0;
}
