/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fetcher/fetcher.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "common/base/log.h"
#include "common/config/config.h"
#include "common/format/zfile.h"
#include "fetcher/download.h"
#include "fetcher/rights.h"

#define DISK_THREADS 3u
#define DISK_NICE 10 /* hashing whole layers must not be in the way of decoding blocks */

static int grant(struct obd_daemon *d, const char *name, uint32_t index, uint32_t flags, int fd)
{
	struct obd_fetcher *f = d->priv;
	struct obd_err err = {{0}};
	int rc = obd_segment_take(&f->seg, name, index, flags & OBD_GRANT_WRITE, fd, &err);
	if (rc)
		obd_error("%s %u: %s", name, index, err.msg[0] ? err.msg : strerror(-rc));
	return rc;
}

/* --- hooks ---------------------------------------------------------------------------------------------------------------- */

static void publish_stats(struct obd_fetcher *f)
{
	struct obd_proc *proc = &f->side.own->proc;
#define X(name)                                 \
	if (f->stats.name != f->published.name) \
		obd_count(proc, name, f->stats.name - f->published.name);
	OBD_FETCH_STATS(X)
#undef X
	f->published = f->stats;
}

/* What cached says of the disk tier, and what it is to know (edge: disk-epoch; the fault names the epoch it belongs to). */
static void pass_disk_gate(struct obd_fetcher *f)
{
	const struct obd_table_disk *t = &f->seg.table->disk;
	uint64_t word = obd_load_acquire(&t->word); /* edge: disk-epoch */
	unsigned int state = obd_word_state(word);
	const struct obd_disk_gate gate = {.epoch = obd_word_seq(word),
					   .read = state == OBD_DISK_ON || state == OBD_DISK_READ_ONLY,
					   .write = state == OBD_DISK_ON,
					   .look = obd_load_relaxed(&t->look),
					   .room_bytes = obd_load_relaxed(&t->room_bytes)};
	if (!f->disk)
		return;
	obd_disk_gate(f->disk, &gate);
	int fault = obd_disk_fault(f->disk);
	if (fault)
		obd_store_relaxed(&f->side.own->disk_fault, gate.epoch << 16 | (uint64_t)(fault & 0xffff));
}

static bool poll_work(void *arg)
{
	struct obd_fetcher *f = arg;
	struct obd_fetch_job job;
	pass_disk_gate(f);
	bool worked = obd_local_poll(f->local);
	if (f->running < OBD_FETCHER_RUNNING && obd_fetch_next(&f->side, &job)) {
		if (job.kind == OBD_JOB_DOWNLOAD)
			obd_download_start(f, &job);
		else
			obd_job_start(f, &job);
		worked = true;
	}
	publish_stats(f);
	return worked;
}

static bool arm(void *arg)
{
	struct obd_fetcher *f = arg;
	obd_sleep_announce(&f->side.own->proc);
	return obd_local_has_work(f->local) || (f->running < OBD_FETCHER_RUNNING && obd_fetch_has_work(&f->side));
}

static void disarm(void *arg)
{
	struct obd_fetcher *f = arg;
	obd_sleep_cancel(&f->side.own->proc);
}

static void on_bell(int fd, uint32_t events, void *arg)
{
	(void)events, (void)arg;
	obd_bell_drain(fd); /* the poll hook looks at the ring in every turn */
}

/* --- life ----------------------------------------------------------------------------------------------------------------- */

static int map(struct obd_daemon *d, struct obd_fetcher *f)
{
	struct obd_err err = {{0}};
	const struct obd_segment *s = &f->seg;
	int rc = obd_segment_map(&f->seg, &err);
	if (rc) {
		obd_error("segment: %s", err.msg[0] ? err.msg : strerror(-rc));
		return rc;
	}
	if (d->index < OBD_MAX_FETCHERS && s->frames && s->fills && s->table && s->catalog && s->index && s->tokens &&
	    s->fetcher[d->index] && s->bell_fetcher[d->index] >= 0 && s->bell_cached >= 0)
		return 0;
	obd_error("segment: not every region and doorbell that a fetcher needs was granted");
	return -ENOENT;
}

/* A read should live to see several tries of a transfer that hangs. */
static struct obd_http_limits http_limits(const struct obd_config *config)
{
	uint32_t sec = config->read_timeout_sec / 10;
	if (!config->read_timeout_sec || sec > 15)
		sec = 15;
	if (sec < 2)
		sec = 2;
	return (struct obd_http_limits){.stall_s = sec, .connect_ms = sec < 5 ? sec * 1000 : 5000};
}

static int make_sources(struct obd_daemon *d, struct obd_fetcher *f)
{
	f->codec = obd_codec_new();
	const struct obd_http_limits limits = http_limits(d->config);
	f->http = obd_http_new(d->loop, d->config, &limits, &f->stats);
	const struct obd_tokens_side shared = {.tokens = f->seg.tokens,
					       .table = f->seg.table,
					       .index = d->index,
					       .incarnation = d->incarnation,
					       .salt = f->seg.geo.segment_id};
	if (f->http)
		f->auth = obd_auth_new(d->loop, d->config, f->http, &shared, NULL, &f->stats);
	f->switched = obd_switched_new(d->loop, &f->seg, &f->stats);
	f->disk_work = obd_work_new(d->loop, DISK_THREADS, DISK_NICE);
	if (!f->codec || !f->auth || !f->switched || !f->disk_work) {
		obd_error("no memory for sources");
		return -ENOMEM;
	}
	obd_http_use_auth(f->http, f->auth);
	f->local = obd_local_new(d->loop, (enum obd_local_engine)d->config->io_engine, &f->stats);
	if (f->local)
		return 0;
	int rc = -errno;
	obd_error("ioEngine %u cannot be used: %s", d->config->io_engine, strerror(-rc));
	return rc;
}

/* Credentials and tokens must not get into a core dump, be it the kernel's or one that a debugger writes by the same filter. */
static void forbid_dumps(void)
{
	int fd = open("/proc/self/coredump_filter", O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, "0", 1) != 1)
		obd_warn("cannot leave memory out of core dumps: %s", strerror(errno));
	if (fd >= 0)
		close(fd);
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		obd_warn("cannot turn off core dumps: %s", strerror(errno));
}

/* Without it everything comes from the registry, so nothing that fails here ends the process. */
static void make_disk(struct obd_daemon *d, struct obd_fetcher *f)
{
	if (d->config->cache_size_gb == 0)
		return;
	f->disk = obd_disk_new(d->loop, d->config->cache_dir, f->seg.geo.block_bytes, &f->stats);
	if (!f->disk)
		obd_warn("disk cache: %s", strerror(errno));
}

static int start(struct obd_daemon *d)
{
	struct obd_fetcher *f = d->priv;
	const struct obd_loop_hooks hooks = {.poll = poll_work, .arm = arm, .disarm = disarm, .arg = f};
	forbid_dumps();
	int rc = map(d, f);
	if (rc == 0)
		rc = obd_fetcher_drop_rights(d->config);
	if (rc == 0)
		rc = make_sources(d, f);
	if (rc)
		return rc;
	make_disk(d, f);
	obd_fetch_attach(&f->side, &f->seg, d->index, d->incarnation);
	rc = obd_loop_add_hooks(d->loop, &hooks);
	if (rc == 0)
		rc = obd_loop_watch(d->loop, f->seg.bell_fetcher[d->index], EPOLLIN, on_bell, f);
	if (rc)
		obd_error("event loop: %s", strerror(-rc));
	return rc;
}

static void tick(struct obd_daemon *d)
{
	struct obd_fetcher *f = d->priv;
	obd_proc_heartbeat(&f->side.own->proc);
}

/* What runs is left as it is: the next fetcher with this number finds the jobs still issued. */
static void stop(struct obd_daemon *d)
{
	struct obd_fetcher *f = d->priv;
	obd_local_free(f->local);
	obd_auth_free(f->auth);
	obd_http_free(f->http);
	obd_disk_free(f->disk);
	f->disk = NULL;
	obd_switched_free(f->switched);
	obd_work_free(f->disk_work);
	obd_job_forget_all(f);
	obd_download_forget_all(f);
	obd_codec_free(f->codec);
	obd_segment_close(&f->seg);
}

const struct obd_daemon_ops obd_fetcher_ops = {
	.role = OBD_ROLE_FETCHER,
	.name = "obd-fetcher",
	.heap_bytes = 4u << 20,
	.grant = grant,
	.start = start,
	.tick = tick,
	.stop = stop,
};
