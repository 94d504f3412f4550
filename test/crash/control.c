/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "test/crash/control.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const names[] = {
#define X(name, roles, where) #name,
	OBD_TEST_POINT_TABLE(X)
#undef X
};

struct obd_test_control *control_map(const char *path)
{
	struct stat st;
	int fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return NULL;
	void *p = MAP_FAILED;
	if (fstat(fd, &st) == 0 && (size_t)st.st_size == sizeof(struct obd_test_control))
		p = mmap(NULL, sizeof(struct obd_test_control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	else
		errno = EINVAL;
	close(fd);
	return p == MAP_FAILED ? NULL : p;
}

int control_find(const char *name)
{
	for (int i = 0; i < OBD_TEST_POINTS_COUNT; i++)
		if (strcmp(names[i], name) == 0)
			return i;
	return -1;
}
