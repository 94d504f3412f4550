/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "supervisor/socket.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static int new_socket(const char *path, int type, struct sockaddr_un *addr)
{
	*addr = (struct sockaddr_un){.sun_family = AF_UNIX};
	if (strlen(path) >= sizeof addr->sun_path)
		return -ENAMETOOLONG;
	strcpy(addr->sun_path, path);
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
	return fd < 0 ? -errno : fd;
}

static int close_failed(int fd)
{
	int rc = -errno;
	close(fd);
	return rc;
}

int obd_socket_listen(const char *path, int type, mode_t mode, int backlog)
{
	struct sockaddr_un addr;
	int fd = new_socket(path, type, &addr);
	if (fd < 0)
		return fd;
	unlink(path);
	if (bind(fd, (const struct sockaddr *)&addr, sizeof addr) < 0 || chmod(path, mode) < 0 || listen(fd, backlog) < 0)
		return close_failed(fd);
	return fd;
}

int obd_socket_connect(const char *path, int type, const struct timeval *limit)
{
	struct sockaddr_un addr;
	int fd = new_socket(path, type, &addr);
	if (fd < 0)
		return fd;
	if (limit) {
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, limit, sizeof *limit);
		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, limit, sizeof *limit); /* connect waits for room in the queue */
	}
	return connect(fd, (const struct sockaddr *)&addr, sizeof addr) < 0 ? close_failed(fd) : fd;
}

bool obd_socket_is_trusted(int fd, struct ucred *cred)
{
	socklen_t len = sizeof *cred;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, cred, &len) < 0) {
		*cred = (struct ucred){0};
		return false;
	}
	return cred->uid == 0 || cred->uid == geteuid();
}
