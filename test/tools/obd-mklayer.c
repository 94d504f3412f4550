/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * obd-mklayer: a layer blob out of raw images, for tests and the demo.
 *
 *     raw image(s) ──► LSMT ──► [ZFile] ──► [tar wrapper] ──► OUT
 *
 * All in one pass over the output: the wrapper's header is written last, once the payload's size is known.
 */
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/format/file.h"
#include "common/format/lsmt.h"
#include "common/format/tar.h"
#include "common/format/zfile.h"

static const char usage[] = "usage: obd-mklayer --base RAW OUT [options]          a layer that holds all of RAW\n"
			    "       obd-mklayer --diff OLD NEW OUT [options]      a layer that turns OLD into NEW\n"
			    "  --algorithm lz4|zstd   of the ZFile (lz4)\n"
			    "  --bs KB                block size of the ZFile in KiB (4)\n"
			    "  --no-zfile             leave the layer uncompressed\n"
			    "  --no-tar               leave the tar wrapper out\n";

enum { GRANULE_BYTES = 4096 };

struct job {
	const char *old_path; /* NULL: a base layer */
	const char *new_path;
	const char *out_path;
	struct obd_zfile_opts zfile;
	bool diff, base, no_zfile, no_tar;
};

static void fail_usage(void)
{
	fputs(usage, stderr);
	exit(1);
}

/* Writes the LSMT file to dst. */
static int write_layer(const struct job *job, struct obd_file *dst, uint64_t *bytes, struct obd_err *err)
{
	struct obd_lsmt_write_opts opts = {0};
	struct obd_file *old = NULL, *raw = obd_file_open_path(job->new_path, O_RDONLY, 0, err);
	int rc = -1;

	if (!raw)
		goto out;
	if (!job->diff) {
		rc = obd_lsmt_write_raw(raw, GRANULE_BYTES, dst, &opts, bytes, err);
		goto out;
	}
	old = obd_file_open_path(job->old_path, O_RDONLY, 0, err);
	if (old)
		rc = obd_lsmt_write_diff(old, raw, GRANULE_BYTES, dst, &opts, bytes, err);
out:
	obd_file_close(old);
	obd_file_close(raw);
	return rc;
}

/* Writes the layer as a ZFile to dst. */
static int write_compressed(const struct job *job, struct obd_file *dst, uint64_t *bytes, struct obd_err *err)
{
	struct obd_zfile_writer *writer = obd_zfile_writer_new(dst, &job->zfile, err);
	struct obd_file *plain = writer ? obd_zfile_writer_file(writer) : NULL;
	int rc = -1;

	if (plain)
		rc = write_layer(job, plain, NULL, err);
	if (!rc) {
		rc = obd_zfile_writer_finish(writer, bytes);
		if (rc)
			obd_err_set(err, -rc, "%s: %s", job->out_path, strerror(-rc));
	}
	obd_file_close(plain);
	obd_zfile_writer_free(writer);
	return rc;
}

static int write_payload(const struct job *job, struct obd_file *dst, uint64_t *bytes, struct obd_err *err)
{
	return job->no_zfile ? write_layer(job, dst, bytes, err) : write_compressed(job, dst, bytes, err);
}

static int write_wrapped(const struct job *job, struct obd_file *out, struct obd_err *err)
{
	unsigned char header[OBD_TAR_HEADER_BYTES], zeros[OBD_TAR_TAIL_MAX_BYTES] = {0};
	struct obd_file *payload = obd_file_window(obd_file_borrow(out), OBD_TAR_HEADER_BYTES, UINT64_MAX);
	uint64_t bytes = 0;
	int rc = payload ? write_payload(job, payload, &bytes, err) : -1;

	obd_file_close(payload);
	if (!rc)
		rc = obd_tar_header(header, bytes);
	if (!rc)
		rc = obd_file_pwrite(out, header, sizeof(header), 0);
	if (!rc)
		rc = obd_file_pwrite(out, zeros, obd_tar_tail_bytes(bytes), OBD_TAR_HEADER_BYTES + bytes);
	return rc;
}

static int make_layer(const struct job *job, struct obd_err *err)
{
	struct obd_file *out = obd_file_open_path(job->out_path, O_RDWR | O_CREAT | O_TRUNC, 0644, err);
	int rc = -1;

	if (out)
		rc = job->no_tar ? write_payload(job, out, NULL, err) : write_wrapped(job, out, err);
	obd_file_close(out);
	return rc;
}

enum { OPT_BASE = 1, OPT_DIFF, OPT_ALGORITHM, OPT_BS, OPT_NO_ZFILE, OPT_NO_TAR };

static const struct option options[] = {
	{"base", no_argument, NULL, OPT_BASE},
	{"diff", no_argument, NULL, OPT_DIFF},
	{"algorithm", required_argument, NULL, OPT_ALGORITHM},
	{"bs", required_argument, NULL, OPT_BS},
	{"no-zfile", no_argument, NULL, OPT_NO_ZFILE},
	{"no-tar", no_argument, NULL, OPT_NO_TAR},
	{0},
};

static void parse_option(struct job *job, int c)
{
	switch (c) {
	case OPT_BASE:
		job->base = true;
		break;
	case OPT_DIFF:
		job->diff = true;
		break;
	case OPT_ALGORITHM:
		if (strcmp(optarg, "lz4") != 0 && strcmp(optarg, "zstd") != 0)
			fail_usage();
		job->zfile.algorithm = strcmp(optarg, "zstd") ? OBD_ZFILE_LZ4 : OBD_ZFILE_ZSTD;
		break;
	case OPT_BS:
		job->zfile.block_bytes = (uint32_t)strtoul(optarg, NULL, 10) * 1024;
		break;
	case OPT_NO_ZFILE:
		job->no_zfile = true;
		break;
	case OPT_NO_TAR:
		job->no_tar = true;
		break;
	default:
		fail_usage();
	}
}

int main(int argc, char **argv)
{
	struct job job = {.zfile = OBD_ZFILE_OPTS_DEFAULT};
	struct obd_err err = {.msg = "write error"};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1)
		parse_option(&job, c);
	if (job.base == job.diff || argc - optind != (job.diff ? 3 : 2))
		fail_usage();
	if (job.diff)
		job.old_path = argv[optind++];
	job.new_path = argv[optind];
	job.out_path = argv[optind + 1];
	if (make_layer(&job, &err)) {
		fprintf(stderr, "obd-mklayer: %s\n", err.msg);
		return 1;
	}
	return 0;
}
