# Run in a service's sandbox by a busybox that it may execute: says of each attempt, a line each, whether it succeeded.

try() {
    name=$1
    shift
    if "$@" >/dev/null 2>&1; then echo "$name: yes"; else echo "$name: no"; fi
}
b=$BUSYBOX

# A copy of a program that is allowed, executed from a place where the service may write.
run_copy() { "$b" cp "$b" "$1/busybox" && "$1/busybox" true; }
set_uid() { "$b" cp "$b" /tmp/suid && "$b" chmod u+s /tmp/suid; }
write_back() { "$b" cat "$1" >/tmp/value && "$b" dd if=/tmp/value of="$1" conv=notrunc; }

# Programs
try "execute its own program" "$b" true
try "execute nft" /usr/sbin/nft list tables
try "execute /bin/sh" /bin/sh -c :
try "execute /bin/bash" /bin/bash -c :
try "execute /usr/bin/env" /usr/bin/env
try "execute /bin/kill" /bin/kill -l
for loader in /lib64/ld-linux-x86-64.so.2 /lib/ld-linux-aarch64.so.1; do
    [ -e "$loader" ] && try "execute /bin/sh through the loader" "$loader" /bin/sh -c :
done
for place in $STATE_DIRECTORY $RUNTIME_DIRECTORY /tmp /var/tmp /dev/shm; do
    try "execute a copy in $place" run_copy "$place"
done
try "make a set-user-id file" set_uid

# Files
for place in $STATE_DIRECTORY $RUNTIME_DIRECTORY; do
    try "write $place" "$b" touch "$place/probe"
done
for place in /etc /etc/wg-appliance /usr/local/bin /usr/local/lib/wg-appliance /var/lib /var/log /run /root /home /opt; do
    try "write $place" "$b" touch "$place/probe"
done
try "read /root" "$b" cat /root/secret
try "read /home" "$b" cat /home/secret
try "read /etc/shadow" "$b" cat /etc/shadow
try "read the configuration" "$b" cat /etc/wg-appliance/config.toml
try "see what another service has in /tmp" "$b" cat /tmp/of-another

# The kernel
try "read the boot id" "$b" cat /proc/sys/kernel/random/boot_id
try "set net.ipv4.ip_forward" write_back /proc/sys/net/ipv4/ip_forward
try "set kernel.core_pattern" write_back /proc/sys/kernel/core_pattern
try "set vm.swappiness" write_back /proc/sys/vm/swappiness
try "write /sys" write_back /sys/kernel/mm/transparent_hugepage/enabled
try "see other users' processes" "$b" test -e /proc/1
try "open /dev/net/tun" "$b" dd if=/dev/net/tun of=/dev/null bs=1 count=0
try "read /dev/kmsg" "$b" dd if=/dev/kmsg of=/dev/null bs=1 count=0
try "make a device" "$b" mknod /tmp/device c 1 3
try "change the root" "$b" chroot /tmp /busybox true
try "mount" "$b" mount -t tmpfs none /tmp
try "make a namespace" "$b" unshare --user "$b" true
try "ask timedated whether the clock is synchronised" timedatectl show --property=NTPSynchronized --value
try "set the clock" "$b" adjtimex -q -t 10000
try "set the host's name" "$b" hostname probe
try "become root" "$b" su -c true
try "raise its priority" "$b" renice -n -5 -p $$

for place in $STATE_DIRECTORY $RUNTIME_DIRECTORY; do
    "$b" rm -f "$place/busybox" "$place/probe"
done
