#!/bin/sh
# The first process of the guest: mounts, loads the drivers, runs the checks, powers off. All of its output is the serial console.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 NO_COLOR=1
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev 2>/dev/null
exec </dev/console >/dev/console 2>&1
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf -o mode=700 bpf /sys/fs/bpf
mkdir -p /run/sshd /run/netns /run/lock
# As systemd sets it.
mount --make-rshared /
hostname guest
# The catalogue keeps a generation for each of its policies, with some sixty descriptors.
ulimit -n 65536
ip link set lo up
# A module or, in newer kernels, built in.
modprobe --quiet virtio_pci
for module in virtio_net veth; do
    modprobe "$module" || echo "@@ missing.$module the module can't be loaded"
done
cd /kernels || exit 1
bash ./guest.sh
echo "@@ seconds.all $(cut -d. -f1 /proc/uptime)"
echo "@@ end ok"
sync
echo o >/proc/sysrq-trigger
sleep 60
