#!/usr/bin/env bash
# Runs a container image on volumes as the platform does, and checks what comes out. See Docker/README.md.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: bash Docker/test_run.sh [options] [view.tif ...]

Runs the image once for each view, without network, and checks name, shape, type and tags of the result. The
result of NAME_angle.tif is scored if NAME_fused.tif lies beside it. Without views, small simulated ones are
made: one of each study and channel of the challenge.

  --image TAG             default: lightsheet:cpu
  --output FOLDER         keep the results here (default: a folder that is removed)
  --engine docker|podman  default: the first of the two that works
  -h, --help              this text

Environment variables: CONTAINER_ENGINE, LIGHTSHEET_ENGINE_FLAGS (before the engine's subcommand),
LIGHTSHEET_RUN_FLAGS (flags of 'run', such as --gpus all), PYTHON (default: .venv/bin/python).
TEXT
}

fail() {
    echo "test_run.sh: error: $*" >&2
    exit 2
}

image=lightsheet:cpu output="" engine=${CONTAINER_ENGINE:-} views=()
while [ $# -gt 0 ]; do
    case $1 in
        --image | --output | --engine) [ $# -ge 2 ] || fail "$1: expected a value, got none; see --help" ;;&
        --image) image=$2 && shift 2 ;;
        --output) output=$2 && shift 2 ;;
        --engine) engine=$2 && shift 2 ;;
        -h | --help) usage && exit 0 ;;
        -*) fail "$1: expected an option, got this; see --help" ;;
        *) [ -f "$1" ] || fail "$1: expected a TIFF, got no such file"
            views+=("$(realpath "$1")") && shift ;;
    esac
done
[ -z "$output" ] || output=$(realpath -m "$output")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-.venv/bin/python}
command -v "$python" >/dev/null || fail "$python: expected Python with the package's requirements; run 'make test' once, or set PYTHON"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

if [ ${#views[@]} -eq 0 ]; then
    number=0
    for kind in "1 nucleus" "2 nucleus" "3 nucleus" "4 nucleus" "5 nucleus" "1 membrane" "3 membrane"; do
        read -r study channel <<<"$kind"
        number=$((number + 1))
        "$python" Source/simulate_dataset.py "$folder/$number" --study "$study" --channel "$channel" --count 1 \
            --first_id "$number" --shape 32,96,96 --seed 2025 2>"$folder/log" || fail "$(tail -n 1 "$folder/log")"
        views+=("$folder/$number/image_${number}_${channel}_angle.tif")
    done
fi

export PYTHONPATH=Source${PYTHONPATH:+:$PYTHONPATH}
exec_doctor=("$python" -m lightsheet.cli.operating.doctor --image "$image" --view "${views[@]}")
[ -z "$output" ] || exec_doctor+=(--output "$output")
[ -z "$engine" ] || exec_doctor+=(--engine "$engine")
"${exec_doctor[@]}"
