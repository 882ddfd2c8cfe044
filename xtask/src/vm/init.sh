#!/bin/busybox sh
# The first and only program of the guest: runs what /job says, tells it on the second serial
# port in the lines that frames.rs reads, and switches the machine off. The first serial port is
# the kernel's.

# Complains of what is there already: the tools that are no busybox'.
/bin/busybox --install -s /bin 2>/dev/null
export PATH=/bin

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
mount -t tracefs tracefs /sys/kernel/tracing
mount -t debugfs debugfs /sys/kernel/debug
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
chmod 1777 /tmp
ip link set lo up
for module in $(cat /modules/order); do
    insmod "/modules/$module.ko"
done

exec </dev/null >/dev/ttyS1 2>&1
stty -F /dev/ttyS1 -onlcr 2>/dev/null

say() {
    echo "@@tcptrace $*"
}

# What it prints goes out between a line that it begins and one that says how it ended, with the
# guest's own time. A line of its own, wherever its output left the cursor.
frame() {
    name=$1
    shift
    say "begin $name $(cut -d' ' -f1 /proc/uptime)"
    "$@" 2>&1
    code=$?
    echo
    say "end $name $code $(cut -d' ' -f1 /proc/uptime)"
}

# /bin/tcptrace-as-nobody: the tracer without any privilege but those that doctor names.
as_nobody() {
    named=$(tcptrace doctor --json | sed -n 's/.*"setcap":"\([^"+]*\)+ep".*/\1/p')
    named="-all,$(echo "$named" | sed 's/cap_/+/g')"
    cat >/bin/tcptrace-as-nobody <<END
#!/bin/busybox sh
exec /bin/setpriv --reuid 65534 --regid 65534 --clear-groups --bounding-set "$named" \
    --inh-caps "$named" --ambient-caps "$named" /bin/tcptrace "\$@"
END
    chmod 755 /bin/tcptrace-as-nobody
}

. /job
if [ "$TCPTRACE_BIN" = /bin/tcptrace-as-nobody ]; then
    as_nobody
fi
frame uname uname -a
frame doctor verifier /tmp/verifier \
    tcptrace doctor ${TCPTRACE_HOOKS:+--hooks "$TCPTRACE_HOOKS"} --json
frame verifier cat /tmp/verifier
frame probe tcptrace watch ${TCPTRACE_HOOKS:+--hooks "$TCPTRACE_HOOKS"} --duration 1s --json
# What the kernel complains about from here on is our doing.
echo "<3>tcptrace: the tests begin" >/dev/kmsg
for suite in $suites; do
    # shellcheck disable=SC2086
    frame "$suite" "/suite/$suite" --test-threads=1 $filters
done
say "done"
sync
poweroff -f
