/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * From a tree of keys and values to struct obd_config: file -> obd_doc (doc_yaml.c, doc_json.c) -> here, key by key through
 * the table. Nothing below knows a key by name but `registries`.
 */
#include "common/config/config.h"

#include <errno.h>
#include <sched.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "common/base/util.h"
#include "common/config/doc.h"
#include "common/config/file.h"
#include "common/config/suggest.h"
#include "common/config/url.h"
#include "common/config/value.h"

#define KEY_BYTES 128
#define REGISTRIES "registries"

/* Numbers of the table's rows: ROW_field. */
enum {
#define ROW(field, ...) ROW_##field,
	OBD_CONFIG_OPTIONS(ROW)
#undef ROW
};

static const struct {
	const char *old, *name;
} legacy[] = {
#define ROW(o, n) {o, n},
	OBD_CONFIG_LEGACY(ROW)
#undef ROW
};

static const char *const ignored[] = {
#define ROW(n) n,
	OBD_CONFIG_IGNORED(ROW)
#undef ROW
};

struct walk {
	const char *name;
	struct obd_config *cfg;
	struct obd_err *err;
	const struct obd_doc *node[OBD_OPT_COUNT_MAX];		   /* by row: where the file sets the key */
	const struct obd_doc *legacy_node[OBD_ARRAY_SIZE(legacy)]; /* applied last: the newer names win */
};

static int walk_section(struct walk *w, const struct obd_doc *map, const char *section);

/* Fills err with "NAME:LINE: text". */
__attribute__((format(printf, 3, 4))) static int fail(const struct walk *w, const struct obd_doc *at, const char *fmt, ...)
{
	char text[OBD_ERR_BYTES];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	if (at->line)
		return obd_err_set(w->err, EINVAL, "%s:%u: %s", w->name, at->line, text);
	return obd_err_set(w->err, EINVAL, "%s: %s", w->name, text);
}

static int set_option(struct walk *w, const struct obd_option *o, void *owner, const char *key, const struct obd_doc *node)
{
	struct obd_err why = {{0}};
	int rc = obd_option_set(o, owner, node, &why);
	if (rc == -EINVAL)
		fail(w, node, "%s: %s", key, why.msg);
	else if (rc)
		obd_err_set(w->err, -rc, "%s: %s", w->name, why.msg);
	return rc;
}

static int unknown(const struct walk *w, const struct obd_doc *at, const struct obd_option *table, uint32_t count,
		   const char *key)
{
	const char *guess = obd_option_suggest(table, count, key);
	return guess ? fail(w, at, "unknown key %s; did you mean %s?", key, guess) : fail(w, at, "unknown key %s", key);
}

/* Earlier siblings are known keys, each there once, so this loop is short however large the file is. */
static bool is_repeated(const struct obd_doc *map, const struct obd_doc *m)
{
	for (const struct obd_doc *c = map->first; c != m; c = c->next)
		if (strcmp(c->key, m->key) == 0)
			return true;
	return false;
}

static bool is_section(const char *key)
{
	size_t len = strlen(key);
	for (uint32_t i = 0; i < obd_config_option_count; i++)
		if (strncmp(obd_config_options[i].name, key, len) == 0 && obd_config_options[i].name[len] == '.')
			return true;
	return false;
}

static bool is_ignored(const char *key)
{
	for (size_t i = 0; i < OBD_ARRAY_SIZE(ignored); i++)
		if (strcmp(ignored[i], key) == 0)
			return true;
	return false;
}

static bool note_legacy(struct walk *w, const char *key, const struct obd_doc *node)
{
	for (size_t i = 0; i < OBD_ARRAY_SIZE(legacy); i++) {
		if (strcmp(legacy[i].old, key) == 0) {
			w->legacy_node[i] = node;
			return true;
		}
	}
	return false;
}

static int apply_legacy(struct walk *w)
{
	for (size_t i = 0; i < OBD_ARRAY_SIZE(legacy); i++) {
		const struct obd_doc *node = w->legacy_node[i];
		const struct obd_option *o = obd_option_find(obd_config_options, obd_config_option_count, legacy[i].name);
		if (!node || !o)
			continue;
		if (w->node[o - obd_config_options]) {
			obd_warnings_add(&w->cfg->warnings, "%s: %s is ignored, because %s is set too", w->name, legacy[i].old,
					 legacy[i].name);
			continue;
		}
		w->node[o - obd_config_options] = node;
		int rc = set_option(w, o, w->cfg, legacy[i].old, node);
		if (rc)
			return rc;
	}
	return 0;
}

static int walk_registry(struct walk *w, const struct obd_doc *map, uint32_t index)
{
	struct obd_registry *r = &w->cfg->registries[index];
	char prefix[32], full[KEY_BYTES], row[KEY_BYTES];
	snprintf(prefix, sizeof prefix, REGISTRIES "[%u]", index);
	if (map->kind != OBD_DOC_MAP)
		return fail(w, map, "%s: expected a section", prefix);
	for (const struct obd_doc *m = map->first; m; m = m->next) {
		snprintf(full, sizeof full, "%s.%.80s", prefix, m->key);
		snprintf(row, sizeof row, REGISTRIES "[].%.80s", m->key);
		const struct obd_option *o = obd_option_find(obd_registry_options, obd_registry_option_count, row);
		if (!o)
			return unknown(w, m, obd_registry_options, obd_registry_option_count, row);
		if (is_repeated(map, m))
			return fail(w, m, "%s is given twice", full);
		int rc = set_option(w, o, r, full, m);
		if (rc)
			return rc;
	}
	if (!r->host)
		return fail(w, map, "%s.host: expected HOST or HOST:PORT", prefix);
	if (obd_config_registry(w->cfg, r->host) != r)
		return fail(w, map, "%s.host: \"%s\" is listed twice", prefix, r->host);
	return 0;
}

static int walk_registries(struct walk *w, const struct obd_doc *list)
{
	uint32_t n = 0;
	if (list->kind == OBD_DOC_NULL)
		return 0;
	if (list->kind != OBD_DOC_LIST)
		return fail(w, list, "%s: expected a list", REGISTRIES);
	for (const struct obd_doc *c = list->first; c; c = c->next)
		if (++n > OBD_REGISTRIES_MAX)
			return fail(w, c, "%s: more than %d elements", REGISTRIES, OBD_REGISTRIES_MAX);
	w->cfg->registries = calloc(n + 1, sizeof *w->cfg->registries);
	if (!w->cfg->registries)
		return obd_err_set(w->err, ENOMEM, "%s: no memory", w->name);
	for (const struct obd_doc *c = list->first; c; c = c->next) {
		struct obd_registry *r = &w->cfg->registries[w->cfg->registry_count++];
		for (uint32_t i = 1; i < obd_registry_option_count; i++) /* not host, which has no default */
			if (obd_option_set_default(&obd_registry_options[i], r))
				return obd_err_set(w->err, ENOMEM, "%s: no memory", w->name);
		int rc = walk_registry(w, c, w->cfg->registry_count - 1);
		if (rc)
			return rc;
	}
	return 0;
}

static int walk_member(struct walk *w, const struct obd_doc *m, const char *section)
{
	char key[KEY_BYTES];
	snprintf(key, sizeof key, "%.60s%s%.60s", section, *section ? "." : "", m->key);
	bool dotted = strchr(m->key, '.');
	const struct obd_option *o = dotted ? NULL : obd_option_find(obd_config_options, obd_config_option_count, key);
	if (o) {
		w->node[o - obd_config_options] = m->kind != OBD_DOC_NULL ? m : NULL;
		return set_option(w, o, w->cfg, key, m);
	}
	if (!dotted && strcmp(key, REGISTRIES) == 0)
		return walk_registries(w, m);
	if (!dotted && is_section(key))
		return walk_section(w, m, key);
	if (note_legacy(w, key, m))
		return 0;
	if (m->json && is_ignored(key)) {
		obd_warnings_add(&w->cfg->warnings, "%s: %s is ignored", w->name, key);
		return 0;
	}
	return unknown(w, m, obd_config_options, obd_config_option_count, key);
}

static int walk_section(struct walk *w, const struct obd_doc *map, const char *section)
{
	if (map->kind == OBD_DOC_NULL)
		return 0;
	if (map->kind != OBD_DOC_MAP)
		return *section ? fail(w, map, "%s: expected a section", section) : fail(w, map, "expected keys and values");
	for (const struct obd_doc *m = map->first; m; m = m->next) {
		if (is_repeated(map, m))
			return fail(w, m, "%s%s%.64s is given twice", section, *section ? "." : "", m->key);
		int rc = walk_member(w, m, section);
		if (rc)
			return rc;
	}
	return 0;
}

static void warn_planned(struct walk *w, const struct obd_option *table, uint32_t count, const void *owner)
{
	for (uint32_t i = 0; i < count; i++)
		if ((table[i].flags & OBD_OPT_PLANNED) && !obd_option_is_default(&table[i], owner))
			obd_warnings_add(&w->cfg->warnings, "%s: %s is accepted but has no effect in this version", w->name,
					 table[i].name);
}

/* What the path of credentials may be depends on their mode. */
static int check_credential_path(const struct obd_config *c, struct obd_err *err)
{
	const char *path = c->credential_path;
	struct sockaddr_un addr;
	switch (c->credential_mode) {
	case OBD_CREDENTIAL_HTTP:
		return obd_url_check(path, OBD_URL_HTTP | OBD_URL_HTTPS | OBD_URL_SHORT | OBD_URL_QUERY, err);
	case OBD_CREDENTIAL_HTTPS:
		return obd_url_check(path, OBD_URL_HTTPS | OBD_URL_QUERY, err);
	case OBD_CREDENTIAL_UDS:
		if (*path == '/' && strlen(path) < sizeof addr.sun_path)
			return 0;
		return obd_err_set(err, EINVAL, "\"%.128s\": expected the absolute path of a socket, at most %zu bytes long",
				   path, sizeof addr.sun_path - 1);
	default:
		if (!*path || *path == '/')
			return 0;
		return obd_err_set(err, EINVAL, "\"%.128s\": expected an absolute path", path);
	}
}

/* Keys whose values must fit together. */
static int check_together(struct walk *w, const struct obd_doc *root)
{
	struct obd_err why = {{0}};
	const struct obd_doc *path = w->node[ROW_credential_path], *mode = w->node[ROW_credential_mode];
	if (check_credential_path(w->cfg, &why))
		return fail(w, path ? path : mode ? mode : root, "credentialConfig.path: %s", why.msg);
	const struct obd_doc *p2p = w->node[ROW_p2p_address];
	if (w->cfg->p2p_enable && !*w->cfg->p2p_address)
		return fail(w, p2p ? p2p : root,
			    "p2pConfig.address: empty, although p2pConfig.enable is set; expected "
			    "http(s)://HOST[:PORT][/PATH]");
	return 0;
}

static int walk_root(struct walk *w, const struct obd_doc *root)
{
	int rc = walk_section(w, root, "");
	if (rc == 0)
		rc = apply_legacy(w);
	if (rc == 0)
		rc = check_together(w, root);
	if (rc)
		return rc;
	warn_planned(w, obd_config_options, obd_config_option_count, w->cfg);
	for (uint32_t i = 0; i < w->cfg->registry_count; i++)
		warn_planned(w, obd_registry_options, obd_registry_option_count, &w->cfg->registries[i]);
	return 0;
}

int obd_config_defaults(struct obd_config *out)
{
	memset(out, 0, sizeof *out);
	for (uint32_t i = 0; i < obd_config_option_count; i++) {
		int rc = obd_option_set_default(&obd_config_options[i], out);
		if (rc) {
			obd_config_free(out);
			return rc;
		}
	}
	return 0;
}

static bool looks_like_json(const char *buf, size_t len)
{
	size_t i = 0;
	while (i < len && buf[i] && strchr(" \t\r\n", buf[i]))
		i++;
	return i < len && buf[i] == '{';
}

int obd_config_load_buffer(const char *buf, size_t len, const char *name, struct obd_config *out, struct obd_err *err)
{
	struct obd_doc *root = NULL;
	struct walk w = {.name = name, .cfg = out, .err = err};
	memset(out, 0, sizeof *out);
	if (len > OBD_CONFIG_BYTES_MAX)
		return obd_err_set(err, EFBIG, "%s: larger than %u bytes", name, OBD_CONFIG_BYTES_MAX);
	int rc = looks_like_json(buf, len) ? obd_doc_parse_json(buf, len, name, &root, err)
					   : obd_doc_parse_yaml(buf, len, name, &root, err);
	if (rc)
		return rc;
	rc = obd_config_defaults(out);
	if (rc)
		obd_err_set(err, -rc, "%s: no memory", name);
	else
		rc = walk_root(&w, root);
	obd_doc_free(root);
	if (rc)
		obd_config_free(out);
	return rc;
}

int obd_config_load(const char *path, struct obd_config *out, struct obd_err *err)
{
	char *buf;
	size_t len;
	memset(out, 0, sizeof *out);
	int rc = obd_file_read(path, OBD_CONFIG_BYTES_MAX, &buf, &len, err);
	if (rc)
		return rc;
	rc = obd_config_load_buffer(buf, len, path, out, err);
	free(buf);
	return rc;
}

void obd_config_free(struct obd_config *cfg)
{
	for (uint32_t i = 0; i < obd_config_option_count; i++)
		obd_option_free(&obd_config_options[i], cfg);
	for (uint32_t i = 0; i < cfg->registry_count; i++)
		for (uint32_t j = 0; j < obd_registry_option_count; j++)
			obd_option_free(&obd_registry_options[j], &cfg->registries[i]);
	free(cfg->registries);
	obd_warnings_free(&cfg->warnings);
	memset(cfg, 0, sizeof *cfg);
}

const struct obd_registry *obd_config_registry(const struct obd_config *cfg, const char *host)
{
	for (uint32_t i = 0; i < cfg->registry_count; i++)
		if (cfg->registries[i].host && strcasecmp(cfg->registries[i].host, host) == 0)
			return &cfg->registries[i];
	return NULL;
}

uint32_t obd_config_fetchers(const struct obd_config *cfg)
{
	cpu_set_t cpus;
	int n = 2;
	if (cfg->fetchers)
		return cfg->fetchers;
	if (sched_getaffinity(0, sizeof cpus, &cpus) == 0)
		n = CPU_COUNT(&cpus);
	return n < 2 ? 2 : n > 8 ? 8 : (uint32_t)n;
}

static bool same_registries(const struct obd_config *a, const struct obd_config *b)
{
	if (a->registry_count != b->registry_count)
		return false;
	for (uint32_t i = 0; i < a->registry_count; i++)
		for (uint32_t j = 0; j < obd_registry_option_count; j++)
			if (!obd_option_equal(&obd_registry_options[j], &a->registries[i], &b->registries[i]))
				return false;
	return true;
}

const char *obd_config_needs_restart(const struct obd_config *a, const struct obd_config *b)
{
	for (uint32_t i = 0; i < obd_config_option_count; i++) {
		const struct obd_option *o = &obd_config_options[i];
		if (!(o->flags & (OBD_OPT_RELOAD | OBD_OPT_PLANNED)) && !obd_option_equal(o, a, b))
			return o->name;
	}
	return same_registries(a, b) ? NULL : REGISTRIES;
}
