/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the files of this room share. Private to it.
 *
 *     opens.c   clients' open tables -> struct obd_ix_open -> replies
 *        |          waits for layers, a probe, a warm cache
 *     image.c   list of layers -> merged index in the arena -> catalog entry
 *        |
 *     layer.c   where a blob is -> SOURCE -> MAPPED -> READY
 *        |
 *     fetch.c   byte ranges of a blob or of its plain file, read through the cache
 *
 *     wants.c   what is to be downloaded
 *     upper*.c  writable devices (upper.h)
 *     prefetch.c, fsmeta*.c  what is asked for before anybody reads it (prefetch.h); record.c  traces (record.h)
 *
 * Calls go downwards. Upwards goes only "look again": a finished read puts its layer, and a finished layer the opens that wait
 * for it, into a work list which obd_indexer_poll empties. So no function is called back from its own callee, and an object
 * may be freed whenever its own step runs.
 */
#ifndef OBD_INDEXER_INTERNAL_H
#define OBD_INDEXER_INTERNAL_H

#include "common/base/list.h"
#include "common/config/image.h"
#include "common/format/lsmt.h"
#include "indexer/arena.h"
#include "indexer/engine.h"
#include "indexer/indexer.h"
#include "indexer/keys.h"
#include "indexer/pages.h"
#include "indexer/prefetch.h"
#include "indexer/record.h"
#include "indexer/upper.h"
#include "shmcache/reader.h"
#include "shmcache/segment.h"

#define OBD_IX_SEG_BYTES_MAX (UINT64_C(256) << 20) /* layers' own indexes kept in private memory beyond need */
#define OBD_IX_TRIES 100u			   /* how often one read asks again for blocks that were evicted too early */
#define OBD_IX_STALE_TRIES 4u			   /* how often it asks again after ESTALE */
#define OBD_IX_WINDOW 4u			   /* requests under way per read */
#define OBD_IX_TAIL_CHUNKS 16u			   /* raw chunks asked for at first, at most */
#define OBD_IX_WARM_NS (2 * OBD_SECOND_NS)
#define OBD_IX_WARM_SECTORS 16u
#define OBD_IX_NO_CLIENT UINT64_MAX /* incarnation of a half that belongs to nobody */

/* --- fetch.c ------------------------------------------------------------------------------------------------------------ */

struct obd_ix_layer;
struct obd_ix_post;

/* The answer to a request; post is removed from its list and freed behind the call. */
typedef void obd_ix_post_fn(struct obd_ix_post *post, int err);

/* A request to cached that is under way. In its owner's list. */
struct obd_ix_post {
	struct obd_list link;
	struct obd_indexer *ix;
	int slot;
	obd_ix_post_fn *fn;
	void *owner;
	uint32_t first;
	uint32_t count;
};

/* Asks, on behalf of the layer's own flow; owner's list gets the post. 0, -EBUSY (all request slots are in use) or -ENOMEM. */
int obd_ix_post(struct obd_indexer *ix, struct obd_list *list, enum obd_job_kind kind, const struct obd_ix_layer *l,
		uint32_t first, uint32_t count, enum obd_req_prio prio, obd_ix_post_fn *fn, void *owner);

/* The same for bytes of blocks (obd_reader_post_part). */
int obd_ix_post_part(struct obd_indexer *ix, struct obd_list *list, const struct obd_ix_layer *l, uint32_t first,
		     uint32_t count, struct obd_part need, enum obd_req_prio prio, obd_ix_post_fn *fn, void *owner);

/* Gives up every request of a list. */
void obd_ix_posts_cancel(struct obd_list *list);

/* Hands answers to their posts; returns how many there were. */
unsigned int obd_ix_answers(struct obd_indexer *ix);

/* A run of blocks or raw chunks. */
struct obd_ix_run {
	uint32_t first;
	uint32_t count;
};

/* One byte range on its way into private memory, or there (missing and err both 0). In its layer's list. */
struct obd_ix_fetch {
	struct obd_list link;
	struct obd_list starved; /* waits for a free request slot */
	struct obd_list posts;
	struct obd_ix_layer *layer;
	bool raw; /* bytes of the blob; else of the plain file */
	uint64_t start;
	uint64_t end;
	struct obd_ix_run run[2];
	uint32_t nruns;
	uint32_t units;
	uint32_t missing; /* units not copied yet */
	uint32_t in_flight;
	uint32_t tries;
	uint32_t stale_tries;
	int err;	    /* positive errno: given up */
	unsigned char *buf; /* end - start bytes */
	unsigned char unit_state[];
};

/* Starts reading [start, end), which lies inside the blob (raw) or the file. NULL: memory. When everything is cached the read
 * is complete at return. The layer is put into the work list when the read ends later. */
struct obd_ix_fetch *obd_ix_fetch_start(struct obd_ix_layer *l, bool raw, uint64_t start, uint64_t end);
void obd_ix_fetch_free(struct obd_ix_fetch *f);

/* Goes on with reads that found no request slot. */
void obd_ix_fetch_resume(struct obd_indexer *ix);

static inline bool obd_ix_fetch_done(const struct obd_ix_fetch *f)
{
	return f->err || !f->missing;
}

/* --- layer.c ------------------------------------------------------------------------------------------------------------ */

enum obd_ix_stage {
	OBD_IX_IDLE = 0, /* nothing under way: READY, or only a source to probe */
	OBD_IX_MAP,	 /* reads the blob's metadata, to become MAPPED */
	OBD_IX_INDEX,	 /* reads the LSMT index, to become READY or, once READY, to have it again */
};

/* The private side of catalog->layer[slot]. */
struct obd_ix_layer {
	struct obd_indexer *ix;
	uint32_t slot;
	uint32_t uid; /* 0: the slot is free */
	bool shared;  /* an open may find it */
	enum obd_ix_stage stage;
	uint32_t refs; /* images and opens under way */
	uint64_t used_at;
	uint64_t arena_bytes; /* 0: no extent */
	uint64_t arena_off;
	char *origin; /* of the registry; NULL for a file */
	struct obd_list fetches;
	struct obd_list waiters; /* struct obd_ix_wait */
	struct obd_list work;
	bool loaded; /* seg and nseg are the layer's index */
	struct obd_lsmt_seg *seg;
	size_t nseg;
};

/* One layer of an open under way. */
struct obd_ix_wait {
	struct obd_list link; /* in the layer's waiters */
	struct obd_ix_open *open;
	struct obd_ix_layer *layer; /* NULL: none yet, or it failed */
	uint32_t number;
	bool fresh;	    /* fetched, or being fetched, during this open by this open's own URL */
	bool local;	    /* a file: its faults are told before the reply PENDING */
	uint32_t tries;	    /* how often it failed by another repository's URL */
	uint32_t bad_tries; /* how often its metadata made no sense */
};

struct obd_layer *obd_ix_layer_entry(const struct obd_ix_layer *l);
enum obd_layer_state obd_ix_layer_state(const struct obd_ix_layer *l);
const struct obd_ix_layer *obd_ix_layer_by_id(const struct obd_indexer *ix, uint32_t slot, uint32_t uid);

/* What may be opened: a local file (path set) or a blob of a registry. */
struct obd_ix_source {
	const char *path;
	uint64_t dev, ino;
	int64_t mtime_ns;
	uint64_t blob_bytes;
	const char *url;
	const struct obd_repo_url *repo;
	const char *digest;
	bool distrust; /* what was cached of it made no sense: its metadata is not to come from the disk tier */
};

/* The layer of that identity, started if it is new. shared false: a new one of its own, only a source, for a probe. *fresh: it
 * is not READY yet and is fetched from this very url. 0, -ENOSPC (table), -ENOMEM, with a line in err. */
int obd_ix_layer_get(struct obd_indexer *ix, const struct obd_ix_source *src, bool shared, struct obd_ix_layer **out,
		     bool *fresh, struct obd_err *err);

void obd_ix_layer_hold(struct obd_ix_layer *l);

/* A layer nobody holds stays READY until its room is needed; one that is no more use is freed here. */
void obd_ix_layer_put(struct obd_ix_layer *l);

/* Makes sure that a READY layer's index is in private memory, or on its way. */
void obd_ix_layer_load(struct obd_ix_layer *l);

/* Goes on with a layer after its reads. */
void obd_ix_layer_step(struct obd_ix_layer *l);
void obd_ix_layer_queue(struct obd_ix_layer *l);

/* Frees entry and extent; nobody may hold it. */
void obd_ix_layer_drop(struct obd_ix_layer *l);

/* The one of those nobody holds that was used least recently, or NULL. */
struct obd_ix_layer *obd_ix_layer_oldest(struct obd_indexer *ix);

/* Frees private indexes nobody waits for, oldest first, down to OBD_IX_SEG_BYTES_MAX in all. */
void obd_ix_layer_trim(struct obd_indexer *ix);

/* "not found at HOST" for a positive errno of a request about this layer. */
void obd_ix_layer_errno_text(const struct obd_ix_layer *l, int err, struct obd_err *out);

/* --- image.c ------------------------------------------------------------------------------------------------------------ */

/* The private side of catalog->image[slot]. */
struct obd_ix_image {
	uint32_t slot;
	uint32_t uid; /* 0: the slot is free */
	uint32_t refs;
	uint64_t used_at;
};

struct obd_image *obd_ix_image_entry(const struct obd_indexer *ix, const struct obd_ix_image *im);
struct obd_ix_image *obd_ix_image_by_id(struct obd_indexer *ix, uint32_t slot, uint32_t uid);

/* The image of exactly these layers, or NULL. */
struct obd_ix_image *obd_ix_image_find(struct obd_indexer *ix, const struct obd_ix_wait *lower, uint32_t n);

/* Merges the layers (all READY and loaded) and publishes the image, not yet held. NULL with *code (negative errno) and err. */
struct obd_ix_image *obd_ix_image_build(struct obd_indexer *ix, const struct obd_ix_wait *lower, uint32_t n, int *code,
					struct obd_err *err);

void obd_ix_image_hold(struct obd_indexer *ix, struct obd_ix_image *im);
void obd_ix_image_put(struct obd_indexer *ix, struct obd_ix_image *im);
void obd_ix_image_drop(struct obd_indexer *ix, struct obd_ix_image *im);

/* Room in the arena, made by dropping what nobody holds, oldest first. 0; -ENOSPC with a line in err; -ENOMEM. */
int obd_ix_room(struct obd_indexer *ix, uint64_t bytes, uint64_t *off, struct obd_err *err);
void obd_ix_room_release(struct obd_indexer *ix, uint64_t off);

/* Drops the image or layer that was used least recently of those nobody holds. False: there is none. */
bool obd_ix_drop_oldest(struct obd_indexer *ix);

/* --- opens.c ------------------------------------------------------------------------------------------------------------ */

/* The private side of catalog->want[slot]. */
struct obd_ix_want {
	uint32_t uid; /* 0: the slot is free */
	uint32_t refs;
};

struct obd_ix_open {
	struct obd_indexer *ix;
	uint32_t client;
	uint32_t slot;
	uint64_t seq;
	struct obd_list work;	 /* in ix->open_work while a step is due */
	struct obd_list starved; /* waits for a free request slot */
	struct obd_list warming; /* in ix->warming while it waits for warm blocks */
	struct obd_list probing; /* in ix->probing while it waits to send the probe again */
	bool finished;		 /* replied READY or FAILED */
	bool pending_sent;
	uint64_t started_ns;
	char *path;
	struct obd_image_config *cfg;
	uint32_t nlowers;
	struct obd_ix_wait *lower; /* NULL when finished */
	/* the probe */
	bool needs_probe;
	bool probed;
	uint32_t probe_number;
	uint32_t probe_tries;
	uint64_t probe_again_ns;
	int unreachable;		  /* positive errno: so the registry was when the probe last came back */
	bool offline;			  /* opened without an answer of the registry */
	struct obd_ix_layer *probe_layer; /* held while the probe is under way */
	struct obd_list posts;		  /* probe or warm-up requests */
	/* the image, held */
	struct obd_ix_image *image;
	struct obd_ix_upper *upper; /* NULL: a read-only device, or not opened yet */
	uint16_t *wants;	    /* slots, one reference each; NULL: none */
	uint32_t nwants;
	char *record_to;      /* an empty trace file, to be written */
	unsigned char *trace; /* a checked one, to be replayed */
	uint64_t trace_records;
	struct obd_ix_record *record;	  /* under way */
	struct obd_ix_prefetch *prefetch; /* under way */
	bool prefetch_tried;
	bool warmed;
	uint64_t warm_until_ns;
	/* the first failure */
	int err;
	char reason[OBD_REASON_BYTES];
};

/* Client c's half of the catalog as for a client that never was. */
void obd_ix_client_reset(struct obd_indexer *ix, uint32_t c);

/* Makes open slot `slot` of client c as its table says. True: something was done. */
bool obd_ix_open_look(struct obd_indexer *ix, uint32_t c, uint32_t slot);

/* Every slot of a client. Returns how many needed something. */
unsigned int obd_ix_open_scan(struct obd_indexer *ix, uint32_t c);

/* Consumes the rings of all clients. */
bool obd_ix_open_rings(struct obd_indexer *ix);

void obd_ix_open_step(struct obd_ix_open *o);
void obd_ix_open_queue(struct obd_ix_open *o);
void obd_ix_open_free(struct obd_ix_open *o);

/* The layer that w waited for is given up (w->layer is NULL already): err a positive errno, text what is wrong with it. */
void obd_ix_open_layer_failed(struct obd_ix_wait *w, const struct obd_ix_layer *l, int err, const char *text);

/* Puts replies that found a full ring into it. */
bool obd_ix_replies_flush(struct obd_indexer *ix);

/* --- resolve.c ---------------------------------------------------------------------------------------------------------- */

/* Finds out what lower number `number` of the open's configuration is and gets its layer. 0 or a negative errno with a line. */
int obd_ix_resolve(struct obd_ix_open *o, uint32_t number, struct obd_err *err);

/* Sets and holds o->probe_layer: the layer of lower o->probe_number, or, when that was opened from another repository, an entry
 * of its own that only the probe uses. 0 or a negative errno with a line. */
int obd_ix_resolve_probe(struct obd_ix_open *o, struct obd_err *err);

/* --- wants.c ------------------------------------------------------------------------------------------------------------ */

/* The open is READY: what is to be downloaded for it, by its configuration. */
void obd_ix_wants_take(struct obd_ix_open *o, const struct obd_image_config *cfg);

/* The same for an open that an earlier incarnation made READY; reads the configuration again. */
void obd_ix_wants_adopt(struct obd_ix_open *o);

void obd_ix_wants_put(struct obd_ix_open *o);

/* Drops wants without references: all opens are known. */
void obd_ix_wants_sweep(struct obd_indexer *ix);

/* --- identity.c --------------------------------------------------------------------------------------------------------- */

/* Of an open whose layers are all there. Never 0. */
uint64_t obd_ix_lowers_id(const struct obd_ix_open *o);

/* Of an upper layer whose data file is (dev, ino). Never 0. */
uint64_t obd_ix_upper_id(const struct obd_lsmt_info *info, uint64_t dev, uint64_t ino);

/* --- adopt.c ------------------------------------------------------------------------------------------------------------ */

/* Takes over READY layers and images from the catalog of an earlier incarnation, frees what was half built. Aborts when
 * entries contradict each other. 0 or -ENOMEM. */
int obd_ix_adopt(struct obd_indexer *ix);

/* --- the object --------------------------------------------------------------------------------------------------------- */

struct obd_ix_client {
	bool up;
	uint64_t incarnation;
	uint32_t unsent; /* replies that found the ring full */
	bool reply_due[OBD_OPEN_SLOTS];
	struct obd_ix_open *open[OBD_OPEN_SLOTS];
	struct obd_ix_up_client ups;
	uint64_t touches_taken; /* of its ring; what is behind the tail is not in part files yet */
};

struct obd_indexer {
	bool clients_known;		 /* see obd_indexer_clients_known */
	const struct obd_config *config; /* for background download and the disk tier; NULL: there is neither */
	struct obd_segment *seg;
	struct obd_catalog *cat;
	struct obd_reader reader;
	struct obd_arena arena;
	bool posted;	   /* cached is to be woken */
	uint64_t now_used; /* counts uses, for "oldest first" */
	uint64_t seg_bytes;
	struct obd_list layer_work;
	struct obd_list open_work;
	struct obd_list starved_fetches;
	struct obd_list starved_opens;
	struct obd_list warming;
	struct obd_list probing;
	struct obd_list forgotten;    /* requests whose answers nobody waits for */
	struct obd_list records;      /* under way */
	uint64_t touches_since_ns;    /* entries taken then are still in their rings; 0: none */
	struct obd_list trace_writes; /* finished, on their way to the disk */
	struct obd_list prefetches;   /* in turn */
	uint32_t prefetch_most;	      /* requests under way, of all of them */
	uint32_t prefetch_in_flight;
	bool metadata_first;
	struct obd_list ups_gates; /* struct obd_ix_upper by gates */
	struct obd_list ups_ready; /* uppers */
	struct obd_list upper_work;
	struct obd_list upper_late;
	uint64_t bounce_bytes; /* of all requests */
	bool bounce_freed;     /* who starved for them may go on */
	struct obd_list ups_starved;
	struct obd_pages pages;
	struct obd_ix_engine engine;
	enum obd_ix_engine_kind engine_kind;
	struct obd_ix_layer layer[OBD_LAYER_SLOTS];
	struct obd_ix_image image[OBD_IMAGE_SLOTS];
	struct obd_ix_upper upper[OBD_UPPER_SLOTS];
	struct obd_ix_want want[OBD_WANT_SLOTS];
	struct obd_ix_client client[OBD_MAX_CLIENTS];
};

/* A number that no layer and no image ever had; 0 when there are no more. */
uint32_t obd_ix_new_uid(struct obd_indexer *ix);

#endif
