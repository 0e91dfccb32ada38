#!/bin/sh
# Runs the tests.
set -eu
cd "$(dirname "$0")/.."
cargo test --workspace --locked -j2
