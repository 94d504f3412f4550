/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a process gives up before it reads what others wrote. In this order, each for all threads that come later:
 *
 *   user           its own, when it runs as root and the user exists
 *   capabilities   all but the named ones, also in the bounding set
 *   landlock       files below the named directories only, with the named rights
 *   seccomp        no execve, ptrace, mount, namespaces, modules, keys, handles, io_uring; sockets only of the named families
 *
 * (PR_SET_NO_NEW_PRIVS is set by the skeleton before.) What the kernel does not have is left out with one warning. Must be
 * called while the process has one thread.
 */
#ifndef OBD_COMMON_DAEMON_SANDBOX_H
#define OBD_COMMON_DAEMON_SANDBOX_H

#include <stdbool.h>
#include <stdint.h>

enum obd_sandbox_right {
	OBD_SANDBOX_READ = 1,  /* files and directories */
	OBD_SANDBOX_WRITE = 2, /* also: write, make, rename and remove regular files */
	OBD_SANDBOX_DIRS = 4,  /* also: make and remove directories */
};

/* A directory, or a file; one that does not exist gives no right. */
struct obd_sandbox_path {
	const char *path;
	unsigned int rights;
};

struct obd_sandbox {
	const char *user; /* NULL or "": stay who we are */
	const int *caps;  /* CAP_…, to be kept */
	uint32_t ncaps;
	const struct obd_sandbox_path *paths; /* NULL: every file that the user may open */
	uint32_t npaths;
	bool internet; /* sockets beside AF_UNIX */
};

/* Can this kernel limit files (landlock)? */
bool obd_sandbox_limits_files(void);

/* 0, or a negative errno when rights could not be given up that should be: then the process must end (logged). */
int obd_sandbox_enter(const struct obd_sandbox *s);

#endif
