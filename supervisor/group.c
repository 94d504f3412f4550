/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The children's life. Everything happens in answer to an event: a message, a death (SIGCHLD), a timer. A child counts as dead
 * when it has been waited for, not when its socket closes: only then is it sure that it writes to no region any more, which is
 * what REAPED promises to the others.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/testpoint.h"
#include "supervisor/fdstore.h"
#include "supervisor/supervisor.h"

#define TICK_NS (250 * OBD_MS_NS)
#define START_AFRESH 100	      /* a status: the adopted segment was no good */
#define CLOSED_GRACE_NS OBD_SECOND_NS /* between closing the socket and ending */

struct obd_child *obd_group_cached(struct obd_supervisor *sv)
{
	return &sv->children[0];
}

struct obd_child *obd_group_indexer(struct obd_supervisor *sv)
{
	return &sv->children[1];
}

bool obd_child_is_up(const struct obd_child *child)
{
	return child->pid > 0 && child->peer.fd >= 0;
}

/* "obd-cached", "obd-fetcher 3" */
static const char *label(const struct obd_child *child)
{
	static char text[32];
	if (child->role == OBD_ROLE_FETCHER)
		snprintf(text, sizeof text, "%s %u", obd_child_program(child->role), child->index);
	else
		snprintf(text, sizeof text, "%s", obd_child_program(child->role));
	return text;
}

/* why (a text that lives on) becomes the reason of its death, in place of "killed by signal 9". */
static void kill_child(struct obd_child *child, const char *why)
{
	if (child->pid > 0 && !child->killed_for) {
		child->killed_for = why;
		kill(child->pid, SIGKILL);
	}
}

/* ---- stop ---- */

static bool any_child_left(const struct obd_supervisor *sv)
{
	for (uint32_t i = 0; i < sv->nchildren; i++)
		if (sv->children[i].pid > 0)
			return true;
	return obd_tgtd_is_left(sv);
}

static void on_stop_kill(void *arg)
{
	struct obd_supervisor *sv = arg;
	for (uint32_t i = 0; i < sv->nchildren; i++) {
		struct obd_child *child = &sv->children[i];
		if (child->pid > 0) {
			obd_warn("%s[%d] does not stop: killed", label(child), (int)child->pid);
			kill_child(child, "did not stop");
		}
	}
}

static void on_stop_end(void *arg)
{
	struct obd_supervisor *sv = arg;
	obd_error("a child survives SIGKILL; leaving it behind");
	obd_loop_stop(sv->loop, 1);
}

static void begin_stop(struct obd_supervisor *sv, int status)
{
	uint64_t now = obd_clock_ns();
	if (sv->stopping) {
		if (sv->status == START_AFRESH)
			sv->status = status;
		return;
	}
	sv->stopping = true;
	sv->status = status;
	obd_listen_close(sv);
	obd_tgtd_stop(sv);
	obd_fdstore_stop(sv);
	for (uint32_t i = 0; i < sv->nchildren; i++) {
		struct obd_child *child = &sv->children[i];
		obd_loop_timer_set(child->restart, 0);
		if (child->pid > 0)
			kill(child->pid, SIGTERM);
	}
	obd_loop_timer_set(sv->stop_kill, now + OBD_STOP_KILL_MS * OBD_MS_NS);
	obd_loop_timer_set(sv->stop_end, now + OBD_STOP_END_MS * OBD_MS_NS);
	if (!any_child_left(sv))
		obd_loop_stop(sv->loop, status);
}

/* ---- death and restart ---- */

/* Is it the adopted segment that does not let the group start? */
static bool adoption_failed(const struct obd_child *child)
{
	const struct obd_supervisor *sv = child->sv;
	return sv->adopted && !sv->was_ready && child->deaths >= (child->role == OBD_ROLE_CACHED ? 1 : OBD_ADOPT_DEATHS);
}

static void schedule_restart(struct obd_child *child, uint64_t now, bool was_ready)
{
	struct obd_supervisor *sv = child->sv;
	if (adoption_failed(child)) {
		obd_warn("%s dies over the cache of the group before (%s): a new one is made", label(child), child->last_exit);
		begin_stop(sv, START_AFRESH);
		return;
	}
	if (!sv->was_ready && child->deaths >= OBD_GIVE_UP_DEATHS) {
		obd_error("%s died %u times before the group was ready (%s): giving up", label(child), child->deaths,
			  child->last_exit);
		begin_stop(sv, 1);
		return;
	}
	uint64_t wait_ns = obd_backoff_death(&child->backoff, now - child->started_ns, was_ready);
	child->state = OBD_CHILD_DEAD;
	if (wait_ns) {
		child->state = OBD_CHILD_BACKOFF;
		obd_loop_timer_set(child->restart, now + wait_ns);
	}
}

/* Tells the survivors, and takes back what the dead process held. */
static void settle_death(struct obd_child *child, uint32_t incarnation)
{
	struct obd_supervisor *sv = child->sv;
	switch (child->role) {
	case OBD_ROLE_FETCHER:
		obd_tell_reaped(obd_group_cached(sv), child, incarnation);
		break;
	case OBD_ROLE_CACHED:
		if (!sv->segment_complete)
			obd_store_clear_deposits(&sv->store);
		obd_tell_reaped(obd_group_indexer(sv), child, incarnation);
		obd_client_server_died(sv, OBD_ROLE_CACHED);
		break;
	default:
		obd_client_server_died(sv, OBD_ROLE_INDEXER);
		obd_client_detach(sv, 0);
	}
}

static uint32_t number_of(const struct obd_child *child)
{
	return (uint32_t)(child - child->sv->children);
}

static void forget_pidfd(struct obd_child *child)
{
	if (child->pidfd >= 0)
		close(child->pidfd);
	child->pidfd = -1;
	obd_fdstore_put(child->sv, OBD_FDSTORE_CHILD, number_of(child), -1);
}

/* Before it is granted anything: whoever takes over after us must be able to end it. */
static void keep_pidfd(struct obd_child *child)
{
	child->pidfd = obd_pidfd(child->pid);
	if (child->pidfd < 0)
		obd_warn("%s: pidfd_open: %s", label(child), strerror(-child->pidfd));
	obd_fdstore_put(child->sv, OBD_FDSTORE_CHILD, number_of(child), child->pidfd);
	obd_fdstore_note(child->sv);
}

static void on_death(struct obd_child *child, int wait_status)
{
	struct obd_supervisor *sv = child->sv;
	uint64_t now = obd_clock_ns();
	uint32_t incarnation = child->incarnation++;
	if (child->killed_for)
		snprintf(child->last_exit, sizeof child->last_exit, "killed: %s", child->killed_for);
	else
		obd_describe_exit(wait_status, child->last_exit, sizeof child->last_exit);
	obd_log(sv->stopping ? OBD_LOG_INFO : OBD_LOG_WARN, "%s[%d] ended: %s", label(child), (int)child->pid,
		child->last_exit);
	obd_peer_close(&child->peer);
	forget_pidfd(child);
	bool was_ready = child->state == OBD_CHILD_RUNNING;
	child->pid = 0;
	child->state = OBD_CHILD_DEAD;
	child->deaths++;
	if (sv->stopping) {
		if (!any_child_left(sv))
			obd_loop_stop(sv->loop, sv->status);
		return;
	}
	OBD_TEST_POINT(sv_reaped);
	settle_death(child, incarnation);
	schedule_restart(child, now, was_ready);
}

static void reap(struct obd_supervisor *sv)
{
	for (uint32_t i = 0; i < sv->nchildren; i++) {
		struct obd_child *child = &sv->children[i];
		int status;
		if (child->pid > 0 && waitpid(child->pid, &status, WNOHANG) == child->pid)
			on_death(child, status);
	}
	if (obd_tgtd_reap(sv) && sv->stopping && !any_child_left(sv))
		obd_loop_stop(sv->loop, sv->status);
	obd_group_advance(sv);
}

static void on_restart(void *arg)
{
	struct obd_child *child = arg;
	child->state = OBD_CHILD_DEAD;
	obd_group_advance(child->sv);
}

/* ---- messages ---- */

static void violation(struct obd_child *child, const char *what)
{
	obd_error("%s[%d]: %s", label(child), (int)child->pid, what);
	obd_peer_break(&child->peer, "protocol violation");
}

static void on_deposit(struct obd_child *child, const struct obd_msg *msg, int fd)
{
	struct obd_err err = {{0}};
	if (child->role != OBD_ROLE_CACHED) {
		close(fd);
		violation(child, "deposits a region");
	} else if (obd_store_deposit(&child->sv->store, msg->name, msg->index, fd, &err) < 0) {
		violation(child, err.msg);
	}
}

static void on_setting(struct obd_child *child, const struct obd_msg *msg)
{
	struct obd_err err = {{0}};
	if (child->role != OBD_ROLE_CACHED)
		violation(child, "tells a setting");
	else if (obd_store_setting(&child->sv->store, msg->name, msg->arg, &err) < 0)
		violation(child, err.msg);
}

static void check_group_ready(struct obd_supervisor *sv)
{
	if (sv->listen_fd >= 0)
		return;
	for (uint32_t i = 0; i < sv->nchildren; i++)
		if (sv->children[i].state != OBD_CHILD_RUNNING)
			return;
	int rc = obd_listen_open(sv);
	if (rc < 0) {
		obd_error("%s/supervisor.sock: %s", sv->config->runtime_dir, strerror(-rc));
		begin_stop(sv, 1);
		return;
	}
	sv->was_ready = true;
	obd_fdstore_start(sv);
	obd_info("ready: %s/supervisor.sock", sv->config->runtime_dir);
	obd_tgtd_advance(sv);
}

static void on_ready(struct obd_child *child)
{
	struct obd_supervisor *sv = child->sv;
	struct obd_err err = {{0}};
	if (child->state != OBD_CHILD_STARTING) {
		violation(child, "is ready twice");
		return;
	}
	if (child->role == OBD_ROLE_CACHED) {
		if (obd_store_check(&sv->store, sv->nchildren - 2, &err) < 0) {
			violation(child, err.msg);
			return;
		}
		sv->segment_complete = true;
		obd_client_renew_indexer(sv);
	}
	OBD_TEST_POINT(sv_ready);
	child->state = OBD_CHILD_RUNNING;
	obd_info("%s[%d] is ready", label(child), (int)child->pid);
	obd_group_advance(sv);
	check_group_ready(sv);
}

static void on_client_gone(struct obd_child *child, uint32_t id)
{
	if (child->role == OBD_ROLE_FETCHER || obd_client_released(child->sv, child->role, id) < 0)
		violation(child, "lets go of a client that it does not hold");
	else
		obd_group_advance(child->sv); /* the indexer may be waiting for its area */
}

static void on_message(struct obd_peer *peer, const struct obd_msg *msg, int fd)
{
	struct obd_child *child = peer->owner;
	child->beat_ns = obd_clock_ns();
	if (fd >= 0 && msg->type != OBD_MSG_DEPOSIT)
		close(fd);
	switch (msg->type) {
	case OBD_MSG_DEPOSIT:
		on_deposit(child, msg, fd);
		break;
	case OBD_MSG_SETTING:
		on_setting(child, msg);
		break;
	case OBD_MSG_READY:
		if (!child->sv->stopping)
			on_ready(child);
		break;
	case OBD_MSG_HEARTBEAT:
		break;
	case OBD_MSG_CLIENT_GONE:
		on_client_gone(child, msg->index);
		break;
	default:
		violation(child, "sends a message that no child sends");
	}
}

/* A child that ends closes its socket on the way, so that alone is given a moment; anything else is not. */
static void on_closed(struct obd_peer *peer, const char *why)
{
	struct obd_child *child = peer->owner;
	obd_peer_close(peer);
	child->closed_ns = obd_clock_ns();
	if (why) {
		obd_error("%s[%d]: %s: killed", label(child), (int)child->pid, why);
		kill_child(child, why);
	}
}

static const struct obd_peer_ops child_peer_ops = {.message = on_message, .closed = on_closed};

/* ---- start ---- */

static void start_child(struct obd_child *child)
{
	struct obd_supervisor *sv = child->sv;
	uint64_t now = obd_clock_ns();
	int sock = -1;
	pid_t pid = obd_spawn(child, &sock);
	child->started_ns = child->beat_ns = now;
	OBD_TEST_POINT(sv_spawned);
	child->closed_ns = 0;
	child->killed_for = NULL;
	int rc = pid < 0 ? (int)pid : 0;
	if (rc == 0) {
		child->pid = pid;
		child->state = OBD_CHILD_STARTING;
		keep_pidfd(child);
		rc = obd_peer_open(&child->peer, sv->loop, sock, &child_peer_ops, child);
		if (rc < 0)
			kill_child(child, "no socket for it");
	}
	if (rc < 0) {
		obd_error("%s cannot be started: %s", label(child), strerror(-rc));
		if (pid < 0) {
			child->deaths++;
			snprintf(child->last_exit, sizeof child->last_exit, "%s", strerror(-rc));
			schedule_restart(child, now, false);
		}
		return;
	}
	obd_info("%s[%d] started, incarnation %u", label(child), (int)pid, child->incarnation);
	obd_hand_out_start(child);
}

static bool may_start(const struct obd_child *child)
{
	const struct obd_supervisor *sv = child->sv;
	if (sv->stopping || child->pid > 0 || child->state != OBD_CHILD_DEAD)
		return false;
	switch (child->role) {
	case OBD_ROLE_CACHED:
		return true;
	case OBD_ROLE_INDEXER:
		return sv->segment_complete && sv->clients[0].state == OBD_CLIENT_UP;
	default:
		return sv->segment_complete;
	}
}

void obd_group_advance(struct obd_supervisor *sv)
{
	for (uint32_t i = 0; i < sv->nchildren; i++)
		while (may_start(&sv->children[i])) /* again when fork failed and the first retry is at once */
			start_child(&sv->children[i]);
}

/* ---- silence ---- */

static void check_silence(struct obd_child *child, uint64_t now)
{
	bool starting = child->state == OBD_CHILD_STARTING;
	uint64_t limit_sec = starting ? OBD_START_TIMEOUT_SEC : child->sv->config->hang_sec;
	uint64_t since = starting ? child->started_ns : child->beat_ns;
	if (child->pid <= 0 || child->killed_for)
		return;
	if (child->closed_ns) {
		if (now - child->closed_ns > CLOSED_GRACE_NS) {
			obd_error("%s[%d] closed its socket and goes on: killed", label(child), (int)child->pid);
			kill_child(child, "closed its socket");
		}
	} else if (now > since && now - since > limit_sec * OBD_SECOND_NS) {
		obd_error("%s[%d] %s for %u s: killed", label(child), (int)child->pid,
			  starting ? "has not become ready" : "is silent", (unsigned int)limit_sec);
		kill_child(child, starting ? "not ready in time" : "silent");
	}
}

/* When we were stopped ourselves, the children's heartbeats wait unread: nobody has been silent. */
static void forgive_silence(struct obd_supervisor *sv, uint64_t now)
{
	for (uint32_t i = 0; i < sv->nchildren; i++)
		sv->children[i].beat_ns = now;
	obd_tgtd_forgive(sv, now);
}

static void on_tick(void *arg)
{
	struct obd_supervisor *sv = arg;
	uint64_t now = obd_clock_ns();
	if (now - sv->ticked_ns > OBD_SECOND_NS)
		forgive_silence(sv, now);
	if (!sv->stopping)
		obd_tgtd_tick(sv, now);
	sv->ticked_ns = now;
	obd_loop_timer_set(sv->tick, now + TICK_NS);
	if (sv->stopping)
		return;
	for (uint32_t i = 0; i < sv->nchildren; i++)
		check_silence(&sv->children[i], now);
	obd_client_renew_indexer(sv);
	obd_group_advance(sv);
	obd_listen_tick(sv, now);
	obd_fdstore_tick(sv);
}

/* ---- signals ---- */

static void reopen_logs(struct obd_supervisor *sv)
{
	int rc = obd_log_reopen();
	if (rc < 0)
		obd_warn("the log cannot be opened again: %s", strerror(-rc));
	struct obd_msg msg;
	obd_msg_init(&msg, OBD_MSG_GRANT);
	snprintf(msg.name, sizeof msg.name, OBD_WIRE_LOG);
	for (uint32_t i = 0; rc == 0 && obd_log_fd() >= 0 && i < sv->nchildren; i++)
		if (obd_child_is_up(&sv->children[i]))
			obd_peer_send(&sv->children[i].peer, &msg, obd_log_fd());
}

static void on_signal(int fd, uint32_t events, void *arg)
{
	struct obd_supervisor *sv = arg;
	struct signalfd_siginfo si;
	(void)events;
	while (read(fd, &si, sizeof si) == (ssize_t)sizeof si) {
		switch (si.ssi_signo) {
		case SIGCHLD:
			reap(sv);
			break;
		case SIGHUP:
			reopen_logs(sv);
			break;
		default:
			obd_info("stopping");
			begin_stop(sv, 0);
		}
	}
}

static int catch_signals(struct obd_supervisor *sv)
{
	static const int signals[] = {SIGTERM, SIGINT, SIGHUP, SIGCHLD};
	sigset_t set;
	sigemptyset(&set);
	for (size_t i = 0; i < OBD_ARRAY_SIZE(signals); i++) {
		signal(signals[i], SIG_DFL); /* an ignored SIGCHLD would reap behind our back */
		sigaddset(&set, signals[i]);
	}
	signal(SIGPIPE, SIG_IGN);
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return -errno;
	sv->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (sv->signal_fd < 0)
		return -errno;
	return obd_loop_watch(sv->loop, sv->signal_fd, EPOLLIN, on_signal, sv);
}

/* ---- the run ---- */

static int put_bell(struct obd_supervisor *sv, enum obd_kind kind, uint32_t index)
{
	int fd = obd_store_new_bell();
	if (fd < 0)
		return fd;
	obd_store_put(&sv->store, kind, index, fd);
	return 0;
}

static int make_child(struct obd_supervisor *sv, uint32_t i)
{
	static const enum obd_role first[] = {OBD_ROLE_CACHED, OBD_ROLE_INDEXER};
	static const enum obd_kind bells[] = {OBD_KIND_BELL_CACHED, OBD_KIND_BELL_INDEXER};
	struct obd_child *child = &sv->children[i];
	child->sv = sv;
	child->role = i < 2 ? first[i] : OBD_ROLE_FETCHER;
	child->index = i < 2 ? 0 : i - 2;
	child->restart = obd_loop_timer_new(sv->loop, on_restart, child);
	if (!child->restart)
		return -ENOMEM;
	return put_bell(sv, i < 2 ? bells[i] : OBD_KIND_BELL_FETCHER, child->index);
}

static int set_up(struct obd_supervisor *sv)
{
	sv->listen_fd = sv->signal_fd = -1;
	sv->fdstore = (struct obd_fdstore){.sock = -1, .state = -1};
	sv->stopping = sv->segment_complete = sv->was_ready = false;
	obd_list_init(&sv->conns);
	memset(sv->clients, 0, sizeof sv->clients);
	for (uint32_t id = 0; id < OBD_MAX_CLIENTS; id++)
		sv->clients[id].pidfd = -1;
	sv->started_ns = sv->ticked_ns = obd_clock_ns();
	sv->loop = obd_loop_new();
	if (!sv->loop)
		return -errno;
	uint32_t count = 2 + obd_config_fetchers(sv->config);
	sv->children = calloc(count, sizeof *sv->children);
	if (!sv->children)
		return -ENOMEM;
	sv->nchildren = count;
	for (uint32_t i = 0; i < count; i++)
		sv->children[i].peer.fd = sv->children[i].pidfd = -1;
	sv->tick = obd_loop_timer_new(sv->loop, on_tick, sv);
	sv->stop_kill = obd_loop_timer_new(sv->loop, on_stop_kill, sv);
	sv->stop_end = obd_loop_timer_new(sv->loop, on_stop_end, sv);
	int rc = sv->tick && sv->stop_kill && sv->stop_end ? obd_store_init(&sv->store) : -ENOMEM;
	for (uint32_t i = 0; i < count && rc == 0; i++)
		rc = make_child(sv, i);
	return rc < 0 ? rc : catch_signals(sv);
}

static int open_tgtd(struct obd_supervisor *sv)
{
	struct obd_err err = {{0}};
	int rc = obd_tgtd_open(sv, &err);
	if (rc == 0)
		return 0;
	obd_error("%s", err.msg);
	return -ECANCELED; /* said */
}

static void tear_down(struct obd_supervisor *sv)
{
	obd_tgtd_close(sv);
	obd_store_free(&sv->store);
	for (uint32_t i = 0; i < sv->nchildren; i++) {
		obd_peer_close(&sv->children[i].peer);
		if (sv->children[i].pidfd >= 0)
			close(sv->children[i].pidfd);
		obd_loop_timer_free(sv->children[i].restart);
	}
	free(sv->children);
	for (uint32_t id = 0; id < OBD_MAX_CLIENTS; id++)
		if (sv->clients[id].pidfd >= 0)
			close(sv->clients[id].pidfd);
	obd_loop_timer_free(sv->tick);
	obd_loop_timer_free(sv->stop_kill);
	obd_loop_timer_free(sv->stop_end);
	if (sv->signal_fd >= 0)
		close(sv->signal_fd);
	obd_loop_free(sv->loop);
}

static int run_once(struct obd_supervisor *sv, bool may_adopt)
{
	int rc = set_up(sv);
	if (rc == 0)
		rc = open_tgtd(sv);
	if (rc == 0) {
		sv->adopted = may_adopt && obd_fdstore_take(sv); /* the second time there is no holder */
		if (sv->adopted)
			obd_info("the cache of the group before is taken over");
		obd_loop_timer_set(sv->tick, sv->ticked_ns + TICK_NS);
		obd_group_advance(sv);
		rc = obd_loop_run(sv->loop);
		if (rc == 0)
			obd_info("stopped");
	}
	if (rc < 0 && rc != -ECANCELED)
		obd_error("%s", strerror(-rc));
	if (sv->loop)
		obd_listen_close(sv);
	obd_fdstore_stop(sv);
	tear_down(sv);
	return rc;
}

int obd_group_run(struct obd_supervisor *sv)
{
	int rc = run_once(sv, true);
	if (rc == START_AFRESH)
		rc = run_once(sv, false);
	return rc < 0 ? 1 : rc;
}
