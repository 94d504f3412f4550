/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * YAML, the part of it that a configuration needs: one document of maps, lists and scalars. Anchors, aliases and tags are
 * refused, so a small file cannot stand for a large tree.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "common/base/util.h"
#include "common/config/config.h"
#include "common/config/doc.h"

struct reader {
	yaml_parser_t parser;
	const char *name;
	struct obd_err *err;
};

static int read_value(struct reader *r, const yaml_event_t *ev, unsigned int depth, struct obd_doc **out);

static unsigned int line_of(const yaml_mark_t *mark)
{
	return (unsigned int)mark->line + 1;
}

static int fail(const struct reader *r, int code, unsigned int line, const char *why)
{
	return obd_err_set(r->err, code, "%s:%u: %s", r->name, line, why);
}

static int next_event(struct reader *r, yaml_event_t *ev)
{
	if (yaml_parser_parse(&r->parser, ev))
		return 0;
	if (r->parser.error == YAML_MEMORY_ERROR)
		return fail(r, ENOMEM, 1, "no memory");
	const char *problem = r->parser.problem ? r->parser.problem : "not valid YAML";
	return fail(r, EINVAL, line_of(r->parser.problem_mark.line ? &r->parser.problem_mark : &r->parser.mark), problem);
}

static bool is_null_word(const char *s)
{
	return !*s || strcmp(s, "~") == 0 || strcmp(s, "null") == 0 || strcmp(s, "Null") == 0 || strcmp(s, "NULL") == 0;
}

static int copy_scalar(struct reader *r, const yaml_event_t *ev, char **to)
{
	const char *why;
	int rc = obd_doc_copy(to, (const char *)ev->data.scalar.value, ev->data.scalar.length, &why);
	return rc ? fail(r, -rc, line_of(&ev->start_mark), why) : 0;
}

static int read_scalar(struct reader *r, const yaml_event_t *ev, struct obd_doc *d)
{
	int rc = copy_scalar(r, ev, &d->text);
	if (rc)
		return rc;
	if (ev->data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
		d->kind = OBD_DOC_TEXT;
	else if (is_null_word(d->text))
		d->kind = OBD_DOC_NULL;
	return 0;
}

/* Reads the value that starts with the next event into a new child of parent, whose key it takes over. */
static int read_child(struct reader *r, struct obd_doc *parent, char *key, unsigned int line, unsigned int depth)
{
	yaml_event_t ev;
	struct obd_doc *child = NULL;
	int rc = next_event(r, &ev);
	if (rc == 0) {
		rc = read_value(r, &ev, depth, &child);
		yaml_event_delete(&ev);
	}
	if (rc) {
		free(key);
		return rc;
	}
	child->key = key;
	child->line = line; /* of the key: where a reader looks first */
	obd_doc_append(parent, child);
	return 0;
}

static int read_map(struct reader *r, struct obd_doc *d, unsigned int depth)
{
	for (;;) {
		yaml_event_t ev;
		char *key = NULL;
		int rc = next_event(r, &ev);
		if (rc)
			return rc;
		bool end = ev.type == YAML_MAPPING_END_EVENT;
		unsigned int line = line_of(&ev.start_mark);
		if (!end && (ev.type != YAML_SCALAR_EVENT || ev.data.scalar.anchor || ev.data.scalar.tag))
			rc = fail(r, EINVAL, line, "a key must be a plain word");
		else if (!end)
			rc = copy_scalar(r, &ev, &key);
		yaml_event_delete(&ev);
		if (rc || end)
			return rc;
		rc = read_child(r, d, key, line, depth);
		if (rc)
			return rc;
	}
}

static int read_list(struct reader *r, struct obd_doc *d, unsigned int depth)
{
	for (;;) {
		yaml_event_t ev;
		struct obd_doc *child = NULL;
		int rc = next_event(r, &ev);
		if (rc)
			return rc;
		bool end = ev.type == YAML_SEQUENCE_END_EVENT;
		if (!end)
			rc = read_value(r, &ev, depth, &child);
		yaml_event_delete(&ev);
		if (rc || end)
			return rc;
		obd_doc_append(d, child);
	}
}

/* Refuses what makes one part of a file stand for another. */
static int check_event(const struct reader *r, const yaml_event_t *ev, unsigned int depth)
{
	const yaml_char_t *anchor = NULL, *tag = NULL;
	unsigned int line = line_of(&ev->start_mark);
	if (ev->type == YAML_ALIAS_EVENT)
		return fail(r, EINVAL, line, "aliases are not allowed");
	if (ev->type == YAML_SCALAR_EVENT) {
		anchor = ev->data.scalar.anchor;
		tag = ev->data.scalar.tag;
	} else if (ev->type == YAML_MAPPING_START_EVENT) {
		anchor = ev->data.mapping_start.anchor;
		tag = ev->data.mapping_start.tag;
	} else if (ev->type == YAML_SEQUENCE_START_EVENT) {
		anchor = ev->data.sequence_start.anchor;
		tag = ev->data.sequence_start.tag;
	} else {
		return fail(r, EINVAL, line, "a value is missing");
	}
	if (anchor || tag)
		return fail(r, EINVAL, line, "anchors and tags are not allowed");
	return depth > OBD_CONFIG_DEPTH_MAX ? fail(r, EINVAL, line, "nested too deep") : 0;
}

static int read_value(struct reader *r, const yaml_event_t *ev, unsigned int depth, struct obd_doc **out)
{
	int rc = check_event(r, ev, depth);
	if (rc)
		return rc;
	struct obd_doc *d = obd_doc_new(OBD_DOC_PLAIN, line_of(&ev->start_mark));
	if (!d)
		return fail(r, ENOMEM, line_of(&ev->start_mark), "no memory");
	if (ev->type == YAML_MAPPING_START_EVENT) {
		d->kind = OBD_DOC_MAP;
		rc = read_map(r, d, depth + 1);
	} else if (ev->type == YAML_SEQUENCE_START_EVENT) {
		d->kind = OBD_DOC_LIST;
		rc = read_list(r, d, depth + 1);
	} else {
		rc = read_scalar(r, ev, d);
	}
	if (rc) {
		obd_doc_free(d);
		return rc;
	}
	*out = d;
	return 0;
}

/* Stream start, at most one document, stream end. */
static int read_stream(struct reader *r, struct obd_doc **out)
{
	struct obd_doc *root = NULL;
	bool end = false;
	int rc = 0;
	while (rc == 0 && !end) {
		yaml_event_t ev;
		rc = next_event(r, &ev);
		if (rc)
			break;
		end = ev.type == YAML_STREAM_END_EVENT;
		if (ev.type == YAML_DOCUMENT_START_EVENT && root)
			rc = fail(r, EINVAL, line_of(&ev.start_mark), "more than one document");
		else if (ev.type != YAML_STREAM_START_EVENT && ev.type != YAML_DOCUMENT_START_EVENT &&
			 ev.type != YAML_DOCUMENT_END_EVENT && !end)
			rc = read_value(r, &ev, 1, &root);
		yaml_event_delete(&ev);
	}
	if (rc == 0 && !root && !(root = obd_doc_new(OBD_DOC_NULL, 1)))
		rc = fail(r, ENOMEM, 1, "no memory");
	if (rc)
		obd_doc_free(root);
	else
		*out = root;
	return rc;
}

int obd_doc_parse_yaml(const char *buf, size_t len, const char *name, struct obd_doc **out, struct obd_err *err)
{
	struct reader r = {.name = name, .err = err};
	if (!yaml_parser_initialize(&r.parser))
		return fail(&r, ENOMEM, 1, "no memory");
	yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(&r.parser, (const unsigned char *)buf, len);
	int rc = read_stream(&r, out);
	yaml_parser_delete(&r.parser);
	return rc;
}
