/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "indexer/fsmeta.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/le.h"
#include "common/base/util.h"

#define SECTOR 512u
#define SUPER_OFFSET 1024u
#define SUPER_BYTES 1024u
#define SUPER_MAGIC 0xef53u
#define INCOMPAT_META_BG 0x10u
#define INCOMPAT_64BIT 0x80u
#define INCOMPAT_JOURNAL_DEV 0x8u
#define RO_COMPAT_GDT_CSUM 0x10u
#define RO_COMPAT_METADATA_CSUM 0x400u
#define GROUP_INODES_UNUSED 1u /* the whole inode table was never written */
#define INODE_TYPE 0xf000u
#define INODE_DIRECTORY 0x4000u
#define INODE_EXTENTS 0x80000u
#define INODE_INLINE 0x10000000u
#define INODE_MAP_OFFSET 40u
#define EXTENT_MAGIC 0xf30au
#define EXTENT_DEPTH_MAX 5u
#define EXTENT_BYTES 12u
#define DIRECT_BLOCKS 12u

/* --- wants -------------------------------------------------------------------------------------------------------------- */

static void push(struct obd_fsmeta_queue *q, const struct obd_fsmeta_want *w)
{
	if (q->next == q->count)
		q->next = q->count = 0;
	if (q->count == q->room) {
		size_t room = q->room ? 2 * q->room : 64;
		void *more = room <= OBD_FSMETA_WANTS_MAX ? realloc(q->want, room * sizeof *q->want) : NULL;
		if (!more)
			return; /* what is not asked for is read when somebody needs it */
		q->want = more;
		q->room = room;
	}
	q->want[q->count++] = *w;
}

/* [off, off + len), cut to whole sectors of the device. False: it lies outside. */
static bool inside(const struct obd_fsmeta *m, uint64_t off, uint64_t len)
{
	uint64_t end;
	return len && off % SECTOR == 0 && len % SECTOR == 0 && obd_add_u64(off, len, &end) && end <= m->device_bytes;
}

static void want(struct obd_fsmeta *m, const struct obd_fsmeta_want *w)
{
	if (inside(m, w->off, w->len))
		push(&m->now, w);
}

/* Is [block, block + n) in the file system? Block 0 never holds what we look for. */
static bool blocks_inside(const struct obd_fsmeta *m, uint64_t block, uint64_t n)
{
	return block && n && block < m->blocks && n <= m->blocks - block;
}

/* n blocks of a directory of which *left bytes are still allowed. */
static void want_directory(struct obd_fsmeta *m, uint64_t block, uint64_t n, uint64_t *left)
{
	n = obd_min_u64(n, *left / m->block_bytes);
	if (!blocks_inside(m, block, n))
		return;
	*left -= n * m->block_bytes;
	want(m, &(struct obd_fsmeta_want){.off = block * m->block_bytes, .len = n * m->block_bytes, .kind = OBD_FSMETA_PLAIN});
}

/* A node of a directory's map; all nodes of one depth share what is allowed, each up to all of it. */
static void want_node(struct obd_fsmeta *m, uint64_t block, enum obd_fsmeta_kind kind, uint8_t depth, uint64_t left)
{
	if (!blocks_inside(m, block, 1) || !left || !m->nodes_left)
		return;
	m->nodes_left--;
	want(m,
	     &(struct obd_fsmeta_want){
		     .off = block * m->block_bytes, .len = m->block_bytes, .kind = (uint8_t)kind, .depth = depth, .arg = left});
}

/* --- directories -------------------------------------------------------------------------------------------------------- */

/* A node of an extent tree; n bytes of it are there. */
static void extents(struct obd_fsmeta *m, const unsigned char *p, size_t n, int expected_depth, uint64_t left)
{
	uint32_t entries = obd_get_le16(p + 2), depth = obd_get_le16(p + 6);
	if (obd_get_le16(p) != EXTENT_MAGIC || depth > EXTENT_DEPTH_MAX || entries > n / EXTENT_BYTES - 1 ||
	    (expected_depth >= 0 && depth != (uint32_t)expected_depth))
		return;
	for (uint32_t i = 1; i <= entries && left >= m->block_bytes; i++) {
		const unsigned char *e = p + (size_t)i * EXTENT_BYTES;
		if (depth) {
			uint64_t node = obd_get_le32(e + 4) | (uint64_t)obd_get_le16(e + 8) << 32;
			want_node(m, node, OBD_FSMETA_EXTENTS, (uint8_t)(depth - 1), left);
			left -= m->block_bytes; /* a node stands for one block at least */
			continue;
		}
		uint32_t len = obd_get_le16(e + 4);
		uint64_t block = obd_get_le32(e + 8) | (uint64_t)obd_get_le16(e + 6) << 32;
		if (len <= 32768) /* else allocated, but never written */
			want_directory(m, block, len, &left);
	}
}

static void indirect(struct obd_fsmeta *m, const unsigned char *p, size_t n, unsigned int depth, uint64_t left)
{
	for (size_t i = 0; i + 4 <= n && left >= m->block_bytes; i += 4) {
		uint32_t block = obd_get_le32(p + i);
		if (!block)
			continue;
		if (!depth) {
			want_directory(m, block, 1, &left);
			continue;
		}
		want_node(m, block, OBD_FSMETA_INDIRECT, (uint8_t)(depth - 1), left);
		left -= m->block_bytes;
	}
}

static void directory(struct obd_fsmeta *m, const unsigned char *inode)
{
	const unsigned char *map = inode + INODE_MAP_OFFSET;
	uint32_t flags = obd_get_le32(inode + 32);
	uint64_t left = obd_min_u64(obd_align_up(obd_get_le32(inode + 4), m->block_bytes), OBD_FSMETA_DIR_MAX);
	m->directories++;
	if (flags & INODE_INLINE)
		return;
	if (flags & INODE_EXTENTS) {
		extents(m, map, 60, -1, left);
		return;
	}
	indirect(m, map, (size_t)DIRECT_BLOCKS * 4, 0, left);
	uint64_t behind = (uint64_t)DIRECT_BLOCKS * m->block_bytes;
	left -= obd_min_u64(left, behind);
	for (unsigned int i = 0; i < 2; i++) /* triply indirect directories are beyond OBD_FSMETA_DIR_MAX */
		want_node(m, obd_get_le32(map + (DIRECT_BLOCKS + i) * 4), OBD_FSMETA_INDIRECT, (uint8_t)i, left);
}

static void inodes(struct obd_fsmeta *m, const unsigned char *p, size_t n)
{
	for (size_t i = 0; i + m->inode_bytes <= n; i += m->inode_bytes) {
		bool dir = (obd_get_le16(p + i) & INODE_TYPE) == INODE_DIRECTORY && obd_get_le16(p + i + 26) != 0;
		if (dir)
			directory(m, p + i);
	}
}

/* --- groups ------------------------------------------------------------------------------------------------------------- */

/* The first n inodes of a table. */
static void want_inodes(struct obd_fsmeta *m, uint64_t table, uint64_t n)
{
	n = obd_min_u64(n, m->inodes_left);
	m->inodes_left -= n;
	uint64_t bytes = obd_align_up(n * m->inode_bytes, m->block_bytes);
	for (uint64_t at = 0; at < bytes; at += OBD_FSMETA_WANT_MAX)
		want(m, &(struct obd_fsmeta_want){.off = table + at,
						  .len = obd_min_u64(bytes - at, OBD_FSMETA_WANT_MAX),
						  .kind = OBD_FSMETA_INODES});
}

static void want_bitmap(struct obd_fsmeta *m, uint64_t block)
{
	const struct obd_fsmeta_want w = {.off = block * m->block_bytes, .len = m->block_bytes, .kind = OBD_FSMETA_PLAIN};
	if (blocks_inside(m, block, 1) && inside(m, w.off, w.len))
		push(&m->last, &w);
}

static uint64_t wide(const struct obd_fsmeta *m, const unsigned char *d, size_t low, size_t high)
{
	uint64_t v = obd_get_le32(d + low);
	return m->descriptor_bytes >= 64 ? v | (uint64_t)obd_get_le32(d + high) << 32 : v;
}

static void group(struct obd_fsmeta *m, const unsigned char *d, uint64_t number)
{
	uint64_t block_map = wide(m, d, 0, 32), inode_map = wide(m, d, 4, 36), table = wide(m, d, 8, 40);
	uint64_t table_blocks = ((uint64_t)m->inodes_per_group * m->inode_bytes + m->block_bytes - 1) / m->block_bytes;
	uint32_t unused = obd_get_le16(d + 28), flags = obd_get_le16(d + 18);
	if (m->descriptor_bytes >= 64)
		unused |= (uint32_t)obd_get_le16(d + 50) << 16;
	if (!blocks_inside(m, table, table_blocks))
		return;
	if (m->counts_unused) {
		if (!(flags & GROUP_INODES_UNUSED) && unused < m->inodes_per_group)
			want_inodes(m, table * m->block_bytes, m->inodes_per_group - unused);
	} else if (blocks_inside(m, inode_map, 1)) {
		want(m, &(struct obd_fsmeta_want){.off = inode_map * m->block_bytes,
						  .len = m->block_bytes,
						  .kind = OBD_FSMETA_INODE_MAP,
						  .arg = number,
						  .table = table * m->block_bytes});
	}
	want_bitmap(m, block_map);
	want_bitmap(m, inode_map);
}

static void groups(struct obd_fsmeta *m, const unsigned char *p, size_t n, uint64_t first)
{
	for (size_t i = 0; (i + 1) * m->descriptor_bytes <= n && first + i < m->groups; i++)
		group(m, p + i * m->descriptor_bytes, first + i);
}

/* The table is worth reading up to the last inode that is in use. */
static void inode_map(struct obd_fsmeta *m, const unsigned char *p, size_t n, uint64_t table)
{
	uint64_t used = 0;
	for (uint64_t i = 0; i < m->inodes_per_group && i / 8 < n; i++)
		if (p[i / 8] >> (i % 8) & 1)
			used = i + 1;
	want_inodes(m, table, used);
}

/* --- the super block ---------------------------------------------------------------------------------------------------- */

static bool read_geometry(struct obd_fsmeta *m, const unsigned char *p)
{
	uint32_t incompat = obd_get_le32(p + 0x60), ro_compat = obd_get_le32(p + 0x64);
	uint32_t log_block = obd_get_le32(p + 0x18), revision = obd_get_le32(p + 0x4c);
	if (obd_get_le16(p + 0x38) != SUPER_MAGIC || log_block > 6 || (incompat & (INCOMPAT_META_BG | INCOMPAT_JOURNAL_DEV)))
		return false;
	m->block_bytes = 1024u << log_block;
	m->blocks = obd_get_le32(p + 4);
	if (incompat & INCOMPAT_64BIT)
		m->blocks |= (uint64_t)obd_get_le32(p + 0x150) << 32;
	m->blocks_per_group = obd_get_le32(p + 0x20);
	m->inodes_per_group = obd_get_le32(p + 0x28);
	m->inode_bytes = revision ? obd_get_le16(p + 0x58) : 128;
	m->descriptor_bytes = incompat & INCOMPAT_64BIT ? obd_get_le16(p + 0xfe) : 32;
	m->counts_unused = ro_compat & (RO_COMPAT_GDT_CSUM | RO_COMPAT_METADATA_CSUM);
	return m->blocks <= m->device_bytes / m->block_bytes && m->blocks > 1 && m->blocks_per_group &&
	       m->blocks_per_group <= 8 * m->block_bytes && m->inodes_per_group && m->inodes_per_group <= 8 * m->block_bytes &&
	       obd_is_pow2(m->inode_bytes) && m->inode_bytes >= 128 && m->inode_bytes <= m->block_bytes &&
	       obd_is_pow2(m->descriptor_bytes) && m->descriptor_bytes >= 32 && m->descriptor_bytes <= 1024;
}

static void super(struct obd_fsmeta *m, const unsigned char *p)
{
	uint32_t first = obd_get_le32(p + 0x14);
	if (!read_geometry(m, p) || first > 1 || first >= m->blocks)
		return;
	m->groups = (m->blocks - first + m->blocks_per_group - 1) / m->blocks_per_group;
	m->groups = obd_min_u64(m->groups, OBD_FSMETA_GROUPS_MAX);
	uint64_t at = (uint64_t)(first + 1) * m->block_bytes;
	uint64_t bytes = obd_align_up(m->groups * m->descriptor_bytes, m->block_bytes);
	for (uint64_t i = 0; i < bytes; i += OBD_FSMETA_WANT_MAX)
		want(m, &(struct obd_fsmeta_want){.off = at + i,
						  .len = obd_min_u64(bytes - i, OBD_FSMETA_WANT_MAX),
						  .kind = OBD_FSMETA_GROUPS,
						  .arg = i / m->descriptor_bytes});
}

/* --- in and out --------------------------------------------------------------------------------------------------------- */

void obd_fsmeta_init(struct obd_fsmeta *m, uint64_t device_bytes)
{
	memset(m, 0, sizeof *m);
	m->device_bytes = device_bytes;
	m->inodes_left = OBD_FSMETA_INODES_MAX;
	m->nodes_left = OBD_FSMETA_NODES_MAX;
	want(m, &(struct obd_fsmeta_want){.off = SUPER_OFFSET, .len = SUPER_BYTES, .kind = OBD_FSMETA_SUPER});
}

void obd_fsmeta_done(struct obd_fsmeta *m)
{
	free(m->now.want);
	free(m->last.want);
	memset(m, 0, sizeof *m);
}

bool obd_fsmeta_next(struct obd_fsmeta *m, struct obd_fsmeta_want *out)
{
	struct obd_fsmeta_queue *q = m->now.next < m->now.count ? &m->now : &m->last;
	if (q->next == q->count)
		return false;
	*out = q->want[q->next++];
	return true;
}

void obd_fsmeta_give(struct obd_fsmeta *m, const struct obd_fsmeta_want *w, const void *bytes)
{
	switch ((enum obd_fsmeta_kind)w->kind) {
	case OBD_FSMETA_PLAIN:
		break;
	case OBD_FSMETA_SUPER:
		super(m, bytes);
		break;
	case OBD_FSMETA_GROUPS:
		groups(m, bytes, w->len, w->arg);
		break;
	case OBD_FSMETA_INODE_MAP:
		inode_map(m, bytes, w->len, w->table);
		break;
	case OBD_FSMETA_INODES:
		inodes(m, bytes, w->len);
		break;
	case OBD_FSMETA_EXTENTS:
		extents(m, bytes, w->len, w->depth, w->arg);
		break;
	case OBD_FSMETA_INDIRECT:
		indirect(m, bytes, w->len, w->depth, w->arg);
		break;
	}
}
