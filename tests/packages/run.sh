#!/bin/bash
# The packages on a fresh Debian 12: installed, upgraded, removed, purged, with mail in the queue. As root.
#
#   tests/packages/run.sh          builds the programs first, in a release build, twice
#   MAILROOT_STAGE=DIRECTORY ...   takes programs that packaging/stage made
#   MAILROOT_TREE=DIRECTORY ...    keeps the fresh tree there for the next time
#
# The tree comes from the mirror that this machine's apt uses. What happens in it happens in namespaces of its own.
set -euo pipefail
cd "$(dirname "$0")/../.."
[ "$(id -u)" = 0 ] || { echo "this takes root: it makes a tree of its own and changes into it" >&2; exit 1; }
for program in debootstrap unshare python3; do
    command -v $program >/dev/null || { echo "$program is missing: apt install debootstrap util-linux python3" >&2; exit 1; }
done
work=$(mktemp -d "${TMPDIR:-/var/tmp}/mailroot-packages.XXXXXX")
trap 'rm -rf --one-file-system "$work"' EXIT

echo "== programs"
if [ -z "${MAILROOT_STAGE:-}" ]; then
    packaging/stage "$work/stage"
    # The same again, elsewhere: not an octet may differ.
    git clone -q --shared . "$work/clone"
    CARGO_TARGET_DIR=$work/target "$work/clone/packaging/stage" "$work/again"
    diff -r "$work/stage" "$work/again" || { echo "two builds differ"; exit 1; }
    rm -rf "$work/target" "$work/clone"
    MAILROOT_STAGE=$work/stage
fi
export MAILROOT_STAGE

echo "== packages"
packaging/build --out "$work/old" --version 0.1.0~before-1 deb
packaging/build --out "$work/new" deb
packaging/build --out "$work/same" deb >/dev/null
for package in "$work"/new/*.deb; do
    cmp "$package" "$work/same/$(basename "$package")" || { echo "two builds differ"; exit 1; }
done
apparmor_parser -Q -K -I /etc/apparmor.d packaging/apparmor/usr.sbin.smtpd 2>&1 || { echo "the profile cannot be read"; exit 1; }

echo "== a fresh tree"
tree=$work/tree
base=${MAILROOT_TREE:-$work/base}
if [ ! -e "$base/complete" ]; then
    mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' |
        awk '$2 == "bookworm" { print $1; exit }')
    [ -n "$mirror" ] || { echo "apt has no mirror of bookworm"; exit 1; }
    mkdir -p "$base"
    debootstrap --variant=minbase --include=cron,libgssapi-krb5-2,procps,strace,systemd,ca-certificates \
        bookworm "$base/tree" "$mirror" >"$work/log" 2>&1 || { tail -n 20 "$work/log"; exit 1; }
    touch "$base/complete"
fi
prepare() {
    # $1 a copy of the fresh tree.
    cp -a "$base/tree" "$1"
    mkdir -p "$1/root/tests" "$1/root/old" "$1/root/new"
    cp "$work"/old/mailroot{,-mta}_*.deb "$1/root/old/"
    cp "$work"/new/mailroot{,-mta}_*.deb "$1/root/new/"
    cp tests/packages/systemctl tests/packages/life tests/packages/callers "$1/root/tests/"
    echo "127.0.0.1 localhost host1.example.net host1" >"$1/etc/hosts"
    rm -f "$1/etc/mailname" "$1/usr/sbin/policy-rc.d"
}
inside() {
    # A command in a tree, with a network that has nothing but loopback: $1 the tree.
    # shellcheck disable=SC2016 # for the other shell
    unshare --mount --pid --net --uts --ipc --fork --kill-child bash -euc '
        hostname host1.example.net
        ip link set lo up
        mount --make-rprivate /
        mount -t proc proc "$1/proc"
        mount -t tmpfs tmpfs "$1/run"
        mount -t devtmpfs devtmpfs "$1/dev" 2>/dev/null || mount --bind /dev "$1/dev"
        : >"$1/etc/resolv.conf"
        exec chroot "$@"' inside "$@" </dev/null
}
prepare "$tree"

echo "== life"
inside "$tree" /root/tests/life /root/old /root/new

echo "== what the daemon opened, and what its profile says"
tests/packages/profile packaging/apparmor/usr.sbin.smtpd "$tree/root/strace"
echo "== callers"
rm -rf --one-file-system "$tree"
tree=$work/callers
prepare "$tree"
cp /etc/resolv.conf "$tree/etc/resolv.conf"
apt-config dump Acquire >"$tree/etc/apt/apt.conf.d/99host"
printf '#!/bin/sh\nexit 101\n' >"$tree/usr/sbin/policy-rc.d" && chmod 0755 "$tree/usr/sbin/policy-rc.d"
# shellcheck disable=SC2016 # for the other shell
unshare --mount --pid --fork --kill-child bash -euc '
    mount --make-rprivate /
    mount -t proc proc "$1/proc"
    export DEBIAN_FRONTEND=noninteractive
    chroot "$1" apt-get -qq update
    chroot "$1" bash -c "apt-get -qq -y --no-install-recommends install /root/new/*.deb $2"' callers "$tree" \
    "anacron at bsd-mailx git git-email libemail-sender-perl libmail-sendmail-perl libmime-lite-perl logwatch \
    mailutils mime-construct mutt php-cli python3 s-nail sudo" >"$work/log" 2>&1 || { tail -n 20 "$work/log"; exit 1; }
rm "$tree/usr/sbin/policy-rc.d"
inside "$tree" /root/tests/callers
echo "the packages are good"
