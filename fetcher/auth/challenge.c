/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 *   value     = challenge *( "," challenge )
 *   challenge = scheme [ token68 | param *( "," param ) ]
 *   param     = name "=" ( word | quoted text )
 *
 * Whether a word after a comma is a parameter or the next scheme shows only behind it: a parameter has an equals sign.
 */
#include "fetcher/auth/challenge.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

struct text {
	const char *at;
	const char *end;
};

/* A challenge while it is read. */
struct draft {
	struct obd_challenge c;
	bool known; /* a scheme that we speak */
	bool bad;
};

static bool is_word_char(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
	       (c && strchr("!#$%&'*+-.^_`|~/", c) != NULL);
}

static void skip_any(struct text *t, const char *set)
{
	while (t->at < t->end && *t->at && strchr(set, *t->at))
		t->at++;
}

static struct text take_word(struct text *t)
{
	struct text word = {t->at, t->at};
	while (t->at < t->end && is_word_char(*t->at))
		t->at++;
	word.end = t->at;
	return word;
}

static bool is(const struct text *word, const char *name)
{
	size_t n = strlen(name);
	return (size_t)(word->end - word->at) == n && strncasecmp(word->at, name, n) == 0;
}

/* Appends one character of a value. False: it does not fit, or no such character may be there. */
static bool put(char *out, size_t room, size_t *n, char c, bool spaces)
{
	if (c < 0x20 || c >= 0x7f || (c == ' ' && !spaces) || *n + 1 >= room)
		return false;
	out[(*n)++] = c;
	out[*n] = '\0';
	return true;
}

/* A value, quoted or not, into out (NULL: nowhere). False when it is not one. */
static bool take_value(struct text *t, char *out, size_t room, bool spaces)
{
	size_t n = 0;
	bool good = true;
	if (t->at == t->end || *t->at != '"') {
		struct text word = take_word(t);
		for (const char *p = word.at; good && out && p < word.end; p++)
			good = put(out, room, &n, *p, spaces);
		return good && word.at < word.end;
	}
	for (t->at++; t->at < t->end && *t->at != '"'; t->at++) {
		if (*t->at == '\\' && ++t->at == t->end)
			return false;
		good = good && (!out || put(out, room, &n, *t->at, spaces));
	}
	if (t->at == t->end)
		return false;
	t->at++;
	return good;
}

static void take_param(struct draft *d, const struct text *name, struct text *t)
{
	char *out = NULL;
	size_t room = 0;
	if (is(name, "realm")) {
		out = d->c.realm;
		room = sizeof d->c.realm;
	} else if (is(name, "service")) {
		out = d->c.service;
		room = sizeof d->c.service;
	} else if (is(name, "scope")) {
		out = d->c.scope;
		room = sizeof d->c.scope;
	}
	if (out && out[0])
		d->bad = true; /* twice: which of them would be meant? */
	/* Only a Bearer realm is an address, and only it is used. */
	if (!take_value(t, d->c.scheme == OBD_AUTH_BEARER ? out : NULL, room, out != d->c.realm))
		d->bad = true;
}

static void begin(struct draft *d, const struct text *scheme)
{
	memset(d, 0, sizeof *d);
	d->c.scheme = is(scheme, "bearer") ? OBD_AUTH_BEARER : is(scheme, "basic") ? OBD_AUTH_BASIC : OBD_AUTH_UNKNOWN;
	d->known = d->c.scheme != OBD_AUTH_UNKNOWN;
}

/* Keeps the draft if it is better than what is there. */
static void finish(struct obd_challenge *best, const struct draft *d)
{
	if (!d->known || d->bad || (d->c.scheme == OBD_AUTH_BEARER && !d->c.realm[0]))
		return;
	if (d->c.scheme > best->scheme)
		*best = d->c;
}

void obd_challenge_value(struct obd_challenge *c, const char *value, size_t n)
{
	struct text t = {value, value + n};
	struct draft d;
	memset(&d, 0, sizeof d);
	for (;;) {
		skip_any(&t, " \t,="); /* "=": what is left of a token68 */
		struct text word = take_word(&t);
		if (word.at == word.end)
			break; /* the end, or nothing that a challenge has */
		struct text behind = t;
		skip_any(&behind, " \t");
		if (behind.at < behind.end && *behind.at == '=') {
			t.at = behind.at + 1;
			skip_any(&t, " \t");
			take_param(&d, &word, &t);
		} else {
			finish(c, &d);
			begin(&d, &word);
		}
	}
	d.bad = d.bad || t.at < t.end;
	finish(c, &d);
}

void obd_challenge_line(struct obd_challenge *c, const char *line, size_t n)
{
	static const char name[] = "www-authenticate:";
	size_t len = sizeof name - 1;
	while (n && (line[n - 1] == '\r' || line[n - 1] == '\n'))
		n--;
	if (n >= 5 && strncasecmp(line, "HTTP/", 5) == 0)
		memset(c, 0, sizeof *c);
	else if (n >= len && strncasecmp(line, name, len) == 0)
		obd_challenge_value(c, line + len, n - len);
}

bool obd_challenge_pack(const struct obd_challenge *c, char out[OBD_CHALLENGE_TEXT_BYTES])
{
	memset(out, 0, OBD_CHALLENGE_TEXT_BYTES);
	if (c->scheme != OBD_AUTH_BEARER)
		return false;
	snprintf(out, OBD_CHALLENGE_TEXT_BYTES, "%s\n%s\n%s", c->realm, c->service, c->scope);
	return true;
}

/* Up to the next line end, the same characters as in a header. */
static bool unpack(const char **text, char *out, size_t room, bool spaces)
{
	size_t n = 0;
	out[0] = '\0';
	for (; **text && **text != '\n'; (*text)++)
		if (!put(out, room, &n, **text, spaces))
			return false;
	if (**text)
		(*text)++;
	return true;
}

bool obd_challenge_unpack(struct obd_challenge *c, const char *text)
{
	struct obd_challenge found = {.scheme = OBD_AUTH_BEARER};
	if (!unpack(&text, found.realm, sizeof found.realm, false) ||
	    !unpack(&text, found.service, sizeof found.service, true) ||
	    !unpack(&text, found.scope, sizeof found.scope, true) || *text || !found.realm[0])
		return false;
	*c = found;
	return true;
}
