/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files of this test share. */
#ifndef OBD_TEST_FETCHER_TESTS_H
#define OBD_TEST_FETCHER_TESTS_H

#include <check.h>

#include "common/daemon/loop.h"
#include "fetcher/source.h"

/* A sink that keeps what it gets and stops the loop when it is done. */
struct keeper {
	struct obd_loop *loop;
	unsigned char *buf;
	size_t room;
	size_t got;
	size_t calls;
	int refuse_at; /* calls of data after which it says -ENOSPC; 0: never */
	bool direct;   /* offers room */
	int *left;     /* counts down; the loop stops at 0 */
	int dones;
	int err;
	bool again;
	char reason[512];
};

extern const struct obd_source_sink keeper_sink;

/* Repeatable noise. */
void fill_noise(unsigned char *buf, size_t n, uint64_t seed);

TCase *decode_cases(void);
TCase *range_cases(void);
TCase *local_cases(void);
TCase *http_cases(void);
TCase *download_cases(void);
TCase *disk_cases(void);
TCase *auth_cases(void);
TCase *route_cases(void);

#endif
