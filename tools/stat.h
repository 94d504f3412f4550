/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * obd-stat: one look at a process group.
 *
 *     stat_link ──► struct obd_stat_link ──► stat_collect ──► struct obd_stat ──► stat_table, stat_json
 *     (socket)      (rows, mapped regions)                    (private, checked)
 *                            └──────────────► stat_audit
 *
 * Nothing here writes to the segment, takes part in its protocol or waits for anybody in it. All of its regions are written by
 * others, so each value is copied before it is looked at, and no value of theirs is a bound. What is printed is one moment only
 * as far as each word goes: a busy group changes while it is read.
 *
 * Not every region need be there: a region that was not granted stays NULL, and what would come from it is absent.
 */
#ifndef OBD_TOOLS_STAT_H
#define OBD_TOOLS_STAT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "common/base/err.h"
#include "shmcache/segment.h"

#define OBD_STAT_STATE_BYTES 32
#define OBD_STAT_EXIT_BYTES 128
#define OBD_STAT_PROCS (2 + 2 + OBD_MAX_FETCHERS + OBD_MAX_CLIENTS)

/* --- what the supervisor says --------------------------------------------------------------------------------------------- */

/* One process, as the supervisor's PROC message has it; strings are what that message says, of any bytes. */
struct obd_stat_proc {
	enum obd_role role;
	uint32_t index;
	int64_t pid; /* 0: none */
	char state[OBD_STAT_STATE_BYTES];
	uint64_t restarts;
	uint64_t uptime_sec;
	uint64_t heartbeat_age_ms;
	char last_exit[OBD_STAT_EXIT_BYTES];
	/* from its row in the segment, by obd_stat_collect */
	bool has_counters;
	uint64_t counters[OBD_C_COUNT];
};

struct obd_stat_link {
	struct obd_segment seg; /* what was granted, read-only */
	uint32_t nprocs;
	struct obd_stat_proc procs[OBD_STAT_PROCS];
};

/* Asks the group at runtime_dir (NULL: $OVERLAYBD_RUNTIME_DIR, else /run/overlaybd) and maps what it grants; the socket is
 * closed again. Blocks up to two seconds per message. A region that cannot be mapped is left out. -ENOTCONN when no group
 * answers, with a line that says so, or another negative errno. On return, also after an error, link is to be closed. */
int obd_stat_connect(struct obd_stat_link *link, const char *runtime_dir, struct obd_err *err);

void obd_stat_close(struct obd_stat_link *link);

/* Reads the JSON of a PROC message into p; what it lacks, or has of another type, stays 0 or empty. -EPROTO if it is no JSON
 * object. */
int obd_stat_parse_proc(const char *text, struct obd_stat_proc *p);

/* --- what the segment says ------------------------------------------------------------------------------------------------ */

struct obd_stat_layer {
	uint32_t slot;
	uint32_t uid;
	enum obd_layer_state state;
	bool local;
	bool zfile;
	uint64_t blob_bytes;
	uint64_t file_bytes; /* 0 until MAPPED */
	uint64_t cached_blocks;
	uint64_t cached_chunks; /* raw chunks: metadata */
	uint64_t host_hash;
	uint64_t waiting;	 /* requests of clients without an answer */
	uint64_t oldest_ns;	 /* age of the oldest */
	uint64_t refused_ns;	 /* fetchers died of it: refused for so long; 0: it is not */
	uint32_t fetcher_deaths; /* then */
	char host[OBD_HOST_BYTES];
	char *name; /* digest or path */
};

struct obd_stat_image {
	uint32_t slot;
	uint32_t uid;
	uint64_t virtual_bytes;
	uint64_t index_segments;
	uint32_t refs;
	uint32_t nlayers;
	uint32_t layer_uid[OBD_IMAGE_LAYERS]; /* bottom to top */
};

enum obd_stat_host_state {
	OBD_STAT_HOST_OK,      /* its last word was an answer, or nobody waits for it */
	OBD_STAT_HOST_SILENT,  /* somebody waits, and it has said nothing for a while */
	OBD_STAT_HOST_FAILING, /* only failures since `since_ns` */
};

/* A registry that was asked for something. */
struct obd_stat_host {
	enum obd_stat_host_state state;
	uint64_t hash;
	uint64_t since_ns;   /* how long it is in that state; 0 when OK */
	uint64_t failures;   /* since it was OK */
	uint64_t waiting;    /* requests of clients for its layers */
	uint64_t oldest_ns;  /* age of the oldest of them */
	uint32_t jobs;	     /* under way with fetchers */
	uint32_t err;	     /* positive errno of its last failure; 0: none so far */
	uint64_t err_age_ns; /* of that failure */
	char name[OBD_HOST_BYTES];
	char reason[OBD_REASON_BYTES]; /* of that failure */
};

/* The disk tier, as cached last saw it. */
struct obd_stat_disk {
	enum obd_disk_state state;
	uint32_t err; /* why it is not on */
	uint32_t blobs;
	uint64_t used_bytes;
	uint64_t limit_bytes;
	uint64_t free_bytes; /* of its file system */
};

/* An open that has no final answer yet. */
struct obd_stat_pending {
	uint32_t client;
	uint64_t age_ns;
	char *path;
};

/* A background download. */
struct obd_stat_download {
	enum obd_down_state state;
	uint32_t layer_uid;
	uint64_t done_bytes;
	uint64_t total_bytes;
	uint64_t rate_bytes_per_sec;
	uint64_t next_ns; /* from now; 0: due, or not waiting */
	uint32_t tries;	  /* that failed */
	uint32_t try_cnt;
	uint32_t err; /* the last one's errno; 0: none */
	char reason[OBD_REASON_BYTES];
	char digest[OBD_DIGEST_BYTES]; /* "": the layer is gone */
	char dir[OBD_DIR_BYTES];
};

/* Times are ages at the moment of collecting. Totals over no row at all are 0. */
struct obd_stat {
	bool has_geometry;
	bool has_table;
	bool has_catalog;
	struct obd_geometry geo;
	/* table */
	uint64_t frames_by_state[OBD_FRAME_STATES]; /* counted, not what the table says of itself */
	uint64_t frames_odd;			    /* in no state that exists */
	uint64_t cached_frames_raw;		    /* VALID frames that hold raw chunks */
	struct obd_stat_disk disk;
	uint32_t waiting_requests;
	uint32_t backoff_blocks;
	uint32_t queued[OBD_PRIOS];   /* blocks that wait for a job */
	uint32_t inflight[OBD_PRIOS]; /* blocks in jobs */
	uint64_t oldest_wait_ns;      /* age of the oldest request that cached knows to wait */
	uint32_t nhosts;
	struct obd_stat_host host[OBD_HOSTS];
	/* clients' areas */
	uint64_t requests_posted;
	uint64_t requests_oldest_ns;
	uint64_t opens_held;
	uint32_t npending;
	struct obd_stat_pending *pending;
	/* catalog */
	uint32_t nlayers;
	struct obd_stat_layer *layers;
	uint32_t nimages;
	struct obd_stat_image *images;
	uint32_t ndownloads;
	struct obd_stat_download *downloads;
	uint32_t bad_entries; /* catalog entries with impossible fields */
	uint64_t arena_used_bytes;
	/* counters */
	uint64_t by_role[OBD_ROLES][OBD_C_COUNT];
	uint64_t total[OBD_C_COUNT];
};

/* Fills st from link, and the counters into link's procs. Does not block. -ENOMEM. st is to be freed in every case. */
int obd_stat_collect(struct obd_stat *st, struct obd_stat_link *link);

void obd_stat_free(struct obd_stat *st);

/* hits / (hits + misses) in 0 … 1; -1 when nobody has read yet. */
double obd_stat_hit_ratio(const struct obd_stat *st);

/* Names as they are printed: "valid", "ready", "bytes_fetched"; and a counter's text. Arguments must be in range. */
const char *obd_stat_frame_state_name(unsigned int state);
const char *obd_stat_prio_name(unsigned int prio);
const char *obd_stat_layer_state_name(enum obd_layer_state state);
const char *obd_stat_host_state_name(enum obd_stat_host_state state);
const char *obd_stat_down_state_name(enum obd_down_state state);
const char *obd_stat_disk_state_name(enum obd_disk_state state);
const char *obd_stat_counter_name(unsigned int counter);
const char *obd_stat_counter_text(unsigned int counter);

/* --- printing ------------------------------------------------------------------------------------------------------------- */

/* Tables for people. Strings of others have their control characters replaced. */
void obd_stat_print_tables(FILE *out, const struct obd_stat *st, const struct obd_stat_link *link);

/* One JSON object, as obd-stat(1) describes it, and a newline. -ENOMEM or -EIO. */
int obd_stat_print_json(FILE *out, const struct obd_stat *st, const struct obd_stat_link *link);

/* --- audit ---------------------------------------------------------------------------------------------------------------- */

/*
 * Is every frame in exactly one state and one place?
 *
 *   FREE      in no bucket
 *   FILLING   in exactly one live job, which names its generation; in no bucket
 *   VALID     in exactly one entry, in one of its key's two buckets with its key's tag; the fill word says VALID of the same
 *             generation and key, and not more bytes than a block
 *   others    stay for moments only, so an idle group has none
 *
 * No two frames FILLING or VALID have one key; the table's own counts agree; live jobs name frames that are there.
 *
 * Prints each fault as a line to out, and a last line with what was seen. Faults count only if two passes with a pause between
 * them saw them while nothing moved; tries again for a second or so. Returns 0: clean; 1: faults, or it never held still; a
 * negative errno with err set when the regions are not there.
 */
int obd_stat_audit(FILE *out, const struct obd_segment *seg, struct obd_err *err);

#endif
