/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Where a request may go: the rules about plain HTTP. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "fetcher/http/transfer.h"

bool obd_http_is_loopback(const char *name)
{
	char host[OBD_HTTP_NAME_BYTES];
	const char *port = strrchr(name, ':');
	int n = port && !strchr(port, ']') ? (int)(port - name) : (int)strlen(name);
	snprintf(host, sizeof host, "%.*s", n, name);
	struct in_addr v4;
	if (strcasecmp(host, "localhost") == 0 || strcmp(host, "[::1]") == 0)
		return true;
	return inet_pton(AF_INET, host, &v4) == 1 && (ntohl(v4.s_addr) >> 24) == 127;
}

/* One part of a URL into a buffer; "" when there is none. False when it does not fit. */
static bool get_part(CURLU *u, CURLUPart part, char *out, size_t room)
{
	char *text = NULL;
	out[0] = '\0';
	if (curl_url_get(u, part, &text, 0))
		return true;
	int n = snprintf(out, room, "%s", text);
	curl_free(text);
	return n >= 0 && (size_t)n < room;
}

static int fill(CURLU *u, const struct obd_config *config, struct obd_http_hop *hop, const char **what)
{
	char scheme[8], user[2], host[260], port[8];
	*what = "the address has user information in it";
	if (!get_part(u, CURLUPART_USER, user, sizeof user) || user[0])
		return EPROTO;
	*what = "the address is neither http nor https";
	if (!get_part(u, CURLUPART_SCHEME, scheme, sizeof scheme) || (strcmp(scheme, "http") && strcmp(scheme, "https")))
		return EPROTO;
	*what = "the address has no usable host";
	if (!get_part(u, CURLUPART_HOST, host, sizeof host) || !get_part(u, CURLUPART_PORT, port, sizeof port) || !host[0])
		return EPROTO;
	snprintf(hop->name, sizeof hop->name, "%s%s%s", host, port[0] ? ":" : "", port);
	hop->https = strcmp(scheme, "https") == 0;
	hop->loopback = obd_http_is_loopback(host);
	hop->registry = obd_config_registry(config, hop->name);
	return 0;
}

int obd_http_hop_parse(const struct obd_config *config, const char *url, struct obd_http_hop *hop, const char **what)
{
	memset(hop, 0, sizeof *hop);
	*what = "no memory";
	CURLU *u = curl_url();
	if (!u)
		return EAGAIN;
	*what = "the address cannot be read";
	int rc = EPROTO;
	if (curl_url_set(u, CURLUPART_URL, url, 0) == CURLUE_OK)
		rc = fill(u, config, hop, what);
	curl_url_cleanup(u);
	return rc;
}

bool obd_http_hop_allowed(const struct obd_http_hop *from, const struct obd_http_hop *to)
{
	if (to->https)
		return true;
	if (from)
		return !from->https || (from->registry && from->registry->insecure);
	return to->loopback || (to->registry && to->registry->insecure);
}
