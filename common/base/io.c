/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "common/base/io.h"

#include <errno.h>
#include <unistd.h>

#define OFF_MAX ((uint64_t)INT64_MAX)

ssize_t obd_io_read(int fd, void *buf, size_t n, uint64_t at)
{
	size_t done = 0;
	while (done < n) {
		if (at > OFF_MAX - done)
			return -EINVAL;
		ssize_t r = pread(fd, (char *)buf + done, n - done, (off_t)(at + done));
		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		if (r == 0)
			break;
		done += (size_t)r;
	}
	return (ssize_t)done;
}

int obd_io_write(int fd, const void *buf, size_t n, uint64_t at)
{
	size_t done = 0;
	while (done < n) {
		if (at > OFF_MAX - done)
			return -EFBIG;
		ssize_t r = pwrite(fd, (const char *)buf + done, n - done, (off_t)(at + done));
		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			return r < 0 ? -errno : -EIO;
		done += (size_t)r;
	}
	return 0;
}
