/*
 * replay.c - gives files, and all files of folders, to a fuzz target: the kept corpus as an ordinary test.
 */
#include "fuzz.h"
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

/* In memory of exactly its size, so that the address sanitizer sees what is read behind it. */
static int replay_file(const char *path)
{
    struct stat st;
    FILE *file = fopen(path, "rb");
    uint8_t *bytes = NULL;
    int ok = file != NULL && fstat(fileno(file), &st) == 0;
    size_t n = ok ? (size_t)st.st_size : 0;
    ok = ok && (bytes = malloc(n > 0 ? n : 1)) != NULL && fread(bytes, 1, n, file) == n;
    if (ok)
        LLVMFuzzerTestOneInput(bytes, n);
    else
        fprintf(stderr, "%s: cannot be read\n", path);
    free(bytes);
    if (file != NULL)
        fclose(file);
    return ok;
}

static int replay_folder(const char *path, size_t *n_files)
{
    struct dirent **entries;
    int n = scandir(path, &entries, NULL, alphasort), ok = n >= 0;
    for (int i = 0; i < n; i++) {
        char name[4096];
        snprintf(name, sizeof name, "%s/%s", path, entries[i]->d_name);
        if (entries[i]->d_name[0] != '.') {
            ok = replay_file(name) && ok;
            ++*n_files;
        }
        free(entries[i]);
    }
    if (n >= 0)
        free(entries);
    return ok;
}

int main(int argc, char **argv)
{
    size_t n_files = 0;
    int ok = argc > 1;
    for (int i = 1; i < argc; i++) {
        struct stat st;
        if (stat(argv[i], &st) == 0 && S_ISDIR(st.st_mode)) {
            ok = replay_folder(argv[i], &n_files) && ok;
        } else {
            ok = replay_file(argv[i]) && ok;
            n_files++;
        }
    }
    if (n_files == 0) {
        fprintf(stderr, "no files\n");
        return 1;
    }
    printf("%zu files\n[  %s  ] 1 test(s).\n", n_files, ok ? "PASSED" : "FAILED");
    return ok ? 0 : 1;
}
