#!/bin/sh
# test.sh - build a preset and run its tests: test.sh [PRESET [CTEST_OPTION...]], such as "test.sh asan -R model_".
# Installs what is missing first. The last line counts test cases, not programs.
set -eu
cd "$(dirname "$0")/.."
tools/setup.sh test
preset=${1:-release}
[ $# -eq 0 ] || shift
log=build/$preset/tests.log

cmake --preset "$preset" >/dev/null
cmake --build --preset "$preset"
status=0
ctest --test-dir "build/$preset" -j "$(nproc)" "$@" --verbose >"$log" 2>&1 || status=$?

# Every program that ctest ran, then what failed as it failed: run again it may pass.
grep -E '^ *[0-9]+/[0-9]+ Test +#' "$log" || true
if [ "$status" -ne 0 ]; then
    awk '
        NR == FNR {
            if (/^ *[0-9]+\/[0-9]+ Test .*(\*\*\*|Exception)/ && !/\*\*\*Skipped/) { sub(/.*Test +#/, ""); failed[$0 + 0] = 1 }
            next
        }
        /^ *[0-9]+: / && ($1 + 0) in failed' "$log" "$log" | grep -vE '^ *[0-9]+: \[ +(OK|RUN) ' | tail -n 200
fi
awk -v status="$status" '
    /^ *[0-9]+: \[  PASSED  \] [0-9]+ test/ { passed += $5 }
    /^ *[0-9]+: \[  SKIPPED \] [0-9]+ test/ { skipped += $5 }
    /^ *[0-9]+: \[  FAILED  \] [0-9]+ test/ { failed += $5 }
    /^ *[0-9]+\/[0-9]+ Test .*\*\*\*Skipped/ { programs_skipped++ }
    /^ *[0-9]+\/[0-9]+ Test .*(\*\*\*Failed|\*\*\*Exception|\*\*\*Timeout|\*\*\*Not Run)/ { programs_failed++ }
    END {
        skipped += programs_skipped
        if (failed < programs_failed) failed = programs_failed # programs that ended without a count
        if (status != 0 && failed == 0) failed = 1
        printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped
    }' "$log"
exit "$status"
