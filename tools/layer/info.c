/* SPDX-License-Identifier: GPL-2.0-or-later */
/* overlaybd-info: what is in a layer file, from its wrapping to its index. See overlaybd-info(1). */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/util.h"
#include "common/format/stack.h"
#include "common/format/tar.h"
#include "common/format/upper.h"
#include "common/format/zfile.h"
#include "tools/layer/tool.h"

static const char usage[] = "usage: overlaybd-info [--json] FILE           a blob, a layer, or a file of a writable one\n"
			    "       overlaybd-info [--json] DATA INDEX     an append-only layer with its index\n";

static void put_number(json_t *o, const char *key, uint64_t v)
{
	json_object_set_new(o, key, json_integer((json_int_t)v));
}

/* Texts of a file are any bytes: what is no UTF-8 becomes question marks. */
static void put_text(json_t *o, const char *key, const char *text)
{
	json_t *s = json_string(text);
	if (!s) {
		char clean[OBD_LSMT_TAG_BYTES + 1];
		snprintf(clean, sizeof(clean), "%s", text);
		for (char *p = clean; *p; p++)
			if (*p < ' ' || *p > '~')
				*p = '?';
		s = json_string(clean);
	}
	json_object_set_new(o, key, s);
}

static void put_segments(json_t *o, const struct obd_lsmt_seg *seg, size_t n)
{
	const uint64_t data = segments_bytes(seg, n);
	uint64_t all = 0;
	for (size_t i = 0; i < n; i++)
		all += (uint64_t)obd_lsmt_seg_length(seg[i]) * OBD_SECTOR_BYTES;
	put_number(o, "segments", n);
	put_number(o, "data_bytes", data);
	put_number(o, "zeroed_bytes", all - data);
}

static json_t *put_lsmt(json_t *root, const char *kind, const struct obd_lsmt_info *info)
{
	json_t *o = json_object();
	put_text(o, "kind", kind);
	put_number(o, "virtual_size", info->virtual_size);
	put_text(o, "uuid", info->uuid);
	put_text(o, "parent_uuid", info->parent_uuid);
	put_text(o, "message", info->tag);
	put_number(o, "version", info->version);
	put_number(o, "sub_version", info->sub_version);
	put_number(o, "flags", info->flags);
	json_object_set_new(root, "lsmt", o);
	return o;
}

static void put_zfile(json_t *root, const struct obd_zfile_info *z)
{
	json_t *o = json_object();
	put_text(o, "algorithm", z->algorithm == OBD_ZFILE_LZ4 ? "lz4" : "zstd");
	put_number(o, "block_bytes", z->block_bytes);
	put_number(o, "blocks", z->nblocks);
	put_number(o, "original_bytes", z->original_bytes);
	put_number(o, "stored_bytes", z->payload_bytes);
	json_object_set_new(o, "block_crc", json_boolean(z->verify));
	json_object_set_new(o, "digest", json_boolean(z->digest));
	json_object_set_new(root, "zfile", o);
}

/* The tar wrapper; *payload is what is inside of it. */
static int look_tar(struct obd_file *blob, json_t *root, struct obd_tar_info *tar, struct obd_err *err)
{
	unsigned char head[OBD_TAR_PROBE_BYTES];
	uint64_t bytes;
	int rc = obd_file_size(blob, &bytes);
	ssize_t n = rc ? rc : obd_file_pread(blob, head, sizeof(head), 0);
	if (n < 0)
		return obd_err_set(err, (int)-n, "%s", strerror((int)-n));
	rc = obd_tar_parse(head, (size_t)n, bytes, tar, err);
	put_number(root, "file_bytes", bytes);
	if (rc || !tar->wrapped)
		return rc;
	json_t *o = json_object();
	put_number(o, "payload_offset", tar->payload_offset);
	put_number(o, "payload_bytes", tar->payload_bytes);
	json_object_set_new(root, "tar", o);
	return 0;
}

static int look_zfile(struct obd_file *blob, json_t *root, const struct obd_tar_info *tar, struct obd_err *err)
{
	unsigned char block[OBD_ZFILE_HEADER_BYTES];
	struct obd_zfile_info info;
	ssize_t n = obd_file_pread(blob, block, sizeof(block), tar->payload_offset);
	if (n < (ssize_t)sizeof(block) || !obd_zfile_is_zfile(block, sizeof(block)))
		return n < 0 ? obd_err_set(err, (int)-n, "%s", strerror((int)-n)) : 0;
	int rc = obd_zfile_parse_header(block, tar->payload_bytes, &info, err);
	if (rc == OBD_ZFILE_NEED_TRAILER) {
		rc = obd_file_pread_full(blob, block, sizeof(block), tar->payload_offset + tar->payload_bytes - sizeof(block));
		rc = rc ? obd_err_set(err, -rc, "zfile trailer: %s", strerror(-rc))
			: obd_zfile_parse_trailer(block, tar->payload_bytes, &info, err);
	}
	if (!rc)
		put_zfile(root, &info);
	return rc;
}

/* A file of a writable layer, by its header alone. False: no such header. */
static bool look_header(struct obd_file *f, json_t *root)
{
	unsigned char block[OBD_LSMT_HEADER_BYTES];
	struct obd_lsmt_info info;
	uint64_t bytes;
	if (obd_file_size(f, &bytes) || obd_file_pread_full(f, block, sizeof(block), 0) ||
	    obd_lsmt_parse_header(block, bytes, &info, NULL) || (info.flags & OBD_LSMT_FLAG_SEALED))
		return false;
	if (info.flags & OBD_LSMT_FLAG_SPARSE)
		put_lsmt(root, "writable, sparse", &info);
	else if (info.flags & OBD_LSMT_FLAG_DATA)
		put_lsmt(root, "writable, append-only, data file", &info);
	else
		put_number(put_lsmt(root, "writable, append-only, index file", &info), "records",
			   (bytes - OBD_LSMT_HEADER_BYTES) / sizeof(struct obd_lsmt_seg));
	return true;
}

static int look_lsmt(struct obd_file *blob, json_t *root, struct obd_err *err)
{
	struct obd_lsmt_layer layer;
	struct obd_err why;
	struct obd_file *borrowed = obd_file_borrow(blob);
	if (!borrowed)
		return obd_err_set(err, ENOMEM, "out of memory");
	int rc = obd_lsmt_layer_open(borrowed, &layer, err);
	if (rc) {
		obd_file_close(borrowed);
		if (look_header(blob, root))
			return 0;
		struct obd_file *inner = json_object_get(root, "zfile") ? obd_file_borrow(blob) : NULL;
		struct obd_file *plain = inner ? obd_blob_open(inner, &why) : NULL;
		/* A ZFile of something else is fine too. */
		const bool other = plain != NULL;
		obd_file_close(plain ? plain : inner);
		return other ? 0 : rc;
	}
	json_t *o = put_lsmt(root, "read-only", &layer.info);
	put_number(o, "index_entries", layer.info.index_entries);
	put_segments(o, layer.seg, layer.n);
	obd_lsmt_layer_close(&layer);
	return 0;
}

static int look_blob(const char *path, json_t *root, struct obd_err *err)
{
	struct obd_tar_info tar;
	struct obd_file *blob = obd_file_open_path(path, O_RDONLY, 0, err);
	if (!blob)
		return -EINVAL;
	int rc = look_tar(blob, root, &tar, err);
	if (!rc)
		rc = look_zfile(blob, root, &tar, err);
	if (!rc)
		rc = look_lsmt(blob, root, err);
	obd_file_close(blob);
	return obd_err_prefix(err, rc, "%s", path);
}

static int look_upper(const char *data, const char *index, json_t *root, struct obd_err *err)
{
	struct obd_lsmt_seg *seg;
	struct obd_upper *u;
	size_t n;
	int rc = obd_upper_open(data, index, false, &u, err);
	if (rc)
		return rc;
	json_t *o = put_lsmt(root, obd_upper_is_sparse(u) ? "writable, sparse" : "writable, append-only", obd_upper_info(u));
	rc = obd_upper_segments(u, &seg, &n);
	if (!rc) {
		put_segments(o, seg, n);
		free(seg);
	}
	obd_upper_close(u);
	return rc ? obd_err_set(err, ENOMEM, "out of memory") : 0;
}

static void print_text(json_t *o, int indent)
{
	const char *key;
	json_t *v;
	json_object_foreach(o, key, v)
	{
		printf("%*s%-*s ", indent, "", 18 - indent, key);
		if (json_is_object(v)) {
			putchar('\n');
			print_text(v, indent + 2);
		} else if (json_is_integer(v)) {
			printf("%" JSON_INTEGER_FORMAT "\n", json_integer_value(v));
		} else if (json_is_boolean(v)) {
			puts(json_is_true(v) ? "yes" : "no");
		} else {
			puts(json_string_value(v));
		}
	}
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"json", no_argument, NULL, TOOL_OPT_OWN}, TOOL_COMMON_OPTIONS, {0}};
	struct obd_err err = {""};
	bool as_json = false;
	int c;
	tool_start("overlaybd-info");
	while ((c = getopt_long(argc, argv, "v", options, NULL)) != -1) {
		if (c == TOOL_OPT_OWN)
			as_json = true;
		else
			tool_common_option(c, usage);
	}
	const int names = argc - optind;
	if (names != 1 && names != 2)
		tool_usage("%d file names given, expected 1 or 2; --help tells more", names);
	json_t *root = json_object();
	put_text(root, "file", argv[optind]);
	int rc = names == 2 ? look_upper(argv[optind], argv[optind + 1], root, &err) : look_blob(argv[optind], root, &err);
	if (!rc && as_json)
		rc = json_dumpf(root, stdout, JSON_INDENT(2)) || putchar('\n') < 0 ? obd_err_set(&err, EIO, "output") : 0;
	else if (!rc)
		print_text(root, 0);
	json_decref(root);
	return tool_end(rc, &err);
}
