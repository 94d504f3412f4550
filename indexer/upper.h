/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Writable devices (doc/architecture.md 4.9). Private to this room.
 *
 *     upper.c         an upper from its open to its close, and after a restart
 *     upper_files.c   its files, on a thread: names, lock, repair, compaction
 *     upper_table.c   clients' request tables -> checked requests -> order among those that overlap -> answers
 *     upper_run.c     one request: data, record, map
 *     upper_batch.c   requests on their way to a thread: writes go together
 *     upper_sparse.c  what a request means for a sparse file: pieces, and what lies below a block that is written in part
 *
 *     upper     FREE -> OPENING -> OPENED -> LIVE -> CLOSING -> FREE
 *               FREE -> ORPHAN -> LIVE | CLOSING                  ORPHAN: found in the catalog, its open not seen yet
 *               OPENING, or LIVE without files: a job has them, or they are tried again later, or the map is made of them
 *               CLOSING: waits for what the engine has; then the files, then the map
 *     request   WAITING (overlaps an older one) -> READY (for room in the engine) -> [FILLING] -> RUNNING -> answered
 */
#ifndef OBD_INDEXER_UPPER_H
#define OBD_INDEXER_UPPER_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/base/list.h"
#include "common/config/image.h"
#include "common/format/lsmt.h"
#include "common/format/upper.h"
#include "indexer/engine.h"
#include "shmcache/layout.h"
#include "shmcache/upmap.h"

#define OBD_IX_UPS_RUNNING 128u	   /* requests of one device that the engine has at most; the rest waits */
#define OBD_IX_UPPER_THREADS 4u	   /* threads one device keeps busy at most: a disk that hangs must not stop the others */
#define OBD_IX_BATCH 32u	   /* writes that go to a thread together */
#define OBD_IX_BATCH_BYTES 262144u /* their bytes, if they are more than one */

struct obd_indexer;
struct obd_ix_open;
struct obd_ix_image;

enum obd_ix_upper_state {
	OBD_IX_UPPER_FREE = 0,
	OBD_IX_UPPER_OPENING,
	OBD_IX_UPPER_OPENED,
	OBD_IX_UPPER_ORPHAN,
	OBD_IX_UPPER_LIVE,
	OBD_IX_UPPER_CLOSING,
};

/* Requests that a thread carries out in one go. */
struct obd_ix_batch {
	struct obd_ix_task task;
	struct obd_ix_upper *upper;
	bool joint;
	uint32_t n; /* 0: free */
	struct obd_ix_up *up[OBD_IX_BATCH];
};

/* The private side of catalog->upper[slot]. */
struct obd_ix_upper {
	struct obd_indexer *ix;
	uint32_t slot;
	uint32_t uid;
	enum obd_ix_upper_state state;
	uint32_t client;
	uint32_t open_slot;
	bool attached; /* its files are open and the map has all of them; until then requests wait */
	bool sparse;
	uint64_t bytes;	  /* of the device */
	uint64_t id;	  /* obd_ix_upper_id */
	uint32_t granule; /* sparse: holes of the file are whole blocks of so many bytes, counted from the file's start */
	int data_fd;
	int direct_fd; /* -1: none */
	int index_fd;  /* -1: none */
	struct obd_ix_image *image;
	struct obd_upmap_writer map;
	bool has_map;
	uint64_t data_end; /* append-only: where the next data go. Never goes back: what fails leaves a gap */
	struct obd_list requests;
	struct obd_list ready; /* READY requests */
	struct obd_list turn;  /* in the indexer's ups_ready while it has some and may run them */
	uint32_t running;
	struct obd_list gates; /* in the indexer's ups_gates: a request came, or a thread is free */
	struct obd_list alone; /* RUNNING requests that wait for one of its threads */
	struct obd_list joint; /* those among them that go together */
	struct obd_ix_batch batch[OBD_IX_UPPER_THREADS];
	uint32_t threads;
	uint32_t joint_threads;
	/* opening and closing */
	struct obd_ix_open *open; /* OPENING, OPENED */
	char *data_path;
	char *index_path; /* NULL: none */
	char uuid[OBD_LSMT_UUID_BYTES];
	uint64_t dev, ino;
	struct obd_ix_files *files; /* a job that runs */
	struct obd_ix_task close_task;
	bool closing_files;
	struct obd_lsmt_seg *load; /* goes into the map, slice by slice */
	size_t nload;
	size_t loaded;
	struct obd_list work; /* in the indexer's upper_work while a slice is due */
	struct obd_list late; /* in the indexer's upper_late while it waits for retry_ns */
	uint64_t retry_ns;
	uint64_t backoff_ns;
	uint64_t give_up_ns;
	int rc; /* why it cannot be opened, with a line */
	struct obd_err err;
	/* syncs: one at a time, for all who wait */
	pthread_mutex_t sync_lock; /* of what follows; never held across a system call */
	pthread_cond_t synced;
	uint64_t syncs_wanted;
	uint64_t syncs_done; /* all up to this one */
	bool syncing;
	bool stray;	       /* sparse: bytes of a write that failed half way may lie where the map knows of a hole */
	_Atomic bool unsynced; /* a sync failed: what was acknowledged before it may be lost, so none succeeds any more */

	pthread_mutex_t record_lock; /* a thread keeps it while it writes records; the loop must never wait for it */
	uint64_t index_end;	     /* where the next record goes */
	bool index_torn;	     /* the file may be longer than index_end */
	pthread_mutex_t order_lock;  /* of what follows; never held across a system call */
	struct obd_list recorded;    /* requests whose records are in the file, in the file's order, till the map has them */
};

enum obd_ix_up_stage {
	OBD_IX_UP_WAITING = 0,
	OBD_IX_UP_READY,
	OBD_IX_UP_FILLING,
	OBD_IX_UP_RUNNING,
	OBD_IX_UP_OVER, /* answered; waits in recorded for older ones */
};

enum obd_ix_piece_how { OBD_IX_COPY = 0, OBD_IX_ZEROS, OBD_IX_PUNCH };

/* What is done to a range of a sparse device. */
struct obd_ix_piece {
	uint64_t off;
	uint64_t len;
	enum obd_ix_piece_how how;
	const void *src;
	void *own; /* src, if it is to be freed */
};

/* Bytes of the device, as the layers below have them, wanted at dst. */
struct obd_ix_fill {
	uint64_t off;
	uint64_t len;
	unsigned char *dst;
};

struct obd_ix_up {
	struct obd_list link;  /* in the upper's requests */
	struct obd_list queue; /* in the upper's ready, alone or joint, or in the indexer's starved list */
	struct obd_list posts; /* FILLING: what cached was asked for */
	struct obd_list order; /* in the upper's recorded */
	struct obd_indexer *ix;
	struct obd_ix_upper *upper;
	uint32_t client;
	uint32_t slot;
	bool forgotten; /* the client is gone: no answer */
	enum obd_ix_up_stage stage;
	uint32_t blockers; /* older requests that overlap */
	uint64_t seq;
	uint64_t posted_ns;
	enum obd_up_op op;
	bool fua;
	uint64_t off;
	uint64_t len;
	uint64_t from; /* what it keeps others from, in bytes of the device; from == to: nothing */
	uint64_t to;
	/* under way */
	struct obd_ix_io io;
	struct obd_ix_task task;
	void (*then)(struct obd_ix_up *up); /* on the loop's thread, after task */
	bool data_here;			    /* the engine wrote the data already */
	const void *join_src;		    /* a write that goes with others: what, */
	uint64_t join_bytes;
	uint64_t join_at; /* and where in the data file */
	uint64_t data_at;
	uint64_t *spare; /* pieces of the arena that the map may need at the end */
	uint32_t nspare;
	struct obd_ix_piece *piece;
	size_t npieces;
	size_t pieces_done;
	uint32_t owners; /* the task and the io that it started, as long as they are under way */
	struct obd_ix_fill *fill;
	size_t nfills;
	uint64_t bounce_bytes; /* of memory for pieces */
	uint32_t fill_tries;
	bool written;	    /* append-only: data and record are in the files */
	bool pending;	    /* in recorded */
	uint64_t index_end; /* behind its record */
	int err;	    /* positive errno */
};

/* The indexer's side of a client's request table. */
struct obd_ix_up_client {
	struct obd_ix_up *up[OBD_UP_SLOTS];
	uint32_t busy; /* requests the engine has: they use the client's memory */
	uint32_t unsent;
	bool rings;		/* answers were given in this round */
	bool due[OBD_UP_SLOTS]; /* the answer found the ring full */
	bool answered[OBD_UP_SLOTS];
	uint16_t err[OBD_UP_SLOTS];
	uint32_t seq[OBD_UP_SLOTS]; /* of the last answer, low bits */
};

/* --- upper.c ------------------------------------------------------------------------------------------------------------ */

/* Opens, locks and repairs the files that the open's configuration names and makes the map; sets o->upper. 0: it is OPENED.
 * -EINPROGRESS: the open is queued again when there is more to say. Else a negative errno with a line. */
int obd_ix_upper_open(struct obd_ix_open *o, struct obd_err *err);

/* Puts o->upper into the catalog; o->image is set. */
void obd_ix_upper_publish(struct obd_ix_open *o);

/* No new requests, out of the catalog; what the engine has ends first. Any state. */
void obd_ix_upper_close(struct obd_ix_upper *u);

/* A closing upper has nothing under way any more? Then it goes on to go. */
void obd_ix_upper_settle(struct obd_ix_upper *u);

/* A slice of what is to be done with maps; true: there was something. Begins what is due. */
bool obd_ix_uppers_work(struct obd_indexer *ix);

/* Requests that have waited for their upper's files for too long end. Once a second or so. */
void obd_ix_uppers_tick(struct obd_indexer *ix);

/* When obd_ix_uppers_work has something to do though nothing happened; 0: never. */
uint64_t obd_ix_uppers_deadline(const struct obd_indexer *ix);

/* The upper of an open that an earlier incarnation made ready, or NULL. Its files are opened again for as long as it takes. */
struct obd_ix_upper *obd_ix_upper_attach(struct obd_ix_open *o, const struct obd_reply *r);

/* Reserves the map of catalog entry `slot`. 0, -ENOMEM; anything else wrong with it: -EPROTO. */
int obd_ix_upper_adopt(struct obd_indexer *ix, uint32_t slot);

/* Drops what was adopted for client c and belongs to no open. */
void obd_ix_upper_sweep(struct obd_indexer *ix, uint32_t c);

/* Frees private memory only: files closed, segment untouched. The engine is stopped. */
void obd_ix_upper_free_all(struct obd_indexer *ix);

int obd_ix_upper_init(struct obd_indexer *ix);

/* --- upper_files.c ------------------------------------------------------------------------------------------------------ */

/* A job of opening files. Filled in, run, and read by its owner when it is done. */
struct obd_ix_files {
	struct obd_ix_task task;
	struct obd_ix_upper *upper;
	char *data_path;
	char *index_path;     /* NULL: none */
	const char *note_dir; /* where failed syncs are noted; NULL: nowhere */
	bool direct;	      /* a descriptor with O_DIRECT is wanted too */
	/* Files that were open before: nothing but the records behind applied_bytes is wanted. */
	bool attach;
	bool was_sparse;
	uint64_t was_bytes;
	uint64_t applied_bytes;
	uint64_t dev, ino; /* attach: what it was; then what it is, also when the lock was not to be had */
	/* what came of it; descriptors are -1 unless rc is 0 */
	int rc;
	struct obd_err err;
	int data_fd, direct_fd, index_fd;
	uint64_t id;
	uint32_t granule;
	bool unsynced;
	struct obd_upper_state st;
};

/* NULL: memory. */
struct obd_ix_files *obd_ix_files_new(const char *data_path, const char *index_path);
void obd_ix_files_free(struct obd_ix_files *f);
void obd_ix_files_close(int *data_fd, int *direct_fd, int *index_fd);

/* Notes that a sync failed. On any thread. */
void obd_ix_note_unsynced(const char *dir, uint64_t dev, uint64_t ino, const char *uuid, const char *data_path);

/* --- upper_table.c ------------------------------------------------------------------------------------------------------ */

bool obd_ix_up_rings(struct obd_indexer *ix);
bool obd_ix_up_ring_has(const struct obd_indexer *ix, uint32_t c);

/* Looks at every slot of a client. Returns how many needed something. */
unsigned int obd_ix_up_scan(struct obd_indexer *ix, uint32_t c);

/* Requests that the ring did not tell of; returns how many of them are old. */
unsigned int obd_ix_up_late(struct obd_indexer *ix, uint32_t c);

/* A client that is there from now on; same: it was there under an earlier incarnation of this process. */
void obd_ix_up_client_start(struct obd_indexer *ix, uint32_t c, bool same);
void obd_ix_up_client_reset(struct obd_indexer *ix, uint32_t c);

/* Starts what is READY as far as the engine has room, and what starved for request slots. */
bool obd_ix_up_start(struct obd_indexer *ix);
void obd_ix_up_resume(struct obd_indexer *ix);

/* Answers that found no room once more, and the bells. */
bool obd_ix_up_flush(struct obd_indexer *ix);

/* Its READY requests may run from now on, or again. */
void obd_ix_up_ready(struct obd_ix_upper *u);

/* Answers up with up->err, lets those start that waited for it, frees it. */
void obd_ix_up_finish(struct obd_ix_up *up);

/* An upper is being closed: its requests that the engine has not got are answered. */
void obd_ix_up_drop(struct obd_ix_upper *u);

/* --- upper_run.c -------------------------------------------------------------------------------------------------------- */

/* Starts a READY request. It finishes now or later. */
void obd_ix_up_run(struct obd_ix_up *up);

/* Goes on with a request that was starved: of request slots, or of memory. */
void obd_ix_up_go_on(struct obd_ix_up *up);

/* A sparse request whose pieces are planned and filled goes to the engine. */
void obd_ix_up_run_pieces(struct obd_ix_up *up);

/* Frees what the request holds in private memory. */
void obd_ix_up_free(struct obd_ix_up *up);

/* On a thread: the data of n joint writes of one device, which agree in fua, are in the file. 0: they have their results; an
 * errno: nothing was done. */
int obd_ix_up_joined(struct obd_ix_up *const *up, uint32_t n);

/* --- upper_batch.c ------------------------------------------------------------------------------------------------------ */

/* run is called on a thread, then then on the loop's. joint: it is a write, which has join_src, join_bytes and join_at, and if
 * others go with it, obd_ix_up_joined takes the place of run. */
void obd_ix_gate(struct obd_ix_up *up, void (*run)(struct obd_ix_task *), void (*then)(struct obd_ix_up *), bool joint);

/* Once a round: what came to the gates since goes to threads, as far as devices may have some. */
bool obd_ix_gates_open(struct obd_indexer *ix);

/* --- upper_sparse.c ----------------------------------------------------------------------------------------------------- */

/* Sets what the request keeps others from, before it is put in order. */
void obd_ix_sparse_widen(const struct obd_ix_upper *u, uint64_t *from, uint64_t *to);

/* Sets piece and fill. 0 or a negative errno; -EBUSY: later, others have the memory. */
int obd_ix_sparse_plan(struct obd_ix_up *up);

/* Goes on filling; calls obd_ix_up_run_pieces at the end, obd_ix_up_finish on errors. */
void obd_ix_sparse_fill(struct obd_ix_up *up);

#endif
