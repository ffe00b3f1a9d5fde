"""The commands in the venv: sh scripts that start the prefix's programs.

A program of the prefix must not load the host's C library, nor a program of the host the
prefix's. So each is started by the prefix's own loader with its library path as an argument,
which children do not inherit. `exec` leaves no process between, so that signals and exit codes
are Caffe's own. Nor does a script wait for a child before that: dash then unblocks the signals
that its caller has blocked (as reproduce.caffe does).
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from xresnet.basics import files

MARKER = "# wrapper of xresnet's realcaffe"  # identifies our scripts
LOADER = "lib/x86_64-linux-gnu/ld-2.31.so"
LIBRARIES = (
    "usr/lib/x86_64-linux-gnu/openblas-pthread",  # before the slow reference BLAS
    "usr/lib/x86_64-linux-gnu",
    "lib/x86_64-linux-gnu",
    "usr/lib",  # GDAL, to which OpenCV's image reading is linked
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

# The user's PYTHON* variables are for another Python, whose NumPy would not load here.
# PYCAFFE_PATH replaces them, also for Caffe's Python layers.
_PYTHON = """\
unset PYTHONHOME PYTHONPATH PYTHONSTARTUP
[ -z "${PYCAFFE_PATH-}" ] || export PYTHONPATH="$PYCAFFE_PATH"
export PYTHONNOUSERSITE=1
"""

# Python finds its library by its own path. Embedded in caffe it needs PYTHONHOME, without which
# it would take an active venv for its own.
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

# Makes sys.executable a command that can be started: the program without its loader would load
# the host's libraries. Read by Python's site module.
PTH = "usr/lib/python3/dist-packages/pycaffe.pth"
PTH_LINE = "import os, sys; sys.executable = os.environ.get('PYCAFFE_EXECUTABLE', sys.executable)\n"

# Reads the command line and the solver. Nothing here may start a child and wait for it: dash
# would unblock the signals that the caller has blocked.
_ARGUMENTS = r"""
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

# Sets `value` to the quoted text of the field $1 in `line`.
field() {
    case $line in
        *[[:space:]{]"$1":*\"*\"* | *[[:space:]{]"$1"[[:space:]]*:*\"*\"*) ;;
        *) return 1 ;;
    esac
    value=${line#*[[:space:]\{]"$1"}
    value=${value#*\"}
    value=${value%%\"*}
}

# Reads the solver's net, and whether it tests and computes on a GPU.
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

# Without its databases Caffe aborts with "db_lmdb.hpp:15] Check failed: mdb_status == 0
# (2 vs. 0)" and a stack trace. Only layers that plainly take part are checked: those without
# stages and levels.
_DATA = r"""
check_source() {
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
                check_source
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
    check_source
fi
"""

# Where a GPU is asked for, Caffe aborts with "Cannot use GPU in CPU-only Caffe: check mode." and
# a stack trace. So the script stays as the parent and says what to do.
_GPU = r"""
if [ -n "$gpu" ]; then
    "$prefix/{loader}" --inhibit-cache --library-path "$libraries" "$prefix/{program}" "$@" <&0 &
    child=$! signalled=
    for signal in INT HUP TERM; do
        trap "signalled=1; kill -s $signal $child 2>/dev/null" "$signal"
    done
    status=0
    wait "$child" || status=$?
    while [ -n "$signalled" ]; do  # the signal may have ended the wait
        signalled= again=0
        wait "$child" || again=$?
        [ "$again" -eq 127 ] || status=$again  # 127: the child has ended
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
    """The script that starts `tool`, a key of PROGRAMS, from `prefix`."""
    libraries = ":".join(str(prefix / folder) for folder in LIBRARIES)
    start = _START.format(
        marker=MARKER,
        prefix=shlex.quote(str(prefix)),
        loader=LOADER,
        tool=tool,
        libraries=shlex.quote(libraries),
    )
    caffe = _PYTHON + _PYTHON_INSIDE + _ARGUMENTS + _DATA + _GPU
    middle = {"caffe": caffe, "pycaffe": _PYTHON + _EXECUTABLE}.get(tool, "")
    end = middle + _EXEC
    return start + end.replace("{loader}", LOADER).replace("{program}", PROGRAMS[tool])


def foreign_python_text(python: Path) -> str:
    """The script of a `pycaffe` that starts a Python with a `caffe` module of its own."""
    start = f"#!/bin/sh\n{MARKER}, for a Caffe that was here before.\n"
    return f'{start}exec {shlex.quote(str(python))} "$@"\n'


def write(path: Path, content: str) -> None:
    """Write an executable script atomically."""
    aside = files.write(path.with_name(f".{path.name}.{os.getpid()}"), content)
    aside.chmod(0o755)
    aside.replace(path)


def is_ours(path: Path) -> bool:
    """Whether `path` is one of our wrappers."""
    try:
        with path.open("rb") as file:
            return MARKER.encode() in file.read(200)
    except OSError:
        return False
