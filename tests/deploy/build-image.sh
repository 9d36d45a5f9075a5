#!/usr/bin/env bash
# Builds the image, and uses it as a strict cluster does: not as root, without capabilities, with nothing that can be
# written but /cache and /tmp. Prints each step, and stops at the first that fails.
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

image=localhost/iei:tested
server=iei-tested-$$
url=http://127.0.0.1:${PORT:-18431}
work=$(mktemp --directory --tmpdir=/var/tmp iei-image.XXXXXX)
trap 'podman rm --force --ignore "$server" >/dev/null 2>&1; rm -rf "$work"' EXIT

step() {
    printf '\n== %s  %s\n' "$(date +%H:%M:%S)" "$*"
    "$@"
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
    run --detach --name="$server" --env=IEI_BIND="${url#http://}" --env=IEI_WORKERS=2 "$image"
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
    curl --fail --silent --show-error "$url/health"
    [[ $(curl --fail --silent --show-error --data-binary @docs/images/page-dark.png --header 'Content-Type: image/png' \
        "$url/embed" | vectors) == 1 ]]
}

embeds_as_a_job() {
    [[ $(run --rm --volume="$PWD/docs/images:/pictures:ro" "$image" \
        iei embed /pictures/page-dark.png /pictures/page-light.png | vectors) == 2 ]]
}

stops_cleanly() {
    podman stop --time=60 "$server"
    [[ $(podman inspect --format='{{.State.ExitCode}}' "$server") == 0 ]]
    podman logs "$server" 2>&1 | tee "$work/log"
    ! grep --quiet Traceback "$work/log"
}

sizes() {
    podman history --format='{{.Size}}  {{.CreatedBy}}' "$image" | cut --characters=-110 | grep --invert-match '^0 B'
    run --rm "$image" sh -c 'cd /opt/iei/lib/python3*/site-packages && du -sm * | sort -rn | head -12'
}

base_argument=()
if [[ -n ${STAND_IN:-} ]]; then
    base=localhost/iei-stand-in:$STAND_IN
    base_argument=(--build-arg="BASE=$base")
    step stand_in
fi
# Docker's format: the other has no HEALTHCHECK.
step nice podman build --isolation=chroot --format=docker --layers=false --tag="$image" "${base_argument[@]}" "$@" .
step start
step becomes_healthy
step is_restricted
step embeds_for_clients
step embeds_as_a_job
step stops_cleanly
step sizes
