/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Time-outs that contradict each other are told, each with one line; those that do not are not. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "supervisor/timeouts.h"

static struct obd_config config;
static char path[64], said[4096];
static unsigned int lines;

static void set_up(void)
{
	ck_assert_int_eq(obd_config_defaults(&config), 0);
	strcpy(path, "/tmp/obd-iscsid.XXXXXX");
	int fd = mkstemp(path);
	ck_assert(fd >= 0);
	close(fd);
}

static void tear_down(void)
{
	unlink(path);
	obd_config_free(&config);
}

static void say(void *arg, const char *line)
{
	(void)arg;
	lines++;
	strncat(said, line, sizeof said - strlen(said) - 1);
}

static void check_with(const char *iscsid_conf)
{
	FILE *f = fopen(path, "w");
	ck_assert(f && fputs(iscsid_conf, f) >= 0 && fclose(f) == 0);
	lines = 0;
	said[0] = '\0';
	obd_timeouts_check(&config, path, say, NULL);
}

START_TEST(defaults_agree)
{
	obd_timeouts_check(&config, "/no/such/file", say, NULL);
	check_with("# node.session.timeo.replacement_timeout = 1\n"
		   "node.session.timeo.replacement_timeout = 120\n"
		   "node.conn[0].timeo.noop_out_interval = 5\nnode.conn[0].timeo.noop_out_timeout = 5\n");
	ck_assert_msg(lines == 0, "%s", said);
}
END_TEST

START_TEST(the_initiator_gives_up_too_early)
{
	check_with("node.session.timeo.replacement_timeout = 14\n");
	ck_assert(lines == 1 && strstr(said, "replacement_timeout 14") && strstr(said, "use 120"));
	check_with("node.session.timeo.replacement_timeout=15\n");
	ck_assert_uint_eq(lines, 0);
	check_with("node.session.timeo.replacement_timeout = -1\n"); /* never */
	ck_assert_uint_eq(lines, 0);
	check_with("node.conn[0].timeo.noop_out_interval = 1\n  node.conn[0].timeo.noop_out_timeout = 1\n");
	ck_assert(lines == 1 && strstr(said, "noop_out_timeout 1"));
	check_with("node.conn[0].timeo.noop_out_interval = 0\nnode.conn[0].timeo.noop_out_timeout = 1\n"); /* no pings */
	ck_assert_uint_eq(lines, 0);
}
END_TEST

START_TEST(ours_contradict_each_other)
{
	config.hang_sec = 30;
	check_with("");
	ck_assert(lines == 1 && strstr(said, "hangSec 30"));
	config.hang_sec = 29;
	config.credential_timeout = 60;
	config.read_timeout_sec = 60;
	check_with("");
	ck_assert_uint_eq(lines, 0); /* there is no service to wait for */
	config.credential_mode = OBD_CREDENTIAL_HTTP;
	check_with("");
	ck_assert(lines == 1 && strstr(said, "credentialConfig.timeout 60"));
	config.read_timeout_sec = 0; /* for ever */
	check_with("");
	ck_assert_uint_eq(lines, 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("timeouts");
	TCase *t = tcase_create("all");
	tcase_add_checked_fixture(t, set_up, tear_down);
	tcase_add_test(t, defaults_agree);
	tcase_add_test(t, the_initiator_gives_up_too_early);
	tcase_add_test(t, ours_contradict_each_other);
	suite_add_tcase(s, t);
	SRunner *runner = srunner_create(s);
	srunner_run_all(runner, CK_NORMAL);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
