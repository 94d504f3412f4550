/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The link to the group.
 *
 *   DOWN --connect, HELLO--> HANDSHAKE --grants, WELCOME--> UP
 *     ^                          |                          |
 *     +------ socket closed, refused, malformed: back-off --+
 *
 * One epoll descriptor, which never changes, holds the socket, the doorbell and a timer; it is what the host waits on.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/daemon/wire.h"
#include "frontend/client/internal.h"

#define DEFAULT_RUNTIME_DIR "/run/overlaybd"

enum { HANDSHAKE_MS = 2000, BACKOFF_FIRST_MS = 10, BACKOFF_LAST_MS = 500, ROUNDS = 16, BUDGET = 256 };

static int watch(struct obd_client *c, int fd)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.fd = fd};
	return epoll_ctl(c->epfd, EPOLL_CTL_ADD, fd, &ev) ? -errno : 0;
}

void obd_client_arm_timer(struct obd_client *c, uint64_t ms)
{
	struct itimerspec now, its = {.it_value = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000 * 1000000)}};
	timerfd_gettime(c->timerfd, &now);
	uint64_t left_ms = (uint64_t)now.it_value.tv_sec * 1000 + (uint64_t)now.it_value.tv_nsec / 1000000;
	if ((now.it_value.tv_sec || now.it_value.tv_nsec) && left_ms <= ms)
		return; /* it will ring before that anyhow, and its handler looks at everything */
	timerfd_settime(c->timerfd, 0, &its, NULL);
}

/* The segment dies with the group. It is unmapped at once: its huge pages are what the next group's segment is made of. */
static void unmap(struct obd_client *c)
{
	obd_devices_lost(c);
	obd_segment_close(&c->seg);
	c->mapped = false;
}

static void drop_socket(struct obd_client *c)
{
	if (c->mapped)
		unmap(c);
	if (c->sock >= 0)
		close(c->sock); /* leaves the epoll set by itself */
	c->sock = -1;
	obd_segment_close(&c->next);
	c->state = LINK_DOWN;
	obd_client_arm_timer(c, c->backoff_ms);
	c->backoff_ms = c->backoff_ms * 2 < BACKOFF_LAST_MS ? c->backoff_ms * 2 : BACKOFF_LAST_MS;
}

static int connect_socket(struct obd_client *c, struct obd_err *err)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	_Static_assert(sizeof sa.sun_path == sizeof c->socket_path, "a socket path fits");
	memcpy(sa.sun_path, c->socket_path, sizeof sa.sun_path);
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return obd_err_set(err, errno, "socket: %s", strerror(errno));
	if (connect(fd, (struct sockaddr *)&sa, sizeof sa) != 0) {
		int rc = obd_err_set(err, ENOTCONN, "no overlaybd group answers at %s: %s", c->socket_path, strerror(errno));
		close(fd);
		return rc;
	}
	c->sock = fd;
	return 0;
}

static int start_handshake(struct obd_client *c, struct obd_err *err)
{
	struct obd_msg hello;
	int rc = connect_socket(c, err);
	if (rc)
		return rc;
	obd_msg_init(&hello, OBD_MSG_HELLO);
	hello.role = OBD_ROLE_FRONTEND;
	hello.arg = OBD_WIRE_VERSION;
	hello.index = c->id; /* what we were is unmapped */
	hello.flags = c->incarnation;
	rc = obd_msg_send(c->sock, &hello, -1);
	if (rc == 0)
		rc = watch(c, c->sock);
	if (rc) {
		drop_socket(c);
		return obd_err_set(err, -rc, "%s: %s", c->socket_path, strerror(-rc));
	}
	c->state = LINK_HANDSHAKE;
	return 0;
}

static bool complete(const struct obd_segment *s, uint32_t id)
{
	return s->frames && s->fills && s->table && s->catalog && s->index && s->recency && id < OBD_MAX_CLIENTS &&
	       s->client[id] && s->bell_client[id] >= 0;
}

/* The handshake is through: the new segment takes the place of the old one, if any, and everything is asked for again. */
static int welcome(struct obd_client *c, const struct obd_msg *msg)
{
	int rc = obd_segment_map(&c->next, &c->why);
	if (rc == 0 && !complete(&c->next, msg->index))
		rc = obd_err_set(&c->why, EPROTO, "%s: the group granted less than a frontend needs", c->socket_path);
	if (rc == 0)
		rc = watch(c, c->next.bell_client[msg->index]);
	if (rc)
		return rc;
	c->seg = c->next;
	obd_segment_init(&c->next);
	c->id = msg->index;
	c->incarnation = (uint32_t)msg->arg;
	c->state = LINK_UP;
	c->backoff_ms = BACKOFF_FIRST_MS;
	obd_reader_attach(&c->reader, &c->seg, c->id, OBD_ROLE_FRONTEND, c->incarnation);
	if (c->was_up)
		obd_info("connected to the group again");
	c->mapped = c->was_up = true;
	obd_devices_again(c);
	return 0;
}

static int handle(struct obd_client *c, const struct obd_msg *msg, int fd)
{
	switch (msg->type) {
	case OBD_MSG_GRANT:
		if (fd < 0 || c->state != LINK_HANDSHAKE)
			break;
		return obd_segment_take(&c->next, msg->name, msg->index, (msg->flags & OBD_GRANT_WRITE) != 0, fd, &c->why);
	case OBD_MSG_WELCOME:
		return c->state == LINK_HANDSHAKE ? welcome(c, msg) : 0;
	case OBD_MSG_REFUSED:
		return obd_err_set(&c->why, ECONNREFUSED, "the group refuses: %s", msg->text);
	default:
		break;
	}
	if (fd >= 0)
		close(fd);
	return 0;
}

static void read_socket(struct obd_client *c)
{
	while (c->sock >= 0) {
		struct obd_msg msg;
		int fd = -1;
		int rc = obd_msg_recv(c->sock, &msg, &fd);
		if (rc == -EAGAIN)
			return;
		if (rc == 1 && handle(c, &msg, fd) == 0)
			continue;
		if (c->state == LINK_UP)
			obd_warn("the group at %s is gone; requests wait for the next one", c->socket_path);
		drop_socket(c);
	}
}

static void timer(struct obd_client *c)
{
	uint64_t n;
	ssize_t ignored = read(c->timerfd, &n, sizeof n);
	(void)ignored;
	if (c->state == LINK_DOWN) {
		struct obd_err err;
		if (start_handshake(c, &err) && c->state == LINK_DOWN)
			drop_socket(c);
	}
	bool waits = obd_devices_turn(c);
	if (c->mapped)
		obd_ios_retry(c);
	if (waits || !obd_list_empty(&c->retry))
		obd_client_arm_timer(c, 1000);
}

/* --- dispatch
 * -------------------------------------------------------------------------------------------------------------------- */

static bool drain(struct obd_client *c)
{
	bool did = obd_reader_poll(&c->reader, BUDGET, obd_io_answer, c) > 0;
	did |= obd_devices_poll(c);
	did |= obd_ups_poll(c);
	if (did)
		obd_ios_retry(c);
	return did;
}

static bool has_work(struct obd_client *c)
{
	return obd_reader_has_answer(&c->reader) || obd_devices_have_work(c) || obd_ups_have_work(c);
}

/* Works until there is nothing, then announces sleep and looks again. A host has other things to do: after ROUNDS the doorbell
 * is rung by ourselves and the rest waits for the next call. */
static void work(struct obd_client *c)
{
	struct obd_proc *own = &c->reader.own->proc;
	obd_sleep_cancel(own);
	obd_proc_heartbeat(own);
	for (int round = 0; round < ROUNDS; round++) {
		if (drain(c))
			continue;
		obd_sleep_announce(own);
		if (!has_work(c))
			return;
		obd_sleep_cancel(own);
	}
	uint64_t one = 1;
	ssize_t ignored = write(c->seg.bell_client[c->id], &one, sizeof one);
	(void)ignored;
}

void obd_client_dispatch(struct obd_client *c)
{
	struct epoll_event ev[4];
	int n = epoll_wait(c->epfd, ev, 4, 0);
	for (int i = 0; i < n; i++) {
		if (ev[i].data.fd == c->sock)
			read_socket(c);
		else if (ev[i].data.fd == c->timerfd)
			timer(c);
		else if (c->mapped && ev[i].data.fd == c->seg.bell_client[c->id])
			obd_bell_drain(ev[i].data.fd);
	}
	if (c->mapped)
		work(c);
}

int obd_client_fd(const struct obd_client *c)
{
	return c->epfd;
}

enum obd_device_state obd_client_wait(struct obd_client *c, struct obd_device *dev, int timeout_ms)
{
	uint64_t end = obd_clock_ns() + (uint64_t)timeout_ms * OBD_MS_NS;
	for (;;) {
		obd_client_dispatch(c);
		uint64_t now = obd_clock_ns();
		if (dev->state != OBD_DEVICE_OPENING || now >= end)
			return dev->state;
		struct pollfd p = {.fd = c->epfd, .events = POLLIN};
		poll(&p, 1, (int)((end - now) / OBD_MS_NS) + 1);
	}
}

/* --- birth and death
 * -------------------------------------------------------------------------------------------------------------- */

static int socket_path(struct obd_client *c, const char *dir, struct obd_err *err)
{
	static const char name[] = "/supervisor.sock";
	if (!dir || !*dir)
		dir = getenv("OVERLAYBD_RUNTIME_DIR");
	if (!dir || !*dir)
		dir = DEFAULT_RUNTIME_DIR;
	if (strlen(dir) + sizeof name > sizeof c->socket_path)
		return obd_err_set(err, ENAMETOOLONG, "%s: the path of its socket is longer than %zu bytes", dir,
				   sizeof c->socket_path - 1);
	strcpy(c->socket_path, dir);
	strcat(c->socket_path, name);
	return 0;
}

int obd_client_link(struct obd_client *c, struct obd_err *err)
{
	int rc = c->state == LINK_DOWN ? start_handshake(c, err) : 0;
	uint64_t end = obd_clock_ns() + HANDSHAKE_MS * OBD_MS_NS;
	while (rc == 0 && c->state == LINK_HANDSHAKE) {
		struct pollfd p = {.fd = c->sock, .events = POLLIN};
		uint64_t now = obd_clock_ns();
		if (now >= end || poll(&p, 1, (int)((end - now) / OBD_MS_NS) + 1) == 0)
			return obd_err_set(err, ENOTCONN, "the group at %s did not answer within %d ms", c->socket_path,
					   HANDSHAKE_MS);
		read_socket(c);
	}
	if (rc == 0 && c->state != LINK_UP)
		rc = obd_err_set(err, ENOTCONN, "%s", c->why.msg[0] ? c->why.msg : "the group closed the connection");
	return rc;
}

int obd_client_new(const char *runtime_dir, struct obd_client **out, struct obd_err *err)
{
	struct obd_client *c = calloc(1, sizeof *c);
	if (!c)
		return obd_err_set(err, ENOMEM, "out of memory");
	c->sock = -1;
	c->backoff_ms = BACKOFF_FIRST_MS;
	obd_segment_init(&c->seg);
	obd_segment_init(&c->next);
	obd_list_init(&c->devices);
	obd_list_init(&c->retry);
	obd_list_init(&c->up_turn);
	c->epfd = epoll_create1(EPOLL_CLOEXEC);
	c->timerfd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	int rc = c->epfd < 0 || c->timerfd < 0 ? obd_err_set(err, errno, "cannot make descriptors: %s", strerror(errno)) : 0;
	if (rc == 0)
		rc = watch(c, c->timerfd);
	if (rc == 0)
		rc = socket_path(c, runtime_dir, err);
	if (rc == 0)
		rc = obd_client_link(c, err);
	if (rc) {
		obd_client_free(c);
		return rc;
	}
	work(c);
	*out = c;
	return 0;
}

void obd_client_free(struct obd_client *c)
{
	if (!c)
		return;
	while (!obd_list_empty(&c->devices))
		obd_client_close(OBD_LIST_ENTRY(c->devices.next, struct obd_device, link));
	obd_client_free_pieces(c);
	if (c->sock >= 0)
		close(c->sock);
	obd_segment_close(&c->next);
	obd_segment_close(&c->seg);
	if (c->timerfd >= 0)
		close(c->timerfd);
	if (c->epfd >= 0)
		close(c->epfd);
	free(c);
}
