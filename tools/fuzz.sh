#!/bin/sh
# fuzz.sh - run every libFuzzer target: fuzz.sh SECONDS [TARGET...]. Findings are left in build/fuzz/found.
set -eu
cd "$(dirname "$0")/.."
seconds=${1:?usage: fuzz.sh SECONDS [TARGET...]}
shift
cmake --preset fuzz >/dev/null
cmake --build --preset fuzz
mkdir -p build/fuzz/found
if [ $# -eq 0 ]; then
    for source in fuzz/fuzz_*.c; do
        target=${source#fuzz/}
        set -- "$@" "${target%.c}"
    done
fi

# As many at once as there are processors: a target has one thread.
export seconds
# shellcheck disable=SC2016  # expanded by the inner shell
printf '%s\n' "$@" | xargs -P "$(nproc)" -n 1 sh -c '
    target=$1
    name=${target#fuzz_}
    log=build/fuzz/$name.log
    mkdir -p "build/fuzz/corpus/$name" "fuzz/corpus/$name"
    "build/fuzz/fuzz/$target" -max_total_time="$seconds" -print_final_stats=1 -timeout=10 -rss_limit_mb=2048 -verbosity=0 \
        -artifact_prefix="build/fuzz/found/$name-" "build/fuzz/corpus/$name" "fuzz/corpus/$name" 2>"$log" ||
        { echo "$target:"; tail -n 40 "$log"; exit 255; }
    awk -v target="$target" -v seconds="$seconds" "
        /stat::number_of_executed_units/ { print target \": \" seconds \" s, executions: \" \$2 }" "$log"
' sh
