/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tools/layer/tool.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/base/util.h"
#include "common/format/upper.h"

static const char *program = "overlaybd";

void tool_start(const char *name)
{
	program = name;
}

static const char *volatile guarded[TOOL_GUARDS];
static sigset_t held;

static void on_signal(int sig)
{
	for (unsigned i = 0; i < TOOL_GUARDS; i++)
		if (guarded[i])
			unlink(guarded[i]);
	signal(sig, SIG_DFL);
	raise(sig);
}

void tool_guard(unsigned slot, const char *path)
{
	static const int sigs[] = {SIGINT, SIGTERM, SIGHUP, SIGPIPE};
	for (size_t i = 0; path && i < OBD_ARRAY_SIZE(sigs); i++) {
		struct sigaction old;
		if (sigaction(sigs[i], NULL, &old) == 0 && old.sa_handler == SIG_DFL)
			signal(sigs[i], on_signal);
	}
	guarded[slot] = path;
}

void tool_hold_signals(void)
{
	sigset_t all;
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, &held);
}

void tool_release_signals(void)
{
	sigprocmask(SIG_SETMASK, &held, NULL);
}

_Noreturn void tool_usage(const char *fmt, ...)
{
	va_list ap;
	fprintf(stderr, "%s: ", program);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(TOOL_USAGE);
}

int tool_end(int rc, const struct obd_err *err)
{
	if (!rc && fflush(stdout) == 0)
		return TOOL_OK;
	fprintf(stderr, "%s: %s\n", program, rc ? err->msg : "standard output cannot be written");
	return TOOL_FAILED;
}

static bool digits(const char *text, uint64_t *v, const char **end)
{
	*v = 0;
	for (*end = text; **end >= '0' && **end <= '9'; (*end)++)
		if (!obd_mul_u64(*v, 10, v) || !obd_add_u64(*v, (uint64_t)(**end - '0'), v))
			return false;
	return *end != text;
}

uint64_t tool_number(const char *what, const char *text, uint64_t least, uint64_t most)
{
	const char *end;
	uint64_t v;
	if (!digits(text, &v, &end) || *end || v < least || v > most)
		tool_usage("%s is \"%s\", allowed: %" PRIu64 " to %" PRIu64, what, text, least, most);
	return v;
}

bool tool_size(const char *text, uint64_t *bytes)
{
	static const char units[] = "BKMGT";
	const char *end;
	unsigned shift = 30;
	if (!digits(text, bytes, &end))
		return false;
	if (*end) {
		const char *u = strchr(units, *end);
		if (!u || end[1])
			return false;
		shift = 10 * (unsigned)(u - units);
	}
	return obd_mul_u64(*bytes, UINT64_C(1) << shift, bytes);
}

const char *tool_uuid(const char *option, const char *text)
{
	if (!obd_uuid_ok(text))
		tool_usage("%s is \"%s\", allowed: 8-4-4-4-12 hexadecimal digits", option, text);
	return text;
}

struct obd_zfile_opts tool_zfile_opts(void)
{
	struct obd_zfile_opts o = OBD_ZFILE_OPTS_DEFAULT;
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	o.threads = cpus > 0 ? (unsigned)obd_min_u64((uint64_t)cpus, 8) : 1;
	return o;
}

/* ---- options ---------------------------------------------------------------------------------------------------------- */

static void set_algorithm(struct obd_zfile_opts *opts, const char *text)
{
	if (strcmp(text, "lz4") == 0)
		opts->algorithm = OBD_ZFILE_LZ4;
	else if (strcmp(text, "zstd") == 0)
		opts->algorithm = OBD_ZFILE_ZSTD;
	else
		tool_usage("--algorithm is \"%s\", allowed: lz4, zstd", text);
}

static void set_block_kb(struct obd_zfile_opts *opts, const char *text)
{
	opts->block_bytes = (uint32_t)tool_number("--bs", text, 4, 64) * 1024;
	if (!obd_is_pow2(opts->block_bytes))
		tool_usage("--bs is \"%s\", allowed: 4, 8, 16, 32, 64", text);
}

bool tool_output_option(struct blob_target *target, int c)
{
	struct obd_zfile_opts *zfile = &target->opts.zfile;
	switch (c) {
	case 't':
		target->opts.tar = true;
		return true;
	case 'f':
		target->force = true;
		return true;
	case TOOL_OPT_ALGORITHM:
		set_algorithm(zfile, optarg);
		return true;
	case TOOL_OPT_BS:
		set_block_kb(zfile, optarg);
		return true;
	case TOOL_OPT_THREADS:
		zfile->threads = (unsigned)tool_number("--compress_threads", optarg, 1, OBD_ZFILE_THREADS_MAX);
		return true;
	case TOOL_OPT_DIGEST:
		target->digest = true;
		return true;
	default:
		return false;
	}
}

void tool_common_option(int c, const char *usage)
{
	if (c == 'v')
		return;
	if (c == TOOL_OPT_TURBO)
		tool_usage("layers over an OCI tar (turboOCI) are not supported");
	if (c == TOOL_OPT_HELP || c == TOOL_OPT_VERSION) {
		if (c == TOOL_OPT_HELP)
			fputs(usage, stdout);
		else
			printf("%s %s\n", program, OBD_VERSION);
		exit(fflush(stdout) ? TOOL_FAILED : TOOL_OK);
	}
	fputs(usage, stderr);
	exit(TOOL_USAGE);
}

/* ---- progress --------------------------------------------------------------------------------------------------------- */

#define FIRST_NS UINT64_C(1000000000)
#define AGAIN_NS UINT64_C(200000000)

static uint64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

void tool_progress_start(struct tool_progress *p, const char *what, uint64_t total)
{
	*p = (struct tool_progress){.what = what, .total = total, .begun_ns = isatty(STDERR_FILENO) ? now_ns() : 0};
}

void tool_progress_show(struct tool_progress *p, uint64_t done)
{
	if (!p->begun_ns)
		return;
	const uint64_t now = now_ns();
	if (now - p->begun_ns < FIRST_NS || (p->shown_ns && now - p->shown_ns < AGAIN_NS))
		return;
	p->shown_ns = now;
	done = obd_min_u64(done, p->total);
	const double share = p->total ? (double)done / (double)p->total : 1;
	const double rate = (double)done / ((double)(now - p->begun_ns) / 1e9);
	fprintf(stderr, "\r%s: %3.0f%% of %.1f MiB, %.0f MiB/s ", p->what, 100 * share, (double)p->total / (1 << 20),
		rate / (1 << 20));
}

void tool_progress_end(struct tool_progress *p)
{
	if (p->shown_ns)
		fprintf(stderr, "\r\033[K");
	p->shown_ns = 0;
}

int tool_progress_zfile(void *ctx, uint64_t done, uint64_t total)
{
	(void)total;
	tool_progress_show(ctx, done);
	return 0;
}

struct shown {
	struct tool_progress *progress;
	struct obd_file *base;
};

static int shown_pwrite(void *ctx, const void *buf, size_t n, uint64_t off)
{
	struct shown *s = ctx;
	tool_progress_show(s->progress, off);
	return obd_file_pwrite(s->base, buf, n, off);
}

static int shown_size(void *ctx, uint64_t *bytes)
{
	return obd_file_size(((struct shown *)ctx)->base, bytes);
}

static const struct obd_file_ops shown_ops = {.pwrite = shown_pwrite, .size = shown_size, .close = free};

struct obd_file *tool_progress_file(struct tool_progress *p, struct obd_file *base)
{
	struct shown *s = malloc(sizeof(*s));
	struct obd_file *f = NULL;
	if (s) {
		*s = (struct shown){.progress = p, .base = base};
		f = obd_file_new(&shown_ops, s);
	}
	if (!f)
		free(s);
	return f;
}
