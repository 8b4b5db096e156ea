# The firewall on one interface, from start to detach. `smoke veth` makes the link itself; `smoke virtio` takes the two
# NICs that QEMU connects with each other, so that frames go through a real driver.

HOST4=203.0.113.10 FRIEND=203.0.113.20 STRANGER=203.0.113.66

# check KEY COMMAND...: whether it succeeds.
check() {
    local key=$1; shift
    if "$@" >/tmp/check 2>&1; then say "$kind.$key ok"; else
        say "$kind.$key FAILED"
        sed "s/^/    $kind.$key: /" /tmp/check
    fi
}
refused() { ! "$@"; }
inside() { local where=$1; shift; nsenter --net=/run/netns/"$where" -- "$@"; }
# within SECONDS COMMAND...: whether it succeeds some time.
within() {
    local end=$(($(date +%s) + $1)); shift
    until "$@"; do [ "$(date +%s)" -lt "$end" ] || return 1; sleep 0.2; done
}

agent() { inside host "$AGENT" --runtime-dir "$at/runtime" "$@"; }
start() {
    # Not by `inside`: a function in the background is a shell of its own, and killing that would leave the agent alone.
    nsenter --net=/run/netns/host -- "$AGENT" run --rules "$at/rules.yaml" --state-dir "$at/state" --runtime-dir "$at/runtime" \
        --bpffs /sys/fs/bpf/"$kind" >>"$at/log" 2>&1 &
    agent_pid=$!
    within 90 ready_or_ended && kill -0 "$agent_pid" 2>/dev/null && return
    tail -n 40 "$at/log"
    return 1
}
ready_or_ended() {
    ! kill -0 "$agent_pid" 2>/dev/null || inside host curl -fsS --max-time 5 http://127.0.0.1:9477/readyz 2>/dev/null
}
# fetch FROM: whether the page is served to that address.
fetch() { inside peer curl -fsS --max-time 4 --interface "$1" "http://$HOST4/" | grep -q here; }
# leave PORT: whether a connection from the host gets out to the friend.
leave() { inside host curl -fsS --max-time 4 "http://$FRIEND:$1/" | grep -q here; }
dropped() {
    inside host curl -fsS http://127.0.0.1:9477/metrics |
        grep '^mpesa_fw_dropped_packets_total' | grep "direction=\"$1\"" | grep -q "reason=\"$2\".* [1-9]"
}
# As many reloads as go into two thousand pings, of which none may be lost. (Three at least: on Linux 7.2 one takes 2.5 s here.)
reloads() {
    local count=0
    inside peer ping -q -i 0.005 -c 2000 -W 5 -I "$FRIEND" "$HOST4" >"$at/pings" 2>&1 &
    local pings=$!
    while kill -0 "$pings" 2>/dev/null; do
        count=$((count + 1))
        rules "[$FRIEND, 198.51.100.$count]" >"$at/rules.yaml"
        agent reload || { kill "$pings"; return 1; }
    done
    wait "$pings"
    cat "$at/pings"
    echo "$count reloads"
    echo "$count" >"$at/reloads"
    [ "$count" -ge 3 ] && grep -q ' 2000 received, 0% packet loss' "$at/pings"
}

rules() {
    cat <<YAML
version: 1
mode: enforce
interfaces: [$name]
ingress:
  default: drop
  services:
    - { name: web, ports: [80], from: $1 }
    # The rest is not used: so that everything that a policy can ask for is verified too.
    - { name: limited, ports: [81], from: [any], limit: { new_connections: 10/s, per: source }, by: { unit: nginx.service } }
    - { name: local, ports: [82], to: ["2001:db8::1", $HOST4], from: ["2001:db8::/32"] }
    - { name: ping, protocol: icmp, types: [echo-request], from: $1 }
egress:
  default: drop
  allow:
    - { name: out, to: [$FRIEND], ports: [8080] }
    - { name: dns, to: [192.0.2.53, "2001:db8::53"], protocol: udp, ports: [53] }
    - { name: cloud, to: ["*.example.net"], ports: [443], by: [{ user: root }, { unit: payments.service }] }
YAML
}

serve() {
    local directory=$at/nginx-$1; shift
    mkdir -p "$directory"
    { echo "daemon off; worker_processes 1; pid $directory/pid; error_log $directory/error.log;
       events {} http { access_log off; "
      for port; do echo "server { listen $port; location / { return 200 'here'; } }"; done
      echo "}"; } >"$directory/nginx.conf"
    nginx -c "$directory/nginx.conf"
}

smoke() {
    local kind=$1 name agent_pid at=/tmp/smoke-$1
    mkdir -p "$at/state"; chmod 700 "$at"; : >"$at/rules.yaml"; chmod 600 "$at/rules.yaml"
    ip netns add host && ip netns add peer
    inside host ip link set lo up
    case $kind in
        veth)
            name=va
            ip link add va netns host type veth peer name vb netns peer ;;
        virtio)
            name=$(nic 52:54:00:00:00:0a)
            ip link set "$name" netns host && ip link set "$(nic 52:54:00:00:00:0b)" name vb netns peer ||
                { say "$kind.link FAILED"; return; }
            say "$kind.driver $(inside host ethtool -i "$name" | sed -n 's/^driver: //p')"
            say "$kind.offloads $(inside host ethtool -k "$name" | grep -E '^(large-receive|generic-receive|rx-gro-hw|rx-check|tcp-segm)' | tr -d '\t' | tr '\n' ';')"
            say "$kind.queues $(inside host ethtool -l "$name" | sed -n 's/^Combined:[^0-9]*//p' | tr '\n' '/')" ;;
    esac
    inside host ip address add $HOST4/24 dev "$name"; inside host ip link set "$name" up
    inside peer ip address add $FRIEND/24 dev vb; inside peer ip address add $STRANGER/24 dev vb
    inside peer ip link set vb up
    inside host bash -c "$(declare -f serve); at=$at; serve host 80" & local host_web=$!
    inside peer bash -c "$(declare -f serve); at=$at; serve peer 8080 9090" & local peer_web=$!
    check link within 30 fetch "$STRANGER"
    check link_out within 30 leave 9090

    rules "[$FRIEND]" >"$at/rules.yaml"
    check start start
    if ! kill -0 "$agent_pid" 2>/dev/null; then
        wait "$agent_pid"
        say "$kind.exit $?"
        check nothing_left eval '! find /sys/fs/bpf/"$kind" 2>/dev/null | grep .'
        say "$kind.refusal $(tr '\n' ' ' <"$at/log" | cut -c 1-600)"
        clear_away
        return
    fi
    echo "$kind" >"$at/ran"
    agent status --format json >"$at/status" 2>"$at/status.error"
    say "$kind.ingress $(jq -r '.interfaces[0].ingress' "$at/status")"
    say "$kind.egress $(jq -r '.interfaces[0].egress' "$at/status")"
    jq -r '.warnings[]' "$at/status" | sed "s/^/@@ $kind.note /"
    check allowed fetch "$FRIEND"
    check denied refused fetch "$STRANGER"
    check denied_counted dropped ingress source_not_allowed
    check egress_allowed leave 8080
    check egress_denied refused leave 9090
    check egress_told inside host sh -c 'curl -sv --max-time 4 "http://$1:9090/" 2>&1 | grep -q "Operation not permitted"' - "$FRIEND"
    check ping_denied refused inside host ping -q -c 1 -W 2 "$FRIEND"
    check egress_counted dropped egress no_destination
    check reload reloads
    say "$kind.reloads $(cat "$at/reloads")"
    kill -9 "$agent_pid" 2>/dev/null; wait "$agent_pid" 2>/dev/null
    check dead refused agent status
    check dead_allowed fetch "$FRIEND"
    check dead_denied refused fetch "$STRANGER"
    check dead_egress refused leave 9090
    check again start
    check again_allowed fetch "$FRIEND"
    check again_denied refused fetch "$STRANGER"
    check again_counted dropped ingress source_not_allowed
    check detach agent detach
    wait "$agent_pid" 2>/dev/null
    check open_again fetch "$STRANGER"

    # Frames of more than one buffer.
    inside host ip link set "$name" mtu 9000; inside peer ip link set vb mtu 9000
    check jumbo_start start
    say "$kind.jumbo_ingress $(agent status --format json | jq -r '.interfaces[0].ingress')"
    agent status --format json | jq -r '.warnings[]' | sed "s/^/@@ $kind.note (MTU 9000) /"
    check jumbo_allowed inside peer ping -q -M do -s 8000 -c 3 -W 5 -I "$FRIEND" "$HOST4"
    check jumbo_denied refused inside peer ping -q -M do -s 8000 -c 1 -W 3 -I "$STRANGER" "$HOST4"
    check jumbo_detach agent detach
    grep -E 'WARN|ERROR' "$at/log" | sort -u | sed "s/^/@@ $kind.log /"
    clear_away
}

clear_away() {
    kill "$host_web" "$peer_web" "$agent_pid" 2>/dev/null; wait 2>/dev/null
    case $kind in virtio) inside host ip link set "$name" netns 1; inside peer ip link set vb netns 1 ;; esac
    ip netns delete host; ip netns delete peer
}

# Name of the NIC with this hardware address.
nic() { ip -json link | jq -r ".[] | select(.address == \"$1\") | .ifname"; }
