#!/usr/bin/env bash
# Makes the images of the stacks from Debian packages: images.sh LAYOUT, an OCI layout with one image a service.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
layout=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
debootstrap --variant=minbase \
  --include=nginx-light,postgresql-15,redis-server,gunicorn,python3-flask,python3-psycopg2,python3-redis \
  bookworm "$root" >"$work/log" 2>&1 || { tail "$work/log"; exit 1; }
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,locale,man} "$root"/var/lib/postgresql/15
chroot "$root" install -d -m 700 -o postgres -g postgres /var/lib/postgresql/data
cp "$here"/entrypoints/* "$root"/usr/local/bin/
mkdir -p "$root"/srv/app
cp "$here"/app.py "$root"/srv/app/

umoci init --layout "$work/layout"
umoci new --image "$work/layout:base"
umoci insert --image "$work/layout:base" "$root" / >/dev/null
variant() {
  local name=$1
  shift
  umoci config --image "$work/layout:base" --tag "$name" "$@"
}
variant nginx --config.cmd nginx --config.cmd -g --config.cmd 'daemon off;' --config.exposedports 80/tcp \
  --config.stopsignal SIGQUIT
variant postgres --config.entrypoint postgres-entrypoint --config.cmd postgres --config.exposedports 5432/tcp \
  --config.volume /var/lib/postgresql/data --config.env PGDATA=/var/lib/postgresql/data \
  --config.env PATH=/usr/lib/postgresql/15/bin:/usr/local/bin:/usr/bin:/bin --config.user postgres --config.stopsignal SIGINT
variant redis --config.entrypoint redis-entrypoint --config.cmd redis-server --config.exposedports 6379/tcp \
  --config.volume /data --config.workingdir /data
variant web --config.cmd gunicorn --config.cmd=--bind=0.0.0.0:8000 --config.cmd=--chdir=/srv/app --config.cmd app:app \
  --config.exposedports 8000/tcp --config.user www-data --config.workingdir /srv/app
mkdir -p "$(dirname "$layout")"
mv "$work/layout" "$layout"
