/*
 * fuzz.c - see fuzz.h.
 */
#include "fuzz.h"
#include "base/bytes.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

enum { GUARDED_NBYTES = 4 << 20, PAGE_NBYTES = 4096, N_NAMES_MAX = 8 };

void fuzz_broken(const char *what, const char *file, int line)
{
    fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, what);
    abort();
}

/* The machine's fault, not the code's: nothing can be tested. */
static void need(int ok, const char *what)
{
    if (ok)
        return;
    perror(what);
    abort();
}

uint8_t fuzz_u8(struct fuzz_input *input)
{
    if (input->n == 0)
        return 0;
    input->n--;
    return *input->p++;
}

uint16_t fuzz_u16(struct fuzz_input *input)
{
    unsigned low = fuzz_u8(input);
    return (uint16_t)(low | (unsigned)fuzz_u8(input) << 8);
}

uint32_t fuzz_u32(struct fuzz_input *input)
{
    uint32_t low = fuzz_u16(input);
    return low | (uint32_t)fuzz_u16(input) << 16;
}

struct fuzz_input fuzz_until(struct fuzz_input *input, uint8_t end)
{
    const uint8_t *found = input->n == 0 ? NULL : memchr(input->p, end, input->n);
    size_t n = found == NULL ? input->n : (size_t)(found - input->p), n_taken = found == NULL ? n : n + 1;
    struct fuzz_input part = {input->p, n};
    *input = (struct fuzz_input){input->p + n_taken, input->n - n_taken};
    return part;
}

/* ---------------------------------------------------------------- files */

static void make_file(struct fuzz_file *file)
{
    file->fd = memfd_create("fuzz", MFD_CLOEXEC);
    need(file->fd >= 0, "memfd_create");
    snprintf(file->path, sizeof file->path, "/proc/self/fd/%d", file->fd);
}

static void put(struct fuzz_file *file, const void *bytes, size_t n, uint64_t pos)
{
    need(n == 0 || pwrite(file->fd, bytes, n, (off_t)pos) == (ssize_t)n, "pwrite");
}

/* What stood there before must not show through the hole. */
static void resize(struct fuzz_file *file, uint64_t n_written, uint64_t nbytes)
{
    if (file->nbytes > n_written && nbytes > n_written)
        need(ftruncate(file->fd, (off_t)n_written) == 0, "ftruncate");
    if (file->nbytes != nbytes || nbytes > n_written)
        need(ftruncate(file->fd, (off_t)nbytes) == 0, "ftruncate");
    file->nbytes = nbytes;
}

void fuzz_file_set(struct fuzz_file *file, const void *bytes, size_t n, uint64_t file_nbytes)
{
    if (file->path[0] == 0)
        make_file(file);
    put(file, bytes, n, 0);
    resize(file, n, file_nbytes < n ? n : file_nbytes);
}

void fuzz_file_set_safetensors(struct fuzz_file *file, const void *header, size_t n, uint64_t data_nbytes)
{
    if (file->path[0] == 0)
        make_file(file);
    uint64_t length = n;
    put(file, &length, 8, 0);
    put(file, header, n, 8);
    resize(file, 8 + n, 8 + n + data_nbytes);
}

/* ---------------------------------------------------------------- a folder */

static char folder[64];
static const char *names[N_NAMES_MAX];
static size_t n_names;

static void remove_folder(void)
{
    char path[256];
    for (size_t i = 0; i < n_names; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        unlink(path);
    }
    rmdir(folder);
}

const char *fuzz_folder(void)
{
    if (folder[0] == 0) {
        const char *shm = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
        snprintf(folder, sizeof folder, "%s/moebius-fuzz-XXXXXX", shm);
        need(mkdtemp(folder) != NULL, "mkdtemp");
        atexit(remove_folder);
    }
    return folder;
}

void fuzz_folder_add(const char *name, struct fuzz_file *file)
{
    char path[256];
    if (file->path[0] == 0)
        make_file(file);
    snprintf(path, sizeof path, "%s/%s", fuzz_folder(), name);
    need(n_names < N_NAMES_MAX && symlink(file->path, path) == 0, "symlink");
    names[n_names++] = name;
}

const char *fuzz_folder_with_config(const void *bytes, size_t n)
{
    static struct fuzz_file config, model;
    static const char header[] = "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}";
    if (model.path[0] == 0) {
        fuzz_file_set_safetensors(&model, header, sizeof header - 1, 8);
        fuzz_folder_add("model.safetensors", &model);
        fuzz_folder_add("config.json", &config);
    }
    fuzz_file_set(&config, bytes, n, 0);
    return fuzz_folder();
}

/* ---------------------------------------------------------------- memory */

void fuzz_repair_blob(uint8_t *bytes, uint64_t nbytes)
{
    size_t header_nbytes = nbytes < 40 ? 0 : mb_load_u32(bytes + 8);
    uint64_t blob_nbytes = nbytes < 40 ? 0 : mb_load_u64(bytes + 16);
    if (header_nbytes < 40 || header_nbytes > blob_nbytes || blob_nbytes > nbytes)
        return;
    mb_store_u64(bytes + 24, XXH3_64bits(bytes + header_nbytes, blob_nbytes - header_nbytes));
    mb_store_u64(bytes + 32, 0);
    mb_store_u64(bytes + 32, XXH3_64bits(bytes, header_nbytes));
}

uint8_t *fuzz_guarded(size_t n)
{
    static uint8_t *end;
    if (end == NULL) {
        uint8_t *map = mmap(NULL, GUARDED_NBYTES + PAGE_NBYTES, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        need(map != MAP_FAILED, "mmap");
        end = map + GUARDED_NBYTES;
        need(mprotect(end, PAGE_NBYTES, PROT_NONE) == 0, "mprotect");
    }
    return n <= GUARDED_NBYTES ? end - n : NULL;
}
