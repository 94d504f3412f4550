/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "supervisor/socket.h"
#include "supervisor/tgtd.h"

bool obd_tgtd_call_is_busy(const struct obd_tgtd_call *c)
{
	return c->fd >= 0;
}

void obd_tgtd_call_drop(struct obd_tgtd_call *c)
{
	if (c->fd >= 0) {
		obd_loop_watch(c->loop, c->fd, 0, NULL, NULL);
		close(c->fd);
	}
	free(c->out);
	free(c->in);
	*c = (struct obd_tgtd_call){.fd = -1};
}

/* The callee may begin another call at once. */
static void finish(struct obd_tgtd_call *c, int rc)
{
	struct obd_tgtd_call done = *c;
	struct obd_tgtadm_answer answer = {0};
	size_t head = sizeof answer;
	obd_loop_watch(c->loop, c->fd, 0, NULL, NULL);
	close(c->fd);
	*c = (struct obd_tgtd_call){.fd = -1};
	if (rc == 0)
		memcpy(&answer, done.in, head);
	done.fn(done.arg, rc, &answer, rc == 0 ? done.in + head : "", rc == 0 ? done.in_len - head : 0);
	free(done.out);
	free(done.in);
}

/* Room for more of the answer and a NUL. */
static int make_room(struct obd_tgtd_call *c)
{
	if (c->in_len + 1 < c->in_size)
		return 0;
	size_t size = c->in_size ? c->in_size * 2 : 4096;
	char *in = size <= OBD_TGTADM_ANSWER_MAX ? realloc(c->in, size) : NULL;
	if (!in)
		return -ENOMEM;
	c->in = in;
	c->in_size = size;
	return 0;
}

/* The answer is as long as its head says; 1: it is whole. */
static int take_some(struct obd_tgtd_call *c)
{
	struct obd_tgtadm_answer answer;
	int rc = make_room(c);
	if (rc < 0)
		return rc;
	ssize_t n = read(c->fd, c->in + c->in_len, c->in_size - c->in_len - 1);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	if (n == 0)
		return -EPIPE;
	c->in_len += (size_t)n;
	c->in[c->in_len] = '\0';
	if (c->in_len < sizeof answer)
		return 0;
	memcpy(&answer, c->in, sizeof answer);
	if (answer.bytes < sizeof answer || answer.bytes > OBD_TGTADM_ANSWER_MAX)
		return -EPROTO;
	return c->in_len >= answer.bytes;
}

static int send_some(struct obd_tgtd_call *c)
{
	ssize_t n = send(c->fd, c->out + c->out_done, c->out_len - c->out_done, MSG_NOSIGNAL);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	c->out_done += (size_t)n;
	return 0;
}

static void on_event(int fd, uint32_t events, void *arg)
{
	struct obd_tgtd_call *c = arg;
	int rc;
	(void)events;
	if (c->out_done < c->out_len) {
		rc = send_some(c);
		if (rc == 0 && c->out_done == c->out_len)
			rc = obd_loop_watch(c->loop, fd, EPOLLIN, on_event, c);
	} else {
		rc = take_some(c);
	}
	if (rc)
		finish(c, rc < 0 ? rc : 0);
}

int obd_tgtd_call(struct obd_tgtd_call *c, struct obd_loop *loop, const char *path, const struct obd_tgtadm_head *head,
		  const char *text, obd_tgtd_answer_fn *fn, void *arg)
{
	char *out = malloc(head->bytes);
	int fd = out ? obd_socket_connect(path, SOCK_STREAM | SOCK_NONBLOCK, NULL) : -ENOMEM;
	if (fd < 0) {
		free(out);
		return fd;
	}
	memcpy(out, head, sizeof *head);
	memcpy(out + sizeof *head, text, head->bytes - sizeof *head);
	*c = (struct obd_tgtd_call){
		.loop = loop, .fd = fd, .since_ns = obd_clock_ns(), .out = out, .out_len = head->bytes, .fn = fn, .arg = arg};
	int rc = obd_loop_watch(loop, fd, EPOLLOUT, on_event, c);
	if (rc < 0)
		obd_tgtd_call_drop(c);
	return rc;
}
