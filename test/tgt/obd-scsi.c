/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * obd-scsi: one SCSI command to an iSCSI LUN, and what came of it, in one line.
 *
 *   obd-scsi [options] iscsi://HOST:PORT/IQN/LUN CDB-IN-HEX
 *     -i N      up to N bytes in       -o FILE  the file's bytes out
 *     -a MS     abort the task after MS   -r MS  reset the logical unit after MS
 *     -x MS     close the connection after MS without a word, and say "closed"
 *     -t MS     give up after MS (10000)  -u     do not clear unit attentions first
 *
 * Prints "good", "check KK/AA/QQ" or "status NN", then "resid N" when not 0, then the first 32 bytes that came in. With -a
 * and -r the line of the task management function comes too: "abort RESPONSE in MS ms". Exit 0 unless nothing could be sent
 * or nothing came.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>

#include "common/base/clock.h"

enum { MAX_OUT = 1 << 20, SHOWN = 32, RETRIES = 16 };

struct options {
	const char *out;
	int in, abort_ms, reset_ms, close_ms, limit_ms;
	bool keep_ua;
};

static bool answered;
static bool managed;
static char abort_name[] = "abort", reset_name[] = "reset";
static uint64_t managed_ns;

__attribute__((noreturn)) static void die(const char *what, struct iscsi_context *is)
{
	fprintf(stderr, "obd-scsi: %s: %s\n", what, is ? iscsi_get_error(is) : strerror(errno));
	_exit(1);
}

static void show(int status, struct scsi_task *task)
{
	if (status == SCSI_STATUS_GOOD)
		printf("good");
	else if (status == SCSI_STATUS_CHECK_CONDITION)
		printf("check %02x/%02x/%02x", (unsigned int)task->sense.key, (unsigned int)task->sense.ascq >> 8 & 0xff,
		       (unsigned int)task->sense.ascq & 0xff);
	else
		printf("status %02x", (unsigned int)status);
	if (task->residual_status != SCSI_RESIDUAL_NO_RESIDUAL)
		printf(" resid %s%zu", task->residual_status == SCSI_RESIDUAL_OVERFLOW ? "-" : "", task->residual);
	for (int i = 0; status == SCSI_STATUS_GOOD && i < task->datain.size && i < SHOWN; i++)
		printf("%s%02x", i ? "" : " ", task->datain.data[i]);
	printf("\n");
	fflush(stdout);
}

static void command_done(struct iscsi_context *is, int status, void *data, void *arg)
{
	(void)is;
	(void)arg;
	if (!answered) /* else: libiscsi gives commands back when the context goes */
		show(status, data);
	answered = true;
}

static void managed_done(struct iscsi_context *is, int status, void *data, void *arg)
{
	(void)is;
	(void)status;
	printf("%s %u in %" PRIu64 " ms\n", (const char *)arg, data ? *(uint32_t *)data : 999,
	       (obd_clock_ns() - managed_ns) / OBD_MS_NS);
	fflush(stdout);
	managed = true;
}

static int parse_cdb(const char *hex, unsigned char cdb[16])
{
	int n = 0;
	for (; n < 16 && sscanf(hex, "%2hhx", &cdb[n]) == 1; n++)
		hex += 2;
	return n;
}

static struct scsi_task *make_task(const char *hex, const struct options *o)
{
	static unsigned char out[MAX_OUT];
	unsigned char cdb[16];
	size_t n = 0;
	int len = parse_cdb(hex, cdb);
	if (!o->out)
		return scsi_create_task(len, cdb, o->in ? SCSI_XFER_READ : SCSI_XFER_NONE, o->in);
	FILE *f = fopen(o->out, "re");
	if (!f)
		die(o->out, NULL);
	n = fread(out, 1, sizeof out, f);
	fclose(f);
	struct scsi_task *task = scsi_create_task(len, cdb, SCSI_XFER_WRITE, (int)n);
	scsi_task_add_data_out_buffer(task, (int)n, out);
	return task;
}

static void log_in(struct iscsi_context *is, const struct iscsi_url *u)
{
	iscsi_set_targetname(is, u->target);
	iscsi_set_session_type(is, ISCSI_SESSION_NORMAL);
	iscsi_set_noautoreconnect(is, 1);
	if (iscsi_connect_sync(is, u->portal) || iscsi_login_sync(is))
		die("login", is);
}

static void clear_unit_attentions(struct iscsi_context *is, int lun)
{
	for (int i = 0; i < RETRIES; i++) {
		struct scsi_task *task = iscsi_testunitready_sync(is, lun);
		bool again =
			task && task->status == SCSI_STATUS_CHECK_CONDITION && task->sense.key == SCSI_SENSE_UNIT_ATTENTION;
		if (!task)
			die("test unit ready", is);
		scsi_free_scsi_task(task);
		if (!again)
			return;
	}
}

static void service(struct iscsi_context *is, uint64_t until_ns)
{
	uint64_t now = obd_clock_ns();
	struct pollfd p = {.fd = iscsi_get_fd(is), .events = (short)iscsi_which_events(is)};
	int ms = now < until_ns ? (int)((until_ns - now) / OBD_MS_NS) + 1 : 0;
	if (poll(&p, 1, ms) < 0)
		die("poll", NULL);
	if (iscsi_service(is, p.revents))
		die("connection", is);
}

/* Serves the connection for ms, or until the command is answered. */
static void wait_answer(struct iscsi_context *is, int ms)
{
	uint64_t end = obd_clock_ns() + (uint64_t)ms * OBD_MS_NS;
	while (!answered && obd_clock_ns() < end)
		service(is, end);
}

static void manage(struct iscsi_context *is, int lun, struct scsi_task *task, const struct options *o)
{
	wait_answer(is, o->abort_ms ? o->abort_ms : o->reset_ms);
	managed_ns = obd_clock_ns();
	/* not iscsi_task_mgmt_abort_task: that would also forget the command, whose answer is of interest here */
	int rc = o->abort_ms
			 ? iscsi_task_mgmt_async(is, lun, ISCSI_TM_ABORT_TASK, task->itt, task->cmdsn, managed_done, abort_name)
			 : iscsi_task_mgmt_async(is, lun, ISCSI_TM_LUN_RESET, 0xffffffff, 0, managed_done, reset_name);
	if (rc)
		die("task management", is);
	uint64_t end = obd_clock_ns() + (uint64_t)o->limit_ms * OBD_MS_NS;
	while (!managed && obd_clock_ns() < end)
		service(is, end);
}

static struct options parse_options(int argc, char **argv)
{
	struct options o = {.limit_ms = 10000};
	for (int c; (c = getopt(argc, argv, "i:o:a:r:x:t:u")) != -1;) {
		switch (c) {
		case 'i':
			o.in = atoi(optarg);
			break;
		case 'o':
			o.out = optarg;
			break;
		case 'a':
			o.abort_ms = atoi(optarg);
			break;
		case 'r':
			o.reset_ms = atoi(optarg);
			break;
		case 'x':
			o.close_ms = atoi(optarg);
			break;
		case 't':
			o.limit_ms = atoi(optarg);
			break;
		case 'u':
			o.keep_ua = true;
			break;
		default:
			exit(1);
		}
	}
	return o;
}

int main(int argc, char **argv)
{
	struct options o = parse_options(argc, argv);
	if (argc - optind != 2) {
		fprintf(stderr, "usage: obd-scsi [-i N] [-o FILE] [-a MS] [-r MS] [-x MS] [-t MS] [-u] URL CDB\n");
		return 1;
	}
	struct iscsi_context *is = iscsi_create_context("iqn.2025-01.test:obd-scsi");
	struct iscsi_url *url = is ? iscsi_parse_full_url(is, argv[optind]) : NULL;
	if (!url)
		die("URL", is);
	log_in(is, url);
	if (!o.keep_ua)
		clear_unit_attentions(is, url->lun);
	struct scsi_task *task = make_task(argv[optind + 1], &o);
	if (iscsi_scsi_command_async(is, url->lun, task, command_done, NULL, NULL))
		die("command", is);
	if (o.close_ms) {
		wait_answer(is, o.close_ms);
		puts("closed");
		fflush(stdout);
		_exit(0);
	}
	if (o.abort_ms || o.reset_ms)
		manage(is, url->lun, task, &o);
	wait_answer(is, o.limit_ms);
	if (!answered && !managed) {
		puts("no answer");
		fflush(stdout);
		_exit(1);
	}
	iscsi_logout_sync(is);
	scsi_free_scsi_task(task);
	iscsi_destroy_url(url);
	iscsi_destroy_context(is);
	return 0;
}
