/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Logging: leveled lines to standard error or to a file, repeats folded.
 *
 * A line is "2026-11-23T22:29:01.123Z obd-cached[4711] warning: text". The same text logged again within a second is
 * counted, and one line "last message repeated N times" follows. Secrets never reach a log call: callers log hosts and
 * repositories, never URLs with queries, headers or tokens. Thread-safe; may block on the file, so it is never called on
 * the hit path.
 */
#ifndef OBD_COMMON_BASE_LOG_H
#define OBD_COMMON_BASE_LOG_H

/* The numbers are those of logConfig.logLevel. */
enum obd_log_level {
	OBD_LOG_DEBUG = 0,
	OBD_LOG_INFO = 1,
	OBD_LOG_WARN = 2,
	OBD_LOG_ERROR = 3,
};

/* Names the program in every line. The string is copied. Default: no name. */
void obd_log_ident(const char *name);

/* Opens path for appending (NULL or "": standard error) and sets the lowest level that is written.
 * Returns 0 or a negative errno, in which case logging goes on as before. */
int obd_log_open(const char *path, enum obd_log_level level);

/* Changes the level only. */
void obd_log_set_level(enum obd_log_level level);

/* Opens the same file again, for log rotation. Keeps the old one and returns a negative errno when that fails. */
int obd_log_reopen(void);

/* Writes to fd (taken) instead, from now on. */
void obd_log_take(int fd);

/* The descriptor of the log file; -1: it is standard error. Stays the log's. */
int obd_log_fd(void);

/* Gives every line (level and text, no time and no name) to fn instead of writing it; NULL: write again. For libraries inside a
 * host that has a log of its own. fn must not log. */
typedef void obd_log_sink_fn(enum obd_log_level level, const char *text);
void obd_log_sink(obd_log_sink_fn *fn);

void obd_log(enum obd_log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define obd_debug(...) obd_log(OBD_LOG_DEBUG, __VA_ARGS__)
#define obd_info(...) obd_log(OBD_LOG_INFO, __VA_ARGS__)
#define obd_warn(...) obd_log(OBD_LOG_WARN, __VA_ARGS__)
#define obd_error(...) obd_log(OBD_LOG_ERROR, __VA_ARGS__)

#endif
