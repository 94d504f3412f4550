/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "supervisor/timeouts.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SCSI_COMMAND_SEC 30 /* Linux: what an initiator gives a command before it aborts it */
#define TGTD_RESTART_SEC 5  /* from the death of a tgtd until its devices serve again */
#define TGTD_PAUSE_SEC 1    /* how long opening a LUN may hold up tgtd, and with it its answers to pings */

/* What iscsid.conf says; -1: nothing. */
struct initiator {
	long replacement;
	long noop_interval, noop_timeout;
};

struct speaker {
	obd_timeouts_fn *say;
	void *arg;
};

static void __attribute__((format(printf, 2, 3))) tell(const struct speaker *s, const char *format, ...)
{
	char line[512];
	va_list args;
	va_start(args, format);
	vsnprintf(line, sizeof line, format, args);
	va_end(args);
	s->say(s->arg, line);
}

static void take_line(struct initiator *in, const char *line)
{
	static const char *const names[] = {"node.session.timeo.replacement_timeout", "node.conn[0].timeo.noop_out_interval",
					    "node.conn[0].timeo.noop_out_timeout"};
	long *const values[] = {&in->replacement, &in->noop_interval, &in->noop_timeout};
	line += strspn(line, " \t");
	for (int i = 0; i < 3; i++) {
		size_t len = strlen(names[i]);
		const char *p = line + len;
		if (strncmp(line, names[i], len) != 0 || p[strspn(p, " \t")] != '=')
			continue;
		*values[i] = strtol(p + strspn(p, " \t") + 1, NULL, 10);
	}
}

static struct initiator read_iscsid_conf(const char *path)
{
	struct initiator in = {-1, -1, -1};
	char line[1024];
	FILE *f = fopen(path, "re");
	while (f && fgets(line, sizeof line, f))
		take_line(&in, line);
	if (f)
		fclose(f);
	return in;
}

static void check_ours(const struct obd_config *c, const struct speaker *s)
{
	if (c->hang_sec >= SCSI_COMMAND_SEC)
		tell(s,
		     "hangSec %u: initiators abort commands after %u s, before a process that hangs is noticed; use less than "
		     "that",
		     c->hang_sec, SCSI_COMMAND_SEC);
	if (c->read_timeout_sec && c->credential_mode != OBD_CREDENTIAL_FILE && c->credential_timeout >= c->read_timeout_sec)
		tell(s,
		     "credentialConfig.timeout %u is not less than readTimeoutSec %u: a read fails while credentials are "
		     "awaited",
		     c->credential_timeout, c->read_timeout_sec);
}

static void check_initiator(const struct obd_config *c, const char *path, const struct initiator *in, const struct speaker *s)
{
	long outage = (long)c->hang_sec + TGTD_RESTART_SEC;
	if (in->replacement >= 0 && in->replacement < outage)
		tell(s,
		     "%s: replacement_timeout %ld: a tgtd that hangs is replaced after up to %ld s (hangSec %u and the "
		     "restart), and "
		     "devices fail before that; use 120",
		     path, in->replacement, outage, c->hang_sec);
	if (in->noop_interval > 0 && in->noop_timeout >= 0 && in->noop_timeout <= TGTD_PAUSE_SEC)
		tell(s,
		     "%s: noop_out_timeout %ld: opening a device may keep tgtd from answering for %u s, and connections are "
		     "dropped "
		     "for it; use 5",
		     path, in->noop_timeout, TGTD_PAUSE_SEC);
}

void obd_timeouts_check(const struct obd_config *c, const char *iscsid_conf, obd_timeouts_fn *say, void *arg)
{
	struct speaker s = {say, arg};
	struct initiator in = read_iscsid_conf(iscsid_conf);
	check_ours(c, &s);
	check_initiator(c, iscsid_conf, &in, &s);
}
