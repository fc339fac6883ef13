#!/bin/bash
# Builds the CPU image and tries it: what is inside, start with docker/compose.yaml, an answer, the end. `make
# image-check` runs it; needs docker, Docker Compose and curl. BASE=... is handed to the build. Prints one line for each
# thing that holds, and ends with 1 at the first that does not. Leaves the image, and nothing that runs.
set -euo pipefail
cd "$(dirname "$0")/.."

IMAGE=youtu:cpu
read -ra COMPOSE <<<"${COMPOSE:-docker compose}"
export PUBLISH_PORT=${PUBLISH_PORT:-18080} PUBLISH_TRITON_HTTP=${PUBLISH_TRITON_HTTP:-18000}
export PUBLISH_TRITON_GRPC=${PUBLISH_TRITON_GRPC:-18001} PUBLISH_TRITON_METRICS=${PUBLISH_TRITON_METRICS:-18002}
export YOUTU_MODEL=demo

compose() { "${COMPOSE[@]}" --progress quiet --project-name youtu-check -f docker/compose.yaml "$@"; }
inside() { docker run --rm --network none --entrypoint "$1" $IMAGE "${@:2}"; }
ok() { echo "ok: $*"; }
fail() { echo "FAILED: $*" >&2; exit 1; }

log=$(mktemp)

compose --profile cpu --profile gpu config --quiet
compose -f docker/open.yaml --profile cpu --profile gpu config --quiet
ok "Docker Compose takes compose.yaml and open.yaml"

docker build --quiet ${BASE:+--build-arg BASE="$BASE"} -f docker/cpu.Dockerfile -t $IMAGE . >/dev/null 2>"$log" || { cat "$log" >&2; fail "the build"; }
ok "$IMAGE is built: $(($(docker image inspect -f '{{.Size}}' $IMAGE) / 1000000)) MB"

[ "$(inside id -u)" = 10001 ] || fail "it does not run as user 10001"
# shellcheck disable=SC2016  # expanded inside
found=$(inside sh -c 'for name in gcc g++ cc c++ clang ld as make cmake pip pip3 curl wget git; do command -v $name; done; true')
[ -z "$found" ] || fail "there are tools for building or fetching inside: $found"
found=$(inside sh -c 'find / -xdev \( -path /proc -prune \) -o \( -path "*/.cache/pip*" -o -path "/var/lib/apt/lists/?*" \
	-o -path "/var/cache/apt/*.bin" -o -name "pip-*.dist-info" \) -print 2>/dev/null || true')
[ -z "$found" ] || fail "there are caches inside: $found"
found=$(inside sh -c 'find /opt /usr /etc -xdev \( -user 10001 -o -perm -o+w ! -type l \) -print 2>/dev/null || true')
[ -z "$found" ] || fail "its user may write to its programs: $found"
for path in .git .env tests; do
	[ -z "$(inside sh -c "ls -d /opt/youtu/$path 2>/dev/null || true")" ] || fail "$path is inside"
done
ok "not root, no compiler, no pip, no cache, programs not writable, nothing inside that does not serve"

cleanup() { rm -f "$log"; compose --profile cpu down --volumes --timeout 5 || true; }
trap cleanup EXIT
compose --profile cpu up --detach --wait || { compose --profile cpu logs; fail "it does not become healthy"; }
container=$(compose --profile cpu ps --quiet cpu)
ok "up and healthy: read-only root $(docker inspect -f '{{.HostConfig.ReadonlyRootfs}}' "$container"), \
capabilities dropped $(docker inspect -f '{{.HostConfig.CapDrop}}' "$container")"

curl --fail --silent --show-error "localhost:$PUBLISH_PORT/health" && echo
answer=$(curl --fail --silent --show-error -d '{"prompt": "怎么退货？", "temperature": 0}' "localhost:$PUBLISH_PORT/chat")
[[ $answer == *七天内* ]] || fail "/chat answers $answer"
ok "/chat: $answer"
answer=$(curl --fail --silent --show-error -d '{"messages": "[{\"role\": \"user\", \"content\": \"怎么退货？\"}]"}' \
	"localhost:$PUBLISH_TRITON_HTTP/v2/models/youtu_llm/generate")
[[ $answer == *七天内* ]] || fail "Triton answers $answer"
[[ $(docker exec "$container" python -m youtu_cli ask 怎么退货？) == *七天内* ]] || fail "youtu_cli inside gets no answer"
ok "Triton's HTTP from outside, its gRPC through youtu_cli inside"

compose --profile cpu stop
status=$(docker inspect -f '{{.State.ExitCode}}' "$container")
[ "$status" = 0 ] || { docker logs --tail 20 "$container"; fail "after SIGTERM it ended with $status"; }
ok "SIGTERM: $(docker logs --tail 1 "$container" 2>&1), status 0"

compose --profile cpu up --detach --wait
container=$(compose --profile cpu ps --quiet cpu)
[[ $(docker logs "$container" 2>&1) != *Converting*Up*Converting* ]] || fail "the engine was made again"
ok "again, with the engine of the first start: $(docker logs "$container" 2>&1 | grep 'Up after' | tail -1)"

if compose -f docker/open.yaml --profile cpu run --rm --no-deps cpu >"$log" 2>&1; then fail "open.yaml starts without a key"; fi
grep --quiet 'set YOUTU_API_KEY or YOUTU_KEYS_FILE' "$log" || { cat "$log"; fail "opened without a key, it does not say so"; }
compose --profile cpu run --rm --no-deps cpu python -m frontend.keys /data/keys.txt check >"$log"
key=$(tail -n 1 "$log")
YOUTU_KEYS_FILE=/data/keys.txt compose -f docker/open.yaml --profile cpu up --detach --wait
for header in 'x: y' "Authorization: Bearer $key"; do
	curl --silent --output /dev/null --write-out '%{http_code} ' -H "$header" -d '{"prompt": "hi"}' "localhost:$PUBLISH_PORT/chat"
done >"$log"
[ "$(cat "$log")" = "401 200 " ] || fail "opened with a key, it answers $(cat "$log")without and with it"
ok "open.yaml: does not start without a key; with one it answers 401 without it and 200 with it"
