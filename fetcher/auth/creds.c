/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fetcher/auth/creds.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "common/base/log.h"
#include "common/base/util.h"
#include "common/config/file.h"
#include "common/config/json.h"
#include "fetcher/auth/base64.h"
#include "fetcher/auth/secret.h"

#define NAME_MAX_BYTES 1400u /* host:port/repository */
#define UNSETTLED_S 2

struct element {
	char *key; /* host[:port][/path], host in lower case */
	struct obd_cred cred;
};

struct obd_creds {
	const char *unknown; /* a way to credentials that is named and not taken; NULL: none */
	size_t count;
	struct element element[];
};

/* --- one credential ------------------------------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t h, const char *text)
{
	do
		h = (h ^ (unsigned char)*text) * UINT64_C(0x100000001b3);
	while (*text++);
	return h;
}

static uint64_t identity(const char *user, const char *password)
{
	uint64_t h = mix(mix(UINT64_C(0xcbf29ce484222325), user), password);
	return h ? h : 1;
}

void obd_cred_free(struct obd_cred *cred)
{
	obd_secret_free(cred->user);
	obd_secret_free(cred->password);
	*cred = (struct obd_cred){0};
}

static int set_cred(struct obd_cred *to, const char *user, const char *password)
{
	obd_cred_free(to);
	to->user = obd_secret_strdup(user);
	to->password = obd_secret_strdup(password);
	if (!to->user || !to->password) {
		obd_cred_free(to);
		return -ENOMEM;
	}
	to->id = identity(user, password);
	return 0;
}

int obd_cred_copy(struct obd_cred *to, const struct obd_cred *from)
{
	if (from->id)
		return set_cred(to, from->user, from->password);
	obd_cred_free(to);
	return 0;
}

char *obd_cred_basic(const struct obd_cred *cred)
{
	static const char word[] = "Basic ";
	size_t user = strlen(cred->user), password = strlen(cred->password), n = user + 1 + password;
	char *plain = obd_secret_malloc(n + 1);
	char *header = obd_secret_malloc(sizeof word + OBD_BASE64_CHARS(n));
	if (plain && header) {
		memcpy(plain, cred->user, user);
		plain[user] = ':';
		memcpy(plain + user + 1, cred->password, password + 1);
		memcpy(header, word, sizeof word);
		obd_base64_encode(plain, n, header + sizeof word - 1);
	} else {
		obd_secret_free(header);
		header = NULL;
	}
	obd_secret_free(plain);
	return header;
}

/* --- names ---------------------------------------------------------------------------------------------------------------- */

/* Docker Hub by any of the names that users and tools give it. */
static bool is_hub(const char *host)
{
	static const char *const names[] = {"docker.io", "index.docker.io", "registry-1.docker.io", "hub.docker.com",
					    "registry.hub.docker.com"};
	for (size_t i = 0; i < OBD_ARRAY_SIZE(names); i++)
		if (strcmp(host, names[i]) == 0)
			return true;
	return false;
}

/* One spelling of a host for keys and for what is looked up: lower case, no :443, one name for Docker Hub. False: too long. */
static bool write_host(char *out, size_t room, const char *host, size_t n)
{
	if (n + 1 > room)
		return false;
	for (size_t i = 0; i < n; i++)
		out[i] = (char)tolower((unsigned char)host[i]);
	out[n] = '\0';
	if (n > 4 && strcmp(out + n - 4, ":443") == 0)
		out[n - 4] = '\0';
	if (is_hub(out))
		snprintf(out, room, "docker.io");
	return true;
}

/* A key as it stands in a file. False: it names nothing. */
static bool write_key(char *out, size_t room, const char *key)
{
	if (strncasecmp(key, "https://", 8) == 0)
		key += 8;
	else if (strncasecmp(key, "http://", 7) == 0)
		key += 7;
	size_t n = strlen(key), host = strcspn(key, "/");
	while (n > host && key[n - 1] == '/')
		n--;
	if (n - host == 3 && (strncmp(key + host, "/v1", 3) == 0 || strncmp(key + host, "/v2", 3) == 0))
		n = host;
	if (host == 0 || !write_host(out, room, key, host))
		return false;
	size_t at = strlen(out);
	if (at + (n - host) + 1 > room)
		return false;
	memcpy(out + at, key + host, n - host);
	out[at + n - host] = '\0';
	return true;
}

/* --- a set ---------------------------------------------------------------------------------------------------------------- */

static bool is_plain(const char *text, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
			return false;
	return n <= OBD_CRED_TEXT_MAX;
}

/* user:password in base64; what line ends and NULs a shell or docker left behind it is no part of the password. */
static int take_auth(struct obd_cred *cred, const char *text)
{
	size_t len = strlen(text);
	char *plain = obd_secret_malloc(len + 3);
	int rc = -ENOMEM;
	if (!plain)
		return rc;
	ssize_t n = obd_base64_decode(text, len, (unsigned char *)plain);
	while (n > 0 && strchr("\r\n", plain[n - 1])) /* strchr finds NUL as well */
		n--;
	char *colon = n > 0 ? memchr(plain, ':', (size_t)n) : NULL;
	rc = -EINVAL;
	if (colon && colon > plain && is_plain(plain, (size_t)n)) {
		*colon = plain[n] = '\0';
		rc = set_cred(cred, plain, colon + 1);
	}
	obd_secret_free(plain);
	return rc;
}

/* 0 with or without a credential, -EINVAL for a malformed element, -ENOMEM. */
static int take_element(struct obd_cred *cred, const json_t *value)
{
	struct obd_err ignored;
	const char *auth, *user, *password;
	if (!json_is_object(value))
		return -EINVAL;
	if (obd_json_string(value, "auth", 3 * OBD_CRED_TEXT_MAX, &auth, &ignored) ||
	    obd_json_string(value, "username", OBD_CRED_TEXT_MAX, &user, &ignored) ||
	    obd_json_string(value, "password", OBD_CRED_TEXT_MAX, &password, &ignored))
		return -EINVAL;
	if (auth)
		return take_auth(cred, auth);
	if (user && !strchr(user, ':'))
		return set_cred(cred, user, password ? password : "");
	return user || password ? -EINVAL : 0;
}

static int fill(struct obd_creds *set, json_t *auths, unsigned int *bad)
{
	const char *key;
	json_t *value;
	char name[NAME_MAX_BYTES];
	json_object_foreach(auths, key, value)
	{
		struct element *e = &set->element[set->count];
		int rc = take_element(&e->cred, value);
		if (rc == -ENOMEM)
			return rc;
		if (rc || !write_key(name, sizeof name, key)) {
			obd_cred_free(&e->cred);
			(*bad)++;
		} else if (e->cred.id) {
			e->key = obd_secret_strdup(name);
			set->count++;
			if (!e->key)
				return -ENOMEM;
		}
	}
	return 0;
}

/* The set of the member "auths" of root, which may be absent. */
static int set_of(const json_t *root, const char *name, struct obd_creds **out, unsigned int *bad, struct obd_err *err)
{
	json_t *auths = json_object_get(root, "auths");
	if (auths && !json_is_object(auths))
		return obd_err_set(err, EINVAL, "%s: auths: not an object", name);
	size_t n = auths ? json_object_size(auths) : 0;
	if (n > OBD_CREDS_MAX)
		return obd_err_set(err, EINVAL, "%s: auths: more than %u elements", name, OBD_CREDS_MAX);
	struct obd_creds *set = obd_secret_calloc(1, sizeof *set + (n + 1) * sizeof set->element[0]);
	if (!set || (auths && fill(set, auths, bad))) {
		obd_creds_free(set);
		return obd_err_set(err, ENOMEM, "%s: no memory", name);
	}
	*out = set;
	return 0;
}

/* What docker keeps elsewhere: programs that would have to be run, tokens that would have to be exchanged. */
static const char *find_unknown(const json_t *root)
{
	const char *key;
	json_t *element;
	if (json_is_string(json_object_get(root, "credsStore")) && json_string_length(json_object_get(root, "credsStore")))
		return "credsStore";
	if (json_object_size(json_object_get(root, "credHelpers")))
		return "credHelpers";
	json_object_foreach(json_object_get(root, "auths"), key, element)
	{
		if (json_string_length(json_object_get(element, "identitytoken")))
			return "identitytoken";
	}
	return NULL;
}

const char *obd_creds_unknown(const struct obd_creds *set)
{
	return set ? set->unknown : NULL;
}

int obd_creds_parse(const char *buf, size_t len, const char *name, struct obd_creds **out, unsigned int *bad,
		    struct obd_err *err)
{
	json_t *root;
	*out = NULL;
	*bad = 0;
	int rc = obd_json_parse(buf, len, name, &root, err);
	if (rc == 0)
		rc = json_is_object(root) ? set_of(root, name, out, bad, err)
					  : obd_err_set(err, EINVAL, "%s: not an object", name);
	if (rc == 0)
		(*out)->unknown = find_unknown(root);
	json_decref(root);
	return rc;
}

int obd_creds_parse_answer(const char *buf, size_t len, const char *name, struct obd_creds **out, unsigned int *bad,
			   struct obd_err *err)
{
	json_t *root;
	*out = NULL;
	*bad = 0;
	int rc = obd_json_parse(buf, len, name, &root, err);
	if (rc)
		return rc;
	const json_t *data = json_object_get(root, "data");
	if (!json_is_object(root) || (data && !json_is_object(data) && !json_is_null(data)))
		rc = obd_err_set(err, EINVAL, "%s: the answer has another shape", name);
	else
		rc = set_of(json_is_true(json_object_get(root, "success")) ? data : NULL, name, out, bad, err);
	json_decref(root);
	return rc;
}

/* Is key the host, or the host and leading components of the repository? Its length, or 0. */
static size_t match(const char *key, const char *host, const char *repo)
{
	size_t n = strlen(host);
	if (strncmp(key, host, n) != 0)
		return 0;
	if (key[n] == '\0')
		return n;
	if (key[n] != '/')
		return 0;
	size_t path = strlen(key + n + 1);
	if (strncmp(key + n + 1, repo, path) != 0 || (repo[path] != '\0' && repo[path] != '/'))
		return 0;
	return n + 1 + path;
}

const struct obd_cred *obd_creds_find(const struct obd_creds *set, const char *host, const char *repo)
{
	char name[NAME_MAX_BYTES];
	const struct obd_cred *best = NULL;
	size_t longest = 0;
	if (!set || !write_host(name, sizeof name, host, strlen(host)))
		return NULL;
	for (size_t i = 0; i < set->count; i++) {
		size_t n = match(set->element[i].key, name, repo);
		if (n > longest) {
			longest = n;
			best = &set->element[i].cred;
		}
	}
	return best;
}

void obd_creds_free(struct obd_creds *set)
{
	if (!set)
		return;
	for (size_t i = 0; i < set->count; i++) {
		obd_cred_free(&set->element[i].cred);
		obd_secret_free(set->element[i].key);
	}
	obd_secret_free(set);
}

/* --- a file --------------------------------------------------------------------------------------------------------------- */

static bool is_same(const struct obd_cred_file *f, const struct stat *st)
{
	return f->seen && f->mtime.tv_sec == st->st_mtim.tv_sec && f->mtime.tv_nsec == st->st_mtim.tv_nsec &&
	       f->dev == st->st_dev && f->ino == st->st_ino && f->bytes == st->st_size;
}

static void remember(struct obd_cred_file *f, const struct stat *st)
{
	f->seen = true;
	f->mtime = st->st_mtim;
	f->dev = st->st_dev;
	f->ino = st->st_ino;
	f->bytes = st->st_size;
}

static void read_file(struct obd_cred_file *f)
{
	char *buf;
	size_t len;
	unsigned int bad = 0;
	struct obd_creds *set;
	struct obd_err err = {{0}};
	int rc = obd_file_read(f->path, OBD_CREDS_BYTES_MAX, &buf, &len, &err);
	if (rc == 0) {
		rc = obd_creds_parse(buf, len, f->path, &set, &bad, &err);
		obd_secret_free(buf);
	}
	f->broken = rc != 0;
	if (rc) {
		obd_warn("%s; the credentials read before stay in force", err.msg);
		return;
	}
	if (obd_creds_unknown(set))
		obd_warn("%s: %s is not supported and left out; only auths with names and passwords count", f->path,
			 obd_creds_unknown(set));
	if (bad)
		obd_warn("%s: %u elements of auths hold no readable credential", f->path, bad);
	obd_creds_free(f->set);
	f->set = set;
}

void obd_cred_file_look(struct obd_cred_file *f, bool again)
{
	struct stat st;
	if (!f->path[0] || stat(f->path, &st) != 0) {
		obd_creds_free(f->set);
		f->set = NULL;
		f->seen = f->broken = false;
		return;
	}
	if (!again && is_same(f, &st))
		return;
	/* The state from before the reading: what is written meanwhile is read the next time. */
	remember(f, &st);
	read_file(f);
}

bool obd_cred_file_unsettled(const struct obd_cred_file *f)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	return f->broken && now.tv_sec - f->mtime.tv_sec <= UNSETTLED_S && now.tv_sec >= f->mtime.tv_sec;
}

void obd_cred_file_free(struct obd_cred_file *f)
{
	obd_creds_free(f->set);
	f->set = NULL;
}
