/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a hostile registry and token service may say: lines of a header, a challenge on its way to other fetchers, a token
 * answer, a credential service's answer. */
#include <stdlib.h>
#include <string.h>

#include "fetcher/auth/challenge.h"
#include "fetcher/auth/creds.h"
#include "fetcher/auth/secret.h"
#include "fetcher/auth/token.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_text(const char *text, size_t room, bool spaces)
{
	size_t n = strnlen(text, room);
	if (n == room)
		abort();
	for (size_t i = 0; i < n; i++)
		if (text[i] < 0x20 || text[i] >= 0x7f || (text[i] == ' ' && !spaces))
			abort();
}

static void check_challenge(const struct obd_challenge *c)
{
	static struct obd_challenge back;
	char text[OBD_CHALLENGE_TEXT_BYTES];
	check_text(c->realm, sizeof c->realm, false);
	check_text(c->service, sizeof c->service, true);
	check_text(c->scope, sizeof c->scope, true);
	if (c->scheme != OBD_AUTH_BEARER)
		return;
	if (!c->realm[0] || !obd_challenge_pack(c, text) || !obd_challenge_unpack(&back, text) ||
	    strcmp(back.realm, c->realm) || strcmp(back.service, c->service) || strcmp(back.scope, c->scope))
		abort();
	char *url = obd_token_url(c, "some/repo");
	if (!url || strpbrk(url, "#\r\n "))
		abort();
	free(url);
}

static void check_header(const char *text, size_t n)
{
	struct obd_challenge c;
	memset(&c, 0, sizeof c);
	while (n) {
		const char *end = memchr(text, '\n', n);
		size_t line = end ? (size_t)(end - text) + 1 : n;
		obd_challenge_line(&c, text, line);
		text += line;
		n -= line;
	}
	check_challenge(&c);
}

static void check_answers(const char *text, size_t n)
{
	struct obd_token_answer token;
	struct obd_err err = {{0}};
	struct obd_creds *set;
	unsigned int bad;
	if (obd_token_parse(text, n, 1700000000, 8191, &token, &err) == 0 &&
	    (!token.life_s || token.life_s > OBD_TOKEN_LIFE_MAX_S || strlen(token.token) > 8191))
		abort();
	check_text(token.token ? token.token : "", 8192, false);
	obd_secret_free(token.token);
	if (obd_creds_parse_answer(text, n, "fuzz", &set, &bad, &err) == 0)
		obd_creds_free(set);
	if (obd_creds_parse(text, n, "fuzz", &set, &bad, &err) == 0) {
		const struct obd_cred *found = obd_creds_find(set, "registry.example:5000", "team/app");
		char *basic = found ? obd_cred_basic(found) : NULL;
		check_text(basic ? basic : "", 65536, true);
		obd_secret_free(basic);
		obd_creds_free(set);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct obd_challenge back;
	char text[OBD_CHALLENGE_TEXT_BYTES];
	size_t n = size < sizeof text - 1 ? size : sizeof text - 1;
	check_header((const char *)data, size);
	check_answers((const char *)data, size);
	memcpy(text, data, n);
	text[n] = '\0';
	if (obd_challenge_unpack(&back, text))
		check_challenge(&back);
	return 0;
}
