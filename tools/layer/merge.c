/* SPDX-License-Identifier: GPL-2.0-or-later */
/* overlaybd-merge: all layers of an image as one. See overlaybd-merge(1). */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/config/image.h"
#include "common/format/merge.h"
#include "common/format/stack.h"
#include "common/format/upper.h"
#include "tools/layer/tool.h"

static const char usage[] = "usage: overlaybd-merge [options] CONFIG OUT\n"
			    "      --compress[=yes|no]  a ZFile or not (yes)\n"
			    "  -t                       wrap into a tar archive\n"
			    "  -f                       replace OUT if it exists\n"
			    "      --uuid UUID          of the new layer (all zeros)\n"
			    "      --algorithm lz4|zstd (lz4)\n"
			    "      --bs KB              block size of the ZFile: 4, 8, 16, 32, 64 (4)\n"
			    "      --compress_threads N (as many as processors, up to 8)\n"
			    "      --digest             print the SHA-256 of OUT\n"
			    "OUT may be - for standard output.\n";

struct job {
	struct blob_target out;
	const char *uuid, *config;
	/* what is merged */
	struct obd_lsmt_layer layers[OBD_LSMT_MAX_LAYERS];
	unsigned n;
	struct obd_lsmt_seg *seg;
	size_t nseg;
	struct tool_progress progress;
};

enum { OPT_COMPRESS = TOOL_OPT_OWN, OPT_UUID };

static const struct option options[] = {
	{"compress", optional_argument, NULL, OPT_COMPRESS},
	{"uuid", required_argument, NULL, OPT_UUID},
	TOOL_OUTPUT_OPTIONS,
	TOOL_COMMON_OPTIONS,
	{0},
};

static bool yes(const char *text)
{
	if (!text || !strcmp(text, "1") || !strcmp(text, "yes") || !strcmp(text, "true"))
		return true;
	if (!strcmp(text, "0") || !strcmp(text, "no") || !strcmp(text, "false"))
		return false;
	tool_usage("--compress is \"%s\", allowed: yes, no", text);
}

static void parse_option(struct job *job, int c)
{
	if (c == OPT_COMPRESS)
		job->out.opts.compress = yes(optarg);
	else if (c == OPT_UUID)
		job->uuid = tool_uuid("--uuid", optarg);
	else if (!tool_output_option(&job->out, c))
		tool_common_option(c, usage);
}

/* Opens all of blobs as layers; those that could not be opened are closed. */
static int open_layers(struct job *job, struct obd_file **blobs, unsigned n, struct obd_err *err)
{
	int rc = 0;
	for (unsigned i = 0; i < n; i++) {
		if (!rc)
			rc = obd_err_prefix(err, obd_lsmt_layer_open(blobs[i], &job->layers[i], err), "lowers[%u]", i);
		if (rc)
			obd_file_close(blobs[i]);
		else
			job->n = i + 1;
	}
	return rc;
}

static int open_image(struct job *job, struct obd_err *err)
{
	struct obd_image_config *config;
	struct obd_file **blobs = NULL;
	unsigned n = 0;
	int rc = obd_image_config_load(job->config, &config, err);
	if (rc)
		return rc;
	if (config->upper_data)
		rc = obd_err_set(err, EINVAL, "the image has a writable layer: commit it first");
	else
		rc = image_lowers(config, &blobs, &n, err);
	if (!rc)
		rc = open_layers(job, blobs, n, err);
	free(blobs);
	obd_image_config_free(config);
	return obd_err_prefix(err, rc, "%s", job->config);
}

/* Tags are kept and count layers from the top, as other writers leave them. */
static int merge(struct job *job, struct obd_err *err)
{
	struct obd_lsmt_layer_index index[OBD_LSMT_MAX_LAYERS];
	for (unsigned i = 0; i < job->n; i++)
		index[i] = (struct obd_lsmt_layer_index){.seg = job->layers[i].seg, .n = job->layers[i].n};
	int rc = obd_lsmt_merge_part(index, job->n, &job->seg, &job->nseg);
	if (rc)
		return obd_err_set(err, -rc, "merge: %s", strerror(-rc));
	for (size_t i = 0; i < job->nseg; i++)
		job->seg[i] = obd_lsmt_seg_set_tag(job->seg[i], (uint8_t)(job->n - 1 - obd_lsmt_seg_tag(job->seg[i])));
	return 0;
}

static int fill(void *ctx, struct obd_file *dst, struct obd_err *err)
{
	struct job *job = ctx;
	struct obd_file *files[OBD_LSMT_MAX_LAYERS];
	const struct obd_lsmt_write_opts o = {
		.virtual_size = job->layers[job->n - 1].info.virtual_size, .uuid = job->uuid, .keep_seg_tags = true};
	for (unsigned i = 0; i < job->n; i++)
		files[job->n - 1 - i] = job->layers[i].file;
	tool_progress_start(&job->progress, "merge", segments_bytes(job->seg, job->nseg));
	struct obd_file *shown = tool_progress_file(&job->progress, dst);
	int rc = shown ? obd_lsmt_commit(job->seg, job->nseg, files, job->n, shown, &o, NULL, err)
		       : obd_err_set(err, ENOMEM, "out of memory");
	tool_progress_end(&job->progress);
	obd_file_close(shown);
	return rc;
}

int main(int argc, char **argv)
{
	static struct job job;
	struct obd_err err = {""};
	int c;
	tool_start("overlaybd-merge");
	job.out.opts = (struct blob_opts){.compress = true, .zfile = tool_zfile_opts()};
	while ((c = getopt_long(argc, argv, "tfv", options, NULL)) != -1)
		parse_option(&job, c);
	if (argc - optind != 2)
		tool_usage("%d file names given, expected 2; --help tells more", argc - optind);
	job.config = argv[optind];
	job.out.path = argv[optind + 1];
	int rc = open_image(&job, &err);
	if (!rc)
		rc = merge(&job, &err);
	if (!rc)
		rc = blob_write_target(&job.out, fill, &job, &err);
	free(job.seg);
	for (unsigned i = 0; i < job.n; i++)
		obd_lsmt_layer_close(&job.layers[i]);
	return tool_end(rc, &err);
}
