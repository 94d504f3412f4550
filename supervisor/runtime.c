/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/log.h"
#include "common/base/util.h"
#include "supervisor/supervisor.h"

#define FILES_WANTED 4096 /* what 256 writable devices take, with room */
#define INSTALLED_DIR "/opt/overlaybd/bin"

static const enum obd_role child_roles[] = {OBD_ROLE_CACHED, OBD_ROLE_INDEXER, OBD_ROLE_FETCHER};

/* ---- programs ---- */

static int check_programs(const char *dir, struct obd_err *err)
{
	for (size_t i = 0; i < OBD_ARRAY_SIZE(child_roles); i++) {
		char path[OBD_PATH_BYTES + 32];
		snprintf(path, sizeof path, "%s/%s", dir, obd_child_program(child_roles[i]));
		if (access(path, X_OK) < 0)
			return obd_err_set(err, errno, "%s: %s", path, strerror(errno));
	}
	return 0;
}

static int own_dir(char *dir)
{
	ssize_t n = readlink("/proc/self/exe", dir, OBD_PATH_BYTES - 1);
	if (n < 0)
		return -errno;
	dir[n] = '\0';
	char *slash = strrchr(dir, '/');
	if (!slash)
		return -ENOENT;
	*slash = '\0';
	return 0;
}

int obd_find_programs(struct obd_supervisor *sv, const char *dir, struct obd_err *err)
{
	if (dir) {
		if (strlen(dir) >= sizeof sv->bindir)
			return obd_err_set(err, ENAMETOOLONG, "%.64s...: %s", dir, strerror(ENAMETOOLONG));
		strcpy(sv->bindir, dir);
		return check_programs(sv->bindir, err);
	}
	if (own_dir(sv->bindir) == 0 && check_programs(sv->bindir, NULL) == 0)
		return 0;
	strcpy(sv->bindir, INSTALLED_DIR);
	return check_programs(sv->bindir, err);
}

/* ---- the directory ---- */

void obd_runtime_path(const struct obd_supervisor *sv, const char *name, char *path)
{
	int n = snprintf(path, OBD_PATH_BYTES, "%s/%s", sv->config->runtime_dir, name);
	(void)n; /* runtimeDir is at most 80 bytes long */
}

int obd_runtime_check(const struct obd_supervisor *sv, struct obd_err *err)
{
	const char *dir = sv->config->runtime_dir;
	char parent[OBD_PATH_BYTES];
	struct stat st;
	if (access("/proc/self/fd", X_OK) < 0)
		return obd_err_set(err, errno, "/proc/self/fd: %s (is /proc mounted?)", strerror(errno));
	if (stat(dir, &st) == 0) {
		if (!S_ISDIR(st.st_mode))
			return obd_err_set(err, ENOTDIR, "runtimeDir %s: is not a directory", dir);
		if (access(dir, W_OK | X_OK) < 0)
			return obd_err_set(err, errno, "runtimeDir %s: %s", dir, strerror(errno));
		return 0;
	}
	snprintf(parent, sizeof parent, "%s", dir);
	const char *above = dirname(parent);
	if (access(above, W_OK | X_OK) < 0)
		return obd_err_set(err, errno, "runtimeDir %s: cannot be made in %s: %s", dir, above, strerror(errno));
	return 0;
}

static int take_lock(struct obd_supervisor *sv, struct obd_err *err)
{
	char path[OBD_PATH_BYTES];
	obd_runtime_path(sv, "supervisor.lock", path);
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return obd_err_set(err, errno, "%s: %s", path, strerror(errno));
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		int code = errno;
		close(fd);
		if (code == EWOULDBLOCK)
			return obd_err_set(err, EBUSY, "runtimeDir %s: another obd-supervisor runs here",
					   sv->config->runtime_dir);
		return obd_err_set(err, code, "%s: %s", path, strerror(code));
	}
	sv->lock_fd = fd;
	return 0;
}

static int write_pid_file(const struct obd_supervisor *sv, struct obd_err *err)
{
	char path[OBD_PATH_BYTES];
	obd_runtime_path(sv, "supervisor.pid", path);
	unlink(path);
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (fd < 0)
		return obd_err_set(err, errno, "%s: %s", path, strerror(errno));
	int rc = dprintf(fd, "%d\n", (int)getpid()) < 0 ? -errno : 0;
	close(fd);
	return rc < 0 ? obd_err_set(err, -rc, "%s: %s", path, strerror(-rc)) : 0;
}

static void remove_file(const struct obd_supervisor *sv, const char *name)
{
	char path[OBD_PATH_BYTES];
	obd_runtime_path(sv, name, path);
	unlink(path);
}

/* For ourselves and all that we start: descriptors of clients, layers, uppers and connections. */
void obd_runtime_raise_limits(void)
{
	struct rlimit files;
	if (getrlimit(RLIMIT_NOFILE, &files) < 0)
		return;
	files.rlim_cur = files.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &files) < 0)
		obd_warn("the limit of open files cannot be raised: %s", strerror(errno));
	if (files.rlim_max < FILES_WANTED)
		obd_warn("only %llu files may be open (RLIMIT_NOFILE): with many devices opens fail for want of descriptors; "
			 "raise the "
			 "hard limit to %u (LimitNOFILE= of the unit, ulimit -Hn)",
			 (unsigned long long)files.rlim_max, FILES_WANTED);
}

int obd_runtime_enter(struct obd_supervisor *sv, struct obd_err *err)
{
	const char *dir = sv->config->runtime_dir;
	int rc = obd_runtime_check(sv, err);
	if (rc < 0)
		return rc;
	if (mkdir(dir, 0755) == 0) {
		if (chmod(dir, 0755) < 0) /* whatever the umask is */
			return obd_err_set(err, errno, "runtimeDir %s: %s", dir, strerror(errno));
	} else if (errno != EEXIST) {
		return obd_err_set(err, errno, "runtimeDir %s: %s", dir, strerror(errno));
	}
	rc = take_lock(sv, err);
	if (rc < 0)
		return rc;
	remove_file(sv, "supervisor.sock"); /* nobody else's: we hold the lock */
	return write_pid_file(sv, err);
}

void obd_runtime_leave(struct obd_supervisor *sv)
{
	if (sv->lock_fd < 0)
		return;
	remove_file(sv, "supervisor.sock");
	remove_file(sv, "supervisor.pid");
	close(sv->lock_fd);
	sv->lock_fd = -1;
}
