/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "common/config/doc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/config/options.h"

struct obd_doc *obd_doc_new(enum obd_doc_kind kind, unsigned int line)
{
	struct obd_doc *d = calloc(1, sizeof *d);
	if (d) {
		d->kind = kind;
		d->line = line;
	}
	return d;
}

int obd_doc_copy(char **to, const char *text, size_t len, const char **why)
{
	*why = "no memory";
	if (len > OBD_OPT_STR_MAX) {
		*why = "a string is too long";
		return -EINVAL;
	}
	for (size_t i = 0; i < len; i++) {
		if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f) {
			*why = "a string has control characters or more than one line";
			return -EINVAL;
		}
	}
	*to = strndup(text, len);
	return *to ? 0 : -ENOMEM;
}

void obd_doc_append(struct obd_doc *parent, struct obd_doc *child)
{
	if (parent->last)
		parent->last->next = child;
	else
		parent->first = child;
	parent->last = child;
}

/* Recursion is bounded by the depth that the readers allow. */
void obd_doc_free(struct obd_doc *doc)
{
	if (!doc)
		return;
	for (struct obd_doc *c = doc->first, *next; c; c = next) {
		next = c->next;
		obd_doc_free(c);
	}
	free(doc->key);
	free(doc->text);
	free(doc);
}
