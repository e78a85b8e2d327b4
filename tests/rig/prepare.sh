#!/usr/bin/env bash
# prepare.sh venv | browser | engine | crypto | postgres …
# Fetches what the tests run with; a second call finds it there. Needs the network, and root where
# Debian packages are missing.
#   venv     .cache/venv: Python's virtual environment with what the example services import
#   browser  Chromium and the one npm package that drives it
#   crypto   gpg and openssl, against which encryption is checked
#   postgres a PostgreSQL, beside which benches measure
#   engine   a container engine, a registry, and the root file system of a small Python image
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/rig/lib.sh

venv() {
  local wanted
  wanted="$(cat tests/rig/requirements.txt) $(python3 --version)"
  [ -x .cache/venv/bin/python ] && [ "$(cat .cache/venv/.made-from 2>/dev/null)" = "$wanted" ] && return
  python3 -c 'import ensurepip' 2>/dev/null || need python3-venv
  rm -rf .cache/venv
  python3 -m venv .cache/venv
  .cache/venv/bin/pip install --quiet --disable-pip-version-check -r tests/rig/requirements.txt
  echo "$wanted" > .cache/venv/.made-from
}

browser() {
  command -v "${CHROMIUM:-/usr/bin/chromium}" >/dev/null || need chromium
  command -v npm >/dev/null || need nodejs npm
  local wanted
  wanted=$(sha256sum < tests/browser/package-lock.json)
  [ "$(cat tests/browser/node_modules/.made-from 2>/dev/null)" = "$wanted" ] && return
  npm ci --prefix tests/browser --silent --no-audit --no-fund
  echo "$wanted" > tests/browser/node_modules/.made-from
}

# Without them the tests say SKIP; whoever may not install packages runs all the others.
crypto() {
  command -v gpg >/dev/null || need gnupg || true
  command -v openssl >/dev/null || need openssl || true
}

postgres() {
  command -v pg_config >/dev/null && [ -x "$(pg_config --bindir)/initdb" ] || need postgresql
}

# The image is made from Debian's packages: no registry outside is asked for it.
engine() {
  need docker.io docker-registry debootstrap iproute2 iptables curl openssl
  [ -s "$RIG/base.tar" ] && return
  say "making the root file system of the test image"
  rm -rf "$RIG/root"
  debootstrap --variant=minbase --include=python3-minimal,python3-flask,python3-requests bookworm "$RIG/root" \
    > "$RIG/debootstrap.log" 2>&1 || { tail -20 "$RIG/debootstrap.log" >&2; return 1; }
  rm -rf "$RIG"/root/var/cache/apt/archives/*.deb "$RIG"/root/var/lib/apt/lists/* "$RIG"/root/usr/share/{doc,man,locale}/*
  tar -C "$RIG/root" --numeric-owner --exclude='./dev/*' --exclude='./proc/*' --exclude='./sys/*' -cf "$RIG/base.tar.part" .
  rm -rf "$RIG/root"
  mv "$RIG/base.tar.part" "$RIG/base.tar"
}

for part in "$@"; do
  case $part in
    venv | browser | crypto | engine | postgres) "$part" ;;
    *) say "expected venv, browser, crypto, engine or postgres, found $part"; exit 2 ;;
  esac
done
