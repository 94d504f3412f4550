/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fetcher/auth/token.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/util.h"
#include "common/config/json.h"
#include "fetcher/auth/secret.h"

/* --- the request ---------------------------------------------------------------------------------------------------------- */

/* Appends text in percent-encoding; to has room for three times its length. */
static char *encode(char *to, const char *text)
{
	static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/:,";
	for (; *text; text++) {
		if (strchr(plain, *text))
			*to++ = *text;
		else
			to += sprintf(to, "%%%02X", (unsigned char)*text);
	}
	*to = '\0';
	return to;
}

char *obd_token_url(const struct obd_challenge *c, const char *repo)
{
	size_t room = strlen(c->realm) + 3 * (strlen(c->service) + strlen(c->scope) + strlen(repo)) + 64;
	char *url = malloc(room);
	if (!url)
		return NULL;
	char *p = url + sprintf(url, "%.*s", (int)strcspn(c->realm, "#"), c->realm);
	p += sprintf(p, "%c", strchr(url, '?') ? '&' : '?');
	if (c->service[0]) {
		p = encode(p + sprintf(p, "service="), c->service);
		*p++ = '&';
	}
	p += sprintf(p, "scope=");
	if (c->scope[0])
		encode(p, c->scope);
	else
		sprintf(encode(p + sprintf(p, "repository:"), repo), ":pull");
	return url;
}

/* --- the answer ----------------------------------------------------------------------------------------------------------- */

/* RFC 3339 as seconds since 1970. */
static bool parse_time(const char *text, int64_t *out)
{
	struct tm tm = {0};
	int n = 0, h = 0, m = 0;
	char sign = 0;
	if (sscanf(text, "%4d-%2d-%2d%*1[Tt ]%2d:%2d:%2d%n", &tm.tm_year, &tm.tm_mon, &tm.tm_mday, &tm.tm_hour, &tm.tm_min,
		   &tm.tm_sec, &n) != 6 ||
	    n == 0)
		return false;
	text += n;
	if (*text == '.')
		text += 1 + strspn(text + 1, "0123456789");
	if (*text == '+' || *text == '-') {
		if (sscanf(text, "%c%2d:%2d", &sign, &h, &m) != 3 || h > 24 || m > 59)
			return false;
	} else if (*text != 'Z' && *text != 'z') {
		return false;
	}
	if (tm.tm_year < 1970 || tm.tm_year > 9999 || tm.tm_mon < 1 || tm.tm_mon > 12)
		return false;
	tm.tm_year -= 1900;
	tm.tm_mon -= 1;
	int64_t offset = (int64_t)h * 3600 + m * 60;
	*out = (int64_t)timegm(&tm) - (sign == '-' ? -offset : offset);
	return true;
}

/* How much of the lifetime is over already; 0 when the clocks make no sense of it. */
static uint64_t age(const json_t *root, int64_t wall_s, uint64_t life_s)
{
	struct obd_err ignored;
	const char *text;
	int64_t issued;
	if (obd_json_string(root, "issued_at", 64, &text, &ignored) || !text || !parse_time(text, &issued))
		return 0;
	return wall_s > issued && (uint64_t)(wall_s - issued) < life_s ? (uint64_t)(wall_s - issued) : 0;
}

static uint64_t life(const json_t *root, int64_t wall_s)
{
	const json_t *v = json_object_get(root, "expires_in");
	uint64_t life_s = OBD_TOKEN_LIFE_S;
	if (json_is_number(v) && json_number_value(v) >= 1)
		life_s = (uint64_t)(json_number_value(v) < OBD_TOKEN_LIFE_MAX_S ? json_number_value(v) : OBD_TOKEN_LIFE_MAX_S);
	return life_s - age(root, wall_s, life_s);
}

static bool is_token(const char *text)
{
	for (; *text; text++)
		if (*text <= 0x20 || *text >= 0x7f)
			return false;
	return true;
}

int obd_token_parse(const char *body, size_t n, int64_t wall_s, size_t max_bytes, struct obd_token_answer *out,
		    struct obd_err *err)
{
	json_t *root;
	const char *token = NULL;
	*out = (struct obd_token_answer){0};
	int rc = obd_json_parse(body, n, "token service", &root, err);
	if (rc)
		return rc;
	rc = obd_json_string(root, "token", max_bytes, &token, err);
	if (rc == 0 && !token)
		rc = obd_json_string(root, "access_token", max_bytes, &token, err);
	if (rc == 0 && (!token || !is_token(token)))
		rc = obd_err_set(err, EINVAL, "no token in the answer");
	if (rc == 0) {
		out->life_s = life(root, wall_s);
		out->token = obd_secret_strdup(token);
		if (!out->token)
			rc = obd_err_set(err, ENOMEM, "no memory");
	}
	json_decref(root);
	return rc;
}
