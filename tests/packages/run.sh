#!/bin/bash
# The packages on a fresh Debian 12: installed, upgraded, removed, purged, with mail in the queue. As root.
#
#   tests/packages/run.sh                 builds the programs first, and once more to compare (same)
#   MAILROOT_STAGE=DIRECTORY ...          takes programs that packaging/stage made
#   MAILROOT_STAGE_BEFORE=DIRECTORY ...   upgrades from packages with those that an earlier version made
#   MAILROOT_TREE=DIRECTORY ...           keeps the fresh tree there for the next time
#
# What kin.sh tries of other systems follows, as far as their programs are here. The tree comes from the mirror that this machine's apt uses. What happens in it happens in namespaces of its own.
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
    MAILROOT_STAGE=$work/stage
    once_more=1
fi
export MAILROOT_STAGE

echo "== packages"
MAILROOT_STAGE=${MAILROOT_STAGE_BEFORE:-$MAILROOT_STAGE} packaging/build --out "$work/old" --version 0.1.0~before-1 deb
packaging/build --out "$work/new" deb
packaging/build --out "$work/same" deb >/dev/null
for package in "$work"/new/*.deb; do
    cmp "$package" "$work/same/$(basename "$package")" || { echo "two builds differ"; exit 1; }
done
[ -z "${once_more:-}" ] || tests/packages/same "$MAILROOT_STAGE" "$work/new"
apparmor_parser -Q -K -I /etc/apparmor.d packaging/apparmor/usr.sbin.smtpd 2>&1 || { echo "the profile cannot be read"; exit 1; }

echo "== a fresh tree"
tree=$work/tree
base=${MAILROOT_TREE:-$work/base}
. tests/packages/tree
make_base ca-certificates,cron,libgssapi-krb5-2,procps,strace,systemd
prepare() {
    # $1 a copy of the fresh tree.
    cp -a "$base/tree" "$1"
    mkdir -p "$1/root/tests" "$1/root/old" "$1/root/new"
    cp "$work"/old/mailroot{,-mta}_*.deb "$1/root/old/"
    cp "$work"/new/mailroot{,-mta}_*.deb "$1/root/new/"
    cp tests/packages/systemctl tests/packages/life tests/packages/odd tests/packages/callers "$1/root/tests/"
    echo "127.0.0.1 localhost host1.example.net host1" >"$1/etc/hosts"
    rm -f "$1/etc/mailname" "$1/usr/sbin/policy-rc.d"
}
prepare "$tree"

echo "== life"
inside "$tree" /root/tests/life /root/old /root/new

echo "== what the daemon opened, and what its profile says"
tests/packages/profile packaging/apparmor/usr.sbin.smtpd "$tree/root/strace"
rm -rf --one-file-system "$tree"
echo "== odd"
tree=$work/odd
prepare "$tree"
inside "$tree" /root/tests/odd /root/new
rm -rf --one-file-system "$tree"
echo "== callers"
tree=$work/callers
prepare "$tree"
# shellcheck disable=SC2046,SC2086 # lists of words
install_in "$tree" $(cd "$tree" && printf '/%s ' root/new/*.deb) \
    anacron at bsd-mailx git git-email libemail-sender-perl libmail-sendmail-perl libmime-lite-perl logwatch \
    mailutils mime-construct mutt php-cli python3 s-nail sudo
inside "$tree" /root/tests/callers
rm -rf --one-file-system "$tree"

echo "== other systems"
kinds=()
for kind in rpm:rpmbuild arch:makepkg; do
    if command -v "${kind#*:}" >/dev/null; then kinds+=("${kind%:*}"); else echo "${kind%:*}: no ${kind#*:} here"; fi
done
MAILROOT_TREE=$base tests/packages/kin.sh "${kinds[@]}" openrc
echo "the packages are good"
