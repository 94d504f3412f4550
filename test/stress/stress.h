/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A whole group around obd-cached, in one program: readers, fetchers and cached are threads, or with -k processes that are
 * ended by SIGKILL. The main thread is a small supervisor that ends them at random, tells the others as the real one does, and
 * starts them again. It is the indexer too: layers are replaced by others in the same slot.
 *
 * Every byte of a block follows from its layer's uid and its place, so a reader knows what it must see. Whoever sees what
 * must not be calls stress_fail, which ends the program.
 */
#ifndef OBD_TEST_STRESS_H
#define OBD_TEST_STRESS_H

#include <pthread.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/config/config.h"
#include "shmcache/cached/cached.h"
#include "shmcache/segment.h"

enum {
	STRESS_LAYERS = 4,
	STRESS_BLOCK = 16384,
	STRESS_FILE = 45 * STRESS_BLOCK + 4096, /* of a layer: the last block is short */
	STRESS_BLOB = 20 * STRESS_BLOCK + 8 * 77,
	STRESS_READERS_MAX = 32,
	STRESS_FETCHERS_MAX = 8,
};

struct stress_options {
	unsigned int seconds;
	uint64_t seed;
	uint32_t readers;
	uint32_t fetchers;
	uint32_t frames;
	uint32_t blocks; /* of a read, at most */
	bool processes;
	bool quiet; /* nobody is ended, and nobody gives up */
};

/* What a message between the supervisor and cached says; the names are those of common/daemon/wire.h. */
struct stress_msg {
	uint32_t type;
	uint32_t index;
	uint64_t arg;
};

/* Shared by all threads and processes. */
struct stress_shared {
	_Atomic bool finish; /* readers end with what they are at */
	_Atomic uint64_t ops, verified, evicted_early, errors, fills, adoptions, cancels;
	_Atomic uint32_t writer[]; /* per frame: 1 + the fetcher that writes it */
};

/* One thread or process. */
struct stress_actor {
	struct stress_world *w;
	void (*run)(struct stress_actor *a);
	uint32_t index;
	uint32_t incarnation;
	uint64_t seed;
	bool up;
	_Atomic bool stop; /* threads only */
	pthread_t thread;
	pid_t pid;
	int sock; /* cached's end */
};

struct stress_client {
	struct stress_actor actor;
	bool down; /* dead, and cached has not let go of it */
	bool held;
};

struct stress_world {
	struct stress_options opt;
	struct obd_config cfg;
	struct obd_segment seg;
	struct stress_shared *sh;
	struct stress_actor cached;
	struct stress_actor fetcher[STRESS_FETCHERS_MAX];
	struct stress_client client[STRESS_READERS_MAX + 1]; /* by client id; 0 is nobody */
	int sock;					     /* to cached */
	uint64_t rnd;
};

/* segment.c */
void stress_segment_make(struct stress_world *w);
void stress_layer_put(struct stress_world *w, uint32_t slot, uint32_t uid);
uint32_t stress_layer_uid(const struct stress_world *w, uint32_t slot); /* 0: the slot is free */
uint64_t stress_pattern(uint32_t uid, bool raw, uint64_t at);		/* the 8 bytes at offset `at` of the file or blob */
/* Where a block's or chunk's bytes lie in the file or blob; false: there is no such block. */
bool stress_range(bool raw, uint32_t block, uint64_t *start, uint64_t *end);
uint64_t stress_random(uint64_t *state);
_Noreturn void stress_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* cached.c, fetch.c, read.c: lives of the actors; each returns when it is told to stop */
void stress_cached_run(struct stress_actor *a);
void stress_fetch_run(struct stress_actor *a);
void stress_read_run(struct stress_actor *a);
struct cached *stress_cached_new(struct stress_world *w, struct obd_daemon *d);
void stress_cached_free(struct cached *c);

/* audit.c */
void stress_audit_table(const struct obd_segment *seg); /* what a dead cached leaves, at whatever instruction it died */
void stress_audit_cached(struct cached *c);		/* between two turns: every frame is in one state and one place */
void stress_audit_evictor(struct cached *c);		/* every VALID frame can be evicted; leaves the cache empty */

static inline bool stress_stopped(struct stress_actor *a)
{
	return obd_load_relaxed(&a->stop);
}

#endif
