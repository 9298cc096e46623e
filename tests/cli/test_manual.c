/*
 * test_manual.c - man pages and bash completion are made from the tables of the verbs.
 */
#include "checkpoint/folder.h"
#include "cmocka_all.h"
#include "program.h"
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int begin(void **state)
{
    if (test_folder_begin(state) != 0 || mkdir(test_path("manual"), 0777) != 0)
        return -1;
    return run("manual manual")->exit_status;
}

static void read_page(const char *name, char *text, size_t cap)
{
    char path[256];
    snprintf(path, sizeof path, "manual/%s", name);
    FILE *file = fopen(test_path(path), "r");
    assert_non_null(file);
    size_t n = fread(text, 1, cap - 1, file);
    fclose(file);
    text[n] = '\0';
}

static void every_verb_has_a_page_with_every_option_of_its_help(void **state)
{
    (void)state;
    static const char *const verbs[] = {"inspect",  "compress",      "verify",       "decompress", "run",
                                        "chat",     "eval",          "tokenize",     "doctor",     "trace",
                                        "simulate", "bench kernels", "bench codecs", "bench"};
    static char page[1 << 16];
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++) {
        char name[64], title[96];
        snprintf(name, sizeof name, "moebius-%s.1", verbs[i]);
        if (strchr(name, ' ') != NULL)
            *strchr(name, ' ') = '-';
        read_page(name, page, sizeof page);
        snprintf(title, sizeof title, ".B moebius %s\n", verbs[i]);
        assert_non_null(strstr(page, title));
        const char *help = strstr(run_well("%s --help", verbs[i]), "\noptions:\n");
        assert_non_null(help);
        for (const char *option = help; (option = strstr(option, " --")) != NULL; option += 3) {
            if (option[-1] != ' ' && option[-1] != ',')
                continue; /* quoted in a text */
            char spelled[64] = "\\fB\\-\\-", *p = spelled + strlen(spelled);
            for (const char *q = option + 3; strchr(" \n", *q) == NULL; q++) {
                if (*q == '-')
                    *p++ = '\\';
                *p++ = *q;
            }
            strcpy(p, "\\fR");
            assert_non_null(strstr(page, spelled));
        }
    }
}

static void the_first_page_lists_the_verbs(void **state)
{
    (void)state;
    static char page[1 << 16];
    read_page("moebius.1", page, sizeof page);
    assert_non_null(strstr(page, "\\fBdecompress\\fR CODED OUT\n"));
    assert_non_null(strstr(page, "Exit status: 0 done"));
    assert_null(strstr(page, "manual FOLDER")); /* the build's verb */
}

/* Prints what bash offers after these words. */
static const char *complete(const char *words, int last)
{
    return run_after("",
                     "--version >/dev/null; bash -c '. manual/moebius.bash; COMP_WORDS=(%s); COMP_CWORD=%d; "
                     "_moebius; echo \"${COMPREPLY[*]}\"'",
                     words, last)
        ->out;
}

static void bash_completes_verbs_options_and_choices(void **state)
{
    (void)state;
    if (system("bash -c : 2>/dev/null") != 0)
        skip();
    assert_string_equal(complete("moebius com", 1), "compress\n");
    assert_string_equal(complete("moebius compress plain --th", 3), "--threads\n");
    assert_string_equal(complete("moebius compress -o j", 3), "json\n");
    assert_string_equal(complete("moebius bench k", 2), "kernels\n");
    assert_string_equal(complete("moebius bench kernels --dr", 3), "--dram-mb\n");
    assert_string_equal(complete("moebius bench codecs --bou", 3), "--bounds\n");
    assert_string_equal(complete("moebius compress -t 2", 3), "\n");
}

static void a_folder_that_is_not_there_is_3(void **state)
{
    (void)state;
    assert_fails(run("manual nothing"), 3, "nothing");
    assert_fails(run("manual"), 2, "usage: moebius manual FOLDER");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_verb_has_a_page_with_every_option_of_its_help),
        cmocka_unit_test(the_first_page_lists_the_verbs),
        cmocka_unit_test(bash_completes_verbs_options_and_choices),
        cmocka_unit_test(a_folder_that_is_not_there_is_3),
    };
    return cmocka_run_group_tests(tests, begin, test_folder_end);
}
