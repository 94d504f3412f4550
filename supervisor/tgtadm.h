/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What tgtadm and tgtd say to each other over the control socket, as tgt 1.0.85 to 1.0.97 do: one request per connection, a
 * fixed head and a text behind it, answered by two words and perhaps a text. Both run on one machine, so it is in its byte
 * order. Order, size and numbers of the members were read off the wire.
 */
#ifndef OBD_SUPERVISOR_TGTADM_H
#define OBD_SUPERVISOR_TGTADM_H

#include <stddef.h>
#include <stdint.h>

#define OBD_TGTADM_REQUEST_MAX 65536
#define OBD_TGTADM_ANSWER_MAX (16u << 20)
#define OBD_TGTADM_LLD_BYTES 64

enum obd_tgtadm_mode {
	OBD_TGTADM_SYS = 0,
	OBD_TGTADM_TARGET = 1,
	OBD_TGTADM_LUN = 2,
	OBD_TGTADM_PORTAL = 3,
	OBD_TGTADM_ACCOUNT = 7,
};

enum obd_tgtadm_op {
	OBD_TGTADM_NEW = 0,
	OBD_TGTADM_DELETE = 1,
	OBD_TGTADM_SHOW = 2,
	OBD_TGTADM_BIND = 3,
	OBD_TGTADM_UNBIND = 4,
	OBD_TGTADM_UPDATE = 5,
};

struct obd_tgtadm_head {
	uint32_t mode;
	uint32_t op;
	char lld[OBD_TGTADM_LLD_BYTES];
	uint32_t bytes; /* of head and text */
	int32_t tid;	/* -1: none */
	uint64_t sid;
	uint64_t lun;
	uint32_t cid;
	uint32_t host_no;
	uint32_t device_type;
	uint32_t outgoing; /* of an account */
	uint32_t force;
	uint32_t unused;
};
_Static_assert(sizeof(struct obd_tgtadm_head) == 120 && offsetof(struct obd_tgtadm_head, bytes) == 72 &&
		       offsetof(struct obd_tgtadm_head, lun) == 88 && offsetof(struct obd_tgtadm_head, outgoing) == 108,
	       "as on the wire");

struct obd_tgtadm_answer {
	uint32_t err;	/* 0: done */
	uint32_t bytes; /* with the text behind it */
};

#endif
