/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Compares frontend/tgt/tgt_abi.h with the headers of a tgt source tree (make check-tgt-abi TGT_SRC=DIR/usr): every member
 * that the module uses, the sizes of all structures, the constants, and the types of the functions. Prints what differs.
 */
#include <stdint.h>
#include <stdio.h>

/* clang-format off: the order matters to tgt's headers */
#include "list.h"
#include "tgtd.h"
#include "tgtadm_error.h"
#include "target.h"
#include "scsi.h"
#include "spc.h"
/* clang-format on */
#undef offsetof /* tgt's own is no constant expression */
#define offsetof(type, member) __builtin_offsetof(type, member)

#define OBD_TGT_ABI_TYPES_ONLY
#include "frontend/tgt/tgt_abi.h"

static int differences;

static void compare(const char *what, unsigned long long ours, unsigned long long theirs)
{
	if (ours == theirs)
		return;
	printf("%s: %llu here, %llu in tgt\n", what, ours, theirs);
	differences++;
}

#define SIZE(a, b) compare("sizeof " #b, sizeof(struct a), sizeof(struct b))
#define MEMBER(a, m, b, n)                                                                          \
	do {                                                                                        \
		compare(#b "." #n " offset", offsetof(struct a, m), offsetof(struct b, n));         \
		compare(#b "." #n " size", sizeof(((struct a *)0)->m), sizeof(((struct b *)0)->n)); \
	} while (0)
#define VALUE(a, b) compare(#b, (unsigned long long)(a), (unsigned long long)(b))
#define FUNCTION(f, type) compare("type of " #f, 1, __builtin_types_compatible_p(__typeof__(f), type))

static void commands(void)
{
	SIZE(tgt_list, list_head);
	SIZE(tgt_sdb, scsi_data_buffer);
	MEMBER(tgt_sdb, buffer, scsi_data_buffer, buffer);
	MEMBER(tgt_sdb, length, scsi_data_buffer, length);
	MEMBER(tgt_sdb, transfer_len, scsi_data_buffer, transfer_len);
	MEMBER(tgt_sdb, resid, scsi_data_buffer, resid);
	SIZE(tgt_cmd, scsi_cmd);
	MEMBER(tgt_cmd, dev, scsi_cmd, dev);
	MEMBER(tgt_cmd, state, scsi_cmd, state);
	MEMBER(tgt_cmd, in_sdb, scsi_cmd, in_sdb);
	MEMBER(tgt_cmd, out_sdb, scsi_cmd, out_sdb);
	MEMBER(tgt_cmd, offset, scsi_cmd, offset);
	MEMBER(tgt_cmd, tl, scsi_cmd, tl);
	MEMBER(tgt_cmd, scb, scsi_cmd, scb);
	MEMBER(tgt_cmd, mreq, scsi_cmd, mreq);
	MEMBER(tgt_cmd, sense_buffer, scsi_cmd, sense_buffer);
	MEMBER(tgt_cmd, sense_len, scsi_cmd, sense_len);
	VALUE(TGT_SENSE_BYTES, SCSI_SENSE_BUFFERSIZE);
	VALUE(TGT_CMD_ASYNC, 1UL << 2);
	struct scsi_cmd cmd = {0};
	set_cmd_async(&cmd);
	VALUE(TGT_CMD_ASYNC, cmd.state);
}

static void stores(void)
{
	SIZE(tgt_backing_store, backingstore_template);
	MEMBER(tgt_backing_store, name, backingstore_template, bs_name);
	MEMBER(tgt_backing_store, data_bytes, backingstore_template, bs_datasize);
	MEMBER(tgt_backing_store, open, backingstore_template, bs_open);
	MEMBER(tgt_backing_store, close, backingstore_template, bs_close);
	MEMBER(tgt_backing_store, init, backingstore_template, bs_init);
	MEMBER(tgt_backing_store, exit, backingstore_template, bs_exit);
	MEMBER(tgt_backing_store, submit, backingstore_template, bs_cmd_submit);
	MEMBER(tgt_backing_store, oflags_supported, backingstore_template, bs_oflags_supported);
	MEMBER(tgt_backing_store, supported_ops, backingstore_template, bs_supported_ops);
	MEMBER(tgt_backing_store, unused_link, backingstore_template, backingstore_siblings);
	VALUE(TGT_OPCODES, NR_SCSI_OPCODES);
	VALUE(TGTADM_OK, TGTADM_SUCCESS);
	VALUE(TGTADM_INVALID, TGTADM_INVALID_REQUEST);
	compare("size of tgtadm_err", sizeof(int), sizeof(tgtadm_err));
}

static void luns(void)
{
	SIZE(tgt_operation, device_type_operations);
	MEMBER(tgt_operation, perform, device_type_operations, cmd_perform);
	SIZE(tgt_device_type, device_type_template);
	MEMBER(tgt_device_type, type, device_type_template, type);
	MEMBER(tgt_device_type, ops, device_type_template, ops);
	SIZE(tgt_attrs, lu_phy_attr);
	MEMBER(tgt_attrs, device_type, lu_phy_attr, device_type);
	MEMBER(tgt_attrs, removable, lu_phy_attr, removable);
	MEMBER(tgt_attrs, readonly, lu_phy_attr, readonly);
	MEMBER(tgt_attrs, thinprovisioning, lu_phy_attr, thinprovisioning);
	MEMBER(tgt_attrs, vpd, lu_phy_attr, lu_vpd);
	MEMBER(tgt_vpd, update, vpd, vpd_update);
	SIZE(tgt_mode_page, mode_pg);
	MEMBER(tgt_mode_page, bytes, mode_pg, pcode_size);
	compare("tgt_mode_page.data offset", offsetof(struct tgt_mode_page, data), offsetof(struct mode_pg, mode_data));
	VALUE(TGT_VPD_PAGES, 1 << PCODE_SHIFT);
	VALUE(tgt_vpd_index(0xb2), PCODE_OFFSET(0xb2));
	MEMBER(tgt_attrs, online, lu_phy_attr, online);
	MEMBER(tgt_attrs, no_auto_lbppbe, lu_phy_attr, no_auto_lbppbe);
	SIZE(tgt_lu, scsi_lu);
	MEMBER(tgt_lu, size, scsi_lu, size);
	MEMBER(tgt_lu, lun, scsi_lu, lun);
	MEMBER(tgt_lu, path, scsi_lu, path);
	MEMBER(tgt_lu, blk_shift, scsi_lu, blk_shift);
	MEMBER(tgt_lu, active_cmd, scsi_lu, cmd_queue.active_cmd);
	MEMBER(tgt_lu, dev_type, scsi_lu, dev_type_template);
	MEMBER(tgt_lu, bst, scsi_lu, bst);
	MEMBER(tgt_lu, attrs, scsi_lu, attrs);
	MEMBER(tgt_lu, cmd_perform, scsi_lu, cmd_perform);
	compare("tgt_event has room", sizeof(struct tgt_event) >= sizeof(struct event_data), 1);
}

static void functions(void)
{
	FUNCTION(register_backingstore_template, int(struct backingstore_template *));
	FUNCTION(tgt_event_add, int(int, int, void (*)(int, int, void *), void *));
	FUNCTION(tgt_event_del, void(int));
	FUNCTION(tgt_init_sched_event, void(struct event_data *, void (*)(struct event_data *), void *));
	FUNCTION(tgt_add_sched_event, void(struct event_data *));
	FUNCTION(tgt_remove_sched_event, void(struct event_data *));
	FUNCTION(target_cmd_perform, int(int, struct scsi_cmd *));
	FUNCTION(target_cmd_io_done, void(struct scsi_cmd *, int));
	FUNCTION(sense_data_build, void(struct scsi_cmd *, uint8_t, uint16_t));
	FUNCTION(sense_data_build_with_info, void(struct scsi_cmd *, uint8_t, uint16_t, uint64_t));
	FUNCTION(find_mode_page, struct mode_pg * (struct scsi_lu *, uint8_t, uint8_t));
	FUNCTION(scsi_rw_count, uint32_t(uint8_t *));
	FUNCTION(update_lbppbe, void(struct scsi_lu *, int));
	FUNCTION(ua_sense_add_other_it_nexus, void(uint64_t, struct scsi_lu *, uint16_t));
	FUNCTION(log_error, void(const char *, ...));
	FUNCTION(log_warning, void(const char *, ...));
}

int main(void)
{
	commands();
	stores();
	luns();
	functions();
	if (!differences)
		puts("tgt_abi.h agrees with these headers");
	return differences != 0;
}
