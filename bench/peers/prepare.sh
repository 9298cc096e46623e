#!/bin/sh
# prepare.sh - the builds and models of bench/peers/measure.sh: prepare.sh FOLDER [5|27|qwen3|mixtral]...
# Default: all four. What FOLDER has already is kept. Needs git, numpy, tqdm, and this project's release build. Disk and
# time: bench/peers/README.md.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
moebius=${MOEBIUS:-$here/../../build/release/cli/moebius}
llama_commit=34af94cd9ab277632e27caeec2d41de2fd091b31
ik_commit=8337e4cd3861406fc04e0854b1409cd1b027fbc9
jobs=${JOBS:-$(nproc)}
python=${PYTHON:-python3}

usage() {
    echo "usage: prepare.sh FOLDER [5|27|qwen3|mixtral]..." >&2
    exit 2
}

[ $# -ge 1 ] || usage
folder=$1
shift
sets=${*:-5 27 qwen3 mixtral}
for set in $sets; do
    case $set in 5 | 27 | qwen3 | mixtral) ;; *) usage ;; esac
done
mkdir -p "$folder/models"
folder=$(cd "$folder" && pwd)

clone() { # NAME URL COMMIT
    [ ! -d "$folder/$1" ] || return 0
    git clone -q "$2" "$folder/$1"
    git -C "$folder/$1" checkout -q "$3"
}

build() { # NAME BUILD TARGETS OPTION...
    name=$1 build=$2 targets=$3
    shift 3
    cmake -S "$folder/$name" -B "$folder/$name/$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DLLAMA_BUILD_TESTS=OFF \
        -DLLAMA_BUILD_SERVER=OFF -DLLAMA_CURL=OFF "$@" >/dev/null
    # shellcheck disable=SC2086  # a list of targets
    cmake --build "$folder/$name/$build" -j "$jobs" --target $targets
}

clone llama.cpp https://github.com/ggml-org/llama.cpp "$llama_commit"
avx2="-DGGML_NATIVE=OFF -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON -DGGML_AVX512=OFF -DGGML_AVX_VNNI=OFF"
# llama-bench has no switch for repacking: builds without it are the "plain" ones.
build llama.cpp build "llama-bench llama-quantize"
build llama.cpp build-plain llama-bench -DGGML_CPU_REPACK=OFF
# shellcheck disable=SC2086  # a list of options
build llama.cpp build-avx2 llama-bench $avx2
# shellcheck disable=SC2086
build llama.cpp build-avx2-plain llama-bench $avx2 -DGGML_CPU_REPACK=OFF
case " $sets " in
*" 27 "*)
    clone ik_llama.cpp https://github.com/ikawrakow/ik_llama.cpp "$ik_commit"
    build ik_llama.cpp build llama-bench -DGGML_IQK_FA_ALL_QUANTS=OFF
    ;;
esac

gguf() { # NAME SHAPE LAYERS
    [ -e "$folder/models/q4km-$1.gguf" ] || "$python" "$here/make_gguf.py" "$folder/models/q4km-$1.gguf" --shape "$2" \
        --layers "$3" --source "$folder/llama.cpp" --build "$folder/llama.cpp/build"
}

# The bf16 checkpoint is removed once it is coded. 15.29 % of the mean abs is 0.122 sigma of Gaussian weights, Q4_K's 23 dB.
coded() { # NAME SHAPE LAYERS VOCABULARY "COMPRESS-OPTIONS"
    [ ! -e "$folder/models/coded-$1" ] || return 0
    bf16=$folder/models/coded-$1-bf16
    rm -rf "$bf16"
    "$python" "$here/../../tools/synthetic/make_checkpoint.py" "$bf16" --shape "$2" --layers "$3" --vocab-size "$4" \
        --tokenizer
    # shellcheck disable=SC2086  # a list of options
    "$moebius" compress "$bf16" "$folder/models/coded-$1" $5
    rm -rf "$bf16"
}

q4k="--bound 15.29% --dense-bound 15.29% --tensor-bound embed_tokens=15.29%"
for set in $sets; do
    case $set in
    5) shape=moonlight layers=5 ;;
    27) shape=moonlight layers=27 ;;
    qwen3) shape=qwen3 layers=12 ;;
    mixtral) shape=mixtral layers=4 ;;
    esac
    coded "$set" "$shape" "$layers" 32000 "$q4k"
    [ "$set" != 27 ] || coded 27-default moonlight 27 163840 ""
    gguf "$set" "$shape" "$layers"
done
