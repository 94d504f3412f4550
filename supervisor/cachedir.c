/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The directory of the disk cache belongs to one group: the supervisor holds a lock on CACHEDIR/.lock for as long as it lives,
 * with its pid in the file. obd-cached uses the directory only if that pid is its parent's.
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/log.h"
#include "supervisor/supervisor.h"

/* The directory and those above it. 0 or a negative errno. */
static int make_dirs(const char *dir)
{
	char *path = strdup(dir);
	if (!path)
		return -ENOMEM;
	int rc = 0;
	for (char *p = path + 1; rc == 0; p++) {
		char c = *p;
		if (c != '/' && c != '\0')
			continue;
		*p = '\0';
		if (mkdir(path, 0700) < 0 && errno != EEXIST && errno != EROFS)
			rc = -errno;
		*p = c;
		if (c == '\0')
			break;
	}
	free(path);
	return rc;
}

static int lock_path(const struct obd_supervisor *sv, char **path)
{
	return asprintf(path, "%s/.lock", sv->config->cache_dir) < 0 ? -ENOMEM : 0;
}

/* A lock that is held is another group's: ours is not taken twice. */
static int take(struct obd_supervisor *sv, const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
	if (fd < 0)
		return -errno;
	int rc = flock(fd, LOCK_EX | LOCK_NB) < 0 ? -errno : 0;
	if (rc == 0 && (ftruncate(fd, 0) < 0 || dprintf(fd, "%d\n", (int)getpid()) < 0))
		rc = -errno;
	if (rc)
		close(fd);
	else
		sv->cache_lock_fd = fd;
	return rc;
}

static int refuse(const struct obd_supervisor *sv, struct obd_err *err)
{
	return obd_err_set(err, EBUSY, "cacheDir %s: another group uses it", sv->config->cache_dir);
}

/* ---- whose it is: the fetchers' ---- */

static struct {
	uid_t uid;
	gid_t gid;
} owner;

static int give_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)ftw;
	if (type == FTW_NS || st->st_uid == owner.uid)
		return 0;
	return lchown(path, owner.uid, owner.gid) < 0 && errno != ENOENT ? errno : 0;
}

/* After a change of fetcherUser all that lies there changes hands; else this is one stat. Only root can. */
static int give_to_fetchers(struct obd_supervisor *sv)
{
	const char *dir = sv->config->cache_dir;
	struct stat st;
	const struct passwd *pw = *sv->config->fetcher_user ? getpwnam(sv->config->fetcher_user) : NULL;
	if (geteuid() != 0 || stat(dir, &st) < 0)
		return 0;
	owner.uid = pw ? pw->pw_uid : 0;
	owner.gid = pw ? pw->pw_gid : 0;
	return st.st_uid == owner.uid ? 0 : -nftw(dir, give_one, 32, FTW_PHYS | FTW_DEPTH);
}

int obd_cachedir_enter(struct obd_supervisor *sv, struct obd_err *err)
{
	char *path = NULL;
	if (sv->config->cache_size_gb == 0)
		return 0;
	int rc = make_dirs(sv->config->cache_dir);
	if (rc == 0)
		rc = lock_path(sv, &path);
	if (rc == 0)
		rc = take(sv, path);
	free(path);
	if (rc == -EWOULDBLOCK)
		return refuse(sv, err);
	if (rc == 0)
		rc = give_to_fetchers(sv);
	sv->cachedir_error = -rc; /* logged once there is a log; the group works without */
	return 0;
}

void obd_cachedir_complain(const struct obd_supervisor *sv)
{
	const char *user = sv->config->fetcher_user;
	if (geteuid() == 0 && *user && !getpwnam(user))
		obd_warn("user %s does not exist: fetchers run as root, with fewer rights than root has (useradd --system %s, "
			 "or set "
			 "fetcherUser)",
			 user, user);
	if (sv->cachedir_error)
		obd_warn("cacheDir %s: %s; there is no disk cache", sv->config->cache_dir, strerror(sv->cachedir_error));
}

void obd_cachedir_leave(struct obd_supervisor *sv)
{
	if (sv->cache_lock_fd >= 0)
		close(sv->cache_lock_fd);
	sv->cache_lock_fd = -1;
}

static long read_pid(int fd)
{
	char text[32];
	ssize_t n = fd < 0 ? -1 : pread(fd, text, sizeof text - 1, 0);
	if (n <= 0)
		return 0;
	text[n] = '\0';
	return atol(text);
}

/* The pid of the group that runs with this runtimeDir, or 0. */
static long running_pid(const struct obd_supervisor *sv)
{
	char path[OBD_PATH_BYTES];
	obd_runtime_path(sv, "supervisor.pid", path);
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	long pid = read_pid(fd);
	if (fd >= 0)
		close(fd);
	return pid;
}

int obd_cachedir_check(const struct obd_supervisor *sv, struct obd_err *err)
{
	char *path = NULL;
	if (sv->config->cache_size_gb == 0 || lock_path(sv, &path))
		return 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	free(path);
	if (fd < 0)
		return 0;
	bool held = flock(fd, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK;
	long pid = read_pid(fd);
	close(fd);
	return held && pid != running_pid(sv) ? refuse(sv, err) : 0;
}
