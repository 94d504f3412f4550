/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What lies where in the shared segment. Data only; the protocol is doc/architecture.md, section 4, and the names of states and
 * edges are those of its tables.
 *
 * Every struct here is in memory that another process may write at any time, and a hostile one may write anything. Multi-byte
 * fields are read once into a local, checked, then used. A region's writer is named above its struct; "own" words are that
 * writer's, everybody else has them read-only.
 */
#ifndef OBD_SHMCACHE_LAYOUT_H
#define OBD_SHMCACHE_LAYOUT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/atomic.h"
#include "common/daemon/wire.h"

#define OBD_SEG_MAGIC UINT64_C(0x3153444b434f4c42) /* "BLOCKDS1" */
#define OBD_SEG_VERSION 12u

#define OBD_RING_ENTRIES 8192u	/* power of two; twice the request slots, so that a ring is never full of live requests */
#define OBD_REQ_SLOTS 4096u	/* read requests under way per client */
#define OBD_OPEN_SLOTS 512u	/* images open at once per client */
#define OBD_WANT_SLOTS 2048u	/* layers to be downloaded, or downloaded, at once */
#define OBD_DIR_BYTES 1024u	/* of the directory that a layer is downloaded to */
#define OBD_JOB_SLOTS 64u	/* jobs under way per fetcher */
#define OBD_JOB_FRAMES 64u	/* blocks per job */
#define OBD_REQ_BLOCKS 64u	/* blocks per request */
#define OBD_LAYER_SLOTS 4096u	/* layers known at once */
#define OBD_IMAGE_SLOTS 1024u	/* distinct layer lists open at once */
#define OBD_UPPER_SLOTS 1024u	/* writable devices open at once */
#define OBD_UP_SLOTS 256u	/* upper requests under way per client; each has a buffer in either direction */
#define OBD_UP_BUF_BYTES 65536u /* bytes a write or an upper read moves at most */
#define OBD_IMAGE_LAYERS 255u	/* layers per image */
#define OBD_BUCKET_WAYS 8u
#define OBD_PATH_BYTES 4096u
#define OBD_URL_BYTES 2048u
#define OBD_HOST_BYTES 256u
#define OBD_DIGEST_BYTES 72u /* "sha256:" and 64 hex digits and NUL */
#define OBD_REASON_BYTES 256u
#define OBD_RAW_HEAD_BYTES 4096u
#define OBD_TOKEN_SLOTS 512u	  /* tokens of registries held at once */
#define OBD_TOKEN_KEY_BYTES 1440u /* registry and repository */
#define OBD_TOKEN_BYTES 8192u
#define OBD_TOKEN_ORIGIN_BYTES 2400u /* where a new one is got */
#define OBD_CACHE_LINE 64
#define OBD_COUNTERS 96
#define OBD_REFUSED 16 /* layers refused at once */
#define OBD_HOSTS 64   /* registries with a row of their own */

#define OBD_LINE_ALIGNED __attribute__((aligned(OBD_CACHE_LINE)))

/* --- keys ------------------------------------------------------------------------------------------------------------- */

/* A block's key: layer uid << 32 | raw << 31 | number. uid 0 is no layer, so key 0 is no block. */
#define OBD_KEY_RAW UINT64_C(0x80000000)
#define OBD_KEY_MAX_BLOCK UINT32_C(0x7fffffff)

static inline uint64_t obd_key(uint32_t uid, bool raw, uint32_t block)
{
	return (uint64_t)uid << 32 | (raw ? OBD_KEY_RAW : 0) | block;
}

/* Bytes [begin, end) of a block. end 0: all of it, and then begin is 0. All zero: the whole block. */
struct obd_part {
	uint32_t begin;
	uint32_t end;
};

static inline bool obd_part_is_whole(struct obd_part p)
{
	return p.end == 0;
}

static inline bool obd_part_covers(struct obd_part have, struct obd_part need)
{
	return have.end == 0 || (need.end != 0 && have.begin <= need.begin && need.end <= have.end);
}

static inline struct obd_part obd_part_make(uint32_t begin, uint32_t end, uint32_t block_bytes)
{
	return begin == 0 && end == block_bytes ? (struct obd_part){0, 0} : (struct obd_part){begin, end};
}

/* The smallest part that covers both. */
static inline struct obd_part obd_part_hull(struct obd_part a, struct obd_part b, uint32_t block_bytes)
{
	if (a.end == 0 || b.end == 0)
		return (struct obd_part){0, 0};
	return obd_part_make(a.begin < b.begin ? a.begin : b.begin, a.end > b.end ? a.end : b.end, block_bytes);
}

/* Of bytes [begin, end) of a run of n blocks (end in the last one, 0: its end): the part of block i. */
static inline struct obd_part obd_part_of(uint32_t begin, uint32_t end, uint32_t i, uint32_t n, uint32_t block_bytes)
{
	return obd_part_make(i == 0 ? begin : 0, i + 1 == n && end ? end : block_bytes, block_bytes);
}

/* --- words that carry a state: sequence or generation above, state in the low byte ------------------------------------ */

static inline uint64_t obd_word(uint64_t seq, unsigned int state)
{
	return seq << 8 | state;
}

static inline uint64_t obd_word_seq(uint64_t word)
{
	return word >> 8;
}

static inline unsigned int obd_word_state(uint64_t word)
{
	return (unsigned int)(word & 0xff);
}

/* --- process row: the first thing in table, catalog, every fetcher area and every client area ------------------------- */

/*
 * Counters of a process: one table, from which obd-stat and the documentation derive. X(name, text)
 * Only the owner of the row adds to them (obd_counter_add).
 */
#define OBD_COUNTER_TABLE(X)                                                                               \
	X(requests, "requests served (cached), commands read (frontend), opens (indexer), jobs (fetcher)") \
	X(hits, "blocks found in the cache by this reader")                                                \
	X(misses, "blocks this reader had to ask for")                                                     \
	X(bytes_read, "bytes copied to this reader")                                                       \
	X(joins, "misses that joined a fill under way (single flight)")                                    \
	X(fills, "blocks filled")                                                                          \
	X(fill_errors, "blocks that failed for good")                                                      \
	X(retries, "blocks asked for again after a transient failure")                                     \
	X(evictions, "blocks evicted")                                                                     \
	X(readahead, "blocks fetched ahead of demand")                                                     \
	X(readahead_used, "readahead windows that a reader came to")                                       \
	X(jobs, "jobs given to fetchers")                                                                  \
	X(wakeups, "doorbells rung")                                                                       \
	X(late_wakeups, "work found by the second look only; stays 0")                                     \
	X(protocol_errors, "impossible values read from another process's region")                         \
	X(bytes_fetched, "body bytes received from registries")                                            \
	X(bytes_local, "bytes read from local layer files")                                                \
	X(http_requests, "HTTP requests sent")                                                             \
	X(connections, "connections opened to registries")                                                 \
	X(err_connect, "connects that failed or timed out")                                                \
	X(err_timeout, "transfers that stalled")                                                           \
	X(err_http_4xx, "answers 4xx")                                                                     \
	X(err_http_5xx, "answers 5xx")                                                                     \
	X(err_protocol, "answers with wrong length, range or shape, and broken transfers")                 \
	X(err_corrupt, "blocks whose CRC or compression was wrong")                                        \
	X(err_io, "local files that could not be read")                                                    \
	X(opens_failed, "opens that failed")                                                               \
	X(io_errors, "commands answered with an error")                                                    \
	X(raw_reuse_bytes, "compressed bytes taken from the cache instead of being fetched again")         \
	X(writes, "writes to upper layers")                                                                \
	X(bytes_written, "bytes of these writes")                                                          \
	X(discards, "discards in upper layers")                                                            \
	X(syncs, "syncs of upper layers")                                                                  \
	X(upper_reads, "reads of upper layers' data")                                                      \
	X(downloads, "layers downloaded in the background")                                                \
	X(download_bytes, "bytes written by background downloads")                                         \
	X(download_errors, "tries of background downloads that failed, and wants that could not be noted") \
	X(download_mismatches, "downloaded layers that were not what their digest says")                   \
	X(download_fallbacks, "reads of downloaded layers that went to the registry all the same")         \
	X(touches, "blocks that a recording device read for the first time")                               \
	X(touches_dropped, "first reads that a recording misses: the indexer did not keep up")             \
	X(trace_records, "records written to trace files")                                                 \
	X(prefetch_asked, "blocks asked for by traces and for file systems' metadata")                     \
	X(prefetch_skipped, "blocks of these that were in the cache already")                              \
	X(prefetch_failed, "blocks of these that could not be had")                                        \
	X(auth_requests, "requests to token and credential services")                                      \
	X(auth_refused, "requests that a registry refused for want of authorization (401, 403)")           \
	X(disk_hits, "units taken from the disk cache")                                                    \
	X(disk_misses, "units looked for in the disk cache that it had not")                               \
	X(bytes_disk, "bytes read from the disk cache")                                                    \
	X(disk_bytes_written, "bytes written to the disk cache")                                           \
	X(disk_dropped, "units not written to the disk cache: it was busy, full or off")                   \
	X(disk_corrupt, "units and files of the disk cache that were damaged and dropped")                 \
	X(disk_errors, "errors of the disk under the disk cache")                                          \
	X(disk_timeouts, "reads of the disk cache that took too long")                                     \
	X(disk_evictions, "units evicted from the disk cache")                                             \
	X(redirects, "redirects followed")                                                                 \
	X(redirect_hits, "requests sent straight to where an earlier redirect led")                        \
	X(failovers, "requests repeated by the next route: mirror or registry")                            \
	X(throttled, "answers that asked us to come back later (Retry-After)")

enum obd_counter {
#define X(name, text) OBD_C_##name,
	OBD_COUNTER_TABLE(X)
#undef X
		OBD_C_COUNT
};
_Static_assert(OBD_C_COUNT <= OBD_COUNTERS, "the row has room for every counter");

struct obd_proc {
	_Atomic uint64_t magic; /* OBD_SEG_MAGIC once the owner has set its area up */
	_Atomic uint32_t role;
	_Atomic uint32_t index;
	_Atomic uint32_t pid;
	_Atomic uint32_t incarnation;
	_Atomic uint64_t started_ns;
	_Atomic uint64_t heartbeat_ns;
	_Atomic uint32_t sleeping OBD_LINE_ALIGNED; /* sleep-and-wake, section 4.3 */
	_Atomic uint64_t counters[OBD_COUNTERS] OBD_LINE_ALIGNED;
} OBD_LINE_ALIGNED;

/* --- rings ------------------------------------------------------------------------------------------------------------- */

/* The producer's half. */
struct obd_ring {
	_Atomic uint64_t head OBD_LINE_ALIGNED;
	_Atomic uint64_t entry[OBD_RING_ENTRIES] OBD_LINE_ALIGNED;
};

/* The consumer's half. */
struct obd_tail {
	_Atomic uint64_t tail OBD_LINE_ALIGNED;
};

/*
 * Ring entries: slot in bits 0-15, errno in bits 16-27, kind in bits 28-31, low 32 bits of the sequence above.
 * A hint (client -> cached only): kind 1; layer slot in bits 0-15; bits 32-62 the block.
 */
#define OBD_ENTRY_HINT 1u

static inline uint64_t obd_entry(uint32_t slot, uint64_t seq, unsigned int err)
{
	return (uint64_t)(uint32_t)seq << 32 | (uint64_t)(err & 0xfff) << 16 | (slot & 0xffff);
}

static inline uint64_t obd_entry_hint(uint32_t layer_slot, uint32_t block)
{
	return (uint64_t)block << 32 | (uint64_t)OBD_ENTRY_HINT << 28 | (layer_slot & 0xffff);
}

static inline uint32_t obd_entry_slot(uint64_t e)
{
	return (uint32_t)(e & 0xffff);
}

static inline int obd_entry_err(uint64_t e)
{
	return (int)(e >> 16 & 0xfff);
}

static inline unsigned int obd_entry_kind(uint64_t e)
{
	return (unsigned int)(e >> 28 & 0xf);
}

static inline uint32_t obd_entry_seq(uint64_t e)
{
	return (uint32_t)(e >> 32);
}

/* --- region "geometry": written once by the creating cached, then sealed ---------------------------------------------- */

struct obd_geometry {
	uint64_t magic;
	uint32_t version;
	uint32_t bytes; /* sizeof this struct */
	uint64_t segment_id;
	uint32_t block_bytes;
	uint32_t nframes;
	uint32_t nbuckets; /* power of two */
	uint32_t nfetchers;
	uint32_t hugepages; /* 1: frames and index lie in hugetlb pages */
	uint32_t reserved;
	/* region sizes in bytes */
	uint64_t frames_bytes;
	uint64_t fills_bytes;
	uint64_t table_bytes;
	uint64_t catalog_bytes;
	uint64_t index_bytes;
	uint64_t recency_bytes;
	uint64_t fetcher_bytes; /* each */
	uint64_t client_bytes;	/* each */
	uint64_t upread_bytes;
	uint64_t tokens_bytes;
};

/* --- region "fills": fetchers ------------------------------------------------------------------------------------------ */

enum obd_fill_state {
	OBD_FILL_EMPTY = 0,
	OBD_FILL_FILLING,
	OBD_FILL_VALID,
	OBD_FILL_FAILED,
	OBD_FILL_PART, /* as VALID, but only [begin, bytes) of the block is there */
};

struct obd_fill {
	_Atomic uint64_t word; /* generation << 8 | enum obd_fill_state */
	_Atomic uint64_t key;
	_Atomic uint32_t bytes; /* valid bytes from the frame's start; PART: where they end */
	_Atomic uint32_t err;	/* positive errno when FAILED */
	_Atomic uint32_t begin; /* PART: where they begin */
	uint32_t reserved;
};
_Static_assert(sizeof(struct obd_fill) == 32, "two fill words a cache line");

/* --- region "table": cached --------------------------------------------------------------------------------------------- */

/* X(STATE, successors as a bit mask of 1 << OBD_FRAME_x): the one table of slot states. */
#define OBD_FRAME_STATE_TABLE(X)                                                          \
	X(FREE, 1u << OBD_FRAME_FILLING)                                                  \
	X(FILLING, 1u << OBD_FRAME_VALID | 1u << OBD_FRAME_FAILED | 1u << OBD_FRAME_FREE) \
	X(VALID, 1u << OBD_FRAME_EVICTING)                                                \
	X(FAILED, 1u << OBD_FRAME_EVICTING)                                               \
	X(EVICTING, 1u << OBD_FRAME_FREE)

enum obd_frame_state {
#define X(name, successors) OBD_FRAME_##name,
	OBD_FRAME_STATE_TABLE(X)
#undef X
		OBD_FRAME_STATES
};

struct obd_frame {
	_Atomic uint32_t state; /* enum obd_frame_state */
	_Atomic uint32_t fetcher;
	_Atomic uint32_t job;
	_Atomic uint32_t insert_epoch;
	_Atomic uint64_t generation;
	_Atomic uint64_t key;
};
_Static_assert(sizeof(struct obd_frame) == 32, "two descriptors a cache line");

/* Bucket entry: tag (31 bits) << 33 | readahead mark << 32 | frame + 1. 0: empty. */
struct obd_bucket {
	_Atomic uint64_t way[OBD_BUCKET_WAYS];
} OBD_LINE_ALIGNED;
_Static_assert(sizeof(struct obd_bucket) == OBD_CACHE_LINE, "one line");

enum obd_job_state {
	OBD_JOB_FREE = 0,
	OBD_JOB_ISSUED,
};

enum obd_job_kind {
	OBD_JOB_BLOCKS = 0, /* decoded blocks of a MAPPED or READY layer */
	OBD_JOB_RAW,	    /* raw chunks of the blob */
	OBD_JOB_PROBE,	    /* no frames: may we read this blob from this repository? */
	OBD_JOB_DOWNLOAD,   /* no frames: a step of a background download. Clients cannot ask for it */
};

enum obd_down_op {
	OBD_DOWN_PREPARE = 0, /* find or make the partial file: how much of it is there? */
	OBD_DOWN_RANGE,	      /* bytes [start, end) of the blob into the partial file */
	OBD_DOWN_FINISH,      /* check the whole, make it overlaybd.commit */
	OBD_DOWN_OPS
};

/* What a job of kind DOWNLOAD is to do. */
struct obd_down_order {
	uint32_t want_slot;
	uint32_t want_uid;
	uint32_t op; /* enum obd_down_op */
	uint32_t reserved;
	uint64_t start;
	uint64_t end;
	uint64_t floor; /* RANGE: all bytes before are in the partial file already */
};

struct obd_job {
	_Atomic uint64_t word; /* seq << 8 | enum obd_job_state */
	uint32_t kind;
	uint32_t layer_slot;
	uint32_t layer_uid;
	uint32_t block; /* first block, or first raw chunk */
	uint32_t nblocks;
	uint32_t begin; /* kind BLOCKS: the first byte wanted of the first block */
	uint32_t end;	/* and where those of the last one end; 0: with the block */
	uint32_t reserved;
	_Atomic uint64_t
		demand; /* bit i: somebody waits for block i, so report it as soon as it is VALID. Set while the job runs */
	struct obd_down_order down;
	uint32_t frame[OBD_JOB_FRAMES];
	uint64_t generation[OBD_JOB_FRAMES];
} OBD_LINE_ALIGNED;

/*
 * What cached serves first, in this order. X(NAME, text) Clients ask for demand and prefetch only (obd_flow), the others are
 * cached's own.
 */
#define OBD_PRIO_TABLE(X)                                         \
	X(DEMAND, "somebody waits")                               \
	X(READAHEAD, "a stream is expected to come by")           \
	X(PREFETCH, "an image's recorded start, or its metadata") \
	X(DOWNLOAD, "whole layers, in the background")

enum {
#define X(name, text) OBD_PRIO_##name,
	OBD_PRIO_TABLE(X)
#undef X
		OBD_PRIOS
};

/* cached's side of one fetcher. */
struct obd_table_fetcher {
	struct obd_ring jobs;	      /* cached -> fetcher */
	struct obd_tail reports_tail; /* fetcher -> cached, consumed */
	_Atomic uint32_t admitted;    /* the highest incarnation that may take jobs; see 4.6 */
	struct obd_job job[OBD_JOB_SLOTS];
} OBD_LINE_ALIGNED;

/* cached's side of one client. */
struct obd_table_client {
	struct obd_ring answers;       /* cached -> client */
	struct obd_tail requests_tail; /* client -> cached, consumed */
	_Atomic uint64_t incarnation;  /* which client this half belongs to */
} OBD_LINE_ALIGNED;

/* X(STATE): of a background download. */
#define OBD_DOWN_STATE_TABLE(X) X(FREE) X(WAITING) X(RUNNING) X(VERIFYING) X(LOCAL) X(FAILED)

enum obd_down_state {
#define X(name) OBD_DOWN_##name,
	OBD_DOWN_STATE_TABLE(X)
#undef X
		OBD_DOWN_STATES
};

/* How the download stands that the want with the same slot asks for. */
struct obd_down {
	_Atomic uint64_t word; /* uid of the want << 8 | enum obd_down_state */
	uint32_t layer_slot;
	uint32_t layer_uid;
	/* identity of the file, while LOCAL */
	uint64_t dev;
	uint64_t ino;
	int64_t mtime_ns;
	uint64_t bytes;
	/* for the next cached and for obd-stat */
	_Atomic uint64_t done_bytes;
	_Atomic uint64_t total_bytes;
	_Atomic uint64_t rate_bytes_per_sec;
	_Atomic uint64_t next_ns; /* WAITING: not before */
	_Atomic uint32_t tries;	  /* that failed */
	_Atomic uint32_t err;	  /* of the last one, positive errno */
	char reason[OBD_REASON_BYTES];
} OBD_LINE_ALIGNED;

/* How a registry answers (4.11). Zero: a row nobody has. */
struct obd_table_host {
	_Atomic uint64_t word;		  /* odd while name and reason change */
	_Atomic uint64_t hash;		  /* as in struct obd_layer */
	_Atomic uint64_t first_failed_ns; /* since when nothing but failures came; 0: the last word was an answer */
	_Atomic uint64_t last_failed_ns;
	_Atomic uint64_t last_answer_ns;
	_Atomic uint64_t failures; /* since the last answer */
	_Atomic uint32_t err;	   /* positive errno of the last failure */
	_Atomic uint32_t jobs;	   /* under way */
	char name[OBD_HOST_BYTES];
	char reason[OBD_REASON_BYTES]; /* of the last failure */
} OBD_LINE_ALIGNED;

enum obd_disk_state {
	OBD_DISK_NONE = 0, /* cacheSizeGB is 0 */
	OBD_DISK_OFF,	   /* err says why */
	OBD_DISK_ON,
	OBD_DISK_READ_ONLY, /* nothing is added; err says why */
};

/* The disk tier as the group sees it (4.14). */
struct obd_table_disk {
	_Atomic uint64_t word; /* epoch << 8 | enum obd_disk_state; every change of state is a new epoch */
	_Atomic uint32_t err;
	_Atomic uint32_t blobs;
	_Atomic uint64_t look;	     /* counts the keeper's looks at what is used */
	_Atomic uint64_t room_bytes; /* so much each fetcher may write until the next look */
	_Atomic uint64_t used_bytes;
	_Atomic uint64_t limit_bytes;
	_Atomic uint64_t free_bytes; /* of the file system */
} OBD_LINE_ALIGNED;

/* A layer that fetchers died of (4.6). layer_uid is stored last; uids are never used twice, so that a reader who mixes two rows
 * names one that is over at worst. */
struct obd_table_refused {
	_Atomic uint32_t layer_uid; /* 0: none */
	_Atomic uint32_t deaths;
	_Atomic uint64_t until_ns; /* monotonic */
};

struct obd_table {
	struct obd_proc proc;
	struct obd_table_disk disk;
	_Atomic uint64_t next_generation; /* the highest generation ever given out */
	_Atomic uint32_t epoch;		  /* see recency */
	_Atomic uint32_t frames_by_state[OBD_FRAME_STATES];
	_Atomic uint32_t waiting_requests;
	_Atomic uint32_t backoff_blocks;
	_Atomic uint64_t oldest_wait_ns;      /* posting time of the oldest waiting request; 0: none */
	_Atomic uint32_t queued[OBD_PRIOS];   /* blocks that wait for a job */
	_Atomic uint32_t inflight[OBD_PRIOS]; /* blocks in jobs, by what they were when the job was issued */
	struct obd_table_host host[OBD_HOSTS];
	struct obd_table_refused refused[OBD_REFUSED];
	struct obd_table_client client[OBD_MAX_CLIENTS];
	struct obd_table_fetcher fetcher[OBD_MAX_FETCHERS];
	_Atomic uint32_t local[OBD_LAYER_SLOTS]; /* a hint: slot + 1 of a download that is LOCAL; 0: none */
	struct obd_down down[OBD_WANT_SLOTS];
	/* then, at offsets of obd_table_layout: struct obd_frame[nframes], struct obd_bucket[nbuckets] */
} OBD_LINE_ALIGNED;

/* --- region "fetcher" i ------------------------------------------------------------------------------------------------- */

/* What a job of kind DOWNLOAD led to. Written before its done word. */
enum obd_down_fault {
	OBD_DOWN_FAULT_NONE = 0,
	OBD_DOWN_FAULT_SOURCE, /* the bytes could not be had */
	OBD_DOWN_FAULT_DISK,   /* the directory or its file system */
	OBD_DOWN_FAULT_BUSY,   /* somebody else has the partial file open */
	OBD_DOWN_FAULT_DIGEST, /* the whole is not what the digest says; it was thrown away */
};

struct obd_down_result {
	uint32_t fault;		/* enum obd_down_fault */
	uint32_t from_registry; /* RANGE: 1: that is where the bytes came from */
	uint64_t floor;		/* PREPARE: so many bytes are there */
	/* FINISH: identity of the file */
	uint64_t dev;
	uint64_t ino;
	int64_t mtime_ns;
};

struct obd_fetcher_area {
	struct obd_proc proc;
	_Atomic uint64_t disk_fault; /* epoch of the disk tier << 16 | errno: it failed here; 4.14 */
	struct obd_ring reports;     /* fetcher -> cached */
	struct obd_tail jobs_tail;   /* cached -> fetcher, consumed */
	struct {
		_Atomic uint64_t word;	       /* seq << 16 | errno: this job's last finished run */
		_Atomic uint32_t retry_ms;     /* errno != 0: how long the registry asked us to stay away; 0: it did not say */
		_Atomic uint64_t net_bytes;    /* of it: what came from the network */
		char reason[OBD_REASON_BYTES]; /* one line when errno != 0; NUL-terminated by its reader's copy */
	} done[OBD_JOB_SLOTS] OBD_LINE_ALIGNED;
	struct obd_down_result down[OBD_JOB_SLOTS];
} OBD_LINE_ALIGNED;

/* --- region "client" c -------------------------------------------------------------------------------------------------- */

enum obd_req_state {
	OBD_REQ_FREE = 0,
	OBD_REQ_POSTED,
};

/*
 * Whose request it is: number in bits 0-15 (a client's open slot; the indexer numbers its own), priority in bits 16-23: 0
 * demand, 1 prefetch. cached takes turns between the numbers of all clients, so a number that lies harms its own client only.
 */
enum obd_req_prio {
	OBD_REQ_DEMAND = 0,
	OBD_REQ_PREFETCH,
};

static inline uint32_t obd_flow(uint32_t number, enum obd_req_prio prio)
{
	return (uint32_t)prio << 16 | (number & 0xffff);
}

struct obd_req {
	_Atomic uint64_t word; /* seq << 8 | enum obd_req_state */
	_Atomic uint32_t layer_slot;
	_Atomic uint32_t layer_uid;
	_Atomic uint32_t block;
	_Atomic uint32_t nblocks; /* 1 … OBD_REQ_BLOCKS; 0 for a probe */
	_Atomic uint32_t kind;	  /* enum obd_job_kind */
	_Atomic uint32_t flow;	  /* obd_flow */
	_Atomic uint64_t posted_ns;
	_Atomic uint32_t begin; /* kind BLOCKS: the first byte needed of the first block */
	_Atomic uint32_t end;	/* and where those of the last one end; 0: with the block */
	uint64_t pad[2];
};
_Static_assert(sizeof(struct obd_req) == OBD_CACHE_LINE, "one line");

enum obd_open_state {
	OBD_OPEN_FREE = 0,
	OBD_OPEN_POSTED,
	OBD_OPEN_HELD,
};

struct obd_open {
	_Atomic uint64_t word;	     /* seq << 8 | enum obd_open_state */
	_Atomic uint32_t image_slot; /* valid when HELD */
	_Atomic uint32_t image_uid;
	_Atomic uint64_t posted_ns;
	uint64_t pad[5];
};
_Static_assert(sizeof(struct obd_open) == OBD_CACHE_LINE, "one line: whoever looks at all of them touches few pages");

/* --- writing: requests for a device's upper layer (doc/architecture.md 4.9) ---------------------------------------------- */

enum obd_up_state {
	OBD_UP_FREE = 0,
	OBD_UP_POSTED,
};

enum obd_up_op {
	OBD_UP_READ = 0, /* offset: byte of the upper's data file; the indexer puts len bytes into upread */
	OBD_UP_WRITE,	 /* offset: byte of the device; len bytes stand in the slot's staging buffer */
	OBD_UP_DISCARD,	 /* the device's [offset, offset + len) reads as zeros from now on */
	OBD_UP_SYNC,	 /* everything acknowledged before is on stable storage when this is answered */
	OBD_UP_OPS
};

#define OBD_UP_FUA 1u /* WRITE, DISCARD: answered only when on stable storage */

/* All offsets and lengths are multiples of 512. */
struct obd_upreq {
	_Atomic uint64_t word;	    /* seq << 8 | enum obd_up_state */
	_Atomic uint32_t open_slot; /* HELD, of the same client: names the device */
	_Atomic uint32_t op;	    /* enum obd_up_op */
	_Atomic uint64_t offset;
	_Atomic uint64_t len; /* READ, WRITE: at most OBD_UP_BUF_BYTES */
	_Atomic uint32_t flags;
	uint32_t reserved;
	_Atomic uint64_t posted_ns;
	uint64_t pad[2];
};
_Static_assert(sizeof(struct obd_upreq) == OBD_CACHE_LINE, "one line");

/*
 * What a recording device read for the first time: in sixteenths of a block, the first in bits 0-3 and the last in bits 4-7;
 * block in bits 8-35, number of the layer in its image (0 is the bottom) in bits 36-43, open slot in bits 44-52, low 11 bits of
 * the open's sequence above.
 */
#define OBD_TOUCH_STEPS 16u
#define OBD_TOUCH_BLOCK_MAX UINT32_C(0xfffffff)
#define OBD_TOUCH_SEQ_MASK UINT64_C(0x7ff)

static inline uint64_t obd_touch(uint32_t open_slot, uint64_t seq, uint32_t layer, uint32_t block, uint32_t first,
				 uint32_t last)
{
	return seq << 53 | (uint64_t)(open_slot & 0x1ff) << 44 | (uint64_t)(layer & 0xff) << 36 |
	       (uint64_t)(block & OBD_TOUCH_BLOCK_MAX) << 8 | (last & 0xf) << 4 | (first & 0xf);
}
_Static_assert(OBD_OPEN_SLOTS <= 512 && OBD_IMAGE_LAYERS <= 256, "they fit into the entry");

struct obd_client_area {
	struct obd_proc proc;
	struct obd_ring requests;     /* client -> cached */
	struct obd_ring opens;	      /* client -> indexer */
	struct obd_tail answers_tail; /* cached -> client, consumed */
	struct obd_tail replies_tail; /* indexer -> client, consumed */
	struct obd_ring ups;	      /* client -> indexer: upper requests */
	struct obd_tail updones_tail; /* indexer -> client, consumed */
	struct obd_ring touches;      /* client -> indexer: first reads of devices that record (obd_touch) */
	struct obd_req req[OBD_REQ_SLOTS];
	struct obd_open open[OBD_OPEN_SLOTS];
	char open_path[OBD_OPEN_SLOTS]
		      [OBD_PATH_BYTES]; /* of the image configs; absolute; NUL-terminated by their reader's copy */
	struct obd_upreq up[OBD_UP_SLOTS];
	unsigned char staging[OBD_UP_SLOTS][OBD_UP_BUF_BYTES] __attribute__((aligned(4096))); /* data of writes, by slot */
} OBD_LINE_ALIGNED;

/* --- region "catalog": indexer ------------------------------------------------------------------------------------------ */

enum obd_layer_state {
	OBD_LAYER_FREE = 0,
	OBD_LAYER_SOURCE, /* where the blob is and how long: raw chunks can be read */
	OBD_LAYER_MAPPED, /* payload and ZFile geometry known: blocks can be read */
	OBD_LAYER_READY,  /* LSMT index checked too */
};

struct obd_layer {
	_Atomic uint64_t word;	 /* uid << 8 | enum obd_layer_state */
	uint32_t local;		 /* 1: path; 0: url + "/" + digest */
	uint32_t zfile;		 /* 1: compressed */
	uint64_t blob_bytes;	 /* of the whole blob, tar wrapper included */
	uint64_t payload_offset; /* of the ZFile or LSMT inside the blob */
	uint64_t payload_bytes;
	uint64_t file_bytes;	/* uncompressed LSMT file */
	uint64_t virtual_bytes; /* of the device, as this layer says (READY) */
	uint64_t host_hash;	/* for fairness between hosts; 0 for local files */
	uint32_t distrust;	/* 1: until READY, metadata comes from the registry, not from the disk tier */
	uint32_t reserved;
	/* ZFile (MAPPED) */
	uint32_t zf_block_bytes;
	uint32_t zf_algorithm;
	uint32_t zf_verify;
	uint32_t zf_dict_bytes;
	uint64_t zf_nblocks;
	uint64_t zf_base_off;  /* byte offset in region index: u64 per 64 blocks (see common/format/zfile.h) */
	uint64_t zf_delta_off; /* byte offset in region index: u32 per block */
	uint64_t arena_off;    /* extent of both, for the allocator */
	uint64_t arena_bytes;
	/* identity of a local file */
	uint64_t dev;
	uint64_t ino;
	int64_t mtime_ns;
	char host[OBD_HOST_BYTES];
	char url[OBD_URL_BYTES]; /* repoBlobUrl, no trailing slash */
	char digest[OBD_DIGEST_BYTES];
	char path[OBD_PATH_BYTES];
} OBD_LINE_ALIGNED;

enum obd_image_state {
	OBD_IMAGE_FREE = 0,
	OBD_IMAGE_READY,
};

struct obd_image {
	_Atomic uint64_t word; /* uid << 8 | enum obd_image_state */
	uint64_t virtual_bytes;
	uint64_t index_off; /* byte offset in region index: struct obd_lsmt_seg[index_count] */
	uint64_t index_count;
	uint32_t nlayers;      /* bottom to top */
	_Atomic uint32_t refs; /* for obd-stat only; the truth is in the open tables */
	uint32_t layer_slot[OBD_IMAGE_LAYERS + 1];
	uint32_t layer_uid[OBD_IMAGE_LAYERS + 1];
} OBD_LINE_ALIGNED;

enum obd_upper_state_word {
	OBD_UPPER_FREE = 0,
	OBD_UPPER_READY,
};

/* A device's upper layer as readers need it. */
struct obd_upper_entry {
	_Atomic uint64_t word; /* uid << 8 | enum obd_upper_state_word */
	uint64_t virtual_bytes;
	uint64_t root_off; /* byte offset in region index of the map's root: one word per GiB (upmap.h) */
	uint64_t root_words;
	uint64_t applied_bytes; /* append-only: every record of the index file before this is in the map */
	uint32_t client;	/* whose device this is */
	uint32_t open_slot;
	uint32_t sparse;
	uint32_t granule;  /* sparse: how coarse the file's holes may be, in bytes */
	uint32_t unsynced; /* 1: a sync failed, none succeeds any more */
	uint32_t reserved;
	uint64_t id; /* as in the reply */
	/* What a restarted indexer must find again. */
	uint64_t dev; /* of the data file */
	uint64_t ino;
	char data_path[OBD_PATH_BYTES];
	char index_path[OBD_PATH_BYTES]; /* "": none */
} OBD_LINE_ALIGNED;

enum obd_reply_status {
	OBD_REPLY_NONE = 0,
	OBD_REPLY_PENDING, /* needs the network: an answer follows */
	OBD_REPLY_READY,
	OBD_REPLY_FAILED,
};

struct obd_reply {
	_Atomic uint64_t word; /* seq << 8 | enum obd_reply_status; stored last */
	uint32_t image_slot;
	uint32_t image_uid;
	uint32_t err;		    /* positive errno when FAILED */
	uint32_t upper_slot;	    /* READY and writable */
	uint32_t upper_uid;	    /* 0: read-only device */
	_Atomic uint32_t recording; /* 1: first reads are wanted in the ring `touches`; goes to 0 while READY, never back */
	uint64_t lowers_id;	    /* READY: a hash of what the layers are, the same whenever the same ones are opened */
	uint64_t upper_id;	    /* the same of the upper layer; 0: none */
	char reason[OBD_REASON_BYTES];
} OBD_LINE_ALIGNED;

/* indexer's side of one client. */
struct obd_catalog_client {
	struct obd_ring replies;      /* indexer -> client */
	struct obd_tail opens_tail;   /* client -> indexer, consumed */
	struct obd_ring updones;      /* indexer -> client: entry (slot, seq, errno) */
	struct obd_tail ups_tail;     /* client -> indexer, consumed */
	struct obd_tail touches_tail; /* client -> indexer, consumed */
	_Atomic uint64_t incarnation;
	struct obd_reply reply[OBD_OPEN_SLOTS];
} OBD_LINE_ALIGNED;

enum obd_want_state {
	OBD_WANT_FREE = 0,
	OBD_WANT_WANTED,
};

/* A layer of a registry that is to be downloaded into a directory. */
struct obd_want {
	_Atomic uint64_t word; /* uid << 8 | enum obd_want_state */
	uint32_t layer_slot;
	uint32_t layer_uid;
	uint64_t due_ns;      /* not before; monotonic */
	uint64_t block_bytes; /* of one request */
	uint32_t max_mbps;    /* of this download alone; 0: no limit of its own */
	uint32_t try_cnt;
	char dir[OBD_DIR_BYTES]; /* absolute */
} OBD_LINE_ALIGNED;

struct obd_catalog {
	struct obd_proc proc;
	_Atomic uint32_t next_uid; /* the highest layer or image uid ever given out */
	_Atomic uint64_t arena_used_bytes;
	struct obd_catalog_client client[OBD_MAX_CLIENTS];
	struct obd_layer layer[OBD_LAYER_SLOTS];
	struct obd_image image[OBD_IMAGE_SLOTS];
	struct obd_upper_entry upper[OBD_UPPER_SLOTS];
	struct obd_want want[OBD_WANT_SLOTS];
} OBD_LINE_ALIGNED;

/* --- region "upread": indexer ------------------------------------------------------------------------------------------- */

/* Where the answers to OBD_UP_READ stand, by client and request slot. Sparse: pages come with their first use. */
struct obd_upread {
	unsigned char buf[OBD_MAX_CLIENTS][OBD_UP_SLOTS][OBD_UP_BUF_BYTES];
};

/* --- region "tokens": fetchers (doc/architecture.md 4.13) ---------------------------------------------------------------- */

enum obd_token_state {
	OBD_TOKEN_EMPTY = 0,
	OBD_TOKEN_WRITING, /* its holder changes what follows */
	OBD_TOKEN_SET,	   /* key holds; there is a token unless bytes is 0 */
};

/* A token that all fetchers use. What follows word is a seqlock's payload, and guarded by a checksum too. */
struct obd_token_slot {
	_Atomic uint64_t
		claim; /* who gets a new token just now; 0: nobody. Milliseconds << 32 | incarnation << 8 | fetcher + 1 */
	_Atomic uint64_t failed_ns; /* when getting a new one failed last */
	_Atomic uint32_t failed_err;
	uint32_t reserved;
	_Atomic uint64_t word; /* seq << 8 | enum obd_token_state */
	uint64_t cred_id;      /* of the credential it was got with; 0: anonymous */
	uint64_t obtained_ns;
	uint64_t refresh_ns; /* from then on a new one is wanted */
	uint64_t expires_ns;
	uint32_t forced; /* it was got because the one before was refused */
	uint32_t bytes;
	uint32_t checksum; /* over all of this from cred_id on, taken as 0 */
	uint32_t pad;
	char key[OBD_TOKEN_KEY_BYTES];
	char origin[OBD_TOKEN_ORIGIN_BYTES];
	char token[OBD_TOKEN_BYTES];
} OBD_LINE_ALIGNED;

struct obd_tokens {
	struct obd_token_slot slot[OBD_TOKEN_SLOTS];
};

#endif
