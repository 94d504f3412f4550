/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fetcher/http/range.h"

#include <errno.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "fetcher/http/expiry.h"

struct text {
	const char *at;
	const char *end;
};

static void skip_space(struct text *t)
{
	while (t->at < t->end && (*t->at == ' ' || *t->at == '\t'))
		t->at++;
}

static bool take_number(struct text *t, uint64_t *out)
{
	const char *from = t->at;
	uint64_t v = 0;
	for (; t->at < t->end && *t->at >= '0' && *t->at <= '9'; t->at++)
		if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, (uint64_t)(*t->at - '0'), &v))
			return false;
	*out = v;
	return t->at > from;
}

static bool take_char(struct text *t, char c)
{
	if (t->at == t->end || *t->at != c)
		return false;
	t->at++;
	return true;
}

static bool take_word(struct text *t, const char *word)
{
	size_t n = strlen(word);
	if ((size_t)(t->end - t->at) < n || strncasecmp(t->at, word, n) != 0)
		return false;
	t->at += n;
	return true;
}

static bool at_end(struct text *t)
{
	skip_space(t);
	return t->at == t->end;
}

/* bytes FIRST-LAST/TOTAL, TOTAL may be an asterisk. */
static bool parse_range(struct text *t, struct obd_http_answer *a)
{
	if (!take_word(t, "bytes"))
		return false;
	skip_space(t);
	if (!take_number(t, &a->first) || !take_char(t, '-') || !take_number(t, &a->last) || !take_char(t, '/'))
		return false;
	a->has_total = !take_char(t, '*');
	if (a->has_total && !take_number(t, &a->total))
		return false;
	return at_end(t) && a->first <= a->last && (!a->has_total || a->last < a->total);
}

static void note_range(struct text *t, struct obd_http_answer *a)
{
	if (a->has_range || !parse_range(t, a))
		a->bad_header = true;
	a->has_range = true;
}

static void note_length(struct text *t, struct obd_http_answer *a)
{
	uint64_t v;
	if (!take_number(t, &v) || !at_end(t) || (a->has_length && v != a->length))
		a->bad_header = true;
	else
		a->length = v;
	a->has_length = true;
}

/* no-store, no-cache, max-age=N among directives with commas between them. */
static void note_cache_control(struct text *t, struct obd_http_answer *a)
{
	while (t->at < t->end) {
		uint64_t v;
		skip_space(t);
		if (take_word(t, "no-store") || take_word(t, "no-cache")) {
			a->has_max_age = true;
			a->max_age_s = 0;
			return;
		}
		if (take_word(t, "max-age=") && take_number(t, &v)) {
			a->has_max_age = true;
			a->max_age_s = v > UINT32_MAX ? UINT32_MAX : (uint32_t)v;
		}
		const char *comma = memchr(t->at, ',', (size_t)(t->end - t->at));
		t->at = comma ? comma + 1 : t->end;
	}
}

static void note_times(struct text *name, struct text *t, struct obd_http_answer *a)
{
	size_t n = (size_t)(t->end - t->at);
	if (take_word(name, "retry-after") && at_end(name))
		a->retry_s = obd_http_retry_after(t->at, n, a->date ? a->date : (int64_t)time(NULL));
	else if (take_word(name, "expires") && at_end(name))
		a->expires = obd_http_date(t->at, n);
	else if (take_word(name, "date") && at_end(name))
		a->date = obd_http_date(t->at, n);
	else if (take_word(name, "cache-control") && at_end(name))
		note_cache_control(t, a);
}

int64_t obd_http_answer_life(const struct obd_http_answer *a)
{
	if (a->has_max_age)
		return a->max_age_s;
	if (a->expires)
		return a->expires - (a->date ? a->date : (int64_t)time(NULL));
	return OBD_HTTP_LIFE_UNKNOWN;
}

void obd_http_answer_line(struct obd_http_answer *a, const char *line, size_t n)
{
	struct text t = {line, line + n};
	while (t.end > t.at && (t.end[-1] == '\r' || t.end[-1] == '\n'))
		t.end--;
	if (take_word(&t, "HTTP/")) {
		memset(a, 0, sizeof *a);
		return;
	}
	const char *colon = memchr(t.at, ':', (size_t)(t.end - t.at));
	if (!colon)
		return;
	struct text name = {t.at, colon};
	t.at = colon + 1;
	skip_space(&t);
	if (take_word(&name, "content-range") && at_end(&name))
		note_range(&t, a);
	else if (take_word(&name, "content-length") && at_end(&name))
		note_length(&t, a);
	else if (take_word(&name, "content-encoding") && at_end(&name))
		a->encoded = a->encoded || !(at_end(&t) || (take_word(&t, "identity") && at_end(&t)));
	else
		note_times(&name, &t, a);
}

static struct obd_http_verdict refuse(int err, bool again, const char *what)
{
	return (struct obd_http_verdict){.err = err, .again = again, .what = what};
}

static struct obd_http_verdict judge_partial(const struct obd_http_answer *a, uint64_t start, uint64_t end, uint64_t blob_bytes)
{
	if (!a->has_range)
		return refuse(EAGAIN, true, "206 without Content-Range");
	if (a->first != start || a->last != end - 1)
		return refuse(EAGAIN, true, "Content-Range is another range");
	if (a->has_total && blob_bytes && a->total != blob_bytes)
		return refuse(EMSGSIZE, true, "the blob has another size than the image says");
	if (a->has_length && a->length != end - start)
		return refuse(EAGAIN, false, "Content-Length is another length");
	return (struct obd_http_verdict){.what = ""};
}

static struct obd_http_verdict judge_whole(const struct obd_http_answer *a, uint64_t start, uint64_t end, uint64_t blob_bytes)
{
	if (start > OBD_HTTP_DISCARD_MAX)
		return refuse(EAGAIN, true, "the server ignores ranges");
	if (a->has_length && blob_bytes && a->length != blob_bytes)
		return refuse(EMSGSIZE, true, "the blob has another size than the image says");
	if (a->has_length && a->length < end)
		return refuse(EAGAIN, false, "the body is too short");
	return (struct obd_http_verdict){.what = "", .skip = start};
}

static struct obd_http_verdict judge_status(long status)
{
	if (status == 404 || status == 410)
		return refuse(ENOENT, false, "");
	if (status == 416)
		return refuse(EMSGSIZE, true, "the blob is shorter than the image says");
	if (status == 401)
		return refuse(EACCES, false, "authentication required");
	if (status == 403)
		return refuse(EACCES, false, "");
	if (status == 408 || status == 429 || status >= 500)
		return refuse(EAGAIN, false, "");
	return refuse(EAGAIN, false, "");
}

struct obd_http_verdict obd_http_judge(const struct obd_http_answer *a, long status, uint64_t start, uint64_t end,
				       uint64_t blob_bytes)
{
	if (status != 200 && status != 206)
		return judge_status(status);
	if (a->encoded)
		return refuse(EAGAIN, true, "the body has a Content-Encoding");
	if (a->bad_header)
		return refuse(EAGAIN, true, "a header that cannot be read");
	if (status == 206)
		return judge_partial(a, start, end, blob_bytes);
	return judge_whole(a, start, end, blob_bytes);
}
