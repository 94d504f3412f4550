/* SPDX-License-Identifier: GPL-2.0-or-later */
/* overlaybd-create: an empty writable layer, or one with an empty file system. See overlaybd-create(1). */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/util.h"
#include "common/format/upper.h"
#include "tools/layer/tool.h"

static const char usage[] =
	"usage: overlaybd-create [options] DATA INDEX SIZE      append-only: two files\n"
	"       overlaybd-create -s [options] DATA [INDEX] SIZE sparse: INDEX stays empty\n"
	"       overlaybd-create --raw [options] DATA [INDEX] SIZE a plain image, no layer; INDEX is not made\n"
	"SIZE counts gigabytes, or has a suffix B, K, M, G, T.\n"
	"      --bytes              SIZE counts bytes\n"
	"  -u, --parent-uuid UUID   of the layer below (all zeros)\n"
	"      --uuid UUID          of the new layer (random)\n"
	"      --mkfs               make an ext4 file system in it\n"
	"      --mkfs-uuid UUID     of the file system (none)\n";

#define COPY_BYTES (1u << 20)
#define GRANULE_BYTES 4096u
/* What existing layers with a file system have; lists its features completely, so that no defaults of this machine count. */
#define EXT4_FEATURES                                                                                                         \
	"none,ext_attr,resize_inode,dir_index,sparse_super,sparse_super2,filetype,extent,64bit,flex_bg,large_file,huge_file," \
	"dir_nlink,extra_isize"

struct job {
	struct obd_upper_create_opts layer;
	bool mkfs, raw, bytes;
	const char *mkfs_uuid, *data, *index;
};

enum { OPT_UUID = TOOL_OPT_OWN, OPT_MKFS, OPT_MKFS_UUID, OPT_RAW, OPT_BYTES };

static const struct option options[] = {
	{"parent-uuid", required_argument, NULL, 'u'},
	{"uuid", required_argument, NULL, OPT_UUID},
	{"sparse", no_argument, NULL, 's'},
	{"mkfs", no_argument, NULL, OPT_MKFS},
	{"mkfs-uuid", required_argument, NULL, OPT_MKFS_UUID},
	{"raw", no_argument, NULL, OPT_RAW},
	{"bytes", no_argument, NULL, OPT_BYTES},
	TOOL_TURBO_OPTIONS,
	TOOL_COMMON_OPTIONS,
	{0},
};

static void parse_option(struct job *job, int c)
{
	switch (c) {
	case 'u':
		job->layer.parent_uuid = tool_uuid("-u", optarg);
		break;
	case 's':
		job->layer.sparse = true;
		break;
	case OPT_UUID:
		job->layer.uuid = tool_uuid("--uuid", optarg);
		break;
	case OPT_MKFS:
		job->mkfs = true;
		break;
	case OPT_MKFS_UUID:
		job->mkfs_uuid = tool_uuid("--mkfs-uuid", optarg);
		break;
	case OPT_RAW:
		job->raw = true;
		break;
	case OPT_BYTES:
		job->bytes = true;
		break;
	default:
		tool_common_option(c, usage);
	}
}

static void parse_names(struct job *job, int n, char **names)
{
	const bool two = job->layer.sparse || job->raw;
	if (n != 3 && !(two && n == 2))
		tool_usage("%d arguments given, expected %s; --help tells more", n, two ? "2 or 3" : "3");
	job->data = names[0];
	job->index = n == 3 ? names[1] : NULL;
	uint64_t *size = &job->layer.virtual_size;
	if (job->bytes)
		*size = tool_number("SIZE", names[n - 1], OBD_SECTOR_BYTES, UINT64_C(1) << 58);
	else if (!tool_size(names[n - 1], size))
		tool_usage("SIZE is \"%s\", allowed: gigabytes, or a suffix B, K, M, G, T", names[n - 1]);
	if (!*size || *size % OBD_SECTOR_BYTES || *size > UINT64_C(1) << 58)
		tool_usage("SIZE is \"%s\", allowed: a multiple of 512 bytes, above 0", names[n - 1]);
}

static _Noreturn void exec_mkfs(const char *image, const char *uuid)
{
	char seed[80];
	/* A time of 0 would mean now. */
	setenv("E2FSPROGS_FAKE_TIME", "1", 1);
	setenv("MKE2FS_CONFIG", "/dev/null", 1);
	setenv("PATH", "/usr/sbin:/sbin:/usr/bin:/bin", 1);
	/* Any seed but none, which would mean a random one. */
	snprintf(seed, sizeof(seed), "hash_seed=%s,discard", uuid ? uuid : "6f766572-6c61-4964-8264-2d6372656174");
	execlp("mke2fs", "mke2fs", "-q", "-F", "-b", "4096", "-I", "256", "-i", "16384", "-m", "5", "-O", EXT4_FEATURES, "-E",
	       seed, "-U", uuid ? uuid : "clear", image, (char *)NULL);
	fprintf(stderr, "mke2fs: %s\n", strerror(errno));
	_exit(127);
}

/* ext4 in the file behind fd, which may have no name. */
static int make_fs(int fd, const char *uuid, struct obd_err *err)
{
	char path[40];
	int status;
	pid_t child = fork();
	if (child < 0)
		return obd_err_set(err, errno, "fork: %s", strerror(errno));
	if (child == 0) {
		int own = dup(fd); /* without close-on-exec */
		snprintf(path, sizeof(path), "/proc/self/fd/%d", own);
		exec_mkfs(path, uuid);
	}
	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR)
			return obd_err_set(err, errno, "mke2fs: %s", strerror(errno));
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	if (WIFEXITED(status))
		return obd_err_set(err, EIO, "mke2fs ended with status %d", WEXITSTATUS(status));
	return obd_err_set(err, EIO, "mke2fs was ended by signal %d", WTERMSIG(status));
}

static bool is_zero(const char *p, size_t n)
{
	return p[0] == 0 && memcmp(p, p + 1, n - 1) == 0;
}

/* Writes what is not zero of the n bytes at `at`, in runs of granules. */
static int import_piece(struct obd_upper *u, const char *buf, size_t n, uint64_t at)
{
	int rc = 0;
	for (size_t i = 0, run; i < n && !rc; i += run) {
		const bool zero = is_zero(buf + i, (size_t)obd_min_u64(GRANULE_BYTES, n - i));
		for (run = 0; i + run < n; run += GRANULE_BYTES)
			if (is_zero(buf + i + run, (size_t)obd_min_u64(GRANULE_BYTES, n - i - run)) != zero)
				break;
		run = (size_t)obd_min_u64(run, n - i);
		rc = zero ? 0 : obd_upper_pwrite(u, buf + i, run, at + i);
	}
	return rc;
}

static int import(struct obd_file *raw, struct obd_upper *u, struct obd_err *err)
{
	const uint64_t bytes = obd_upper_size(u);
	char *buf = malloc(COPY_BYTES);
	int rc = buf ? 0 : -ENOMEM;
	for (uint64_t at = 0; !rc && at < bytes;) {
		uint64_t next;
		rc = obd_file_next_data(raw, at, &next);
		at = obd_align_down(obd_min_u64(next, bytes), GRANULE_BYTES);
		const size_t n = (size_t)obd_min_u64(COPY_BYTES, bytes - at);
		if (rc || !n || next >= bytes)
			break;
		rc = obd_file_pread_full(raw, buf, n, at);
		if (!rc)
			rc = import_piece(u, buf, n, at);
		at += n;
	}
	free(buf);
	if (!rc)
		rc = obd_upper_sync(u);
	return rc ? obd_err_set(err, -rc, "copying the file system: %s", strerror(-rc)) : 0;
}

/* A file without a name, as large as the device, with a file system. */
static struct obd_file *scratch_fs(const struct job *job, struct obd_err *err)
{
	FILE *t = tmpfile();
	int fd = t ? fcntl(fileno(t), F_DUPFD_CLOEXEC, 3) : -1;
	if (t)
		fclose(t);
	if (fd < 0 || ftruncate(fd, (off_t)job->layer.virtual_size) < 0) {
		obd_err_set(err, errno, "temporary image: %s", strerror(errno));
		if (fd >= 0)
			close(fd);
		return NULL;
	}
	struct obd_file *f = make_fs(fd, job->mkfs_uuid, err) ? NULL : obd_file_open_fd(fd, err);
	if (!f)
		close(fd);
	return f;
}

static int create_layer(const struct job *job, struct obd_err *err)
{
	struct obd_upper *u = NULL;
	struct obd_file *fs = job->mkfs ? scratch_fs(job, err) : NULL;
	if (job->mkfs && !fs)
		return -EIO;
	tool_hold_signals();
	int rc = obd_upper_create(job->data, job->index, &job->layer, err);
	if (!rc) {
		tool_guard(0, job->data);
		tool_guard(1, job->index);
	}
	tool_release_signals();
	if (!rc && fs) {
		rc = obd_upper_open(job->data, job->index, true, &u, err);
		if (!rc)
			rc = import(fs, u, err);
		obd_upper_close(u);
		if (rc) {
			unlink(job->data);
			if (job->index)
				unlink(job->index);
		}
	}
	obd_file_close(fs);
	return rc;
}

static int create_raw(const struct job *job, struct obd_err *err)
{
	int rc = 0;
	tool_hold_signals();
	int fd = open(job->data, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (fd >= 0)
		tool_guard(0, job->data);
	tool_release_signals();
	if (fd < 0)
		return obd_err_set(err, errno, "%s: %s", job->data, strerror(errno));
	if (ftruncate(fd, (off_t)job->layer.virtual_size) < 0)
		rc = obd_err_set(err, errno, "%s: %s", job->data, strerror(errno));
	if (!rc && job->mkfs)
		rc = make_fs(fd, job->mkfs_uuid, err);
	if (rc)
		unlink(job->data);
	close(fd);
	return rc;
}

int main(int argc, char **argv)
{
	struct job job = {0};
	struct obd_err err = {""};
	int c;
	tool_start("overlaybd-create");
	while ((c = getopt_long(argc, argv, "u:sv", options, NULL)) != -1)
		parse_option(&job, c);
	parse_names(&job, argc - optind, argv + optind);
	return tool_end(job.raw ? create_raw(&job, &err) : create_layer(&job, &err), &err);
}
