/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A fast blob server behind a link that can be made slow.
 *
 *   obd-blobserve [-l LATENCY_MS] [-b BYTES_PER_S] [-L LOG] -p PORTFILE DIR
 *
 * Serves GET and HEAD of any path that ends in sha256:<hex> from DIR/<hex>, HTTP/1.1 with keep-alive and single ranges, on
 * 127.0.0.1. One thread, one epoll.
 *
 *   request -> [LATENCY, each on its own] -> queue of the link -> BYTES_PER_S over all connections together, first come first
 * served
 *
 * GET /link?latency_ms=N&rate=N changes the link (rate 0: unlimited); GET /stats answers {"requests":N,"bytes":N}, body bytes
 * of blobs as sent. LOG gets one JSON line per finished answer: t, digest, first, sent, status, conn.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/list.h"
#include "common/base/util.h"

enum { REQUEST_BYTES = 8192, HEAD_BYTES = 512, SEGMENT_BYTES = 16384, BLOBS = 256, HEX = 64 };

static const char usage[] = "usage: obd-blobserve [-l LATENCY_MS] [-b BYTES_PER_S] [-L LOG] -p PORTFILE DIR\n";

struct blob {
	char hex[HEX + 1];
	const char *data;
	uint64_t bytes;
};

struct conn {
	struct obd_list link; /* in delayed or ready while an answer is due */
	int fd;
	unsigned int number;
	bool dead;
	bool full; /* the socket takes no more for now */
	size_t have;
	char request[REQUEST_BYTES + 1];
	/* the answer */
	uint64_t due_ns;
	char head[HEAD_BYTES];
	size_t head_bytes, head_sent;
	const struct blob *blob; /* NULL: no body */
	uint64_t first, body_bytes, body_sent;
	int status;
};

static struct {
	const char *dir;
	uint64_t latency_ns, rate;
	FILE *log;
	int epfd, listener;
	struct blob blob[BLOBS];
	unsigned int nblobs, nconns;
	struct obd_list delayed; /* by due_ns, but for changes of the latency */
	struct obd_list ready;	 /* the link's queue */
	uint64_t link_free_ns;
	uint64_t requests, bytes;
} g;

static void die(const char *what)
{
	fprintf(stderr, "obd-blobserve: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* --- blobs ---------------------------------------------------------------------------------------------------------------- */

static const struct blob *load(const char *hex)
{
	char path[4096];
	struct stat st;
	if (g.nblobs == BLOBS)
		return NULL;
	snprintf(path, sizeof path, "%s/%s", g.dir, hex);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return NULL;
	void *data = fstat(fd, &st) == 0 && st.st_size > 0
			     ? mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0)
			     : MAP_FAILED;
	close(fd);
	if (data == MAP_FAILED)
		return NULL;
	struct blob *b = &g.blob[g.nblobs++];
	snprintf(b->hex, sizeof b->hex, "%s", hex);
	b->data = data;
	b->bytes = (uint64_t)st.st_size;
	return b;
}

static const struct blob *find(const char *hex)
{
	if (strspn(hex, "0123456789abcdef") != HEX || strlen(hex) != HEX)
		return NULL;
	for (unsigned int i = 0; i < g.nblobs; i++)
		if (strcmp(g.blob[i].hex, hex) == 0)
			return &g.blob[i];
	return load(hex);
}

/* --- answers -------------------------------------------------------------------------------------------------------------- */

static void answer(struct conn *c, int status, uint64_t length, const char *more)
{
	c->status = status;
	c->head_sent = c->body_sent = 0;
	c->head_bytes = (size_t)snprintf(c->head, sizeof c->head,
					 "HTTP/1.1 %d %s\r\nContent-Length: %" PRIu64 "\r\nAccept-Ranges: bytes\r\n%s\r\n",
					 status, status < 300 ? "OK" : "No", length, more);
	c->due_ns = obd_clock_ns() + g.latency_ns;
	obd_list_push_back(&g.delayed, &c->link);
}

static void answer_text(struct conn *c, const char *text)
{
	c->blob = NULL;
	c->body_bytes = 0;
	answer(c, 200, strlen(text), "");
	snprintf(c->head + c->head_bytes, sizeof c->head - c->head_bytes, "%s", text);
	c->head_bytes += strlen(text);
	c->due_ns = 0;
}

static void answer_stats(struct conn *c)
{
	char text[128];
	snprintf(text, sizeof text, "{\"requests\":%" PRIu64 ",\"bytes\":%" PRIu64 "}\n", g.requests, g.bytes);
	answer_text(c, text);
}

static void change_link(struct conn *c, const char *query)
{
	const char *latency = strstr(query, "latency_ms="), *rate = strstr(query, "rate=");
	if (latency)
		g.latency_ns = strtoull(latency + 11, NULL, 10) * OBD_MS_NS;
	if (rate)
		g.rate = strtoull(rate + 5, NULL, 10);
	answer_text(c, "ok\n");
}

/* bytes=A-B, bytes=A-, bytes=-N. False: no range of the blob. */
static bool parse_range(const char *text, uint64_t bytes, uint64_t *first, uint64_t *end)
{
	char *rest;
	if (text[0] == '-') {
		uint64_t n = strtoull(text + 1, &rest, 10);
		*first = n < bytes ? bytes - n : 0;
		*end = bytes;
		return n > 0;
	}
	*first = strtoull(text, &rest, 10);
	*end = bytes;
	if (rest[0] == '-' && rest[1] >= '0' && rest[1] <= '9')
		*end = obd_min_u64(bytes, strtoull(rest + 1, NULL, 10) + 1);
	return rest[0] == '-' && *first < *end;
}

static void answer_blob(struct conn *c, const struct blob *b, bool head_only)
{
	char more[128] = "";
	const char *range = strcasestr(c->request, "\r\nrange: bytes=");
	uint64_t first = 0, end = b->bytes;
	g.requests++;
	if (range && !parse_range(range + 15, b->bytes, &first, &end)) {
		c->blob = NULL;
		c->body_bytes = 0;
		answer(c, 416, 0, "");
		return;
	}
	if (range)
		snprintf(more, sizeof more, "Content-Range: bytes %" PRIu64 "-%" PRIu64 "/%" PRIu64 "\r\n", first, end - 1,
			 b->bytes);
	c->blob = b;
	c->first = first;
	c->body_bytes = head_only ? 0 : end - first;
	answer(c, range ? 206 : 200, end - first, more);
}

/* --- connections ---------------------------------------------------------------------------------------------------------- */

static void take_request(struct conn *c)
{
	char path[2048];
	char *end = strstr(c->request, "\r\n\r\n");
	if (!end || !obd_list_empty(&c->link))
		return;
	*end = '\0';
	bool head_only = strncmp(c->request, "HEAD ", 5) == 0;
	if (sscanf(c->request, "%*s %2047s", path) != 1)
		path[0] = '\0';
	const char *digest = strstr(path, "sha256:");
	const struct blob *b = digest ? find(digest + 7) : NULL;
	c->blob = NULL;
	c->body_bytes = 0;
	if (strcmp(path, "/stats") == 0)
		answer_stats(c);
	else if (strncmp(path, "/link?", 6) == 0)
		change_link(c, path);
	else if (b)
		answer_blob(c, b, head_only);
	else
		answer(c, digest ? 404 : 200, 0, "");
	size_t used = (size_t)(end + 4 - c->request);
	c->have -= used;
	memmove(c->request, c->request + used, c->have + 1);
}

static void drop(struct conn *c)
{
	obd_list_remove(&c->link);
	close(c->fd);
	free(c);
}

static void receive(struct conn *c)
{
	ssize_t n = recv(c->fd, c->request + c->have, REQUEST_BYTES - c->have, MSG_DONTWAIT);
	if (n < 0 && errno == EAGAIN)
		return;
	if (n <= 0) {
		c->dead = true;
		return;
	}
	c->have += (size_t)n;
	c->request[c->have] = '\0';
	take_request(c);
}

static void accept_all(void)
{
	int fd, one = 1;
	while ((fd = accept4(g.listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0) {
		struct conn *c = calloc(1, sizeof *c);
		if (!c)
			die("memory");
		obd_list_init(&c->link);
		c->fd = fd;
		c->number = ++g.nconns;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
		struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c};
		if (epoll_ctl(g.epfd, EPOLL_CTL_ADD, fd, &ev))
			die("epoll");
	}
}

/* --- the link ------------------------------------------------------------------------------------------------------------- */

static void note(const struct conn *c)
{
	if (!g.log || !c->blob)
		return;
	fprintf(g.log,
		"{\"t\":%.6f,\"digest\":\"sha256:%s\",\"first\":%" PRIu64 ",\"sent\":%" PRIu64 ",\"status\":%d,\"conn\":%u}\n",
		(double)obd_clock_ns() / 1e9, c->blob->hex, c->first, c->body_sent, c->status, c->number);
	fflush(g.log);
}

/* As much as the socket takes of at most `most` bytes. Returns how many; -1: the connection is gone. */
static ssize_t put(struct conn *c, const char *p, size_t most)
{
	ssize_t n = send(c->fd, p, most, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n < 0 && errno == EAGAIN) {
		c->full = true;
		return 0;
	}
	if (n < 0)
		c->dead = true;
	return n;
}

/* One segment of an answer. True: it is over. */
static bool send_some(struct conn *c, uint64_t now)
{
	if (c->head_sent < c->head_bytes) {
		ssize_t n = put(c, c->head + c->head_sent, c->head_bytes - c->head_sent);
		c->head_sent += n > 0 ? (size_t)n : 0;
		if (c->head_sent < c->head_bytes)
			return c->dead;
	}
	uint64_t left = c->body_bytes - c->body_sent;
	if (left == 0)
		return true;
	ssize_t n = put(c, c->blob->data + c->first + c->body_sent, g.rate ? obd_min_u64(left, SEGMENT_BYTES) : left);
	if (n <= 0)
		return c->dead;
	c->body_sent += (uint64_t)n;
	g.bytes += (uint64_t)n;
	if (g.rate)
		g.link_free_ns = obd_max_u64(g.link_free_ns, now - OBD_MS_NS) + (uint64_t)((double)n * 1e9 / (double)g.rate);
	return c->body_sent == c->body_bytes;
}

static void over(struct conn *c)
{
	obd_list_remove(&c->link);
	note(c);
	if (!c->dead)
		take_request(c);
}

/* What is due joins the queue; the first in it whose socket takes something sends. Returns when to look again, 0: nothing
 * waits. */
static uint64_t run_link(void)
{
	uint64_t now = obd_clock_ns(), next = 0;
	OBD_LIST_FOREACH_SAFE (it, &g.delayed) {
		struct conn *c = OBD_LIST_ENTRY(it, struct conn, link);
		if (c->due_ns > now) {
			next = next ? obd_min_u64(next, c->due_ns) : c->due_ns;
			continue;
		}
		obd_list_remove(&c->link);
		obd_list_push_back(&g.ready, &c->link);
	}
	OBD_LIST_FOREACH_SAFE (it, &g.ready) {
		struct conn *c = OBD_LIST_ENTRY(it, struct conn, link);
		while (!c->full && !c->dead && now >= g.link_free_ns) {
			if (send_some(c, now)) {
				over(c);
				break;
			}
		}
		if (now < g.link_free_ns)
			return next ? obd_min_u64(next, g.link_free_ns) : g.link_free_ns;
	}
	return next;
}

/* --- life ----------------------------------------------------------------------------------------------------------------- */

static void serve(void)
{
	for (;;) {
		uint64_t next = run_link(), now = obd_clock_ns();
		struct timespec ts = {0, (long)obd_min_u64(next > now ? next - now : 0, 900 * OBD_MS_NS)};
		struct epoll_event ev[64];
		int n = epoll_pwait2(g.epfd, ev, 64, next ? &ts : NULL, NULL);
		for (int i = 0; i < n; i++) {
			struct conn *c = ev[i].data.ptr;
			if (!c) {
				accept_all();
				continue;
			}
			if (ev[i].events & EPOLLOUT)
				c->full = false;
			if (ev[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
				receive(c);
			if (c->dead)
				drop(c);
		}
	}
}

static void start_listening(const char *port_file)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof a;
	char temporary[4096];
	g.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (g.listener < 0 || bind(g.listener, (struct sockaddr *)&a, sizeof a) || listen(g.listener, 1024) ||
	    getsockname(g.listener, (struct sockaddr *)&a, &len))
		die("listen");
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = NULL};
	g.epfd = epoll_create1(EPOLL_CLOEXEC);
	if (g.epfd < 0 || epoll_ctl(g.epfd, EPOLL_CTL_ADD, g.listener, &ev))
		die("epoll");
	snprintf(temporary, sizeof temporary, "%s.new", port_file);
	FILE *f = fopen(temporary, "we");
	if (!f || fprintf(f, "%u\n", ntohs(a.sin_port)) < 0 || fclose(f) || rename(temporary, port_file))
		die(port_file);
}

int main(int argc, char **argv)
{
	const char *port_file = NULL;
	int c;
	while ((c = getopt(argc, argv, "l:b:L:p:")) != -1) {
		if (c == 'l')
			g.latency_ns = strtoull(optarg, NULL, 10) * OBD_MS_NS;
		else if (c == 'b')
			g.rate = strtoull(optarg, NULL, 10);
		else if (c == 'p')
			port_file = optarg;
		else if (c != 'L' || !(g.log = fopen(optarg, "ae"))) {
			fputs(usage, stderr);
			return 2;
		}
	}
	if (optind + 1 != argc || !port_file) {
		fputs(usage, stderr);
		return 2;
	}
	g.dir = argv[optind];
	obd_list_init(&g.delayed);
	obd_list_init(&g.ready);
	start_listening(port_file);
	serve();
	return 0;
}
