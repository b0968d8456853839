#!/usr/bin/env bash
# Builds the container for the challenge and writes the file to upload. See Docker/README.md.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: bash Build_Docker_ForGC.sh [options]

Builds the container image from this folder and writes the .tar.gz to upload to Grand Challenge.

  --variant gpu|cpu|slim  gpu (default): PyTorch for CUDA 12.6, runs on a CPU too; cpu: PyTorch for CPUs;
                          slim: OpenVINO, no PyTorch inside
  --base IMAGE            base image, a Debian or Ubuntu (default: docker.io/library/debian:bookworm-slim);
                          NAME@sha256:... is exactly one, a tag is what the engine has of it
  --runtime SPEC          package that runs the network, such as torch==2.9.1 (default: by variant)
  --runtime_index URL     package index of that build; "" for none (default: by variant)
  --tag TAG               name of the image (default: lightsheet:<variant>)
  --output FOLDER         where the .tar.gz goes (default: dist)
  --models FOLDER         model folders to ship (default: resources/models)
  --model_tarball         write those models as a tarball too, for the platform's Models page
  --no_save               build only, write no file
  --engine docker|podman  default: the first of the two that works
  -h, --help              this text

Environment variables: CONTAINER_ENGINE (as --engine), LIGHTSHEET_ENGINE_FLAGS (flags before the engine's
subcommand), LIGHTSHEET_BUILD_FLAGS (flags of 'build'), and PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, PIP_FIND_LINKS,
which are handed to pip. With PIP_FIND_LINKS the default --runtime_index is none, and where that folder has a
wheel of PyTorch, the default --runtime of gpu and cpu is its version, whatever it was built for.
TEXT
}

fail() {
    echo "Build_Docker_ForGC.sh: error: $*" >&2
    exit 2
}

digest_of() { # image: NAME@sha256:... as the engine knows it, nothing where it was made on this machine
    run_engine image inspect --format '{{range .RepoDigests}}{{println .}}{{end}}' "$1" 2>/dev/null |
        grep -E '@sha256:[0-9a-f]{64}$' | head -n 1 || true
}

value_of() { # flag, number of arguments left
    [ "$2" -ge 2 ] || fail "$1: expected a value, got none; see --help"
}

cd "$(dirname "${BASH_SOURCE[0]}")"
digest="" variant=gpu base=docker.io/library/debian:bookworm-slim runtime="" tag="" output=dist
index="" index_given=no models=resources/models tarball=no save=yes engine=${CONTAINER_ENGINE:-}
while [ $# -gt 0 ]; do
    case $1 in
        --variant | --base | --runtime | --runtime_index | --tag | --output | --models | --engine) value_of "$1" $# ;;&
        --variant) variant=$2 && shift 2 ;;
        --base) base=$2 && shift 2 ;;
        --runtime) runtime=$2 && shift 2 ;;
        --runtime_index) index=$2 && index_given=yes && shift 2 ;;
        --tag) tag=$2 && shift 2 ;;
        --output) output=$2 && shift 2 ;;
        --models) models=${2%/} && shift 2 ;;
        --engine) engine=$2 && shift 2 ;;
        --model_tarball) tarball=yes && shift ;;
        --no_save) save=no && shift ;;
        -h | --help) usage && exit 0 ;;
        *) fail "$1: expected an option, got this; see --help" ;;
    esac
done

if [[ $base == *@* ]] && ! [[ $base =~ ^[^@]+@sha256:[0-9a-f]{64}$ ]]; then
    fail "--base: expected NAME or NAME@sha256: and 64 hex digits, got '$base'"
fi

case $variant in
    gpu) default_runtime=torch==2.9.1 default_index=https://download.pytorch.org/whl/cu126 ;;
    cpu) default_runtime=torch==2.13.0 default_index=https://download.pytorch.org/whl/cpu ;;
    slim) default_runtime="openvino>=2026.1,<2027" default_index="" ;;
    *) fail "--variant: expected gpu, cpu or slim, got '$variant'" ;;
esac
if [ -n "${PIP_FIND_LINKS:-}" ]; then
    default_index=""
    wheel=$(compgen -G "$PIP_FIND_LINKS/torch-*.whl" | sort -V | tail -n 1 || true)
    if [ -n "$wheel" ] && [ "$variant" != slim ]; then
        version=${wheel##*/torch-}
        default_runtime=torch==${version%%-*}
    fi
fi
[ "$index_given" = yes ] || index=$default_index
runtime=${runtime:-$default_runtime}
tag=${tag:-lightsheet:$variant}

if [ -z "$engine" ]; then
    for candidate in docker podman; do
        if command -v "$candidate" >/dev/null && "$candidate" version >/dev/null 2>&1; then
            engine=$candidate && break
        fi
    done
    [ -n "$engine" ] || fail "expected docker or podman, got neither; install one, or start the docker service"
fi
command -v "$engine" >/dev/null || fail "--engine: expected docker or podman, '$engine' is not installed"

compgen -G "$models/*/settings.json" >/dev/null || fail "--models: expected model folders in '$models', got none"
# The build context ends at this folder, so models from elsewhere are copied into it for the build.
context=.
if [ "$models" != resources/models ]; then
    context=$(mktemp -d)
    trap 'rm -rf "$context"' EXIT
    mkdir -p "$context/Source" "$context/resources/models"
    cp -r Docker .dockerignore "$context/" && cp -r Source/lightsheet "$context/Source/"
    cp -r "$models"/. "$context/resources/models/"
fi

read -r -a engine_flags <<<"${LIGHTSHEET_ENGINE_FLAGS:-}"
read -r -a build_flags <<<"${LIGHTSHEET_BUILD_FLAGS:-}"
run_engine() { "$engine" ${engine_flags[@]+"${engine_flags[@]}"} "$@"; }
# A tag moves: what it stands for now is found out once, built on, and recorded in the image's labels.
exact=$base
if [[ $base != *@* ]]; then
    run_engine image inspect "$base" >/dev/null 2>&1 || run_engine pull --quiet --platform linux/amd64 "$base" >/dev/null 2>&1 || true
    exact=$(digest_of "$base")
    if [ -z "$exact" ] || ! run_engine image inspect "$exact" >/dev/null 2>&1; then
        [ -n "$exact" ] || echo "the base image $base has no digest: it was made on this machine, or is fetched by the build"
        digest=${exact##*@} exact=$base
    fi
fi
[[ $exact != *@* ]] || digest=${exact##*@}
arguments=(--build-arg "BASE_IMAGE=$exact" --build-arg "BASE_NAME=${base%@*}")
arguments+=(--build-arg "BASE_DIGEST=${digest:-unknown}" --build-arg "RUNTIME=$runtime" --build-arg "RUNTIME_INDEX=$index")
arguments+=(--build-arg "REVISION=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)")
for name in PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_FIND_LINKS; do
    [ -z "${!name:-}" ] || arguments+=(--build-arg "$name=${!name}")
done

echo "building $tag ($variant: $runtime on $exact) with $engine"
run_engine build --platform linux/amd64 ${build_flags[@]+"${build_flags[@]}"} "${arguments[@]}" \
    --file Docker/Dockerfile --tag "$tag" "$context" || fail "the build of $tag failed; what went wrong is above"
size=$(run_engine image inspect --format '{{.Size}}' "$tag")
echo "built $tag: $((size / 1000000)) MB unpacked"

stamp=$(date +%Y-%m-%d_%H%M)
pack() { # file: compresses what comes in, whole or not at all
    local partial=$1.partial
    if command -v pigz >/dev/null; then pigz -c >"$partial"; else gzip -c >"$partial"; fi
    mv "$partial" "$1"
    echo "wrote $1: $(($(stat -c %s "$1") / 1000000)) MB"
}
write_sbom() { # file: the image's own list of what is in it
    local container copied=yes
    container=$(run_engine create "$tag")
    run_engine cp "$container:/opt/app/sbom.cdx.json" "$1.partial" || copied=no
    run_engine rm "$container" >/dev/null
    [ $copied = yes ] || fail "the image $tag has no /opt/app/sbom.cdx.json"
    mv "$1.partial" "$1"
    echo "wrote $1"
}
if [ "$save" = yes ] || [ "$tarball" = yes ]; then
    mkdir -p "$output" 2>/dev/null && [ -w "$output" ] || fail "--output: expected a folder that can be written, got '$output'"
fi
if [ "$save" = yes ]; then
    formats=()
    [ "$engine" = docker ] || formats=(--format docker-archive)
    run_engine save ${formats[@]+"${formats[@]}"} "$tag" | pack "$output/lightsheet_${variant}_$stamp.tar.gz"
    write_sbom "$output/lightsheet_${variant}_$stamp.sbom.cdx.json"
    echo "try it before the upload: lightsheet doctor --image $output/lightsheet_${variant}_$stamp.tar.gz"
fi
if [ "$tarball" = yes ]; then
    tar --owner=0 --group=0 --mode=a+rX -C "$models" -c . | pack "$output/models_$stamp.tar.gz"
fi
