#!/bin/bash
# What a GPU makes of the CUDA Caffe, in one go:  bench/gpu_caffe.sh PREFIX [OUT]
#
# PREFIX is what docker/build.sh cuda made (TESTS=1 for the first part). From the
# repository's root, in the environment (. .venv/bin/activate). About 20 minutes:
#   1. Caffe's own tests, those on the GPU
#   2. caffe time: XS-ResNet-50, ResNet-50, batch 24, fp32 and TF32
#   3. training XS-ResNet-50, batch 24, on a generated database: img/s, memory
#   4. losses, outputs and gradients against the same Caffe on the CPU, per blob
#   5. SIGINT and resume; CAFFE_DETERMINISTIC: twice the same weights
# OUT (work/gpu) gets every log and summary.md, rows for docs/PERFORMANCE.md.
#
# STEPS=N (200; 60 or more) iterations of 3; SECONDS_TO_STOP=N (45) until SIGINT; SIZE=N (224) and
# OPTIONS="..." (of netgen) for a rehearsal with a small net.
set -eu

prefix=${1:?usage: bench/gpu_caffe.sh PREFIX [OUT]}
out=${2:-work/gpu}
steps=${STEPS:-200}
size=${SIZE:-224}
export PATH=$prefix/bin:$PATH OPENBLAS_NUM_THREADS=${OPENBLAS_NUM_THREADS:-$(nproc)}
nvidia-smi -L >/dev/null 2>&1 || {
    echo "gpu_caffe.sh: no NVIDIA GPU here (nvidia-smi -L finds none)" >&2
    exit 1
}
[ -x "$prefix/bin/caffe" ] || { echo "gpu_caffe.sh: no $prefix/bin/caffe" >&2; exit 1; }
mkdir -p "$out"
summary=$out/summary.md
note() { echo "$*" | tee -a "$summary"; }
# shellcheck disable=SC2086 # several options are meant to be several
net() { python -m netgen "$@" --data "$out/data" --input-size "$size" ${OPTIONS:-}; }

: >"$summary"
note "$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader | head -1)"
note "$(caffe --version | head -1); $(date +%F); commit $(git rev-parse --short HEAD 2>/dev/null || echo '?')"

# ---- 1. Caffe's own tests ---------------------------------------------------------------
if [ -x "$prefix/test/test.testbin" ]; then
    tests=$(cd "$prefix/test" && pwd)/test.testbin
    (cd "$prefix/test" && GLOG_minloglevel=2 "$tests") >"$out/tests.log" 2>&1 || true
    note "Caffe's tests: $(grep -cE '^\[ +OK' "$out/tests.log") passed, $(grep -cE '^\[ +FAILED.*ms\)' "$out/tests.log" || true) failed"
else
    note "Caffe's tests: not built (TESTS=1)"
fi

# ---- data: 960 images of noise at full size, in the layout of data_prep --------------------
if [ ! -d "$out/data/train_image_lmdb" ]; then
    mkdir -p "$out/data"
    python - "$out/data" "$size" <<'PY'
import sys
from pathlib import Path

from tests.helpers.caffe_nets import write_lmdbs

write_lmdbs(Path(sys.argv[1]), (117, 553, 167), 960, int(sys.argv[2]))
PY
fi

# ---- 2. caffe time -------------------------------------------------------------------------
for name in xs_resnet50 "resnet50 --task noun"; do
    file=$out/${name%% *}.prototxt
    # shellcheck disable=SC2086 # a net and its options
    net $name >"$file"
    for tf32 in 0 1; do
        log=$out/time_${name%% *}_tf32_$tf32.log
        CAFFE_TF32=$tf32 caffe time -model "$file" -gpu 0 -iterations 20 >"$log" 2>&1 || true
        for what in "Average Forward pass" "Average Backward pass" "Average Forward-Backward"; do
            note "caffe time $name, TF32=$tf32, batch 24: $(grep -o "$what.*" "$log" || echo "$what: see $log")"
        done
    done
done

# ---- 3. training ---------------------------------------------------------------------------
# solver NAME ITERATIONS: OUT/NAME.prototxt, which snapshots to OUT/NAME
solver() {
    net xs_resnet50 --solver --net "$out/xs_resnet50.prototxt" --max-iter "$2" \
        --snapshot-prefix "$out/$1" --display 20 --seed 1 --test-interval 0 >"$out/$1.prototxt"
}
# train NAME [caffe's arguments]: with that solver, its log in OUT/NAME.log
train() {
    local name=$1
    shift
    caffe train -solver "$out/$name.prototxt" -gpu 0 "$@" >"$out/$name.log" 2>&1
}
for tf32 in 0 1; do
    export CAFFE_TF32=$tf32
    name=train_tf32_$tf32
    solver "$name" "$steps"
    train "$name" &
    child=$!
    memory=0
    while kill -0 "$child" 2>/dev/null; do
        now=$(nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits | head -1)
        [ "$now" -le "$memory" ] || memory=$now
        sleep 1
    done
    wait "$child" || { note "training, TF32=$tf32: FAILED, see $out/$name.log"; continue; }
    # The first interval pays for the start; "(12.3 iter/s, ...)" of the last does not.
    speed=$(grep -oE '\([0-9.]+ iter/s' "$out/$name.log" | tail -1 | tr -dc 0-9.)
    note "training XS-ResNet-50, batch 24, TF32=$tf32: $(awk "BEGIN {print 24 * $speed}") img/s, $memory MiB"
done
export CAFFE_TF32=0

# ---- 4. the CPU's numbers ------------------------------------------------------------------
for tf32 in 0 1; do
    CAFFE_TF32=$tf32 python -m tests.same_numbers --pycaffe "$prefix/bin/pycaffe" --gpu 0 \
        --nets xs_resnet50 --out "$out" >"$out/same_tf32_$tf32.log" 2>&1 || true
    note "GPU against CPU, TF32=$tf32: $(tail -1 "$out/same_tf32_$tf32.log")"
done

# ---- 5. stop, resume, twice the same ---------------------------------------------------------
rm -f "$out"/stopped_iter_*
solver stopped 100000
# Not through `train`: the signal is to reach Caffe itself.
caffe train -solver "$out/stopped.prototxt" -gpu 0 >"$out/stopped.log" 2>&1 &
child=$!
sleep "${SECONDS_TO_STOP:-45}"
kill -INT "$child"
wait "$child" || true
state=$(find "$out" -name 'stopped_iter_*.solverstate' | head -1)
if [ -n "$state" ]; then
    at=${state##*_iter_} && at=${at%.*}
    solver resumed $((at + 40))
    train resumed -snapshot "$state" && note "SIGINT: snapshot at iteration $at, resumed"
else
    note "SIGINT: NO SNAPSHOT, see $out/stopped.log"
fi
export CAFFE_DETERMINISTIC=1
for i in 1 2; do
    solver "twice_$i" 20
    train "twice_$i"
done
if cmp -s "$out"/twice_1_iter_20.caffemodel "$out"/twice_2_iter_20.caffemodel; then
    note "CAFFE_DETERMINISTIC=1: two runs of 20 iterations give the same bytes"
else
    note "CAFFE_DETERMINISTIC=1: two runs DIFFER"
fi
echo "all of it: $summary" >&2
