/*
 * normalize.h - what is done to the text between added tokens before it is cut.
 */
#ifndef MB_TOKENIZER_NORMALIZE_H
#define MB_TOKENIZER_NORMALIZE_H

#include "base/buf.h"

enum mb_normalizer_kind { MB_NORMALIZE_NFC, MB_NORMALIZE_PREPEND, MB_NORMALIZE_REPLACE };

struct mb_normalizer {
    enum mb_normalizer_kind kind;
    char *what; /* REPLACE: what is replaced; PREPEND: what is put before the text. Owned. */
    char *with; /* REPLACE. Owned. */
};

struct mb_normalizers {
    struct mb_normalizer *items;
    size_t n;
};

/*
 * All of them in order. 'out' and 'spare' are the caller's to reuse; the result is at *text, which is the
 * input itself where nothing changed.  false: no memory.
 */
bool mb_normalize(const struct mb_normalizers *normalizers, struct mb_bytes *out, struct mb_bytes *spare,
                  const char **text, size_t *nbytes);
void mb_normalizers_free(struct mb_normalizers *normalizers);

#endif
