#!/bin/sh
# measure.sh - the comparisons of docs/performance.md: measure.sh FOLDER SET [options of compare.py]
# SET: 5, qwen3, mixtral (each with -avx2 too), 27, default: see bench/peers/README.md.
# FOLDER is what prepare.sh made. Run it on a quiet machine, with `nice -n -15` where that is allowed.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
moebius=${MOEBIUS:-$here/../../build/release/cli/moebius}
python=${PYTHON:-python3}
[ $# -ge 2 ] || { echo "usage: measure.sh FOLDER SET [options of compare.py]" >&2; exit 2; }
folder=$(cd "$1" && pwd)
set=$2
shift 2
llama=$folder/llama.cpp
models=$folder/models

compare() { exec "$python" "$here/compare.py" "$@"; }

# With the instruction sets of the machine, and without AVX-512.
beside_llama() { # NAME [options of compare.py]
    name=$1
    shift
    compare "moebius=$moebius bench $models/coded-$name" \
        "llama.cpp, repacked=$llama/build/bin/llama-bench -m $models/q4km-$name.gguf" \
        "llama.cpp, plain=$llama/build-plain/bin/llama-bench -m $models/q4km-$name.gguf" "$@"
}

beside_llama_avx2() { # NAME [options of compare.py]
    name=$1
    shift
    compare "moebius, AVX2=env MOEBIUS_CPU=-avx512,-avxvnni $moebius bench $models/coded-$name" \
        "llama.cpp, AVX2, repacked=$llama/build-avx2/bin/llama-bench -m $models/q4km-$name.gguf" \
        "llama.cpp, AVX2, plain=$llama/build-avx2-plain/bin/llama-bench -m $models/q4km-$name.gguf" "$@"
}

case $set in
5) beside_llama 5 "$@" ;;
5-avx2) beside_llama_avx2 5 "$@" ;;
qwen3 | mixtral) beside_llama "$set" -t 2 "$@" ;;
qwen3-avx2 | mixtral-avx2) beside_llama_avx2 "${set%-avx2}" -t 2 "$@" ;;
27) compare "moebius=$moebius bench $models/coded-27" \
    "ik_llama.cpp, repacked=$folder/ik_llama.cpp/build/bin/llama-bench -m $models/q4km-27.gguf -rtr 1" \
    "ik_llama.cpp, plain=$folder/ik_llama.cpp/build/bin/llama-bench -m $models/q4km-27.gguf" \
    "llama.cpp, repacked=$llama/build/bin/llama-bench -m $models/q4km-27.gguf" -t 2 -r 1 "$@" ;;
default) compare "moebius, default bounds=$moebius bench $models/coded-27-default" -t 2 "$@" ;;
*) echo "measure.sh: there is no set '$set'" >&2; exit 2 ;;
esac
