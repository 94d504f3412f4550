/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * From a layer of an image configuration to a layer of the table: where its bytes are, and what identifies them.
 * Looks at local files (open, fstat); never at the network.
 */
#include "indexer/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* O_NONBLOCK: a fifo under that name must not stop us. */
static int stat_readable(const char *path, struct stat *st)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return -errno;
	int rc = fstat(fd, st) ? -errno : 0;
	close(fd);
	return rc;
}

static int file_source(const char *path, struct obd_ix_source *src, struct obd_err *err)
{
	struct stat st;
	if (path[0] != '/')
		return obd_err_set(err, EINVAL, "%.200s: the path is not absolute", path);
	int rc = stat_readable(path, &st);
	if (rc)
		return obd_err_set(err, -rc, "%.200s: %s", path, strerror(-rc));
	if (!S_ISREG(st.st_mode))
		return obd_err_set(err, EINVAL, "%.200s: not a regular file", path);
	if (st.st_size <= 0)
		return obd_err_set(err, EINVAL, "%.200s: the file is empty", path);
	*src = (struct obd_ix_source){.path = path,
				      .dev = (uint64_t)st.st_dev,
				      .ino = (uint64_t)st.st_ino,
				      .mtime_ns = (int64_t)st.st_mtim.tv_sec * INT64_C(1000000000) + st.st_mtim.tv_nsec,
				      .blob_bytes = (uint64_t)st.st_size};
	return 0;
}

static int registry_source(const struct obd_image_config *cfg, const struct obd_image_lower *lower, struct obd_ix_source *src,
			   struct obd_err *err)
{
	if (!lower->digest || !cfg->repo_blob_url)
		return obd_err_set(err, ENOENT, "there is no overlaybd.commit in %.200s, and no registry to ask",
				   lower->dir ? lower->dir : "its dir");
	*src = (struct obd_ix_source){
		.blob_bytes = lower->size, .url = cfg->repo_blob_url, .repo = &cfg->repo, .digest = lower->digest};
	return 0;
}

/* path: OBD_PATH_BYTES, where src->path may point. */
static int find_source(const struct obd_image_config *cfg, const struct obd_image_lower *lower, char *path,
		       struct obd_ix_source *src, struct obd_err *err)
{
	if (lower->file)
		return file_source(lower->file, src, err);
	if (!lower->dir)
		return registry_source(cfg, lower, src, err);
	int n = snprintf(path, OBD_PATH_BYTES, "%s/overlaybd.commit", lower->dir);
	if (n < 0 || n >= (int)OBD_PATH_BYTES)
		return obd_err_set(err, ENAMETOOLONG, "dir is longer than %u bytes", OBD_PATH_BYTES - 18);
	int rc = file_source(path, src, err);
	if (rc != -ENOENT && rc != -ENOTDIR)
		return rc;
	err->msg[0] = '\0';
	return registry_source(cfg, lower, src, err);
}

int obd_ix_resolve(struct obd_ix_open *o, uint32_t number, struct obd_err *err)
{
	char path[OBD_PATH_BYTES];
	struct obd_ix_wait *w = &o->lower[number];
	struct obd_ix_source src;
	bool fresh;
	int rc = find_source(o->cfg, &o->cfg->lowers[number], path, &src, err);
	src.distrust = w->bad_tries > 0;
	if (!rc)
		rc = obd_ix_layer_get(o->ix, &src, true, &w->layer, &fresh, err);
	if (rc) {
		w->layer = NULL;
		return obd_err_prefix(err, rc, "layer %u", number);
	}
	obd_ix_layer_hold(w->layer);
	obd_list_push_back(&w->layer->waiters, &w->link);
	w->local = src.path != NULL;
	w->fresh = fresh;
	return 0;
}

int obd_ix_resolve_probe(struct obd_ix_open *o, struct obd_err *err)
{
	const struct obd_ix_wait *w = &o->lower[o->probe_number];
	struct obd_ix_layer *l = w->layer;
	if (strcmp(obd_ix_layer_entry(l)->url, o->cfg->repo_blob_url) != 0) {
		struct obd_ix_source src;
		bool fresh;
		int rc = registry_source(o->cfg, &o->cfg->lowers[o->probe_number], &src, err);
		if (!rc)
			rc = obd_ix_layer_get(o->ix, &src, false, &l, &fresh, err);
		if (rc)
			return obd_err_prefix(err, rc, "layer %u", o->probe_number);
	}
	obd_ix_layer_hold(l);
	o->probe_layer = l;
	return 0;
}
