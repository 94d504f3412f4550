/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Plays files through a fuzzer's entry, without a fuzzer: each argument is a file or a directory of files. Every input runs in
 * a process of its own, so that one that crashes or hangs is counted and the rest still run.
 */
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { INPUT_SECONDS = 60 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned passed, failed;

/* The whole file in a buffer of exactly its size, so that a sanitizer sees the first byte behind it. */
static uint8_t *load(const char *path, size_t *size)
{
	uint8_t *data = NULL;
	FILE *f = fopen(path, "rb");
	if (!f)
		return NULL;
	if (fseek(f, 0, SEEK_END))
		goto out;
	const long length = ftell(f);
	if (length < 0 || fseek(f, 0, SEEK_SET))
		goto out;
	*size = (size_t)length;
	data = malloc(*size ? *size : 1);
	if (data && fread(data, 1, *size, f) != *size) {
		free(data);
		data = NULL;
	}
out:
	fclose(f);
	return data;
}

static _Noreturn void child(const char *path)
{
	size_t size = 0;
	uint8_t *data = load(path, &size);
	if (!data) {
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
		exit(1);
	}
	alarm(INPUT_SECONDS);
	LLVMFuzzerTestOneInput(data, size);
	free(data);
	exit(0);
}

static void play_file(const char *path)
{
	int status = -1;
	fflush(NULL);
	const pid_t pid = fork();
	if (pid == 0)
		child(path);
	if (pid > 0 && waitpid(pid, &status, 0) == pid && status == 0) {
		passed++;
		return;
	}
	failed++;
	printf("not ok %s: wait status %#x\n", path, (unsigned)status);
}

static void play(const char *path)
{
	struct stat st;
	struct dirent **names;
	if (stat(path, &st) || !S_ISDIR(st.st_mode)) {
		play_file(path);
		return;
	}
	const int n = scandir(path, &names, NULL, alphasort);
	for (int i = 0; i < n; i++) {
		char file[4096];
		snprintf(file, sizeof file, "%s/%s", path, names[i]->d_name);
		if (names[i]->d_name[0] != '.')
			play_file(file);
		free(names[i]);
	}
	if (n >= 0)
		free(names);
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		play(argv[i]);
	const char *slash = strrchr(argv[0], '/');
	if (passed + failed == 0) {
		printf("not ok %s: no input\n", argv[0]);
		failed = 1;
	}
	printf("%s: %u passed, %u failed\n", slash ? slash + 1 : argv[0], passed, failed);
	return failed ? 1 : 0;
}
