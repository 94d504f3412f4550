/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "test/fetcher/fetcher_tests.h"

static unsigned char *keeper_room(void *arg, size_t *n)
{
	struct keeper *k = arg;
	if (!k->direct)
		return NULL;
	*n = k->room - k->got > 10000 ? 10000 : k->room - k->got;
	return k->buf + k->got;
}

static int keeper_data(void *arg, const unsigned char *buf, size_t n)
{
	struct keeper *k = arg;
	ck_assert_uint_le(n, k->room - k->got);
	if (buf != k->buf + k->got)
		memcpy(k->buf + k->got, buf, n);
	k->got += n;
	k->calls++;
	return k->refuse_at && (int)k->calls >= k->refuse_at ? -ENOSPC : 0;
}

static void keeper_done(void *arg, const struct obd_source_end *end)
{
	struct keeper *k = arg;
	k->dones++;
	k->err = end->err;
	k->again = end->again;
	snprintf(k->reason, sizeof k->reason, "%s", end->reason);
	if (--*k->left == 0)
		obd_loop_stop(k->loop, 7);
}

const struct obd_source_sink keeper_sink = {.room = keeper_room, .data = keeper_data, .done = keeper_done};

void fill_noise(unsigned char *buf, size_t n, uint64_t seed)
{
	uint64_t x = seed * 2654435761u + 88172645463325252u;
	for (size_t i = 0; i < n; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		buf[i] = (unsigned char)(x >> 32);
	}
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	Suite *s = suite_create("fetcher");
	suite_add_tcase(s, decode_cases());
	suite_add_tcase(s, range_cases());
	suite_add_tcase(s, local_cases());
	suite_add_tcase(s, http_cases());
	suite_add_tcase(s, download_cases());
	suite_add_tcase(s, disk_cases());
	suite_add_tcase(s, auth_cases());
	suite_add_tcase(s, route_cases());
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
