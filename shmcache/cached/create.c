/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The segment's birth: one memfd per region, every page there before anybody uses it. A hugepage pool that is too short is
 * found by fallocate here, said in one line, and answered by ordinary pages (auto) or by giving up (require).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include "common/base/log.h"
#include "common/base/util.h"
#include "common/config/config.h"
#include "shmcache/cached/cached.h"

#define MIB UINT64_C(1048576)

static void plan(const struct obd_config *cfg, bool huge, struct obd_geometry *geo)
{
	memset(geo, 0, sizeof *geo);
	geo->magic = OBD_SEG_MAGIC;
	geo->version = OBD_SEG_VERSION;
	geo->bytes = sizeof *geo;
	geo->hugepages = huge;
	geo->block_bytes = cfg->shared_cache_block_kb * 1024;
	geo->nframes = (uint32_t)(cfg->shared_cache_size_mb * MIB / geo->block_bytes);
	geo->nbuckets = 64;
	while ((uint64_t)geo->nbuckets * OBD_BUCKET_WAYS < 2 * (uint64_t)geo->nframes)
		geo->nbuckets *= 2;
	geo->nfetchers = obd_config_fetchers(cfg);
	geo->index_bytes = cfg->shared_cache_index_mb * MIB;
	if (getrandom(&geo->segment_id, sizeof geo->segment_id, GRND_NONBLOCK) != (ssize_t)sizeof geo->segment_id)
		geo->segment_id = (uint64_t)getpid();
	obd_geometry_sizes(geo);
}

/* A memfd with all its pages, which cannot change its size any more. Returns the descriptor or a negative errno. */
static int make_fd(const char *name, uint64_t bytes, bool huge)
{
	char label[48];
	snprintf(label, sizeof label, "obd:%s", name);
	int fd = memfd_create(label, MFD_CLOEXEC | MFD_ALLOW_SEALING | (huge ? MFD_HUGETLB : 0));
	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)bytes) != 0 || fallocate(fd, 0, 0, (off_t)bytes) != 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
		int rc = -errno;
		close(fd);
		return rc;
	}
	return fd;
}

/* Gives one copy to the supervisor and maps the other. Takes fd. */
static int deposit(struct cached *c, const char *name, uint32_t index, bool writable, int fd)
{
	struct obd_err err = {""};
	int rc = obd_daemon_deposit(c->d, name, index, fd);
	if (rc) {
		close(fd);
		return rc;
	}
	rc = obd_segment_take(&c->seg, name, index, writable, fd, &err);
	if (rc)
		obd_error("%s", err.msg);
	return rc;
}

static int make_region(struct cached *c, const char *name, uint32_t index, uint64_t bytes, bool huge, bool writable)
{
	int fd = make_fd(name, bytes, huge);
	if (fd < 0) {
		obd_error("cannot make region %s of %llu bytes: %s", name, (unsigned long long)bytes, strerror(-fd));
		return fd;
	}
	return deposit(c, name, index, writable, fd);
}

/* Mostly holes: answers to reads of upper layers, since a client has few under way, and tokens. Not ours to map. */
static int make_sparse(struct cached *c, const char *name, uint64_t bytes)
{
	char label[48];
	snprintf(label, sizeof label, "obd:%s", name);
	int fd = memfd_create(label, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return -errno;
	int rc = 0;
	if (ftruncate(fd, (off_t)bytes) != 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0)
		rc = -errno;
	if (rc == 0)
		rc = obd_daemon_deposit(c->d, name, 0, fd);
	close(fd);
	return rc;
}

static int make_geometry(struct cached *c, const struct obd_geometry *geo)
{
	int fd = memfd_create("obd:geometry", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return -errno;
	if (write(fd, geo, sizeof *geo) != (ssize_t)sizeof *geo ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) != 0) {
		int rc = errno ? -errno : -EIO;
		close(fd);
		return rc;
	}
	return deposit(c, "geometry", 0, false, fd);
}

/* The two large regions decide whether huge pages will do. On success both descriptors are set. */
static int make_data(const struct obd_geometry *geo, int *frames_fd, int *index_fd)
{
	*frames_fd = make_fd("frames", geo->frames_bytes, geo->hugepages);
	if (*frames_fd < 0)
		return *frames_fd;
	*index_fd = make_fd("index", geo->index_bytes, geo->hugepages);
	if (*index_fd < 0) {
		close(*frames_fd);
		return *index_fd;
	}
	return 0;
}

static int choose_pages(const struct obd_config *cfg, struct obd_geometry *geo, int *frames_fd, int *index_fd)
{
	if (cfg->shared_cache_hugepages != OBD_HUGEPAGES_OFF) {
		plan(cfg, true, geo);
		uint64_t pages = (geo->frames_bytes + geo->index_bytes) / (2 * MIB);
		int rc = make_data(geo, frames_fd, index_fd);
		if (rc == 0) {
			obd_info("shared cache: %llu MiB in %llu huge pages", (unsigned long long)(geo->frames_bytes / MIB),
				 (unsigned long long)pages);
			return 0;
		}
		if (cfg->shared_cache_hugepages == OBD_HUGEPAGES_REQUIRE) {
			obd_error("sharedCache.hugepages is require, but %llu huge pages of 2 MiB are not to be had (%s); "
				  "raise vm.nr_hugepages",
				  (unsigned long long)pages, strerror(-rc));
			return rc;
		}
		obd_warn("shared cache: %llu huge pages of 2 MiB are not to be had (%s), using ordinary pages; vm.nr_hugepages "
			 "reserves them",
			 (unsigned long long)pages, strerror(-rc));
	}
	plan(cfg, false, geo);
	int rc = make_data(geo, frames_fd, index_fd);
	if (rc)
		obd_error("cannot make a shared cache of %u MiB: %s", cfg->shared_cache_size_mb, strerror(-rc));
	return rc;
}

int obd_cached_create(struct cached *c)
{
	struct obd_geometry geo;
	int frames_fd, index_fd;
	int rc = choose_pages(c->d->config, &geo, &frames_fd, &index_fd);
	if (rc)
		return rc;
	rc = make_geometry(c, &geo);
	if (rc) {
		close(frames_fd);
		close(index_fd);
		return rc;
	}
	rc = deposit(c, "frames", 0, false, frames_fd);
	int rc2 = deposit(c, "index", 0, false, index_fd);
	if (rc || rc2)
		return rc ? rc : rc2;
	rc = make_region(c, "fills", 0, geo.fills_bytes, false, false);
	if (rc == 0)
		rc = make_region(c, "table", 0, geo.table_bytes, false, true);
	if (rc == 0)
		rc = make_region(c, "catalog", 0, geo.catalog_bytes, false, false);
	if (rc == 0)
		rc = make_region(c, "recency", 0, geo.recency_bytes, false, false);
	if (rc == 0)
		rc = make_sparse(c, "upread", geo.upread_bytes);
	if (rc == 0)
		rc = make_sparse(c, "tokens", geo.tokens_bytes);
	for (uint32_t i = 0; rc == 0 && i < geo.nfetchers; i++)
		rc = make_region(c, "fetcher", i, geo.fetcher_bytes, false, false);
	if (rc == 0)
		rc = obd_daemon_setting(c->d, "client_area_bytes", geo.client_bytes);
	c->created = true;
	return rc;
}
