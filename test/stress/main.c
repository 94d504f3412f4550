/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The supervisor: starts everybody, ends somebody at random, waits for the body, tells cached, starts the next one. The order
 * of messages is that of supervisor/group.c and clients.c.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "test/stress/stress.h"

/* --- actors --------------------------------------------------------------------------------------------------------------- */

static void *thread_main(void *arg)
{
	struct stress_actor *a = arg;
	a->run(a);
	return NULL;
}

static void actor_start(struct stress_actor *a)
{
	a->seed = stress_random(&a->w->rnd);
	a->up = true;
	atomic_store(&a->stop, false);
	if (!a->w->opt.processes) {
		if (pthread_create(&a->thread, NULL, thread_main, a))
			stress_fail("pthread_create");
		return;
	}
	a->pid = fork();
	if (a->pid < 0)
		stress_fail("fork: %s", strerror(errno));
	if (a->pid == 0) {
		a->run(a);
		_exit(0);
	}
}

static void ring_all(struct stress_world *w)
{
	uint64_t one = 1;
	for (uint32_t i = 0; i < w->opt.fetchers; i++)
		(void)!write(w->seg.bell_fetcher[i], &one, sizeof one);
	for (uint32_t i = 1; i <= w->opt.readers; i++)
		(void)!write(w->seg.bell_client[i], &one, sizeof one);
	(void)!write(w->seg.bell_cached, &one, sizeof one);
}

static void wait_process(struct stress_actor *a)
{
	int status;
	if (waitpid(a->pid, &status, 0) != a->pid)
		stress_fail("waitpid: %s", strerror(errno));
	if ((WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL) || (WIFEXITED(status) && WEXITSTATUS(status)))
		stress_fail("process %d ended with status %#x", (int)a->pid, (unsigned int)status);
}

/* On return it writes nothing any more. */
static void actor_end(struct stress_actor *a)
{
	if (!a->up)
		return;
	if (a->w->opt.processes) {
		kill(a->pid, SIGKILL);
		wait_process(a);
	} else {
		atomic_store(&a->stop, true);
		ring_all(a->w);
		pthread_join(a->thread, NULL);
	}
	a->up = false;
}

/* --- messages ------------------------------------------------------------------------------------------------------------- */

static void tell(struct stress_world *w, enum obd_msg_type type, uint32_t index, uint64_t arg)
{
	struct stress_msg m = {.type = type, .index = index, .arg = arg};
	if (w->cached.up && send(w->sock, &m, sizeof m, MSG_NOSIGNAL) != (ssize_t)sizeof m)
		stress_fail("message to cached: %s", strerror(errno));
}

static void tell_up(struct stress_world *w, uint32_t id)
{
	w->client[id].held = w->cached.up;
	tell(w, OBD_MSG_CLIENT_UP, id, w->client[id].actor.incarnation);
}

/* The number is free: a fresh area and the next reader, which may attach before cached hears of it. */
static void client_start(struct stress_world *w, uint32_t id)
{
	struct stress_client *cl = &w->client[id];
	memset((void *)w->seg.client[id], 0, w->seg.geo.client_bytes);
	cl->down = false;
	cl->actor.incarnation++;
	bool first = stress_random(&w->rnd) & 1;
	if (first)
		actor_start(&cl->actor);
	tell_up(w, id);
	if (!first)
		actor_start(&cl->actor);
}

static void client_end(struct stress_world *w, uint32_t id)
{
	struct stress_client *cl = &w->client[id];
	if (cl->down)
		return;
	actor_end(&cl->actor);
	cl->down = true;
	if (cl->held)
		tell(w, OBD_MSG_CLIENT_DOWN, id, cl->actor.incarnation);
	else
		client_start(w, id);
}

static void hear(struct stress_world *w)
{
	struct stress_msg m;
	while (recv(w->sock, &m, sizeof m, MSG_DONTWAIT) == (ssize_t)sizeof m) {
		if (m.type != OBD_MSG_CLIENT_GONE || !w->client[m.index].down)
			stress_fail("cached lets go of client %u", m.index);
		w->client[m.index].held = false;
		client_start(w, m.index);
	}
}

/* --- deaths --------------------------------------------------------------------------------------------------------------- */

static void cached_start(struct stress_world *w)
{
	int pair[2];
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		stress_fail("socketpair: %s", strerror(errno));
	w->sock = pair[0];
	w->cached.sock = pair[1];
	actor_start(&w->cached);
	for (uint32_t i = 0; i < w->opt.fetchers; i++)
		if (w->fetcher[i].incarnation > 0)
			tell(w, OBD_MSG_REAPED, i, w->fetcher[i].incarnation - 1);
	for (uint32_t id = 1; id <= w->opt.readers; id++)
		if (w->client[id].actor.up)
			tell_up(w, id);
}

static void cached_end(struct stress_world *w)
{
	hear(w);
	actor_end(&w->cached);
	close(w->sock);
	close(w->cached.sock);
	w->cached.incarnation++;
	stress_audit_table(&w->seg);
	for (uint32_t id = 1; id <= w->opt.readers; id++) {
		w->client[id].held = false;
		if (w->client[id].down)
			client_start(w, id);
	}
}

static void fetcher_end(struct stress_world *w, uint32_t i)
{
	struct stress_actor *a = &w->fetcher[i];
	if (!a->up)
		return;
	actor_end(a);
	for (uint32_t f = 0; f < w->seg.geo.nframes; f++) {
		uint32_t me = i + 1;
		atomic_compare_exchange_strong(&w->sh->writer[f], &me, 0);
	}
	tell(w, OBD_MSG_REAPED, i, a->incarnation++);
	if (stress_random(&w->rnd) % 8 == 0)
		tell(w, OBD_MSG_REAPED, i, a->incarnation - 1);
}

static void restart_cached(struct stress_world *w)
{
	cached_end(w);
	if (stress_random(&w->rnd) & 1) /* somebody else dies meanwhile */
		fetcher_end(w, (uint32_t)(stress_random(&w->rnd) % w->opt.fetchers));
	if (stress_random(&w->rnd) & 1)
		client_end(w, 1 + (uint32_t)(stress_random(&w->rnd) % w->opt.readers));
	usleep((useconds_t)(stress_random(&w->rnd) % 20000));
	cached_start(w);
}

static void restart_fetchers(struct stress_world *w)
{
	for (uint32_t i = 0; i < w->opt.fetchers; i++)
		if (!w->fetcher[i].up && stress_random(&w->rnd) % 2)
			actor_start(&w->fetcher[i]);
}

static void harm(struct stress_world *w, uint32_t *uid)
{
	switch (stress_random(&w->rnd) % 16) {
	case 0:
		restart_cached(w);
		break;
	case 1:
	case 2:
		fetcher_end(w, (uint32_t)(stress_random(&w->rnd) % w->opt.fetchers));
		break;
	case 3:
		client_end(w, 1 + (uint32_t)(stress_random(&w->rnd) % w->opt.readers));
		break;
	case 4:
		++*uid;
		stress_layer_put(w, *uid % STRESS_LAYERS, *uid);
		break;
	default:
		break;
	}
	restart_fetchers(w);
}

/* --- the run -------------------------------------------------------------------------------------------------------------- */

static void start(struct stress_world *w)
{
	w->cached = (struct stress_actor){.w = w, .run = stress_cached_run};
	cached_start(w);
	for (uint32_t i = 0; i < w->opt.fetchers; i++) {
		w->fetcher[i] = (struct stress_actor){.w = w, .run = stress_fetch_run, .index = i};
		actor_start(&w->fetcher[i]);
	}
	for (uint32_t id = 1; id <= w->opt.readers; id++) {
		w->client[id].actor = (struct stress_actor){.w = w, .run = stress_read_run, .index = id};
		client_start(w, id);
	}
}

static void run(struct stress_world *w)
{
	uint64_t end = obd_clock_ns() + w->opt.seconds * OBD_SECOND_NS;
	uint32_t uid = STRESS_LAYERS;
	while (obd_clock_ns() < end) {
		usleep((useconds_t)(1000 + stress_random(&w->rnd) % 20000));
		hear(w);
		if (!w->opt.quiet)
			harm(w, &uid);
	}
}

/* Nobody is harmed any more: what is under way must come to its end. */
static void finish(struct stress_world *w)
{
	for (uint32_t i = 0; i < w->opt.fetchers; i++)
		if (!w->fetcher[i].up)
			actor_start(&w->fetcher[i]);
	atomic_store(&w->sh->finish, true);
	for (uint32_t id = 1; id <= w->opt.readers; id++) {
		struct stress_actor *a = &w->client[id].actor;
		if (!a->up)
			continue;
		if (w->opt.processes)
			wait_process(a);
		else
			pthread_join(a->thread, NULL);
		a->up = false;
	}
	actor_end(&w->cached);
	for (uint32_t i = 0; i < w->opt.fetchers; i++)
		actor_end(&w->fetcher[i]);
	close(w->sock);
	close(w->cached.sock);
}

/* The next cached finds fetchers that are dead, and in the end a cache that can be emptied. */
static void last_look(struct stress_world *w)
{
	struct obd_daemon d = {.loop = obd_loop_new(), .config = &w->cfg};
	stress_audit_table(&w->seg);
	struct cached *c = stress_cached_new(w, &d);
	stress_audit_cached(c);
	for (uint32_t i = 0; i < w->opt.fetchers; i++)
		obd_jobs_reaped(c, i, w->fetcher[i].incarnation);
	stress_audit_cached(c);
	stress_audit_evictor(c);
	stress_audit_cached(c);
	stress_cached_free(c);
	obd_loop_free(d.loop);
}

static void report(const struct stress_world *w)
{
	const struct stress_shared *s = w->sh;
	const struct obd_proc *p = &w->seg.table->proc;
	printf("stress: seed %llu: %llu reads, %llu blocks compared, %llu filled, %llu evicted, %llu evicted early, "
	       "%llu joins, %llu retries, %llu errors, %llu given up, %u lives of cached, %llu protocol errors\n",
	       (unsigned long long)w->opt.seed, (unsigned long long)s->ops, (unsigned long long)s->verified,
	       (unsigned long long)s->fills, (unsigned long long)obd_load_relaxed(&p->counters[OBD_C_evictions]),
	       (unsigned long long)s->evicted_early, (unsigned long long)obd_load_relaxed(&p->counters[OBD_C_joins]),
	       (unsigned long long)obd_load_relaxed(&p->counters[OBD_C_retries]), (unsigned long long)s->errors,
	       (unsigned long long)s->cancels, (unsigned int)s->adoptions,
	       (unsigned long long)obd_load_relaxed(&p->counters[OBD_C_protocol_errors]));
}

static uint32_t number(const char *text, uint32_t least, uint32_t most)
{
	char *end;
	unsigned long v = strtoul(text, &end, 10);
	if (*end || v < least || v > most)
		stress_fail("%s: %u to %u expected", text, least, most);
	return (uint32_t)v;
}

static void options(struct stress_options *o, int argc, char **argv)
{
	int opt;
	while ((opt = getopt(argc, argv, "t:s:r:f:n:b:kq")) != -1)
		switch (opt) {
		case 't':
			o->seconds = number(optarg, 1, 1000000);
			break;
		case 's':
			o->seed = strtoull(optarg, NULL, 0);
			break;
		case 'r':
			o->readers = number(optarg, 1, STRESS_READERS_MAX);
			break;
		case 'f':
			o->fetchers = number(optarg, 1, STRESS_FETCHERS_MAX);
			break;
		case 'n':
			o->frames = number(optarg, 8, 1u << 20);
			break;
		case 'b':
			o->blocks = number(optarg, 1, 31);
			break;
		case 'k':
			o->processes = true;
			break;
		case 'q':
			o->quiet = true;
			break;
		default:
			fprintf(stderr, "obd-stress [-t seconds] [-s seed] [-r readers] [-f fetchers] [-n frames] "
					"[-b blocks] [-k: processes] [-q: nobody dies]\n");
			exit(2);
		}
}

static void live(struct stress_world *w)
{
	start(w);
	run(w);
	finish(w);
	last_look(w);
	report(w);
}

int main(int argc, char **argv)
{
	struct stress_world *w = calloc(1, sizeof *w);
	if (!w || obd_config_defaults(&w->cfg))
		return 1;
	w->opt = (struct stress_options){.seconds = 5, .seed = 1, .readers = 4, .fetchers = 2, .frames = 64, .blocks = 12};
	options(&w->opt, argc, argv);
	w->rnd = w->opt.seed;
	signal(SIGPIPE, SIG_IGN);
	stress_segment_make(w);
	live(w);
	obd_segment_close(&w->seg);
	obd_config_free(&w->cfg);
	free(w);
	return 0;
}
