/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "common/daemon/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pwd.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/base/log.h"
#include "common/base/util.h"

#if defined(__has_include)
#if __has_include(<linux/landlock.h>)
#include <linux/landlock.h>
#endif
#endif

/* LeakSanitizer stops the process by ptrace when it ends, and looks at its threads in /proc: it is off where files are limited.
 */
#if defined(__SANITIZE_ADDRESS__)
#define MAY_PTRACE 1
static int files_are_limited;
__attribute__((visibility("default"))) int __lsan_is_turned_off(void);
int __lsan_is_turned_off(void)
{
	return files_are_limited;
}
#define NOTE_FILES_ARE_LIMITED() (files_are_limited = 1)
#else
#define MAY_PTRACE 0
#define NOTE_FILES_ARE_LIMITED() ((void)0)
#endif

/* ---- user ---- */

static int become(const char *name, bool *changed)
{
	if (!name || !*name || geteuid() != 0)
		return 0;
	errno = 0;
	const struct passwd *pw = getpwnam(name);
	if (!pw) /* the supervisor has warned, once for all */
		return 0;
	if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0 || setgroups(0, NULL) < 0 ||
	    setresgid(pw->pw_gid, pw->pw_gid, pw->pw_gid) < 0 || setresuid(pw->pw_uid, pw->pw_uid, pw->pw_uid) < 0)
		return -errno;
	*changed = true;
	return 0;
}

/* ---- capabilities ---- */

static bool is_kept(const struct obd_sandbox *s, int cap)
{
	for (uint32_t i = 0; i < s->ncaps; i++)
		if (s->caps[i] == cap)
			return true;
	return MAY_PTRACE && cap == CAP_SYS_PTRACE;
}

/* While the user still may; without CAP_SETPCAP there is nothing to gain either. */
static void limit_bounds(const struct obd_sandbox *s)
{
	for (int cap = 0; cap < 64; cap++)
		if (!is_kept(s, cap) && prctl(PR_CAPBSET_READ, cap, 0, 0, 0) == 1)
			(void)prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
}

static int keep_caps(const struct obd_sandbox *s)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct have[2], keep[2] = {{0}};
	if (syscall(SYS_capget, &head, have) < 0)
		return -errno;
	for (int cap = 0; cap < 64; cap++) {
		uint32_t bit = UINT32_C(1) << (cap % 32);
		if (is_kept(s, cap))
			keep[cap / 32].permitted |= have[cap / 32].permitted & bit;
		keep[cap / 32].effective = keep[cap / 32].permitted;
	}
	(void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	return syscall(SYS_capset, &head, keep) < 0 ? -errno : 0;
}

/* ---- landlock ---- */

#if defined(LANDLOCK_ACCESS_FS_EXECUTE) && defined(SYS_landlock_create_ruleset)

#define RIGHTS_READ (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define RIGHTS_WRITE (LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_REMOVE_FILE)
#define RIGHTS_DIRS (LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_REMOVE_DIR)
#define RIGHTS_V1                                                                                               \
	(LANDLOCK_ACCESS_FS_EXECUTE | RIGHTS_READ | RIGHTS_WRITE | RIGHTS_DIRS | LANDLOCK_ACCESS_FS_MAKE_CHAR | \
	 LANDLOCK_ACCESS_FS_MAKE_SOCK | LANDLOCK_ACCESS_FS_MAKE_FIFO | LANDLOCK_ACCESS_FS_MAKE_BLOCK |          \
	 LANDLOCK_ACCESS_FS_MAKE_SYM)
#define RIGHT_REFER (UINT64_C(1) << 13)	   /* version 2; the header may be older */
#define RIGHT_TRUNCATE (UINT64_C(1) << 14) /* version 3 */

/* Rights on one path. Files take fewer than directories. */
static uint64_t rights_on(int fd, unsigned int rights, uint64_t handled)
{
	struct stat st;
	uint64_t r = RIGHTS_READ;
	if (rights & OBD_SANDBOX_WRITE)
		r |= RIGHTS_WRITE | RIGHT_REFER | RIGHT_TRUNCATE;
	if (rights & OBD_SANDBOX_DIRS)
		r |= RIGHTS_DIRS;
	if (fstat(fd, &st) == 0 && !S_ISDIR(st.st_mode))
		r &= LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE | RIGHT_TRUNCATE;
	return r & handled;
}

static int allow_path(int ruleset, const struct obd_sandbox_path *p, uint64_t handled)
{
	int fd = open(p->path, O_PATH | O_CLOEXEC);
	if (fd < 0)
		return 0;
	struct landlock_path_beneath_attr rule = {.allowed_access = rights_on(fd, p->rights, handled), .parent_fd = fd};
	int rc = syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) < 0 ? -errno : 0;
	close(fd);
	return rc;
}

static long landlock_version(void)
{
	return syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
}

static int limit_files(const struct obd_sandbox *s)
{
	long version = landlock_version();
	if (version < 1) {
		obd_warn("this kernel has no landlock: files are guarded by their permissions only");
		return 0;
	}
	/* Version 1 knows no rename between directories and forbids it; what we rename stays in its directory. */
	struct landlock_ruleset_attr attr = {.handled_access_fs = RIGHTS_V1 | (version >= 2 ? RIGHT_REFER : 0) |
								  (version >= 3 ? RIGHT_TRUNCATE : 0)};
	int ruleset = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof attr, 0);
	if (ruleset < 0)
		return -errno;
	int rc = 0;
	for (uint32_t i = 0; i < s->npaths && rc == 0; i++)
		rc = allow_path(ruleset, &s->paths[i], attr.handled_access_fs);
	if (rc == 0 && syscall(SYS_landlock_restrict_self, ruleset, 0) < 0)
		rc = -errno;
	close(ruleset);
	return rc;
}

#else
static long landlock_version(void)
{
	return -1;
}

static int limit_files(const struct obd_sandbox *s)
{
	(void)s;
	obd_warn("built without landlock: files are guarded by their permissions only");
	return 0;
}
#endif

bool obd_sandbox_limits_files(void)
{
	return landlock_version() >= 1;
}

/* ---- seccomp ---- */

#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCH AUDIT_ARCH_AARCH64
#endif

/* What no process of the group ever does, and what those who break into one would do next. */
static const int refused[] = {
	SYS_execve,
	SYS_execveat,
#if !MAY_PTRACE
	SYS_ptrace,
#endif
	SYS_process_vm_readv,
	SYS_process_vm_writev,
	SYS_kcmp,
	SYS_mount,
	SYS_umount2,
	SYS_pivot_root,
	SYS_chroot,
	SYS_unshare,
	SYS_setns,
	SYS_init_module,
	SYS_finit_module,
	SYS_delete_module,
	SYS_kexec_load,
	SYS_bpf,
	SYS_perf_event_open,
	SYS_userfaultfd,
	SYS_keyctl,
	SYS_add_key,
	SYS_request_key,
	SYS_open_by_handle_at,
	SYS_name_to_handle_at,
	SYS_swapon,
	SYS_swapoff,
	SYS_reboot,
	SYS_acct,
	SYS_quotactl,
	SYS_settimeofday,
	SYS_clock_settime,
	SYS_adjtimex,
	SYS_clock_adjtime,
	SYS_sethostname,
	SYS_setdomainname,
	SYS_personality,
	SYS_lookup_dcookie,
	SYS_syslog,
	SYS_vhangup,
#ifdef SYS_iopl
	SYS_iopl,
	SYS_ioperm,
#endif
#ifdef SYS_kexec_file_load
	SYS_kexec_file_load,
#endif
#ifdef SYS_io_uring_setup
	SYS_io_uring_setup,
#endif
#ifdef SYS_open_tree
	SYS_open_tree,
	SYS_move_mount,
	SYS_fsopen,
	SYS_fsmount,
#endif
#ifdef SYS_pidfd_getfd
	SYS_pidfd_getfd,
#endif
};

enum { REFUSED = OBD_ARRAY_SIZE(refused), HEAD = 5, TAIL = 9, PROGRAM_MAX = HEAD + REFUSED + TAIL };

#define OFF(member) ((uint32_t)offsetof(struct seccomp_data, member))
#define LOAD(member) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, OFF(member))
#define DENY BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM)
#define ALLOW BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

/*
 * Another architecture's numbers: refused. The numbers above: refused. socket() with a family that is not ours: refused; the
 * family is the low word of the first argument (little-endian machines only). All else goes through.
 */
#ifdef ARCH
static unsigned short write_filter(struct sock_filter *f, bool internet)
{
	static const uint32_t families[] = {AF_UNIX, AF_INET, AF_INET6, AF_NETLINK}; /* the last one for getaddrinfo */
	unsigned short n = 0, nfamilies = internet ? OBD_ARRAY_SIZE(families) : 1;
	f[n++] = (struct sock_filter)LOAD(arch);
	f[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCH, 1, 0);
	f[n++] = (struct sock_filter)DENY;
	f[n++] = (struct sock_filter)LOAD(nr);
	f[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 0x40000000, REFUSED + 1, 0); /* x32 */
	for (unsigned int i = 0; i < REFUSED; i++)
		f[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)refused[i], (uint8_t)(REFUSED - i),
						      0);
	f[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_socket, 2, 1);
	f[n++] = (struct sock_filter)DENY; /* where the refused ones jump to */
	f[n++] = (struct sock_filter)ALLOW;
	f[n++] = (struct sock_filter)LOAD(args[0]);
	for (unsigned short i = 0; i < nfamilies; i++)
		f[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, families[i], (uint8_t)(nfamilies - i), 0);
	f[n++] = (struct sock_filter)DENY;
	f[n++] = (struct sock_filter)ALLOW;
	return n;
}

static int filter_calls(const struct obd_sandbox *s)
{
	struct sock_filter filter[PROGRAM_MAX + 4];
	struct sock_fprog program = {.filter = filter, .len = write_filter(filter, s->internet)};
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) == 0)
		return 0;
	if (errno != EINVAL && errno != ENOSYS)
		return -errno;
	obd_warn("this kernel has no seccomp filters: system calls are not limited");
	return 0;
}
#else
static int filter_calls(const struct obd_sandbox *s)
{
	(void)s;
	obd_warn("no seccomp filter for this machine: system calls are not limited");
	return 0;
}
#endif

/* ---- all of it ---- */

int obd_sandbox_enter(const struct obd_sandbox *s)
{
	const char *what = "user";
	bool changed = false;
	limit_bounds(s);
	int rc = become(s->user, &changed);
	if (rc == 0) {
		what = "capabilities";
		rc = keep_caps(s);
	}
	if (rc == 0 && s->paths) {
		what = "files";
		rc = limit_files(s);
		NOTE_FILES_ARE_LIMITED();
	}
	if (rc == 0) {
		what = "system calls";
		rc = filter_calls(s);
	}
	if (rc < 0)
		obd_error("rights cannot be given up (%s): %s", what, strerror(-rc));
	else if (changed)
		obd_debug("runs as user %s", s->user);
	return rc;
}
