/*
 * comma_locale.h - a locale that writes 0.5 as "0,5".
 */
#ifndef MB_TESTS_COMMA_LOCALE_H
#define MB_TESTS_COMMA_LOCALE_H

#include <stdbool.h>

/*
 * Sets it for the process: an installed one, or one that is compiled into MB_TEST_FOLDER.  false: neither is
 * possible on this machine, and stderr says why.
 */
bool comma_locale_set(void);

#endif
