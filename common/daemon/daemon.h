/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The skeleton of a child process (obd-cached, obd-indexer, obd-fetcher).
 *
 *   options -> config -> log -> grants -> start() -> READY -> loop -> stop()
 *
 * A child is started by the supervisor only: with --control-fd N (the socket to the supervisor), --index I, --incarnation K and
 * -c CONFIG. Started by hand it says so and exits with 2.
 *
 * The skeleton collects the grants that come before GRANTS_DONE, calls start, sends READY, sends a HEARTBEAT each second,
 * passes later messages on, and ends the loop on SIGTERM, or when the supervisor's socket closes (its death is the group's
 * end). It refuses to die of SIGPIPE, sets PR_SET_NO_NEW_PRIVS and asks for PR_SET_IO_FLUSHER (a refusal is logged at debug
 * level).
 */
#ifndef OBD_COMMON_DAEMON_DAEMON_H
#define OBD_COMMON_DAEMON_DAEMON_H

#include <stddef.h>
#include <stdint.h>

#include "common/daemon/loop.h"
#include "common/daemon/wire.h"

struct obd_config;

struct obd_daemon {
	struct obd_loop *loop;
	const struct obd_config *config; /* read-only; lives as long as the process */
	uint32_t index;			 /* fetcher number; 0 for the others */
	uint32_t incarnation;		 /* 0 at first start, then counts restarts */
	int control_fd;			 /* to the supervisor; the skeleton reads it */
	const struct obd_daemon_ops *ops;
	void *priv; /* the program's own */
};

struct obd_daemon_ops {
	enum obd_role role;
	const char *name; /* "obd-cached" */

	/* Heap that comes and goes with each request: this much is touched at the start, and what is freed stays with the
	 * process (up to four times as much), so that nobody waits for pages. 0: malloc's own ways. */
	size_t heap_bytes;

	/* Takes one descriptor; from now on it is the program's. Called for each GRANT, before start and later. Returns 0 or a
	 * negative errno, which ends the process with a log line. */
	int (*grant)(struct obd_daemon *d, const char *name, uint32_t index, uint32_t flags, int fd);

	/* All first grants are in. Registers hooks, watches and timers. Returns 0 or a negative errno (ends the process; the
	 * program has logged why). */
	int (*start)(struct obd_daemon *d);

	/* CLIENT_UP, CLIENT_DOWN, REAPED, CLIENTS_KNOWN. May be NULL. */
	void (*message)(struct obd_daemon *d, const struct obd_msg *msg);

	/* Once per second, after the heartbeat went out: the place for the process row and for second looks. May be NULL. */
	void (*tick)(struct obd_daemon *d);

	/* The loop has ended; give back what must be given back. May be NULL. */
	void (*stop)(struct obd_daemon *d);
};

/* The whole of main. Returns the exit status: 0 stopped as asked, 1 failed, 2 usage. */
int obd_daemon_main(int argc, char **argv, const struct obd_daemon_ops *ops, void *priv);

/* Sends to the supervisor; blocks while the socket is full (the supervisor never blocks on us). 0 or a negative errno. */
int obd_daemon_deposit(struct obd_daemon *d, const char *name, uint32_t index, int fd);
int obd_daemon_setting(struct obd_daemon *d, const char *name, uint64_t value);
int obd_daemon_client_gone(struct obd_daemon *d, uint32_t client);

#endif
