/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who we are for which registry: sets of credentials as docker writes them.
 *
 *   {"auths": {"HOST[:PORT][/NAMESPACE[/REPO]]": {"username": …, "password": …} | {"auth": base64 of "user:password"}}}
 *
 * Keys may have a scheme in front and /v1/ or /v2/ behind, as old docker versions write them. Docker Hub's names are one host.
 * Elements that hold no credential (as with credential helpers) are passed over; malformed ones too, and counted. All memory
 * here is wiped when it is freed; no message quotes what a file holds.
 */
#ifndef OBD_FETCHER_AUTH_CREDS_H
#define OBD_FETCHER_AUTH_CREDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "common/base/err.h"

#define OBD_CREDS_BYTES_MAX (1u << 20) /* of a file or an answer */
#define OBD_CREDS_MAX 4096u	       /* elements */
#define OBD_CRED_TEXT_MAX (16u << 10)  /* a user's name or a password: cloud registries give out long ones */

/* One credential; all zero: none, that is anonymous. */
struct obd_cred {
	char *user;
	char *password;
	uint64_t id; /* the same for the same user and password; never 0 for one that is there */
};

/* Copies from into *to, whose content is freed first. 0 or -ENOMEM. */
int obd_cred_copy(struct obd_cred *to, const struct obd_cred *from);
void obd_cred_free(struct obd_cred *cred);

/* Value of an Authorization header, or NULL: no memory. The caller frees it with obd_secret_free. */
char *obd_cred_basic(const struct obd_cred *cred);

struct obd_creds;

/* Reads a set. name stands for the source in err. *bad: elements that were passed over because they are malformed. 0, or
 * -EINVAL or -ENOMEM with *out NULL. */
int obd_creds_parse(const char *buf, size_t len, const char *name, struct obd_creds **out, unsigned int *bad,
		    struct obd_err *err);

/* The same for a credential service's answer {"success": …, "data": {"auths": …}}. Without success the set is empty. */
int obd_creds_parse_answer(const char *buf, size_t len, const char *name, struct obd_creds **out, unsigned int *bad,
			   struct obd_err *err);

/* "credsStore", "credHelpers" or "identitytoken", if the file names one: nothing of it is used. NULL: it does not. */
const char *obd_creds_unknown(const struct obd_creds *set);

/* The element with the longest key that is host or host/ and leading components of repo; NULL: none. Lent by the set. */
const struct obd_cred *obd_creds_find(const struct obd_creds *set, const char *host, const char *repo);

void obd_creds_free(struct obd_creds *set);

/* --- a file of them ------------------------------------------------------------------------------------------------------- */

struct obd_cred_file {
	const char *path;
	struct obd_creds *set; /* NULL: nothing was ever read, or there is no file */
	bool seen;	       /* the following hold what was read last */
	bool broken;	       /* what is there now could not be read; set is what was there before */
	struct timespec mtime;
	uint64_t dev, ino;
	int64_t bytes;
};

/* Reads the file if it is not what it was, or in any case when again is set. A file that is not there is an empty set; one that
 * cannot be read leaves the old set in force, with a warning. Reads the file system. */
void obd_cred_file_look(struct obd_cred_file *f, bool again);

/* Broken, and changed so lately that somebody may be writing it? */
bool obd_cred_file_unsettled(const struct obd_cred_file *f);

void obd_cred_file_free(struct obd_cred_file *f);

#endif
