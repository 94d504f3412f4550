/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sleep and wake (doc/architecture.md 4.3): one sleeper, two wakers, each of whom may be killed at every step.
 *
 *   sleeper   obd_loop_run with the hooks of a server (turn, arm, disarm, bell), or frontend/client/link.c: work
 *   waker     obd_ring_push of an entry that names a table row, then obd_wake
 *   restart   sleeper: obd_proc_start, then obd_ring_skip and a scan of the tables before the first sleep
 *             waker: its successor finds the row in its table and rings again
 *
 * The second look of the heartbeat is left out: the model shows that it never finds anything.
 * Every run ends (no cycles at all), and no run ends before the sleeper has served every row.
 *
 * check  ends
 * check  progress
 * mutant WAKER_WITHOUT_FENCE      invalid end state
 * mutant SLEEPER_WITHOUT_FENCE    invalid end state
 * mutant SLEEPER_LOOKS_FIRST      invalid end state
 * mutant SLEEPER_DRAINS_LATE      invalid end state
 * mutant WAKER_LOOKS_FIRST        invalid end state
 * mutant SCAN_THEN_SKIP           invalid end state
 * mutant RESTART_WITHOUT_SCAN     invalid end state
 * mutant RESTART_WITHOUT_BELL     invalid end state
 */
#ifndef WAKERS
#define WAKERS 1
#endif
#ifndef ROWS
#define ROWS 2 /* that each waker posts */
#endif
#ifndef KILLS
#define KILLS 2
#endif
#define S WAKERS /* the sleeper's processor */

#define CPUS (WAKERS + 1)
#define DEPTH 2
#define HEAD 0		      /* of each waker's ring */
#define ROW WAKERS	      /* of each waker's table: how many rows are posted */
#define SLEEPING (2 * WAKERS) /* in the sleeper's process row */
#define PLACES (2 * WAKERS + 1)
#include "mem.pml"

bit bell; /* the eventfd; 1: it can be read */
bit kill[CPUS];
bit over[CPUS];

/* obd_ring_push (edge ring-publish), then obd_wake (edge sleep) */
inline push_and_wake()
{
#ifdef MUTANT_WAKER_LOOKS_FIRST
	seen = mem[SLEEPING];
#endif
	atomic { release(i, HEAD + i, head + 1); head++ };
#ifndef MUTANT_WAKER_LOOKS_FIRST
#ifndef MUTANT_WAKER_WITHOUT_FENCE
	full_fence(i);
#endif
	seen = mem[SLEEPING];
#endif
	atomic {
		if
		:: seen -> bell = 1
		:: else
		fi;
		seen = 0
	}
}

proctype waker(byte i)
{
	byte head, row; /* what it stored last in its region */
	bit seen;

begin:
	{
		if
		:: row > 0 -> /* a successor, or only late: nobody knows whether the bell was rung */
#ifndef MUTANT_RESTART_WITHOUT_BELL
			push_and_wake()
#else
			skip
#endif
		:: else
		fi;
		do
		:: row < ROWS ->
			atomic { release(i, ROW + i, row + 1); row++ };
			push_and_wake()
		:: else -> break
		od;
		over[i] = 1
	} unless {
		atomic { kill[i] && drained(i) -> kill[i] = 0; seen = 0; goto begin }
	}
}

inline skip_ring(i) { tail[i] = mem[HEAD + i] }
inline scan_row(i) { served[i] = mem[ROW + i] }
inline look(i) { found = (found || mem[HEAD + i] != tail[i]) }

#if WAKERS == 1
#define done (served[0] == ROWS)
#define idle (mem[HEAD] == tail[0])
#define all(do_it) do_it(0)
#else
#define done (served[0] == ROWS && served[1] == ROWS)
#define idle (mem[HEAD] == tail[0] && mem[HEAD + 1] == tail[1])
#define all(do_it) do_it(0); do_it(1)
#endif

proctype sleeper()
{
	byte tail[WAKERS];   /* in its region; no waker looks at it here */
	byte served[WAKERS]; /* what its work amounts to */
	bit found;

begin:
	{
		relaxed(S, SLEEPING, 0); /* obd_proc_start */
#ifdef MUTANT_SCAN_THEN_SKIP
		all(scan_row);
		all(skip_ring);
#else
		all(skip_ring);
#ifndef MUTANT_RESTART_WITHOUT_SCAN
		all(scan_row);
#endif
#endif
		do
		:: done -> break
		/* poll_all */
		:: atomic { !done && mem[HEAD] != tail[0] -> tail[0]++ }; scan_row(0)
#if WAKERS > 1
		:: atomic { !done && mem[HEAD + 1] != tail[1] -> tail[1]++ }; scan_row(1)
#endif
		/* arm: obd_sleep_announce, then look again */
		:: atomic { !done && idle ->
#ifdef MUTANT_SLEEPER_LOOKS_FIRST
			all(look);
#endif
			relaxed(S, SLEEPING, 1) };
#ifndef MUTANT_SLEEPER_WITHOUT_FENCE
			full_fence(S);
#endif
#ifndef MUTANT_SLEEPER_LOOKS_FIRST
			all(look);
#endif
#ifdef MUTANT_SLEEPER_DRAINS_LATE
			bell = 0;
#endif
			if
			:: atomic { found -> found = 0; relaxed(S, SLEEPING, 0) } /* epoll_wait with time-out 0 */
			:: atomic { !found && bell -> relaxed(S, SLEEPING, 0) }	  /* epoll_wait, disarm */
			fi;
			bell = 0 /* the bell's callback */
		od;
		over[S] = 1
	} unless {
		atomic { kill[S] && drained(S) -> kill[S] = 0; found = 0; goto begin }
	}
}

/* kill -9. What is over is not killed any more: the model would only run longer. */
proctype killer()
{
	byte n;
end:
	do
	:: atomic { n < KILLS && !over[0] && !kill[0] -> kill[0] = 1; n++ }
#if WAKERS > 1
	:: atomic { n < KILLS && !over[1] && !kill[1] -> kill[1] = 1; n++ }
#endif
	:: atomic { n < KILLS && !over[S] && !kill[S] -> kill[S] = 1; n++ }
	:: break
	od
}

init
{
	atomic {
		run waker(0);
#if WAKERS > 1
		run waker(1);
#endif
		run sleeper();
		run killer()
	}
}
