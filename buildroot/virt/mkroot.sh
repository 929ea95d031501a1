#!/bin/bash
# mkroot.sh TAR MODDIR KVER OUT.ext4: Debian arm64 tarball (mmdebstrap --variant=extract) -> bootable ext4 image. Runs no ARM code.
# Environment: FULL=1 no trimming; OVERLAY=dir copied over the root; KEEPGEN="generators to keep"; SIZE=image size, for example 256M.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
TAR=$1 MODDIR=$2 KVER=$3 OUT=$4
R=$(mktemp -d); trap 'rm -rf "$R"' EXIT; U=$R/etc/systemd/system
tar xpf "$TAR" -C "$R" --numeric-owner --exclude=./usr/share/{doc,man,locale,i18n,fonts,gtk-doc,info} --exclude=./usr/lib/aarch64-linux-gnu/gconv --exclude='./dev/*'
cp -r --no-preserve=ownership,timestamps "$here/guest/." "$R/"; chmod -R u+w,go+rX "$R/usr/local" "$R/etc/systemd"

# --- what the maintainer scripts would have done
cp "$R/usr/share/base-passwd/passwd.master" "$R/etc/passwd"; cp "$R/usr/share/base-passwd/group.master" "$R/etc/group"
sed -i 's/^root:[^:]*:/root::/; s/:\*:/:x:/' "$R/etc/passwd"
echo 'root::19000::::::' > "$R/etc/shadow"; chmod 640 "$R/etc/shadow"
sed -i 's/^u!/u/' "$R"/usr/lib/sysusers.d/*.conf	# a host older than the guest does not know u!
systemd-sysusers --root="$R"
echo virt > "$R/etc/hostname"; echo 127.0.0.1 localhost virt > "$R/etc/hosts"; : > "$R/etc/fstab"
echo b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0 > "$R/etc/machine-id"
rm -f "$R/etc/resolv.conf"; echo 'nameserver 10.0.2.3' > "$R/etc/resolv.conf"
for l in blas/libblas.so.3 lapack/liblapack.so.3; do	# alternatives
	d=$R/usr/lib/aarch64-linux-gnu; [ ! -e "$d/$l" ] || ln -sf "$l" "$d/$(basename "$l")"
done
ln -sfn /run "$R/var/run"; ln -sfn /run/lock "$R/var/lock" 2>/dev/null || true

# --- units: own target, network by DHCP, nothing a test guest does not need (each costs CPU seconds under emulation)
mkdir -p "$U"/{multi-user.target.wants,sockets.target.wants,sysinit.target.wants,systemd-udev-trigger.service.d}
ln -sf /usr/lib/systemd/system/multi-user.target "$U/default.target"
ln -sf /usr/lib/systemd/system/systemd-networkd.service "$U/multi-user.target.wants/"
ln -sf /usr/lib/systemd/system/systemd-networkd.socket ../guest-sh.socket ../guest-put.socket "$U/sockets.target.wants/"
OFF="getty@tty1.service serial-getty@ttyAMA0.service systemd-firstboot.service systemd-hwdb-update.service systemd-journal-catalog-update.service
 systemd-update-done.service ldconfig.service e2scrub_reap.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer"
if [ -z "${FULL:-}" ]; then
	OFF="$OFF systemd-logind.service getty.target getty-static.service kmod-static-nodes.service systemd-tmpfiles-setup-dev-early.service
	 systemd-random-seed.service systemd-boot-random-seed.service systemd-journal-flush.service dev-hugepages.mount dev-mqueue.mount
	 sys-kernel-tracing.mount sys-fs-fuse-connections.mount modprobe@drm.service modprobe@dm_mod.service modprobe@loop.service modprobe@fuse.service
	 systemd-binfmt.service proc-sys-fs-binfmt_misc.automount systemd-pcrphase.service systemd-pcrphase-sysinit.service
	 systemd-user-sessions.service systemd-hibernate-clear.service systemd-udev-load-credentials.service systemd-ask-password-console.path
	 systemd-ask-password-wall.path alsa-restore.service systemd-sysusers.service systemd-networkd-persistent-storage.service systemd-update-utmp.service remote-fs.target"
	mkdir -p "$R/usr/lib/systemd/off"; mv "$R"/usr/lib/systemd/system-generators/* "$R/usr/lib/systemd/off/"
	for g in ${KEEPGEN:-}; do mv "$R/usr/lib/systemd/off/$g" "$R/usr/lib/systemd/system-generators/"; done
	{ printf '[Service]\nExecStart=\nExecStart=-udevadm trigger --type=devices --action=add --prioritized-subsystem=block,net'
	  printf ' --subsystem-match=%s' block net sound video4linux usb gpio watchdog virtio-ports; echo; } > "$U/systemd-udev-trigger.service.d/lean.conf"
fi
for u in $OFF; do ln -sf /dev/null "$U/$u"; done
rm -f "$R/usr/lib/udev/rules.d/90-alsa-restore.rules"	# there is no state to restore

# --- modules, overlay, image
mkdir -p "$R/usr/lib/modules"; cp -r --no-preserve=ownership "$MODDIR" "$R/usr/lib/modules/$KVER"; rm -f "$R/usr/lib/modules/$KVER"/{build,source}
depmod -b "$R" "$KVER" 2>/dev/null || depmod -b "$R/usr" "$KVER"
[ -z "${OVERLAY:-}" ] || cp -a "$OVERLAY/." "$R/"
mkdir -p "$R"/{proc,sys,dev,run,tmp,data}; chmod 1777 "$R/tmp"
used=$(du -sm "$R" | cut -f1); rm -f "$OUT"; truncate -s "${SIZE:-$((used*13/10+64))M}" "$OUT"
mke2fs -q -t ext4 -O ^has_journal,^metadata_csum -E lazy_itable_init=1 -L virt-root -d "$R" "$OUT"
