/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A whole ZFile, opened and read to its end. The first byte chooses whether digests and CRCs are made right first, so that
 * the code behind them is reached.
 */
#include <stdlib.h>
#include <string.h>

#include "common/base/crc32c.h"
#include "common/base/le.h"
#include "common/format/zfile.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void reseal(uint8_t *p)
{
	obd_put_le32(p + 28, 0);
	obd_put_le32(p + 28, obd_crc32c_raw(0, p, 512));
}

static void repair(uint8_t *p, size_t n)
{
	uint8_t *trailer = p + n - 512;
	uint64_t at = obd_get_le64(trailer + 40), count = obd_get_le64(trailer + 48);
	if (at <= n && count <= (n - at) / 4)
		obd_put_le32(trailer + 64, obd_crc32c_raw(0, p + at, count * 4));
	reseal(trailer);
	reseal(p);
}

static void read_all(struct obd_file *f)
{
	static uint8_t buf[1 << 16];
	uint64_t bytes = 0;
	obd_file_size(f, &bytes);
	for (uint64_t at = 0; at < bytes && at < 4u << 20; at += sizeof(buf))
		if (obd_file_pread(f, buf, sizeof(buf), at) < 0)
			break;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct obd_err err;
	if (size < 1 || size > 1 << 20)
		return 0;
	const size_t n = size - 1;
	uint8_t *copy = malloc(n ? n : 1);
	if (n)
		memcpy(copy, data + 1, n);
	if (data[0] & 1 && n >= 1024)
		repair(copy, n);
	struct obd_file *m = obd_file_open_mem(copy, n);
	struct obd_file *f = obd_zfile_open(m, &err);
	if (f)
		read_all(f);
	obd_file_close(f ? f : m);
	free(copy);
	return 0;
}
