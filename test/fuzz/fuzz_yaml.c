/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The global configuration, either form. What is accepted must print as YAML that reads back and prints the same. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/config/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char *print(const struct obd_config *cfg, size_t *len)
{
	char *text = NULL;
	FILE *f = open_memstream(&text, len);
	if (!f || obd_config_print(f, cfg) || fclose(f))
		abort();
	return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct obd_config cfg, again;
	struct obd_err err = {{0}};
	size_t len, len_again;
	if (obd_config_load_buffer((const char *)data, size, "fuzz", &cfg, &err)) {
		if (!err.msg[0])
			abort();
		return 0;
	}
	char *text = print(&cfg, &len);
	if (obd_config_load_buffer(text, len, "again", &again, &err))
		abort();
	char *text_again = print(&again, &len_again);
	if (strcmp(text, text_again) != 0 || obd_config_needs_restart(&cfg, &again))
		abort();
	free(text);
	free(text_again);
	obd_config_free(&cfg);
	obd_config_free(&again);
	return 0;
}
