/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fetcher/fetcher.h"

int main(int argc, char **argv)
{
	static struct obd_fetcher fetcher;
	obd_segment_init(&fetcher.seg);
	obd_list_init(&fetcher.runs);
	obd_list_init(&fetcher.download_runs);
	return obd_daemon_main(argc, argv, &obd_fetcher_ops, &fetcher);
}
