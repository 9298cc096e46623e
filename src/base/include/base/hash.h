/*
 * hash.h - XXH3-128 of several pieces, as text and as files, by which a file knows what it was made of.
 */
#ifndef BASE_HASH_H
#define BASE_HASH_H

#include <moebius/status.h>
#include <stddef.h>
#include <xxhash.h>

enum { MB_HASH_TEXT_NBYTES = 33 };

/* 32 hexadecimal digits, terminated. */
void mb_hash_write(XXH128_hash_t value, char text[MB_HASH_TEXT_NBYTES]);

/* The checksum so far, from {0, 0} on, and more bytes: no state that could fail to be made. */
XXH128_hash_t mb_hash_chain(XXH128_hash_t before, const void *bytes, size_t nbytes);

/* Chains names and contents of those of 'names' that are in the folder. Fails as mb_read_file. */
enum mb_status mb_hash_chain_files(const char *folder, const char *const *names, size_t n,
                                   XXH128_hash_t *value, struct mb_error *err);

#endif
