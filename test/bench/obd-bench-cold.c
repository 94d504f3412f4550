/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reads of an image that is not cached, through the client library.
 *
 *   obd-bench-cold [-r RUNTIMEDIR] [-R REFERENCE.raw] [-q DEPTH] [-t SECONDS] [-n READS] [-S SEED] MODE CONFIG.json
 *
 *   open    opens the image: open_ms
 *   seq     64 KiB reads from the first byte on
 *   random  4 KiB reads, each in another 64 KiB of the image than all before, so that every one misses
 *
 * At most DEPTH reads (1) are under way; it ends after SECONDS, READS or when the image ends. Every read is compared with the
 * reference. One JSON object: mode, open_ms, reads, bytes, seconds, mb_per_s, iops, p50_ms, p95_ms, max_ms.
 * Exit status: 0; 1 no group, no image, or an I/O error; 2 usage; 3 wrong data.
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
enum { BLOCK_BYTES = 65536, RANDOM_BYTES = 4096, DEPTH_MAX = 256, READS_MAX = 1 << 20, PENDING = 1 };

static const char usage[] =
	"usage: obd-bench-cold [-r RUNTIMEDIR] [-R REFERENCE.raw] [-q DEPTH] [-t SECONDS] [-n READS] [-S SEED] open|seq|random "
	"CONFIG.json\n";

static struct {
	const char *runtime_dir, *reference, *mode, *config;
	unsigned int depth;
	double seconds;
	uint64_t reads, seed;
} opt = {.depth = 1, .seconds = 5, .reads = READS_MAX, .seed = 1};

struct slot {
	struct obd_io io;
	uint64_t begun_ns;
	int result;
	unsigned char buf[BLOCK_BYTES];
};

static struct obd_client *client;
static struct obd_device *device;
static uint64_t device_bytes, open_ns;
static const unsigned char *want;
static struct slot *slots;
static uint32_t *order; /* random: the blocks, shuffled; only such as hold data */
static uint64_t norder;
static uint64_t next, done, bytes;
static uint64_t *took_ns;

__attribute__((format(printf, 2, 3), noreturn)) static void die(int status, const char *fmt, ...)
{
	va_list ap;
	fputs("obd-bench-cold: ", stderr);
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

static void *make_array(uint64_t n, uint64_t size)
{
	void *p = calloc(n, size);
	if (!p)
		die(EXIT_FAILED, "out of memory");
	return p;
}

/* --- set-up --------------------------------------------------------------------------------------------------------------- */

static void load_reference(void)
{
	struct stat st;
	if (!opt.reference)
		return;
	int fd = open(opt.reference, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st))
		die(EXIT_FAILED, "%s: %s", opt.reference, strerror(errno));
	void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
	if (p == MAP_FAILED)
		die(EXIT_FAILED, "%s: %s", opt.reference, strerror(errno));
	close(fd);
	want = p;
	device_bytes = (uint64_t)st.st_size;
}

static bool holds_data(uint64_t block)
{
	const unsigned char *p = want + block * BLOCK_BYTES;
	return !want || p[0] || memcmp(p, p + 1, BLOCK_BYTES - 1) != 0;
}

static void shuffle(void)
{
	uint64_t blocks = device_bytes / BLOCK_BYTES;
	order = make_array(blocks + 1, sizeof *order);
	for (uint64_t b = 0; b < blocks; b++)
		if (holds_data(b))
			order[norder++] = (uint32_t)b;
	for (uint64_t i = norder; i > 1; i--) {
		uint64_t j = next_random() % i;
		uint32_t t = order[i - 1];
		order[i - 1] = order[j];
		order[j] = t;
	}
}

static void on_opened(void *arg, struct obd_device *dev)
{
	(void)arg;
	(void)dev;
}

static void dispatch(void)
{
	struct pollfd p = {.fd = obd_client_fd(client), .events = POLLIN};
	poll(&p, 1, 1000);
	obd_client_dispatch(client);
}

static void open_image(void)
{
	struct obd_err err;
	if (obd_client_new(opt.runtime_dir, &client, &err))
		die(EXIT_FAILED, "%s", err.msg);
	uint64_t begun = obd_clock_ns();
	if (obd_client_open(client, opt.config, on_opened, NULL, &device, &err))
		die(EXIT_FAILED, "%s", err.msg);
	obd_client_wait(client, device, 1000);
	while (obd_device_state(device) != OBD_DEVICE_READY && obd_device_state(device) != OBD_DEVICE_FAILED)
		dispatch();
	open_ns = obd_clock_ns() - begun;
	if (obd_device_state(device) != OBD_DEVICE_READY)
		die(EXIT_FAILED, "%s: %s", opt.config, obd_device_reason(device));
	if (want && device_bytes != obd_device_bytes(device))
		die(EXIT_WRONG_DATA, "the device has %" PRIu64 " bytes, the reference %" PRIu64, obd_device_bytes(device),
		    device_bytes);
	device_bytes = obd_device_bytes(device);
}

/* --- reading -------------------------------------------------------------------------------------------------------------- */

static void complete(struct slot *s, int result)
{
	if (result)
		die(EXIT_FAILED, "read of %" PRIu64 " bytes at %" PRIu64 ": %s", s->io.len, s->io.offset, strerror(-result));
	if (want && memcmp(s->buf, want + s->io.offset, s->io.len) != 0)
		die(EXIT_WRONG_DATA, "wrong bytes in the %" PRIu64 " at %" PRIu64, s->io.len, s->io.offset);
	took_ns[done++] = obd_clock_ns() - s->begun_ns;
	bytes += s->io.len;
}

static void on_read(struct obd_io *io, int result)
{
	struct slot *s = io->arg;
	s->result = result;
	complete(s, result);
}

/* False: there is no next read. */
static bool place(struct slot *s)
{
	bool random_reads = order != NULL;
	uint64_t n = next++;
	if (n >= opt.reads || (random_reads ? n >= norder : (n + 1) * BLOCK_BYTES > device_bytes))
		return false;
	uint64_t offset =
		random_reads ? order[n] * (uint64_t)BLOCK_BYTES + next_random() % (BLOCK_BYTES / RANDOM_BYTES) * RANDOM_BYTES
			     : n * BLOCK_BYTES;
	s->io = (struct obd_io){.dev = device,
				.offset = offset,
				.len = random_reads ? RANDOM_BYTES : BLOCK_BYTES,
				.buf = s->buf,
				.fn = on_read,
				.arg = s};
	return true;
}

/* Starts reads in a free slot until one is under way. False: no more reads. */
static bool start(struct slot *s)
{
	while (place(s)) {
		s->result = PENDING;
		s->begun_ns = obd_clock_ns();
		int rc = obd_read(&s->io);
		if (rc == 1)
			return true;
		s->result = 0;
		complete(s, rc);
	}
	return false;
}

static void read_all(void)
{
	uint64_t end = obd_clock_ns() + (uint64_t)(opt.seconds * 1e9);
	bool more = true;
	for (uint64_t busy = 1; busy;) {
		busy = 0;
		for (unsigned int i = 0; i < opt.depth; i++) {
			if (slots[i].result != PENDING && more && obd_clock_ns() < end)
				more = start(&slots[i]);
			busy += slots[i].result == PENDING;
		}
		if (busy)
			dispatch();
	}
}

/* --- result --------------------------------------------------------------------------------------------------------------- */

static int by_size(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return (x > y) - (x < y);
}

static double percentile_ms(unsigned int percent)
{
	return done ? (double)took_ns[(done - 1) * percent / 100] / 1e6 : 0;
}

static void print(double seconds)
{
	qsort(took_ns, done, sizeof *took_ns, by_size);
	printf("{\"mode\":\"%s\",\"open_ms\":%.2f,\"reads\":%" PRIu64 ",\"bytes\":%" PRIu64
	       ",\"seconds\":%.3f,\"mb_per_s\":%.2f,\"iops\":%.1f,\"p50_ms\":%.2f,\"p95_ms\":%.2f,\"max_ms\":%.2f}\n",
	       opt.mode, (double)open_ns / 1e6, done, bytes, seconds, (double)bytes / 1e6 / seconds, (double)done / seconds,
	       percentile_ms(50), percentile_ms(95), percentile_ms(100));
}

static void parse(int argc, char **argv)
{
	int c;
	while ((c = getopt(argc, argv, "r:R:q:t:n:S:")) != -1) {
		switch (c) {
		case 'r':
			opt.runtime_dir = optarg;
			break;
		case 'R':
			opt.reference = optarg;
			break;
		case 'q':
			opt.depth = (unsigned int)strtoul(optarg, NULL, 10);
			break;
		case 't':
			opt.seconds = strtod(optarg, NULL);
			break;
		case 'n':
			opt.reads = obd_min_u64(READS_MAX, strtoull(optarg, NULL, 10));
			break;
		case 'S':
			opt.seed = strtoull(optarg, NULL, 10) * 2 + 1;
			break;
		default:
			die(EXIT_USAGE, "%s", usage);
		}
	}
	if (optind + 2 != argc || opt.depth < 1 || opt.depth > DEPTH_MAX)
		die(EXIT_USAGE, "%s", usage);
	opt.mode = argv[optind];
	opt.config = argv[optind + 1];
}

int main(int argc, char **argv)
{
	parse(argc, argv);
	slots = make_array(opt.depth, sizeof *slots);
	took_ns = make_array(READS_MAX, sizeof *took_ns);
	load_reference();
	open_image();
	if (strcmp(opt.mode, "random") == 0)
		shuffle();
	uint64_t begun = obd_clock_ns();
	if (strcmp(opt.mode, "open") != 0)
		read_all();
	print((double)(obd_clock_ns() - begun + 1) / 1e9);
	obd_client_close(device);
	obd_client_free(client);
	return 0;
}
