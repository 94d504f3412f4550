/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/util.h"
#include "common/config/config.h"
#include "common/config/file.h"

static struct obd_config cfg;
static struct obd_err err;

static int load(const char *text)
{
	memset(&err, 0, sizeof err);
	return obd_config_load_buffer(text, strlen(text), "f", &cfg, &err);
}

static void load_ok(const char *text)
{
	int rc = load(text);
	ck_assert_msg(rc == 0, "%s: %s", text, err.msg);
}

/* Loads text, which must fail with a message that is, or starts with, want. */
static void load_bad(const char *text, const char *want)
{
	ck_assert_msg(load(text) == -EINVAL, "accepted: %s", text);
	ck_assert_msg(strncmp(err.msg, want, strlen(want)) == 0, "for \"%s\":\n got  %s\n want %s", text, err.msg, want);
	ck_assert_ptr_null(cfg.log_path);
	obd_config_free(&cfg);
}

static bool warned(const char *what)
{
	for (uint32_t i = 0; i < cfg.warnings.count; i++)
		if (strstr(cfg.warnings.text[i], what))
			return true;
	return false;
}

static char *read_source(const char *name)
{
	char path[4096], *buf;
	size_t len;
	const char *data = getenv("OBD_TEST_DATA");
	snprintf(path, sizeof path, "%s%s%s", data ? data : "", data ? "/../../" : "", name);
	ck_assert_msg(obd_file_read(path, 1 << 20, &buf, &len, &err) == 0, "%s", err.msg);
	return buf;
}

static char *print(const struct obd_config *c)
{
	char *text;
	size_t len;
	FILE *f = open_memstream(&text, &len);
	ck_assert_int_eq(obd_config_print(f, c), 0);
	fclose(f);
	return text;
}

static void assert_same(const struct obd_config *a, const struct obd_config *b)
{
	char *pa = print(a), *pb = print(b);
	ck_assert_str_eq(pa, pb);
	free(pa);
	free(pb);
}

START_TEST(empty_file_is_defaults)
{
	static const char *const empty[] = {"", "# nothing\n", "---\n", "{}", " \n{ }", "download:\n", "registries:\n"};
	for (size_t i = 0; i < OBD_ARRAY_SIZE(empty); i++) {
		load_ok(empty[i]);
		ck_assert_uint_eq(cfg.log_level, 1);
		ck_assert_str_eq(cfg.log_path, "");
		ck_assert_str_eq(cfg.cache_dir, "/opt/overlaybd/registry_cache");
		ck_assert_uint_eq(cfg.cache_size_gb, 4);
		ck_assert_str_eq(cfg.credential_path, "/opt/overlaybd/cred.json");
		ck_assert_uint_eq(cfg.download_delay, 300);
		ck_assert_uint_eq(cfg.download_block_size, 262144);
		ck_assert_uint_eq(cfg.shared_cache_size_mb, 512);
		ck_assert_uint_eq(cfg.shared_cache_block_kb, 64);
		ck_assert_uint_eq(cfg.shared_cache_hugepages, OBD_HUGEPAGES_AUTO);
		ck_assert_str_eq(cfg.runtime_dir, "/run/overlaybd");
		ck_assert_uint_eq(cfg.read_timeout_sec, 300);
		ck_assert_uint_eq(cfg.hang_sec, 10);
		ck_assert(cfg.offline_open && !cfg.frontend_manage && !cfg.download_enable);
		ck_assert_uint_eq(cfg.registry_count, 0);
		ck_assert_uint_eq(cfg.warnings.count, 0);
		obd_config_free(&cfg);
		obd_config_free(&cfg);
	}
}
END_TEST

START_TEST(table_is_sound)
{
	for (uint32_t i = 0; i < obd_config_option_count; i++) {
		const struct obd_option *o = &obd_config_options[i];
		ck_assert_msg(*o->text, "%s", o->name);
		if (o->type == OBD_OPT_U32)
			ck_assert_msg(o->def >= o->min && o->def <= o->max, "%s: default out of range", o->name);
		if (o->type == OBD_OPT_U32 && (o->flags & OBD_OPT_POW2))
			ck_assert_msg(obd_is_pow2(o->def) && obd_is_pow2(o->max), "%s", o->name);
		if (o->type == OBD_OPT_STR || o->type == OBD_OPT_PATH)
			ck_assert_msg(strlen(o->def_text) >= o->min && strlen(o->def_text) <= o->max, "%s", o->name);
		for (uint32_t j = 0; j < i; j++)
			ck_assert_str_ne(o->name, obd_config_options[j].name);
	}
}
END_TEST

static const char full[] = "logConfig: {logLevel: 0, logPath: /var/log/o.log}\n"
			   "ioEngine: 2\n"
			   "userAgent: \"a \\\"b\\\\c\\\" \\x85\\u2028\\U0001F600\"\n"
			   "sharedCache:\n  sizeMB: 16\n  blockKB: 1024\n  hugepages: off\n  indexMB: 65536\n"
			   "fetchers: 32\nreadaheadKB: 0\nreadTimeoutSec: 0\nhangSec: 3600\nofflineOpen: No\n"
			   "runtimeDir: /tmp/r\n"
			   "registries:\n"
			   "  - host: Reg.example:5000\n    insecure: yes\n    mirrors: [m1, \"https://[::1]:2/a%2fb\"]\n"
			   "  - {host: b, caFile: /ca.pem}\n";

START_TEST(every_kind_of_value)
{
	load_ok(full);
	ck_assert_uint_eq(cfg.log_level, 0);
	ck_assert_str_eq(cfg.log_path, "/var/log/o.log");
	ck_assert_uint_eq(cfg.io_engine, 2);
	ck_assert_str_eq(cfg.user_agent, "a \"b\\c\" \xc2\x85\xe2\x80\xa8\xf0\x9f\x98\x80");
	ck_assert_uint_eq(cfg.shared_cache_hugepages, OBD_HUGEPAGES_OFF);
	ck_assert_uint_eq(cfg.shared_cache_block_kb, 1024);
	ck_assert_uint_eq(cfg.fetchers, 32);
	ck_assert_uint_eq(obd_config_fetchers(&cfg), 32);
	ck_assert(!cfg.offline_open);
	ck_assert_uint_eq(cfg.registry_count, 2);
	const struct obd_registry *r = obd_config_registry(&cfg, "reg.EXAMPLE:5000");
	ck_assert_ptr_eq(r, &cfg.registries[0]);
	ck_assert(r->insecure);
	ck_assert_uint_eq(r->mirrors.count, 2);
	ck_assert_str_eq(r->mirrors.item[1], "https://[::1]:2/a%2fb");
	ck_assert_str_eq(r->ca_file, "");
	ck_assert_ptr_null(obd_config_registry(&cfg, "reg.example"));
	ck_assert_str_eq(obd_config_registry(&cfg, "b")->ca_file, "/ca.pem");
	obd_config_free(&cfg);
}
END_TEST

START_TEST(printed_text_reads_back)
{
	struct obd_config again;
	load_ok(full);
	char *text = print(&cfg);
	for (uint32_t i = 0; i < obd_config_option_count; i++) {
		const char *dot = strrchr(obd_config_options[i].name, '.');
		ck_assert_ptr_nonnull(strstr(text, dot ? dot + 1 : obd_config_options[i].name));
	}
	int rc = obd_config_load_buffer(text, strlen(text), "printed", &again, &err);
	ck_assert_msg(rc == 0, "%s", err.msg);
	ck_assert_str_eq(again.user_agent, cfg.user_agent);
	ck_assert_ptr_null(obd_config_needs_restart(&cfg, &again));
	assert_same(&cfg, &again);
	free(text);
	obd_config_free(&again);
	obd_config_free(&cfg);
}
END_TEST

START_TEST(fetchers_follow_the_cores)
{
	load_ok("");
	ck_assert_uint_ge(obd_config_fetchers(&cfg), 2);
	ck_assert_uint_le(obd_config_fetchers(&cfg), 8);
	obd_config_free(&cfg);
}
END_TEST

START_TEST(errors_name_line_and_key)
{
	load_bad("a: 1\n", "f:1: unknown key a");
	load_bad("\ncacheConfig:\n  cacheDri: /x\n",
		 "f:3: unknown key cacheConfig.cacheDri; did you mean cacheConfig.cacheDir?");
	load_bad("fetcher: 2\n", "f:1: unknown key fetcher; did you mean fetchers?");
	load_bad("sizeMB: 2\n", "f:1: unknown key sizeMB; did you mean sharedCache.sizeMB?");
	load_bad("cacheConfig.cacheDir: /x\n", "f:1: unknown key cacheConfig.cacheDir");
	load_bad("registries[].host: x\n", "f:1: unknown key registries[].host");
	load_bad("enableAudit: true\n", "f:1: unknown key enableAudit");
	load_bad("logConfig:\n  logLevel: 9\n", "f:2: logConfig.logLevel: 9 is not in 0..3");
	load_bad("ioEngine: 3\n", "f:1: ioEngine: 3 is not in 0..2");
	load_bad("ioEngine: -1\n", "f:1: ioEngine: -1 is not in 0..2");
	load_bad("hangSec: 0\n", "f:1: hangSec: 0 is not in 1..3600 s");
	load_bad("fetchers: 33\n", "f:1: fetchers: 33 is not in 0..32");
	load_bad("sharedCache: {sizeMB: 15}\n", "f:1: sharedCache.sizeMB: 15 is not in 16..1048576 MiB");
	load_bad("sharedCache: {sizeMB: 1048577}\n", "f:1: sharedCache.sizeMB: 1048577 is not in 16..1048576 MiB");
	load_bad("sharedCache: {blockKB: 48}\n", "f:1: sharedCache.blockKB: 48 is not a power of two in 16..1024 KiB");
	load_bad("hangSec: 99999999999999999999\n", "f:1: hangSec: 99999999999999999999 is not in 1..3600 s");
	load_bad("hangSec: 4294967306\n", "f:1: hangSec: 4294967306 is not in 1..3600 s");
	load_bad("sharedCache: {hugepages: maybe}\n", "f:1: sharedCache.hugepages: \"maybe\" is none of auto|require|off");
	load_bad("hangSec: \"10\"\n", "f:1: hangSec: expected an integer, got the string \"10\"");
	load_bad("hangSec: 1.5\n", "f:1: hangSec: expected an integer, got 1.5");
	load_bad("hangSec: 010\n", "f:1: hangSec: expected an integer, got 010");
	load_bad("hangSec: [1]\n", "f:1: hangSec: expected an integer, got a list");
	load_bad("offlineOpen: 1\n", "f:1: offlineOpen: expected true or false, got 1");
	load_bad("offlineOpen: \"true\"\n", "f:1: offlineOpen: expected true or false, got the string \"true\"");
	load_bad("runtimeDir: run\n", "f:1: runtimeDir: expected an absolute path, got run");
	load_bad("runtimeDir: \"\"\n", "f:1: runtimeDir: 0 bytes long, not 1..80");
	load_bad("runtimeDir: {a: b}\n", "f:1: runtimeDir: expected an absolute path, got a section");
	load_bad("logConfig: 3\n", "f:1: logConfig: expected a section");
	load_bad("- a\n", "f:1: expected keys and values");
	load_bad("hangSec: 1\n\nhangSec: 2\n", "f:3: hangSec is given twice");
	load_bad("logConfig:\n  logLevel: 1\nlogConfig:\n  logPath: /x\n", "f:3: logConfig is given twice");
	load_bad("logConfig: {logLevel: 1, logLevel: 1}\n", "f:1: logConfig.logLevel is given twice");
}
END_TEST

#define MIRROR "expected HOST or HOST:PORT or http(s)://HOST[:PORT][/PATH]"
#define URL "expected http(s)://HOST[:PORT][/PATH]"

static const char *const malformed[][2] = {
	{"registries:\n- host: a b\n", "f:2: registries[0].host: \"a b\": no valid host; expected HOST or HOST:PORT"},
	{"registries:\n- host: a:0\n", "f:2: registries[0].host: \"a:0\": the port is not in 1..65535; expected"},
	{"registries:\n- host: a:123456\n", "f:2: registries[0].host: \"a:123456\": the port is not in"},
	{"registries:\n- host: 'a:'\n", "f:2: registries[0].host: \"a:\": the port is not in"},
	{"registries:\n- host: a/b\n", "f:2: registries[0].host: \"a/b\": a path is not allowed"},
	{"registries:\n- host: u@a\n", "f:2: registries[0].host: \"u@a\": user information is not allowed"},
	{"registries:\n- host: '[1::2'\n", "f:2: registries[0].host: \"[1::2\": no valid host"},
	{"registries:\n- host: a..b\n", "f:2: registries[0].host: \"a..b\": no valid host"},
	{"registries:\n- host: -a\n", "f:2: registries[0].host: \"-a\": no valid host"},
	{"registries:\n- host: ''\n", "f:2: registries[0].host: 0 bytes long, not 1..261"},
	{"registries:\n- host: a\n  mirrors: [b, 'm: 2']\n",
	 "f:3: registries[0].mirrors: \"m: 2\": the port is not in 1..65535; " MIRROR},
	{"registries:\n- host: a\n  mirrors: ['ftp://m']\n",
	 "f:3: registries[0].mirrors: \"ftp://m\": the scheme is not allowed; " MIRROR},
	{"registries:\n- host: a\n  mirrors: ['http:/m']\n", "f:3: registries[0].mirrors: \"http:/m\": the port is not"},
	{"registries:\n- host: a\n  mirrors: ['https://']\n", "f:3: registries[0].mirrors: \"https://\": no valid host"},
	{"registries:\n- host: a\n  mirrors: ['https://m/x?y']\n", "f:3: registries[0].mirrors: \"https://m/x?y\": '?' is not"},
	{"registries:\n- host: a\n  mirrors: ['https://m/x y']\n",
	 "f:3: registries[0].mirrors: \"https://m/x y\": a character"},
	{"registries:\n- host: a\n  mirrors: ['https://u:p@m']\n",
	 "f:3: registries[0].mirrors: \"https://u:p@m\": the port is not"},
	{"registries:\n- host: a\n  mirrors: ['http://http://m']\n",
	 "f:3: registries[0].mirrors: \"http://http://m\": the scheme"},
	{"registries:\n- host: a\n  mirrors: ['m/path']\n", "f:3: registries[0].mirrors: \"m/path\": a path is not allowed"},
	{"registries:\n- host: a\n  mirrors: [\"m\\n\"]\n", "f:3: a string has control characters or more than one line"},
	{"p2pConfig: {address: 'localhost:1'}\n", "f:1: p2pConfig.address: \"localhost:1\": no scheme; " URL},
	{"p2pConfig:\n  enable: true\n  address: ''\n",
	 "f:3: p2pConfig.address: empty, although p2pConfig.enable is set; " URL},
	{"userAgent: \"a\\r\\nX: y\"\n", "f:1: a string has control characters or more than one line"},
	{"frontend: {portal: 'http://a'}\n",
	 "f:1: frontend.portal: \"http://a\": the scheme is not allowed; expected HOST or HOST:PORT"},
	{"credentialConfig: {path: cred.json}\n", "f:1: credentialConfig.path: \"cred.json\": expected an absolute path"},
	{"credentialFilePath: cred.json\n", "f:1: credentialConfig.path: \"cred.json\": expected an absolute path"},
	{"credentialConfig:\n  mode: http\n",
	 "f:2: credentialConfig.path: \"/opt/overlaybd/cred.json\": no valid host; expected "
	 "[http(s)://]HOST[:PORT][/PATH]"},
	{"credentialConfig:\n  mode: https\n  path: http://a/\n",
	 "f:3: credentialConfig.path: \"http://a/\": the scheme is not "
	 "allowed; expected https://HOST[:PORT][/PATH]"},
	{"credentialConfig:\n  mode: uds\n  path: s.sock\n",
	 "f:3: credentialConfig.path: \"s.sock\": expected the absolute path of "
	 "a socket, at most 107 bytes long"},
};

START_TEST(malformed_addresses)
{
	load_bad(malformed[_i][0], malformed[_i][1]);
}
END_TEST

static const char *const addresses[] = {
	"registries:\n- host: registry-1.docker.io\n- host: a_b.example:65535\n- host: '[fe80::1]:5000'\n- host: "
	"127.0.0.1:5000\n",
	"registries:\n- host: a\n  mirrors: [b, 'b:1', 'http://b', 'HTTPS://b:1/', 'https://b/x/y%20z/', '[::1]']\n",
	"p2pConfig: {enable: true, address: 'http://localhost:9731/accelerator'}\n",
	"p2pConfig: {address: ''}\n",
	"credentialConfig: {mode: http, path: 'localhost:19876/auth'}\n",
	"credentialConfig: {mode: http, path: 'http://localhost:19876/auth?tenant=1'}\n",
	"credentialConfig: {mode: https, path: 'https://h'}\n",
	"credentialConfig: {mode: uds, path: /run/cred.sock}\n",
	"credentialConfig: {path: ''}\n",
	"frontend: {portal: '0.0.0.0:3260'}\n",
};

START_TEST(good_addresses)
{
	load_ok(addresses[_i]);
	obd_config_free(&cfg);
}
END_TEST

START_TEST(registries_are_checked)
{
	load_bad("registries: x\n", "f:1: registries: expected a list");
	load_bad("registries:\n- x\n", "f:2: registries[0]: expected a section");
	load_bad("registries:\n- insecure: true\n", "f:2: registries[0].host: expected HOST or HOST:PORT");
	load_bad("registries:\n- host: http://a/\n",
		 "f:2: registries[0].host: \"http://a/\": the scheme is not allowed; expected HOST or HOST:PORT");
	load_bad("registries:\n- host: a\n- host: A\n", "f:3: registries[1].host: \"A\" is listed twice");
	load_bad("registries:\n- host: a\n  hots: b\n", "f:3: unknown key registries[].hots; did you mean registries[].host?");
	load_bad("registries:\n- host: a\n  host: b\n", "f:3: registries[0].host is given twice");
	load_bad("registries:\n- host: a\n  mirrors: b\n", "f:3: registries[0].mirrors: expected a list of strings, got b");
	load_bad("registries:\n- host: a\n  mirrors: [[]]\n", "f:3: registries[0].mirrors: element 0 is not a string");
	char many[4096] = "registries:\n";
	for (int i = 0; i <= OBD_REGISTRIES_MAX; i++)
		snprintf(many + strlen(many), 32, "- host: h%d\n", i);
	load_bad(many, "f:66: registries: more than 64 elements");
}
END_TEST

START_TEST(yaml_traps)
{
	load_bad("a: &x 1\nb: *x\n", "f:1: anchors and tags are not allowed");
	load_bad("hangSec: *x\n", "f:1: aliases are not allowed");
	load_bad("hangSec: !!int 3\n", "f:1: anchors and tags are not allowed");
	load_bad("logConfig: &a {logLevel: 1}\n", "f:1: anchors and tags are not allowed");
	load_bad("hangSec: 1\n---\nhangSec: 2\n", "f:2: more than one document");
	load_bad("? [a]\n: 1\n", "f:1: a key must be a plain word");
	load_bad("logConfig:\n  logPath: \"/a\\0b\"\n", "f:2: a string has control characters");
	load_bad("logConfig:\n  logPath: |\n    /a\n    /b\n", "f:2: a string has control characters or more than one line");
	load_bad("\"a\\nb\": 1\n", "f:1: a string has control characters");
	load_bad("hangSec: 1\n\tfetchers: 2\n", "f:2: ");
	load_bad("hangSec: \"\xff\"\n", "f:");
	load_bad("a: [[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]\n", "f:1: nested too deep");
	static char deep[200001];
	memset(deep, '[', sizeof deep - 1);
	ck_assert_int_eq(load(deep), -EINVAL);
	static char longtext[6000] = "userAgent: ";
	memset(longtext + 11, 'x', OBD_OPT_STR_MAX + 1);
	load_bad(longtext, "f:1: a string is too long");
	static char huge[OBD_CONFIG_BYTES_MAX + 2];
	memset(huge, '#', sizeof huge - 1);
	ck_assert_int_eq(load(huge), -EFBIG);
	huge[OBD_CONFIG_BYTES_MAX] = 0;
	ck_assert_int_eq(load(huge), 0);
	obd_config_free(&cfg);
}
END_TEST

START_TEST(old_json_form)
{
	load_ok("\n {\"logConfig\":{\"logLevel\":2,\"logPath\":\"/var/log/x.log\",\"logSizeMB\":10,\"logRotateNum\":3},\n"
		"\t\"cacheConfig\":{\"cacheType\":\"file\",\"cacheDir\":\"/c\",\"cacheSizeGB\":8,\"refillSize\":1},\n"
		"\t\"gzipCacheConfig\":{\"enable\":true,\"cacheDir\":\"/g\"},\n"
		"\t\"credentialConfig\":{\"mode\":\"https\",\"path\":\"https://h/\"},\"ioEngine\":1,\n"
		"\t\"download\":{\"enable\":true,\"delay\":600},\"p2pConfig\":{\"enable\":false,\"address\":\"\"},\n"
		"\t\"exporterConfig\":{\"enable\":false,\"uriPrefix\":\"/m\",\"port\":9000,\"updateInterval\":60000000},\n"
		"\t\"enableAudit\":true,\"auditPath\":\"/a\",\"registryFsVersion\":\"v2\",\"certConfig\":null}\n");
	ck_assert_uint_eq(cfg.log_level, 2);
	ck_assert_str_eq(cfg.log_path, "/var/log/x.log");
	ck_assert_uint_eq(cfg.io_engine, 1);
	ck_assert_uint_eq(cfg.cache_size_gb, 8);
	ck_assert_uint_eq(cfg.credential_mode, OBD_CREDENTIAL_HTTPS);
	ck_assert(cfg.download_enable);
	ck_assert_uint_eq(cfg.exporter_port, 9000);
	ck_assert(warned("f: gzipCacheConfig is ignored"));
	ck_assert(warned("f: cacheConfig.refillSize is ignored"));
	ck_assert(warned("f: enableAudit is ignored"));
	ck_assert(warned("f: exporterConfig.port is accepted but has no effect in this version"));
	ck_assert(!warned("logLevel"));
	obd_config_free(&cfg);
	load_bad("{\"hangsec\":1}", "f: unknown key hangsec; did you mean hangSec?");
	load_bad("{\"hangSec\":\"1\"}", "f: hangSec: expected an integer, got the string \"1\"");
	load_bad("{\"hangSec\":1.0}", "f: hangSec: expected an integer, got 1.0");
	load_bad("{\"userAgent\":5}", "f: userAgent: expected a string, got 5");
	load_bad("{\"hangSec\":1,\n\"hangSec\":2}", "f:2: not valid JSON: duplicate object key");
	load_bad("{\"hangSec\":1", "f:1: not valid JSON: ");
	load_bad("{\"a\":[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]}", "f: nested too deep");
	load_bad("{\"logPath\":\"/a\\u000ab\"}", "f: a string has control characters");
}
END_TEST

START_TEST(flat_keys)
{
	static const char *const forms[] = {
		"logLevel: 3\nlogPath: /l\nregistryCacheDir: /c\nregistryCacheSizeGB: 9\ncredentialFilePath: /k\n",
		"{\"logLevel\":3,\"logPath\":\"/l\",\"registryCacheDir\":\"/c\",\"registryCacheSizeGB\":9,"
		"\"credentialFilePath\":\"/k\"}",
	};
	for (size_t i = 0; i < OBD_ARRAY_SIZE(forms); i++) {
		load_ok(forms[i]);
		ck_assert_uint_eq(cfg.log_level, 3);
		ck_assert_str_eq(cfg.log_path, "/l");
		ck_assert_str_eq(cfg.cache_dir, "/c");
		ck_assert_uint_eq(cfg.cache_size_gb, 9);
		ck_assert_str_eq(cfg.credential_path, "/k");
		obd_config_free(&cfg);
	}
	load_ok("logLevel: 3\nlogConfig: {logLevel: 2}\n");
	ck_assert_uint_eq(cfg.log_level, 2);
	ck_assert(warned("f: logLevel is ignored, because logConfig.logLevel is set too"));
	obd_config_free(&cfg);
	load_bad("logLevel: 7\n", "f:1: logLevel: 7 is not in 0..3");
}
END_TEST

START_TEST(planned_options_warn)
{
	load_ok("cacheConfig: {cacheSizeGB: 4}\nexporterConfig: {enable: true, port: 9000}\nhangSec: 20\n");
	ck_assert_uint_eq(cfg.warnings.count, 2);
	ck_assert(warned("f: exporterConfig.port is accepted but has no effect in this version"));
	ck_assert(warned("f: exporterConfig.enable is accepted but has no effect in this version"));
	obd_config_free(&cfg);
}
END_TEST

START_TEST(restart_or_reload)
{
	struct obd_config other;
	load_ok("hangSec: 20\nlogConfig: {logLevel: 0}\nreadaheadKB: 1\n");
	ck_assert_int_eq(obd_config_defaults(&other), 0);
	ck_assert_ptr_null(obd_config_needs_restart(&cfg, &other));
	other.fetchers = 3;
	ck_assert_str_eq(obd_config_needs_restart(&cfg, &other), "fetchers");
	obd_config_free(&other);
	obd_config_free(&cfg);
	load_ok("registries: [{host: a}]\n");
	ck_assert_int_eq(obd_config_defaults(&other), 0);
	ck_assert_str_eq(obd_config_needs_restart(&cfg, &other), "registries");
	obd_config_free(&other);
	obd_config_free(&cfg);
}
END_TEST

START_TEST(files)
{
	char dir[] = "/tmp/check_config.XXXXXX", path[64], want[160];
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof path, "%s/c", dir);
	ck_assert_int_eq(obd_config_load(path, &cfg, &err), -ENOENT);
	snprintf(want, sizeof want, "%s: No such file or directory", path);
	ck_assert_str_eq(err.msg, want);
	ck_assert_int_eq(obd_config_load(dir, &cfg, &err), -EINVAL);
	ck_assert_int_eq(mkfifo(path, 0600), 0);
	ck_assert_int_eq(obd_config_load(path, &cfg, &err), -EINVAL); /* and does not wait for a writer */
	unlink(path);
	FILE *f = fopen(path, "w");
	ck_assert_ptr_nonnull(f);
	fputs("hangSec: 7\n", f);
	fclose(f);
	ck_assert_int_eq(obd_config_load(path, &cfg, &err), 0);
	ck_assert_uint_eq(cfg.hang_sec, 7);
	obd_config_free(&cfg);
	ck_assert_int_eq(truncate(path, OBD_CONFIG_BYTES_MAX + 1), 0);
	ck_assert_int_eq(obd_config_load(path, &cfg, &err), -EFBIG);
	unlink(path);
	ck_assert_int_eq(rmdir(dir), 0);
}
END_TEST

/* Takes the '#' away from lines that hold keys: "#key:", "#  key:"; prose is "# Text". */
static void uncomment(char *text)
{
	for (char *p = text; *p; p = strchr(p, '\n') + 1)
		if (p[0] == '#' && p[1] != ' ' && p[1] != '\n')
			*p = '\n';
		else if (strncmp(p, "#  ", 3) == 0)
			memmove(p, p + 1, strlen(p));
}

START_TEST(shipped_file_is_the_defaults)
{
	struct obd_config defaults;
	char *text = read_source("conf/overlaybd.yaml");
	load_ok(text);
	ck_assert_int_eq(obd_config_defaults(&defaults), 0);
	assert_same(&cfg, &defaults);
	obd_config_free(&cfg);

	/* Each row stands there as a line of its own, under its section, with the default as --print-config writes it. */
	uncomment(text);
	load_ok(text);
	assert_same(&cfg, &defaults);
	obd_config_free(&cfg);
	char *printed = print(&defaults), *save;
	for (char *line = strtok_r(printed, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char whole[256];
		snprintf(whole, sizeof whole, "\n%s\n", line);
		ck_assert_msg(strstr(text, whole) != NULL, "conf/overlaybd.yaml lacks the line %s", line);
	}
	for (uint32_t i = 0; i < obd_registry_option_count; i++)
		ck_assert_ptr_nonnull(strstr(text, strchr(obd_registry_options[i].name, '.') + 1));
	free(printed);
	free(text);
	obd_config_free(&defaults);
}
END_TEST

static void assert_item(const char *man, const struct obd_option *o)
{
	char head[128], item[1024];
	snprintf(head, sizeof head, "\n.It Cm %s\n", o->name);
	const char *p = strstr(man, head);
	ck_assert_msg(p != NULL, "the man page lacks %s", o->name);
	const char *end = strstr(p + strlen(head), "\n.It");
	if (!end)
		end = strstr(p, "\n.El");
	ck_assert_ptr_nonnull(end);
	snprintf(item, sizeof item, "%.*s", (int)(end - p) + 1, p);
	bool planned = strstr(item, "\nWithout effect in this version.\n");
	ck_assert_msg(planned == !!(o->flags & OBD_OPT_PLANNED), "man page, %s: has it an effect?", o->name);
	bool reload = strstr(item, "\nTaken over on reload.\n");
	ck_assert_msg(reload == !!(o->flags & OBD_OPT_RELOAD), "man page, %s: is it reloaded?", o->name);
	char want[256] = "";
	if (o->type == OBD_OPT_U32)
		snprintf(want, sizeof want, "%u to %u%s%s.\nDefault:\n.Li %u .", o->min, o->max, *o->unit ? " " : "", o->unit,
			 o->def);
	else if (o->def_text && *o->def_text)
		snprintf(want, sizeof want, "Default:\n.Li %s .", o->def_text);
	else if (o->type == OBD_OPT_BOOL)
		snprintf(want, sizeof want, "Default:\n.Li %s .", o->def ? "true" : "false");
	ck_assert_msg(strstr(item, want) != NULL, "man page, %s: lacks \"%s\"", o->name, want);
}

START_TEST(man_page_follows_the_table)
{
	char *man = read_source("doc/overlaybd.yaml.5");
	for (uint32_t i = 0; i < obd_config_option_count; i++)
		assert_item(man, &obd_config_options[i]);
	for (uint32_t i = 0; i < obd_registry_option_count; i++)
		assert_item(man, &obd_registry_options[i]);
	free(man);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("config");
	TCase *t = tcase_create("config");
	tcase_add_test(t, empty_file_is_defaults);
	tcase_add_test(t, table_is_sound);
	tcase_add_test(t, every_kind_of_value);
	tcase_add_test(t, printed_text_reads_back);
	tcase_add_test(t, fetchers_follow_the_cores);
	tcase_add_test(t, errors_name_line_and_key);
	tcase_add_test(t, registries_are_checked);
	tcase_add_loop_test(t, malformed_addresses, 0, OBD_ARRAY_SIZE(malformed));
	tcase_add_loop_test(t, good_addresses, 0, OBD_ARRAY_SIZE(addresses));
	tcase_add_test(t, yaml_traps);
	tcase_add_test(t, old_json_form);
	tcase_add_test(t, flat_keys);
	tcase_add_test(t, planned_options_warn);
	tcase_add_test(t, restart_or_reload);
	tcase_add_test(t, files);
	tcase_add_test(t, shipped_file_is_the_defaults);
	tcase_add_test(t, man_page_follows_the_table);
	suite_add_tcase(s, t);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
