#!/bin/bash
# build.sh [WORK]: from nothing to a booted and snapshotted arm64 guest in WORK (default: $VIRT_WORK, else .cache/virt of the repository).
#
#   fetch ── modules ──┐
#                      ├── image ── snapshot        a stage runs if its key or the size of what it left has changed,
#   rootfs ────────────┘                            and takes the keys of all stages behind it along
#
# A second call finds everything in place and returns at once; calls at the same time wait for each other. A key is removed before
# its stage starts and written after it ended, so that a build that broke off is taken up where it broke.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
SERIES=${SERIES:-6.12} SUITE=${SUITE:-trixie} SOURCE=linux-source-$SERIES
W=${1:-${VIRT_WORK:-$here/../../.cache/virt}}
PATH=$PATH:/usr/sbin:/sbin	# depmod, modprobe: not in an ordinary user's path
"$here/deps.sh"
mkdir -p "$W"; W=$(readlink -f "$W"); cd "$W"

# --- keys: what a stage is made from, and what it leaves
hash_of() { (cd "$here"; find "$@" -type f -print0 | sort -z | xargs -0 sha256sum) | sha256sum | cut -c1-16; }
lists_week() { # the week of the newest package list: within a week everything stays as it is
	local newest; newest=$(stat -c %Y /var/lib/apt/lists/*Release 2> /dev/null | sort -n | tail -1); date -u -d "@${newest:-0}" +%G-W%V
}
week=$(lists_week)
declare -A key left=([fetch]="kver src/gpio-sim.c src/irq_sim.c src/uleds.c src/vim2m.c src/vimc-core.c src/vimc-streamer.h" [modules]="vmlinuz modtree/modules.builtin" [rootfs]=rootfs.tar
	[image]="root.ext4 initrd.gz" [snapshot]="vm.qcow2 root.ext4 initrd.gz vmlinuz")
key[fetch]="$SERIES $week $(dpkg --print-architecture)"
key[modules]="${key[fetch]} $(hash_of kmod modsubset.sh)"
key[rootfs]="$SUITE $week $(hash_of pkgs.txt)"
key[image]="${key[modules]} ${key[rootfs]} $(hash_of mkroot.sh mkinitrd.sh guest)"
key[snapshot]="${key[image]} $(hash_of build.sh vm.py setup.sh) $(qemu-system-aarch64 --version | head -1)"
declare -A behind=([fetch]="modules image snapshot" [modules]="image snapshot" [rootfs]="image snapshot" [image]=snapshot [snapshot]=)

state() { # STAGE: its key and the sizes of its files, as they are now
	echo "${key[$1]}"; stat -c '%n %s' ${left[$1]} 2>&1 || true
}
good() { [ -s "$1.key" ] && [ "$(state "$1")" = "$(cat "$1.key")" ]; }

# --- stages
as_root() { # files of the image belong to the guest's users
	if [ "$(id -u)" = 0 ]; then "$@"; else sudo --preserve-env=FULL,OVERLAY,KEEPGEN,SIZE "$@"; fi
}

newest_kernel() { # newest arm64 kernel whose headers apt knows: 6.12.117+deb12-arm64, 6.12.115+deb13.1-arm64
	apt-cache pkgnames "linux-headers-$SERIES" | grep -Ex "linux-headers-${SERIES//./\\.}\.[0-9]+\+deb[0-9]+(\.[0-9]+)?-arm64" |
		sort -V | tail -1 | sed s/linux-headers-//
}

download() { # into dl
	local v base; v=$(newest_kernel); base=${v%-arm64}
	[ -n "$v" ] || { echo "apt knows no arm64 kernel $SERIES: is bookworm-security among its sources?"; return 1; }
	rm -rf dl; mkdir dl; cd dl; echo "$v" > ../kver
	apt-get download "linux-headers-$v:arm64" "linux-headers-$base-common" "linux-kbuild-$base:$(dpkg --print-architecture)" \
		"linux-image-$v-unsigned:arm64" "$SOURCE"
}

fetch() {
	(download) || { "$here/deps.sh" --refresh; (download); }
	# most of this stage's time: unpacking the kernel's source for a few files; tar is cut off once it has them
	local media=$SOURCE/drivers/media/test-drivers
	rm -rf src; mkdir src
	dpkg-deb --fsys-tarfile dl/${SOURCE}_* 2> /dev/null | tar xO --wildcards "*/$SOURCE.tar.xz" 2> /dev/null |
		tar xJ -C src --transform='s#.*/##' --occurrence=1 "$SOURCE/drivers/gpio/gpio-sim.c" "$SOURCE/kernel/irq/irq_sim.c" "$SOURCE/drivers/leds/uleds.c" "$media/vim2m.c" \
			"$media/vimc/vimc-"{capture,common,core,debayer,lens,scaler,sensor,streamer}.c "$media/vimc/vimc-"{common,streamer}.h || true
	rm dl/${SOURCE}_*
}

modules() {
	local v base headers stock m=$W/mods d; v=$(cat kver); base=${v%-arm64}
	rm -rf headers unpacked "$m" modtree; mkdir headers unpacked
	for d in dl/linux-headers-"$v"_* dl/linux-headers-"$base"-common_* dl/linux-kbuild-"$base"_*; do dpkg-deb -x "$d" headers; done
	dpkg-deb -x dl/linux-image-"$v"-unsigned_* unpacked; cp "unpacked/boot/vmlinuz-$v" vmlinuz
	headers=$W/headers/usr/src/linux-headers-$v
	sed -i "s#^include /usr/src/#include $W/headers/usr/src/#" "$headers/Makefile"	# its one absolute path
	rm -f "$headers/vmlinux"							# else the build wants pahole

	cp -r --no-preserve=mode "$here/kmod" "$m"; echo 'obj-m := gpio-sim/ uleds/ vh264enc/ vim2m/ vimc/' > "$m/Makefile"
	cp src/gpio-sim.c "$m/gpio-sim/gpio-sim-main.c"
	sed 's/handle_simple_irq(irq_to_desc(irqnum));/generic_handle_irq(irqnum);/; /^EXPORT_SYMBOL/d' src/irq_sim.c > "$m/gpio-sim/irq_sim.c"
	cp src/uleds.c "$m/uleds/"; cp src/vim2m.c "$m/vim2m/"; cp src/vimc-*.[ch] "$m/vimc/"
	make -s -C "$headers" M="$m" ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu- -j"$(nproc)" modules

	stock=unpacked/usr/lib/modules/$v; [ -d "$stock" ] || stock=unpacked/lib/modules/$v	# as of deb13, before
	"$here/modsubset.sh" "$stock" "$v" modtree "$m"/*/*.ko
	rm -rf headers unpacked "$m"
}

rootfs() { # no mirror is named: mmdebstrap's default for the suite
	as_root mmdebstrap --variant=extract --architectures=arm64 --include="$(tr '\n' ' ' < "$here/pkgs.txt")" "$SUITE" rootfs.tar
}

image() {
	local v; v=$(cat kver)
	as_root "$here/mkroot.sh" rootfs.tar modtree "$v" root.ext4
	tar xf rootfs.tar ./usr/bin/busybox; "$here/mkinitrd.sh" modtree "$v" usr/bin/busybox initrd.gz; rm -r usr
}

snapshot() {
	rm -f vm.qcow2; qemu-img create -q -f qcow2 -b root.ext4 -F raw vm.qcow2	# relative: the folder can be moved
	python3 "$here/vm.py" "$W" save
}

# --- run what is not in place
stage() {
	local begin=$EPOCHREALTIME s
	if good "$1"; then return; fi
	for s in $1 ${behind[$1]}; do rm -f "$s.key"; done
	( set -e; "$1" ) > "$1.log" 2>&1 9>&- & wait $! || { echo "virtual board: stage $1 failed, see $W/$1.log:"; tail -20 "$1.log"; return 1; }
	for s in ${left[$1]}; do [ -s "$s" ] || { echo "virtual board: stage $1 left no $s, see $W/$1.log"; return 1; }; done
	state "$1" > "$1.key.new"; mv "$1.key.new" "$1.key"
	printf 'virtual board: %-9s %5.1f s\n' "$1" "$(echo "$EPOCHREALTIME - $begin" | bc)"
}

exec 9> lock
flock -s 9; if good snapshot; then exit 0; fi
flock 9; if good snapshot; then exit 0; fi	# another call has built it meanwhile
echo "virtual board: building in $W, about a minute"
if [ "$(id -u)" != 0 ]; then
	echo "virtual board: sudo makes its root file system"
	sudo -v	# asks here, not in the middle
fi
( stage fetch; stage modules ) & kernel=$!
stage rootfs & user=$!
bad=0; wait $kernel || bad=1; wait $user || bad=1
[ $bad = 0 ] || exit 1
stage image
stage snapshot
