#!/bin/bash
# The packages for other systems than Debian, each tried by that system's own programs in a fresh tree. As root.
#
#   MAILROOT_STAGE=DIRECTORY tests/packages/kin.sh [rpm|arch|container|openrc ...]
#
#   rpm        built twice and compared, installed, verified, used, upgraded, erased
#   arch       built by makepkg, compared with the packages for Debian, installed by pacman, used, removed
#   container  an image built by buildah on the fresh tree, and used; takes 10 GB of disk, so that run.sh leaves it out
#   openrc     the service started, reloaded and stopped by OpenRC
#
# The programs are those of packaging/stage. MAILROOT_TREE=DIRECTORY keeps the fresh tree there for the next time.
set -euo pipefail
cd "$(dirname "$0")/../.."
[ "$(id -u)" = 0 ] || { echo "this takes root: it makes a tree of its own and changes into it" >&2; exit 1; }
[ -n "${MAILROOT_STAGE:-}" ] || { sed -n '2,12s/^# \{0,1\}//p' "$0" >&2; exit 2; }
need() {
    local program
    for program in "${@:2}"; do
        command -v "$program" >/dev/null || { echo "$program is missing: apt install $1" >&2; exit 1; }
    done
}
need "debootstrap util-linux" debootstrap unshare
kinds=("$@")
[ $# -gt 0 ] || kinds=(rpm arch container openrc)
MAILROOT_STAGE=$(cd "$MAILROOT_STAGE" && pwd)
export MAILROOT_STAGE
work=$(mktemp -d "${TMPDIR:-/var/tmp}/mailroot-kin.XXXXXX")
trap 'rm -rf --one-file-system "$work"' EXIT
base=${MAILROOT_TREE:-$work/base}
. tests/packages/tree
make_base ca-certificates,cron,libgssapi-krb5-2,procps,strace,systemd
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)

fail() { echo "FAILED: $*" >&2; exit 1; }
fresh() {
    # $1 its name: a copy of the fresh tree with the scripts of these tests.
    cp -a "$base/tree" "$work/$1"
    mkdir -p "$work/$1/root/tests" "$work/$1/root/new"
    cp tests/packages/first_mail tests/packages/openrc tests/packages/container "$work/$1/root/tests/"
    echo "127.0.0.1 localhost host1.example.net host1" >"$work/$1/etc/hosts"
    rm -f "$work/$1/etc/mailname" "$work/$1/usr/sbin/policy-rc.d"
}
# What lies in a tree besides caches and the records of package managers: $1 the tree.
everything() {
    (cd "$1" && find . -xdev \( -path ./proc -o -path ./sys -o -path ./dev -o -path ./run -o -path ./tmp -o -path ./root \
        -o -path ./var/lib/rpm -o -path ./var/lib/pacman -o -path ./var/log -o -path ./var/cache \) -prune -o -print | sort)
}
# What an erasure left: $1 the tree, $2 the list from before. Users, and files of the machine, stay.
left() {
    comm -13 "$2" <(everything "$1") |
        grep -vxE '\./usr/share/licenses|\./etc/(aliases|alternatives)|\./etc/(passwd|group|shadow|gshadow|subuid|subgid)-?|\./var/lib/(systemd|alternatives|dpkg/alternatives).*' || :
}
# Programs of this machine that work on a tree, which they see with a /proc: $1 the tree.
on() {
    local tree=$1
    shift
    # shellcheck disable=SC2016 # for the other shell
    unshare --mount --pid --net --fork --kill-child bash -euc '
        mount --make-rprivate /
        mount -t proc proc "$1/proc"
        shift
        exec "$@"' on "$tree" "$@"
}
made_for_debian() {
    [ -e "$work/deb" ] || packaging/build --out "$work/deb" deb >"$work/deb.log" 2>&1 ||
        { tail -n 20 "$work/deb.log"; fail "packages for Debian"; }
}

try_rpm() {
    need rpm rpm rpmbuild
    packaging/build --out "$work/rpm-before" --version 0.1.0~before-1 rpm
    packaging/build --out "$work/rpm" rpm
    (umask 077 && TZ=Asia/Tokyo LANG=de_DE.UTF-8 packaging/build --out "$work/rpm-again" rpm >/dev/null)
    local package
    for package in "$work"/rpm/*.rpm; do
        cmp "$package" "$work/rpm-again/$(basename "$package")" || fail "two builds differ"
    done
    fresh rpm-tree
    local tree=$work/rpm-tree
    # Fedora's program takes the same words.
    ln -s ../bin/update-alternatives "$tree/usr/sbin/alternatives"
    rpm() { on "$tree" rpm --root "$tree" --dbpath /var/lib/rpm "$@"; }
    verified() {
        local told
        told=$(rpm -V --nodeps mailroot mailroot-mta 2>&1) || fail "rpm -V: $told"
    }
    rpm --initdb
    everything "$tree" >"$work/before"
    echo "-- never used: an erasure leaves nothing"
    rpm -i --nodeps "$work"/rpm/*.rpm
    verified
    [ "$(readlink -f "$tree/usr/sbin/sendmail")" ] || fail "no sendmail"
    local page
    for page in smtpd mailrootd; do
        [ "$(chroot "$tree" readlink -f /usr/share/man/man8/$page.8.gz)" = /usr/share/man/man8/smtpd.mailroot.8.gz ] ||
            fail "$page(8)"
    done
    rpm -e mailroot mailroot-mta
    local stays
    stays=$(left "$tree" "$work/before")
    [ -z "$stays" ] || fail "left behind: $stays"
    [ -z "$(comm -23 "$work/before" <(everything "$tree"))" ] || fail "taken along"
    echo "-- used: an erasure leaves mail and what people wrote"
    rpm -i --nodeps "$work"/rpm-before/*.rpm
    inside "$tree" /root/tests/first_mail
    verified
    rpm -U --nodeps "$work"/rpm/*.rpm
    [ "$(rpm -q --qf '%{VERSION} ' mailroot mailroot-mta)" = "$version $version " ] || fail "nothing was upgraded"
    verified
    inside "$tree" /root/tests/first_mail
    echo "# ours" >>"$tree/etc/mailroot/servers.d/default.yaml"
    rpm -e mailroot mailroot-mta
    grep -q '^# ours' "$tree/etc/mailroot/servers.d/default.yaml" || fail "the configuration is gone"
    grep -rq 'by the first one\.' "$tree/var/spool/mailroot/default/Drop" || fail "mail is gone"
    stays=$(left "$tree" "$work/before" | grep -vE '^\./(etc|var/lib|var/spool)/mailroot(/|$)' || :)
    [ -z "$stays" ] || fail "left behind: $stays"
    unset -f rpm
}

# The places of files, each under the name that all systems have for it, without what only some of them have.
places() {
    sed -E 's,^(\./)?,/,; s,/$,,; s,^/usr/sbin/,/usr/bin/,; s,^/lib/,/usr/lib/,; s,/usr/libexec/,/usr/lib/,; s,\.gz$,,;
        s,vendor-completions/,site-functions/,' |
        grep -vE '^/(\.[A-Z]+|etc/(apparmor\.d|logrotate\.d|ppp|ufw)/.*|usr/share/(bug|lintian|licenses|doc)/.*)$' | sort -u
}

try_arch() {
    need "makepkg pacman-package-manager libarchive-tools" makepkg pacman bsdtar
    made_for_debian
    local place=$work/arch epoch
    epoch=$(git log -1 --format=%ct)
    mkdir -p "$place"
    git archive --prefix="mailroot-$version/" HEAD | xz -6 -T1 >"$place/mailroot-$version.tar.xz"
    cp packaging/arch/PKGBUILD packaging/arch/mailroot.install "$place/"
    cp -a "$MAILROOT_STAGE" "$place/stage"
    chmod 0711 "$work"
    chown -R 65534:65534 "$place"
    (cd "$place" && setpriv --reuid 65534 --regid 65534 --clear-groups env HOME="$place" PKGEXT=.pkg.tar.xz \
        SOURCE_DATE_EPOCH="$epoch" MAILROOT_STAGE="$place/stage" makepkg --nodeps >"$work/makepkg.log" 2>&1) ||
        { tail -n 20 "$work/makepkg.log"; fail "makepkg"; }
    echo "-- the same files as for Debian"
    local package
    for package in mailroot mailroot-mta; do
        dpkg-deb --fsys-tarfile "$work/deb/${package}"_*.deb | tar -t | grep -v '/$' | places >"$work/of-deb"
        tar -tf "$place/$package-$version"-*.pkg.tar.xz | grep -v '/$' | places >"$work/of-arch"
        diff "$work/of-deb" "$work/of-arch" || fail "$package has other files"
    done
    tar -xOf "$place/mailroot-$version"-*.pkg.tar.xz .PKGINFO | sed -n 's/^backup = //p' | sort >"$work/kept"
    tar -tf "$place/mailroot-$version"-*.pkg.tar.xz | grep '^etc/.*[^/]$' | sort | diff - "$work/kept" ||
        fail "what people change in /etc is not kept"
    fresh arch-tree
    local tree=$work/arch-tree
    printf '[options]\nArchitecture = auto\nSigLevel = Never\n' >"$work/pacman.conf"
    mkdir -p "$tree/var/lib/pacman" "$tree/var/cache/pacman/pkg"
    pacman() { on "$tree" pacman --config "$work/pacman.conf" --root "$tree" --noconfirm "$@" >>"$work/pacman.log" 2>&1 || { cat "$work/pacman.log"; fail "pacman $*"; }; }
    everything "$tree" >"$work/before"
    pacman -U -dd "$place"/*.pkg.tar.xz
    pacman -Qkk mailroot mailroot-mta
    inside "$tree" /root/tests/first_mail
    pacman -Qkk mailroot mailroot-mta
    pacman -R -dd mailroot mailroot-mta
    grep -rq 'by the first one\.' "$tree/var/spool/mailroot/default/Drop" || fail "mail is gone"
    local stays
    stays=$(left "$tree" "$work/before" | grep -vE '^\./(etc|var/lib|var/spool)/mailroot(-package)?(/|$)' || :)
    [ -z "$stays" ] || fail "left behind: $stays"
    unset -f pacman
}

try_container() {
    need buildah buildah
    local place=$work/context tree=$work/image
    # Images and containers of this test alone, on which buildah works without namespaces of its own.
    local buildah=(buildah --root "$work/images" --runroot "$work/containers" --storage-driver vfs)
    mkdir "$place"
    git archive HEAD | tar -x -C "$place"
    cp -a "$MAILROOT_STAGE" "$place/staged"
    # In the place of the two images that the file begins with, which are elsewhere.
    fresh image
    install_in "$tree" binutils
    "${buildah[@]}" from --name base scratch >/dev/null
    "${buildah[@]}" copy -q base "$tree" / >/dev/null
    rm -rf --one-file-system "$tree"
    local name names
    mapfile -t names < <(sed -n 's/^FROM \([^ ]*\).*/\1/p' packaging/container/Containerfile)
    for name in "${names[@]}"; do "${buildah[@]}" commit -q base "$name" >/dev/null; done
    "${buildah[@]}" rm base >/dev/null
    "${buildah[@]}" bud --pull-never --isolation chroot --format docker --build-arg MAILROOT_STAGE=staged \
        -t mailroot -f "$place/packaging/container/Containerfile" "$place" >"$work/buildah.log" 2>&1 ||
        { tail -n 20 "$work/buildah.log"; fail "buildah"; }
    "${buildah[@]}" from --pull-never --name it mailroot >/dev/null
    "${buildah[@]}" copy -q it tests/packages/container /test >/dev/null
    # shellcheck disable=SC2016 # for the other shell
    unshare --net --pid --fork --kill-child bash -euc '
        ip link set lo up
        exec "$@"' run "${buildah[@]}" run --isolation chroot it /test || fail "the image"
}

try_openrc() {
    made_for_debian
    fresh openrc-tree
    local tree=$work/openrc-tree
    cp "$work"/deb/mailroot{,-mta}_*.deb "$tree/root/new/"
    # shellcheck disable=SC2046 # a list of words
    install_in "$tree" openrc $(cd "$tree" && printf '/%s ' root/new/*.deb)
    install -m 0755 packaging/openrc/mailroot "$tree/etc/init.d/mailroot"
    inside "$tree" /root/tests/openrc
}

for kind in "${kinds[@]}"; do
    echo "== $kind"
    "try_$kind"
done
echo "the packages of other systems are good"
