/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The backing store "overlaybd": registration, LUNs coming and going, and the one client of the process group that all LUNs of
 * this tgtd share. The client comes with the first LUN and goes with the last.
 *
 * What if tgtd dies here: the group sees its socket close and drops what was asked and held; nothing else is kept anywhere.
 * What if the group dies: the client library keeps LUNs and reads and comes back to them; commands wait, and nothing is done
 * here.
 */
#include <errno.h>
#include <malloc.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/epoll.h>

#include "common/base/log.h"
#include "common/base/util.h"
#include "frontend/tgt/lun.h"
#include "frontend/tgt/scsi.h"

/* How long bs_open, and with it all of tgtd, waits for the group's first answer. Normally that takes about a millisecond. */
#define OPEN_WAIT_MS 1000

/* The physical block that is reported unless the administrator chose one: the page that file systems work in. */
#define PHYSICAL_BLOCK_BYTES 4096

static struct obd_client *client;
static unsigned int client_users;
static struct tgt_event bell;
static bool more_came; /* since the bell's last turn */

/* ---- the client ---------------------------------------------------------------------------------------------------------- */

static void client_event(int fd, int events, void *data)
{
	(void)fd;
	(void)events;
	(void)data;
	obd_client_dispatch(client);
}

/*
 * tgtd takes one command of a connection in each round of its loop. The indexer is told of writes when a round brought no
 * more: so it gets what an initiator sent in one go as one piece of work, and a lone write waits for one look at tgtd's
 * descriptors.
 */
static void bell_turn(struct tgt_event *e)
{
	if (more_came)
		tgt_add_sched_event(e);
	else
		obd_client_ring(client);
	more_came = false;
}

static void posted(void *arg)
{
	more_came = true;
	tgt_add_sched_event(arg);
}

/* The library's lines go where tgtd's own go: a daemonised tgtd has no standard error. */
static void log_line(enum obd_log_level level, const char *text)
{
	if (level >= OBD_LOG_ERROR)
		log_error("overlaybd: %s\n", text);
	else
		log_warning("overlaybd: %s\n", text);
}

static int client_start(struct obd_err *err)
{
	int rc = obd_tgt_io_start();
	if (rc)
		return obd_err_set(err, -rc, "cannot set up events: %s", strerror(-rc));
	obd_log_sink(log_line);
	rc = obd_client_new(NULL, &client, err);
	if (rc)
		return rc;
	if (tgt_event_add(obd_client_fd(client), EPOLLIN, client_event, NULL)) {
		obd_client_free(client);
		client = NULL;
		return obd_err_set(err, EIO, "tgtd cannot watch the client's descriptor");
	}
	tgt_init_sched_event(&bell, bell_turn, NULL);
	obd_client_gather(client, posted, &bell);
	return 0;
}

static int client_get(struct obd_err *err)
{
	int rc = client_users ? 0 : client_start(err);
	if (!rc)
		client_users++;
	return rc;
}

static void client_put(void)
{
	if (--client_users)
		return;
	tgt_event_del(obd_client_fd(client));
	obd_client_free(client);
	tgt_remove_sched_event(&bell);
	client = NULL;
}

/* ---- LUNs ---------------------------------------------------------------------------------------------------------------- */

/* The size that initiators see: whole logical blocks. */
static uint64_t usable_bytes(const struct lun *lun)
{
	return obd_align_down(obd_device_bytes(lun->dev), UINT64_C(1) << lun->lu->blk_shift);
}

/* The provisioning attribute is what tgtd answers READ CAPACITY(16) from, and these two pages. */
static void set_thin(struct tgt_lu *lu, bool thin)
{
	static const unsigned int pages[] = {VPD_BLOCK_LIMITS, VPD_LOGICAL_BLOCK_PROVISIONING};
	lu->attrs.thinprovisioning = thin;
	for (size_t i = 0; i < OBD_ARRAY_SIZE(pages); i++) {
		struct tgt_vpd *page = lu->attrs.vpd[tgt_vpd_index(pages[i])];
		if (page && page->update)
			page->update(lu, NULL);
	}
}

/* Attributes follow from the image, unless the administrator has set them. tgt 1.0.85 to 1.0.97 leave COMPARE AND WRITE out of
 * the table of operations, but know it: the function of WRITE(16) checks its range like any other's. */
static void set_attributes(struct lun *lun)
{
	struct tgt_lu *lu = lun->lu;
	bool writable = obd_device_writable(lun->dev);
	if (!writable && !lu->attrs.readonly)
		lu->attrs.readonly = lun->made_readonly = true;
	else if (writable && lun->made_readonly)
		lu->attrs.readonly = lun->made_readonly = false;
	if (writable && !lu->attrs.thinprovisioning) {
		set_thin(lu, true);
		lun->made_thin = true;
	} else if (!writable && lun->made_thin) {
		set_thin(lu, false);
		lun->made_thin = false;
	}
	if (writable)
		lu->dev_type.ops[OP_COMPARE_AND_WRITE] = lu->dev_type.ops[OP_WRITE_16];
}

static void lun_fail(struct lun *lun)
{
	lun->state = LUN_FAILED;
	obd_tgt_gate_shut(lun);
	log_error("overlaybd: lun %" PRIu64 " (%s) failed: %s\n", lun->lu->lun, lun->lu->path, obd_device_reason(lun->dev));
}

/* A LUN that was not ready when bs_open returned. Whoever has been told "becoming ready" learns by a unit attention that there
 * is a capacity to be read now. */
static void lun_ready(struct lun *lun)
{
	lun->state = LUN_READY;
	lun->lu->size = usable_bytes(lun);
	obd_tgt_gate_open(lun);
	set_attributes(lun);
	ua_sense_add_other_it_nexus(0, lun->lu, ASC_CAPACITY_DATA_HAS_CHANGED);
	log_warning("overlaybd: lun %" PRIu64 " (%s) is ready, %" PRIu64 " bytes\n", lun->lu->lun, lun->lu->path,
		    lun->lu->size);
}

static void device_changed(void *arg, struct obd_device *dev)
{
	struct lun *lun = arg;
	if (lun->in_open) /* bs_open looks at the state itself */
		return;
	if (obd_device_state(dev) == OBD_DEVICE_READY)
		lun_ready(lun);
	else
		lun_fail(lun);
}

static int lun_open(struct lun *lun, const char *path, uint64_t *size, struct obd_err *err)
{
	int rc = obd_client_open(client, path, device_changed, lun, &lun->dev, err);
	if (rc)
		return rc;
	switch (obd_client_wait(client, lun->dev, OPEN_WAIT_MS)) {
	case OBD_DEVICE_READY:
		*size = usable_bytes(lun);
		if (*size) {
			lun->state = LUN_READY;
			obd_tgt_gate_open(lun);
			set_attributes(lun);
			return 0;
		}
		rc = obd_err_set(err, EINVAL, "the image is smaller than a logical block");
		break;
	case OBD_DEVICE_FAILED:
		rc = obd_device_errno(lun->dev);
		rc = obd_err_set(err, rc ? rc : EIO, "%s", obd_device_reason(lun->dev));
		break;
	case OBD_DEVICE_OPENING:
	case OBD_DEVICE_PENDING:
		lun->state = LUN_OPENING;
		obd_tgt_gate_shut(lun);
		return 0;
	}
	obd_client_close(lun->dev);
	lun->dev = NULL;
	return rc;
}

/* tgtd has no use for a descriptor here; -1 makes its GET LBA STATUS report one mapped extent instead of seeking in somebody's
 * file. */
static int bs_open(struct tgt_lu *lu, char *path, int *fd, uint64_t *size)
{
	struct lun *lun = lun_of(lu);
	struct obd_err err;
	*fd = -1;
	*size = 0;
	int rc = client_get(&err);
	if (!rc) {
		lun->in_open = true;
		rc = lun_open(lun, path, size, &err);
		lun->in_open = false;
		if (rc)
			client_put();
	}
	if (rc) {
		log_error("overlaybd: cannot open %s: %s\n", path, err.msg);
		return rc;
	}
	if (!lu->attrs.no_auto_lbppbe)
		update_lbppbe(lu, PHYSICAL_BLOCK_BYTES);
	if (lun->state == LUN_OPENING)
		log_warning("overlaybd: lun %" PRIu64 " (%s) is becoming ready\n", lu->lun, path);
	return 0;
}

/* The gate is shut first: ending the commands may submit others that waited in tgtd's queue. */
static void bs_close(struct tgt_lu *lu)
{
	struct lun *lun = lun_of(lu);
	struct obd_device *dev = lun->dev;
	lun->state = LUN_CLOSED;
	obd_tgt_gate_shut(lun);
	if (!dev)
		return;
	lun->dev = NULL;
	obd_client_close(dev);
	obd_tgt_io_drain(lun);
	client_put();
}

/* ---- registration -------------------------------------------------------------------------------------------------------- */

static struct tgt_backing_store overlaybd_store;

/* True if tgtd has filled the LUN's members where tgt_abi.h says they are; they lie near both ends and in the middle. */
static bool abi_matches(const struct tgt_lu *lu)
{
	return lu->bst == &overlaybd_store && lu->cmd_perform == target_cmd_perform &&
	       lu->dev_type.type == lu->attrs.device_type && lu->dev_type.ops[OP_INQUIRY].perform && lu->blk_shift >= 9 &&
	       lu->blk_shift <= 24 && !lu->active_cmd;
}

/* Nothing of the LUN but data behind it may be touched before abi_matches. */
static int bs_init(struct tgt_lu *lu, char *bsopts)
{
	struct lun *lun = lun_of(lu);
	if (!abi_matches(lu)) {
		log_error("overlaybd: this tgtd does not have the structures of tgt 1.0.85 to 1.0.97\n");
		return TGTADM_INVALID;
	}
	if (lu->attrs.device_type != SCSI_TYPE_DISK) {
		log_error("overlaybd: only --device-type disk\n");
		return TGTADM_INVALID;
	}
	if (bsopts && *bsopts) {
		log_error("overlaybd: --bsopts is not supported\n");
		return TGTADM_INVALID;
	}
	*lun = (struct lun){.lu = lu, .state = LUN_CLOSED};
	obd_tgt_gate_shut(lun);
	return TGTADM_OK;
}

static void bs_exit(struct tgt_lu *lu)
{
	(void)lu;
}

/* The same as tgtd's own disk stores: what writes to a read-only LUN is refused with DATA PROTECT, not as unknown. */
static const uint8_t supported_ops[] = {
	OP_TEST_UNIT_READY,
	OP_REQUEST_SENSE,
	OP_FORMAT_UNIT,
	OP_READ_6,
	OP_WRITE_6,
	OP_INQUIRY,
	OP_MODE_SELECT_6,
	OP_RESERVE_6,
	OP_RELEASE_6,
	OP_MODE_SENSE_6,
	OP_START_STOP_UNIT,
	OP_SEND_DIAGNOSTIC,
	OP_PREVENT_ALLOW_MEDIUM_REMOVAL,
	OP_READ_CAPACITY_10,
	OP_READ_10,
	OP_WRITE_10,
	OP_WRITE_AND_VERIFY_10,
	OP_VERIFY_10,
	OP_PRE_FETCH_10,
	OP_SYNCHRONIZE_CACHE_10,
	OP_WRITE_SAME_10,
	OP_UNMAP,
	OP_MODE_SELECT_10,
	OP_MODE_SENSE_10,
	OP_PERSISTENT_RESERVE_IN,
	OP_PERSISTENT_RESERVE_OUT,
	OP_READ_16,
	OP_COMPARE_AND_WRITE,
	OP_WRITE_16,
	OP_ORWRITE_16,
	OP_WRITE_AND_VERIFY_16,
	OP_VERIFY_16,
	OP_PRE_FETCH_16,
	OP_SYNCHRONIZE_CACHE_16,
	OP_WRITE_SAME_16,
	OP_SERVICE_ACTION_IN_16,
	OP_REPORT_LUNS,
	OP_MAINTENANCE_IN,
	OP_READ_12,
	OP_WRITE_12,
	OP_WRITE_AND_VERIFY_12,
	OP_VERIFY_12,
};

static struct tgt_backing_store overlaybd_store = {
	.name = "overlaybd",
	.data_bytes = sizeof(struct lun),
	.open = bs_open,
	.close = bs_close,
	.init = bs_init,
	.exit = bs_exit,
	.submit = obd_tgt_submit,
	.oflags_supported = O_SYNC | O_DIRECT, /* without meaning here, but configurations name them */
};

/* What tgtd looks for in a module: the one symbol that is exported. */
__attribute__((visibility("default"))) void register_bs_module(void);

/*
 * tgtd allocates a buffer per command. By its defaults the C library maps those of 128 KiB and more and gives them back at
 * once, so a 256 KiB read spends three quarters of its processor time in page faults (measured: 294 against 97 us). Freed
 * buffers stay in the heap instead; what tgtd keeps is bounded by what was under way at once.
 */
static void keep_buffers(void)
{
	mallopt(M_MMAP_THRESHOLD, 32 << 20);
	mallopt(M_TRIM_THRESHOLD, 128 << 20);
}

void register_bs_module(void)
{
	keep_buffers();
	for (size_t i = 0; i < sizeof supported_ops; i++)
		overlaybd_store.supported_ops[supported_ops[i] / TGT_WORD_BITS] |= 1UL << supported_ops[i] % TGT_WORD_BITS;
	register_backingstore_template(&overlaybd_store);
}
