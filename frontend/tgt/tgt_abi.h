/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What tgtd and its backing-store modules share in memory, as tgt 1.0.85 to 1.0.97 have it on a 64-bit machine.
 *
 * tgt installs no headers, so the layout is declared here once: order, type and size of the members are facts of the
 * interface, the words are ours. Members that no code here looks at are called unused_* and are there for their size: tgtd
 * allocates a LUN as struct scsi_lu plus the module's data right behind it, so even a size is part of the interface.
 *
 * Three nets against drift: the static asserts below (our declaration did not change by accident), `make check-tgt-abi
 * TGT_SRC=DIR` (it agrees with a source tree of tgt), and abi_matches in module.c at run time (the tgtd that loaded us fills
 * the members where we look for them).
 */
#ifndef OBD_FRONTEND_TGT_TGT_ABI_H
#define OBD_FRONTEND_TGT_TGT_ABI_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

struct tgt_cmd;
struct tgt_lu;

/* tgtd's own list links; never walked here. */
struct tgt_list {
	struct tgt_list *next;
	struct tgt_list *prev;
};

/* One direction of a command's data. */
struct tgt_sdb {
	uint64_t buffer; /* an address in tgtd */
	uint32_t length; /* what the initiator expects: the size of the buffer */
	uint32_t transfer_len;
	int32_t resid; /* > 0 underflow, < 0 overflow */
};

enum { TGT_SENSE_BYTES = 252 };

/* Bit of tgt_cmd.state: set by a module that will call target_cmd_io_done later. */
#define TGT_CMD_ASYNC (1UL << 2)

struct tgt_cmd {
	void *unused_target;
	struct tgt_list unused_nexus_link;
	struct tgt_list unused_queue_link;
	uint64_t unused_dev_id;
	struct tgt_lu *dev;
	unsigned long state;
	unsigned int unused_data_dir;
	struct tgt_sdb in_sdb;
	struct tgt_sdb out_sdb;
	uint64_t unused_itn_id;
	uint64_t offset; /* bytes; set for READ, VERIFY and the like */
	uint32_t tl;	 /* bytes, cut to 32 bits; not set for VERIFY */
	uint8_t *scb;	 /* the CDB */
	int unused_scb_len;
	uint8_t unused_lun[8];
	int unused_attribute;
	uint64_t unused_tag;
	int unused_result;
	void *mreq; /* the task management request that wants this command gone, or NULL */
	unsigned char sense_buffer[TGT_SENSE_BYTES];
	int sense_len;
	struct tgt_list unused_bs_list;
	void *unused_it_nexus;
	void *unused_itn_lu_info;
};

/* Performs a command: returns the SCSI status, which counts unless the command was made asynchronous. */
typedef int tgt_perform_fn(int host_no, struct tgt_cmd *cmd);

enum { TGT_OPCODES = 256, TGT_WORD_BITS = 64 };

struct tgt_operation {
	tgt_perform_fn *perform;
	void *unused_service_actions;
	uint8_t unused_pr_conflicts;
};

/* Each LUN has a copy of its own, so replacing a function in it concerns that LUN only. */
struct tgt_device_type {
	unsigned char type; /* the SCSI peripheral device type */
	void *unused_functions[6];
	struct tgt_operation ops[TGT_OPCODES];
	struct tgt_list unused_link;
};

/* A page of vital product data. */
struct tgt_vpd {
	uint16_t unused_size;
	void (*update)(struct tgt_lu *lu, void *data); /* makes the page's data anew from the LUN's attributes */
};

enum { TGT_VPD_PAGES = 128 };

/* The index of VPD page `code` in tgt_attrs.vpd. */
static inline unsigned int tgt_vpd_index(unsigned int code)
{
	return code % TGT_VPD_PAGES;
}

struct tgt_attrs {
	char unused_scsi_id[37];
	char unused_scsi_sn[37];
	uint64_t unused_numeric_id;
	char unused_vendor_id[9];
	char unused_product_id[17];
	char unused_product_rev[5];
	uint16_t unused_version_desc[8];
	unsigned char device_type;
	char unused_qualifier;
	char removable;
	char readonly;
	char unused_swp;
	char thinprovisioning;
	char online;
	char unused_sense_format;
	unsigned char unused_lbppbe;
	char no_auto_lbppbe; /* the administrator chose lbppbe: leave it */
	uint16_t unused_la_lba;
	uint16_t unused_rotation_rate;
	struct tgt_vpd *vpd[TGT_VPD_PAGES];
};

/* A mode page; tgtd's have their data right behind. */
struct tgt_mode_page {
	struct tgt_list unused_link;
	uint8_t unused_code;
	uint8_t unused_subcode;
	int16_t bytes; /* of data */
	uint8_t data[];
};

/* What a module registers. tgtadm_err is an enum whose 0 is success. */
struct tgt_backing_store {
	const char *name; /* --bstype */
	int data_bytes;	  /* to be had behind struct tgt_lu */
	int (*open)(struct tgt_lu *lu, char *path, int *fd, uint64_t *size);
	void (*close)(struct tgt_lu *lu);
	int (*init)(struct tgt_lu *lu, char *bsopts); /* before the first open; returns a tgtadm_err */
	void (*exit)(struct tgt_lu *lu);	      /* the last call before the LUN is freed */
	int (*submit)(struct tgt_cmd *cmd);	      /* not 0: the command ends with HARDWARE ERROR */
	int oflags_supported;			      /* open(2) flags that --bsoflags may name */
	unsigned long supported_ops[TGT_OPCODES / TGT_WORD_BITS];
	struct tgt_list unused_link;
};

enum { TGTADM_OK = 0, TGTADM_INVALID = 17 };

struct tgt_lu {
	int unused_fd;
	uint64_t unused_addr;
	uint64_t size; /* bytes */
	uint64_t lun;
	char *path;
	int unused_bsoflags;
	unsigned int blk_shift; /* log2 of the logical block */
	struct tgt_list unused_siblings;
	struct tgt_list unused_itl_info;
	int active_cmd; /* these three are the command queue */
	unsigned long unused_queue_state;
	struct tgt_list unused_queue;
	uint64_t unused_reserve_id;
	struct tgt_device_type dev_type;
	struct tgt_backing_store *bst;
	void *unused_target;
	uint8_t unused_mode_block_descriptor[8];
	struct tgt_list unused_mode_pages;
	struct tgt_attrs attrs;
	struct tgt_list unused_registrations;
	uint32_t unused_prgeneration;
	void *unused_pr_holder;
	void *unused_private;
	int (*cmd_perform)(int tid, struct tgt_cmd *cmd);
	void *unused_cmd_done;
};

/* The module's own data of a LUN. */
static inline void *tgt_lu_data(struct tgt_lu *lu)
{
	return lu + 1;
}

/* Room for one of tgtd's event_data, which only tgtd looks into; it has five words. */
struct tgt_event {
	void *unused[8];
};

#if defined(__LP64__)
static_assert(sizeof(struct tgt_sdb) == 24, "tgt_sdb");
static_assert(sizeof(struct tgt_cmd) == 480 && offsetof(struct tgt_cmd, dev) == 48 && offsetof(struct tgt_cmd, in_sdb) == 72 &&
		      offsetof(struct tgt_cmd, offset) == 128 && offsetof(struct tgt_cmd, scb) == 144 &&
		      offsetof(struct tgt_cmd, mreq) == 184 && offsetof(struct tgt_cmd, sense_len) == 444,
	      "tgt_cmd");
static_assert(sizeof(struct tgt_device_type) == 6216 && offsetof(struct tgt_device_type, ops) == 56, "tgt_device_type");
static_assert(sizeof(struct tgt_attrs) == 1176 && offsetof(struct tgt_attrs, readonly) == 139, "tgt_attrs");
static_assert(sizeof(struct tgt_backing_store) == 112, "tgt_backing_store");
static_assert(sizeof(struct tgt_lu) == 7608 && offsetof(struct tgt_lu, size) == 16 &&
		      offsetof(struct tgt_lu, blk_shift) == 44 && offsetof(struct tgt_lu, dev_type) == 120 &&
		      offsetof(struct tgt_lu, bst) == 6336 && offsetof(struct tgt_lu, attrs) == 6376 &&
		      offsetof(struct tgt_lu, cmd_perform) == 7592,
	      "tgt_lu");
#else
#error "the layout of tgtd's structures was looked up for 64-bit machines only"
#endif

/* ---- what tgtd exports; everything happens on its one thread ------------------------------------------------------------ */
#ifndef OBD_TGT_ABI_TYPES_ONLY

/* Makes bst selectable; it must stay where it is for as long as tgtd runs. */
int register_backingstore_template(struct tgt_backing_store *bst);

/* Watches fd for epoll events and calls handler from the main loop, until tgt_event_del. 0 or an error. */
int tgt_event_add(int fd, int events, void (*handler)(int fd, int events, void *data), void *data);
void tgt_event_del(int fd);

/* Calls handler once before tgtd next waits for events, for which it then does not sleep; may be added again from within. */
void tgt_init_sched_event(struct tgt_event *e, void (*handler)(struct tgt_event *e), void *data);
void tgt_add_sched_event(struct tgt_event *e);
void tgt_remove_sched_event(struct tgt_event *e);

/* tgtd's default for tgt_lu.cmd_perform; here only to be compared with. */
int target_cmd_perform(int tid, struct tgt_cmd *cmd);

/* Ends an asynchronous command. cmd may be freed on return, and commands that waited behind it may have been submitted from
 * within. Never to be called from within submit. */
void target_cmd_io_done(struct tgt_cmd *cmd, int status);

/* Fills in the sense data, in the format that the LUN is set to. asc is ASC << 8 | ASCQ. */
void sense_data_build(struct tgt_cmd *cmd, uint8_t key, uint16_t asc);

/* The same with the INFORMATION field: an offset that the command's sense is about. */
void sense_data_build_with_info(struct tgt_cmd *cmd, uint8_t key, uint16_t asc, uint64_t info);

/* A mode page of the LUN, or NULL. */
struct tgt_mode_page *find_mode_page(struct tgt_lu *lu, uint8_t code, uint8_t subcode);

/* The transfer length that a CDB carries, in logical blocks. */
uint32_t scsi_rw_count(uint8_t *scb);

/* Sets the physical block exponent from a size in bytes. */
void update_lbppbe(struct tgt_lu *lu, int bytes);

/* Leaves a unit attention for every initiator that is logged in, but for the nexus itn_id; 0 is never a nexus. */
void ua_sense_add_other_it_nexus(uint64_t itn_id, struct tgt_lu *lu, uint16_t asc);

/* tgtd's log: standard error with -f, otherwise syslog, by a process that waits for no one. The text ends with a newline and
 * is cut at 255 characters by syslog's side. */
void log_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_warning(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
#endif
