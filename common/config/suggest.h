/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Guessing which key a user meant. Private to this room. */
#ifndef OBD_COMMON_CONFIG_SUGGEST_H
#define OBD_COMMON_CONFIG_SUGGEST_H

#include "common/config/options.h"

/* The name in the table that is closest to a mistyped one, or NULL when none is close. */
const char *obd_option_suggest(const struct obd_option *table, uint32_t count, const char *name);

#endif
