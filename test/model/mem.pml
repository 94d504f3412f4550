/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Memory with store buffers.
 *
 * Each role has a processor of its own. A store goes into that processor's buffer and becomes visible to everybody else in a
 * step of its own, later. Stores to different places become visible in any order, but for what C11 promises:
 *
 *   relaxed(p, l, v)       may pass, and be passed by, stores to other places
 *   release(p, l, v)       becomes visible after everything that was stored before it; what is stored later may pass it
 *   release_fence(p)       nothing that is stored later becomes visible before anything that was stored earlier
 *   full_fence(p)          waits until the buffer is empty: what is loaded later is younger than what was stored earlier
 *   drained(p)             nothing is under way: true of a process that the kernel has reaped
 *
 * A load takes mem[l] in one step. Nobody here loads what it stores itself, so nothing has to be forwarded. Loads happen in
 * program order, which is what acquire loads and acquire fences give; where the code has none, the models load in both orders.
 * A killed process's stores still become visible.
 *
 * The model defines CPUS, PLACES and DEPTH (3 at most) before it includes this.
 */
#define FENCE 255

typedef store_buffer {
	byte n;
	byte place[DEPTH];
	byte val[DEPTH];
	bit rel[DEPTH]
}

byte mem[PLACES];
store_buffer sb[CPUS];

inline buffered(p, l, v, r)
{
	atomic {
		sb[p].n < DEPTH;
		sb[p].place[sb[p].n] = l;
		sb[p].val[sb[p].n] = v;
		sb[p].rel[sb[p].n] = r;
		sb[p].n++
	}
}

#define relaxed(p, l, v) buffered(p, l, v, 0)
#define release(p, l, v) buffered(p, l, v, 1)
#define release_fence(p) \
	if \
	:: sb[p].n > 0 -> buffered(p, FENCE, 0, 0) \
	:: else \
	fi
#define drained(p) (sb[p].n == 0)
#define full_fence(p) drained(p)

#define first_may(p) (sb[p].n > 0)
#define second_may(p) \
	(sb[p].n > 1 && !sb[p].rel[1] && sb[p].place[0] != FENCE && sb[p].place[1] != FENCE && sb[p].place[0] != sb[p].place[1])
#define third_may(p) \
	(sb[p].n > 2 && !sb[p].rel[2] && sb[p].place[0] != FENCE && sb[p].place[1] != FENCE && sb[p].place[2] != FENCE && \
	 sb[p].place[0] != sb[p].place[2] && sb[p].place[1] != sb[p].place[2])

/* What leaves the buffer is set to 0, so that equal states look equal. */
inline leave(p, i)
{
	if
	:: sb[p].place[i] != FENCE -> mem[sb[p].place[i]] = sb[p].val[i]
	:: else
	fi;
	j = i;
	do
	:: j + 1 < sb[p].n ->
		sb[p].place[j] = sb[p].place[j + 1];
		sb[p].val[j] = sb[p].val[j + 1];
		sb[p].rel[j] = sb[p].rel[j + 1];
		j++
	:: else -> break
	od;
	sb[p].n--;
	sb[p].place[sb[p].n] = 0;
	sb[p].val[sb[p].n] = 0;
	sb[p].rel[sb[p].n] = 0;
	j = 0
}

active [CPUS] proctype processor()
{
	byte me = _pid;
	byte j;
end:
	do
	:: d_step { first_may(me) -> leave(me, 0) }
	:: d_step { second_may(me) -> leave(me, 1) }
#if DEPTH > 2
	:: d_step { third_may(me) -> leave(me, 2) }
#endif
	od
}
