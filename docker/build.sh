#!/bin/sh
# Builds real BVLC Caffe from Debian's source:  docker/build.sh cpu|cuda SOURCE.tar.gz PREFIX
#
# What the Dockerfile runs, and `make caffe-cpu`, `make caffe-cuda`. Needs what
# docker/apt-build.txt lists; for cuda also a toolkit (docker/toolkit.sh makes one).
#   CUDA_HOME   the toolkit with cuDNN and NCCL in it  (/opt/cuda)
#   ARCHS PTX   GPU generations in machine code; the one whose PTX serves all later ones
#   JOBS        compilers at a time                    (one a core)
#   OPENCV      OFF: without images and convert_imageset's reading of them
#   TESTS       1: Caffe's own tests too, in PREFIX/test; for cpu they are run
#   BUILD       where to compile, kept                 (a temporary folder, deleted)
set -eu

usage="usage: docker/build.sh cpu|cuda SOURCE.tar.gz PREFIX"
kind=${1:?$usage} source=${2:?$usage} prefix=${3:?$usage}
here=$(cd "$(dirname "$0")" && pwd)
jobs=${JOBS:-$(nproc)}

case $prefix in /*) ;; *) prefix=$PWD/$prefix ;; esac
[ -r "$source" ] || { echo "build.sh: no $source: run python3 docker/fetch.py DIR" >&2; exit 1; }
for tool in cmake ninja protoc patch c++; do
    command -v "$tool" >/dev/null || {
        echo "build.sh: no $tool here: as root, docker/apt.sh install docker/apt-build.txt" >&2
        exit 1
    }
done
if [ -n "${BUILD:-}" ]; then
    build=$BUILD
    mkdir -p "$build"
else
    build=$(mktemp -d)
    trap 'rm -rf "$build"' EXIT
fi

rm -rf "$build/src"
mkdir "$build/src"
tar -xzf "$source" -C "$build/src"
for patch in "$here"/patches/*.patch; do
    # No fuzz: a patch that does not fit exactly is not what was tried.
    patch -p1 --fuzz=0 --no-backup-if-mismatch --silent -d "$build/src" -i "$patch"
done

# Everything Caffe can do without a GPU; --as-needed drops libraries that only CMake's
# find modules name (HDF5's would bring libcurl and OpenSSL in).
set -- -DBLAS=Open -Dpython_version=3 -DPYTHON_EXECUTABLE=/usr/bin/python3 \
    -DBUILD_docs=OFF -DUSE_OPENCV="${OPENCV:-ON}" -DCMAKE_BUILD_TYPE=Release \
    -DCMAKE_SHARED_LINKER_FLAGS=-Wl,--as-needed -DCMAKE_EXE_LINKER_FLAGS=-Wl,--as-needed \
    -DCMAKE_POLICY_VERSION_MINIMUM=3.5  # CMake 4 refuses Caffe's 2.8.7 without

case $kind in
cpu) set -- "$@" -DCPU_ONLY=ON ;;
cuda)
    cuda=${CUDA_HOME:-/opt/cuda}
    [ -x "$cuda/bin/nvcc" ] || {
        echo "build.sh: no $cuda/bin/nvcc: run docker/toolkit.sh DIR, then set CUDA_HOME" >&2
        exit 1
    }
    # The last two let Caffe's tests share kernels between files, as before CUDA 13.
    flags=
    if "$cuda/bin/nvcc" --help | grep -q static-global-template-stub; then
        flags="-static-global-template-stub=false;-device-entity-has-hidden-visibility=false"
    fi
    set -- "$@" -DUSE_CUDNN=ON -DUSE_NCCL=ON -DCUDA_TOOLKIT_ROOT_DIR="$cuda" \
        -DCUDNN_ROOT="$cuda" -DNCCL_INCLUDE_DIR="$cuda/include" \
        -DNCCL_LIBRARIES="$cuda/lib64/libnccl.so" -DCUDA_NVCC_FLAGS="$flags" \
        -DCUDA_ARCH_NAME=Manual -DCUDA_ARCH_BIN="${ARCHS:-75 80 86 89 90 100 120}" \
        -DCUDA_ARCH_PTX="${PTX:-120}"
    ;;
*) echo "$usage" >&2; exit 2 ;;
esac

cmake -G Ninja -S "$build/src" -B "$build/out" -DCMAKE_INSTALL_PREFIX="$prefix" "$@" \
    >"$build/cmake.log" 2>&1 || { tail -n 20 "$build/cmake.log" >&2; exit 1; }
[ "$kind" = cpu ] || grep -q "Found cuDNN" "$build/cmake.log" || {
    echo "build.sh: $CUDA_HOME has no cuDNN" >&2
    exit 1
}
ninja -C "$build/out" -j "$jobs"
cmake --install "$build/out" --strip >/dev/null
# For people who write C++ against Caffe, which is nobody here: 15 MB.
rm -rf "$prefix/include" "$prefix/share" "$prefix"/lib/*.a
cp "$build/src/LICENSE" "$prefix/LICENSE"

# Python with this Caffe, under the name that realcaffe's tools go by.
cat >"$prefix/bin/pycaffe" <<EOF
#!/bin/sh
# The Python that this Caffe was built for, with Caffe in it. PYCAFFE_PATH is your own
# modules' path; PYTHONPATH may be meant for another Python.
unset PYTHONHOME
export PYTHONPATH="\${PYCAFFE_PATH:+\$PYCAFFE_PATH:}$prefix/python"
exec /usr/bin/python3 "\$@"
EOF
chmod 755 "$prefix/bin/pycaffe"

if [ "${TESTS:-}" = 1 ]; then
    ninja -C "$build/out" -j "$jobs" test.testbin
    mkdir -p "$prefix/test"
    cp "$build/out/test/test.testbin" "$prefix/test/"
    # They read sample files by paths relative to the source's root.
    mkdir -p "$prefix/test/src/caffe/test" "$prefix/test/examples"
    cp -r "$build/src/src/caffe/test/test_data" "$prefix/test/src/caffe/test/"
    cp -r "$build/src/examples/images" "$prefix/test/examples/"
    if [ "$kind" = cpu ]; then
        (cd "$prefix/test" && GLOG_minloglevel=2 ./test.testbin --gtest_filter='-*GPU*')
    fi
fi
"$prefix/bin/caffe" --version
