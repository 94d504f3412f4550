/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 *     run    the job: lives on the loop from taking to reporting
 *     step   what a thread needs, with copies of all of it: it may outlive the run when a directory hangs
 */
#include "fetcher/download.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/testpoint.h"
#include "fetcher/partial.h"
#include "shmcache/download.h"

#define RETRIES 3u
#define LIMIT_NS (30 * OBD_SECOND_NS)
#define RANGE_BYTES_MAX (UINT64_C(64) << 20)

struct step {
	struct obd_work_item item;
	struct down_run *run; /* of no use once done was called */
	struct obd_down_order order;
	uint64_t blob_bytes;
	char digest[OBD_DIGEST_BYTES];
	char dir[OBD_DIR_BYTES];
	unsigned char *buf; /* RANGE */
	/* what came of it */
	int rc; /* negative errno */
	uint64_t floor;
	struct obd_partial_file file;
	struct obd_err err;
};

struct down_run {
	struct obd_list link;
	struct obd_fetcher *f;
	struct obd_fetch_job job;
	struct obd_layer_view layer;
	struct obd_want_view want;
	unsigned char *buf;
	uint64_t len;
	uint64_t got;
	uint32_t attempt;
	bool switched; /* the bytes are asked of another download's file */
};

/* --- reports -------------------------------------------------------------------------------------------------------------- */

static void end(struct down_run *run, int err, struct obd_down_result *result, const char *reason)
{
	char text[OBD_REASON_BYTES];
	snprintf(text, sizeof text, "%s", reason); /* a longer one is cut */
	if (err)
		obd_debug("download of %s: %s", run->layer.digest, text);
	obd_fetch_down_result(&run->f->side, &run->job, result);
	obd_fetch_done(&run->f->side, &run->job, err, err ? text : NULL);
	obd_list_remove(&run->link);
	run->f->running--;
	free(run->buf);
	free(run);
}

static void fail(struct down_run *run, int err, enum obd_down_fault fault, const char *reason)
{
	struct obd_down_result result = {.fault = fault};
	end(run, err ? err : EIO, &result, reason);
}

/* --- the thread's part ---------------------------------------------------------------------------------------------------- */

static struct step *step_of(struct obd_work_item *item)
{
	return OBD_CONTAINER_OF(item, struct step, item);
}

static void step_run(struct obd_work_item *item)
{
	struct step *s = step_of(item);
	const struct obd_partial p = {.dir = s->dir, .digest = s->digest, .bytes = s->blob_bytes};
	const struct obd_partial_watch watch = {.pulse = &item->pulse, .stop = obd_work_stop_word(item)};
	switch (s->order.op) {
	case OBD_DOWN_PREPARE:
		s->rc = obd_partial_prepare(&p, &s->floor, &s->err);
		return;
	case OBD_DOWN_RANGE:
		s->rc = obd_partial_write(&p, s->order.start, s->buf, s->order.end - s->order.start, s->order.floor, &s->err);
		OBD_TEST_POINT(down_written);
		return;
	default:
		s->rc = obd_partial_finish(&p, &watch, &s->file, &s->err);
	}
}

static enum obd_down_fault fault_of(int rc)
{
	return rc == -EBUSY ? OBD_DOWN_FAULT_BUSY : rc == -EBADMSG ? OBD_DOWN_FAULT_DIGEST : OBD_DOWN_FAULT_DISK;
}

static void step_done(struct obd_work_item *item, int late)
{
	struct step *s = step_of(item);
	struct down_run *run = s->run;
	char text[OBD_DIR_BYTES + 40];
	if (late == EAGAIN) {
		fail(run, late, OBD_DOWN_FAULT_SOURCE, "other directories that do not answer hold it up");
	} else if (late) {
		snprintf(text, sizeof text, "%.200s: does not answer", run->want.dir);
		fail(run, late, OBD_DOWN_FAULT_DISK, text);
	} else if (s->rc) {
		fail(run, -s->rc, fault_of(s->rc), s->err.msg);
	} else {
		struct obd_down_result result = {
			.floor = s->floor, .dev = s->file.dev, .ino = s->file.ino, .mtime_ns = s->file.mtime_ns};
		result.from_registry = run->job.down.op == OBD_DOWN_RANGE && !run->switched;
		if (run->job.down.op == OBD_DOWN_RANGE)
			run->f->stats.download_bytes += run->len;
		end(run, 0, &result, "");
	}
}

static void step_drop(struct obd_work_item *item)
{
	struct step *s = step_of(item);
	free(s->buf);
	free(s);
}

static void start_step(struct down_run *run)
{
	struct step *s = calloc(1, sizeof *s);
	if (!s) {
		fail(run, EAGAIN, OBD_DOWN_FAULT_SOURCE, "no memory");
		return;
	}
	s->item = (struct obd_work_item){.run = step_run, .done = step_done, .drop = step_drop, .limit_ns = LIMIT_NS};
	s->run = run;
	s->order = run->job.down;
	s->blob_bytes = run->layer.blob_bytes;
	memcpy(s->digest, run->layer.digest, sizeof s->digest);
	memcpy(s->dir, run->want.dir, sizeof s->dir);
	s->buf = run->buf;
	run->buf = NULL;
	obd_work_submit(run->f->disk_work, &s->item);
}

/* --- the source's part ---------------------------------------------------------------------------------------------------- */

static unsigned char *range_room(void *arg, size_t *n)
{
	struct down_run *run = arg;
	*n = run->len - run->got;
	return run->buf + run->got;
}

static int range_data(void *arg, const unsigned char *buf, size_t n)
{
	struct down_run *run = arg;
	if (n > run->len - run->got)
		return -EOVERFLOW;
	if (buf != run->buf + run->got)
		memcpy(run->buf + run->got, buf, n);
	run->got += n;
	return 0;
}

static void ask(struct down_run *run);

static void range_done(void *arg, const struct obd_source_end *e)
{
	struct down_run *run = arg;
	if (e->err == 0) {
		start_step(run);
	} else if (run->switched || (e->again && run->attempt < RETRIES)) {
		run->attempt++;
		ask(run);
	} else {
		fail(run, e->err, OBD_DOWN_FAULT_SOURCE, e->reason);
	}
}

static const struct obd_source_sink range_sink = {.room = range_room, .data = range_data, .done = range_done};

/* The first attempt takes the bytes from another download of the same layer, if there is one. */
static void ask(struct down_run *run)
{
	const struct obd_down_order *o = &run->job.down;
	int rc = -ENOENT;
	run->got = 0;
	if (run->attempt == 0)
		rc = obd_switched_read(run->f->switched, &run->layer, o->start, o->end, &range_sink, run);
	run->switched = rc == 0;
	if (rc == -ENOENT)
		rc = obd_job_ask(run->f, &run->layer, o->start, o->end, &range_sink, run);
	if (rc)
		fail(run, EAGAIN, OBD_DOWN_FAULT_SOURCE, "no memory");
}

static void start_range(struct down_run *run)
{
	const struct obd_down_order *o = &run->job.down;
	if (o->start >= o->end || o->end > run->layer.blob_bytes || o->end - o->start > RANGE_BYTES_MAX) {
		fail(run, EPROTO, OBD_DOWN_FAULT_SOURCE, "the range cannot be");
		return;
	}
	run->len = o->end - o->start;
	run->buf = malloc(run->len);
	if (run->buf)
		ask(run);
	else
		fail(run, EAGAIN, OBD_DOWN_FAULT_SOURCE, "no memory");
}

/* --- start ---------------------------------------------------------------------------------------------------------------- */

static void refuse(struct obd_fetcher *f, const struct obd_fetch_job *job, int err, const char *reason)
{
	struct obd_fetch_job copy = *job;
	const struct obd_down_result result = {.fault = OBD_DOWN_FAULT_SOURCE};
	obd_fetch_down_result(&f->side, job, &result);
	obd_fetch_done(&f->side, &copy, err, reason);
}

/* 0 or a positive errno. */
static int look_up(struct obd_fetcher *f, const struct obd_fetch_job *job, struct down_run *run)
{
	int rc = obd_want_copy(&f->seg, job->down.want_slot, job->down.want_uid, &run->want);
	if (rc == 0)
		rc = obd_catalog_layer(&f->seg, job->layer_slot, job->layer_uid, &run->layer);
	if (rc)
		return -rc;
	bool good = run->want.layer_slot == job->layer_slot && run->want.layer_uid == job->layer_uid && !run->layer.local &&
		    job->down.op < OBD_DOWN_OPS;
	return good ? 0 : EPROTO;
}

void obd_download_start(struct obd_fetcher *f, const struct obd_fetch_job *job)
{
	struct down_run *run = calloc(1, sizeof *run);
	int err = run ? look_up(f, job, run) : EAGAIN;
	if (err) {
		free(run);
		refuse(f, job, err, err == ESTALE ? "nobody wants it any more" : strerror(err));
		return;
	}
	run->f = f;
	run->job = *job;
	obd_list_push_back(&f->download_runs, &run->link);
	f->running++;
	if (job->down.op == OBD_DOWN_RANGE)
		start_range(run);
	else
		start_step(run);
}

void obd_download_forget_all(struct obd_fetcher *f)
{
	while (!obd_list_empty(&f->download_runs)) {
		struct down_run *run = OBD_LIST_ENTRY(f->download_runs.next, struct down_run, link);
		obd_list_remove(&run->link);
		free(run->buf);
		free(run);
	}
}
