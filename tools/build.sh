#!/bin/sh
# build.sh - build build/release/cli/moebius. Installs nothing: make setup does.
set -eu
cd "$(dirname "$0")/.."
if ! cmake --preset release >/dev/null; then
    echo "build.sh: 'make setup' installs what is missing (Debian 12)" >&2
    exit 1
fi
cmake --build --preset release --target moebius
