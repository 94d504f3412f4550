/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The one table of the global configuration.
 *
 * Each row is X(field, name, type, min, max, default, unit, flags, text):
 *   field    member of struct obd_config (or struct obd_registry)
 *   name     key as users write it, sections joined by dots
 *   type     BOOL | U32 | STR | PATH | ENUM | LIST
 *   min,max  U32: value; STR, PATH: length in bytes (min 0: may be empty); LIST: number of elements; else unused
 *   default  of that type; ENUM: a number; LIST: none
 *   unit     U32: "" or the unit; ENUM: the words, "|" between them, in the order of their numbers
 *   flags    OBD_OPT_*
 *   text     one sentence for people
 * The struct, the defaults, both parsers, the printer, and the checks of the man page and the shipped file derive from it.
 * A PATH is absolute or empty.
 */
#ifndef OBD_COMMON_CONFIG_OPTIONS_H
#define OBD_COMMON_CONFIG_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OBD_OPT_RELOAD 1u  /* a running group takes a new value on reload */
#define OBD_OPT_PLANNED 2u /* accepted, checked, and without effect in this version */
#define OBD_OPT_POW2 4u	   /* must be a power of two */
#define OBD_OPT_HOST 8u	   /* each string is empty, or HOST or HOST:PORT */
#define OBD_OPT_URL 16u	   /* each string is empty, or an address http(s)://; with OBD_OPT_HOST: one of both */

#define OBD_OPT_STR_MAX 4096 /* longest string in any configuration */

enum obd_hugepages { OBD_HUGEPAGES_AUTO, OBD_HUGEPAGES_REQUIRE, OBD_HUGEPAGES_OFF };
enum obd_credential_mode { OBD_CREDENTIAL_FILE, OBD_CREDENTIAL_HTTP, OBD_CREDENTIAL_HTTPS, OBD_CREDENTIAL_UDS };

/* clang-format off */
#define OBD_CONFIG_OPTIONS(X) \
X(log_level, "logConfig.logLevel", U32, 0, 3, 1, "", OBD_OPT_RELOAD, \
  "Lowest level that is logged: 0 debug, 1 info, 2 warning, 3 error.") \
X(log_path, "logConfig.logPath", PATH, 0, 4000, "", "", OBD_OPT_RELOAD, \
  "File that the log is appended to; empty: standard error.") \
X(io_engine, "ioEngine", U32, 0, 2, 0, "", 0, \
  "How local files are read and written: 0 psync, 1 libaio, 2 POSIX aio.") \
X(cache_dir, "cacheConfig.cacheDir", PATH, 1, 4000, "/opt/overlaybd/registry_cache", "", 0, \
  "Directory of the disk cache.") \
X(cache_size_gb, "cacheConfig.cacheSizeGB", U32, 0, 1048576, 4, "GiB", 0, \
  "Largest size of the disk cache; 0: no disk cache.") \
X(credential_mode, "credentialConfig.mode", ENUM, 0, 0, OBD_CREDENTIAL_FILE, "file|http|https|uds", 0, \
  "Where credentials come from: a JSON file, or a service that is asked for them.") \
X(credential_path, "credentialConfig.path", STR, 0, 4096, "/opt/overlaybd/cred.json", "", 0, \
  "The credential file, or the address of the service.") \
X(credential_timeout, "credentialConfig.timeout", U32, 1, 3600, 1, "s", 0, \
  "How long the credential service may take to answer.") \
X(credential_client_cert_path, "credentialConfig.client_cert_path", PATH, 0, 4000, "", "", 0, \
  "Client certificate shown to the credential service (mode https).") \
X(credential_client_key_path, "credentialConfig.client_key_path", PATH, 0, 4000, "", "", 0, \
  "Key of that certificate.") \
X(credential_server_ca_path, "credentialConfig.server_ca_path", PATH, 0, 4000, "", "", 0, \
  "Certificate authorities that the credential service is checked against.") \
X(download_enable, "download.enable", BOOL, 0, 0, false, "", 0, \
  "Download whole layers in the background.") \
X(download_delay, "download.delay", U32, 0, 604800, 300, "s", 0, \
  "Time between the launch of a device and its background download.") \
X(download_delay_extra, "download.delayExtra", U32, 0, 604800, 30, "s", 0, \
  "Upper bound of a random time added to the delay.") \
X(download_max_mbps, "download.maxMBps", U32, 0, 1048576, 100, "MB/s", 0, \
  "Rate of all background downloads together; 0: unlimited.") \
X(download_try_cnt, "download.tryCnt", U32, 1, 1000, 5, "", 0, \
  "How often the download of a layer is tried.") \
X(download_block_size, "download.blockSize", U32, 4096, 67108864, 262144, "bytes", 0, \
  "Size of one request of a background download.") \
X(p2p_enable, "p2pConfig.enable", BOOL, 0, 0, false, "", 0, \
  "Fetch through a peer-to-peer proxy.") \
X(p2p_address, "p2pConfig.address", STR, 0, 4096, "http://localhost:9731/accelerator", "", OBD_OPT_URL, \
  "Address that registry URLs are appended to when p2pConfig.enable is set.") \
X(cert_file, "certConfig.certFile", PATH, 0, 4000, "", "", 0, \
  "Client certificate shown to registries.") \
X(cert_key_file, "certConfig.keyFile", PATH, 0, 4000, "", "", 0, \
  "Key of that certificate.") \
X(user_agent, "userAgent", STR, 0, 1024, "", "", 0, \
  "User-Agent that registries see; empty: overlaybd/VERSION.") \
X(prefetch_concurrency, "prefetchConfig.concurrency", U32, 1, 1024, 16, "", 0, \
  "Requests in flight for what is fetched ahead: recorded traces, and metadata of file systems.") \
X(exporter_enable, "exporterConfig.enable", BOOL, 0, 0, false, "", OBD_OPT_PLANNED, \
  "Serve metrics over HTTP.") \
X(exporter_uri_prefix, "exporterConfig.uriPrefix", STR, 0, 1024, "/metrics", "", OBD_OPT_PLANNED, \
  "Path that the metrics are served at.") \
X(exporter_port, "exporterConfig.port", U32, 1, 65535, 9863, "", OBD_OPT_PLANNED, \
  "TCP port that the metrics are served at.") \
X(runtime_dir, "runtimeDir", PATH, 1, 80, "/run/overlaybd", "", 0, \
  "Directory of sockets, pid file and state of the running group.") \
X(shared_cache_size_mb, "sharedCache.sizeMB", U32, 16, 1048576, 512, "MiB", 0, \
  "Memory for decompressed blocks, shared by all devices.") \
X(shared_cache_block_kb, "sharedCache.blockKB", U32, 16, 1024, 64, "KiB", OBD_OPT_POW2, \
  "Size of one cached block.") \
X(shared_cache_hugepages, "sharedCache.hugepages", ENUM, 0, 0, OBD_HUGEPAGES_AUTO, "auto|require|off", 0, \
  "Use huge pages: when there are enough of them, or fail without, or never.") \
X(shared_cache_index_mb, "sharedCache.indexMB", U32, 8, 65536, 64, "MiB", 0, \
  "Memory for the indexes of open images.") \
X(fetchers, "fetchers", U32, 0, 32, 0, "", 0, \
  "Number of fetcher processes; 0: one per core, at least 2, at most 8.") \
X(readahead_kb, "readaheadKB", U32, 0, 65536, 4096, "KiB", OBD_OPT_RELOAD, \
  "Largest readahead window of a sequential reader; 0: no readahead.") \
X(read_timeout_sec, "readTimeoutSec", U32, 0, 604800, 300, "s", OBD_OPT_RELOAD, \
  "How long a read waits for an unreachable registry before it fails; 0: for ever.") \
X(hang_sec, "hangSec", U32, 1, 3600, 10, "s", OBD_OPT_RELOAD, \
  "A process without a heartbeat for so long is killed and started again.") \
X(offline_open, "offlineOpen", BOOL, 0, 0, true, "", 0, \
  "Open an image from the disk cache while its registry is unreachable.") \
X(fetcher_user, "fetcherUser", STR, 0, 64, "overlaybd", "", 0, \
  "User that fetchers run as; empty: root.") \
X(layer_dirs, "layerDirs", LIST, 0, 64, 0, "", 0, \
  "Directories that layers lie in or are downloaded to; fetchers have no files elsewhere. None: anywhere.") \
X(frontend_manage, "frontend.manage", BOOL, 0, 0, false, "", 0, \
  "Start and watch tgtd, and attach its devices again after a restart.") \
X(frontend_tgtd, "frontend.tgtd", PATH, 1, 4000, "/usr/sbin/tgtd", "", 0, \
  "The tgtd program.") \
X(frontend_control_port, "frontend.controlPort", U32, 0, 65535, 0, "", 0, \
  "Control port of tgtd.") \
X(frontend_portal, "frontend.portal", STR, 0, 256, "", "", OBD_OPT_HOST, \
  "ADDRESS:PORT that tgtd listens on; empty: its own default.") \
X(frontend_state_dir, "frontend.stateDir", PATH, 0, 4000, "", "", 0, \
  "Directory of the record of what is attached; empty: runtimeDir.")

/* One element of registries[]. */
#define OBD_REGISTRY_OPTIONS(X) \
X(host, "registries[].host", STR, 1, 261, "", "", OBD_OPT_HOST, \
  "HOST or HOST:PORT as it stands in image configurations.") \
X(mirrors, "registries[].mirrors", LIST, 0, 16, 0, "", OBD_OPT_HOST | OBD_OPT_URL, \
  "Addresses that are tried before the registry itself.") \
X(insecure, "registries[].insecure", BOOL, 0, 0, false, "", 0, \
  "Do not check the registry's certificate.") \
X(ca_file, "registries[].caFile", PATH, 0, 4000, "", "", 0, \
  "Certificate authorities that this registry is checked against; empty: those of the system.")

/* Flat keys of old configurations: X(old name, name). Where both are given, the newer name counts. */
#define OBD_CONFIG_LEGACY(X) \
X("logLevel", "logConfig.logLevel") \
X("logPath", "logConfig.logPath") \
X("registryCacheDir", "cacheConfig.cacheDir") \
X("registryCacheSizeGB", "cacheConfig.cacheSizeGB") \
X("credentialFilePath", "credentialConfig.path")

/* Keys of the old JSON file that mean nothing here; a section stands for all its members. */
#define OBD_CONFIG_IGNORED(X) \
X("auditPath") \
X("cacheConfig.blockSize") \
X("cacheConfig.cacheType") \
X("cacheConfig.refillSize") \
X("cacheType") \
X("enableAudit") \
X("enableThread") \
X("exporterConfig.updateInterval") \
X("gzipCacheConfig") \
X("logConfig.logRotateNum") \
X("logConfig.logSizeMB") \
X("registryFsVersion") \
X("serviceConfig") \
X("tlsConfig")
/* clang-format on */

#define OBD_REGISTRIES_MAX 64
#define OBD_OPT_COUNT_MAX 64 /* rows in OBD_CONFIG_OPTIONS, for arrays over them */

enum obd_option_type { OBD_OPT_BOOL, OBD_OPT_U32, OBD_OPT_STR, OBD_OPT_PATH, OBD_OPT_ENUM, OBD_OPT_LIST };

/* A list of strings, owned by whoever holds the struct. */
struct obd_strings {
	uint32_t count;
	char **item;
};

/* C types of the fields. */
#define OBD_OPT_CTYPE_BOOL bool
#define OBD_OPT_CTYPE_U32 uint32_t
#define OBD_OPT_CTYPE_STR char *
#define OBD_OPT_CTYPE_PATH char *
#define OBD_OPT_CTYPE_ENUM uint32_t
#define OBD_OPT_CTYPE_LIST struct obd_strings
#define OBD_OPT_FIELD(field, name, type, ...) OBD_OPT_CTYPE_##type field;

/* A row at run time. */
struct obd_option {
	const char *name;
	enum obd_option_type type;
	size_t offset; /* of the field in its struct */
	uint32_t min, max;
	uint32_t def;	      /* default of BOOL, U32 and ENUM */
	const char *def_text; /* default of STR and PATH */
	const char *unit;
	unsigned int flags;
	const char *text;
};

extern const struct obd_option obd_config_options[];
extern const uint32_t obd_config_option_count;
extern const struct obd_option obd_registry_options[];
extern const uint32_t obd_registry_option_count;

#endif
