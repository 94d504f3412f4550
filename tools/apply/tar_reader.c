/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Two libarchive readers in a row: the first one takes the compression off ("raw" format), the second one reads the tar.
 * Between them the uncompressed bytes can be seen, which a single reader would not show.
 */
#include "tools/apply/tar_reader.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tools/apply/path.h"

enum { CHUNK_BYTES = 256 << 10, XATTRS_MAX = 4096 };

struct obd_tar_reader {
	int fd;
	const unsigned char *mem;
	size_t mem_left;
	struct archive *outer; /* compressed bytes in, plain bytes out */
	struct archive *tar;
	EVP_MD_CTX *sum_in;
	EVP_MD_CTX *sum_plain;
	struct obd_tar_xattr *xattrs;
	size_t xattrs_cap;
	bool any; /* some plain byte was seen */
	unsigned char in[CHUNK_BYTES];
	unsigned char plain[CHUNK_BYTES];
};

static la_ssize_t read_input(struct archive *a, void *ctx, const void **buf)
{
	struct obd_tar_reader *r = ctx;
	ssize_t n;
	if (r->mem) {
		*buf = r->mem;
		n = (ssize_t)r->mem_left;
		r->mem_left = 0;
		return n;
	}
	do
		n = read(r->fd, r->in, sizeof(r->in));
	while (n < 0 && errno == EINTR);
	if (n < 0) {
		archive_set_error(a, errno, "cannot read: %s", strerror(errno));
		return ARCHIVE_FATAL;
	}
	if (r->sum_in)
		EVP_DigestUpdate(r->sum_in, r->in, (size_t)n);
	*buf = r->in;
	return n;
}

static la_ssize_t read_plain(struct archive *a, void *ctx, const void **buf)
{
	struct obd_tar_reader *r = ctx;
	const la_ssize_t n = archive_read_data(r->outer, r->plain, sizeof(r->plain));
	if (n < 0) {
		const char *why = archive_error_string(r->outer);
		archive_set_error(a, EIO, "%s", why ? why : "cannot decompress");
		return ARCHIVE_FATAL;
	}
	r->any |= n > 0;
	if (r->sum_plain)
		EVP_DigestUpdate(r->sum_plain, r->plain, (size_t)n);
	*buf = r->plain;
	return n;
}

static int archive_fail(struct archive *a, struct obd_err *err)
{
	const char *why = a ? archive_error_string(a) : NULL;
	int code = a ? archive_errno(a) : ENOMEM;
	if (code <= 0 || code > 4095)
		code = EINVAL;
	return obd_err_set(err, code, "tar: %s", why ? why : strerror(code));
}

static EVP_MD_CTX *new_sum(void)
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	if (ctx && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) != 1) {
		EVP_MD_CTX_free(ctx);
		ctx = NULL;
	}
	return ctx;
}

static int open_outer(struct obd_tar_reader *r, struct obd_err *err)
{
	struct archive_entry *e;
	r->outer = archive_read_new();
	if (!r->outer)
		return obd_err_set(err, ENOMEM, "out of memory");
	if (archive_read_support_filter_gzip(r->outer) != ARCHIVE_OK ||
	    archive_read_support_filter_zstd(r->outer) != ARCHIVE_OK ||
	    archive_read_support_format_raw(r->outer) != ARCHIVE_OK ||
	    archive_read_open(r->outer, r, NULL, read_input, NULL) != ARCHIVE_OK)
		return archive_fail(r->outer, err);
	const int rc = archive_read_next_header(r->outer, &e);
	if (rc == ARCHIVE_EOF)
		return obd_err_set(err, EINVAL, "tar: no bytes at all");
	return rc == ARCHIVE_OK ? 0 : archive_fail(r->outer, err);
}

static int open_tar(struct obd_tar_reader *r, struct obd_err *err)
{
	r->tar = archive_read_new();
	if (!r->tar)
		return obd_err_set(err, ENOMEM, "out of memory");
	if (archive_read_support_format_tar(r->tar) != ARCHIVE_OK ||
	    archive_read_open(r->tar, r, NULL, read_plain, NULL) != ARCHIVE_OK)
		return archive_fail(r->tar, err);
	return 0;
}

static struct obd_tar_reader *open_reader(int fd, const void *mem, size_t len, bool digests, struct obd_err *err)
{
	struct obd_tar_reader *r = calloc(1, sizeof(*r));
	if (!r) {
		obd_err_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	r->fd = fd;
	r->mem = mem;
	r->mem_left = len;
	if (digests) {
		r->sum_in = new_sum();
		r->sum_plain = new_sum();
		if (!r->sum_in || !r->sum_plain) {
			obd_err_set(err, ENOMEM, "sha256 is not available");
			goto fail;
		}
	}
	if (open_outer(r, err) || open_tar(r, err))
		goto fail;
	return r;
fail:
	obd_tar_reader_close(r);
	return NULL;
}

struct obd_tar_reader *obd_tar_reader_open(int fd, bool digests, struct obd_err *err)
{
	return open_reader(fd, NULL, 0, digests, err);
}

struct obd_tar_reader *obd_tar_reader_open_mem(const void *buf, size_t len, struct obd_err *err)
{
	return open_reader(-1, len ? buf : "", len, false, err);
}

void obd_tar_reader_close(struct obd_tar_reader *r)
{
	if (!r)
		return;
	archive_read_free(r->tar);
	archive_read_free(r->outer);
	EVP_MD_CTX_free(r->sum_in);
	EVP_MD_CTX_free(r->sum_plain);
	free(r->xattrs);
	free(r);
}

/* By name; of equal names the one that stood later in the tar, which libarchive lists first, comes first. */
static int compare_xattrs(const void *pa, const void *pb)
{
	return strcmp(((const struct obd_tar_xattr *)pa)->name, ((const struct obd_tar_xattr *)pb)->name);
}

/* Insertion keeps the order of equals, which qsort does not promise. There are few. */
static void sort_xattrs(struct obd_tar_xattr *x, size_t n)
{
	for (size_t i = 1; i < n; i++) {
		const struct obd_tar_xattr one = x[i];
		size_t at = i;
		for (; at && compare_xattrs(&x[at - 1], &one) > 0; at--)
			x[at] = x[at - 1];
		x[at] = one;
	}
}

static int take_xattrs(struct obd_tar_reader *r, struct archive_entry *a, struct obd_tar_entry *e, struct obd_err *err)
{
	const int count = archive_entry_xattr_reset(a);
	size_t n = 0, kept = 0;
	if (count > XATTRS_MAX)
		return obd_err_set(err, E2BIG, "%d extended attributes, allowed: %d", count, XATTRS_MAX);
	if ((size_t)count > r->xattrs_cap) {
		void *p = reallocarray(r->xattrs, (size_t)count, sizeof(*r->xattrs));
		if (!p)
			return obd_err_set(err, ENOMEM, "out of memory");
		r->xattrs = p;
		r->xattrs_cap = (size_t)count;
	}
	while (n < (size_t)count) {
		struct obd_tar_xattr *x = &r->xattrs[n];
		if (archive_entry_xattr_next(a, &x->name, &x->value, &x->bytes) != ARCHIVE_OK)
			break;
		n += x->name != NULL;
	}
	sort_xattrs(r->xattrs, n);
	for (size_t i = 0; i < n; i++)
		if (!kept || compare_xattrs(&r->xattrs[kept - 1], &r->xattrs[i]))
			r->xattrs[kept++] = r->xattrs[i];
	e->xattrs = r->xattrs;
	e->nxattrs = kept;
	return 0;
}

static int take_ids(struct archive_entry *a, struct obd_tar_entry *e, struct obd_err *err)
{
	const int64_t uid = archive_entry_uid(a), gid = archive_entry_gid(a), bytes = archive_entry_size(a);
	if (uid < 0 || uid >= UINT32_MAX || gid < 0 || gid >= UINT32_MAX)
		return obd_err_set(err, ERANGE, "owner %lld:%lld, allowed: 0 to 4294967294", (long long)uid, (long long)gid);
	if (bytes < 0)
		return obd_err_set(err, ERANGE, "size %lld is negative", (long long)bytes);
	e->uid = (uint32_t)uid;
	e->gid = (uint32_t)gid;
	e->bytes = (uint64_t)bytes;
	return 0;
}

static int take_entry(struct obd_tar_reader *r, struct archive_entry *a, struct obd_tar_entry *e, struct obd_err *err)
{
	const char *hard = archive_entry_hardlink(a);
	*e = (struct obd_tar_entry){
		.name = archive_entry_pathname(a),
		.link = hard ? hard : archive_entry_symlink(a),
		.hard_link = hard != NULL,
		.mode = archive_entry_mode(a),
		.mtime_sec = archive_entry_mtime(a),
		.mtime_nsec = (uint32_t)archive_entry_mtime_nsec(a),
	};
	if (!e->name)
		return obd_err_set(err, EINVAL, "an entry whose name cannot be read");
	if (e->mtime_nsec > 999999999)
		e->mtime_nsec = 0;
	if (S_ISCHR(e->mode) || S_ISBLK(e->mode)) {
		e->major = (uint32_t)archive_entry_rdevmajor(a);
		e->minor = (uint32_t)archive_entry_rdevminor(a);
	}
	const int rc = hard ? 0 : take_ids(a, e, err);
	return rc ? rc : take_xattrs(r, a, e, err);
}

/* A warning means that libarchive went on with less than the tar says; names are the part that must be exact. */
static int judge_warning(struct archive *a, struct archive_entry *e, struct obd_err *err)
{
	char shown[200];
	const char *why = archive_error_string(a), *name = archive_entry_pathname(e);
	if (why && !strstr(why, "athname") && !strstr(why, "inkname"))
		return 0;
	return obd_err_set(err, EILSEQ, "%s: %s", obd_path_show(name ? name : "?", shown), why ? why : "damaged header");
}

int obd_tar_next(struct obd_tar_reader *r, struct obd_tar_entry *e, struct obd_err *err)
{
	struct archive_entry *a;
	int rc;
	do
		rc = archive_read_next_header(r->tar, &a);
	while (rc == ARCHIVE_RETRY);
	if (rc == ARCHIVE_EOF)
		return r->any ? 0 : obd_err_set(err, EINVAL, "tar: no bytes at all");
	if (rc == ARCHIVE_WARN) {
		rc = judge_warning(r->tar, a, err);
		if (rc)
			return rc;
	} else if (rc != ARCHIVE_OK) {
		return archive_fail(r->tar, err);
	}
	rc = take_entry(r, a, e, err);
	if (rc && e->name) {
		char shown[200];
		return obd_err_prefix(err, rc, "%s", obd_path_show(e->name, shown));
	}
	return rc ? rc : 1;
}

int obd_tar_data(struct obd_tar_reader *r, const void **buf, size_t *n, uint64_t *off, struct obd_err *err)
{
	la_int64_t at;
	int rc;
	do
		rc = archive_read_data_block(r->tar, buf, n, &at);
	while (rc == ARCHIVE_RETRY || (rc == ARCHIVE_OK && *n == 0));
	if (rc == ARCHIVE_EOF)
		return 0;
	if (rc != ARCHIVE_OK)
		return archive_fail(r->tar, err);
	if (at < 0)
		return obd_err_set(err, EINVAL, "tar: data at a negative offset");
	*off = (uint64_t)at;
	return 1;
}

static void put_hex(EVP_MD_CTX *ctx, char out[65])
{
	unsigned char sum[EVP_MAX_MD_SIZE];
	unsigned n = 0;
	out[0] = '\0';
	if (ctx && EVP_DigestFinal_ex(ctx, sum, &n) == 1)
		for (unsigned i = 0; i < 32 && i < n; i++)
			for (unsigned half = 0; half < 2; half++) {
				out[2 * i + half] = "0123456789abcdef"[half ? sum[i] & 15 : sum[i] >> 4];
				out[2 * i + half + 1] = '\0';
			}
}

int obd_tar_finish(struct obd_tar_reader *r, struct obd_tar_digests *out, struct obd_err *err)
{
	const void *buf;
	la_ssize_t n;
	while ((n = read_plain(r->outer, r, &buf)) > 0)
		;
	if (n < 0)
		return archive_fail(r->outer, err);
	/* What stands behind the compressed stream belongs to the input all the same. */
	while (!r->mem && (n = read_input(r->outer, r, &buf)) > 0)
		;
	if (n < 0)
		return archive_fail(r->outer, err);
	if (out) {
		put_hex(r->sum_in, out->tar);
		put_hex(r->sum_plain, out->plain);
	}
	return 0;
}
