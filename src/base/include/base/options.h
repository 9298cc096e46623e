/*
 * options.h - options of a caller who may have been compiled with an older or newer header.
 *
 * Every options struct begins with 'size_t size', the sizeof of the struct as the caller knows it.  Members
 * are only ever added at the end, and zero is the default of each.
 */
#ifndef MB_BASE_OPTIONS_H
#define MB_BASE_OPTIONS_H

#include <moebius/status.h>
#include <stddef.h>

/*
 * Fills *options, of nbytes, from the caller's struct 'given', of given_nbytes: what an older caller does not
 * know is 0.  given NULL: all defaults.  MB_USAGE: given_nbytes is not the size of such a struct (its 'size'
 * was not set), or a newer caller set an option that this library does not know.
 */
enum mb_status mb_options_take(void *options, size_t nbytes, const void *given, size_t given_nbytes,
                               struct mb_error *err);

/* mb_options_take for 'given', a pointer to the struct; 'options' is the struct to fill. */
#define MB_OPTIONS_TAKE(options, given, err) \
    mb_options_take(&(options), sizeof(options), (given), (given) == NULL ? 0 : (given)->size, (err))

#endif
