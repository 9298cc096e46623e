#!/bin/sh
# stream.sh - the comparison of docs/streaming.md: stream.sh FOLDER SET PERCENT [options of stream.py]
# SET: qwen3, 5, mixtral (what prepare.sh made). PERCENT of the Q4_K_M file is what each program may use. Needs root.
# N=32: tokens that count. GGUF=FILE: another file for the others. BMOE_CLI=PATH: BigMoeOnEdge's program takes part
# (qwen3), with all but BMOE_OTHER=400 MiB as its cache. See bench/peers/README.md.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
moebius=${MOEBIUS:-$here/../../build/release/cli/moebius}
python=${PYTHON:-python3}
n=${N:-32}
[ $# -ge 3 ] || { echo "usage: stream.sh FOLDER SET PERCENT [options of stream.py]" >&2; exit 2; }
folder=$(cd "$1" && pwd)
set=$2 percent=$3
shift 3
models=$folder/models
gguf=${GGUF:-$models/q4km-$set.gguf}
limit=$(($(stat -c %s "$models/q4km-$set.gguf") * percent / 100))
mib=$((limit >> 20))
bench="-p 0 -n $n -r 2 -t 2 -o json"

compare() { # NAME=COMMAND...
    "$python" "$here/stream.py" --memory "$limit" --evict "$models/coded-$set" --evict "$gguf" "$@"
}

echo "$percent % of q4km-$set.gguf: $limit bytes"
ours="$moebius bench $models/coded-$set --memory $((mib - 64))MiB --no-warmup $bench"
set -- "$@" "moebius=$ours" "moebius, no look-ahead=$ours --no-lookahead" \
    "llama.cpp, mmap=$folder/llama.cpp/build-plain/bin/llama-bench -m $gguf -mmp 1 $bench"
ik=
for program in "$folder"/ik_llama.cpp/build*/bin/llama-bench; do
    [ ! -x "$program" ] || ik=${ik:-$program}
done
[ -z "$ik" ] || [ "$set" = 5 ] || set -- "$@" "ik_llama.cpp, mmap=$ik -m $gguf -mmp 1 $bench"
if [ -n "${BMOE_CLI:-}" ] && [ "$set" = qwen3 ]; then
    cache=$((mib - ${BMOE_OTHER:-400}))
    # Tokens are drawn evenly, as llama-bench's are: greedy ones repeat.
    bmoe="$BMOE_CLI -m $gguf --moe-stream --cache-mb $cache --force-cache -t 2 -c 256 --ubatch 32 -n $((2 * n)) -p Once"
    bmoe="$bmoe --temp 9 --top-k 0 --top-p 1 --seed 1 --csv {csv}"
    set -- "$@" "BigMoeOnEdge=$bmoe" "BigMoeOnEdge, overlap=$bmoe --overlap" \
        "BigMoeOnEdge, overlap and prediction=$bmoe --overlap --predict-prefetch"
fi
compare "$@"
