/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The record of what tgtd was told: the requests that made what it has, in their order, less those that were undone. Sent again
 * to a fresh tgtd they make the same targets, LUNs, names, serial numbers, accounts and bindings.
 *
 *   target new            begins a target; whatever the record had of that tid is gone
 *   target delete         takes along everything of that tid
 *   logicalunit new, delete   the same for one LUN
 *   bind, portal new      added once; the unbind or delete with the same text takes it away
 *   account new           replaces that user; account delete takes along its bindings
 *   update                added; an older update of the same object that it overrules entirely is gone
 *   anything else         is not recorded
 *
 * On disk it is a text, one request per line, in DIR/tgtd.record (mode 0600: accounts have passwords); a last line counts and
 * sums it up. It is written beside and renamed, after fsync, and then the directory is synced: there is always one whole
 * record.
 */
#ifndef OBD_SUPERVISOR_RECORD_H
#define OBD_SUPERVISOR_RECORD_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/list.h"
#include "supervisor/tgtadm.h"

#define OBD_RECORD_NAME "tgtd.record"
#define OBD_RECORD_ENTRIES_MAX 65536

struct obd_record_entry {
	struct obd_list link;
	struct obd_tgtadm_head head; /* bytes counts the text and its NUL */
	char *text;		     /* NUL-terminated; "" when the request has none */
	/* For who sends them again: */
	bool applied;	   /* this tgtd has it */
	bool complained;   /* it was refused, and that was logged */
	uint32_t deaths;   /* of tgtds that died of it */
	uint64_t retry_ns; /* not before */
	uint64_t backoff_ns;
};

struct obd_record {
	struct obd_list entries;
	uint32_t count;
};

void obd_record_init(struct obd_record *r);
void obd_record_clear(struct obd_record *r);

/* Would a request of this kind change the record? */
bool obd_record_is_change(const struct obd_tgtadm_head *head);

/* A request that tgtd has carried out. text is NUL-terminated. Returns 0, -ENOMEM, or -ENOSPC when the record is full. */
int obd_record_note(struct obd_record *r, const struct obd_tgtadm_head *head, const char *text);

/* The entry that makes this LUN, or NULL. */
struct obd_record_entry *obd_record_lun(const struct obd_record *r, int32_t tid, uint64_t lun);

/* The value behind "key=" in an entry's text, into value[size] (cut if need be); false: there is none. */
bool obd_record_value(const struct obd_record_entry *e, const char *key, char *value, size_t size);

/* Writes the record into dir. Blocks for the disk. 0, or a negative errno with a line. */
int obd_record_save(const struct obd_record *r, const char *dir, struct obd_err *err);

/* Reads it into an empty record. 0 (also when there is no file), or a negative errno with a line: unreadable, damaged; then the
 * record is empty. */
int obd_record_load(struct obd_record *r, const char *dir, struct obd_err *err);

#endif
