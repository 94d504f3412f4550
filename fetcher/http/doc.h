/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Small documents over HTTP: what token and credential services answer. One GET, no redirects, no retries, the body in memory
 * and wiped afterwards. Certificates are checked as those of the host's entry in the configuration say.
 */
#ifndef OBD_FETCHER_HTTP_DOC_H
#define OBD_FETCHER_HTTP_DOC_H

#include <stddef.h>
#include <stdint.h>

struct obd_http;
struct obd_http_doc;

/* Strings may be NULL; all are copied. */
struct obd_http_doc_request {
	const char *url;
	const char *authorization; /* value of the header */
	const char *unix_socket;   /* goes there, whatever host the address names */
	const char *ca_file;	   /* in place of the system's authorities */
	const char *cert_file;
	const char *key_file;
	/* The registry (host or host:port) that named the address: plain HTTP then leads only from an insecure registry to
	 * itself, from loopback to loopback, and to hosts whose entry says insecure. NULL: the administrator named it. */
	const char *for_host;
	uint32_t timeout_ms;
	size_t max_bytes;
};

struct obd_http_doc_answer {
	int err;	    /* positive errno: there was no answer, and reason says why */
	const char *reason; /* one line, no secrets */
	const char *host;   /* who was asked, for messages */
	long status;
	const char *body; /* bytes of it, and a NUL */
	size_t bytes;
	int64_t date_s; /* the server's clock, seconds since 1970; 0: it did not say */
};

typedef void obd_http_doc_fn(void *arg, const struct obd_http_doc_answer *answer);

/* done is called once, never from inside, and the handle is gone then. NULL: no memory. */
struct obd_http_doc *obd_http_doc_get(struct obd_http *http, const struct obd_http_doc_request *req, obd_http_doc_fn *done,
				      void *arg);

/* Ends it without calling done. NULL is allowed. Before the end of http. */
void obd_http_doc_cancel(struct obd_http_doc *doc);

#endif
