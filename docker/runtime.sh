#!/bin/sh
# Copies the libraries of a CUDA toolkit that Caffe loads:  docker/runtime.sh TOOLKIT DIR
set -eu

from=${1:?usage: docker/runtime.sh TOOLKIT DIR} to=${2:?usage: docker/runtime.sh TOOLKIT DIR}
mkdir -p "$to/lib64"
# libcudnn.so loads its parts by name from its own folder; some compile kernels with NVRTC.
for name in cudart cublas cublasLt curand nccl nvrtc nvrtc-builtins cudnn; do
    found=
    for library in "$from/lib64/lib$name".so.* "$from/lib64/lib${name}_"*.so.*; do
        [ -e "$library" ] || continue
        case $library in *.alt.so.*) continue ;; esac
        cp -a "$library" "$to/lib64/"
        found=1
    done
    [ "$found" ] || { echo "runtime.sh: no lib$name.so.* in $from/lib64" >&2; exit 1; }
done
cp -a "$from/licenses" "$to/licenses"
ln -s lib64 "$to/lib"
