#!/usr/bin/env bash
# Builds the image, and uses it as a strict cluster does: not as root, without capabilities, with nothing that can be
# written but /cache and /tmp. Then the same with the image without torch, which serves what the first has exported, from
# a volume that can only be read. Prints each step, and stops at the first that fails.
#
#   tests/deploy/build-image.sh [ARGUMENTS OF podman build]      for example --build-arg TORCH_BACKEND=cu132
#   STAND_IN=trixie tests/deploy/build-image.sh …                without a registry: Debian, by debootstrap, as the base
#
# Needs podman, crun and curl; STAND_IN also root and debootstrap.
set -euo pipefail
cd "$(dirname "$0")/../.."

# crun refuses cgroups of both versions side by side. It needs none here.
if [[ $(id -u) == 0 ]] && mountpoint --quiet /sys/fs/cgroup/unified; then
    exec unshare --mount bash -c 'umount /sys/fs/cgroup/unified && exec "$@"' bash "tests/deploy/${0##*/}" "$@"
fi

full=localhost/iei:tested
lean=localhost/iei:tested-lean
server=iei-tested-$$
address=127.0.0.1:${PORT:-18431}
grpc_address=127.0.0.1:${GRPC_PORT:-18432}
work=$(mktemp --directory --tmpdir=/var/tmp iei-image.XXXXXX)
trap 'podman rm --force --ignore --volumes "$server" >/dev/null 2>&1; rm -rf "$work"' EXIT

step() {
    printf '\n== %s  %s\n' "$(date +%H:%M:%S)" "$*"
    "$@"
}

# Docker's format: the other has no HEALTHCHECK.
build() {
    local image=$1
    shift
    nice podman build --isolation=chroot --format=docker --layers=false --tag="$image" "$@" .
}

# Debian with its own Python in the place of the official image, with this machine's certificates.
stand_in() {
    debootstrap --variant=minbase --include=ca-certificates,python3,python3-pip "$STAND_IN" "$work/base" >"$work/log"
    cp --dereference /etc/ssl/certs/ca-certificates.crt "$work/base/etc/ssl/certs/"
    rm "$work"/base/usr/lib/python3*/EXTERNALLY-MANAGED # the official image's pip installs without a question, too
    ln --symbolic python3 "$work/base/usr/bin/python"
    tar --directory="$work/base" --create . | podman import --quiet - "$base"
}

# The host's network, no cgroups, small limits: so it runs in virtual machines and containers, too.
run() {
    podman run --network=host --cgroups=disabled --ulimit=nofile=4096:4096 --ulimit=nproc=2000:2000 \
        --read-only --tmpfs=/tmp --cap-drop=ALL --security-opt=no-new-privileges --env=IMAGE_EMBEDDING_MODEL=demo "$@"
}

start() {
    run --detach --name="$server" --env=IEI_BIND="$address" --env=IEI_GRPC_BIND="$grpc_address" --env=IEI_WORKERS=2 "$@"
}

becomes_healthy() {
    local patience=$((SECONDS + 600))
    until podman healthcheck run "$server"; do
        if ((SECONDS > patience)) || ! podman exec "$server" true; then
            podman logs "$server"
            return 1
        fi
        sleep 1
    done
}

is_restricted() {
    podman exec "$server" id
    ! podman exec "$server" touch /opt/iei/written /home/iei/written
}

# The number of vectors on stdin, of 192 values each: lines of JSON, or one array.
vectors() {
    python3 -c '
import json, sys
answers = [json.loads(line) for line in sys.stdin]
vectors = [answer["embedding"] for answer in answers] if isinstance(answers[0], dict) else answers[0]
assert {len(vector) for vector in vectors} == {192}, vectors
print(len(vectors))'
}

embeds_for_clients() {
    curl --fail --silent --show-error "http://$address/health"
    [[ $(curl --fail --silent --show-error --data-binary @docs/images/page-dark.png --header 'Content-Type: image/png' \
        "http://$address/embed" | vectors) == 1 ]]
}

# The health check of Kubernetes; b'\x08\x01' is SERVING.
serves_grpc() {
    podman exec "$server" python -c "
import grpc
answer = grpc.insecure_channel('$grpc_address').unary_unary('/grpc.health.v1.Health/Check')(b'', timeout=10)
assert answer == b'\x08\x01', answer"
}

# $1: a file for its answers; then podman's options and the image.
embeds_as_a_job() {
    run --rm --volume="$PWD/docs/images:/pictures:ro" "${@:2}" \
        iei embed /pictures/page-dark.png /pictures/page-light.png /pictures/page-phone.png >"$1"
    [[ $(vectors <"$1") == 3 ]]
}

exports() {
    install --directory --mode=777 "$work/cache"
    run --rm --volume="$work/cache:/cache" "$full" iei export /cache/exported --model demo
}

has_no_torch() {
    local found
    found=$(run --rm "$lean" find /opt/iei -maxdepth 4 -name torch -o -name transformers -o -name sympy) && [[ -z $found ]]
}

# $1: a model that would have to be converted. One line says so, and what to do.
refuses() {
    if run --rm --env=IMAGE_EMBEDDING_MODEL="$1" "$lean" 2>&1 | tee "$work/log"; then
        return 1
    fi
    [[ $(tail --lines=1 "$work/log") == "iei: $1 "*"run \`iei export FOLDER --model $1\`"* ]]
    ! grep --quiet Traceback "$work/log"
}

serves_the_export() {
    curl --fail --silent --show-error "http://$address/info" | python3 -c '
import json, sys
info = json.load(sys.stdin)
print(info["model_id"], info["runtime"])
assert info["runtime"].startswith("openvino "), info'
}

# Of the same files in the same order: least cosine and largest difference of their vectors.
same_vectors() {
    python3 - "$@" <<'PYTHON'
import json, math, operator, sys

def dot(a, b):
    return math.fsum(map(operator.mul, a, b))

ours, theirs = ([json.loads(line)["embedding"] for line in open(file)] for file in sys.argv[1:])
cosine = min(dot(a, b) / math.hypot(*a) / math.hypot(*b) for a, b in zip(ours, theirs, strict=True))
difference = max(abs(x - y) for a, b in zip(ours, theirs) for x, y in zip(a, b))
print(f"cosine {cosine:.8f}, difference {difference:.1e}")
assert cosine >= 0.99999
PYTHON
}

# Of all processes in the container, shared pages counted once.
memory() {
    podman exec "$server" sh -c "cat /proc/[0-9]*/smaps_rollup" |
        awk '/^Pss:/ { sum += $2 } END { printf "%.0f MiB in all processes\n", sum / 1024 }'
}

stops_cleanly() {
    podman stop --time=60 "$server"
    [[ $(podman inspect --format='{{.State.ExitCode}}' "$server") == 0 ]]
    podman logs "$server" 2>&1 | tee "$work/log"
    podman rm --volumes "$server"
    ! grep --quiet Traceback "$work/log"
}

sizes() {
    podman image inspect --format='{{.Size}} bytes' "$1"
    podman history --format='{{.Size}}  {{.CreatedBy}}' "$1" | cut --characters=-110 | grep --invert-match '^0 B'
    run --rm "$1" sh -c 'cd /opt/iei/lib/python3*/site-packages && du -sm * | sort -rn | head -12 && du -sm /opt/iei'
}

# $1: the image; then podman's options.
serves() {
    step start "${@:2}" "$1"
    step becomes_healthy
    step is_restricted
    step embeds_for_clients
    step serves_grpc
}

if [[ -n ${STAND_IN:-} ]]; then
    base=localhost/iei-stand-in:$STAND_IN
    set -- --build-arg="BASE=$base" "$@"
    step stand_in
fi
step build "$full" "$@"
serves "$full"
step memory
step embeds_as_a_job "$work/openvino" "$full"
step embeds_as_a_job "$work/torch" --env=IEI_RUNTIME=torch "$full"
step stops_cleanly
step exports
step sizes "$full"

step build "$lean" "$@" --build-arg=TORCH_BACKEND=none
step has_no_torch
step refuses demo
step refuses facebook/dinov2-base
exported=(--volume="$work/cache:/cache:ro" --env=IMAGE_EMBEDDING_MODEL=/cache/exported)
serves "$lean" "${exported[@]}"
step serves_the_export
step memory
step embeds_as_a_job "$work/lean" "${exported[@]}" "$lean"
step same_vectors "$work/lean" "$work/torch"
step same_vectors "$work/lean" "$work/openvino"
step stops_cleanly
step sizes "$lean"
