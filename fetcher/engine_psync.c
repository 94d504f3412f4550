/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ioEngine 0: pread, on the threads that all engines have for what may block. */
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

const struct obd_local_engine_ops obd_local_psync = {.start = start, .stop = stop};
