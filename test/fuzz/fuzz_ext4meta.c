/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A device of the input's bytes, walked as the indexer walks one: ranges stay inside, and the walk ends. */
#include <stdlib.h>

#include "indexer/fsmeta.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct obd_fsmeta m;
	struct obd_fsmeta_want w;
	uint64_t given = 0;
	obd_fsmeta_init(&m, size);
	while (given < 100000 && obd_fsmeta_next(&m, &w)) {
		if (!w.len || w.off > size || w.len > size - w.off || w.off % 512 || w.len % 512)
			abort();
		if (w.kind == OBD_FSMETA_PLAIN)
			continue;
		if (w.len > OBD_FSMETA_WANT_MAX)
			abort();
		given++;
		obd_fsmeta_give(&m, &w, data + w.off);
	}
	if (given == 100000) /* nodes, tables and groups are bounded, and a device of this size has not that many */
		abort();
	obd_fsmeta_done(&m);
	return 0;
}
