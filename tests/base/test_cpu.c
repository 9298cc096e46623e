/*
 * test_cpu.c - MOEBIUS_CPU: what is taken away, and what an unknown name says. Each case is its own process,
 * because features are read once.
 */
#include "base/cpu.h"
#include "cmocka_all.h"
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* The features of a process that starts with this list; 255: the list was refused. */
static unsigned features_with(const char *list)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        if (list == NULL)
            unsetenv("MOEBIUS_CPU");
        else
            setenv("MOEBIUS_CPU", list, 1);
        _exit(mb_cpu_features_check(NULL) == MB_OK ? (int)mb_cpu_features() : 255);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return (unsigned)WEXITSTATUS(status);
}

static void levels_are_nested(void **state)
{
    (void)state;
    unsigned all = features_with(NULL);
    assert_true((all & MB_CPU_AVX512) == 0 || (all & MB_CPU_AVX2) != 0);
    assert_true((all & MB_CPU_AMX_INT8) == 0 || (all & MB_CPU_AVX512) != 0);
    assert_int_equal(features_with(""), all);
    assert_int_equal(features_with("-amx"), all & ~(unsigned)MB_CPU_AMX_INT8);
    assert_true((all & MB_CPU_AVXVNNI) == 0 || (all & MB_CPU_AVX2) != 0);
    const unsigned above_avx2 = MB_CPU_AVX512 | MB_CPU_ZEN4 | MB_CPU_AMX_INT8,
                   x86 = above_avx2 | MB_CPU_AVX2 | MB_CPU_AVXVNNI;
    assert_int_equal(features_with("-avx512"), all & ~above_avx2);
    assert_true((all & MB_CPU_ZEN4) == 0 || (all & MB_CPU_AVX512) != 0);
    assert_int_equal(features_with("-zen4"), all & ~(unsigned)MB_CPU_ZEN4);
    assert_int_equal(features_with("-amx,-avx512"), all & ~above_avx2);
    assert_int_equal(features_with("-avxvnni"), all & ~(unsigned)MB_CPU_AVXVNNI);
    assert_int_equal(features_with("-avx2"), all & ~x86);
    const unsigned above_neon = MB_CPU_DOTPROD | MB_CPU_I8MM;
    assert_true((all & MB_CPU_I8MM) == 0 || (all & MB_CPU_DOTPROD) != 0);
    assert_true((all & MB_CPU_DOTPROD) == 0 || (all & MB_CPU_NEON) != 0);
    assert_int_equal(features_with("-i8mm"), all & ~(unsigned)MB_CPU_I8MM);
    assert_int_equal(features_with("-dotprod"), all & ~above_neon);
    assert_int_equal(features_with("-neon"), all & ~(above_neon | MB_CPU_NEON));
    assert_true((all & x86) == 0 || (all & ~x86) == 0);
}

static void unknown_names_are_refused(void **state)
{
    (void)state;
    assert_int_equal(features_with("-avx1024"), 255);
    assert_int_equal(features_with("-avx512,avx2"), 255);
    assert_int_equal(features_with("-avx51"), 255);
    setenv("MOEBIUS_CPU", "-amx,-sse9", 1);
    struct mb_error err;
    assert_int_equal(mb_cpu_features_check(&err), MB_USAGE);
    assert_non_null(strstr(err.msg, "'-sse9'"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(levels_are_nested),
        cmocka_unit_test(unknown_names_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
