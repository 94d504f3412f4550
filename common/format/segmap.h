/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The index of a layer that is being written: an ordered map of segments in which a later one overrides earlier ones.
 *
 * Leaves of up to 256 sorted segments, and a sorted array of leaves. A million random writes take less than a second.
 * No call blocks; one thread at a time.
 */
#ifndef OBD_COMMON_FORMAT_SEGMAP_H
#define OBD_COMMON_FORMAT_SEGMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/format/lsmt_layout.h"

struct obd_segmap;

struct obd_segmap *obd_segmap_new(void);    /* NULL: memory */
void obd_segmap_free(struct obd_segmap *m); /* NULL is allowed */

/* Memory for one put or cut: neither fails after it. 0 or -ENOMEM. */
int obd_segmap_reserve(struct obd_segmap *m);

/* s lies over whatever its range held; it is joined with neighbours that it continues. Length at least 1. */
int obd_segmap_put(struct obd_segmap *m, struct obd_lsmt_seg s);

/* Nothing is mapped in [from, to) any more, sectors. */
int obd_segmap_cut(struct obd_segmap *m, uint64_t from, uint64_t to);

/* The first segment that ends behind sector; false when there is none. */
bool obd_segmap_at(const struct obd_segmap *m, uint64_t sector, struct obd_lsmt_seg *s);

size_t obd_segmap_count(const struct obd_segmap *m);

/* All segments in order; out has room for obd_segmap_count. */
void obd_segmap_copy(const struct obd_segmap *m, struct obd_lsmt_seg *out);

#endif
