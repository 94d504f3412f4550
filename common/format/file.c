/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "common/format/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <linux/fs.h>
#include <unistd.h>

#include "common/base/io.h"
#include "common/base/util.h"

#define OFF_MAX ((uint64_t)INT64_MAX)

struct obd_file *obd_file_new(const struct obd_file_ops *ops, void *ctx)
{
	struct obd_file *f = malloc(sizeof(*f));
	if (f)
		*f = (struct obd_file){.ops = ops, .ctx = ctx};
	return f;
}

void obd_file_close(struct obd_file *f)
{
	if (!f)
		return;
	if (f->ops->close)
		f->ops->close(f->ctx);
	free(f);
}

ssize_t obd_file_pread(struct obd_file *f, void *buf, size_t n, uint64_t off)
{
	return f->ops->pread ? f->ops->pread(f->ctx, buf, n, off) : -EBADF;
}

int obd_file_pread_full(struct obd_file *f, void *buf, size_t n, uint64_t off)
{
	ssize_t r = obd_file_pread(f, buf, n, off);
	if (r < 0)
		return (int)r;
	return (size_t)r == n ? 0 : -ENODATA;
}

int obd_file_pwrite(struct obd_file *f, const void *buf, size_t n, uint64_t off)
{
	return f->ops->pwrite ? f->ops->pwrite(f->ctx, buf, n, off) : -EROFS;
}

int obd_file_size(struct obd_file *f, uint64_t *bytes)
{
	return f->ops->size(f->ctx, bytes);
}

int obd_file_next_data(struct obd_file *f, uint64_t off, uint64_t *next)
{
	if (f->ops->next_data)
		return f->ops->next_data(f->ctx, off, next);
	*next = off;
	return 0;
}

/* Descriptors: ctx is the number itself. */

static ssize_t fd_pread(void *ctx, void *buf, size_t n, uint64_t off)
{
	return obd_io_read((int)(intptr_t)ctx, buf, n, off);
}

static int fd_pwrite(void *ctx, const void *buf, size_t n, uint64_t off)
{
	return obd_io_write((int)(intptr_t)ctx, buf, n, off);
}

static int fd_size(void *ctx, uint64_t *bytes)
{
	int fd = (int)(intptr_t)ctx;
	struct stat st;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (S_ISBLK(st.st_mode))
		return ioctl(fd, BLKGETSIZE64, bytes) < 0 ? -errno : 0;
	*bytes = (uint64_t)st.st_size;
	return 0;
}

/* The file position is nobody's: all reads and writes name their offset. */
static int fd_next_data(void *ctx, uint64_t off, uint64_t *next)
{
	*next = off;
	if (off > OFF_MAX)
		return 0;
	off_t r = lseek((int)(intptr_t)ctx, (off_t)off, SEEK_DATA);
	if (r >= 0)
		*next = (uint64_t)r;
	else if (errno == ENXIO)
		return fd_size(ctx, next);
	return 0;
}

static void fd_close(void *ctx)
{
	close((int)(intptr_t)ctx);
}

static const struct obd_file_ops fd_ops = {
	.pread = fd_pread,
	.pwrite = fd_pwrite,
	.size = fd_size,
	.next_data = fd_next_data,
	.close = fd_close,
};

struct obd_file *obd_file_open_fd(int fd, struct obd_err *err)
{
	struct stat st;
	if (fstat(fd, &st) < 0) {
		obd_err_set(err, errno, "descriptor %d: %s", fd, strerror(errno));
		return NULL;
	}
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
		obd_err_set(err, EINVAL, "descriptor %d: neither a regular file nor a block device", fd);
		errno = EINVAL;
		return NULL;
	}
	struct obd_file *f = obd_file_new(&fd_ops, (void *)(intptr_t)fd);
	if (!f)
		obd_err_set(err, ENOMEM, "out of memory");
	return f;
}

struct obd_file *obd_file_open_path(const char *path, int flags, mode_t mode, struct obd_err *err)
{
	int fd = open(path, flags | O_CLOEXEC, mode);
	if (fd < 0) {
		obd_err_set(err, errno, "%s: %s", path, strerror(errno));
		return NULL;
	}
	struct obd_file *f = obd_file_open_fd(fd, err);
	if (!f) {
		int saved = errno;
		obd_err_prefix(err, -saved, "%s", path);
		close(fd);
		errno = saved;
	}
	return f;
}

/* Memory: a borrowed read-only buffer (max 0), or an own one that grows. */

struct mem {
	unsigned char *buf;
	const unsigned char *borrowed;
	uint64_t len;
	uint64_t cap;
	uint64_t max;
};

static ssize_t mem_pread(void *ctx, void *buf, size_t n, uint64_t off)
{
	const struct mem *m = ctx;
	const unsigned char *from = m->borrowed ? m->borrowed : m->buf;
	if (off >= m->len || n == 0)
		return 0;
	n = (size_t)obd_min_u64(n, m->len - off);
	memcpy(buf, from + off, n);
	return (ssize_t)n;
}

static int mem_grow(struct mem *m, uint64_t need)
{
	if (need <= m->cap)
		return 0;
	uint64_t cap = obd_max_u64(need, obd_min_u64(m->max, m->cap * 2 + 4096));
	unsigned char *p = realloc(m->buf, cap);
	if (!p)
		return -ENOMEM;
	m->buf = p;
	m->cap = cap;
	return 0;
}

static int mem_pwrite(void *ctx, const void *buf, size_t n, uint64_t off)
{
	struct mem *m = ctx;
	uint64_t end;
	if (m->borrowed)
		return -EROFS;
	if (n == 0)
		return 0;
	if (!obd_add_u64(off, n, &end) || end > m->max)
		return -EFBIG;
	int rc = mem_grow(m, end);
	if (rc)
		return rc;
	if (off > m->len)
		memset(m->buf + m->len, 0, off - m->len);
	memcpy(m->buf + off, buf, n);
	m->len = obd_max_u64(m->len, end);
	return 0;
}

static int mem_size(void *ctx, uint64_t *bytes)
{
	*bytes = ((struct mem *)ctx)->len;
	return 0;
}

static void mem_close(void *ctx)
{
	struct mem *m = ctx;
	free(m->buf);
	free(m);
}

static const struct obd_file_ops mem_ops = {.pread = mem_pread, .pwrite = mem_pwrite, .size = mem_size, .close = mem_close};

/* A file over a copy of *ctx; NULL when memory is short. */
static struct obd_file *file_of(const struct obd_file_ops *ops, const void *ctx, size_t bytes)
{
	void *copy = malloc(bytes);
	if (!copy)
		return NULL;
	memcpy(copy, ctx, bytes);
	struct obd_file *f = obd_file_new(ops, copy);
	if (!f)
		free(copy);
	return f;
}

struct obd_file *obd_file_open_mem(const void *buf, size_t len)
{
	struct mem m = {.borrowed = len ? buf : (const void *)"", .len = len};
	return file_of(&mem_ops, &m, sizeof(m));
}

struct obd_file *obd_file_new_mem(uint64_t max_bytes)
{
	struct mem m = {.max = max_bytes};
	return file_of(&mem_ops, &m, sizeof(m));
}

/* Windows. */

struct window {
	struct obd_file *base;
	uint64_t offset;
	uint64_t bytes;
	struct obd_file *also; /* closed after base */
	bool owns;
};

static ssize_t window_pread(void *ctx, void *buf, size_t n, uint64_t off)
{
	const struct window *w = ctx;
	uint64_t at;
	if (off >= w->bytes)
		return 0;
	if (!obd_add_u64(w->offset, off, &at))
		return -EINVAL;
	return obd_file_pread(w->base, buf, (size_t)obd_min_u64(n, w->bytes - off), at);
}

static int window_pwrite(void *ctx, const void *buf, size_t n, uint64_t off)
{
	const struct window *w = ctx;
	uint64_t end, at;
	if (!obd_add_u64(off, n, &end) || end > w->bytes || !obd_add_u64(w->offset, off, &at))
		return -EFBIG;
	return obd_file_pwrite(w->base, buf, n, at);
}

static int window_size(void *ctx, uint64_t *bytes)
{
	const struct window *w = ctx;
	uint64_t all;
	int rc = obd_file_size(w->base, &all);
	if (rc)
		return rc;
	*bytes = obd_min_u64(w->bytes, all > w->offset ? all - w->offset : 0);
	return 0;
}

static int window_next_data(void *ctx, uint64_t off, uint64_t *next)
{
	const struct window *w = ctx;
	uint64_t at, bytes;
	int rc = window_size(ctx, &bytes);
	if (rc)
		return rc;
	*next = obd_max_u64(off, bytes);
	if (off >= bytes || !obd_add_u64(w->offset, off, &at))
		return 0;
	rc = obd_file_next_data(w->base, at, &at);
	if (!rc)
		*next = obd_min_u64(at - w->offset, bytes);
	return rc;
}

static void window_close(void *ctx)
{
	struct window *w = ctx;
	if (w->owns)
		obd_file_close(w->base);
	obd_file_close(w->also);
	free(w);
}

static const struct obd_file_ops window_ops = {
	.pread = window_pread,
	.pwrite = window_pwrite,
	.size = window_size,
	.next_data = window_next_data,
	.close = window_close,
};

struct obd_file *obd_file_window(struct obd_file *base, uint64_t offset, uint64_t bytes)
{
	struct window w = {.base = base, .offset = offset, .bytes = bytes, .owns = true};
	return file_of(&window_ops, &w, sizeof(w));
}

struct obd_file *obd_file_borrow(struct obd_file *base)
{
	struct window w = {.base = base, .bytes = UINT64_MAX};
	return file_of(&window_ops, &w, sizeof(w));
}

struct obd_file *obd_file_own_also(struct obd_file *f, struct obd_file *also)
{
	struct window w = {.base = f, .bytes = UINT64_MAX, .also = also, .owns = true};
	return file_of(&window_ops, &w, sizeof(w));
}
