#!/bin/bash
# What Mailroot and its peers cost a fresh Debian 12: room, packages, libraries, set-id programs, exposure of the unit,
# start, memory at rest. As root.
#
#   tests/packages/footprint.sh    builds the programs first, in a release build
#   MAILROOT_STAGE=DIRECTORY ...   takes programs that packaging/stage made
#   MAILROOT_TREE=DIRECTORY ...    keeps the fresh tree there for the next time; another one than that of run.sh
#
# Each is installed as its package says, without recommended ones, in a copy of the smallest tree of debootstrap.
set -euo pipefail
cd "$(dirname "$0")/../.."
[ "$(id -u)" = 0 ] || { echo "this takes root: it makes a tree of its own and changes into it" >&2; exit 1; }
for program in debootstrap unshare systemd-analyze; do
    command -v $program >/dev/null || { echo "$program is missing: apt install debootstrap util-linux systemd" >&2; exit 1; }
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

set_id() { find "$1" -xdev -type f -perm /6000 | wc -l; }
exposure() {
    # $1 the tree, $2 the unit. As systemd counts: 0 is safe, 10 is not.
    local unit=$1/lib/systemd/system/$2
    if [ -z "$2" ] || [ ! -e "$unit" ]; then echo - && return; fi
    cp "$unit" "$work/${2/@/}"
    systemd-analyze security --offline=true "$work/${2/@/}" 2>/dev/null | sed -n 's/.*Overall exposure level.*: \([0-9.]*\) .*/\1/p'
}

printf '%-11s %9s %8s %9s %6s %8s %9s %9s %9s\n' \
    what "room, MiB" packages libraries set-id exposure "start, ms" processes "rest, MiB"
measure() {
    # $1 its name, $2 the program that stays, $3 its unit, $4 the command that starts it; then its packages.
    local name=$1 program=$2 unit=$3 start=$4 tree=$work/tree
    shift 4
    cp -a "$base/tree" "$tree"
    mkdir -p "$tree/root/new"
    cp "$work"/deb/mailroot{,-mta}_*.deb "$tree/root/new/"
    echo "127.0.0.1 localhost host1.example.net host1" >"$tree/etc/hosts"
    echo host1.example.net >"$tree/etc/mailname"
    install_in "$tree" "$@"
    local more=$(($(room "$tree") - $(room "$base/tree"))) count=$(($(packages "$tree") - $(packages "$base/tree")))
    local libraries figures="- - -"
    libraries=$(chroot "$tree" ldd "$program" | grep -c '=> /')
    local rights=$(($(set_id "$tree") - $(set_id "$base/tree"))) exposed
    exposed=$(exposure "$tree" "$unit")
    cp tests/packages/at_rest "$tree/root/"
    [ -z "$start" ] || figures=$(inside "$tree" /root/at_rest "$start")
    # shellcheck disable=SC2086 # three figures
    printf '%-11s %9s %8s %9s %6s %8s %9s %9s %9s\n' "$name" "$((more / 1024)).$((more % 1024 * 10 / 1024))" \
        "$count" "$libraries" "$rights" "$exposed" $figures
    rm -rf --one-file-system "$tree"
}
# As its unit says.
service='install -d -o _mailroot -g _mailroot /run/mailroot && exec setpriv --reuid _mailroot --regid _mailroot \
    --init-groups --inh-caps +net_bind_service --ambient-caps +net_bind_service /usr/sbin/smtpd'
# shellcheck disable=SC2046 # a list of words
measure mailroot /usr/sbin/smtpd mailroot.service "$service" $(cd "$work/deb" && printf '/root/new/%s ' mailroot{,-mta}_*.deb)
measure postfix /usr/lib/postfix/sbin/master postfix@.service 'postfix start' postfix
measure exim4 /usr/sbin/exim4 exim4.service 'update-exim4.conf && exec exim4 -bd -q30m' exim4-daemon-light
measure opensmtpd /usr/sbin/smtpd opensmtpd.service '/usr/sbin/smtpd' opensmtpd
measure msmtp-mta /usr/bin/msmtp '' '' msmtp-mta
