#!/bin/bash
# Shows that the suites find what they are there for: plants one fault at a time in a copy of the tree and runs
# the suite that is to find it, for at most twenty minutes. The same suites must pass in a copy without a fault.
#
#   tests/planted.sh [FAULT]...
#
# A fault is a patch in tests/planted; its head says what is wrong then, which suite fails, whether that suite
# needs the daemon built, and what else it needs. Some lose mail:
#
#   sync-left-out               the store's lives on the modelled disk, with power cuts
#   segment-name-not-synced     the same; real file systems make up for it, see tests/tests/power_cut.rs
#   drop-name-not-synced        a power cut on a real ext4 right after a delivery; needs root, loop devices
#   generation-not-in-checksum  the tests of records, beside the code
#   old-segment-appended-to     the store's tests of faults and its lives
#   removal-recycled-early      the test of the keeper; the lives, whose work is by lot, do not come upon it
#   report-apart-from-its-state the store's lives
#
# The others each take a defence away that tests/THREATS.md speaks of, and name the one test that must fail.
#
# A suite that passes with its fault, fails without, does not build or does not end, and a patch that no longer
# fits, end the run with exit code 1.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
work=$root/target/planted
tree=$work/tree
# One place for all copies, so that their dependencies are built once; not that of the real programs.
export CARGO_TARGET_DIR=$work/build CARGO_TERM_COLOR=never
limit=1200
PATH=$PATH:/usr/sbin:/sbin
faults=${*:-$(cd tests/planted && ls -- *.patch | sed 's/\.patch$//')}

head_of() { sed -n "s/^$2: //p" "$root/tests/planted/$1.patch" | head -n 1; }

failed=
miss() {
    printf '%-28s %s\n' "$1" "$2"
    failed="$failed $1"
}

# With new times, so that nothing built from the files of the copy before is taken for fresh.
copy() {
    rm -rf "$tree"
    mkdir -p "$tree"
    git ls-files -z --cached --others --exclude-standard | tar -cf - --null -T - | tar -xmf - -C "$tree"
}

# Runs the suite of a fault in the copy; "passed" or "failed" is what the tests themselves said.
try() {
    local fault=$1 log=$2 suite programs
    suite=$(head_of "$fault" suite)
    programs=$(head_of "$fault" programs)
    result="does not build"
    # shellcheck disable=SC2086 # a list of words
    (cd "$tree" && cargo test --locked -j2 --no-run ${suite%% -- *}) >"$log" 2>&1 || return 0
    if [ -n "$programs" ]; then
        (cd "$tree" && cargo build --locked -j2 -p smtpd -p smtpctl --bins) >>"$log" 2>&1 || return 0
    fi
    # shellcheck disable=SC2086 # a list of words
    (cd "$tree" && timeout $limit cargo test --locked -j2 $suite) >>"$log" 2>&1 || true
    result="did not end"
    if grep -qa '^test result: FAILED' "$log"; then
        result=failed
    elif grep -qa '^test result: ok. [1-9]' "$log"; then
        result=passed
    fi
}

# Whether something is missing that the suite of a fault needs: root, a file, or a program.
skipped() {
    for missing in $(head_of "$1" needs); do
        case $missing in
            root) [ "$(id -u)" = 0 ] || return 0 ;;
            /*) [ -e "$missing" ] || return 0 ;;
            *) command -v "$missing" >/dev/null || return 0 ;;
        esac
    done
    return 1
}

copy
for fault in $faults; do
    skipped "$fault" && continue
    try "$fault" "$work/$fault.without.log"
    [ "$result" = passed ] || miss "$fault" "WITHOUT THE FAULT: $result, see $work/$fault.without.log"
done

for fault in $faults; do
    if skipped "$fault"; then
        printf '%-28s %s\n' "$fault" "skipped: its suite needs $missing"
        continue
    fi
    copy
    if ! patch -s -p1 -d "$tree" <"tests/planted/$fault.patch"; then
        miss "$fault" "THE PATCH DOES NOT FIT ANY MORE"
        continue
    fi
    log=$work/$fault.log
    try "$fault" "$log"
    if [ "$result" != failed ]; then
        miss "$fault" "NOT FOUND: $result, see $log"
        continue
    fi
    by=$(grep -a '^test .* FAILED$' "$log" | sed 's/^test //; s/ \.\.\. FAILED$//' | head -n 3 | paste -sd' ')
    printf '%-28s %s\n' "$fault" "found by $by"
done
[ -z "$failed" ]
