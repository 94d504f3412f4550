/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The gate: what a LUN answers while it has no medium to serve.
 *
 * tgtd takes a LUN for ready as soon as bs_open has returned, and would answer READ CAPACITY with a size of 0. But each LUN has
 * its own copy of the table of functions by operation code. While the gate is shut, the entries of all commands that need the
 * medium point here. Everything around them stays tgtd's: the command is in its queues like any other, so aborts, unit
 * attentions and reservations work as always, and INQUIRY, REPORT LUNS, MODE SENSE, START STOP UNIT and the like are answered
 * as on any LUN. Every answer here is given at once, so nothing is held while the gate is shut.
 */
#include "frontend/tgt/lun.h"

#include <string.h>

#include "common/base/util.h"
#include "frontend/tgt/scsi.h"

static const uint8_t gated_ops[] = {
	OP_TEST_UNIT_READY,
	OP_REQUEST_SENSE,
	OP_FORMAT_UNIT,
	OP_READ_6,
	OP_WRITE_6,
	OP_READ_CAPACITY_10,
	OP_READ_10,
	OP_WRITE_10,
	OP_WRITE_AND_VERIFY_10,
	OP_VERIFY_10,
	OP_PRE_FETCH_10,
	OP_SYNCHRONIZE_CACHE_10,
	OP_WRITE_SAME_10,
	OP_UNMAP,
	OP_READ_16,
	OP_COMPARE_AND_WRITE,
	OP_WRITE_16,
	OP_ORWRITE_16,
	OP_WRITE_AND_VERIFY_16,
	OP_VERIFY_16,
	OP_PRE_FETCH_16,
	OP_SYNCHRONIZE_CACHE_16,
	OP_WRITE_SAME_16,
	OP_SERVICE_ACTION_IN_16,
	OP_READ_12,
	OP_WRITE_12,
	OP_WRITE_AND_VERIFY_12,
	OP_VERIFY_12,
};
static_assert(sizeof gated_ops <= LUN_GATED_OPS, "struct lun has room for every gated operation");

static uint16_t not_ready_asc(const struct lun *lun)
{
	switch (lun->state) {
	case LUN_OPENING:
		return ASC_BECOMING_READY;
	case LUN_FAILED:
		return ASC_MANUAL_INTERVENTION_REQUIRED;
	case LUN_CLOSED:
	case LUN_READY:
		break;
	}
	return ASC_MEDIUM_NOT_PRESENT;
}

static void set_in_actual(struct tgt_cmd *cmd, uint32_t bytes)
{
	cmd->in_sdb.transfer_len = bytes;
	cmd->in_sdb.resid = (int32_t)(cmd->in_sdb.length - bytes);
}

static int answer_not_ready(int host_no, struct tgt_cmd *cmd)
{
	(void)host_no;
	set_in_actual(cmd, 0);
	sense_data_build(cmd, SENSE_NOT_READY, not_ready_asc(lun_of(cmd->dev)));
	return SCSI_CHECK_CONDITION;
}

/* The same news as parameter data, with status GOOD. */
static int answer_request_sense(int host_no, struct tgt_cmd *cmd)
{
	(void)host_no;
	sense_data_build(cmd, SENSE_NOT_READY, not_ready_asc(lun_of(cmd->dev)));
	uint64_t n = obd_min_u64(cmd->scb[4], obd_min_u64(cmd->in_sdb.length, (uint64_t)cmd->sense_len));
	if (n)
		memcpy((void *)(uintptr_t)cmd->in_sdb.buffer, cmd->sense_buffer, n);
	set_in_actual(cmd, (uint32_t)n);
	memset(cmd->sense_buffer, 0, sizeof cmd->sense_buffer);
	cmd->sense_len = 0;
	return SCSI_GOOD;
}

void obd_tgt_gate_shut(struct lun *lun)
{
	struct tgt_operation *ops = lun->lu->dev_type.ops;
	if (lun->gate_shut)
		return;
	for (size_t i = 0; i < sizeof gated_ops; i++) {
		uint8_t op = gated_ops[i];
		lun->behind[i] = ops[op].perform;
		ops[op].perform = op == OP_REQUEST_SENSE ? answer_request_sense : answer_not_ready;
	}
	lun->gate_shut = true;
}

void obd_tgt_gate_open(struct lun *lun)
{
	struct tgt_operation *ops = lun->lu->dev_type.ops;
	if (!lun->gate_shut)
		return;
	for (size_t i = 0; i < sizeof gated_ops; i++)
		ops[gated_ops[i]].perform = lun->behind[i];
	lun->gate_shut = false;
}
