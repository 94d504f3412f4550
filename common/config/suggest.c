/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "common/config/suggest.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

#include "common/base/util.h"

#define NAME_MAX_BYTES 64

/* Levenshtein distance without regard to case; both are at most NAME_MAX_BYTES long. */
static size_t distance(const char *a, const char *b)
{
	size_t row[NAME_MAX_BYTES + 1], m = strlen(b);
	for (size_t j = 0; j <= m; j++)
		row[j] = j;
	for (size_t i = 1; a[i - 1]; i++) {
		size_t diagonal = row[0];
		row[0] = i;
		for (size_t j = 1; j <= m; j++) {
			bool same = tolower((unsigned char)a[i - 1]) == tolower((unsigned char)b[j - 1]);
			size_t best = obd_min_u64(diagonal + !same, obd_min_u64(row[j], row[j - 1]) + 1);
			diagonal = row[j];
			row[j] = best;
		}
	}
	return row[m];
}

static const char *last_part(const char *name)
{
	const char *dot = strrchr(name, '.');
	return dot ? dot + 1 : name;
}

const char *obd_option_suggest(const struct obd_option *table, uint32_t count, const char *name)
{
	if (strlen(name) > NAME_MAX_BYTES)
		return NULL;
	const char *best = NULL;
	size_t best_distance = strlen(name) / 3 + 1;
	for (uint32_t i = 0; i < count; i++) {
		if (strlen(table[i].name) > NAME_MAX_BYTES)
			continue;
		/* The right word in the wrong section is a good guess, but a close name is a better one. */
		size_t d = distance(name, table[i].name);
		if (strcasecmp(last_part(name), last_part(table[i].name)) == 0)
			d = obd_min_u64(d, 2);
		if (d < best_distance) {
			best = table[i].name;
			best_distance = d;
		}
	}
	return best;
}
