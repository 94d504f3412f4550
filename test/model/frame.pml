/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One frame (doc/architecture.md 4.4, and 4.6 as far as it is about frames): cached gives it to one fetcher after another for this
 * key or that, evicts it and uses it again, while a reader copies from it.
 *
 *   cached    obd_frame_fill, issue, obd_job_ring; obd_jobs_settle, settle_block, finish; obd_frame_drop; take_back and
 *             obd_jobs_reaped; a successor: obd_job_adopt, adopt_frame
 *   fetcher   take, obd_fetch_begin, obd_fetch_valid or obd_fetch_fail, obd_fetch_done; killed: the next incarnation waits until
 *             it is admitted
 *   reader    obd_lookup_valid, the copy, obd_lookup_still. It may come with any key at any moment, as if hints were always wrong
 *
 * A job has this one frame, its sequence is the frame's generation, and its bytes are one word that holds the key.
 * Rings are ring.pml's matter: here a fetcher looks at its job's word.
 *
 * check  ends -DREADERS=0 -DGENERATIONS=2
 * check  ends slow -DKILLS=0 -DGENERATIONS=2
 * check  ends slow -DREADERS=0 -DGENERATIONS=2 -DKILLS=2
 * check  progress slow -DREADERS=0 -DGENERATIONS=2
 * mutant BEGIN_WITHOUT_FENCE slow assertion violated
 * mutant FAIL_WITHOUT_FENCE slow assertion violated
 * mutant RELAXED_VALID slow assertion violated
 * mutant READER_WITHOUT_FENCE slow assertion violated
 * mutant READER_TRUSTS_HINT slow assertion violated
 * mutant SAME_GENERATION slow assertion violated
 * mutant RELAXED_JOB            assertion violated
 * mutant RELAXED_DONE slow assertion violated
 * mutant NOT_REAPED             assertion violated
 */
#ifndef GENERATIONS
#define GENERATIONS 3
#endif
#ifndef KILLS
#define KILLS 1
#endif
#ifndef READERS
#define READERS 1
#endif
#ifndef FETCHERS_DIE
#define FETCHERS_DIE 1
#endif
#ifndef CACHED_DIES
#define CACHED_DIES 1
#endif
#define C 2 /* processors 0 and 1 are the fetchers' */
#define CPUS 3
#ifndef DEPTH
#define DEPTH 2
#endif
/* fetchers' regions */
#define WORD 0
#define KEY 1
#define DATA 2
#define DONE 3 /* and 4 */
/* cached's */
#define JOB 5 /* and 6: the job's word, 0 when FREE */
#define JOB_KEY 7 /* and 8: its fields */
#define ADMITTED 9 /* and 10 */
#define PLACES 11
#include "mem.pml"

#define EMPTY 0
#define FILLING 1
#define VALID 2
#define FAILED 3
#define word(g, s) ((g) * 4 + (s))
#define state_of(w) ((w) % 4)

#define FREE 0
#define EVICTING 4

bit reaped[2];	    /* the supervisor's word to cached, repeated to its successor */
byte incarnation[2]; /* that the supervisor has started */
bit kill[3], over;
byte writer; /* who has the frame: fetcher + 1 */

/* --- fetchers --- */

#ifdef MUTANT_NOT_ADMITTED
#define admitted 1
#else
#define admitted (mem[ADMITTED + f] == incarnation[f]) /* edge fetcher-admit */
#endif

#define given (mem[JOB + f] != 0 && mem[JOB + f] != running && mem[JOB + f] != mem[DONE + f])

proctype fetcher(byte f)
{
	byte g, k, running;

begin:
	{
		do
		:: over -> break
		:: atomic { given && admitted && drained(f) -> g = mem[JOB + f] }; /* edge job-issue */
			k = mem[JOB_KEY + f];
			atomic {
				if
				:: mem[JOB + f] == g -> running = g
				:: else -> g = 0; k = 0; goto begin /* it was taken back meanwhile */
				fi
			};
			atomic { assert(k != 0 && writer == 0); writer = f + 1 };
			relaxed(f, WORD, word(g, FILLING));
			if
			:: true -> /* obd_fetch_begin, the decoder, obd_fetch_valid */
#ifndef MUTANT_BEGIN_WITHOUT_FENCE
				release_fence(f); /* edge fill-begin */
#endif
				relaxed(f, DATA, k);
				relaxed(f, KEY, k);
#ifdef MUTANT_RELAXED_VALID
				atomic { relaxed(f, WORD, word(g, VALID)); writer = 0 };
#else
				atomic { release(f, WORD, word(g, VALID)); writer = 0 }; /* edge fill-publish */
#endif
			:: true -> /* obd_fetch_fail */
#ifndef MUTANT_FAIL_WITHOUT_FENCE
				release_fence(f); /* edge fill-begin */
#endif
				relaxed(f, KEY, k);
				atomic { release(f, WORD, word(g, FAILED)); writer = 0 } /* edge fill-publish */
			fi;
#ifdef MUTANT_RELAXED_DONE
			relaxed(f, DONE + f, g);
#else
			release(f, DONE + f, g); /* edge job-done */
#endif
			atomic { g = 0; k = 0; running = 0 }
		od
	} unless {
		atomic {
			kill[f] && drained(f) && !reaped[f] -> kill[f] = 0;
			if
			:: writer == f + 1 -> writer = 0
			:: else
			fi;
			g = 0; k = 0; running = 0;
			incarnation[f]++;
			reaped[f] = 1;
			goto begin
		}
	}
}

/* --- cached --- */

/* A successor is told again of the last death, though it may be known in the table. */
#if defined(MUTANT_REAPED_TWICE) || defined(MUTANT_NOT_REAPED)
#define news(f) reaped[f]
#else
#define news(f) (reaped[f] && admits[f] != incarnation[f])
#endif

/* settle_block of the job that fetcher f has; rest: the job is over, or its fetcher is dead */
inline settle(f)
{
	w = mem[WORD];
	atomic {
		if
		:: st == FILLING && gen == job[f] && w == word(gen, VALID) -> st = VALID
		:: st == FILLING && gen == job[f] && w != word(gen, VALID) -> st = FREE
		:: else
		fi;
		w = 0
	}
}

inline finish(f)
{
	atomic { release(C, JOB + f, 0); job[f] = 0 };
	release_fence(C)
}

inline issue(f)
{
#ifdef MUTANT_SAME_GENERATION
	atomic { n++; gen = 1 };
#else
	atomic { n++; gen++ }; /* next_generation first, then the frame's */
#endif
	atomic {
		if
		:: key = 1
		:: key = 2
		fi;
#ifndef MUTANT_ISSUED_FIRST
		st = FILLING /* edge frame-state */
#endif
	};
	relaxed(C, JOB_KEY + f, key);
#ifdef MUTANT_RELAXED_JOB
	atomic { relaxed(C, JOB + f, gen); job[f] = gen };
#else
	atomic { release(C, JOB + f, gen); job[f] = gen }; /* edge job-issue */
#endif
#ifdef MUTANT_ISSUED_FIRST
	st = FILLING
#endif
}

inline serve(f)
{
	if
	:: mem[DONE + f] == job[f] -> settle(f); finish(f)
	:: news(f) -> settle(f); finish(f)
	:: st == FILLING && gen == job[f] && mem[WORD] == word(gen, VALID) -> st = VALID /* a report in the middle of the job */
	fi
}

proctype cached()
{
	byte st, gen, key, n, job[2], admits[2]; /* the table; key is what the frame's descriptor says */
	byte w;

begin:
	{
		atomic {
			if
			:: st == EVICTING -> st = FREE
#ifdef MUTANT_ADOPT_FREES_ALL
			:: st == FILLING -> st = FREE
#else
			:: st == FILLING && job[0] != gen && job[1] != gen -> st = FREE
#endif
			:: else
			fi
		};
		do
		:: st == FREE && n < GENERATIONS && job[0] == 0 -> issue(0)
		:: st == FREE && n < GENERATIONS && job[1] == 0 -> issue(1)
		:: job[0] != 0 -> serve(0)
		:: job[1] != 0 -> serve(1)
		:: reaped[0] && !news(0) -> reaped[0] = 0
		:: news(0) && job[0] == 0 -> /* obd_jobs_reaped: all that it had is taken back */
			atomic { release(C, ADMITTED + 0, incarnation[0]); admits[0] = incarnation[0] };
			reaped[0] = 0
		:: reaped[1] && !news(1) -> reaped[1] = 0
		:: news(1) && job[1] == 0 ->
			atomic { release(C, ADMITTED + 1, incarnation[1]); admits[1] = incarnation[1] };
			reaped[1] = 0
		:: st == VALID -> st = EVICTING
		:: st == EVICTING -> st = FREE
		:: n == GENERATIONS && job[0] == 0 && job[1] == 0 -> break
		od;
		over = 1
	} unless {
		atomic { kill[C] && drained(C) && !over -> kill[C] = 0; w = 0; goto begin }
	}
}

/* --- the reader --- */

proctype reader()
{
	byte k, w, w2, d;
	if
	:: k = 1
	:: k = 2
	fi;
	w = mem[WORD]; /* edge fill-publish */
#ifndef MUTANT_READER_TRUSTS_HINT
	if
	:: state_of(w) != VALID || mem[KEY] != k -> goto miss
	:: else
	fi;
#else
	if
	:: state_of(w) != VALID -> goto miss
	:: else
	fi;
#endif
#ifdef MUTANT_READER_WITHOUT_FENCE
	w2 = mem[WORD];
#endif
	d = mem[DATA];
#ifndef MUTANT_READER_WITHOUT_FENCE
	w2 = mem[WORD]; /* edge fill-begin */
#endif
	assert(w2 != w || d == k);
miss:
	atomic { k = 0; w = 0; w2 = 0; d = 0 }
}

#ifdef MUTANT_NOT_REAPED
#define DIE(f) reaped[f] = 1 /* it only hangs */
#else
#define DIE(f) kill[f] = 1
#endif

proctype killer()
{
	byte n;
end:
	do
	:: atomic { n < KILLS && FETCHERS_DIE && !over && !kill[0] -> DIE(0); n++ }
	:: atomic { n < KILLS && FETCHERS_DIE && !over && !kill[1] -> DIE(1); n++ }
	:: atomic { n < KILLS && CACHED_DIES && !over && !kill[C] -> kill[C] = 1; n++ }
	:: break
	od
}

init
{
	atomic {
		run fetcher(0);
		run fetcher(1);
		run cached();
#if READERS > 0
		run reader();
#endif
		run killer()
	}
}
