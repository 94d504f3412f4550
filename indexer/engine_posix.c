/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ioEngine 2: POSIX aio. The C library calls a function on a thread of its own when an io is over. */
#include <errno.h>
#include <string.h>

#include "indexer/engine.h"

/* On a thread of the library. Short or failed: one of ours tells what is wrong, or gets it done. */
static void over(union sigval arg)
{
	struct obd_ix_io *io = arg.sival_ptr;
	int err = aio_error(&io->aiocb);
	ssize_t n = aio_return(&io->aiocb);
	if (!err && n == (ssize_t)io->bytes)
		obd_ix_engine_finished(io->engine, &io->task);
	else
		obd_ix_engine_retry(io->engine, io);
}

int obd_ix_posix_submit(struct obd_ix_engine *e, struct obd_ix_io *io)
{
	(void)e;
	memset(&io->aiocb, 0, sizeof io->aiocb);
	io->aiocb.aio_fildes = io->fd;
	io->aiocb.aio_buf = io->buf;
	io->aiocb.aio_nbytes = io->bytes;
	io->aiocb.aio_offset = (off_t)io->off;
	io->aiocb.aio_sigevent.sigev_notify = SIGEV_THREAD;
	io->aiocb.aio_sigevent.sigev_notify_function = over;
	io->aiocb.aio_sigevent.sigev_value.sival_ptr = io;
	return (io->write ? aio_write(&io->aiocb) : aio_read(&io->aiocb)) ? -errno : 0;
}
