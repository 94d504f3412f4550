/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The life of tgtd; the picture is in tgtd.h.
 *
 * What is next is decided in one place, obd_tgtd_pump: it looks at the state and at what waits, and makes at most one call.
 * Each answer comes back to it. The heartbeat is a call like any other (tgtd answers from the thread that does everything
 * else), so a tgtd that hangs is one whose call stays unanswered for hangSec.
 */
#include "supervisor/tgtd.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"

#define TURN_NS (20 * OBD_MS_NS) /* between two looks while something is awaited */
#define BEAT_NS OBD_SECOND_NS
#define SETTLE_NS (1500 * OBD_MS_NS) /* how long LUNs are waited for before logins are let in */
#define RETRY_FIRST_NS OBD_SECOND_NS /* after a request was refused */
#define RETRY_MAX_NS (60 * OBD_SECOND_NS)
#define DEATHS_MAX 3 /* of tgtds, before a request is not tried again */
#define GUEST_DEATHS_MAX 2

enum tgtd_state { DOWN, STARTING, TELLING, SETTLING, SERVING };

struct obd_tgtd {
	struct obd_supervisor *sv;
	enum tgtd_state state;
	pid_t pid;	/* 0: none */
	char path[108]; /* its own control socket */
	const char *state_dir;
	struct obd_record record;
	bool unsaved; /* the record could not be written */
	struct obd_tgtd_door *door;
	struct obd_tgtd_call call;
	struct obd_record_entry *telling; /* the entry under way, or NULL */
	bool serving_guest;		  /* the door's first request is under way */
	uint32_t guest_deaths;
	bool offline_told;
	bool online_told;
	uint64_t started_ns, settling_ns, beat_ns;
	const char *killed_for;
	uint32_t starts;
	struct obd_backoff backoff;
	struct obd_loop_timer *restart;
	struct obd_loop_timer *turn;
};

struct obd_supervisor *obd_tgtd_supervisor(struct obd_tgtd *t)
{
	return t->sv;
}

/* ---- calls ---- */

static void on_answer(void *arg, int rc, const struct obd_tgtadm_answer *answer, const char *text, size_t len);

static int call(struct obd_tgtd *t, const struct obd_tgtadm_head *head, const char *text)
{
	return obd_tgtd_call(&t->call, t->sv->loop, t->path, head, text, on_answer, t);
}

static int ask(struct obd_tgtd *t, enum obd_tgtadm_mode mode, enum obd_tgtadm_op op, const char *text)
{
	struct obd_tgtadm_head head = {.mode = mode, .op = op, .lld = "iscsi", .tid = -1, .lun = UINT64_MAX};
	head.bytes = (uint32_t)(sizeof head + (*text ? strlen(text) + 1 : 0));
	return call(t, &head, text);
}

static void look_again(struct obd_tgtd *t, uint64_t after_ns)
{
	obd_loop_timer_set(t->turn, obd_clock_ns() + after_ns);
}

/* ---- what tgtd is told ---- */

/* What an administrator set tgtd's state to; else ready. */
static const char *wanted_state(const struct obd_tgtd *t)
{
	const char *text = "State=ready";
	OBD_LIST_FOREACH (it, &t->record.entries) {
		const struct obd_record_entry *e = OBD_LIST_ENTRY(it, struct obd_record_entry, link);
		if (e->head.mode == OBD_TGTADM_SYS && strncmp(e->text, "State=", 6) == 0)
			text = e->text;
	}
	return text;
}

/* Is the LUN that e changes not there yet? */
static bool lacks_its_lun(const struct obd_tgtd *t, const struct obd_record_entry *e)
{
	if (e->head.mode != OBD_TGTADM_LUN || e->head.op == OBD_TGTADM_NEW)
		return false;
	const struct obd_record_entry *lun = obd_record_lun(&t->record, e->head.tid, e->head.lun);
	return lun && !lun->applied;
}

static struct obd_record_entry *next_entry(const struct obd_tgtd *t, uint64_t now)
{
	OBD_LIST_FOREACH (it, &t->record.entries) {
		struct obd_record_entry *e = OBD_LIST_ENTRY(it, struct obd_record_entry, link);
		bool is_state = e->head.mode == OBD_TGTADM_SYS && strncmp(e->text, "State=", 6) == 0;
		if (!e->applied && !is_state && e->deaths < DEATHS_MAX && e->retry_ns <= now && !lacks_its_lun(t, e))
			return e;
	}
	return NULL;
}

/* Tells the next entry. True: a call is under way, or was tried in vain. */
static bool tell_next(struct obd_tgtd *t)
{
	struct obd_record_entry *e = next_entry(t, obd_clock_ns());
	if (!e)
		return false;
	if (call(t, &e->head, e->text) == 0)
		t->telling = e;
	else
		look_again(t, TURN_NS);
	return true;
}

static void describe(const struct obd_record_entry *e, char *text, size_t size)
{
	char path[512] = "";
	obd_record_value(e, "path", path, sizeof path);
	if (e->head.mode == OBD_TGTADM_LUN)
		snprintf(text, size, "LUN %llu of target %d%s%s", (unsigned long long)e->head.lun, e->head.tid,
			 *path ? ", " : "", path);
	else
		snprintf(text, size, "\"%s\" (target %d)", e->head.mode == OBD_TGTADM_ACCOUNT ? "account" : e->text,
			 e->head.tid);
}

static void on_told(struct obd_record_entry *e, uint32_t err)
{
	char what[640];
	e->applied = err == 0;
	if (e->applied && !e->complained)
		return;
	describe(e, what, sizeof what);
	if (e->applied) {
		obd_info("tgtd: %s is there again", what);
		e->complained = false;
		return;
	}
	if (!e->complained)
		obd_warn(
			"tgtd: %s cannot be made again (tgtd's error %u; its own line above says why): tried again while it is "
			"recorded; the others are served",
			what, err);
	e->complained = true;
	e->backoff_ns = e->backoff_ns ? obd_min_u64(2 * e->backoff_ns, RETRY_MAX_NS) : RETRY_FIRST_NS;
	e->retry_ns = obd_clock_ns() + e->backoff_ns;
}

/* Is there a disk of size 0, which is how tgtd shows a LUN that is becoming ready? */
static bool shows_unready(const char *text)
{
	bool is_disk = false;
	for (const char *p = text; p && *p; p = strchr(p, '\n') ? strchr(p, '\n') + 1 : NULL) {
		p += strspn(p, " ");
		if (strncmp(p, "Type: ", 6) == 0)
			is_disk = strncmp(p, "Type: disk", 10) == 0;
		else if (is_disk && strncmp(p, "Size: 0 MB", 10) == 0)
			return true;
	}
	return false;
}

/* ---- guests ---- */

static void save(struct obd_tgtd *t)
{
	struct obd_err err = {{0}};
	bool was_unsaved = t->unsaved;
	t->unsaved = obd_record_save(&t->record, t->state_dir, &err) < 0;
	if (t->unsaved && !was_unsaved)
		obd_error(
			"%s: the record of attached devices is not on disk; they will not all come back if the supervisor dies "
			"(make room, or set frontend.stateDir); tried again each second",
			err.msg);
	else if (!t->unsaved && was_unsaved)
		obd_info("%s/" OBD_RECORD_NAME ": written again", t->state_dir);
}

static void note(struct obd_tgtd *t, const struct obd_tgtadm_head *head, const char *text)
{
	if (!obd_record_is_change(head))
		return;
	int rc = obd_record_note(&t->record, head, text);
	if (rc < 0)
		obd_error("tgtd: a request cannot be recorded: %s", strerror(-rc));
	save(t);
}

/* The deletion of a LUN that is only in the record, since it could not be made again. */
static bool deletes_what_is_missing(const struct obd_tgtd *t, const struct obd_tgtadm_head *head)
{
	if (head->mode != OBD_TGTADM_LUN || head->op != OBD_TGTADM_DELETE)
		return false;
	const struct obd_record_entry *lun = obd_record_lun(&t->record, head->tid, head->lun);
	return lun && !lun->applied;
}

static void on_guest_answer(struct obd_tgtd *t, const struct obd_tgtadm_answer *answer, const char *text, size_t len)
{
	const char *request;
	const struct obd_tgtadm_head *head = obd_tgtd_door_next(t->door, &request);
	struct obd_tgtadm_answer a = *answer;
	if (!head)
		return;
	if (a.err && deletes_what_is_missing(t, head))
		a.err = 0;
	if (a.err == 0)
		note(t, head, request);
	t->guest_deaths = 0;
	obd_tgtd_door_answer(t->door, &a, text, len);
}

static bool serve_guest(struct obd_tgtd *t)
{
	const char *text;
	const struct obd_tgtadm_head *head = obd_tgtd_door_next(t->door, &text);
	if (!head)
		return false;
	if (call(t, head, text) == 0)
		t->serving_guest = true;
	else
		look_again(t, TURN_NS);
	return true;
}

/* ---- what is next ---- */

static uint32_t missing_luns(const struct obd_tgtd *t)
{
	uint32_t n = 0;
	OBD_LIST_FOREACH (it, &t->record.entries) {
		const struct obd_record_entry *e = OBD_LIST_ENTRY(it, struct obd_record_entry, link);
		n += e->head.mode == OBD_TGTADM_LUN && e->head.op == OBD_TGTADM_NEW && !e->applied;
	}
	return n;
}

static void serve(struct obd_tgtd *t)
{
	uint64_t now = obd_clock_ns();
	uint32_t missing = missing_luns(t);
	t->state = SERVING;
	t->beat_ns = now;
	if (missing)
		obd_warn("tgtd[%d] serves, %llu ms after its start; %u LUNs of the record are missing", (int)t->pid,
			 (unsigned long long)((now - t->started_ns) / OBD_MS_NS), missing);
	else
		obd_info("tgtd[%d] serves, %llu ms after its start", (int)t->pid,
			 (unsigned long long)((now - t->started_ns) / OBD_MS_NS));
}

static void on_answer(void *arg, int rc, const struct obd_tgtadm_answer *answer, const char *text, size_t len)
{
	struct obd_tgtd *t = arg;
	struct obd_record_entry *e = t->telling;
	t->telling = NULL;
	t->beat_ns = obd_clock_ns();
	if (rc < 0) { /* it died, or is about to be found dead; what was asked is asked for again */
		if (e)
			e->deaths++;
		t->guest_deaths += t->serving_guest;
		t->serving_guest = false;
		look_again(t, TURN_NS);
		return;
	}
	if (t->serving_guest) {
		t->serving_guest = false;
		on_guest_answer(t, answer, text, len);
	} else if (e) {
		e->deaths = 0;
		on_told(e, answer->err);
	} else if (t->state == STARTING) {
		t->state = TELLING;
	} else if (t->state == TELLING) {
		t->offline_told = true;
	} else if (t->state == SETTLING && t->online_told) {
		serve(t);
	} else if (t->state == SETTLING && (!shows_unready(text) || t->beat_ns - t->settling_ns > SETTLE_NS)) {
		t->online_told = true;
	} else if (t->state == SETTLING) {
		look_again(t, TURN_NS);
		return;
	}
	obd_tgtd_pump(t);
}

static void pump_serving(struct obd_tgtd *t)
{
	if (t->guest_deaths >= GUEST_DEATHS_MAX) {
		obd_error("tgtd: a request that %u tgtds died of is refused", t->guest_deaths);
		t->guest_deaths = 0;
		obd_tgtd_door_refuse(t->door);
	}
	uint64_t now = obd_clock_ns();
	if (serve_guest(t) || tell_next(t))
		return;
	if (now - t->beat_ns >= BEAT_NS && ask(t, OBD_TGTADM_SYS, OBD_TGTADM_SHOW, "") < 0)
		look_again(t, TURN_NS);
}

void obd_tgtd_pump(struct obd_tgtd *t)
{
	int rc = 0;
	if (t->pid <= 0 || obd_tgtd_call_is_busy(&t->call))
		return;
	switch (t->state) {
	case DOWN:
		break;
	case STARTING:
		rc = ask(t, OBD_TGTADM_SYS, OBD_TGTADM_SHOW, "");
		break;
	case TELLING:
		if (!t->offline_told) {
			rc = ask(t, OBD_TGTADM_SYS, OBD_TGTADM_UPDATE, "State=offline");
		} else if (!tell_next(t)) {
			t->state = SETTLING;
			t->settling_ns = obd_clock_ns();
			rc = ask(t, OBD_TGTADM_TARGET, OBD_TGTADM_SHOW, "");
		}
		break;
	case SETTLING:
		if (t->online_told)
			rc = ask(t, OBD_TGTADM_SYS, OBD_TGTADM_UPDATE, wanted_state(t));
		else
			rc = ask(t, OBD_TGTADM_TARGET, OBD_TGTADM_SHOW, "");
		break;
	case SERVING:
		pump_serving(t);
		break;
	}
	if (rc < 0)
		look_again(t, TURN_NS);
}

static void on_turn(void *arg)
{
	obd_tgtd_pump(arg);
}

/* ---- life ---- */

static void start(struct obd_tgtd *t)
{
	struct obd_supervisor *sv = t->sv;
	uint64_t now = obd_clock_ns();
	unlink(t->path);
	pid_t pid = obd_spawn_tgtd(sv);
	if (pid < 0) {
		obd_error("tgtd cannot be started: %s", strerror((int)-pid));
		obd_loop_timer_set(t->restart, now + OBD_SECOND_NS);
		return;
	}
	t->pid = pid;
	t->state = STARTING;
	t->started_ns = t->beat_ns = now;
	t->killed_for = NULL;
	t->offline_told = t->online_told = false;
	OBD_LIST_FOREACH (it, &t->record.entries) {
		struct obd_record_entry *e = OBD_LIST_ENTRY(it, struct obd_record_entry, link);
		e->applied = false;
		e->retry_ns = e->backoff_ns = 0;
		if (e->deaths == DEATHS_MAX) {
			char what[640];
			describe(e, what, sizeof what);
			obd_error("tgtd: %s is left out: %u tgtds died of it", what, e->deaths++);
		}
	}
	obd_info("tgtd[%d] started (%u)", (int)pid, t->starts++);
	obd_tgtd_pump(t);
}

static void on_restart(void *arg)
{
	struct obd_tgtd *t = arg;
	obd_tgtd_advance(t->sv);
}

void obd_tgtd_advance(struct obd_supervisor *sv)
{
	struct obd_tgtd *t = sv->tgtd;
	if (t && t->pid == 0 && !sv->stopping && sv->listen_fd >= 0)
		start(t);
}

static void kill_tgtd(struct obd_tgtd *t, const char *why)
{
	if (t->pid > 0 && !t->killed_for) {
		t->killed_for = why;
		kill(t->pid, SIGKILL);
	}
}

bool obd_tgtd_reap(struct obd_supervisor *sv)
{
	struct obd_tgtd *t = sv->tgtd;
	char why[64];
	int status;
	if (!t || t->pid <= 0 || waitpid(t->pid, &status, WNOHANG) != t->pid)
		return false;
	if (t->killed_for)
		snprintf(why, sizeof why, "killed: %s", t->killed_for);
	else
		obd_describe_exit(status, why, sizeof why);
	obd_log(sv->stopping ? OBD_LOG_INFO : OBD_LOG_WARN, "tgtd[%d] ended: %s", (int)t->pid, why);
	if (t->telling)
		t->telling->deaths++;
	t->guest_deaths += t->serving_guest;
	t->telling = NULL;
	t->serving_guest = false;
	obd_tgtd_call_drop(&t->call);
	obd_loop_timer_set(t->turn, 0);
	t->pid = 0;
	bool was_up = t->state == SERVING;
	t->state = DOWN;
	uint64_t now = obd_clock_ns();
	uint64_t wait_ns = obd_backoff_death(&t->backoff, now - t->started_ns, was_up);
	if (!sv->stopping)
		obd_loop_timer_set(t->restart, now + obd_max_u64(wait_ns, 1));
	return true;
}

void obd_tgtd_tick(struct obd_supervisor *sv, uint64_t now)
{
	struct obd_tgtd *t = sv->tgtd;
	if (!t)
		return;
	obd_tgtd_door_tick(t->door, now);
	if (t->unsaved && now / OBD_SECOND_NS != sv->ticked_ns / OBD_SECOND_NS)
		save(t);
	uint64_t hang_ns = sv->config->hang_sec * OBD_SECOND_NS;
	if (t->pid > 0 && obd_tgtd_call_is_busy(&t->call) && now > t->call.since_ns && now - t->call.since_ns > hang_ns) {
		obd_error("tgtd[%d] is silent for %u s: killed", (int)t->pid, sv->config->hang_sec);
		kill_tgtd(t, "silent");
	} else if (t->state == STARTING && now - t->started_ns > OBD_START_TIMEOUT_SEC * OBD_SECOND_NS) {
		obd_error("tgtd[%d] does not answer for %u s: killed", (int)t->pid, OBD_START_TIMEOUT_SEC);
		kill_tgtd(t, "not ready in time");
	}
	obd_tgtd_pump(t);
}

/* When we were stopped ourselves, nobody has been silent. */
void obd_tgtd_forgive(struct obd_supervisor *sv, uint64_t now)
{
	if (sv->tgtd && obd_tgtd_call_is_busy(&sv->tgtd->call))
		sv->tgtd->call.since_ns = now;
}

/* It takes SIGTERM only when it has no targets; what it answered is safe, and what it did not, initiators ask for again. */
void obd_tgtd_stop(struct obd_supervisor *sv)
{
	if (sv->tgtd)
		kill_tgtd(sv->tgtd, "the group stops");
}

bool obd_tgtd_is_left(const struct obd_supervisor *sv)
{
	return sv->tgtd && sv->tgtd->pid > 0;
}

/* ---- beginning and end ---- */

static const char *state_dir(const struct obd_supervisor *sv)
{
	return *sv->config->frontend_state_dir ? sv->config->frontend_state_dir : sv->config->runtime_dir;
}

int obd_tgtd_check(const struct obd_supervisor *sv, struct obd_err *err)
{
	const char *program = sv->config->frontend_tgtd, *dir = state_dir(sv);
	struct stat st;
	if (!sv->config->frontend_manage)
		return 0;
	if (access(program, X_OK) < 0)
		return obd_err_set(err, errno, "frontend.tgtd %s: %s", program, strerror(errno));
	if (dir != sv->config->runtime_dir && (stat(dir, &st) < 0 || access(dir, W_OK | X_OK) < 0))
		return obd_err_set(err, errno, "frontend.stateDir %s: %s", dir, strerror(errno));
	return 0;
}

static void load_record(struct obd_tgtd *t)
{
	struct obd_err err = {{0}};
	char path[8192], aside[8192 + 8];
	int rc = obd_record_load(&t->record, t->state_dir, &err);
	if (rc < 0) {
		snprintf(path, sizeof path, "%s/" OBD_RECORD_NAME, t->state_dir);
		snprintf(aside, sizeof aside, "%s.bad", path);
		obd_error("%s: devices must be attached anew; the file is kept as %s", err.msg, aside);
		if (rename(path, aside) < 0)
			obd_warn("%s: %s", path, strerror(errno));
	} else if (t->record.count) {
		obd_info("tgtd: %u requests are recorded", t->record.count);
	}
}

int obd_tgtd_open(struct obd_supervisor *sv, struct obd_err *err)
{
	if (!sv->config->frontend_manage)
		return 0;
	struct obd_tgtd *t = calloc(1, sizeof *t);
	if (!t)
		return obd_err_set(err, ENOMEM, "out of memory");
	t->sv = sv;
	t->call.fd = -1;
	t->state_dir = state_dir(sv);
	obd_record_init(&t->record);
	int n = snprintf(t->path, sizeof t->path, "%s/tgtd.%u", sv->config->runtime_dir, sv->config->frontend_control_port);
	(void)n; /* runtimeDir is at most 80 bytes long */
	t->restart = obd_loop_timer_new(sv->loop, on_restart, t);
	t->turn = obd_loop_timer_new(sv->loop, on_turn, t);
	sv->tgtd = t;
	int rc = t->restart && t->turn ? 0 : obd_err_set(err, ENOMEM, "out of memory");
	if (rc == 0)
		rc = obd_tgtd_door_open(t, &t->door, err);
	if (rc < 0) {
		obd_tgtd_close(sv);
		return rc;
	}
	load_record(t);
	return 0;
}

void obd_tgtd_close(struct obd_supervisor *sv)
{
	struct obd_tgtd *t = sv->tgtd;
	if (!t)
		return;
	obd_tgtd_call_drop(&t->call);
	obd_tgtd_door_close(t->door);
	unlink(t->path);
	obd_record_clear(&t->record);
	obd_loop_timer_free(t->restart);
	obd_loop_timer_free(t->turn);
	free(t);
	sv->tgtd = NULL;
}
