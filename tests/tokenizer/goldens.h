/*
 * goldens.h - a tokenizer checked against what the `tokenizers` package made of the same texts.
 */
#ifndef TESTS_TOKENIZER_GOLDENS_H
#define TESTS_TOKENIZER_GOLDENS_H

#define TOKENIZER_DATA MB_REPO "/tests/tokenizer/data"

/* MOEBIUS_TEST_DATA, or where it lies by default. */
const char *test_data_folder(void);

/*
 * The tokenizer at 'path' against data/goldens/NAME.json: ids and text of every text and corpus, with what is
 * put around a text.  'prose_path': the file of the corpus "prose"; NULL where there is none.
 */
void check_goldens(const char *name, const char *path, const char *prose_path);

#endif
