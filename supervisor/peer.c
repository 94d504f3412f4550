/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "supervisor/peer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/clock.h"

struct waiting {
	struct obd_list link;
	struct obd_msg msg;
	int fd; /* a duplicate, or -1 */
};

static void on_socket(int fd, uint32_t events, void *arg);

static int watch(struct obd_peer *peer, bool writing)
{
	return obd_loop_watch(peer->loop, peer->fd, writing ? EPOLLIN | EPOLLOUT : EPOLLIN, on_socket, peer);
}

int obd_peer_open(struct obd_peer *peer, struct obd_loop *loop, int fd, const struct obd_peer_ops *ops, void *owner)
{
	*peer = (struct obd_peer){.loop = loop, .ops = ops, .owner = owner, .fd = fd, .progress_ns = obd_clock_ns()};
	obd_list_init(&peer->queue);
	int flags = fcntl(fd, F_GETFL);
	int rc = flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ? -errno : watch(peer, false);
	if (rc < 0) {
		close(fd);
		peer->fd = -1;
	}
	return rc;
}

static void drop_waiting(struct obd_peer *peer, struct waiting *w)
{
	obd_list_remove(&w->link);
	peer->queued--;
	if (w->fd >= 0)
		close(w->fd);
	free(w);
}

static struct waiting *first_waiting(struct obd_peer *peer)
{
	return OBD_LIST_ENTRY(peer->queue.next, struct waiting, link);
}

void obd_peer_close(struct obd_peer *peer)
{
	if (peer->fd < 0)
		return;
	while (!obd_list_empty(&peer->queue))
		drop_waiting(peer, first_waiting(peer));
	obd_loop_watch(peer->loop, peer->fd, 0, NULL, NULL);
	close(peer->fd);
	peer->fd = -1;
}

void obd_peer_break(struct obd_peer *peer, const char *why)
{
	if (peer->fd < 0 || peer->broken)
		return;
	peer->broken = why;
	shutdown(peer->fd, SHUT_RDWR); /* the loop now sees the end */
}

/* ETOOMANYREFS: too many descriptors are under way in the whole system; they are taken out as peers read. */
static bool is_full(int rc)
{
	return rc == -EAGAIN || rc == -ETOOMANYREFS || rc == -ENOBUFS || rc == -ENOMEM;
}

static void enqueue(struct obd_peer *peer, const struct obd_msg *msg, int fd)
{
	struct waiting *w = peer->queued < OBD_PEER_QUEUE_MAX ? malloc(sizeof *w) : NULL;
	int copy = -1;
	if (w && fd >= 0)
		copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (!w || (fd >= 0 && copy < 0)) {
		free(w);
		obd_peer_break(peer, "it does not read what it is sent");
		return;
	}
	w->msg = *msg;
	w->fd = copy;
	if (peer->queued++ == 0) {
		peer->progress_ns = obd_clock_ns();
		watch(peer, true);
	}
	obd_list_push_back(&peer->queue, &w->link);
}

void obd_peer_send(struct obd_peer *peer, const struct obd_msg *msg, int fd)
{
	if (peer->fd < 0 || peer->broken || peer->ended)
		return;
	int rc = peer->queued ? -EAGAIN : obd_msg_send(peer->fd, msg, fd);
	if (is_full(rc))
		enqueue(peer, msg, fd);
	else if (rc < 0 && rc != -EPIPE && rc != -ECONNRESET) /* those two: the loop sees the end */
		obd_peer_break(peer, strerror(-rc));
}

static void flush(struct obd_peer *peer)
{
	while (peer->queued && !peer->broken) {
		struct waiting *w = first_waiting(peer);
		int rc = obd_msg_send(peer->fd, &w->msg, w->fd);
		if (is_full(rc))
			return;
		if (rc < 0) {
			obd_peer_break(peer, strerror(-rc));
			return;
		}
		drop_waiting(peer, w);
		peer->progress_ns = obd_clock_ns();
	}
	if (peer->queued)
		return;
	watch(peer, false);
	if (peer->ops->drained)
		peer->ops->drained(peer);
}

static void end(struct obd_peer *peer, const char *why)
{
	if (peer->ended)
		return;
	peer->ended = true;
	obd_loop_watch(peer->loop, peer->fd, 0, NULL, NULL);
	peer->ops->closed(peer, why);
}

static void receive(struct obd_peer *peer)
{
	struct obd_msg msg;
	int fd;
	int rc = obd_msg_recv(peer->fd, &msg, &fd);
	if (peer->broken && rc != -EAGAIN) {
		if (rc == 1 && fd >= 0)
			close(fd);
		end(peer, peer->broken);
	} else if (rc == 1) {
		peer->ops->message(peer, &msg, fd);
	} else if (rc == 0) {
		end(peer, NULL);
	} else if (rc == -EPROTO) {
		end(peer, "malformed packet");
	} else if (rc != -EAGAIN) {
		end(peer, strerror(-rc));
	}
}

static void on_socket(int fd, uint32_t events, void *arg)
{
	struct obd_peer *peer = arg;
	(void)fd;
	if ((events & EPOLLOUT) && peer->queued && !peer->broken && !(events & (EPOLLERR | EPOLLHUP))) {
		/* Reading waits for the next turn: drained may have closed the peer. */
		flush(peer);
		return;
	}
	if (events & (EPOLLIN | EPOLLERR | EPOLLHUP))
		receive(peer);
}

bool obd_peer_is_stuck(const struct obd_peer *peer, uint64_t now_ns, uint64_t limit_ns)
{
	return peer->fd >= 0 && peer->queued && now_ns - peer->progress_ns > limit_ns;
}
