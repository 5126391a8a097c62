#!/bin/bash
# Stand-ins for the two images that the Dockerfile starts from, made of Debian's packages and of uv's wheel, so that no
# image registry is needed: localhost/python:3.11 and localhost/uv:latest in the storage of the buildah command given.
#
#     base.sh WORK UV BUILDAH…      WORK: an empty folder; UV: the uv program; BUILDAH…: buildah and its global options
set -euo pipefail
work=$1 uv=$2
shift 2

. /etc/os-release
mirror=$(apt-get indextargets --format '$(SITE)' "Codename: $VERSION_CODENAME" | head -n 1)
mmdebstrap --quiet --mode=root --variant=minbase --include=ca-certificates,python3,python3-venv \
    --customize-hook='ln -s /usr/bin/python3 "$1/usr/local/bin/python3"' \
    --customize-hook='ln -s /usr/bin/python3 "$1/usr/local/bin/python"' \
    "$VERSION_CODENAME" "$work/base.tar" "deb $mirror $VERSION_CODENAME main"

container=$("$@" from scratch)
"$@" add --quiet "$container" "$work/base.tar" /
"$@" commit --quiet --rm "$container" localhost/python:3.11
rm "$work/base.tar"

container=$("$@" from scratch)
"$@" copy --quiet "$container" "$uv" /uv
"$@" commit --quiet --rm "$container" localhost/uv:latest
