/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * obd-fetcher: takes jobs out of the segment, gets the bytes from a source, decodes them into frames.
 *
 *   cached ──job──► fetcher.c ──► job.c ──range──► local.c  or  disk.c, then switched.c or http/
 *                       │           ▲ │                   │ bytes, piece by piece
 *                       │           │ └──── decode.c ◄────┘ whole frames
 *                       └──► download.c ──► partial.c, on threads (work.c)
 *
 * One thread, but for disk work that may hang; everything is driven by the loop. If the process dies, its jobs are given to
 * another fetcher; what it had published stays.
 */
#ifndef OBD_FETCHER_FETCHER_H
#define OBD_FETCHER_FETCHER_H

#include "common/base/list.h"
#include "common/daemon/daemon.h"
#include "fetcher/auth/auth.h"
#include "fetcher/disk.h"
#include "fetcher/http/http.h"
#include "fetcher/local.h"
#include "fetcher/stats.h"
#include "fetcher/switched.h"
#include "fetcher/work.h"
#include "shmcache/fetchside.h"

/* As many as there are slots: cached sees to it that one host never has more than half of them. */
#define OBD_FETCHER_RUNNING OBD_JOB_SLOTS

struct obd_fetcher {
	struct obd_segment seg;
	struct obd_fetchside side;
	struct obd_codec *codec;
	struct obd_local *local;
	struct obd_http *http;
	struct obd_auth *auth;
	struct obd_disk *disk; /* NULL: no disk tier */
	struct obd_switched *switched;
	struct obd_work *disk_work;    /* for downloads */
	struct obd_list runs;	       /* struct run of job.c */
	struct obd_list download_runs; /* of download.c */
	uint32_t running;
	struct obd_fetch_stats stats;
	struct obd_fetch_stats published; /* what the process row has of them */
};

extern const struct obd_daemon_ops obd_fetcher_ops;

/* Runs a job that obd_fetch_next gave; ends it with obd_fetch_done, now or later. */
void obd_job_start(struct obd_fetcher *f, const struct obd_fetch_job *job);

/* Asks the layer's own source (source.h) for bytes [start, end) of its blob. 0 or -ENOMEM. */
int obd_job_ask(struct obd_fetcher *f, const struct obd_layer_view *layer, uint64_t start, uint64_t end,
		const struct obd_source_sink *sink, void *arg);

/* Frees the jobs that run, without a word to anybody. The sources must be gone already. */
void obd_job_forget_all(struct obd_fetcher *f);

#endif
