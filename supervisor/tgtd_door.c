/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The control socket of the tgtd that we own, under the name that tgtadm looks for. Guests are checked like tgtd does (root
 * only), their requests wait in one queue, and each connection carries one request.
 *
 * A guest:  READING --whole--> WAITING --its turn--> (first of the queue) --answered--> WRITING --> gone
 *
 * A guest that goes away while it waits is forgotten; what is under way for it is carried out and noted all the same.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "supervisor/socket.h"
#include "supervisor/tgtd.h"

#define USUAL_SOCKET "/var/run/tgtd/socket"
#define GUESTS_MAX 64
#define MUTE_NS (10 * OBD_SECOND_NS) /* for a request to be whole, for an answer to be taken */
#define WAIT_NS (60 * OBD_SECOND_NS) /* for tgtd */
#define UNKNOWN_ERROR 1		     /* of tgtadm */

enum guest_state { READING, WAITING, ASKING, WRITING };

struct guest {
	struct obd_tgtd_door *door;
	struct obd_list link;
	int fd; /* -1: gone, its request is under way */
	enum guest_state state;
	uint64_t since_ns;
	char *buf; /* the request and a NUL, later the answer */
	size_t len, done;
};

struct obd_tgtd_door {
	struct obd_tgtd *tgtd;
	struct obd_loop *loop;
	int fd;
	char path[108];
	struct obd_list guests; /* in the order of their coming */
	uint32_t count;
};

static void hang_up(struct guest *g)
{
	if (g->fd < 0)
		return;
	obd_loop_watch(g->door->loop, g->fd, 0, NULL, NULL);
	close(g->fd);
	g->fd = -1;
}

static void drop(struct guest *g)
{
	hang_up(g);
	obd_list_remove(&g->link);
	g->door->count--;
	free(g->buf);
	free(g);
}

static uint32_t request_bytes(const struct guest *g)
{
	struct obd_tgtadm_head head;
	memcpy(&head, g->buf, sizeof head);
	return head.bytes;
}

/* False: the guest must go. */
static bool read_request(struct guest *g)
{
	size_t want = g->len < sizeof(struct obd_tgtadm_head) ? sizeof(struct obd_tgtadm_head) : request_bytes(g);
	if (want < sizeof(struct obd_tgtadm_head) || want > OBD_TGTADM_REQUEST_MAX)
		return false;
	char *buf = realloc(g->buf, want + 1);
	if (!buf)
		return false;
	g->buf = buf;
	ssize_t n = g->len < want ? read(g->fd, g->buf + g->len, want - g->len) : 0;
	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	if (n == 0 && g->len < want)
		return false;
	g->len += (size_t)n;
	g->buf[g->len] = '\0';
	if (g->len < want || (g->len == sizeof(struct obd_tgtadm_head) && request_bytes(g) > g->len))
		return true;
	if (request_bytes(g) != g->len)
		return false;
	g->state = WAITING;
	g->since_ns = obd_clock_ns();
	return true;
}

static bool write_answer(struct guest *g)
{
	ssize_t n = send(g->fd, g->buf + g->done, g->len - g->done, MSG_NOSIGNAL);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	g->done += (size_t)n;
	return g->done < g->len;
}

static void on_guest(int fd, uint32_t events, void *arg)
{
	struct guest *g = arg;
	struct obd_tgtd_door *door = g->door;
	bool keep = true;
	(void)fd;
	if (g->state == READING)
		keep = read_request(g);
	else if (g->state == WRITING)
		keep = write_answer(g);
	else if (events & (EPOLLHUP | EPOLLRDHUP | EPOLLERR | EPOLLIN)) /* it went away, or says more than it should */
		keep = false;
	if (!keep && g->state == ASKING) {
		hang_up(g);
	} else if (!keep) {
		drop(g);
	} else if (g->state == WAITING) {
		obd_loop_watch(door->loop, g->fd, EPOLLRDHUP, on_guest, g);
		obd_tgtd_pump(door->tgtd);
	}
}

/* ---- the queue ---- */

static struct guest *asking(struct obd_tgtd_door *door)
{
	OBD_LIST_FOREACH (it, &door->guests) {
		struct guest *g = OBD_LIST_ENTRY(it, struct guest, link);
		if (g->state == ASKING)
			return g;
	}
	return NULL;
}

const struct obd_tgtadm_head *obd_tgtd_door_next(struct obd_tgtd_door *door, const char **text)
{
	static struct obd_tgtadm_head head;
	struct guest *first = asking(door);
	for (struct obd_list *it = door->guests.next; !first && it != &door->guests; it = it->next) {
		struct guest *g = OBD_LIST_ENTRY(it, struct guest, link);
		first = g->state == WAITING ? g : NULL;
	}
	if (!first)
		return NULL;
	first->state = ASKING;
	memcpy(&head, first->buf, sizeof head);
	*text = first->buf + sizeof head;
	return &head;
}

void obd_tgtd_door_answer(struct obd_tgtd_door *door, const struct obd_tgtadm_answer *answer, const char *text, size_t len)
{
	struct guest *g = asking(door);
	char *buf = g && g->fd >= 0 ? malloc(sizeof *answer + len) : NULL;
	if (!g)
		return;
	if (!buf) {
		drop(g);
		return;
	}
	memcpy(buf, answer, sizeof *answer);
	memcpy(buf + sizeof *answer, text, len);
	free(g->buf);
	g->buf = buf;
	g->len = sizeof *answer + len;
	g->done = 0;
	g->state = WRITING;
	g->since_ns = obd_clock_ns();
	if (obd_loop_watch(door->loop, g->fd, EPOLLOUT, on_guest, g) < 0)
		drop(g);
}

void obd_tgtd_door_refuse(struct obd_tgtd_door *door)
{
	struct obd_tgtadm_answer answer = {.err = UNKNOWN_ERROR, .bytes = sizeof answer};
	obd_tgtd_door_answer(door, &answer, "", 0);
}

void obd_tgtd_door_tick(struct obd_tgtd_door *door, uint64_t now_ns)
{
	OBD_LIST_FOREACH_SAFE (it, &door->guests) {
		struct guest *g = OBD_LIST_ENTRY(it, struct guest, link);
		uint64_t age = now_ns > g->since_ns ? now_ns - g->since_ns : 0;
		if (g->state != ASKING && age > (g->state == WAITING ? WAIT_NS : MUTE_NS))
			drop(g);
	}
}

/* ---- the socket ---- */

static void on_accept(int listen_fd, uint32_t events, void *arg)
{
	struct obd_tgtd_door *door = arg;
	(void)events;
	int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0)
		return;
	struct ucred cred;
	struct guest *g = obd_socket_is_trusted(fd, &cred) && door->count < GUESTS_MAX ? calloc(1, sizeof *g) : NULL;
	if (g) {
		g->door = door;
		g->fd = fd;
		g->since_ns = obd_clock_ns();
		obd_list_init(&g->link);
		if (obd_loop_watch(door->loop, fd, EPOLLIN, on_guest, g) == 0) {
			obd_list_push_back(&door->guests, &g->link);
			door->count++;
			return;
		}
	}
	free(g);
	close(fd);
}

/* tgtadm and tgtd look for the socket like this. */
static int usual_path(const struct obd_supervisor *sv, char *path, size_t size, struct obd_err *err)
{
	const char *base = getenv("TGT_IPC_SOCKET");
	int n = snprintf(path, size, "%s.%u", base && *base ? base : USUAL_SOCKET, sv->config->frontend_control_port);
	if (n < 0 || (size_t)n >= size)
		return obd_err_set(err, ENAMETOOLONG, "%.64s...: the control socket's path is too long", base);
	return 0;
}

/* Does somebody listen there? What nobody listens on may be taken away. */
static int is_taken(const char *path, struct obd_err *err)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	snprintf(addr.sun_path, sizeof addr.sun_path, "%s", path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return obd_err_set(err, errno, "%s: %s", path, strerror(errno));
	int rc = connect(fd, (const struct sockaddr *)&addr, sizeof addr) < 0 ? errno : 0;
	close(fd);
	if (rc == 0 || rc == EAGAIN)
		return obd_err_set(err, EBUSY,
				   "%s: another tgtd runs on this control port; end it, or set frontend.controlPort", path);
	return 0;
}

static int bind_door(struct obd_tgtd_door *door)
{
	if (strcmp(door->path, USUAL_SOCKET) > 0 && strncmp(door->path, USUAL_SOCKET, strlen(USUAL_SOCKET)) == 0)
		mkdir("/var/run/tgtd", 0755);
	int fd = obd_socket_listen(door->path, SOCK_STREAM | SOCK_NONBLOCK, 0600, 64);
	if (fd < 0)
		return fd;
	door->fd = fd;
	return obd_loop_watch(door->loop, door->fd, EPOLLIN, on_accept, door);
}

int obd_tgtd_door_open(struct obd_tgtd *t, struct obd_tgtd_door **out, struct obd_err *err)
{
	struct obd_supervisor *sv = obd_tgtd_supervisor(t);
	struct obd_tgtd_door *door = calloc(1, sizeof *door);
	if (!door)
		return obd_err_set(err, ENOMEM, "out of memory");
	door->tgtd = t;
	door->loop = sv->loop;
	door->fd = -1;
	obd_list_init(&door->guests);
	int rc = usual_path(sv, door->path, sizeof door->path, err);
	if (rc == 0)
		rc = is_taken(door->path, err);
	if (rc == 0) {
		rc = bind_door(door);
		if (rc < 0)
			obd_err_set(err, -rc, "%s: %s", door->path, strerror(-rc));
	}
	if (rc < 0) {
		if (door->fd >= 0)
			close(door->fd);
		free(door);
		return rc;
	}
	*out = door;
	return 0;
}

void obd_tgtd_door_close(struct obd_tgtd_door *door)
{
	if (!door)
		return;
	OBD_LIST_FOREACH_SAFE (it, &door->guests)
		drop(OBD_LIST_ENTRY(it, struct guest, link));
	obd_loop_watch(door->loop, door->fd, 0, NULL, NULL);
	close(door->fd);
	unlink(door->path);
	free(door);
}
