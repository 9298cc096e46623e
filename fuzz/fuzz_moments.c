/*
 * fuzz_moments.c - files of second moments.
 *
 * The first byte's lowest bit says whether checksums are made right before the rest is read as a file.
 */
#include "base/bytes.h"
#include "base/checked.h"
#include "fuzz.h"
#include <math.h>
#include <moebius/calibrate.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { HEAD_NBYTES = 32, VALUES_MAX = 256 };

static struct fuzz_file file;

/* Of frames, one after another, as far as they are in the file. */
static void repair(uint8_t *bytes, uint64_t nbytes)
{
    for (uint64_t pos = 0; pos <= nbytes && nbytes - pos >= HEAD_NBYTES;) {
        uint64_t n_json = mb_load_u32(bytes + pos + 12), n_data = mb_load_u64(bytes + pos + 16);
        if (n_json > nbytes - pos - HEAD_NBYTES || n_data > nbytes)
            return;
        mb_store_u64(bytes + pos + 24, XXH3_64bits_withSeed(bytes + pos + HEAD_NBYTES, n_json,
                                                            XXH3_64bits(bytes + pos, HEAD_NBYTES - 8)));
        pos = mb_round_up(pos + HEAD_NBYTES + n_json, 64) + n_data;
    }
}

static void read_input(const struct mb_moments *moments, const struct mb_moments_input *input)
{
    struct mb_error err;
    static float h[VALUES_MAX * VALUES_MAX];
    size_t n = input->n_values;
    REQUIRE(n > 0 && input->n_matrices > 0 && input->sum_gg >= 0);
    for (size_t i = 0; i < input->n_matrices; i++)
        REQUIRE(mb_moments_find(moments, input->matrices[i]) == input);
    if (n > VALUES_MAX || mb_moments_read(moments, input, h, &err) != MB_OK)
        return;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j <= i; j++)
            REQUIRE(isfinite(h[i * n + j]) && h[i * n + j] == h[j * n + i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mb_error err;
    struct mb_moments *moments;
    size_t n;
    if (size == 0)
        return 0;
    uint8_t *bytes = malloc(size);
    REQUIRE(bytes != NULL);
    memcpy(bytes, data + 1, size - 1);
    if ((data[0] & 1) != 0)
        repair(bytes, size - 1);
    fuzz_file_set(&file, bytes, size - 1, 0);
    free(bytes);
    if (mb_moments_open(file.path, NULL, &moments, &err) != MB_OK)
        return 0;
    const struct mb_moments_input *inputs = mb_moments_inputs(moments, &n);
    REQUIRE(n > 0 && n == mb_moments_contents(moments)->n_inputs);
    for (size_t i = 0; i < n; i++)
        read_input(moments, &inputs[i]);
    mb_moments_close(moments);
    return 0;
}
