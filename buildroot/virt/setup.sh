# Runs once in the freshly booted guest, before the snapshot: load the devices of the board.
set -e
modprobe vivid n_devs=2 node_types=0x1,0x1 num_inputs=2,1 input_types=0xc,0x0	# input 0 of the first: webcam, input 1: HDMI
modprobe snd-aloop enable=1,1 id=Loopback,Loopback2
modprobe -a gpio-sim v4l2-mem2mem
modprobe vh264enc align=2

# The front panel. Keys are active low with a pull-up; the test's end of a line is /run/panel/sim_gpioN/{pull,value}.
C=/sys/kernel/config/gpio-sim/panel; n=0
names="GO_LIVE TALLY REC MUTE RESET LAMP_STREAM LAMP_REC LAMP_STAGE CONTACT_IN CONTACT_OUT"
for name in $names; do mkdir -p $C/bank0/line$n; n=$((n + 1)); done
echo 10 > $C/bank0/num_lines; echo panel > $C/bank0/label; n=0
for name in $names; do echo "$name" > $C/bank0/line$n/name; n=$((n + 1)); done
echo 1 > $C/live
D=/sys/devices/platform/$(cat $C/dev_name)/$(cat $C/bank0/chip_name); ln -sfn "$D" /run/panel
for key in 0 2 3 4 8; do echo pull-up > "$D/sim_gpio$key/pull"; done

udevadm settle
v4l2-ctl --list-devices; gpiodetect; cat /proc/asound/cards; cat /proc/uptime
sync; echo 3 > /proc/sys/vm/drop_caches	# a smaller snapshot
