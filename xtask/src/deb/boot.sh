# Boots systemd in the root $1, in namespaces of its own, with /checks.sh as a service, and ends as that ends.
root=$1
hierarchy=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
if [ -z "$hierarchy" ]; then
    echo 'package: skipped: the unit under systemd: no cgroup v2 on this machine'
    exit 0
fi
cgroup="$hierarchy/mpesa-fw-package-$$"
mkdir "$cgroup"
trap 'find "$cgroup" -depth -type d -exec rmdir {} \; || true' EXIT

cat >"$root/etc/systemd/system/checks.service" <<'END'
[Unit]
# As the units that bring up the network do: the firewall is to be there by then.
Wants=multi-user.target
After=multi-user.target network-pre.target
SuccessAction=exit-force
FailureAction=exit-force
[Service]
Type=oneshot
ExecStart=/bin/sh -eu /checks.sh
StandardOutput=file:/checks.log
StandardError=file:/checks.log
Environment=DEBIAN_FRONTEND=noninteractive
END
# /dev of this root is made by hand (below), which is not enough for systemd to make a private one.
mkdir -p "$root/etc/systemd/system/mpesa-fw.service.d"
printf '[Service]\nPrivateDevices=no\n' >"$root/etc/systemd/system/mpesa-fw.service.d/here.conf"

inside='
ip link set lo up
ip link add eth0 type veth peer name peer0
ip link set eth0 up
ip link set peer0 up
ip address add 10.0.0.5/24 dev eth0
ip route add default via 10.0.0.1
mount --bind "$1" "$1"
cd "$1"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t bpf -o mode=700 bpf sys/fs/bpf
for directory in run tmp dev; do mount -t tmpfs tmpfs $directory; done
mkdir dev/pts dev/shm
for device in null zero full random urandom tty; do
    touch dev/$device
    mount --bind /dev/$device dev/$device
done
pivot_root . mnt
umount -l /mnt
exec env -i container=mpesa-fw PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot . \
    /lib/systemd/systemd --unit=checks.service --show-status=no
'
ended=0
timeout --kill-after=5 180 sh -euc 'echo $$ >"$1/cgroup.procs"
exec unshare --cgroup --mount --propagation private --net --ipc --uts --pid --fork --kill-child sh -euc "$2" inside "$3"' \
    boot "$cgroup" "$inside" "$root" || ended=$?
cat "$root/checks.log" 2>/dev/null || true
if [ $ended != 0 ]; then
    echo "package: FAILED: the unit under systemd ($ended)" >&2
    journalctl --directory="$root/var/log/journal" --no-pager --unit mpesa-fw 2>/dev/null | tail -n 40 >&2
fi
exit $ended
