/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Queues between the loop and the threads that do the disk tier's I/O.
 *
 * A read that was given up goes on in its thread; until it comes back that thread is one less. When every reader is held like
 * that, nothing more is asked. Writes have a thread of their own, so that reads never wait behind them.
 *
 * If the process dies: what waited to be written is fetched again one day; files are good at any moment (disk_io.c).
 */
#include "fetcher/disk.h"

#include <assert.h>
#include <errno.h>
#include <openssl/sha.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/base/util.h"
#include "fetcher/disk_impl.h"

#define STACK_BYTES (256u << 10)
#define STOP_NS (2 * OBD_SECOND_NS)

struct obd_disk_read {
	struct obd_disk_req req; /* first: freed as one */
	struct obd_list waiting; /* d->waiting, oldest first */
	struct obd_disk *d;
	uint64_t due_ns;
	obd_disk_got_fn *got; /* NULL: given up or cancelled */
	void *arg;
};

struct worker {
	struct obd_disk *d;
	uint32_t queue; /* todo[queue] */
};

struct obd_disk {
	struct obd_loop *loop;
	struct obd_fetch_stats *stats;
	uint32_t block_bytes;
	struct obd_loop_timer *timer;
	int event_fd;
	struct obd_disk_gate gate;
	uint64_t written; /* since the last look */
	int fault;	  /* positive errno, in this epoch */
	uint64_t buffered;
	uint32_t held; /* readers that do work which was given up */
	struct obd_list waiting;
	struct obd_disk_store store;
	uint32_t nthreads;
	pthread_t thread[OBD_DISK_THREADS];
	struct worker worker[OBD_DISK_THREADS];
	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t more[2];
	struct obd_list todo[2]; /* reads; writes and drops */
	struct obd_list done;
	bool stop;
};

/* --- threads ------------------------------------------------------------------------------------------------------------ */

static struct obd_disk_req *next_req(struct obd_disk *d, uint32_t queue)
{
	struct obd_disk_req *req = NULL;
	pthread_mutex_lock(&d->lock);
	while (obd_list_empty(&d->todo[queue]) && !d->stop)
		pthread_cond_wait(&d->more[queue], &d->lock);
	if (!obd_list_empty(&d->todo[queue])) {
		req = OBD_LIST_ENTRY(d->todo[queue].next, struct obd_disk_req, link);
		obd_list_remove(&req->link);
		req->taken = true;
	}
	pthread_mutex_unlock(&d->lock);
	return req;
}

static void give_back(struct obd_disk *d, struct obd_disk_req *req)
{
	uint64_t one = 1;
	pthread_mutex_lock(&d->lock);
	obd_list_push_back(&d->done, &req->link);
	ssize_t n = write(d->event_fd, &one, sizeof one); /* under the lock: nobody frees before it is written */
	pthread_mutex_unlock(&d->lock);
	assert(n == (ssize_t)sizeof one || errno == EAGAIN);
}

static void *work(void *arg)
{
	const struct worker *self = arg;
	struct obd_disk_req *req;
	while ((req = next_req(self->d, self->queue))) {
		obd_disk_run(&self->d->store, req);
		give_back(self->d, req);
	}
	return NULL;
}

static void queue_req(struct obd_disk *d, struct obd_disk_req *req)
{
	uint32_t queue = req->op == OBD_DISK_READ ? 0 : 1;
	pthread_mutex_lock(&d->lock);
	obd_list_push_back(&d->todo[queue], &req->link);
	pthread_cond_signal(&d->more[queue]);
	pthread_mutex_unlock(&d->lock);
}

/* Signals are the loop's. */
static int start_threads(struct obd_disk *d)
{
	pthread_attr_t attr;
	sigset_t all, old;
	sigfillset(&all);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	int rc = 0;
	for (uint32_t i = 0; i < OBD_DISK_THREADS && !rc; i++) {
		d->worker[i] = (struct worker){.d = d, .queue = i < OBD_DISK_READERS ? 0 : 1};
		rc = pthread_create(&d->thread[i], &attr, work, &d->worker[i]);
		d->nthreads += rc == 0;
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	return -rc;
}

/* --- outcomes, in the loop ---------------------------------------------------------------------------------------------- */

static void note_fault(struct obd_disk *d, int err)
{
	if (!err)
		return;
	d->stats->disk_errors++;
	if (!d->fault)
		d->fault = err;
}

static void free_req(struct obd_disk_req *req)
{
	free(req->buf);
	free(req);
}

static void finish_write(struct obd_disk *d, struct obd_disk_req *req)
{
	d->stats->disk_bytes_written += req->moved;
	d->stats->disk_dropped += req->ndropped;
	d->buffered -= req->bytes;
	free_req(req);
}

static void finish_read(struct obd_disk *d, struct obd_disk_read *r)
{
	const struct obd_disk_req *req = &r->req;
	d->stats->bytes_disk += req->moved;
	obd_list_remove(&r->waiting);
	if (r->got) {
		uint32_t hits = (uint32_t)__builtin_popcountll(req->got.have);
		d->stats->disk_hits += hits;
		d->stats->disk_misses += req->n - hits;
		r->got(r->arg, &req->got);
	} else if (r->due_ns == 0) {
		d->held--;
	}
	free_req(&r->req);
}

static void finish(struct obd_disk *d, struct obd_disk_req *req)
{
	d->stats->disk_corrupt += req->ncorrupt;
	note_fault(d, req->err);
	if (req->op == OBD_DISK_READ)
		finish_read(d, OBD_CONTAINER_OF(req, struct obd_disk_read, req));
	else
		finish_write(d, req);
}

static struct obd_disk_req *take_done(struct obd_disk *d)
{
	struct obd_disk_req *req = NULL;
	pthread_mutex_lock(&d->lock);
	if (!obd_list_empty(&d->done)) {
		req = OBD_LIST_ENTRY(d->done.next, struct obd_disk_req, link);
		obd_list_remove(&req->link);
	}
	pthread_mutex_unlock(&d->lock);
	return req;
}

static void on_done(int fd, uint32_t events, void *arg)
{
	struct obd_disk *d = arg;
	struct obd_disk_req *req;
	uint64_t count;
	(void)events;
	ssize_t n = read(fd, &count, sizeof count);
	(void)n; /* EAGAIN: another turn took it */
	while ((req = take_done(d)))
		finish(d, req);
}

/* --- deadlines ---------------------------------------------------------------------------------------------------------- */

static void arm_timer(struct obd_disk *d)
{
	if (obd_list_empty(&d->waiting)) {
		obd_loop_timer_set(d->timer, 0);
		return;
	}
	obd_loop_timer_set(d->timer, OBD_LIST_ENTRY(d->waiting.next, struct obd_disk_read, waiting)->due_ns);
}

/* True: no thread had it yet, so it is the loop's again. */
static bool take_back(struct obd_disk *d, struct obd_disk_req *req)
{
	pthread_mutex_lock(&d->lock);
	bool ours = !req->taken;
	if (ours)
		obd_list_remove(&req->link);
	pthread_mutex_unlock(&d->lock);
	return ours;
}

/* One that no thread took waited for others that are late, and says nothing about the disk by itself. */
static void give_up(struct obd_disk *d, struct obd_disk_read *r)
{
	static const struct obd_disk_got nothing;
	obd_disk_got_fn *got = r->got;
	void *arg = r->arg;
	obd_list_remove(&r->waiting);
	d->stats->disk_timeouts++;
	r->got = NULL;
	r->due_ns = 0;
	if (take_back(d, &r->req)) {
		free_req(&r->req);
	} else {
		d->held++;
		note_fault(d, ETIMEDOUT);
	}
	got(arg, &nothing);
}

static void on_timer(void *arg)
{
	struct obd_disk *d = arg;
	uint64_t now = obd_clock_ns();
	on_done(d->event_fd, 0, d); /* what is there is not late */
	while (!obd_list_empty(&d->waiting)) {
		struct obd_disk_read *r = OBD_LIST_ENTRY(d->waiting.next, struct obd_disk_read, waiting);
		if (r->due_ns > now)
			break;
		give_up(d, r);
	}
	arm_timer(d);
}

/* --- asking ------------------------------------------------------------------------------------------------------------- */

void obd_disk_gate(struct obd_disk *d, const struct obd_disk_gate *gate)
{
	if (gate->epoch != d->gate.epoch)
		d->fault = 0;
	if (gate->look != d->gate.look)
		d->written = 0;
	d->gate = *gate;
}

int obd_disk_fault(const struct obd_disk *d)
{
	return d->fault;
}

static void hex(const unsigned char *raw, size_t n, char *out)
{
	for (size_t i = 0; i < n; i++)
		snprintf(out + 2 * i, 3, "%02x", raw[i]);
}

static bool fill_blob(const struct obd_disk *d, struct obd_disk_req *req, const struct obd_disk_blob *blob)
{
	unsigned char sum[SHA256_DIGEST_LENGTH];
	if (!obd_marks_geo_init(&req->geo, d->block_bytes, blob->blob_bytes, blob->digest))
		return false;
	SHA256((const unsigned char *)blob->origin, strlen(blob->origin), sum);
	hex(sum, sizeof sum, req->hash);
	return true;
}

static bool fill_units(struct obd_disk_req *req, const struct obd_disk_unit *unit, uint32_t n)
{
	uint32_t low = UINT32_MAX, high = 0;
	assert(n > 0 && n <= OBD_DISK_UNITS);
	for (uint32_t i = 0; i < n; i++) {
		uint64_t end;
		low = unit[i].number < low ? unit[i].number : low;
		high = unit[i].number > high ? unit[i].number : high;
		if (unit[i].raw != unit[0].raw || unit[i].bytes == 0 || unit[i].bytes > OBD_MARK_UNIT_MAX ||
		    !obd_add_u64(unit[i].start, unit[i].bytes, &end) || end > req->geo.blob_bytes)
			return false;
	}
	if (high > OBD_MARK_NUMBER_MAX || high - low >= OBD_DISK_UNITS || (unit[0].raw && high >= req->geo.nraw))
		return false;
	memcpy(req->unit, unit, n * sizeof(*unit));
	req->n = n;
	return true;
}

static bool fill(const struct obd_disk *d, struct obd_disk_req *req, enum obd_disk_op op, const struct obd_disk_blob *blob,
		 const struct obd_disk_unit *unit, uint32_t n)
{
	obd_list_init(&req->link);
	req->op = op;
	return fill_blob(d, req, blob) && fill_units(req, unit, n);
}

int obd_disk_read(struct obd_disk *d, const struct obd_disk_blob *blob, const struct obd_disk_unit *unit, uint32_t n,
		  obd_disk_got_fn *got, void *arg, struct obd_disk_read **out)
{
	if (!d->gate.read || d->fault || d->held >= OBD_DISK_READERS)
		return -EAGAIN;
	struct obd_disk_read *r = calloc(1, sizeof *r);
	if (!r)
		return -ENOMEM;
	if (!fill(d, &r->req, OBD_DISK_READ, blob, unit, n)) {
		free(r);
		return -EINVAL;
	}
	r->req.refresh = d->gate.write;
	r->d = d;
	r->got = got;
	r->arg = arg;
	r->due_ns = obd_clock_ns() + OBD_DISK_DEADLINE_NS;
	obd_list_push_back(&d->waiting, &r->waiting);
	if (d->waiting.next == &r->waiting)
		arm_timer(d);
	queue_req(d, &r->req);
	*out = r;
	return 0;
}

void obd_disk_cancel(struct obd_disk_read *read)
{
	obd_list_remove(&read->waiting);
	read->got = NULL;
	if (take_back(read->d, &read->req))
		free_req(&read->req);
}

/* --- storing ------------------------------------------------------------------------------------------------------------ */

unsigned char *obd_disk_buffer(struct obd_disk *d, uint64_t bytes, uint32_t n)
{
	unsigned char *buf = NULL;
	if (d->gate.write && !d->fault && d->buffered + bytes <= OBD_DISK_BUFFER_BYTES &&
	    d->written + bytes <= d->gate.room_bytes)
		buf = malloc(bytes);
	if (buf)
		d->buffered += bytes;
	else
		d->stats->disk_dropped += n;
	return buf;
}

void obd_disk_buffer_free(struct obd_disk *d, unsigned char *buf, uint64_t bytes)
{
	if (buf)
		d->buffered -= bytes;
	free(buf);
}

void obd_disk_write(struct obd_disk *d, const struct obd_disk_blob *blob, const struct obd_disk_unit *unit, uint32_t n,
		    unsigned char *buf, uint64_t bytes, uint64_t base)
{
	struct obd_disk_req *req = calloc(1, sizeof *req);
	if (!req || !fill(d, req, OBD_DISK_WRITE, blob, unit, n)) {
		d->stats->disk_dropped += n;
		obd_disk_buffer_free(d, buf, bytes);
		free(req);
		return;
	}
	for (uint32_t i = 0; i < n; i++)
		assert(unit[i].start >= base && unit[i].start - base + unit[i].bytes <= bytes);
	req->buf = buf;
	req->bytes = bytes;
	req->base = base;
	d->written += bytes;
	queue_req(d, req);
}

void obd_disk_drop(struct obd_disk *d, const struct obd_disk_blob *blob, const struct obd_disk_unit *unit)
{
	struct obd_disk_req *req = calloc(1, sizeof *req);
	d->stats->disk_corrupt++;
	if (req && fill(d, req, OBD_DISK_DROP, blob, unit, 1))
		queue_req(d, req);
	else
		free(req);
}

/* --- life --------------------------------------------------------------------------------------------------------------- */

static void init_lists(struct obd_disk *d)
{
	pthread_mutex_init(&d->lock, NULL);
	for (int i = 0; i < 2; i++) {
		pthread_cond_init(&d->more[i], NULL);
		obd_list_init(&d->todo[i]);
	}
	obd_list_init(&d->done);
	obd_list_init(&d->waiting);
}

struct obd_disk *obd_disk_new(struct obd_loop *loop, const char *dir, uint32_t block_bytes, struct obd_fetch_stats *stats)
{
	struct obd_disk *d = calloc(1, sizeof *d);
	char *copy = strdup(dir);
	if (!d || !copy) {
		free(d);
		free(copy);
		errno = ENOMEM;
		return NULL;
	}
	d->loop = loop;
	d->stats = stats;
	d->block_bytes = block_bytes;
	init_lists(d);
	obd_disk_store_init(&d->store, copy);
	d->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	d->timer = obd_loop_timer_new(loop, on_timer, d);
	int rc = d->event_fd < 0 ? -errno : 0;
	if (!rc)
		rc = d->timer ? obd_loop_watch(loop, d->event_fd, EPOLLIN, on_done, d) : -ENOMEM;
	if (!rc)
		rc = start_threads(d);
	if (rc) {
		obd_disk_free(d);
		errno = -rc;
		return NULL;
	}
	return d;
}

static void drop_list(struct obd_list *list)
{
	while (!obd_list_empty(list)) {
		struct obd_disk_req *req = OBD_LIST_ENTRY(list->next, struct obd_disk_req, link);
		obd_list_remove(&req->link);
		free_req(req);
	}
}

/* Reads nobody waits for; writes are done first. */
static void tell_to_stop(struct obd_disk *d)
{
	pthread_mutex_lock(&d->lock);
	drop_list(&d->todo[0]);
	d->stop = true;
	pthread_cond_broadcast(&d->more[0]);
	pthread_cond_broadcast(&d->more[1]);
	pthread_mutex_unlock(&d->lock);
}

/* False: a thread hangs, and may still use everything. */
static bool join_all(struct obd_disk *d)
{
	struct timespec until;
	bool all = true;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += (time_t)(STOP_NS / OBD_SECOND_NS);
	for (uint32_t i = 0; i < d->nthreads; i++)
		all &= pthread_timedjoin_np(d->thread[i], NULL, &until) == 0;
	return all;
}

void obd_disk_free(struct obd_disk *d)
{
	if (!d)
		return;
	tell_to_stop(d);
	obd_loop_timer_free(d->timer);
	if (d->event_fd >= 0)
		(void)obd_loop_watch(d->loop, d->event_fd, 0, NULL, NULL);
	if (!join_all(d))
		return;
	drop_list(&d->done);
	drop_list(&d->todo[1]);
	obd_disk_store_done(&d->store);
	if (d->event_fd >= 0)
		close(d->event_fd);
	free(d);
}
