/*
 * hash.c - see hash.h.
 */
#include "base/hash.h"
#include "base/error.h"
#include "base/file.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FILE_NBYTES_MAX = 1 << 30 };

void mb_hash_write(XXH128_hash_t value, char text[MB_HASH_TEXT_NBYTES])
{
    snprintf(text, MB_HASH_TEXT_NBYTES, "%016llx%016llx", (unsigned long long)value.high64,
             (unsigned long long)value.low64);
}

XXH128_hash_t mb_hash_chain(XXH128_hash_t before, const void *bytes, size_t nbytes)
{
    XXH128_hash_t next = XXH3_128bits_withSeed(bytes, nbytes, before.low64);
    next.high64 ^= before.high64 * 0x9e3779b97f4a7c15U;
    return next;
}

enum mb_status mb_hash_chain_files(const char *folder, const char *const *names, size_t n,
                                   XXH128_hash_t *value, struct mb_error *err)
{
    for (size_t i = 0; i < n; i++) {
        char path[MB_PATH_MAX], *bytes;
        size_t nbytes;
        bool is_there;
        MB_TRY(mb_join_path(path, folder, names[i], err));
        MB_TRY(mb_look_at(path, &is_there, NULL, err));
        if (!is_there)
            continue;
        MB_TRY(mb_read_file(path, FILE_NBYTES_MAX, &bytes, &nbytes, err));
        *value = mb_hash_chain(mb_hash_chain(*value, names[i], strlen(names[i])), bytes, nbytes);
        free(bytes);
    }
    return MB_OK;
}
