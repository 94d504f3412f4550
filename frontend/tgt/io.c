/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Commands, from submit to their end: the engine, and READ and VERIFY. What writes is in write.c.
 *
 *   hit    bs_cmd_submit copies from the cache and returns: no allocation, no system call.
 *   miss   the command is made asynchronous; its op waits on `running` until the library calls io_done, which ends it or begins
 *          its next step.
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
 * and a command may wait for a registry for minutes while an initiator waits seconds for the answer to its abort before it
 * drops the session. Hence the tick: while commands are under way, a timer looks five times a second for those whose mreq is
 * set, and ends them. The library copies what is written when it asks for it, and reads the buffer of a cancelled io no more; a
 * part that it has asked for may still reach the medium, but never after a later write of the same bytes.
 *
 * target_cmd_io_done may submit commands that waited in tgtd's queue, so every list here may grow during that call.
 */
#include "frontend/tgt/op.h"

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

static struct obd_list pool = {&pool, &pool};
static struct obd_list running = {&running, &running};
static struct obd_list held = {&held, &held};
static struct obd_list late = {&late, &late};
static bool in_submit; /* commands must not be ended */
static bool releasing; /* within release_held */
static int late_fd = -1;
static int tick_fd = -1;
static bool ticking;

/* ---- ops ---------------------------------------------------------------------------------------------------------------- */

/* Allocates only when more commands are under way than ever before in this process. */
struct op *obd_op_new(struct tgt_cmd *cmd)
{
	struct op *op;
	if (obd_list_empty(&pool)) {
		op = malloc(sizeof *op);
		if (!op)
			return NULL;
	} else {
		op = OBD_LIST_ENTRY(pool.next, struct op, link);
		obd_list_remove(&op->link);
	}
	*op = (struct op){.cmd = cmd, .lun = lun_of(cmd->dev), .status = SCSI_GOOD};
	obd_list_init(&op->link);
	return op;
}

bool obd_op_own(struct op *op, uint64_t bytes)
{
	op->own = malloc(bytes);
	op->own_bytes = bytes;
	return op->own;
}

static void give_op(struct op *op)
{
	free(op->own);
	op->own = NULL;
	op->cmd = NULL;
	obd_list_push_front(&pool, &op->link);
}

static void set_error(struct op *op, uint8_t key, uint16_t asc)
{
	op->status = SCSI_CHECK_CONDITION;
	op->key = key;
	op->asc = asc;
}

/* A registry that is down fails every read, a full disk every write: one line a second says enough. */
static void log_io_error(const struct op *op, int result)
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
	log_error("overlaybd: lun %" PRIu64 ": %s of %" PRIu64 " bytes at %" PRIu64 ": %s (%u more before)\n", op->lun->lu->lun,
		  op->writing ? "write" : "read", op->io.len, op->io.offset, strerror(-result), unsaid);
	last_ns = now;
	unsaid = 0;
}

static void set_errno(struct op *op, int result)
{
	log_io_error(op, result);
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
	case ENOSPC: /* the upper layer cannot grow */
		set_error(op, SENSE_DATA_PROTECT, ASC_SPACE_ALLOCATION_FAILED);
		break;
	case EROFS:
		set_error(op, SENSE_DATA_PROTECT, ASC_WRITE_PROTECTED);
		break;
	default: /* EIO, ETIMEDOUT, EBADMSG: the block cannot be had, and no wrong block is given instead */
		set_error(op, SENSE_MEDIUM_ERROR, op->writing ? ASC_WRITE_ERROR : ASC_UNRECOVERED_READ_ERROR);
	}
}

/* tgtd leaves UNMAP with sense data and residuals of a failure, whatever submit said. */
static void set_good(struct tgt_cmd *cmd)
{
	if (!cmd->sense_len)
		return;
	memset(cmd->sense_buffer, 0, sizeof cmd->sense_buffer);
	cmd->sense_len = 0;
	cmd->out_sdb.transfer_len = cmd->out_sdb.length;
	cmd->out_sdb.resid = 0;
}

static void set_bad(const struct op *op)
{
	struct tgt_cmd *cmd = op->cmd;
	cmd->in_sdb.transfer_len = 0;
	cmd->in_sdb.resid = (int32_t)cmd->in_sdb.length;
	if (op->status == SCSI_CHECK_CONDITION && op->has_info)
		sense_data_build_with_info(cmd, op->key, op->asc, op->info);
	else if (op->status == SCSI_CHECK_CONDITION)
		sense_data_build(cmd, op->key, op->asc);
}

static void release_held(void);

/* Ends an asynchronous command whose op is on no list. Not from within submit. */
static void finish(struct op *op)
{
	struct tgt_cmd *cmd = op->cmd;
	int status = op->status;
	if (status == SCSI_GOOD)
		set_good(cmd);
	else
		set_bad(op);
	if (op->exclusive)
		op->lun->exclusive--;
	give_op(op);
	target_cmd_io_done(cmd, status);
	if (!obd_list_empty(&held))
		release_held();
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

void obd_op_end(struct op *op)
{
	if (in_submit)
		finish_late(op);
	else
		finish(op);
}

void obd_op_fail(struct op *op, uint8_t key, uint16_t asc)
{
	set_error(op, key, asc);
	obd_op_end(op);
}

int obd_op_refuse(struct tgt_cmd *cmd, uint8_t key, uint16_t asc)
{
	struct op *op = obd_op_new(cmd);
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
	if (ticking || (obd_list_empty(&running) && obd_list_empty(&held)))
		return;
	ticking = timerfd_settime(tick_fd, 0, &when, NULL) == 0;
}

static void take_aborted(struct obd_list *from, struct obd_list *aborted)
{
	OBD_LIST_FOREACH_SAFE (it, from) {
		struct op *op = OBD_LIST_ENTRY(it, struct op, link);
		if (!op->cmd->mreq)
			continue;
		if (from == &running)
			obd_io_cancel(&op->io);
		op->status = SCSI_TASK_ABORTED;
		obd_list_remove(it);
		obd_list_push_back(aborted, it);
	}
}

static void finish_all(struct obd_list *ops)
{
	while (!obd_list_empty(ops)) {
		struct op *op = OBD_LIST_ENTRY(ops->next, struct op, link);
		obd_list_remove(&op->link);
		finish(op);
	}
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
	take_aborted(&running, &aborted);
	take_aborted(&held, &aborted);
	finish_all(&aborted);
	arm_tick();
}

/* ---- steps --------------------------------------------------------------------------------------------------------------- */

static void io_done(struct obd_io *io, int result)
{
	struct op *op = io->arg;
	obd_list_remove(&op->link);
	if (!result) {
		op->then(op);
		return;
	}
	set_errno(op, result);
	finish(op);
}

static void prepare(struct op *op, void *buf, uint64_t offset, uint64_t len, bool writing, op_fn *then)
{
	op->io = (struct obd_io){.dev = op->lun->dev, .offset = offset, .len = len, .buf = buf, .fn = io_done, .arg = op};
	op->writing = writing;
	op->then = then;
}

/* rc is what the library said to the step. */
static void started(struct op *op, int rc)
{
	if (rc > 0) {
		obd_list_push_back(&running, &op->link);
		arm_tick();
		return;
	}
	if (rc == 0) {
		op->then(op);
		return;
	}
	set_errno(op, rc);
	obd_op_end(op);
}

void obd_op_read(struct op *op, void *buf, uint64_t offset, uint64_t len, op_fn *then)
{
	prepare(op, buf, offset, len, false, then);
	started(op, op->io.dev ? obd_read(&op->io) : -ENODEV);
}

void obd_op_read_behind(struct op *op, void *buf, uint64_t offset, uint64_t len, op_fn *then)
{
	prepare(op, buf, offset, len, false, then);
	started(op, op->io.dev ? obd_read_behind(&op->io) : -ENODEV);
}

void obd_op_write(struct op *op, void *buf, uint64_t offset, uint64_t len, bool fua, op_fn *then)
{
	prepare(op, buf, offset, len, true, then);
	started(op, op->io.dev ? obd_write(&op->io, fua) : -ENODEV);
}

void obd_op_discard(struct op *op, uint64_t offset, uint64_t len, bool fua, op_fn *then)
{
	prepare(op, NULL, offset, len, true, then);
	started(op, op->io.dev ? obd_discard(&op->io, fua) : -ENODEV);
}

void obd_op_sync(struct op *op, op_fn *then)
{
	prepare(op, NULL, 0, 0, true, then);
	started(op, op->io.dev ? obd_sync(&op->io) : -ENODEV);
}

/* ---- commands that hold each other --------------------------------------------------------------------------------------- */

static bool conflict(const struct op *a, const struct op *b)
{
	return a != b && a->lun == b->lun && (a->exclusive || b->exclusive) && a->start < b->start + b->bytes &&
	       b->start < a->start + a->bytes;
}

/* Must the op wait for one that is under way, or for one that has been held for longer? */
static bool must_wait(const struct op *op)
{
	if (!op->lun->exclusive)
		return false;
	OBD_LIST_FOREACH (it, &running)
		if (conflict(op, OBD_LIST_ENTRY(it, struct op, link)))
			return true;
	OBD_LIST_FOREACH (it, &held) {
		if (it == &op->link)
			break;
		if (conflict(op, OBD_LIST_ENTRY(it, struct op, link)))
			return true;
	}
	return false;
}

/* Begins what nothing holds any more. Beginning one may end others, so the list is looked at anew after each. */
static void release_held(void)
{
	bool again = !releasing;
	releasing = true;
	while (again) {
		again = false;
		OBD_LIST_FOREACH_SAFE (it, &held) {
			struct op *op = OBD_LIST_ENTRY(it, struct op, link);
			if (must_wait(op))
				continue;
			obd_list_remove(it);
			op->go(op);
			again = true;
			break;
		}
		if (!again)
			releasing = false;
	}
}

int obd_op_begin(struct op *op, op_fn *go, uint64_t start, uint64_t bytes, bool exclusive)
{
	op->cmd->state |= TGT_CMD_ASYNC;
	op->go = go;
	op->start = start;
	op->bytes = bytes;
	op->exclusive = exclusive;
	if (exclusive)
		op->lun->exclusive++;
	if (must_wait(op)) {
		obd_list_push_back(&held, &op->link);
		arm_tick();
	} else {
		go(op);
	}
	return 0;
}

/* ---- reads --------------------------------------------------------------------------------------------------------------- */

/* What was read is there: compares it if that was the question. */
static void judge(struct op *op)
{
	if (op->own && memcmp(op->own, obd_op_out(op->cmd), op->io.len) != 0)
		set_error(op, SENSE_MISCOMPARE, ASC_MISCOMPARE_DURING_VERIFY);
}

static void judge_and_end(struct op *op)
{
	judge(op);
	obd_op_end(op);
}

static void go_read(struct op *op)
{
	void *buf = op->own ? op->own : (void *)(uintptr_t)op->cmd->in_sdb.buffer;
	obd_op_read(op, buf, op->start, op->bytes, judge_and_end);
}

/* Reads len bytes at the command's offset; what is in the cache is answered at once, unless the command has to wait. */
static int start(struct op *op, uint32_t len)
{
	struct tgt_cmd *cmd = op->cmd;
	if (op->lun->exclusive || !op->lun->dev)
		return obd_op_begin(op, go_read, cmd->offset, len, false);
	op->start = cmd->offset;
	op->bytes = len;
	prepare(op, op->own ? op->own : (void *)(uintptr_t)cmd->in_sdb.buffer, cmd->offset, len, false, judge_and_end);
	int rc = obd_read(&op->io);
	if (rc == 0)
		judge(op);
	if (rc != 0 || op->status != SCSI_GOOD) {
		cmd->state |= TGT_CMD_ASYNC;
		if (rc)
			started(op, rc);
		else
			obd_op_end(op);
		return 0;
	}
	give_op(op);
	return 0;
}

uint64_t obd_op_cdb_bytes(struct tgt_cmd *cmd)
{
	return (uint64_t)scsi_rw_count(cmd->scb) << cmd->dev->blk_shift;
}

/* tgtd has checked the range and has set the residual count from the CDB's length; only the smaller of that and the
 * initiator's buffer is read. */
static int submit_read(struct tgt_cmd *cmd)
{
	uint64_t bytes = obd_op_cdb_bytes(cmd);
	uint32_t len = (uint32_t)obd_min_u64(bytes, cmd->in_sdb.length);
	if (bytes > UINT32_MAX)
		return obd_op_refuse(cmd, SENSE_ILLEGAL_REQUEST, ASC_INVALID_FIELD_IN_CDB);
	if (!len)
		return 0;
	struct op *op = obd_op_new(cmd);
	return op ? start(op, len) : -ENOMEM;
}

/* tgtd answers VERIFY without BYTCHK by itself. BYTCHK = 11b, one block to be compared with all, is not supported. */
static int submit_verify(struct tgt_cmd *cmd)
{
	uint64_t bytes = obd_op_cdb_bytes(cmd);
	uint32_t len = (uint32_t)obd_min_u64(bytes, cmd->out_sdb.length);
	if (bytes > UINT32_MAX || (cmd->scb[1] & CDB_BYTCHK_MANY) == CDB_BYTCHK_MANY)
		return obd_op_refuse(cmd, SENSE_ILLEGAL_REQUEST, ASC_INVALID_FIELD_IN_CDB);
	if (!len)
		return 0;
	struct op *op = obd_op_new(cmd);
	if (!op)
		return -ENOMEM;
	if (!obd_op_own(op, len)) {
		give_op(op);
		return -ENOMEM;
	}
	return start(op, len);
}

static int submit(struct tgt_cmd *cmd)
{
	const struct lun *lun = lun_of(cmd->dev);
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
	case OP_PRE_FETCH_10: /* a hint may be ignored; tgtd refuses it on a read-only LUN */
	case OP_PRE_FETCH_16:
		return 0;
	default:
		break;
	}
	if (lun->dev && obd_device_writable(lun->dev))
		return obd_tgt_submit_write(cmd);
	if (cmd->scb[0] == OP_SYNCHRONIZE_CACHE_10 || cmd->scb[0] == OP_SYNCHRONIZE_CACHE_16)
		return 0; /* nothing is ever dirty */
	return obd_op_refuse(cmd, SENSE_DATA_PROTECT,
			     ASC_WRITE_PROTECTED); /* the administrator has cleared the read-only attribute */
}

/* Ending a command may submit another one from within, so the flag is put back to what it was. */
int obd_tgt_submit(struct tgt_cmd *cmd)
{
	bool was = in_submit;
	in_submit = true;
	int rc = submit(cmd);
	in_submit = was;
	return rc;
}

/* ---- start and end ------------------------------------------------------------------------------------------------------- */

static void take_of(const struct lun *lun, struct obd_list *from, struct obd_list *mine)
{
	OBD_LIST_FOREACH_SAFE (it, from) {
		if (OBD_LIST_ENTRY(it, struct op, link)->lun != lun)
			continue;
		obd_list_remove(it);
		obd_list_push_back(mine, it);
	}
}

void obd_tgt_io_drain(struct lun *lun)
{
	struct obd_list mine;
	obd_list_init(&mine);
	take_of(lun, &held, &mine);
	OBD_LIST_FOREACH (it, &mine)
		set_error(OBD_LIST_ENTRY(it, struct op, link), SENSE_ABORTED_COMMAND, ASC_NONE);
	take_of(lun, &late, &mine);
	finish_all(&mine);
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
