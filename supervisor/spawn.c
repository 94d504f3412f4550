/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "supervisor/supervisor.h"

#define CONTROL_FD 3
#define CANNOT_EXECUTE 127

const char *obd_child_program(enum obd_role role)
{
	switch (role) {
	case OBD_ROLE_CACHED:
		return "obd-cached";
	case OBD_ROLE_INDEXER:
		return "obd-indexer";
	case OBD_ROLE_FETCHER:
		return "obd-fetcher";
	default:
		abort();
	}
}

static void reset_signals(void)
{
	sigset_t none;
	for (int i = 1; i < NSIG; i++)
		signal(i, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static void close_from(unsigned int first)
{
#ifdef SYS_close_range
	syscall(SYS_close_range, first, UINT_MAX, 0);
#else
	(void)first;
#endif
}

/* Descriptors 0 to 3 as promised, nothing else. Everything of ours is close-on-exec; close_range is for what our own parent
 * left open. */
static int arrange_fds(int sock)
{
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (null < 0 || dup2(null, STDIN_FILENO) < 0)
		return -1;
	if (sock == CONTROL_FD) {
		if (fcntl(sock, F_SETFD, 0) < 0)
			return -1;
	} else if (dup2(sock, CONTROL_FD) < 0) {
		return -1;
	}
	close_from(CONTROL_FD + 1);
	return 0;
}

static void run_child(const struct obd_child *child, int sock)
{
	char path[OBD_PATH_BYTES + 32], index[16], incarnation[16], control[16];
	const char *argv[] = {path, "--control-fd",	    control, "--index", index, "--incarnation", incarnation,
			      "-c", child->sv->config_path, NULL};
	snprintf(path, sizeof path, "%s/%s", child->sv->bindir, obd_child_program(child->role));
	snprintf(control, sizeof control, "%d", CONTROL_FD);
	snprintf(index, sizeof index, "%u", child->index);
	snprintf(incarnation, sizeof incarnation, "%u", child->incarnation);
	reset_signals();
	if (arrange_fds(sock) == 0)
		execv(path, (char *const *)(uintptr_t)argv);
	dprintf(STDERR_FILENO, "%s: cannot be executed: %s\n", path, strerror(errno));
	_exit(CANNOT_EXECUTE);
}

pid_t obd_spawn(const struct obd_child *child, int *sock)
{
	int pair[2];
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	pid_t pid = fork();
	if (pid == 0)
		run_child(child, pair[1]);
	int rc = -errno;
	close(pair[1]);
	if (pid < 0) {
		close(pair[0]);
		return rc;
	}
	*sock = pair[0];
	return pid;
}

/* ---- tgtd ---- */

static void run_tgtd(const struct obd_supervisor *sv, pid_t parent)
{
	const struct obd_config *c = sv->config;
	char port[16], portal[OBD_PATH_BYTES], ipc[OBD_PATH_BYTES];
	const char *argv[] = {c->frontend_tgtd, "-f", "-C", port, *c->frontend_portal ? "--iscsi" : NULL, portal, NULL};
	snprintf(port, sizeof port, "%u", c->frontend_control_port);
	snprintf(portal, sizeof portal, "portal=%s", c->frontend_portal);
	snprintf(ipc, sizeof ipc, "%s/tgtd", c->runtime_dir);
	reset_signals();
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (null < 0 || dup2(null, STDIN_FILENO) < 0 || prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
		_exit(CANNOT_EXECUTE);
	if (getppid() != parent) /* it died before it could be said */
		_exit(CANNOT_EXECUTE);
	close_from(STDERR_FILENO + 1);
	if (setenv("TGT_IPC_SOCKET", ipc, 1) == 0 && setenv("OVERLAYBD_RUNTIME_DIR", c->runtime_dir, 1) == 0)
		execv(argv[0], (char *const *)(uintptr_t)argv);
	dprintf(STDERR_FILENO, "%s: cannot be executed: %s\n", argv[0], strerror(errno));
	_exit(CANNOT_EXECUTE);
}

pid_t obd_spawn_tgtd(const struct obd_supervisor *sv)
{
	pid_t self = getpid(), pid = fork();
	if (pid == 0)
		run_tgtd(sv, self);
	return pid < 0 ? -errno : pid;
}

int obd_pidfd(pid_t pid)
{
	int fd = (int)syscall(SYS_pidfd_open, pid, 0); /* close-on-exec */
	return fd < 0 ? -errno : fd;
}

void obd_describe_exit(int status, char *text, size_t size)
{
	if (WIFSIGNALED(status))
		snprintf(text, size, "killed by signal %d", WTERMSIG(status));
	else if (WIFEXITED(status) && WEXITSTATUS(status) == CANNOT_EXECUTE)
		snprintf(text, size, "could not be executed");
	else
		snprintf(text, size, "exit status %d", WEXITSTATUS(status));
}
