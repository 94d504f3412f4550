/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The older JSON form of the global configuration: a brace is put in front, so every input takes that reader. */
#include <stdlib.h>
#include <string.h>

#include "common/config/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct obd_config cfg;
	struct obd_err err = {{0}};
	char *text = malloc(size + 1);
	if (!text)
		return 0;
	text[0] = '{';
	memcpy(text + 1, data, size);
	int rc = obd_config_load_buffer(text, size + 1, "fuzz", &cfg, &err);
	if (rc > 0 || (rc && !err.msg[0]) || (rc == 0 && !cfg.runtime_dir))
		abort();
	free(text);
	obd_config_free(&cfg);
	return 0;
}
