/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Two halves: the holder (a forked process, at the end of this file) and the supervisor that feeds it or takes over from it.
 *
 *   what                     by           how                                         if the doer dies
 *   item given               supervisor   KEEP, after the descriptor exists and       the holder lacks what nobody but the dead
 *                                         before anybody else is granted it           had seen
 *   STATE written            supervisor   whole, with a checksum, before the child    a torn STATE is no STATE: nothing is
 * adopted or client it speaks of can write everything given on      holder       KEEP for each, GRANTS_DONE, then it ends    no
 * GRANTS_DONE: nothing is adopted old processes ended      next         SIGKILL through their pidfds, then waits    the next
 * one but one finds no holder: a new segment supervisor   until each is dead
 */
#include "supervisor/fdstore.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/crc32c.h"
#include "common/base/log.h"
#include "common/base/util.h"
#include "supervisor/socket.h"
#include "supervisor/supervisor.h"

#define SOCKET_NAME "fdstore.sock"
#define STATE_VERSION 2u
#define CONFIG_BYTES_MAX (64u << 10)
#define TAKE_NS (2 * OBD_SECOND_NS) /* for the holder to give everything */
#define DEATH_NS OBD_SECOND_NS	    /* for old processes to be dead after SIGKILL */
#define NUMBERS_MAX OBD_MAX_CLIENTS /* items of one kind */

_Static_assert(OBD_MAX_FETCHERS + 2 <= NUMBERS_MAX, "an item's index fits");

/* What the supervisor knows and the descriptors do not say. Behind it, to the end: identity(). */
struct state {
	char magic[8];
	uint32_t version;
	uint32_t crc; /* of all of it, this field 0 */
	uint32_t nchildren;
	uint32_t reserved;
	uint64_t client_area_bytes;
	uint32_t child_incarnation[OBD_MAX_FETCHERS + 2];
	struct {
		uint32_t incarnation;
		int32_t pid;
		uint32_t up;
	} client[OBD_MAX_CLIENTS];
};

static const char magic[8] = "OBDSTATE";

/* ---- STATE --------------------------------------------------------------------------------------------------------------- */

/* The text that two groups must have in common: the program's version and the whole configuration. The caller frees it. */
static char *identity(const struct obd_supervisor *sv, size_t *size)
{
	char *text = NULL;
	FILE *f = open_memstream(&text, size);
	if (!f)
		return NULL;
	fprintf(f, "%s %u\n", OBD_VERSION, OBD_WIRE_VERSION);
	int rc = obd_config_print(f, sv->config);
	if (fclose(f) == EOF || rc < 0 || *size > CONFIG_BYTES_MAX) {
		free(text);
		return NULL;
	}
	return text;
}

static uint32_t checksum(const struct state *st)
{
	struct state copy = *st;
	copy.crc = 0;
	return ~obd_crc32c_raw(~0u, &copy, sizeof copy);
}

static void describe(const struct obd_supervisor *sv, struct state *st)
{
	memset(st, 0, sizeof *st);
	memcpy(st->magic, magic, sizeof magic);
	st->version = STATE_VERSION;
	st->nchildren = sv->nchildren;
	st->client_area_bytes = sv->store.client_area_bytes;
	for (uint32_t i = 0; i < sv->nchildren; i++)
		st->child_incarnation[i] = sv->children[i].incarnation;
	for (uint32_t id = 0; id < OBD_MAX_CLIENTS; id++) {
		const struct obd_client *client = &sv->clients[id];
		st->client[id].incarnation = client->incarnation;
		st->client[id].pid = client->pid;
		st->client[id].up = id > 0 && client->state == OBD_CLIENT_UP;
	}
}

/* A changed memory; the text behind it never changes. */
static int write_state(const struct obd_supervisor *sv)
{
	struct state st;
	describe(sv, &st);
	st.crc = checksum(&st);
	return pwrite(sv->fdstore.state, &st, sizeof st, 0) == (ssize_t)sizeof st ? 0 : -EIO;
}

static int write_identity(struct obd_supervisor *sv)
{
	size_t size = 0;
	char *text = identity(sv, &size);
	if (!text)
		return -ENOMEM;
	bool done = pwrite(sv->fdstore.state, text, size, sizeof(struct state)) == (ssize_t)size;
	free(text);
	return done ? 0 : -EIO;
}

/* Does the text behind the struct, to the end, say what we would say? */
static bool is_ours(const struct obd_supervisor *sv, int fd)
{
	size_t size = 0;
	char *text = identity(sv, &size), *theirs = malloc(CONFIG_BYTES_MAX + 1);
	bool same = text && theirs && pread(fd, theirs, CONFIG_BYTES_MAX + 1, sizeof(struct state)) == (ssize_t)size &&
		    memcmp(text, theirs, size) == 0;
	free(theirs);
	free(text);
	return same;
}

static bool read_state(const struct obd_supervisor *sv, int fd, struct state *st)
{
	return pread(fd, st, sizeof *st, 0) == (ssize_t)sizeof *st && memcmp(st->magic, magic, sizeof magic) == 0 &&
	       st->version == STATE_VERSION && st->crc == checksum(st) && is_ours(sv, fd) &&
	       st->nchildren == 2 + obd_config_fetchers(sv->config);
}

/* ---- items --------------------------------------------------------------------------------------------------------------- */

struct items {
	int fd[OBD_FDSTORE_KINDS][NUMBERS_MAX]; /* -1: none */
};

static void items_init(struct items *items)
{
	memset(items, 0xff, sizeof *items); /* -1 */
}

/* fd is the items' from now on. False: there is no such place; fd is closed. */
static bool items_set(struct items *items, uint64_t kind, uint32_t index, int fd)
{
	bool fits = kind < OBD_FDSTORE_KINDS && index < NUMBERS_MAX;
	if (fits) {
		int *place = &items->fd[kind][index];
		if (*place >= 0)
			close(*place);
		*place = fd;
	} else if (fd >= 0) {
		close(fd);
	}
	return fits;
}

static void items_free(struct items *items)
{
	for (uint32_t k = 0; k < OBD_FDSTORE_KINDS; k++)
		for (uint32_t i = 0; i < NUMBERS_MAX; i++)
			items_set(items, k, i, -1);
}

static int send_item(int sock, uint32_t kind, uint32_t index, int fd)
{
	struct obd_msg msg;
	obd_msg_init(&msg, fd < 0 ? OBD_MSG_DROP : OBD_MSG_KEEP);
	msg.arg = kind;
	msg.index = index;
	return obd_msg_send(sock, &msg, fd);
}

/* Numbers of all descriptors that the next supervisor needs. They stay their owners'. */
static void gather(const struct obd_supervisor *sv, struct items *items)
{
	items_init(items);
	for (uint32_t k = 0; k <= OBD_KIND_CLIENT; k++) /* doorbells are made anew */
		for (uint32_t i = k == OBD_KIND_CLIENT ? 1 : 0; i < obd_kind_count((enum obd_kind)k); i++)
			items->fd[k][i] = obd_store_get(&sv->store, (enum obd_kind)k, i);
	for (uint32_t i = 0; i < sv->nchildren; i++)
		items->fd[OBD_FDSTORE_CHILD][i] = sv->children[i].pidfd;
	for (uint32_t id = 1; id < OBD_MAX_CLIENTS; id++)
		items->fd[OBD_FDSTORE_CLIENT][id] = sv->clients[id].pidfd;
	items->fd[OBD_FDSTORE_STATE][0] = sv->fdstore.state;
}

/* ---- the supervisor feeds it --------------------------------------------------------------------------------------------- */

static void hold(const struct obd_supervisor *sv, int sock, int listen_fd) __attribute__((noreturn));

static void end_holder(struct obd_supervisor *sv)
{
	struct obd_fdstore *f = &sv->fdstore;
	if (f->pid > 0) {
		kill(f->pid, SIGKILL);
		waitpid(f->pid, NULL, 0);
	}
	f->pid = 0;
	if (f->sock >= 0)
		close(f->sock);
	f->sock = -1;
	if (f->state >= 0)
		close(f->state);
	f->state = -1;
}

void obd_fdstore_put(struct obd_supervisor *sv, uint32_t kind, uint32_t index, int fd)
{
	if (sv->fdstore.sock < 0)
		return;
	int rc = send_item(sv->fdstore.sock, kind, index, fd);
	if (rc < 0) {
		obd_warn("the holder of descriptors takes none (%s): another one is started", strerror(-rc));
		end_holder(sv);
	}
}

void obd_fdstore_note(struct obd_supervisor *sv)
{
	if (sv->fdstore.state >= 0 && write_state(sv) < 0)
		end_holder(sv);
}

static int start_holder(struct obd_supervisor *sv, int listen_fd)
{
	int pair[2];
	sv->fdstore.state = memfd_create("overlaybd-supervisor", MFD_CLOEXEC);
	if (sv->fdstore.state < 0 || fchmod(sv->fdstore.state, 0600) < 0) /* a new memfd is everybody's */
		return -errno;
	int rc = write_identity(sv);
	if (rc == 0)
		rc = write_state(sv);
	if (rc < 0)
		return rc;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		return -errno;
	pid_t pid = fork();
	if (pid == 0)
		hold(sv, pair[1], listen_fd);
	rc = -errno;
	close(pair[1]);
	sv->fdstore.sock = pair[0];
	sv->fdstore.pid = pid > 0 ? pid : 0;
	return pid < 0 ? rc : 0;
}

void obd_fdstore_start(struct obd_supervisor *sv)
{
	char path[OBD_PATH_BYTES];
	obd_runtime_path(sv, SOCKET_NAME, path);
	int listen_fd = obd_socket_listen(path, SOCK_SEQPACKET, 0600, 4);
	int rc = listen_fd < 0 ? listen_fd : start_holder(sv, listen_fd);
	if (listen_fd >= 0)
		close(listen_fd);
	if (rc < 0) {
		end_holder(sv);
		obd_warn("no holder of descriptors: %s; the cache would not outlive the supervisor", strerror(-rc));
	}
}

void obd_fdstore_tick(struct obd_supervisor *sv)
{
	struct obd_fdstore *f = &sv->fdstore;
	if (f->pid > 0 && waitpid(f->pid, NULL, WNOHANG) == f->pid) {
		obd_warn("the holder of descriptors has ended: another one is started");
		f->pid = 0;
		end_holder(sv);
	}
	if (f->pid == 0 && sv->was_ready && !sv->stopping)
		obd_fdstore_start(sv);
}

void obd_fdstore_stop(struct obd_supervisor *sv)
{
	char path[OBD_PATH_BYTES];
	obd_runtime_path(sv, SOCKET_NAME, path);
	unlink(path);
	end_holder(sv);
}

/* ---- the next supervisor takes over -------------------------------------------------------------------------------------- */

static int connect_to_holder(const char *path)
{
	static const struct timeval limit = {.tv_sec = TAKE_NS / OBD_SECOND_NS};
	struct ucred cred;
	int fd = obd_socket_connect(path, SOCK_SEQPACKET, &limit);
	if (fd < 0 || obd_socket_is_trusted(fd, &cred))
		return fd;
	close(fd);
	return -EPERM;
}

/* All of it, or false. */
static bool receive(int sock, struct items *items)
{
	struct obd_msg msg;
	uint64_t end = obd_clock_ns() + TAKE_NS;
	int fd;
	while (obd_clock_ns() < end && obd_msg_recv(sock, &msg, &fd) == 1) {
		if (msg.type == OBD_MSG_GRANTS_DONE)
			return true;
		if (msg.type != OBD_MSG_KEEP || !items_set(items, msg.arg, msg.index, fd))
			return false;
	}
	return false;
}

/* True once every process of the group before is dead. */
static bool end_old_children(const struct items *items)
{
	uint64_t end = obd_clock_ns() + DEATH_NS;
	for (uint32_t i = 0; i < NUMBERS_MAX; i++)
		if (items->fd[OBD_FDSTORE_CHILD][i] >= 0)
			(void)syscall(SYS_pidfd_send_signal, items->fd[OBD_FDSTORE_CHILD][i], SIGKILL, NULL, 0);
	for (uint32_t i = 0; i < NUMBERS_MAX; i++) {
		struct pollfd p = {.fd = items->fd[OBD_FDSTORE_CHILD][i], .events = POLLIN};
		while (p.fd >= 0 && poll(&p, 1, 10) != 1)
			if (obd_clock_ns() > end)
				return false;
	}
	return true;
}

/* Is there a client whose process nobody could watch? */
static bool clients_are_whole(const struct state *st, const struct items *items)
{
	for (uint32_t id = 1; id < OBD_MAX_CLIENTS; id++)
		if (st->client[id].up &&
		    (items->fd[OBD_KIND_CLIENT][id] < 0 || items->fd[OBD_FDSTORE_CLIENT][id] < 0 || st->client[id].pid <= 0))
			return false;
	return true;
}

static int move(struct items *items, uint32_t kind, uint32_t index)
{
	int fd = items->fd[kind][index];
	items->fd[kind][index] = -1;
	return fd;
}

static bool adopt_client(struct obd_supervisor *sv, const struct state *st, struct items *items, uint32_t id)
{
	struct obd_client *client = &sv->clients[id];
	client->incarnation = st->client[id].incarnation;
	if (!st->client[id].up)
		return true;
	int bell = obd_store_new_bell();
	if (bell < 0)
		return false;
	obd_store_put(&sv->store, OBD_KIND_BELL_CLIENT, id, bell);
	obd_store_put(&sv->store, OBD_KIND_CLIENT, id, move(items, OBD_KIND_CLIENT, id));
	client->state = OBD_CLIENT_UP;
	client->orphan = true;
	client->pid = st->client[id].pid;
	client->pidfd = move(items, OBD_FDSTORE_CLIENT, id);
	client->since_ns = obd_clock_ns();
	return obd_client_watch_orphan(sv, id) == 0;
}

static bool adopt(struct obd_supervisor *sv, struct items *items)
{
	struct obd_err err = {{0}};
	struct state st;
	if (items->fd[OBD_FDSTORE_STATE][0] < 0 || !read_state(sv, items->fd[OBD_FDSTORE_STATE][0], &st) ||
	    !clients_are_whole(&st, items))
		return false;
	for (uint32_t k = 0; obd_kind_is_deposited((enum obd_kind)k); k++)
		for (uint32_t i = 0; i < obd_kind_count((enum obd_kind)k); i++)
			obd_store_put(&sv->store, (enum obd_kind)k, i, move(items, k, i));
	sv->store.client_area_bytes = st.client_area_bytes;
	if (obd_store_check(&sv->store, st.nchildren - 2, &err) < 0)
		return false;
	for (uint32_t i = 0; i < st.nchildren; i++)
		sv->children[i].incarnation = st.child_incarnation[i] + 1;
	sv->clients[0].incarnation = st.client[0].incarnation;
	for (uint32_t id = 1; id < OBD_MAX_CLIENTS; id++)
		if (!adopt_client(sv, &st, items, id))
			return false;
	return true;
}

bool obd_fdstore_take(struct obd_supervisor *sv)
{
	char path[OBD_PATH_BYTES];
	struct items items;
	obd_runtime_path(sv, SOCKET_NAME, path);
	int sock = connect_to_holder(path);
	if (sock < 0)
		return false;
	items_init(&items);
	const char *why = NULL;
	if (!receive(sock, &items))
		why = "its holder did not give everything";
	else if (!end_old_children(&items))
		why = "a process that may write to it does not end";
	else if (!adopt(sv, &items))
		why = "it was made with another configuration or version, or is not whole";
	if (why) {
		obd_warn("the cache of the group before is not used: %s", why);
		obd_client_drop_orphans(sv);
		obd_store_clear_deposits(&sv->store);
		for (uint32_t i = 0; i < sv->nchildren; i++)
			sv->children[i].incarnation = 0;
	}
	items_free(&items);
	close(sock);
	unlink(path);
	return !why;
}

/* ---- the holder ---------------------------------------------------------------------------------------------------------- */

static int by_number(const void *a, const void *b)
{
	const int *x = a, *y = b;
	return (*x > *y) - (*x < *y);
}

/* Closes every descriptor that is not an item, nor one of these two. */
static void close_others(const struct items *items, int sock, int listen_fd)
{
	int kept[OBD_FDSTORE_KINDS * NUMBERS_MAX + 2];
	size_t n = 0;
	kept[n++] = sock;
	kept[n++] = listen_fd;
	for (uint32_t k = 0; k < OBD_FDSTORE_KINDS; k++)
		for (uint32_t i = 0; i < NUMBERS_MAX; i++)
			if (items->fd[k][i] >= 0)
				kept[n++] = items->fd[k][i];
	qsort(kept, n, sizeof kept[0], by_number);
	unsigned int from = 0;
	for (size_t i = 0; i < n; i++) {
		if ((unsigned int)kept[i] > from)
			syscall(SYS_close_range, from, (unsigned int)kept[i] - 1, 0);
		from = (unsigned int)kept[i] + 1;
	}
	syscall(SYS_close_range, from, UINT_MAX, 0);
}

/* Until the supervisor's end of the socket is closed. */
static void keep_items(struct items *items, int sock)
{
	for (;;) {
		struct pollfd p = {.fd = sock, .events = POLLIN};
		struct obd_msg msg;
		int fd;
		(void)poll(&p, 1, -1);
		int rc = obd_msg_recv(sock, &msg, &fd);
		if (rc == -EAGAIN)
			continue;
		if (rc != 1)
			return;
		if (msg.type == OBD_MSG_KEEP || msg.type == OBD_MSG_DROP)
			items_set(items, msg.arg, msg.index, fd);
	}
}

/* True: everything was given, or it came to nothing and there is no second time. */
static bool give(const struct items *items, int listen_fd)
{
	struct timeval limit = {.tv_sec = TAKE_NS / OBD_SECOND_NS};
	struct ucred cred;
	struct obd_msg done;
	int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
	if (fd < 0)
		return false;
	if (!obd_socket_is_trusted(fd, &cred)) {
		close(fd);
		return false;
	}
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
	int rc = 0;
	for (uint32_t k = 0; k < OBD_FDSTORE_KINDS; k++)
		for (uint32_t i = 0; i < NUMBERS_MAX && rc == 0; i++)
			if (items->fd[k][i] >= 0)
				rc = send_item(fd, k, i, items->fd[k][i]);
	obd_msg_init(&done, OBD_MSG_GRANTS_DONE);
	if (rc == 0)
		(void)obd_msg_send(fd, &done, -1);
	close(fd);
	return true;
}

static bool is_still_there(const char *path, ino_t inode)
{
	struct stat st;
	return stat(path, &st) == 0 && st.st_ino == inode;
}

static void hold(const struct obd_supervisor *sv, int sock, int listen_fd)
{
	char path[OBD_PATH_BYTES];
	struct stat st = {0};
	static struct items items;
	sigset_t none;
	gather(sv, &items);
	obd_runtime_path(sv, SOCKET_NAME, path);
	(void)stat(path, &st);
	setsid();
	prctl(PR_SET_NAME, "obd-fdstore");
	for (int i = 1; i < NSIG; i++)
		signal(i, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	close_others(&items, sock, listen_fd);
	keep_items(&items, sock);
	uint64_t end = obd_clock_ns() + OBD_FDSTORE_KEEP_SEC * OBD_SECOND_NS;
	while (obd_clock_ns() < end && is_still_there(path, st.st_ino)) {
		struct pollfd p = {.fd = listen_fd, .events = POLLIN};
		if (poll(&p, 1, 500) == 1 && give(&items, listen_fd))
			break;
	}
	_exit(0);
}
