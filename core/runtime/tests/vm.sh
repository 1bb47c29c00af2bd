#!/usr/bin/env bash
# Runs the tests of core/sys and core/runtime in a virtual machine with control groups version 2 and the kernel of
# Debian's stable release: what a host with version 1 cannot show. Emulates, so that it needs no /dev/kvm; takes two minutes.
# Installs qemu and cpio, and fetches a kernel package (27 MB) that it unpacks without installing it.
#
# usage: core/runtime/tests/vm.sh [name of a test...]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
. tests/setup.sh
need_packages busybox-static cpio jq qemu-system-x86

work=$PWD/target/vm
root=$work/root
mkdir -p "$work"
if [ ! -e "$work/kernel/boot" ]; then
  package=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image/ { print $2; exit }')
  (cd "$work" && apt-get download -qq "$package" && dpkg -x "$package"_*.deb kernel)
fi

cargo build -q -p gantry-monitor
binaries=$(cargo test -q -p gantry-sys -p gantry-runtime --no-run --message-format=json |
  jq -r 'select(.executable != null and .profile.test) | "\(.target.name) \(.executable)"')
binary() { awk -v name="$1" '$1 == name { print $2 }' <<<"$binaries"; }

# The tests look for the monitor one directory above their own.
rm -rf "$root"
mkdir -p "$root"/{bin,usr/bin,tests/deps,etc,root,modules,lib64,lib/x86_64-linux-gnu}
cp /bin/busybox "$root/bin/"
ln -s ../../bin/busybox "$root/usr/bin/busybox"
for name in $(/bin/busybox --list | grep -vx busybox); do ln -sf /bin/busybox "$root/bin/$name"; done
strip -o "$root/tests/deps/sys" "$(binary gantry_sys)"
strip -o "$root/tests/deps/native" "$(binary native)"
strip -o "$root/tests/gantry-monitor" target/debug/gantry-monitor
for file in "$root"/tests/deps/* "$root/tests/gantry-monitor"; do
  ldd "$file" | grep -o '/[^ ]*' | while read -r library; do cp -L "$library" "$root$(dirname "$library")/"; done
done
find "$work/kernel/lib/modules" -name overlay.ko -exec cp {} "$root/modules/" \;
echo root:x:0:0:root:/root:/bin/sh >"$root/etc/passwd"
echo root:x:0: >"$root/etc/group"

# pivot_root needs a root that is a mount of its own, which an initramfs is not.
cat >"$root/init" <<'EOF'
#!/bin/sh
export PATH=/bin
mkdir /new
mount -t tmpfs -o size=700m root /new
for dir in bin usr lib lib64 etc root modules tests tests.sh; do cp -a /$dir /new/; done
mkdir -p /new/proc /new/sys /new/dev /new/tmp /new/run
exec switch_root /new /tests.sh
EOF
cat >"$root/tests.sh" <<EOF
#!/bin/sh
export PATH=/bin HOME=/root RUST_BACKTRACE=0
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t cgroup2 cgroup2 /sys/fs/cgroup
insmod /modules/overlay.ko
# Networks are tested on the host: this kernel's modules for them are not here.
/tests/deps/sys --test-threads=1 --skip net --skip nft --skip socket $* && /tests/deps/native --test-threads=1 $* && echo ALL PASSED
poweroff -f
EOF
chmod +x "$root/init" "$root/tests.sh"
(cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$work/initrd.gz"

timeout 900 qemu-system-x86_64 -accel tcg -cpu max -m 1500 -smp 2 -nographic -no-reboot \
  -kernel "$work"/kernel/boot/vmlinuz-* -initrd "$work/initrd.gz" \
  -append 'console=ttyS0 quiet panic=-1 mitigations=off' </dev/null | tee "$work/log"
grep -q 'ALL PASSED' "$work/log"
