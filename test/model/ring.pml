/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Rings (doc/architecture.md 4.2): obd_ring_push, obd_ring_pop, obd_ring_skip, and how either side starts over.
 *
 *   without PERSISTENT  the producer is a client: it dies with its area, the consumer lets go of it (CLIENT_DOWN), and another
 *                       client gets a fresh area, all zero, under the same number: obd_reader_attach adopts the head from the
 *                       consumer's tail, while the consumer learns of it (obd_client_up, obd_indexer_client_up)
 *   with PERSISTENT     the producer is cached or a fetcher: its successor finds head and table in its region and rings again
 *
 * The consumer's region outlives it; a successor skips what is in the ring and then scans the table. The entry at position p of
 * the ring is p + 1 here, so an entry that was not yet there, was overwritten or belongs to an earlier round is known.
 * Being woken is wake.pml's matter: here the consumer comes by whenever there is something.
 *
 * check  ends
 * check  progress
 * check  ends -DPERSISTENT
 * check  progress slow -DPERSISTENT
 * mutant RELAXED_HEAD       assertion violated
 * mutant HEAD_FIRST         assertion violated
 * mutant TAIL_FIRST         assertion violated
 * mutant WITHOUT_ROOM       assertion violated
 * mutant SCAN_THEN_SKIP     invalid end state
 * mutant FRESH_HEAD_COUNTS  assertion violated
 * mutant AREA_TOO_EARLY     assertion violated
 */
#ifndef ROWS
#define ROWS 3
#endif
#ifndef KILLS
#define KILLS 2
#endif
#define ENTRIES 2 /* power of two */
#define P 0
#define C 1
#define CPUS 2
#define DEPTH 3
#define ENTRY 0
#define HEAD ENTRIES
#define ROW (HEAD + 1) /* how many rows the producer's table has */
#define TAIL (ROW + 1)
#define PLACES (TAIL + 1)
#include "mem.pml"

bit up = 1; /* the supervisor: there is an area, and whoever starts as a consumer is told of it */
bit held;   /* by the consumer: between CLIENT_UP and CLIENT_DOWN */
byte served;
bit over, kill[2];

#define distance(a, b) (((a) - (b)) & 255)

inline push()
{
#ifndef MUTANT_WITHOUT_ROOM
	distance(head, mem[TAIL]) < ENTRIES; /* ring-consume. No room: the producer comes again */
#endif
#ifdef MUTANT_HEAD_FIRST
	release(P, HEAD, head + 1);
	relaxed(P, ENTRY + head % ENTRIES, head + 1);
#else
	relaxed(P, ENTRY + head % ENTRIES, head + 1);
#ifdef MUTANT_RELAXED_HEAD
	relaxed(P, HEAD, head + 1); /* ring-publish */
#else
	release(P, HEAD, head + 1); /* ring-publish */
#endif
#endif
	head++
}

proctype producer()
{
	byte head, row;

begin:
	{
#ifdef PERSISTENT
		atomic { head = mem[HEAD]; row = mem[ROW] };
		if
		:: row > 0 -> push()
		:: else
		fi;
#else
		row = 0;
		head = mem[TAIL]; /* obd_reader_attach */
		relaxed(P, HEAD, head);
#endif
		do
		:: row < ROWS ->
			atomic { release(P, ROW, row + 1); row++ };
			push()
		:: else -> break
		od;
		atomic { served == ROWS -> over = 1 }
	} unless {
		atomic { kill[P] && drained(P) && !over -> kill[P] = 0; head = 0; row = 0 };
#ifndef PERSISTENT
		up = 0;
#ifndef MUTANT_AREA_TOO_EARLY
		!held; /* supervisor/clients.c: free_if_released */
#endif
		d_step { mem[ENTRY] = 0; mem[ENTRY + 1] = 0; mem[HEAD] = 0; mem[ROW] = 0; up = 1 };
#endif
		goto begin
	}
}

/* Nothing but zeros in a fresh area: the producer has not adopted its head yet. */
#ifdef MUTANT_FRESH_HEAD_COUNTS
#define begun(h) 1
#else
#define begun(h) ((h) != 0)
#endif

inline skip_ring()
{
	head = mem[HEAD];
	atomic {
		if
		:: begun(head) -> release(C, TAIL, head); tail = head
		:: else
		fi;
		head = 0
	}
}

inline scan_row()
{
	served = mem[ROW]
}

proctype consumer()
{
	byte tail; /* in its region */
	byte head, entry;

begin:
	{
		do
		:: over -> break
		:: atomic { !over && up && !held -> held = 1 }; /* told of the client; or a consumer that starts over */
#ifdef MUTANT_SCAN_THEN_SKIP
			scan_row();
			skip_ring()
#else
			skip_ring();
			scan_row()
#endif
		:: atomic { !over && !up && held && drained(C) -> served = 0; held = 0 } /* CLIENT_DOWN; told by a message */
		:: atomic { !over && held && mem[HEAD] != tail && begun(mem[HEAD]) -> head = mem[HEAD] };
			assert(distance(head, tail) <= ENTRIES); /* OBD_RING_LOST: sound processes never come to it */
#ifdef MUTANT_TAIL_FIRST
			release(C, TAIL, tail + 1);
			entry = mem[ENTRY + tail % ENTRIES];
#else
			entry = mem[ENTRY + tail % ENTRIES];
			release(C, TAIL, tail + 1); /* ring-consume */
#endif
			atomic { assert(entry == tail + 1); tail++; head = 0; entry = 0 };
			scan_row() /* the entry names the row */
		od
	} unless {
		atomic { kill[C] && drained(C) && !over -> kill[C] = 0; held = 0; tail = mem[TAIL]; head = 0; entry = 0; goto begin }
	}
}

proctype killer()
{
	byte n;
end:
	do
	:: atomic { n < KILLS && !over && !kill[P] -> kill[P] = 1; n++ }
	:: atomic { n < KILLS && !over && !kill[C] -> kill[C] = 1; n++ }
	:: break
	od
}

init
{
	atomic { run producer(); run consumer(); run killer() }
}
