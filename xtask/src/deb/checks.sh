# Runs as a service under the systemd of a minimal Debian root, with /mpesa-fw.deb installed before the boot.

say() { echo "package: ok: $*"; }
fail() { echo "package: FAILED: $*" >&2; systemctl status --no-pager mpesa-fw >&2 || true; exit 1; }
pins() { find /sys/fs/bpf -mindepth 2 -type f | wc -l; }
state() { systemctl show --property="$1" --value mpesa-fw; }
active() { if [ "$(state ActiveState)" = active ]; then say "$1"; else fail "$1: $(state ActiveState)"; fi; }
pinned() { if [ "$(pins)" -gt 0 ]; then say "$1"; else fail "$1"; fi; }

rules=/etc/mpesa-fw/rules.yaml

active 'the agent runs before the network is brought up, in the sandbox of its unit'
pinned "its pins are in the host's bpffs"
mpesa-fw status >/dev/null || fail 'mpesa-fw status'

systemctl reload mpesa-fw || fail 'systemctl reload'
say 'systemctl reload'
cp -p $rules /rules.good

# Without names, which nobody resolves here.
printf '%s\n' 'version: 1' 'mode: observe' 'interfaces: [eth0]' 'ingress: { default: drop }' 'egress: { default: drop }' >$rules
systemctl reload mpesa-fw || fail 'systemctl reload of short rules'
for _ in $(seq 100); do
    if mpesa-fw status | grep -q '^at connect: what is denied'; then break; fi
    sleep 0.1
done
mpesa-fw status | grep -q '^at connect: what is denied' || fail "at connect: $(mpesa-fw status | grep '^at connect')"
say 'the sandbox lets the agent see by which way packets leave'
journalctl --no-pager --unit mpesa-fw >/journal.log
grep -q observing /journal.log || fail "no journal of the agent: $(cat /journal.log)"
if grep -q 'whether the clock is right' /journal.log; then fail "$(grep clock /journal.log)"; fi
say 'the sandbox lets the agent know whether the clock is right'

# Units as systemd makes them: an instance of a template, a slice, and one that is neither. Somebody is to be there to send to.
ip neighbour replace 10.0.0.9 lladdr 02:00:00:00:00:09 dev eth0
for unit in payments@.service reports.service other.service; do
    printf '%s\n' '[Service]' "ExecStart=/bin/bash -c 'while :; do (echo >/dev/tcp/10.0.0.9/443) & sleep 0.3; kill \$\$!; done'" >/etc/systemd/system/$unit
done
printf '%s\n' 'Slice=reports.slice' >>/etc/systemd/system/reports.service
systemctl daemon-reload
printf '%s\n' 'version: 1' 'mode: enforce' 'interfaces: [eth0]' 'ingress: { default: drop }' 'egress:' '  default: drop' '  allow:' \
    '    - { name: api, to: [10.0.0.9], ports: [443], by: [{ unit: payments@.service }, { unit: reports.slice }] }' >$rules
systemctl reload mpesa-fw || fail 'systemctl reload of rules for units'
# seen UNIT opened|denied
seen() {
    for _ in $(seq 60); do
        if mpesa-fw audit egress --format json | tr -d ' \n' | grep -q "$2"; then return 0; fi
        sleep 0.5
    done
    fail "$1: $(mpesa-fw audit egress)"
}
systemctl start payments@ke.service reports.service other.service
seen 'an instance of a template may' '"unit":"payments@ke.service"},[^}]*"opened":[1-9]'
seen 'a service of a slice may' '"unit":"reports.service"},[^}]*"opened":[1-9]'
seen 'another service may not' '"unit":"other.service"},[^}]*"opened":0,"denied":[1-9]'
say 'rules for a template and a slice hold under systemd, and the audit names the units'
systemctl restart payments@ke.service
may() { mpesa-fw why --egress --to 10.0.0.9 --port 443 --unit payments@ke.service >/dev/null; }
for _ in $(seq 100); do
    if may; then break; fi
    sleep 0.1
done
may || fail "after a restart: $(mpesa-fw status)"
if mpesa-fw why --egress --to 10.0.0.9 --port 443 --unit other.service >/dev/null; then fail 'why lets another service'; fi
say 'a unit that was restarted is known, and another is not'
systemctl stop payments@ke.service reports.service other.service
cp -p /rules.good $rules
systemctl reload mpesa-fw || fail 'systemctl reload back'

echo 'nonsense: true' >>$rules
if systemctl reload mpesa-fw 2>/dev/null; then fail 'systemctl reload of wrong rules succeeded'; fi
active 'systemctl reload of wrong rules fails, and the agent goes on'
cp -p /rules.good $rules

kill -KILL "$(state MainPID)"
for _ in $(seq 100); do
    if [ "$(state NRestarts)" = 1 ] && [ "$(state ActiveState)" = active ]; then break; fi
    pinned 'a killed agent leaves the firewall in place' >/dev/null
    sleep 0.1
done
active 'a killed agent comes back, the firewall stayed'

systemctl stop mpesa-fw
pinned 'systemctl stop leaves the firewall in place'
systemctl start mpesa-fw || fail 'systemctl start'
active 'systemctl start adopts it'

process=$(state MainPID)
dpkg --install --force-confold /mpesa-fw.deb >/upgrade.log 2>&1 || fail "upgrade: $(cat /upgrade.log)"
active 'an upgrade starts the new agent'
[ "$(state MainPID)" != "$process" ] || fail 'an upgrade left the old agent'
pinned 'an upgrade leaves the firewall in place'

dpkg --remove mpesa-fw >/remove.log 2>&1 || fail "removal: $(cat /remove.log)"
[ "$(pins)" = 0 ] || fail "removal left $(pins) pins: $(cat /remove.log)"
say 'removal stops the agent and detaches the firewall'
