/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a process that has entered the sandbox can and cannot do any more. Each test is a child of Check's, so it may. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/base/util.h"
#include "common/daemon/sandbox.h"

static char top[64], inside[96], outside[96];

static void put(const char *dir, const char *name)
{
	char path[160];
	snprintf(path, sizeof path, "%s/%s", dir, name);
	int fd = open(path, O_WRONLY | O_CREAT, 0600);
	ck_assert(fd >= 0 && write(fd, "x", 1) == 1 && close(fd) == 0);
}

static void set_up(void)
{
	strcpy(top, "/tmp/obd-sandbox.XXXXXX");
	ck_assert(mkdtemp(top) && chmod(top, 0755) == 0);
	snprintf(inside, sizeof inside, "%s/in", top);
	snprintf(outside, sizeof outside, "%s/out", top);
	ck_assert(mkdir(inside, 0777) == 0 && mkdir(outside, 0777) == 0 && chmod(inside, 0777) == 0);
	put(inside, "file");
	put(outside, "file");
	ck_assert_int_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
}

/* By Check's own process, which is in no sandbox. */
static void sweep(void)
{
	ck_assert_int_eq(system("rm -rf /tmp/obd-sandbox.*"), 0);
}

/* errno of open, or 0. */
static int try_open(const char *dir, const char *name, int flags)
{
	char path[160];
	snprintf(path, sizeof path, "%s/%s", dir, name);
	int fd = open(path, flags, 0600);
	if (fd < 0)
		return errno;
	close(fd);
	return 0;
}

static int try_socket(int family)
{
	int fd = socket(family, SOCK_DGRAM, 0);
	if (fd < 0)
		return errno;
	close(fd);
	return 0;
}

static void enter(unsigned int rights)
{
	const struct obd_sandbox_path paths[] = {{inside, rights}, {"/no/such/place", OBD_SANDBOX_READ}};
	const struct obd_sandbox s = {.paths = paths, .npaths = OBD_ARRAY_SIZE(paths)};
	ck_assert_int_eq(obd_sandbox_enter(&s), 0);
}

START_TEST(files_are_those_below_the_paths)
{
	if (!obd_sandbox_limits_files()) {
		puts("skipped: files_are_those_below_the_paths: this kernel has no landlock");
		return;
	}
	enter(OBD_SANDBOX_READ);
	ck_assert_int_eq(try_open(inside, "file", O_RDONLY), 0);
	ck_assert_int_eq(try_open(inside, "file", O_WRONLY), EACCES);
	ck_assert_int_eq(try_open(inside, "new", O_WRONLY | O_CREAT), EACCES);
	ck_assert_int_eq(try_open(outside, "file", O_RDONLY), EACCES);
	ck_assert_int_eq(try_open("/etc", "passwd", O_RDONLY), EACCES);
}
END_TEST

START_TEST(writing_makes_files_but_nothing_else)
{
	char path[160], to[160];
	if (!obd_sandbox_limits_files()) {
		puts("skipped: writing_makes_files_but_nothing_else: this kernel has no landlock");
		return;
	}
	enter(OBD_SANDBOX_READ | OBD_SANDBOX_WRITE);
	ck_assert_int_eq(try_open(inside, "new", O_RDWR | O_CREAT | O_TRUNC), 0);
	snprintf(path, sizeof path, "%s/new", inside);
	snprintf(to, sizeof to, "%s/newer", inside);
	ck_assert_int_eq(rename(path, to), 0);
	ck_assert_int_eq(truncate(to, 5), 0);
	ck_assert_int_eq(unlink(to), 0);
	ck_assert(mkdir(path, 0700) < 0 && errno == EACCES);
	ck_assert(symlink("/etc/passwd", path) < 0 && errno == EACCES);
	snprintf(to, sizeof to, "%s/file", outside);
	ck_assert(unlink(to) < 0 && errno == EACCES);
	ck_assert(truncate(to, 0) < 0);
}
END_TEST

START_TEST(calls_that_nobody_needs_are_refused)
{
	const struct obd_sandbox s = {.internet = false};
	static char *const argv[] = {NULL};
	ck_assert_int_eq(obd_sandbox_enter(&s), 0);
	ck_assert(execv("/bin/true", argv) < 0 && errno == EPERM);
	ck_assert(syscall(SYS_unshare, 0) < 0 && errno == EPERM);
	ck_assert(syscall(SYS_mount, "", "", "", 0, NULL) < 0 && errno == EPERM);
	ck_assert(syscall(SYS_bpf, 0, NULL, 0) < 0 && errno == EPERM);
	ck_assert(syscall(SYS_open_by_handle_at, -1, NULL, 0) < 0 && errno == EPERM);
	ck_assert(syscall(SYS_io_uring_setup, 1, NULL) < 0 && errno == EPERM);
	ck_assert_int_eq(try_socket(AF_UNIX), 0);
	ck_assert_int_eq(try_socket(AF_INET), EPERM);
	ck_assert_int_eq(try_socket(AF_NETLINK), EPERM);
	ck_assert_int_eq(try_open(inside, "file", O_RDWR), 0);
	void *memory = malloc(1 << 20);
	ck_assert(getpid() > 0 && memory);
	free(memory);
}
END_TEST

START_TEST(internet_is_for_those_who_need_it)
{
	const struct obd_sandbox s = {.internet = true};
	ck_assert_int_eq(obd_sandbox_enter(&s), 0);
	ck_assert_int_eq(try_socket(AF_UNIX), 0);
	ck_assert_int_eq(try_socket(AF_INET), 0);
	int err = try_socket(AF_INET6);
	ck_assert(err == 0 || err == EAFNOSUPPORT);
	ck_assert_int_eq(try_socket(AF_PACKET), EPERM);
}
END_TEST

static uint64_t capabilities(void)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2];
	ck_assert(syscall(SYS_capget, &head, data) == 0);
	return (uint64_t)data[1].permitted << 32 | data[0].permitted;
}

START_TEST(another_user_with_one_capability)
{
	static const int caps[] = {CAP_DAC_READ_SEARCH};
	const struct obd_sandbox s = {.user = "nobody", .caps = caps, .ncaps = 1};
	if (geteuid() != 0) {
		puts("skipped: another_user_with_one_capability: not root");
		return;
	}
	const struct passwd *pw = getpwnam("nobody");
	ck_assert_ptr_nonnull(pw);
	uid_t uid = pw->pw_uid, real, effective, saved;
	ck_assert_int_eq(obd_sandbox_enter(&s), 0);
	ck_assert(getresuid(&real, &effective, &saved) == 0 && real == uid && effective == uid && saved == uid);
	ck_assert_int_eq(getgroups(0, NULL), 0);
	uint64_t have = capabilities();
#if defined(__SANITIZE_ADDRESS__)
	have &= ~(UINT64_C(1) << CAP_SYS_PTRACE);
#endif
	ck_assert_uint_eq(have, UINT64_C(1) << CAP_DAC_READ_SEARCH);
	ck_assert(setuid(0) < 0);
	ck_assert_int_eq(try_open(outside, "file", O_RDONLY), 0); /* root's, 0600 */
	ck_assert_int_eq(try_open(outside, "file", O_WRONLY), EACCES);
	ck_assert_int_eq(prctl(PR_CAPBSET_READ, CAP_SYS_ADMIN, 0, 0, 0), 0);
}
END_TEST

START_TEST(a_user_that_does_not_exist_changes_nothing)
{
	const struct obd_sandbox s = {.user = "no-such-user-here"};
	uid_t before = geteuid();
	ck_assert_int_eq(obd_sandbox_enter(&s), 0);
	ck_assert_uint_eq(geteuid(), before);
	ck_assert_uint_eq(capabilities() & (UINT64_C(1) << CAP_SYS_ADMIN), 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("sandbox");
	TCase *t = tcase_create("all");
	tcase_add_checked_fixture(t, set_up, NULL);
	tcase_add_unchecked_fixture(t, NULL, sweep);
	tcase_add_test(t, files_are_those_below_the_paths);
	tcase_add_test(t, writing_makes_files_but_nothing_else);
	tcase_add_test(t, calls_that_nobody_needs_are_refused);
	tcase_add_test(t, internet_is_for_those_who_need_it);
	tcase_add_test(t, another_user_with_one_capability);
	tcase_add_test(t, a_user_that_does_not_exist_changes_nothing);
	suite_add_tcase(s, t);
	SRunner *runner = srunner_create(s);
	if (!getenv("CK_FORK"))
		srunner_set_fork_status(runner, CK_FORK);
	srunner_run_all(runner, CK_NORMAL);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
