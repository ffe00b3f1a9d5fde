#!/bin/sh
# Debian packages from a list:  docker/apt.sh install LIST | fetch LIST DIR
#
#   install   as usual
#   fetch     only the .deb files, with all that they need beyond what is installed, to DIR:
#             `apt-get install DIR/*.deb` then needs no network
set -eu

names() { sed 's/#.*//' "$1"; }

case ${1:-} in
install)
    apt-get update -qq
    # shellcheck disable=SC2046 # the list's words, one argument each
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(names "$2")
    ;;
fetch)
    mkdir -p "$3/partial"
    # shellcheck disable=SC2046
    apt-get install -y -qq --no-install-recommends --download-only \
        -o Dir::Cache::archives="$3" -o APT::Sandbox::User=root $(names "$2")
    rm -rf "$3/partial" "$3/lock"
    ;;
*)
    echo "usage: docker/apt.sh install LIST | fetch LIST DIR" >&2
    exit 2
    ;;
esac
