/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "common/config/url.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define LETTERS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
#define DIGITS "0123456789"

static int bad(struct obd_err *err, const char *reason)
{
	return obd_err_set(err, EINVAL, "%s", reason);
}

static void copy_lower(char *to, const char *from, size_t len)
{
	for (size_t i = 0; i < len; i++)
		to[i] = (char)tolower((unsigned char)from[i]);
	to[len] = 0;
}

/* Takes the host at p and returns its length, or 0. */
static size_t scan_host(const char *p)
{
	if (*p != '[')
		return strspn(p, LETTERS DIGITS ".-_");
	size_t n = strspn(p + 1, "abcdefABCDEF" DIGITS ":.");
	char address[INET6_ADDRSTRLEN];
	struct in6_addr bin;
	if (p[1 + n] != ']' || n >= sizeof address)
		return 0;
	memcpy(address, p + 1, n);
	address[n] = 0;
	return inet_pton(AF_INET6, address, &bin) == 1 ? n + 2 : 0;
}

/* Reads ":PORT" at p. Returns the number of characters, 0 if there is no port, or -1. */
static int scan_port(const char *p, uint16_t *port)
{
	if (*p != ':')
		return 0;
	size_t n = strspn(p + 1, DIGITS);
	unsigned int v = 0;
	if (n < 1 || n > 5)
		return -1;
	for (size_t i = 1; i <= n; i++)
		v = v * 10 + (unsigned int)(p[i] - '0');
	if (v < 1 || v > 65535)
		return -1;
	*port = (uint16_t)v;
	return (int)n + 1;
}

/* Reads HOST[:PORT] and returns what follows, or NULL with err set. */
static const char *scan_authority(const char *p, struct obd_repo_url *out, struct obd_err *err)
{
	size_t host = scan_host(p);
	if (host < 1 || host > OBD_URL_HOST_MAX + 2) {
		bad(err, "no valid host");
		return NULL;
	}
	out->port = out->https ? 443 : 80;
	int port = scan_port(p + host, &out->port);
	if (port < 0) {
		bad(err, "the port is not in 1..65535");
		return NULL;
	}
	copy_lower(out->host, p, host);
	copy_lower(out->registry, p, host + (size_t)port);
	snprintf(out->origin, sizeof out->origin, "http%s://%s:%u", out->https ? "s" : "", out->host, out->port);
	return p + host + port;
}

static int scan_repo(const char *p, size_t len, struct obd_repo_url *out, struct obd_err *err)
{
	if (len > OBD_URL_REPO_MAX)
		return bad(err, "the repository's name is too long");
	for (size_t i = 0; i <= len;) {
		size_t n = strspn(p + i, LETTERS DIGITS "._-");
		if (n < 1 || (i + n != len && p[i + n] != '/') || strspn(p + i, ".") == n)
			return bad(err, "the repository's name is not made of letters, digits, '.', '_', '-' and single '/'");
		i += n + 1;
	}
	memcpy(out->repo, p, len);
	out->repo[len] = 0;
	return 0;
}

int obd_repo_url_parse(const char *text, struct obd_repo_url *out, struct obd_err *err)
{
	static const char head[] = "/v2/", tail[] = "/blobs";
	memset(out, 0, sizeof *out);
	if (strncasecmp(text, "https://", 8) == 0)
		out->https = true;
	else if (strncasecmp(text, "http://", 7) != 0)
		return bad(err, "neither http:// nor https://");
	const char *p = text + (out->https ? 8 : 7);
	if (strchr(p, '@'))
		return bad(err, "user information is not allowed in the URL");
	if (strpbrk(p, "?#%"))
		return bad(err, "'?', '#' and '%' are not allowed in the URL");
	p = scan_authority(p, out, err);
	if (!p)
		return -EINVAL;
	size_t len = strlen(p), fixed = sizeof head - 1 + sizeof tail - 1;
	if (len <= fixed || strncmp(p, head, sizeof head - 1) != 0 || strcmp(p + len - (sizeof tail - 1), tail) != 0)
		return bad(err, "the path is not /v2/REPOSITORY/blobs");
	return scan_repo(p + sizeof head - 1, len - fixed, out, err);
}

/* --- addresses of the configuration ------------------------------------------------------------------------------------- */

static bool is_name(const char *host, size_t len)
{
	if (*host == '[')
		return true;
	for (size_t i = 0; i < len; i++)
		if (!isalnum((unsigned char)host[i]) && (i == 0 || host[i - 1] == '.'))
			return false; /* no label begins with '.', '-' or '_' */
	return len > 0;
}

static const char *check_rest(const char *p, unsigned int forms)
{
	if (!*p)
		return NULL;
	if (*p != '/' && *p != '?')
		return *p == '@' ? "user information is not allowed" : "no valid host";
	if (forms == OBD_URL_BARE)
		return "a path is not allowed";
	if (strchr(p, '?') && !(forms & OBD_URL_QUERY))
		return "'?' is not allowed";
	for (; *p; p++)
		if (*p <= ' ' || *p > '~' || strchr("#\"<>\\^`{|}", *p))
			return "a character that is not allowed";
	return NULL;
}

static const char *check_url(const char *text, unsigned int forms)
{
	bool http = strncasecmp(text, "http://", 7) == 0, https = strncasecmp(text, "https://", 8) == 0;
	uint16_t port;
	if (http ? !(forms & OBD_URL_HTTP) : https ? !(forms & OBD_URL_HTTPS) : !(forms & (OBD_URL_BARE | OBD_URL_SHORT)))
		return http || https || strstr(text, "://") ? "the scheme is not allowed" : "no scheme";
	const char *host = text + (http ? 7 : https ? 8 : 0);
	size_t len = scan_host(host);
	if (strstr(host, "://"))
		return "the scheme is not allowed";
	if (len < 1 || len > OBD_URL_HOST_MAX || !is_name(host, len))
		return "no valid host";
	int digits = scan_port(host + len, &port);
	if (digits < 0 || isdigit((unsigned char)host[len + (size_t)digits]))
		return "the port is not in 1..65535";
	bool bare = !http && !https && !(forms & OBD_URL_SHORT);
	return check_rest(host + len + digits, bare ? OBD_URL_BARE : forms);
}

int obd_url_check(const char *text, unsigned int forms, struct obd_err *err)
{
	const char *why = check_url(text, forms);
	const char *scheme = forms & OBD_URL_HTTP ? forms & OBD_URL_HTTPS ? "http(s)://" : "http://" : "https://";
	bool full = forms & (OBD_URL_HTTP | OBD_URL_HTTPS);
	if (!why)
		return 0;
	return obd_err_set(err, EINVAL, "\"%.128s\": %s; expected %s%s%s%s%s%s", text, why,
			   forms & OBD_URL_BARE ? "HOST or HOST:PORT" : "", forms & OBD_URL_BARE && full ? " or " : "",
			   forms & OBD_URL_SHORT ? "[" : "", full ? scheme : "", forms & OBD_URL_SHORT ? "]" : "",
			   full ? "HOST[:PORT][/PATH]" : "");
}
