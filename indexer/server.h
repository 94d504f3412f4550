/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The indexer as a child of the supervisor: what the process skeleton calls. */
#ifndef OBD_INDEXER_SERVER_H
#define OBD_INDEXER_SERVER_H

#include "common/daemon/daemon.h"
#include "indexer/indexer.h"

struct obd_indexer_server {
	struct obd_segment seg;
	struct obd_indexer *ix; /* NULL before start */
	struct obd_loop_timer *deadline;
	int event_fd;		       /* watched; -1: none yet */
	bool leaving[OBD_MAX_CLIENTS]; /* gone, but writes still read their memory */
};

/* priv of the daemon is a struct obd_indexer_server with seg initialised. */
extern const struct obd_daemon_ops obd_indexer_ops;

#endif
