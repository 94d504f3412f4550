/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Jobs of kind DOWNLOAD: one step of a background download each (doc/architecture.md 4.10).
 *
 *   PREPARE, FINISH ──────────────────────► thread: partial.h ──► report
 *   RANGE ──► bytes from the layer's source ──► thread: partial.h ──► report
 */
#ifndef OBD_FETCHER_DOWNLOAD_H
#define OBD_FETCHER_DOWNLOAD_H

#include "fetcher/fetcher.h"

/* Runs a job of kind DOWNLOAD that obd_fetch_next gave; ends it with obd_fetch_done, now or later. */
void obd_download_start(struct obd_fetcher *f, const struct obd_fetch_job *job);

/* Frees the jobs that run, without a word to anybody. Sources and threads must be gone already. */
void obd_download_forget_all(struct obd_fetcher *f);

#endif
