/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A stand-in for obd-cached, obd-indexer and obd-fetcher that only speaks with the supervisor, over the real skeleton. It is
 * installed under each of the three names; the name says which role it plays.
 *
 * Each process appends what it is told to $FAKE_DIR/PROGRAM.INDEX.log, and behaves badly when a file of that name lies there:
 *   die-start.PROGRAM     exit 3 before READY
 *   die-adopted.PROGRAM   the same if it was granted regions: they are those of a process, or of a group, before
 *   incomplete.PROGRAM    READY without deposits
 *   rude.PROGRAM          a second later: a malformed packet, then on living
 *   keep-clients.PROGRAM  never sends CLIENT_GONE
 *   deaf.PROGRAM          does not stop on SIGTERM
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/util.h"
#include "common/config/config.h"
#include "common/daemon/daemon.h"

#define REGION_BYTES 65536

static const char *dir;
static const char *program;
static unsigned int grants; /* regions, not doorbells */

static bool asked(const char *what)
{
	char path[4096];
	snprintf(path, sizeof path, "%s/%s.%s", dir, what, program);
	return access(path, F_OK) == 0;
}

static void __attribute__((format(printf, 2, 3))) note(const struct obd_daemon *d, const char *fmt, ...)
{
	char path[4096];
	va_list ap;
	snprintf(path, sizeof path, "%s/%s.%u.log", dir, program, d->index);
	FILE *f = fopen(path, "ae");
	if (!f)
		exit(4);
	fprintf(f, "%u ", d->incarnation);
	va_start(ap, fmt);
	vfprintf(f, fmt, ap);
	va_end(ap);
	fputc('\n', f);
	fclose(f);
}

/* Does a grant allow exactly what its flags say? */
static bool maps_as_told(int fd, uint32_t flags)
{
	bool writable = flags & OBD_GRANT_WRITE;
	void *rw = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	void *ro = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
	bool right = ro != MAP_FAILED && (rw != MAP_FAILED) == writable;
	if (ro != MAP_FAILED && mprotect(ro, 4096, PROT_READ | PROT_WRITE) == 0 && !writable)
		right = false;
	if (rw != MAP_FAILED)
		munmap(rw, 4096);
	if (ro != MAP_FAILED)
		munmap(ro, 4096);
	return right;
}

static int on_grant(struct obd_daemon *d, const char *name, uint32_t index, uint32_t flags, int fd)
{
	bool bell = strncmp(name, "doorbell:", 9) == 0;
	const char *verdict = bell || maps_as_told(fd, flags) ? "" : " WRONG-PROTECTION";
	if (!bell)
		grants++;
	note(d, "grant %s %u %s%s", name, index, flags & OBD_GRANT_WRITE ? "rw" : "ro", verdict);
	close(fd);
	return 0;
}

static void deposit(struct obd_daemon *d, const char *name, uint32_t index)
{
	int fd = memfd_create(name, MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, REGION_BYTES) < 0 || obd_daemon_deposit(d, name, index, fd) < 0)
		exit(5);
	close(fd);
}

static void deposit_all(struct obd_daemon *d)
{
	static const char *const names[] = {"geometry", "frames",  "fills",  "table", "catalog",
					    "index",	"recency", "upread", "tokens"};
	for (size_t i = 0; i < OBD_ARRAY_SIZE(names); i++)
		deposit(d, names[i], 0);
	for (uint32_t i = 0; i < obd_config_fetchers(d->config); i++)
		deposit(d, "fetcher", i);
}

static int on_start(struct obd_daemon *d)
{
	note(d, "start");
	if (asked("die-start") || (asked("die-adopted") && grants))
		exit(3);
	if (d->ops->role == OBD_ROLE_CACHED && !asked("incomplete")) {
		if (!grants)
			deposit_all(d);
		obd_daemon_setting(d, "client_area_bytes", 16384);
	}
	return 0;
}

static void on_message(struct obd_daemon *d, const struct obd_msg *msg)
{
	static const char *const names[OBD_MSG_TYPES] = {
		[OBD_MSG_CLIENT_UP] = "up", [OBD_MSG_CLIENT_DOWN] = "down", [OBD_MSG_REAPED] = "reaped"};
	note(d, "%s %s %u %llu", names[msg->type], obd_role_name((enum obd_role)msg->role), msg->index,
	     (unsigned long long)msg->arg);
	if (msg->type == OBD_MSG_CLIENT_DOWN && !asked("keep-clients"))
		obd_daemon_client_gone(d, msg->index);
}

static void on_tick(struct obd_daemon *d)
{
	if (asked("rude"))
		send(d->control_fd, "rude", 4, MSG_NOSIGNAL);
}

static void on_stop(struct obd_daemon *d)
{
	note(d, "stop");
	while (asked("deaf"))
		pause();
}

static enum obd_role role_of(const char *name)
{
	if (strcmp(name, "obd-cached") == 0)
		return OBD_ROLE_CACHED;
	return strcmp(name, "obd-indexer") == 0 ? OBD_ROLE_INDEXER : OBD_ROLE_FETCHER;
}

int main(int argc, char **argv)
{
	const char *slash = strrchr(argv[0], '/');
	dir = getenv("FAKE_DIR");
	program = slash ? slash + 1 : argv[0];
	if (!dir)
		return 6;
	struct obd_daemon_ops ops = {.role = role_of(program),
				     .name = program,
				     .grant = on_grant,
				     .start = on_start,
				     .message = on_message,
				     .tick = on_tick,
				     .stop = on_stop};
	return obd_daemon_main(argc, argv, &ops, NULL);
}
