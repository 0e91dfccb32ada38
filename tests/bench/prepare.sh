# Read by run.sh and scale.sh: installs what is missing, builds, and sets `bench`.
# shellcheck shell=sh

PATH=$PATH:/usr/sbin:/sbin
missing() {
    echo "$1 is missing: $2" >&2
    exit 1
}
[ "$(id -u)" = 0 ] || missing "Root" "Postfix changes users; run this as root"
command -v cargo >/dev/null ||
    missing "Rust" "install 1.95 or later, https://www.rust-lang.org/tools/install"
command -v cc >/dev/null || missing "A C compiler" "apt install gcc"
command -v make >/dev/null || missing "make" "apt install make, or dnf install make"

packages=
for tool in postfix:postfix smtp-sink:postfix strace:strace openssl:openssl; do
    command -v "${tool%%:*}" >/dev/null || packages="$packages ${tool##*:}"
done
if [ -n "$packages" ]; then
    command -v apt-get >/dev/null || missing "$packages" "install them"
    echo "installing$packages" >&2
    # No service may start: a policy that forbids it, for as long as the installation takes.
    policy=/usr/sbin/policy-rc.d
    made=
    [ -e $policy ] || { printf '#!/bin/sh\nexit 101\n' >$policy && chmod 755 $policy && made=1; }
    log=$(mktemp)
    apt-get update -qq
    # shellcheck disable=SC2086 # a list of words
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages \
        >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
    rm -f "$log"
    [ -z "$made" ] || rm -f $policy
fi

here=$(cd "$(dirname "$0")" && pwd)
jobs=${JOBS:-$(nproc)}
[ -n "${MAILROOT_PROGRAMS:-}" ] || (cd "$here/../.." && cargo build --profile dist --locked -q -j "$jobs")
(cd "$here" && cargo build --release --locked -q --workspace -j "$jobs")
cc -O2 -shared -fPIC -o "$here/target/slow_disk.so" "$here/slow_disk.c"
export SLOW_DISK="$here/target/slow_disk.so"
bench=$here/target/release/mailroot-bench
# Ten thousand connections need as many descriptors on each side.
ulimit -n "$(ulimit -H -n)"
