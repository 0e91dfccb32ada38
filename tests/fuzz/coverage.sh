#!/bin/sh
# Lines of each target's files that its corpus and seeds reach; writes tests/fuzz/COVERAGE.md.
#
#   tests/fuzz/coverage.sh [TARGET]...
#
# Needs llvm-profdata and llvm-cov of the LLVM that rustc was built with (`rustc -vV`): from the
# component llvm-tools, or Debian's package llvm-NN. Targets hold no unit tests, so their lines do
# not count. With targets named, the lines not reached are printed and nothing is written.
set -eu
cd "$(dirname "$0")"

major=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
host=$(rustc -vV | sed -n 's/^host: //p')
PATH="$PATH:$(rustc --print sysroot)/lib/rustlib/$host/bin"
tool() {
    for name in "$1-$major" "$1"; do
        if "$name" --version 2>/dev/null | grep -q "version $major\."; then
            echo "$name"
            return
        fi
    done
    echo "$1 of LLVM $major is missing; as root: apt-get install llvm-$major" >&2
    exit 69
}
profdata=$(tool llvm-profdata)
cov=$(tool llvm-cov)

# The files a target is there for.
core=smtpd/core/src
files() {
    case $1 in
    address) echo common/src/address.rs ;;
    header) echo $core/message/header.rs ;;
    pickup_file) echo $core/message/pickup.rs $core/message/line_ends.rs $core/message/address_list.rs ;;
    command) echo $core/smtp/line.rs $core/smtp/command.rs ;;
    body) echo $core/smtp/body.rs ;;
    session)
        echo $core/smtp/server.rs $core/smtp/server/action.rs $core/smtp/server/body.rs \
            $core/smtp/server/converse.rs $core/smtp/refusal.rs
        ;;
    reply) echo $core/smtp/reply.rs ;;
    client)
        echo $core/smtp/client/body.rs $core/smtp/client/ending.rs $core/smtp/client/machine.rs \
            $core/smtp/client/machine/replies.rs $core/smtp/client/transaction.rs
        ;;
    auth) echo $core/smtp/auth.rs $core/smtp/auth/bearer.rs $core/smtp/auth/binding.rs $core/smtp/auth/scram.rs ;;
    extensions) echo $core/smtp/extension.rs ;;
    mx) echo $core/route/mx.rs $core/route/loopback.rs ;;
    milter) echo $core/milter/mod.rs $core/milter/answer.rs $core/milter/edit.rs $core/milter/offer.rs ;;
    sts) echo $core/route/sts.rs ;;
    dsn)
        echo $core/message/dsn.rs $core/message/dsn/encode.rs $core/message/dsn/fields.rs \
            $core/message/dsn/original.rs $core/message/dsn/words.rs
        ;;
    yaml)
        echo common/src/config/yaml/mod.rs common/src/config/yaml/cursor.rs \
            common/src/config/yaml/structure.rs common/src/config/diagnostic.rs
        ;;
    access) echo common/src/net.rs $core/policy/access.rs $core/policy/connect.rs $core/policy/relay.rs ;;
    record)
        echo smtpd/src/store/log/record.rs smtpd/src/store/log/scan.rs \
            smtpd/src/store/log/segment.rs
        ;;
    esac
}

# Folders of their own keep the instrumented build apart from the one that fuzzes.
RUSTFLAGS=-Cinstrument-coverage cargo build --release --locked --target "$host" \
    --target-dir target/coverage
mkdir -p target/coverage/profiles

# What one target reached: `FILE LINES REACHED` for each file, and into the log what it did not.
measure() {
    target=$1
    raw=target/coverage/profiles/$target
    program=target/coverage/$host/release/$target
    set -- -runs=0 -timeout=60 -rss_limit_mb=2048 -max_len=131072
    for folder in "corpus/$target" "seeds/$target"; do
        [ -d "$folder" ] && set -- "$@" "$folder"
    done
    rm -f "$raw".profraw
    LLVM_PROFILE_FILE=$raw.profraw "$program" "$@" >"$raw.log" 2>&1 </dev/null
    "$profdata" merge -sparse "$raw.profraw" -o "$raw.profdata"
    "$cov" export -format=lcov -instr-profile="$raw.profdata" "$program" >"$raw.lcov"
    for file in $(files "$target"); do
        awk -F: -v file="/$file" '
            $1 == "SF" { ours = substr($0, length($0) - length(file) + 1) == file }
            ours && $1 == "DA" { split($2, pair, ","); hits[pair[1]] += pair[2] }
            END {
                for (line in hits) {
                    all++
                    if (hits[line]) reached++
                    else missed = missed " " line
                }
                print substr(file, 2), all + 0, reached + 0, missed
            }' "$raw.lcov"
    done
}

if [ $# -gt 0 ]; then
    for target in "$@"; do
        measure "$target"
    done
    exit
fi

table=target/coverage/table
: >$table
for target in $(sed -n 's/^name = "\([a-z_]*\)"$/\1/p' Cargo.toml); do
    measure "$target" | awk -v target="$target" '
        { all += $2; reached += $3; files = files (NR > 1 ? ", " : "") "`" $1 "`" }
        END { printf "| %s | %s | %d | %d | %.1f %% |\n", target, files, all, reached, 100 * reached / all }
    ' >>$table
done
{
    echo "# What the fuzz targets reach"
    echo
    echo "Lines of each target's files, without unit tests, that its corpus and seeds reach. Made by"
    echo "\`tests/fuzz/coverage.sh\` with $(rustc -V | cut -d' ' -f1,2) and LLVM $major."
    echo
    echo "| target | files | lines | reached | |"
    echo "| --- | --- | ---: | ---: | ---: |"
    cat $table
} >COVERAGE.md
cat COVERAGE.md
