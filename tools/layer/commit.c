/* SPDX-License-Identifier: GPL-2.0-or-later */
/* overlaybd-commit: a writable layer becomes a read-only one. See overlaybd-commit(1). */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/format/stack.h"
#include "common/format/upper.h"
#include "tools/layer/tool.h"

static const char usage[] = "usage: overlaybd-commit [options] DATA INDEX OUT      a layer of an append-only pair of files\n"
			    "       overlaybd-commit [options] DATA OUT            a layer of a sparse file\n"
			    "       overlaybd-commit --commit_sealed [options] SEALED OUT\n"
			    "       overlaybd-commit --seal DATA INDEX             close DATA in place\n"
			    "  -m TEXT                  message that is stored in the layer\n"
			    "      --uuid UUID          of the new layer (all zeros)\n"
			    "  -p, --parent-uuid UUID   of the layer below (what DATA says)\n"
			    "  -z                       compress: a ZFile\n"
			    "  -t                       wrap into a tar archive\n"
			    "  -f                       replace OUT if it exists\n"
			    "      --algorithm lz4|zstd (lz4)\n"
			    "      --bs KB              block size of the ZFile: 4, 8, 16, 32, 64 (4)\n"
			    "      --compress_threads N (as many as processors, up to 8)\n"
			    "      --digest             print the SHA-256 of OUT\n"
			    "OUT may be - for standard output.\n";

struct job {
	const char *message, *uuid, *parent;
	struct blob_target out;
	bool seal, sealed;
	const char *data, *index;
};

/* What is committed: segments and the file that they point into. */
struct source {
	struct obd_lsmt_seg *seg;
	size_t n;
	struct obd_file *data;
	struct obd_lsmt_write_opts opts;
	struct tool_progress progress;
};

enum { OPT_UUID = TOOL_OPT_OWN, OPT_SEAL, OPT_SEALED };

static const struct option options[] = {
	{"message", required_argument, NULL, 'm'},
	{"uuid", required_argument, NULL, OPT_UUID},
	{"parent-uuid", required_argument, NULL, 'p'},
	{"seal", no_argument, NULL, OPT_SEAL},
	{"commit_sealed", no_argument, NULL, OPT_SEALED},
	TOOL_OUTPUT_OPTIONS,
	TOOL_TURBO_OPTIONS,
	TOOL_COMMON_OPTIONS,
	{0},
};

static void parse_option(struct job *job, int c)
{
	switch (c) {
	case 'm':
		job->message = optarg;
		break;
	case OPT_UUID:
		job->uuid = tool_uuid("--uuid", optarg);
		break;
	case 'p':
		job->parent = tool_uuid("--parent-uuid", optarg);
		break;
	case 'z':
		job->out.opts.compress = true;
		break;
	case OPT_SEAL:
		job->seal = true;
		break;
	case OPT_SEALED:
		job->sealed = true;
		break;
	default:
		if (!tool_output_option(&job->out, c))
			tool_common_option(c, usage);
	}
}

static void parse_names(struct job *job, int n, char **names)
{
	const int least = 2, most = job->seal || job->sealed ? 2 : 3;
	if (job->seal && job->sealed)
		tool_usage("--seal and --commit_sealed exclude each other");
	if (n < least || n > most)
		tool_usage("%d file names given, expected %s; --help tells more", n, most == 2 ? "2" : "2 or 3");
	if (job->message && strlen(job->message) > OBD_LSMT_TAG_BYTES - 1)
		tool_usage("-m is %zu bytes long, allowed: up to %u", strlen(job->message), OBD_LSMT_TAG_BYTES - 1);
	job->data = names[0];
	if (job->seal || n == 3)
		job->index = names[1];
	if (!job->seal)
		job->out.path = names[n - 1];
}

static int fill(void *ctx, struct obd_file *dst, struct obd_err *err)
{
	struct source *s = ctx;
	tool_progress_start(&s->progress, "commit", segments_bytes(s->seg, s->n));
	struct obd_file *shown = tool_progress_file(&s->progress, dst);
	int rc = shown ? obd_lsmt_commit(s->seg, s->n, &s->data, 1, shown, &s->opts, NULL, err)
		       : obd_err_set(err, ENOMEM, "out of memory");
	tool_progress_end(&s->progress);
	obd_file_close(shown);
	return rc;
}

static int write_layer(const struct job *job, struct source *s, const struct obd_lsmt_info *from, struct obd_err *err)
{
	s->opts = (struct obd_lsmt_write_opts){.virtual_size = from->virtual_size,
					       .uuid = job->uuid,
					       .parent_uuid = job->parent ? job->parent : from->parent_uuid,
					       .tag = job->message};
	return blob_write_target(&job->out, fill, s, err);
}

static int commit_upper(const struct job *job, struct obd_err *err)
{
	struct obd_upper *u;
	struct source s = {0};
	int rc = obd_upper_open(job->data, job->index, false, &u, err);
	if (rc)
		return rc;
	s.data = obd_upper_data(u);
	rc = obd_upper_segments(u, &s.seg, &s.n);
	rc = rc ? obd_err_set(err, ENOMEM, "out of memory") : write_layer(job, &s, obd_upper_info(u), err);
	free(s.seg);
	obd_upper_close(u);
	return rc;
}

static int commit_sealed(const struct job *job, struct obd_err *err)
{
	struct obd_lsmt_layer layer;
	struct obd_file *blob = obd_file_open_path(job->data, O_RDONLY, 0, err);
	if (!blob)
		return -EINVAL;
	int rc = obd_lsmt_layer_open(blob, &layer, err);
	if (rc) {
		obd_file_close(blob);
		return obd_err_prefix(err, rc, "%s", job->data);
	}
	struct source s = {.seg = layer.seg, .n = layer.n, .data = layer.file};
	rc = write_layer(job, &s, &layer.info, err);
	obd_lsmt_layer_close(&layer);
	return rc;
}

static int seal(const struct job *job, struct obd_err *err)
{
	struct obd_upper *u;
	int rc = obd_upper_open(job->data, job->index, true, &u, err);
	if (rc)
		return rc;
	rc = obd_err_prefix(err, obd_upper_seal(u, err), "%s", job->data);
	obd_upper_close(u);
	return rc;
}

int main(int argc, char **argv)
{
	struct job job = {.out.opts.zfile = tool_zfile_opts()};
	struct obd_err err = {""};
	int c;
	tool_start("overlaybd-commit");
	/* Readers of a remote blob are spared the trailer. */
	job.out.opts.zfile.overwrite_header = true;
	while ((c = getopt_long(argc, argv, "m:p:ztfv", options, NULL)) != -1)
		parse_option(&job, c);
	parse_names(&job, argc - optind, argv + optind);
	if (job.seal)
		return tool_end(seal(&job, &err), &err);
	return tool_end(job.sealed ? commit_sealed(&job, &err) : commit_upper(&job, &err), &err);
}
