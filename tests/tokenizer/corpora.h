/*
 * corpora.h - the large texts that goldens are hashes of; tools/tokenizer-goldens/corpora.py makes the same
 * ones.
 */
#ifndef TESTS_TOKENIZER_CORPORA_H
#define TESTS_TOKENIZER_CORPORA_H

#include "base/buf.h"
#include <jansson.h>

/* "code", "mixed" and "long" by the pieces in corpora.json (its root), "characters" by a loop. Freed by the
 * caller. */
struct mb_bytes corpus_generate(const json_t *pieces, const char *name);

/* The first 1,000,000 bytes of a file, U+FFFD for what that cuts. p is NULL: there is no such file. */
struct mb_bytes corpus_prose(const char *path);

/* FNV-1a over bytes, and over ids as numbers of 32 bits; as hexadecimal digits. */
void hash_bytes(const char *p, size_t n, char hex[17]);
void hash_ids(const int32_t *ids, size_t n, char hex[17]);

#endif
