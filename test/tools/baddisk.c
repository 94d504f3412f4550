/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A disk that hangs or fails, for whoever is started with this library in LD_PRELOAD.
 *
 *   OBD_BADDISK_PREFIX   files below it are on that disk
 *   OBD_BADDISK_MODE     a file whose first word says what the disk does now: "hang" (every read and write waits until the word
 *                        changes), "eio", "erofs" and "enospc" (writes only); anything else: it works
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

__attribute__((visibility("default"))) ssize_t pread64(int fd, void *buf, size_t n, off64_t at);
__attribute__((visibility("default"))) ssize_t pwrite64(int fd, const void *buf, size_t n, off64_t at);
__attribute__((visibility("default"))) ssize_t preadv64v2(int fd, const struct iovec *iov, int n, off64_t at, int flags);

typedef ssize_t read_fn(int fd, void *buf, size_t n, off64_t at);
typedef ssize_t readv_fn(int fd, const struct iovec *iov, int n, off64_t at, int flags);
typedef ssize_t write_fn(int fd, const void *buf, size_t n, off64_t at);

static int on_disk(int fd)
{
	char link[64], path[4096];
	const char *prefix = getenv("OBD_BADDISK_PREFIX");
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t len = prefix ? readlink(link, path, sizeof path - 1) : -1;
	if (len < 0)
		return 0;
	path[len] = '\0';
	return strncmp(path, prefix, strlen(prefix)) == 0;
}

static void read_mode(char mode[16])
{
	const char *name = getenv("OBD_BADDISK_MODE");
	FILE *f = name ? fopen(name, "re") : NULL;
	mode[0] = '\0';
	if (!f)
		return;
	if (fscanf(f, "%15s", mode) != 1)
		mode[0] = '\0';
	fclose(f);
}

/* 0: go on; else the errno. */
static int behave(int fd, int writing)
{
	char mode[16];
	int keep = errno;
	if (!on_disk(fd))
		return 0;
	for (read_mode(mode); strcmp(mode, "hang") == 0; read_mode(mode))
		usleep(20000);
	errno = keep;
	if (strcmp(mode, "eio") == 0)
		return EIO;
	if (writing && strcmp(mode, "erofs") == 0)
		return EROFS;
	return writing && strcmp(mode, "enospc") == 0 ? ENOSPC : 0;
}

ssize_t pread64(int fd, void *buf, size_t n, off64_t at)
{
	static read_fn *next;
	int err = behave(fd, 0);
	if (!next)
		*(void **)&next = dlsym(RTLD_NEXT, "pread64");
	errno = err ? err : errno;
	return err ? -1 : next(fd, buf, n, at);
}

/* Whoever wants no waiting finds nothing cached. */
ssize_t preadv64v2(int fd, const struct iovec *iov, int n, off64_t at, int flags)
{
	static readv_fn *next;
	int err = !on_disk(fd) ? 0 : flags & RWF_NOWAIT ? EAGAIN : behave(fd, 0);
	if (!next)
		*(void **)&next = dlsym(RTLD_NEXT, "preadv64v2");
	errno = err ? err : errno;
	return err ? -1 : next(fd, iov, n, at, flags);
}

ssize_t pwrite64(int fd, const void *buf, size_t n, off64_t at)
{
	static write_fn *next;
	int err = behave(fd, 1);
	if (!next)
		*(void **)&next = dlsym(RTLD_NEXT, "pwrite64");
	errno = err ? err : errno;
	return err ? -1 : next(fd, buf, n, at);
}
