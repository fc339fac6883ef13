#!/bin/bash
# Runs a command with a Docker engine of its own, on a Debian machine that has none:
#     docker/own-engine.sh make image-check
# Needs root and: apt-get install --no-install-recommends docker.io slirp4netns debootstrap iproute2
# Engine and command live in a network namespace of their own: no bridge or firewall rule of this machine changes, and
# what a container publishes on 127.0.0.1 is reached by the command only. The engine ends with the command; images stay
# in STORE. BASE, the image to build on, is made by debootstrap, so that no registry is needed; it takes over this
# machine's own certificate authorities (/usr/local/share/ca-certificates).
set -euo pipefail

export STORE=${STORE:-/var/tmp/youtu-docker}
export DOCKER_HOST=unix://$STORE/run/docker.sock
DEBIAN=bookworm

outside() {
	[ "$(id -u)" = 0 ] || { echo "own-engine.sh: needs root" >&2; exit 1; }
	for tool in dockerd docker slirp4netns debootstrap ip; do
		command -v $tool >/dev/null || { echo "own-engine.sh: $tool is missing (see the top of this file)" >&2; exit 1; }
	done
	mkdir -p "$STORE/run"
	exec 9>"$STORE/lock"
	flock --nonblock 9 || { echo "own-engine.sh: another one runs from $STORE" >&2; exit 1; }
	setpriv --pdeathsig TERM unshare --net --mount "$0" --inside "$@" 9>&- &
	local inside=$! status=0
	sleep 0.5
	setpriv --pdeathsig TERM slirp4netns --configure --mtu=65520 --disable-host-loopback $inside tap0 \
		>"$STORE/slirp4netns.log" 2>&1 9>&- &
	wait $inside || status=$?
	kill $! 2>/dev/null || true
	exit $status
}

inside() {
	ip link set lo up
	for _ in $(seq 50); do ip -4 address show dev tap0 2>/dev/null | grep -q inet && break; sleep 0.1; done
	dockerd --data-root "$STORE/images" --exec-root "$STORE/run/exec" --pidfile "$STORE/run/pid" \
		--host "$DOCKER_HOST" --dns 10.0.2.3 >"$STORE/dockerd.log" 2>&1 &
	ENGINE=$!
	trap 'kill $ENGINE; wait $ENGINE || true' EXIT
	for _ in $(seq 100); do docker info >/dev/null 2>&1 && break; sleep 0.2; done
	docker info >/dev/null || { tail -n 5 "$STORE/dockerd.log" >&2; exit 1; }
	export BASE=${BASE:-debootstrap:$DEBIAN}
	docker image inspect "$BASE" >/dev/null 2>&1 || make_base
	"$@"
}

make_base() {
	local root
	root=$(mktemp --directory "$STORE/base.XXXXXX")
	echo "Making $BASE"
	debootstrap --variant=minbase $DEBIAN "$root" >"$STORE/debootstrap.log"
	install -D --mode=644 --target-directory="$root/usr/local/share/ca-certificates" \
		/usr/local/share/ca-certificates/*.crt 2>/dev/null || true
	rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
	tar --directory "$root" --create . | docker import - "$BASE" >/dev/null
	rm -rf "$root"
}

if [ "${1:-}" = --inside ]; then shift; inside "$@"; else outside "$@"; fi
