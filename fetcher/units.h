/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a job's blocks are to the disk tier. A unit is what is fetched and decoded as one: the stored bytes of a block of the
 * cache; where a stored block of the layer is larger than that, the stored block, which several blocks then share; or a raw
 * chunk. It follows from the layer alone.
 */
#ifndef OBD_FETCHER_UNITS_H
#define OBD_FETCHER_UNITS_H

#include "fetcher/disk.h"
#include "shmcache/catalog.h"

/* The unit that block (or raw chunk) `number` belongs to; kind BLOCKS or RAW. False: the layer's tables cannot be. */
bool obd_unit_of(const struct obd_layer_view *v, enum obd_job_kind kind, uint32_t block_bytes, uint32_t number,
		 struct obd_disk_unit *unit);

#endif
