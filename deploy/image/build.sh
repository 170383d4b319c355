#!/bin/sh
# Build the image with whatever builds images here, for one or for several platforms.
#   deploy/image/build.sh                      understudy:VERSION and understudy:latest, for this machine
#   PLATFORMS=linux/amd64,linux/arm64 REPOSITORY=registry.example/understudy deploy/image/build.sh
#       for both, pushed to the registry with an SBOM and the provenance attached (docker buildx)
#   TARGET=load deploy/image/build.sh          with the load generator: understudy-load
#   PYTHON=docker.io/library/python:3.11-slim-bookworm@sha256:…   the base, pinned by its digest
# Arguments are passed on to the build: deploy/image/build.sh --network=host
set -eu
cd "$(dirname "$0")/../.."
target=${TARGET:-runtime}
name=${REPOSITORY:-understudy}
[ "$target" = runtime ] || name="$name-$target"
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' understudy/__init__.py)
set -- --file deploy/Dockerfile --target "$target" --tag "$name:$version" --tag "$name:latest" "$@"
[ -z "${PYTHON:-}" ] || set -- "$@" --build-arg "PYTHON=$PYTHON"
if [ -n "${PLATFORMS:-}" ]; then
    exec docker buildx build "$@" --platform "$PLATFORMS" --sbom=true --provenance=mode=max --push .
fi
for tool in docker podman buildah; do
    if command -v "$tool" >/dev/null 2>&1 && { [ "$tool" != docker ] || docker info >/dev/null 2>&1; }; then
        # The OCI format has no health checks.
        [ "$tool" = docker ] || set -- --format docker "$@"
        exec "$tool" build "$@" .
    fi
done
echo "Nothing here builds images: docker (with its engine), podman or buildah is needed." >&2
exit 1
