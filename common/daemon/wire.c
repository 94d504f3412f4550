/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One packet, one struct, at most one descriptor.
 *
 * The receiver believes nothing: recvmsg is given exactly one struct's room and the flags tell of a longer packet; the
 * control buffer has room for a few descriptors more than is allowed, so that a peer that attaches too many is recognised
 * and every descriptor it planted is closed (what does not fit even there, the kernel has already dropped).
 */
#include "common/daemon/wire.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "common/base/util.h"

#define MAX_RECEIVED_FDS 8

static const char *const role_names[OBD_ROLES] = {
	[OBD_ROLE_SUPERVISOR] = "supervisor", [OBD_ROLE_CACHED] = "cached",	[OBD_ROLE_INDEXER] = "indexer",
	[OBD_ROLE_FETCHER] = "fetcher",	      [OBD_ROLE_FRONTEND] = "frontend", [OBD_ROLE_STAT] = "stat",
};

const char *obd_role_name(enum obd_role role)
{
	return (unsigned int)role < OBD_ROLES ? role_names[role] : "unknown";
}

void obd_msg_init(struct obd_msg *msg, enum obd_msg_type type)
{
	memset(msg, 0, sizeof *msg);
	msg->magic = OBD_WIRE_MAGIC;
	msg->type = (uint16_t)type;
}

int obd_msg_send(int sock, const struct obd_msg *msg, int fd)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov = {.iov_base = (void *)(uintptr_t)msg, .iov_len = sizeof *msg};
	struct msghdr hdr = {.msg_iov = &iov, .msg_iovlen = 1};

	if (fd >= 0) {
		memset(&control, 0, sizeof control);
		hdr.msg_control = control.buf;
		hdr.msg_controllen = sizeof control.buf;
		struct cmsghdr *c = CMSG_FIRSTHDR(&hdr);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &fd, sizeof fd);
	}
	ssize_t n;
	do
		n = sendmsg(sock, &hdr, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EWOULDBLOCK ? -EAGAIN : -errno;
	return (size_t)n == sizeof *msg ? 0 : -EIO;
}

/* Collects the descriptors of a received packet. Returns how many there are. */
static size_t take_fds(struct msghdr *hdr, int fds[MAX_RECEIVED_FDS])
{
	size_t count = 0;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(hdr); c; c = CMSG_NXTHDR(hdr, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < n; i++) {
			int fd;
			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof fd);
			if (count < MAX_RECEIVED_FDS)
				fds[count++] = fd;
			else
				close(fd);
		}
	}
	return count;
}

static bool is_terminated(const char *s, size_t size)
{
	return memchr(s, '\0', size) != NULL;
}

static bool carries_fd(uint16_t type)
{
	return type == OBD_MSG_DEPOSIT || type == OBD_MSG_GRANT || type == OBD_MSG_KEEP;
}

static bool is_well_formed(const struct obd_msg *msg, size_t nfds)
{
	return msg->magic == OBD_WIRE_MAGIC && msg->type >= OBD_MSG_DEPOSIT && msg->type < OBD_MSG_TYPES &&
	       msg->role < OBD_ROLES && is_terminated(msg->name, sizeof msg->name) &&
	       is_terminated(msg->text, sizeof msg->text) && nfds == (carries_fd(msg->type) ? 1 : 0);
}

int obd_msg_recv(int sock, struct obd_msg *msg, int *fd)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(MAX_RECEIVED_FDS * sizeof(int))];
	} control;
	struct iovec iov = {.iov_base = msg, .iov_len = sizeof *msg};
	struct msghdr hdr = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buf, .msg_controllen = sizeof control.buf};
	int fds[MAX_RECEIVED_FDS];
	ssize_t n;

	*fd = -1;
	do
		n = recvmsg(sock, &hdr, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0) {
		if (errno == ECONNRESET) /* it closed with our packets unread */
			return 0;
		return errno == EWOULDBLOCK ? -EAGAIN : -errno;
	}
	size_t nfds = take_fds(&hdr, fds);
	if (n == 0 && nfds == 0)
		return 0;
	if ((size_t)n != sizeof *msg || (hdr.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) || !is_well_formed(msg, nfds)) {
		for (size_t i = 0; i < nfds; i++)
			close(fds[i]);
		return -EPROTO;
	}
	if (nfds)
		*fd = fds[0];
	return 1;
}
