/* SPDX-License-Identifier: GPL-2.0-or-later */
/* obd-stat: what a process group does. The parts are in stat.h. */
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "tools/stat.h"

enum { EXIT_NO_GROUP = 1, EXIT_USAGE = 2 };

static const char usage[] = "usage: obd-stat [-r RUNTIMEDIR] [--json | --audit] [--version] [--help]\n"
			    "  -r, --runtime-dir RUNTIMEDIR  the group's directory ($OVERLAYBD_RUNTIME_DIR or /run/overlaybd)\n"
			    "  --json                        one JSON object\n"
			    "  --audit                       check that every frame of the cache is in one state and place\n"
			    "  --version, --help\n";

struct options {
	const char *runtime_dir;
	bool json;
	bool audit;
};

/* Returns -1 to go on, or the exit status. */
static int parse(int argc, char **argv, struct options *o)
{
	enum { JSON = 256, AUDIT, SHOW_VERSION, HELP };
	static const struct option longs[] = {{"runtime-dir", required_argument, NULL, 'r'},
					      {"json", no_argument, NULL, JSON},
					      {"audit", no_argument, NULL, AUDIT},
					      {"version", no_argument, NULL, SHOW_VERSION},
					      {"help", no_argument, NULL, HELP},
					      {0}};
	int c;
	while ((c = getopt_long(argc, argv, "r:", longs, NULL)) != -1) {
		switch (c) {
		case 'r':
			o->runtime_dir = optarg;
			break;
		case JSON:
			o->json = true;
			break;
		case AUDIT:
			o->audit = true;
			break;
		case SHOW_VERSION:
			puts("obd-stat " OBD_VERSION);
			return 0;
		case HELP:
			fputs(usage, stdout);
			return 0;
		default:
			fputs(usage, stderr);
			return EXIT_USAGE;
		}
	}
	if (optind == argc && !(o->json && o->audit))
		return -1;
	fputs(usage, stderr);
	return EXIT_USAGE;
}

static int show(struct obd_stat_link *link, bool json, struct obd_err *err)
{
	struct obd_stat st;
	int rc = obd_stat_collect(&st, link);
	if (rc == 0 && json)
		rc = obd_stat_print_json(stdout, &st, link);
	else if (rc == 0)
		obd_stat_print_tables(stdout, &st, link);
	obd_stat_free(&st);
	return rc ? obd_err_set(err, -rc, "%s", strerror(-rc)) : 0;
}

static int flushed(int rc, struct obd_err *err)
{
	if (rc == 0 && (fflush(stdout) != 0 || ferror(stdout)))
		return obd_err_set(err, EIO, "standard output: %s", strerror(errno));
	return rc;
}

int main(int argc, char **argv)
{
	static struct obd_stat_link link;
	struct options o = {0};
	struct obd_err err;
	int rc = parse(argc, argv, &o);
	if (rc >= 0)
		return rc;
	rc = obd_stat_connect(&link, o.runtime_dir, &err);
	if (rc == 0 && o.audit)
		rc = obd_stat_audit(stdout, &link.seg, &err);
	else if (rc == 0)
		rc = show(&link, o.json, &err);
	rc = flushed(rc, &err);
	if (rc < 0)
		fprintf(stderr, "obd-stat: %s\n", err.msg);
	obd_stat_close(&link);
	return rc ? EXIT_NO_GROUP : 0;
}
