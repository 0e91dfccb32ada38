#!/bin/bash
# What Mailroot and its peers cost a fresh Debian 12: room, packages, libraries, start, memory at rest. As root.
#
#   tests/packages/footprint.sh    builds the programs first, in a release build
#   MAILROOT_STAGE=DIRECTORY ...   takes programs that packaging/stage made
#   MAILROOT_TREE=DIRECTORY ...    keeps the fresh tree there for the next time; another one than that of run.sh
#
# Each is installed as its package says, without recommended ones, in a copy of the smallest tree of debootstrap.
set -euo pipefail
cd "$(dirname "$0")/../.."
[ "$(id -u)" = 0 ] || { echo "this takes root: it makes a tree of its own and changes into it" >&2; exit 1; }
for program in debootstrap unshare python3; do
    command -v $program >/dev/null || { echo "$program is missing: apt install debootstrap util-linux python3" >&2; exit 1; }
done
work=$(mktemp -d "${TMPDIR:-/var/tmp}/mailroot-footprint.XXXXXX")
trap 'rm -rf --one-file-system "$work"' EXIT
packaging/build --out "$work/deb" deb >"$work/log" 2>&1 || { tail -n 20 "$work/log"; exit 1; }
base=${MAILROOT_TREE:-$work/base}
. tests/packages/tree
make_base ""

# KiB of a tree, without what apt keeps for itself.
room() { du -skx --exclude=var/cache --exclude=var/lib/apt --exclude=var/lib/dpkg --exclude=var/log --exclude=root "$1" | cut -f 1; }
packages() { grep -c '^Status: install ok installed' "$1/var/lib/dpkg/status"; }

printf '%-12s %10s %9s %10s %9s %10s %10s\n' what "room, MiB" packages libraries "start, ms" processes "rest, MiB"
measure() {
    # $1 its name, $2 the program that stays, $3 the command that starts it; then its packages.
    local name=$1 program=$2 start=$3 tree=$work/tree
    shift 3
    cp -a "$base/tree" "$tree"
    mkdir -p "$tree/root/new"
    cp "$work"/deb/mailroot{,-mta}_*.deb "$tree/root/new/"
    echo "127.0.0.1 localhost host1.example.net host1" >"$tree/etc/hosts"
    echo host1.example.net >"$tree/etc/mailname"
    install_in "$tree" "$@"
    local more=$(($(room "$tree") - $(room "$base/tree"))) count=$(($(packages "$tree") - $(packages "$base/tree")))
    local libraries figures="- - -"
    libraries=$(chroot "$tree" ldd "$program" | grep -c '=> /')
    cp tests/packages/at_rest "$tree/root/"
    [ -z "$start" ] || figures=$(inside "$tree" /root/at_rest "$start")
    # shellcheck disable=SC2086 # three figures
    printf '%-12s %10s %9s %10s %9s %10s %10s\n' "$name" "$((more / 1024)).$((more % 1024 * 10 / 1024))" \
        "$count" "$libraries" $figures
    rm -rf --one-file-system "$tree"
}
# As its unit says.
service='install -d -o _mailroot -g _mailroot /run/mailroot && exec setpriv --reuid _mailroot --regid _mailroot \
    --init-groups --inh-caps +net_bind_service --ambient-caps +net_bind_service /usr/sbin/smtpd'
# shellcheck disable=SC2046 # a list of words
measure mailroot /usr/sbin/smtpd "$service" $(cd "$work/deb" && printf '/root/new/%s ' mailroot{,-mta}_*.deb)
measure postfix /usr/lib/postfix/sbin/master 'postfix start' postfix
measure exim4 /usr/sbin/exim4 'update-exim4.conf && exec exim4 -bd -q30m' exim4-daemon-light
measure opensmtpd /usr/sbin/smtpd '/usr/sbin/smtpd' opensmtpd
measure msmtp-mta /usr/bin/msmtp '' msmtp-mta
