/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "supervisor/record.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/crc32c.h"
#include "common/base/util.h"

#define TITLE "overlaybd tgtd record 1"
#define FILE_BYTES_MAX (64 << 20)

static const struct {
	uint32_t mode;
	const char *name;
} modes[] = {{OBD_TGTADM_SYS, "sys"},
	     {OBD_TGTADM_TARGET, "target"},
	     {OBD_TGTADM_LUN, "logicalunit"},
	     {OBD_TGTADM_PORTAL, "portal"},
	     {OBD_TGTADM_ACCOUNT, "account"}};

static const struct {
	uint32_t op;
	const char *name;
} ops[] = {{OBD_TGTADM_NEW, "new"}, {OBD_TGTADM_BIND, "bind"}, {OBD_TGTADM_UPDATE, "update"}};

/* ---- entries ---- */

void obd_record_init(struct obd_record *r)
{
	obd_list_init(&r->entries);
	r->count = 0;
}

static void drop(struct obd_record *r, struct obd_record_entry *e)
{
	obd_list_remove(&e->link);
	r->count--;
	free(e->text);
	free(e);
}

void obd_record_clear(struct obd_record *r)
{
	OBD_LIST_FOREACH_SAFE (it, &r->entries)
		drop(r, OBD_LIST_ENTRY(it, struct obd_record_entry, link));
}

static int add(struct obd_record *r, const struct obd_tgtadm_head *head, const char *text)
{
	if (r->count >= OBD_RECORD_ENTRIES_MAX)
		return -ENOSPC;
	struct obd_record_entry *e = calloc(1, sizeof *e);
	if (!e || !(e->text = strdup(text))) {
		free(e);
		return -ENOMEM;
	}
	e->head = *head;
	e->head.sid = 0;
	e->head.force = e->head.unused = 0;
	e->head.bytes = (uint32_t)(sizeof e->head + (*text ? strlen(text) + 1 : 0));
	e->applied = true;
	obd_list_push_back(&r->entries, &e->link);
	r->count++;
	return 0;
}

/* ---- texts: [WORD ]key=value,key=value ---- */

static const char *skip_word(const char *text)
{
	const char *space = strchr(text, ' ');
	const char *equal = strchr(text, '=');
	return space && (!equal || space < equal) ? space + 1 : text;
}

/* Finds "key=" where a key begins. */
static const char *find_key(const char *text, const char *key, size_t len)
{
	for (const char *p = skip_word(text); p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL)
		if (strncmp(p, key, len) == 0 && p[len] == '=')
			return p + len + 1;
	return NULL;
}

/* Has `newer` every key of `older`? */
static bool overrules(const char *newer, const char *older)
{
	for (const char *p = skip_word(older); p && *p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL) {
		size_t len = strcspn(p, "=,");
		if (len && !find_key(newer, p, len))
			return false;
	}
	return true;
}

bool obd_record_value(const struct obd_record_entry *e, const char *key, char *value, size_t size)
{
	const char *p = find_key(e->text, key, strlen(key));
	if (!p)
		return false;
	snprintf(value, size, "%.*s", (int)strcspn(p, ","), p);
	return true;
}

static bool same_user(const char *a, const char *b)
{
	const char *x = find_key(a, "user", 4), *y = find_key(b, "user", 4);
	return x && y && strcspn(x, ",") == strcspn(y, ",") && strncmp(x, y, strcspn(x, ",")) == 0;
}

/* ---- what a request does to the record ---- */

typedef bool match_fn(const struct obd_record_entry *e, const struct obd_tgtadm_head *head, const char *text);

static bool of_target(const struct obd_record_entry *e, const struct obd_tgtadm_head *head, const char *text)
{
	(void)text;
	return e->head.tid == head->tid && e->head.mode != OBD_TGTADM_SYS && e->head.mode != OBD_TGTADM_PORTAL &&
	       !(e->head.mode == OBD_TGTADM_ACCOUNT && e->head.op == OBD_TGTADM_NEW);
}

static bool of_lun(const struct obd_record_entry *e, const struct obd_tgtadm_head *head, const char *text)
{
	(void)text;
	return e->head.mode == OBD_TGTADM_LUN && e->head.tid == head->tid && e->head.lun == head->lun;
}

static bool of_user(const struct obd_record_entry *e, const struct obd_tgtadm_head *head, const char *text)
{
	(void)head;
	return e->head.mode == OBD_TGTADM_ACCOUNT && same_user(e->text, text);
}

static bool is_new_user(const struct obd_record_entry *e, const struct obd_tgtadm_head *head, const char *text)
{
	return e->head.op == OBD_TGTADM_NEW && of_user(e, head, text);
}

/* The bind of this unbind, the portal of this delete; and doubles of either. */
static bool is_twin(const struct obd_record_entry *e, const struct obd_tgtadm_head *head, const char *text)
{
	uint32_t op = head->mode == OBD_TGTADM_PORTAL ? OBD_TGTADM_NEW : OBD_TGTADM_BIND;
	return e->head.mode == head->mode && e->head.op == op && e->head.tid == head->tid &&
	       e->head.outgoing == head->outgoing && e->head.host_no == head->host_no && strcmp(e->text, text) == 0;
}

static bool is_overruled(const struct obd_record_entry *e, const struct obd_tgtadm_head *head, const char *text)
{
	return e->head.mode == head->mode && e->head.op == OBD_TGTADM_UPDATE && e->head.tid == head->tid &&
	       e->head.lun == head->lun && overrules(text, e->text);
}

/* The rules of record.h: what goes, and whether the request itself stays. */
static const struct rule {
	uint32_t mode, op;
	match_fn *goes;
	bool stays;
} rules[] = {
	{OBD_TGTADM_TARGET, OBD_TGTADM_NEW, of_target, true},	    {OBD_TGTADM_TARGET, OBD_TGTADM_DELETE, of_target, false},
	{OBD_TGTADM_TARGET, OBD_TGTADM_BIND, is_twin, true},	    {OBD_TGTADM_TARGET, OBD_TGTADM_UNBIND, is_twin, false},
	{OBD_TGTADM_TARGET, OBD_TGTADM_UPDATE, is_overruled, true}, {OBD_TGTADM_LUN, OBD_TGTADM_NEW, of_lun, true},
	{OBD_TGTADM_LUN, OBD_TGTADM_DELETE, of_lun, false},	    {OBD_TGTADM_LUN, OBD_TGTADM_UPDATE, is_overruled, true},
	{OBD_TGTADM_PORTAL, OBD_TGTADM_NEW, is_twin, true},	    {OBD_TGTADM_PORTAL, OBD_TGTADM_DELETE, is_twin, false},
	{OBD_TGTADM_ACCOUNT, OBD_TGTADM_NEW, is_new_user, true},    {OBD_TGTADM_ACCOUNT, OBD_TGTADM_DELETE, of_user, false},
	{OBD_TGTADM_ACCOUNT, OBD_TGTADM_BIND, is_twin, true},	    {OBD_TGTADM_ACCOUNT, OBD_TGTADM_UNBIND, is_twin, false},
	{OBD_TGTADM_SYS, OBD_TGTADM_UPDATE, is_overruled, true},
};

static const struct rule *rule_of(const struct obd_tgtadm_head *head)
{
	for (size_t i = 0; i < OBD_ARRAY_SIZE(rules); i++)
		if (rules[i].mode == head->mode && rules[i].op == head->op)
			return &rules[i];
	return NULL;
}

bool obd_record_is_change(const struct obd_tgtadm_head *head)
{
	return rule_of(head) != NULL;
}

int obd_record_note(struct obd_record *r, const struct obd_tgtadm_head *head, const char *text)
{
	const struct rule *rule = rule_of(head);
	if (!rule)
		return 0;
	OBD_LIST_FOREACH_SAFE (it, &r->entries) {
		struct obd_record_entry *e = OBD_LIST_ENTRY(it, struct obd_record_entry, link);
		if (rule->goes(e, head, text))
			drop(r, e);
	}
	return rule->stays ? add(r, head, text) : 0;
}

struct obd_record_entry *obd_record_lun(const struct obd_record *r, int32_t tid, uint64_t lun)
{
	OBD_LIST_FOREACH (it, &r->entries) {
		struct obd_record_entry *e = OBD_LIST_ENTRY(it, struct obd_record_entry, link);
		if (e->head.mode == OBD_TGTADM_LUN && e->head.op == OBD_TGTADM_NEW && e->head.tid == tid && e->head.lun == lun)
			return e;
	}
	return NULL;
}

/* ---- writing ---- */

/* Text of a line; what could end a word is escaped. "-" stands for nothing. */
static void put_text(FILE *f, const char *text)
{
	if (!*text || strcmp(text, "-") == 0)
		fputs(*text ? "%2d" : "-", f);
	else
		for (const unsigned char *p = (const unsigned char *)text; *p; p++)
			fprintf(f, *p > ' ' && *p < 0x7f && *p != '%' ? "%c" : "%%%02x", *p);
}

static const char *mode_name(uint32_t mode)
{
	for (size_t i = 0; i < OBD_ARRAY_SIZE(modes); i++)
		if (modes[i].mode == mode)
			return modes[i].name;
	return "?";
}

static const char *op_name(uint32_t op)
{
	for (size_t i = 0; i < OBD_ARRAY_SIZE(ops); i++)
		if (ops[i].op == op)
			return ops[i].name;
	return "?";
}

static void put_entry(FILE *f, const struct obd_record_entry *e)
{
	const struct obd_tgtadm_head *h = &e->head;
	char lld[OBD_TGTADM_LLD_BYTES + 1];
	snprintf(lld, sizeof lld, "%.*s", OBD_TGTADM_LLD_BYTES, h->lld);
	fprintf(f, "%s %s %" PRId32 " %" PRIu64 " %" PRIu32 " %" PRIu32 " %" PRIu32 " %" PRIu32 " ", mode_name(h->mode),
		op_name(h->op), h->tid, h->lun, h->cid, h->host_no, h->device_type, h->outgoing);
	put_text(f, lld);
	fputc(' ', f);
	put_text(f, e->text);
	fputc('\n', f);
}

/* The whole file in memory. 0 or -ENOMEM. */
static int print(const struct obd_record *r, char **out, size_t *bytes)
{
	FILE *f = open_memstream(out, bytes);
	if (!f)
		return -ENOMEM;
	fputs(TITLE "\n", f);
	OBD_LIST_FOREACH (it, &r->entries)
		put_entry(f, OBD_LIST_ENTRY(it, struct obd_record_entry, link));
	if (fflush(f) == 0)
		fprintf(f, "end %" PRIu32 " %08" PRIx32 "\n", r->count, obd_crc32c_raw(0, *out, *bytes));
	bool bad = ferror(f);
	if (fclose(f) == 0 && !bad)
		return 0;
	free(*out);
	return -ENOMEM;
}

static int write_all(int fd, const char *data, size_t len)
{
	while (len > 0) {
		ssize_t n = write(fd, data, len);
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0) {
			data += n;
			len -= (size_t)n;
		}
	}
	return fsync(fd) < 0 ? -errno : 0;
}

static int replace(int dir, const char *data, size_t len)
{
	int fd = openat(dir, OBD_RECORD_NAME ".new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	int rc = fchmod(fd, 0600) < 0 ? -errno : write_all(fd, data, len);
	close(fd);
	if (rc == 0 && renameat(dir, OBD_RECORD_NAME ".new", dir, OBD_RECORD_NAME) < 0)
		rc = -errno;
	if (rc == 0 && fsync(dir) < 0 && errno != EINVAL)
		rc = -errno;
	if (rc < 0)
		unlinkat(dir, OBD_RECORD_NAME ".new", 0);
	return rc;
}

int obd_record_save(const struct obd_record *r, const char *dir, struct obd_err *err)
{
	char *data = NULL;
	size_t len = 0;
	int rc = print(r, &data, &len);
	int fd = rc < 0 ? -1 : open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (rc == 0)
		rc = fd < 0 ? -errno : replace(fd, data, len);
	if (fd >= 0)
		close(fd);
	free(data);
	return rc < 0 ? obd_err_set(err, -rc, "%s/" OBD_RECORD_NAME ": %s", dir, strerror(-rc)) : 0;
}

/* ---- reading ---- */

static int hex(char c)
{
	return isdigit((unsigned char)c) ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Undoes put_text in place. */
static bool take_text(char *word)
{
	char *to = word;
	if (strcmp(word, "-") == 0) {
		*word = '\0';
		return true;
	}
	for (const char *p = word; *p; p++) {
		if (*p == '%') {
			if (hex(p[1]) < 0 || hex(p[2]) < 0 || !(hex(p[1]) | hex(p[2])))
				return false;
			*to++ = (char)(hex(p[1]) << 4 | hex(p[2]));
			p += 2;
		} else {
			*to++ = *p;
		}
	}
	*to = '\0';
	return true;
}

static bool take_number(char **rest, int64_t min, uint64_t max, uint64_t *out)
{
	char *word = strsep(rest, " "), *end;
	if (!word || !*word)
		return false;
	errno = 0;
	if (word[0] == '-') {
		long long v = strtoll(word, &end, 10);
		*out = (uint64_t)v;
		return !errno && !*end && v >= min;
	}
	*out = strtoull(word, &end, 10);
	return !errno && isdigit((unsigned char)word[0]) && !*end && *out <= max;
}

static bool take_names(char **rest, struct obd_tgtadm_head *h)
{
	const char *mode = strsep(rest, " "), *op = *rest ? strsep(rest, " ") : "";
	h->mode = h->op = UINT32_MAX;
	for (size_t i = 0; i < OBD_ARRAY_SIZE(modes); i++)
		if (strcmp(modes[i].name, mode) == 0)
			h->mode = modes[i].mode;
	for (size_t i = 0; i < OBD_ARRAY_SIZE(ops); i++)
		if (strcmp(ops[i].name, op) == 0)
			h->op = ops[i].op;
	const struct rule *rule = rule_of(h);
	return rule && rule->stays;
}

static int take_line(struct obd_record *r, char *line)
{
	struct obd_tgtadm_head h = {0};
	uint64_t tid, cid, host, type, outgoing;
	char *rest = line;
	if (!take_names(&rest, &h) || !take_number(&rest, -1, INT32_MAX, &tid) || !take_number(&rest, 0, UINT64_MAX, &h.lun) ||
	    !take_number(&rest, 0, UINT32_MAX, &cid) || !take_number(&rest, 0, UINT32_MAX, &host) ||
	    !take_number(&rest, 0, UINT32_MAX, &type) || !take_number(&rest, 0, UINT32_MAX, &outgoing))
		return -EINVAL;
	h.tid = (int32_t)tid;
	h.cid = (uint32_t)cid;
	h.host_no = (uint32_t)host;
	h.device_type = (uint32_t)type;
	h.outgoing = (uint32_t)outgoing;
	char *lld = rest ? strsep(&rest, " ") : NULL;
	if (!lld || !rest || !take_text(lld) || !take_text(rest) || strlen(lld) > sizeof h.lld ||
	    strlen(rest) >= OBD_TGTADM_REQUEST_MAX - sizeof h)
		return -EINVAL;
	memcpy(h.lld, lld, strlen(lld));
	return add(r, &h, rest);
}

/* The last line must say how many there are and what their sum is. */
static int check_end(const char *data, const char *end_line, uint32_t count)
{
	char want[64];
	snprintf(want, sizeof want, "end %" PRIu32 " %08" PRIx32 "\n", count,
		 obd_crc32c_raw(0, data, (size_t)(end_line - data)));
	return strcmp(end_line, want) == 0 ? 0 : -EINVAL;
}

static uint32_t count_lines(const char *data, const char *end)
{
	uint32_t n = 0;
	for (const char *p = data; p < end; p++)
		n += *p == '\n';
	return n;
}

static int parse(struct obd_record *r, char *data)
{
	char *end = NULL;
	for (char *p = data; (p = strstr(p, "\nend ")) != NULL; p++)
		end = p + 1;
	if (strncmp(data, TITLE "\n", strlen(TITLE) + 1) != 0 || !end)
		return -EINVAL;
	int rc = check_end(data, end, count_lines(data, end) - 1);
	*end = '\0';
	char *rest = strchr(data, '\n') + 1, *line;
	while (rc == 0 && (line = strsep(&rest, "\n")) != NULL && *line)
		rc = take_line(r, line);
	OBD_LIST_FOREACH (it, &r->entries)
		OBD_LIST_ENTRY(it, struct obd_record_entry, link)->applied = false;
	return rc;
}

/* The file's bytes with a NUL behind them, in *out. */
static int read_file(int fd, char **out)
{
	struct stat st;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || st.st_size > FILE_BYTES_MAX)
		return -EINVAL;
	char *data = calloc(1, (size_t)st.st_size + 1);
	if (!data)
		return -ENOMEM;
	ssize_t n = pread(fd, data, (size_t)st.st_size, 0);
	if (n != st.st_size || memchr(data, '\0', (size_t)st.st_size)) {
		free(data);
		return n < 0 ? -errno : -EINVAL;
	}
	*out = data;
	return 0;
}

int obd_record_load(struct obd_record *r, const char *dir, struct obd_err *err)
{
	char path[8192], *data = NULL;
	snprintf(path, sizeof path, "%s/" OBD_RECORD_NAME, dir);
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0 && errno == ENOENT)
		return 0;
	int rc = fd < 0 ? -errno : read_file(fd, &data);
	if (fd >= 0)
		close(fd);
	if (rc == 0)
		rc = parse(r, data);
	free(data);
	if (rc == 0)
		return 0;
	obd_record_clear(r);
	return obd_err_set(err, -rc, "%s: %s", path, rc == -EINVAL ? "is damaged" : strerror(-rc));
}
