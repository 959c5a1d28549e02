"""What runs in the tiny machine: the scripts that load drivers, read the seed and answer SSH.

It reads its NoCloud seed as cloud-init does (cloud-init documentation, NoCloud): keys, name, and its address by the
hardware address. A disk that comes from another machine gets host keys of its own. It prints its host keys to the
console, and ends in order when its power button is pressed.
"""

EARLY = ("virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci", "virtio_blk")
"""Drivers for its disk, in the order in which they need each other."""
LATE = (
    "failover", "net_failover", "virtio_net", "virtio_console", "nls_cp437", "nls_ascii", "fat", "vfat", "isofs",
    "button", "evdev",
)  # fmt: skip
"""Drivers for the rest."""

EARLY_INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
for module in {early}; do insmod /modules/$module.ko; done
while [ ! -b /dev/vda2 ]; do sleep 0.05; done
mount -t ext4 -o rw /dev/vda2 /root
mount --move /dev /root/dev
umount /sys /proc
exec switch_root /root /sbin/init
"""

INIT = """#!/bin/sh
export PATH=/sbin:/bin:/usr/sbin:/usr/bin HOME=/root
mount -t proc none /proc
mount -t sysfs none /sys
mkdir -p /dev/pts /run /tmp
mount -t devpts none /dev/pts
mount -t tmpfs none /run
exec </dev/ttyS0 >/dev/ttyS0 2>&1
for module in {late}; do insmod /modules/$module.ko; done
mkdir -p /run/seed
for device in /dev/vd[a-z]; do
  head -c 512 $device | grep -qi CIDATA && mount -t vfat -o ro $device /run/seed
  dd if=$device bs=2048 skip=16 count=1 2>/dev/null | grep -qi CIDATA && mount -t iso9660 -o ro $device /run/seed
done
value() {{ sed -n 's/^ *"'$2'": "\\(.*\\)",\\{{0,1\\}}$/\\1/p' /run/seed/$1 | head -n 1; }}
hostname "$(value meta-data local-hostname)"
mkdir -p /root/.ssh /etc/dropbear
chown -R 0:0 /root
sed -n 's/^ *"\\(\\(ssh-\\|ecdsa-\\).*\\)",\\{{0,1\\}}$/\\1/p' /run/seed/user-data | sort -u >/root/.ssh/authorized_keys
chmod 700 /root /root/.ssh; chmod 600 /root/.ssh/authorized_keys
for device in /sys/class/net/*; do
  [ "$(cat $device/address)" = "$(value network-config mac_address)" ] || continue
  ifconfig ${{device##*/}} up
  ip addr add "$(value network-config address)" dev ${{device##*/}}
  ip route add default via "$(value network-config gateway)"
done
ifconfig lo 127.0.0.1 up
key=/etc/dropbear/dropbear_ed25519_host_key
id="$(value meta-data instance-id)"
[ "$(cat /etc/dropbear/instance 2>/dev/null)" = "$id" ] || rm -f $key
echo "$id" >/etc/dropbear/instance
[ -s $key ] || dropbearkey -t ed25519 -f $key >/run/key 2>&1
echo "-----BEGIN SSH HOST KEY KEYS-----"
dropbearkey -y -f $key | grep '^ssh-'
echo "-----END SSH HOST KEY KEYS-----"
sync
acpid -f -c /etc/acpi -l /dev/null &
[ -x /usr/sbin/qemu-ga ] && qemu-ga -d -m virtio-serial -p /dev/vport*p1 -t /run
dropbear -s -r $key -p 22
echo "the machine is up"
while true; do sleep 3600; done
"""
