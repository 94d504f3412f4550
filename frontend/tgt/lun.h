/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One LUN of bstype "overlaybd", from bs_open to bs_close, and what the module's files ask of each other.
 *
 *            bs_open, answered within OPEN_WAIT_MS
 *   CLOSED ───────────────────────────────────────► READY ──────► FAILED
 *      │                                              ▲             ▲
 *      └────────► OPENING ────────────────────────────┴─────────────┘
 *          bs_open, needs the network      the client library's callback
 *
 * bs_close leads from any state to CLOSED. In every state but READY the gate is shut: commands that need the medium are
 * answered from the state alone and do not reach bs_cmd_submit. All of it runs on tgtd's one thread.
 */
#ifndef OBD_FRONTEND_TGT_LUN_H
#define OBD_FRONTEND_TGT_LUN_H

#include <stdbool.h>
#include <stdint.h>

#include "frontend/client/client.h"
#include "frontend/tgt/tgt_abi.h"

enum lun_state {
	LUN_CLOSED,
	LUN_OPENING,
	LUN_READY,
	LUN_FAILED,
};

enum { LUN_GATED_OPS = 36 };

/* Lies behind struct tgt_lu in tgtd's memory, zeroed by tgtd. */
struct lun {
	struct tgt_lu *lu;
	struct obd_device *dev; /* NULL when CLOSED */
	enum lun_state state;
	bool in_open;			       /* the library calls back from within bs_open */
	bool gate_shut;			       /* behind[] is set */
	bool made_readonly;		       /* the attribute is our doing */
	bool made_thin;			       /* the same */
	unsigned int exclusive;		       /* commands under way or held that hold others */
	tgt_perform_fn *behind[LUN_GATED_OPS]; /* tgtd's own functions while the gate is shut */
};

static inline struct lun *lun_of(struct tgt_lu *lu)
{
	return tgt_lu_data(lu);
}

/* ---- gate.c ---- */

/* Makes the LUN answer the commands that need its medium by its state; harmless when it is so already. */
void obd_tgt_gate_shut(struct lun *lun);
/* Gives these commands back to tgtd. */
void obd_tgt_gate_open(struct lun *lun);

/* ---- io.c ---- */

/* Makes what commands need that do not end at once; harmless when called again. 0 or a negative errno. */
int obd_tgt_io_start(void);

/* bs_cmd_submit. Returns 0 with the command done (status GOOD), or 0 with the command made asynchronous; anything else than
 * GOOD is asynchronous, since tgtd overrules the status of a command that was done at once. */
int obd_tgt_submit(struct tgt_cmd *cmd);

/* Ends what the LUN still has to end by itself. What is under way has been ended by obd_client_close before. */
void obd_tgt_io_drain(struct lun *lun);

#endif
