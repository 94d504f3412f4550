/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The state of obd-supervisor, and what its files do for each other. One thread, one event loop, nothing blocks.
 *
 *   group.c    the children's life: start order, death, back-off, silence, stop
 *   spawn.c    fork and exec
 *   handout.c  which descriptors and news a process is sent
 *   clients.c  client ids: from attach until both servers have let go
 *   listen.c   the socket that frontends and obd-stat connect to
 *   stat.c     what obd-stat is told
 *   tgtd.c     tgtd as a child (frontend.manage), see tgtd.h
 *   fdstore.c  the process that keeps the descriptors when the supervisor is killed, and their adoption by the next one
 *   runtime.c  runtimeDir: lock, pid file, paths; the checks of --check
 *
 * A child's state:
 *
 *     DEAD --spawn--> STARTING --READY--> RUNNING
 *      ^                  |                  |
 *      |                  +----- waitpid ----+--> BACKOFF --timer--> DEAD
 *      +------------- (first death: no wait) -+
 *
 * DEAD means: may be started as soon as what it needs is there. cached needs nothing; fetchers need the segment, that is
 * cached's first READY; the indexer needs the segment and a fresh client area 0.
 */
#ifndef OBD_SUPERVISOR_SUPERVISOR_H
#define OBD_SUPERVISOR_SUPERVISOR_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/config/config.h"
#include "common/daemon/loop.h"
#include "common/daemon/wire.h"
#include "supervisor/backoff.h"
#include "supervisor/peer.h"
#include "supervisor/store.h"

#define OBD_PATH_BYTES 4096
#define OBD_START_TIMEOUT_SEC 120 /* from fork to READY; cached touches every page of the cache in that time */
#define OBD_GIVE_UP_DEATHS 5	  /* of one child before the group was ready for the first time */
#define OBD_ADOPT_DEATHS 2	  /* the same with an adopted segment: then the group starts anew without it */
#define OBD_STOP_KILL_MS 3000	  /* SIGKILL that long after SIGTERM */
#define OBD_STOP_END_MS 4700	  /* and then the supervisor ends, whatever is left */

struct obd_supervisor;
struct obd_tgtd;

enum obd_child_state { OBD_CHILD_DEAD, OBD_CHILD_BACKOFF, OBD_CHILD_STARTING, OBD_CHILD_RUNNING };

struct obd_child {
	struct obd_supervisor *sv;
	enum obd_role role; /* CACHED, INDEXER or FETCHER */
	uint32_t index;
	enum obd_child_state state;
	pid_t pid; /* 0: no process */
	int pidfd; /* -1: none */
	struct obd_peer peer;
	uint32_t incarnation; /* of the process, or of the next one */
	uint32_t deaths;
	uint64_t started_ns;
	uint64_t beat_ns;	/* the last message */
	uint64_t closed_ns;	/* it closed its socket; 0: open */
	const char *killed_for; /* SIGKILL is on its way; NULL: no */
	struct obd_backoff backoff;
	struct obd_loop_timer *restart;
	char last_exit[64]; /* "" before the first death */
};

/* FREE -> UP (attach) -> DOWN (socket closed) -> FREE (nobody holds it) */
enum obd_client_state { OBD_CLIENT_FREE, OBD_CLIENT_UP, OBD_CLIENT_DOWN };

struct obd_client {
	enum obd_client_state state;
	uint32_t incarnation; /* how often the id was given out; client 0: the indexer's incarnation */
	bool held_by_cached;  /* was told CLIENT_UP and has not yet sent CLIENT_GONE */
	bool held_by_indexer;
	pid_t pid;   /* of the frontend */
	int pidfd;   /* of the frontend; -1: none */
	bool orphan; /* of a group before: it has not come back to this supervisor, and may still read the segment */
	uint64_t since_ns;
};

/* The process that holds the descriptors (fdstore.c). */
struct obd_fdstore {
	pid_t pid; /* 0: none */
	int sock;  /* -1: closed */
	int state; /* the memfd; -1: none */
};

struct obd_supervisor {
	struct obd_loop *loop;
	const struct obd_config *config;
	const char *config_path; /* absolute */
	char bindir[OBD_PATH_BYTES];
	int lock_fd;
	int cache_lock_fd;  /* of cacheDir; -1: none */
	int cachedir_error; /* positive errno: why there is none */
	int signal_fd;
	struct obd_store store;

	struct obd_child *children; /* cached, indexer, fetchers */
	uint32_t nchildren;
	bool adopted;	       /* the segment is that of a group before */
	bool segment_complete; /* cached was READY once */
	bool was_ready;	       /* every child was READY once */
	bool stopping;
	int status;
	uint64_t started_ns;
	uint64_t ticked_ns;
	struct obd_loop_timer *tick;
	struct obd_loop_timer *stop_kill;
	struct obd_loop_timer *stop_end;

	struct obd_client clients[OBD_MAX_CLIENTS];
	struct obd_fdstore fdstore;
	int listen_fd; /* -1: no socket */
	struct obd_list conns;
	uint32_t nconns;
	struct obd_tgtd *tgtd; /* NULL: not ours to manage */
};

/* ---- group.c ---- */

/* Runs the group until it is stopped. Returns the exit status. */
int obd_group_run(struct obd_supervisor *sv);

struct obd_child *obd_group_cached(struct obd_supervisor *sv);
struct obd_child *obd_group_indexer(struct obd_supervisor *sv);

/* Does the process exist and take messages? */
bool obd_child_is_up(const struct obd_child *child);

/* Starts whatever can be started now. */
void obd_group_advance(struct obd_supervisor *sv);

/* ---- spawn.c ---- */

/* "obd-cached", ... */
const char *obd_child_program(enum obd_role role);

/* Starts the program with one end of a new socket pair as descriptor 3; *sock is the other end. Returns the pid or a negative
 * errno. A program that cannot be executed ends with 127. */
pid_t obd_spawn(const struct obd_child *child, int *sock);

/* Starts tgtd as the configuration says. It dies with us. Returns the pid or a negative errno. */
pid_t obd_spawn_tgtd(const struct obd_supervisor *sv);
/* pidfd_open(2): a descriptor or a negative errno. */
int obd_pidfd(pid_t pid);

/* Text of a wait status: "exit status 1", "killed by signal 9". */
void obd_describe_exit(int status, char *text, size_t size);

/* ---- handout.c ---- */

/* Everything a process may have, as GRANTs. own: fetcher number, client id; UINT32_MAX when it owns nothing. */
void obd_hand_out_all(struct obd_supervisor *sv, struct obd_peer *peer, enum obd_role role, uint32_t own);

/* The same for a starting child, then GRANTS_DONE, what died while it was away, and the clients that are up. */
void obd_hand_out_start(struct obd_child *child);

/* A new client's area and doorbell to a server, and CLIENT_UP. */
void obd_hand_out_client(struct obd_child *server, uint32_t id);

/* CLIENT_DOWN for a client. */
void obd_tell_client_down(struct obd_child *server, uint32_t id);

/* REAPED: the process that was incarnation of child is dead and waited for. */
void obd_tell_reaped(struct obd_child *to, const struct obd_child *dead, uint32_t incarnation);

/* ---- clients.c ---- */

/* Gives out a free id (from 1): makes area and doorbell, tells both servers. Returns the id; 0 when all are taken; or a
 * negative errno. */
int obd_client_attach(struct obd_supervisor *sv, pid_t pid);

/* A frontend says which client it was in a group before (client UINT32_MAX: none). If that is an orphan it is one no more: its
 * process has let go of the segment, and the client is detached. */
void obd_client_came_back(struct obd_supervisor *sv, uint32_t id, uint32_t incarnation, pid_t pid);

/* Watches an orphan's process: its death detaches the client. 0 or a negative errno. */
int obd_client_watch_orphan(struct obd_supervisor *sv, uint32_t id);

/* Forgets every client of a group before, whose servers are dead. */
void obd_client_drop_orphans(struct obd_supervisor *sv);

/* The client has gone; its id is free once no server holds it. */
void obd_client_detach(struct obd_supervisor *sv, uint32_t id);

/* CLIENT_GONE from a server. Returns 0, or -EPROTO when that server holds no such client that is down. */
int obd_client_released(struct obd_supervisor *sv, enum obd_role server, uint32_t id);

/* The server's process is dead: it holds nothing any more. */
void obd_client_server_died(struct obd_supervisor *sv, enum obd_role server);

/* Client 0: a fresh area for the indexer that will be started next. Fails only for lack of memory or descriptors (logged); then
 * the next tick tries again. */
void obd_client_renew_indexer(struct obd_supervisor *sv);

/* ---- listen.c ---- */

/* Makes the socket appear. Returns 0 or a negative errno. */
int obd_listen_open(struct obd_supervisor *sv);

/* Removes the socket and drops every connection. */
void obd_listen_close(struct obd_supervisor *sv);

/* Once a second: drops connections that say nothing or take nothing. */
void obd_listen_tick(struct obd_supervisor *sv, uint64_t now_ns);

/* ---- cachedir.c ---- */

/* Makes cacheDir and takes its lock, if there is a disk cache. -EBUSY with a line: another group has it. A directory that
 * cannot be had otherwise is no error: the group works without a disk cache, and obd_cachedir_complain says so in the log; it
 * also says when there is no fetcherUser, whose the directory is. */
int obd_cachedir_enter(struct obd_supervisor *sv, struct obd_err *err);
void obd_cachedir_complain(const struct obd_supervisor *sv);
void obd_cachedir_leave(struct obd_supervisor *sv);

/* Does another group use cacheDir? Changes nothing on disk. 0, or -EBUSY with a line. */
int obd_cachedir_check(const struct obd_supervisor *sv, struct obd_err *err);

/* ---- tgtd.c: nothing happens in these unless frontend.manage is set ---- */

/* Is there a tgtd to start, and a place for the record? Changes nothing. 0 or a negative errno with a line. */
int obd_tgtd_check(const struct obd_supervisor *sv, struct obd_err *err);

/* Binds the control socket and reads the record. The loop exists. 0 or a negative errno with a line. */
int obd_tgtd_open(struct obd_supervisor *sv, struct obd_err *err);
void obd_tgtd_close(struct obd_supervisor *sv);

/* Starts tgtd if it does not run and the group is ready. */
void obd_tgtd_advance(struct obd_supervisor *sv);

/* After SIGCHLD: waits for it; true: it has ended. */
bool obd_tgtd_reap(struct obd_supervisor *sv);

void obd_tgtd_tick(struct obd_supervisor *sv, uint64_t now_ns);
void obd_tgtd_forgive(struct obd_supervisor *sv, uint64_t now_ns);

/* The group stops: so does tgtd. */
void obd_tgtd_stop(struct obd_supervisor *sv);
bool obd_tgtd_is_left(const struct obd_supervisor *sv);

/* ---- stat.c ---- */

/* Answers a STAT. */
void obd_stat_answer(struct obd_supervisor *sv, struct obd_peer *peer);

/* ---- runtime.c ---- */

/* Finds the directory of the children's programs: dir when given, else beside this program, else the place they are installed
 * to. Returns 0, or a negative errno with a line that names the missing program. */
int obd_find_programs(struct obd_supervisor *sv, const char *dir, struct obd_err *err);

/* Can a group run here? Changes nothing on disk. 0 or a negative errno with a line. */
int obd_runtime_check(const struct obd_supervisor *sv, struct obd_err *err);

/* Raises the limit of open files as far as it may be, and warns when that is too low. */
void obd_runtime_raise_limits(void);

/* Makes runtimeDir, takes its lock, writes the pid file, removes what an earlier group left. */
int obd_runtime_enter(struct obd_supervisor *sv, struct obd_err *err);

/* Removes pid file and socket and gives the lock back. */
void obd_runtime_leave(struct obd_supervisor *sv);

/* runtimeDir/name into path[OBD_PATH_BYTES]. */
void obd_runtime_path(const struct obd_supervisor *sv, const char *name, char *path);

#endif
