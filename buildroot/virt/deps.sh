#!/bin/bash
# deps.sh [--refresh]: install the host packages that build.sh and vm.py need. Works as root or with sudo; says nothing if all is there.
# --refresh fetches the package lists even so: an apt server drops the files that old lists name.
set -euo pipefail
PACKAGES="qemu-system-arm qemu-utils mmdebstrap debian-archive-keyring gcc-12-aarch64-linux-gnu gcc-aarch64-linux-gnu
 binutils-aarch64-linux-gnu make bc flex bison libelf-dev kmod cpio xz-utils e2fsprogs systemd python3"

if ! grep -qx 'ID=debian' /etc/os-release; then
	echo "deps: the virtual board is made of Debian's arm64 kernel packages, which this system does not offer: use Debian 12 or 13" >&2
	exit 1
fi
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
have_lists() { compgen -G '/var/lib/apt/lists/*_binary-arm64_Packages*' > /dev/null; }

missing=
for p in $PACKAGES; do
	[ -e "/var/lib/dpkg/info/$p.list" ] || compgen -G "/var/lib/dpkg/info/$p:*.list" > /dev/null || missing="$missing $p"
done
foreign=$(dpkg --print-foreign-architectures; dpkg --print-architecture)
if ! grep -qx arm64 <<< "$foreign"; then
	echo "deps: telling dpkg about arm64, whose kernel packages the board is made of"
	as_root dpkg --add-architecture arm64
fi
if [ -n "$missing" ] || [ "${1:-}" = --refresh ] || ! have_lists; then
	echo "deps: fetching the package lists"
	as_root apt-get -q update
fi
if [ -n "$missing" ]; then
	echo "deps: installing$missing"
	as_root env DEBIAN_FRONTEND=noninteractive apt-get -qy install --no-install-recommends $missing
fi
