/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A layer tar onto a small file system that has something of everything; what was applied must be readable afterwards. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tools/apply/apply.h"
#include "tools/apply/ext4.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { IMAGE_BYTES = 4 << 20 };

static int some_data(void *ctx, const void **buf, size_t *n, uint64_t *off, struct obd_err *err)
{
	int *left = ctx;
	(void)err;
	*buf = "lower";
	*n = 5;
	*off = 0;
	return (*left)-- > 0;
}

static void put(struct obd_ext4 *fs, const char *path, mode_t mode)
{
	const struct obd_tar_entry e = {.name = path, .mode = mode, .link = "d/sub", .bytes = 5};
	struct obd_err err;
	int once = 1;
	if (obd_ext4_put(fs, path, &e, some_data, &once, &err))
		abort();
}

/* The file system that every input starts from. */
static struct obd_file *new_image(void)
{
	static uint8_t base[IMAGE_BYTES];
	static int made;
	struct obd_file *f = obd_file_new_mem(IMAGE_BYTES);
	struct obd_ext4 *fs;
	struct obd_err err;
	if (!f || obd_file_pwrite(f, base, IMAGE_BYTES, 0))
		abort();
	if (made)
		return f;
	if (obd_ext4_make(f, &err) || obd_ext4_open(f, &fs, &err))
		abort();
	put(fs, "a", S_IFREG | 0644);
	put(fs, "d/sub/b", S_IFREG | 0644);
	put(fs, "l", S_IFLNK | 0777);
	put(fs, "d/p", S_IFIFO | 0600);
	if (obd_ext4_finish(fs, NULL, NULL, &err) || obd_file_pread_full(f, base, IMAGE_BYTES, 0))
		abort();
	obd_ext4_close(fs);
	made = 1;
	return f;
}

/* Makes the checksums of all blocks that look like headers right: few inputs would get past them by chance. */
static uint8_t *with_checksums(const uint8_t *data, size_t size)
{
	uint8_t *copy = malloc(size ? size : 1);
	if (!copy)
		abort();
	memcpy(copy, data, size);
	for (uint8_t *block = copy; size - (size_t)(block - copy) >= 512; block += 512) {
		char text[8];
		unsigned sum = 0;
		if (memcmp(block + 257, "ustar", 5))
			continue;
		memset(block + 148, ' ', 8);
		for (int i = 0; i < 512; i++)
			sum += block[i];
		snprintf(text, sizeof(text), "%06o", sum);
		memcpy(block + 148, text, 7);
	}
	return copy;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct obd_apply_opts opts = {0};
	struct obd_apply_result result;
	struct obd_ext4 *fs;
	struct obd_err err;
	uint8_t *copy = with_checksums(data, size);
	struct obd_tar_reader *tar = obd_tar_reader_open_mem(copy, size, &err);
	if (!tar)
		goto out;
	struct obd_file *image = new_image();
	if (obd_apply(image, tar, &opts, &result, &err) == 0) {
		/* Emptying the root reads every directory and frees every inode. */
		if (obd_ext4_open(image, &fs, &err) || obd_ext4_opaque(fs, "", &err) || obd_ext4_finish(fs, NULL, NULL, &err))
			abort();
		obd_ext4_close(fs);
	}
	obd_tar_reader_close(tar);
	obd_file_close(image);
out:
	free(copy);
	return 0;
}
