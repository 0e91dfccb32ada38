#!/bin/sh
# Fuzzes every target, or those named, for a number of seconds each. Works with the stable compiler.
#
#   tests/fuzz/run.sh [-b] [-j TARGETS] [-n RUNS | -t SECONDS] [TARGET]...
#
# With -b the targets are built and not run; with -j several run at once. With -n each does that
# many runs from the seeds alone, drawn from a fixed number, so that the same code does the same.
# Otherwise the corpus of a target grows in tests/fuzz/corpus/TARGET. What else it said lies in
# tests/fuzz/logs. A finding is written to tests/fuzz/findings and ends the run with exit code 1.
set -eu
cd "$(dirname "$0")"

seconds=60
build_only=
at_once=1
runs_each=
while getopts bj:n:t: option; do
    case $option in
    b) build_only=yes ;;
    j) at_once=$OPTARG ;;
    n) runs_each=$OPTARG ;;
    t) seconds=$OPTARG ;;
    *) exit 64 ;;
    esac
done
shift $((OPTIND - 1))
targets=${*:-$(sed -n 's/^name = "\([a-z_]*\)"$/\1/p' Cargo.toml)}

# The sanitizer coverage that libFuzzer steers by, as stable compiler options.
flags="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
flags="$flags -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
flags="$flags -Cllvm-args=-sanitizer-coverage-pc-table"
flags="$flags -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1"
host=$(rustc -vV | sed -n 's/^host: //p')
# One target alone is built alone.
set --
for target in $targets; do
    set -- "$@" --bin "$target"
done
RUSTFLAGS="$flags" cargo build --release --locked --target "$host" "$@"
[ -z "$build_only" ] || exit 0
programs=${CARGO_TARGET_DIR:-target}/$host/release

mkdir -p findings logs
fuzz() {
    target=$1
    corpus=corpus/$target
    if [ -n "$runs_each" ]; then
        corpus=$(mktemp -d)
        trap 'rm -r "$corpus"' EXIT
        set -- -seed=1 "-runs=$runs_each"
    else
        set -- "-max_total_time=$seconds"
    fi
    mkdir -p "$corpus"
    # Longer inputs only cost time, but for the limits of replies.
    longest=8192
    [ "$target" = reply ] && longest=131072
    set -- "$@" -timeout=10 -rss_limit_mb=1024 "-max_len=$longest" \
        -print_final_stats=1 "-artifact_prefix=findings/$target-"
    [ -f "dictionaries/$target" ] && set -- "$@" "-dict=dictionaries/$target"
    set -- "$@" "$corpus"
    [ -d "seeds/$target" ] && set -- "$@" "seeds/$target"
    if "$programs/$target" "$@" >"logs/$target" 2>&1; then
        runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "logs/$target")
        spent=$(sed -n 's/^Done .* runs in \([0-9]*\) second.*/\1/p' "logs/$target")
        echo "$target: $runs runs in $spent s, nothing found"
    else
        echo "$target: FOUND, see tests/fuzz/findings and tests/fuzz/logs/$target"
        grep -a -A3 'panicked at\|ERROR: libFuzzer' "logs/$target" | head -n 8
        return 1
    fi
}

failed=
running=
await() {
    for one in $running; do
        wait "$one" || failed=yes
    done
    running=
}
for target in $targets; do
    fuzz "$target" &
    running="$running $!"
    [ "$(echo "$running" | wc -w)" -lt "$at_once" ] || await
done
await
[ -z "$failed" ]
