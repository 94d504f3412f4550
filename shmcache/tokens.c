/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Tokens lie in an open hash table: a key's slot is one of the WINDOW slots behind its hash. Whoever looks for a place takes
 * the first that is empty or long of no use, so two who want the same new key meet at the same slot and its claim decides.
 *
 * Who writes: claim, every fetcher, by compare-and-swap; the payload, whoever moved word to WRITING, which takes a
 * claim. If it dies in WRITING the slot has no token, and the next holder of the claim writes over it. If a holder that was
 * stopped for long wakes up in WRITING, its bytes and a successor's may mix: the checksum does not fit then, and again the slot
 * has no token.
 */
#include "shmcache/tokens.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/crc32c.h"
#include "common/base/testpoint.h"

#define WINDOW 16u
#define KEY_WRITTEN_MS 100u
#define PAYLOAD offsetof(struct obd_token_slot, cred_id)
#define INCARNATION_BITS 0xffffffu

/* --- names ---------------------------------------------------------------------------------------------------------------- */

/* False: too long for a slot. */
static bool write_key(char out[OBD_TOKEN_KEY_BYTES], const struct obd_token_key *key)
{
	memset(out, 0, OBD_TOKEN_KEY_BYTES);
	int n = snprintf(out, OBD_TOKEN_KEY_BYTES, "%s/%s", key->host, key->repo);
	return n > 0 && n < (int)OBD_TOKEN_KEY_BYTES;
}

static uint32_t first_slot(const struct obd_tokens_side *t, const char *key, uint64_t cred_id)
{
	uint64_t h = t->salt ^ cred_id;
	for (; *key; key++)
		h = (h ^ (unsigned char)*key) * UINT64_C(0x9e3779b97f4a7c15);
	return (uint32_t)((h ^ h >> 29) % OBD_TOKEN_SLOTS);
}

static uint32_t nth_slot(uint32_t first, uint32_t i)
{
	return (first + i) % OBD_TOKEN_SLOTS;
}

/* --- the payload ---------------------------------------------------------------------------------------------------------- */

static uint32_t checksum(const struct obd_token_slot *s)
{
	uint32_t zero = 0;
	const char *base = (const char *)s;
	size_t at = offsetof(struct obd_token_slot, checksum), behind = at + sizeof zero;
	uint32_t crc = obd_crc32c_raw(0, base + PAYLOAD, at - PAYLOAD);
	crc = obd_crc32c_raw(crc, &zero, sizeof zero);
	return obd_crc32c_raw(crc, base + behind, offsetof(struct obd_token_slot, token) - behind + s->bytes);
}

/* The payload word by word, relaxed: one side of it may be changing under us, which the slot's word tells afterwards. */
enum { PAYLOAD_WORDS = (sizeof(struct obd_token_slot) - PAYLOAD) / sizeof(uint64_t) };
_Static_assert(PAYLOAD % sizeof(uint64_t) == 0 && sizeof(struct obd_token_slot) % sizeof(uint64_t) == 0, "whole words");

static void load_payload(struct obd_token_slot *out, const struct obd_token_slot *s)
{
	const _Atomic uint64_t *from = (const void *)((const char *)s + PAYLOAD);
	uint64_t *to = (void *)((char *)out + PAYLOAD);
	for (size_t i = 0; i < PAYLOAD_WORDS; i++)
		to[i] = obd_load_relaxed(&from[i]);
}

static void store_payload(struct obd_token_slot *s, const struct obd_token_slot *from)
{
	_Atomic uint64_t *to = (void *)((char *)s + PAYLOAD);
	const uint64_t *words = (const void *)((const char *)from + PAYLOAD);
	for (size_t i = 0; i < PAYLOAD_WORDS; i++)
		obd_store_relaxed(&to[i], words[i]);
}

/* A copy of a slot that is SET and whole. The copy's word is the one that was read. */
static bool copy_slot(const struct obd_token_slot *s, struct obd_token_slot *out)
{
	uint64_t word = obd_load_acquire(&s->word); /* edge: token-publish */
	if (obd_word_state(word) != OBD_TOKEN_SET)
		return false;
	load_payload(out, s);
	obd_fence_acquire(); /* edge: token-begin */
	if (obd_load_relaxed(&s->word) != word || out->bytes >= OBD_TOKEN_BYTES || checksum(out) != out->checksum)
		return false;
	obd_store_relaxed(&out->word, word);
	out->key[OBD_TOKEN_KEY_BYTES - 1] = '\0';
	out->origin[OBD_TOKEN_ORIGIN_BYTES - 1] = '\0';
	return true;
}

static void wipe(void *p, size_t n)
{
	explicit_bzero(p, n);
}

/* Writes the payload of a slot whose claim we hold. Whoever else is in here at the same time loses. */
static void write_slot(struct obd_token_slot *s, const struct obd_token_slot *from)
{
	uint64_t word = obd_load_acquire(&s->word);
	uint64_t seq = obd_word_seq(word) + 1;
	if (!obd_cas_acq_rel(&s->word, &word, obd_word(seq, OBD_TOKEN_WRITING)))
		return;
	obd_fence_release(); /* edge: token-begin. The word leaves SET before the first new byte */
	OBD_TEST_POINT(token_writing);
	store_payload(s, from);
	word = obd_word(seq, OBD_TOKEN_WRITING);
	obd_cas_acq_rel(&s->word, &word, obd_word(seq, OBD_TOKEN_SET)); /* edge: token-publish */
}

/* --- claims --------------------------------------------------------------------------------------------------------------- */

static uint64_t claim_word(const struct obd_tokens_side *t, uint64_t now_ns)
{
	return (now_ns / OBD_MS_NS) << 32 | (uint64_t)(t->incarnation & INCARNATION_BITS) << 8 | (t->index + 1);
}

/* Another fetcher's clock reading may be a little later than ours. */
static uint32_t claim_age_ms(uint64_t claim, uint64_t now_ns)
{
	int32_t age = (int32_t)((uint32_t)(now_ns / OBD_MS_NS) - (uint32_t)(claim >> 32));
	return age > 0 ? (uint32_t)age : 0;
}

/* Does its holder live, and still have time? */
static bool is_claim_good(const struct obd_tokens_side *t, uint64_t claim, uint64_t now_ns)
{
	uint32_t index = (uint32_t)(claim & 0xff) - 1, incarnation = (uint32_t)(claim >> 8) & INCARNATION_BITS;
	if (claim == 0 || index >= OBD_MAX_FETCHERS || claim_age_ms(claim, now_ns) > OBD_TOKEN_CLAIM_MS)
		return false;
	if (index == t->index)
		return incarnation == (t->incarnation & INCARNATION_BITS);
	if (!t->table)
		return true;
	return incarnation >=
	       (obd_load_acquire(&t->table->fetcher[index].admitted) & INCARNATION_BITS); /* edge: fetcher-admit */
}

static bool take_claim(const struct obd_tokens_side *t, struct obd_token_slot *s, uint64_t now_ns, uint64_t *word)
{
	uint64_t old = obd_load_acquire(&s->claim);
	if (is_claim_good(t, old, now_ns))
		return false;
	*word = claim_word(t, now_ns);
	return obd_cas_acq_rel(&s->claim, &old, *word); /* edge: token-claim */
}

static void end_claim(struct obd_token_slot *s, uint64_t word)
{
	obd_cas_acq_rel(&s->claim, &word, 0); /* edge: token-claim. Not ours any more: nothing happens */
}

/* --- looking -------------------------------------------------------------------------------------------------------------- */

static bool is_key(const struct obd_token_slot *copy, const char *key, uint64_t cred_id)
{
	return copy->cred_id == cred_id && strcmp(copy->key, key) == 0;
}

/* The slot of the key, copied; OBD_TOKEN_SLOTS: none. */
static uint32_t find_slot(const struct obd_tokens_side *t, const char *key, uint64_t cred_id, struct obd_token_slot *copy)
{
	uint32_t first = first_slot(t, key, cred_id);
	for (uint32_t i = 0; i < WINDOW; i++) {
		uint32_t n = nth_slot(first, i);
		if (copy_slot(&t->tokens->slot[n], copy) && is_key(copy, key, cred_id))
			return n;
	}
	return OBD_TOKEN_SLOTS;
}

bool obd_tokens_find(const struct obd_tokens_side *t, const struct obd_token_key *key, struct obd_token_view *out)
{
	struct obd_token_slot copy;
	char name[OBD_TOKEN_KEY_BYTES];
	out->seq = 0;
	if (!write_key(name, key))
		return false;
	out->slot = find_slot(t, name, key->cred_id, &copy);
	if (out->slot < OBD_TOKEN_SLOTS && copy.bytes) {
		out->seq = obd_word_seq(obd_load_relaxed(&copy.word));
		out->obtained_ns = copy.obtained_ns;
		out->refresh_ns = copy.refresh_ns;
		out->expires_ns = copy.expires_ns;
		out->forced = copy.forced;
		memcpy(out->origin, copy.origin, sizeof out->origin);
		memcpy(out->token, copy.token, copy.bytes);
		out->token[copy.bytes] = '\0';
	}
	wipe(&copy, sizeof copy);
	return out->seq != 0;
}

/* Claims slot n for the key, and writes the key into it unless it is there. */
static int claim_slot(const struct obd_tokens_side *t, uint32_t n, const char *key, uint64_t cred_id, uint64_t now_ns,
		      struct obd_token_claim *claim)
{
	struct obd_token_slot *s = &t->tokens->slot[n], copy;
	claim->slot = n;
	if (!take_claim(t, s, now_ns, &claim->word))
		return -EBUSY;
	OBD_TEST_POINT(token_claimed);
	bool ours = copy_slot(s, &copy) && is_key(&copy, key, cred_id);
	if (!ours) {
		wipe(&copy, sizeof copy);
		memset(&copy, 0, sizeof copy);
		memcpy(copy.key, key, sizeof copy.key);
		copy.cred_id = cred_id;
		copy.checksum = checksum(&copy);
		obd_store_relaxed(&s->failed_ns, 0);
		write_slot(s, &copy);
	}
	wipe(&copy, sizeof copy);
	return 0;
}

enum use { SPARE, OURS, TAKEN };

/* What a slot is to somebody who looks for a place for a key. */
static enum use use_of(const struct obd_token_slot *s, const char *key, uint64_t cred_id, uint64_t now_ns)
{
	struct obd_token_slot copy;
	enum use use = SPARE;
	if (copy_slot(s, &copy)) {
		if (is_key(&copy, key, cred_id))
			use = OURS; /* somebody was faster */
		else if (copy.bytes && copy.expires_ns > now_ns)
			use = TAKEN;
	}
	wipe(&copy, sizeof copy);
	return use;
}

/* Claimed just now: its holder may be about to write the key that we are looking for. */
static bool is_claim_young(uint64_t claim, uint64_t now_ns)
{
	return claim_age_ms(claim, now_ns) <= KEY_WRITTEN_MS;
}

/* A place for a key that has none. */
static int claim_spare(const struct obd_tokens_side *t, const char *key, uint64_t cred_id, uint64_t now_ns,
		       struct obd_token_claim *claim)
{
	uint32_t first = first_slot(t, key, cred_id);
	for (uint32_t i = 0; i < WINDOW; i++) {
		uint32_t n = nth_slot(first, i);
		const struct obd_token_slot *s = &t->tokens->slot[n];
		uint64_t held = obd_load_acquire(&s->claim);
		enum use use = use_of(s, key, cred_id, now_ns);
		if (use == TAKEN)
			continue;
		if (use == OURS || !is_claim_good(t, held, now_ns))
			return claim_slot(t, n, key, cred_id, now_ns, claim);
		if (is_claim_young(held, now_ns))
			return -EBUSY;
	}
	return -ENOSPC;
}

int obd_tokens_claim(const struct obd_tokens_side *t, const struct obd_token_key *key, uint64_t now_ns,
		     struct obd_token_claim *claim)
{
	struct obd_token_slot copy;
	char name[OBD_TOKEN_KEY_BYTES];
	if (!write_key(name, key))
		return -ENOSPC;
	uint32_t n = find_slot(t, name, key->cred_id, &copy);
	wipe(&copy, sizeof copy);
	if (n < OBD_TOKEN_SLOTS)
		return claim_slot(t, n, name, key->cred_id, now_ns, claim);
	return claim_spare(t, name, key->cred_id, now_ns, claim);
}

void obd_tokens_publish(const struct obd_tokens_side *t, const struct obd_token_claim *claim, const struct obd_token_key *key,
			const struct obd_token_view *token)
{
	struct obd_token_slot *s = &t->tokens->slot[claim->slot], copy;
	size_t n = strlen(token->token);
	if (obd_load_acquire(&s->claim) != claim->word)
		return;
	memset(&copy, 0, sizeof copy);
	if (write_key(copy.key, key) && n < OBD_TOKEN_BYTES) {
		copy.cred_id = key->cred_id;
		copy.obtained_ns = token->obtained_ns;
		copy.refresh_ns = token->refresh_ns;
		copy.expires_ns = token->expires_ns;
		copy.forced = token->forced;
		memcpy(copy.origin, token->origin, sizeof copy.origin);
		copy.bytes = (uint32_t)n;
		memcpy(copy.token, token->token, n);
		copy.checksum = checksum(&copy);
		write_slot(s, &copy);
	}
	wipe(&copy, sizeof copy);
	OBD_TEST_POINT(token_set);
	end_claim(s, claim->word);
}

void obd_tokens_fail(const struct obd_tokens_side *t, const struct obd_token_claim *claim, int err, uint64_t now_ns)
{
	struct obd_token_slot *s = &t->tokens->slot[claim->slot];
	if (obd_load_acquire(&s->claim) != claim->word)
		return;
	if (err) {
		obd_store_relaxed(&s->failed_err, (uint32_t)err);
		obd_store_release(&s->failed_ns, now_ns); /* edge: token-failed */
	}
	end_claim(s, claim->word);
}

int obd_tokens_failed(const struct obd_tokens_side *t, const struct obd_token_key *key, uint64_t since_ns)
{
	struct obd_token_slot copy;
	char name[OBD_TOKEN_KEY_BYTES];
	int err = 0;
	if (!write_key(name, key))
		return 0;
	uint32_t n = find_slot(t, name, key->cred_id, &copy);
	if (n < OBD_TOKEN_SLOTS && obd_load_acquire(&t->tokens->slot[n].failed_ns) >= since_ns) /* edge: token-failed */
		err = (int)obd_load_relaxed(&t->tokens->slot[n].failed_err);
	wipe(&copy, sizeof copy);
	return err > 0 && err < 4096 ? err : 0;
}
