/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Layers of registries that were downloaded, as a source (source.h for the rules of sinks): reads dir/overlaybd.commit where
 * the segment says that the layer lies there now.
 *
 * All or nothing: data is called once, with all bytes, or not at all. Threads read, so a directory that hangs holds up nobody:
 * done says ETIMEDOUT, and the layer is left alone for a while. Whatever err done has, the caller asks the registry.
 */
#ifndef OBD_FETCHER_SWITCHED_H
#define OBD_FETCHER_SWITCHED_H

#include "fetcher/source.h"
#include "fetcher/stats.h"
#include "fetcher/work.h"
#include "shmcache/catalog.h"

struct obd_switched;

/* seg and stats outlive it. NULL with errno set. */
struct obd_switched *obd_switched_new(struct obd_loop *loop, const struct obd_segment *seg, struct obd_fetch_stats *stats);

/* Would obd_switched_read ask the file now? Then it is no use to look elsewhere first. */
bool obd_switched_has(struct obd_switched *sw, const struct obd_layer_view *layer);

/* Reads bytes [start, end) of the layer's blob. 0; -ENOENT: it is not there, ask the registry; -ENOMEM. done is called only
 * after 0. */
int obd_switched_read(struct obd_switched *sw, const struct obd_layer_view *layer, uint64_t start, uint64_t end,
		      const struct obd_source_sink *sink, void *arg);

/* The bytes that came from there proved damaged: the registry is asked for a while. */
void obd_switched_distrust(struct obd_switched *sw, const struct obd_layer_view *layer);

/* Calls no sink any more; see obd_work_free. NULL is allowed. */
void obd_switched_free(struct obd_switched *sw);

#endif
