/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The same as one JSON object. Names are an interface: obd-stat(1) lists them, and they change only by addition. Functions here
 * return a new reference or NULL. jansson takes NULL as an element for a failure, which put and append note, and json_pack
 * passes on as NULL, so that one check at the end is enough.
 */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "tools/stat.h"

#define SCHEMA_VERSION 1

/* --- small things --------------------------------------------------------------------------------------------------------- */

static bool broken; /* something is missing: no memory */

static void put(json_t *obj, const char *key, json_t *value)
{
	broken |= json_object_set_new(obj, key, value) != 0;
}

static void append(json_t *array, json_t *value)
{
	broken |= json_array_append_new(array, value) != 0;
}

/* JSON numbers of ours are signed 64 bits; a value beyond that can only be damage. */
static json_t *num(uint64_t v)
{
	return json_integer(v > INT64_MAX ? INT64_MAX : (json_int_t)v);
}

static json_t *age_ms(uint64_t ns)
{
	return num(ns / OBD_MS_NS);
}

/* Of strings that are not UTF-8, each byte above ASCII becomes '?'. */
static json_t *str(const char *s)
{
	json_t *v = json_string(s);
	if (v)
		return v;
	char *copy = strdup(s);
	if (!copy)
		return NULL;
	for (char *p = copy; *p; p++)
		if ((unsigned char)*p >= 0x80)
			*p = '?';
	v = json_string(copy);
	free(copy);
	return v;
}

/* --- sections ------------------------------------------------------------------------------------------------------------- */

static json_t *counters(const uint64_t values[OBD_C_COUNT])
{
	json_t *obj = json_object();
	for (unsigned int c = 0; c < OBD_C_COUNT; c++)
		put(obj, obd_stat_counter_name(c), num(values[c]));
	return obj;
}

static json_t *process(const struct obd_stat_proc *p)
{
	json_t *obj =
		json_pack("{s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "role", obd_role_name(p->role), "index", num(p->index),
			  "pid", num((uint64_t)p->pid), "state", str(p->state), "restarts", num(p->restarts), "uptime_sec",
			  num(p->uptime_sec), "heartbeat_age_ms", num(p->heartbeat_age_ms), "last_exit", str(p->last_exit));
	if (p->has_counters)
		put(obj, "counters", counters(p->counters));
	return obj;
}

static json_t *processes(const struct obd_stat_link *link)
{
	json_t *array = json_array();
	for (uint32_t i = 0; i < link->nprocs; i++)
		append(array, process(&link->procs[i]));
	return array;
}

static json_t *image(const struct obd_stat_image *im)
{
	json_t *layers = json_array();
	for (uint32_t i = 0; i < im->nlayers; i++)
		append(layers, num(im->layer_uid[i]));
	return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o}", "slot", num(im->slot), "uid", num(im->uid), "virtual_bytes",
			 num(im->virtual_bytes), "index_segments", num(im->index_segments), "references", num(im->refs),
			 "layer_uids", layers);
}

static json_t *images(const struct obd_stat *st)
{
	json_t *array = json_array();
	for (uint32_t i = 0; i < st->nimages; i++)
		append(array, image(&st->images[i]));
	return array;
}

static json_t *layer(const struct obd_stat_layer *l)
{
	json_t *obj = json_pack("{s:o, s:o, s:s, s:b, s:o, s:o, s:o, s:o}", "slot", num(l->slot), "uid", num(l->uid), "state",
				obd_stat_layer_state_name(l->state), "compressed", l->zfile, "blob_bytes", num(l->blob_bytes),
				"uncompressed_bytes", num(l->file_bytes), "cached_blocks", num(l->cached_blocks),
				"cached_raw_chunks", num(l->cached_chunks));
	if (l->refused_ns) {
		put(obj, "refused_ms", age_ms(l->refused_ns));
		put(obj, "fetcher_deaths", num(l->fetcher_deaths));
	}
	if (l->local) {
		put(obj, "path", str(l->name));
	} else {
		put(obj, "digest", str(l->name));
		put(obj, "host", str(l->host));
	}
	return obj;
}

static json_t *layers(const struct obd_stat *st)
{
	json_t *array = json_array();
	for (uint32_t i = 0; i < st->nlayers; i++)
		append(array, layer(&st->layers[i]));
	return array;
}

static json_t *download(const struct obd_stat_download *d)
{
	json_t *obj = json_pack("{s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "state",
				obd_stat_down_state_name(d->state), "layer_uid", num(d->layer_uid), "digest", str(d->digest),
				"dir", str(d->dir), "done_bytes", num(d->done_bytes), "total_bytes", num(d->total_bytes),
				"rate_bytes_per_sec", num(d->rate_bytes_per_sec), "next_ms", age_ms(d->next_ns), "tries",
				num(d->tries), "try_cnt", num(d->try_cnt));
	if (d->err) {
		put(obj, "error", num(d->err));
		put(obj, "reason", str(d->reason));
	}
	return obj;
}

static json_t *downloads(const struct obd_stat *st)
{
	json_t *array = json_array();
	for (uint32_t i = 0; i < st->ndownloads; i++)
		append(array, download(&st->downloads[i]));
	return array;
}

static json_t *frames(const struct obd_stat *st)
{
	json_t *obj = json_object();
	for (unsigned int s = 0; s < OBD_FRAME_STATES; s++)
		put(obj, obd_stat_frame_state_name(s), num(st->frames_by_state[s]));
	put(obj, "impossible", num(st->frames_odd));
	return obj;
}

static json_t *cache(const struct obd_stat *st)
{
	double ratio = obd_stat_hit_ratio(st);
	json_t *obj = json_pack("{s:o, s:o, s:o, s:b, s:o}", "block_bytes", num(st->geo.block_bytes), "frames_total",
				num(st->geo.nframes), "total_bytes", num((uint64_t)st->geo.nframes * st->geo.block_bytes),
				"hugepages", st->geo.hugepages != 0, "hit_ratio", ratio < 0 ? json_null() : json_real(ratio));
	if (st->has_table) {
		put(obj, "frames", frames(st));
		put(obj, "raw_frames", num(st->cached_frames_raw));
	}
	return obj;
}

static bool disk_has_reason(const struct obd_stat_disk *d)
{
	return (d->state == OBD_DISK_OFF || d->state == OBD_DISK_READ_ONLY) && d->err > 0 && d->err < 4096;
}

static json_t *disk(const struct obd_stat_disk *d)
{
	json_t *obj = json_pack("{s:s, s:o, s:o, s:o, s:o}", "state", obd_stat_disk_state_name(d->state), "used_bytes",
				num(d->used_bytes), "limit_bytes", num(d->limit_bytes), "free_bytes", num(d->free_bytes),
				"blobs", num(d->blobs));
	if (disk_has_reason(d))
		put(obj, "reason", str(strerror((int)d->err)));
	return obj;
}

static json_t *by_prio(const uint32_t *n)
{
	json_t *o = json_object();
	for (int p = 0; p < OBD_PRIOS; p++)
		json_object_set_new(o, obd_stat_prio_name((unsigned int)p), num(n[p]));
	return o;
}

static json_t *requests(const struct obd_stat *st)
{
	return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "in_flight", num(st->requests_posted), "oldest_age_ms",
			 age_ms(st->requests_oldest_ns), "waiting", num(st->waiting_requests), "waiting_oldest_age_ms",
			 age_ms(st->oldest_wait_ns), "backoff_blocks", num(st->backoff_blocks), "queued_blocks",
			 by_prio(st->queued), "inflight_blocks", by_prio(st->inflight));
}

static json_t *registry(const struct obd_stat_host *h)
{
	json_t *obj =
		json_pack("{s:o, s:s, s:o, s:o, s:o, s:o, s:o}", "host", str(h->name), "state",
			  obd_stat_host_state_name(h->state), "since_ms", age_ms(h->since_ns), "failures", num(h->failures),
			  "jobs", num(h->jobs), "waiting_requests", num(h->waiting), "oldest_age_ms", age_ms(h->oldest_ns));
	if (h->err) {
		put(obj, "last_errno", num(h->err));
		put(obj, "last_error", str(h->reason));
		put(obj, "last_error_age_ms", age_ms(h->err_age_ns));
	}
	return obj;
}

static json_t *registries(const struct obd_stat *st)
{
	json_t *array = json_array();
	for (uint32_t i = 0; i < st->nhosts; i++)
		append(array, registry(&st->host[i]));
	return array;
}

static json_t *opens(const struct obd_stat *st)
{
	json_t *pending = json_array();
	for (uint32_t i = 0; i < st->npending; i++)
		append(pending, json_pack("{s:o, s:o, s:o}", "client", num(st->pending[i].client), "age_ms",
					  age_ms(st->pending[i].age_ns), "path", str(st->pending[i].path)));
	return json_pack("{s:o, s:o}", "held", num(st->opens_held), "pending", pending);
}

static json_t *catalog(const struct obd_stat *st)
{
	return json_pack("{s:o, s:o, s:o}", "arena_bytes", num(st->geo.index_bytes), "arena_used_bytes",
			 num(st->arena_used_bytes), "bad_entries", num(st->bad_entries));
}

static json_t *by_role(const struct obd_stat *st)
{
	static const enum obd_role roles[] = {OBD_ROLE_CACHED, OBD_ROLE_INDEXER, OBD_ROLE_FETCHER, OBD_ROLE_FRONTEND};
	json_t *obj = json_object();
	for (size_t i = 0; i < sizeof roles / sizeof roles[0]; i++)
		put(obj, obd_role_name(roles[i]), counters(st->by_role[roles[i]]));
	put(obj, "total", counters(st->total));
	return obj;
}

/* -------------------------------------------------------------------------------------------------------------------------- */

static json_t *everything(const struct obd_stat *st, const struct obd_stat_link *link)
{
	json_t *obj =
		json_pack("{s:i, s:s, s:o}", "schema", SCHEMA_VERSION, "version", OBD_VERSION, "processes", processes(link));
	if (st->has_geometry)
		put(obj, "cache", cache(st));
	if (st->has_table)
		put(obj, "disk", disk(&st->disk));
	if (st->has_catalog) {
		put(obj, "catalog", catalog(st));
		put(obj, "images", images(st));
		put(obj, "layers", layers(st));
		put(obj, "downloads", downloads(st));
	}
	if (st->has_geometry) {
		put(obj, "registries", registries(st));
		put(obj, "requests", requests(st));
		put(obj, "opens", opens(st));
		put(obj, "counters", by_role(st));
	}
	return obj;
}

int obd_stat_print_json(FILE *out, const struct obd_stat *st, const struct obd_stat_link *link)
{
	broken = false;
	json_t *obj = everything(st, link);
	int rc = obj && !broken ? 0 : -ENOMEM;
	if (rc == 0 && json_dumpf(obj, out, JSON_INDENT(2)) != 0)
		rc = -EIO;
	json_decref(obj);
	if (rc == 0 && putc('\n', out) == EOF)
		rc = -EIO;
	return rc;
}
