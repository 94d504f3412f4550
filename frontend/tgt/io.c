/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Commands: READ and VERIFY over the client library, everything else answered.
 *
 *   hit    bs_cmd_submit copies from the cache and returns: no allocation, no system call.
 *   miss   the command is made asynchronous; its op waits on `running` until the library calls io_done, which ends it.
 *   error  tgtd overrules the status of a command that submit has done at once, and an asynchronous command must not be ended
 *          from within submit (tgtd looks at it once more afterwards). So the op waits on `late` and an eventfd brings it back
 *          from the main loop.
 *
 * How long a command lives. tgtd frees an asynchronous command when target_cmd_io_done is called for it and at no other
 * time:
 *   - ABORT TASK, ABORT TASK SET and LOGICAL UNIT RESET leave a command that was submitted alone, note the request in
 *     cmd->mreq, and the request is answered when its commands have ended;
 *   - a connection that closes leaves its submitted commands alone too, and they keep the session; a command that ends then
 *     is freed from within target_cmd_io_done, unanswered;
 *   - a LUN with active commands is not removed, whatever the administrator asks (he may only take its path away: then
 *     bs_close ends the commands first).
 * So an op's cmd is good until that call, and is never looked at after it. What tgtd does not do is tell a module of an abort;
 * and a read may wait for a registry for minutes while an initiator waits seconds for the answer to its abort before it drops
 * the session. Hence the tick: while reads are under way, a timer looks five times a second for those whose mreq is set, and
 * ends them.
 *
 * target_cmd_io_done may submit commands that waited in tgtd's queue, so every list here may grow during that call.
 */
#include "frontend/tgt/lun.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/util.h"
#include "frontend/tgt/scsi.h"

#define TICK_NS 200000000

/* One command that needed an op, or a free op. */
struct op {
	struct obd_io io;
	struct obd_list link; /* on pool, running or late */
	struct tgt_cmd *cmd;
	struct lun *lun;
	void *media; /* VERIFY: what was read, to be compared; NULL for READ */
	int status;
	uint8_t key;
	uint16_t asc;
};

static struct obd_list pool = {&pool, &pool};
static struct obd_list running = {&running, &running};
static struct obd_list late = {&late, &late};
static int late_fd = -1;
static int tick_fd = -1;
static bool ticking;

static void io_done(struct obd_io *io, int result);

/* ---- ops ---------------------------------------------------------------------------------------------------------------- */

/* Allocates only when more commands are under way than ever before in this process. */
static struct op *take_op(struct tgt_cmd *cmd)
{
	struct op *op;
	if (obd_list_empty(&pool)) {
		op = calloc(1, sizeof *op);
		if (!op)
			return NULL;
		obd_list_init(&op->link);
	} else {
		op = OBD_LIST_ENTRY(pool.next, struct op, link);
		obd_list_remove(&op->link);
	}
	op->cmd = cmd;
	op->lun = lun_of(cmd->dev);
	op->media = NULL;
	op->status = SCSI_GOOD;
	return op;
}

static void give_op(struct op *op)
{
	free(op->media);
	op->media = NULL;
	op->cmd = NULL;
	obd_list_push_front(&pool, &op->link);
}

static void set_error(struct op *op, uint8_t key, uint16_t asc)
{
	op->status = SCSI_CHECK_CONDITION;
	op->key = key;
	op->asc = asc;
}

/* A registry that is down fails every read: one line a second says enough. */
static void log_read_error(const struct op *op, int result)
{
	static uint64_t last_ns;
	static unsigned int unsaid;
	uint64_t now = obd_clock_ns();
	if (result == -ECANCELED)
		return;
	if (last_ns && now - last_ns < OBD_SECOND_NS) {
		unsaid++;
		return;
	}
	log_error("overlaybd: lun %" PRIu64 ": read of %" PRIu64 " bytes at %" PRIu64 ": %s (%u more before)\n",
		  op->lun->lu->lun, op->io.len, op->io.offset, strerror(-result), unsaid);
	last_ns = now;
	unsaid = 0;
}

static void set_errno(struct op *op, int result)
{
	log_read_error(op, result);
	switch (-result) {
	case ECANCELED: /* the LUN was closed under the command */
		set_error(op, SENSE_ABORTED_COMMAND, ASC_NONE);
		break;
	case ENOMEM:
		set_error(op, SENSE_HARDWARE_ERROR, ASC_INTERNAL_TARGET_FAILURE);
		break;
	case ENODEV: /* the device failed, or is open no more */
		set_error(op, SENSE_NOT_READY, op->lun->dev ? ASC_MANUAL_INTERVENTION_REQUIRED : ASC_MEDIUM_NOT_PRESENT);
		break;
	default: /* EIO, ETIMEDOUT, EBADMSG: the block cannot be had, and no wrong block is given instead */
		set_error(op, SENSE_MEDIUM_ERROR, ASC_UNRECOVERED_READ_ERROR);
	}
}

/* What was read is there: compares it if that was the question. */
static void judge(struct op *op)
{
	if (op->media && memcmp(op->media, (void *)(uintptr_t)op->cmd->out_sdb.buffer, op->io.len) != 0)
		set_error(op, SENSE_MISCOMPARE, ASC_MISCOMPARE_DURING_VERIFY);
}

/* Ends an asynchronous command whose op is on no list. Not from within submit. */
static void finish(struct op *op)
{
	struct tgt_cmd *cmd = op->cmd;
	int status = op->status;
	if (status != SCSI_GOOD) {
		cmd->in_sdb.transfer_len = 0;
		cmd->in_sdb.resid = (int32_t)cmd->in_sdb.length;
	}
	if (status == SCSI_CHECK_CONDITION)
		sense_data_build(cmd, op->key, op->asc);
	give_op(op);
	target_cmd_io_done(cmd, status);
}

/* ---- late: answers that may not be given from within submit -------------------------------------------------------------- */

static int finish_late(struct op *op)
{
	uint64_t one = 1;
	op->cmd->state |= TGT_CMD_ASYNC;
	obd_list_push_back(&late, &op->link);
	ssize_t n = write(late_fd, &one, sizeof one); /* cannot block: the counter is reset long before it is full */
	(void)n;
	return 0;
}

static int refuse(struct tgt_cmd *cmd, uint8_t key, uint16_t asc)
{
	struct op *op = take_op(cmd);
	if (!op)
		return -ENOMEM;
	set_error(op, key, asc);
	return finish_late(op);
}

static void late_event(int fd, int events, void *data)
{
	uint64_t count;
	(void)events;
	(void)data;
	ssize_t n = read(fd, &count, sizeof count);
	(void)n;
	while (!obd_list_empty(&late)) {
		struct op *op = OBD_LIST_ENTRY(late.next, struct op, link);
		obd_list_remove(&op->link);
		finish(op);
	}
}

/* ---- the tick: aborted commands ------------------------------------------------------------------------------------------ */

static void arm_tick(void)
{
	struct itimerspec when = {.it_value = {.tv_nsec = TICK_NS}};
	if (ticking || obd_list_empty(&running))
		return;
	ticking = timerfd_settime(tick_fd, 0, &when, NULL) == 0;
}

static void tick_event(int fd, int events, void *data)
{
	struct obd_list aborted;
	uint64_t count;
	(void)events;
	(void)data;
	ssize_t n = read(fd, &count, sizeof count);
	(void)n;
	ticking = false;
	obd_list_init(&aborted);
	OBD_LIST_FOREACH_SAFE (it, &running) {
		struct op *op = OBD_LIST_ENTRY(it, struct op, link);
		if (!op->cmd->mreq)
			continue;
		obd_io_cancel(&op->io);
		op->status = SCSI_TASK_ABORTED;
		obd_list_remove(it);
		obd_list_push_back(&aborted, it);
	}
	while (!obd_list_empty(&aborted)) {
		struct op *op = OBD_LIST_ENTRY(aborted.next, struct op, link);
		obd_list_remove(&op->link);
		finish(op);
	}
	arm_tick();
}

/* ---- reads --------------------------------------------------------------------------------------------------------------- */

static void io_done(struct obd_io *io, int result)
{
	struct op *op = io->arg;
	obd_list_remove(&op->link);
	if (result)
		set_errno(op, result);
	else
		judge(op);
	finish(op);
}

/* Reads len bytes at the command's offset into buf. */
static int start(struct op *op, void *buf, uint32_t len)
{
	int rc = -ENODEV;
	op->io = (struct obd_io){
		.dev = op->lun->dev, .offset = op->cmd->offset, .len = len, .buf = buf, .fn = io_done, .arg = op};
	if (op->lun->dev)
		rc = obd_read(&op->io);
	if (rc > 0) {
		op->cmd->state |= TGT_CMD_ASYNC;
		obd_list_push_back(&running, &op->link);
		arm_tick();
		return 0;
	}
	if (rc < 0)
		set_errno(op, rc);
	else
		judge(op);
	if (op->status != SCSI_GOOD)
		return finish_late(op);
	give_op(op);
	return 0;
}

/* The bytes that the CDB asks for; tgtd's cmd->tl is cut to 32 bits, and not set for VERIFY. */
static uint64_t cdb_bytes(struct tgt_cmd *cmd)
{
	return (uint64_t)scsi_rw_count(cmd->scb) << cmd->dev->blk_shift;
}

/* tgtd has checked the range and has set the residual count from the CDB's length; only the smaller of that and the
 * initiator's buffer is read. */
static int submit_read(struct tgt_cmd *cmd)
{
	uint64_t bytes = cdb_bytes(cmd);
	uint32_t len = (uint32_t)obd_min_u64(bytes, cmd->in_sdb.length);
	if (bytes > UINT32_MAX)
		return refuse(cmd, SENSE_ILLEGAL_REQUEST, ASC_INVALID_FIELD_IN_CDB);
	if (!len)
		return 0;
	struct op *op = take_op(cmd);
	if (!op)
		return -ENOMEM;
	return start(op, (void *)(uintptr_t)cmd->in_sdb.buffer, len);
}

/* tgtd answers VERIFY without BYTCHK by itself. BYTCHK = 11b, one block to be compared with all, is not supported. */
static int submit_verify(struct tgt_cmd *cmd)
{
	uint64_t bytes = cdb_bytes(cmd);
	uint32_t len = (uint32_t)obd_min_u64(bytes, cmd->out_sdb.length);
	if (bytes > UINT32_MAX || (cmd->scb[1] & 0x06) == 0x06)
		return refuse(cmd, SENSE_ILLEGAL_REQUEST, ASC_INVALID_FIELD_IN_CDB);
	if (!len)
		return 0;
	struct op *op = take_op(cmd);
	if (!op)
		return -ENOMEM;
	op->media = malloc(len);
	if (!op->media) {
		give_op(op);
		return -ENOMEM;
	}
	return start(op, op->media, len);
}

int obd_tgt_submit(struct tgt_cmd *cmd)
{
	switch (cmd->scb[0]) {
	case OP_READ_6:
	case OP_READ_10:
	case OP_READ_12:
	case OP_READ_16:
		return submit_read(cmd);
	case OP_VERIFY_10:
	case OP_VERIFY_12:
	case OP_VERIFY_16:
		return submit_verify(cmd);
	case OP_SYNCHRONIZE_CACHE_10: /* nothing is ever dirty */
	case OP_SYNCHRONIZE_CACHE_16:
	case OP_PRE_FETCH_10: /* tgtd refuses it on a read-only LUN; should it ever come, a hint may be ignored */
	case OP_PRE_FETCH_16:
		return 0;
	default: /* writes get here when the administrator has cleared the read-only attribute */
		return refuse(cmd, SENSE_DATA_PROTECT, ASC_WRITE_PROTECTED);
	}
}

/* ---- start and end ------------------------------------------------------------------------------------------------------- */

void obd_tgt_io_drain(struct lun *lun)
{
	struct obd_list mine;
	obd_list_init(&mine);
	OBD_LIST_FOREACH_SAFE (it, &late) {
		if (OBD_LIST_ENTRY(it, struct op, link)->lun != lun)
			continue;
		obd_list_remove(it);
		obd_list_push_back(&mine, it);
	}
	while (!obd_list_empty(&mine)) {
		struct op *op = OBD_LIST_ENTRY(mine.next, struct op, link);
		obd_list_remove(&op->link);
		finish(op);
	}
}

static int watch(int *fd, int made, void (*handler)(int, int, void *))
{
	if (made < 0)
		return -errno;
	if (tgt_event_add(made, EPOLLIN, handler, NULL)) {
		close(made);
		return -EIO;
	}
	*fd = made;
	return 0;
}

int obd_tgt_io_start(void)
{
	int rc = 0;
	if (late_fd < 0)
		rc = watch(&late_fd, eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), late_event);
	if (!rc && tick_fd < 0)
		rc = watch(&tick_fd, timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC), tick_event);
	return rc;
}
