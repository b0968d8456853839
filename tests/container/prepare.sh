#!/usr/bin/env bash
# Makes ready what the container tests need, as far as this machine lets it: an engine that can build and run,
# and a base image. Prints the settings of the tests, NAME=VALUE, to be exported; messages go to stderr.
# Ends with 1, and the reason, where it can't be done.
set -euo pipefail

base=docker.io/library/debian:bookworm-slim

give_up() {
    echo "container tests: $*" >&2
    exit 1
}

works() { # engine: does its service answer
    command -v "$1" >/dev/null && "$1" info >/dev/null 2>&1
}

install() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
    (apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@") \
        >/dev/null 2>&1
}

engine=""
for candidate in docker podman; do
    if works "$candidate"; then engine=$candidate && break; fi
done
if [ -z "$engine" ]; then
    install podman buildah runc ca-certificates && works podman || give_up "no docker or podman, and none can be installed"
    engine=podman
fi

# The base image from its registry, or made of Debian's packages under the same name.
if ! "$engine" image inspect "$base" >/dev/null 2>&1 && ! timeout 120 "$engine" pull -q "$base" >/dev/null 2>&1; then
    install debootstrap || give_up "$base can't be pulled, and debootstrap can't be installed to make one"
    root=$(mktemp -d)
    trap 'rm -rf "$root"' EXIT
    debootstrap --variant=minbase --include=ca-certificates bookworm "$root" >/dev/null 2>&1 ||
        give_up "$base can't be pulled, and debootstrap can't make one"
    rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
    tar -C "$root" -c . | "$engine" import - "$base" >/dev/null 2>&1 || give_up "$engine can't import an image"
fi

# In a container or a small machine the engine's usual runtime or limits may not work; others then do.
nested="--ulimit nofile=1024:1024 --ulimit nproc=1024:1024"
engine_flags="" run_flags=""
runs() { # flags before and after 'run'
    # shellcheck disable=SC2086 # several flags
    "$engine" $1 run $2 --rm --network none --read-only "$base" true >/dev/null 2>&1
}
if ! runs "" ""; then
    command -v runc >/dev/null || install runc || true
    runs "--runtime runc" "$nested" || give_up "$engine can't run a container on this machine"
    engine_flags="--runtime runc" run_flags=$nested
fi

build_flags=""
if [ -n "$engine_flags" ]; then
    build_flags="--isolation chroot --network host --pull-never -v /etc/ssl/certs:/etc/ssl/certs:ro"
    # A folder of wheels is handed to pip; the build has to see it.
    if [ -d "${PIP_FIND_LINKS:-}" ]; then build_flags+=" -v $PIP_FIND_LINKS:$PIP_FIND_LINKS:ro"; fi
fi

echo "CONTAINER_ENGINE=$engine"
echo "LIGHTSHEET_ENGINE_FLAGS=$engine_flags"
echo "LIGHTSHEET_RUN_FLAGS=$run_flags"
echo "LIGHTSHEET_BUILD_FLAGS=$build_flags"
