#!/bin/sh
# coverage.sh - lines of src/ and cli/ that are run, by gcov: coverage.sh [tests [REGEX] | fuzz]
#   tests: by ctest's tests (all, or those that match), part by part. Single lines: build/coverage/lines.txt.
#   fuzz:  by each fuzz target's kept corpus, of the files that its reader is.
# Every process adds its counters to the files as it ends. What a test kills writes none, so cli_kill is left out; so are
# cli_crash and cli_starved, which count and fail calls of a program, and would count and fail gcov's. Where a test
# allows no file to grow, gcov's complaint is dropped.
set -eu
cd "$(dirname "$0")/.."
export GCOV_ERROR_FILE=/dev/null
what=${1:-tests}
regex=${2:-.}
tools/setup.sh coverage
cmake --preset coverage >/dev/null
cmake --build --preset coverage >/dev/null

forget() { find build/coverage -name '*.gcda' -delete; }

# Prints "FILE LINES COVERED" of all sources, from what the programs left behind; single lines go to the first argument.
# Threads race for counters, and gcovr 5.2 takes a branch count below 0 for an error: lines are right all the same.
measure() {
    gcovr --root . --object-directory build/coverage --filter src/ --filter cli/ --gcov-ignore-parse-errors \
        --txt "$1" --json-summary build/coverage/summary.json 2>build/coverage/gcovr.log
    jq -r '.files[] | "\(.filename) \(.line_total) \(.line_covered)"' build/coverage/summary.json
}

tests() {
    forget
    ctest --test-dir build/coverage -j "$(nproc)" -R "$regex" -E '^cli_(kill|crash|starved)$' >build/coverage/tests.log 2>&1 ||
        { tail -n 20 build/coverage/tests.log; echo "coverage.sh: tests failed; their lines count as well"; }
    measure build/coverage/lines.txt >build/coverage/files.txt
    awk '
        { part = $1; sub(/^src\//, "", part); sub(/\/.*/, "", part)
          lines[part] += $2; covered[part] += $3; lines["all"] += $2; covered["all"] += $3 }
        END {
            n = split("base codec checkpoint store jinja tokenizer model serve lab cli all", parts, " ")
            printf "%-11s %6s %8s\n", "part", "lines", "covered"
            for (i = 1; i <= n; i++)
                printf "%-11s %6d %6.1f %%\n", parts[i], lines[parts[i]], 100 * covered[parts[i]] / lines[parts[i]]
        }' build/coverage/files.txt
}

# One line a target: its files' names without .c, relative to src/.
readers() {
    cat <<'END'
safetensors checkpoint/safetensors
index checkpoint/checkpoint
config checkpoint/config_text
folder store/index store/read store/store store/ram_store
blob codec/blob codec/patched_check codec/patched_view
kernels codec/scalar codec/x86/decode_avx2 codec/x86/decode_avx512 codec/x86/convert_avx2 codec/x86/convert_avx512 codec/x86/matvec_avx2 codec/x86/matvec_avx512 codec/x86/matmul_avx2 codec/x86/matmul_avx512 codec/x86/transposed_avx2 codec/x86/transposed_avx512
encoder codec/encode codec/x86/encode_avx2 codec/x86/encode_avx512 codec/widths
tokenizer tokenizer/load_model tokenizer/load_pipeline tokenizer/vocab
tokenizer_config tokenizer/load
encode tokenizer/tokenizer tokenizer/encode tokenizer/bpe tokenizer/added tokenizer/normalize tokenizer/pretokenize tokenizer/decode base/utf8
pattern tokenizer/pattern tokenizer/pattern_translate
jinja jinja/lex jinja/parser jinja/parse_expression jinja/parse_statement jinja/evaluate jinja/render jinja/operators jinja/filters jinja/value
engine_config model/config model/config_reader model/config_rope
task lab/task
score lab/score lab/number
END
}

fuzz() {
    readers | while read -r name files; do
        for file in $files; do
            [ -f "src/$file.c" ] || { echo "coverage.sh: src/$file.c is gone: correct readers()" >&2; exit 1; }
        done
        forget
        "build/coverage/fuzz/replay_$name" "fuzz/corpus/$name" >/dev/null
        measure "build/coverage/fuzz-$name.txt" >build/coverage/files.txt
        awk -v name="$name" -v files="$files" '
            { lines[$1] = $2; covered[$1] = $3 }
            END {
                n_files = split(files, file, " ")
                for (i = 1; i <= n_files; i++) {
                    path = "src/" file[i] ".c"
                    all += lines[path]; all_covered += covered[path]
                }
                printf "%-17s%6d %6.1f %%  %s\n", name, all, 100 * all_covered / all, files
            }' build/coverage/files.txt
    done
}

case "$what" in
tests) tests ;;
fuzz) fuzz ;;
*) echo "usage: coverage.sh [tests [REGEX] | fuzz]" >&2; exit 2 ;;
esac
