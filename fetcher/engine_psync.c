/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ioEngine 0: pread on the loop's thread. */
#include <errno.h>
#include <unistd.h>

#include "fetcher/local_impl.h"

static int start(struct obd_local *local)
{
	(void)local;
	return 0;
}

static void stop(struct obd_local *local)
{
	(void)local;
}

static int submit(struct obd_local *local, struct obd_local_req *req)
{
	(void)local;
	ssize_t n = pread(req->file->fd, req->buf, req->want, (off_t)req->at);
	obd_local_came(req, n < 0 ? -errno : n);
	return 0;
}

const struct obd_local_engine_ops obd_local_psync = {.start = start, .stop = stop, .submit = submit};
