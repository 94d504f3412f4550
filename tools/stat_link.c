/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The conversation with the supervisor: STAT, then grants and rows until STAT_DONE. */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "tools/stat.h"

#define DEFAULT_RUNTIME_DIR "/run/overlaybd"
#define PATIENCE_SEC 2

static int socket_address(struct sockaddr_un *sa, const char *dir, struct obd_err *err)
{
	if (!dir || !*dir)
		dir = getenv("OVERLAYBD_RUNTIME_DIR");
	if (!dir || !*dir)
		dir = DEFAULT_RUNTIME_DIR;
	memset(sa, 0, sizeof *sa);
	sa->sun_family = AF_UNIX;
	int n = snprintf(sa->sun_path, sizeof sa->sun_path, "%s/supervisor.sock", dir);
	if (n < 0 || (size_t)n >= sizeof sa->sun_path)
		return obd_err_set(err, ENAMETOOLONG, "%s: too long for a socket's directory", dir);
	return 0;
}

static int ask(const struct sockaddr_un *sa, int *sock, struct obd_err *err)
{
	struct timeval patience = {.tv_sec = PATIENCE_SEC};
	struct obd_msg msg;
	*sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (*sock < 0)
		return obd_err_set(err, errno, "socket: %s", strerror(errno));
	setsockopt(*sock, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	setsockopt(*sock, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
	if (connect(*sock, (const struct sockaddr *)sa, sizeof *sa) != 0)
		return obd_err_set(err, ENOTCONN, "no overlaybd group answers at %s: %s", sa->sun_path, strerror(errno));
	obd_msg_init(&msg, OBD_MSG_STAT);
	msg.role = OBD_ROLE_STAT;
	msg.arg = OBD_WIRE_VERSION;
	int rc = obd_msg_send(*sock, &msg, -1);
	return rc ? obd_err_set(err, -rc, "%s: %s", sa->sun_path, strerror(-rc)) : 0;
}

static uint64_t number(const json_t *obj, const char *key)
{
	json_int_t v = json_integer_value(json_object_get(obj, key));
	return v > 0 ? (uint64_t)v : 0;
}

static void text_value(const json_t *obj, const char *key, char *out, size_t size)
{
	const char *s = json_string_value(json_object_get(obj, key));
	snprintf(out, size, "%s", s ? s : "");
}

int obd_stat_parse_proc(const char *text, struct obd_stat_proc *p)
{
	json_t *obj = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
	int rc = json_is_object(obj) ? 0 : -EPROTO;
	p->pid = (int64_t)number(obj, "pid");
	p->restarts = number(obj, "restarts");
	p->uptime_sec = number(obj, "uptime_sec");
	p->heartbeat_age_ms = number(obj, "heartbeat_age_ms");
	text_value(obj, "state", p->state, sizeof p->state);
	text_value(obj, "last_exit", p->last_exit, sizeof p->last_exit);
	json_decref(obj);
	return rc;
}

static void take_proc(struct obd_stat_link *link, const struct obd_msg *msg)
{
	if (link->nprocs == OBD_STAT_PROCS)
		return;
	struct obd_stat_proc *p = &link->procs[link->nprocs++];
	p->role = (enum obd_role)msg->role;
	p->index = msg->index;
	obd_stat_parse_proc(msg->text, p); /* a row that cannot be read is still a process */
}

/* The blocks themselves are nobody's business here. */
static bool wanted(const char *name)
{
	return strcmp(name, "frames") != 0 && strcmp(name, "recency") != 0 && strcmp(name, "upread") != 0;
}

static void take_grant(struct obd_stat_link *link, const struct obd_msg *msg, int fd)
{
	struct obd_err ignored; /* what cannot be mapped is absent, as if it had not been granted */
	if (wanted(msg->name))
		obd_segment_take(&link->seg, msg->name, msg->index, false, fd, &ignored);
	else
		close(fd);
}

static int receive(struct obd_stat_link *link, int sock, const char *path, struct obd_err *err)
{
	for (;;) {
		struct obd_msg msg;
		int fd;
		int rc = obd_msg_recv(sock, &msg, &fd);
		if (rc == 0)
			return obd_err_set(err, ENOTCONN, "the overlaybd group at %s ended while it was asked", path);
		if (rc < 0)
			return obd_err_set(err, ENOTCONN, "the overlaybd group at %s does not answer: %s", path,
					   rc == -EAGAIN ? "timed out" : strerror(-rc));
		if (msg.type == OBD_MSG_STAT_DONE)
			return 0;
		if (msg.type == OBD_MSG_REFUSED)
			return obd_err_set(err, ECONNREFUSED, "the overlaybd group at %s refuses: %s", path, msg.text);
		if (msg.type == OBD_MSG_PROC)
			take_proc(link, &msg);
		if (msg.type == OBD_MSG_GRANT)
			take_grant(link, &msg, fd);
		else if (fd >= 0)
			close(fd);
	}
}

int obd_stat_connect(struct obd_stat_link *link, const char *runtime_dir, struct obd_err *err)
{
	struct sockaddr_un sa;
	struct obd_err ignored;
	int sock = -1;
	memset(link, 0, sizeof *link);
	obd_segment_init(&link->seg);
	int rc = socket_address(&sa, runtime_dir, err);
	if (rc == 0)
		rc = ask(&sa, &sock, err);
	if (rc == 0)
		rc = receive(link, sock, sa.sun_path, err);
	if (rc == 0)
		obd_segment_map(&link->seg, &ignored); /* without a geometry there are rows only */
	if (sock >= 0)
		close(sock);
	return rc;
}

void obd_stat_close(struct obd_stat_link *link)
{
	obd_segment_close(&link->seg);
	link->nprocs = 0;
}
