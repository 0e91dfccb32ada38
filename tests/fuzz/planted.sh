#!/bin/sh
# Shows that the targets find what they are there for: plants one small bug at a time in a copy of
# the tree and fuzzes, from the seeds alone, for at most a minute.
#
#   tests/fuzz/planted.sh [TARGET]...
#
# A bug that is not found, or a patch that no longer fits, ends the run with exit code 1.
set -eu
cd "$(dirname "$0")"
here=$PWD
root=$(cd ../.. && pwd)
targets=${*:-$(cd planted && ls -- *.patch | sed 's/\.patch$//')}

# One place for all copies, so that their dependencies are built once.
tree=$here/target/planted/tree
failed=
for target in $targets; do
    rm -rf "$tree"
    mkdir -p "$tree"
    (cd "$root" && git ls-files -z --cached --others --exclude-standard -- common smtpd tests/fuzz |
        tar -cf - --null -T -) | tar -xf - -C "$tree"
    cp "$root/Cargo.toml" "$root/Cargo.lock" "$tree"
    if ! patch -s -p1 -d "$tree" <"planted/$target.patch"; then
        echo "$target: the patch does not fit any more"
        failed="$failed $target"
        continue
    fi
    export CARGO_TARGET_DIR="$here/target/planted/build"
    if ! (cd "$tree/tests/fuzz" && sh run.sh -b "$target") >"$tree/log" 2>&1; then
        echo "$target: does not build, see $tree/log"
        failed="$failed $target"
        continue
    fi
    began=$(date +%s)
    (cd "$tree/tests/fuzz" && sh run.sh -t 60 "$target") >>"$tree/log" 2>&1 || true
    if [ -z "$(ls "$tree/tests/fuzz/findings")" ]; then
        echo "$target: NOT FOUND within a minute"
        failed="$failed $target"
        continue
    fi
    echo "$target: found after $(($(date +%s) - began)) s:$(grep -a -A1 'panicked at' "$tree/log" | tail -n 1 | cut -c1-100 | sed 's/^/ /')"
done
[ -z "$failed" ]
