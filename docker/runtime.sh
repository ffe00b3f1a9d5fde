#!/bin/sh
# The libraries of a CUDA toolkit that Caffe loads:  docker/runtime.sh TOOLKIT DIR
set -eu

from=${1:?usage: docker/runtime.sh TOOLKIT DIR} to=${2:?usage: docker/runtime.sh TOOLKIT DIR}
mkdir -p "$to/lib64"
# libcudnn.so finds its parts by name beside itself; some of them compile kernels with NVRTC.
for name in cudart cublas cublasLt curand nccl nvrtc nvrtc-builtins cudnn; do
    for library in "$from/lib64/lib$name".so.* "$from/lib64/lib${name}_"*.so.*; do
        [ -e "$library" ] || continue
        case $library in *.alt.so.*) continue ;; esac
        cp -a "$library" "$to/lib64/"
    done
done
cp -a "$from/licenses" "$to/licenses"
ln -s lib64 "$to/lib"
