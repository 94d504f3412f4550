/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * obd-iscsi: an initiator in user space that reads LUNs, compares them, writes them, and measures.
 *
 *     session 0 ── slot 0 … slot depth-1 ──┐
 *     session 1 ── slot 0 … slot depth-1 ──┼── one thread, one poll loop
 *     …                                    ┘
 *
 * A session is one login to one LUN. A slot is one READ(16) or WRITE(16) at a time with its own buffer. A job is the same for
 * every session: each verifies or copies the whole range by itself, or takes random or sequential requests until the time is
 * up.
 * Where data must be used in order (SHA-256), piece p always uses slot p % depth, and a slot is used again only after
 * all pieces before it were taken in.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
#include <openssl/evp.h>

#include "common/base/clock.h"
#include "common/base/util.h"
#include "test/tools/latency.h"

enum { EXIT_USAGE = 1, EXIT_IO = 2, EXIT_MISCOMPARE = 3 };
enum mode { READCAP, WAIT_READY, VERIFY, COPY, RANDREAD, SEQREAD, RANDWRITE, SEQWRITE, MODES };
enum { MAX_UNIT_ATTENTIONS = 256, MAX_REPORTS = 5, ASCQ_BECOMING_READY = 0x0401 };

static const char *const mode_names[MODES] = {"readcap",  "wait-ready", "verify",    "copy",
					      "randread", "seqread",	"randwrite", "seqwrite"};

static const char usage[] =
	"usage: obd-iscsi MODE [options] iscsi://HOST:PORT/IQN/LUN ...\n"
	"  readcap                print size and block length of each LUN as JSON\n"
	"  wait-ready             wait until no LUN answers \"becoming ready\" any more\n"
	"  verify -r FILE         compare with FILE, which must be as long as the LUN unless -l is given\n"
	"  verify -x SHA256       compare the range's SHA-256\n"
	"  copy -w FILE           write the range to FILE at the same offsets, zeros as holes (one URL)\n"
	"  randread, seqread      read for -t seconds\n"
	"  randwrite, seqwrite -r FILE   write what FILE has at the same offsets, for -t seconds (seqwrite 0: once)\n"
	"  -b BYTES  size of a request (64K)     -q N  requests in flight per session (16)\n"
	"  -s N      sessions per URL (1)        -t S  seconds to run (5); verify: repeat until then (0: once)\n"
	"  -n N      stop after N requests       -o BYTES -l BYTES  range (the whole LUN)\n"
	"  -R        verify in shuffled order    -S N      seed of all that is random (1)\n"
	"  -W S      wait for ready (30)         -T S  time-out of one command (120, 0: none)\n"
	"  -k        keep going after errors\n"
	"  -A S      log in again for S seconds after a lost connection, and ask again (0: a lost connection is an error);\n"
	"            the LUN must still be what it was: size and VPD pages 0x80 and 0x83 are compared\n"
	"  -i IQN    initiator name\n"
	"exit: 0 ok, 1 usage or connection, 2 I/O error, 3 miscompare\n";

struct session;

struct slot {
	struct session *session;
	unsigned char *buf;
	uint64_t offset_bytes;
	uint32_t len_bytes;
	uint64_t piece;
	uint64_t start_ns;
	int attentions; /* UNIT ATTENTIONs this request met */
	bool filled;	/* ordered jobs: answered, not yet taken in */
	bool under_way; /* sent, not answered */
};

enum { IDENTITY_BYTES = 512 };

struct session {
	struct iscsi_context *iscsi;
	struct iscsi_url *url;
	const char *text;
	uint64_t size_bytes;
	uint32_t block_bytes;
	struct slot *slots;
	unsigned in_flight;
	uint64_t next; /* piece to ask for */
	uint64_t head; /* ordered jobs: piece to take in */
	EVP_MD_CTX *sha;
	unsigned number;
	unsigned char identity[2 * IDENTITY_BYTES]; /* the VPD pages; with -A */
	bool lost;
};

static struct {
	enum mode mode;
	uint64_t request_bytes, offset_bytes, len_bytes, max_requests, seed;
	unsigned depth, sessions_per_url, seconds, ready_seconds, command_seconds, again_seconds;
	bool seconds_given, shuffled, keep_going;
	const char *reference_path, *sha256, *out_path, *initiator;
} opt = {.request_bytes = 65536,
	 .depth = 16,
	 .sessions_per_url = 1,
	 .seconds = 5,
	 .seed = 1,
	 .ready_seconds = 30,
	 .command_seconds = 120,
	 .initiator = "iqn.2025-01.test:obd-iscsi"};

static struct session *sessions;
static unsigned session_count;
static const unsigned char *reference;
static uint64_t reference_bytes;
static int out_fd = -1;
static uint32_t *order; /* a permutation of the pieces, NULL: ascending */
static uint64_t pieces;
static uint64_t deadline_ns;
static struct latency latency;
static uint64_t issued, answered, answered_bytes, io_errors, miscompares, attentions, reconnects, random_state;
static bool stopping;

/* ---- small things ------------------------------------------------------------------------------------------------ */

static uint64_t next_random(void)
{
	uint64_t z = random_state += UINT64_C(0x9e3779b97f4a7c15); /* splitmix64 */

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

static void *must_alloc(size_t count, size_t size)
{
	void *p = calloc(count ? count : 1, size);

	if (!p) {
		perror("obd-iscsi");
		exit(EXIT_USAGE);
	}
	return p;
}

static bool writes(void)
{
	return opt.mode == RANDWRITE || opt.mode == SEQWRITE;
}

static int exit_code(void)
{
	return miscompares ? EXIT_MISCOMPARE : io_errors ? EXIT_IO : 0;
}

static void report_sense(const struct session *s, const char *what, int status, const struct scsi_task *task)
{
	if (status == SCSI_STATUS_CHECK_CONDITION && task)
		fprintf(stderr, "%s: %s: sense %d (%s), asc/ascq %04x (%s)\n", s->text, what, (int)task->sense.key,
			scsi_sense_key_str((int)task->sense.key), (unsigned)task->sense.ascq,
			scsi_sense_ascq_str(task->sense.ascq));
	else
		fprintf(stderr, "%s: %s: status %d: %s\n", s->text, what, status, iscsi_get_error(s->iscsi));
}

static void io_error(const struct slot *slot, int status, const struct scsi_task *task)
{
	char what[96];

	snprintf(what, sizeof(what), "%s of %" PRIu32 " bytes at %" PRIu64, writes() ? "write" : "read", slot->len_bytes,
		 slot->offset_bytes);
	if (io_errors++ < MAX_REPORTS)
		report_sense(slot->session, what, status, task);
	if (!opt.keep_going)
		stopping = true;
}

/* ---- login and readiness ----------------------------------------------------------------------------------------- */

static int session_login(struct session *s, bool quiet)
{
	char name[300];

	snprintf(name, sizeof(name), "%s-%d-%u", opt.initiator, (int)getpid(), s->number);
	s->iscsi = iscsi_create_context(name);
	s->url = s->iscsi ? iscsi_parse_full_url(s->iscsi, s->text) : NULL;
	if (!s->url)
		goto fail;
	iscsi_set_targetname(s->iscsi, s->url->target);
	iscsi_set_session_type(s->iscsi, ISCSI_SESSION_NORMAL);
	iscsi_set_header_digest(s->iscsi, ISCSI_HEADER_DIGEST_NONE);
	iscsi_set_timeout(s->iscsi, (int)opt.command_seconds);
	/* Not the "full connect": that one takes "becoming ready" for a failed login. */
	if (iscsi_connect_sync(s->iscsi, s->url->portal) || iscsi_login_sync(s->iscsi))
		goto fail;
	iscsi_set_noautoreconnect(s->iscsi, 1);
	return 0;
fail:
	if (!quiet)
		fprintf(stderr, "%s: login: %s\n", s->text, s->iscsi ? iscsi_get_error(s->iscsi) : "no memory");
	return -1;
}

/* One TEST UNIT READY. 1: ready; 0: ask again; -1: it never will be (reported). */
static int ask_ready(struct session *s, int *unit_attentions)
{
	struct scsi_task *task = iscsi_testunitready_sync(s->iscsi, s->url->lun);
	int rc = -1;

	if (task && task->status == SCSI_STATUS_GOOD)
		rc = 1;
	else if (task && (task->status == SCSI_STATUS_BUSY || task->status == SCSI_STATUS_TASK_SET_FULL))
		rc = 0;
	else if (task && task->status == SCSI_STATUS_CHECK_CONDITION) {
		if (task->sense.key == SCSI_SENSE_UNIT_ATTENTION && ++*unit_attentions < MAX_UNIT_ATTENTIONS)
			rc = 0;
		else if (task->sense.key == SCSI_SENSE_NOT_READY && task->sense.ascq == ASCQ_BECOMING_READY)
			rc = 0;
	}
	if (rc < 0)
		report_sense(s, "test unit ready", task ? task->status : -1, task);
	if (task)
		scsi_free_scsi_task(task);
	return rc;
}

static int wait_ready(struct session *s)
{
	uint64_t end_ns = obd_clock_ns() + opt.ready_seconds * OBD_SECOND_NS;
	int unit_attentions = 0, rc;

	while ((rc = ask_ready(s, &unit_attentions)) == 0) {
		if (obd_clock_ns() > end_ns) {
			fprintf(stderr, "%s: not ready after %u s\n", s->text, opt.ready_seconds);
			return -1;
		}
		usleep(10000);
	}
	return rc < 0 ? -1 : 0;
}

static bool is_unit_attention(int status, const struct scsi_task *task)
{
	return status == SCSI_STATUS_CHECK_CONDITION && task && task->sense.key == SCSI_SENSE_UNIT_ATTENTION;
}

/* LUNs that come and go beside this one are told in unit attentions, also to this command. */
static struct scsi_task *ask_capacity(struct session *s)
{
	struct scsi_task *task = iscsi_readcapacity16_sync(s->iscsi, s->url->lun);
	for (int n = 1; n < MAX_UNIT_ATTENTIONS && task && is_unit_attention(task->status, task); n++) {
		scsi_free_scsi_task(task);
		task = iscsi_readcapacity16_sync(s->iscsi, s->url->lun);
	}
	return task;
}

static int read_capacity(struct session *s)
{
	struct scsi_task *task = ask_capacity(s);
	struct scsi_readcapacity16 *answer = NULL;

	if (task && task->status == SCSI_STATUS_GOOD)
		answer = scsi_datain_unmarshall(task);
	if (!answer) {
		report_sense(s, "read capacity", task ? task->status : -1, task);
	} else {
		s->block_bytes = answer->block_length;
		s->size_bytes = (answer->returned_lba + 1) * s->block_bytes;
	}
	if (task)
		scsi_free_scsi_task(task);
	return answer && s->block_bytes ? 0 : -1;
}

static int read_page(struct session *s, int page, unsigned char *out)
{
	struct scsi_task *task = NULL;
	for (int n = 0; n < MAX_UNIT_ATTENTIONS; n++) {
		task = iscsi_inquiry_sync(s->iscsi, s->url->lun, 1, page, 255);
		if (!task || !is_unit_attention(task->status, task))
			break;
		scsi_free_scsi_task(task);
		task = NULL;
	}
	int rc = task && task->status == SCSI_STATUS_GOOD && task->datain.size > 0 ? 0 : -1;
	if (rc)
		report_sense(s, "inquiry", task ? task->status : -1, task);
	else
		memcpy(out, task->datain.data, (size_t)obd_min_u64((uint64_t)task->datain.size, IDENTITY_BYTES));
	if (task)
		scsi_free_scsi_task(task);
	return rc;
}

/* Unit serial number and device identification, [2 * IDENTITY_BYTES]. */
static int read_identity(struct session *s, unsigned char *out)
{
	memset(out, 0, 2 * IDENTITY_BYTES);
	return read_page(s, 0x80, out) || read_page(s, 0x83, out + IDENTITY_BYTES) ? -1 : 0;
}

/* Returns 0 or an exit code. */
static int open_sessions(char **urls, unsigned url_count)
{
	session_count = url_count * opt.sessions_per_url;
	sessions = must_alloc(session_count, sizeof(*sessions));
	for (unsigned i = 0; i < session_count; i++) {
		sessions[i].text = urls[i % url_count];
		sessions[i].number = i;
		if (session_login(&sessions[i], false))
			return EXIT_USAGE;
	}
	for (unsigned i = 0; i < session_count; i++) {
		if (wait_ready(&sessions[i]))
			return EXIT_IO;
		if (opt.mode != WAIT_READY && read_capacity(&sessions[i]))
			return EXIT_IO;
		if (opt.again_seconds && read_identity(&sessions[i], sessions[i].identity))
			return EXIT_IO;
	}
	return 0;
}

static void close_sessions(void)
{
	for (unsigned i = 0; i < session_count; i++) {
		struct session *s = &sessions[i];

		if (s->iscsi && !s->lost && iscsi_is_logged_in(s->iscsi))
			iscsi_logout_sync(s->iscsi);
		if (s->url)
			iscsi_destroy_url(s->url);
		if (s->iscsi)
			iscsi_destroy_context(s->iscsi);
		EVP_MD_CTX_free(s->sha);
		for (unsigned j = 0; s->slots && j < opt.depth; j++)
			free(s->slots[j].buf);
		free(s->slots);
	}
	free(sessions);
	free(order);
}

/* ---- what to do with the data ------------------------------------------------------------------------------------ */

static void compare(const struct slot *slot)
{
	const unsigned char *want = reference + slot->offset_bytes;
	uint32_t i = 0;

	if (!memcmp(slot->buf, want, slot->len_bytes))
		return;
	while (slot->buf[i] == want[i])
		i++;
	if (miscompares++ < MAX_REPORTS)
		fprintf(stderr,
			"%s: miscompare at byte %" PRIu64 ": %02x, expected %02x (request: %" PRIu32 " bytes at %" PRIu64 ")\n",
			slot->session->text, slot->offset_bytes + i, slot->buf[i], want[i], slot->len_bytes,
			slot->offset_bytes);
	if (!opt.keep_going)
		stopping = true;
}

static bool all_zero(const unsigned char *p, size_t len)
{
	return !len || (p[0] == 0 && !memcmp(p, p + 1, len - 1));
}

static void write_out(const struct slot *slot)
{
	if (all_zero(slot->buf, slot->len_bytes))
		return;
	if (pwrite(out_fd, slot->buf, slot->len_bytes, (off_t)slot->offset_bytes) != (ssize_t)slot->len_bytes) {
		perror(opt.out_path);
		io_errors++;
		stopping = true;
	}
}

static void start(struct slot *slot);

static void take_in(struct slot *slot)
{
	struct session *s = slot->session;

	if (opt.mode == VERIFY && reference)
		compare(slot);
	else if (opt.mode == COPY)
		write_out(slot);
	if (!s->sha) {
		start(slot);
		return;
	}
	slot->filled = true;
	while ((slot = &s->slots[s->head % opt.depth])->filled && slot->piece == s->head) {
		slot->filled = false;
		EVP_DigestUpdate(s->sha, slot->buf, slot->len_bytes);
		s->head++;
		start(slot);
	}
}

/* ---- the queue --------------------------------------------------------------------------------------------------- */

/* Chooses the slot's next request; false: nothing is left to ask for. */
static bool choose(struct slot *slot)
{
	struct session *s = slot->session;
	bool to_the_end = opt.mode == VERIFY || opt.mode == COPY || (opt.mode == SEQWRITE && !opt.seconds);
	bool time_left = obd_clock_ns() < deadline_ns;

	if (stopping || s->lost || (opt.max_requests && issued >= opt.max_requests) || (!to_the_end && !time_left))
		return false;
	if (s->next == pieces) {
		if (!time_left)
			return false;
		s->next = 0; /* another pass */
	}
	slot->piece = opt.mode == RANDREAD || opt.mode == RANDWRITE ? next_random() % pieces : s->next++;
	uint64_t at = (order ? order[slot->piece] : slot->piece) * opt.request_bytes;
	slot->offset_bytes = opt.offset_bytes + at;
	slot->len_bytes = (uint32_t)obd_min_u64(opt.request_bytes, opt.len_bytes - at);
	return true;
}

static void on_answer(struct iscsi_context *iscsi, int status, void *data, void *private);

static bool submit_read(struct slot *slot)
{
	struct session *s = slot->session;
	struct scsi_task *task = iscsi_read16_task(s->iscsi, s->url->lun, slot->offset_bytes / s->block_bytes, slot->len_bytes,
						   (int)s->block_bytes, 0, 0, 0, 0, 0, on_answer, slot);

	return task && !scsi_task_add_data_in_buffer(task, (int)slot->len_bytes, slot->buf);
}

static bool submit_write(struct slot *slot)
{
	struct session *s = slot->session;

	return iscsi_write16_task(s->iscsi, s->url->lun, slot->offset_bytes / s->block_bytes, slot->buf, slot->len_bytes,
				  (int)s->block_bytes, 0, 0, 0, 0, 0, on_answer, slot) != NULL;
}

static void submit(struct slot *slot)
{
	if (writes() ? submit_write(slot) : submit_read(slot)) {
		slot->session->in_flight++;
		slot->under_way = true;
	} else {
		io_error(slot, -1, NULL);
	}
}

static void start(struct slot *slot)
{
	if (!choose(slot))
		return;
	issued++;
	slot->attentions = 0;
	if (writes())
		memcpy(slot->buf, reference + slot->offset_bytes, slot->len_bytes);
	slot->start_ns = obd_clock_ns();
	submit(slot);
}

static void on_answer(struct iscsi_context *iscsi, int status, void *data, void *private)
{
	struct slot *slot = private;
	struct session *s = slot->session;
	struct scsi_task *task = data;

	(void)iscsi;
	if (s->lost)
		return;
	if (opt.again_seconds && status == SCSI_STATUS_CANCELLED)
		return; /* the connection is about to be found lost */
	s->in_flight--;
	slot->under_way = false;
	if (is_unit_attention(status, task) && slot->attentions++ < MAX_UNIT_ATTENTIONS) {
		attentions++;
		submit(slot);
	} else if (status != SCSI_STATUS_GOOD || !task || task->residual_status != SCSI_RESIDUAL_NO_RESIDUAL) {
		io_error(slot, status, task);
		start(slot);
	} else {
		answered++;
		answered_bytes += slot->len_bytes;
		latency_add(&latency, obd_clock_ns() - slot->start_ns);
		take_in(slot);
	}
	if (task)
		scsi_free_scsi_task(task);
}

/* A new login of a session whose connection is lost: 0 when the LUN is there again. */
static int log_in_again(struct session *s)
{
	uint64_t end_ns = obd_clock_ns() + opt.again_seconds * OBD_SECOND_NS;

	for (;;) {
		iscsi_destroy_context(s->iscsi); /* ends what is under way: on_answer looks at `lost` */
		if (s->url)
			iscsi_destroy_url(s->url);
		s->iscsi = NULL;
		s->url = NULL;
		if (session_login(s, obd_clock_ns() < end_ns) == 0)
			break;
		if (obd_clock_ns() >= end_ns)
			return -1;
		usleep(50000);
	}
	return wait_ready(s);
}

/* What was there before the loss must be there again. */
static int is_the_same(struct session *s)
{
	unsigned char identity[2 * IDENTITY_BYTES];
	uint64_t size_bytes = s->size_bytes;

	if (read_capacity(s) || read_identity(s, identity))
		return false;
	if (size_bytes == s->size_bytes && !memcmp(identity, s->identity, sizeof(identity)))
		return true;
	fprintf(stderr, "%s: is another device after the loss of the connection\n", s->text);
	miscompares++;
	return false;
}

static void submit_again(struct session *s)
{
	s->in_flight = 0;
	for (unsigned i = 0; i < opt.depth; i++) {
		struct slot *slot = &s->slots[i];
		if (slot->under_way)
			submit(slot);
	}
}

static bool come_back(struct session *s)
{
	if (!opt.again_seconds || log_in_again(s) || !is_the_same(s))
		return false;
	s->lost = false;
	reconnects++;
	submit_again(s);
	return true;
}

static void service(struct session *s, int revents)
{
	if (iscsi_service(s->iscsi, revents) >= 0)
		return;
	s->lost = true;
	if (come_back(s))
		return;
	fprintf(stderr, "%s: connection lost: %s\n", s->text, s->iscsi ? iscsi_get_error(s->iscsi) : "no memory");
	io_errors++;
	stopping = !opt.keep_going;
}

static void run_queue(void)
{
	struct pollfd *fds = must_alloc(session_count, sizeof(*fds));

	for (unsigned i = 0; i < session_count * opt.depth; i++)
		start(&sessions[i % session_count].slots[i / session_count]);
	for (;;) {
		unsigned busy = 0;

		for (unsigned i = 0; i < session_count; i++) {
			struct session *s = &sessions[i];

			busy += s->lost ? 0 : s->in_flight;
			fds[i].fd = s->lost ? -1 : iscsi_get_fd(s->iscsi);
			fds[i].events = (short)(s->lost ? 0 : iscsi_which_events(s->iscsi));
			fds[i].revents = 0;
		}
		if (!busy || (poll(fds, session_count, 200) < 0 && errno != EINTR))
			break;
		for (unsigned i = 0; i < session_count; i++) {
			if (!sessions[i].lost)
				service(&sessions[i], fds[i].revents);
		}
	}
	free(fds);
}

/* ---- a job ------------------------------------------------------------------------------------------------------- */

static int open_reference(void)
{
	struct stat st;
	int fd = open(opt.reference_path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &st)) {
		perror(opt.reference_path);
		return EXIT_USAGE;
	}
	reference_bytes = (uint64_t)st.st_size;
	reference = mmap(NULL, reference_bytes ? reference_bytes : 1, PROT_READ, MAP_PRIVATE, fd, 0);
	close(fd);
	if (reference == MAP_FAILED) {
		perror(opt.reference_path);
		return EXIT_USAGE;
	}
	return 0;
}

static int open_output(void)
{
	out_fd = open(opt.out_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (out_fd < 0 || ftruncate(out_fd, (off_t)(opt.offset_bytes + opt.len_bytes))) {
		perror(opt.out_path);
		return EXIT_USAGE;
	}
	return 0;
}

/* Settles the range against the size of the LUNs. */
static int settle_range(void)
{
	uint64_t size = sessions[0].size_bytes, align = 0;
	bool whole = !opt.len_bytes;

	for (unsigned i = 0; i < session_count; i++) {
		size = obd_min_u64(size, sessions[i].size_bytes);
		align = obd_max_u64(align, sessions[i].block_bytes);
	}
	if (reference && whole && reference_bytes != size) {
		fprintf(stderr, "the LUN has %" PRIu64 " bytes, %s has %" PRIu64 "\n", size, opt.reference_path,
			reference_bytes);
		return EXIT_MISCOMPARE;
	}
	if (whole)
		opt.len_bytes = opt.offset_bytes < size ? size - opt.offset_bytes : 0;
	if (!opt.len_bytes || opt.offset_bytes > size || opt.len_bytes > size - opt.offset_bytes ||
	    (reference && opt.offset_bytes + opt.len_bytes > reference_bytes)) {
		fprintf(stderr, "the range does not lie within the LUN (%" PRIu64 " bytes) and the reference\n", size);
		return EXIT_USAGE;
	}
	if (!opt.request_bytes || (opt.request_bytes | opt.offset_bytes | opt.len_bytes) % align ||
	    opt.request_bytes > 16 << 20) {
		fprintf(stderr, "range and request size must be multiples of %" PRIu64 "\n", align);
		return EXIT_USAGE;
	}
	return 0;
}

static void shuffle_order(void)
{
	order = must_alloc(pieces, sizeof(*order));
	for (uint64_t i = 0; i < pieces; i++)
		order[i] = (uint32_t)i;
	for (uint64_t i = pieces - 1; i > 0; i--) {
		uint64_t j = next_random() % (i + 1);
		uint32_t kept = order[i];

		order[i] = order[j];
		order[j] = kept;
	}
}

static int make_slots(struct session *s)
{
	s->slots = must_alloc(opt.depth, sizeof(*s->slots));
	for (unsigned i = 0; i < opt.depth; i++) {
		s->slots[i].session = s;
		if (posix_memalign((void **)&s->slots[i].buf, 4096, opt.request_bytes))
			return EXIT_USAGE;
		memset(s->slots[i].buf, 0xa5, opt.request_bytes); /* what was never filled shall not look like zeros */
	}
	if (opt.sha256) {
		s->sha = EVP_MD_CTX_new();
		if (!s->sha || !EVP_DigestInit_ex(s->sha, EVP_sha256(), NULL))
			return EXIT_USAGE;
	}
	return 0;
}

static void check_digest(struct session *s)
{
	unsigned char digest[32];
	char text[65];

	EVP_DigestFinal_ex(s->sha, digest, NULL);
	for (int i = 0; i < 32; i++)
		snprintf(text + 2 * i, 3, "%02x", digest[i]);
	if (strcmp(text, opt.sha256) != 0) {
		fprintf(stderr, "%s: sha256 is %s, expected %s\n", s->text, text, opt.sha256);
		miscompares++;
	}
}

static void print_result(double seconds)
{
	printf("{\"mode\":\"%s\",\"bs\":%" PRIu64 ",\"qd\":%u,\"sessions\":%u,\"secs\":%.3f,\"ops\":%" PRIu64
	       ",\"bytes\":%" PRIu64 ",\"iops\":%.0f,\"MBps\":%.1f,\"p50_us\":%.1f,\"p99_us\":%.1f,\"p999_us\":%.1f"
	       ",\"max_us\":%.1f,\"attentions\":%" PRIu64 ",\"reconnects\":%" PRIu64 ",\"errors\":%" PRIu64
	       ",\"miscompares\":%" PRIu64 ",\"rc\":%d}\n",
	       mode_names[opt.mode], opt.request_bytes, opt.depth, session_count, seconds, answered, answered_bytes,
	       (double)answered / seconds, (double)answered_bytes / seconds / 1e6, latency_percentile_us(&latency, 50),
	       latency_percentile_us(&latency, 99), latency_percentile_us(&latency, 99.9), (double)latency.max_ns / 1e3,
	       attentions, reconnects, io_errors, miscompares, exit_code());
}

static int run_job(void)
{
	int rc = settle_range();

	if (!rc && opt.mode == COPY)
		rc = open_output();
	for (unsigned i = 0; !rc && i < session_count; i++)
		rc = make_slots(&sessions[i]);
	if (rc)
		return rc;
	pieces = (opt.len_bytes + opt.request_bytes - 1) / opt.request_bytes;
	if (opt.shuffled)
		shuffle_order();
	uint64_t begin_ns = obd_clock_ns();
	deadline_ns = begin_ns + opt.seconds * OBD_SECOND_NS;
	run_queue();
	double seconds = (double)(obd_clock_ns() - begin_ns + 1) / 1e9;
	for (unsigned i = 0; opt.sha256 && !io_errors && i < session_count; i++)
		check_digest(&sessions[i]);
	if (opt.mode == COPY && close(out_fd))
		io_errors++;
	print_result(seconds);
	return exit_code();
}

static void print_capacities(void)
{
	for (unsigned i = 0; i < session_count; i++)
		printf("{\"url\":\"%s\",\"bytes\":%" PRIu64 ",\"block\":%" PRIu32 "}\n", sessions[i].text,
		       sessions[i].size_bytes, sessions[i].block_bytes);
}

/* ---- command line ------------------------------------------------------------------------------------------------ */

static void fail_usage(const char *why)
{
	fprintf(stderr, "obd-iscsi: %s\n%s", why, usage);
	exit(EXIT_USAGE);
}

static uint64_t parse_number(const char *text)
{
	char *end;
	uint64_t v = strtoull(text, &end, 0);
	unsigned shift = *end == 'K' || *end == 'k' ? 10 : *end == 'M' ? 20 : *end == 'G' ? 30 : 0;

	if (end == text || (shift ? end[1] : *end))
		fail_usage("not a number");
	return v << shift;
}

static unsigned parse_count(const char *text)
{
	uint64_t v = parse_number(text);

	if (v > 1000000)
		fail_usage("number too large");
	return (unsigned)v;
}

static void parse_option(int c)
{
	switch (c) {
	case 'r':
		opt.reference_path = optarg;
		break;
	case 'x':
		opt.sha256 = optarg;
		break;
	case 'w':
		opt.out_path = optarg;
		break;
	case 'b':
		opt.request_bytes = parse_number(optarg);
		break;
	case 'q':
		opt.depth = parse_count(optarg);
		break;
	case 's':
		opt.sessions_per_url = parse_count(optarg);
		break;
	case 't':
		opt.seconds = parse_count(optarg), opt.seconds_given = true;
		break;
	case 'n':
		opt.max_requests = parse_number(optarg);
		break;
	case 'o':
		opt.offset_bytes = parse_number(optarg);
		break;
	case 'l':
		opt.len_bytes = parse_number(optarg);
		break;
	case 'R':
		opt.shuffled = true;
		break;
	case 'S':
		opt.seed = parse_number(optarg);
		break;
	case 'W':
		opt.ready_seconds = parse_count(optarg);
		break;
	case 'T':
		opt.command_seconds = parse_count(optarg);
		break;
	case 'k':
		opt.keep_going = true;
		break;
	case 'A':
		opt.again_seconds = parse_count(optarg);
		break;
	case 'i':
		opt.initiator = optarg;
		break;
	default:
		fail_usage("unknown option");
	}
}

static void parse_mode(const char *text)
{
	for (opt.mode = 0; opt.mode < MODES; opt.mode++) {
		if (!strcmp(text, mode_names[opt.mode]))
			return;
	}
	fail_usage("unknown mode");
}

static void check_options(int url_count)
{
	if (url_count < 1)
		fail_usage("no URL");
	if (!opt.depth || !opt.sessions_per_url)
		fail_usage("-q and -s must be at least 1");
	if ((opt.mode == VERIFY || writes()) != (opt.reference_path || opt.sha256) || (opt.reference_path && opt.sha256))
		fail_usage("verify needs one of -r and -x, the others need none");
	if (writes() && !opt.reference_path)
		fail_usage("randwrite and seqwrite need -r");
	if ((opt.mode == COPY) != (opt.out_path != NULL) || (opt.mode == COPY && url_count * (int)opt.sessions_per_url != 1))
		fail_usage("copy needs -w and one URL");
	if (opt.shuffled && !opt.reference_path)
		fail_usage("-R needs -r");
	if (opt.sha256 && (opt.seconds_given || opt.max_requests))
		fail_usage("-x reads the range once: no -t, no -n");
	if (!opt.seconds_given && opt.mode != RANDREAD && opt.mode != SEQREAD && !writes())
		opt.seconds = 0;
}

int main(int argc, char **argv)
{
	int c, rc;

	if (argc < 2)
		fail_usage("no mode");
	parse_mode(argv[1]);
	optind = 2;
	while ((c = getopt(argc, argv, "r:x:w:b:q:s:t:n:o:l:RS:W:T:kA:i:")) != -1)
		parse_option(c);
	check_options(argc - optind);
	random_state = opt.seed;
	rc = opt.reference_path ? open_reference() : 0;
	if (!rc)
		rc = open_sessions(argv + optind, (unsigned)(argc - optind));
	if (!rc && opt.mode == READCAP)
		print_capacities();
	else if (!rc && opt.mode != WAIT_READY)
		rc = run_job();
	close_sessions();
	return rc;
}
