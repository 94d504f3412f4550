/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * obd-testpoint: arms test points (common/base/testpoint.h) and says what came of it.
 *
 *   list                                      the points: name, roles, where
 *   create FILE                               a control file with nothing armed
 *   arm FILE POINT ROLE kill|stop NTH [TEXT]  ROLE: c f i a s. NTH: 1 the next pass; 0 every pass. TEXT: only where it names
 * this disarm FILE [POINT]                       all points, or one wait FILE POINT MS                        until it struck;
 * prints the pid. Exit status 1: it did not struck FILE POINT                         how often it struck passes FILE name,
 * role and passes of all that was passed missing FILE                              name and role of what should be passed and
 * was not
 *
 * Exit status 2: cannot.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "test/crash/control.h"

static const char role_letters[] = "cfias";

static const struct {
	const char *name, *roles, *where;
} points[] = {
#define X(name, roles, where) {#name, roles, where},
	OBD_TEST_POINT_TABLE(X)
#undef X
};

__attribute__((noreturn)) static void cannot(const char *what, const char *why)
{
	fprintf(stderr, "obd-testpoint: %s: %s\n", what, why);
	exit(2);
}

static struct obd_test_control *map(const char *path)
{
	struct obd_test_control *c = control_map(path);
	if (!c)
		cannot(path, "no control file");
	return c;
}

static struct obd_test_cell *cell(struct obd_test_control *c, const char *name)
{
	int i = control_find(name);
	if (i < 0)
		cannot(name, "no such point");
	return &c->cell[i];
}

static int list(void)
{
	for (int i = 0; i < OBD_TEST_POINTS_COUNT; i++)
		printf("%s %s %s\n", points[i].name, points[i].roles, points[i].where);
	return 0;
}

static int create(const char *path)
{
	struct obd_test_control c = {.magic = OBD_TEST_MAGIC, .points = OBD_TEST_POINTS_COUNT};
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	if (fd < 0 || fchmod(fd, 0666) || write(fd, &c, sizeof c) != (ssize_t)sizeof c || close(fd))
		cannot(path, "cannot be written");
	return 0;
}

static void disarm(struct obd_test_control *c, const char *name)
{
	for (int i = 0; i < OBD_TEST_POINTS_COUNT; i++)
		if (!name || &c->cell[i] == cell(c, name))
			__atomic_store_n(&c->cell[i].armed, 0, __ATOMIC_SEQ_CST);
}

static int arm(struct obd_test_control *c, char **argv, int argc)
{
	struct obd_test_cell *p = cell(c, argv[0]);
	const char *role = strchr(role_letters, argv[1][0]);
	uint64_t nth = strtoull(argv[3], NULL, 0);
	uint64_t action = strcmp(argv[2], "stop") == 0 ? OBD_TEST_STOP : OBD_TEST_KILL;
	if (!role || strlen(argv[1]) != 1)
		cannot(argv[1], "no such role");
	__atomic_store_n(&p->armed, 0, __ATOMIC_SEQ_CST);
	__atomic_store_n(&p->struck, 0, __ATOMIC_SEQ_CST);
	__atomic_store_n(&p->countdown, nth, __ATOMIC_SEQ_CST);
	__atomic_store_n(&p->arg, argc > 4 ? obd_test_arg(argv[4]) : 0, __ATOMIC_SEQ_CST);
	uint64_t armed = action | (uint64_t)(role - role_letters) << 8 | (nth == 0 ? UINT64_C(1) << 16 : 0);
	__atomic_store_n(&p->armed, armed, __ATOMIC_SEQ_CST);
	return 0;
}

static int wait_for(struct obd_test_cell *p, uint64_t ms)
{
	uint64_t end = obd_clock_ns() + ms * OBD_MS_NS;
	while (!__atomic_load_n(&p->struck, __ATOMIC_SEQ_CST)) {
		if (obd_clock_ns() > end)
			return 1;
		usleep(2000);
	}
	printf("%" PRIu64 "\n", p->struck_pid);
	return 0;
}

/* Those that were passed, or those that were not and should be. */
static int show(const struct obd_test_control *c, bool missing)
{
	for (int i = 0; i < OBD_TEST_POINTS_COUNT; i++)
		for (int r = 0; r < OBD_TEST_ROLES; r++) {
			uint64_t n = __atomic_load_n(&c->cell[i].passes[r], __ATOMIC_RELAXED);
			if (n && !missing)
				printf("%s %c %" PRIu64 "\n", points[i].name, role_letters[r], n);
			else if (!n && missing && strchr(points[i].roles, role_letters[r]))
				printf("%s %c\n", points[i].name, role_letters[r]);
		}
	return 0;
}

int main(int argc, char **argv)
{
	const char *verb = argc > 1 ? argv[1] : "";
	if (strcmp(verb, "list") == 0)
		return list();
	if (argc < 3)
		cannot(verb, "see the head of test/crash/obd-testpoint.c");
	if (strcmp(verb, "create") == 0)
		return create(argv[2]);
	struct obd_test_control *c = map(argv[2]);
	if (strcmp(verb, "arm") == 0 && argc >= 7)
		return arm(c, argv + 3, argc - 3);
	if (strcmp(verb, "disarm") == 0) {
		disarm(c, argv[3]);
		return 0;
	}
	if (strcmp(verb, "wait") == 0 && argc == 5)
		return wait_for(cell(c, argv[3]), strtoull(argv[4], NULL, 0));
	if (strcmp(verb, "struck") == 0 && argc == 4) {
		printf("%" PRIu64 "\n", cell(c, argv[3])->struck);
		return 0;
	}
	if (strcmp(verb, "passes") == 0 || strcmp(verb, "missing") == 0)
		return show(c, verb[0] == 'm');
	cannot(verb, "see the head of test/crash/obd-testpoint.c");
}
