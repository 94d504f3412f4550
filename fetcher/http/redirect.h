/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where registries sent us: an address of a blob, and where it lies until then. All requests of a fetcher share it, so a blob
 * is resolved once per life of its signed address. Own memory, bounded; a newer entry takes an older one's place.
 */
#ifndef OBD_FETCHER_HTTP_REDIRECT_H
#define OBD_FETCHER_HTTP_REDIRECT_H

#include <stdint.h>

struct obd_redirects;

struct obd_redirects *obd_redirects_new(void); /* NULL: no memory */
void obd_redirects_free(struct obd_redirects *r);

/* Where `from` leads, or NULL. Good until the next call. */
const char *obd_redirects_find(struct obd_redirects *r, const char *from, uint64_t now_ns);

/* life_s: how long the target is good for, as obd_redirects_life has it; 0: it is not kept. */
void obd_redirects_put(struct obd_redirects *r, const char *from, const char *to, uint64_t now_ns, uint64_t life_s);

void obd_redirects_drop(struct obd_redirects *r, const char *from);

/* How many seconds to keep a target: url_life_s is what its address says (obd_http_url_life), else header_life_s is what the
 * answer's header says (either may be OBD_HTTP_LIFE_UNKNOWN), else a minute. At most an hour, and not to the last tenth. */
uint64_t obd_redirects_life(int64_t url_life_s, int64_t header_life_s);

#endif
