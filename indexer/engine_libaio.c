/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ioEngine 1: Linux native aio past the page cache. Without O_DIRECT io_submit would write or read at once, so the rest goes to
 * the threads without it. It is called on a thread; io_getevents, on the loop, takes what is there and waits for nothing.
 */
#include <errno.h>
#include <time.h>

#include "indexer/engine.h"

int obd_ix_libaio_start(struct obd_ix_engine *e)
{
	return io_setup(OBD_IX_AIO_DEPTH, &e->aio_ctx);
}

void obd_ix_libaio_stop(struct obd_ix_engine *e)
{
	io_destroy(e->aio_ctx);
}

bool obd_ix_libaio_fits(const struct obd_ix_io *io)
{
	return io->direct_fd >= 0 && !((io->off | io->bytes | (uintptr_t)io->buf) % OBD_IX_DIRECT_BYTES);
}

int obd_ix_libaio_submit(struct obd_ix_engine *e, struct obd_ix_io *io)
{
	struct iocb *one = &io->iocb;
	if (!obd_ix_libaio_fits(io))
		return -ENOTSUP;
	if (io->write)
		io_prep_pwrite(one, io->direct_fd, io->buf, io->bytes, (long long)io->off);
	else
		io_prep_pread(one, io->direct_fd, io->buf, io->bytes, (long long)io->off);
	io_set_eventfd(one, e->event_fd);
	one->data = io;
	int rc = io_submit(e->aio_ctx, 1, &one);
	return rc == 1 ? 0 : rc < 0 ? rc : -EAGAIN;
}

/* Short or refused: a thread tells what is wrong, or gets it done. */
static void came(struct obd_ix_engine *e, struct obd_ix_io *io, long res)
{
	if (res == (long)io->bytes)
		obd_ix_engine_finished(e, &io->task);
	else
		obd_ix_engine_retry(e, io);
}

void obd_ix_libaio_reap(struct obd_ix_engine *e)
{
	struct io_event done[32];
	struct timespec now = {0, 0};
	int n;
	do {
		n = io_getevents(e->aio_ctx, 0, 32, done, &now);
		for (int i = 0; i < n; i++)
			came(e, done[i].data, (long)done[i].res);
	} while (n == 32);
}
