/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The life of a child process, the same for all of them.
 *
 * The control socket stays blocking: the supervisor reads at once whatever we send and never waits for us, so a send that
 * blocks is short. Receiving happens only when the loop (or poll, before it) has seen a packet.
 */
#include "common/daemon/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/config/config.h"

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#endif

#define HEARTBEAT_NS OBD_SECOND_NS

enum { EXIT_STOPPED = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

struct run {
	struct obd_daemon d;
	struct obd_config config;
	const char *config_path;
	int signal_fd;
	bool stop_asked; /* before the loop ran */
	struct obd_loop_timer *heartbeat;
	uint64_t next_beat_ns;
};

/* ---- options ---- */

static int usage(const char *name)
{
	fprintf(stderr, "%s: is started by obd-supervisor only, with --control-fd, --index, --incarnation and -c\n", name);
	return EXIT_USAGE;
}

static bool parse_u32(const char *text, uint32_t *out)
{
	char *end;
	errno = 0;
	unsigned long v = strtoul(text, &end, 10);
	if (errno || end == text || *end || text[0] == '-' || v > INT32_MAX)
		return false;
	*out = (uint32_t)v;
	return true;
}

static bool is_control_socket(int fd)
{
	int type = 0;
	socklen_t len = sizeof type;
	return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0 && type == SOCK_SEQPACKET;
}

/* Returns -1 to go on, or the exit status. */
static int parse_options(struct run *r, int argc, char **argv)
{
	static const struct option longs[] = {
		{"control-fd", required_argument, NULL, 'f'},  {"index", required_argument, NULL, 'i'},
		{"incarnation", required_argument, NULL, 'k'}, {"config", required_argument, NULL, 'c'},
		{"version", no_argument, NULL, 'V'},	       {NULL, 0, NULL, 0}};
	const char *name = r->d.ops->name;
	uint32_t fd = 0;
	bool good = true;
	int opt;
	optind = 1;
	while (good && (opt = getopt_long(argc, argv, "c:", longs, NULL)) != -1) {
		switch (opt) {
		case 'f':
			good = parse_u32(optarg, &fd) && fd > STDERR_FILENO;
			break;
		case 'i':
			good = parse_u32(optarg, &r->d.index);
			break;
		case 'k':
			good = parse_u32(optarg, &r->d.incarnation);
			break;
		case 'c':
			r->config_path = optarg;
			break;
		case 'V':
			printf("%s %s\n", name, OBD_VERSION);
			return 0;
		default:
			good = false;
		}
	}
	if (!good || optind != argc || !fd || !is_control_socket((int)fd))
		return usage(name);
	r->d.control_fd = (int)fd;
	return -1;
}

/* ---- set-up ---- */

static int load_config(struct run *r)
{
	struct obd_err err = {{0}};
	int rc = obd_config_load(r->config_path, &r->config, &err);
	if (rc < 0) {
		obd_error("%s", err.msg);
		return rc;
	}
	r->d.config = &r->config;
	rc = obd_log_open(r->config.log_path, (enum obd_log_level)r->config.log_level);
	if (rc < 0)
		obd_warn("%s: cannot be opened for logging: %s", r->config.log_path, strerror(-rc));
	return 0;
}

static int catch_signals(struct run *r)
{
	sigset_t set;
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return -errno;
	r->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return r->signal_fd < 0 ? -errno : 0;
}

/* The device may be what memory reclaim writes to, so our own allocations must not wait for it. */
static void set_process_flags(void)
{
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		obd_warn("cannot give up gaining privileges: %s", strerror(errno));
	if (prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) < 0)
		obd_debug("not marked as an I/O flusher: %s", strerror(errno));
}

static void name_log(const struct obd_daemon *d)
{
	char ident[64];
	if (d->ops->role == OBD_ROLE_FETCHER)
		snprintf(ident, sizeof ident, "%s/%u", d->ops->name, d->index);
	else
		snprintf(ident, sizeof ident, "%s", d->ops->name);
	obd_log_ident(ident);
}

/* ---- signals and messages ---- */

static void on_signal(int fd, uint32_t events, void *arg)
{
	struct run *r = arg;
	struct signalfd_siginfo si;
	(void)events;
	while (read(fd, &si, sizeof si) == (ssize_t)sizeof si) {
		if (si.ssi_signo == SIGHUP) {
			int rc = obd_log_reopen();
			if (rc < 0)
				obd_warn("the log cannot be opened again: %s", strerror(-rc));
		} else {
			r->stop_asked = true;
			obd_loop_stop(r->d.loop, EXIT_STOPPED);
		}
	}
}

/* Hands a descriptor to the program. */
static int take_grant(struct run *r, const struct obd_msg *msg, int fd)
{
	if (strcmp(msg->name, OBD_WIRE_LOG) == 0) {
		obd_log_take(fd);
		return 0;
	}
	int rc = r->d.ops->grant(&r->d, msg->name, msg->index, msg->flags, fd);
	if (rc < 0)
		obd_error("cannot use %s %u: %s", msg->name, msg->index, strerror(-rc));
	return rc;
}

static void pass_message(struct run *r, const struct obd_msg *msg, int fd)
{
	switch (msg->type) {
	case OBD_MSG_GRANT:
		if (take_grant(r, msg, fd) < 0)
			obd_loop_stop(r->d.loop, EXIT_FAILED);
		return;
	case OBD_MSG_CLIENT_UP:
	case OBD_MSG_CLIENT_DOWN:
	case OBD_MSG_REAPED:
	case OBD_MSG_CLIENTS_KNOWN:
		if (r->d.ops->message)
			r->d.ops->message(&r->d, msg);
		return;
	default:
		obd_warn("message %u from the supervisor was not expected", msg->type);
		if (fd >= 0)
			close(fd);
	}
}

static void on_control(int sock, uint32_t events, void *arg)
{
	struct run *r = arg;
	struct obd_msg msg;
	int fd;
	(void)events;
	int rc = obd_msg_recv(sock, &msg, &fd);
	if (rc == 1) {
		pass_message(r, &msg, fd);
	} else if (rc == 0) {
		obd_info("the supervisor has gone");
		obd_loop_stop(r->d.loop, EXIT_STOPPED);
	} else if (rc != -EAGAIN) {
		obd_error("supervisor's socket: %s", strerror(-rc));
		obd_loop_stop(r->d.loop, EXIT_FAILED);
	}
}

/* One message of the first grants. Returns 1 when they are complete, 0 for more, or a negative errno. */
static int receive_first_grant(struct run *r)
{
	struct obd_msg msg;
	int fd;
	int rc = obd_msg_recv(r->d.control_fd, &msg, &fd);
	if (rc == 0)
		return -ECONNRESET;
	if (rc < 0)
		return rc == -EAGAIN ? 0 : rc;
	if (msg.type == OBD_MSG_GRANTS_DONE)
		return 1;
	if (msg.type == OBD_MSG_GRANT)
		return take_grant(r, &msg, fd);
	if (fd >= 0)
		close(fd);
	return -EPROTO;
}

/* Waits for GRANTS_DONE or for a signal to stop. Returns 0 or a negative errno. */
static int collect_grants(struct run *r)
{
	struct pollfd fds[2] = {{.fd = r->d.control_fd, .events = POLLIN}, {.fd = r->signal_fd, .events = POLLIN}};
	int rc = 0;
	while (rc == 0 && !r->stop_asked) {
		if (poll(fds, 2, -1) < 0) {
			if (errno == EINTR)
				continue;
			return -errno;
		}
		if (fds[1].revents)
			on_signal(r->signal_fd, EPOLLIN, r);
		if (fds[0].revents)
			rc = receive_first_grant(r);
	}
	if (rc < 0)
		obd_error("first messages from the supervisor: %s", strerror(-rc));
	return rc < 0 ? rc : 0;
}

/* ---- to the supervisor ---- */

static int send_plain(struct obd_daemon *d, enum obd_msg_type type)
{
	struct obd_msg msg;
	obd_msg_init(&msg, type);
	msg.role = (uint16_t)d->ops->role;
	msg.index = d->index;
	return obd_msg_send(d->control_fd, &msg, -1);
}

static void set_name(struct obd_msg *msg, const char *name)
{
	snprintf(msg->name, sizeof msg->name, "%s", name);
}

int obd_daemon_deposit(struct obd_daemon *d, const char *name, uint32_t index, int fd)
{
	struct obd_msg msg;
	obd_msg_init(&msg, OBD_MSG_DEPOSIT);
	set_name(&msg, name);
	msg.role = (uint16_t)d->ops->role;
	msg.index = index;
	return obd_msg_send(d->control_fd, &msg, fd);
}

int obd_daemon_setting(struct obd_daemon *d, const char *name, uint64_t value)
{
	struct obd_msg msg;
	obd_msg_init(&msg, OBD_MSG_SETTING);
	set_name(&msg, name);
	msg.role = (uint16_t)d->ops->role;
	msg.arg = value;
	return obd_msg_send(d->control_fd, &msg, -1);
}

int obd_daemon_client_gone(struct obd_daemon *d, uint32_t client)
{
	struct obd_msg msg;
	obd_msg_init(&msg, OBD_MSG_CLIENT_GONE);
	msg.role = (uint16_t)d->ops->role;
	msg.index = client;
	return obd_msg_send(d->control_fd, &msg, -1);
}

/* A broken socket is not handled here: on_control sees its end in the same turn of the loop. */
static void on_heartbeat(void *arg)
{
	struct run *r = arg;
	uint64_t now = obd_clock_ns();
	send_plain(&r->d, OBD_MSG_HEARTBEAT);
	if (r->d.ops->tick)
		r->d.ops->tick(&r->d);
	r->next_beat_ns += HEARTBEAT_NS;
	if (r->next_beat_ns <= now) /* we were stopped for a while: do not catch up */
		r->next_beat_ns = now + HEARTBEAT_NS;
	obd_loop_timer_set(r->heartbeat, r->next_beat_ns);
}

/* ---- the run ---- */

/* A page that is touched first costs a fault, and a large request takes hundreds. Where faults are dear (virtual machines) that
 * was most of the time an open took. */
static void keep_heap(size_t bytes)
{
	if (!bytes)
		return;
	mallopt(M_MMAP_THRESHOLD, (int)bytes);
	mallopt(M_TRIM_THRESHOLD, (int)(4 * bytes));
	unsigned char *p = malloc(bytes / 2), *q = malloc(bytes / 2);
	if (p)
		explicit_bzero(p, bytes / 2);
	if (q)
		explicit_bzero(q, bytes / 2);
	free(p);
	free(q);
}

static int watch_all(struct run *r)
{
	int rc = obd_loop_watch(r->d.loop, r->signal_fd, EPOLLIN, on_signal, r);
	if (rc == 0)
		rc = obd_loop_watch(r->d.loop, r->d.control_fd, EPOLLIN, on_control, r);
	if (rc < 0)
		return rc;
	r->heartbeat = obd_loop_timer_new(r->d.loop, on_heartbeat, r);
	if (!r->heartbeat)
		return -ENOMEM;
	r->next_beat_ns = obd_clock_ns() + HEARTBEAT_NS;
	obd_loop_timer_set(r->heartbeat, r->next_beat_ns);
	return 0;
}

/* From READY to the end. Returns the exit status. */
static int serve(struct run *r)
{
	int rc = watch_all(r);
	if (rc == 0)
		rc = send_plain(&r->d, OBD_MSG_READY);
	if (rc == 0)
		rc = obd_loop_run(r->d.loop);
	if (rc < 0) {
		obd_error("event loop: %s", strerror(-rc));
		return EXIT_FAILED;
	}
	return rc;
}

static int run_daemon(struct run *r)
{
	if (load_config(r) < 0)
		return EXIT_FAILED;
	int rc = catch_signals(r);
	if (rc < 0) {
		obd_error("signals: %s", strerror(-rc));
		return EXIT_FAILED;
	}
	set_process_flags();
	r->d.loop = obd_loop_new();
	if (!r->d.loop) {
		obd_error("event loop: %s", strerror(errno));
		return EXIT_FAILED;
	}
	if (collect_grants(r) < 0)
		return EXIT_FAILED;
	if (r->stop_asked)
		return EXIT_STOPPED;
	keep_heap(r->d.ops->heap_bytes);
	if (r->d.ops->start(&r->d) < 0)
		return EXIT_FAILED;
	int status = serve(r);
	if (r->d.ops->stop)
		r->d.ops->stop(&r->d);
	return status;
}

int obd_daemon_main(int argc, char **argv, const struct obd_daemon_ops *ops, void *priv)
{
	struct run r = {
		.d = {.ops = ops, .priv = priv, .control_fd = -1}, .config_path = OBD_CONFIG_DEFAULT_PATH, .signal_fd = -1};
	int status = parse_options(&r, argc, argv);
	if (status >= 0)
		return status;
	fcntl(r.d.control_fd, F_SETFD, FD_CLOEXEC);
	name_log(&r.d);
	status = run_daemon(&r);
	obd_loop_timer_free(r.heartbeat);
	obd_loop_free(r.d.loop);
	if (r.signal_fd >= 0)
		close(r.signal_fd);
	close(r.d.control_fd);
	obd_config_free(&r.config);
	return status;
}
