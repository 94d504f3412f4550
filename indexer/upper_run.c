/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One upper request on its way through the files.
 *
 *     append-only  WRITE    room for the map -> data at data_end -> record at index_end -> map -> answer
 *                  DISCARD  room for the map -> records in one go -> map -> answer
 *     sparse       plan, fill (upper_sparse.c) -> room for the map -> pieces into the file -> map -> answer
 *     READ         data file -> region upread -> answer
 *     SYNC, FUA    fdatasync of the data, then of the index
 *
 * Data go by the engine, all else is done by its threads, and writes that come together go together (upper_batch.c). Records
 * are written under a lock, whole requests or nothing, so the index file has no holes; what fails is cut off again. The map
 * follows on the loop's thread. Requests that overlap never run at the same time, so for each sector the map's order is the
 * file's. Records reach the map in any order otherwise: applied_bytes follows the oldest that is not in it.
 *
 * If the process dies before the record: lost space in the data file. After the record, before the map: the next one applies
 * it.
 */
#include "common/base/testpoint.h"
#include "indexer/upper.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/format/upper.h"
#include "indexer/internal.h"

#define RECORDS_BATCH 2048u
#define ZEROS_BYTES 65536u

static unsigned char *staging(const struct obd_ix_up *up)
{
	return up->ix->seg->client[up->client]->staging[up->slot];
}

/* --- on a thread: records ------------------------------------------------------------------------------------------------- */

static size_t make_records(const struct obd_ix_up *up, uint64_t *done, struct obd_lsmt_seg *seg)
{
	bool zeroed = up->op == OBD_UP_DISCARD;
	size_t n = 0;
	for (; n < RECORDS_BATCH && *done < up->len; n++) {
		uint64_t part = obd_upper_piece_bytes(up->len - *done, zeroed);
		seg[n] = obd_upper_record(up->off + *done, part, up->data_at + (zeroed ? 0 : *done), zeroed);
		*done += part;
	}
	return n;
}

/* May so many more records be appended? */
static int index_room(struct obd_ix_upper *u, uint64_t records)
{
	if ((u->index_end - OBD_LSMT_HEADER_BYTES) / sizeof(struct obd_lsmt_seg) + records > OBD_UPPER_RECORDS_MAX)
		return ENOSPC;
	if (u->index_torn && ftruncate(u->index_fd, (off_t)u->index_end) < 0)
		return errno;
	u->index_torn = false;
	return 0;
}

/* The index file has whole requests only: what was written of others is cut off. */
static void index_moves(struct obd_ix_upper *u, uint64_t end, int err)
{
	if (!err)
		u->index_end = end;
	else if (ftruncate(u->index_fd, (off_t)u->index_end) < 0)
		u->index_torn = true;
}

/* At index_end or not at all. */
static int append_records(struct obd_ix_upper *u, const struct obd_ix_up *up, struct obd_lsmt_seg *seg)
{
	uint64_t at = u->index_end;
	uint64_t most = up->op == OBD_UP_DISCARD ? OBD_UPPER_DISCARD_MAX : OBD_UPPER_WRITE_MAX;
	int err = index_room(u, (up->len + most - 1) / most);
	if (err)
		return err;
	for (uint64_t done = 0; done < up->len && !err;) {
		size_t bytes = make_records(up, &done, seg) * sizeof(*seg);
		err = obd_ix_io_now(u->index_fd, true, seg, bytes, at);
		at += bytes;
	}
	index_moves(u, at, err);
	return err;
}

/* With record_lock held: the map must follow. */
static void recorded(struct obd_ix_up *up, uint64_t index_end)
{
	up->written = up->pending = true;
	up->index_end = index_end;
	pthread_mutex_lock(&up->upper->order_lock);
	obd_list_push_back(&up->upper->recorded, &up->order);
	pthread_mutex_unlock(&up->upper->order_lock);
}

static int record(struct obd_ix_up *up)
{
	struct obd_ix_upper *u = up->upper;
	struct obd_lsmt_seg one, *seg = &one;
	if (up->len > obd_upper_piece_bytes(up->len, up->op == OBD_UP_DISCARD))
		seg = malloc(RECORDS_BATCH * sizeof(*seg));
	if (!seg)
		return ENOMEM;
	OBD_TEST_POINT(up_data);
	pthread_mutex_lock(&u->record_lock);
	int err = append_records(u, up, seg);
	if (!err)
		recorded(up, u->index_end);
	pthread_mutex_unlock(&u->record_lock);
	if (seg != &one)
		free(seg);
	return err;
}

/* The records of n writes, one each, in one go or not at all. */
static int record_joined(struct obd_ix_up *const *up, uint32_t n)
{
	struct obd_ix_upper *u = up[0]->upper;
	struct obd_lsmt_seg seg[OBD_IX_BATCH];
	for (uint32_t i = 0; i < n; i++)
		seg[i] = obd_upper_record(up[i]->off, up[i]->len, up[i]->data_at, false);
	OBD_TEST_POINT(up_data);
	pthread_mutex_lock(&u->record_lock);
	uint64_t at = u->index_end;
	int err = index_room(u, n);
	if (!err) {
		err = obd_ix_io_now(u->index_fd, true, seg, n * sizeof(*seg), at);
		index_moves(u, at + n * sizeof(*seg), err);
	}
	for (uint32_t i = 0; i < n && !err; i++)
		recorded(up[i], at + (i + 1) * sizeof(*seg));
	pthread_mutex_unlock(&u->record_lock);
	return err;
}

/* No record joins the index between the two: one whose data were not synced before it would, after a power failure, stand for
 * bytes that never came, and hide what had been synced there. Most of the data went with the call before this one. */
static int sync_records(struct obd_ix_upper *u)
{
	pthread_mutex_lock(&u->record_lock);
	int err = fdatasync(u->data_fd) || fdatasync(u->index_fd) ? errno : 0;
	pthread_mutex_unlock(&u->record_lock);
	return err;
}

static int sync_now(struct obd_ix_upper *u)
{
	if (u->unsynced)
		return EIO;
	int err = fdatasync(u->data_fd) ? errno : 0;
	if (!err && u->index_fd >= 0)
		err = sync_records(u);
	if (!err)
		return 0;
	u->unsynced = true;
	obd_ix_note_unsynced(u->ix->config ? u->ix->config->runtime_dir : NULL, u->dev, u->ino, u->uuid, u->data_path);
	return err;
}

/* The kernel tells of a failed write-back once, to one of those who ask at the same time. So only one asks at a time, for all
 * who came before it began; and if it failed, it has failed for all and for ever. */
static int sync_files(struct obd_ix_upper *u)
{
	int err = 0;
	pthread_mutex_lock(&u->sync_lock);
	uint64_t mine = ++u->syncs_wanted;
	while (u->syncs_done < mine) {
		if (u->syncing) {
			pthread_cond_wait(&u->synced, &u->sync_lock);
			continue;
		}
		uint64_t all = u->syncs_wanted;
		u->syncing = true;
		pthread_mutex_unlock(&u->sync_lock);
		err = sync_now(u);
		pthread_mutex_lock(&u->sync_lock);
		u->syncing = false;
		u->syncs_done = all;
		pthread_cond_broadcast(&u->synced);
	}
	pthread_mutex_unlock(&u->sync_lock);
	return err ? err : u->unsynced ? EIO : 0;
}

static void run_append(struct obd_ix_task *task)
{
	struct obd_ix_up *up = OBD_CONTAINER_OF(task, struct obd_ix_up, task);
	struct obd_ix_upper *u = up->upper;
	if (up->op == OBD_UP_WRITE && !up->data_here)
		up->err = obd_ix_io_now(u->data_fd, true, staging(up), up->len, up->data_at);
	if (!up->err)
		up->err = record(up);
	if (!up->err && up->fua)
		up->err = sync_files(u);
}

static void run_sync(struct obd_ix_task *task)
{
	struct obd_ix_up *up = OBD_CONTAINER_OF(task, struct obd_ix_up, task);
	up->err = sync_files(up->upper);
}

/* --- on a thread: pieces of a sparse file --------------------------------------------------------------------------------- */

static int write_zeros(int fd, uint64_t at, uint64_t len)
{
	static unsigned char zeros[ZEROS_BYTES];
	int err = 0;
	for (uint64_t part; len && !err; len -= part, at += part) {
		part = obd_min_u64(len, sizeof zeros);
		err = obd_ix_io_now(fd, true, zeros, part, at);
	}
	return err;
}

static int do_piece(const struct obd_ix_upper *u, struct obd_ix_piece *p)
{
	uint64_t at = OBD_LSMT_HEADER_BYTES + p->off;
	if (p->how == OBD_IX_COPY)
		return obd_ix_io_now(u->data_fd, true, (void *)(uintptr_t)p->src, p->len, at);
	if (p->how == OBD_IX_PUNCH) {
		if (fallocate(u->data_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)at, (off_t)p->len) == 0)
			return 0;
		if (errno != EOPNOTSUPP)
			return errno;
		p->how = OBD_IX_ZEROS; /* a file system without holes */
	}
	return write_zeros(u->data_fd, at, p->len);
}

static void run_pieces(struct obd_ix_task *task)
{
	struct obd_ix_up *up = OBD_CONTAINER_OF(task, struct obd_ix_up, task);
	if (up->data_here)
		up->pieces_done = up->npieces;
	for (; up->pieces_done < up->npieces && !up->err; up->pieces_done += !up->err)
		up->err = do_piece(up->upper, &up->piece[up->pieces_done]);
	if (!up->err && up->fua)
		up->err = sync_files(up->upper);
}

/* --- on a thread: writes that went together ------------------------------------------------------------------------------- */

int obd_ix_up_joined(struct obd_ix_up *const *up, uint32_t n)
{
	struct obd_ix_upper *u = up[0]->upper;
	int err = u->sparse ? 0 : record_joined(up, n);
	if (err)
		return err;
	err = up[0]->fua ? sync_files(u) : 0;
	for (uint32_t i = 0; i < n; i++) {
		up[i]->pieces_done = up[i]->npieces;
		up[i]->err = err;
	}
	return 0;
}

/* --- room for the map --------------------------------------------------------------------------------------------------- */

static bool ragged(uint64_t off)
{
	return off / OBD_SECTOR_BYTES % OBD_UPMAP_LEAF_SECTORS != 0;
}

/* Zeros and holes need no leaf where they cover one whole. */
static int reserve_range(struct obd_ix_upper *u, uint64_t off, uint64_t len, bool data)
{
	const uint64_t leaf = (uint64_t)OBD_UPMAP_FANOUT * OBD_UPMAP_LEAF_SECTORS;
	uint64_t from = off / OBD_SECTOR_BYTES, to = (off + len) / OBD_SECTOR_BYTES;
	if (data)
		return obd_upmap_reserve(&u->map, from, to - from);
	int rc = obd_upmap_reserve(&u->map, from, obd_min_u64(to - from, leaf - from % leaf));
	return rc ? rc
		  : obd_upmap_reserve(&u->map, obd_max_u64(from, obd_align_down(to - 1, leaf)),
				      to - obd_max_u64(from, obd_align_down(to - 1, leaf)));
}

/* Records that the map will want are held back: what else runs meanwhile must not take them. */
static int hold_spares(struct obd_ix_up *up, size_t n)
{
	if (!n)
		return 0;
	up->spare = malloc(n * sizeof(*up->spare));
	if (!up->spare)
		return -ENOMEM;
	for (; up->nspare < n; up->nspare++)
		if (obd_pages_alloc(&up->ix->pages, OBD_UPMAP_DETAIL_BYTES, &up->spare[up->nspare]))
			return -ENOSPC;
	return 0;
}

static void free_spares(struct obd_ix_up *up)
{
	while (up->nspare)
		obd_pages_free(&up->ix->pages, up->spare[--up->nspare], OBD_UPMAP_DETAIL_BYTES);
	free(up->spare);
	up->spare = NULL;
}

static int reserve(struct obd_ix_up *up)
{
	struct obd_ix_upper *u = up->upper;
	size_t spares = ragged(up->off) + ragged(up->off + up->len);
	int rc = u->sparse ? 0 : reserve_range(u, up->off, up->len, up->op == OBD_UP_WRITE);
	for (size_t i = 0; i < up->npieces && !rc; i++) {
		const struct obd_ix_piece *p = &up->piece[i];
		spares += ragged(p->off) + ragged(p->off + p->len);
		rc = reserve_range(u, p->off, p->len, p->how == OBD_IX_COPY);
	}
	return rc ? rc : hold_spares(up, spares);
}

/* --- the map ------------------------------------------------------------------------------------------------------------ */

static void map_set(struct obd_ix_upper *u, uint64_t off, uint64_t len, enum obd_upmap_kind kind, uint64_t data_at)
{
	int rc = obd_upmap_set(&u->map, off / OBD_SECTOR_BYTES, len / OBD_SECTOR_BYTES, kind, data_at / OBD_SECTOR_BYTES);
	assert(rc == 0);
}

static void map_pieces(struct obd_ix_up *up)
{
	static const enum obd_upmap_kind kind[] = {
		[OBD_IX_COPY] = OBD_UPMAP_DATA, [OBD_IX_ZEROS] = OBD_UPMAP_ZERO, [OBD_IX_PUNCH] = OBD_UPMAP_NONE};
	for (size_t i = 0; i < up->pieces_done; i++) {
		const struct obd_ix_piece *p = &up->piece[i];
		map_set(up->upper, p->off, p->len, kind[p->how], OBD_LSMT_HEADER_BYTES + p->off);
	}
}

/* The oldest records that the map has: applied_bytes moves over them. Requests that are over go. */
static void settle_records(struct obd_ix_up *up)
{
	struct obd_ix_upper *u = up->upper;
	struct obd_upper_entry *e = &u->ix->cat->upper[u->slot];
	pthread_mutex_lock(&u->order_lock);
	while (!obd_list_empty(&u->recorded)) {
		struct obd_ix_up *first = OBD_LIST_ENTRY(u->recorded.next, struct obd_ix_up, order);
		if (first != up && first->stage != OBD_IX_UP_OVER)
			break;
		obd_list_remove(&first->order);
		first->pending = false;
		e->applied_bytes = first->index_end;
		if (first != up)
			obd_ix_up_free(first);
	}
	pthread_mutex_unlock(&u->order_lock);
}

static void map_append(struct obd_ix_up *up)
{
	if (!up->written)
		return;
	map_set(up->upper, up->off, up->len, up->op == OBD_UP_WRITE ? OBD_UPMAP_DATA : OBD_UPMAP_ZERO, up->data_at);
	OBD_TEST_POINT(up_mapped);
	settle_records(up);
}

/* --- the engine's answers ------------------------------------------------------------------------------------------------- */

static void count(const struct obd_ix_up *up)
{
	struct obd_proc *proc = &up->ix->cat->proc;
	obd_count(proc, writes, up->op == OBD_UP_WRITE && !up->err);
	obd_count(proc, bytes_written, up->op == OBD_UP_WRITE && !up->err ? up->len : 0);
	obd_count(proc, discards, up->op == OBD_UP_DISCARD && !up->err);
	obd_count(proc, syncs, up->op == OBD_UP_SYNC && !up->err);
	obd_count(proc, upper_reads, up->op == OBD_UP_READ && !up->err);
	obd_count(proc, io_errors, up->err != 0);
}

static void over(struct obd_ix_up *up)
{
	struct obd_ix_upper *u = up->upper;
	u->running--;
	up->ix->client[up->client].ups.busy--;
	if (u->unsynced)
		u->ix->cat->upper[u->slot].unsynced = 1;
	free_spares(up);
	if (up->err && up->op != OBD_UP_READ)
		u->stray = true;
	OBD_TEST_POINT(up_record);
	if (u->sparse)
		map_pieces(up);
	else
		map_append(up);
	count(up);
	obd_ix_up_finish(up);
	obd_ix_up_ready(u);
	obd_ix_upper_settle(u);
}

static void run_io(struct obd_ix_task *task)
{
	struct obd_ix_io *io = &OBD_CONTAINER_OF(task, struct obd_ix_up, task)->io;
	io->err = obd_ix_io_now(io->fd, io->write, io->buf, io->bytes, io->off);
}

static void join(struct obd_ix_up *up, const void *src, uint64_t bytes, uint64_t at)
{
	up->join_src = src;
	up->join_bytes = bytes;
	up->join_at = at;
}

/* A write that fits into one record goes with others. */
static void append_write(struct obd_ix_up *up)
{
	_Static_assert(OBD_UP_BUF_BYTES <= OBD_UPPER_WRITE_MAX, "one record is enough for any write");
	join(up, staging(up), up->len, up->data_at);
	obd_ix_gate(up, run_append, over, true);
}

static void data_done(struct obd_ix_up *up)
{
	up->err = up->io.err;
	up->data_here = !up->err;
	if (up->err || up->op == OBD_UP_READ || (up->upper->sparse && !up->fua)) {
		up->pieces_done = up->err ? 0 : up->npieces;
		over(up);
		return;
	}
	if (up->upper->sparse)
		obd_ix_gate(up, run_pieces, over, false);
	else
		append_write(up);
}

/* The io may end before the task that started it has come back, or never begin. */
static void both_done(struct obd_ix_up *up)
{
	if (--up->owners == 0)
		data_done(up);
}

static void io_done(struct obd_ix_task *task)
{
	both_done(OBD_CONTAINER_OF(task, struct obd_ix_up, io.task));
}

static void run_submit(struct obd_ix_task *task)
{
	struct obd_ix_up *up = OBD_CONTAINER_OF(task, struct obd_ix_up, task);
	if (!obd_ix_engine_submit(&up->ix->engine, &up->io))
		return;
	run_io(task);
	obd_ix_engine_withdraw(&up->ix->engine, &up->io);
}

static void start_io(struct obd_ix_up *up, bool write, const void *buf, uint64_t bytes, uint64_t at)
{
	up->io.fd = up->upper->data_fd;
	up->io.direct_fd = up->upper->direct_fd;
	up->io.write = write;
	up->io.buf = (void *)(uintptr_t)buf;
	up->io.bytes = bytes;
	up->io.off = at;
	up->io.task.done = io_done;
	up->owners = 1;
	switch (obd_ix_engine_way(&up->ix->engine, &up->io)) {
	case OBD_IX_WAY_THREAD:
		obd_ix_gate(up, run_io, both_done, false);
		break;
	case OBD_IX_WAY_SUBMIT:
		up->owners = 2;
		obd_ix_gate(up, run_submit, both_done, false);
		break;
	case OBD_IX_WAY_LOOP:
		obd_ix_engine_io(&up->ix->engine, &up->io);
	}
}

/* --- starting ----------------------------------------------------------------------------------------------------------- */

static void running(struct obd_ix_up *up)
{
	up->stage = OBD_IX_UP_RUNNING;
	up->upper->running++;
	up->ix->client[up->client].ups.busy++;
}

static void fail(struct obd_ix_up *up, int rc)
{
	up->err = -rc;
	count(up);
	obd_ix_up_finish(up);
}

/* Whole pages may go past the page cache, if they stand on whole pages of the file. */
static uint64_t place_data(struct obd_ix_upper *u, uint64_t len)
{
	if (u->direct_fd >= 0 && len % OBD_IX_DIRECT_BYTES == 0)
		u->data_end = obd_align_up(u->data_end, OBD_IX_DIRECT_BYTES);
	uint64_t at = u->data_end;
	u->data_end += len;
	return at;
}

static void run_change(struct obd_ix_up *up)
{
	struct obd_ix_upper *u = up->upper;
	int rc = reserve(up);
	if (rc) {
		free_spares(up);
		fail(up, rc);
		return;
	}
	up->data_at = up->op == OBD_UP_WRITE ? place_data(u, up->len) : u->data_end;
	running(up);
	if (up->op == OBD_UP_DISCARD)
		obd_ix_gate(up, run_append, over, false);
	else if (up->ix->engine.kind == OBD_IX_PSYNC)
		append_write(up);
	else
		start_io(up, true, staging(up), up->len, up->data_at);
}

void obd_ix_up_run_pieces(struct obd_ix_up *up)
{
	const struct obd_ix_piece *p = up->piece;
	int rc = reserve(up);
	if (rc) {
		free_spares(up);
		fail(up, rc);
		return;
	}
	running(up);
	bool plain = up->npieces == 1 && p->how == OBD_IX_COPY;
	if (plain && up->ix->engine.kind != OBD_IX_PSYNC) {
		start_io(up, true, p->src, p->len, OBD_LSMT_HEADER_BYTES + p->off);
		return;
	}
	if (plain)
		join(up, p->src, p->len, OBD_LSMT_HEADER_BYTES + p->off);
	obd_ix_gate(up, run_pieces, over, plain);
}

static void run_sparse(struct obd_ix_up *up)
{
	int rc = obd_ix_sparse_plan(up);
	up->stage = OBD_IX_UP_FILLING;
	if (rc == -EBUSY)
		obd_list_push_back(&up->ix->ups_starved, &up->queue);
	else if (rc)
		fail(up, rc);
	else
		obd_ix_sparse_fill(up);
}

void obd_ix_up_go_on(struct obd_ix_up *up)
{
	if (up->npieces)
		obd_ix_sparse_fill(up);
	else
		run_sparse(up);
}

/* May a READ have its bytes? */
static bool is_inside(const struct obd_ix_up *up)
{
	const struct obd_ix_upper *u = up->upper;
	uint64_t end = u->sparse ? OBD_LSMT_HEADER_BYTES + u->bytes : u->data_end;
	return up->off <= end && up->len <= end - up->off;
}

static void run_read(struct obd_ix_up *up)
{
	if (!is_inside(up)) {
		obd_count(&up->ix->cat->proc, protocol_errors, 1);
		fail(up, -EINVAL);
		return;
	}
	running(up);
	start_io(up, false, up->ix->seg->upread->buf[up->client][up->slot], up->len, up->off);
}

void obd_ix_up_run(struct obd_ix_up *up)
{
	if (up->op == OBD_UP_READ) {
		run_read(up);
	} else if (up->op == OBD_UP_SYNC) {
		running(up);
		obd_ix_gate(up, run_sync, over, false);
	} else if (up->upper->sparse) {
		run_sparse(up);
	} else {
		run_change(up);
	}
}

void obd_ix_up_free(struct obd_ix_up *up)
{
	OBD_LIST_FOREACH_SAFE (it, &up->posts)
		free(OBD_LIST_ENTRY(it, struct obd_ix_post, link));
	free(up->spare);
	for (size_t i = 0; i < up->npieces; i++)
		free(up->piece[i].own);
	up->ix->bounce_bytes -= up->bounce_bytes;
	up->ix->bounce_freed |= up->bounce_bytes != 0;
	free(up->piece);
	free(up->fill);
	free(up);
}
