/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Tables for people. A grid of cells is filled first, so that each column is as wide as its widest cell. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/util.h"
#include "tools/stat.h"

#define CELL_BYTES 24 /* longer texts go into the last column, which is not aligned */
#define COLUMNS 10

/* --- values as text ------------------------------------------------------------------------------------------------------- */

/* A terminal obeys control characters, so strings of others lose them. Bytes above ASCII stay: file names are UTF-8. */
static void print_safe(FILE *out, const char *s)
{
	for (; *s; s++)
		putc((unsigned char)*s < 0x20 || *s == 0x7f ? '?' : *s, out);
}

static const char *bytes_text(uint64_t bytes, char buf[CELL_BYTES])
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double v = (double)bytes;
	unsigned int u = 0;
	while (v >= 1024 && u + 1 < OBD_ARRAY_SIZE(units)) {
		v /= 1024;
		u++;
	}
	snprintf(buf, CELL_BYTES, u ? "%.1f %s" : "%.0f %s", v, units[u]);
	return buf;
}

static const char *age_text(uint64_t ns, char buf[CELL_BYTES])
{
	uint64_t s = ns / OBD_SECOND_NS;
	if (s == 0 || (s < 10 && ns % OBD_SECOND_NS))
		snprintf(buf, CELL_BYTES, "%" PRIu64 " ms", ns / OBD_MS_NS);
	else if (s < 600)
		snprintf(buf, CELL_BYTES, "%" PRIu64 " s", s);
	else if (s < 172800)
		snprintf(buf, CELL_BYTES, "%" PRIu64 "h%02" PRIu64 "m", s / 3600, s / 60 % 60);
	else
		snprintf(buf, CELL_BYTES, "%" PRIu64 "d%02" PRIu64 "h", s / 86400, s / 3600 % 24);
	return buf;
}

static uint64_t seconds_ns(uint64_t seconds)
{
	uint64_t ns;
	return obd_mul_u64(seconds, OBD_SECOND_NS, &ns) ? ns : UINT64_MAX;
}

/* --- the grid ------------------------------------------------------------------------------------------------------------- */

struct row {
	char cell[COLUMNS][CELL_BYTES];
	const char *last[2]; /* printed behind the cells; strings of others, not copied */
};

struct grid {
	const char *align; /* one 'l' or 'r' per column */
	size_t ncolumns, nrows, room;
	struct row *row;
	bool broken; /* no memory: the grid is not printed */
};

static void grid_start(struct grid *g, const char *align)
{
	memset(g, 0, sizeof *g);
	g->align = align;
	g->ncolumns = strlen(align);
}

/* A row of cells separated by '|' in the formatted text, and what goes last. */
__attribute__((format(printf, 3, 4))) static void grid_row(struct grid *g, const char *last, const char *fmt, ...)
{
	char line[COLUMNS * CELL_BYTES];
	va_list ap;
	if (g->nrows == g->room) {
		size_t room = g->room ? g->room * 2 : 16;
		struct row *bigger = reallocarray(g->row, room, sizeof *bigger);
		if (!bigger) {
			g->broken = true;
			return;
		}
		g->row = bigger;
		g->room = room;
	}
	struct row *r = &g->row[g->nrows++];
	memset(r, 0, sizeof *r);
	r->last[0] = last;
	va_start(ap, fmt);
	vsnprintf(line, sizeof line, fmt, ap);
	va_end(ap);
	char *rest = line, *cell;
	for (size_t c = 0; c < g->ncolumns && (cell = strsep(&rest, "|")); c++)
		snprintf(r->cell[c], CELL_BYTES, "%s", cell);
}

static int column_width(const struct grid *g, size_t column)
{
	size_t width = 0;
	for (size_t r = 0; r < g->nrows; r++)
		width = obd_max_u64(width, strlen(g->row[r].cell[column]));
	return (int)width;
}

static void print_row(FILE *out, const struct grid *g, const struct row *r)
{
	bool more = r->last[0] && *r->last[0];
	for (size_t c = 0; c < g->ncolumns; c++) {
		int width = column_width(g, c);
		if (!more && c + 1 == g->ncolumns && g->align[c] == 'l')
			width = 0; /* no blanks at the end of a line */
		fprintf(out, "  %*s", g->align[c] == 'l' ? -width : width, r->cell[c]);
	}
	for (int i = 0; i < 2 && r->last[i] && *r->last[i]; i++) {
		fputs("  ", out);
		print_safe(out, r->last[i]);
	}
	putc('\n', out);
}

/* Prints and frees it. A table without rows (but for its heads) is not printed. */
static void grid_print(FILE *out, struct grid *g, bool has_heads)
{
	for (size_t r = 0; !g->broken && g->nrows > has_heads && r < g->nrows; r++)
		print_row(out, g, &g->row[r]);
	if (g->broken)
		fputs("  (no memory for this table)\n", out);
	free(g->row);
}

/* The state is the supervisor's word; as a cell it must not bring separators or control characters. */
static const char *cell_safe(const char *s, char buf[CELL_BYTES])
{
	size_t n = 0;
	for (; s[n] && n < CELL_BYTES - 1; n++)
		buf[n] = (unsigned char)s[n] < 0x20 || (unsigned char)s[n] >= 0x7f || s[n] == '|' ? '?' : s[n];
	buf[n] = '\0';
	return buf;
}

/* --- sections ------------------------------------------------------------------------------------------------------------- */

static void print_processes(FILE *out, const struct obd_stat_link *link)
{
	struct grid g;
	char state[CELL_BYTES], up[CELL_BYTES], beat[CELL_BYTES];
	uint32_t clients = 0;
	grid_start(&g, "lrrlrrr");
	grid_row(&g, "LAST EXIT", "ROLE|NR|PID|STATE|RESTARTS|UP|HEARTBEAT");
	for (uint32_t i = 0; i < link->nprocs; i++) {
		const struct obd_stat_proc *p = &link->procs[i];
		bool beats = p->pid > 0 && p->role != OBD_ROLE_SUPERVISOR;
		clients += p->role == OBD_ROLE_FRONTEND;
		grid_row(&g, p->last_exit, "%s|%" PRIu32 "|%" PRId64 "|%s|%" PRIu64 "|%s|%s", obd_role_name(p->role), p->index,
			 p->pid, cell_safe(p->state, state), p->restarts, age_text(seconds_ns(p->uptime_sec), up),
			 beats ? age_text(p->heartbeat_age_ms * OBD_MS_NS, beat) : "-");
	}
	fprintf(out, "processes (%" PRIu32 " frontends attached)\n", clients);
	grid_print(out, &g, true);
}

static void print_images(FILE *out, const struct obd_stat *st)
{
	struct grid g;
	char size[CELL_BYTES];
	grid_start(&g, "rrrrrr");
	grid_row(&g, NULL, "SLOT|UID|LAYERS|SIZE|SEGMENTS|REFS");
	for (uint32_t i = 0; i < st->nimages; i++) {
		const struct obd_stat_image *im = &st->images[i];
		grid_row(&g, NULL, "%" PRIu32 "|%" PRIu32 "|%" PRIu32 "|%s|%" PRIu64 "|%" PRIu32, im->slot, im->uid,
			 im->nlayers, bytes_text(im->virtual_bytes, size), im->index_segments, im->refs);
	}
	fprintf(out, "\nimages (%" PRIu32 ", indexes use %s)\n", st->nimages, bytes_text(st->arena_used_bytes, size));
	grid_print(out, &g, true);
	if (st->bad_entries)
		fprintf(out, "  %" PRIu32 " entries of the catalog make no sense\n", st->bad_entries);
}

static void print_layers(FILE *out, const struct obd_stat *st)
{
	struct grid g;
	char blob[CELL_BYTES], file[CELL_BYTES];
	grid_start(&g, "rrlrrrr");
	grid_row(&g, "DIGEST AND HOST, OR PATH", "SLOT|UID|STATE|BLOB|UNCOMPRESSED|BLOCKS|CHUNKS");
	for (uint32_t i = 0; i < st->nlayers; i++) {
		const struct obd_stat_layer *l = &st->layers[i];
		grid_row(&g, l->name, "%" PRIu32 "|%" PRIu32 "|%s|%s|%s|%" PRIu64 "|%" PRIu64, l->slot, l->uid,
			 l->refused_ns ? "refused" : obd_stat_layer_state_name(l->state), bytes_text(l->blob_bytes, blob),
			 l->file_bytes ? bytes_text(l->file_bytes, file) : "-", l->cached_blocks, l->cached_chunks);
		if (!l->local && !g.broken)
			g.row[g.nrows - 1].last[1] = l->host;
	}
	fprintf(out, "\nlayers (%" PRIu32 ")\n", st->nlayers);
	grid_print(out, &g, true);
}

static void print_registries(FILE *out, const struct obd_stat *st)
{
	struct grid g;
	char since[CELL_BYTES], oldest[CELL_BYTES];
	grid_start(&g, "lrrrr");
	grid_row(&g, "HOST, AND ITS LAST ERROR", "STATE|SINCE|WAITING|OLDEST|JOBS");
	for (uint32_t i = 0; i < st->nhosts; i++) {
		const struct obd_stat_host *h = &st->host[i];
		grid_row(&g, h->name, "%s|%s|%" PRIu64 "|%s|%" PRIu32, obd_stat_host_state_name(h->state),
			 h->state == OBD_STAT_HOST_OK ? "-" : age_text(h->since_ns, since), h->waiting,
			 h->waiting ? age_text(h->oldest_ns, oldest) : "-", h->jobs);
		if (h->state != OBD_STAT_HOST_OK && !g.broken)
			g.row[g.nrows - 1].last[1] = h->err ? h->reason : "no answer so far";
	}
	fprintf(out, "\nregistries (%" PRIu32 ")\n", st->nhosts);
	grid_print(out, &g, true);
}

static void print_downloads(FILE *out, const struct obd_stat *st)
{
	struct grid g;
	char done[CELL_BYTES], total[CELL_BYTES], rate[CELL_BYTES], next[CELL_BYTES];
	if (!st->ndownloads)
		return;
	grid_start(&g, "lrrrrrl");
	grid_row(&g, "DIRECTORY AND LAST ERROR", "STATE|DONE|OF|PER SECOND|NEXT|FAILED|DIGEST");
	for (uint32_t i = 0; i < st->ndownloads; i++) {
		const struct obd_stat_download *d = &st->downloads[i];
		grid_row(&g, d->dir, "%s|%s|%s|%s|%s|%" PRIu32 " of %" PRIu32 "|%.19s", obd_stat_down_state_name(d->state),
			 bytes_text(d->done_bytes, done), bytes_text(d->total_bytes, total),
			 bytes_text(d->rate_bytes_per_sec, rate), d->next_ns ? age_text(d->next_ns, next) : "-", d->tries,
			 d->try_cnt, d->digest);
		if (d->err && !g.broken)
			g.row[g.nrows - 1].last[1] = d->reason;
	}
	fprintf(out, "\nbackground downloads (%" PRIu32 ")\n", st->ndownloads);
	grid_print(out, &g, true);
}

static void print_frames(FILE *out, const struct obd_stat *st)
{
	char size[CELL_BYTES];
	struct grid g;
	grid_start(&g, "lrr");
	for (unsigned int s = 0; s < OBD_FRAME_STATES; s++)
		grid_row(&g, NULL, "%s|%" PRIu64 "|%s", obd_stat_frame_state_name(s), st->frames_by_state[s],
			 bytes_text(st->frames_by_state[s] * st->geo.block_bytes, size));
	if (st->frames_odd)
		grid_row(&g, NULL, "impossible|%" PRIu64 "|", st->frames_odd);
	grid_print(out, &g, false);
}

static void print_cache(FILE *out, const struct obd_stat *st)
{
	char total[CELL_BYTES], block[CELL_BYTES];
	double ratio = obd_stat_hit_ratio(st);
	fprintf(out, "\ncache (%s in blocks of %s, %s pages)\n",
		bytes_text((uint64_t)st->geo.nframes * st->geo.block_bytes, total), bytes_text(st->geo.block_bytes, block),
		st->geo.hugepages ? "huge" : "ordinary");
	if (st->has_table)
		print_frames(out, st);
	if (ratio >= 0)
		fprintf(out, "  hit ratio %.2f %%\n", ratio * 100);
	else
		fprintf(out, "  hit ratio -\n");
}

static void print_disk(FILE *out, const struct obd_stat_disk *d)
{
	char used[CELL_BYTES], limit[CELL_BYTES], left[CELL_BYTES];
	bool trouble = d->state == OBD_DISK_OFF || d->state == OBD_DISK_READ_ONLY;
	if (d->state == OBD_DISK_NONE)
		return;
	fprintf(out, "\ndisk cache (%s%s%s)\n", obd_stat_disk_state_name(d->state), trouble ? ": " : "",
		trouble ? strerror((int)(d->err & 0xfff)) : "");
	fprintf(out, "  %s of %s in %" PRIu32 " blobs, %s free on its disk\n", bytes_text(d->used_bytes, used),
		bytes_text(d->limit_bytes, limit), d->blobs, bytes_text(d->free_bytes, left));
}

static void print_in_flight(FILE *out, const struct obd_stat *st)
{
	char oldest[CELL_BYTES], age[CELL_BYTES];
	fprintf(out, "\nin flight\n");
	fprintf(out, "  requests %" PRIu64 ", oldest %s; %" PRIu32 " wait for blocks, %" PRIu32 " blocks in back-off\n",
		st->requests_posted, age_text(st->requests_oldest_ns, oldest), st->waiting_requests, st->backoff_blocks);
	fprintf(out, "  blocks queued and under way:");
	for (int p = 0; p < OBD_PRIOS; p++)
		fprintf(out, "%s %s %" PRIu32 "/%" PRIu32, p ? "," : "", obd_stat_prio_name((unsigned int)p), st->queued[p],
			st->inflight[p]);
	putc('\n', out);
	fprintf(out, "  opens %" PRIu32 " pending, %" PRIu64 " held\n", st->npending, st->opens_held);
	for (uint32_t i = 0; i < st->npending; i++) {
		fprintf(out, "    frontend %" PRIu32 ", %s: ", st->pending[i].client, age_text(st->pending[i].age_ns, age));
		print_safe(out, st->pending[i].path);
		putc('\n', out);
	}
}

/* Those that are worth a line at 0 as well: the ones that should stay there. */
static bool always_shown(unsigned int c)
{
	return c == OBD_C_protocol_errors || c == OBD_C_late_wakeups;
}

static void print_counters(FILE *out, const struct obd_stat *st)
{
	struct grid g;
	grid_start(&g, "lrrrr");
	grid_row(&g, "", "COUNTER|CACHED|INDEXER|FETCHERS|FRONTENDS");
	for (unsigned int c = 0; c < OBD_C_COUNT; c++)
		if (st->total[c] || always_shown(c))
			grid_row(&g, obd_stat_counter_text(c), "%s|%" PRIu64 "|%" PRIu64 "|%" PRIu64 "|%" PRIu64,
				 obd_stat_counter_name(c), st->by_role[OBD_ROLE_CACHED][c], st->by_role[OBD_ROLE_INDEXER][c],
				 st->by_role[OBD_ROLE_FETCHER][c], st->by_role[OBD_ROLE_FRONTEND][c]);
	fprintf(out, "\ncounters (those not listed are 0)\n");
	grid_print(out, &g, true);
}

void obd_stat_print_tables(FILE *out, const struct obd_stat *st, const struct obd_stat_link *link)
{
	print_processes(out, link);
	if (st->has_catalog) {
		print_images(out, st);
		print_layers(out, st);
		print_downloads(out, st);
	}
	if (st->has_geometry) {
		print_cache(out, st);
		print_disk(out, &st->disk);
		print_registries(out, st);
		print_in_flight(out, st);
		print_counters(out, st);
	} else {
		fprintf(out, "\nthe group has no cache yet\n");
	}
}
