/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "indexer/record.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/format/trace.h"
#include "indexer/internal.h"
#include "shmcache/ring.h"

#define SETTLE_NS OBD_SECOND_NS /* so long touches are kept in their rings for a disk */

/* What a thread does for a recording: appends to the part file, and looks for the lock file. The thread's while it is busy. */
struct step {
	struct obd_ix_task task;
	bool busy;
	unsigned char *bytes; /* NULL: none */
	size_t len;
	off_t at;
	size_t ndirty;	/* of the recording's list, from its beginning: what the bytes are of */
	char *lock;	/* NULL: do not look */
	bool lock_gone; /* what came of it */
	int err;
};

/* A recording under way. */
struct obd_ix_record {
	struct obd_list link;	  /* in ix->records */
	struct obd_ix_open *open; /* NULL: over, and only waits for its step */
	struct obd_indexer *ix;
	char *trace;
	int part;	      /* the part file */
	off_t part_bytes;     /* of whole records in it */
	uint32_t block_bytes; /* of the touches */
	struct obd_ix_keys keys;
	size_t *dirty; /* places of keys that the part file has not, or not all of */
	size_t ndirty, dirty_room;
	bool full;
	bool broken;   /* the part file cannot be written: said once */
	bool look_due; /* the lock file is to be looked for */
	struct step step;
};

/* A finished trace on its way to the disk. */
struct write_task {
	struct obd_ix_task task;
	struct obd_list link; /* in ix->trace_writes */
	char *trace;
	unsigned char *bytes;
	size_t len;
	int err;
};

static char *beside(const char *trace, const char *suffix)
{
	size_t n = strlen(trace) + strlen(suffix) + 1;
	char *path = malloc(n);
	if (path)
		snprintf(path, n, "%s%s", trace, suffix);
	return path;
}

static void remove_beside(const char *trace, const char *suffix)
{
	char *path = beside(trace, suffix);
	if (path && unlink(path) && errno != ENOENT)
		obd_warn("%s: cannot be removed: %s", path, strerror(errno));
	free(path);
}

static bool is_beside(const char *trace, const char *suffix)
{
	struct stat st;
	char *path = beside(trace, suffix);
	bool there = path && (lstat(path, &st) == 0 || errno != ENOENT);
	free(path);
	return there;
}

/* Makes or opens a file beside the trace. A descriptor or a negative errno. */
static int open_beside(const char *trace, const char *suffix, int flags)
{
	char *path = beside(trace, suffix);
	int fd = path ? open(path, flags | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0644) : -1;
	int rc = fd >= 0 ? fd : path ? -errno : -ENOMEM;
	free(path);
	return rc;
}

/* --- what was touched --------------------------------------------------------------------------------------------------- */

static void note_dirty(struct obd_ix_record *r, size_t at)
{
	if (r->ndirty == r->dirty_room) {
		size_t room = r->dirty_room ? 2 * r->dirty_room : 256;
		size_t *more = realloc(r->dirty, room * sizeof *more);
		if (!more)
			return; /* it is in memory; only a death of this process would lose it */
		r->dirty = more;
		r->dirty_room = room;
	}
	r->dirty[r->ndirty++] = at;
}

static void add(struct obd_ix_record *r, uint64_t key, struct obd_part part)
{
	size_t at;
	enum obd_ix_keys_result rc = obd_ix_keys_add(&r->keys, key, part, r->block_bytes, OBD_TRACE_RECORDS_MAX, &at);
	if (rc == OBD_IX_KEYS_FRESH || rc == OBD_IX_KEYS_GREW)
		note_dirty(r, at);
	if (rc != OBD_IX_KEYS_FULL || r->full)
		return;
	obd_warn("%s: the trace is full: what is read from now on is not recorded", r->trace);
	r->full = true;
}

/* The record of one key; false: the layer has no such bytes. */
static bool record_of(const struct obd_ix_record *r, size_t at, struct obd_trace_record *out)
{
	uint64_t key = r->keys.key[at];
	struct obd_part part = r->keys.part[at];
	const struct obd_indexer *ix = r->open->ix;
	const struct obd_image *e = obd_ix_image_entry(ix, r->open->image);
	uint32_t layer = obd_ix_key_layer(key);
	if (layer >= e->nlayers)
		return false;
	uint64_t bytes = ix->cat->layer[e->layer_slot[layer]].file_bytes;
	uint64_t off = (uint64_t)obd_ix_key_block(key) * r->block_bytes + part.begin;
	uint64_t len = part.end ? part.end - part.begin : r->block_bytes;
	*out = (struct obd_trace_record){.layer = layer, .offset = off};
	if (off < bytes)
		out->count = obd_min_u64(len, bytes - off);
	return off < bytes;
}

/* --- the part file ------------------------------------------------------------------------------------------------------ */

static void step_run(struct obd_ix_task *task)
{
	struct obd_ix_record *r = OBD_CONTAINER_OF(task, struct obd_ix_record, step.task);
	struct step *s = &r->step;
	struct stat st;
	s->err = s->bytes ? obd_ix_io_now(r->part, true, s->bytes, s->len, (uint64_t)s->at) : 0;
	s->lock_gone = s->lock && lstat(s->lock, &st) && errno == ENOENT;
}

static void step_clear(struct step *s)
{
	free(s->bytes);
	free(s->lock);
	*s = (struct step){.busy = false};
}

/* The records that are not in the part file yet. */
static void plan_append(struct obd_ix_record *r)
{
	struct step *s = &r->step;
	s->bytes = r->ndirty ? malloc(r->ndirty * OBD_TRACE_RECORD_BYTES) : NULL;
	s->at = r->part_bytes;
	s->ndirty = r->ndirty;
	for (size_t i = 0; i < r->ndirty && s->bytes; i++) {
		struct obd_trace_record rec;
		if (!record_of(r, r->dirty[i], &rec))
			continue;
		obd_trace_encode(s->bytes + s->len, &rec);
		s->len += OBD_TRACE_RECORD_BYTES;
	}
}

static void step_done(struct obd_ix_task *task);

static void step_start(struct obd_ix_record *r)
{
	struct step *s = &r->step;
	if (s->busy || !r->open || (!r->ndirty && !r->look_due))
		return;
	plan_append(r);
	s->lock = r->look_due ? beside(r->trace, ".lock") : NULL;
	r->look_due = false;
	s->busy = true;
	s->task.run = step_run;
	s->task.done = step_done;
	obd_ix_engine_run(&r->ix->engine, &s->task);
}

/* A record that was written by half is written again, from its beginning: what is behind part_bytes counts for nothing. */
static void append_done(struct obd_ix_record *r, const struct step *s)
{
	if (!s->bytes)
		return;
	if (s->err && !r->broken)
		obd_warn("%s.part: cannot be written (%s): the recording goes on in memory", r->trace, strerror(s->err));
	r->broken = s->err != 0;
	if (s->err)
		return;
	r->part_bytes += (off_t)s->len;
	r->ndirty -= s->ndirty;
	memmove(r->dirty, r->dirty + s->ndirty, r->ndirty * sizeof *r->dirty); /* what was noted meanwhile */
}

/* Takes up what an earlier process left, and cuts a torn record off. */
static void part_load(struct obd_ix_record *r, const struct obd_image *e)
{
	const struct obd_indexer *ix = r->open->ix;
	unsigned char rec[OBD_TRACE_RECORD_BYTES];
	struct obd_trace_record t;
	off_t at = 0;
	for (; pread(r->part, rec, sizeof rec, at) == (ssize_t)sizeof rec && !r->full; at += (off_t)sizeof rec) {
		uint64_t first, count;
		if (!obd_trace_decode(rec, &t) || t.layer >= e->nlayers || t.count > OBD_TRACE_COUNT_MAX ||
		    !obd_trace_blocks(&t, ix->cat->layer[e->layer_slot[t.layer]].file_bytes, r->block_bytes, &first, &count))
			continue;
		for (uint64_t i = 0; i < count; i++)
			add(r, obd_ix_key(t.layer, first + i), obd_ix_trace_part(&t, i, count, r->block_bytes));
	}
	r->ndirty = 0;
	r->part_bytes = at;
	if (ftruncate(r->part, at))
		obd_warn("%s.part: %s", r->trace, strerror(errno));
}

/* --- the end ------------------------------------------------------------------------------------------------------------ */

/* The trace as it goes to the disk. NULL: memory. */
static unsigned char *whole_trace(const struct obd_ix_record *r, size_t *len, uint64_t *records)
{
	unsigned char *file = malloc(OBD_TRACE_HEADER_BYTES + (r->keys.count + 1) * OBD_TRACE_RECORD_BYTES);
	unsigned char *at = file ? file + OBD_TRACE_HEADER_BYTES : NULL;
	struct obd_trace_record run = {.count = 0}, next;
	for (size_t i = 0; file && i < r->keys.count; i++) {
		if (!record_of(r, i, &next))
			continue;
		if (run.count && obd_trace_join(&run, &next))
			continue;
		if (run.count) {
			obd_trace_encode(at, &run);
			at += OBD_TRACE_RECORD_BYTES;
		}
		run = next;
	}
	if (!file)
		return NULL;
	if (run.count) {
		obd_trace_encode(at, &run);
		at += OBD_TRACE_RECORD_BYTES;
	}
	*len = (size_t)(at - file);
	*records = (*len - OBD_TRACE_HEADER_BYTES) / OBD_TRACE_RECORD_BYTES;
	obd_trace_header(file, file + OBD_TRACE_HEADER_BYTES, *records);
	return file;
}

/* The trace keeps the owner and the mode that the empty file had. 0 or a positive errno. */
static int put_file(const char *trace, const unsigned char *bytes, size_t len)
{
	struct stat st;
	char *tmp = beside(trace, ".tmp");
	int err = 0;
	int fd = open_beside(trace, ".tmp", O_WRONLY | O_TRUNC);
	if (fd < 0 || !tmp) {
		err = fd < 0 ? -fd : ENOMEM;
		goto out;
	}
	err = obd_ix_io_now(fd, true, (void *)(uintptr_t)bytes, len, 0);
	if (!err && stat(trace, &st) == 0 && (fchown(fd, st.st_uid, st.st_gid) || fchmod(fd, st.st_mode & 07777)))
		err = errno;
	if (!err && (fsync(fd) || rename(tmp, trace)))
		err = errno;
	if (err)
		unlink(tmp);
out:
	if (fd >= 0)
		close(fd);
	free(tmp);
	return err;
}

static void write_run(struct obd_ix_task *task)
{
	struct write_task *w = OBD_CONTAINER_OF(task, struct write_task, task);
	w->err = put_file(w->trace, w->bytes, w->len);
	if (w->err)
		return;
	remove_beside(w->trace, ".part");
	remove_beside(w->trace, ".lock");
	int fd = open_beside(w->trace, ".ok", O_WRONLY);
	if (fd >= 0)
		close(fd);
	else
		w->err = -fd;
}

static void write_free(struct write_task *w)
{
	obd_list_remove(&w->link);
	free(w->trace);
	free(w->bytes);
	free(w);
}

static void write_done(struct obd_ix_task *task)
{
	struct write_task *w = OBD_CONTAINER_OF(task, struct write_task, task);
	if (w->err)
		obd_error("%s: the trace cannot be written: %s", w->trace, strerror(w->err));
	else
		obd_info("%s: the trace is whole", w->trace);
	write_free(w);
}

/* A step under way frees it when it is done. */
static void record_free(struct obd_ix_record *r)
{
	if (r->open)
		r->open->record = NULL;
	r->open = NULL;
	if (r->step.busy)
		return;
	step_clear(&r->step);
	obd_list_remove(&r->link);
	if (r->part >= 0)
		close(r->part);
	free(r->trace);
	free(r->dirty);
	obd_ix_keys_free(&r->keys);
	free(r);
}

/* Only a thread waits for the disk. */
static void hand_over(struct obd_ix_record *r)
{
	struct obd_indexer *ix = r->open->ix;
	struct write_task *w = calloc(1, sizeof *w);
	uint64_t records = 0;
	if (w)
		w->bytes = whole_trace(r, &w->len, &records);
	if (!w || !w->bytes) {
		free(w);
		obd_error("%s: out of memory for the trace", r->trace);
		return;
	}
	w->trace = r->trace;
	r->trace = NULL;
	w->task.run = write_run;
	w->task.done = write_done;
	obd_list_push_back(&ix->trace_writes, &w->link);
	obd_count(&ix->cat->proc, trace_records, records);
	obd_info("%s: recorded %zu blocks as %" PRIu64 " records", w->trace, r->keys.count, records);
	obd_ix_engine_run(&ix->engine, &w->task);
}

void obd_ix_record_end(struct obd_ix_open *o)
{
	if (!o->record)
		return;
	obd_ix_record_poll(o->ix);
	obd_store_relaxed(&o->ix->cat->client[o->client].reply[o->slot].recording, 0);
	hand_over(o->record);
	record_free(o->record);
}

/* --- the beginning ------------------------------------------------------------------------------------------------------ */

static bool is_into(const struct obd_ix_record *r, const char *trace)
{
	return r->open && strcmp(r->trace, trace) == 0;
}

/* Two devices cannot write one trace, nor can one begin while the last one's is still on its way. */
static bool in_use(const struct obd_indexer *ix, const char *trace)
{
	OBD_LIST_FOREACH (it, &ix->records)
		if (is_into(OBD_LIST_ENTRY(it, struct obd_ix_record, link), trace))
			return true;
	OBD_LIST_FOREACH (it, &ix->trace_writes)
		if (strcmp(OBD_LIST_ENTRY(it, struct write_task, link)->trace, trace) == 0)
			return true;
	return false;
}

/* A lock file that is there already was left by a death in the middle: its part file is gone on with. */
static int make_lock(const char *trace, bool *go_on)
{
	*go_on = is_beside(trace, ".lock");
	int fd = open_beside(trace, ".lock", O_WRONLY);
	if (fd < 0)
		return fd;
	close(fd);
	remove_beside(trace, ".ok");
	return 0;
}

/* go_on: this recording is an earlier process's; if the lock file went meanwhile, the next look at it ends the recording. */
static int open_files(struct obd_ix_record *r, bool go_on)
{
	int rc = go_on ? 0 : make_lock(r->trace, &go_on);
	if (rc)
		return rc;
	r->part = open_beside(r->trace, ".part", O_RDWR | (go_on ? 0 : O_TRUNC));
	if (r->part < 0)
		return r->part;
	part_load(r, obd_ix_image_entry(r->open->ix, r->open->image));
	return 0;
}

static int begin(struct obd_ix_open *o, const char *trace, bool go_on, struct obd_err *err)
{
	struct obd_indexer *ix = o->ix;
	if (in_use(ix, trace))
		return obd_err_set(err, EBUSY, "another device records into it");
	int rc = ix->engine.started ? 0 : obd_ix_engine_start(&ix->engine, ix->engine_kind, err);
	if (rc)
		return rc;
	struct obd_ix_record *r = calloc(1, sizeof *r);
	if (!r)
		return -ENOMEM;
	r->part = -1;
	r->open = o;
	r->ix = ix;
	r->block_bytes = ix->seg->geo.block_bytes;
	obd_list_init(&r->link);
	r->trace = strdup(trace);
	rc = r->trace ? open_files(r, go_on) : -ENOMEM;
	if (rc) {
		record_free(r);
		return rc;
	}
	o->record = r;
	obd_list_push_back(&ix->records, &r->link);
	return 0;
}

bool obd_ix_record_start(struct obd_ix_open *o, const char *trace)
{
	struct obd_err err = {{0}};
	int rc = begin(o, trace, false, &err);
	if (rc)
		obd_warn("%s: reads are not recorded in %s: %s", o->path, trace, err.msg[0] ? err.msg : strerror(-rc));
	else
		obd_info("%s: records its reads in %s until %s.lock is removed", o->path, trace, trace);
	return rc == 0;
}

void obd_ix_record_resume(struct obd_ix_open *o)
{
	struct obd_image_config *cfg = NULL;
	struct obd_err err = {{0}};
	_Atomic uint32_t *recording = &o->ix->cat->client[o->client].reply[o->slot].recording;
	if (!o->image || !obd_load_relaxed(recording))
		return;
	int rc = obd_image_config_load(o->path, &cfg, &err);
	if (!rc && !cfg->record_trace_path)
		rc = obd_err_set(&err, ENOENT, "the configuration names no trace any more");
	if (!rc)
		rc = begin(o, cfg->record_trace_path, true, &err);
	obd_image_config_free(cfg);
	if (!rc)
		return;
	obd_warn("%s: the recording ends: %s", o->path, err.msg[0] ? err.msg : strerror(-rc));
	obd_store_relaxed(recording, 0);
}

/* --- touches ------------------------------------------------------------------------------------------------------------ */

static void take(struct obd_indexer *ix, uint32_t c, uint64_t entry)
{
	struct obd_ix_open *o = ix->client[c].open[entry >> 44 & (OBD_OPEN_SLOTS - 1)];
	uint32_t bb = ix->seg->geo.block_bytes, step = bb / OBD_TOUCH_STEPS;
	uint32_t begin = (uint32_t)(entry & 0xf) * step, end = (uint32_t)((entry >> 4 & 0xf) + 1) * step;
	if (o && o->record && (o->seq & OBD_TOUCH_SEQ_MASK) == entry >> 53 && begin < end)
		add(o->record, obd_ix_key(entry >> 36 & 0xff, entry >> 8 & OBD_TOUCH_BLOCK_MAX), obd_part_make(begin, end, bb));
}

/* Entries are copied out, and leave the ring in settle(). */
static bool take_ring(struct obd_indexer *ix, uint32_t c)
{
	const struct obd_ring *ring = &ix->seg->client[c]->touches;
	uint64_t *taken = &ix->client[c].touches_taken;
	uint64_t head = obd_load_acquire(&ring->head); /* edge: ring-publish */
	if (head == *taken || !obd_ring_begun(head))
		return false;
	if (head - *taken > OBD_RING_ENTRIES) {
		obd_count(&ix->cat->proc, protocol_errors, 1);
		*taken = head;
	}
	for (; *taken != head; ++*taken)
		take(ix, c, obd_load_relaxed(&ring->entry[*taken & (OBD_RING_ENTRIES - 1)]));
	if (!ix->touches_since_ns)
		ix->touches_since_ns = obd_clock_ns();
	return true;
}

static bool is_settled(const struct obd_indexer *ix)
{
	OBD_LIST_FOREACH (it, &ix->records) {
		const struct obd_ix_record *r = OBD_LIST_ENTRY(it, struct obd_ix_record, link);
		if (r->open && r->ndirty && !r->broken)
			return false;
	}
	return true;
}

/* Entries leave the rings when they are in part files, so that the next process finds them here or there. A disk that does not
 * take them in time holds up no other recording: theirs is a ring for all devices of a client. */
static void settle(struct obd_indexer *ix)
{
	if (!ix->touches_since_ns || (!is_settled(ix) && obd_clock_ns() - ix->touches_since_ns < SETTLE_NS))
		return;
	ix->touches_since_ns = 0;
	for (uint32_t c = 1; c < OBD_MAX_CLIENTS; c++) {
		struct obd_tail *own = &ix->cat->client[c].touches_tail;
		if (ix->client[c].up && obd_load_relaxed(&own->tail) != ix->client[c].touches_taken)
			obd_store_release(&own->tail, ix->client[c].touches_taken); /* edge: ring-consume */
	}
}

static void start_steps(struct obd_indexer *ix)
{
	OBD_LIST_FOREACH (it, &ix->records)
		step_start(OBD_LIST_ENTRY(it, struct obd_ix_record, link));
}

static void step_done(struct obd_ix_task *task)
{
	struct obd_ix_record *r = OBD_CONTAINER_OF(task, struct obd_ix_record, step.task);
	struct obd_indexer *ix = r->ix;
	struct step s = r->step;
	r->step = (struct step){.busy = false};
	if (!r->open) {
		record_free(r);
	} else {
		append_done(r, &s);
		if (s.lock_gone)
			obd_ix_record_end(r->open);
		else if (!r->broken)
			step_start(r);
	}
	step_clear(&s);
	settle(ix);
}

bool obd_ix_record_poll(struct obd_indexer *ix)
{
	bool did = false;
	for (uint32_t c = 1; c < OBD_MAX_CLIENTS && !obd_list_empty(&ix->records); c++)
		if (ix->client[c].up)
			did |= take_ring(ix, c);
	if (did)
		start_steps(ix);
	settle(ix);
	return did;
}

void obd_ix_record_client_up(struct obd_indexer *ix, uint32_t c)
{
	ix->client[c].touches_taken = obd_load_relaxed(&ix->cat->client[c].touches_tail.tail);
}

void obd_ix_record_tick(struct obd_indexer *ix)
{
	obd_ix_record_poll(ix);
	OBD_LIST_FOREACH (it, &ix->records)
		OBD_LIST_ENTRY(it, struct obd_ix_record, link)->look_due = true;
	start_steps(ix);
}

void obd_ix_record_free_all(struct obd_indexer *ix)
{
	OBD_LIST_FOREACH_SAFE (it, &ix->records) {
		struct obd_ix_record *r = OBD_LIST_ENTRY(it, struct obd_ix_record, link);
		r->step.busy = false;
		record_free(r);
	}
	OBD_LIST_FOREACH_SAFE (it, &ix->trace_writes)
		write_free(OBD_LIST_ENTRY(it, struct write_task, link));
}
