/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 *     new ──► temporary file ──finish──► fsync, rename to its name        (regular)
 *                              finish──► copied to where it goes          (stdout, pipes, devices)
 *             any error, a signal ──► the temporary file goes
 *
 * A signal may come at any moment: guard 0 names the temporary file.
 */
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/util.h"
#include "tools/layer/tool.h"

#define COPY_BYTES (1u << 20)

struct output {
	char *path; /* NULL: stdout */
	char *temp; /* NULL once it has its name, and when it never had one */
	bool stream;
	bool force;
	int fd;
	struct obd_file *fd_file;
	struct obd_file *file; /* what the caller writes to: fd_file, counted */
	EVP_MD_CTX *md;	       /* NULL: no digest wanted */
	uint64_t hashed;
	bool in_order;
};

static ssize_t counted_pread(void *ctx, void *buf, size_t n, uint64_t off)
{
	return obd_file_pread(((struct output *)ctx)->fd_file, buf, n, off);
}

static int counted_pwrite(void *ctx, const void *buf, size_t n, uint64_t off)
{
	struct output *o = ctx;
	if (o->md && o->in_order) {
		o->in_order = off == o->hashed && EVP_DigestUpdate(o->md, buf, n) == 1;
		o->hashed += n;
	}
	return obd_file_pwrite(o->fd_file, buf, n, off);
}

static int counted_size(void *ctx, uint64_t *bytes)
{
	return obd_file_size(((struct output *)ctx)->fd_file, bytes);
}

static const struct obd_file_ops counted_ops = {.pread = counted_pread, .pwrite = counted_pwrite, .size = counted_size};

/* Whether path takes a copy instead of a rename; an existing regular file without force is refused. */
static int look_at(struct output *o, const char *path, struct obd_err *err)
{
	struct stat st;
	if (strcmp(path, "-") == 0) {
		o->stream = true;
		return 0;
	}
	o->path = strdup(path);
	if (!o->path)
		return obd_err_set(err, ENOMEM, "out of memory");
	if (stat(path, &st) < 0)
		return errno == ENOENT ? 0 : obd_err_set(err, errno, "%s: %s", path, strerror(errno));
	if (S_ISDIR(st.st_mode))
		return obd_err_set(err, EISDIR, "%s: %s", path, strerror(EISDIR));
	o->stream = !S_ISREG(st.st_mode);
	if (!o->force && (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode)))
		return obd_err_set(err, EEXIST, "%s: exists already; -f replaces it", path);
	return 0;
}

/* Beside its final place; a stream's has no name at all. */
static int make_temp(struct output *o, struct obd_err *err)
{
	const char *tmpdir = getenv("TMPDIR");
	const mode_t mask = umask(0);
	char *name = NULL;
	umask(mask);
	if (asprintf(&name, "%s%s", o->stream ? (tmpdir && *tmpdir ? tmpdir : "/tmp") : o->path,
		     o->stream ? "/obd.XXXXXX" : ".XXXXXX") < 0)
		return obd_err_set(err, ENOMEM, "out of memory");
	int rc = 0;
	tool_hold_signals();
	o->fd = mkostemp(name, O_CLOEXEC);
	if (o->fd < 0)
		rc = obd_err_set(err, errno, "%s: %s", name, strerror(errno));
	else if (!o->stream)
		tool_guard(0, o->temp = name);
	else
		unlink(name);
	tool_release_signals();
	if (!o->temp)
		free(name);
	else if (fchmod(o->fd, 0666 & ~mask) < 0)
		rc = obd_err_set(err, errno, "%s: %s", o->temp, strerror(errno));
	return rc;
}

struct output *output_new(const char *path, bool force, struct obd_err *err)
{
	struct output *o = calloc(1, sizeof(*o));
	if (!o) {
		obd_err_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	o->fd = -1;
	o->force = force;
	o->in_order = true;
	if (look_at(o, path, err) || make_temp(o, err))
		goto fail;
	o->fd_file = obd_file_open_fd(o->fd, err);
	if (!o->fd_file)
		goto fail;
	o->file = obd_file_new(&counted_ops, o);
	if (o->file)
		return o;
	obd_err_set(err, ENOMEM, "out of memory");
fail:
	output_free(o);
	return NULL;
}

struct obd_file *output_file(struct output *out)
{
	return out->file;
}

int output_want_digest(struct output *out)
{
	out->md = EVP_MD_CTX_new();
	return out->md && EVP_DigestInit_ex(out->md, EVP_sha256(), NULL) == 1 ? 0 : -ENOMEM;
}

/* Hands every piece of the file to take. */
static int each_piece(struct output *o, int (*take)(struct output *o, const void *buf, size_t n, int to), int to)
{
	char *buf = malloc(COPY_BYTES);
	int rc = buf ? 0 : -ENOMEM;
	for (uint64_t at = 0; !rc;) {
		ssize_t n = obd_file_pread(o->fd_file, buf, COPY_BYTES, at);
		if (n <= 0) {
			rc = (int)n;
			break;
		}
		rc = take(o, buf, (size_t)n, to);
		at += (uint64_t)n;
	}
	free(buf);
	return rc;
}

static int hash_piece(struct output *o, const void *buf, size_t n, int to)
{
	(void)to;
	return EVP_DigestUpdate(o->md, buf, n) == 1 ? 0 : -EIO;
}

static int copy_piece(struct output *o, const void *buf, size_t n, int to)
{
	const char *p = buf;
	(void)o;
	while (n) {
		ssize_t r = write(to, p, n);
		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			return r < 0 ? -errno : -EIO;
		p += r;
		n -= (size_t)r;
	}
	return 0;
}

static int make_digest(struct output *o, char digest[72])
{
	unsigned char sum[EVP_MAX_MD_SIZE];
	unsigned len = 0;
	int rc = 0;
	if (!o->in_order) {
		rc = EVP_DigestInit_ex(o->md, EVP_sha256(), NULL) == 1 ? 0 : -EIO;
		if (!rc)
			rc = each_piece(o, hash_piece, -1);
	}
	if (!rc && EVP_DigestFinal_ex(o->md, sum, &len) != 1)
		rc = -EIO;
	strcpy(digest, "sha256:");
	for (unsigned i = 0; i < len && i < 32; i++)
		snprintf(digest + 7 + 2 * i, 3, "%02x", sum[i]);
	return rc;
}

static int copy_out(struct output *o)
{
	int rc, fd = o->path ? open(o->path, O_WRONLY | O_CLOEXEC) : STDOUT_FILENO;
	if (fd < 0)
		return -errno;
	rc = each_piece(o, copy_piece, fd);
	if (o->path && close(fd) < 0 && !rc)
		rc = -errno;
	return rc;
}

/* Gives the temporary file its name; another file that took it meanwhile is left alone unless force. */
static int take_name(struct output *o)
{
	if (fsync(o->fd) < 0)
		return -errno;
	int rc = renameat2(AT_FDCWD, o->temp, AT_FDCWD, o->path, o->force ? 0 : RENAME_NOREPLACE);
	if (rc < 0 && errno == EINVAL)
		rc = rename(o->temp, o->path);
	if (rc < 0)
		return -errno;
	tool_guard(0, NULL);
	free(o->temp);
	o->temp = NULL;
	return 0;
}

int output_finish(struct output *out, char digest[72], struct obd_err *err)
{
	const char *name = out->path ? out->path : "standard output";
	int rc = out->md && digest ? make_digest(out, digest) : 0;
	if (!rc)
		rc = out->stream ? copy_out(out) : take_name(out);
	return rc ? obd_err_set(err, -rc, "%s: %s", name, strerror(-rc)) : 0;
}

void output_free(struct output *out)
{
	if (!out)
		return;
	if (out->temp) {
		unlink(out->temp);
		tool_guard(0, NULL);
	}
	obd_file_close(out->file);
	if (out->fd_file)
		obd_file_close(out->fd_file);
	else if (out->fd >= 0)
		close(out->fd);
	EVP_MD_CTX_free(out->md);
	free(out->temp);
	free(out->path);
	free(out);
}
