/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a registry wants to see before it answers: WWW-Authenticate, as RFC 9110 writes it and as hostile servers bend it.
 * No allocation, nothing blocks; what does not parse is as if it had not been sent.
 */
#ifndef OBD_FETCHER_AUTH_CHALLENGE_H
#define OBD_FETCHER_AUTH_CHALLENGE_H

#include <stdbool.h>
#include <stddef.h>

enum obd_auth_scheme {
	OBD_AUTH_UNKNOWN = 0, /* nobody asked for anything yet */
	OBD_AUTH_BASIC,
	OBD_AUTH_BEARER,
};

/* The best challenge of an answer: Bearer before Basic, the first of several. All zero: none. */
struct obd_challenge {
	enum obd_auth_scheme scheme;
	char realm[1024]; /* printable ASCII without spaces; the Bearer scheme's is not empty */
	char service[256];
	char scope[1024]; /* "": none was named */
};

/* Takes note of one header line of n bytes, line end included. Lines of no interest are ignored; a status line starts over. */
void obd_challenge_line(struct obd_challenge *c, const char *line, size_t n);

/* The same for the value of a WWW-Authenticate header. */
void obd_challenge_value(struct obd_challenge *c, const char *value, size_t n);

#define OBD_CHALLENGE_TEXT_BYTES 2400u

/* A Bearer challenge as text for other processes, and back. False: it is not one. */
bool obd_challenge_pack(const struct obd_challenge *c, char out[OBD_CHALLENGE_TEXT_BYTES]);
bool obd_challenge_unpack(struct obd_challenge *c, const char *text);

#endif
