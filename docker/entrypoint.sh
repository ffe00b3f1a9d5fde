#!/bin/bash
# The images' entry point:  docker run IMAGE COMMAND ...
#
#   table2 [...]        from /data to the table; raw images are made into LMDBs first
#   xresnet | netgen | data_prep ...     the project's commands
#   caffe | pycaffe | any other program ...
#   licences            what is in the image, and under which terms
#
# 1. Runs as the owner of /data, so that what it writes is the caller's.
# 2. `docker stop` sends SIGTERM, which Caffe ignores: on it (and on SIGINT) the command
#    gets what Ctrl-C would give it, SIGINT to all its processes: Caffe takes a snapshot.
# 3. `caffe train` goes on from the newest snapshot of its solver, if there is one.
#
# RUN_AS=UID:GID   as whom to run    (the owner of /data; UID 1000 where that is root)
# RESUME=0         caffe train starts anew
# DATA_PREP="..."  more options of `data_prep run`
# XRESNET_DATA     another folder than /data
set -eu

data=${XRESNET_DATA:-/data}
results=$data/results
say() { echo "xresnet: $*" >&2; }

# ---- as whom -----------------------------------------------------------------

if [ "$(id -u)" = 0 ] && [ -z "${XRESNET_USER_SET:-}" ]; then
    who=${RUN_AS:-$(stat -c %u:%g "$data")}
    read -r _ outside _ </proc/self/uid_map
    if [ "${who%%:*}" = 0 ] && [ -z "${RUN_AS:-}" ] && [ "$outside" = 0 ]; then
        who=1000:1000  # nobody's training should run as root by oversight
    fi
    export XRESNET_USER_SET=$who
    # In a rootless engine root in here is the caller outside: stay.
    if [ "$who" != 0:0 ] && [ "$outside" = 0 ]; then
        exec setpriv --reuid "${who%%:*}" --regid "${who##*:}" --clear-groups "$0" "$@"
    fi
fi
[ -w "${HOME:-/}" ] || export HOME=/tmp

# ---- the command, and its end --------------------------------------------------

run() {
    set -m  # a process group of its own, in which Ctrl-C is not ignored
    "$@" <&0 &
    child=$!
    set +m
    trap 'say "stopping: waiting for the snapshot"; kill -INT -- "-$child" || true' TERM INT
    # SIGHUP means "snapshot and go on" to Caffe, the end to anything else.
    [ "$1" != caffe ] || trap 'kill -HUP "$child" || true' HUP
    status=0
    while true; do
        wait "$child" && status=0 || status=$?
        kill -0 "$child" 2>/dev/null || break  # else a signal ended the wait
    done
    exit "$status"
}

# ---- caffe train: take up what is there --------------------------------------------

# Sets `caffe` to the command, from its solver's last whole snapshot where there is one: what
# is whole, and where its weights lie now, the project's Python knows.
resume() {
    local words
    words=$(PYTHONPATH=/opt/xresnet${PYTHONPATH:+:$PYTHONPATH} python3 -m xresnet.reproduce.resume "$@")
    eval "caffe=($words)"
}

# ---- table2: from whatever is in /data ---------------------------------------------

# Sets `lmdbs` to the folder of databases, made of raw images where there is none yet; not
# for a table2 of these options that would be refused hours later.
find_lmdbs() {
    for lmdbs in "$data" "$data/lmdb"; do
        [ ! -d "$lmdbs/train_image_lmdb" ] || return 0
    done
    local source=() images=$data name
    for name in bi_concepts1553 bi_concepts; do
        [ ! -d "$data/$name" ] || images=$data/$name
    done
    if [ -d "$data/labels" ]; then source=(--labels "$data/labels"); fi
    for name in 3244ANPs.txt ontology.txt; do
        [ ! -r "$data/$name" ] || source=(--ontology "$data/$name")
    done
    if [ ${#source[@]} = 0 ]; then
        say "$data has neither train_image_lmdb nor labels/, 3244ANPs.txt or ontology.txt:" \
            "mount your data there (-v FOLDER:$data); docs/DATA.md says what goes in"
        exit 1
    fi
    python -m xresnet table2 "$@" --data "$lmdbs" --check
    say "making LMDBs of $images in $lmdbs"
    # shellcheck disable=SC2086 # several words are meant to be several
    python -m data_prep run "${source[@]}" --images "$images" --out "$lmdbs" ${DATA_PREP:-}
}

table2() {
    local rest=("$@")
    local out=$results
    [[ " $* " != *" --smoke "* ]] || out=$results/smoke  # a rehearsal stays apart
    [[ " $* " == *" --out"[\ =]* ]] || rest+=(--out "$out")
    if [[ " $* " != *" --data"[\ =]* && " $* " != *" --help "* && " $* " != *" -h "* ]]; then
        find_lmdbs "${rest[@]}"
        rest+=(--data "$lmdbs")
    fi
    exec python -m xresnet table2 "${rest[@]}"
}

[ $# -gt 0 ] || set -- table2 --help
case $1 in
table2) # in a shell of its own, so that data preparation can be stopped as well
    shift
    run "$0" xresnet-table2 "$@"
    ;;
xresnet-table2) shift && table2 "$@" ;;
xresnet | data_prep) run python -m "$@" ;;
netgen) exec python -m "$@" ;;
caffe)
    caffe=("$@")
    if [ "${2:-}" = train ] && [ "${RESUME:-1}" != 0 ]; then resume "$@"; fi
    run "${caffe[@]}"
    ;;
licences) exec cat /opt/xresnet/LICENCES.txt ;;
*)
    command -v "$1" >/dev/null || {
        say "no command '$1': table2, xresnet, netgen, data_prep, caffe, pycaffe, licences, or a program"
        exit 127
    }
    exec "$@"
    ;;
esac
