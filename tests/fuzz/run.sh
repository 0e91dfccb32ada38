#!/bin/sh
# Fuzzes every target, or those named, for a number of seconds each. Works with the stable compiler.
#
#   tests/fuzz/run.sh [-t SECONDS] [TARGET]...
#
# The corpus of a target grows in tests/fuzz/corpus/TARGET. A finding is written to
# tests/fuzz/findings and ends the run with exit code 1.
set -eu
cd "$(dirname "$0")"

seconds=60
if [ "${1:-}" = -t ]; then
    seconds=$2
    shift 2
fi
targets=${*:-$(sed -n 's/^name = "\([a-z_]*\)"$/\1/p' Cargo.toml)}

# The sanitizer coverage that libFuzzer steers by, as stable compiler options.
flags="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
flags="$flags -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
flags="$flags -Cllvm-args=-sanitizer-coverage-pc-table"
flags="$flags -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1"
host=$(rustc -vV | sed -n 's/^host: //p')
RUSTFLAGS="$flags" cargo build --release --locked --target "$host"

mkdir -p findings
for target in $targets; do
    mkdir -p "corpus/$target"
    seeds=
    [ -d "seeds/$target" ] && seeds="seeds/$target"
    echo "== $target, $seconds s"
    # shellcheck disable=SC2086 # an absent seed folder must be no argument at all
    "target/$host/release/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 \
        -max_len=65536 -print_final_stats=1 -artifact_prefix="findings/$target-" \
        "corpus/$target" $seeds 2>&1 | tail -n 12
done
if [ -n "$(ls findings)" ]; then
    echo "findings:" && ls findings
    exit 1
fi
