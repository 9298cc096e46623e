#!/bin/sh
# setup.sh - install the Debian 12 packages that are missing: setup.sh [build|test|check|coverage|cross]
#   build: what the program and CMake's set-up need; test: and the tests; check: and .ci/run's sanitizers, fuzzers and linters;
#   coverage: the tests and what counts lines; cross: the compiler, libraries and emulator for aarch64.
set -eu

build="build-essential cmake ninja-build pkg-config libjansson-dev libpcre2-dev libutf8proc-dev libxxhash-dev libsqlite3-dev liburing-dev libedit-dev libcmocka-dev jq"
# Codecs of others, which the program loads at run time where they are: tests that need one say so and leave it out without.
codecs="libzfp1 ocl-icd-libopencl1 pocl-opencl-icd libpython3.11"
# zlib: a static SQLite names it, and a test links the archive as a user would.
test="$build $codecs zlib1g-dev python3 python3-numpy python3-xxhash"
case "${1:-build}" in
build) packages=$build ;;
test) packages=$test ;;
check) packages="$test clang clang-format clang-tidy libclang-rt-14-dev shellcheck" ;;
coverage) packages="$test gcovr" ;;
cross)
    packages="$build gcc-aarch64-linux-gnu g++-aarch64-linux-gnu qemu-user zlib1g-dev:arm64"
    for library in jansson pcre2 utf8proc xxhash sqlite3 uring edit cmocka; do packages="$packages lib$library-dev:arm64"; done
    ;;
*) echo "usage: setup.sh [build|test|check|coverage|cross]" >&2; exit 2 ;;
esac

if ! command -v dpkg-query >/dev/null; then
    echo "setup.sh: not Debian, so nothing is installed; Debian's names of what is needed: $packages" >&2
    exit 0
fi
missing=
for package in $packages; do
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$status" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

echo "installing:$missing" >&2
as_root=
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "setup.sh: not root and no sudo; as root: apt-get install$missing" >&2
        exit 1
    fi
    as_root=sudo
fi
case "$missing" in
*:arm64*) $as_root dpkg --add-architecture arm64 ;;
esac
$as_root apt-get update -q >&2
# shellcheck disable=SC2086  # a list of packages
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing >&2
