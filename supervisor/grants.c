/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "supervisor/grants.h"

#include <assert.h>
#include <string.h>

enum right { NONE, RO, RW, OWN, OWN_RO, OTHERS };

struct row {
	const char *name;
	uint32_t count;
	enum right rights[OBD_ROLES];
};

#define ROW(kind, wire_name, how_many, cached, indexer, fetcher, frontend, stat) \
	[OBD_KIND_##kind] = {.name = wire_name,                                  \
			     .count = how_many,                                  \
			     .rights = {[OBD_ROLE_SUPERVISOR] = NONE,            \
					[OBD_ROLE_CACHED] = cached,              \
					[OBD_ROLE_INDEXER] = indexer,            \
					[OBD_ROLE_FETCHER] = fetcher,            \
					[OBD_ROLE_FRONTEND] = frontend,          \
					[OBD_ROLE_STAT] = stat}},
static const struct row rows[OBD_KINDS] = {OBD_GRANT_TABLE(ROW)};

enum obd_access obd_grant_access(enum obd_kind kind, uint32_t index, enum obd_role role, uint32_t own)
{
	assert((unsigned int)kind < OBD_KINDS && (unsigned int)role < OBD_ROLES);
	bool is_own = index == own;
	switch (rows[kind].rights[role]) {
	case RO:
		return OBD_ACCESS_RO;
	case RW:
		return OBD_ACCESS_RW;
	case OWN:
		return is_own ? OBD_ACCESS_RW : OBD_ACCESS_NONE;
	case OWN_RO:
		return is_own ? OBD_ACCESS_RW : OBD_ACCESS_RO;
	case OTHERS:
		return is_own ? OBD_ACCESS_NONE : OBD_ACCESS_RW;
	case NONE:
		break;
	}
	return OBD_ACCESS_NONE;
}

const char *obd_kind_name(enum obd_kind kind)
{
	assert((unsigned int)kind < OBD_KINDS);
	return rows[kind].name;
}

uint32_t obd_kind_count(enum obd_kind kind)
{
	assert((unsigned int)kind < OBD_KINDS);
	return rows[kind].count;
}

enum obd_kind obd_kind_by_name(const char *name)
{
	for (unsigned int k = 0; k < OBD_KINDS; k++)
		if (strcmp(rows[k].name, name) == 0)
			return (enum obd_kind)k;
	return OBD_KINDS;
}

bool obd_kind_is_deposited(enum obd_kind kind)
{
	return kind <= OBD_KIND_FETCHER;
}
