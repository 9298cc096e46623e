#!/bin/sh
# exports.sh - libmoebius exports what the public headers mark MB_API, and nothing else:
# exports.sh LIBRARY.so LIBRARY.a HEADER...
set -eu
shared=$1 static=$2
shift 2
nm=${NM:-nm}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# A declaration that begins with MB_API: the name is the first mb_... that a parenthesis follows.
cat "$@" | tr '\n' ' ' | grep -oE '\bMB_API [^;]*;' | sed -nE 's/^[^(]*\b(mb_[a-z0-9_]+) *\(.*/\1/p' |
    sort -u >"$folder/declared"
"$nm" -D --defined-only "$shared" | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' | sort -u >"$folder/exported"
[ "$(wc -l <"$folder/declared")" -gt 20 ] || { echo "the headers declare too few functions: is MB_API still the mark?"; exit 1; }

diff -u "$folder/declared" "$folder/exported" || { echo "declared in a header (-) and exported by $shared (+) differ"; exit 1; }

# A static library cannot hide what its parts share, so these names at least begin with mb_.
"$nm" -g --defined-only "$static" | awk 'NF == 3 { print $3 }' | grep -vE '^mb_' >"$folder/foreign" || true
if [ -s "$folder/foreign" ]; then
    echo "names in $static that do not begin with mb_:"
    cat "$folder/foreign"
    exit 1
fi
echo "$(wc -l <"$folder/exported") functions exported"
