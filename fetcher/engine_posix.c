/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ioEngine 2: POSIX aio. The library's threads read; each completion raises SIGIO, which is blocked everywhere and read through
 * a signalfd. Signals that pile up become one: the loop then looks at every read under way.
 */
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "fetcher/local_impl.h"

static void settle(struct obd_local_req *req, int err)
{
	ssize_t n = aio_return(&req->aiocb);
	obd_local_came(req, err ? -err : n);
}

static void look(int fd, uint32_t events, void *arg)
{
	struct obd_local *local = arg;
	struct signalfd_siginfo info;
	(void)events;
	while (read(fd, &info, sizeof info) == (ssize_t)sizeof info)
		;
	OBD_LIST_FOREACH_SAFE (it, &local->running) {
		struct obd_local_req *req = OBD_LIST_ENTRY(it, struct obd_local_req, link);
		int err = req->in_kernel ? aio_error(&req->aiocb) : EINPROGRESS;
		if (err != EINPROGRESS)
			settle(req, err);
	}
}

static int start(struct obd_local *local)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGIO);
	if (sigprocmask(SIG_BLOCK, &set, NULL))
		return -errno;
	local->event_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	if (local->event_fd < 0)
		return -errno;
	int rc = obd_loop_watch(local->loop, local->event_fd, EPOLLIN, look, local);
	if (rc)
		close(local->event_fd);
	return rc;
}

static void stop(struct obd_local *local)
{
	OBD_LIST_FOREACH (it, &local->running) {
		struct obd_local_req *req = OBD_LIST_ENTRY(it, struct obd_local_req, link);
		struct aiocb *one = &req->aiocb;
		const struct aiocb *const list[] = {one};
		if (!req->in_kernel)
			continue;
		while (aio_error(one) == EINPROGRESS)
			aio_suspend(list, 1, NULL);
		aio_return(one);
	}
	obd_loop_watch(local->loop, local->event_fd, 0, NULL, NULL);
	close(local->event_fd);
}

static int submit(struct obd_local *local, struct obd_local_req *req)
{
	(void)local;
	memset(&req->aiocb, 0, sizeof req->aiocb);
	req->aiocb.aio_fildes = req->fd;
	req->aiocb.aio_buf = req->bounce;
	req->aiocb.aio_nbytes = req->want;
	req->aiocb.aio_offset = (off_t)req->at;
	req->aiocb.aio_sigevent.sigev_notify = SIGEV_SIGNAL;
	req->aiocb.aio_sigevent.sigev_signo = SIGIO;
	return aio_read(&req->aiocb) ? -errno : 0;
}

const struct obd_local_engine_ops obd_local_posix_aio = {.start = start, .stop = stop, .submit = submit};
