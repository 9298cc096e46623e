/*
 * options.c - options structs of different sizes.
 */
#include "base/options.h"
#include "base/error.h"
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

static bool is_zero(const uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (bytes[i] != 0)
            return false;
    return true;
}

enum mb_status mb_options_take(void *options, size_t nbytes, const void *given, size_t given_nbytes,
                               struct mb_error *err)
{
    memset(options, 0, nbytes);
    memcpy(options, &nbytes, sizeof nbytes); /* the member 'size' */
    if (given == NULL)
        return MB_OK;
    if (given_nbytes < sizeof(size_t))
        return mb_fail(err, MB_USAGE, "options of size %zu: set 'size' to the sizeof of the options struct",
                       given_nbytes);
    size_t n_known = given_nbytes < nbytes ? given_nbytes : nbytes;
    if (!is_zero((const uint8_t *)given + n_known, given_nbytes - n_known))
        return mb_fail(err, MB_USAGE,
                       "options of %zu bytes, of which this version knows %zu: set only options that the "
                       "header of this version has",
                       given_nbytes, nbytes);
    memcpy((uint8_t *)options + sizeof(size_t), (const uint8_t *)given + sizeof(size_t),
           n_known - sizeof(size_t));
    return MB_OK;
}
