#!/bin/sh
# Makes a CUDA toolkit from NVIDIA's wheels:  docker/toolkit.sh DIR [WHEELS]
#
# No NVIDIA base image, apt source or installer: docker/nvidia.txt lists nvcc, cuBLAS, cuRAND,
# cuDNN and NCCL by version and hash. WHEELS is a folder with these wheels, for use without a
# network; otherwise pip fetches them. The layout is the one that CMake's FindCUDA expects.
set -eu

cuda=${1:?usage: docker/toolkit.sh DIR [WHEELS]}
here=$(cd "$(dirname "$0")" && pwd)
parts=$cuda.parts

if [ -n "$(ls -A "$cuda" 2>/dev/null)" ] && [ ! -e "$cuda/.xresnet" ]; then
    echo "toolkit.sh: $cuda was not made by this script: remove it, or name another folder" >&2
    exit 1
fi
rm -rf "$cuda" "$parts"
set -- ${2:+--no-index --find-links "$2"}
python3 -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
    --no-compile --target "$parts" "$@" -r "$here/nvidia.txt"

mv "$parts/nvidia/cu13" "$cuda"  # nvcc, its compiler, runtime, headers, cuBLAS, cuRAND
touch "$cuda/.xresnet"
for part in cudnn nccl; do
    cp -a "$parts/nvidia/$part/include/." "$cuda/include/"
    cp -a "$parts/nvidia/$part/lib/." "$cuda/lib/"
done
mkdir "$cuda/licenses"
for info in "$parts"/*.dist-info; do
    name=$(basename "$info" .dist-info)
    find "$info" -iname '*licen*' -type f -exec cp {} "$cuda/licenses/$name.txt" \;
done
rm -rf "$parts"

# The wheels bring libNAME.so.N only; linkers ask for libNAME.so, Caffe for lib64.
for library in "$cuda"/lib/*.so.*; do
    link=${library%.so.*}.so
    [ -e "$link" ] || ln -s "$(basename "$library")" "$link"
done
ln -s lib "$cuda/lib64"
mkdir -p "$cuda/targets/x86_64-linux"
ln -s ../../include "$cuda/targets/x86_64-linux/include"
ln -s ../../lib "$cuda/targets/x86_64-linux/lib"
"$cuda/bin/nvcc" --version | grep release
