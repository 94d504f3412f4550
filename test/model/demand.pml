/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The demand bit (doc/architecture.md 4.6): a request joins a block that a fetcher is filling already, and must hear of it as
 * soon as the block is VALID, though the job goes on for long.
 *
 *   cached    obd_job_demand: sets the bit, full fence, looks at the fill word (settle_block); obd_jobs_settle on a report
 *   fetcher   obd_fetch_valid: publishes the word, full fence, looks at the bit; set: report
 *
 * Reports and doorbells are wake.pml's matter and a channel here. That the job ends is left out: the waiter must not need it.
 * cached may be killed: its successor adopts the job (obd_job_adopt; a waiter joins anew when its table is scanned). The fetcher
 * may be killed before the word: then REAPED has the block asked for again, which ends this model's interest in it.
 *
 * check  ends
 * check  progress
 * mutant CACHED_WITHOUT_FENCE   invalid end state
 * mutant FETCHER_WITHOUT_FENCE  invalid end state
 * mutant CACHED_LOOKS_FIRST     invalid end state
 * mutant FETCHER_LOOKS_FIRST    invalid end state
 * mutant CACHED_WITHOUT_LOOK    invalid end state
 */
#ifndef KILLS
#define KILLS 2
#endif
#define C 0
#define F 1
#define CPUS 2
#define DEPTH 2
#define WORD 0 /* the fill word: 0 FILLING, 1 VALID */
#define BIT 1  /* the job's demand */
#define PLACES 2
#include "mem.pml"

chan reports = [2] of { bit };
bit reaped, told, kill[2];

proctype cached()
{
	bit valid;

begin:
	{
		do /* obd_cached_adopt: obd_ring_skip of the reports, then obd_jobs_settle */
		:: reports?_
		:: empty(reports) -> break
		od;
		valid = mem[WORD];
#ifdef MUTANT_CACHED_LOOKS_FIRST
		valid = mem[WORD];
#endif
		relaxed(C, BIT, 1);
#ifndef MUTANT_CACHED_WITHOUT_FENCE
		full_fence(C); /* edge demand */
#endif
#if !defined(MUTANT_CACHED_LOOKS_FIRST) && !defined(MUTANT_CACHED_WITHOUT_LOOK)
		valid = (valid || mem[WORD]);
#endif
		do
		:: valid -> break
		:: reports?_ -> valid = mem[WORD]
		:: reaped -> break
		od;
		told = 1
	} unless {
		atomic { kill[C] && drained(C) && !told -> kill[C] = 0; valid = 0; goto begin }
	}
}

proctype fetcher()
{
	bit bits;
	{
#ifdef MUTANT_FETCHER_LOOKS_FIRST
		bits = mem[BIT];
#endif
		release(F, WORD, 1); /* edge fill-publish */
#ifndef MUTANT_FETCHER_LOOKS_FIRST
#ifndef MUTANT_FETCHER_WITHOUT_FENCE
		full_fence(F); /* edge demand */
#endif
		bits = mem[BIT];
#endif
		if
		:: bits -> reports!1
		:: else
		fi
	} unless {
		atomic { kill[F] && drained(F) -> reaped = 1 } /* obd_jobs_reaped */
	}
}

proctype killer()
{
	byte n;
end:
	do
	:: atomic { n < KILLS && !told && !kill[C] -> kill[C] = 1; n++ }
	:: atomic { !kill[F] -> kill[F] = 1 }
	:: break
	od
}

init
{
	atomic { run cached(); run fetcher(); run killer() }
}
