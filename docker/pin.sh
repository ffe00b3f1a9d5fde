#!/bin/bash
# For maintainers: writes docker/python.txt from pyproject.toml. Needs a python3 with pip.
set -euo pipefail

cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
sed -n '/^dependencies = \[/,/^\]/s/^ *"\([^"]*\)".*/\1/p' pyproject.toml >"$folder/wanted"
python3 -m pip download --quiet --disable-pip-version-check --only-binary :all: \
    --python-version 3.11 --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 \
    -d "$folder/wheels" -r "$folder/wanted"
{
    echo "# What pyproject.toml asks for, for the image's Python 3.11 on linux x86-64."
    echo "# Made by docker/pin.sh"
    for wheel in "$folder"/wheels/*.whl; do
        IFS=- read -r name version _ <<<"$(basename "$wheel")"
        echo "${name//_/-}==$version --hash=sha256:$(sha256sum "$wheel" | cut -d' ' -f1)"
    done
} >docker/python.txt
