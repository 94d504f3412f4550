/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Do the time-outs on the path of a read agree with each other? doc/timeouts.md has the table: the initiator's, tgt's and ours.
 * Ours come from the configuration; the initiator's can be seen only when it runs on this machine, in iscsid.conf.
 */
#ifndef OBD_SUPERVISOR_TIMEOUTS_H
#define OBD_SUPERVISOR_TIMEOUTS_H

#include <stdint.h>

#include "common/config/config.h"

#define OBD_ISCSID_CONF "/etc/iscsi/iscsid.conf"

/* Calls say with one line, without a newline, for each pair that does not agree. iscsid_conf may be missing. */
typedef void obd_timeouts_fn(void *arg, const char *line);
void obd_timeouts_check(const struct obd_config *c, const char *iscsid_conf, obd_timeouts_fn *say, void *arg);

#endif
