/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Commands that write, step by step.
 *
 *   WRITE, WRITE AND VERIFY   write (, read back, compare)
 *   WRITE SAME                zeros, or UNMAP: discard. else: write, again and again
 *   UNMAP                     all descriptors are checked, then one discard after another
 *   COMPARE AND WRITE         exclusive: read, compare, write
 *   ORWRITE                   exclusive: read, or, write
 *   SYNCHRONIZE CACHE         sync; IMMED waits as well
 *
 * tgtd has checked ranges and protection fields by its 32-bit reckoning; lengths beyond that are reckoned anew here. What the
 * initiator sends less than the CDB says is not written, by whole logical blocks.
 */
#include <string.h>

#include <errno.h>

#include "common/base/util.h"
#include "frontend/tgt/op.h"
#include "frontend/tgt/scsi.h"

#define WRITE_SAME_STEP_BYTES UINT64_C(1048576)

static uint64_t be64(const unsigned char *p)
{
	uint64_t v = 0;
	for (int i = 0; i < 8; i++)
		v = v << 8 | p[i];
	return v;
}

static uint32_t be32(const unsigned char *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static uint32_t be16(const unsigned char *p)
{
	return (uint32_t)p[0] << 8 | p[1];
}

/* An initiator that has switched the write cache off wants every write on stable storage. */
static bool write_through(struct tgt_lu *lu)
{
	const struct tgt_mode_page *page = find_mode_page(lu, MODE_PAGE_CACHING, 0);
	return page && page->bytes > 0 && !(page->data[0] & CACHING_WCE);
}

/* UNMAP and WRITE SAME have other things where WRITE has FUA. */
static bool wants_fua(struct tgt_cmd *cmd)
{
	return write_through(cmd->dev) || (cmd->scb[0] != OP_WRITE_6 && (cmd->scb[1] & CDB_FUA));
}

/* ---- WRITE, WRITE AND VERIFY --------------------------------------------------------------------------------------------- */

static void compare_written(struct op *op)
{
	if (memcmp(op->own, obd_op_out(op->cmd), op->bytes) != 0)
		obd_op_fail(op, SENSE_MISCOMPARE, ASC_MISCOMPARE_DURING_VERIFY);
	else
		obd_op_end(op);
}

static void read_back(struct op *op)
{
	obd_op_read(op, op->own, op->start, op->bytes, compare_written);
}

static void go_write(struct op *op)
{
	obd_op_write(op, obd_op_out(op->cmd), op->start, op->bytes, wants_fua(op->cmd), op->own ? read_back : obd_op_end);
}

static int submit_rw(struct tgt_cmd *cmd, bool verify)
{
	uint64_t bytes = obd_op_cdb_bytes(cmd);
	if (bytes > UINT32_MAX)
		return obd_op_refuse(cmd, SENSE_ILLEGAL_REQUEST, ASC_INVALID_FIELD_IN_CDB);
	bytes = obd_align_down(obd_min_u64(bytes, cmd->out_sdb.length), UINT64_C(1) << cmd->dev->blk_shift);
	if (!bytes)
		return 0;
	struct op *op = obd_op_new(cmd);
	if (!op)
		return -ENOMEM;
	if (verify && !obd_op_own(op, bytes)) {
		obd_op_fail(op, SENSE_HARDWARE_ERROR, ASC_INTERNAL_TARGET_FAILURE);
		return 0;
	}
	return obd_op_begin(op, go_write, cmd->offset, bytes, verify);
}

/* ---- COMPARE AND WRITE, ORWRITE ------------------------------------------------------------------------------------------ */

static void compare_and_write(struct op *op)
{
	unsigned char *out = obd_op_out(op->cmd);
	const unsigned char *medium = op->own;
	uint64_t i = 0;
	while (i < op->bytes && out[i] == medium[i])
		i++;
	if (i == op->bytes) {
		obd_op_write(op, out + op->bytes, op->start, op->bytes, wants_fua(op->cmd), obd_op_end);
		return;
	}
	op->has_info = true;
	op->info = i;
	obd_op_fail(op, SENSE_MISCOMPARE, ASC_MISCOMPARE_DURING_VERIFY);
}

static void or_and_write(struct op *op)
{
	const unsigned char *out = obd_op_out(op->cmd);
	unsigned char *medium = op->own;
	for (uint64_t i = 0; i < op->bytes; i++)
		medium[i] |= out[i];
	obd_op_write(op, medium, op->start, op->bytes, wants_fua(op->cmd), obd_op_end);
}

static void go_read_modify_write(struct op *op)
{
	bool caw = op->cmd->scb[0] == OP_COMPARE_AND_WRITE;
	obd_op_read_behind(op, op->own, op->start, op->bytes, caw ? compare_and_write : or_and_write);
}

static int begin_read_modify_write(struct tgt_cmd *cmd, uint64_t bytes)
{
	struct op *op = obd_op_new(cmd);
	if (!op)
		return -ENOMEM;
	if (!obd_op_own(op, bytes)) {
		obd_op_fail(op, SENSE_HARDWARE_ERROR, ASC_INTERNAL_TARGET_FAILURE);
		return 0;
	}
	return obd_op_begin(op, go_read_modify_write, cmd->offset, bytes, true);
}

/* The data is sent twice over: what to compare with, then what to write. */
static int submit_compare_and_write(struct tgt_cmd *cmd)
{
	uint64_t bytes = obd_op_cdb_bytes(cmd);
	if (bytes >> cmd->dev->blk_shift > CAW_MAX_BLOCKS || cmd->out_sdb.length != 2 * bytes)
		return obd_op_refuse(cmd, SENSE_ILLEGAL_REQUEST, ASC_INVALID_FIELD_IN_CDB);
	return bytes ? begin_read_modify_write(cmd, bytes) : 0;
}

static int submit_orwrite(struct tgt_cmd *cmd)
{
	uint64_t bytes = obd_op_cdb_bytes(cmd);
	if (bytes > UINT32_MAX)
		return obd_op_refuse(cmd, SENSE_ILLEGAL_REQUEST, ASC_INVALID_FIELD_IN_CDB);
	bytes = obd_align_down(obd_min_u64(bytes, cmd->out_sdb.length), UINT64_C(1) << cmd->dev->blk_shift);
	return bytes ? begin_read_modify_write(cmd, bytes) : 0;
}

/* ---- WRITE SAME ---------------------------------------------------------------------------------------------------------- */

static void go_zeros(struct op *op)
{
	obd_op_discard(op, op->start, op->bytes, write_through(op->cmd->dev), obd_op_end);
}

static void next_pattern(struct op *op)
{
	uint64_t at = op->start + op->done;
	uint64_t n = obd_min_u64(op->own_bytes, op->bytes - op->done);
	op->done += n;
	obd_op_write(op, op->own, at, n, write_through(op->cmd->dev), op->done < op->bytes ? next_pattern : obd_op_end);
}

static bool all_zero(const unsigned char *p, uint64_t n)
{
	return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

static int begin_pattern(struct tgt_cmd *cmd, uint64_t bytes)
{
	uint64_t block = UINT64_C(1) << cmd->dev->blk_shift;
	struct op *op = obd_op_new(cmd);
	if (!op)
		return -ENOMEM;
	if (!obd_op_own(op, obd_max_u64(block, obd_min_u64(bytes, WRITE_SAME_STEP_BYTES)))) {
		obd_op_fail(op, SENSE_HARDWARE_ERROR, ASC_INTERNAL_TARGET_FAILURE);
		return 0;
	}
	for (uint64_t i = 0; i < op->own_bytes; i += block)
		memcpy((char *)op->own + i, obd_op_out(cmd), block);
	return obd_op_begin(op, next_pattern, cmd->offset, bytes, false);
}

/* tgtd has seen to it that there is one block of data or none, and has refused ANCHOR. With UNMAP the data is not looked at, as
 * in tgtd's own stores: what is unmapped reads as zeros. */
static int submit_write_same(struct tgt_cmd *cmd)
{
	struct tgt_lu *lu = cmd->dev;
	uint64_t block = UINT64_C(1) << lu->blk_shift;
	uint64_t bytes = obd_op_cdb_bytes(cmd);
	uint8_t flags = cmd->scb[1];
	bool ndob = cmd->scb[0] == OP_WRITE_SAME_16 && (flags & CDB_WS_NDOB);
	bool data = !ndob && cmd->out_sdb.length >= block;
	if (cmd->offset > lu->size || bytes > lu->size - cmd->offset)
		return obd_op_refuse(cmd, SENSE_ILLEGAL_REQUEST, ASC_LBA_OUT_OF_RANGE);
	if ((flags & CDB_WS_OBSOLETE) || (!data && !ndob && !(flags & CDB_WS_UNMAP)))
		return obd_op_refuse(cmd, SENSE_ILLEGAL_REQUEST, ASC_INVALID_FIELD_IN_CDB);
	if (!bytes)
		bytes = lu->size - cmd->offset;
	if (!bytes)
		return 0;
	if (data && !(flags & CDB_WS_UNMAP) && !all_zero(obd_op_out(cmd), block))
		return begin_pattern(cmd, bytes);
	struct op *op = obd_op_new(cmd);
	return op ? obd_op_begin(op, go_zeros, cmd->offset, bytes, false) : -ENOMEM;
}

/* ---- UNMAP --------------------------------------------------------------------------------------------------------------- */

struct extent {
	uint64_t offset;
	uint64_t bytes;
};

/* Block descriptor i; false: it is not within the LUN. One of no blocks is no error, wherever it is. */
static bool descriptor(const struct tgt_cmd *cmd, uint64_t i, struct extent *e)
{
	const unsigned char *d = obd_op_out(cmd) + UNMAP_HEADER_BYTES + i * UNMAP_DESCRIPTOR_BYTES;
	uint64_t blocks = cmd->dev->size >> cmd->dev->blk_shift;
	uint64_t lba = be64(d);
	uint64_t n = be32(d + 8);
	if (n && (lba > blocks || n > blocks - lba))
		return false;
	*e = (struct extent){.offset = lba << cmd->dev->blk_shift, .bytes = n << cmd->dev->blk_shift};
	return true;
}

/* own_bytes: how many descriptors there are. */
static void next_extent(struct op *op)
{
	struct extent e = {0, 0};
	while (op->done < op->own_bytes && descriptor(op->cmd, op->done, &e) && !e.bytes)
		op->done++;
	if (op->done >= op->own_bytes || !e.bytes) {
		obd_op_end(op);
		return;
	}
	op->done++;
	obd_op_discard(op, e.offset, e.bytes, write_through(op->cmd->dev), next_extent);
}

/* Always asynchronous: tgtd takes an UNMAP that is done at once for failed. */
static int submit_unmap(struct tgt_cmd *cmd)
{
	uint64_t have = obd_min_u64(be16(cmd->scb + 7), cmd->out_sdb.length);
	struct op *op = obd_op_new(cmd);
	struct extent e;
	if (!op)
		return -ENOMEM;
	if (have && have < UNMAP_HEADER_BYTES) {
		obd_op_fail(op, SENSE_ILLEGAL_REQUEST, ASC_PARAMETER_LIST_LENGTH_ERROR);
		return 0;
	}
	if (have)
		op->own_bytes = obd_min_u64(be16(obd_op_out(cmd) + 2), have - UNMAP_HEADER_BYTES) / UNMAP_DESCRIPTOR_BYTES;
	for (uint64_t i = 0; i < op->own_bytes; i++) {
		if (descriptor(cmd, i, &e))
			continue;
		obd_op_fail(op, SENSE_ILLEGAL_REQUEST, ASC_LBA_OUT_OF_RANGE);
		return 0;
	}
	return obd_op_begin(op, next_extent, 0, op->own_bytes ? cmd->dev->size : 0, false);
}

/* ---- SYNCHRONIZE CACHE, and which command is which ------------------------------------------------------------------------
 */

static void go_sync(struct op *op)
{
	obd_op_sync(op, obd_op_end);
}

static int submit_sync(struct tgt_cmd *cmd)
{
	struct op *op = obd_op_new(cmd);
	return op ? obd_op_begin(op, go_sync, 0, 0, false) : -ENOMEM;
}

int obd_tgt_submit_write(struct tgt_cmd *cmd)
{
	switch (cmd->scb[0]) {
	case OP_WRITE_6:
	case OP_WRITE_10:
	case OP_WRITE_12:
	case OP_WRITE_16:
		return submit_rw(cmd, false);
	case OP_WRITE_AND_VERIFY_10:
	case OP_WRITE_AND_VERIFY_12:
	case OP_WRITE_AND_VERIFY_16:
		return submit_rw(cmd, true);
	case OP_COMPARE_AND_WRITE:
		return submit_compare_and_write(cmd);
	case OP_ORWRITE_16:
		return submit_orwrite(cmd);
	case OP_WRITE_SAME_10:
	case OP_WRITE_SAME_16:
		return submit_write_same(cmd);
	case OP_UNMAP:
		return submit_unmap(cmd);
	case OP_SYNCHRONIZE_CACHE_10:
	case OP_SYNCHRONIZE_CACHE_16:
		return submit_sync(cmd);
	default:
		return obd_op_refuse(cmd, SENSE_ILLEGAL_REQUEST, ASC_INVALID_FIELD_IN_CDB);
	}
}
