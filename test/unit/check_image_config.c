/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/util.h"
#include "common/config/file.h"
#include "common/config/image.h"
#include "common/config/json.h"
#include "common/config/result.h"

#define HEX "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define DIGEST "sha256:" HEX
#define URL "https://reg.example:5000/v2/library/redis/blobs"
#define REPO "\"repoBlobUrl\":\"" URL "\""
#define LOWER "{\"digest\":\"" DIGEST "\",\"size\":42,\"dir\":\"/d\"}"

static struct obd_image_config *img;
static struct obd_err err;

static int parse(const char *text)
{
	memset(&err, 0, sizeof err);
	return obd_image_config_parse(text, strlen(text), "f", &img, &err);
}

static void parse_ok(const char *text)
{
	int rc = parse(text);
	ck_assert_msg(rc == 0, "%s: %s", text, err.msg);
}

static void parse_fails(const char *text, int code, const char *want)
{
	int rc = parse(text);
	ck_assert_msg(rc == code, "%s: returned %d", text, rc);
	ck_assert_ptr_null(img);
	ck_assert_msg(strncmp(err.msg, want, strlen(want)) == 0, "for %s:\n got  %s\n want %s", text, err.msg, want);
}

static void parse_bad(const char *text, const char *want)
{
	parse_fails(text, -EINVAL, want);
}

START_TEST(a_whole_image)
{
	parse_ok("{\n\t\"resultFile\": \"/r\", \"accelerationLayer\": true, \"recordTracePath\": \"/t\",\n"
		 "\t\"upper\": {\"index\": \"/i\", \"data\": \"/u\"},\n"
		 "\t\"lowers\": [{\"file\": \"/base\"}, " LOWER ", {\"dir\": \"/local\"}],\n" REPO
		 ", \"download\": {\"enable\": true, \"maxMBps\": 7}, \"strange\": [1], \"upperr\": {}}");
	ck_assert_str_eq(img->repo_blob_url, URL);
	ck_assert_str_eq(img->repo.registry, "reg.example:5000");
	ck_assert_str_eq(img->repo.repo, "library/redis");
	ck_assert_uint_eq(img->lower_count, 3);
	ck_assert_str_eq(img->lowers[0].file, "/base");
	ck_assert_ptr_null(img->lowers[0].digest);
	ck_assert_str_eq(img->lowers[1].digest, DIGEST);
	ck_assert_str_eq(img->lowers[1].dir, "/d");
	ck_assert_uint_eq(img->lowers[1].size, 42);
	ck_assert_ptr_null(img->lowers[1].file);
	ck_assert_str_eq(img->lowers[2].dir, "/local");
	ck_assert_str_eq(img->upper_data, "/u");
	ck_assert_str_eq(img->upper_index, "/i");
	ck_assert_str_eq(img->result_file, "/r");
	ck_assert_str_eq(img->record_trace_path, "/t");
	ck_assert(img->acceleration_layer);
	ck_assert_uint_eq(img->warnings.count, 2);
	ck_assert_str_eq(img->warnings.text[0], "strange is ignored");
	obd_image_config_free(img);
	obd_image_config_free(NULL);
}
END_TEST

START_TEST(read_only_forms)
{
	static const char *const uppers[] = {"", "\"upper\":null,", "\"upper\":{},",
					     "\"upper\":{\"index\":\"\",\"data\":\"\",\"target\":\"\",\"gzipIndex\":\"\"},"};
	char text[512];
	for (size_t i = 0; i < OBD_ARRAY_SIZE(uppers); i++) {
		snprintf(text, sizeof text, "{%s\"repoBlobUrl\":\"\",\"lowers\":[{\"file\":\"/a\",\"targetFile\":\"\"}]}",
			 uppers[i]);
		parse_ok(text);
		ck_assert_ptr_null(img->upper_data);
		ck_assert_ptr_null(img->upper_index);
		ck_assert_ptr_null(img->repo_blob_url);
		ck_assert_uint_eq(img->warnings.count, 0);
		obd_image_config_free(img);
	}
	parse_ok("{\"upper\":{\"data\":\"/sparse\"}}");
	ck_assert_uint_eq(img->lower_count, 0);
	ck_assert_str_eq(img->upper_data, "/sparse");
	ck_assert_ptr_null(img->upper_index);
	obd_image_config_free(img);
}
END_TEST

START_TEST(lowers_are_checked)
{
	parse_bad("{}", "f: lowers: no layer, and no upper either");
	parse_bad("{\"lowers\":[]}", "f: lowers: no layer");
	parse_bad("{\"lowers\":{}}", "f: lowers: not a list");
	parse_bad("{\"lowers\":[\"/a\"]}", "f: lowers[0]: not an object");
	parse_bad("{\"lowers\":[{\"file\":\"/a\"},{}]}", "f: lowers[1].file: missing");
	parse_bad("{\"lowers\":[{\"file\":7}]}", "f: lowers[0].file: not a string");
	parse_bad("{\"lowers\":[{\"file\":\"/a\\u0007\"}]}", "f: lowers[0].file: has control characters");
	parse_bad("{\"lowers\":[{\"file\":\"/a\",\"size\":-1}]}", "f: lowers[0].size: not an integer of 0 or more");
	parse_bad("{\"lowers\":[{\"file\":\"/a\",\"size\":1.0}]}", "f: lowers[0].size: not an integer");
	parse_bad("{\"lowers\":[{\"file\":\"/a\",\"size\":99999999999999999999}]}", "f:1: not valid JSON: too big integer");
	parse_bad("{" REPO ",\"lowers\":[{\"file\":\"/a\"},{\"digest\":\"" DIGEST "\"}]}",
		  "f: lowers[1].size: must be above 0 for a layer in a registry");
	parse_bad("{\"lowers\":[{\"digest\":\"" DIGEST "\",\"size\":1}]}", "f: lowers[0].digest: the image has no repoBlobUrl");
	parse_bad("{" REPO ",\"lowers\":[{\"digest\":\"md5:00\",\"size\":1}]}",
		  "f: lowers[0].digest: \"md5:00\" is not sha256:<64 hex digits>");
	parse_bad("{" REPO ",\"lowers\":[{\"digest\":\"sha256:" HEX "0\",\"size\":1}]}", "f: lowers[0].digest: ");
	parse_bad("{" REPO ",\"lowers\":[{\"digest\":\"sha256:g\",\"size\":1}]}", "f: lowers[0].digest: ");
	parse_bad("{" REPO ",\"lowers\":[{\"digest\":\"" DIGEST "/x\",\"size\":1}]}", "f: lowers[0].digest: ");
	parse_bad("{" REPO ",\"lowers\":[{\"digest\":\"sha512:" HEX "\",\"size\":1}]}", "f: lowers[0].digest: ");
	/* What can come from dir needs neither registry nor size. */
	parse_ok("{\"lowers\":[{\"digest\":\"" DIGEST "\",\"dir\":\"/d\"}]}");
	ck_assert_uint_eq(img->lowers[0].size, 0);
	obd_image_config_free(img);
}
END_TEST

START_TEST(number_of_lowers)
{
	static char text[256 * 16 + 64];
	for (int n = OBD_IMAGE_LOWERS_MAX; n <= OBD_IMAGE_LOWERS_MAX + 1; n++) {
		strcpy(text, "{\"lowers\":[");
		for (int i = 0; i < n; i++)
			strcat(text, i ? ",{\"file\":\"/a\"}" : "{\"file\":\"/a\"}");
		strcat(text, "]}");
		if (n > OBD_IMAGE_LOWERS_MAX) {
			parse_bad(text, "f: lowers: 256 layers, more than 255");
		} else {
			parse_ok(text);
			ck_assert_uint_eq(img->lower_count, 255);
			obd_image_config_free(img);
		}
	}
}
END_TEST

START_TEST(unsupported_layers)
{
	parse_fails("{\"lowers\":[{\"file\":\"/a\"},{\"file\":\"/b\",\"targetFile\":\"/t\"}]}", -ENOTSUP,
		    "f: lowers[1].targetFile: turboOCI layers are not supported");
	parse_fails("{\"lowers\":[{\"file\":\"/a\",\"targetDigest\":\"" DIGEST "\"}]}", -ENOTSUP,
		    "f: lowers[0].targetDigest: ");
	parse_fails("{\"lowers\":[{\"file\":\"/a\",\"gzipIndex\":\"/g\"}]}", -ENOTSUP, "f: lowers[0].gzipIndex: ");
	parse_fails("{\"lowers\":[{\"file\":\"/a\"}],\"upper\":{\"target\":\"/t\"}}", -ENOTSUP, "f: upper.target: ");
}
END_TEST

START_TEST(other_members_are_checked)
{
	parse_bad("[]", "f: not a JSON object");
	parse_bad("7", "f:1: not valid JSON");
	parse_bad("", "f:1: not valid JSON");
	parse_bad("{\"a\":1,\n\"a\":2}", "f:2: not valid JSON: duplicate object key");
	parse_bad("{\"upper\":\"/u\"}", "f: upper: not an object");
	parse_bad("{\"upper\":{\"index\":\"/i\"}}", "f: upper.data: missing, but index is given");
	parse_bad("{\"upper\":{\"data\":[]}}", "f: upper.data: not a string");
	parse_bad("{\"resultFile\":1}", "f: resultFile: not a string");
	parse_bad("{\"upper\":{\"data\":\"/u\"},\"accelerationLayer\":1}", "f: accelerationLayer: not true or false");
	parse_bad("{\"upper\":{\"data\":\"/u\"},\"download\":[]}", "f: download: not an object");
	parse_bad("{\"upper\":{\"data\":\"/u\"},\"download\":{\"tryCnt\":0}}", "f: download.tryCnt: 0 is not in 1..1000");
	parse_bad("{\"upper\":{\"data\":\"/u\"},\"download\":{\"enable\":1}}", "f: download.enable: expected true or false");
	parse_bad("{\"upper\":{\"data\":\"/u\"},\"download\":{\"delay\":\"1\"}}", "f: download.delay: neither");
	parse_bad("{\"upper\":{\"data\":\"/u\"},\"repoBlobUrl\":\"ftp://x\"}", "f: repoBlobUrl: neither http:// nor https://");
	static char text[5000] = "{\"resultFile\":\"";
	memset(text + 15, 'x', 4097);
	strcpy(text + 15 + 4097, "\"}");
	parse_bad(text, "f: resultFile: longer than 4096 bytes");
	ck_assert_int_eq(obd_image_config_parse(text, OBD_IMAGE_BYTES_MAX + 1, "f", &img, &err), -EFBIG);
}
END_TEST

START_TEST(nesting_is_bounded)
{
	char text[512];
	for (int depth = 62; depth <= 64; depth++) { /* the root is one level */
		int n = snprintf(text, sizeof text, "{\"upper\":{\"data\":\"/[[\\\"[[\"},\"x\":");
		memset(text + n, '[', (size_t)depth);
		memset(text + n + depth, ']', (size_t)depth);
		strcpy(text + n + 2 * depth, "}");
		if (depth > 63)
			parse_bad(text, "f: nested more than 64 levels deep");
		else {
			parse_ok(text);
			obd_image_config_free(img);
		}
	}
}
END_TEST

START_TEST(messages_keep_secrets)
{
	json_t *root;
	static const char text[] = "{\"auth\":\"hunter2\" \"x\"}";
	ck_assert_int_eq(obd_json_parse(text, sizeof text - 1, "cred.json", &root, &err), -EINVAL);
	ck_assert_ptr_null(root);
	ck_assert_int_eq(strncmp(err.msg, "cred.json:1: not valid JSON: ", 29), 0);
	static const char open_text[] = "{\"auth\":\"hunter2\nx\"}";
	ck_assert_int_eq(obd_json_parse(open_text, sizeof open_text - 1, "cred.json", &root, &err), -EINVAL);
	ck_assert_ptr_null(strstr(err.msg, "hunter2"));
}
END_TEST

START_TEST(many_warnings_are_bounded)
{
	static char text[4096] = "{\"upper\":{\"data\":\"/u\"}";
	for (int i = 0; i < 100; i++)
		snprintf(text + strlen(text), 32, ",\"m%d\":0", i);
	strcat(text, "}");
	parse_ok(text);
	ck_assert_uint_eq(img->warnings.count, OBD_WARNINGS_MAX);
	ck_assert_uint_eq(img->warnings.dropped, 100 - OBD_WARNINGS_MAX);
	obd_image_config_free(img);
}
END_TEST

START_TEST(download_overrides)
{
	struct obd_config cfg;
	struct obd_download d;
	ck_assert_int_eq(obd_config_defaults(&cfg), 0);
	parse_ok("{\"upper\":{\"data\":\"/u\"},\"download\":{\"enable\":true,\"maxMBps\":0,\"delay\":null,\"x\":1}}");
	ck_assert_uint_eq(img->download_set, OBD_DOWNLOAD_ENABLE | OBD_DOWNLOAD_MAX_MBPS);
	ck_assert_str_eq(img->warnings.text[0], "download.x is ignored");
	obd_image_download(img, &cfg, &d);
	ck_assert(d.enable);
	ck_assert_uint_eq(d.max_mbps, 0);
	ck_assert_uint_eq(d.delay_sec, 300);
	ck_assert_uint_eq(d.block_size_bytes, 262144);
	obd_image_config_free(img);
	parse_ok("{\"upper\":{\"data\":\"/u\"},\"download\":{\"delay\":1,\"delayExtra\":2,\"tryCnt\":3,\"blockSize\":4096}}");
	obd_image_download(img, &cfg, &d);
	ck_assert(!d.enable);
	ck_assert_uint_eq(d.max_mbps, 100);
	ck_assert_uint_eq(d.delay_sec, 1);
	ck_assert_uint_eq(d.delay_extra_sec, 2);
	ck_assert_uint_eq(d.try_cnt, 3);
	ck_assert_uint_eq(d.block_size_bytes, 4096);
	obd_image_config_free(img);
	obd_config_free(&cfg);
}
END_TEST

START_TEST(urls)
{
	struct obd_repo_url u;
	static const struct {
		const char *text, *registry, *origin, *repo;
	} good[] = {
		{"https://Docker.IO/v2/library/redis/blobs", "docker.io", "https://docker.io:443", "library/redis"},
		{"http://localhost:5000/v2/a/blobs", "localhost:5000", "http://localhost:5000", "a"},
		{"HTTP://h/v2/a_b-c.d/blobs/blobs", "h", "http://h:80", "a_b-c.d/blobs"},
		{"https://[::1]:443/v2/a/blobs", "[::1]:443", "https://[::1]:443", "a"},
	};
	for (size_t i = 0; i < OBD_ARRAY_SIZE(good); i++) {
		ck_assert_msg(obd_repo_url_parse(good[i].text, &u, &err) == 0, "%s: %s", good[i].text, err.msg);
		ck_assert_str_eq(u.registry, good[i].registry);
		ck_assert_str_eq(u.origin, good[i].origin);
		ck_assert_str_eq(u.repo, good[i].repo);
	}
	ck_assert_str_eq(u.host, "[::1]");
	ck_assert_uint_eq(u.port, 443);
	static const char *const bad[] = {
		"",
		"https://",
		"h/v2/a/blobs",
		"https:///v2/a/blobs",
		"https://u:p@h/v2/a/blobs",
		"https://h/v2/a/blobs?x",
		"https://h/v2/a/blobs#x",
		"https://h/v2/a%2fb/blobs",
		"https://h:/v2/a/blobs",
		"https://h:0/v2/a/blobs",
		"https://h:65536/v2/a/blobs",
		"https://h:5000x/v2/a/blobs",
		"https://h:000080/v2/a/blobs",
		"https://h/v2/blobs",
		"https://h/v2//blobs",
		"https://h/v2/a//b/blobs",
		"https://h/v2/../blobs",
		"https://h/v2/a/../b/blobs",
		"https://h/v2/a/.../blobs",
		"https://h/v2/a b/blobs",
		"https://h/v2/a\r\nHost: x/blobs",
		"https://h/v1/a/blobs",
		"https://h/v2/a/blob",
		"https://h/v2/a/blobs/",
		"https://h\\@x/v2/a/blobs",
		"https://[::1/v2/a/blobs",
		"https://[1:2]/v2/a/blobs",
		"https://[fe80::1%25eth0]/v2/a/blobs",
	};
	for (size_t i = 0; i < OBD_ARRAY_SIZE(bad); i++)
		ck_assert_msg(obd_repo_url_parse(bad[i], &u, &err) == -EINVAL, "accepted %s", bad[i]);
	/* In the configuration one slash behind it is dropped. */
	parse_ok("{\"upper\":{\"data\":\"/u\"},\"repoBlobUrl\":\"" URL "/\"}");
	ck_assert_str_eq(img->repo_blob_url, URL);
	obd_image_config_free(img);
}
END_TEST

START_TEST(url_lengths)
{
	struct obd_repo_url u;
	char text[2048];
	memset(text, 'h', sizeof text);
	memcpy(text, "https://", 8);
	strcpy(text + 8 + OBD_URL_HOST_MAX, ":65535/v2/a/blobs");
	ck_assert_int_eq(obd_repo_url_parse(text, &u, &err), 0);
	ck_assert_uint_eq(strlen(u.host), OBD_URL_HOST_MAX);
	ck_assert_uint_eq(strlen(u.registry), OBD_URL_HOST_MAX + 6);
	ck_assert_str_eq(u.origin + strlen(u.origin) - 6, ":65535");
	memset(text + 8, 'h', 300);
	strcpy(text + 308, "/v2/a/blobs");
	ck_assert_int_eq(obd_repo_url_parse(text, &u, &err), -EINVAL);
	for (int n = OBD_URL_REPO_MAX; n <= OBD_URL_REPO_MAX + 1; n++) {
		strcpy(text, "https://h/v2/");
		memset(text + 13, 'r', (size_t)n);
		strcpy(text + 13 + n, "/blobs");
		ck_assert_int_eq(obd_repo_url_parse(text, &u, &err), n > OBD_URL_REPO_MAX ? -EINVAL : 0);
	}
}
END_TEST

static char dir[64], path[128];

static void files_setup(void)
{
	snprintf(dir, sizeof dir, "/tmp/check_image.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof path, "%s/f", dir);
}

static void files_teardown(void)
{
	unlink(path);
	ck_assert_msg(rmdir(dir) == 0, "something is left in %s", dir);
}

static void write_text(const char *text)
{
	FILE *f = fopen(path, "w");
	ck_assert_ptr_nonnull(f);
	fputs(text, f);
	fclose(f);
}

START_TEST(image_files)
{
	ck_assert_int_eq(obd_image_config_load(path, &img, &err), -ENOENT);
	ck_assert_int_eq(obd_image_config_load(dir, &img, &err), -EINVAL);
	ck_assert_int_eq(mkfifo(path, 0600), 0);
	ck_assert_int_eq(obd_image_config_load(path, &img, &err), -EINVAL);
	unlink(path);
	write_text("{\"upper\":{\"data\":\"/u\"}}");
	ck_assert_int_eq(obd_image_config_load(path, &img, &err), 0);
	obd_image_config_free(img);
	write_text("{\"lowers\":[],\"resultFile\":\"/r\"}");
	ck_assert_int_eq(obd_image_config_load(path, &img, &err), -EINVAL);
	ck_assert_int_eq(strncmp(err.msg, path, strlen(path)), 0);
	char *result = obd_image_config_result_file(path);
	ck_assert_str_eq(result, "/r");
	free(result);
	write_text("{\"lowers\":[]}");
	ck_assert_ptr_null(obd_image_config_result_file(path));
	write_text("[]");
	ck_assert_ptr_null(obd_image_config_result_file(path));
	write_text("{");
	ck_assert_ptr_null(obd_image_config_result_file(path));
	ck_assert_int_eq(truncate(path, OBD_IMAGE_BYTES_MAX + 1), 0);
	ck_assert_int_eq(obd_image_config_load(path, &img, &err), -EFBIG);
}
END_TEST

START_TEST(result_file)
{
	char *buf;
	size_t len;
	struct stat st;
	ck_assert_int_eq(obd_result_write(NULL, "success"), 0);
	ck_assert_int_eq(obd_result_write("", "success"), 0);
	ck_assert_int_eq(obd_result_write("/nonexistent/dir/r", "success"), -ENOENT);
	write_text("a longer text that stood here before");
	ck_assert_int_eq(obd_result_write(path, "success"), 0);
	ck_assert_int_eq(obd_file_read(path, 100, &buf, &len, &err), 0);
	ck_assert_str_eq(buf, "success");
	free(buf);
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_uint_eq(st.st_mode & 0777, 0644);
	ck_assert_int_eq(obd_result_write(path, "failed:a\nb"), 0);
	ck_assert_int_eq(obd_file_read(path, 100, &buf, &len, &err), 0);
	ck_assert_str_eq(buf, "failed:a?b");
	free(buf);
	ck_assert_int_eq(obd_file_read(path, 9, &buf, &len, &err), -EFBIG);
	/* A target that cannot be replaced: an error, and no temporary file stays (the teardown looks). */
	unlink(path);
	ck_assert_int_eq(mkdir(path, 0700), 0);
	ck_assert_int_lt(obd_result_write(path, "success"), 0);
	ck_assert_int_eq(rmdir(path), 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("image config");
	TCase *t = tcase_create("text");
	tcase_add_test(t, a_whole_image);
	tcase_add_test(t, read_only_forms);
	tcase_add_test(t, lowers_are_checked);
	tcase_add_test(t, number_of_lowers);
	tcase_add_test(t, unsupported_layers);
	tcase_add_test(t, other_members_are_checked);
	tcase_add_test(t, nesting_is_bounded);
	tcase_add_test(t, messages_keep_secrets);
	tcase_add_test(t, many_warnings_are_bounded);
	tcase_add_test(t, download_overrides);
	tcase_add_test(t, urls);
	tcase_add_test(t, url_lengths);
	suite_add_tcase(s, t);
	t = tcase_create("files");
	tcase_add_checked_fixture(t, files_setup, files_teardown);
	tcase_add_test(t, image_files);
	tcase_add_test(t, result_file);
	suite_add_tcase(s, t);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
