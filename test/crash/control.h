/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The control file of the test points, from the side of those who arm them. */
#ifndef OBD_TEST_CRASH_CONTROL_H
#define OBD_TEST_CRASH_CONTROL_H

#include "common/base/testpoint.h"

/* NULL with errno: it is not there, or not of this build. Stays mapped. */
struct obd_test_control *control_map(const char *path);

/* The number of a point, or -1. */
int control_find(const char *name);

#endif
