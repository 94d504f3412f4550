/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the layer tools share: how they end, read numbers, show progress, find the layers of an image, and how they make
 * a file so that a failed run leaves nothing.
 */
#ifndef OBD_TOOLS_LAYER_TOOL_H
#define OBD_TOOLS_LAYER_TOOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/format/file.h"
#include "common/format/lsmt.h"
#include "common/format/zfile.h"

/* Exit codes of every tool; scripts rely on them. */
enum {
	TOOL_OK = 0,
	TOOL_FAILED = 1, /* one line on stderr says what */
	TOOL_USAGE = 2,	 /* wrong arguments; nothing was touched */
};

/* Call it first in main. name: for messages. */
void tool_start(const char *name);

/* Files that go when a signal ends the program: path (kept, not copied) in one of TOOL_GUARDS slots; NULL: no longer. */
enum { TOOL_GUARDS = 3 };
void tool_guard(unsigned slot, const char *path);

/* Signals wait between these, so that a file can be made and guarded in one step. */
void tool_hold_signals(void);
void tool_release_signals(void);

/* Prints "NAME: message" and exits with TOOL_USAGE. */
_Noreturn void tool_usage(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Prints "NAME: message" unless rc is 0; the program's exit code. */
int tool_end(int rc, const struct obd_err *err);

/* A number between least and most, or the usage error names what. */
uint64_t tool_number(const char *what, const char *text, uint64_t least, uint64_t most);

/* A size: digits and B, K, M, G or T (powers of 1024); plain digits count gigabytes. False: not one. */
bool tool_size(const char *text, uint64_t *bytes);

/* A UUID, or the usage error names the option. */
const char *tool_uuid(const char *option, const char *text);

/* LZ4, 4 KiB, as many threads as processors, up to eight. */
struct obd_zfile_opts tool_zfile_opts(void);

/* ---- options ---------------------------------------------------------------------------------------------------------- */

/* Numbers of options that have no letter; a tool's own begin at TOOL_OPT_OWN. */
enum {
	TOOL_OPT_HELP = 256,
	TOOL_OPT_VERSION,
	TOOL_OPT_TURBO,
	TOOL_OPT_ALGORITHM,
	TOOL_OPT_BS,
	TOOL_OPT_THREADS,
	TOOL_OPT_DIGEST,
	TOOL_OPT_OWN
};

/* Rows of struct option: what every tool takes; what those take that write a layer file; layers over an OCI tar, which are
 * refused with a line that says so. The letters that belong to them are v, and t and f. */
/* clang-format off */
#define TOOL_COMMON_OPTIONS \
	{"verbose", no_argument, NULL, 'v'}, \
	{"help", no_argument, NULL, TOOL_OPT_HELP}, \
	{"version", no_argument, NULL, TOOL_OPT_VERSION}
#define TOOL_OUTPUT_OPTIONS \
	{"algorithm", required_argument, NULL, TOOL_OPT_ALGORITHM}, \
	{"bs", required_argument, NULL, TOOL_OPT_BS}, \
	{"compress_threads", required_argument, NULL, TOOL_OPT_THREADS}, \
	{"digest", no_argument, NULL, TOOL_OPT_DIGEST}, \
	{"tar", no_argument, NULL, 't'}
#define TOOL_TURBO_OPTIONS \
	{"turboOCI", no_argument, NULL, TOOL_OPT_TURBO}, \
	{"fastoci", no_argument, NULL, TOOL_OPT_TURBO}
/* clang-format on */

/* What getopt_long gave and no tool's own case took: -v, --help, --version, or a usage error. */
void tool_common_option(int c, const char *usage);

/* ---- progress --------------------------------------------------------------------------------------------------------- */

struct tool_progress {
	const char *what;
	uint64_t total;
	uint64_t begun_ns;
	uint64_t shown_ns; /* 0: nothing is on the terminal */
};

/* Shows done of total on stderr if that is a terminal, from the second second on. */
void tool_progress_start(struct tool_progress *p, const char *what, uint64_t total);
void tool_progress_show(struct tool_progress *p, uint64_t done);
void tool_progress_end(struct tool_progress *p);

/* As obd_zfile_write wants it; ctx is a struct tool_progress. */
int tool_progress_zfile(void *ctx, uint64_t done, uint64_t total);

/* base (borrowed) as a file whose writes are shown. */
struct obd_file *tool_progress_file(struct tool_progress *p, struct obd_file *base);

/* ---- output ----------------------------------------------------------------------------------------------------------- */

/*
 * A file that appears under its name only when it is complete. Until then it is a temporary one beside it. "-" and what is
 * no regular file (pipes, devices) get a copy of the temporary file at the end; nothing is ever removed there.
 */
struct output;

/* Without force an existing regular file is refused. NULL with a line in err. */
struct output *output_new(const char *path, bool force, struct obd_err *err);

/* To be written; borrowed. Any order. */
struct obd_file *output_file(struct output *out);

/* Counts a SHA-256 as the bytes are written (and again from the file, where they did not come in order). */
int output_want_digest(struct output *out);

/* Syncs and gives the file its name. digest (may be NULL): "sha256:..." of 72 bytes with NUL. */
int output_finish(struct output *out, char digest[72], struct obd_err *err);

/* Removes the temporary file unless output_finish was well; frees. NULL is allowed. */
void output_free(struct output *out);

/* ---- blobs ------------------------------------------------------------------------------------------------------------ */

struct blob_opts {
	bool compress; /* as a ZFile */
	bool tar;
	struct obd_zfile_opts zfile;
};

/* Puts the plain bytes into dst, in order. 0 or a negative errno with a line in err. */
typedef int blob_fill_fn(void *ctx, struct obd_file *dst, struct obd_err *err);

/* dst: what fill gives, compressed and wrapped as opts say. */
int blob_write(struct obd_file *dst, const struct blob_opts *opts, blob_fill_fn *fill, void *ctx, struct obd_err *err);

/* A layer file that a tool writes, as its user wants it. */
struct blob_target {
	const char *path;
	bool force;  /* -f: replace an existing file */
	bool digest; /* print its SHA-256: on stdout, on stderr when path is "-" */
	struct blob_opts opts;
};

/* Takes an option of TOOL_OUTPUT_OPTIONS, -t or -f. False: it is another one. */
bool tool_output_option(struct blob_target *target, int c);

/* fill into the target's file, and all that belongs to it. */
int blob_write_target(const struct blob_target *target, blob_fill_fn *fill, void *ctx, struct obd_err *err);

/* Bytes of data that segments hold. */
uint64_t segments_bytes(const struct obd_lsmt_seg *seg, size_t n);

/* ---- images ----------------------------------------------------------------------------------------------------------- */

struct obd_image_config;

/* The local files of an image's lowers, opened; *blobs is an array of *n (free it; each is the caller's). */
int image_lowers(const struct obd_image_config *config, struct obd_file ***blobs, unsigned *n, struct obd_err *err);

/*
 * The image that a configuration names, as one file (obd_image_view_open's when it has an upper): lowers must be
 * local. writable: it must have an upper, which is then opened for writing. NULL with a line in err.
 */
struct obd_file *image_open(const char *config_path, bool writable, struct obd_err *err);

#endif
