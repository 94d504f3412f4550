/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who is given which descriptor: the one table of the kinds of descriptors and of every role's right to them.
 *
 * Each row is X(kind, name on the wire, how many, cached, indexer, fetcher, frontend, stat). Rights:
 *   NONE    not granted
 *   RO      read-only (a descriptor that cannot be mapped writable)
 *   RW      writable
 *   OWN     its own one writable, the others not granted
 *   OWN_RO  its own one writable, the others read-only
 *   OTHERS  every one but its own writable
 * "Own" is the fetcher's number or the client's id; the indexer is client 0. A doorbell is never read-only: to ring is to
 * write. Client 0's doorbell is the indexer's doorbell under another name, so that cached finds each client's under its id.
 */
#ifndef OBD_SUPERVISOR_GRANTS_H
#define OBD_SUPERVISOR_GRANTS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/daemon/wire.h"

/* clang-format off */
#define OBD_GRANT_TABLE(X) \
/*  kind             name                count            cached  indexer fetcher frontend stat */ \
X(GEOMETRY,         "geometry",          1,                RO,     RO,     RO,     RO,      RO) \
X(FRAMES,           "frames",            1,                RO,     RO,     RW,     RO,      RO) \
X(FILLS,            "fills",             1,                RO,     RO,     RW,     RO,      RO) \
X(TABLE,            "table",             1,                RW,     RO,     RO,     RO,      RO) \
X(CATALOG,          "catalog",           1,                RO,     RW,     RO,     RO,      RO) \
X(INDEX,            "index",             1,                RO,     RW,     RO,     RO,      RO) \
X(RECENCY,          "recency",           1,                RO,     RW,     NONE,   RW,      RO) \
X(UPREAD,           "upread",            1,                NONE,   RW,     NONE,   RO,      RO) \
X(TOKENS,           "tokens",            1,                NONE,   NONE,   RW,     NONE,    NONE) \
X(FETCHER,          "fetcher",           OBD_MAX_FETCHERS, RO,     NONE,   OWN,    NONE,    RO) \
X(CLIENT,           "client",            OBD_MAX_CLIENTS,  RO,     OWN_RO, NONE,   OWN,     RO) \
X(BELL_CACHED,      "doorbell:cached",   1,                RW,     RW,     RW,     RW,      NONE) \
X(BELL_INDEXER,     "doorbell:indexer",  1,                RW,     RW,     NONE,   RW,      NONE) \
X(BELL_FETCHER,     "doorbell:fetcher",  OBD_MAX_FETCHERS, RW,     NONE,   OWN,    NONE,    NONE) \
X(BELL_CLIENT,      "doorbell:client",   OBD_MAX_CLIENTS,  RW,     OTHERS, NONE,   OWN,     NONE)
/* clang-format on */

#define OBD_GRANT_KIND(kind, ...) OBD_KIND_##kind,
enum obd_kind { OBD_GRANT_TABLE(OBD_GRANT_KIND) OBD_KINDS };
#undef OBD_GRANT_KIND

enum obd_access { OBD_ACCESS_NONE, OBD_ACCESS_RO, OBD_ACCESS_RW };

/* What the process (role, own) may do with descriptor number index of a kind. NONE also for roles that get nothing. */
enum obd_access obd_grant_access(enum obd_kind kind, uint32_t index, enum obd_role role, uint32_t own);

const char *obd_kind_name(enum obd_kind kind);

/* How many descriptors of a kind there can be; indexes are below it. */
uint32_t obd_kind_count(enum obd_kind kind);

/* The kind of a name on the wire, or OBD_KINDS. */
enum obd_kind obd_kind_by_name(const char *name);

/* Is it a region that cached creates and deposits (no doorbell, no client area)? */
bool obd_kind_is_deposited(enum obd_kind kind);

#endif
