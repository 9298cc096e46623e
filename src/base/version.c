/*
 * version.c - the version that the library was built as.
 */
#include <moebius/version.h>

const char *mb_version(void)
{
    return MB_VERSION;
}
