/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fetcher/fdcache.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fetcher/local.h"

struct obd_fdcache {
	struct obd_list files; /* most recently used first */
	uint32_t count;
};

struct obd_fdcache *obd_fdcache_new(void)
{
	struct obd_fdcache *c = calloc(1, sizeof(*c));
	if (c)
		obd_list_init(&c->files);
	return c;
}

static void drop(struct obd_fdcache *c, struct obd_fd *file)
{
	obd_list_remove(&file->link);
	close(file->fd);
	free(file);
	c->count--;
}

void obd_fdcache_free(struct obd_fdcache *c)
{
	if (!c)
		return;
	while (!obd_list_empty(&c->files))
		drop(c, OBD_LIST_ENTRY(c->files.next, struct obd_fd, link));
	free(c);
}

static bool same_file(const struct stat *st, const struct obd_local_target *t)
{
	int64_t mtime_ns = (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec;
	return (uint64_t)st->st_dev == t->dev && (uint64_t)st->st_ino == t->ino && mtime_ns == t->mtime_ns &&
	       (uint64_t)st->st_size == t->bytes;
}

int obd_fd_check(int fd, const struct obd_local_target *t, struct obd_err *err)
{
	struct stat st;
	if (fstat(fd, &st))
		return obd_err_set(err, errno, "%s: %s", t->path, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return obd_err_set(err, EINVAL, "%s is not a regular file", t->path);
	if (!same_file(&st, t))
		return obd_err_set(err, ESTALE, "%s changed while open", t->path);
	return 0;
}

static struct obd_fd *find(struct obd_fdcache *c, const struct obd_local_target *t)
{
	OBD_LIST_FOREACH (it, &c->files) {
		struct obd_fd *file = OBD_LIST_ENTRY(it, struct obd_fd, link);
		if (file->dev == t->dev && file->ino == t->ino)
			return file;
	}
	return NULL;
}

static void trim(struct obd_fdcache *c)
{
	for (struct obd_list *it = c->files.prev; it != &c->files && c->count > OBD_FDCACHE_KEEP;) {
		struct obd_fd *file = OBD_LIST_ENTRY(it, struct obd_fd, link);
		it = it->prev;
		if (file->refs == 0)
			drop(c, file);
	}
}

int obd_fd_open(const struct obd_local_target *target, bool *direct, struct obd_err *err)
{
	int flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY; /* a fifo in the file's place must not hold us up */
	int fd = open(target->path, flags | (*direct ? O_DIRECT : 0));
	if (fd < 0 && *direct && errno == EINVAL) {
		*direct = false;
		fd = open(target->path, flags);
	}
	if (fd < 0)
		return obd_err_set(err, errno, "%s: %s", target->path, strerror(errno));
	int rc = obd_fd_check(fd, target, err);
	if (rc)
		close(fd);
	return rc ? rc : fd;
}

struct obd_fd *obd_fdcache_add(struct obd_fdcache *c, const struct obd_local_target *target, int fd, bool direct)
{
	struct obd_fd *file = calloc(1, sizeof(*file));
	if (!file) {
		close(fd);
		return NULL;
	}
	*file = (struct obd_fd){.fd = fd, .direct = direct, .refs = 1, .dev = target->dev, .ino = target->ino};
	obd_list_push_front(&c->files, &file->link);
	c->count++;
	trim(c);
	return file;
}

struct obd_fd *obd_fdcache_find(struct obd_fdcache *c, const struct obd_local_target *target)
{
	struct obd_fd *file = find(c, target);
	if (!file)
		return NULL;
	obd_list_remove(&file->link);
	obd_list_push_front(&c->files, &file->link);
	file->refs++;
	return file;
}

void obd_fdcache_put(struct obd_fdcache *c, struct obd_fd *file)
{
	file->refs--;
	trim(c);
}
