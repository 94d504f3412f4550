/* SPDX-License-Identifier: GPL-2.0-or-later */
/* obd-indexer: opens images, merges and publishes their indexes. Started by obd-supervisor. */
#include "indexer/server.h"

int main(int argc, char **argv)
{
	static struct obd_indexer_server s;
	obd_segment_init(&s.seg);
	return obd_daemon_main(argc, argv, &obd_indexer_ops, &s);
}
