#!/bin/sh
# Takes out of a virtual environment what prediction never reads: installers, headers, static libraries, tests.
set -eu
venv=${1:?"slim.sh: expected the folder of a virtual environment, got nothing"}
site=$(echo "$venv"/lib/python3.*/site-packages)
rm -rf "$site"/pip "$site"/pip-*.dist-info "$site"/setuptools/tests "$venv"/include "$venv"/share/man
rm -rf "$site"/torch/include "$site"/torch/share "$site"/torch/test
# What openvino needs to read other programs' models; ours are in its own format.
for kind in onnx paddle pytorch tensorflow tensorflow_lite jax; do
    rm -f "$site"/openvino/libs/libopenvino_"$kind"_frontend.so*
done
rm -f "$site"/openvino/libs/libopenvino_intel_[gn]pu_*
rm -rf "$site"/openvino_telemetry*  # it wants to write files and to send data
rm -rf "$site"/openvino/include "$site"/openvino/cmake "$site"/openvino/runtime/include
find "$site" -type d \( -path '*/numpy/*/tests' -o -path '*/scipy/*/tests' -o -path '*/numba/tests' \
    -o -path '*/numba/cuda/tests' -o -path '*/h5py/tests' -o -path '*/zarr/testing' \
    -o -path '*/llvmlite/tests' \) -prune -exec rm -rf {} +
find "$site"/torch/bin -type f ! -name torch_shm_manager -delete 2>/dev/null || true
find "$site" -name '*.a' -delete
du -sm "$site" | awk '{print "packages: " $1 " MB"}'
