/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A client library without a group: client.h over plain files, so that the tgt module can be tested alone, and made to wait,
 * fail or hang at will. Linked into a bs_overlaybd.so of its own (room.mk).
 *
 * The "image config" is a text file of NAME=VALUE words:
 *   raw=PATH      the bytes of the image
 *   size=N        its size (default: the raw file's); beyond the raw file it reads as zeros
 *   pending_ms=N  PENDING for so long, then READY
 *   fail=WORD     the open ends as FAILED for this reason (after pending_ms, if given)
 *   break_ms=N    FAILED that long after it was READY
 *   delay_ms=N    every read is a miss that takes so long; without it every read is a hit
 *   mix=N         with delay_ms: only every Nth read is a miss
 *   errno=N       misses end with -N
 *   hang=1        misses are never answered
 *   rw=1          writable: writes go to the raw file, and are never done at once
 *   werrno=N      writes end with -N
 * OBD_FAKE_NO_GROUP in the environment: no group runs.
 */
#include "frontend/client/client.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "common/base/clock.h"

struct obd_client {
	int fd;
	struct obd_list devices;
	unsigned int reads;
};

struct obd_device {
	struct obd_client *c;
	struct obd_list link;
	struct obd_list misses; /* oldest first */
	obd_device_fn *fn;
	void *arg;
	enum obd_device_state state;
	uint64_t size, change_ns;
	int raw, error, write_error;
	bool writable;
	unsigned int pending_ms, break_ms, delay_ms, mix;
	bool hang;
	char reason[128];
};

/* A read under way. The fake keeps nothing in struct obd_io. */
struct miss {
	struct obd_list link;
	struct obd_io *io;
	uint64_t due_ns;
	enum asked { READ, WRITE, DISCARD, SYNC } asked;
};

static uint64_t after_ms(unsigned int ms)
{
	return obd_clock_ns() + ms * OBD_MS_NS;
}

/* A tick of a millisecond as long as the client lives: simple, and nobody measures it. */
int obd_client_new(const char *runtime_dir, struct obd_client **out, struct obd_err *err)
{
	struct itimerspec ms = {.it_value = {.tv_nsec = 1000000}, .it_interval = {.tv_nsec = 1000000}};
	if (getenv("OBD_FAKE_NO_GROUP"))
		return obd_err_set(err, ENOTCONN, "no group runs at %s", runtime_dir ? runtime_dir : "the default");
	struct obd_client *c = calloc(1, sizeof *c);
	c->fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	timerfd_settime(c->fd, 0, &ms, NULL);
	obd_list_init(&c->devices);
	*out = c;
	return 0;
}

void obd_client_free(struct obd_client *c)
{
	while (!obd_list_empty(&c->devices))
		obd_client_close(OBD_LIST_ENTRY(c->devices.next, struct obd_device, link));
	close(c->fd);
	free(c);
}

int obd_client_fd(const struct obd_client *c)
{
	return c->fd;
}

static void set_word(struct obd_device *d, const char *name, const char *value)
{
	unsigned long long n = strtoull(value, NULL, 0);
	if (!strcmp(name, "raw"))
		d->raw = open(value, O_RDONLY | O_CLOEXEC);
	else if (!strcmp(name, "size"))
		d->size = n;
	else if (!strcmp(name, "pending_ms"))
		d->pending_ms = (unsigned int)n;
	else if (!strcmp(name, "break_ms"))
		d->break_ms = (unsigned int)n;
	else if (!strcmp(name, "delay_ms"))
		d->delay_ms = (unsigned int)n;
	else if (!strcmp(name, "mix"))
		d->mix = (unsigned int)n;
	else if (!strcmp(name, "errno"))
		d->error = (int)n;
	else if (!strcmp(name, "werrno"))
		d->write_error = (int)n;
	else if (!strcmp(name, "rw"))
		d->writable = n;
	else if (!strcmp(name, "hang"))
		d->hang = n;
	else if (!strcmp(name, "fail"))
		snprintf(d->reason, sizeof d->reason, "%s", value);
}

static int read_words(struct obd_device *d, const char *path, struct obd_err *err)
{
	char text[1024];
	FILE *f = fopen(path, "re");
	if (!f)
		return obd_err_set(err, errno, "%s: %s", path, strerror(errno));
	text[fread(text, 1, sizeof text - 1, f)] = '\0';
	fclose(f);
	for (char *save, *word = strtok_r(text, " \n", &save); word; word = strtok_r(NULL, " \n", &save)) {
		char *value = strchr(word, '=');
		if (!value)
			return obd_err_set(err, EINVAL, "%s: what is %s?", path, word);
		*value++ = '\0';
		set_word(d, word, value);
	}
	if (d->writable && d->raw >= 0) {
		char self[32];
		snprintf(self, sizeof self, "/proc/self/fd/%d", d->raw);
		int raw = open(self, O_RDWR | O_CLOEXEC);
		close(d->raw);
		d->raw = raw;
	}
	struct stat st;
	if (!d->size && fstat(d->raw, &st) == 0)
		d->size = (uint64_t)st.st_size;
	return 0;
}

int obd_client_open(struct obd_client *c, const char *path, obd_device_fn *fn, void *arg, struct obd_device **out,
		    struct obd_err *err)
{
	struct obd_device *d = calloc(1, sizeof *d);
	d->c = c;
	d->fn = fn;
	d->arg = arg;
	d->raw = -1;
	obd_list_init(&d->misses);
	int rc = read_words(d, path, err);
	if (rc) {
		free(d);
		return rc;
	}
	d->state = OBD_DEVICE_OPENING;
	d->change_ns = after_ms(d->pending_ms);
	obd_list_push_back(&c->devices, &d->link);
	*out = d;
	return 0;
}

/* PENDING after the first look, then READY or FAILED when it is time. */
static void advance(struct obd_device *d)
{
	enum obd_device_state was = d->state;
	bool due = d->change_ns && obd_clock_ns() >= d->change_ns;
	if (was == OBD_DEVICE_OPENING)
		d->state = OBD_DEVICE_PENDING;
	if (due && was == OBD_DEVICE_READY) {
		snprintf(d->reason, sizeof d->reason, "%s", "it broke");
		d->state = OBD_DEVICE_FAILED;
	} else if (due && was != OBD_DEVICE_FAILED) {
		d->state = d->reason[0] ? OBD_DEVICE_FAILED : OBD_DEVICE_READY;
		d->change_ns = d->break_ms && d->state == OBD_DEVICE_READY ? after_ms(d->break_ms) : 0;
	}
	if (d->state != was && d->state >= OBD_DEVICE_READY)
		d->fn(d->arg, d);
}

enum obd_device_state obd_client_wait(struct obd_client *c, struct obd_device *dev, int timeout_ms)
{
	(void)timeout_ms;
	advance(dev);
	obd_client_dispatch(c);
	return dev->state;
}

static void fill(struct obd_io *io)
{
	ssize_t n = pread(io->dev->raw, io->buf, io->len, (off_t)io->offset);
	if (n < 0)
		n = 0;
	memset((char *)io->buf + n, 0, io->len - (uint64_t)n);
}

static int zero(const struct obd_io *io)
{
	static const char zeros[65536];
	for (uint64_t done = 0; done < io->len;) {
		uint64_t n = obd_min_u64(io->len - done, sizeof zeros);
		if (pwrite(io->dev->raw, zeros, n, (off_t)(io->offset + done)) != (ssize_t)n)
			return -EIO;
		done += n;
	}
	return 0;
}

/* A hole where the file system has them; a discard of terabytes must not take time. */
static int discard(const struct obd_io *io)
{
	struct stat st;
	if (fstat(io->dev->raw, &st) != 0 || io->offset >= (uint64_t)st.st_size)
		return 0;
	if (fallocate(io->dev->raw, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)io->offset, (off_t)io->len) == 0)
		return 0;
	return zero(io);
}

static int carry_out(enum asked asked, struct obd_io *io)
{
	switch (asked) {
	case READ:
		fill(io);
		return 0;
	case WRITE:
		return pwrite(io->dev->raw, io->buf, io->len, (off_t)io->offset) == (ssize_t)io->len ? 0 : -EIO;
	case DISCARD:
		return discard(io);
	case SYNC:
		return fdatasync(io->dev->raw) ? -errno : 0;
	}
	return -EINVAL;
}

static void answer(struct miss *m, int result)
{
	struct obd_io *io = m->io;
	enum asked asked = m->asked;
	obd_list_remove(&m->link);
	free(m);
	if (!result && asked != READ)
		result = -io->dev->write_error;
	if (!result)
		result = carry_out(asked, io);
	io->fn(io, result);
}

static void answer_due(struct obd_device *d)
{
	while (!d->hang && !obd_list_empty(&d->misses)) {
		struct miss *m = OBD_LIST_ENTRY(d->misses.next, struct miss, link);
		if (obd_clock_ns() < m->due_ns)
			break;
		answer(m, d->state == OBD_DEVICE_FAILED ? -EIO : -d->error);
	}
}

void obd_client_dispatch(struct obd_client *c)
{
	uint64_t ticks;
	ssize_t n = read(c->fd, &ticks, sizeof ticks);
	(void)n;
	OBD_LIST_FOREACH_SAFE (it, &c->devices) {
		struct obd_device *d = OBD_LIST_ENTRY(it, struct obd_device, link);
		advance(d);
		answer_due(d);
	}
}

void obd_client_close(struct obd_device *dev)
{
	dev->state = OBD_DEVICE_FAILED;
	while (!obd_list_empty(&dev->misses))
		answer(OBD_LIST_ENTRY(dev->misses.next, struct miss, link), -ECANCELED);
	obd_list_remove(&dev->link);
	if (dev->raw >= 0)
		close(dev->raw);
	free(dev);
}

enum obd_device_state obd_device_state(const struct obd_device *dev)
{
	return dev->state;
}

uint64_t obd_device_bytes(const struct obd_device *dev)
{
	return dev->size;
}

const char *obd_device_reason(const struct obd_device *dev)
{
	return dev->reason;
}

int obd_device_errno(const struct obd_device *dev)
{
	return dev->state == OBD_DEVICE_FAILED ? EIO : 0;
}

static int ask(struct obd_io *io, enum asked asked)
{
	struct miss *m = calloc(1, sizeof *m);
	m->io = io;
	m->asked = asked;
	m->due_ns = after_ms(io->dev->delay_ms);
	obd_list_push_back(&io->dev->misses, &m->link);
	return 1;
}

int obd_read(struct obd_io *io)
{
	struct obd_device *d = io->dev;
	if (d->state != OBD_DEVICE_READY)
		return -ENODEV;
	if (io->offset > d->size || io->len > d->size - io->offset)
		return -EINVAL;
	d->c->reads++;
	if (!d->delay_ms || (d->mix && d->c->reads % d->mix)) {
		fill(io);
		return 0;
	}
	return ask(io, READ);
}

int obd_read_behind(struct obd_io *io)
{
	return obd_read(io);
}

static int check_write(const struct obd_io *io)
{
	const struct obd_device *d = io->dev;
	if (d->state != OBD_DEVICE_READY)
		return -ENODEV;
	if (!d->writable)
		return -EROFS;
	if (io->offset % 512 || io->len % 512 || io->offset > d->size || io->len > d->size - io->offset)
		return -EINVAL;
	return 0;
}

int obd_write(struct obd_io *io, bool fua)
{
	int rc = check_write(io);
	(void)fua;
	return rc ? rc : ask(io, WRITE);
}

int obd_discard(struct obd_io *io, bool fua)
{
	int rc = check_write(io);
	(void)fua;
	return rc ? rc : ask(io, DISCARD);
}

int obd_sync(struct obd_io *io)
{
	if (io->dev->state != OBD_DEVICE_READY)
		return -ENODEV;
	return ask(io, SYNC);
}

bool obd_device_writable(const struct obd_device *dev)
{
	return dev->writable;
}

void obd_io_cancel(struct obd_io *io)
{
	OBD_LIST_FOREACH_SAFE (it, &io->dev->misses) {
		struct miss *m = OBD_LIST_ENTRY(it, struct miss, link);
		if (m->io != io)
			continue;
		obd_list_remove(it);
		free(m);
	}
}

/* Nothing here sleeps. */
void obd_client_gather(struct obd_client *c, void (*fn)(void *arg), void *arg)
{
	(void)c;
	(void)fn;
	(void)arg;
}

void obd_client_ring(struct obd_client *c)
{
	(void)c;
}
