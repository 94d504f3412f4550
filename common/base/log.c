/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "common/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/base/clock.h"

#define LINE_BYTES 2048
#define REPEAT_WINDOW_NS OBD_SECOND_NS

static const char *const level_names[] = {"debug", "info", "warning", "error"};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char ident[64];
static char log_path[4096];
static int log_fd = STDERR_FILENO;
static enum obd_log_level min_level = OBD_LOG_INFO;
static obd_log_sink_fn *sink;

/* The last text written, to fold repeats. */
static char last_text[LINE_BYTES];
static enum obd_log_level last_level;
static uint64_t last_ns;
static unsigned int repeats;

void obd_log_ident(const char *name)
{
	pthread_mutex_lock(&lock);
	snprintf(ident, sizeof ident, "%s", name);
	pthread_mutex_unlock(&lock);
}

static int open_file(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
	return fd < 0 ? -errno : fd;
}

static void replace_fd(int fd)
{
	if (log_fd != STDERR_FILENO)
		close(log_fd);
	log_fd = fd;
}

int obd_log_open(const char *path, enum obd_log_level level)
{
	int fd = STDERR_FILENO;
	if (path && *path) {
		if (strlen(path) >= sizeof log_path)
			return -ENAMETOOLONG;
		fd = open_file(path);
		if (fd < 0)
			return fd;
	}
	pthread_mutex_lock(&lock);
	replace_fd(fd);
	snprintf(log_path, sizeof log_path, "%s", path ? path : "");
	min_level = level;
	pthread_mutex_unlock(&lock);
	return 0;
}

void obd_log_set_level(enum obd_log_level level)
{
	pthread_mutex_lock(&lock);
	min_level = level;
	pthread_mutex_unlock(&lock);
}

void obd_log_sink(obd_log_sink_fn *fn)
{
	pthread_mutex_lock(&lock);
	sink = fn;
	pthread_mutex_unlock(&lock);
}

void obd_log_take(int fd)
{
	pthread_mutex_lock(&lock);
	replace_fd(fd);
	pthread_mutex_unlock(&lock);
}

int obd_log_fd(void)
{
	return log_fd == STDERR_FILENO ? -1 : log_fd;
}

int obd_log_reopen(void)
{
	int rc = 0;
	pthread_mutex_lock(&lock);
	if (log_path[0]) {
		int fd = open_file(log_path);
		if (fd < 0)
			rc = fd;
		else
			replace_fd(fd);
	}
	pthread_mutex_unlock(&lock);
	return rc;
}

/* One write(2) per line, so that lines of several processes in one file do not mix. A failing log is not reported:
 * there is nowhere to report it to. */
static void emit(enum obd_log_level level, const char *text)
{
	if (sink) {
		sink(level, text);
		return;
	}
	struct timespec ts;
	struct tm tm;
	char line[LINE_BYTES + 160];
	clock_gettime(CLOCK_REALTIME, &ts);
	gmtime_r(&ts.tv_sec, &tm);
	size_t n = strftime(line, 32, "%Y-%m-%dT%H:%M:%S", &tm);
	int m = snprintf(line + n, sizeof line - n, ".%03ldZ %s[%d] %s: %s\n", ts.tv_nsec / 1000000, ident, (int)getpid(),
			 level_names[level], text);
	if (m < 0)
		return;
	n += (size_t)m;
	if (n >= sizeof line)
		n = sizeof line - 1;
	ssize_t ignored = write(log_fd, line, n);
	(void)ignored;
}

static void flush_repeats(void)
{
	if (repeats) {
		char text[64];
		snprintf(text, sizeof text, "last message repeated %u times", repeats);
		emit(last_level, text);
		repeats = 0;
	}
}

void obd_log(enum obd_log_level level, const char *fmt, ...)
{
	int saved_errno = errno;
	char text[LINE_BYTES];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	for (char *p = text; *p; p++) /* a hostile file name or header must not forge a log line */
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = '?';

	pthread_mutex_lock(&lock);
	if (level >= min_level) {
		uint64_t now = obd_clock_ns();
		if (level == last_level && now - last_ns < REPEAT_WINDOW_NS && strcmp(text, last_text) == 0) {
			repeats++;
		} else {
			flush_repeats();
			emit(level, text);
			memcpy(last_text, text, sizeof text);
			last_level = level;
			last_ns = now;
		}
	}
	pthread_mutex_unlock(&lock);
	errno = saved_errno;
}
