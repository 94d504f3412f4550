/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/config/config.h"
#include "common/config/doc.h"
#include "common/config/json.h"

struct reader {
	const char *name;
	struct obd_err *err;
};

static int convert(const struct reader *r, const json_t *v, unsigned int depth, struct obd_doc **out);

static int fail(const struct reader *r, int rc, const char *why)
{
	return obd_err_set(r->err, -rc, "%s: %s", r->name, why);
}

static enum obd_doc_kind kind_of(const json_t *v)
{
	switch (json_typeof(v)) {
	case JSON_OBJECT:
		return OBD_DOC_MAP;
	case JSON_ARRAY:
		return OBD_DOC_LIST;
	case JSON_STRING:
		return OBD_DOC_TEXT;
	case JSON_NULL:
		return OBD_DOC_NULL;
	default:
		return OBD_DOC_PLAIN;
	}
}

static int convert_scalar(const struct reader *r, const json_t *v, struct obd_doc *d)
{
	char number[64];
	const char *text = number, *why = "no memory";
	if (json_is_string(v))
		text = json_string_value(v);
	else if (json_is_boolean(v))
		text = json_is_true(v) ? "true" : "false";
	else if (json_is_integer(v))
		snprintf(number, sizeof number, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
	else
		snprintf(number, sizeof number, "%#.6g", json_real_value(v));
	int rc = obd_doc_copy(&d->text, text, json_is_string(v) ? json_string_length(v) : strlen(text), &why);
	return rc ? fail(r, rc, why) : 0;
}

static int convert_member(const struct reader *r, const char *key, const json_t *v, unsigned int depth, struct obd_doc *parent)
{
	struct obd_doc *child;
	const char *why;
	int rc = convert(r, v, depth, &child);
	if (rc)
		return rc;
	obd_doc_append(parent, child);
	rc = key ? obd_doc_copy(&child->key, key, strlen(key), &why) : 0;
	return rc ? fail(r, rc, why) : 0;
}

static int convert_children(const struct reader *r, const json_t *v, unsigned int depth, struct obd_doc *d)
{
	const char *key;
	json_t *child;
	size_t i;
	int rc = 0;
	if (d->kind == OBD_DOC_LIST) {
		json_array_foreach(v, i, child)
		{
			rc = convert_member(r, NULL, child, depth, d);
			if (rc)
				return rc;
		}
		return 0;
	}
	json_object_foreach((json_t *)v, key, child)
	{
		rc = convert_member(r, key, child, depth, d);
		if (rc)
			return rc;
	}
	return 0;
}

static int convert(const struct reader *r, const json_t *v, unsigned int depth, struct obd_doc **out)
{
	if (depth > OBD_CONFIG_DEPTH_MAX)
		return fail(r, -EINVAL, "nested too deep");
	struct obd_doc *d = obd_doc_new(kind_of(v), 0);
	if (!d)
		return fail(r, -ENOMEM, "no memory");
	d->json = true;
	int rc = 0;
	if (d->kind == OBD_DOC_MAP || d->kind == OBD_DOC_LIST)
		rc = convert_children(r, v, depth + 1, d);
	else if (d->kind != OBD_DOC_NULL)
		rc = convert_scalar(r, v, d);
	if (rc) {
		obd_doc_free(d);
		return rc;
	}
	*out = d;
	return 0;
}

int obd_doc_parse_json(const char *buf, size_t len, const char *name, struct obd_doc **out, struct obd_err *err)
{
	const struct reader r = {.name = name, .err = err};
	json_t *root;
	int rc = obd_json_parse(buf, len, name, &root, err);
	if (rc)
		return rc;
	rc = convert(&r, root, 1, out);
	json_decref(root);
	return rc;
}
