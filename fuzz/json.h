/*
 * json.h - a mutator for inputs that hold JSON. Byte by byte, hardly anything gets past the JSON library
 * (which is not instrumented either); so half of the mutations change the tree: numbers, names, what stands
 * where.
 */
#ifndef FUZZ_JSON_H
#define FUZZ_JSON_H

#include "fuzz.h"

/* Each target that links json.c says where an input's JSON text stands. */
struct fuzz_input fuzz_json_part(const uint8_t *data, size_t size);

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t size_max, unsigned seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t size_max); /* libFuzzer's */

#endif
