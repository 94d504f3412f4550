/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "indexer/pages.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#define PER_CHUNK (OBD_PAGES_CHUNK_BYTES / OBD_PAGES_PAGE_BYTES)

int obd_pages_init(struct obd_pages *p, uint64_t bytes, const struct obd_pages_source *source)
{
	uint64_t chunks = bytes / OBD_PAGES_CHUNK_BYTES;
	*p = (struct obd_pages){.source = *source, .npages = chunks * PER_CHUNK};
	obd_list_init(&p->empty);
	obd_list_init(&p->partial);
	p->page = calloc(p->npages ? p->npages : 1, sizeof(*p->page));
	p->chunk = calloc(chunks ? chunks : 1, sizeof(*p->chunk));
	if (!p->page || !p->chunk) {
		obd_pages_done(p);
		return -ENOMEM;
	}
	for (uint64_t i = 0; i < p->npages; i++)
		obd_list_init(&p->page[i].link);
	return 0;
}

void obd_pages_done(struct obd_pages *p)
{
	free(p->page);
	free(p->chunk);
	p->page = NULL;
	p->chunk = NULL;
	p->npages = 0;
}

static uint64_t number(const struct obd_pages *p, const struct obd_page *page)
{
	return (uint64_t)(page - p->page);
}

static struct obd_chunk *chunk_of(struct obd_pages *p, const struct obd_page *page)
{
	return &p->chunk[number(p, page) / PER_CHUNK];
}

static void adopt_chunk(struct obd_pages *p, uint64_t off)
{
	uint64_t c = off / OBD_PAGES_CHUNK_BYTES;
	assert(off % OBD_PAGES_CHUNK_BYTES == 0 && c < p->npages / PER_CHUNK && !p->chunk[c].ours);
	p->chunk[c].ours = true;
	for (uint64_t i = 0; i < PER_CHUNK; i++)
		obd_list_push_back(&p->empty, &p->page[c * PER_CHUNK + i].link);
}

static void drop_chunk(struct obd_pages *p, uint64_t c)
{
	for (uint64_t i = 0; i < PER_CHUNK; i++)
		obd_list_remove(&p->page[c * PER_CHUNK + i].link);
	p->chunk[c].ours = false;
	p->source.put(p->source.arg, c * OBD_PAGES_CHUNK_BYTES);
}

/* Sets the page's mask and puts it where it belongs. */
static void set_used(struct obd_pages *p, struct obd_page *page, uint64_t used)
{
	struct obd_chunk *c = chunk_of(p, page);
	c->used_pages += (used != 0) - (page->used != 0);
	page->used = used;
	obd_list_remove(&page->link);
	if (!used)
		obd_list_push_front(&p->empty, &page->link);
	else if (used != UINT64_MAX)
		obd_list_push_front(&p->partial, &page->link);
	if (!c->used_pages)
		drop_chunk(p, (uint64_t)(c - p->chunk));
}

static uint64_t mask_of(uint64_t off, uint64_t bytes)
{
	if (bytes == OBD_PAGES_PAGE_BYTES)
		return UINT64_MAX;
	return UINT64_C(1) << off % OBD_PAGES_PAGE_BYTES / OBD_PAGES_UNIT_BYTES;
}

int obd_pages_alloc(struct obd_pages *p, uint64_t bytes, uint64_t *off)
{
	assert(bytes == OBD_PAGES_PAGE_BYTES || bytes == OBD_PAGES_UNIT_BYTES);
	struct obd_list *from = bytes == OBD_PAGES_UNIT_BYTES && !obd_list_empty(&p->partial) ? &p->partial : &p->empty;
	if (obd_list_empty(from)) {
		uint64_t chunk;
		int rc = p->source.get(p->source.arg, &chunk);
		if (rc)
			return rc;
		adopt_chunk(p, chunk);
	}
	struct obd_page *page = OBD_LIST_ENTRY(from->next, struct obd_page, link);
	*off = number(p, page) * OBD_PAGES_PAGE_BYTES;
	if (bytes == OBD_PAGES_UNIT_BYTES)
		*off += (uint64_t)__builtin_ctzll(~page->used) * OBD_PAGES_UNIT_BYTES;
	set_used(p, page, page->used | mask_of(*off, bytes));
	return 0;
}

void obd_pages_free(struct obd_pages *p, uint64_t off, uint64_t bytes)
{
	struct obd_page *page = &p->page[off / OBD_PAGES_PAGE_BYTES];
	uint64_t mask = mask_of(off, bytes);
	assert(off / OBD_PAGES_PAGE_BYTES < p->npages && (page->used & mask) == mask);
	set_used(p, page, page->used & ~mask);
}

int obd_pages_mark(struct obd_pages *p, uint64_t off, uint64_t bytes)
{
	bool fits = (bytes == OBD_PAGES_PAGE_BYTES || bytes == OBD_PAGES_UNIT_BYTES) && off % bytes == 0;
	if (!fits || off / OBD_PAGES_PAGE_BYTES >= p->npages)
		return -EINVAL;
	struct obd_page *page = &p->page[off / OBD_PAGES_PAGE_BYTES];
	uint64_t start = off - off % OBD_PAGES_CHUNK_BYTES;
	if (!chunk_of(p, page)->ours) {
		int rc = p->source.take(p->source.arg, start);
		if (rc)
			return rc;
		adopt_chunk(p, start);
	}
	if (page->used & mask_of(off, bytes))
		return -EINVAL;
	set_used(p, page, page->used | mask_of(off, bytes));
	return 0;
}
