/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One job from taking to reporting.
 *
 *     run (job)  = attempts, one after the other
 *     attempt    = a look into the disk tier (the first one only), then
 *                  legs, all at once: one per run of frames that are not settled and lie side by side in the blob
 *     leg        = [bytes of raw chunks in the cache][range from the source][bytes of raw chunks] -> decoder -> frames
 *
 * A frame is settled as soon as its own bytes are whole, whatever becomes of the rest. An attempt that leaves damaged frames,
 * or that was answered with nonsense, is repeated for what is missing, from the source alone; other failures end the run at
 * once, since cached is the one who waits. Nothing sleeps here.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "common/base/testpoint.h"
#include "common/base/util.h"
#include "common/config/url.h"
#include "fetcher/decode.h"
#include "fetcher/fetcher.h"
#include "fetcher/units.h"

#define RETRIES 3u

struct run {
	struct obd_list link;
	struct obd_fetcher *f;
	struct obd_fetch_job job;
	struct obd_layer_view layer;
	uint64_t begun; /* bit i: obd_fetch_begin was called for frame i */
	uint32_t attempt;
	uint32_t avoid; /* bits of routes by which damaged bytes came */
	uint32_t legs;	/* under way, and one while an attempt is being set up */
	struct obd_list leg_list;
	/* the disk tier's view of the frames; nunits 0: it is not for this job */
	char origin[OBD_URL_HOST_MAX + 17];
	struct obd_disk_unit unit[OBD_JOB_FRAMES];
	uint8_t unit_of[OBD_JOB_FRAMES]; /* by frame */
	uint32_t nunits;
	struct obd_disk_read *disk_read; /* under way */
	int err;			 /* the first failure that ends the run */
	int excuse;			 /* what to say when the retries are used up */
	char reason[OBD_REASON_BYTES];
};

struct leg {
	struct obd_list link;
	struct run *run;
	struct obd_decoder decoder;
	uint64_t start; /* in the blob */
	uint64_t end;
	unsigned char *raw; /* bytes that were in the cache: head in front, tail at the end. NULL: none */
	uint64_t raw_head;
	uint64_t raw_tail;
	uint32_t first; /* frames */
	uint32_t n;
	bool blocks;	     /* all of the frames, though the job wants a part: the disk tier has them */
	unsigned char *copy; /* of the whole range, for the disk tier; NULL: none */
	uint32_t routes;     /* bits of those that gave bytes */
	uint64_t ask_start;  /* what the source was asked for */
	uint64_t ask_end;
	bool switched;	/* a downloaded file is asked, and nothing came yet */
	bool from_file; /* that is where the bytes came from */
};

/* --- frames --------------------------------------------------------------------------------------------------------------- */

static unsigned char *frame(void *arg, uint32_t i)
{
	struct run *run = arg;
	uint64_t bit = UINT64_C(1) << i;
	assert(!(run->job.settled & bit));
	if (!(run->begun & bit))
		obd_fetch_begin(&run->f->side, &run->job, i);
	run->begun |= bit;
	return obd_fetch_data(&run->f->side, &run->job, i);
}

static void whole(void *arg, uint32_t i, uint32_t begin, uint32_t end)
{
	struct run *run = arg;
	uint64_t bb = run->f->seg.geo.block_bytes, at = ((uint64_t)run->job.block + i) * bb;
	bool all = run->job.kind == OBD_JOB_RAW || (begin == 0 && end >= obd_min_u64(bb, run->layer.file_bytes - at));
	if (all)
		obd_fetch_valid(&run->f->side, &run->job, i, end);
	else
		obd_fetch_part(&run->f->side, &run->job, i, begin, end);
}

static uint64_t unsettled(const struct run *run)
{
	uint32_t n = run->job.nblocks;
	uint64_t all = n == 64 ? UINT64_MAX : (UINT64_C(1) << n) - 1;
	return all & ~run->job.settled;
}

/* --- the end of a run ----------------------------------------------------------------------------------------------------- */

static void release(struct run *run)
{
	obd_list_remove(&run->link);
	run->f->running--;
	free(run);
}

static void report(struct run *run, int err)
{
	if (err == EAGAIN || err == ETIMEDOUT || err == ECONNREFUSED || err == ECONNRESET || err == EHOSTUNREACH)
		obd_debug("%s", run->reason);
	else if (err)
		obd_warn("%s", run->reason);
	obd_fetch_done(&run->f->side, &run->job, err, err ? run->reason : NULL);
	release(run);
}

static void fail(struct run *run, int err, const char *reason)
{
	if (run->err)
		return;
	run->err = err;
	snprintf(run->reason, sizeof run->reason, "%s", reason);
}

static const char *source_name(const struct run *run)
{
	return run->layer.local ? run->layer.path : run->layer.digest;
}

static void fail_here(struct run *run, int err, const char *what)
{
	char reason[OBD_REASON_BYTES];
	snprintf(reason, sizeof reason, "%.180s: %s", source_name(run), what);
	fail(run, err, reason);
}

/* --- from source to decoder ----------------------------------------------------------------------------------------------- */

static void attempt_part_over(struct run *run);

static void leg_free(struct leg *leg)
{
	obd_list_remove(&leg->link);
	obd_decoder_free(&leg->decoder);
	free(leg->raw);
	if (leg->run->f->disk)
		obd_disk_buffer_free(leg->run->f->disk, leg->copy, leg->end - leg->start);
	else
		free(leg->copy);
	free(leg);
}

/* Every byte of a leg comes by here, in order. */
static int leg_feed(struct leg *leg, const unsigned char *buf, size_t n)
{
	uint64_t at = leg->decoder.fed;
	if (leg->copy && n <= leg->end - leg->start - at)
		memcpy(leg->copy + at, buf, n);
	return obd_decoder_feed(&leg->decoder, buf, n);
}

static struct obd_disk_blob disk_blob(const struct run *run)
{
	return (struct obd_disk_blob){.origin = run->origin, .digest = run->layer.digest, .blob_bytes = run->layer.blob_bytes};
}

/* The tail that was in the cache goes behind what the source gave. */
static void feed_tail(struct leg *leg)
{
	if (!leg->raw_tail)
		return;
	uint64_t at = leg->end - leg->start - leg->raw_tail;
	if (leg_feed(leg, leg->raw + at, leg->raw_tail))
		fail_here(leg->run, EAGAIN, "no memory");
}

static struct obd_http_target target_of(const struct run *run)
{
	const struct obd_layer_view *v = &run->layer;
	return (struct obd_http_target){.url = v->url,
					.digest = v->digest,
					.blob_bytes = v->blob_bytes,
					.avoid = run->avoid,
					.fresh = run->job.kind == OBD_JOB_PROBE};
}

/* The next attempt goes by other routes first, and other jobs too for a while. */
static void blame(struct run *run, uint32_t routes)
{
	const struct obd_http_target t = target_of(run);
	if (routes)
		obd_http_damaged(run->f->http, &t, routes);
	run->avoid |= routes;
}

static void note_damage(struct leg *leg)
{
	struct run *run = leg->run;
	if (!leg->decoder.bad)
		return;
	if (run->attempt == 0)
		obd_switched_distrust(run->f->switched, &run->layer);
	run->f->stats.err_corrupt += (uint64_t)__builtin_popcountll(leg->decoder.bad);
	blame(run, leg->routes);
	if (run->err)
		return;
	run->excuse = EBADMSG;
	unsigned int first = run->job.block + (unsigned int)__builtin_ctzll(leg->decoder.bad);
	snprintf(run->reason, sizeof run->reason, "%.160s: block %u is damaged (read %u times)", source_name(run), first,
		 run->attempt + 1);
}

/* Behind the answer: the frames are published. What the registry gave, and is right as far as can be told, is kept. */
static void keep_on_disk(struct leg *leg)
{
	struct run *run = leg->run;
	struct obd_disk_unit unit[OBD_JOB_FRAMES];
	uint32_t n = 0;
	uint64_t have_end = leg->start + leg->decoder.fed;
	if (!leg->copy || leg->from_file)
		return;
	for (uint32_t i = leg->first; i < leg->first + leg->n; i++) {
		const struct obd_disk_unit *u = &run->unit[run->unit_of[i]];
		bool again = n > 0 && unit[n - 1].number == u->number;
		bool whole_and_good = u->start >= leg->start && u->start + u->bytes <= have_end && !(leg->decoder.bad >> i & 1);
		if (again && !whole_and_good)
			n--; /* of a unit that several frames share one is bad */
		else if (!again && whole_and_good)
			unit[n++] = *u;
	}
	if (!n)
		return;
	const struct obd_disk_blob blob = disk_blob(run);
	obd_disk_write(run->f->disk, &blob, unit, n, leg->copy, leg->end - leg->start, leg->start);
	leg->copy = NULL;
}

static void leg_over(struct leg *leg)
{
	struct run *run = leg->run;
	note_damage(leg);
	keep_on_disk(leg);
	leg_free(leg);
	attempt_part_over(run);
}

static unsigned char *leg_room(void *arg, size_t *n)
{
	struct leg *leg = arg;
	return obd_decoder_room(&leg->decoder, n);
}

static int leg_data(void *arg, const unsigned char *buf, size_t n)
{
	struct leg *leg = arg;
	if (!leg->run->layer.local && !leg->switched)
		leg->run->job.net_bytes += n;
	leg->from_file |= leg->switched;
	leg->switched = false;
	return leg_feed(leg, buf, n);
}

static int ask_registry_instead(struct leg *leg);

static void leg_done(void *arg, const struct obd_source_end *end)
{
	struct leg *leg = arg;
	struct run *run = leg->run;
	if (end->err && leg->switched) {
		run->f->stats.download_fallbacks++;
		if (ask_registry_instead(leg) == 0)
			return;
	}
	leg->routes = end->routes;
	if (end->err == 0) {
		feed_tail(leg);
	} else if (end->again && run->attempt < RETRIES) {
		run->excuse = end->err;
	} else {
		fail(run, end->err == ENOMEM ? EAGAIN : end->err, end->reason);
		obd_fetch_retry_after(&run->job, end->retry_ms);
	}
	leg_over(leg);
}

static const struct obd_source_sink leg_sink = {.room = leg_room, .data = leg_data, .done = leg_done};

static int probe_data(void *arg, const unsigned char *buf, size_t n)
{
	(void)arg, (void)buf, (void)n;
	return 0;
}

static const struct obd_source_sink probe_sink = {.data = probe_data, .done = leg_done};

static int ask_source(struct obd_fetcher *f, const struct obd_layer_view *v, const struct obd_http_target *t, uint64_t start,
		      uint64_t end, const struct obd_source_sink *sink, void *arg)
{
	if (v->local) {
		const struct obd_local_target file = {
			.path = v->path, .dev = v->dev, .ino = v->ino, .mtime_ns = v->mtime_ns, .bytes = v->blob_bytes};
		return obd_local_read(f->local, &file, start, end, sink, arg);
	}
	return obd_http_get(f->http, t, start, end, sink, arg);
}

int obd_job_ask(struct obd_fetcher *f, const struct obd_layer_view *v, uint64_t start, uint64_t end,
		const struct obd_source_sink *sink, void *arg)
{
	const struct obd_http_target t = {.url = v->url, .digest = v->digest, .blob_bytes = v->blob_bytes};
	return ask_source(f, v, &t, start, end, sink, arg);
}

static int ask_registry(struct leg *leg, const struct obd_source_sink *sink)
{
	struct run *run = leg->run;
	const struct obd_http_target t = target_of(run);
	leg->switched = false;
	return ask_source(run->f, &run->layer, &t, leg->ask_start, leg->ask_end, sink, leg);
}

static int ask_registry_instead(struct leg *leg)
{
	return ask_registry(leg, &leg_sink);
}

/* A layer that was downloaded is read from its file, at first. A probe is always the registry's to answer. */
static int ask(struct run *run, struct leg *leg, const struct obd_source_sink *sink)
{
	if (!run->layer.local && run->attempt == 0 && run->job.kind != OBD_JOB_PROBE) {
		int rc = obd_switched_read(run->f->switched, &run->layer, leg->ask_start, leg->ask_end, sink, leg);
		leg->switched = rc == 0;
		if (rc != -ENOENT)
			return rc;
	}
	return ask_registry(leg, sink);
}

/* --- legs ----------------------------------------------------------------------------------------------------------------- */

/* Raw chunks [first, first + n) of the job, none of them chunk 0 unless n is 1: their bytes lie in falling order. */
static int plan_raw(struct leg *leg, const struct obd_decode_sink *sink, uint32_t first, uint32_t n)
{
	struct run *run = leg->run;
	struct obd_decode_piece piece[OBD_DECODE_FRAMES];
	uint64_t start, end;
	for (uint32_t i = 0; i < n; i++) {
		uint32_t frame_number = first + n - 1 - i;
		if (!obd_raw_chunk(run->layer.blob_bytes, run->f->seg.geo.block_bytes, run->job.block + frame_number, &start,
				   &end))
			return -EPROTO;
		if (i == 0)
			leg->start = leg->end = start;
		if (start != leg->end || end <= start || end - start > run->f->seg.geo.block_bytes)
			return -EPROTO;
		leg->end = end;
		piece[i] = (struct obd_decode_piece){.frame = frame_number, .bytes = (uint32_t)(end - start)};
	}
	obd_decoder_init_plain(&leg->decoder, sink, piece, n);
	return 0;
}

/* Bytes [*from, *to) of the plain file are what is wanted of the frames [first, first + n). */
static void wanted_bytes(const struct leg *leg, uint32_t first, uint32_t n, uint64_t *from, uint64_t *to)
{
	const struct run *run = leg->run;
	uint64_t unit = run->f->seg.geo.block_bytes;
	*from = ((uint64_t)run->job.block + first) * unit;
	*to = *from + n * unit;
	if (!leg->blocks && first == 0)
		*from += run->job.begin;
	if (!leg->blocks && run->job.end && first + n == run->job.nblocks)
		*to -= unit - run->job.end;
}

static int plan_plain(struct leg *leg, const struct obd_decode_sink *sink, uint32_t first, uint32_t n)
{
	const struct run *run = leg->run;
	uint64_t unit = run->f->seg.geo.block_bytes, at, to;
	struct obd_decode_piece piece[OBD_DECODE_FRAMES];
	wanted_bytes(leg, first, n, &at, &to);
	to = obd_min_u64(to, run->layer.file_bytes);
	leg->start = run->layer.payload_offset + at;
	for (uint32_t i = 0; i < n; i++) {
		if (at >= to)
			return -EPROTO;
		uint32_t in = (uint32_t)(at % unit);
		uint64_t bytes = obd_min_u64(unit - in, to - at);
		piece[i] = (struct obd_decode_piece){.frame = first + i, .bytes = (uint32_t)bytes, .at = in};
		at += bytes;
	}
	leg->end = run->layer.payload_offset + at;
	obd_decoder_init_plain(&leg->decoder, sink, piece, n);
	return 0;
}

static int plan_zfile(struct leg *leg, const struct obd_decode_sink *sink, uint32_t first, uint32_t n)
{
	struct run *run = leg->run;
	const struct obd_layer_view *v = &run->layer;
	const struct obd_zfile_info info = {.original_bytes = v->file_bytes,
					    .payload_bytes = v->payload_bytes,
					    .nblocks = v->zf_nblocks,
					    .block_bytes = v->zf_block_bytes,
					    .algorithm = (uint8_t)v->zf_algorithm,
					    .verify = v->zf_verify};
	const struct obd_zfile_table table = {.base = v->zf_base,
					      .delta = v->zf_delta,
					      .nblocks = v->zf_nblocks,
					      .first = OBD_ZFILE_HEADER_BYTES + (uint64_t)v->zf_dict_bytes,
					      .end = v->payload_bytes,
					      .stored_max = obd_zfile_stored_max(v->zf_block_bytes)};
	uint64_t from, to;
	wanted_bytes(leg, first, n, &from, &to);
	int rc = obd_decoder_init_zfile_part(&leg->decoder, sink, run->f->codec, &info, &table, run->f->seg.geo.block_bytes,
					     from, to, first, &leg->start, &leg->end);
	leg->start += v->payload_offset;
	leg->end += v->payload_offset;
	return rc;
}

static int plan(struct leg *leg, uint32_t first, uint32_t n)
{
	struct run *run = leg->run;
	const struct obd_decode_sink sink = {.frame = frame, .whole = whole, .arg = run};
	if (run->job.kind == OBD_JOB_RAW)
		return plan_raw(leg, &sink, first, n);
	if (run->layer.zfile)
		return plan_zfile(leg, &sink, first, n);
	return plan_plain(leg, &sink, first, n);
}

/* Takes what the cache has of the compressed bytes; bytes that proved damaged are not taken from there again. */
static int take_raw(struct leg *leg)
{
	struct run *run = leg->run;
	uint64_t len = leg->end - leg->start;
	if (run->job.kind != OBD_JOB_BLOCKS || run->attempt > 0)
		return 0;
	leg->raw = malloc(len);
	if (!leg->raw)
		return -ENOMEM;
	leg->raw_head = obd_fetch_from_raw(&run->f->side, &run->layer, leg->start, leg->end, false, leg->raw);
	if (leg->raw_head < len)
		leg->raw_tail = obd_fetch_from_raw(&run->f->side, &run->layer, leg->start + leg->raw_head, leg->end, true,
						   leg->raw + leg->raw_head);
	if (leg->raw_head)
		return leg_feed(leg, leg->raw, leg->raw_head);
	if (!leg->raw_tail) {
		free(leg->raw);
		leg->raw = NULL;
	}
	return 0;
}

/* A leg with its plan, counted in run->legs, or NULL with the run's failure noted. */
static struct leg *leg_new(struct run *run, uint32_t first, uint32_t n, bool blocks)
{
	struct leg *leg = calloc(1, sizeof(*leg));
	if (!leg) {
		fail_here(run, EAGAIN, "no memory");
		return NULL;
	}
	leg->run = run;
	leg->first = first;
	leg->n = n;
	leg->blocks = blocks;
	obd_list_push_back(&run->leg_list, &leg->link);
	int rc = run->job.kind == OBD_JOB_PROBE ? 0 : plan(leg, first, n);
	if (rc == 0) {
		run->legs++;
		return leg;
	}
	fail_here(run, rc == -ENOMEM ? EAGAIN : -rc, rc == -ENOMEM ? "no memory" : "the layer's tables cannot be");
	obd_list_remove(&leg->link);
	free(leg);
	return NULL;
}

static void start_leg(struct run *run, uint32_t first, uint32_t n)
{
	struct leg *leg = leg_new(run, first, n, false);
	if (!leg)
		return;
	if (run->nunits && run->f->disk)
		leg->copy = obd_disk_buffer(run->f->disk, leg->end - leg->start, n);
	int rc = take_raw(leg);
	leg->ask_start = leg->start + leg->raw_head;
	leg->ask_end = leg->end - leg->raw_tail;
	if (rc == 0 && leg->ask_start == leg->ask_end) {
		feed_tail(leg);
		leg_over(leg);
		return;
	}
	if (rc == 0)
		rc = ask(run, leg, &leg_sink);
	if (rc) {
		fail_here(run, EAGAIN, "no memory");
		leg_over(leg);
	}
}

static void start_probe(struct run *run)
{
	struct leg *leg = leg_new(run, 0, 0, false);
	if (leg)
		leg->ask_end = run->layer.local ? 0 : 1;
	if (leg && ask(run, leg, &probe_sink)) {
		fail_here(run, EAGAIN, "no memory");
		leg_over(leg);
	}
}

/* --- attempts ------------------------------------------------------------------------------------------------------------- */

/* How many frames from the first on are missing and lie side by side in the blob. */
static uint32_t count_together(const struct run *run, uint64_t missing, uint32_t first)
{
	uint32_t n = 1;
	if (run->job.kind == OBD_JOB_RAW && run->job.block + first == 0)
		return 1; /* the head of the blob; the other chunks count from its end */
	while (first + n < run->job.nblocks && missing >> (first + n) & 1)
		n++;
	return n;
}

static void start_legs(struct run *run)
{
	uint64_t missing = unsettled(run);
	if (run->job.kind == OBD_JOB_PROBE)
		start_probe(run);
	for (uint32_t i = 0, n; i < run->job.nblocks && !run->err; i += n) {
		n = 1;
		if (!(missing >> i & 1))
			continue;
		n = count_together(run, missing, i);
		start_leg(run, i, n);
	}
	attempt_part_over(run);
}

/* --- the disk tier -------------------------------------------------------------------------------------------------------- */

/* What the disk tier is to be asked about: the units of all frames. */
static void plan_units(struct run *run)
{
	struct obd_repo_url url;
	uint32_t n = 0;
	if (!run->f->disk || run->layer.local || run->job.kind == OBD_JOB_PROBE ||
	    obd_repo_url_parse(run->layer.url, &url, NULL))
		return;
	for (uint32_t i = 0; i < run->job.nblocks; i++) {
		struct obd_disk_unit u;
		if (!obd_unit_of(&run->layer, run->job.kind, run->f->seg.geo.block_bytes, run->job.block + i, &u))
			return;
		if (!n || run->unit[n - 1].number != u.number)
			run->unit[n++] = u;
		run->unit_of[i] = (uint8_t)(n - 1);
	}
	memcpy(run->origin, url.origin, sizeof run->origin);
	run->nunits = n;
}

/* Frames with bytes that decode wrong: what is on disk was so when it was written, or the CRC missed it. */
static void drop_damaged(struct leg *leg)
{
	struct run *run = leg->run;
	const struct obd_disk_blob blob = disk_blob(run);
	for (uint32_t i = leg->first; i < leg->first + leg->n; i++)
		if (leg->decoder.bad >> i & 1)
			obd_disk_drop(run->f->disk, &blob, &run->unit[run->unit_of[i]]);
}

/* The stored bytes of the frames [first, first + n), all of which the disk tier has. Raw chunks lie in falling order. */
static void start_disk_leg(struct run *run, uint32_t first, uint32_t n, const struct obd_disk_got *got)
{
	struct leg *leg = leg_new(run, first, n, true);
	uint32_t last_unit = UINT32_MAX;
	if (!leg)
		return;
	for (uint32_t k = 0; k < n; k++) {
		uint32_t i = run->job.kind == OBD_JOB_RAW ? first + n - 1 - k : first + k;
		uint32_t u = run->unit_of[i];
		if (u != last_unit && obd_decoder_feed(&leg->decoder, got->at[u], run->unit[u].bytes))
			fail_here(run, EAGAIN, "no memory");
		last_unit = u;
	}
	drop_damaged(leg);
	leg_over(leg);
}

static void disk_got(void *arg, const struct obd_disk_got *got)
{
	struct run *run = arg;
	uint64_t there = 0;
	run->disk_read = NULL;
	for (uint32_t i = 0; i < run->job.nblocks; i++)
		there |= (got->have >> run->unit_of[i] & 1) << i;
	for (uint32_t i = 0, n; i < run->job.nblocks && !run->err; i += n) {
		n = 1;
		if (!(there >> i & 1))
			continue;
		n = count_together(run, there, i);
		start_disk_leg(run, i, n, got);
	}
	start_legs(run);
}

static bool ask_disk(struct run *run)
{
	if (!run->nunits || run->attempt > 0 || run->layer.distrust || obd_switched_has(run->f->switched, &run->layer))
		return false;
	const struct obd_disk_blob blob = disk_blob(run);
	return obd_disk_read(run->f->disk, &blob, run->unit, run->nunits, disk_got, run, &run->disk_read) == 0;
}

static void start_attempt(struct run *run)
{
	run->legs = 1; /* a leg that is over at once does not end the attempt */
	run->excuse = 0;
	if (!ask_disk(run))
		start_legs(run);
}

/* Turns into the next attempt at most RETRIES deep when every leg is over at once. */
static void attempt_part_over(struct run *run)
{
	if (--run->legs > 0)
		return;
	bool probe_again = run->job.kind == OBD_JOB_PROBE && run->excuse;
	if (run->err || (!unsettled(run) && !probe_again)) {
		report(run, run->err);
	} else if (run->attempt < RETRIES) {
		run->attempt++;
		start_attempt(run);
	} else {
		report(run, run->excuse ? run->excuse : EBADMSG);
	}
}

/* --- start ---------------------------------------------------------------------------------------------------------------- */

static void refuse(struct obd_fetcher *f, const struct obd_fetch_job *job, int err, const char *reason)
{
	struct obd_fetch_job copy = *job;
	obd_fetch_done(&f->side, &copy, err, reason);
}

static bool state_serves(const struct obd_layer_view *v, enum obd_job_kind kind)
{
	return kind == OBD_JOB_BLOCKS ? v->state >= OBD_LAYER_MAPPED : v->state >= OBD_LAYER_SOURCE;
}

void obd_job_start(struct obd_fetcher *f, const struct obd_fetch_job *job)
{
	assert(job->nblocks <= OBD_JOB_FRAMES);
	struct run *run = calloc(1, sizeof(*run));
	if (!run) {
		refuse(f, job, EAGAIN, "no memory");
		return;
	}
	int rc = obd_catalog_layer(&f->seg, job->layer_slot, job->layer_uid, &run->layer);
	if (rc == 0 && !state_serves(&run->layer, job->kind))
		rc = -EPROTO;
	if (rc) {
		free(run);
		refuse(f, job, -rc, rc == -ESTALE ? "the layer is no longer open" : "the layer's record cannot be");
		return;
	}
	run->f = f;
	run->job = *job;
	obd_list_init(&run->leg_list);
	obd_list_push_back(&f->runs, &run->link);
	f->running++;
	OBD_TEST_POINT_AT(job_begun, run->layer.local ? run->layer.path : run->layer.digest);
	plan_units(run);
	start_attempt(run);
}

void obd_job_forget_all(struct obd_fetcher *f)
{
	while (!obd_list_empty(&f->runs)) {
		struct run *run = OBD_LIST_ENTRY(f->runs.next, struct run, link);
		while (!obd_list_empty(&run->leg_list))
			leg_free(OBD_LIST_ENTRY(run->leg_list.next, struct leg, link));
		release(run);
	}
}
