#!/bin/bash
# modsubset.sh lib/modules/KVER KVER OUT EXTRA.ko...: copy the modules a test guest may want, with all they depend on
set -euo pipefail
SRC=$1 KVER=$2 OUT=$3; shift 3
T=$(mktemp -d); trap 'rm -rf "$T"' EXIT; M=$T/lib/modules/$KVER; mkdir -p "$T/lib/modules" "$OUT"
cp -a "$SRC" "$M"; mkdir -p "$M/updates"
for k in "$@"; do aarch64-linux-gnu-strip --strip-debug -o "$M/updates/$(basename "$k")" "$k"; done
depmod -b "$T" "$KVER"
WANTED="virtio_pci virtio_blk virtio_net virtio_console virtio_rng ext4 crc32c_generic overlay configfs autofs4
 vivid vim2m vimc vh264enc v4l2_mem2mem uvcvideo snd_aloop snd_virtio snd_usb_audio
 gpio_sim gpio_keys leds_gpio uleds ledtrig_timer uinput
 dummy_hcd libcomposite usb_f_uvc usb_f_uac2 usb_f_acm cdc_acm ftdi_sio usbserial xhci_pci
 softdog i6300esb sch_netem sch_tbf sch_ingress sch_fq veth dummy tun nf_tables"
for m in $WANTED; do
	modprobe -d "$T" -S "$KVER" --show-depends "$m" 2>/dev/null | awk '$1=="insmod"{print $2}' || true	# built in or not there
done | sort -u | while read -r f; do
	d=$OUT/${f#"$M/"}; mkdir -p "$(dirname "$d")"; cp "$f" "$d"
done
find "$OUT" -name '*.ko.xz' -exec xz -d {} +	# loads faster
cp "$SRC"/modules.{order,builtin,builtin.modinfo} "$OUT/"
