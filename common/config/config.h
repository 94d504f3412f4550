/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The global configuration: read, checked, printed.
 *
 * A file whose first character that is not white space is '{' is the JSON file of older installations; anything else is
 * YAML. Both fill the same struct through the table in options.h. Errors are one line that names file, key and, for YAML,
 * the line: "overlaybd.yaml:12: unknown key cacheConfig.foo; did you mean cacheConfig.cacheDir?".
 *
 * An unknown key is an error; the JSON form knows some more keys that it skips with a warning. A key given twice is an
 * error. Limits: 1 MiB, 16 levels, no YAML aliases, anchors or tags.
 */
#ifndef OBD_COMMON_CONFIG_CONFIG_H
#define OBD_COMMON_CONFIG_CONFIG_H

#include <stdio.h>

#include "common/base/err.h"
#include "common/config/options.h"
#include "common/config/warnings.h"

#define OBD_CONFIG_DEFAULT_PATH "/etc/overlaybd/overlaybd.yaml"
#define OBD_CONFIG_BYTES_MAX (1u << 20)
#define OBD_CONFIG_DEPTH_MAX 16

struct obd_registry {
	OBD_REGISTRY_OPTIONS(OBD_OPT_FIELD)
};

/* Strings are never NULL once loaded. ENUM fields hold values of enum obd_hugepages and enum obd_credential_mode. */
struct obd_config {
	OBD_CONFIG_OPTIONS(OBD_OPT_FIELD)
	uint32_t registry_count;
	struct obd_registry *registries;
	struct obd_warnings warnings; /* for the caller to log */
};

/* Sets every field to its default; there are no registries. Returns 0 or -ENOMEM with *out empty. */
int obd_config_defaults(struct obd_config *out);

/*
 * Reads path into *out, whose earlier content is overwritten, not freed. On success the caller owns *out and frees it with
 * obd_config_free(). Otherwise *out is empty and err says why: -ENOENT and the like from the system, -EINVAL for what the
 * file says, -EFBIG, -ENOMEM. A missing file is an error. Reads the file system; does not block on a fifo.
 */
int obd_config_load(const char *path, struct obd_config *out, struct obd_err *err);

/* The same from memory; name stands for the file in messages. buf need not end in NUL. */
int obd_config_load_buffer(const char *buf, size_t len, const char *name, struct obd_config *out, struct obd_err *err);

/* Frees what *cfg owns and leaves it empty (all zero). An empty one may be freed again. */
void obd_config_free(struct obd_config *cfg);

/* Writes every key as YAML that reads back as the same configuration (without its warnings). Returns 0 or -EIO. */
int obd_config_print(FILE *f, const struct obd_config *cfg);

/* The entry of registries[] for "host" or "host:port", letters compared without case, or NULL. */
const struct obd_registry *obd_config_registry(const struct obd_config *cfg, const char *host);

/* The number of fetchers to start: as configured, or the number of usable cores, 2 to 8, when that is 0. */
uint32_t obd_config_fetchers(const struct obd_config *cfg);

/* The name of a key whose value differs and that a reload cannot change ("registries" for those), or NULL when the running
 * group can take b in place of a. */
const char *obd_config_needs_restart(const struct obd_config *a, const struct obd_config *b);

#endif
