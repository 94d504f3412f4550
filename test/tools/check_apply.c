/* SPDX-License-Identifier: GPL-2.0-or-later */
/* overlaybd-apply's parts: names and whiteouts, large directories, what a layer keeps of its own. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tools/apply/apply.h"
#include "tools/apply/ext4_impl.h"
#include "tools/apply/path.h"

enum { IMAGE_BYTES = 64 << 20 };

/* ---- names ------------------------------------------------------------------------------------------------------------- */

START_TEST(paths_become_clean)
{
	static const struct {
		const char *in, *out;
	} cases[] = {
		{"a", "a"},
		{"./a/b/", "a/b"},
		{"/a//b", "a/b"},
		{".", ""},
		{"./", ""},
		{"/", ""},
		{"..", ""},
		{"../../x", "x"},
		{"a/../../../etc/passwd", "etc/passwd"},
		{"a/./b/../c", "a/c"},
		{"a/b/..", "a"},
		{"...", "..."},
		{"a/..b", "a/..b"},
		{"/../.wh.x", ".wh.x"},
	};
	char out[PATH_MAX];
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		ck_assert_int_eq(obd_path_clean(cases[i].in, out, NULL), 0);
		ck_assert_str_eq(out, cases[i].out);
	}
}
END_TEST

START_TEST(paths_have_bounds)
{
	char in[PATH_MAX + 8], out[PATH_MAX];
	ck_assert_int_eq(obd_path_clean("", out, NULL), -EINVAL);
	memset(in, 'x', sizeof(in));
	in[255] = '\0';
	ck_assert_int_eq(obd_path_clean(in, out, NULL), 0);
	in[255] = 'x';
	in[256] = '\0';
	ck_assert_int_eq(obd_path_clean(in, out, NULL), -ENAMETOOLONG);
	for (size_t i = 0; i < sizeof(in); i++)
		in[i] = i % 2 ? '/' : 'x';
	in[PATH_MAX - 1] = '\0';
	ck_assert_int_eq(obd_path_clean(in, out, NULL), 0);
	ck_assert_uint_eq(strlen(out), PATH_MAX - 1);
	in[PATH_MAX - 1] = '/';
	in[PATH_MAX + 1] = '\0';
	ck_assert_int_eq(obd_path_clean(in, out, NULL), -ENAMETOOLONG);
}
END_TEST

START_TEST(whiteouts_are_told_apart)
{
	static const struct {
		const char *in, *out;
		int rc;
		enum obd_name_kind kind;
	} cases[] = {
		{"a/b", "a/b", 0, OBD_NAME_ENTRY},
		{"", "", 0, OBD_NAME_ENTRY},
		{"a/.wh.b", "a/b", 0, OBD_NAME_WHITEOUT},
		{".wh.b", "b", 0, OBD_NAME_WHITEOUT},
		{".wh.wh.b", "wh.b", 0, OBD_NAME_WHITEOUT},
		{".wh..b", ".b", 0, OBD_NAME_WHITEOUT},
		{"a/.wh..wh..opq", "a", 0, OBD_NAME_OPAQUE},
		{".wh..wh..opq", "", 0, OBD_NAME_OPAQUE},
		{".wh..wh.aufs", ".wh..wh.aufs", 0, OBD_NAME_IGNORE},
		{".wh..wh.plnk/7.8", ".wh..wh.plnk/7.8", 0, OBD_NAME_IGNORE},
		{"a/.wh.", NULL, -EINVAL, OBD_NAME_ENTRY},
		{"a/.wh..", NULL, -EINVAL, OBD_NAME_ENTRY},
		{"a/.wh...", NULL, -EINVAL, OBD_NAME_ENTRY},
		{".wh.a/b", NULL, -EINVAL, OBD_NAME_ENTRY},
		{"a.wh.b", "a.wh.b", 0, OBD_NAME_ENTRY},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char path[PATH_MAX];
		enum obd_name_kind kind;
		strcpy(path, cases[i].in);
		ck_assert_int_eq(obd_path_classify(path, &kind, NULL), cases[i].rc);
		if (cases[i].rc)
			continue;
		ck_assert_int_eq(kind, cases[i].kind);
		ck_assert_str_eq(path, cases[i].out);
	}
}
END_TEST

START_TEST(messages_show_names_harmlessly)
{
	char out[200], in[300];
	ck_assert_str_eq(obd_path_show("a\n\033b", out), "a??b");
	memset(in, 'y', sizeof(in) - 1);
	in[sizeof(in) - 1] = '\0';
	ck_assert_uint_eq(strlen(obd_path_show(in, out)), 198);
}
END_TEST

/* ---- file systems in memory -------------------------------------------------------------------------------------------- */

static struct obd_file *image;
static struct obd_ext4 *fs;
static struct obd_err err;

static struct obd_file *new_image(void)
{
	struct obd_file *f = obd_file_new_mem(IMAGE_BYTES);
	ck_assert_ptr_nonnull(f);
	ck_assert_int_eq(obd_file_pwrite(f, "", 1, IMAGE_BYTES - 1), 0);
	return f;
}

static void reopen(void)
{
	if (fs)
		ck_assert_msg(obd_ext4_finish(fs, NULL, NULL, &err) == 0, "%s", err.msg);
	obd_ext4_close(fs);
	ck_assert_msg(obd_ext4_open(image, &fs, &err) == 0, "%s", err.msg);
}

static void set_up(void)
{
	image = new_image();
	fs = NULL;
	ck_assert_msg(obd_ext4_make(image, &err) == 0, "%s", err.msg);
	reopen();
}

static void tear_down(void)
{
	obd_ext4_close(fs);
	obd_file_close(image);
}

static int no_data(void *ctx, const void **buf, size_t *n, uint64_t *off, struct obd_err *e)
{
	(void)ctx;
	(void)buf;
	(void)n;
	(void)off;
	(void)e;
	return 0;
}

static int put(const char *path, mode_t mode)
{
	const struct obd_tar_entry e = {.name = path, .mode = mode, .link = "target"};
	return obd_ext4_put(fs, path, &e, no_data, NULL, &err);
}

static int put_link(const char *path, const char *target)
{
	const struct obd_tar_entry e = {.name = path, .hard_link = true, .link = target};
	return obd_ext4_put(fs, path, &e, no_data, NULL, &err);
}

/* The inode at the path; 0: there is none. Only directories on the way. */
static uint32_t at(const char *path)
{
	uint32_t ino = EXT2_ROOT_INO;
	while (*path) {
		struct obd_ext4_dir *d;
		const size_t n = strcspn(path, "/");
		ck_assert_msg(obd_ext4_dir_get(fs, ino, &d, &err) == 0, "%s", err.msg);
		const struct obd_ext4_name *e = obd_ext4_dir_find(d, path, n);
		if (!e)
			return 0;
		ino = e->ino;
		path += n + (path[n] == '/');
	}
	return ino;
}

static unsigned links_of(const char *path)
{
	union obd_ext4_inode inode;
	ck_assert_int_eq(obd_ext4_inode_read(fs, at(path), &inode, &err), 0);
	return inode.small.i_links_count;
}

START_TEST(an_opaque_directory_keeps_its_own)
{
	put("d/old", S_IFREG);
	put("d/sub/old", S_IFREG);
	put("other", S_IFREG);
	reopen();
	const uint32_t free_before = fs->fs->super->s_free_inodes_count;
	ck_assert_int_eq(put("d/early", S_IFREG), 0);
	ck_assert_int_eq(put("d/sub/early", S_IFREG), 0);
	ck_assert_int_eq(put_link("d/linked", "other"), 0);
	ck_assert_int_eq(obd_ext4_opaque(fs, "d", &err), 0);
	ck_assert_int_eq(put("d/late", S_IFREG), 0);
	ck_assert_uint_eq(at("d/old"), 0);
	ck_assert_uint_eq(at("d/sub/old"), 0);
	ck_assert_uint_ne(at("d/early"), 0);
	ck_assert_uint_ne(at("d/sub/early"), 0);
	ck_assert_uint_ne(at("d/late"), 0);
	ck_assert_uint_eq(at("d/linked"), at("other"));
	ck_assert_uint_eq(links_of("other"), 2);
	ck_assert_uint_eq(fs->fs->super->s_free_inodes_count, free_before - 3 + 2);
	reopen();
	ck_assert_int_eq(obd_ext4_opaque(fs, "d", &err), 0);
	ck_assert_uint_eq(at("d/early"), 0);
	ck_assert_uint_eq(links_of("other"), 1);
}
END_TEST

START_TEST(an_opaque_root_keeps_lost_found)
{
	put("a/b/c", S_IFREG);
	reopen();
	ck_assert_int_eq(obd_ext4_opaque(fs, "", &err), 0);
	ck_assert_uint_eq(at("a"), 0);
	ck_assert_uint_ne(at("lost+found"), 0);
}
END_TEST

START_TEST(a_whiteout_hides_lower_layers_only)
{
	put("f", S_IFREG);
	put("d/old", S_IFREG);
	reopen();
	ck_assert_int_eq(put("g", S_IFREG), 0);
	ck_assert_int_eq(put("d/new", S_IFREG), 0);
	ck_assert_int_eq(obd_ext4_whiteout(fs, "f", &err), 0);
	ck_assert_int_eq(obd_ext4_whiteout(fs, "g", &err), 0);
	ck_assert_int_eq(obd_ext4_whiteout(fs, "d", &err), 0);
	ck_assert_int_eq(obd_ext4_whiteout(fs, "nothing", &err), 0);
	ck_assert_uint_eq(at("f"), 0);
	ck_assert_uint_ne(at("g"), 0);
	ck_assert_uint_eq(at("d/old"), 0);
	ck_assert_uint_ne(at("d/new"), 0);
}
END_TEST

START_TEST(types_change)
{
	put("x/y/z", S_IFREG);
	ck_assert_int_eq(put("x", S_IFREG), 0);
	ck_assert_uint_eq(links_of(""), 3);
	ck_assert_int_eq(put("x", S_IFDIR | 0700), 0);
	ck_assert_uint_eq(at("x/y"), 0);
	ck_assert_int_eq(put("x/y", S_IFLNK | 0777), 0);
	ck_assert_int_eq(put("x/y", S_IFIFO | 0600), 0);
	ck_assert_int_eq(put("x/y/below", S_IFREG), 0);
	ck_assert_uint_ne(at("x/y/below"), 0);
	ck_assert_int_eq(put("", S_IFREG), -EINVAL);
	reopen();
	ck_assert_uint_eq(links_of(""), 4);
	ck_assert_uint_eq(links_of("x"), 3);
}
END_TEST

START_TEST(symbolic_links_stay_inside)
{
	const struct obd_tar_entry out = {.name = "out", .mode = S_IFLNK | 0777, .link = "../../../real"};
	const struct obd_tar_entry self = {.name = "loop", .mode = S_IFLNK | 0777, .link = "loop"};
	ck_assert_int_eq(put("real", S_IFDIR | 0755), 0);
	ck_assert_int_eq(obd_ext4_put(fs, "d/out", &out, no_data, NULL, &err), 0);
	ck_assert_int_eq(put("d/out/file", S_IFREG), 0);
	ck_assert_uint_ne(at("real/file"), 0);
	ck_assert_int_eq(obd_ext4_put(fs, "loop", &self, no_data, NULL, &err), 0);
	ck_assert_int_eq(put("loop/file", S_IFREG), -ELOOP);
}
END_TEST

START_TEST(hard_links_count)
{
	put("a", S_IFREG);
	ck_assert_int_eq(put_link("b", "a"), 0);
	ck_assert_int_eq(put_link("b", "a"), 0);
	ck_assert_uint_eq(links_of("a"), 2);
	ck_assert_int_eq(put_link("a", "a"), 0);
	ck_assert_int_eq(put_link("c", "missing"), -ENOENT);
	ck_assert_int_eq(put_link("c", "lost+found"), -EPERM);
	ck_assert_int_eq(put_link("c", "/"), -ENOENT);
	ck_assert_int_eq(put("a", S_IFREG), 0);
	ck_assert_uint_eq(links_of("b"), 1);
}
END_TEST

/* Many names, taken away and added again over several runs: as a list, as a tree of one level and one of two. */
START_TEST(directories_grow_and_shrink)
{
	static const int counts[] = {10, 400, 12000};
	char path[300];
	const int n = counts[_i];
	for (int i = 0; i < n; i++) {
		snprintf(path, sizeof(path), "d/%0*d", i % 7 ? 9 : 200, i);
		ck_assert_msg(put_link(path, i ? "f" : "none") == (i ? 0 : -ENOENT), "%s", err.msg);
		if (i == 0)
			ck_assert_int_eq(put("f", S_IFREG), 0);
	}
	reopen();
	for (int i = 1; i < n; i += 2) {
		snprintf(path, sizeof(path), "d/%0*d", i % 7 ? 9 : 200, i);
		ck_assert_uint_eq(at(path), at("f"));
		ck_assert_int_eq(obd_ext4_whiteout(fs, path, &err), 0);
	}
	for (int i = 0; i < n / 3; i++) {
		snprintf(path, sizeof(path), "d/more-%d", i);
		ck_assert_int_eq(put_link(path, "f"), 0);
	}
	reopen();
	for (int i = 1; i < n; i++) {
		snprintf(path, sizeof(path), "d/%0*d", i % 7 ? 9 : 200, i);
		ck_assert_uint_eq(at(path) != 0, i % 2 == 0);
	}
	ck_assert_uint_eq(links_of("f"), (unsigned)(1 + (n - 1) / 2 + n / 3));
}
END_TEST

START_TEST(an_unfinished_run_is_seen)
{
	put("a", S_IFREG);
	obd_ext4_close(fs);
	ck_assert_int_eq(obd_ext4_open(image, &fs, &err), -EUCLEAN);
	ck_assert_ptr_nonnull(strstr(err.msg, "did not finish"));
}
END_TEST

START_TEST(what_is_no_file_system_is_refused)
{
	struct obd_file *f = new_image();
	struct obd_ext4 *none;
	struct obd_file *small = obd_file_new_mem(4096);
	ck_assert_int_lt(obd_ext4_open(f, &none, &err), 0);
	ck_assert_ptr_null(none);
	ck_assert_int_eq(obd_ext4_make(small, &err), -EINVAL);
	obd_file_close(small);
	obd_file_close(f);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("apply");
	TCase *names = tcase_create("names"), *trees = tcase_create("trees");
	tcase_add_test(names, paths_become_clean);
	tcase_add_test(names, paths_have_bounds);
	tcase_add_test(names, whiteouts_are_told_apart);
	tcase_add_test(names, messages_show_names_harmlessly);
	suite_add_tcase(s, names);
	tcase_add_checked_fixture(trees, set_up, tear_down);
	tcase_set_timeout(trees, 60);
	tcase_add_test(trees, an_opaque_directory_keeps_its_own);
	tcase_add_test(trees, an_opaque_root_keeps_lost_found);
	tcase_add_test(trees, a_whiteout_hides_lower_layers_only);
	tcase_add_test(trees, types_change);
	tcase_add_test(trees, symbolic_links_stay_inside);
	tcase_add_test(trees, hard_links_count);
	tcase_add_loop_test(trees, directories_grow_and_shrink, 0, 3);
	tcase_add_test(trees, an_unfinished_run_is_seen);
	tcase_add_test(trees, what_is_no_file_system_is_refused);
	suite_add_tcase(s, trees);
	return s;
}

int main(void)
{
	SRunner *runner = srunner_create(suite());
	srunner_run_all(runner, CK_NORMAL);
	const int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
