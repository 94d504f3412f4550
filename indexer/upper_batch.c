/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Requests of a device on their way to a thread and back.
 *
 *     alone   reads, syncs, discards, pieces of many kinds     one request, one task
 *     joint   writes of one piece                              as many as there are, one task
 *
 *     obd_ix_gate -> alone or joint -> (end of the loop's round) -> batch -> thread -> then() of each, on the loop
 *
 * A hand-over to a thread and back costs more than the writing of 4 KiB. So writes go by batches: data that stand next to each
 * other in the file by one pwritev, records by one pwrite, one fdatasync for all that want it. While a batch is under way, a
 * few small writes wait and become the next one; as many as fill half a batch do not wait, nor does anything that goes alone.
 *
 * What goes wrong for a batch is done once more one by one, so that each request has an errno of its own; a place that is
 * written twice gets the same bytes.
 *
 * If the process dies: as for a single request (upper_run.c). The records of a batch are in the file's order, so a part of them
 * that was written is a prefix.
 */
#include "indexer/upper.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/uio.h>

#include "indexer/internal.h"

/* --- on a thread -------------------------------------------------------------------------------------------------------- */

/* Everything or nothing: an errno stands for both. */
static int write_run(int fd, const struct iovec *iov, int n, uint64_t bytes, uint64_t at)
{
	ssize_t done = pwritev(fd, iov, n, (off_t)at);
	if (done == (ssize_t)bytes)
		return 0;
	return done < 0 ? errno : EIO;
}

static uint64_t end_of(const struct obd_ix_up *up)
{
	return up->join_at + up->join_bytes;
}

/* Data of requests that follow each other in the file go by one call. */
static int write_data(const struct obd_ix_batch *b)
{
	struct iovec iov[OBD_IX_BATCH];
	int err = 0;
	for (uint32_t i = 0, n; i < b->n && !err; i += n) {
		uint64_t bytes = 0;
		n = 0;
		do {
			const struct obd_ix_up *up = b->up[i + n];
			iov[n] = (struct iovec){.iov_base = (void *)(uintptr_t)up->join_src, .iov_len = up->join_bytes};
			bytes += up->join_bytes;
			n++;
		} while (i + n < b->n && b->up[i + n]->join_at == end_of(b->up[i + n - 1]));
		err = write_run(b->upper->data_fd, iov, (int)n, bytes, b->up[i]->join_at);
	}
	return err;
}

static void one_by_one(struct obd_ix_batch *b)
{
	for (uint32_t i = 0; i < b->n; i++)
		b->up[i]->task.run(&b->up[i]->task);
}

static void run_batch(struct obd_ix_task *task)
{
	struct obd_ix_batch *b = OBD_CONTAINER_OF(task, struct obd_ix_batch, task);
	int err = 0;
	if (b->n == 1) {
		one_by_one(b);
		return;
	}
	if (!b->up[0]->data_here)
		err = write_data(b);
	if (!err)
		err = obd_ix_up_joined(b->up, b->n);
	if (err)
		one_by_one(b);
}

/* --- on the loop -------------------------------------------------------------------------------------------------------- */

static void want_open(struct obd_ix_upper *u)
{
	if (obd_list_empty(&u->gates))
		obd_list_push_back(&u->ix->ups_gates, &u->gates);
}

void obd_ix_gate(struct obd_ix_up *up, void (*run)(struct obd_ix_task *), void (*then)(struct obd_ix_up *), bool joint)
{
	struct obd_ix_upper *u = up->upper;
	up->task.run = run;
	up->then = then;
	obd_list_push_back(joint ? &u->joint : &u->alone, &up->queue);
	want_open(u);
}

/* The requests may be the last that keep the upper: it is not looked at after they are done. */
static void batch_done(struct obd_ix_task *task)
{
	struct obd_ix_batch *b = OBD_CONTAINER_OF(task, struct obd_ix_batch, task);
	struct obd_ix_upper *u = b->upper;
	struct obd_ix_up *up[OBD_IX_BATCH];
	uint32_t n = b->n;
	memcpy(up, b->up, sizeof up);
	b->n = 0;
	u->threads--;
	u->joint_threads -= b->joint;
	want_open(u);
	for (uint32_t i = 0; i < n; i++)
		up[i]->then(up[i]);
}

static bool joins(const struct obd_ix_batch *b, uint64_t bytes, const struct obd_ix_up *up)
{
	const struct obd_ix_up *first = b->up[0];
	return b->n < OBD_IX_BATCH && bytes + up->join_bytes <= OBD_IX_BATCH_BYTES && up->fua == first->fua &&
	       up->data_here == first->data_here;
}

static void start(struct obd_ix_upper *u, struct obd_list *from, bool joint)
{
	struct obd_ix_batch *b = u->batch;
	uint64_t bytes = 0;
	while (b->n)
		b++;
	assert(b < u->batch + OBD_IX_UPPER_THREADS);
	b->upper = u;
	while (!obd_list_empty(from)) {
		struct obd_ix_up *up = OBD_LIST_ENTRY(from->next, struct obd_ix_up, queue);
		if (b->n && (!joint || !joins(b, bytes, up)))
			break;
		obd_list_remove(&up->queue);
		bytes += up->join_bytes;
		b->up[b->n++] = up;
		if (up->owners == 2) /* the task starts an io, which has its own end */
			obd_ix_engine_expect(&u->ix->engine, &up->io);
	}
	b->joint = joint && !b->up[0]->fua; /* others wait for a batch, but not for its sync */
	u->threads++;
	u->joint_threads += b->joint;
	b->task.run = run_batch;
	b->task.done = batch_done;
	obd_ix_engine_run(&u->ix->engine, &b->task);
}

/* Is there half a batch? */
static bool many(const struct obd_list *joint)
{
	uint64_t bytes = 0;
	uint32_t n = 0;
	OBD_LIST_FOREACH (it, joint) {
		bytes += OBD_LIST_ENTRY(it, struct obd_ix_up, queue)->join_bytes;
		if (++n >= OBD_IX_BATCH / 2 || bytes >= OBD_IX_BATCH_BYTES / 2)
			return true;
	}
	return false;
}

static bool open_gate(struct obd_ix_upper *u)
{
	bool did = false;
	for (; u->threads < OBD_IX_UPPER_THREADS; did = true) {
		if (!obd_list_empty(&u->joint) && !u->joint_threads)
			start(u, &u->joint, true);
		else if (!obd_list_empty(&u->alone))
			start(u, &u->alone, false);
		else if (many(&u->joint))
			start(u, &u->joint, true);
		else
			break;
	}
	return did;
}

bool obd_ix_gates_open(struct obd_indexer *ix)
{
	bool did = false;
	while (!obd_list_empty(&ix->ups_gates)) {
		struct obd_ix_upper *u = OBD_LIST_ENTRY(ix->ups_gates.next, struct obd_ix_upper, gates);
		obd_list_remove(&u->gates);
		did |= open_gate(u);
	}
	return did;
}
