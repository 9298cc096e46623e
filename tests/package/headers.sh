#!/bin/sh
# headers.sh - each public header compiles alone, in C17 and in C++17, and moebius.h has all of them:
# headers.sh FOLDER... with the compilers in CC and CXX. A folder holds moebius/*.h.
set -eu
cc=${CC:-cc} cxx=${CXX:-c++}
include=
for folder in "$@"; do include="$include -I$folder"; done
warnings="-Wall -Wextra -Wpedantic -Werror -fsyntax-only"

for folder in "$@"; do
    for header in "$folder"/moebius/*.h; do
        name=moebius/${header##*/}
        # Twice: the guard holds. Without _GNU_SOURCE: a stranger has not defined it.
        source="#include <$name>
#include <$name>
extern int something; /* api.h has nothing but a macro */
"
        # shellcheck disable=SC2086  # lists of options
        printf '%s' "$source" | "$cc" -std=c17 -Wstrict-prototypes $warnings $include -x c -
        # shellcheck disable=SC2086
        if command -v "$cxx" >/dev/null; then
            printf '%s' "$source" | "$cxx" -std=c++17 $warnings $include -x c++ -
        else
            echo "$name: not tried in C++, there is no $cxx"
        fi
        [ "$name" = moebius/moebius.h ] || grep -qF "#include <$name>" "$1/moebius/moebius.h" ||
            { echo "moebius.h does not include <$name>"; exit 1; }
    done
done
