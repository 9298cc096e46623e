#!/bin/sh
# measure.sh - the comparisons of docs/performance.md: measure.sh FOLDER 5|27|avx2|default [options of compare.py]
# FOLDER is what prepare.sh made. Run it on a quiet machine, with `nice -n -15` where that is allowed.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
moebius=${MOEBIUS:-$here/../../build/release/cli/moebius}
python=${PYTHON:-python3}
[ $# -ge 2 ] || { echo "usage: measure.sh FOLDER 5|27|avx2|default [options of compare.py]" >&2; exit 2; }
folder=$(cd "$1" && pwd)
set=$2
shift 2
llama=$folder/llama.cpp
models=$folder/models

compare() { exec "$python" "$here/compare.py" "$@"; }

case $set in
5) compare "moebius=$moebius bench $models/coded-5" \
    "llama.cpp, repacked=$llama/build/bin/llama-bench -m $models/q4km-5.gguf" \
    "llama.cpp, plain=$llama/build-plain/bin/llama-bench -m $models/q4km-5.gguf" "$@" ;;
avx2) compare "moebius, AVX2=env MOEBIUS_CPU=-avx512 $moebius bench $models/coded-5" \
    "llama.cpp, AVX2, plain=$llama/build-avx2-plain/bin/llama-bench -m $models/q4km-5.gguf" \
    "llama.cpp, AVX2, repacked=$llama/build-avx2/bin/llama-bench -m $models/q4km-5.gguf" "$@" ;;
27) compare "moebius=$moebius bench $models/coded-27" \
    "ik_llama.cpp, repacked=$folder/ik_llama.cpp/build/bin/llama-bench -m $models/q4km-27.gguf -rtr 1" \
    "ik_llama.cpp, plain=$folder/ik_llama.cpp/build/bin/llama-bench -m $models/q4km-27.gguf" \
    "llama.cpp, repacked=$llama/build/bin/llama-bench -m $models/q4km-27.gguf" -t 2 -r 1 "$@" ;;
default) compare "moebius, default bounds=$moebius bench $models/coded-27-default" -t 2 "$@" ;;
*) echo "measure.sh: '$set' is not 5, 27, avx2 or default" >&2; exit 2 ;;
esac
