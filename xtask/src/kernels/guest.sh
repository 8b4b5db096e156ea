# What is asked of a kernel. Each answer is a line `@@ KEY VALUE` on the console; what the tests print stands there as it is.

AGENT=/kernels/mpesa-fw
# Seconds for one test.
PATIENCE=420
# When, by the clock of the machine outside, no further test is begun. Here seconds are instructions; the real-time clock
# alone shows that one.
UNTIL=$(sed -n 's/.*mpesa_fw\.until=\([0-9]*\).*/\1/p' /proc/cmdline)
outside() { cat /sys/class/rtc/rtc0/since_epoch; }
# The tests wait that many times longer than on a machine that is not emulated.
export MPESA_FW_TEST_PATIENCE=5

say() { echo "@@ $*"; }
# Whole seconds since the kernel began.
up() { cut -d. -f1 /proc/uptime; }

# Facts that need no firewall, from a witness that is not ours.
say kernel "$(uname -r)"
say btf "$([ -r /sys/kernel/btf/vmlinux ] && echo yes || echo no)"
# (`bpftool feature probe` tries hundreds of programs to say so, which takes a minute in emulation.)
symbol() { grep -q " $1\$" /proc/kallsyms && echo yes || echo no; }
say ring_buffer "$(symbol bpf_ringbuf_reserve)"
say bpf_loop "$(symbol bpf_loop)"
say tcx "$(symbol tcx_prog_attach)"

. ./smoke.sh
smoke veth
smoke virtio
say seconds.scenario "$(up)"

# Where the agent refuses to start there is nothing that they could test. One test after the other (an emulated processor
# has no time for two), each in a process of its own: what one said is kept, however the next one ends.
if grep -q . /tmp/smoke-veth/ran 2>/dev/null; then
    while read -r name; do
        say program "$name"
        "./$name" --ignored --list --format=terse </dev/null | sed -n 's/: test$//p' >/tmp/tests
        [ -s /tmp/tests ] || say test "? 1 0"
        while read -r test; do
            if grep -qxF "$name $test" left.list; then continue; fi
            if [ "$(outside)" -ge "$UNTIL" ]; then
                say test "$test late 0"
                continue
            fi
            began=$(up)
            timeout --kill-after=10 "$PATIENCE" \
                "./$name" --exact "$test" --ignored --test-threads=1 --show-output --color=never </dev/null
            say test "$test $? $(($(up) - began))"
        done </tmp/tests
    done <tests.list
fi
