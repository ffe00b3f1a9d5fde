#!/bin/sh
# Prints the build argument that pins the base image by its digest:  docker/digest.sh IMAGE:TAG
set -eu

image=${1:?usage: docker/digest.sh IMAGE:TAG}
if ! command -v docker >/dev/null; then
    echo "docker-pin: docker is not on PATH" >&2
    exit 1
fi
told=$(docker buildx imagetools inspect "$image" --format '{{.Manifest.Digest}}' 2>&1) || true
case $told in
    sha256:*) echo "--build-arg DEBIAN=$image@$told" ;;
    *)
        echo "docker-pin: no digest of $image from this docker, which needs buildx 0.8 and the" \
            "network: $(echo "$told" | head -n 1)" >&2
        exit 1
        ;;
esac
