#!/bin/sh
# setup.sh - install the Debian 12 packages that are missing: setup.sh [build|test|check|coverage]
#   build: what the program and CMake's set-up need; test: and the tests; check: and .ci/run's sanitizers, fuzzers and linters;
#   coverage: the tests and what counts lines.
set -eu

packages="build-essential cmake ninja-build pkg-config libjansson-dev libpcre2-dev libutf8proc-dev libxxhash-dev libcmocka-dev jq"
case "${1:-build}" in
build) ;;
test) packages="$packages python3 python3-numpy python3-xxhash" ;;
check) packages="$packages python3 python3-numpy python3-xxhash clang clang-format clang-tidy libclang-rt-14-dev" ;;
coverage) packages="$packages python3 python3-numpy python3-xxhash gcovr" ;;
*) echo "usage: setup.sh [build|test|check|coverage]" >&2; exit 2 ;;
esac

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
$as_root apt-get update -q >&2
# shellcheck disable=SC2086  # a list of packages
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing >&2
