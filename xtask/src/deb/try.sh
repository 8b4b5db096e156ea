# Runs as root inside a minimal Debian root, in network and mount namespaces of its own, and tries /mpesa-fw.deb
# as an admin would: install, start, stop, upgrade, remove, purge.

say() { echo "package: ok: $*"; }
fail() { echo "package: FAILED: $*" >&2; exit 1; }
# expect WHAT EXPECTED SEEN
expect() { if [ "$2" = "$3" ]; then say "$1"; else fail "$1: expected '$2', seen '$3'"; fi; }
contains() { case "$2" in *"$3"*) say "$1" ;; *) fail "$1: '$3' is not in: $2" ;; esac; }
mode() { stat --format='%a %U %G' "$1"; }
pins() { find /sys/fs/bpf -mindepth 2 -type f | wc -l; }

rules=/etc/mpesa-fw/rules.yaml

# Installation
said=$(dpkg --install /mpesa-fw.deb 2>&1) || fail "installation: $said"
contains 'installation says that nothing is dropped yet' "$said" 'observe mode'
expect 'the program' '755 root root' "$(mode /usr/bin/mpesa-fw)"
expect 'the directory of the rules is for root only' '700 root root' "$(mode /etc/mpesa-fw)"
expect 'the rules are for root only' '600 root root' "$(mode $rules)"
expect 'the shipped set too' '600 root root' "$(mode /etc/mpesa-fw/safaricom.yaml)"
conffiles=$(dpkg-query --show --showformat='${Conffiles}' mpesa-fw)
contains 'the rules are a conf-file' "$conffiles" "$rules "
contains 'the shipped set is a conf-file' "$conffiles" '/etc/mpesa-fw/safaricom.yaml '
grep -q '^mode: observe' $rules || fail 'the rules are not in observe mode'
say 'the rules are in observe mode'
for file in /usr/lib/systemd/system/mpesa-fw.service /usr/share/man/man8/mpesa-fw.8.gz \
    /usr/share/bash-completion/completions/mpesa-fw /usr/share/zsh/vendor-completions/_mpesa-fw \
    /usr/share/fish/vendor_completions.d/mpesa-fw.fish /usr/share/doc/mpesa-fw/copyright \
    /usr/share/doc/mpesa-fw/examples/shared-443.yaml; do
    [ -s "$file" ] || fail "$file is missing or empty"
done
say 'unit, man page, completions, examples'
if zcat /usr/share/man/man8/mpesa-fw.8.gz | grep -q '^\.TH mpesa-fw 8'; then say 'the man page is one'; else fail 'man page'; fi
contains 'the program says its version' "$(mpesa-fw --version)" \
    "$(dpkg-query --show --showformat='${Version}' mpesa-fw | sed 's/-[^-]*$//')"
mpesa-fw check $rules || fail 'the shipped rules are not valid'
say 'the shipped rules are valid'
expect 'the unit is enabled' enabled "$(systemctl is-enabled mpesa-fw.service)"
expect 'systemd-analyze verify says nothing' '' \
    "$(systemd-analyze verify --man=no mpesa-fw.service 2>&1 || echo "exit $?")"

# The agent, with the capabilities that the unit leaves it
ip link set lo up
ip link add eth0 type veth peer name peer0
ip link set eth0 up
ip link set peer0 up
ip address add 10.0.0.5/24 dev eth0
ip route add default via 10.0.0.1
capabilities=$(sed -n 's/^CapabilityBoundingSet=//p' /usr/lib/systemd/system/mpesa-fw.service |
    tr '[:upper:] ' '[:lower:],' | sed 's/cap_/+/g')
start() {
    : >/agent.log
    setpriv --bounding-set="-all,$capabilities" --inh-caps="-all,$capabilities" --no-new-privs \
        mpesa-fw run --rules $rules >>/agent.log 2>&1 &
    agent=$!
    for _ in $(seq 100); do
        if grep -q observing /agent.log; then return 0; fi
        if ! kill -0 $agent 2>/dev/null; then break; fi
        sleep 0.1
    done
    fail "the agent did not come to observe: $(cat /agent.log)"
}
stop() { kill $agent; wait $agent || fail "the agent ended with $?: $(cat /agent.log)"; }
mkdir -p /run/mpesa-fw
start
say 'the agent observes with the capabilities of the unit'
mpesa-fw status >/dev/null || fail 'mpesa-fw status'
mpesa-fw reload >/dev/null || fail "mpesa-fw reload: $(cat /agent.log)"
say 'it answers and reloads'
stop
[ "$(pins)" -gt 0 ] || fail 'stopping the agent took the firewall away'
say 'stopping the agent leaves the firewall in place'

# Upgrade
echo '# of the admin' >>$rules
chmod 0750 /etc/mpesa-fw
before=$(pins)
said=$(dpkg --install --force-confold /mpesa-fw.deb 2>&1) || fail "upgrade: $said"
expect 'an upgrade leaves the firewall in place' "$before" "$(pins)"
expect "an upgrade keeps the admin's rules" '# of the admin' "$(tail -n 1 $rules)"
expect "an upgrade keeps the admin's mode of the directory" '750 root root' "$(mode /etc/mpesa-fw)"
start
say 'the agent adopts it again'
stop

# Removal
said=$(dpkg --remove mpesa-fw 2>&1) || fail "removal: $said"
contains 'removal says that protection ends' "$said" 'PROTECTION OF THIS HOST ENDS'
expect 'removal detaches the firewall' 0 "$(pins)"
[ ! -e /usr/bin/mpesa-fw ] || fail 'the program is still there'
[ -e $rules ] || fail 'removal took the rules away'
say 'removal keeps the rules'
said=$(dpkg --purge mpesa-fw 2>&1) || fail "purge: $said"
for path in /etc/mpesa-fw /var/lib/mpesa-fw; do
    [ ! -e $path ] || fail "purge left $path: $(ls -A $path)"
done
say 'purge takes everything'
