/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "common/config/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int fail(struct obd_err *err, int code, const char *path)
{
	return obd_err_set(err, code, "%s: %s", path, strerror(code));
}

/* Reads until end of file or until the buffer is full; returns the count or a negative errno. */
static ssize_t read_full(int fd, char *buf, size_t size)
{
	size_t done = 0;
	while (done < size) {
		ssize_t n = read(fd, buf + done, size - done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

static int read_open(int fd, const char *path, size_t max_bytes, char **buf, size_t *len, struct obd_err *err)
{
	struct stat st;
	if (fstat(fd, &st) < 0)
		return fail(err, errno, path);
	if (!S_ISREG(st.st_mode))
		return obd_err_set(err, EINVAL, "%s: not a regular file", path);
	if (st.st_size < 0 || (size_t)st.st_size > max_bytes)
		return obd_err_set(err, EFBIG, "%s: larger than %zu bytes", path, max_bytes);

	/* Files below /proc and /sys say 0, and a file may grow meanwhile: one byte more than allowed tells. */
	char *p = malloc(max_bytes + 1);
	if (!p)
		return fail(err, ENOMEM, path);
	ssize_t n = read_full(fd, p, max_bytes + 1);
	if (n < 0 || (size_t)n > max_bytes) {
		free(p);
		return n < 0 ? fail(err, (int)-n, path) : obd_err_set(err, EFBIG, "%s: larger than %zu bytes", path, max_bytes);
	}
	p[n] = 0;
	char *fit = realloc(p, (size_t)n + 1);
	*buf = fit ? fit : p;
	*len = (size_t)n;
	return 0;
}

int obd_file_read(const char *path, size_t max_bytes, char **buf, size_t *len, struct obd_err *err)
{
	*buf = NULL;
	*len = 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return fail(err, errno, path);
	int rc = read_open(fd, path, max_bytes, buf, len, err);
	close(fd);
	return rc;
}
