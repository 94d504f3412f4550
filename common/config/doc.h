/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A configuration file as a tree, before any key is known: what YAML and JSON have in common. Private to this room.
 *
 * Strings in the tree have no control characters and at most OBD_OPT_STR_MAX bytes; the depth is at most
 * OBD_CONFIG_DEPTH_MAX. The readers see to that.
 */
#ifndef OBD_COMMON_CONFIG_DOC_H
#define OBD_COMMON_CONFIG_DOC_H

#include <stdbool.h>
#include <stddef.h>

#include "common/base/err.h"

enum obd_doc_kind {
	OBD_DOC_NULL,
	OBD_DOC_PLAIN, /* a scalar without quotes: number, true, false and, in YAML, a word */
	OBD_DOC_TEXT,  /* a scalar that is certainly a string */
	OBD_DOC_MAP,
	OBD_DOC_LIST,
};

struct obd_doc {
	enum obd_doc_kind kind;
	bool json;
	unsigned int line;	      /* 0: unknown */
	char *key;		      /* of a member of a map, else NULL */
	char *text;		      /* of PLAIN and TEXT */
	struct obd_doc *first, *last; /* children of MAP and LIST */
	struct obd_doc *next;	      /* sibling */
};

/* Both give 0 and a tree to free, or a negative errno and err "NAME:LINE: reason". An empty YAML file is a NULL node. */
int obd_doc_parse_yaml(const char *buf, size_t len, const char *name, struct obd_doc **out, struct obd_err *err);
int obd_doc_parse_json(const char *buf, size_t len, const char *name, struct obd_doc **out, struct obd_err *err);

/* NULL when there is no memory. */
struct obd_doc *obd_doc_new(enum obd_doc_kind kind, unsigned int line);

/* Gives the node a copy of a string. Returns 0, -EINVAL when the string is not acceptable (*why says so), or -ENOMEM. */
int obd_doc_copy(char **to, const char *text, size_t len, const char **why);

void obd_doc_append(struct obd_doc *parent, struct obd_doc *child);

/* NULL is allowed. */
void obd_doc_free(struct obd_doc *doc);

#endif
