/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fetcher/rights.h"

#include <libgen.h>
#include <linux/capability.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/base/util.h"
#include "common/config/config.h"
#include "common/daemon/sandbox.h"

enum { DIRS_MAX = 64, FILES_MAX = 8 + OBD_REGISTRIES_MAX, PATH_BYTES = 4100 };

/* What resolvers, TLS and the C library read. */
static const char *const libraries[] = {"/etc",
					"/usr",
					"/lib",
					"/lib64",
					"/dev",
					"/proc",
					"/sys",
					"/run/systemd/resolve",
					"/run/nscd",
					"/run/resolvconf",
					"/run/NetworkManager"};

struct rights {
	struct obd_sandbox_path path[OBD_ARRAY_SIZE(libraries) + DIRS_MAX + FILES_MAX + 1];
	uint32_t count;
	char parent[FILES_MAX][PATH_BYTES]; /* directories of files that are replaced by rename */
	uint32_t nparents;
};

static void allow(struct rights *r, const char *path, unsigned int rights)
{
	if (r->count < OBD_ARRAY_SIZE(r->path))
		r->path[r->count++] = (struct obd_sandbox_path){path, rights};
}

static void allow_parent(struct rights *r, const char *file)
{
	if (!file || file[0] != '/' || r->nparents == FILES_MAX)
		return;
	char *copy = r->parent[r->nparents++];
	snprintf(copy, PATH_BYTES, "%s", file);
	allow(r, dirname(copy), OBD_SANDBOX_READ);
}

static void list_paths(struct rights *r, const struct obd_config *c)
{
	if (c->cache_size_gb)
		allow(r, c->cache_dir, OBD_SANDBOX_READ | OBD_SANDBOX_WRITE | OBD_SANDBOX_DIRS);
	for (uint32_t i = 0; i < c->layer_dirs.count; i++)
		allow(r, c->layer_dirs.item[i], OBD_SANDBOX_READ | OBD_SANDBOX_WRITE);
	if (c->layer_dirs.count == 0) {
		allow(r, "/", OBD_SANDBOX_READ | OBD_SANDBOX_WRITE);
		return;
	}
	for (size_t i = 0; i < OBD_ARRAY_SIZE(libraries); i++)
		allow(r, libraries[i], OBD_SANDBOX_READ);
	allow_parent(r, c->credential_path);
	allow_parent(r, c->credential_client_cert_path);
	allow_parent(r, c->credential_client_key_path);
	allow_parent(r, c->credential_server_ca_path);
	allow_parent(r, c->cert_file);
	allow_parent(r, c->cert_key_file);
	for (uint32_t i = 0; i < c->registry_count; i++)
		allow_parent(r, c->registries[i].ca_file);
}

int obd_fetcher_drop_rights(const struct obd_config *config)
{
	static struct rights r;
	static const int caps[] = {CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE};
	bool as_root = !*config->fetcher_user || !getpwnam(config->fetcher_user);
	bool held = config->layer_dirs.count && obd_sandbox_limits_files();
	r.count = r.nparents = 0;
	list_paths(&r, config);
	const struct obd_sandbox s = {.user = config->fetcher_user,
				      .caps = caps,
				      .ncaps = as_root || held ? 2 : 1,
				      .paths = r.path,
				      .npaths = r.count,
				      .internet = true};
	return obd_sandbox_enter(&s);
}
