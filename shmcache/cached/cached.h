/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * obd-cached from inside: what its files share.
 *
 *   create.c     the regions, when the supervisor has none
 *   frames.c     the frame table: transitions, buckets, free list
 *   evict.c      which VALID frame goes next (private memory, rebuilt after a restart)
 *   misses.c     wanted blocks: single flight, waiters, back-off
 *   flows.c      what is queued, by host, priority and image: whose turn is it
 *   link.c       how much to have under way at a host
 *   clients.c    clients' requests: reading them, answering them, holding frames until the answer is consumed
 *   jobs.c       jobs for fetchers: build, issue, settle, take back
 *   breaker.c    layers that fetchers die of
 *   hosts.c      registries: limits, and how they answer
 *   readahead.c  streams
 *   download.c   background downloads
 *   adopt.c      what a restarted cached finds
 *   keeper.c     the disk tier: state, space, a thread (keeper.h)
 *
 * Everything but the keeper's file work is on one thread. A miss lives while somebody waits for the block or it is being
 * fetched:
 *
 *   QUEUED -> INFLIGHT -> (VALID: waiters told, miss gone)
 *      ^         | transient failure
 *      |         v
 *      +----- BACKOFF            final failure: waiters told, miss gone
 *
 * If cached dies: all private memory is gone. The table's FILLING frames and live jobs are adopted, requests are read again
 * from the clients' tables, and everything here grows anew (adopt.c).
 */
#ifndef OBD_SHMCACHE_CACHED_CACHED_H
#define OBD_SHMCACHE_CACHED_CACHED_H

#include "common/base/list.h"
#include "common/daemon/daemon.h"
#include "shmcache/cached/link.h"
#include "shmcache/catalog.h"
#include "shmcache/lookup.h"
#include "shmcache/ring.h"
#include "shmcache/segment.h"

/* In order of service: OBD_PRIO_TABLE. */
enum prio { PRIO_DEMAND, PRIO_READAHEAD, PRIO_PREFETCH, PRIO_DOWNLOAD, PRIOS };
_Static_assert((int)PRIOS == (int)OBD_PRIOS && (int)PRIO_DOWNLOAD == (int)OBD_PRIO_DOWNLOAD, "the table's order");

enum miss_state { MISS_NEW, MISS_QUEUED, MISS_INFLIGHT, MISS_BACKOFF, MISS_SUSPECT };

/* In hand at so many deaths of fetchers, a block is queued as a suspect: it is fetched alone. */
enum { OBD_SUSPECT_AFTER = 2 };

/* One wanted block, or one wanted probe (kind PROBE: no key, never in the hash). */
struct miss {
	struct obd_list link;  /* a flow's queue, the suspects, or the back-off list */
	struct obd_list waits; /* struct wait, by in_miss */
	struct miss *hash_next;
	struct flow *in; /* QUEUED */
	uint64_t key;
	uint64_t due_ns; /* BACKOFF */
	uint64_t host_hash;
	uint32_t layer_slot;
	uint32_t layer_uid;
	uint32_t block;
	uint32_t frame; /* INFLIGHT: OBD_NO_FRAME for probes */
	uint16_t fetcher;
	uint16_t job;
	uint8_t job_bit;
	uint8_t attempts;
	uint8_t doubts;	   /* definite failures that were not believed yet */
	uint32_t retry_ms; /* what the registry asked for with the last failure */
	uint8_t kind;	   /* enum obd_job_kind */
	uint8_t state;
	uint8_t prio;
	uint32_t flow;	      /* who asked for it first, or most urgently: client << 16 | number */
	uint32_t cost;	      /* bytes it will take on the wire, about */
	struct obd_part part; /* what of the block is to be fetched; INFLIGHT: what is being fetched */
	uint8_t deaths;	      /* of fetchers that had it in hand */
	uint8_t alone_deaths; /* of them with nothing else in hand */
	bool mark;	      /* readahead goes on when a reader comes to this block */
};

/* One request of a client that is not answered yet. */
struct request {
	struct obd_list link;  /* client's active requests, oldest first */
	struct obd_list waits; /* by in_req */
	uint64_t seq;
	uint64_t posted_ns;
	uint32_t npins;
	uint32_t pins[OBD_REQ_BLOCKS];
	uint16_t slot;
	uint8_t client;
	bool active;
};

/* A request waits for a miss. */
struct wait {
	struct obd_list in_miss;
	struct obd_list in_req;
	struct miss *miss;
	struct request *req;
	struct obd_part need;
};

struct hold {
	uint64_t upto; /* released when the client's answers tail passed this */
	uint32_t frame;
};

struct client {
	bool up;
	bool wake;
	bool rescan;
	uint64_t incarnation;
	struct obd_list active;
	struct request *req;	       /* [OBD_REQ_SLOTS] */
	struct hold *holds;	       /* circular, hold_cap entries */
	uint64_t hold_head, hold_tail; /* count for ever; hold_cap is no power of two */
	uint32_t hold_cap;
	uint32_t npinned; /* by requests and holds; bounded */
	uint64_t *unsent; /* answers that a full ring did not take */
	uint32_t nunsent;
};

struct job {
	bool live;
	uint8_t kind;
	struct flow *flow; /* it counts for; NULL: adopted */
	struct host *host;
	uint64_t cost;	     /* bytes, about */
	uint64_t issued_ns;  /* 0: adopted, so nobody knows */
	uint64_t host_bytes; /* under way at its host with it */
	uint32_t nblocks;
	uint32_t open_blocks; /* not yet settled */
	uint8_t prio;	      /* of the miss it was issued for */
	bool alone;	      /* a suspect's: its fetcher has nothing else in hand */
	bool adopted;	      /* DOWNLOAD: an earlier cached's, nobody here waits for it */
	struct obd_down_order down;
	struct miss *miss[OBD_JOB_FRAMES];
};

struct fetcher {
	uint32_t live;		      /* jobs */
	uint32_t live_by_prio[PRIOS]; /* of them */
	bool wake;
	struct job job[OBD_JOB_SLOTS];
};

/*
 * What one image wants from one host, while some of it is queued or under way. Its queues are served in turns with those of the
 * host's other flows of the same priority (flows.c).
 */
struct flow {
	struct flow *hash_next;
	struct host *host;
	uint32_t id;	 /* client << 16 | number */
	uint32_t jobs;	 /* under way */
	uint32_t queued; /* misses in all its queues */
	uint32_t frames; /* of its jobs */
	uint64_t bytes;
	struct obd_list queue[PRIOS]; /* struct miss, oldest first */
	struct obd_list turn[PRIOS];  /* in host->turns while the queue is not empty */
	int64_t credit[PRIOS];	      /* bytes it may take before it is another's turn; below 0: it took more */
};

enum { LOCAL_HOST = OBD_HOSTS, FLOW_CHAINS = 256 };
struct host {
	bool local;    /* files: no link, no limit, no row */
	uint64_t hash; /* 0: the slot is free */
	uint64_t used_ns;
	uint64_t gave_up; /* reads that were given up since that was last logged */
	uint64_t gave_up_logged_ns;
	bool down; /* that it does not answer was logged */
	uint32_t jobs;
	uint32_t frames;   /* of its jobs */
	uint32_t low_jobs; /* those that nobody waited for when they were issued */
	uint32_t low_frames;
	uint64_t bytes; /* of its jobs, about */
	uint32_t queued[PRIOS];
	struct obd_list turns[PRIOS]; /* struct flow */
	struct flow nobody;	      /* takes what there is no memory for a flow of its own for */
	struct link link;
};

#define STREAMS 512
struct stream {
	uint64_t used_ns;
	uint32_t client;
	uint32_t flow; /* who read last */
	uint32_t uid;
	uint32_t next;	/* the block after the last one seen */
	uint32_t ahead; /* blocks below this were asked for already */
	uint32_t window;
	uint32_t steps; /* how often in a row it went on */
};

struct evictor;
struct downloads;

struct cached {
	struct obd_daemon *d;
	struct obd_segment seg;
	bool created;
	/* frames.c */
	uint32_t *free_frames;
	uint32_t nfree;
	uint16_t *pins;	       /* per frame */
	struct obd_part *part; /* per VALID or FILLING frame: what it holds of its block */
	uint64_t next_generation;
	struct evictor *ev;
	/* misses.c */
	struct miss **miss_hash;
	uint32_t miss_mask;
	uint32_t nmisses;
	uint32_t nbackoff;
	struct flow *flow_hash[FLOW_CHAINS];
	uint32_t queued[PRIOS];	  /* misses in state QUEUED */
	uint32_t inflight[PRIOS]; /* misses in jobs, by the job's priority */
	struct obd_list backoff;
	struct obd_loop_timer *timer;
	uint64_t alarm_ns; /* when it rings; 0: it does not */
	/* clients.c */
	struct client client[OBD_MAX_CLIENTS];
	uint32_t nwaiting;
	uint32_t npinned; /* by all clients */
	/* jobs.c */
	struct fetcher fetcher[OBD_MAX_FETCHERS];
	struct host host[OBD_HOSTS + 1];
	uint32_t next_host; /* whose turn it is */
	uint64_t pump_ns;   /* the time, while jobs are issued */
	uint32_t max_job_blocks;
	struct obd_list suspects;  /* misses in state SUSPECT, oldest first */
	uint32_t apart;		   /* fetcher + 1 that is kept for them; 0: none */
	uint32_t alone_jobs;	   /* under way; 0 or 1 */
	uint64_t refused_until_ns; /* the last row of layers refused ends then */
	uint64_t random;
	/* readahead.c */
	struct stream stream[STREAMS];
	uint32_t window_blocks;	     /* largest; 0: readahead is off */
	struct obd_keeper *keeper;   /* keeper.c; NULL: no disk tier */
	struct downloads *downloads; /* download.c */
};

/* create.c: makes, fills and deposits every region; on return they are mapped. */
int obd_cached_create(struct cached *c);

/* frames.c */
int obd_frames_init(struct cached *c);
void obd_frames_free(struct cached *c);
void obd_frame_set(struct cached *c, uint32_t f, enum obd_frame_state to); /* asserts that the transition exists */
uint32_t obd_frame_find(struct cached *c, uint64_t key);		   /* a VALID frame or OBD_NO_FRAME */
uint32_t obd_frame_alloc(struct cached *c);				   /* FREE, evicting if need be; or OBD_NO_FRAME */
void obd_frame_fill(struct cached *c, uint32_t f, uint64_t key, uint32_t fetcher, uint32_t job); /* FREE -> FILLING, whole */
bool obd_frame_bind(struct cached *c, uint32_t f, uint64_t key,
		    bool mark);				       /* enters the bucket entry; false: both buckets full */
void obd_frame_drop(struct cached *c, uint32_t f);	       /* any state but FREE -> FREE */
void obd_frame_valid(struct cached *c, uint32_t f, bool mark); /* FILLING -> VALID, bound and evictable */
bool obd_frame_take_mark(struct cached *c, uint64_t key);      /* clears the readahead mark; was there one? */

/* evict.c */
struct evictor *obd_evict_new(uint32_t nframes);
void obd_evict_free(struct evictor *ev);
void obd_evict_insert(struct cached *c, uint32_t f, uint64_t key);
void obd_evict_remove(struct evictor *ev, uint32_t f); /* harmless when f is in no queue */
uint32_t obd_evict_victim(struct cached *c);	       /* removed from its queue; OBD_NO_FRAME: none can go */

/* misses.c */
int obd_misses_init(struct cached *c);
void obd_misses_free(struct cached *c); /* all requests are gone already */
struct miss *obd_miss_find(struct cached *c, uint64_t key);
struct miss *obd_miss_new(struct cached *c, enum obd_job_kind kind, uint32_t layer_slot, uint32_t uid, uint32_t block,
			  enum prio prio, uint32_t flow);
void obd_miss_place(struct cached *c, struct miss *m, const struct obd_layer_brief *layer); /* its host and cost */
void obd_miss_grow(struct cached *c, struct miss *m, struct obd_part part,
		   const struct obd_layer_brief *layer);				/* not INFLIGHT */
void obd_miss_promote(struct cached *c, struct miss *m, enum prio prio, uint32_t flow); /* one more waits: never sinks */
void obd_miss_left(struct cached *c, struct miss *m); /* one waits no more; the last one takes what is not under way with it */
void obd_miss_queue(struct cached *c, struct miss *m, bool front);
void obd_miss_unlink(struct cached *c, struct miss *m); /* out of whatever list its state has it in: NEW again */
void obd_miss_served(struct cached *c, struct miss *m, uint32_t frame); /* VALID (or a probe that succeeded): tell, free */
void obd_miss_failed(struct cached *c, struct miss *m, int err);	/* back-off, or tell and free */
bool obd_miss_transient(int err);
void obd_misses_turn(struct cached *c);			  /* back-off times that have come */
void obd_misses_alarm(struct cached *c, uint64_t due_ns); /* a turn by then; never puts one off */

/* The indexer's requests (client 0) are one party at a link, since the layers of one image do not compete with each other. */
enum { FLOW_METADATA = 0 };
static inline uint32_t obd_flow_who(uint32_t id)
{
	return id >> 16 ? id : FLOW_METADATA;
}

/* flows.c */
void obd_flows_init(struct cached *c);
void obd_flows_free(struct cached *c);
void obd_flow_push(struct cached *c, struct miss *m, bool front);
void obd_flow_pull(struct cached *c, struct miss *m);
void obd_flow_put(struct cached *c, struct flow *f); /* frees it when nothing of it is queued or under way */
/* Whose turn it is at h, of those that `may` (room in bytes, 0: not now); its oldest miss, and the room in *room. NULL:
 * nobody's. */
typedef uint64_t obd_flow_may_fn(struct cached *c, const struct flow *f, enum prio prio);
struct miss *obd_flow_next(struct cached *c, struct host *h, enum prio prio, obd_flow_may_fn *may, uint64_t *room);
void obd_flow_charge(struct flow *f, enum prio prio, uint64_t bytes);

/* clients.c */
int obd_client_up(struct cached *c, uint32_t id, uint64_t incarnation);
void obd_client_down(struct cached *c, uint32_t id);
bool obd_clients_poll(struct cached *c);
bool obd_clients_have_work(struct cached *c);
void obd_clients_wake(struct cached *c);
void obd_clients_expire(struct cached *c); /* readTimeoutSec */
void obd_client_scan(struct cached *c, uint32_t id);
void obd_request_done_wait(struct cached *c, struct wait *w, uint32_t frame, int err); /* frees w */

/* jobs.c */
void obd_jobs_init(struct cached *c);
bool obd_jobs_poll(struct cached *c); /* reports */
bool obd_jobs_have_work(struct cached *c);
void obd_jobs_pump(struct cached *c); /* queue -> jobs */
void obd_jobs_wake(struct cached *c);
void obd_jobs_reaped(struct cached *c, uint32_t fetcher, uint32_t incarnation);
void obd_job_demand(struct cached *c, struct miss *m); /* a waiter joined an INFLIGHT miss */
void obd_job_adopt(struct cached *c, uint32_t fetcher, uint32_t slot);
void obd_job_ring(struct cached *c, uint32_t fetcher, uint32_t slot);
void obd_jobs_settle(struct cached *c, uint32_t fetcher, uint32_t slot);

/* breaker.c */
void obd_breaker_init(struct cached *c);
bool obd_breaker_refuses(struct cached *c, uint32_t layer_uid);
/* A fetcher died that had m in hand. True: m's layer is refused (which all of it that nobody has in hand was told). */
bool obd_breaker_died(struct cached *c, struct miss *m, bool alone);

/* hosts.c */
void obd_hosts_init(struct cached *c);
struct host *obd_host(struct cached *c, const struct miss *m); /* its slot, taken if need be; local files have one too */
struct host *obd_host_known(struct cached *c, uint64_t hash);  /* NULL: it has no slot */
void obd_host_jobs(struct cached *c, const struct host *h);    /* h->jobs changed */
void obd_host_answered(struct cached *c, struct host *h);
void obd_host_failed(struct cached *c, struct host *h, int err, const char reason[OBD_REASON_BYTES]);
bool obd_host_answers(struct cached *c, uint64_t hash);			    /* did it, within the last seconds? */
void obd_host_gave_up(struct cached *c, uint64_t hash, uint64_t waited_ns); /* a read of it timed out: says so in the log */

/* A step of a download becomes a job. False: not now. */
struct obd_down_from {
	uint32_t layer_slot;
	uint32_t layer_uid;
	uint64_t host_hash;
	uint64_t under_way_bytes; /* of all downloads */
	bool patient;		  /* waited long for others to leave something */
};
bool obd_job_download(struct cached *c, const struct obd_down_order *order, const struct obd_down_from *from);

/* download.c */
int obd_downloads_init(struct cached *c); /* adopts the table's rows */
void obd_downloads_free(struct cached *c);
void obd_downloads_tick(struct cached *c); /* once per second: looks at the wants */
void obd_downloads_turn(struct cached *c);

/* The step is over: err 0 or a positive errno. result NULL: its fetcher died. reason is terminated. */
void obd_download_settled(struct cached *c, const struct obd_down_order *order, int err, const struct obd_down_result *result,
			  const char *reason);

/* readahead.c */
void obd_readahead_miss(struct cached *c, uint32_t flow, uint32_t layer_slot, uint32_t uid, uint32_t block, uint32_t nblocks);
void obd_readahead_hint(struct cached *c, uint32_t client, uint32_t layer_slot, uint32_t block);

/* adopt.c */
void obd_cached_adopt(struct cached *c);

#endif
