/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * obd-bench-client: how fast the client library answers reads of cached blocks, without SCSI and sockets.
 *
 *     warm: read everything, twice at least ──► private copy of the image (compared with the reference, if there is one)
 *     round 1 … N:  batch of reads (timed) ─ compare with the copy (not timed) ─ batch of memcpy from the copy (timed) ─ …
 *
 * A batch is short, so that both sides meet the same machine, and goes to buffers of its own, so that every byte read is
 * compared. Reads and copies take different random places: what was just compared must not be warm for the other side.
 * Speeds are medians over rounds. Exit status: 0; 1 no group, no image, or an I/O error; 2 usage; 3 wrong data.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/util.h"
#include "frontend/client/client.h"

enum { EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_WRONG_DATA = 3 };
enum { ROUNDS = 11, WARM_PASSES = 4, OPEN_TIMEOUT_SEC = 60 };
enum { RANDOM_BYTES = 4096, SEQUENTIAL_BYTES = 256 * 1024, WARM_BYTES = 1024 * 1024, BATCH_BYTES = 1024 * 1024 };

static const char usage[] =
	"usage: obd-bench-client [-r RUNTIMEDIR] [-R REFERENCE.raw] [-t SECONDS] [-S SEED] [-j] CONFIG.json\n"
	"  -t SECONDS  to measure each of the two kinds of reads (4)\n"
	"  -j          one JSON object instead of two lines\n"
	"exit: 0, 1 cannot, 2 usage, 3 wrong data\n";

static struct {
	const char *runtime_dir, *reference, *config;
	double seconds;
	uint64_t seed;
	bool json;
} opt = {.seconds = 4, .seed = 1};

static struct obd_client *client;
static struct obd_device *device;
static uint64_t device_bytes;
static unsigned char *image; /* private copy of all of it */
static unsigned char *batch; /* BATCH_BYTES */
static uint64_t misses;	     /* reads after the warming that were no hits */

__attribute__((format(printf, 2, 3), noreturn)) static void die(int status, const char *fmt, ...)
{
	va_list ap;
	fputs("obd-bench-client: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	putc('\n', stderr);
	exit(status);
}

static uint64_t next_random(void)
{
	opt.seed ^= opt.seed << 13;
	opt.seed ^= opt.seed >> 7;
	opt.seed ^= opt.seed << 17;
	return opt.seed;
}

static void *make_buffer(uint64_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		die(EXIT_FAILED, "no memory for %" PRIu64 " bytes", bytes);
	madvise(p, bytes, MADV_HUGEPAGE);
	memset(p, 0, bytes);
	return p;
}

/* --- reading ------------------------------------------------------------------------------------------------------------- */

static void dispatch(void)
{
	struct pollfd p = {.fd = obd_client_fd(client), .events = POLLIN};
	poll(&p, 1, 1000);
	obd_client_dispatch(client);
}

static void on_read(struct obd_io *io, int result)
{
	*(int *)io->arg = result;
}

/* Waits for it if need be. Was it a hit? */
static bool read_at(uint64_t offset, uint64_t len, void *buf)
{
	int result = 1;
	struct obd_io io = {.dev = device, .offset = offset, .len = len, .buf = buf, .fn = on_read, .arg = &result};
	int rc = obd_read(&io);
	if (rc == 0)
		return true;
	while (rc == 1 && result == 1)
		dispatch();
	if (rc < 0 || result < 0)
		die(EXIT_FAILED, "read of %" PRIu64 " bytes at %" PRIu64 ": %s", len, offset, strerror(rc < 0 ? -rc : -result));
	return false;
}

/* Its state is looked at instead. */
static void on_opened(void *arg, struct obd_device *dev)
{
	(void)arg;
	(void)dev;
}

static void open_image(void)
{
	struct obd_err err;
	uint64_t end = obd_clock_ns() + OPEN_TIMEOUT_SEC * OBD_SECOND_NS;
	if (obd_client_new(opt.runtime_dir, &client, &err) != 0 ||
	    obd_client_open(client, opt.config, on_opened, NULL, &device, &err) != 0)
		die(EXIT_FAILED, "%s", err.msg);
	enum obd_device_state state = obd_client_wait(client, device, 1000);
	while (state != OBD_DEVICE_READY && state != OBD_DEVICE_FAILED && obd_clock_ns() < end) {
		dispatch();
		state = obd_device_state(device);
	}
	if (state != OBD_DEVICE_READY)
		die(EXIT_FAILED, "%s: %s", opt.config, state == OBD_DEVICE_FAILED ? obd_device_reason(device) : "timed out");
	device_bytes = obd_device_bytes(device);
	if (device_bytes < BATCH_BYTES)
		die(EXIT_FAILED, "%s: the image is smaller than %d bytes", opt.config, BATCH_BYTES);
}

/* One pass over everything; returns how many reads were no hits. */
static uint64_t warm_pass(void)
{
	uint64_t missed = 0;
	for (uint64_t at = 0; at < device_bytes; at += WARM_BYTES) {
		uint64_t len = obd_min_u64(WARM_BYTES, device_bytes - at);
		missed += !read_at(at, len, batch);
		memcpy(image + at, batch, len);
	}
	return missed;
}

static void compare_with_reference(void)
{
	struct stat st;
	int fd = open(opt.reference, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) != 0)
		die(EXIT_FAILED, "%s: %s", opt.reference, strerror(errno));
	if ((uint64_t)st.st_size != device_bytes)
		die(EXIT_WRONG_DATA, "the device has %" PRIu64 " bytes, %s has %lld", device_bytes, opt.reference,
		    (long long)st.st_size);
	const unsigned char *want = mmap(NULL, device_bytes, PROT_READ, MAP_PRIVATE, fd, 0);
	if (want == MAP_FAILED)
		die(EXIT_FAILED, "%s: %s", opt.reference, strerror(errno));
	for (uint64_t at = 0; at < device_bytes; at += RANDOM_BYTES)
		if (memcmp(want + at, image + at, obd_min_u64(RANDOM_BYTES, device_bytes - at)) != 0)
			die(EXIT_WRONG_DATA, "wrong bytes at %" PRIu64, at);
	munmap((void *)(uintptr_t)want, device_bytes);
	close(fd);
}

static void warm(void)
{
	image = make_buffer(device_bytes);
	batch = make_buffer(BATCH_BYTES);
	for (int pass = 0; pass < WARM_PASSES; pass++)
		if (warm_pass() == 0 && pass > 0)
			break;
	if (opt.reference)
		compare_with_reference();
}

/* --- measuring ----------------------------------------------------------------------------------------------------------- */

struct kind {
	uint64_t bytes;
	bool sequential;
	uint64_t cursor; /* sequential: where the next batch begins */
	uint64_t *place; /* offsets that may be read */
	uint64_t nplaces;
	double read_gbps[ROUNDS];
	double memcpy_gbps[ROUNDS];
};

struct pass {
	uint64_t bytes;
	uint64_t ns;
};

static bool is_zero(const unsigned char *p, uint64_t bytes)
{
	return p[0] == 0 && memcmp(p, p + 1, bytes - 1) == 0;
}

/* Zeros take no lookup and no cache, so only places that hold data (by half at least) are read. */
static void find_places(struct kind *k)
{
	k->place = calloc(device_bytes / k->bytes, sizeof *k->place);
	if (!k->place)
		die(EXIT_FAILED, "out of memory");
	for (uint64_t at = 0; at + k->bytes <= device_bytes; at += k->bytes) {
		uint64_t data = 0;
		for (uint64_t part = 0; part < k->bytes; part += RANDOM_BYTES)
			data += is_zero(image + at + part, RANDOM_BYTES) ? 0 : RANDOM_BYTES;
		if (data * 2 >= k->bytes)
			k->place[k->nplaces++] = at;
	}
	if (!k->nplaces)
		die(EXIT_FAILED, "%s: holds no data to measure with", opt.config);
}

static void choose(struct kind *k, uint64_t *offsets, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		offsets[i] = k->place[(k->sequential ? k->cursor++ : next_random()) % k->nplaces];
}

static void read_batch(struct kind *k, const uint64_t *offsets, uint32_t n, struct pass *sum)
{
	uint64_t missed = 0, begin = obd_clock_ns();
	for (uint32_t i = 0; i < n; i++)
		missed += !read_at(offsets[i], k->bytes, batch + i * k->bytes);
	uint64_t took = obd_clock_ns() - begin;
	for (uint32_t i = 0; i < n; i++)
		if (memcmp(batch + i * k->bytes, image + offsets[i], k->bytes) != 0)
			die(EXIT_WRONG_DATA, "wrong bytes in the %" PRIu64 " at %" PRIu64, k->bytes, offsets[i]);
	misses += missed;
	if (missed) /* not the hit path: not in the sum */
		return;
	sum->ns += took;
	sum->bytes += n * k->bytes;
}

static void memcpy_batch(struct kind *k, const uint64_t *offsets, uint32_t n, struct pass *sum)
{
	uint64_t begin = obd_clock_ns();
	for (uint32_t i = 0; i < n; i++) {
		memcpy(batch + i * k->bytes, image + offsets[i], k->bytes);
		__asm__ __volatile__("" ::: "memory");
	}
	sum->ns += obd_clock_ns() - begin;
	sum->bytes += n * k->bytes;
}

static double gbps(const struct pass *p)
{
	return p->ns ? (double)p->bytes / (double)p->ns : 0;
}

static void measure_round(struct kind *k, int round)
{
	uint64_t offsets[BATCH_BYTES / RANDOM_BYTES];
	uint32_t n = (uint32_t)(BATCH_BYTES / k->bytes);
	struct pass reads = {0}, copies = {0};
	uint64_t end = obd_clock_ns() + (uint64_t)(opt.seconds / ROUNDS * 1e9);
	do {
		choose(k, offsets, n);
		read_batch(k, offsets, n, &reads);
		choose(k, offsets, n);
		memcpy_batch(k, offsets, n, &copies);
	} while (obd_clock_ns() < end);
	k->read_gbps[round] = gbps(&reads);
	k->memcpy_gbps[round] = gbps(&copies);
}

static int by_size(const void *a, const void *b)
{
	double va = *(const double *)a, vb = *(const double *)b;
	return va < vb ? -1 : va > vb;
}

static void measure(struct kind *k)
{
	find_places(k);
	for (int r = 0; r < ROUNDS; r++)
		measure_round(k, r);
	qsort(k->read_gbps, ROUNDS, sizeof(double), by_size);
	qsort(k->memcpy_gbps, ROUNDS, sizeof(double), by_size);
}

/* --- results ------------------------------------------------------------------------------------------------------------- */

static void print_kind(const char *name, const char *unit, double factor, const struct kind *k)
{
	double read = k->read_gbps[ROUNDS / 2] * factor, copy = k->memcpy_gbps[ROUNDS / 2] * factor;
	printf(opt.json ? "\"%s\":{\"unit\":\"%s\",\"read\":%.3f,\"min\":%.3f,\"max\":%.3f,\"memcpy\":%.3f,\"ratio\":%.3f}"
			: "%-16s %s %8.3f (%.3f … %.3f)  memcpy %8.3f  ratio %.3f\n",
	       name, unit, read, k->read_gbps[0] * factor, k->read_gbps[ROUNDS - 1] * factor, copy, copy > 0 ? read / copy : 0);
}

static void parse(int argc, char **argv)
{
	int c;
	while ((c = getopt(argc, argv, "r:R:t:S:jh")) != -1) {
		if (c == 'r')
			opt.runtime_dir = optarg;
		else if (c == 'R')
			opt.reference = optarg;
		else if (c == 't')
			opt.seconds = strtod(optarg, NULL);
		else if (c == 'S')
			opt.seed = strtoull(optarg, NULL, 0) | UINT64_C(1) << 32; /* never 0 */
		else if (c == 'j')
			opt.json = true;
		else
			die(EXIT_USAGE, "%s", usage);
	}
	if (optind + 1 != argc || !(opt.seconds > 0 && opt.seconds < 3600))
		die(EXIT_USAGE, "%s", usage);
	opt.config = argv[optind];
}

int main(int argc, char **argv)
{
	static struct kind random_reads = {.bytes = RANDOM_BYTES};
	static struct kind sequential = {.bytes = SEQUENTIAL_BYTES, .sequential = true};
	parse(argc, argv);
	open_image();
	warm();
	measure(&random_reads);
	measure(&sequential);
	if (opt.json)
		putchar('{');
	print_kind("random_4k", "M/s", 1e3 / RANDOM_BYTES, &random_reads);
	if (opt.json)
		putchar(',');
	print_kind("sequential_256k", "GB/s", 1, &sequential);
	if (opt.json)
		printf(",\"misses\":%" PRIu64 ",\"device_bytes\":%" PRIu64 "}\n", misses, device_bytes);
	else if (misses)
		printf("%" PRIu64 " reads were no hits: the cache is too small for the image\n", misses);
	obd_client_close(device);
	obd_client_free(client);
	return 0;
}
