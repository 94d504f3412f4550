/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "common/config/value.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/base/util.h"
#include "common/config/url.h"

#define WORD_BYTES 32

static void *field(const struct obd_option *o, void *owner)
{
	return (char *)owner + o->offset;
}

static const void *cfield(const struct obd_option *o, const void *owner)
{
	return (const char *)owner + o->offset;
}

static const char *str(const struct obd_option *o, const void *owner)
{
	const char *s = *(char *const *)cfield(o, owner);
	return s ? s : "";
}

const struct obd_option *obd_option_find(const struct obd_option *table, uint32_t count, const char *name)
{
	for (uint32_t i = 0; i < count; i++)
		if (strcmp(table[i].name, name) == 0)
			return &table[i];
	return NULL;
}

int obd_option_set_default(const struct obd_option *o, void *owner)
{
	switch (o->type) {
	case OBD_OPT_BOOL:
		*(bool *)field(o, owner) = o->def;
		return 0;
	case OBD_OPT_U32:
	case OBD_OPT_ENUM:
		*(uint32_t *)field(o, owner) = o->def;
		return 0;
	case OBD_OPT_STR:
	case OBD_OPT_PATH:
		*(char **)field(o, owner) = strdup(o->def_text);
		return *(char **)field(o, owner) ? 0 : -ENOMEM;
	case OBD_OPT_LIST:
		*(struct obd_strings *)field(o, owner) = (struct obd_strings){0};
		return 0;
	}
	return -EINVAL;
}

/* "expected WHAT, got ..." */
static int mistyped(const struct obd_doc *node, const char *what, struct obd_err *err)
{
	switch (node->kind) {
	case OBD_DOC_MAP:
		return obd_err_set(err, EINVAL, "expected %s, got a section", what);
	case OBD_DOC_LIST:
		return obd_err_set(err, EINVAL, "expected %s, got a list", what);
	case OBD_DOC_TEXT:
		return obd_err_set(err, EINVAL, "expected %s, got the string \"%.64s\"", what, node->text);
	default:
		return obd_err_set(err, EINVAL, "expected %s, got %.64s", what, node->text);
	}
}

static int set_bool(const struct obd_doc *node, bool *to, struct obd_err *err)
{
	static const char *const yes[] = {"true", "yes", "on"}, *const no[] = {"false", "no", "off"};
	for (size_t i = 0; node->kind == OBD_DOC_PLAIN && i < OBD_ARRAY_SIZE(yes); i++) {
		bool is_yes = strcasecmp(node->text, yes[i]) == 0;
		if (is_yes || strcasecmp(node->text, no[i]) == 0) {
			*to = is_yes;
			return 0;
		}
	}
	return mistyped(node, "true or false", err);
}

static bool is_integer(const char *s)
{
	s += *s == '-';
	size_t n = strspn(s, "0123456789");
	return n && !s[n] && (n == 1 || *s != '0'); /* 010 means 8 to some readers of YAML */
}

static int set_u32(const struct obd_option *o, const struct obd_doc *node, uint32_t *to, struct obd_err *err)
{
	if (node->kind != OBD_DOC_PLAIN || !is_integer(node->text))
		return mistyped(node, "an integer", err);
	errno = 0;
	long long v = strtoll(node->text, NULL, 10);
	bool pow2 = o->flags & OBD_OPT_POW2;
	if (errno || v < (long long)o->min || v > (long long)o->max || (pow2 && !obd_is_pow2((uint64_t)v)))
		return obd_err_set(err, EINVAL, "%.64s is not %sin %u..%u%s%s", node->text, pow2 ? "a power of two " : "",
				   o->min, o->max, *o->unit ? " " : "", o->unit);
	*to = (uint32_t)v;
	return 0;
}

/* Copies the n-th of the words "a|b|c". */
static bool nth_word(const char *words, uint32_t n, char out[WORD_BYTES])
{
	while (n--) {
		words = strchr(words, '|');
		if (!words)
			return false;
		words++;
	}
	snprintf(out, WORD_BYTES, "%.*s", (int)strcspn(words, "|"), words);
	return true;
}

static bool is_string(const struct obd_doc *node)
{
	return node->kind == OBD_DOC_TEXT || (node->kind == OBD_DOC_PLAIN && !node->json);
}

static int set_enum(const struct obd_option *o, const struct obd_doc *node, uint32_t *to, struct obd_err *err)
{
	char word[WORD_BYTES];
	if (!is_string(node))
		return mistyped(node, o->unit, err);
	for (uint32_t i = 0; nth_word(o->unit, i, word); i++) {
		if (strcmp(node->text, word) == 0) {
			*to = i;
			return 0;
		}
	}
	return obd_err_set(err, EINVAL, "\"%.64s\" is none of %s", node->text, o->unit);
}

static int check_text(const struct obd_option *o, const char *text, struct obd_err *err)
{
	unsigned int forms =
		(o->flags & OBD_OPT_HOST ? OBD_URL_BARE : 0) | (o->flags & OBD_OPT_URL ? OBD_URL_HTTP | OBD_URL_HTTPS : 0);
	return forms && *text ? obd_url_check(text, forms, err) : 0;
}

static int set_str(const struct obd_option *o, const struct obd_doc *node, char **to, struct obd_err *err)
{
	bool path = o->type == OBD_OPT_PATH;
	if (!is_string(node))
		return mistyped(node, path ? "an absolute path" : "a string", err);
	size_t len = strlen(node->text);
	if (len < o->min || len > o->max)
		return obd_err_set(err, EINVAL, "%zu bytes long, not %u..%u", len, o->min, o->max);
	if (path && len && node->text[0] != '/')
		return mistyped(node, "an absolute path", err);
	if (check_text(o, node->text, err))
		return -EINVAL;
	char *copy = strdup(node->text);
	if (!copy)
		return obd_err_set(err, ENOMEM, "no memory");
	free(*to);
	*to = copy;
	return 0;
}

static void free_strings(struct obd_strings *s)
{
	for (uint32_t i = 0; i < s->count; i++)
		free(s->item[i]);
	free(s->item);
	*s = (struct obd_strings){0};
}

static int set_list(const struct obd_option *o, const struct obd_doc *node, struct obd_strings *to, struct obd_err *err)
{
	struct obd_strings s = {0};
	uint32_t n = 0;
	if (node->kind != OBD_DOC_LIST)
		return mistyped(node, "a list of strings", err);
	for (const struct obd_doc *c = node->first; c; c = c->next, n++) {
		if (n == o->max)
			return obd_err_set(err, EINVAL, "more than %u elements", o->max);
		if (!is_string(c) || !*c->text)
			return obd_err_set(err, EINVAL, "element %u is not a string, or empty", n);
		if (check_text(o, c->text, err))
			return -EINVAL;
	}
	s.item = calloc(n + 1, sizeof *s.item);
	for (const struct obd_doc *c = node->first; c && s.item; c = c->next) {
		s.item[s.count] = strdup(c->text);
		if (!s.item[s.count])
			break;
		s.count++;
	}
	if (!s.item || s.count < n) {
		free_strings(&s);
		return obd_err_set(err, ENOMEM, "no memory");
	}
	free_strings(to);
	*to = s;
	return 0;
}

int obd_option_set(const struct obd_option *o, void *owner, const struct obd_doc *node, struct obd_err *err)
{
	if (node->kind == OBD_DOC_NULL)
		return 0;
	switch (o->type) {
	case OBD_OPT_BOOL:
		return set_bool(node, field(o, owner), err);
	case OBD_OPT_U32:
		return set_u32(o, node, field(o, owner), err);
	case OBD_OPT_ENUM:
		return set_enum(o, node, field(o, owner), err);
	case OBD_OPT_STR:
	case OBD_OPT_PATH:
		return set_str(o, node, field(o, owner), err);
	case OBD_OPT_LIST:
		return set_list(o, node, field(o, owner), err);
	}
	return obd_err_set(err, EINVAL, "an option of no known type");
}

bool obd_option_is_default(const struct obd_option *o, const void *owner)
{
	switch (o->type) {
	case OBD_OPT_BOOL:
		return *(const bool *)cfield(o, owner) == (bool)o->def;
	case OBD_OPT_U32:
	case OBD_OPT_ENUM:
		return *(const uint32_t *)cfield(o, owner) == o->def;
	case OBD_OPT_STR:
	case OBD_OPT_PATH:
		return strcmp(str(o, owner), o->def_text) == 0;
	case OBD_OPT_LIST:
		return ((const struct obd_strings *)cfield(o, owner))->count == 0;
	}
	return true;
}

static bool same_strings(const struct obd_strings *a, const struct obd_strings *b)
{
	if (a->count != b->count)
		return false;
	for (uint32_t i = 0; i < a->count; i++)
		if (strcmp(a->item[i], b->item[i]) != 0)
			return false;
	return true;
}

bool obd_option_equal(const struct obd_option *o, const void *a, const void *b)
{
	switch (o->type) {
	case OBD_OPT_BOOL:
		return *(const bool *)cfield(o, a) == *(const bool *)cfield(o, b);
	case OBD_OPT_U32:
	case OBD_OPT_ENUM:
		return *(const uint32_t *)cfield(o, a) == *(const uint32_t *)cfield(o, b);
	case OBD_OPT_STR:
	case OBD_OPT_PATH:
		return strcmp(str(o, a), str(o, b)) == 0;
	case OBD_OPT_LIST:
		return same_strings(cfield(o, a), cfield(o, b));
	}
	return true;
}

void obd_option_free(const struct obd_option *o, void *owner)
{
	if (o->type == OBD_OPT_STR || o->type == OBD_OPT_PATH) {
		free(*(char **)field(o, owner));
		*(char **)field(o, owner) = NULL;
	} else if (o->type == OBD_OPT_LIST) {
		free_strings(field(o, owner));
	}
}

/* Decodes one character of valid UTF-8 and moves *s behind it. */
static unsigned int utf8_next(const unsigned char **s)
{
	const unsigned char *p = *s;
	unsigned int more = p[0] >= 0xf0 ? 3 : p[0] >= 0xe0 ? 2 : p[0] >= 0xc0 ? 1 : 0;
	unsigned int c = more ? p[0] & (0x3fu >> more) : p[0];
	for (p++; more && (*p & 0xc0) == 0x80; more--, p++)
		c = c << 6 | (*p & 0x3fu);
	*s = p;
	return c;
}

/* A double-quoted YAML string. All but ASCII is escaped: some characters fold like line ends or must not stand raw. */
static void print_string(FILE *f, const char *text)
{
	const unsigned char *p = (const unsigned char *)text;
	fputc('"', f);
	while (*p) {
		unsigned int c = utf8_next(&p);
		if (c == '"' || c == '\\')
			fprintf(f, "\\%c", c);
		else if (c < 0x7f)
			fputc((int)c, f);
		else
			fprintf(f, "\\U%08X", c);
	}
	fputc('"', f);
}

static void print_list(FILE *f, const struct obd_strings *s)
{
	fputc('[', f);
	for (uint32_t i = 0; i < s->count; i++) {
		fputs(i ? ", " : "", f);
		print_string(f, s->item[i]);
	}
	fputc(']', f);
}

void obd_option_print(FILE *f, const struct obd_option *o, const void *owner)
{
	char word[WORD_BYTES];
	switch (o->type) {
	case OBD_OPT_BOOL:
		fputs(*(const bool *)cfield(o, owner) ? "true" : "false", f);
		break;
	case OBD_OPT_U32:
		fprintf(f, "%u", *(const uint32_t *)cfield(o, owner));
		break;
	case OBD_OPT_ENUM:
		if (nth_word(o->unit, *(const uint32_t *)cfield(o, owner), word))
			fputs(word, f);
		break;
	case OBD_OPT_STR:
	case OBD_OPT_PATH:
		print_string(f, str(o, owner));
		break;
	case OBD_OPT_LIST:
		print_list(f, cfield(o, owner));
		break;
	}
}
