/* SPDX-License-Identifier: GPL-2.0-or-later */
/* overlaybd-zfile: a file to a ZFile and back. See overlaybd-zfile(1). */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/util.h"
#include "common/format/tar.h"
#include "tools/layer/tool.h"

static const char usage[] = "usage: overlaybd-zfile [options] SRC DST      compress\n"
			    "       overlaybd-zfile -x [-f] SRC DST        decompress\n"
			    "       overlaybd-zfile --verify SRC           decompress and check, write nothing\n"
			    "  -t                       wrap into a tar archive\n"
			    "  -f                       replace DST if it exists\n"
			    "      --algorithm lz4|zstd (lz4)\n"
			    "      --bs KB              block size: 4, 8, 16, 32, 64 (4)\n"
			    "      --compress_threads N (as many as processors, up to 8)\n"
			    "      --digest             print the SHA-256 of DST\n"
			    "SRC and DST may be - for standard input and output.\n";

#define COPY_BYTES (1u << 20)

struct job {
	struct blob_target dst;
	bool extract, verify;
	const char *src;
	struct obd_file *in; /* NULL: standard input is read as it comes */
	struct tool_progress progress;
};

enum { OPT_VERIFY = TOOL_OPT_OWN };

static const struct option options[] = {
	{"verify", no_argument, NULL, OPT_VERIFY},
	TOOL_OUTPUT_OPTIONS,
	TOOL_COMMON_OPTIONS,
	{0},
};

static void parse_option(struct job *job, int c)
{
	if (c == 'x')
		job->extract = true;
	else if (c == OPT_VERIFY)
		job->verify = true;
	else if (!tool_output_option(&job->dst, c))
		tool_common_option(c, usage);
}

/* All of a file, in order. */
static int copy_file(struct job *job, struct obd_file *dst, struct obd_err *err)
{
	uint64_t bytes = 0;
	char *buf = malloc(COPY_BYTES);
	int rc = buf ? obd_file_size(job->in, &bytes) : -ENOMEM;
	tool_progress_start(&job->progress, job->dst.path ? job->dst.path : job->src, bytes);
	for (uint64_t at = 0; !rc && at < bytes;) {
		const size_t n = (size_t)obd_min_u64(COPY_BYTES, bytes - at);
		rc = obd_file_pread_full(job->in, buf, n, at);
		if (rc) {
			obd_err_set(err, -rc, "%s: byte %llu: %s", job->src, (unsigned long long)at,
				    rc == -EBADMSG ? "damaged block" : strerror(-rc));
			break;
		}
		rc = dst ? obd_file_pwrite(dst, buf, n, at) : 0;
		if (rc)
			obd_err_set(err, -rc, "write: %s", strerror(-rc));
		at += n;
		tool_progress_show(&job->progress, at);
	}
	tool_progress_end(&job->progress);
	if (rc && !err->msg[0])
		obd_err_set(err, -rc, "%s: %s", job->src, strerror(-rc));
	free(buf);
	return rc;
}

/* Standard input, as long as it lasts. */
static int copy_stdin(struct obd_file *dst, struct obd_err *err)
{
	char *buf = malloc(COPY_BYTES);
	int rc = buf ? 0 : -ENOMEM;
	for (uint64_t at = 0; !rc;) {
		ssize_t n = read(STDIN_FILENO, buf, COPY_BYTES);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			rc = n < 0 ? -errno : 0;
			break;
		}
		rc = obd_file_pwrite(dst, buf, (size_t)n, at);
		at += (uint64_t)n;
	}
	free(buf);
	return rc ? obd_err_set(err, -rc, "standard input: %s", strerror(-rc)) : 0;
}

static int fill(void *ctx, struct obd_file *dst, struct obd_err *err)
{
	struct job *job = ctx;
	return job->in ? copy_file(job, dst, err) : copy_stdin(dst, err);
}

/* What can be read at random: the file itself, or standard input kept in a file without a name. */
static struct obd_file *open_random(const char *src, struct obd_err *err)
{
	if (strcmp(src, "-") != 0)
		return obd_file_open_path(src, O_RDONLY, 0, err);
	FILE *t = tmpfile();
	int fd = t ? fcntl(fileno(t), F_DUPFD_CLOEXEC, 3) : -1;
	if (t)
		fclose(t);
	struct obd_file *f = fd >= 0 ? obd_file_open_fd(fd, err) : NULL;
	if (!f)
		obd_err_set(err, errno, "temporary file: %s", strerror(errno));
	else if (copy_stdin(f, err)) {
		obd_file_close(f);
		f = NULL;
	}
	return f;
}

/* The plain bytes of the ZFile in blob, which is taken over whatever happens. */
static struct obd_file *open_zfile(struct obd_file *blob, struct obd_err *err)
{
	unsigned char head[OBD_TAR_PROBE_BYTES];
	struct obd_tar_info tar;
	uint64_t bytes;
	int rc = obd_file_size(blob, &bytes);
	ssize_t n = rc ? rc : obd_file_pread(blob, head, sizeof(head), 0);
	if (n < 0) {
		obd_err_set(err, (int)-n, "%s", strerror((int)-n));
		obd_file_close(blob);
		return NULL;
	}
	if (obd_tar_parse(head, (size_t)n, bytes, &tar, err)) {
		obd_file_close(blob);
		return NULL;
	}
	struct obd_file *payload = obd_file_window(blob, tar.payload_offset, tar.payload_bytes);
	if (!payload) {
		obd_err_set(err, ENOMEM, "out of memory");
		obd_file_close(blob);
		return NULL;
	}
	struct obd_file *plain = obd_zfile_open(payload, err);
	if (!plain)
		obd_file_close(payload);
	return plain;
}

static int decompress(struct job *job, struct obd_err *err)
{
	struct obd_file *blob = open_random(job->src, err);
	if (!blob)
		return -EINVAL;
	job->in = open_zfile(blob, err);
	if (!job->in)
		return obd_err_prefix(err, -EINVAL, "%s", job->src);
	job->dst.opts = (struct blob_opts){0};
	int rc = job->verify ? copy_file(job, NULL, err) : blob_write_target(&job->dst, fill, job, err);
	obd_file_close(job->in);
	return rc;
}

static int compress(struct job *job, struct obd_err *err)
{
	job->dst.opts.compress = true;
	if (strcmp(job->src, "-") != 0) {
		job->in = obd_file_open_path(job->src, O_RDONLY, 0, err);
		if (!job->in)
			return -EINVAL;
	}
	int rc = blob_write_target(&job->dst, fill, job, err);
	obd_file_close(job->in);
	return rc;
}

int main(int argc, char **argv)
{
	struct job job = {.dst.opts.zfile = tool_zfile_opts()};
	struct obd_err err = {""};
	int c;
	tool_start("overlaybd-zfile");
	while ((c = getopt_long(argc, argv, "txfv", options, NULL)) != -1)
		parse_option(&job, c);
	const int names = argc - optind;
	if (names != (job.verify ? 1 : 2))
		tool_usage("%d file names given, expected %d; --help tells more", names, job.verify ? 1 : 2);
	if (job.verify && (job.extract || job.dst.opts.tar || job.dst.digest))
		tool_usage("--verify goes with no other option");
	job.src = argv[optind];
	job.dst.path = job.verify ? NULL : argv[optind + 1];
	return tool_end(job.extract || job.verify ? decompress(&job, &err) : compress(&job, &err), &err);
}
