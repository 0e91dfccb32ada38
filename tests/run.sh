#!/bin/bash
# Runs the tests: units and properties beside the code, then the programs against real peers.
#
#   tests/run.sh           what every change must pass
#   tests/run.sh --full    the long suites as well: 200 kills, 280 power cuts, every crash point, half an hour of soak,
#                          beside them fuzzing for ten minutes each, then the faults of tests/planted.sh and the
#                          packages on a fresh Debian; some three hours
#
# As root it installs the Debian packages it needs, and starts none of them as a service. As another user it
# prints the line to run as root, runs what it can, and lists what it skipped and why.
set -euo pipefail
cd "$(dirname "$0")/.."

full=
case "${1:-}" in
    --full) full=1 ;;
    "") ;;
    *) sed -n '2,11s/^# \{0,1\}//p' "$0" && exit 2 ;;
esac

missing() {
    echo "$1 is missing: $2" >&2
    exit 1
}
command -v cargo >/dev/null ||
    missing "Rust" "install 1.95 or later, https://www.rust-lang.org/tools/install"
command -v cc >/dev/null || missing "A C compiler" "apt install gcc, or dnf install gcc"
command -v make >/dev/null || missing "make" "apt install make, or dnf install make"

# What the suites need: the program that shows it is there, and its package.
tools="postfix:postfix smtp-sink:postfix swaks:swaks unbound:unbound msmtp:msmtp mandoc:mandoc
c++:g++ python3:python3 virtualenv:virtualenv curl:curl node:nodejs npm:npm systemd-analyze:systemd unshare:util-linux
mkfs.ext4:e2fsprogs xfs_io:xfsprogs mkfs.xfs:xfsprogs eatmydata:eatmydata strace:strace tmux:tmux
jq:jq less:less sshd:openssh-server faketime:faketime prlimit:util-linux dovecot:dovecot-core openssl:openssl
dkimverify:python3-dkim knotd:knot setpriv:util-linux s-nail:s-nail mutt:mutt php:php-cli slapd:slapd
pebble:pebble opendkim:opendkim shellcheck:shellcheck apparmor_parser:apparmor fail2ban-regex:fail2ban
haproxy:haproxy pflogsumm:pflogsumm gsasl:gsasl testssl:testssl.sh rspamd:rspamd clamd:clamav-daemon
clamav-milter:clamav-milter"
packages=
PATH=$PATH:/usr/sbin:/sbin
for tool in $tools; do
    command -v "${tool%%:*}" >/dev/null || case " $packages " in
        *" ${tool##*:} "*) ;;
        *) packages="$packages ${tool##*:}" ;;
    esac
done
if [ -n "$full" ]; then
    for tool in krb5kdc:krb5-kdc kadmin.local:krb5-admin-server krb5-config.mit:libkrb5-dev; do
        command -v "${tool%%:*}" >/dev/null || packages="$packages ${tool##*:}"
    done
    for tool in debootstrap:debootstrap dh:debhelper dh_apparmor:dh-apparmor po2debconf:po-debconf lintian:lintian \
        fakeroot:fakeroot rpmbuild:rpm makepkg:makepkg pacman:pacman-package-manager bsdtar:libarchive-tools; do
        command -v "${tool%%:*}" >/dev/null || packages="$packages ${tool##*:}"
    done
    for package in libclang-dev dovecot-gssapi libpam0g-dev libpam-wrapper; do
        dpkg -s $package >/dev/null 2>&1 || packages="$packages $package"
    done
fi
# A library without a program, for the interpreter that packages belong to.
/usr/bin/python3 -c 'import nacl' 2>/dev/null || packages="$packages python3-nacl"
# What makes signed tokens.
/usr/bin/python3 -c 'import jwt, cryptography' 2>/dev/null || packages="$packages python3-jwt python3-cryptography"
# A library for milters of the tests.
/usr/bin/python3 -c 'import Milter' 2>/dev/null || packages="$packages python3-milter"
/usr/bin/python3 -c 'import spf' 2>/dev/null || packages="$packages python3-spf"
# What swaks needs for TLS, and Postfix for logins.
perl -MNet::SSLeay -e 1 2>/dev/null || packages="$packages libnet-ssleay-perl"
# What hands in mail by sendmail, as other programs do.
perl -MMIME::Lite -e 1 2>/dev/null || packages="$packages libmime-lite-perl"
[ -e /usr/lib/git-core/git-send-email ] || packages="$packages git-email"
ls /usr/lib/*/sasl2/libplain.so >/dev/null 2>&1 || packages="$packages libsasl2-modules"
packages=${packages# }

if [ -n "$packages" ] && [ "$(id -u)" != 0 ]; then
    echo "Some suites will be skipped. As root: apt-get update && apt-get install -y --no-install-recommends $packages"
elif [ -n "$packages" ] && command -v apt-get >/dev/null; then
    echo "== installing $packages"
    # No service may start: a policy that forbids it, for as long as the installation takes.
    policy=/usr/sbin/policy-rc.d
    [ -e $policy ] || { printf '#!/bin/sh\nexit 101\n' >$policy && chmod 755 $policy && made=1; }
    log=$(mktemp)
    apt-get update -qq
    # shellcheck disable=SC2086 # a list of words
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages \
        >"$log" 2>&1 || { cat "$log"; exit 1; }
    [ -z "${made:-}" ] || rm -f $policy
fi

# Exim and OpenSMTPD cannot be installed beside Postfix; they are unpacked instead.
unpack() {
    local place=target/$1 program=$2
    shift 2
    [ ! -x "$place/$program" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 0
    mkdir -p "$place/deb"
    if (cd "$place/deb" && { apt-get download -qq "$@" ||
        { apt-get update -qq && apt-get download -qq "$@"; }; } >log 2>&1); then
        for package in "$place"/deb/*.deb; do dpkg -x "$package" "$place"; done
    else
        cat "$place/deb/log"
    fi
}
unpack exim usr/sbin/exim4 exim4-daemon-light libidn12
unpack opensmtpd usr/sbin/smtpd opensmtpd libevent-2.1-7

if command -v npm >/dev/null && [ ! -d tests/node/node_modules ]; then
    (cd tests/node && npm ci --no-audit --no-fund --silent) || echo "npm could not install nodemailer"
fi

schemathesis=target/schemathesis
if command -v virtualenv >/dev/null && [ ! -x $schemathesis/bin/schemathesis ]; then
    { virtualenv -q $schemathesis && $schemathesis/bin/pip install -q schemathesis==4.32.5; } ||
        echo "pip could not install schemathesis"
fi

skips=$PWD/target/skips.txt
mkdir -p target && : >"$skips"
export MAILROOT_SKIPS=$skips
[ -z "$full" ] || export MAILROOT_FULL=1
export CARGO_TERM_COLOR=never

# Logins by Kerberos and PAM: what builds them is not on every machine.
features=
[ -z "$full" ] || features="--features smtpd/gssapi,smtpd/pam"
# shellcheck disable=SC2086 # a list of words
cargo build --workspace --all-targets --locked -j2 $features
if [ -n "$full" ]; then
    # Fuzzing takes what the suites leave of the processors. A session of its own has a weight of its own as well.
    setsid nice -n 10 bash -c '{ echo 10 >/proc/self/autogroup; } 2>/dev/null; exec tests/fuzz/run.sh -j 2 -t 600' \
        >target/fuzz.log 2>&1 &
    fuzzing=$!
    trap 'kill -- "-$fuzzing" 2>/dev/null || true' EXIT
fi
if command -v cargo-nextest >/dev/null; then
    # Many suites wait for peers, so one more than there are processors of the smallest machine.
    # shellcheck disable=SC2086 # a list of words
    cargo nextest run --workspace --locked --no-fail-fast --test-threads 3 $features
else
    # shellcheck disable=SC2086 # a list of words
    cargo test --workspace --locked --no-fail-fast -j2 $features
fi

if [ -n "$full" ]; then
    echo "== fuzzing"
    wait "$fuzzing" || { cat target/fuzz.log; exit 1; }
    tail -n 20 target/fuzz.log
    tests/planted.sh
    echo "== packages"
    if [ "$(id -u)" = 0 ]; then
        tests/packages/run.sh
    else
        echo "packages: not root, so no fresh Debian can be made" | tee -a "$skips"
    fi
else
    tests/fuzz/run.sh -j 2 -n 20000
fi

if [ -s "$skips" ]; then
    echo "skipped:"
    sort -u "$skips" | sed 's/^/  /'
fi
