/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "common/base/testpoint.h"

uint64_t obd_test_arg(const char *text)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325); /* FNV-1a */
	for (; *text; text++)
		hash = (hash ^ (unsigned char)*text) * UINT64_C(0x100000001b3);
	return hash | 1;
}

#ifdef OBD_TESTPOINTS

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/clock.h"

static struct obd_test_control *control;
static enum obd_test_role role;

static enum obd_test_role find_role(void)
{
	static const char *const names[OBD_TEST_ROLES] = {[OBD_TEST_CACHED] = "obd-cached",
							  [OBD_TEST_FETCHER] = "obd-fetcher",
							  [OBD_TEST_INDEXER] = "obd-indexer",
							  [OBD_TEST_SUPERVISOR] = "obd-supervisor"};
	for (int r = 0; r < OBD_TEST_ROLES; r++)
		if (names[r] && strcmp(program_invocation_short_name, names[r]) == 0)
			return (enum obd_test_role)r;
	return OBD_TEST_FRONTEND;
}

/* Before main: a process may give away its rights to open files. */
__attribute__((constructor)) static void attach(void)
{
	const char *path = getenv("OBD_TEST_POINTS");
	struct stat st;
	int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
	if (fd < 0)
		return;
	void *p = MAP_FAILED;
	if (fstat(fd, &st) == 0 && (size_t)st.st_size >= sizeof *control)
		p = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (p == MAP_FAILED)
		return;
	role = find_role();
	control = p;
	if (control->magic != OBD_TEST_MAGIC || control->points != OBD_TEST_POINTS_COUNT)
		control = NULL;
}

static void act(struct obd_test_cell *cell, unsigned int action)
{
	__atomic_store_n(&cell->struck_ns, obd_clock_ns(), __ATOMIC_RELAXED);
	__atomic_store_n(&cell->struck_pid, (uint64_t)getpid(), __ATOMIC_RELAXED);
	__atomic_fetch_add(&cell->struck, 1, __ATOMIC_SEQ_CST);
	if (action == OBD_TEST_STOP) {
		kill(getpid(), SIGSTOP);
		return;
	}
	kill(getpid(), SIGKILL);
	_exit(137); /* where a sandbox does not let it kill: nothing of the process runs on either way */
}

void obd_test_pass(enum obd_test_point point, uint64_t arg)
{
	if (!control)
		return;
	struct obd_test_cell *cell = &control->cell[point];
	__atomic_fetch_add(&cell->passes[role], 1, __ATOMIC_RELAXED);
	uint64_t armed = __atomic_load_n(&cell->armed, __ATOMIC_ACQUIRE);
	if (!armed || (armed >> 8 & 0xff) != (uint64_t)role)
		return;
	uint64_t want = __atomic_load_n(&cell->arg, __ATOMIC_RELAXED);
	if (want && want != arg)
		return;
	bool always = armed >> 16 & 1;
	if (always || __atomic_fetch_sub(&cell->countdown, 1, __ATOMIC_SEQ_CST) == 1)
		act(cell, armed & 0xff);
}

#endif
