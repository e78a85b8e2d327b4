#!/usr/bin/env bash
# with-engine.sh COMMAND…
# Runs COMMAND beside a real container engine and a real registry, and ends with its code. Both run
# in network and process namespaces of their own: nothing of the machine's network is touched, and
# when this script ends, however it ends, they end with it. COMMAND sees
#   DOCKER_HOST    the engine's socket
#   TEST_REGISTRY  the registry's address, in reach of the engine
#   TEST_IMAGE     a small Debian image with Python 3, Flask and requests, already pushed there
#   TEST_PRIVATE_REGISTRY  a second registry, which wants the user "reader" and the password "open-sesame"
#   TEST_ENGINE_TLS, TEST_ENGINE_CERTIFICATES  the same engine behind TLS, and the folder with what
#                  it wants to see
# There is no network but loopback: fetch and compile before. Needs root and `prepare.sh engine`.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
export TEST_REGISTRY=127.0.0.1:5000
export TEST_IMAGE=$TEST_REGISTRY/tahini-test-python:1
export TEST_PRIVATE_REGISTRY=127.0.0.1:5001
export TEST_ENGINE_TLS=tcp://127.0.0.1:2376
export TEST_ENGINE_CERTIFICATES=$RIG/tls
socket=$RIG/engine.sock

if [ "${TAHINI_RIG_INSIDE:-}" != 1 ]; then
  [ "$(id -u)" = 0 ] || { say "expected root, found $(id -un): namespaces and the engine need it"; exit 1; }
  # One engine at a time: its data folder cannot be shared.
  exec env TAHINI_RIG_INSIDE=1 flock "$RIG/engine.lock" \
    unshare --net --mount --pid --fork --kill-child --mount-proc -- "$0" "$@"
fi
unset TAHINI_RIG_INSIDE

engine() { curl -sS --max-time 120 --unix-socket "$socket" "$@"; }
# until_ok NAME PID LOG COMMAND… : waits up to 30 s for COMMAND; says what the daemon said if not.
until_ok() {
  local name=$1 pid=$2 log=$3
  shift 3
  for _ in $(seq 300); do
    "$@" >/dev/null 2>&1 && return
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.1
  done
  say "$name did not come up; its last lines:"
  tail -20 "$log" >&2
  exit 1
}

ip link set lo up
rm -f "$socket" "$RIG/dockerd.pid" "$RIG/containerd.pid"
rm -rf "$RIG/exec"

cat > "$RIG/registry.yml" <<CONFIG
version: 0.1
log: {level: warn}
storage: {filesystem: {rootdirectory: $RIG/registry}, delete: {enabled: true}}
http: {addr: $TEST_REGISTRY}
CONFIG
docker-registry serve "$RIG/registry.yml" > "$RIG/registry.log" 2>&1 &
registry_pid=$!

# The hash is bcrypt's of "open-sesame".
echo 'reader:$2y$05$abcdefghijklmnopqrstuutXu9KzOt.1yBoZUeFWoT/914/JfszCO' > "$RIG/htpasswd"
cat > "$RIG/private-registry.yml" <<CONFIG
version: 0.1
log: {level: warn}
storage: {filesystem: {rootdirectory: $RIG/private-registry}, delete: {enabled: true}}
http: {addr: $TEST_PRIVATE_REGISTRY}
auth: {htpasswd: {realm: tests, path: $RIG/htpasswd}}
CONFIG
docker-registry serve "$RIG/private-registry.yml" > "$RIG/private-registry.log" 2>&1 &
private_pid=$!

# An authority of the rig's own, and what it signs for the engine and for whoever asks it.
certificates() {
  rm -rf "$TEST_ENGINE_CERTIFICATES"
  mkdir -p "$TEST_ENGINE_CERTIFICATES"
  (
    cd "$TEST_ENGINE_CERTIFICATES"
    new=(openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650)
    "${new[@]}" -x509 -subj '/CN=rig' -keyout ca-key.pem -out ca.pem
    signed() { # NAME EXTENSIONS
      "${new[@]}" -subj "/CN=$1" -keyout "$1key.pem" -out request.pem
      openssl x509 -req -in request.pem -CA ca.pem -CAkey ca-key.pem -CAcreateserial -days 3650 \
        -extfile <(echo "$2") -out "$1cert.pem"
    }
    signed server- 'subjectAltName=IP:127.0.0.1
extendedKeyUsage=serverAuth'
    signed '' 'extendedKeyUsage=clientAuth'
  ) > "$RIG/tls.log" 2>&1 || { tail -20 "$RIG/tls.log" >&2; exit 1; }
}
[ -s "$TEST_ENGINE_CERTIFICATES/cert.pem" ] || certificates

/usr/sbin/dockerd --host "unix://$socket" --host "$TEST_ENGINE_TLS" --tlsverify \
  --tlscacert "$TEST_ENGINE_CERTIFICATES/ca.pem" --tlscert "$TEST_ENGINE_CERTIFICATES/server-cert.pem" \
  --tlskey "$TEST_ENGINE_CERTIFICATES/server-key.pem" --data-root "$RIG/data" --exec-root "$RIG/exec" \
  --pidfile "$RIG/dockerd.pid" --storage-driver overlay2 > "$RIG/dockerd.log" 2>&1 &
engine_pid=$!
daemons="$engine_pid $registry_pid $private_pid"
trap 'kill $daemons 2>/dev/null || true; wait $daemons 2>/dev/null || true' EXIT
until_ok "the registry" $registry_pid "$RIG/registry.log" curl -sf "http://$TEST_REGISTRY/v2/"
until_ok "the private registry" $private_pid "$RIG/private-registry.log" \
  curl -sf -u reader:open-sesame "http://$TEST_PRIVATE_REGISTRY/v2/"
until_ok "the engine" $engine_pid "$RIG/dockerd.log" engine -f http://engine/_ping

# Tests that were cut off left networks, of which there are only so many.
engine -f -o /dev/null -X POST http://engine/containers/prune
engine -f -o /dev/null -X POST http://engine/networks/prune

if ! engine -f -o /dev/null "http://engine/images/$TEST_IMAGE/json" 2>/dev/null; then
  engine -f -o /dev/null -X POST -H 'Content-Type: application/x-tar' --data-binary "@$RIG/base.tar" \
    "http://engine/images/create?fromSrc=-&repo=${TEST_IMAGE%:*}&tag=${TEST_IMAGE##*:}&changes=ENV%20PYTHONUNBUFFERED%3D1"
fi
# A failed push answers 200 too, and says so in its stream: look at what the registry has.
engine -f -o /dev/null -X POST -H 'X-Registry-Auth: e30=' "http://engine/images/${TEST_IMAGE%:*}/push?tag=${TEST_IMAGE##*:}"
curl -sf "http://$TEST_REGISTRY/v2/tahini-test-python/tags/list" | grep -q '"1"' \
  || { say "expected $TEST_IMAGE in the registry, found it missing"; exit 1; }

export DOCKER_HOST=unix://$socket TAHINI_ENGINE=1
"$@"
