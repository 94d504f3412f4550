/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * obd-stat over segments of our own making: one that is right, ones with a fault each, ones with regions missing, and many of
 * random bytes, which must end in output and nothing else.
 */
#include <check.h>
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/base/util.h"
#include "shmcache/lookup.h"
#include "tools/stat.h"

enum { FRAMES = 64, BUCKETS = 32, BLOCK_BYTES = 16384, FETCHERS = 2, CLIENTS = 3, ROUNDS = 60 };

static struct obd_stat_link link_;
static FILE *devnull;

/* --- segments ------------------------------------------------------------------------------------------------------------- */

static int make_fd(uint64_t bytes)
{
	int fd = memfd_create("check_stat", MFD_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, (off_t)bytes), 0);
	return fd;
}

static void grant(const char *name, uint32_t index, uint64_t bytes)
{
	struct obd_err err;
	ck_assert_int_eq(obd_segment_take(&link_.seg, name, index, true, make_fd(bytes), &err), 0);
}

static void grant_geometry(void)
{
	struct obd_err err;
	struct obd_geometry geo = {.magic = OBD_SEG_MAGIC,
				   .version = OBD_SEG_VERSION,
				   .bytes = sizeof geo,
				   .block_bytes = BLOCK_BYTES,
				   .nframes = FRAMES,
				   .nbuckets = BUCKETS,
				   .nfetchers = FETCHERS,
				   .index_bytes = 1 << 20};
	obd_geometry_sizes(&geo);
	int fd = make_fd(sizeof geo);
	ck_assert_int_eq(pwrite(fd, &geo, sizeof geo, 0), (int)sizeof geo);
	ck_assert_int_eq(obd_segment_take(&link_.seg, "geometry", 0, false, fd, &err), 0);
}

static void grant_all(void)
{
	const struct obd_geometry *geo = &link_.seg.geo;
	grant_geometry();
	grant("fills", 0, geo->fills_bytes);
	grant("table", 0, geo->table_bytes);
	grant("catalog", 0, geo->catalog_bytes);
	grant("index", 0, geo->index_bytes);
	for (uint32_t i = 0; i < FETCHERS; i++)
		grant("fetcher", i, geo->fetcher_bytes);
	for (uint32_t i = 0; i < CLIENTS; i++)
		grant("client", i, geo->client_bytes);
}

static void set_up(void)
{
	memset(&link_, 0, sizeof link_);
	obd_segment_init(&link_.seg);
	devnull = fopen("/dev/null", "w");
	ck_assert_ptr_nonnull(devnull);
}

static void tear_down(void)
{
	obd_stat_close(&link_);
	fclose(devnull);
}

/* Frame f holds key, as cached and a fetcher leave it. */
static void make_valid(uint32_t f, uint64_t key)
{
	struct obd_segment *s = &link_.seg;
	uint64_t hash = obd_key_hash(key), generation = f + 10;
	s->frame[f].state = OBD_FRAME_VALID;
	s->frame[f].key = key;
	s->frame[f].generation = generation;
	s->fills[f].key = key;
	s->fills[f].bytes = BLOCK_BYTES;
	s->fills[f].word = obd_word(generation, OBD_FILL_VALID);
	struct obd_bucket *b = &s->bucket[obd_bucket_first(&s->geo, hash)];
	unsigned int way = 0;
	while (b->way[way])
		way++;
	ck_assert_uint_lt(way, OBD_BUCKET_WAYS);
	b->way[way] = obd_bucket_tag(hash) | (f + 1);
	s->table->frames_by_state[OBD_FRAME_VALID]++;
	s->table->frames_by_state[OBD_FRAME_FREE]--;
}

/* Frame f is being filled by job 3 of fetcher 1. */
static void make_filling(uint32_t f, uint64_t key)
{
	struct obd_segment *s = &link_.seg;
	struct obd_job *j = &s->table->fetcher[1].job[3];
	s->frame[f].state = OBD_FRAME_FILLING;
	s->frame[f].key = key;
	s->frame[f].generation = f + 10;
	s->frame[f].fetcher = 1;
	s->frame[f].job = 3;
	j->nblocks = 1;
	j->frame[0] = f;
	j->generation[0] = f + 10;
	j->word = obd_word(1, OBD_JOB_ISSUED);
	s->table->frames_by_state[OBD_FRAME_FILLING]++;
	s->table->frames_by_state[OBD_FRAME_FREE]--;
}

/* One layer (uid 7, slot 2) with five blocks and a raw chunk in the cache, one image, one request, one open. */
static void make_sane(void)
{
	struct obd_segment *s = &link_.seg;
	grant_all();
	s->table->frames_by_state[OBD_FRAME_FREE] = FRAMES;
	for (uint32_t f = 0; f < 5; f++)
		make_valid(f, obd_key(7, false, f));
	make_valid(5, obd_key(7, true, 1));
	make_filling(6, obd_key(7, false, 5));

	struct obd_layer *l = &s->catalog->layer[2];
	l->blob_bytes = l->payload_bytes = l->file_bytes = 1000000;
	strcpy(l->host, "registry.example");
	strcpy(l->digest, "sha256:00ff");
	l->word = obd_word(7, OBD_LAYER_READY);
	struct obd_image *im = &s->catalog->image[1];
	im->nlayers = 1;
	im->layer_uid[0] = 7;
	im->virtual_bytes = 1 << 30;
	im->index_count = 12;
	im->refs = 3;
	im->word = obd_word(8, OBD_IMAGE_READY);

	struct obd_client_area *c = s->client[2];
	obd_proc_start(&c->proc, OBD_ROLE_FRONTEND, 2, 1);
	c->req[9].posted_ns = 1;
	c->req[9].word = obd_word(1, OBD_REQ_POSTED);
	strcpy(c->open_path[4], "/images/\"a\"\n.json");
	c->open[4].posted_ns = 1;
	c->open[4].word = obd_word(1, OBD_OPEN_POSTED);
	c->open[5].word = obd_word(1, OBD_OPEN_HELD);
	c->proc.counters[OBD_C_hits] = 30;
	c->proc.counters[OBD_C_misses] = 10;
	s->table->proc.counters[OBD_C_evictions] = 5;
}

/* --- what is seen --------------------------------------------------------------------------------------------------------- */

START_TEST(a_sane_segment_is_collected)
{
	struct obd_stat st;
	make_sane();
	ck_assert_int_eq(obd_stat_collect(&st, &link_), 0);
	ck_assert_uint_eq(st.frames_by_state[OBD_FRAME_VALID], 6);
	ck_assert_uint_eq(st.frames_by_state[OBD_FRAME_FREE], FRAMES - 7);
	ck_assert_uint_eq(st.cached_frames_raw, 1);
	ck_assert_uint_eq(st.nlayers, 1);
	ck_assert_uint_eq(st.layers[0].cached_blocks, 5);
	ck_assert_uint_eq(st.layers[0].cached_chunks, 1);
	ck_assert_str_eq(st.layers[0].name, "sha256:00ff");
	ck_assert_uint_eq(st.nimages, 1);
	ck_assert_uint_eq(st.images[0].refs, 3);
	ck_assert_uint_eq(st.requests_posted, 1);
	ck_assert_uint_gt(st.requests_oldest_ns, 0);
	ck_assert_uint_eq(st.opens_held, 1);
	ck_assert_uint_eq(st.npending, 1);
	ck_assert_uint_eq(st.pending[0].client, 2);
	ck_assert_double_eq_tol(obd_stat_hit_ratio(&st), 0.75, 1e-9);
	ck_assert_uint_eq(st.total[OBD_C_evictions], 5);
	obd_stat_free(&st);
}
END_TEST

static json_t *as_json(void)
{
	struct obd_stat st;
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);
	ck_assert_ptr_nonnull(out);
	ck_assert_int_eq(obd_stat_collect(&st, &link_), 0);
	ck_assert_int_eq(obd_stat_print_json(out, &st, &link_), 0);
	obd_stat_print_tables(devnull, &st, &link_);
	fclose(out);
	json_error_t error;
	json_t *obj = json_loads(text, JSON_REJECT_DUPLICATES, &error);
	ck_assert_msg(obj != NULL, "line %d: %s", error.line, error.text);
	free(text);
	obd_stat_free(&st);
	return obj;
}

START_TEST(the_json_is_json)
{
	const char *path, *digest;
	json_int_t hits, blocks, evictions;
	make_sane();
	link_.nprocs = 1;
	link_.procs[0].role = OBD_ROLE_FRONTEND;
	link_.procs[0].index = 2;
	strcpy(link_.procs[0].last_exit, "\xff\"\n");
	json_t *obj = as_json();
	ck_assert_int_eq(json_unpack(obj, "{s:{s:[{s:s}]}, s:[{s:s, s:I}], s:{s:{s:I}}, s:[{s:{s:I}}]}", "opens", "pending",
				     "path", &path, "layers", "digest", &digest, "cached_blocks", &blocks, "counters", "total",
				     "evictions", &evictions, "processes", "counters", "hits", &hits),
			 0);
	ck_assert_str_eq(path, "/images/\"a\"\n.json");
	ck_assert_str_eq(digest, "sha256:00ff");
	ck_assert_int_eq(blocks, 5);
	ck_assert_int_eq(evictions, 5);
	ck_assert_int_eq(hits, 30);
	json_decref(obj);
}
END_TEST

START_TEST(absent_regions_are_absent)
{
	struct obd_err err;
	json_t *obj = as_json();
	ck_assert_ptr_nonnull(json_object_get(obj, "processes"));
	ck_assert_ptr_null(json_object_get(obj, "cache"));
	json_decref(obj);
	ck_assert_int_eq(obd_stat_audit(devnull, &link_.seg, &err), -ENODATA);
	grant_geometry();
	obj = as_json();
	ck_assert_ptr_nonnull(json_object_get(obj, "cache"));
	ck_assert_ptr_null(json_object_get(obj, "images"));
	json_decref(obj);
	grant("table", 0, link_.seg.geo.table_bytes);
	json_decref(as_json());
	grant("client", 5, link_.seg.geo.client_bytes);
	json_decref(as_json());
}
END_TEST

START_TEST(control_characters_do_not_reach_the_terminal)
{
	struct obd_stat st;
	char *text = NULL;
	size_t size;
	make_sane();
	strcpy(link_.seg.client[2]->open_path[4], "/a\033[2Jb");
	link_.nprocs = 1;
	strcpy(link_.procs[0].state, "\033|x");
	FILE *out = open_memstream(&text, &size);
	ck_assert_int_eq(obd_stat_collect(&st, &link_), 0);
	obd_stat_print_tables(out, &st, &link_);
	fclose(out);
	ck_assert_ptr_null(strchr(text, '\033'));
	ck_assert_ptr_nonnull(strstr(text, "/a?[2Jb"));
	free(text);
	obd_stat_free(&st);
}
END_TEST

START_TEST(the_supervisors_rows_are_read)
{
	struct obd_stat_proc p = {0};
	ck_assert_int_eq(obd_stat_parse_proc("{\"pid\":12,\"state\":\"running\",\"restarts\":3,\"uptime_sec\":4,"
					     "\"heartbeat_age_ms\":5,\"last_exit\":\"signal 9\"}",
					     &p),
			 0);
	ck_assert_int_eq(p.pid, 12);
	ck_assert_str_eq(p.state, "running");
	ck_assert_uint_eq(p.restarts, 3);
	ck_assert_str_eq(p.last_exit, "signal 9");
	ck_assert_int_eq(obd_stat_parse_proc("{\"pid\":\"x\",\"state\":7,\"restarts\":-3}", &p), 0);
	ck_assert_int_eq(p.pid, 0);
	ck_assert_str_eq(p.state, "");
	ck_assert_uint_eq(p.restarts, 0);
	ck_assert_int_eq(obd_stat_parse_proc("[]", &p), -EPROTO);
	ck_assert_int_eq(obd_stat_parse_proc("{", &p), -EPROTO);
}
END_TEST

/* --- the auditor ---------------------------------------------------------------------------------------------------------- */

static int audit(char **text)
{
	struct obd_err err;
	size_t size;
	FILE *out = open_memstream(text, &size);
	int rc = obd_stat_audit(out, &link_.seg, &err);
	fclose(out);
	return rc;
}

START_TEST(a_sane_segment_passes_the_audit)
{
	char *text;
	make_sane();
	int rc = audit(&text);
	ck_assert_msg(rc == 0, "%s", text);
	free(text);
}
END_TEST

static uint64_t *way_of(uint32_t f)
{
	struct obd_segment *s = &link_.seg;
	for (uint32_t b = 0; b < BUCKETS; b++)
		for (unsigned int i = 0; i < OBD_BUCKET_WAYS; i++)
			if ((uint32_t)s->bucket[b].way[i] == f + 1)
				return (uint64_t *)&s->bucket[b].way[i];
	ck_abort_msg("frame %u is in no bucket", f);
}

static void drop_entry(void)
{
	*way_of(3) = 0;
}

static void second_entry(void)
{
	struct obd_bucket *b = &link_.seg.bucket[obd_bucket_second(&link_.seg.geo, obd_key_hash(obd_key(7, false, 3)))];
	b->way[OBD_BUCKET_WAYS - 1] = *way_of(3);
}

static void wrong_tag(void)
{
	*way_of(3) ^= UINT64_C(1) << 40;
}

static void entry_beyond_end(void)
{
	link_.seg.bucket[0].way[7] = UINT64_C(1) << 33 | (FRAMES + 1);
}

static void free_but_bound(void)
{
	link_.seg.frame[3].state = OBD_FRAME_FREE;
	link_.seg.table->frames_by_state[OBD_FRAME_FREE]++;
	link_.seg.table->frames_by_state[OBD_FRAME_VALID]--;
}

static void other_generation(void)
{
	link_.seg.fills[3].word = obd_word(99, OBD_FILL_VALID);
}

static void other_key(void)
{
	link_.seg.fills[3].key++;
}

static void too_many_bytes(void)
{
	link_.seg.fills[3].bytes = BLOCK_BYTES + 1;
}

static void same_key_twice(void)
{
	make_valid(20, obd_key(7, false, 3));
}

static void job_is_over(void)
{
	link_.seg.table->fetcher[1].job[3].word = obd_word(1, OBD_JOB_FREE);
}

static void two_jobs(void)
{
	struct obd_job *j = &link_.seg.table->fetcher[1].job[3];
	j->frame[1] = j->frame[0];
	j->generation[1] = j->generation[0];
	j->nblocks = 2;
}

static void job_of_no_frame(void)
{
	link_.seg.table->fetcher[0].job[0].frame[0] = FRAMES;
	link_.seg.table->fetcher[0].job[0].nblocks = 1;
	link_.seg.table->fetcher[0].job[0].word = obd_word(1, OBD_JOB_ISSUED);
}

static void job_too_long(void)
{
	link_.seg.table->fetcher[1].job[3].nblocks = OBD_JOB_FRAMES + 1;
}

static void wrong_count(void)
{
	link_.seg.table->frames_by_state[OBD_FRAME_FREE]--;
}

static void no_state(void)
{
	link_.seg.frame[30].state = 77;
}

static void left_evicting(void)
{
	link_.seg.frame[30].state = OBD_FRAME_EVICTING;
}

static const struct {
	void (*damage)(void);
	const char *says;
} faults[] = {
	{drop_entry, "frame 3: valid, but in 0 bucket entries"},
	{second_entry, "frame 3: valid, but in 2 bucket entries"},
	{wrong_tag, "frame 3: valid, but in 1 bucket entries, 0 of them"},
	{entry_beyond_end, "bucket 0 way 7: no frame 64"},
	{free_but_bound, "frame 3: free, but in 1 bucket"},
	{other_generation, "frame 3: valid of generation 13, but its fill word is 99"},
	{other_key, "frame 3: key"},
	{too_many_bytes, "frame 3: valid with 16385 bytes"},
	{same_key_twice, "key 0x700000003: in more than one frame"},
	{job_is_over, "frame 6: filling, but in 0 live jobs"},
	{two_jobs, "frame 6: filling, but in 2 live jobs"},
	{job_of_no_frame, "fetcher 0 job 0: no frame 64"},
	{job_too_long, "fetcher 1 job 3: 65 blocks"},
	{wrong_count, "free frames: 57 counted, 56 in"},
	{no_state, "frame 30: no state 77"},
	{left_evicting, "frame 30: still evicting"},
};

START_TEST(each_fault_is_found)
{
	char *text;
	make_sane();
	faults[_i].damage();
	ck_assert_int_eq(audit(&text), 1);
	ck_assert_msg(strstr(text, faults[_i].says) != NULL, "expected \"%s\" in:\n%s", faults[_i].says, text);
	free(text);
}
END_TEST

/* --- hostile contents ----------------------------------------------------------------------------------------------------- */

static uint64_t random_state;

static uint64_t random_u64(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

/* Random bytes; every other round small numbers, which pass more of the checks. */
static void scramble(void *p, uint64_t bytes, bool small)
{
	uint64_t *w = p;
	for (uint64_t i = 0; i < bytes / sizeof *w; i++)
		w[i] = small ? random_u64() & UINT64_C(0x0000010300000103) : random_u64();
}

static void scramble_all(bool small)
{
	struct obd_segment *s = &link_.seg;
	scramble(s->fills, s->geo.fills_bytes, small);
	scramble(s->table, s->geo.table_bytes, small);
	scramble(s->catalog, s->geo.catalog_bytes, small);
	for (uint32_t i = 0; i < FETCHERS; i++)
		scramble(s->fetcher[i], s->geo.fetcher_bytes, small);
	for (uint32_t i = 0; i < CLIENTS; i++) {
		scramble(s->client[i], s->geo.client_bytes, small);
		s->client[i]->proc.magic = OBD_SEG_MAGIC; /* else nobody looks at the rest */
	}
}

static void random_procs(void)
{
	link_.nprocs = 1 + (uint32_t)(random_u64() % OBD_STAT_PROCS);
	for (uint32_t i = 0; i < link_.nprocs; i++) {
		struct obd_stat_proc *p = &link_.procs[i];
		scramble(p, sizeof *p, false);
		p->role = (enum obd_role)(random_u64() % OBD_ROLES);
		p->state[sizeof p->state - 1] = p->last_exit[sizeof p->last_exit - 1] = '\0';
		p->has_counters = false;
	}
}

START_TEST(random_bytes_are_printed_like_others)
{
	grant_all();
	for (int round = 0; round < ROUNDS; round++) {
		struct obd_stat st;
		random_state = UINT64_C(0x2545f4914f6cdd1d) + (uint64_t)round;
		scramble_all(round % 2);
		random_procs();
		ck_assert_int_eq(obd_stat_collect(&st, &link_), 0);
		obd_stat_print_tables(devnull, &st, &link_);
		ck_assert_int_eq(obd_stat_print_json(devnull, &st, &link_), 0);
		obd_stat_free(&st);
	}
}
END_TEST

START_TEST(random_bytes_fail_the_audit)
{
	struct obd_err err;
	grant_all();
	for (int round = 0; round < 6; round++) {
		random_state = UINT64_C(0x9e3779b97f4a7c15) + (uint64_t)round;
		scramble_all(round % 2);
		ck_assert_int_eq(obd_stat_audit(devnull, &link_.seg, &err), 1);
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("stat");
	TCase *tc = tcase_create("stat");
	tcase_add_checked_fixture(tc, set_up, tear_down);
	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, a_sane_segment_is_collected);
	tcase_add_test(tc, the_json_is_json);
	tcase_add_test(tc, absent_regions_are_absent);
	tcase_add_test(tc, control_characters_do_not_reach_the_terminal);
	tcase_add_test(tc, the_supervisors_rows_are_read);
	tcase_add_test(tc, a_sane_segment_passes_the_audit);
	tcase_add_loop_test(tc, each_fault_is_found, 0, (int)OBD_ARRAY_SIZE(faults));
	tcase_add_test(tc, random_bytes_are_printed_like_others);
	tcase_add_test(tc, random_bytes_fail_the_audit);
	suite_add_tcase(suite, tc);
	SRunner *runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
