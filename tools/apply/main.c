/* SPDX-License-Identifier: GPL-2.0-or-later */
/* overlaybd-apply: a layer tar onto the file system of an image. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <locale.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/base/log.h"
#include "tools/apply/apply.h"
#include "tools/apply/image.h"

enum { EXIT_FAILED = 1, EXIT_USAGE = 2 };

static const char usage[] =
	"usage: overlaybd-apply TAR CONFIG [options]\n"
	"  TAR         a layer tar: plain, gzip or zstd; - for standard input\n"
	"  CONFIG      configuration of the image, whose upper layer is written\n"
	"  --mkfs      make an ext4 file system first\n"
	"  --raw       CONFIG is a raw image or a block device\n"
	"  --checksum  print the sha256 of the tar as it is and uncompressed\n"
	"  --verbose   say how much was applied\n"
	"  --fstype TYPE, --service_config_path FILE   taken for the sake of existing callers: ext4; not read\n"
	"  --version, --help\n";

struct options {
	const char *tar;
	const char *config;
	bool mkfs, raw, checksum, verbose;
};

static int parse_ext4(const char *type)
{
	if (strcmp(type, "ext4") == 0)
		return -1;
	fprintf(stderr, "overlaybd-apply: --fstype %s: not supported, allowed: ext4\n", type);
	return EXIT_USAGE;
}

/* Returns -1 to go on, or the exit status. */
static int parse(int argc, char **argv, struct options *o)
{
	enum { MKFS = 256, RAW, CHECKSUM, VERBOSE, FSTYPE, SERVICE, SHOW_VERSION, HELP };
	static const struct option longs[] = {{"mkfs", no_argument, NULL, MKFS},
					      {"raw", no_argument, NULL, RAW},
					      {"checksum", no_argument, NULL, CHECKSUM},
					      {"verbose", no_argument, NULL, VERBOSE},
					      {"fstype", required_argument, NULL, FSTYPE},
					      {"service_config_path", required_argument, NULL, SERVICE},
					      {"version", no_argument, NULL, SHOW_VERSION},
					      {"help", no_argument, NULL, HELP},
					      {0}};
	int c;
	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		o->mkfs |= c == MKFS;
		o->raw |= c == RAW;
		o->checksum |= c == CHECKSUM;
		o->verbose |= c == VERBOSE;
		if (c == FSTYPE && parse_ext4(optarg) >= 0)
			return EXIT_USAGE;
		if (c == SHOW_VERSION)
			puts("overlaybd-apply " OBD_VERSION);
		if (c == HELP)
			fputs(usage, stdout);
		if (c == SHOW_VERSION || c == HELP)
			return 0;
		if (c == '?')
			break;
	}
	if (c == -1 && argc - optind == 2) {
		o->tar = argv[optind];
		o->config = argv[optind + 1];
		return -1;
	}
	fputs(usage, stderr);
	return EXIT_USAGE;
}

static int print_result(const struct options *o, const struct obd_apply_result *r, struct obd_err *err)
{
	if (o->checksum)
		printf("tar sha256:%s\ndiff-id sha256:%s\n", r->digests.tar, r->digests.plain);
	if (o->verbose)
		printf("%llu entries applied\n", (unsigned long long)r->entries);
	if (fflush(stdout) != 0 || ferror(stdout))
		return obd_err_set(err, EIO, "standard output: %s", strerror(errno));
	return 0;
}

static int apply_to(struct obd_file *image, const struct options *o, const struct obd_apply_opts *opts, struct obd_err *err)
{
	struct obd_apply_result result;
	const bool from_stdin = strcmp(o->tar, "-") == 0;
	const int fd = from_stdin ? STDIN_FILENO : open(o->tar, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return obd_err_set(err, errno, "%s: %s", o->tar, strerror(errno));
	struct obd_tar_reader *tar = obd_tar_reader_open(fd, o->checksum, err);
	int rc = tar ? obd_apply(image, tar, opts, &result, err) : -EINVAL;
	obd_err_prefix(err, rc, "%s", from_stdin ? "standard input" : o->tar);
	obd_tar_reader_close(tar);
	if (!from_stdin)
		close(fd);
	return rc ? rc : print_result(o, &result, err);
}

static int run(const struct options *o, struct obd_err *err)
{
	int fd = -1;
	struct obd_file *image = o->raw ? obd_apply_open_raw(o->config, &fd, err) : obd_apply_open_config(o->config, err);
	const struct obd_apply_opts opts = {.make_fs = o->mkfs,
					    .sync = o->raw ? obd_apply_sync_raw : obd_apply_sync_config,
					    .sync_ctx = o->raw ? (void *)&fd : (void *)image};
	const int rc = image ? apply_to(image, o, &opts, err) : -EINVAL;
	obd_file_close(image);
	return rc;
}

int main(int argc, char **argv)
{
	struct options o = {0};
	struct obd_err err = {""};
	const int status = parse(argc, argv, &o);
	if (status >= 0)
		return status;
	obd_log_ident("overlaybd-apply");
	/* Names are bytes; libarchive wants to know that pax headers need no conversion. */
	if (!setlocale(LC_CTYPE, "C.UTF-8"))
		setlocale(LC_CTYPE, "en_US.UTF-8");
	if (run(&o, &err) == 0)
		return 0;
	fprintf(stderr, "overlaybd-apply: %s\n", err.msg);
	return EXIT_FAILED;
}
