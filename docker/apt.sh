#!/bin/sh
# Installs or downloads the Debian packages of a list:  docker/apt.sh install LIST | fetch LIST DIR
#
#   install   installs them
#   fetch     downloads their .deb files and those of missing dependencies to DIR, so that
#             `apt-get install DIR/*.deb` needs no network
set -eu

names() { sed 's/#.*//' "$1"; }

case ${1:-} in
install)
    apt-get update -qq
    # shellcheck disable=SC2046 # one argument per word of the list
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
