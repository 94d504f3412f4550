/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The files of a writable layer: 4096 bytes of data header, 4096 of index header, records. What loads must be sorted, lie
 * within the device and point into the data; after a repair the same files must load to the same segments, with nothing
 * dead or torn, also when the data file grows.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/format/upper.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define DATA_BYTES (1u << 20)

static void check(int fine)
{
	if (!fine)
		abort();
}

static int make(const char *name, const uint8_t *p, size_t n, off_t bytes)
{
	int fd = memfd_create(name, MFD_CLOEXEC);
	check(fd >= 0 && write(fd, p, n) == (ssize_t)n && ftruncate(fd, bytes) == 0);
	return fd;
}

static int load(int data_fd, int index_fd, struct obd_upper_state *st)
{
	struct obd_err err;
	struct obd_file *data = obd_file_open_fd(data_fd, &err), *index = obd_file_open_fd(index_fd, &err);
	struct obd_file *d = data ? obd_file_borrow(data) : NULL, *i = index ? obd_file_borrow(index) : NULL;
	check(d && i);
	int rc = obd_upper_load(d, data_fd, i, st, &err);
	obd_file_close(d);
	obd_file_close(i);
	/* The descriptors stay open: only the tables go. */
	free(data);
	free(index);
	return rc;
}

static void check_state(const struct obd_upper_state *st)
{
	const uint64_t device = st->info.virtual_size / OBD_SECTOR_BYTES;
	uint64_t end = 0;
	for (size_t i = 0; i < st->n; i++) {
		const struct obd_lsmt_seg s = st->seg[i];
		check(obd_lsmt_seg_length(s) && obd_lsmt_seg_offset(s) >= end && obd_lsmt_seg_end(s) <= device);
		end = obd_lsmt_seg_end(s);
		check(obd_lsmt_seg_zeroed(s) ||
		      (obd_lsmt_seg_moffset(s) >= OBD_LSMT_HEADER_SECTORS &&
		       (obd_lsmt_seg_moffset(s) + obd_lsmt_seg_length(s)) * OBD_SECTOR_BYTES <= st->info.file_bytes));
	}
}

static void repair(int data_fd, int index_fd, struct obd_upper_state *before)
{
	struct obd_upper_state after;
	const size_t n = before->n;
	check(obd_upper_repair(data_fd, index_fd, before, NULL) == 0);
	check(ftruncate(data_fd, (off_t)before->data_end + DATA_BYTES) == 0);
	check(load(data_fd, index_fd, &after) == 0);
	check(!after.torn && !after.ndead && after.n == n && after.index_end == before->index_end);
	check(n == 0 || memcmp(after.seg, before->seg, n * sizeof(*after.seg)) == 0);
	free(after.seg);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct obd_upper_state st;
	if (size < 2 * OBD_LSMT_HEADER_BYTES)
		return 0;
	/* The last byte says how much of a sector the data file ends with. */
	const off_t data_bytes = DATA_BYTES + (data[size - 1] % 2 ? data[size - 1] : 0);
	int data_fd = make("data", data, OBD_LSMT_HEADER_BYTES, data_bytes);
	int index_fd = make("index", data + OBD_LSMT_HEADER_BYTES, size - OBD_LSMT_HEADER_BYTES,
			    (off_t)(size - OBD_LSMT_HEADER_BYTES));
	if (load(data_fd, index_fd, &st) == 0) {
		check_state(&st);
		if (!st.sparse)
			repair(data_fd, index_fd, &st);
	} else {
		check(st.seg == NULL);
	}
	free(st.seg);
	close(data_fd);
	close(index_fd);
	return 0;
}
