#!/bin/sh
# demo.sh - the main job on the bundled model: compress it, prove the bound, answer five problems from the original
# and from the coded model side by side, score both, and print what it cost. Installs and builds what is missing first.
# Everything is written to build/demo.
set -eu
cd "$(dirname "$0")/.."
tools/setup.sh build
tools/build.sh
moebius=$PWD/build/release/cli/moebius
original=models/reference
coded=build/demo/reference-coded
task=$original/eval.jsonl
n_answers=5 n_scored=400

say() { printf '\n%s\n' "$*"; }

rm -rf build/demo
mkdir -p build/demo

say "1. Compress $original: experts at 30 % of their mean absolute weight, other matrices at 10 %, head and embedding at 5 %"
"$moebius" compress "$original" "$coded" -o json >build/demo/compress.json
jq -r '"   \(.n_groups) row groups of \(.coded.n_weights) weights coded in \(.seconds * 1000 | round / 1000) s"' \
    build/demo/compress.json

say "2. Verify: compare every weight with its original"
"$moebius" verify "$coded" "$original" -o json >build/demo/verify.json
jq -r '"   \(.n_weights) weights compared, \([.tensors[].n_broken] | add) over their bound"' build/demo/verify.json

say "3. Answer $n_answers problems from both"
i=0
while [ "$i" -lt "$n_answers" ]; do
    # Problems from all over the file.
    line=$(awk -v n=$((1 + i * 397)) 'NR == n { print; exit }' "$task")
    question=$(printf '%s' "$line" | jq -r .question)
    right=$(printf '%s' "$line" | jq -r '.answer | split("#### ") | last')
    printf '\n   Problem: %s\n   Right:    %s\n' "$question" "$right"
    for model in "$original" "$coded"; do
        name=$([ "$model" = "$original" ] && echo original || echo coded)
        "$moebius" run "$model" --chat -p "$question" -o json >"build/demo/answer-$i-$name.json" 2>/dev/null
        printf '   %-9s %s\n' "$name:" "$(jq -r '.text | gsub("\n"; " / ")' "build/demo/answer-$i-$name.json")"
    done
    i=$((i + 1))
done

say "4. Score both on the first $n_scored problems of $task"
"$moebius" eval "$original" --task "$task" --limit "$n_scored" -o json >build/demo/eval-original.json
"$moebius" eval "$coded" --task "$task" --limit "$n_scored" -o json >build/demo/eval-coded.json

say "5. The result"
jq -rn --slurpfile c build/demo/compress.json --slurpfile v build/demo/verify.json \
    --slurpfile eo build/demo/eval-original.json --slurpfile ec build/demo/eval-coded.json \
    --slurpfile ro build/demo/answer-0-original.json --slurpfile rc build/demo/answer-0-coded.json '
    def fixed(n): (. * pow(10; n) | round) / pow(10; n);
    def mb: "\(. / 1e6 | fixed(1)) MB";
    def percent: "\(. * 100 | fixed(1)) %";
    def score: "\(.share | percent) (\(.wilson95[0] * 100 | fixed(1)) to \(.wilson95[1] * 100 | fixed(1)))";
    ($c[0]) as $c | ($v[0]) as $v | ($eo[0]) as $eo | ($ec[0]) as $ec | ($ro[0]) as $ro | ($rc[0]) as $rc |
    "| | original | coded |",
    "|---|---:|---:|",
    "| files | \($c.in_nbytes | mb) | \($c.out_nbytes | mb) |",
    "| bits a weight, experts | 16 | \($c.experts.bits_per_weight | fixed(2)) |",
    "| bits a weight, other linear | 16 | \($c.other_linear.bits_per_weight | fixed(2)) |",
    "| worst error over bound | | \([$v.tensors[].worst_ratio] | max | fixed(6)) |",
    "| weights over their bound | | \([$v.tensors[].n_broken] | add) of \($v.n_weights) |",
    "| right in the asked format (ICA), n = \($eo.n) | \($eo.ica | score) | \($ec.ica | score) |",
    "| right in any format (PIA), n = \($eo.n) | \($eo.pia | score) | \($ec.pia | score) |",
    "| tokens/s, 16 problems at once | \($eo.tokens_per_s | round) | \($ec.tokens_per_s | round) |",
    "| tokens/s, one answer | \($ro.tokens_per_s | round) | \($rc.tokens_per_s | round) |"
' >build/demo/table.md
cat build/demo/table.md
