/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Challenges, credentials, token answers, and the table of tokens among threads that are fetchers. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/util.h"
#include "fetcher/auth/auth.h"
#include "fetcher/auth/base64.h"
#include "fetcher/auth/challenge.h"
#include "fetcher/auth/creds.h"
#include "fetcher/auth/secret.h"
#include "fetcher/auth/token.h"
#include "fetcher/http/http.h"
#include "shmcache/tokens.h"
#include "test/fetcher/fetcher_tests.h"

/* --- challenges ----------------------------------------------------------------------------------------------------------- */

static const struct {
	const char *value;
	enum obd_auth_scheme scheme;
	const char *realm, *service, *scope;
} challenges[] = {
	{"Bearer realm=\"https://a/t\",service=\"s\",scope=\"repository:r:pull\"", OBD_AUTH_BEARER, "https://a/t", "s",
	 "repository:r:pull"},
	{"bearer  realm = \"https://a/t\" , scope = \"a b\"", OBD_AUTH_BEARER, "https://a/t", "", "a b"},
	{"Bearer realm=\"https://a/\\\"q\\\"\"", OBD_AUTH_BEARER, "https://a/\"q\"", "", ""},
	{"Basic realm=\"x, y\", Bearer realm=\"https://a/t\"", OBD_AUTH_BEARER, "https://a/t", "", ""},
	{"Bearer realm=\"https://a/t\", Basic realm=\"x\"", OBD_AUTH_BEARER, "https://a/t", "", ""},
	{"Negotiate YWJj==, Bearer realm=\"https://a/t\"", OBD_AUTH_BEARER, "https://a/t", "", ""},
	{"Basic", OBD_AUTH_BASIC, "", "", ""},
	{"Basic realm=\"one, or two\"", OBD_AUTH_BASIC, "", "", ""},
	{"Bearer", OBD_AUTH_UNKNOWN, "", "", ""},
	{"Bearer service=\"s\"", OBD_AUTH_UNKNOWN, "", "", ""},
	{"Bearer realm=\"https://a/t", OBD_AUTH_UNKNOWN, "", "", ""},
	{"Bearer realm=\"https://a b/t\"", OBD_AUTH_UNKNOWN, "", "", ""},
	{"Bearer realm=\"https://a/\r\nX: y\"", OBD_AUTH_UNKNOWN, "", "", ""},
	{"Bearer realm=\"https://a/\",realm=\"https://b/\"", OBD_AUTH_UNKNOWN, "", "", ""},
	{"Digest realm=\"x\"", OBD_AUTH_UNKNOWN, "", "", ""},
	{"", OBD_AUTH_UNKNOWN, "", "", ""},
};

START_TEST(test_challenges)
{
	struct obd_challenge c = {0}, back;
	char text[OBD_CHALLENGE_TEXT_BYTES];
	obd_challenge_value(&c, challenges[_i].value, strlen(challenges[_i].value));
	ck_assert_int_eq(c.scheme, challenges[_i].scheme);
	ck_assert_str_eq(c.realm, challenges[_i].realm);
	ck_assert_str_eq(c.service, challenges[_i].service);
	ck_assert_str_eq(c.scope, challenges[_i].scope);
	ck_assert_int_eq(obd_challenge_pack(&c, text), c.scheme == OBD_AUTH_BEARER);
	if (c.scheme != OBD_AUTH_BEARER)
		return;
	ck_assert(obd_challenge_unpack(&back, text));
	ck_assert_str_eq(back.realm, c.realm);
	ck_assert_str_eq(back.scope, c.scope);
}
END_TEST

START_TEST(test_challenge_lines)
{
	static const char *const lines[] = {"HTTP/1.1 401 No\r\n", "WWW-Authenticate: Basic realm=x\r\n",
					    "www-authenticate:Bearer realm=\"https://a/\"\r\n", "Content-Length: 0\r\n"};
	struct obd_challenge c = {0};
	for (size_t i = 0; i < OBD_ARRAY_SIZE(lines); i++)
		obd_challenge_line(&c, lines[i], strlen(lines[i]));
	ck_assert_int_eq(c.scheme, OBD_AUTH_BEARER);
	obd_challenge_line(&c, lines[0], strlen(lines[0]));
	ck_assert_int_eq(c.scheme, OBD_AUTH_UNKNOWN);
	char *longer = malloc(5000);
	memset(longer, 'a', 5000);
	memcpy(longer, "Bearer realm=\"https://", 22);
	longer[4999] = '"';
	obd_challenge_value(&c, longer, 5000);
	ck_assert_int_eq(c.scheme, OBD_AUTH_UNKNOWN);
	free(longer);
}
END_TEST

/* --- credentials ---------------------------------------------------------------------------------------------------------- */

static const char creds_text[] = "{\"auths\": {"
				 "\"reg.example\": {\"username\": \"host\", \"password\": \"a:b:c\"},"
				 "\"https://reg.example/team/\": {\"auth\": \"dGVhbTpwOnc=\"},"
				 "\"reg.example/team/app\": {\"username\": \"app\", \"password\": \"\"},"
				 "\"REG.example:5000\": {\"username\": \"port\", \"password\": \"p\"},"
				 "\"https://index.docker.io/v1/\": {\"auth\": \"dXNlcm5hbWU6cGFzc3dvcmQK\"},"
				 "\"helper.example\": {},"
				 "\"bad1.example\": {\"auth\": \"***\"},"
				 "\"bad2.example\": {\"auth\": \"bm9jb2xvbg==\"},"
				 "\"bad3.example\": 7"
				 "}, \"credsStore\": \"desktop\"}";

static const struct {
	const char *host, *repo, *user, *password;
} lookups[] = {
	{"reg.example", "other/app", "host", "a:b:c"},
	{"reg.example", "team/other", "team", "p:w"},
	{"reg.example", "team", "team", "p:w"},
	{"reg.example", "teams/x", "host", "a:b:c"},
	{"reg.example", "team/app", "app", ""},
	{"reg.example", "team/app/sub", "app", ""},
	{"reg.example:443", "team/application", "team", "p:w"},
	{"reg.example:5000", "team/app", "port", "p"},
	{"reg.example:5001", "team/app", NULL, NULL},
	{"example", "x", NULL, NULL},
	{"docker.io", "library/redis", "username", "password"},
	{"registry-1.docker.io", "library/redis", "username", "password"},
	{"helper.example", "x", NULL, NULL},
	{"bad1.example", "x", NULL, NULL},
};

START_TEST(test_credentials)
{
	struct obd_creds *set;
	struct obd_err err = {{0}};
	unsigned int bad;
	ck_assert_int_eq(obd_creds_parse(creds_text, sizeof creds_text - 1, "f", &set, &bad, &err), 0);
	ck_assert_uint_eq(bad, 3);
	const struct obd_cred *c = obd_creds_find(set, lookups[_i].host, lookups[_i].repo);
	if (!lookups[_i].user) {
		ck_assert_ptr_null(c);
	} else {
		ck_assert_ptr_nonnull(c);
		ck_assert_str_eq(c->user, lookups[_i].user);
		ck_assert_str_eq(c->password, lookups[_i].password);
	}
	obd_creds_free(set);
}
END_TEST

static const char *const unknowns[][2] = {
	{"{\"auths\": {}, \"credsStore\": \"desktop\"}", "credsStore"},
	{"{\"credHelpers\": {\"gcr.example\": \"gcloud\"}}", "credHelpers"},
	{"{\"auths\": {\"a\": {\"auth\": \"dTpw\"}, \"b\": {\"identitytoken\": \"t\"}}}", "identitytoken"},
	{"{\"auths\": {\"a\": {\"auth\": \"dTpw\", \"identitytoken\": \"\"}, \"b\": 7}, \"credHelpers\": {}, \"credsStore\": "
	 "\"\"}",
	 ""},
};

START_TEST(test_unknown_ways_to_credentials)
{
	struct obd_creds *set;
	struct obd_err err = {{0}};
	unsigned int bad;
	ck_assert_int_eq(obd_creds_parse(unknowns[_i][0], strlen(unknowns[_i][0]), "f", &set, &bad, &err), 0);
	const char *unknown = obd_creds_unknown(set);
	ck_assert_str_eq(unknown ? unknown : "", unknowns[_i][1]);
	obd_creds_free(set);
}
END_TEST

START_TEST(test_service_answers)
{
	static const char good[] =
		"{\"traceId\": \"t\", \"success\": true, \"data\": {\"auths\": {\"h\": {\"auth\": \"dTpw\"}}}}";
	static const char no[] = "{\"success\": false, \"data\": {\"auths\": {\"h\": {\"auth\": \"dTpw\"}}}}";
	static const char odd[] = "{\"success\": true, \"data\": [1]}";
	struct obd_creds *set;
	struct obd_err err = {{0}};
	unsigned int bad;
	ck_assert_int_eq(obd_creds_parse_answer(good, sizeof good - 1, "f", &set, &bad, &err), 0);
	const struct obd_cred *c = obd_creds_find(set, "h", "r");
	ck_assert_ptr_nonnull(c);
	char *basic = obd_cred_basic(c);
	ck_assert_str_eq(basic, "Basic dTpw");
	obd_secret_free(basic);
	obd_creds_free(set);
	ck_assert_int_eq(obd_creds_parse_answer(no, sizeof no - 1, "f", &set, &bad, &err), 0);
	ck_assert_ptr_null(obd_creds_find(set, "h", "r"));
	obd_creds_free(set);
	ck_assert_int_eq(obd_creds_parse_answer(odd, sizeof odd - 1, "f", &set, &bad, &err), -EINVAL);
}
END_TEST

static void write_file(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");
	ck_assert_ptr_nonnull(f);
	fputs(text, f);
	fclose(f);
}

START_TEST(test_credential_file)
{
	char path[64];
	snprintf(path, sizeof path, "/tmp/check_auth.%d.json", (int)getpid());
	struct obd_cred_file f = {.path = path};
	obd_cred_file_look(&f, false);
	ck_assert_ptr_null(obd_creds_find(f.set, "h", "r"));
	write_file(path, "{\"auths\": {\"h\": {\"username\": \"u\", \"password\": \"first\"}}}");
	obd_cred_file_look(&f, false);
	ck_assert_str_eq(obd_creds_find(f.set, "h", "r")->password, "first");
	uint64_t id = obd_creds_find(f.set, "h", "r")->id;
	write_file(path, "{\"auths\": {\"h\": {\"username\": \"u\"");
	obd_cred_file_look(&f, false);
	ck_assert(obd_cred_file_unsettled(&f));
	ck_assert_str_eq(obd_creds_find(f.set, "h", "r")->password, "first");
	write_file(path, "{\"auths\": {\"h\": {\"username\": \"u\", \"password\": \"second\"}}}");
	obd_cred_file_look(&f, true);
	ck_assert(!obd_cred_file_unsettled(&f));
	ck_assert_uint_ne(obd_creds_find(f.set, "h", "r")->id, id);
	unlink(path);
	obd_cred_file_look(&f, false);
	ck_assert_ptr_null(obd_creds_find(f.set, "h", "r"));
	obd_cred_file_free(&f);
}
END_TEST

START_TEST(test_base64)
{
	static const char *const texts[][2] = {{"", ""}, {"f", "Zg=="}, {"fo", "Zm8="}, {"foo", "Zm9v"}, {"foob", "Zm9vYg=="}};
	char out[16];
	unsigned char back[16];
	for (size_t i = 0; i < OBD_ARRAY_SIZE(texts); i++) {
		obd_base64_encode(texts[i][0], strlen(texts[i][0]), out);
		ck_assert_str_eq(out, texts[i][1]);
		ck_assert_int_eq(obd_base64_decode(out, strlen(out), back), (int)strlen(texts[i][0]));
		ck_assert_mem_eq(back, texts[i][0], strlen(texts[i][0]));
	}
	ck_assert_int_eq(obd_base64_decode("Zg", 2, back), 1);
	ck_assert_int_eq(obd_base64_decode("Z", 1, back), -1);
	ck_assert_int_eq(obd_base64_decode("Zg=a", 4, back), -1);
}
END_TEST

/* --- token answers -------------------------------------------------------------------------------------------------------- */

static const struct {
	const char *text;
	const char *token; /* NULL: refused */
	uint64_t life_s;
} answers[] = {
	{"{\"token\": \"a.b-c_d\"}", "a.b-c_d", 60},
	{"{\"access_token\": \"x\", \"expires_in\": 300}", "x", 300},
	{"{\"token\": \"t\", \"access_token\": \"x\", \"expires_in\": 2}", "t", 2},
	{"{\"token\": \"t\", \"expires_in\": 100, \"issued_at\": \"2023-11-14T22:13:00Z\"}", "t", 80},
	{"{\"token\": \"t\", \"expires_in\": 100, \"issued_at\": \"2023-11-14T23:43:00.25+01:30\"}", "t", 80},
	{"{\"token\": \"t\", \"expires_in\": 100, \"issued_at\": \"2023-11-14T22:20:00Z\"}", "t", 100},
	{"{\"token\": \"t\", \"expires_in\": 10, \"issued_at\": \"2013-11-14T22:13:00Z\"}", "t", 10},
	{"{\"token\": \"t\", \"expires_in\": 0}", "t", 60},
	{"{\"token\": \"t\", \"expires_in\": -5}", "t", 60},
	{"{\"token\": \"t\", \"expires_in\": 1e30}", "t", OBD_TOKEN_LIFE_MAX_S},
	{"{\"token\": \"\"}", NULL, 0},
	{"{\"token\": \"a b\"}", NULL, 0},
	{"{\"token\": \"a\\nb\"}", NULL, 0},
	{"{\"token\": 5}", NULL, 0},
	{"[]", NULL, 0},
	{"<html>", NULL, 0},
};

START_TEST(test_answers)
{
	struct obd_token_answer a;
	struct obd_err err = {{0}};
	int rc = obd_token_parse(answers[_i].text, strlen(answers[_i].text), 1700000000, 100, &a, &err);
	ck_assert_int_eq(rc, answers[_i].token ? 0 : -EINVAL);
	if (rc)
		return;
	ck_assert_str_eq(a.token, answers[_i].token);
	ck_assert_uint_eq(a.life_s, answers[_i].life_s);
	obd_secret_free(a.token);
}
END_TEST

START_TEST(test_token_url)
{
	struct obd_challenge c = {.scheme = OBD_AUTH_BEARER, .realm = "https://a/t#x", .service = "my reg&"};
	char *url = obd_token_url(&c, "team/app");
	ck_assert_str_eq(url, "https://a/t?service=my%20reg%26&scope=repository:team/app:pull");
	free(url);
	c = (struct obd_challenge){.scheme = OBD_AUTH_BEARER, .realm = "https://a/t?q=1", .scope = "repository:x:pull,push"};
	url = obd_token_url(&c, "team/app");
	ck_assert_str_eq(url, "https://a/t?q=1&scope=repository:x:pull,push");
	free(url);
}
END_TEST

/* --- the table ------------------------------------------------------------------------------------------------------------ */

static struct obd_tokens *table;
static struct obd_table *cached_table;

static void setup_table(void)
{
	table = calloc(1, sizeof *table);
	cached_table = calloc(1, sizeof *cached_table);
	ck_assert(table && cached_table);
}

static void teardown_table(void)
{
	free(table);
	free(cached_table);
}

static struct obd_tokens_side side(uint32_t index, uint32_t incarnation)
{
	return (struct obd_tokens_side){
		.tokens = table, .table = cached_table, .index = index, .incarnation = incarnation, .salt = 7};
}

static void publish(const struct obd_tokens_side *s, const struct obd_token_claim *claim, const struct obd_token_key *key,
		    const char *token, uint64_t now, uint64_t life_ns)
{
	struct obd_token_view v = {.obtained_ns = now, .refresh_ns = now + life_ns / 2, .expires_ns = now + life_ns};
	snprintf(v.token, sizeof v.token, "%s", token);
	snprintf(v.origin, sizeof v.origin, "https://a/");
	obd_tokens_publish(s, claim, key, &v);
}

START_TEST(test_one_gets_it_for_all)
{
	struct obd_tokens_side a = side(0, 0), b = side(1, 0);
	struct obd_token_key key = {.host = "h", .repo = "r", .cred_id = 5}, other = {.host = "h", .repo = "r", .cred_id = 6};
	struct obd_token_claim claim, second;
	struct obd_token_view v;
	uint64_t now = obd_clock_ns();
	ck_assert(!obd_tokens_find(&a, &key, &v));
	ck_assert_int_eq(obd_tokens_claim(&a, &key, now, &claim), 0);
	ck_assert_int_eq(obd_tokens_claim(&b, &key, now, &second), -EBUSY);
	publish(&a, &claim, &key, "tok", now, 60 * OBD_SECOND_NS);
	ck_assert(obd_tokens_find(&b, &key, &v));
	ck_assert_str_eq(v.token, "tok");
	ck_assert_str_eq(v.origin, "https://a/");
	ck_assert(!obd_tokens_find(&b, &other, &v));
	ck_assert_int_eq(obd_tokens_claim(&b, &key, now, &second), 0);
	obd_tokens_fail(&b, &second, EACCES, now + 1);
	ck_assert_int_eq(obd_tokens_failed(&a, &key, now), EACCES);
	ck_assert_int_eq(obd_tokens_failed(&a, &key, now + 2), 0);
	ck_assert(obd_tokens_find(&a, &key, &v));
}
END_TEST

START_TEST(test_a_dead_claimer_is_taken_over)
{
	struct obd_tokens_side a = side(0, 3), b = side(1, 0);
	struct obd_token_key key = {.host = "h", .repo = "r"};
	struct obd_token_claim first, second, third;
	struct obd_token_view v;
	uint64_t now = obd_clock_ns();
	atomic_store(&cached_table->fetcher[0].admitted, 3);
	ck_assert_int_eq(obd_tokens_claim(&a, &key, now, &first), 0);
	ck_assert_int_eq(obd_tokens_claim(&b, &key, now, &second), -EBUSY);
	/* B read its clock just before A did: that is no reason to take A's claim for an old one. */
	ck_assert_int_eq(obd_tokens_claim(&b, &key, now - 2 * OBD_MS_NS, &second), -EBUSY);
	atomic_store(&cached_table->fetcher[0].admitted, 4); /* it was reaped */
	ck_assert_int_eq(obd_tokens_claim(&b, &key, now, &second), 0);
	publish(&a, &first, &key, "late", now, OBD_SECOND_NS); /* a zombie changes nothing */
	ck_assert(!obd_tokens_find(&b, &key, &v));
	obd_tokens_fail(&a, &first, EIO, now);
	ck_assert_int_eq(obd_tokens_claim(&a, &key, now, &third), -EBUSY);
	now += (OBD_TOKEN_CLAIM_MS + 1) * OBD_MS_NS; /* alive, and stuck */
	a = side(2, 0);
	ck_assert_int_eq(obd_tokens_claim(&a, &key, now, &third), 0);
	publish(&a, &third, &key, "good", now, OBD_SECOND_NS);
	ck_assert(obd_tokens_find(&b, &key, &v));
	ck_assert_str_eq(v.token, "good");
}
END_TEST

START_TEST(test_torn_and_hostile_slots)
{
	struct obd_tokens_side a = side(0, 0);
	struct obd_token_key key = {.host = "h", .repo = "r"};
	struct obd_token_claim claim;
	struct obd_token_view v;
	uint64_t now = obd_clock_ns();
	ck_assert_int_eq(obd_tokens_claim(&a, &key, now, &claim), 0);
	publish(&a, &claim, &key, "token", now, OBD_SECOND_NS);
	struct obd_token_slot *s = &table->slot[claim.slot];
	s->token[1] ^= 1;
	ck_assert(!obd_tokens_find(&a, &key, &v));
	s->token[1] ^= 1;
	ck_assert(obd_tokens_find(&a, &key, &v));
	s->bytes = UINT32_MAX;
	ck_assert(!obd_tokens_find(&a, &key, &v));
	for (uint32_t i = 0; i < OBD_TOKEN_SLOTS; i++)
		fill_noise((unsigned char *)&table->slot[i], sizeof table->slot[i], i + 1);
	ck_assert(!obd_tokens_find(&a, &key, &v));
	obd_tokens_failed(&a, &key, 0);
	obd_tokens_claim(&a, &key, now, &claim);
}
END_TEST

START_TEST(test_a_full_window)
{
	struct obd_tokens_side a = side(0, 0);
	struct obd_token_claim claim;
	uint64_t now = obd_clock_ns();
	unsigned int full = 0;
	for (uint64_t i = 0; i < OBD_TOKEN_SLOTS * 2; i++) {
		struct obd_token_key key = {.host = "h", .repo = "r", .cred_id = i * 7919};
		int rc = obd_tokens_claim(&a, &key, now, &claim);
		if (rc == 0)
			publish(&a, &claim, &key, "t", now, OBD_SECOND_NS);
		full += rc == -ENOSPC;
	}
	ck_assert_uint_ge(full, OBD_TOKEN_SLOTS / 2);
	struct obd_token_key fresh = {.host = "h", .repo = "new"};
	ck_assert_int_eq(obd_tokens_claim(&a, &fresh, now + 2 * OBD_SECOND_NS, &claim), 0); /* those have expired */
}
END_TEST

/* Threads are fetchers that want one token after the other, each valid for a moment. */
enum { FETCHERS = 4, ROUNDS = 300 };
static _Atomic unsigned int got;

static void *be_fetcher(void *arg)
{
	struct obd_tokens_side me = side((uint32_t)(uintptr_t)arg, 0);
	struct obd_token_key key = {.host = "h", .repo = "r"};
	struct obd_token_view v;
	struct obd_token_claim claim;
	char token[300];
	for (unsigned int round = 1; round <= ROUNDS;) {
		uint64_t now = obd_clock_ns();
		if (obd_tokens_find(&me, &key, &v)) {
			size_t n = strspn(v.token + 3, "x");
			ck_assert_uint_eq(n, 200);
			ck_assert_uint_eq(strlen(v.token), 203);
			if ((unsigned int)atoi(v.token) >= round) {
				round = (unsigned int)atoi(v.token) + 1;
				continue;
			}
		}
		if (obd_tokens_claim(&me, &key, now, &claim) != 0)
			continue;
		if (obd_tokens_find(&me, &key, &v) && (unsigned int)atoi(v.token) >= round) {
			obd_tokens_fail(&me, &claim, 0, now);
			continue;
		}
		snprintf(token, sizeof token, "%03u%0200d", round, 0);
		memset(token + 3, 'x', 200);
		atomic_fetch_add(&got, 1);
		/* No token may expire before the slowest thread has seen it. */
		publish(&me, &claim, &key, token, now, 3600 * OBD_SECOND_NS);
	}
	return NULL;
}

START_TEST(test_many_fetchers)
{
	pthread_t thread[FETCHERS];
	for (uintptr_t i = 0; i < FETCHERS; i++)
		ck_assert_int_eq(pthread_create(&thread[i], NULL, be_fetcher, (void *)i), 0);
	for (int i = 0; i < FETCHERS; i++)
		pthread_join(thread[i], NULL);
	ck_assert_uint_eq(got, ROUNDS);
}
END_TEST

/* --- asks -------------------------------------------------------------------------------------------------------------------
 */

struct asker {
	struct obd_auth_ask ask; /* first */
	struct obd_loop *loop;
};

static void on_asked(struct obd_auth_ask *ask)
{
	obd_loop_stop(((struct asker *)ask)->loop, 0);
}

static void await(struct asker *a, bool there)
{
	if (!there)
		ck_assert_int_eq(obd_loop_run(a->loop), 0);
}

/* A port of this machine that refuses connections as long as the socket is open. */
static int closed_port(int *port)
{
	struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t n = sizeof addr;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&addr, n), 0);
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&addr, &n), 0);
	*port = ntohs(addr.sin_port);
	return fd;
}

/* Somebody on the way answered 401 and named a token service that is not there. Whoever was told so fails, and the next
 * request goes out as before: the registry never wanted a token. */
START_TEST(test_a_challenge_that_leads_nowhere)
{
	struct obd_config config;
	struct obd_fetch_stats stats = {0};
	struct obd_challenge nowhere = {.scheme = OBD_AUTH_BEARER, .service = "s"};
	const struct obd_auth_target target = {"127.0.0.1", "http://127.0.0.1/v2/r/blobs", "sha256:0"};
	int port, fd = closed_port(&port);
	snprintf(nowhere.realm, sizeof nowhere.realm, "http://127.0.0.1:%d/token", port);
	ck_assert_int_eq(obd_config_defaults(&config), 0);
	struct asker a = {.ask.done = on_asked, .loop = obd_loop_new()};
	struct obd_http *http = obd_http_new(a.loop, &config, NULL, &stats);
	struct obd_auth *auth = obd_auth_new(a.loop, &config, http, NULL, NULL, &stats);
	ck_assert(http && auth);
	for (int i = 0; i < 2; i++) {
		await(&a, obd_auth_get(auth, &a.ask, &target));
		ck_assert_int_eq(a.ask.err, 0);
		ck_assert_ptr_null(a.ask.authorization);
		await(&a, obd_auth_refused(auth, &a.ask, &nowhere));
		ck_assert_int_eq(a.ask.err, ECONNREFUSED);
		obd_auth_end(&a.ask);
	}
	obd_auth_free(auth);
	obd_http_free(http);
	obd_loop_free(a.loop);
	obd_config_free(&config);
	close(fd);
}
END_TEST

TCase *auth_cases(void)
{
	TCase *t = tcase_create("auth");
	tcase_set_timeout(t, 60);
	tcase_add_checked_fixture(t, setup_table, teardown_table);
	tcase_add_loop_test(t, test_challenges, 0, OBD_ARRAY_SIZE(challenges));
	tcase_add_test(t, test_challenge_lines);
	tcase_add_loop_test(t, test_credentials, 0, OBD_ARRAY_SIZE(lookups));
	tcase_add_loop_test(t, test_unknown_ways_to_credentials, 0, OBD_ARRAY_SIZE(unknowns));
	tcase_add_test(t, test_service_answers);
	tcase_add_test(t, test_credential_file);
	tcase_add_test(t, test_base64);
	tcase_add_loop_test(t, test_answers, 0, OBD_ARRAY_SIZE(answers));
	tcase_add_test(t, test_token_url);
	tcase_add_test(t, test_one_gets_it_for_all);
	tcase_add_test(t, test_a_dead_claimer_is_taken_over);
	tcase_add_test(t, test_torn_and_hostile_slots);
	tcase_add_test(t, test_a_full_window);
	tcase_add_test(t, test_many_fetchers);
	tcase_add_test(t, test_a_challenge_that_leads_nowhere);
	return t;
}
