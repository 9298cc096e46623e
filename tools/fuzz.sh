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
for target in "$@"; do
    name=${target#fuzz_}
    mkdir -p "build/fuzz/corpus/$name" "fuzz/corpus/$name"
    echo "$target: $seconds s"
    "build/fuzz/fuzz/$target" -max_total_time="$seconds" -print_final_stats=1 -timeout=10 -rss_limit_mb=2048 -verbosity=0 \
        -artifact_prefix="build/fuzz/found/$name-" "build/fuzz/corpus/$name" "fuzz/corpus/$name" 2>"build/fuzz/$name.log" ||
        { tail -n 40 "build/fuzz/$name.log"; exit 1; }
    grep -E 'stat::number_of_executed_units' "build/fuzz/$name.log" | awk '{ print "  executions: " $2 }'
done
