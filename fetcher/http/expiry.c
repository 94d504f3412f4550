/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fetcher/http/expiry.h"

#include <curl/curl.h>
#include <stdbool.h>
#include <string.h>
#include <strings.h>

#include "common/base/util.h"

#define DATE_CHARS 64
#define SECONDS_MAX INT64_C(253402300799) /* the end of the year 9999 */

/* --- dates ---------------------------------------------------------------------------------------------------------------- */

int64_t obd_http_date(const char *text, size_t n)
{
	char copy[DATE_CHARS];
	if (n == 0 || n >= sizeof copy || memchr(text, '\0', n))
		return 0;
	memcpy(copy, text, n);
	copy[n] = '\0';
	int64_t t = (int64_t)curl_getdate(copy, NULL);
	return t > 0 && t <= SECONDS_MAX ? t : 0;
}

/* Digits at the front of a text of n characters; a fraction behind them is left out. False: there are none, or too many. */
static bool take_seconds(const char *text, size_t n, int64_t *out)
{
	int64_t v = 0;
	size_t i = 0;
	for (; i < n && text[i] >= '0' && text[i] <= '9'; i++) {
		v = v * 10 + (text[i] - '0');
		if (v > SECONDS_MAX)
			return false;
	}
	*out = v;
	return i > 0 && (i == n || text[i] == '.');
}

uint32_t obd_http_retry_after(const char *text, size_t n, int64_t now_s)
{
	int64_t s;
	if (!take_seconds(text, n, &s)) {
		int64_t date = obd_http_date(text, n);
		s = date > now_s ? date - now_s : 0;
	}
	return (uint32_t)obd_min_u64((uint64_t)s, OBD_HTTP_RETRY_MAX_S);
}

/* --- addresses ------------------------------------------------------------------------------------------------------------ */

/* Days since 1970 of a date of the Gregorian calendar. */
static int64_t days_of(int64_t y, int64_t m, int64_t d)
{
	static const int before[12] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};
	int64_t leaps = (m > 2 ? y : y - 1);
	return (y - 1970) * 365 + before[m - 1] + d - 1 + leaps / 4 - leaps / 100 + leaps / 400 - 477;
}

/* YYYYMMDDTHHMMSSZ, with or without "-" and ":" (as such or as %3A) between the numbers. False: it is none. */
static bool take_stamp(const char *text, size_t n, int64_t *out)
{
	static const int digits[6] = {4, 2, 2, 2, 2, 2};
	int64_t v[6];
	size_t at = 0;
	for (int part = 0; part < 6; part++) {
		v[part] = 0;
		for (int i = 0; i < digits[part]; i++, at++) {
			if (at >= n || text[at] < '0' || text[at] > '9')
				return false;
			v[part] = v[part] * 10 + (text[at] - '0');
		}
		if (part < 5 && n - at >= 3 && strncasecmp(text + at, "%3A", 3) == 0)
			at += 3;
		else if (part < 5 && at < n && strchr("-:T", text[at]) && text[at])
			at++;
	}
	if (at >= n || text[at] != 'Z' || v[0] < 1970 || v[1] < 1 || v[1] > 12 || v[2] < 1 || v[2] > 31 || v[3] > 23 ||
	    v[4] > 59 || v[5] > 60)
		return false;
	*out = days_of(v[0], v[1], v[2]) * 86400 + v[3] * 3600 + v[4] * 60 + v[5];
	return true;
}

/* The value of a parameter; NULL: it is not there. */
static const char *find_parameter(const char *query, const char *name, size_t *n)
{
	size_t len = strlen(name);
	for (const char *p = query; *p;) {
		size_t whole = strcspn(p, "&;#");
		if (whole > len && p[len] == '=' && strncasecmp(p, name, len) == 0) {
			*n = whole - len - 1;
			return p + len + 1;
		}
		p += whole;
		if (*p == '#')
			return NULL;
		p += *p != '\0';
	}
	return NULL;
}

/* A time of signing and so many seconds from then on. */
static bool signed_end(const char *query, const char *date_name, const char *life_name, int64_t *end)
{
	size_t date_n = 0, life_n = 0;
	const char *date = find_parameter(query, date_name, &date_n), *life = find_parameter(query, life_name, &life_n);
	int64_t from, for_s;
	if (!date || !life || !take_stamp(date, date_n, &from) || !take_seconds(life, life_n, &for_s))
		return false;
	*end = from + for_s;
	return true;
}

static bool given_end(const char *query, const char *name, int64_t *end)
{
	size_t n = 0;
	const char *value = find_parameter(query, name, &n);
	return value && (take_seconds(value, n, end) || take_stamp(value, n, end));
}

int64_t obd_http_url_life(const char *url, int64_t now_s)
{
	static const char *const pairs[][2] = {{"X-Amz-Date", "X-Amz-Expires"}, {"X-Goog-Date", "X-Goog-Expires"}};
	static const char *const ends[] = {"Expires", "exp", "se"};
	const char *query = strchr(url, '?');
	int64_t end, earliest = INT64_MAX;
	if (!query)
		return OBD_HTTP_LIFE_UNKNOWN;
	query++;
	for (size_t i = 0; i < OBD_ARRAY_SIZE(pairs); i++)
		if (signed_end(query, pairs[i][0], pairs[i][1], &end) && end < earliest)
			earliest = end;
	for (size_t i = 0; i < OBD_ARRAY_SIZE(ends); i++)
		if (given_end(query, ends[i], &end) && end < earliest)
			earliest = end;
	return earliest == INT64_MAX ? OBD_HTTP_LIFE_UNKNOWN : earliest - now_s;
}
