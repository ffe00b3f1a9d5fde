"""The commands in the venv: small sh scripts that start the prefix's programs.

A program of the prefix must not meet the host's C library, nor a host program
the prefix's. So each is started by the prefix's own loader with its library
path as an argument, which children do not inherit. `exec` leaves no process
between, so that signals and exit codes are Caffe's own. Nor does a script wait for a child
before: dash then unblocks the signals that its caller has blocked (reproduce.caffe does).
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from xresnet.basics import files

MARKER = "# wrapper of xresnet's realcaffe"  # by this line we know our own
LOADER = "lib/x86_64-linux-gnu/ld-2.31.so"
LIBRARIES = (
    "usr/lib/x86_64-linux-gnu/openblas-pthread",  # before the slow reference BLAS
    "usr/lib/x86_64-linux-gnu",
    "lib/x86_64-linux-gnu",
    "usr/lib",  # GDAL, on which OpenCV's image reading is linked
)
PROGRAMS = {
    "caffe": "usr/bin/caffe",
    "convert_imageset": "usr/bin/convert_imageset",
    "compute_image_mean": "usr/bin/compute_image_mean",
    "pycaffe": "usr/bin/python3.9",
}

_START = """\
#!/bin/sh
{marker}; made by `python -m xresnet.realcaffe install`, deleted by `... remove`.
prefix={prefix}
if [ ! -x "$prefix/{loader}" ]; then
    echo "{tool}: $prefix is gone; run: python -m xresnet.realcaffe install" >&2
    exit 127
fi
libraries={libraries}
# A library that the host wants preloaded does not fit the prefix's C library.
unset LD_PRELOAD
# This OpenBLAS, of 2020, knows CPUs by name and takes a later AMD for one of 2007, at half
# the speed. So choose its kernels by what the CPU can do; a choice of the user's stands.
if [ -z "${{OPENBLAS_CORETYPE-}}" ]; then
    unset OPENBLAS_CORETYPE
    [ ! -r /proc/cpuinfo ] || while read -r line; do
        case "$line " in
            flags*" avx512vl "*) export OPENBLAS_CORETYPE=SkylakeX ;;
            flags*" avx2 "*) export OPENBLAS_CORETYPE=Haswell ;;
        esac
        case $line in flags*) break ;; esac
    done </proc/cpuinfo
fi
# Caffe's log goes to stderr, and once more into files in /tmp, which nobody clears. Those are
# written only where a folder is named for them.
case "${{GLOG_log_dir:+-log_dir}} $*" in
    *-log_dir*) ;;
    *) export GLOG_logtostderr="${{GLOG_logtostderr-1}}" ;;
esac
"""

_EXEC = """\
exec "$prefix/{loader}" --inhibit-cache --library-path "$libraries" "$prefix/{program}" "$@"
"""

# PYTHON* variables of the user are meant for another Python: its numpy would
# not load here. PYCAFFE_PATH takes their place, also for Caffe's Python layers.
_PYTHON = """\
unset PYTHONHOME PYTHONPATH PYTHONSTARTUP
[ -z "${PYCAFFE_PATH-}" ] || export PYTHONPATH="$PYCAFFE_PATH"
export PYTHONNOUSERSITE=1
"""

# Python finds its library from its own place; inside of caffe it has to be told,
# and would otherwise take itself for the Python of an active venv.
_PYTHON_INSIDE = """\
export PYTHONHOME="$prefix/usr"
export PYTHONPATH="${PYTHONPATH:+$PYTHONPATH:}$prefix/usr/lib/python3/dist-packages"
"""

_EXECUTABLE = """\
case $0 in
    /*) export PYCAFFE_EXECUTABLE="$0" ;;
    *) export PYCAFFE_EXECUTABLE="$PWD/$0" ;;
esac
"""

# Makes sys.executable a command that can be started: the bare program, without
# its loader, would meet the host's libraries. Read by Python's site module.
PTH = "usr/lib/python3/dist-packages/pycaffe.pth"
PTH_LINE = "import os, sys; sys.executable = os.environ.get('PYCAFFE_EXECUTABLE', sys.executable)\n"

# What the command line asks for. Nothing here may start a child and wait for it: dash would
# unblock the signals that the caller has blocked.
_ASKED = r"""
command=${1-} solver= model= gpu= phases=TRAIN state=
read_arguments() {
    [ "$command" != test ] || phases=TEST
    while [ $# -gt 0 ]; do
        case $1 in
            -solver | --solver) solver=${2-} ;;
            -solver=* | --solver=*) solver=${1#*=} ;;
            -model | --model) model=${2-} ;;
            -model=* | --model=*) model=${1#*=} ;;
            -gpu | --gpu | -gpu=* | --gpu=*) gpu=1 ;;
            -phase | --phase) phases=${2-} ;;
            -phase=* | --phase=*) phases=${1#*=} ;;
            -stage* | --stage* | -level* | --level*) state=1 ;;
        esac
        shift
    done
}

# The text between quotes that `line` gives for the field $1, as `value`.
field() {
    case $line in
        *[[:space:]{]"$1":*\"*\"* | *[[:space:]{]"$1"[[:space:]]*:*\"*\"*) ;;
        *) return 1 ;;
    esac
    value=${line#*[[:space:]\{]"$1"}
    value=${value#*\"}
    value=${value%%\"*}
}

# What the solver file says: its net, and whether it tests and computes on a GPU.
read_solver() {
    [ "$command" = train ] && [ -r "$solver" ] || return 0
    set -f
    while IFS= read -r line || [ -n "$line" ]; do
        line=" ${line%%#*}"
        ! field net || model=$value
        case $line in
            *[[:space:]\;,]test_iter[[:space:]:]*) phases="TRAIN TEST" ;;
            *_state[[:space:]\{]*) state=1 ;;
        esac
        case $line in
            *[[:space:]\;,]solver_mode[[:space:]:]*) ;;
            *) continue ;;
        esac
        set -- ${line#*solver_mode}
        case ${1-}${2-} in :GPU* | :1*) gpu=1 ;; esac
    done <"$solver"
    set +f
}
read_arguments "$@"
read_solver
[ "$command" != device_query ] || gpu=1
"""

# Without its databases Caffe ends on "db_lmdb.hpp:15] Check failed: mdb_status == 0 (2 vs. 0)"
# and a stack trace. Only layers that plainly take part are judged: no stages, no levels.
_DATA = r"""
judge() {
    [ "$type" = Data ] && [ -n "$source" ] && [ -z "$rules" ] && [ ! -e "$source" ] || return 0
    case " $phases " in *" ${phase:-$phases} "*) ;; *) return 0 ;; esac
    folder=.
    case $source in */*) folder=${source%/*} ;; esac
    echo "caffe: there is no database $source, which $model reads (line $at); paths start in" \
        "$PWD. To make it: python -m data_prep run --out $folder (see its --help)" >&2
    exit 1
}

if [ -z "$state" ] && [ -n "$model" ] && [ -f "$model" ] && [ -r "$model" ]; then
    type= source= phase= rules= number=0 at=0
    while IFS= read -r line || [ -n "$line" ]; do
        number=$((number + 1))
        line=" ${line%%#*}"
        case $line in
            *[[:space:]]layer | *[[:space:]]layer[[:space:]\{]*)
                judge
                type= source= phase= rules=
                ;;
        esac
        case $line in *type*) [ -n "$type" ] || ! field type || type=$value ;; esac
        case $line in *source*) ! field source || { source=$value at=$number; } ;; esac
        case $line in
            *[[:space:]\{]phase*TRAIN*) phase=TRAIN ;;
            *[[:space:]\{]phase*TEST*) phase=TEST ;;
        esac
        case $line in *stage* | *level* | *exclude*) rules=1 ;; esac
    done <"$model"
    judge
fi
"""

# Caffe's tools end on "Cannot use GPU in CPU-only Caffe: check mode." and a
# stack trace. Where a GPU is asked for, stay as the parent, to say what to do.
_GPU = r"""
if [ -n "$gpu" ]; then
    "$prefix/{loader}" --inhibit-cache --library-path "$libraries" "$prefix/{program}" "$@" <&0 &
    child=$! signalled=
    for signal in INT HUP TERM; do
        trap "signalled=1; kill -s $signal $child 2>/dev/null" "$signal"
    done
    status=0
    wait "$child" || status=$?
    while [ -n "$signalled" ]; do  # it may have been the signal that ended the wait
        signalled= again=0
        wait "$child" || again=$?
        [ "$again" -eq 127 ] || status=$again  # 127: there is nothing left to wait for
    done
    if [ "$status" -ne 0 ] || [ "${1-}" = device_query ]; then
        cat >&2 <<'END'

caffe: this is the CPU-only build: it cannot do what -gpu, device_query or
`solver_mode: GPU` ask for. On this machine leave out -gpu and put
`solver_mode: CPU` into the solver (for example:
python -m netgen xs_resnet50 --solver --cpu). For a GPU, put a Caffe that
was built with CUDA on PATH, or use the Docker image.
END
    fi
    exit "$status"
fi
"""


def text(tool: str, prefix: Path) -> str:
    """The sh script that starts `tool` (a key of PROGRAMS) from `prefix`."""
    libraries = ":".join(str(prefix / folder) for folder in LIBRARIES)
    start = _START.format(
        marker=MARKER,
        prefix=shlex.quote(str(prefix)),
        loader=LOADER,
        tool=tool,
        libraries=shlex.quote(libraries),
    )
    caffe = _PYTHON + _PYTHON_INSIDE + _ASKED + _DATA + _GPU
    middles = {"caffe": caffe, "pycaffe": _PYTHON + _EXECUTABLE}
    middle = middles.get(tool, "")
    end = middle + _EXEC
    return start + end.replace("{loader}", LOADER).replace("{program}", PROGRAMS[tool])


def foreign_python_text(python: Path) -> str:
    """A `pycaffe` that starts a Python which already has a `caffe` of its own."""
    start = f"#!/bin/sh\n{MARKER}, for a Caffe that was here before.\n"
    return f'{start}exec {shlex.quote(str(python))} "$@"\n'


def write(path: Path, content: str) -> None:
    """Write an executable script; who starts it meets the old one or the new one, whole."""
    aside = files.write(path.with_name(f".{path.name}.{os.getpid()}"), content)
    aside.chmod(0o755)
    aside.replace(path)


def is_ours(path: Path) -> bool:
    """Whether `path` is a wrapper that we wrote."""
    try:
        with path.open("rb") as file:
            return MARKER.encode() in file.read(200)
    except OSError:
        return False
