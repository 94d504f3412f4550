/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One command that needs more than an answer on the spot: the engine (io.c) and the commands that are made of steps (write.c).
 *
 *            obd_op_begin                      then(op)
 *   submit ───────────────► go(op) ── a step ──────────► … ──► obd_op_end
 *                │             ▲         │ error, abort            ▲
 *                └── held ─────┘         └─────────────────────────┘
 *
 * A command that reads and then writes what depends on it is exclusive: while it is under way, overlapping commands of the LUN
 * are held, and it is held while overlapping ones are under way. No step starts an io while another of the same op runs.
 */
#ifndef OBD_FRONTEND_TGT_OP_H
#define OBD_FRONTEND_TGT_OP_H

#include "frontend/tgt/lun.h"

struct op;
typedef void op_fn(struct op *op);

struct op {
	struct obd_io io;
	struct obd_list link; /* on pool, running, held or late */
	struct tgt_cmd *cmd;
	struct lun *lun;
	op_fn *go;	/* begins the first step */
	op_fn *then;	/* goes on when the step under way has done well */
	void *own;	/* memory that lives as long as the op; may be NULL */
	uint64_t start; /* the bytes of the device that the command is about, for exclusive ones */
	uint64_t bytes;
	uint64_t done;	    /* for the command: how far it is */
	uint64_t own_bytes; /* for the command: of `own` */
	uint64_t info;	    /* sense: offset of the first difference */
	bool exclusive;
	bool writing; /* the step under way writes: what its errors mean */
	bool has_info;
	int status;
	uint8_t key;
	uint16_t asc;
};

/* Makes the command an op; NULL: no memory (return -ENOMEM from submit). */
struct op *obd_op_new(struct tgt_cmd *cmd);

/* The op's own memory; false: none was to be had. */
bool obd_op_own(struct op *op, uint64_t bytes);

/* Makes the command asynchronous and calls go, at once or when nothing that overlaps [start, start + bytes) keeps it from it.
 * Returns 0, for submit. */
int obd_op_begin(struct op *op, op_fn *go, uint64_t start, uint64_t bytes, bool exclusive);

/* Steps: `then` is called when it has done well; anything else ends the op. */
void obd_op_read(struct op *op, void *buf, uint64_t offset, uint64_t len, op_fn *then);
void obd_op_read_behind(struct op *op, void *buf, uint64_t offset, uint64_t len, op_fn *then); /* see obd_read_behind */
void obd_op_write(struct op *op, void *buf, uint64_t offset, uint64_t len, bool fua, op_fn *then);
void obd_op_discard(struct op *op, uint64_t offset, uint64_t len, bool fua, op_fn *then);
void obd_op_sync(struct op *op, op_fn *then);

/* Ends the command with the op's status; the op is gone. */
void obd_op_end(struct op *op);
void obd_op_fail(struct op *op, uint8_t key, uint16_t asc);

/* Ends a command without an op, from submit. Returns what submit returns. */
int obd_op_refuse(struct tgt_cmd *cmd, uint8_t key, uint16_t asc);

/* The bytes that the CDB asks for; tgtd's cmd->tl is cut to 32 bits, and not set for VERIFY. */
uint64_t obd_op_cdb_bytes(struct tgt_cmd *cmd);

static inline unsigned char *obd_op_out(const struct tgt_cmd *cmd)
{
	return (unsigned char *)(uintptr_t)cmd->out_sdb.buffer;
}

/* ---- write.c ---- */

/* Commands that write, and SYNCHRONIZE CACHE; the LUN has an upper layer. */
int obd_tgt_submit_write(struct tgt_cmd *cmd);

#endif
