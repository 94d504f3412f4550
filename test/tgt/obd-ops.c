/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * obd-ops: carries out a list of operations on a LUN, one after the other.
 *
 *   obd-ops FILE.ops iscsi://HOST:PORT/IQN/LUN
 *
 * A line each: `w OFFSET BYTES SEED KIND` writes made-up data (t text, r random, z zeros), `d OFFSET BYTES` discards, `f`
 * syncs. What a sector gets depends on the seed and its number alone (test/data/golden/README.md), so the same list gives the
 * same layer wherever it is played. Exit 0; 1 for a usage error, an unreadable list or a failed connection, 2 for a failed
 * command.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>

#include "common/base/le.h"
#include "common/base/util.h"

enum { SECTOR = 512, PIECE_SECTORS = 2048, EXIT_FAILED = 2 };

struct op {
	char kind;
	char fill;
	uint64_t offset;
	uint64_t bytes;
	uint64_t seed;
};

static struct iscsi_context *is;
static int lun;

__attribute__((noreturn)) static void die(const char *what)
{
	fprintf(stderr, "obd-ops: %s: %s\n", what, is ? iscsi_get_error(is) : "");
	exit(1);
}

static uint64_t splitmix(uint64_t *s)
{
	uint64_t z = *s += UINT64_C(0x9e3779b97f4a7c15);
	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

static void fill_sector(unsigned char *p, const struct op *op, uint64_t sector)
{
	char text[40];
	uint64_t s = op->seed << 40 ^ sector;
	memset(p, 0, SECTOR);
	snprintf(text, sizeof text, "%08x-%016" PRIx64 "-obdgen", (unsigned int)op->seed, sector);
	for (unsigned int i = 0; i < 64 && op->fill == 'r'; i++)
		obd_put_le64(p + 8 * i, splitmix(&s));
	for (unsigned int i = 0; i < 16 && op->fill == 't'; i++)
		memcpy(p + 32 * i, text, 32);
}

static bool good(struct scsi_task *task)
{
	bool ok = task && task->status == SCSI_STATUS_GOOD;
	if (!ok)
		fprintf(stderr, "obd-ops: %s\n", iscsi_get_error(is));
	if (task)
		scsi_free_scsi_task(task);
	return ok;
}

static bool write_out(const struct op *op)
{
	static unsigned char buf[PIECE_SECTORS * SECTOR];
	uint64_t first = op->offset / SECTOR, n = op->bytes / SECTOR;
	for (uint64_t at = 0; at < n; at += PIECE_SECTORS) {
		uint32_t piece = (uint32_t)obd_min_u64(PIECE_SECTORS, n - at);
		for (uint32_t i = 0; i < piece; i++)
			fill_sector(buf + (size_t)i * SECTOR, op, first + at + i);
		if (!good(iscsi_write16_sync(is, lun, first + at, buf, piece * SECTOR, SECTOR, 0, 0, 0, 0, 0)))
			return false;
	}
	return true;
}

static bool carry_out(const struct op *op)
{
	struct unmap_list extent = {.lba = op->offset / SECTOR, .num = (uint32_t)(op->bytes / SECTOR)};
	switch (op->kind) {
	case 'w':
		return write_out(op);
	case 'd':
		return good(iscsi_unmap_sync(is, lun, 0, 0, &extent, 1));
	default:
		return good(iscsi_synchronizecache10_sync(is, lun, 0, 0, 0, 0));
	}
}

static bool parse(const char *line, struct op *op)
{
	*op = (struct op){0};
	int got = sscanf(line, "%c %" SCNu64 " %" SCNu64 " %" SCNu64 " %c", &op->kind, &op->offset, &op->bytes, &op->seed,
			 &op->fill);
	bool aligned = op->offset % SECTOR == 0 && op->bytes % SECTOR == 0;
	return aligned && ((op->kind == 'w' && got == 5) || (op->kind == 'd' && got == 3) || (op->kind == 'f' && got == 1));
}

static void log_in(const char *text)
{
	is = iscsi_create_context("iqn.2025-01.test:obd-ops");
	struct iscsi_url *u = is ? iscsi_parse_full_url(is, text) : NULL;
	if (!u)
		die("URL");
	iscsi_set_targetname(is, u->target);
	iscsi_set_session_type(is, ISCSI_SESSION_NORMAL);
	if (iscsi_full_connect_sync(is, u->portal, u->lun))
		die("login");
	lun = u->lun;
	iscsi_destroy_url(u);
}

int main(int argc, char **argv)
{
	char line[256];
	unsigned int number = 0;
	FILE *list = argc == 3 ? fopen(argv[1], "re") : NULL;
	if (!list) {
		fprintf(stderr, "usage: obd-ops FILE.ops URL\n");
		return 1;
	}
	log_in(argv[2]);
	while (fgets(line, sizeof line, list)) {
		struct op op;
		number++;
		if (!parse(line, &op)) {
			fprintf(stderr, "obd-ops: %s:%u: not an operation\n", argv[1], number);
			return 1;
		}
		if (!carry_out(&op)) {
			fprintf(stderr, "obd-ops: %s:%u: failed\n", argv[1], number);
			return EXIT_FAILED;
		}
	}
	printf("%u operations\n", number);
	fclose(list);
	iscsi_logout_sync(is);
	iscsi_destroy_context(is);
	return 0;
}
