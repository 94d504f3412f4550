/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "common/config/options.h"

#include "common/base/util.h"
#include "common/config/config.h"

#define DEF_BOOL(v) .def = (v)
#define DEF_U32(v) .def = (v)
#define DEF_ENUM(v) .def = (v)
#define DEF_LIST(v) .def = (v)
#define DEF_STR(v) .def_text = (v)
#define DEF_PATH(v) .def_text = (v)

#define ROW(owner, field, key, kind, lo, hi, value, units, bits, words) \
	{.name = key,                                                   \
	 .type = OBD_OPT_##kind,                                        \
	 .offset = offsetof(struct owner, field),                       \
	 .min = (lo),                                                   \
	 .max = (hi),                                                   \
	 DEF_##kind(value),                                             \
	 .unit = units,                                                 \
	 .flags = (bits),                                               \
	 .text = words},
#define CONFIG_ROW(...) ROW(obd_config, __VA_ARGS__)
#define REGISTRY_ROW(...) ROW(obd_registry, __VA_ARGS__)

const struct obd_option obd_config_options[] = {OBD_CONFIG_OPTIONS(CONFIG_ROW)};
const struct obd_option obd_registry_options[] = {OBD_REGISTRY_OPTIONS(REGISTRY_ROW)};

_Static_assert(OBD_ARRAY_SIZE(obd_config_options) <= OBD_OPT_COUNT_MAX, "readers keep an array of that many");

const uint32_t obd_config_option_count = OBD_ARRAY_SIZE(obd_config_options);
const uint32_t obd_registry_option_count = OBD_ARRAY_SIZE(obd_registry_options);
