/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A circular doubly linked list with the links inside the element. Process memory only, never in the segment. */
#ifndef OBD_COMMON_BASE_LIST_H
#define OBD_COMMON_BASE_LIST_H

#include <stdbool.h>

#include "common/base/util.h"

struct obd_list {
	struct obd_list *next;
	struct obd_list *prev;
};

static inline void obd_list_init(struct obd_list *l)
{
	l->next = l->prev = l;
}

static inline bool obd_list_empty(const struct obd_list *l)
{
	return l->next == l;
}

static inline void obd_list_insert_after(struct obd_list *at, struct obd_list *e)
{
	e->next = at->next;
	e->prev = at;
	at->next->prev = e;
	at->next = e;
}

static inline void obd_list_push_back(struct obd_list *head, struct obd_list *e)
{
	obd_list_insert_after(head->prev, e);
}

static inline void obd_list_push_front(struct obd_list *head, struct obd_list *e)
{
	obd_list_insert_after(head, e);
}

/* Leaves e as an empty list, so that removing it twice is harmless. */
static inline void obd_list_remove(struct obd_list *e)
{
	e->next->prev = e->prev;
	e->prev->next = e->next;
	obd_list_init(e);
}

#define OBD_LIST_ENTRY(ptr, type, member) OBD_CONTAINER_OF(ptr, type, member)
#define OBD_LIST_FOREACH(it, head) for (struct obd_list *it = (head)->next; it != (head); it = it->next)
#define OBD_LIST_FOREACH_SAFE(it, head) \
	for (struct obd_list *it = (head)->next, *it##_next = it->next; it != (head); it = it##_next, it##_next = it->next)

#endif
