/*
 * Runs a libFuzzer harness over files and directories of files, for compilers without libFuzzer:
 *
 *   gcc -std=c11 -g -fsanitize=address,undefined native/fuzz/fuzz_dump.c native/fuzz/replay_main.c -o replay
 *   ./replay DIRECTORY_OR_FILE...
 *
 * Prints how many inputs it ran. A finding ends it, as it would end the fuzzer.
 */
#define _POSIX_C_SOURCE 200809L

#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#define MAX_INPUT (1 << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fail(const char *path)
{
	perror(path);
	exit(2);
}

static int replay_file(const char *path)
{
	uint8_t *data = malloc(MAX_INPUT);
	FILE *file = fopen(path, "rb");
	size_t size;

	if (!data || !file)
		fail(path);
	size = fread(data, 1, MAX_INPUT, file);
	if (ferror(file))
		fail(path);
	fclose(file);
	LLVMFuzzerTestOneInput(data, size);
	free(data);
	return 1;
}

static int replay_directory(const char *path)
{
	DIR *directory = opendir(path);
	struct dirent *entry;
	int count = 0;

	if (!directory)
		fail(path);
	while ((entry = readdir(directory))) {
		char name[4096];

		if (entry->d_name[0] == '.')
			continue;
		if (snprintf(name, sizeof(name), "%s/%s", path, entry->d_name) >= (int)sizeof(name))
			fail(path);
		count += replay_file(name);
	}
	closedir(directory);
	return count;
}

int main(int argc, char **argv)
{
	int count = 0;
	int i;

	for (i = 1; i < argc; i++) {
		struct stat status;

		if (stat(argv[i], &status) < 0)
			fail(argv[i]);
		count += S_ISDIR(status.st_mode) ? replay_directory(argv[i]) : replay_file(argv[i]);
	}
	printf("%d inputs\n", count);
	return 0;
}
