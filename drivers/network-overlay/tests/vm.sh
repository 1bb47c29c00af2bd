#!/usr/bin/env bash
# Runs the driver's tests of encryption in a virtual machine with the kernel of Debian's stable release, for machines whose
# kernel has no ESP. Emulates, so that it needs no /dev/kvm; takes two minutes. Installs qemu and cpio, and fetches a kernel
# package (27 MB) that it unpacks without installing it.
#
# usage: drivers/network-overlay/tests/vm.sh [name of a test...]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
. tests/setup.sh
need_packages busybox-static cpio curl dash etcd-server iproute2 jq kmod qemu-system-x86 util-linux

work=$PWD/target/vm
root=$work/overlay
mkdir -p "$work"
if [ ! -e "$work/kernel/boot" ]; then
  package=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image/ { print $2; exit }')
  (cd "$work" && apt-get download -qq "$package" && dpkg -x "$package"_*.deb kernel)
fi
binaries=$(cargo test -q -p gantry-network-overlay -p gantry-sys --lib --no-run --message-format=json |
  jq -r 'select(.executable != null and .profile.test) | "\(.target.name) \(.executable)"')
binary() { awk -v name="$1" '$1 == name { print $2 }' <<<"$binaries"; }

rm -rf "$root"
mkdir -p "$root"/{bin,etc,modules,proc,sys,dev,tmp,run,lib64,lib/x86_64-linux-gnu}
cp /bin/busybox "$root/bin/"
for name in $(/bin/busybox --list | grep -vxE 'busybox|ip|nsenter|sh'); do ln -sf /bin/busybox "$root/bin/$name"; done
strip -o "$root/bin/overlay" "$(binary gantry_network_overlay)"
strip -o "$root/bin/sys" "$(binary gantry_sys)"
# Busybox's own shell would call Busybox's ip.
cp -L /bin/dash "$root/bin/sh"
for program in ip nsenter curl etcd; do cp -L "$(command -v $program)" "$root/bin/"; done
for file in "$root"/bin/{overlay,sys,sh,ip,nsenter,curl,etcd}; do
  ldd "$file" | grep -o '/[^ ]*' | while read -r library; do
    mkdir -p "$root$(dirname "$library")"
    cp -L "$library" "$root$(dirname "$library")/"
  done
done
# In an order in which each finds what it needs: nobody is there to load a module when the kernel asks for it, as seqiv does
# for a generator of random numbers.
depmod -b "$work/kernel" "$(ls "$work/kernel/lib/modules")"
modules=$(find "$work/kernel/lib/modules" -name modules.dep)
for module in veth bridge vxlan xfrm_user esp4 esp6 sha512_generic jitterentropy_rng drbg \
  ctr ghash-generic authenc seqiv gcm aesni-intel nf_tables; do
  line=$(grep -E "/${module//[-_]/[-_]}\.ko:" "$modules") || continue
  for path in $(tr ' ' '\n' <<<"${line/:/}" | tac); do
    name=$(basename "$path")
    [ -e "$root/modules/$name" ] && continue
    cp "$(dirname "$modules")/$path" "$root/modules/"
    echo "insmod /modules/$name" >>"$root/insmod.sh"
  done
done
echo root:x:0:0:root:/root:/bin/sh >"$root/etc/passwd"
cat >"$root/init" <<EOF
#!/bin/sh
export PATH=/bin HOME=/tmp RUST_BACKTRACE=0 GANTRY_TEST_ESP=here
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
sh /insmod.sh
ip link set lo up
sys --test-threads=1 ipsec vxlan && overlay --test-threads=1 ${*:-encrypted} && echo ALL PASSED
poweroff -f
EOF
chmod +x "$root/init"
(cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$work/overlay.gz"

timeout 900 qemu-system-x86_64 -accel tcg -cpu max -m 1500 -smp 2 -nographic -no-reboot \
  -kernel "$work"/kernel/boot/vmlinuz-* -initrd "$work/overlay.gz" \
  -append 'console=ttyS0 quiet panic=-1 mitigations=off' </dev/null | tee "$work/overlay.log"
grep -q 'ALL PASSED' "$work/overlay.log"
