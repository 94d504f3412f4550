/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "supervisor/store.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define AREA_BYTES_MAX (UINT64_C(1) << 30)

int obd_store_init(struct obd_store *s)
{
	memset(s, 0, sizeof *s);
	for (unsigned int k = 0; k < OBD_KINDS; k++) {
		uint32_t count = obd_kind_count((enum obd_kind)k);
		s->fds[k] = calloc(count, sizeof(int));
		if (!s->fds[k]) {
			obd_store_free(s);
			return -ENOMEM;
		}
		for (uint32_t i = 0; i < count; i++)
			s->fds[k][i] = -1;
	}
	return 0;
}

void obd_store_free(struct obd_store *s)
{
	for (unsigned int k = 0; k < OBD_KINDS; k++) {
		for (uint32_t i = 0; s->fds[k] && i < obd_kind_count((enum obd_kind)k); i++)
			obd_store_put(s, (enum obd_kind)k, i, -1);
		free(s->fds[k]);
		s->fds[k] = NULL;
	}
}

int obd_store_get(const struct obd_store *s, enum obd_kind kind, uint32_t index)
{
	assert((unsigned int)kind < OBD_KINDS && index < obd_kind_count(kind));
	return s->fds[kind][index];
}

void obd_store_put(struct obd_store *s, enum obd_kind kind, uint32_t index, int fd)
{
	int *place = &s->fds[kind][index];
	assert((unsigned int)kind < OBD_KINDS && index < obd_kind_count(kind));
	if (*place >= 0)
		close(*place);
	*place = fd;
}

static int check_deposit(const struct obd_store *s, enum obd_kind kind, const char *name, uint32_t index, int fd,
			 struct obd_err *err)
{
	struct stat st;
	if (kind == OBD_KINDS || !obd_kind_is_deposited(kind))
		return obd_err_set(err, EPROTO, "deposit of \"%s\": not a region that is deposited", name);
	if (index >= obd_kind_count(kind))
		return obd_err_set(err, EPROTO, "deposit of %s %u: only %u can be", name, index, obd_kind_count(kind));
	if (obd_store_get(s, kind, index) >= 0)
		return obd_err_set(err, EPROTO, "deposit of %s %u: there is one already", name, index);
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size <= 0)
		return obd_err_set(err, EPROTO, "deposit of %s %u: not a descriptor of memory", name, index);
	return 0;
}

int obd_store_deposit(struct obd_store *s, const char *name, uint32_t index, int fd, struct obd_err *err)
{
	enum obd_kind kind = obd_kind_by_name(name);
	int rc = check_deposit(s, kind, name, index, fd, err);
	if (rc < 0) {
		close(fd);
		return rc;
	}
	(void)fchmod(fd, 0600); /* else whoever has it read-only could open it again for writing, through /proc */
	obd_store_put(s, kind, index, fd);
	return 0;
}

int obd_store_setting(struct obd_store *s, const char *name, uint64_t value, struct obd_err *err)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	if (strcmp(name, "client_area_bytes") != 0)
		return obd_err_set(err, EPROTO, "setting \"%s\" is unknown", name);
	if (value == 0 || value % page || value > AREA_BYTES_MAX)
		return obd_err_set(err, EPROTO, "client_area_bytes is %llu, not a number of pages up to 1 GiB",
				   (unsigned long long)value);
	if (s->client_area_bytes && s->client_area_bytes != value)
		return obd_err_set(err, EPROTO, "client_area_bytes changes from %llu to %llu",
				   (unsigned long long)s->client_area_bytes, (unsigned long long)value);
	s->client_area_bytes = value;
	return 0;
}

int obd_store_check(const struct obd_store *s, uint32_t fetchers, struct obd_err *err)
{
	for (unsigned int k = 0; k < OBD_KINDS && obd_kind_is_deposited((enum obd_kind)k); k++) {
		uint32_t need = k == OBD_KIND_FETCHER ? fetchers : 1;
		for (uint32_t i = 0; i < need; i++)
			if (obd_store_get(s, (enum obd_kind)k, i) < 0)
				return obd_err_set(err, EPROTO, "ready without having deposited %s %u",
						   obd_kind_name((enum obd_kind)k), i);
	}
	if (!s->client_area_bytes)
		return obd_err_set(err, EPROTO, "ready without having told client_area_bytes");
	return 0;
}

void obd_store_clear_deposits(struct obd_store *s)
{
	for (unsigned int k = 0; k < OBD_KINDS && obd_kind_is_deposited((enum obd_kind)k); k++)
		for (uint32_t i = 0; i < obd_kind_count((enum obd_kind)k); i++)
			obd_store_put(s, (enum obd_kind)k, i, -1);
	s->client_area_bytes = 0;
}

int obd_store_new_bell(void)
{
	int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int obd_store_new_area(const struct obd_store *s)
{
	int fd = memfd_create("overlaybd-client", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return -errno;
	if (fchmod(fd, 0600) < 0 || ftruncate(fd, (off_t)s->client_area_bytes) < 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
		int rc = -errno;
		close(fd);
		return rc;
	}
	return fd;
}

int obd_store_read_only(int fd)
{
	char path[32];
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	int ro = open(path, O_RDONLY | O_CLOEXEC);
	return ro < 0 ? -errno : ro;
}
