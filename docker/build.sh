#!/bin/sh
# Builds real BVLC Caffe from Debian's source:  docker/build.sh cpu|cuda SOURCE.tar.gz PREFIX
#
# Run by the Dockerfile, `make caffe-cpu` and `make caffe-cuda`. Needs the packages in
# docker/apt-build.txt, and for cuda a toolkit (docker/toolkit.sh makes one).
#   CUDA_HOME   the toolkit, with cuDNN and NCCL               (default: /opt/cuda)
#   ARCHS PTX   compute capabilities to compile for; the one whose PTX serves all later GPUs
#   JOBS        parallel compilers                             (default: one per core)
#   OPENCV      OFF: without OpenCV, so that convert_imageset cannot read images
#   TESTS       1: build Caffe's own tests into PREFIX/test too, and run them for cpu
#   BUILD       the folder to compile in, which is kept        (default: a temporary folder)
set -eu

usage="usage: docker/build.sh cpu|cuda SOURCE.tar.gz PREFIX"
kind=${1:?$usage} source=${2:?$usage} prefix=${3:?$usage}
here=$(cd "$(dirname "$0")" && pwd)
jobs=${JOBS:-$(nproc)}

case $prefix in /*) ;; *) prefix=$PWD/$prefix ;; esac
[ -r "$source" ] || {
    echo "build.sh: cannot read $source: run python3 docker/fetch.py DIR to fetch it" >&2
    exit 1
}
for tool in cmake ninja protoc patch c++; do
    command -v "$tool" >/dev/null || {
        echo "build.sh: no $tool on PATH: run docker/apt.sh install docker/apt-build.txt as root" >&2
        exit 1
    }
done
if [ -n "${BUILD:-}" ]; then
    mkdir -p "$BUILD"
    build=$(cd "$BUILD" && pwd)
else
    build=$(mktemp -d)
    trap 'rm -rf "$build"' EXIT
fi

# Names that nobody else has: $BUILD may be a folder with other things in it.
src=$build/caffe-source out=$build/caffe-out stage=$build/caffe-stage
rm -rf "$src" "$stage"
mkdir "$src"
tar -xzf "$source" -C "$src"
for patch in "$here"/patches/*.patch; do
    # Without fuzz: only a patch that fits exactly was tested.
    patch -p1 --fuzz=0 --no-backup-if-mismatch --silent -d "$src" -i "$patch"
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
    # Both flags let Caffe's tests share kernels between files, as before CUDA 13.
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

cmake -G Ninja -S "$src" -B "$out" -DCMAKE_INSTALL_PREFIX="$prefix" "$@" \
    >"$build/cmake.log" 2>&1 || { tail -n 20 "$build/cmake.log" >&2; exit 1; }
[ "$kind" = cpu ] || grep -q "Found cuDNN" "$build/cmake.log" || {
    echo "build.sh: no cuDNN in $cuda" >&2
    exit 1
}
ninja -C "$out" -j "$jobs"
DESTDIR="$stage" cmake --install "$out" --strip >/dev/null
# Without the 15 MB that only C++ programs of one's own need. PREFIX may hold other programs.
rm -rf "$stage$prefix/include" "$stage$prefix/share" "$stage$prefix"/lib/*.a
mkdir -p "$prefix"
cp -a "$stage$prefix/." "$prefix/"
cp "$src/LICENSE" "$prefix/LICENSE"

# Python with this Caffe, under the name that realcaffe gives it too.
cat >"$prefix/bin/pycaffe" <<EOF
#!/bin/sh
# The Python that this Caffe was built for, with Caffe. PYCAFFE_PATH is the path of your own
# modules; PYTHONPATH is ignored, as it may be meant for another Python.
unset PYTHONHOME
export PYTHONPATH="\${PYCAFFE_PATH:+\$PYCAFFE_PATH:}$prefix/python"
exec /usr/bin/python3 "\$@"
EOF
chmod 755 "$prefix/bin/pycaffe"

if [ "${TESTS:-}" = 1 ]; then
    ninja -C "$out" -j "$jobs" test.testbin
    mkdir -p "$prefix/test"
    cp "$out/test/test.testbin" "$prefix/test/"
    # The tests read sample files by paths relative to the source's root.
    mkdir -p "$prefix/test/src/caffe/test" "$prefix/test/examples"
    cp -r "$src/src/caffe/test/test_data" "$prefix/test/src/caffe/test/"
    cp -r "$src/examples/images" "$prefix/test/examples/"
    if [ "$kind" = cpu ]; then
        (cd "$prefix/test" && GLOG_minloglevel=2 ./test.testbin --gtest_filter='-*GPU*')
    fi
fi
"$prefix/bin/caffe" --version
