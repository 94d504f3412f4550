/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tools/apply/apply.h"

#include <limits.h>

#include "tools/apply/ext4.h"
#include "tools/apply/path.h"

static int entry_data(void *ctx, const void **buf, size_t *n, uint64_t *off, struct obd_err *err)
{
	return obd_tar_data(ctx, buf, n, off, err);
}

static int apply_entry(struct obd_ext4 *fs, struct obd_tar_reader *tar, const struct obd_tar_entry *e, struct obd_err *err)
{
	char path[PATH_MAX];
	enum obd_name_kind kind;
	int rc = obd_path_clean(e->name, path, err);
	if (!rc)
		rc = obd_path_classify(path, &kind, err);
	if (rc)
		return rc;
	switch (kind) {
	case OBD_NAME_WHITEOUT:
		return obd_ext4_whiteout(fs, path, err);
	case OBD_NAME_OPAQUE:
		return obd_ext4_opaque(fs, path, err);
	case OBD_NAME_IGNORE:
		return 0;
	case OBD_NAME_ENTRY:
		break;
	}
	return obd_ext4_put(fs, path, e, entry_data, tar, err);
}

static int apply_all(struct obd_ext4 *fs, struct obd_tar_reader *tar, struct obd_apply_result *out, struct obd_err *err)
{
	struct obd_tar_entry e;
	char shown[200];
	int rc;
	while ((rc = obd_tar_next(tar, &e, err)) == 1) {
		rc = apply_entry(fs, tar, &e, err);
		if (rc)
			return obd_err_prefix(err, rc, "%s", obd_path_show(e.name, shown));
		out->entries++;
	}
	return rc;
}

int obd_apply(struct obd_file *image, struct obd_tar_reader *tar, const struct obd_apply_opts *opts,
	      struct obd_apply_result *out, struct obd_err *err)
{
	struct obd_ext4 *fs = NULL;
	int rc = opts->make_fs ? obd_ext4_make(image, err) : 0;
	*out = (struct obd_apply_result){0};
	if (!rc)
		rc = obd_ext4_open(image, &fs, err);
	if (!rc)
		rc = apply_all(fs, tar, out, err);
	if (!rc)
		rc = obd_tar_finish(tar, &out->digests, err);
	if (!rc)
		rc = obd_ext4_finish(fs, opts->sync, opts->sync_ctx, err);
	obd_ext4_close(fs);
	return rc;
}
