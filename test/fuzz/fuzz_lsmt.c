/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A layer file, opened, merged over itself and read; the same bytes as an append-only index. */
#include <stdlib.h>
#include <string.h>

#include "common/format/merge.h"
#include "common/format/stack.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_sorted(const struct obd_lsmt_seg *seg, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!obd_lsmt_seg_length(seg[i]) || (i && obd_lsmt_seg_offset(seg[i]) < obd_lsmt_seg_end(seg[i - 1])))
			abort();
}

static void as_layer(const uint8_t *data, size_t size)
{
	static uint8_t buf[1 << 16];
	struct obd_err err;
	uint64_t bytes = 0;
	struct obd_file *blobs[] = {obd_file_open_mem(data, size), obd_file_open_mem(data, size)};
	struct obd_file *f = obd_stack_open(blobs, 2, &err);
	if (!f) {
		obd_file_close(blobs[0]);
		obd_file_close(blobs[1]);
		return;
	}
	obd_file_size(f, &bytes);
	for (uint64_t at = 0; at < bytes && at < 1u << 20; at += sizeof(buf))
		(void)!obd_file_pread(f, buf, sizeof(buf), at);
	obd_file_close(f);
}

static void as_append_index(const uint8_t *data, size_t size)
{
	struct obd_lsmt_info info;
	struct obd_lsmt_seg *seg;
	struct obd_err err;
	size_t n;
	if (size < 4096 || obd_lsmt_parse_header(data, size, &info, &err))
		return;
	if (obd_lsmt_load_append_index(&info, data + 4096, size - 4096, 1 << 20, &seg, &n, &err) == 0)
		check_sorted(seg, n);
	else if (seg)
		abort();
	free(seg);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	as_layer(data, size);
	as_append_index(data, size);
	return 0;
}
