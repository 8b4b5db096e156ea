# What is asked of a kernel. Each answer is a line `@@ KEY VALUE` on the console; what the tests print stands there as it is.

AGENT=/kernels/mpesa-fw
# Seconds for one test program.
PATIENCE=420
# The tests wait that many times longer than on a machine that is not emulated.
export MPESA_FW_TEST_PATIENCE=5

say() { echo "@@ $*"; }

# Facts that need no firewall, from a witness that is not ours.
say kernel "$(uname -r)"
say btf "$([ -r /sys/kernel/btf/vmlinux ] && echo yes || echo no)"
bpftool feature probe kernel >/tmp/features 2>&1
feature() { grep -q -- "$1" /tmp/features && echo yes || echo no; }
say ring_buffer "$(feature 'map_type ringbuf is available')"
say bpf_loop "$(feature '- bpf_loop$')"

. ./smoke.sh
smoke veth
smoke virtio

# Where the agent refuses to start there is nothing that they could test.
if grep -q . /tmp/smoke-veth/ran 2>/dev/null; then
    # One test program after the other, one test at a time: an emulated processor has no time for two.
    while read -r name; do
        say program "$name"
        began=$(date +%s)
        timeout --kill-after=10 "$PATIENCE" "./$name" --ignored --test-threads=1 --show-output --color=never </dev/null
        say "exit.$name" "$? $(($(date +%s) - began))"
    done <tests.list
fi
