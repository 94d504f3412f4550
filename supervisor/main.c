/* SPDX-License-Identifier: GPL-2.0-or-later */
/* obd-supervisor: options, configuration, and then the group (group.c). */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "supervisor/supervisor.h"
#include "supervisor/timeouts.h"

enum action { RUN, CHECK, PRINT_CONFIG };

struct options {
	enum action action;
	const char *config_path;
	const char *bindir; /* NULL: look for it */
};

static void print_usage(FILE *f)
{
	fputs("usage: obd-supervisor [-c FILE] [--check | --print-config]\n"
	      "  -c, --config FILE   configuration (default " OBD_CONFIG_DEFAULT_PATH ")\n"
	      "      --check         check configuration and surroundings, and end\n"
	      "      --print-config  print the configuration with every default, and end\n"
	      "      --bindir DIR    where the group's programs are (for tests)\n"
	      "      --version       print the version, and end\n"
	      "  -h, --help          print this, and end\n",
	      f);
}

/* Returns -1 to go on, or the exit status. */
static int parse_options(int argc, char **argv, struct options *o)
{
	static const struct option longs[] = {{"config", required_argument, NULL, 'c'},
					      {"check", no_argument, NULL, 'C'},
					      {"print-config", no_argument, NULL, 'P'},
					      {"bindir", required_argument, NULL, 'B'},
					      {"version", no_argument, NULL, 'V'},
					      {"help", no_argument, NULL, 'h'},
					      {NULL, 0, NULL, 0}};
	int opt;
	while ((opt = getopt_long(argc, argv, "c:h", longs, NULL)) != -1) {
		switch (opt) {
		case 'c':
			o->config_path = optarg;
			break;
		case 'C':
			o->action = CHECK;
			break;
		case 'P':
			o->action = PRINT_CONFIG;
			break;
		case 'B':
			o->bindir = optarg;
			break;
		case 'V':
			puts("obd-supervisor " OBD_VERSION);
			return 0;
		case 'h':
			print_usage(stdout);
			return 0;
		default:
			print_usage(stderr);
			return 2;
		}
	}
	if (optind != argc) {
		print_usage(stderr);
		return 2;
	}
	return -1;
}

static int complain(const struct obd_err *err)
{
	fprintf(stderr, "obd-supervisor: %s\n", err->msg);
	return 1;
}

static void print_warning(void *arg, const char *line)
{
	(void)arg;
	fprintf(stderr, "obd-supervisor: warning: %s\n", line);
}

static void log_warning(void *arg, const char *line)
{
	(void)arg;
	obd_warn("%s", line);
}

static int check(struct obd_supervisor *sv, const struct options *o)
{
	struct obd_err err = {{0}};
	for (uint32_t i = 0; i < sv->config->warnings.count; i++)
		fprintf(stderr, "obd-supervisor: warning: %s\n", sv->config->warnings.text[i]);
	obd_timeouts_check(sv->config, OBD_ISCSID_CONF, print_warning, NULL);
	if (obd_runtime_check(sv, &err) < 0 || obd_cachedir_check(sv, &err) < 0 || obd_find_programs(sv, o->bindir, &err) < 0 ||
	    obd_tgtd_check(sv, &err) < 0)
		return complain(&err);
	printf("%s: ok\n", sv->config_path);
	return 0;
}

static void log_warnings(const struct obd_warnings *w)
{
	for (uint32_t i = 0; i < w->count; i++)
		obd_warn("%s", w->text[i]);
	if (w->dropped)
		obd_warn("%u more warnings about the configuration", w->dropped);
}

static int run(struct obd_supervisor *sv, const struct options *o)
{
	struct obd_err err = {{0}};
	if (obd_find_programs(sv, o->bindir, &err) < 0 || obd_runtime_enter(sv, &err) < 0 || obd_cachedir_enter(sv, &err) < 0 ||
	    obd_tgtd_check(sv, &err) < 0) {
		obd_runtime_leave(sv);
		return complain(&err); /* on standard error, where whoever started us looks first */
	}
	int rc = obd_log_open(sv->config->log_path, (enum obd_log_level)sv->config->log_level);
	if (rc < 0)
		obd_warn("%s: cannot be opened for logging: %s", sv->config->log_path, strerror(-rc));
	log_warnings(&sv->config->warnings);
	obd_runtime_raise_limits();
	obd_timeouts_check(sv->config, OBD_ISCSID_CONF, log_warning, NULL);
	obd_cachedir_complain(sv);
	obd_info("version " OBD_VERSION ", %s", sv->config_path);
	int status = obd_group_run(sv);
	obd_cachedir_leave(sv);
	obd_runtime_leave(sv);
	return status;
}

static int act(const struct options *o, const struct obd_config *config)
{
	struct obd_supervisor *sv = calloc(1, sizeof *sv);
	char *path = realpath(o->config_path, NULL);
	int status = 1;
	if (sv) {
		sv->config = config;
		sv->config_path = path ? path : o->config_path;
		sv->lock_fd = sv->cache_lock_fd = -1;
		status = o->action == CHECK ? check(sv, o) : run(sv, o);
	}
	free(path);
	free(sv);
	return status;
}

int main(int argc, char **argv)
{
	struct options o = {.action = RUN, .config_path = OBD_CONFIG_DEFAULT_PATH};
	struct obd_config config;
	struct obd_err err = {{0}};
	int status = parse_options(argc, argv, &o);
	if (status >= 0)
		return status;
	obd_log_ident("obd-supervisor");
	if (obd_config_load(o.config_path, &config, &err) < 0)
		return complain(&err);
	if (o.action == PRINT_CONFIG)
		status = obd_config_print(stdout, &config) < 0 || fflush(stdout) == EOF ? 1 : 0;
	else
		status = act(&o, &config);
	obd_config_free(&config);
	return status;
}
