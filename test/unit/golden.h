/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the format tests share: golden files, SHA-256, a random stream, whole-file reads. Include once per test. */
#ifndef OBD_TEST_UNIT_GOLDEN_H
#define OBD_TEST_UNIT_GOLDEN_H

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/util.h"
#include "common/format/file.h"
#include "common/format/stack.h"

#define MAYBE_UNUSED __attribute__((unused))
#define MEM_MAX (UINT64_C(64) << 20)

struct buffer {
	unsigned char *p;
	size_t n;
};

MAYBE_UNUSED static struct obd_file *golden(const char *name)
{
	char path[4096];
	struct obd_err err = {""};
	const char *dir = getenv("OBD_TEST_DATA");
	snprintf(path, sizeof(path), "%s/golden/%s", dir ? dir : "test/data", name);
	struct obd_file *f = obd_file_open_path(path, O_RDONLY, 0, &err);
	ck_assert_msg(f != NULL, "%s", err.msg);
	return f;
}

/* A golden file that is kept compressed here (NAME.z), as it was. */
MAYBE_UNUSED static struct obd_file *golden_z(const char *name)
{
	char z[256];
	struct obd_err err = {""};
	snprintf(z, sizeof(z), "%s.z", name);
	struct obd_file *f = obd_blob_open(golden(z), &err);
	ck_assert_msg(f != NULL, "%s: %s", z, err.msg);
	return f;
}

/* All bytes of f, read in pieces of uneven length; free(p). */
MAYBE_UNUSED static struct buffer read_all(struct obd_file *f)
{
	uint64_t size;
	ck_assert_int_eq(obd_file_size(f, &size), 0);
	struct buffer b = {.p = malloc(size + 1), .n = size};
	for (size_t at = 0; at < b.n;) {
		size_t part = (size_t)obd_min_u64(99991, b.n - at);
		ssize_t r = obd_file_pread(f, b.p + at, part, at);
		ck_assert_msg(r == (ssize_t)part, "read of %zu at %zu: %zd", part, at, r);
		at += part;
	}
	return b;
}

MAYBE_UNUSED static struct buffer golden_bytes(const char *name)
{
	struct obd_file *f = golden(name);
	struct buffer b = read_all(f);
	obd_file_close(f);
	return b;
}

/* FIPS 180-4. */
MAYBE_UNUSED static void sha256_block(uint32_t h[8], const unsigned char *p)
{
	static const uint32_t k[64] = {
		0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
		0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
		0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
		0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
		0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
		0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
		0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
		0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
#define ROR(x, n) ((x) >> (n) | (x) << (32 - (n)))
	uint32_t w[64], v[8];
	for (int i = 0; i < 16; i++, p += 4)
		w[i] = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
	for (int i = 16; i < 64; i++)
		w[i] = w[i - 16] + w[i - 7] + (ROR(w[i - 15], 7) ^ ROR(w[i - 15], 18) ^ w[i - 15] >> 3) +
		       (ROR(w[i - 2], 17) ^ ROR(w[i - 2], 19) ^ w[i - 2] >> 10);
	memcpy(v, h, sizeof(v));
	for (int i = 0; i < 64; i++) {
		uint32_t a = v[0], e = v[4];
		uint32_t t = v[7] + (ROR(e, 6) ^ ROR(e, 11) ^ ROR(e, 25)) + ((e & v[5]) ^ (~e & v[6])) + k[i] + w[i];
		uint32_t u = (ROR(a, 2) ^ ROR(a, 13) ^ ROR(a, 22)) + ((a & v[1]) ^ (a & v[2]) ^ (v[1] & v[2]));
		memmove(v + 1, v, 7 * sizeof(*v));
		v[0] = t + u;
		v[4] += t;
	}
	for (int i = 0; i < 8; i++)
		h[i] += v[i];
#undef ROR
}

/* Hexadecimal digest of n bytes, in a static buffer. */
MAYBE_UNUSED static const char *sha256(const void *data, size_t n)
{
	static char hex[65];
	uint32_t h[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
	unsigned char last[128] = {0};
	size_t at = 0;
	for (; n - at >= 64; at += 64)
		sha256_block(h, (const unsigned char *)data + at);
	size_t rest = n - at, tail = rest < 56 ? 64 : 128;
	if (rest)
		memcpy(last, (const unsigned char *)data + at, rest);
	last[rest] = 0x80;
	for (int i = 0; i < 8; i++)
		last[tail - 1 - (size_t)i] = (unsigned char)((uint64_t)n * 8 >> 8 * i);
	for (at = 0; at < tail; at += 64)
		sha256_block(h, last + at);
	for (int i = 0; i < 8; i++)
		snprintf(hex + 8 * i, 9, "%08x", h[i]);
	return hex;
}

/* Reads f to its end, compares size and digest, closes it. */
MAYBE_UNUSED static void expect_content(struct obd_file *f, uint64_t size, const char *digest)
{
	struct buffer b = read_all(f);
	ck_assert_uint_eq(b.n, size);
	ck_assert_str_eq(sha256(b.p, b.n), digest);
	free(b.p);
	obd_file_close(f);
}

/* xorshift64*: the same on every machine. */
MAYBE_UNUSED static uint64_t rnd(uint64_t *s)
{
	*s ^= *s >> 12;
	*s ^= *s << 25;
	*s ^= *s >> 27;
	return *s * UINT64_C(2685821657736338717);
}

MAYBE_UNUSED static int run_cases(const char *name, const TTest *const *tests, size_t n)
{
	Suite *s = suite_create(name);
	TCase *c = tcase_create(name);
	tcase_set_timeout(c, 300);
	for (size_t i = 0; i < n; i++)
		tcase_add_test(c, tests[i]);
	suite_add_tcase(s, c);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

#endif
