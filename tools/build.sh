#!/bin/sh
# build.sh - install what the program needs and lacks (Debian 12), and build build/release/cli/moebius.
set -eu
cd "$(dirname "$0")/.."
tools/setup.sh build
cmake --preset release >/dev/null
cmake --build --preset release --target moebius
