/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The record of what tgtd was told: what each request does to it, and its file. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "supervisor/record.h"

static struct obd_record r;
static char dir[64];

static void set_up(void)
{
	obd_record_init(&r);
	strcpy(dir, "/tmp/obd-record.XXXXXX");
	ck_assert(mkdtemp(dir));
}

static void tear_down(void)
{
	char path[128];
	snprintf(path, sizeof path, "%s/" OBD_RECORD_NAME, dir);
	unlink(path);
	rmdir(dir);
	obd_record_clear(&r);
}

static void note_user(uint32_t mode, uint32_t op, int32_t tid, uint64_t lun, uint32_t outgoing, const char *text)
{
	struct obd_tgtadm_head h = {
		.mode = mode, .op = op, .lld = "iscsi", .tid = tid, .lun = lun, .outgoing = outgoing, .force = 1};
	ck_assert_int_eq(obd_record_note(&r, &h, text), 0);
}

static void note(uint32_t mode, uint32_t op, int32_t tid, uint64_t lun, const char *text)
{
	note_user(mode, op, tid, lun, 0, text);
}

/* All texts, each with a "|" behind it. */
static const char *texts(void)
{
	static char all[4096];
	all[0] = '\0';
	OBD_LIST_FOREACH (it, &r.entries) {
		strcat(all, OBD_LIST_ENTRY(it, struct obd_record_entry, link)->text);
		strcat(all, "|");
	}
	return all;
}

static void two_targets(void)
{
	note(OBD_TGTADM_TARGET, OBD_TGTADM_NEW, 1, UINT64_MAX, "targetname=a");
	note(OBD_TGTADM_TARGET, OBD_TGTADM_NEW, 2, UINT64_MAX, "targetname=b");
	note(OBD_TGTADM_LUN, OBD_TGTADM_NEW, 1, 1, "path=/1,bstype=overlaybd");
	note(OBD_TGTADM_LUN, OBD_TGTADM_NEW, 1, 2, "path=/2,bstype=overlaybd");
	note(OBD_TGTADM_LUN, OBD_TGTADM_NEW, 2, 1, "path=/3,bstype=overlaybd");
	note(OBD_TGTADM_LUN, OBD_TGTADM_UPDATE, 1, 1, "targetOps scsi_sn=x,");
	note(OBD_TGTADM_TARGET, OBD_TGTADM_BIND, 1, UINT64_MAX, "initiator-address=ALL");
}

START_TEST(deleting_takes_along_what_belongs_to_it)
{
	two_targets();
	note(OBD_TGTADM_LUN, OBD_TGTADM_DELETE, 1, 1, "");
	ck_assert_str_eq(texts(), "targetname=a|targetname=b|path=/2,bstype=overlaybd|path=/3,bstype=overlaybd|"
				  "initiator-address=ALL|");
	note(OBD_TGTADM_TARGET, OBD_TGTADM_DELETE, 1, UINT64_MAX, "");
	ck_assert_str_eq(texts(), "targetname=b|path=/3,bstype=overlaybd|");
	ck_assert_uint_eq(r.count, 2);
	ck_assert_ptr_nonnull(obd_record_lun(&r, 2, 1));
	ck_assert_ptr_null(obd_record_lun(&r, 1, 2));
}
END_TEST

START_TEST(bindings_are_there_once)
{
	two_targets();
	uint32_t before = r.count;
	note(OBD_TGTADM_TARGET, OBD_TGTADM_BIND, 1, UINT64_MAX, "initiator-address=ALL");
	ck_assert_uint_eq(r.count, before);
	note(OBD_TGTADM_TARGET, OBD_TGTADM_UNBIND, 1, UINT64_MAX, "initiator-address=10.0.0.1");
	ck_assert_uint_eq(r.count, before);
	note(OBD_TGTADM_TARGET, OBD_TGTADM_UNBIND, 1, UINT64_MAX, "initiator-address=ALL");
	ck_assert_uint_eq(r.count, before - 1);
}
END_TEST

START_TEST(a_newer_update_overrules_an_older_one)
{
	two_targets();
	note(OBD_TGTADM_LUN, OBD_TGTADM_UPDATE, 1, 1, "targetOps vendor_id=V,scsi_sn=y,");
	ck_assert(!strstr(texts(), "scsi_sn=x") && strstr(texts(), "scsi_sn=y"));
	note(OBD_TGTADM_LUN, OBD_TGTADM_UPDATE, 1, 1, "targetOps scsi_sn=z,");
	ck_assert(strstr(texts(), "vendor_id=V") && strstr(texts(), "scsi_sn=z")); /* the vendor is still needed */
	uint32_t before = r.count;
	for (int i = 0; i < 100; i++)
		note(OBD_TGTADM_TARGET, OBD_TGTADM_UPDATE, 1, UINT64_MAX, i % 2 ? "MaxBurstLength=1" : "MaxBurstLength=2");
	ck_assert_uint_eq(r.count, before + 1);
}
END_TEST

START_TEST(accounts)
{
	two_targets();
	uint32_t before = r.count;
	note(OBD_TGTADM_ACCOUNT, OBD_TGTADM_NEW, -1, UINT64_MAX, "user=joe,password=p w%\n");
	note(OBD_TGTADM_ACCOUNT, OBD_TGTADM_NEW, -1, UINT64_MAX, "user=joey,password=q");
	note(OBD_TGTADM_ACCOUNT, OBD_TGTADM_BIND, 1, UINT64_MAX, "user=joe");
	note_user(OBD_TGTADM_ACCOUNT, OBD_TGTADM_BIND, 1, UINT64_MAX, 1, "user=joe");
	ck_assert_uint_eq(r.count, before + 4);
	note_user(OBD_TGTADM_ACCOUNT, OBD_TGTADM_UNBIND, 1, UINT64_MAX, 1, "user=joe");
	ck_assert_uint_eq(r.count, before + 3);
	note(OBD_TGTADM_ACCOUNT, OBD_TGTADM_DELETE, -1, UINT64_MAX, "user=joe");
	ck_assert_uint_eq(r.count, before + 1);
	note(OBD_TGTADM_TARGET, OBD_TGTADM_DELETE, 1, UINT64_MAX, "");
	ck_assert(strstr(texts(), "joey"));
}
END_TEST

START_TEST(only_changes_are_recorded)
{
	note(OBD_TGTADM_TARGET, OBD_TGTADM_SHOW, -1, UINT64_MAX, "");
	note(5, OBD_TGTADM_DELETE, 1, 1, "");
	note(OBD_TGTADM_SYS, OBD_TGTADM_DELETE, -1, UINT64_MAX, "");
	ck_assert_uint_eq(r.count, 0);
}
END_TEST

START_TEST(the_file_has_all_of_it)
{
	struct obd_err err = {{0}};
	char before[4096];
	struct stat st;
	char path[128];
	two_targets();
	note(OBD_TGTADM_ACCOUNT, OBD_TGTADM_NEW, -1, UINT64_MAX, "user=joe,password=p w%\n\xff-");
	note(OBD_TGTADM_TARGET, OBD_TGTADM_BIND, 2, UINT64_MAX, "-");
	strcpy(before, texts());
	ck_assert_msg(obd_record_save(&r, dir, &err) == 0, "%s", err.msg);
	obd_record_clear(&r);
	ck_assert_msg(obd_record_load(&r, dir, &err) == 0, "%s", err.msg);
	ck_assert_str_eq(texts(), before);
	const struct obd_record_entry *e = obd_record_lun(&r, 1, 2);
	ck_assert(e && !e->applied && e->head.bytes == sizeof e->head + strlen(e->text) + 1 && e->head.force == 0);
	ck_assert_str_eq(e->head.lld, "iscsi");
	snprintf(path, sizeof path, "%s/" OBD_RECORD_NAME, dir);
	ck_assert(stat(path, &st) == 0 && (st.st_mode & 0777) == 0600);
}
END_TEST

/* Whatever byte is changed, wherever it is cut: refused, and nothing of it is taken. */
START_TEST(damage_is_noticed)
{
	struct obd_err err = {{0}};
	char path[128], data[4096];
	two_targets();
	ck_assert_int_eq(obd_record_save(&r, dir, &err), 0);
	snprintf(path, sizeof path, "%s/" OBD_RECORD_NAME, dir);
	int fd = open(path, O_RDWR);
	ssize_t len = pread(fd, data, sizeof data, 0);
	for (ssize_t i = 0; i < len; i++) {
		char c = (char)(data[i] ^ 1);
		obd_record_clear(&r);
		ck_assert(pwrite(fd, &c, 1, i) == 1);
		ck_assert_msg(obd_record_load(&r, dir, &err) == -EINVAL, "byte %d", (int)i);
		ck_assert_uint_eq(r.count, 0);
		ck_assert(pwrite(fd, data + i, 1, i) == 1);
	}
	for (ssize_t i = len - 1; i >= 0; i--) {
		ck_assert_int_eq(ftruncate(fd, i), 0);
		ck_assert_msg(obd_record_load(&r, dir, &err) == -EINVAL, "length %d", (int)i);
	}
	close(fd);
}
END_TEST

START_TEST(no_file_is_an_empty_record)
{
	struct obd_err err = {{0}};
	ck_assert_int_eq(obd_record_load(&r, dir, &err), 0);
	ck_assert_uint_eq(r.count, 0);
	ck_assert_int_eq(obd_record_save(&r, "/no/such/directory", &err), -ENOENT);
	ck_assert(strstr(err.msg, "/no/such/directory/tgtd.record"));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("record");
	TCase *t = tcase_create("all");
	tcase_add_checked_fixture(t, set_up, tear_down);
	tcase_add_test(t, deleting_takes_along_what_belongs_to_it);
	tcase_add_test(t, bindings_are_there_once);
	tcase_add_test(t, a_newer_update_overrules_an_older_one);
	tcase_add_test(t, accounts);
	tcase_add_test(t, only_changes_are_recorded);
	tcase_add_test(t, the_file_has_all_of_it);
	tcase_add_test(t, damage_is_noticed);
	tcase_add_test(t, no_file_is_an_empty_record);
	suite_add_tcase(s, t);
	SRunner *runner = srunner_create(s);
	srunner_run_all(runner, CK_NORMAL);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
