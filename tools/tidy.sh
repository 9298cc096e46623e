#!/bin/sh
# tidy.sh - clang-tidy (.clang-tidy) over the library and the program: tidy.sh [FILE.c...]
# The debug preset's commands: in a release build the assertions that tell the analyser what holds are gone.
set -eu
cd "$(dirname "$0")/.."
cmake --preset debug >/dev/null
cmake --build --preset debug --target commit report_page calibrate_default_text >/dev/null # headers that are made
# Files of other processors are not compiled here.
compiled() {
    git ls-files 'src/*.c' 'cli/*.c' | while read -r file; do
        if grep -q "/$file\"" build/debug/compile_commands.json; then echo "$file"; fi
    done
}
# shellcheck disable=SC2046  # names without spaces
[ $# -gt 0 ] || set -- $(compiled)
log=build/debug/tidy.log
status=0
printf '%s\n' "$@" | xargs -P "$(nproc)" -n 1 clang-tidy -p build/debug --quiet >"$log" 2>/dev/null || status=$?
grep -E '(error|warning):' "$log" | sort -u || true
exit "$status"
