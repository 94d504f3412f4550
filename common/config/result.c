/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "common/config/result.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TEXT_BYTES 1024

static size_t one_line(char *to, size_t size, const char *text)
{
	size_t n = 0;
	for (; n < size - 1 && text[n]; n++)
		to[n] = (unsigned char)text[n] < 0x20 || text[n] == 0x7f ? '?' : text[n];
	to[n] = 0;
	return n;
}

static int write_all(int fd, const char *p, size_t len)
{
	while (len) {
		ssize_t n = write(fd, p, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		p += n;
		len -= (size_t)n;
	}
	/* Launchers run as other users; the text holds nothing secret. */
	return fchmod(fd, 0644) < 0 ? -errno : 0;
}

int obd_result_write(const char *result_file, const char *text)
{
	char line[TEXT_BYTES];
	char *temp;
	if (!result_file || !*result_file)
		return 0;
	size_t len = one_line(line, sizeof line, text);
	if (asprintf(&temp, "%s.XXXXXX", result_file) < 0)
		return -ENOMEM;
	int fd = mkostemp(temp, O_CLOEXEC);
	int rc = fd < 0 ? -errno : 0;
	if (fd >= 0) {
		rc = write_all(fd, line, len);
		close(fd);
		if (rc == 0 && rename(temp, result_file) < 0)
			rc = -errno;
		if (rc)
			unlink(temp);
	}
	free(temp);
	return rc;
}
