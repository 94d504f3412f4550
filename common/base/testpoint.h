/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Test points: named places where a test has a process killed or stopped, one in each window that a row of doc/architecture.md
 * section 4 leaves between two stores. `make TESTPOINTS=1` compiles them in (build/testpoints); in any other build the macros
 * are nothing at all, but the names are checked all the same.
 *
 * A test makes a control file (obd-testpoint create) and names it in OBD_TEST_POINTS in the environment of the processes it is
 * after. They map it when they start, count every pass through each point in it, and look whether the point is armed for their
 * role. A point that is armed acts once, at its nth pass, unless it was armed to act at every pass: so the incarnation that
 * follows lives.
 */
#ifndef OBD_COMMON_BASE_TESTPOINT_H
#define OBD_COMMON_BASE_TESTPOINT_H

#include <stdbool.h>
#include <stdint.h>

enum obd_test_role {
	OBD_TEST_CACHED = 0,
	OBD_TEST_FETCHER,
	OBD_TEST_INDEXER,
	OBD_TEST_FRONTEND, /* whoever is none of the others */
	OBD_TEST_SUPERVISOR,
	OBD_TEST_ROLES
};

/* X(name, roles that pass it: c f i a s as above with a for frontend, where it stands) */
#define OBD_TEST_POINT_TABLE(X)                                                            \
	/* rings, sleep and wake (4.2, 4.3) */                                             \
	X(ring_unpublished, "cfia", "entry stored, head not yet")                          \
	X(ring_published, "cfia", "head stored, peer not yet woken")                       \
	X(ring_untaken, "cfi", "entry copied out, tail not yet stored")                    \
	X(ring_taken, "cfi", "tail stored, entry not yet served")                          \
	X(wake_unrung, "cfia", "peer seen asleep, its doorbell not yet rung")              \
	X(sleep_announced, "cfi", "sleeping announced, rings not yet looked at again")     \
	/* frames (4.4) */                                                                 \
	X(frame_filling, "c", "frame FILLING, its job not yet ISSUED")                     \
	X(frame_unbound, "c", "frame VALID, in no bucket yet")                             \
	X(frame_evicting, "c", "frame EVICTING, still in its bucket")                      \
	X(frame_evicted, "c", "frame EVICTING, out of its bucket")                         \
	X(frame_failed, "c", "frame FAILED, not yet FREE")                                 \
	X(fill_begun, "f", "fill word FILLING, old bytes")                                 \
	X(fill_unpublished, "f", "new bytes and key, fill word still FILLING")             \
	X(fill_published, "f", "fill word VALID, not reported")                            \
	X(fill_failed, "f", "fill word FAILED, job not done")                              \
	X(copied, "a", "bytes copied out of a frame, fill word not yet looked at again")   \
	/* requests (4.5) */                                                               \
	X(request_unposted, "ia", "fields stored, word not yet POSTED")                    \
	X(request_posted, "ia", "word POSTED, not in the ring")                            \
	X(request_seen, "c", "request copied and checked in, nothing asked for")           \
	X(request_served, "c", "blocks asked for, no job yet")                             \
	X(answer_unsent, "c", "all blocks are here, answer not in the ring")               \
	X(answer_sent, "c", "answer in the ring, client not woken")                        \
	X(answer_seen, "ia", "answer copied, request still POSTED")                        \
	X(answer_freed, "ia", "request FREE, tail of the answers not yet stored")          \
	/* jobs (4.6) */                                                                   \
	X(job_unissued, "c", "job's fields stored, word not yet ISSUED")                   \
	X(job_issued, "c", "job ISSUED, not in the ring")                                  \
	X(job_taken, "f", "job copied, nothing begun")                                     \
	X(job_begun, "f", "job's layer known, about to be read; takes an argument: layer") \
	X(job_undone, "f", "all frames terminal, done word old")                           \
	X(job_done, "f", "done word stored, not reported")                                 \
	X(job_settled, "c", "done word seen, frames settled, job still ISSUED")            \
	X(job_freed, "c", "job FREE, what it was for not yet told")                        \
	X(reap_begun, "c", "fetcher reaped, its jobs not yet taken back")                  \
	X(reap_half, "c", "one of its jobs taken back")                                    \
	X(reap_unadmitted, "c", "all taken back, next incarnation not yet admitted")       \
	X(adopt_buckets, "c", "restarted cached: buckets empty, frames not yet adopted")   \
	X(adopt_jobs, "c", "restarted cached: jobs adopted, frames not yet")               \
	X(adopt_rings, "c", "restarted cached: frames adopted, jobs not yet rung for")     \
	X(client_skipped, "c", "client's ring skipped, its table not yet scanned")         \
	X(client_dropped, "c", "client's requests dropped, supervisor not yet told")       \
	X(host_row, "c", "registry's row under change")                                    \
	/* opens (4.7) */                                                                  \
	X(open_unposted, "a", "path stored, word not yet POSTED")                          \
	X(open_posted, "a", "open POSTED, not in the ring")                                \
	X(open_seen, "i", "open copied, nothing begun; takes an argument: path")           \
	X(layer_unpublished, "i", "layer's fields stored, word not yet")                   \
	X(layer_freed, "i", "layer's word FREE, its memory not yet given back")            \
	X(image_unpublished, "i", "merged index in the arena, image not yet READY")        \
	X(image_published, "i", "image READY, not replied")                                \
	X(image_freed, "i", "image's word FREE, its layers still held")                    \
	X(reply_unpublished, "i", "reply's fields stored, word not yet")                   \
	X(reply_published, "i", "reply's word stored, not in the ring")                    \
	X(reply_seen, "a", "reply copied, open not yet HELD")                              \
	X(open_held, "a", "open HELD, caller not told")                                    \
	X(open_closed, "a", "open FREE, not in the ring")                                  \
	X(close_seen, "i", "close seen, references not yet dropped")                       \
	X(adopt_layers, "i", "restarted indexer: layers adopted, images not yet")          \
	X(adopt_known, "i", "restarted indexer: clients known, unheld not yet dropped")    \
	/* writing (4.9) */                                                                \
	X(up_unposted, "a", "staging buffer and fields filled, word not yet POSTED")       \
	X(up_posted, "a", "upper request POSTED, not in the ring")                         \
	X(up_seen, "i", "upper request copied, nothing begun")                             \
	X(up_data, "i", "data in the file, record not yet")                                \
	X(up_record, "i", "record in the file, map not yet")                               \
	X(up_node, "i", "map: new node filled, not yet linked")                            \
	X(up_detail, "i", "map: new detail record filled, not yet linked")                 \
	X(up_mapped, "i", "map changed, applied_bytes not yet")                            \
	X(up_unanswered, "i", "all done, answer not in the ring")                          \
	X(up_answered, "i", "answer in the ring, client not woken")                        \
	X(up_answer_seen, "a", "answer copied, request still POSTED")                      \
	X(up_answer_freed, "a", "request FREE, tail of the answers not yet stored")        \
	X(upper_unpublished, "i", "upper's map and fields stored, word not yet READY")     \
	X(upper_published, "i", "upper READY, not replied")                                \
	X(upper_freed, "i", "upper's word FREE, files still open")                         \
	/* background download (4.10) */                                                   \
	X(want_unpublished, "i", "want's fields stored, word not yet WANTED")              \
	X(want_freed, "i", "want's word FREE, row not yet reused")                         \
	X(down_state, "c", "download's row about to change")                               \
	X(down_local, "c", "download LOCAL, hint not yet stored")                          \
	X(down_written, "f", "a range written, step not done")                             \
	X(down_renamed, "f", "file in its place, step not done")                           \
	/* tokens (4.13) */                                                                \
	X(token_claimed, "f", "claim taken, nothing asked")                                \
	X(token_writing, "f", "slot WRITING, payload half there")                          \
	X(token_set, "f", "slot SET, claim still held")                                    \
	/* the disk tier (4.14) */                                                         \
	X(disk_unmarked, "f", "bytes stored, mark not yet")                                \
	X(disk_unmarking, "c", "mark cleared, hole not yet punched")                       \
	/* supervisor (5) */                                                               \
	X(sv_spawned, "s", "child forked, nothing granted")                                \
	X(sv_granted, "s", "child granted all, not told of clients")                       \
	X(sv_ready, "s", "child READY, others not told")                                   \
	X(sv_reaped, "s", "child waited for, survivors not told")                          \
	X(sv_attached, "s", "client's area made, servers not told")                        \
	X(sv_welcomed, "s", "servers told, client not welcomed")                           \
	X(sv_detached, "s", "client gone, servers not told")

enum obd_test_point {
#define X(name, roles, where) OBD_TP_##name,
	OBD_TEST_POINT_TABLE(X)
#undef X
		OBD_TEST_POINTS_COUNT
};

enum obd_test_action {
	OBD_TEST_NOTHING = 0,
	OBD_TEST_KILL,
	OBD_TEST_STOP, /* SIGSTOP: who finds it hanging has to end it */
	OBD_TEST_ACTIONS
};

#define OBD_TEST_MAGIC UINT64_C(0x31504f494e54) /* of the control file */

/* The control file: one of these for each point, after the magic. Every word is changed by atomic operations. */
struct obd_test_cell {
	uint64_t passes[OBD_TEST_ROLES];
	uint64_t armed;	    /* enum obd_test_action | role << 8 | 1 << 16: at every pass; 0: not armed */
	uint64_t countdown; /* passes until it acts */
	uint64_t arg;	    /* 0: any, else only passes with this argument (obd_test_arg) count */
	uint64_t struck;    /* how often it acted */
	uint64_t struck_ns; /* when it acted last, obd_clock_ns */
	uint64_t struck_pid;
};

struct obd_test_control {
	uint64_t magic;
	uint64_t points;
	struct obd_test_cell cell[OBD_TEST_POINTS_COUNT];
};

/* A point's argument for a text, as where a layer lies. Never 0. */
uint64_t obd_test_arg(const char *text);

#ifdef OBD_TESTPOINTS

void obd_test_pass(enum obd_test_point point, uint64_t arg);

#define OBD_TEST_POINT(name) obd_test_pass(OBD_TP_##name, 0)
#define OBD_TEST_POINT_AT(name, text) obd_test_pass(OBD_TP_##name, obd_test_arg(text))

#else

#define OBD_TEST_POINT(name) ((void)OBD_TP_##name)
#define OBD_TEST_POINT_AT(name, text) ((void)OBD_TP_##name)

#endif

#endif
