/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Opens: what the clients' open tables ask for, and the replies (doc/architecture.md 4.7).
 *
 *     POSTED in the table -> resolve lowers -> [probe] -> layers READY -> image -> warm -> READY | FAILED
 *                                  |___________ first failure _____________________________^
 *
 * PENDING is replied when only the network is waited for: what local files can tell comes before it.
 *
 * A struct obd_ix_open stands for (client, slot, seq) as long as the table shows that sequence POSTED or HELD. That is also
 * what an image's reference is: this object holds the image, and goes when the table says FREE, carries another sequence, or
 * the client is gone. The truth is in the clients' tables; a ring entry only says where to look.
 *
 * An image config names a repository; having its layers in the cache must not give them to somebody without rights there.
 * So every open that does not fetch all its registry layers from its own repository anyway sends one authorised request
 * (the probe), at once, beside whatever else is under way; with a disk tier, which may have it all, every open does. While the
 * registry cannot be reached the probe is sent again and again, as long as a read would wait; with offlineOpen an image that is
 * complete here does not wait for it.
 *
 * If this process dies: replies that were published stay, others are worked out again by the next one.
 */
#include "indexer/internal.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/testpoint.h"
#include "common/config/config.h"
#include "common/config/result.h"
#include "common/format/merge.h"
#include "shmcache/ring.h"

#define LAYER_TRIES 4u
#define BAD_LAYER_TRIES 8u
#define PROBE_FIRST_NS (100 * OBD_MS_NS)
#define PROBE_LAST_NS (5 * OBD_SECOND_NS)

static struct obd_client_area *area(const struct obd_indexer *ix, uint32_t c)
{
	return ix->seg->client[c];
}

/* --- replies ------------------------------------------------------------------------------------------------------------ */

static void ring_reply(struct obd_indexer *ix, uint32_t c, uint32_t slot)
{
	struct obd_ix_client *cl = &ix->client[c];
	struct obd_catalog_client *half = &ix->cat->client[c];
	uint64_t seq = obd_word_seq(obd_load_relaxed(&half->reply[slot].word));
	if (!obd_ring_push(&half->replies, &area(ix, c)->replies_tail, obd_entry(slot, seq, 0))) {
		cl->unsent += !cl->reply_due[slot];
		cl->reply_due[slot] = true;
	} else {
		cl->unsent -= cl->reply_due[slot];
		cl->reply_due[slot] = false;
	}
	if (obd_wake(&area(ix, c)->proc, ix->seg->bell_client[c]))
		obd_count(&ix->cat->proc, wakeups, 1);
}

bool obd_ix_replies_flush(struct obd_indexer *ix)
{
	bool did = false;
	for (uint32_t c = 1; c < OBD_MAX_CLIENTS; c++) {
		struct obd_ix_client *cl = &ix->client[c];
		for (uint32_t slot = 0; cl->up && cl->unsent && slot < OBD_OPEN_SLOTS; slot++) {
			if (!cl->reply_due[slot])
				continue;
			ring_reply(ix, c, slot);
			if (cl->reply_due[slot])
				break;
			did = true;
		}
	}
	return did;
}

static void reply(struct obd_ix_open *o, enum obd_reply_status status)
{
	struct obd_reply *r = &o->ix->cat->client[o->client].reply[o->slot];
	r->image_slot = o->image ? o->image->slot : 0;
	r->image_uid = o->image ? o->image->uid : 0;
	r->upper_slot = o->upper ? o->upper->slot : 0;
	r->upper_uid = o->upper ? o->upper->uid : 0;
	r->upper_id = o->upper ? o->upper->id : 0;
	r->lowers_id = status == OBD_REPLY_READY ? obd_ix_lowers_id(o) : 0;
	r->err = (uint32_t)o->err;
	obd_store_relaxed(&r->recording, o->record != NULL);
	memset(r->reason, 0, sizeof r->reason);
	memcpy(r->reason, o->reason, strnlen(o->reason, sizeof r->reason - 1));
	OBD_TEST_POINT(reply_unpublished);
	obd_store_release(&r->word, obd_word(o->seq, status)); /* edge: reply-publish; publishes record and image */
	OBD_TEST_POINT(reply_published);
	ring_reply(o->ix, o->client, o->slot);
}

/* --- the end of an open ------------------------------------------------------------------------------------------------- */

static void write_result(const char *file, const char *text)
{
	if (!file)
		return;
	int rc = obd_result_write(file, text);
	if (rc)
		obd_warn("%s: cannot be written: %s", file, strerror(-rc));
}

static void probe_layer_put(struct obd_ix_open *o)
{
	if (o->probe_layer)
		obd_ix_layer_put(o->probe_layer);
	o->probe_layer = NULL;
}

/* Lets go of all that only an open under way needs. */
static void release_work(struct obd_ix_open *o)
{
	obd_ix_posts_cancel(&o->posts);
	obd_list_remove(&o->work);
	obd_list_remove(&o->starved);
	obd_list_remove(&o->warming);
	obd_list_remove(&o->probing);
	probe_layer_put(o);
	for (uint32_t i = 0; i < o->nlowers; i++) {
		struct obd_ix_wait *w = &o->lower[i];
		obd_list_remove(&w->link);
		if (w->layer)
			obd_ix_layer_put(w->layer);
	}
	free(o->lower);
	o->lower = NULL;
	o->nlowers = 0;
	free(o->record_to);
	free(o->trace);
	o->record_to = NULL;
	o->trace = NULL;
	obd_image_config_free(o->cfg);
	o->cfg = NULL;
}

static void close_upper(struct obd_ix_open *o)
{
	if (o->upper)
		obd_ix_upper_close(o->upper);
	o->upper = NULL;
}

void obd_ix_open_free(struct obd_ix_open *o)
{
	obd_ix_record_end(o);
	obd_ix_prefetch_stop(o);
	release_work(o);
	close_upper(o);
	obd_ix_wants_put(o);
	if (o->image)
		obd_ix_image_put(o->ix, o->image);
	o->ix->client[o->client].open[o->slot] = NULL;
	free(o->path);
	free(o);
}

static void note_failure(struct obd_ix_open *o, int err, const char *text)
{
	if (o->err)
		return;
	o->err = err > 0 && err < 4096 ? err : EIO;
	memcpy(o->reason, text, strnlen(text, sizeof o->reason - 1)); /* a longer one is cut; the rest is zero already */
}

static void write_failure(const struct obd_ix_open *o)
{
	char text[OBD_REASON_BYTES + 16];
	snprintf(text, sizeof text, "failed:%s", o->reason);
	if (o->cfg) {
		write_result(o->cfg->result_file, text);
		return;
	}
	char *file = obd_image_config_result_file(o->path);
	write_result(file, text);
	free(file);
}

static void finish_failed(struct obd_ix_open *o)
{
	obd_ix_prefetch_stop(o);
	close_upper(o);
	if (o->image)
		obd_ix_image_put(o->ix, o->image);
	o->image = NULL;
	o->finished = true;
	obd_count(&o->ix->cat->proc, opens_failed, 1);
	write_failure(o); /* before the reply: who called tgtadm looks at the file when that returns */
	reply(o, OBD_REPLY_FAILED);
	obd_error("%s: %s", o->path, o->reason);
	release_work(o);
}

static void finish_ready(struct obd_ix_open *o)
{
	const struct obd_image *e = obd_ix_image_entry(o->ix, o->image);
	o->finished = true;
	if (o->upper)
		obd_ix_upper_publish(o);
	if (o->record_to)
		obd_ix_record_start(o, o->record_to);
	write_result(o->cfg->result_file, "success"); /* before the reply, as above */
	reply(o, OBD_REPLY_READY);
	obd_info("%s: opened for client %u: %u layers, %" PRIu64 " segments, %" PRIu64 " bytes, %" PRIu64 " ms", o->path,
		 o->client, e->nlayers, e->index_count, e->virtual_bytes, (obd_clock_ns() - o->started_ns) / OBD_MS_NS);
	obd_ix_wants_take(o, o->cfg);
	if (o->offline)
		obd_warn("%s: opened from the disk cache, for registry %s is unreachable: %s", o->path, o->cfg->repo.registry,
			 strerror(o->unreachable));
	release_work(o);
	obd_ix_layer_trim(o->ix);
}

void obd_ix_open_queue(struct obd_ix_open *o)
{
	if (!o->finished && obd_list_empty(&o->work))
		obd_list_push_back(&o->ix->open_work, &o->work);
}

/* --- failed layers ------------------------------------------------------------------------------------------------------ */

/* Another repository of the same registry was asked for this layer and refused; ours may have it. */
static bool try_own_url(struct obd_ix_wait *w, const struct obd_ix_layer *l, int err)
{
	const struct obd_layer *e = obd_ix_layer_entry(l);
	if (e->local || (err != EACCES && err != ENOENT) || strcmp(e->url, w->open->cfg->repo_blob_url) == 0)
		return false;
	return ++w->tries < LAYER_TRIES;
}

/* Metadata that makes no sense is fetched anew before anybody is told: its checksums are looked at here only. */
static bool try_again(struct obd_ix_wait *w, const struct obd_ix_layer *l, int err)
{
	if (obd_ix_layer_entry(l)->local || (err != EINVAL && err != EBADMSG && err != ENOTSUP && err != EFBIG))
		return false;
	return ++w->bad_tries < BAD_LAYER_TRIES;
}

void obd_ix_open_layer_failed(struct obd_ix_wait *w, const struct obd_ix_layer *l, int err, const char *text)
{
	struct obd_ix_open *o = w->open;
	const struct obd_layer *e = obd_ix_layer_entry(l);
	obd_ix_open_queue(o);
	if (o->err || try_own_url(w, l, err) || try_again(w, l, err))
		return;
	bool bad = err == EINVAL || err == EBADMSG || err == ENOTSUP;
	const char *name = e->local ? e->path : e->digest;
	size_t len = strlen(name);
	char line[OBD_ERR_BYTES + 256];
	snprintf(line, sizeof line, "%slayer %u (%s%.96s): %s", bad ? "bad " : "", w->number, len > 96 ? "..." : "",
		 len > 96 ? name + len - 96 : name, text);
	note_failure(o, err, line);
}

/* --- the probe ---------------------------------------------------------------------------------------------------------- */

static void probe_failed(struct obd_ix_open *o, int err)
{
	struct obd_err text = {{0}};
	char line[OBD_ERR_BYTES + 64];
	obd_ix_layer_errno_text(o->probe_layer, err, &text);
	snprintf(line, sizeof line, "layer %u: %s", o->probe_number, text.msg);
	note_failure(o, err, line);
}

/* No way to the registry, as opposed to an answer that we do not like. */
static bool is_unreachable(int err)
{
	return err == ECONNREFUSED || err == ETIMEDOUT || err == EHOSTUNREACH || err == ENETUNREACH;
}

static void probe_later(struct obd_ix_open *o, int err)
{
	uint64_t wait = PROBE_FIRST_NS << (o->probe_tries < 6 ? o->probe_tries : 6);
	o->unreachable = err;
	o->probe_tries++;
	o->probe_again_ns = obd_clock_ns() + obd_min_u64(wait, PROBE_LAST_NS);
	obd_list_push_back(&o->ix->probing, &o->probing);
}

static void probe_answered(struct obd_ix_post *post, int err)
{
	struct obd_ix_open *o = post->owner;
	uint64_t limit = o->ix->config ? o->ix->config->read_timeout_sec * OBD_SECOND_NS : 0;
	bool late = limit && obd_clock_ns() - o->started_ns >= limit;
	if (is_unreachable(err) && !late) {
		probe_later(o, err);
	} else {
		o->probed = true;
		if (err)
			probe_failed(o, is_unreachable(err) ? ETIMEDOUT : err);
	}
	obd_ix_open_queue(o);
}

/* Waits for a request slot: any answer gives one. */
static void starve(struct obd_ix_open *o)
{
	if (obd_list_empty(&o->starved))
		obd_list_push_back(&o->ix->starved_opens, &o->starved);
}

static int step_probe(struct obd_ix_open *o, struct obd_err *err)
{
	if (!o->needs_probe || o->probed || !obd_list_empty(&o->posts) || !obd_list_empty(&o->probing))
		return 0;
	int rc = o->probe_layer ? 0 : obd_ix_resolve_probe(o, err);
	if (rc)
		return rc;
	rc = obd_ix_post(o->ix, &o->posts, OBD_JOB_PROBE, o->probe_layer, 0, 0, OBD_REQ_DEMAND, probe_answered, o);
	if (rc == -EBUSY)
		starve(o);
	return rc == -EBUSY ? 0 : rc;
}

/* With one, reading metadata proves no right to the repository. */
static bool has_tier(const struct obd_indexer *ix)
{
	return ix->config && ix->config->cache_size_gb > 0;
}

static void choose_probe(struct obd_ix_open *o)
{
	for (uint32_t i = 0; i < o->nlowers; i++) {
		if (o->lower[i].local || (o->lower[i].fresh && !has_tier(o->ix)))
			continue;
		o->needs_probe = true;
		o->probe_number = i;
	}
}

/* --- warming ------------------------------------------------------------------------------------------------------------ */

static void warm_answered(struct obd_ix_post *post, int err)
{
	struct obd_ix_open *o = post->owner;
	(void)err; /* a device that starts cold starts all the same */
	if (obd_list_empty(&o->posts))
		obd_ix_open_queue(o);
}

static void warm_forgotten(struct obd_ix_post *post, int err)
{
	(void)post;
	(void)err;
}

/* Only images that wait for the network anyway wait for warmth; others let it come. */
static bool is_remote(const struct obd_ix_open *o)
{
	for (uint32_t i = 0; i < o->nlowers; i++)
		if (!o->lower[i].local)
			return true;
	return false;
}

static void warm_block(struct obd_ix_open *o, const struct obd_ix_layer *l, uint32_t block)
{
	unsigned char byte;
	if (obd_reader_copy(&o->ix->reader, l->slot, l->uid, false, block, 0, 1, &byte) == 0)
		return;
	if (is_remote(o))
		(void)obd_ix_post(o->ix, &o->posts, OBD_JOB_BLOCKS, l, block, 1, OBD_REQ_DEMAND, warm_answered, o);
	else
		(void)obd_ix_post(o->ix, &o->ix->forgotten, OBD_JOB_BLOCKS, l, block, 1, OBD_REQ_PREFETCH, warm_forgotten,
				  NULL);
}

/* Asks for the blocks under the device's first sectors. */
static void warm(struct obd_ix_open *o)
{
	const struct obd_image *e = obd_ix_image_entry(o->ix, o->image);
	const struct obd_lsmt_seg *seg = (const void *)(o->ix->seg->index + e->index_off);
	uint32_t bb = o->ix->seg->geo.block_bytes;
	uint64_t asked = 0; /* the last key asked for */
	size_t i = obd_lsmt_lookup(seg, e->index_count, 0);
	for (; i < e->index_count && obd_lsmt_seg_offset(seg[i]) < OBD_IX_WARM_SECTORS; i++) {
		uint64_t sectors = obd_min_u64(obd_lsmt_seg_length(seg[i]), OBD_IX_WARM_SECTORS - obd_lsmt_seg_offset(seg[i]));
		uint64_t from = obd_lsmt_seg_moffset(seg[i]) * OBD_SECTOR_BYTES;
		const struct obd_ix_wait *w = &o->lower[obd_lsmt_seg_tag(seg[i])];
		for (uint64_t b = from / bb; b <= (from + sectors * OBD_SECTOR_BYTES - 1) / bb; b++) {
			uint64_t key = obd_key(w->layer->uid, false, (uint32_t)b);
			if (key != asked)
				warm_block(o, w->layer, (uint32_t)b);
			asked = key;
		}
	}
}

/* True: there is something to wait for. */
static bool step_warm(struct obd_ix_open *o)
{
	if (!o->warmed) {
		o->warmed = true;
		o->warm_until_ns = obd_clock_ns() + OBD_IX_WARM_NS;
		warm(o);
	}
	if (obd_list_empty(&o->posts) || obd_clock_ns() >= o->warm_until_ns)
		return false;
	if (obd_list_empty(&o->warming))
		obd_list_push_back(&o->ix->warming, &o->warming);
	return true;
}

/* --- the steps ---------------------------------------------------------------------------------------------------------- */

static void reply_pending(struct obd_ix_open *o)
{
	if (!o->pending_sent)
		reply(o, OBD_REPLY_PENDING);
	o->pending_sent = true;
}

/* Gets the layers that this open has not, or no more. */
static int step_resolve(struct obd_ix_open *o, struct obd_err *err)
{
	for (uint32_t i = 0; i < o->nlowers; i++) {
		int rc = o->lower[i].layer ? 0 : obd_ix_resolve(o, i, err);
		if (rc)
			return rc;
	}
	return 0;
}

/* How many layers of that kind are not READY. */
static uint32_t not_ready(const struct obd_ix_open *o, bool local)
{
	uint32_t n = 0;
	for (uint32_t i = 0; i < o->nlowers; i++)
		n += o->lower[i].local == local && obd_ix_layer_state(o->lower[i].layer) != OBD_LAYER_READY;
	return n;
}

/* True: every layer's own index is in memory. */
static bool load_indexes(struct obd_ix_open *o)
{
	bool all = true;
	for (uint32_t i = 0; i < o->nlowers; i++) {
		obd_ix_layer_load(o->lower[i].layer);
		all &= o->lower[i].layer->loaded;
	}
	return all;
}

/* All layers are READY. 0, -EINPROGRESS, or a negative errno with a line. */
static int step_image(struct obd_ix_open *o, struct obd_err *err)
{
	int rc = 0;
	if (o->image)
		return 0;
	struct obd_ix_image *im = obd_ix_image_find(o->ix, o->lower, o->nlowers);
	if (!im) {
		if (!load_indexes(o))
			return -EINPROGRESS;
		im = obd_ix_image_build(o->ix, o->lower, o->nlowers, &rc, err);
	}
	if (!im)
		return rc;
	o->image = im;
	obd_ix_image_hold(o->ix, im);
	return 0;
}

/* Everything is here but the registry's word. True: it is not waited for. */
static bool go_offline(struct obd_ix_open *o)
{
	if (!o->ix->config || !o->ix->config->offline_open || !o->unreachable)
		return false;
	obd_ix_posts_cancel(&o->posts);
	obd_list_remove(&o->probing);
	o->probed = o->offline = true;
	return true;
}

/* 0: ready. -EINPROGRESS: waiting. Else a negative errno with a line. */
static int step(struct obd_ix_open *o, struct obd_err *err)
{
	int upper = o->cfg->upper_data ? obd_ix_upper_open(o, err) : 0;
	int rc = upper == -EINPROGRESS ? 0 : upper;
	if (!rc)
		rc = step_resolve(o, err);
	if (!rc)
		rc = step_probe(o, err);
	if (rc)
		return rc;
	if (upper || not_ready(o, true))
		return -EINPROGRESS;
	bool wait_probe = o->needs_probe && !o->probed;
	if (not_ready(o, false) || wait_probe) {
		reply_pending(o);
		if (not_ready(o, false))
			return -EINPROGRESS;
	}
	rc = step_image(o, err);
	if (rc == -EINPROGRESS || (!rc && wait_probe && !go_offline(o)))
		return -EINPROGRESS;
	if (rc)
		return rc;
	obd_ix_prefetch_start(o); /* beside the warming: what warms is demand, so it comes first */
	if (step_warm(o)) {
		reply_pending(o);
		return -EINPROGRESS;
	}
	return 0;
}

void obd_ix_open_step(struct obd_ix_open *o)
{
	struct obd_err err = {{0}};
	if (o->finished)
		return;
	if (!o->err) {
		int rc = step(o, &err);
		if (rc == -EINPROGRESS)
			return;
		if (rc)
			note_failure(o, -rc, err.msg[0] ? err.msg : strerror(-rc));
	}
	if (o->err)
		finish_failed(o);
	else
		finish_ready(o);
}

/* --- starting ----------------------------------------------------------------------------------------------------------- */

static void log_warnings(const struct obd_ix_open *o)
{
	for (uint32_t i = 0; i < o->cfg->warnings.count; i++)
		obd_warn("%s", o->cfg->warnings.text[i]);
}

static int prepare(struct obd_ix_open *o, struct obd_err *err)
{
	if (o->path[0] != '/')
		return obd_err_set(err, EINVAL, "the path of an image configuration must be absolute");
	int rc = obd_image_config_load(o->path, &o->cfg, err);
	if (rc)
		return rc;
	log_warnings(o);
	uint32_t n;
	rc = obd_ix_prefetch_plan(o, &n, err);
	if (rc)
		return rc;
	if ((!n && !o->cfg->upper_data) || n > OBD_IMAGE_LAYERS)
		return obd_err_set(err, EINVAL, "lowers: %u layers, 1 to %u expected", n, OBD_IMAGE_LAYERS);
	o->lower = calloc(n ? n : 1, sizeof(o->lower[0]));
	if (!o->lower)
		return obd_err_set(err, ENOMEM, "out of memory");
	o->nlowers = n;
	for (uint32_t i = 0; i < n; i++) {
		obd_list_init(&o->lower[i].link);
		o->lower[i].open = o;
		o->lower[i].number = i;
	}
	rc = step_resolve(o, err);
	if (!rc)
		choose_probe(o);
	return rc;
}

static struct obd_ix_open *open_new(struct obd_indexer *ix, uint32_t c, uint32_t slot, uint64_t seq)
{
	struct obd_ix_open *o = calloc(1, sizeof *o);
	char *path = malloc(OBD_PATH_BYTES);
	if (!o || !path) {
		free(o);
		free(path);
		obd_error("client %u: out of memory for an open", c);
		return NULL; /* the next look at the tables tries again */
	}
	memcpy(path, area(ix, c)->open_path[slot], OBD_PATH_BYTES);
	path[OBD_PATH_BYTES - 1] = '\0';
	*o = (struct obd_ix_open){.ix = ix, .client = c, .slot = slot, .seq = seq, .path = path, .started_ns = obd_clock_ns()};
	obd_list_init(&o->work);
	obd_list_init(&o->starved);
	obd_list_init(&o->warming);
	obd_list_init(&o->probing);
	obd_list_init(&o->posts);
	ix->client[c].open[slot] = o;
	return o;
}

static void open_start(struct obd_ix_open *o)
{
	struct obd_err err = {{0}};
	obd_count(&o->ix->cat->proc, requests, 1);
	OBD_TEST_POINT_AT(open_seen, o->path);
	int rc = prepare(o, &err);
	if (rc)
		note_failure(o, -rc, err.msg[0] ? err.msg : strerror(-rc));
	obd_ix_open_queue(o);
}

/* --- taking up after a restart ------------------------------------------------------------------------------------------ */

static void open_adopt_image(struct obd_ix_open *o, struct obd_ix_image *im)
{
	o->finished = true;
	o->image = im;
	obd_ix_image_hold(o->ix, im);
}

/* The result file comes after the reply: whoever died between them left it unwritten, and writing it twice does no harm. */
static void repeat_result(const struct obd_ix_open *o, const struct obd_reply *r, bool good)
{
	char text[OBD_REASON_BYTES + 16];
	char *file = obd_image_config_result_file(o->path);
	snprintf(text, sizeof text, "%s%.*s", good ? "success" : "failed:", good ? 0 : (int)sizeof r->reason, r->reason);
	write_result(file, text);
	free(file);
}

/* POSTED, and the catalog holds the final reply of an earlier incarnation. True: it stands. */
static bool adopt_posted(struct obd_ix_open *o)
{
	const struct obd_reply *r = &o->ix->cat->client[o->client].reply[o->slot];
	uint64_t word = obd_load_relaxed(&r->word);
	unsigned int status = obd_word_state(word);
	if (obd_word_seq(word) != o->seq || (status != OBD_REPLY_READY && status != OBD_REPLY_FAILED))
		return false;
	if (status == OBD_REPLY_READY) {
		struct obd_ix_image *im = obd_ix_image_by_id(o->ix, r->image_slot, r->image_uid);
		if (!im)
			return false;
		open_adopt_image(o, im);
		o->upper = obd_ix_upper_attach(o, r);
		obd_ix_record_resume(o);
		obd_ix_wants_adopt(o);
	}
	o->finished = true;
	ring_reply(o->ix, o->client, o->slot);
	repeat_result(o, r, status == OBD_REPLY_READY);
	return true;
}

/* HELD without an open of ours. Our own reply counts if it is still there, else what the client says and the table confirms. */
static void adopt_held(struct obd_ix_open *o)
{
	const struct obd_reply *r = &o->ix->cat->client[o->client].reply[o->slot];
	const struct obd_open *t = &area(o->ix, o->client)->open[o->slot];
	struct obd_ix_image *im = NULL;
	bool ours = obd_load_relaxed(&r->word) == obd_word(o->seq, OBD_REPLY_READY);
	if (ours)
		im = obd_ix_image_by_id(o->ix, r->image_slot, r->image_uid);
	if (!im)
		im = obd_ix_image_by_id(o->ix, obd_load_relaxed(&t->image_slot), obd_load_relaxed(&t->image_uid));
	if (im)
		open_adopt_image(o, im);
	else
		obd_count(&o->ix->cat->proc, protocol_errors, 1);
	if (im && ours) {
		o->upper = obd_ix_upper_attach(o, r);
		obd_ix_record_resume(o);
	}
	obd_ix_wants_adopt(o);
	o->finished = true;
}

/* --- the clients' tables ------------------------------------------------------------------------------------------------ */

bool obd_ix_open_look(struct obd_indexer *ix, uint32_t c, uint32_t slot)
{
	uint64_t word = obd_load_acquire(&area(ix, c)->open[slot].word); /* edge: open-post */
	unsigned int state = obd_word_state(word);
	uint64_t seq = obd_word_seq(word);
	struct obd_ix_open *o = ix->client[c].open[slot];
	bool did = false;
	if (o && (state == OBD_OPEN_FREE || o->seq != seq)) {
		OBD_TEST_POINT(close_seen);
		obd_ix_open_free(o);
		o = NULL;
		did = true;
	}
	if (o || state == OBD_OPEN_FREE)
		return did;
	if (state != OBD_OPEN_POSTED && state != OBD_OPEN_HELD) {
		obd_count(&ix->cat->proc, protocol_errors, 1);
		return did;
	}
	o = open_new(ix, c, slot, seq);
	if (!o)
		return did;
	if (state == OBD_OPEN_HELD)
		adopt_held(o);
	else if (!adopt_posted(o))
		open_start(o);
	return true;
}

unsigned int obd_ix_open_scan(struct obd_indexer *ix, uint32_t c)
{
	unsigned int n = 0;
	for (uint32_t slot = 0; slot < OBD_OPEN_SLOTS; slot++)
		n += obd_ix_open_look(ix, c, slot);
	return n;
}

/* An entry about an open whose reply stands: the client wants to hear it again. */
static void take_entry(struct obd_indexer *ix, uint32_t c, uint64_t entry)
{
	uint32_t slot = obd_entry_slot(entry);
	if (slot >= OBD_OPEN_SLOTS) {
		obd_count(&ix->cat->proc, protocol_errors, 1);
		return;
	}
	if (obd_ix_open_look(ix, c, slot))
		return;
	const struct obd_ix_open *o = ix->client[c].open[slot];
	uint64_t word = obd_load_relaxed(&ix->cat->client[c].reply[slot].word);
	if (o && o->finished && obd_word_seq(word) == o->seq &&
	    obd_word_state(obd_load_relaxed(&area(ix, c)->open[slot].word)) == OBD_OPEN_POSTED)
		ring_reply(ix, c, slot);
}

static bool take_ring(struct obd_indexer *ix, uint32_t c)
{
	const struct obd_ring *ring = &area(ix, c)->opens;
	struct obd_tail *tail = &ix->cat->client[c].opens_tail;
	bool did = false;
	for (unsigned int n = 0; n < OBD_RING_ENTRIES; n++) { /* a client that never stops must not stop the others */
		uint64_t entry;
		enum obd_ring_result got = obd_ring_pop(ring, tail, &entry);
		if (got == OBD_RING_EMPTY)
			break;
		did = true;
		if (got == OBD_RING_LOST) {
			obd_count(&ix->cat->proc, protocol_errors, 1);
			obd_ix_open_scan(ix, c);
			break;
		}
		take_entry(ix, c, entry);
	}
	return did;
}

bool obd_ix_open_rings(struct obd_indexer *ix)
{
	bool did = false;
	for (uint32_t c = 1; c < OBD_MAX_CLIENTS; c++)
		if (ix->client[c].up)
			did |= take_ring(ix, c);
	return did;
}

void obd_ix_client_reset(struct obd_indexer *ix, uint32_t c)
{
	struct obd_catalog_client *half = &ix->cat->client[c];
	struct obd_ix_client *cl = &ix->client[c];
	for (uint32_t slot = 0; slot < OBD_OPEN_SLOTS; slot++) {
		if (cl->open[slot])
			obd_ix_open_free(cl->open[slot]);
		cl->reply_due[slot] = false;
		obd_store_relaxed(&half->reply[slot].word, 0);
	}
	obd_ix_upper_sweep(ix, c);
	obd_ix_up_client_reset(ix, c);
	cl->unsent = 0;
}
