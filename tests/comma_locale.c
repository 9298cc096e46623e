/*
 * comma_locale.c - sets a German locale, compiled by localedef where none is installed.
 */
#include "comma_locale.h"
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char name[] = "de_DE.UTF-8";
static const char folder[] = MB_TEST_FOLDER "/locale";

static bool is_set(void)
{
    return setlocale(LC_ALL, name) != NULL && strcmp(localeconv()->decimal_point, ",") == 0;
}

/* localedef ends with 1 after warnings: whether the locale can be set is what counts. Under a name of its own
 * first, since tests run at once. */
static void compile(void)
{
    static const char command[] =
        "mkdir -p '%s' && localedef --no-archive -i de_DE -f UTF-8 '%s/%ld' >'%s/log' 2>&1; "
        "mv -T '%s/%ld' '%s/%s' 2>/dev/null || rm -rf '%s/%ld'";
    char text[sizeof command + 8 * sizeof folder + 100];
    long id = (long)getpid();
    snprintf(text, sizeof text, command, folder, folder, id, folder, folder, id, folder, name, folder, id);
    if (system(text) != 0) /* NOLINT(cert-env33-c): a fixed command */
        fprintf(stderr, "localedef: see %s/log\n", folder);
}

bool comma_locale_set(void)
{
    if (is_set())
        return true;
    /* glibc remembers what it did not find, so the locale must be there before it is looked for. */
    if (access(MB_TEST_FOLDER "/locale/de_DE.UTF-8/LC_NUMERIC", R_OK) != 0)
        compile();
    setenv("LOCPATH", folder, 1);
    if (is_set())
        return true;
    fprintf(stderr, "skipped: the locale %s is not installed, and localedef cannot compile it\n", name);
    return false;
}
