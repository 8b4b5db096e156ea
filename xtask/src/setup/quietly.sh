# Runs "$@" while no package may start a service: nginx, sshd and Prometheus are wanted as programs for tests that run in
# network namespaces, never as services of this machine. The means is policy-rc.d (Debian Policy 9.3.3.1).
# $POLICY is the path of that file.
set -u
saved="$POLICY.before-mpesa-fw"

restore() {
    rm -f "$POLICY"
    if [ -e "$saved" ]; then mv "$saved" "$POLICY"; fi
}

# Left behind by one that was killed outright.
if [ -e "$POLICY" ] && grep -q 'mpesa-fw set-up' "$POLICY"; then restore; fi
if [ -e "$POLICY" ]; then mv "$POLICY" "$saved"; fi
child=
ended() {
    # What is being configured is finished first; only then may services start again.
    if [ -n "$child" ]; then kill -TERM "$child" 2>/dev/null; wait "$child"; fi
    exit "$1"
}
trap restore EXIT
trap 'ended 129' HUP
trap 'ended 130' INT
trap 'ended 143' TERM

# Says no only while this process lives, so that it does no harm if that is killed.
cat > "$POLICY" <<END
#!/bin/sh
# mpesa-fw set-up, process $$: no package starts a service meanwhile.
if kill -0 $$ 2>/dev/null; then exit 101; fi
if [ -x "$saved" ]; then exec "$saved" "\$@"; fi
exit 0
END
chmod 755 "$POLICY"

# In the background, because a shell answers a signal only between commands.
"$@" &
child=$!
wait "$child"
