/*
 * fuzz.h - what the fuzz targets share: promises that are checked, input taken apart, files in memory.
 *
 * A target is one file with LLVMFuzzerTestOneInput. libFuzzer drives it in the preset `fuzz`; in every other
 * build replay.c drives it over the corpus that is kept (fuzz/corpus/NAME).
 */
#ifndef FUZZ_FUZZ_H
#define FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A promise of the code under test. Broken: a message, and abort. Compiled in always. */
#define REQUIRE(condition) ((condition) ? (void)0 : fuzz_broken(#condition, __FILE__, __LINE__))
_Noreturn void fuzz_broken(const char *what, const char *file, int line);

/* Takes numbers off the front of an input; zeros behind its end. */
struct fuzz_input {
    const uint8_t *p;
    size_t n;
};
uint8_t fuzz_u8(struct fuzz_input *input);
uint16_t fuzz_u16(struct fuzz_input *input);
uint32_t fuzz_u32(struct fuzz_input *input);

/* What is in front of the first 'end' byte, which is taken off, too; all that is left without one. */
struct fuzz_input fuzz_until(struct fuzz_input *input, uint8_t end);

/* A file that lives in memory and has a path. Zeroed: not made yet. */
struct fuzz_file {
    int fd;
    char path[64];
    uint64_t nbytes;
};

/* The file's content becomes n bytes, then zeros (a hole) up to file_nbytes where that is more. */
void fuzz_file_set(struct fuzz_file *file, const void *bytes, size_t n, uint64_t file_nbytes);

/* A safetensors file: length, header, a data section of data_nbytes zeros. */
void fuzz_file_set_safetensors(struct fuzz_file *file, const void *header, size_t n, uint64_t data_nbytes);

/*
 * A temporary folder that is removed when the program ends; its files are links to files in memory.  There is
 * one.
 */
const char *fuzz_folder(void);
void fuzz_folder_add(const char *name, struct fuzz_file *file);

/* The folder as a checkpoint of one tensor, whose config.json is these bytes. */
const char *fuzz_folder_with_config(const void *bytes, size_t n);

/* Makes both checksums of a blob right, where its header says where they stand. */
void fuzz_repair_blob(uint8_t *bytes, uint64_t nbytes);

/* Bytes that end at an unmapped page, n + slack of them: what is read behind them ends the program. */
uint8_t *fuzz_guarded(size_t n);

#endif
