/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Mapping of regions. A region is described once, in the table below: its wire name, how many there are, where its size stands
 * in the geometry and where its address goes. Sizes are the geometry's, which is checked against itself first, and a descriptor
 * that is shorter than the geometry says is refused, so a later access cannot run past its end.
 */
#include "shmcache/segment.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/testpoint.h"
#include "common/base/util.h"

#define PAGE_BYTES UINT64_C(4096)
#define HUGE_BYTES UINT64_C(0x200000)

struct obd_segment_fd {
	char name[OBD_WIRE_NAME_BYTES];
	uint32_t index;
	bool writable;
	int fd;
};

enum { MAX_PENDING = 9 + OBD_MAX_CLIENTS + OBD_MAX_FETCHERS };

struct region {
	const char *name;
	uint32_t count;
	size_t geo_bytes; /* offset of its size in struct obd_geometry */
	size_t address;	  /* offset of its pointer (or array of pointers) in struct obd_segment */
};

#define REGION(n, cnt, bytes, member)                                                              \
	{                                                                                          \
		n, cnt, offsetof(struct obd_geometry, bytes), offsetof(struct obd_segment, member) \
	}
static const struct region regions[] = {
	REGION("frames", 1, frames_bytes, frames),
	REGION("fills", 1, fills_bytes, fills),
	REGION("table", 1, table_bytes, table),
	REGION("catalog", 1, catalog_bytes, catalog),
	REGION("index", 1, index_bytes, index),
	REGION("recency", 1, recency_bytes, recency),
	REGION("upread", 1, upread_bytes, upread),
	REGION("tokens", 1, tokens_bytes, tokens),
	REGION("fetcher", OBD_MAX_FETCHERS, fetcher_bytes, fetcher),
	REGION("client", OBD_MAX_CLIENTS, client_bytes, client),
};

static const struct region *find_region(const char *name)
{
	for (size_t i = 0; i < OBD_ARRAY_SIZE(regions); i++)
		if (strcmp(regions[i].name, name) == 0)
			return &regions[i];
	return NULL;
}

static uint64_t region_bytes(const struct obd_segment *seg, const struct region *r)
{
	uint64_t v;
	memcpy(&v, (const char *)&seg->geo + r->geo_bytes, sizeof v);
	return v;
}

static void **region_address(struct obd_segment *seg, const struct region *r, uint32_t index)
{
	return (void **)(void *)((char *)seg + r->address) + index;
}

static int *bell_of(struct obd_segment *seg, const char *name, uint32_t index)
{
	if (strcmp(name, "doorbell:cached") == 0)
		return &seg->bell_cached;
	if (strcmp(name, "doorbell:indexer") == 0)
		return &seg->bell_indexer;
	if (strcmp(name, "doorbell:fetcher") == 0 && index < OBD_MAX_FETCHERS)
		return &seg->bell_fetcher[index];
	if (strcmp(name, "doorbell:client") == 0 && index < OBD_MAX_CLIENTS)
		return &seg->bell_client[index];
	return NULL;
}

void obd_segment_init(struct obd_segment *seg)
{
	memset(seg, 0, sizeof *seg);
	seg->bell_cached = seg->bell_indexer = -1;
	for (int i = 0; i < OBD_MAX_FETCHERS; i++)
		seg->bell_fetcher[i] = -1;
	for (int i = 0; i < OBD_MAX_CLIENTS; i++)
		seg->bell_client[i] = -1;
}

/* --- geometry ---------------------------------------------------------------------------------------------------------- */

static uint64_t table_frames_offset(void)
{
	return obd_align_up(sizeof(struct obd_table), OBD_CACHE_LINE);
}

static uint64_t table_buckets_offset(uint32_t nframes)
{
	return obd_align_up(table_frames_offset() + (uint64_t)nframes * sizeof(struct obd_frame), OBD_CACHE_LINE);
}

void obd_geometry_sizes(struct obd_geometry *geo)
{
	uint64_t data_page = geo->hugepages ? HUGE_BYTES : PAGE_BYTES;
	uint64_t n = geo->nframes;
	geo->frames_bytes = obd_align_up(n * geo->block_bytes, data_page);
	geo->fills_bytes = obd_align_up(n * sizeof(struct obd_fill), PAGE_BYTES);
	geo->table_bytes = obd_align_up(
		table_buckets_offset(geo->nframes) + (uint64_t)geo->nbuckets * sizeof(struct obd_bucket), PAGE_BYTES);
	geo->catalog_bytes = obd_align_up(sizeof(struct obd_catalog), PAGE_BYTES);
	geo->index_bytes = obd_align_up(geo->index_bytes, data_page);
	geo->recency_bytes = obd_align_up(n, PAGE_BYTES);
	geo->fetcher_bytes = obd_align_up(sizeof(struct obd_fetcher_area), PAGE_BYTES);
	geo->client_bytes = obd_align_up(sizeof(struct obd_client_area), PAGE_BYTES);
	geo->upread_bytes = sizeof(struct obd_upread);
	geo->tokens_bytes = obd_align_up(sizeof(struct obd_tokens), PAGE_BYTES);
}

int obd_geometry_check(const struct obd_geometry *geo, struct obd_err *err)
{
	if (geo->magic != OBD_SEG_MAGIC)
		return obd_err_set(err, EPROTO, "segment: magic is %#llx", (unsigned long long)geo->magic);
	if (geo->version != OBD_SEG_VERSION || geo->bytes != sizeof *geo)
		return obd_err_set(err, EPROTO, "segment: version %u of %u bytes, this program knows version %u of %zu bytes",
				   geo->version, geo->bytes, OBD_SEG_VERSION, sizeof *geo);
	if (!obd_is_pow2(geo->block_bytes) || geo->block_bytes < 16384 || geo->block_bytes > 1048576)
		return obd_err_set(err, EPROTO, "segment: block_bytes is %u", geo->block_bytes);
	if (geo->nframes == 0 || geo->nframes > UINT32_C(1) << 30)
		return obd_err_set(err, EPROTO, "segment: nframes is %u", geo->nframes);
	if (!obd_is_pow2(geo->nbuckets) || geo->nbuckets > UINT32_C(1) << 30)
		return obd_err_set(err, EPROTO, "segment: nbuckets is %u", geo->nbuckets);
	if (geo->nfetchers == 0 || geo->nfetchers > OBD_MAX_FETCHERS)
		return obd_err_set(err, EPROTO, "segment: nfetchers is %u", geo->nfetchers);
	if (geo->hugepages > 1 || geo->index_bytes > UINT64_C(1) << 40)
		return obd_err_set(err, EPROTO, "segment: index_bytes is %llu", (unsigned long long)geo->index_bytes);
	struct obd_geometry want = *geo;
	obd_geometry_sizes(&want);
	if (memcmp(&want, geo, sizeof want) != 0)
		return obd_err_set(err, EPROTO, "segment: region sizes do not follow from its geometry");
	return 0;
}

static int read_geometry(struct obd_segment *seg, int fd, struct obd_err *err)
{
	struct obd_geometry geo;
	ssize_t n = pread(fd, &geo, sizeof geo, 0);
	if (n != (ssize_t)sizeof geo)
		return obd_err_set(err, EPROTO, "segment: geometry has %zd bytes, expected %zu", n, sizeof geo);
	int rc = obd_geometry_check(&geo, err);
	if (rc == 0)
		seg->geo = geo;
	return rc;
}

/* --- mapping ----------------------------------------------------------------------------------------------------------- */

static void after_map(struct obd_segment *seg, const struct region *r)
{
	if (strcmp(r->name, "table") == 0) {
		char *base = (char *)seg->table;
		seg->frame = (void *)(base + table_frames_offset());
		seg->bucket = (void *)(base + table_buckets_offset(seg->geo.nframes));
	}
}

static int map_region(struct obd_segment *seg, const struct region *r, uint32_t index, bool writable, int fd,
		      struct obd_err *err)
{
	struct stat st;
	uint64_t bytes = region_bytes(seg, r);
	if (fstat(fd, &st) != 0)
		return obd_err_set(err, errno, "segment: region %s: %s", r->name, strerror(errno));
	if (st.st_size < 0 || (uint64_t)st.st_size < bytes)
		return obd_err_set(err, EPROTO, "segment: region %s has %lld bytes, expected %llu", r->name,
				   (long long)st.st_size, (unsigned long long)bytes);
	void *p = mmap(NULL, bytes, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		return obd_err_set(err, errno, "segment: cannot map region %s: %s", r->name, strerror(errno));
	if (!seg->geo.hugepages && bytes >= HUGE_BYTES)
		madvise(p, bytes, MADV_HUGEPAGE); /* a wish; the creator reports what the host grants */
	madvise(p, bytes, MADV_DONTDUMP);
	void **slot = region_address(seg, r, index);
	if (*slot)
		munmap(*slot, bytes);
	*slot = p;
	after_map(seg, r);
	return 0;
}

static int keep_pending(struct obd_segment *seg, const char *name, uint32_t index, bool writable, int fd)
{
	if (!seg->pending)
		seg->pending = calloc(MAX_PENDING, sizeof *seg->pending);
	if (!seg->pending)
		return -ENOMEM;
	if (seg->npending == MAX_PENDING)
		return -ENOSPC;
	struct obd_segment_fd *p = &seg->pending[seg->npending++];
	memset(p, 0, sizeof *p);
	strncpy(p->name, name, sizeof p->name - 1);
	p->index = index;
	p->writable = writable;
	p->fd = fd;
	return 0;
}

int obd_segment_take(struct obd_segment *seg, const char *name, uint32_t index, bool writable, int fd, struct obd_err *err)
{
	int *bell = bell_of(seg, name, index);
	if (bell) {
		if (*bell >= 0)
			close(*bell);
		*bell = fd;
		return 0;
	}
	int rc;
	const struct region *r = find_region(name);
	if (strcmp(name, "geometry") == 0) {
		rc = read_geometry(seg, fd, err);
	} else if (!r || index >= r->count) {
		rc = obd_err_set(err, EINVAL, "segment: no region is called %s %u", name, index);
	} else if (seg->geo.magic) {
		rc = map_region(seg, r, index, writable, fd, err);
	} else {
		rc = keep_pending(seg, name, index, writable, fd);
		if (rc == 0)
			return 0;
		obd_err_set(err, -rc, "segment: too many regions");
	}
	close(fd);
	return rc;
}

int obd_segment_map(struct obd_segment *seg, struct obd_err *err)
{
	int rc = 0;
	if (!seg->geo.magic)
		rc = obd_err_set(err, ENOENT, "segment: no geometry was granted");
	for (unsigned int i = 0; i < seg->npending; i++) {
		struct obd_segment_fd *p = &seg->pending[i];
		if (rc == 0)
			rc = map_region(seg, find_region(p->name), p->index, p->writable, p->fd, err);
		close(p->fd);
	}
	free(seg->pending);
	seg->pending = NULL;
	seg->npending = 0;
	return rc;
}

static void close_bell(int *bell)
{
	if (*bell >= 0)
		close(*bell);
	*bell = -1;
}

void obd_segment_drop_client(struct obd_segment *seg, uint32_t client)
{
	if (client >= OBD_MAX_CLIENTS)
		return;
	if (seg->client[client])
		munmap(seg->client[client], seg->geo.client_bytes);
	seg->client[client] = NULL;
	close_bell(&seg->bell_client[client]);
}

void obd_segment_close(struct obd_segment *seg)
{
	for (unsigned int i = 0; i < seg->npending; i++)
		close(seg->pending[i].fd);
	free(seg->pending);
	for (size_t i = 0; i < OBD_ARRAY_SIZE(regions); i++)
		for (uint32_t k = 0; k < regions[i].count; k++) {
			void *p = *region_address(seg, &regions[i], k);
			if (p)
				munmap(p, region_bytes(seg, &regions[i]));
		}
	close_bell(&seg->bell_cached);
	close_bell(&seg->bell_indexer);
	for (int i = 0; i < OBD_MAX_FETCHERS; i++)
		close_bell(&seg->bell_fetcher[i]);
	for (int i = 0; i < OBD_MAX_CLIENTS; i++)
		close_bell(&seg->bell_client[i]);
	obd_segment_init(seg);
}

/* --- small things ------------------------------------------------------------------------------------------------------ */

bool obd_raw_chunk(uint64_t blob_bytes, uint32_t block_bytes, uint32_t chunk, uint64_t *start, uint64_t *end)
{
	if (chunk == 0) {
		*start = 0;
		*end = obd_min_u64(blob_bytes, OBD_RAW_HEAD_BYTES);
		return *end > 0;
	}
	uint64_t back = (uint64_t)(chunk - 1) * block_bytes;
	if (blob_bytes <= OBD_RAW_HEAD_BYTES || back >= blob_bytes - OBD_RAW_HEAD_BYTES)
		return false;
	*end = blob_bytes - back;
	*start = *end - OBD_RAW_HEAD_BYTES > block_bytes ? *end - block_bytes : OBD_RAW_HEAD_BYTES;
	return true;
}

void obd_proc_start(struct obd_proc *proc, enum obd_role role, uint32_t index, uint32_t incarnation)
{
	obd_store_relaxed(&proc->role, (uint32_t)role);
	obd_store_relaxed(&proc->index, index);
	obd_store_relaxed(&proc->pid, (uint32_t)getpid());
	obd_store_relaxed(&proc->incarnation, incarnation);
	obd_store_relaxed(&proc->started_ns, obd_clock_ns());
	obd_store_relaxed(&proc->sleeping, 0);
	obd_proc_heartbeat(proc);
	obd_store_release(&proc->magic, OBD_SEG_MAGIC);
}

void obd_proc_heartbeat(struct obd_proc *proc)
{
	obd_store_relaxed(&proc->heartbeat_ns, obd_clock_ns());
}

bool obd_wake(const struct obd_proc *peer, int bell)
{
	obd_fence_full(); /* edge: sleep. Orders the publication before the look at the flag; pairs with obd_sleep_announce */
	if (!obd_load_relaxed(&peer->sleeping) || bell < 0)
		return false;
	OBD_TEST_POINT(wake_unrung);
	uint64_t one = 1;
	ssize_t ignored = write(bell, &one, sizeof one); /* EAGAIN: the bell is already ringing */
	(void)ignored;
	return true;
}

void obd_bell_drain(int bell)
{
	uint64_t count;
	ssize_t ignored = read(bell, &count, sizeof count);
	(void)ignored;
}
