#!/bin/sh
# consumer.sh - what a stranger does: install Moebius into a folder, build the examples with nothing but pkg-config (shared
# and static) and with find_package, and run them: consumer.sh BUILD_FOLDER REPOSITORY OUT_FOLDER
# From the environment: CC, CMAKE, GENERATOR, PKG_CONFIG; EMULATOR runs programs of another processor, TOOLCHAIN is CMake's file for it.
set -eu
build=$1 repo=$2 out=$3
cc=${CC:-cc} cmake=${CMAKE:-cmake} emulator=${EMULATOR:-} pkg_config=${PKG_CONFIG:-pkg-config}
prefix=$out/prefix
flags="-std=c17 -Wall -Wextra -Werror"
rm -rf "$out"
mkdir -p "$out"
"$cmake" --install "$build" --prefix "$prefix" >"$out/install.log"

pc_folder=$(dirname "$(find "$prefix" -name moebius.pc)")
export PKG_CONFIG_PATH="$pc_folder"
libdir=$("$pkg_config" --variable=libdir moebius)

# shellcheck disable=SC2046,SC2086  # lists of options
build_examples() { # LINKING OPTIONS...
    linking=$1
    shift
    for name in multiply generate; do
        "$cc" $flags "$repo/examples/$name.c" -o "$out/$name-$linking" \
            $("$pkg_config" --cflags moebius) "$@"
        needs=no
        grep -qF libmoebius.so.0 "$out/$name-$linking" && needs=yes
        [ "$linking $needs" = "shared yes" ] || [ "$linking $needs" = "static no" ] ||
            { echo "$name, linked $linking: needs the shared library: $needs"; exit 1; }
    done
}
# shellcheck disable=SC2046
build_examples shared $("$pkg_config" --libs moebius)
# The archive by name: -lmoebius would prefer the shared one.
# shellcheck disable=SC2046
build_examples static $("$pkg_config" --static --libs moebius | sed "s|-lmoebius|$libdir/libmoebius.a|")

"$cmake" -G "${GENERATOR:-Unix Makefiles}" -S "$repo/examples" -B "$out/cmake" -DCMAKE_PREFIX_PATH="$prefix" \
    -DCMAKE_C_COMPILER="$cc" ${TOOLCHAIN:+-DCMAKE_TOOLCHAIN_FILE="$TOOLCHAIN"} >"$out/cmake.log"
"$cmake" --build "$out/cmake" >>"$out/cmake.log"

run() { # PROGRAM ARGUMENT...
    # shellcheck disable=SC2086  # a command and its options
    LD_LIBRARY_PATH=$libdir $emulator "$@"
}

golden=$repo/tests/format/golden-v1
expert=model.layers.0.mlp.experts.0
run "$prefix/bin/moebius" --version
for program in multiply-shared multiply-static cmake/multiply cmake/multiply_static; do
    run "$out/$program" "$golden" "$expert" >"$out/answer"
    grep -q '^down_proj.weight: .* no weight further than ' "$out/answer"
    cmp "$out/answer" "$out/first-answer" 2>/dev/null || [ ! -e "$out/first-answer" ] ||
        { echo "$program answers otherwise"; exit 1; }
    mv "$out/answer" "$out/first-answer"
done
cat "$out/first-answer"
for program in generate-shared generate-static cmake/generate; do
    run "$out/$program" "$repo/models/reference" "Ali has 92 pears. A friend gives Ali 43 pears. How many pears does Ali have now?" >"$out/reply"
    grep -q '135' "$out/reply" || { echo "$program: no 135 in the reply:"; cat "$out/reply"; exit 1; }
done
cat "$out/reply"

# The pages and the completion of the program are there, and nothing was linked to the build folder.
test -s "$prefix/share/man/man1/moebius-compress.1"
test -s "$prefix/share/bash-completion/completions/moebius"
! grep -rIlF "$build" "$prefix" || { echo "these installed files name the build folder"; exit 1; }
