#!/bin/bash
# What a CUDA GPU makes of all this, a step of at most ten minutes at a time. From the
# repository's root, in an environment with PyTorch; no network is needed.
#
#   bench/gpu.sh engine [fp32|tf32|bf16]     a: the engine, tables for docs/PERFORMANCE.md
#   bench/gpu.sh caffe PREFIX                b: the CUDA Caffe that docker/build.sh cuda made
#   bench/gpu.sh study DATA OUT [OPTIONS]    c: experiment 3 at full width, as far as it gets;
#                                            the same again goes on. DATA is data_prep's folder of
#                                            the fashion set at 224, OPTIONS reproduce grid's
#   bench/gpu.sh rehearse                    a and c on a CPU, small; b's parts have their own tests
#
# Beside the checkout: PREFIX (10 MB), DATA's images (33 MB), and ImageNet's weights in the cache
# or, for `study` without them, `--resume-from`. Results go to stdout, logs to OUT.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python}
[ -x .venv/bin/python ] && python=${PYTHON:-.venv/bin/python}
limit=${LIMIT:-570}

# within COMMAND...: for so many seconds, then Ctrl-C, which what we run stops well on
within() {
    timeout --signal=INT --kill-after=60 "$limit" "$@" || {
        status=$?
        [ "$status" -ne 124 ] || { echo "gpu.sh: stopped after $limit s: call it again" >&2; }
        return "$status"
    }
}

case ${1:-} in
engine)
    within "$python" -m bench.gpu --precisions "${2:-fp32,tf32,bf16}"
    within "$python" -m bench.torchcaffe_data
    ;;
caffe)
    prefix=${2:?usage: bench/gpu.sh caffe PREFIX}
    # PyTorch's wheels bring CUDA's libraries, which Caffe finds there.
    libraries=$("$python" -c 'import glob, nvidia
print(":".join(glob.glob(list(nvidia.__path__)[0] + "/**/lib", recursive=True)))' || true)
    export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    within bench/gpu_caffe.sh "$prefix"
    ;;
study)
    data=${2:?usage: bench/gpu.sh study DATA OUT}
    out=${3:?usage: bench/gpu.sh study DATA OUT}
    shift 3
    within "$python" -m xresnet grid finetuned --data "$data" --out "$out" \
        --engine torch --gpu 0 --bf16 "$@"
    ;;
rehearse)
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    within "$python" -m bench.gpu --rehearse --hows eager
    within "$python" -m bench.torchcaffe_data --batches 1
    "$python" -m data_prep sample --per-anp 12 --out "$work/vso"
    images=(--images "$work/vso" --out "$work/data")
    "$python" -m data_prep filter --ontology "$work/vso/ontology.txt" --min-images 10 "${images[@]}"
    "$python" -m data_prep split "${images[@]}"
    "$python" -m data_prep lmdb --size 32 "${images[@]}"
    # The study's grid, but a thin net from nothing, one row and seed.
    "$python" - "$work/grid.json" <<'PY'
import json, sys
grid = json.load(open("xresnet/reproduce/grids/finetuned.json"))
grid["net"] = ["--batch", "8", "--width", "4"]
grid["stages"] = [{"lr": 0.001, "epochs": 1}]
grid["seeds"], grid["rows"] = [1], grid["rows"][:1]
for key in ("weights", "primary", "exploratory"):
    grid.pop(key, None)
json.dump(grid, open(sys.argv[1], "w"))
PY
    within "$python" -m xresnet grid "$work/grid.json" --data "$work/data" --out "$work/out" \
        --engine torch --bf16
    ;;
*)
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
