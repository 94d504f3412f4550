/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <string.h>

#include "common/config/config.h"
#include "common/config/value.h"

/* Prints "section:" when the row opens another one than the row before it. The table keeps sections together. */
static void print_section(FILE *f, const struct obd_option *o, const struct obd_option *before)
{
	size_t len = strcspn(o->name, ".");
	if (o->name[len] && (!before || strncmp(before->name, o->name, len + 1) != 0))
		fprintf(f, "%.*s:\n", (int)len, o->name);
}

static void print_option(FILE *f, const struct obd_option *o, const void *owner, const char *indent)
{
	const char *dot = strchr(o->name, '.');
	fprintf(f, "%s%s: ", dot ? indent : "", dot ? dot + 1 : o->name);
	obd_option_print(f, o, owner);
	fputc('\n', f);
}

int obd_config_print(FILE *f, const struct obd_config *cfg)
{
	for (uint32_t i = 0; i < obd_config_option_count; i++) {
		print_section(f, &obd_config_options[i], i ? &obd_config_options[i - 1] : NULL);
		print_option(f, &obd_config_options[i], cfg, "  ");
	}
	fputs(cfg->registry_count ? "registries:\n" : "registries: []\n", f);
	for (uint32_t i = 0; i < cfg->registry_count; i++)
		for (uint32_t j = 0; j < obd_registry_option_count; j++)
			print_option(f, &obd_registry_options[j], &cfg->registries[i], j ? "    " : "  - ");
	return ferror(f) ? -EIO : 0;
}
