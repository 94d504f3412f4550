/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ioEngine 2: POSIX aio. The C library's threads do the work; each completion raises SIGIO, whose handler makes the engine's
 * descriptor readable. Signals that pile up become one: the loop looks at every io under way. An io that aio_error calls done
 * is no more touched by the library, as both hold its lock. It has one thread at work per file, so a disk that hangs has few.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "common/base/util.h"
#include "indexer/engine.h"

#define POSIX_THREADS 256

static volatile sig_atomic_t bell = -1; /* of the one engine of this process */

static void ring(int signal_number)
{
	int saved = errno;
	uint64_t one = 1;
	(void)signal_number;
	if (write(bell, &one, sizeof one) < 0)
		errno = EAGAIN; /* full: readable anyway */
	errno = saved;
}

int obd_ix_posix_start(struct obd_ix_engine *e)
{
	struct sigaction act = {.sa_handler = ring, .sa_flags = SA_RESTART};
	const struct aioinit init = {.aio_threads = POSIX_THREADS, .aio_num = OBD_IX_AIO_DEPTH, .aio_idle_time = 1};
	aio_init(&init);
	bell = e->event_fd;
	sigemptyset(&act.sa_mask);
	return sigaction(SIGIO, &act, NULL) ? -errno : 0;
}

void obd_ix_posix_stop(void)
{
	signal(SIGIO, SIG_IGN); /* one may still be on its way */
	bell = -1;
}

int obd_ix_posix_submit(struct obd_ix_engine *e, struct obd_ix_io *io)
{
	memset(&io->aiocb, 0, sizeof io->aiocb);
	io->aiocb.aio_fildes = io->fd;
	io->aiocb.aio_buf = io->buf;
	io->aiocb.aio_nbytes = io->bytes;
	io->aiocb.aio_offset = (off_t)io->off;
	io->aiocb.aio_sigevent.sigev_notify = SIGEV_SIGNAL;
	io->aiocb.aio_sigevent.sigev_signo = SIGIO;
	if (io->write ? aio_write(&io->aiocb) : aio_read(&io->aiocb))
		return -errno;
	obd_list_push_back(&e->aio_running, &io->task.link);
	return 0;
}

/* Short or failed: a thread tells what is wrong, or gets it done. */
void obd_ix_posix_reap(struct obd_ix_engine *e)
{
	OBD_LIST_FOREACH_SAFE (it, &e->aio_running) {
		struct obd_ix_io *io = OBD_CONTAINER_OF(it, struct obd_ix_io, task.link);
		int err = aio_error(&io->aiocb);
		if (err == EINPROGRESS)
			continue;
		ssize_t n = aio_return(&io->aiocb);
		obd_list_remove(&io->task.link);
		if (!err && n == (ssize_t)io->bytes)
			obd_ix_engine_finished(e, &io->task);
		else
			obd_ix_engine_retry(e, io);
	}
}
