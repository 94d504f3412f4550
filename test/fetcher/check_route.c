/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Routes and their standing, remembered redirects, and how long things hold. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/util.h"
#include "fetcher/http/expiry.h"
#include "fetcher/http/range.h"
#include "fetcher/http/redirect.h"
#include "fetcher/http/route.h"
#include "test/fetcher/fetcher_tests.h"

#define NOW INT64_C(1767323045) /* 2026-01-02 03:04:05 UTC */

static const struct {
	const char *text;
	uint32_t seconds;
} retries[] = {
	{"0", 0},
	{"7", 7},
	{"120", 120},
	{"9999999", OBD_HTTP_RETRY_MAX_S},
	{"99999999999999999999999", 0},
	{"-5", 0},
	{"", 0},
	{"soon", 0},
	{"Fri, 02 Jan 2026 03:04:35 GMT", 30},
	{"Friday, 02-Jan-26 03:04:35 GMT", 30},
	{"Fri Jan  2 03:04:35 2026", 30},
	{"Fri, 02 Jan 2026 03:03:05 GMT", 0},
	{"Fri, 02 Jan 2037 03:03:05 GMT", OBD_HTTP_RETRY_MAX_S},
};

START_TEST(test_retry_after)
{
	const char *text = retries[_i].text;
	ck_assert_uint_eq(obd_http_retry_after(text, strlen(text), NOW), retries[_i].seconds);
}
END_TEST

static const struct {
	const char *url;
	int64_t seconds;
} lives[] = {
	{"https://s3.example/b/x", OBD_HTTP_LIFE_UNKNOWN},
	{"https://s3.example/b/x?", OBD_HTTP_LIFE_UNKNOWN},
	{"https://s3.example/b/x?sig=1&expiry=5", OBD_HTTP_LIFE_UNKNOWN},
	{"https://s3.example/x?X-Amz-Date=20260102T030405Z&X-Amz-Expires=900&X-Amz-Signature=a", 900},
	{"https://s3.example/x?x-amz-expires=60&a=b&x-amz-date=20260102T030305Z", 0},
	{"https://s3.example/x?X-Amz-Expires=900", OBD_HTTP_LIFE_UNKNOWN},
	{"https://s3.example/x?X-Amz-Date=20261302T030405Z&X-Amz-Expires=900", OBD_HTTP_LIFE_UNKNOWN},
	{"https://gcs.example/x?X-Goog-Date=20260102T030405Z&X-Goog-Expires=3600", 3600},
	{"https://cf.example/x?Expires=1767323145&Signature=a&Key-Pair-Id=b", 100},
	{"http://127.0.0.1/x?exp=1767323055.250&sig=a", 10},
	{"https://az.example/x?sv=2020&se=2026-01-02T03%3A05%3A05Z&sig=a", 60},
	{"https://az.example/x?se=2026-01-02T03:05:05Z", 60},
	{"https://az.example/x?se=2024-02-29T00:00:00Z#se=2026-01-02T03:05:05Z", INT64_C(1709164800) - NOW},
	{"https://x.example/x?Expires=1767323000", -45},
	{"https://x.example/x?Expires=soon", OBD_HTTP_LIFE_UNKNOWN},
	{"https://x.example/x?Expires=1767323145&exp=1767323055", 10},
};

START_TEST(test_url_life)
{
	ck_assert_int_eq(obd_http_url_life(lives[_i].url, NOW), lives[_i].seconds);
}
END_TEST

static int64_t header_life(const char *lines)
{
	struct obd_http_answer a = {0};
	while (*lines) {
		size_t n = strcspn(lines, "\n") + 1;
		obd_http_answer_line(&a, lines, n);
		lines += n;
	}
	return obd_http_answer_life(&a);
}

START_TEST(test_header_life)
{
	ck_assert_int_eq(header_life("HTTP/1.1 307 Moved\r\nServer: x\r\n"), OBD_HTTP_LIFE_UNKNOWN);
	ck_assert_int_eq(header_life("Cache-Control: private, max-age=30\r\n"), 30);
	ck_assert_int_eq(header_life("cache-control: max-age=30, no-store\r\n"), 0);
	ck_assert_int_eq(header_life("Cache-Control: max-age=99999999999999\r\n"), UINT32_MAX);
	ck_assert_int_eq(header_life("Date: Fri, 02 Jan 2026 03:04:05 GMT\r\nExpires: Fri, 02 Jan 2026 03:05:05 GMT\r\n"), 60);
	ck_assert_int_eq(header_life("Expires: 0\r\n"), OBD_HTTP_LIFE_UNKNOWN);
	ck_assert_uint_eq(obd_redirects_life(OBD_HTTP_LIFE_UNKNOWN, OBD_HTTP_LIFE_UNKNOWN), 60);
	ck_assert_uint_eq(obd_redirects_life(100, 5), 90);
	ck_assert_uint_eq(obd_redirects_life(OBD_HTTP_LIFE_UNKNOWN, 0), 0);
	ck_assert_uint_eq(obd_redirects_life(-3, 1000), 0);
	ck_assert_uint_eq(obd_redirects_life(INT64_MAX, 0), 3600);
}
END_TEST

START_TEST(test_redirects)
{
	struct obd_redirects *r = obd_redirects_new();
	char from[32];
	ck_assert_ptr_null(obd_redirects_find(r, "a", 1));
	obd_redirects_put(r, "a", "x", 1, 10);
	ck_assert_str_eq(obd_redirects_find(r, "a", 10 * OBD_SECOND_NS), "x");
	ck_assert_ptr_null(obd_redirects_find(r, "a", 10 * OBD_SECOND_NS + 1));
	ck_assert_ptr_null(obd_redirects_find(r, "a", 1));
	obd_redirects_put(r, "a", "x", 1, 10);
	obd_redirects_put(r, "a", "y", 1, 10);
	obd_redirects_drop(r, "b");
	ck_assert_str_eq(obd_redirects_find(r, "a", 1), "y");
	obd_redirects_drop(r, "a");
	ck_assert_ptr_null(obd_redirects_find(r, "a", 1));
	obd_redirects_put(r, "a", "x", 1, 0);
	ck_assert_ptr_null(obd_redirects_find(r, "a", 1));
	for (int i = 0; i < 5000; i++) { /* more than there is room for */
		snprintf(from, sizeof from, "%d", i);
		obd_redirects_put(r, from, from, 1, 10);
		ck_assert_str_eq(obd_redirects_find(r, from, 1), from);
	}
	obd_redirects_free(r);
}
END_TEST

/* --- routes --------------------------------------------------------------------------------------------------------------- */

static char *mirrors[] = {(char *)"one.example", (char *)"https://two.example:99/cache/"};
static struct obd_registry registry = {.host = (char *)"reg.example", .mirrors = {.count = 2, .item = mirrors}};
static struct obd_registry other = {.host = (char *)"other.example", .mirrors = {.count = 1, .item = mirrors}};
static struct obd_route plan[OBD_ROUTES];
static uint32_t planned;

static void check_plan(struct obd_routes *r, uint32_t avoid, const char *order)
{
	char got[OBD_ROUTES + 1] = "";
	obd_routes_plan_free(plan, planned);
	planned = obd_routes_plan(r, &registry, "http://reg.example/v2/a/b/blobs", "sha256:x", avoid, plan);
	for (uint32_t i = 0; i < planned; i++)
		got[i] = plan[i].bit == OBD_ROUTE_REGISTRY_BIT ? 'r' : (char)('0' + plan[i].bit);
	ck_assert_str_eq(got, order);
}

static struct obd_route *way(uint32_t bit)
{
	for (uint32_t i = 0; i < planned; i++)
		if (plan[i].bit == bit)
			return &plan[i];
	ck_abort_msg("no route %u", bit);
	return NULL;
}

START_TEST(test_plans)
{
	struct obd_registry two[] = {other, registry};
	struct obd_config config = {.p2p_enable = true,
				    .p2p_address = (char *)"http://localhost:9731/acc/",
				    .registry_count = 2,
				    .registries = two};
	struct obd_routes *r = obd_routes_new(&config);
	planned = obd_routes_plan(r, &two[1], "http://reg.example/v2/a/b/blobs", "sha256:x", 0, plan);
	ck_assert_uint_eq(planned, 4);
	ck_assert_str_eq(plan[0].url, "http://localhost:9731/acc/http://reg.example/v2/a/b/blobs");
	ck_assert(plan[0].is_proxy);
	ck_assert_str_eq(plan[1].url, "http://one.example/v2/a/b/blobs");
	ck_assert_str_eq(plan[2].url, "https://two.example:99/cache/v2/a/b/blobs");
	ck_assert_str_eq(plan[3].url, "http://reg.example/v2/a/b/blobs");
	ck_assert_ptr_null(plan[3].place);
	obd_routes_plan_free(plan, planned);
	planned = obd_routes_plan(r, NULL, "http://else.example/v2/a/b/blobs", "sha256:x", 0, plan);
	ck_assert_uint_eq(planned, 2);
	obd_routes_plan_free(plan, planned);
	planned = 0;
	obd_routes_free(r);
}
END_TEST

START_TEST(test_standing)
{
	struct obd_config config = {.registry_count = 1, .registries = &registry};
	struct obd_routes *r = obd_routes_new(&config);
	planned = 0;
	check_plan(r, 0, "12r");
	check_plan(r, 1u << 1, "2r1");
	check_plan(r, 1u << OBD_ROUTE_REGISTRY_BIT, "12r");
	obd_routes_failed(way(1), 0);
	check_plan(r, 0, "2r1");
	obd_routes_good(way(1)); /* a request that was under way came through */
	check_plan(r, 0, "12r");
	obd_routes_absent(r, way(2), "sha256:x");
	check_plan(r, 0, "1r2");
	obd_routes_failed(way(17), 0); /* the registry stays */
	check_plan(r, 0, "1r2");
	obd_routes_plan_free(plan, planned);
	planned = 0;
	obd_routes_free(r);
}
END_TEST

/* After its time one request tries it; while that is under way others leave it alone. */
START_TEST(test_return)
{
	struct obd_config config = {.registry_count = 1, .registries = &registry};
	struct obd_routes *r = obd_routes_new(&config);
	planned = 0;
	check_plan(r, 0, "12r");
	obd_routes_failed(way(1), 0);
	obd_routes_failed(way(1), 0); /* one of many at once: the same failure */
	check_plan(r, 0, "2r1");
	uint64_t begun = obd_clock_ns();
	while (plan[0].bit != 1 && obd_clock_ns() - begun < 20 * OBD_SECOND_NS) {
		usleep(20000);
		obd_routes_plan_free(plan, planned);
		planned = obd_routes_plan(r, &registry, "http://reg.example/v2/a/b/blobs", "sha256:x", 0, plan);
	}
	check_plan(r, 0, "12r");
	obd_routes_take(way(1));
	struct obd_route trial = *way(1);
	check_plan(r, 0, "2r1");
	obd_routes_failed(&trial, 0);
	check_plan(r, 0, "2r1");
	obd_routes_good(&trial);
	check_plan(r, 0, "12r");
	obd_routes_plan_free(plan, planned);
	planned = 0;
	obd_routes_free(r);
}
END_TEST

TCase *route_cases(void)
{
	TCase *t = tcase_create("route");
	tcase_set_timeout(t, 60);
	tcase_add_loop_test(t, test_retry_after, 0, OBD_ARRAY_SIZE(retries));
	tcase_add_loop_test(t, test_url_life, 0, OBD_ARRAY_SIZE(lives));
	tcase_add_test(t, test_header_life);
	tcase_add_test(t, test_redirects);
	tcase_add_test(t, test_plans);
	tcase_add_test(t, test_standing);
	tcase_add_test(t, test_return);
	return t;
}
