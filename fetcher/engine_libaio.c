/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ioEngine 1: Linux native aio with O_DIRECT; an eventfd tells the loop. */
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "fetcher/local_impl.h"

#define DEPTH 128

static void reap(int fd, uint32_t events, void *arg)
{
	struct obd_local *local = arg;
	struct io_event done[32];
	struct timespec now = {0, 0};
	uint64_t count;
	(void)events;
	if (read(fd, &count, sizeof count) < 0)
		return;
	for (;;) {
		int n = io_getevents(local->aio_ctx, 0, 32, done, &now);
		for (int i = 0; i < n; i++)
			obd_local_came(done[i].data, (ssize_t)(long)done[i].res);
		if (n < 32)
			return;
	}
}

static int start(struct obd_local *local)
{
	int rc = io_setup(DEPTH, &local->aio_ctx);
	if (rc)
		return rc;
	local->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	rc = local->event_fd < 0 ? -errno : obd_loop_watch(local->loop, local->event_fd, EPOLLIN, reap, local);
	if (rc) {
		io_destroy(local->aio_ctx);
		if (local->event_fd >= 0)
			close(local->event_fd);
	}
	return rc;
}

static void stop(struct obd_local *local)
{
	io_destroy(local->aio_ctx); /* waits for what is under way */
	obd_loop_watch(local->loop, local->event_fd, 0, NULL, NULL);
	close(local->event_fd);
}

static int submit(struct obd_local *local, struct obd_local_req *req)
{
	struct iocb *one = &req->iocb;
	io_prep_pread(one, req->fd, req->bounce, req->want, (long long)req->at);
	io_set_eventfd(one, local->event_fd);
	one->data = req;
	int rc = io_submit(local->aio_ctx, 1, &one);
	return rc == 1 ? 0 : rc < 0 ? rc : -EAGAIN;
}

const struct obd_local_engine_ops obd_local_libaio = {
	.direct = true, .start = start, .stop = stop, .submit = submit, .submit_blocks = true};
