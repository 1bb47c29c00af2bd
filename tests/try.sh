#!/usr/bin/env bash
# Builds Gantry, starts an engine on a private root and runs a first container on an image made here.
# usage: tests/try.sh [DIR]     DIR: where the engine lives (default: a new directory under /tmp)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tests/setup.sh
need_compiler
cargo build --locked --release --workspace --exclude gantry-e2e --exclude gantry-perf
bin="$PWD/target/release"
dir=${1:-$(mktemp -d /tmp/gantry-try.XXXXXX)}
mkdir -p "$dir"
export DOCKER_HOST="unix://$dir/gantry.sock"
gantry() { as_root env "DOCKER_HOST=$DOCKER_HOST" "$bin/gantry" "$@"; }

if ! gantry version >/dev/null 2>&1; then
  as_root setsid "$bin/gantryd" -H "$DOCKER_HOST" --data-root "$dir/data" --exec-root "$dir/run" \
    --pidfile "$dir/gantryd.pid" --config-file /dev/null >"$dir/gantryd.log" 2>&1 &
  for _ in $(seq 100); do
    gantry version >/dev/null 2>&1 && break
    sleep 0.1
  done
  gantry version >/dev/null || { cat "$dir/gantryd.log"; exit 1; }
fi

# An image out of the host's own busybox: no registry needed.
root=$(mktemp -d)
mkdir -p "$root"/{bin,etc,root,tmp}
cp "$(command -v busybox)" "$root/bin/busybox"
for applet in $("$root/bin/busybox" --list); do
  [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
done
echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
tar -C "$root" --owner=0 --group=0 -c . | gantry import --change 'CMD ["sh"]' - busybox:latest
rm -r "$root"

gantry run --rm busybox echo "Hello from a container."
cat <<END

The engine runs with its files in $dir. Try next:
  export DOCKER_HOST=$DOCKER_HOST PATH=$bin:\$PATH
  gantry run -it --rm busybox                        # a shell in a container
  gantry run -d --name web -p 8080:80 busybox httpd -f -h /etc
  curl http://127.0.0.1:8080/passwd; gantry logs web; gantry rm -f web
  docker ps                                          # the docker CLI works too
  gantry run --rm -it debian:12 bash                 # from Docker Hub, where that is reachable
  gantry driver ls                                   # what drives storage, networks, volumes and registries
Stop it:  gantry ps -aq | xargs -r gantry rm -f; kill \$(cat $dir/gantryd.pid)
END
