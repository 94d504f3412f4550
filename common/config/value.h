/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One option's value in its struct, by its row of the table. Private to this room. */
#ifndef OBD_COMMON_CONFIG_VALUE_H
#define OBD_COMMON_CONFIG_VALUE_H

#include <stdbool.h>
#include <stdio.h>

#include "common/base/err.h"
#include "common/config/doc.h"
#include "common/config/options.h"

/* The row with this name, or NULL. */
const struct obd_option *obd_option_find(const struct obd_option *table, uint32_t count, const char *name);

/* Sets the option in *owner to its default. The old value is not freed. */
int obd_option_set_default(const struct obd_option *o, void *owner);

/* Checks node against the row and puts it in place of the old value. OBD_DOC_NULL changes nothing. Otherwise -EINVAL or
 * -ENOMEM and err has the reason without file and key. */
int obd_option_set(const struct obd_option *o, void *owner, const struct obd_doc *node, struct obd_err *err);

bool obd_option_is_default(const struct obd_option *o, const void *owner);
bool obd_option_equal(const struct obd_option *o, const void *a, const void *b);

/* Prints the value as a YAML scalar or flow sequence. */
void obd_option_print(FILE *f, const struct obd_option *o, const void *owner);

void obd_option_free(const struct obd_option *o, void *owner);

#endif
