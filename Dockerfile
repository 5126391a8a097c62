# The image that every rule of the workflow runs in: the project and its locked dependencies, CUDA included (PyTorch's
# wheels carry it; the driver comes from the host). How to build, run and pin it: docs/container.md.
#
# Base and uv image are arguments, so that a mirror, a digest or a local stand-in needs no edit here.
ARG BASE_IMAGE=python:3.11-slim-bookworm
ARG UV_IMAGE=astral/uv:0.13.9

FROM ${UV_IMAGE} AS uv

FROM ${BASE_IMAGE} AS builder
COPY --from=uv /uv /usr/local/bin/uv
# What makes two builds equal: bytecode checked by content, not by time, and no record of when and from where.
ENV UV_COMPILE_BYTECODE=1 \
    PYC_INVALIDATION_MODE=UNCHECKED_HASH \
    UV_NO_INSTALLER_METADATA=1 \
    UV_LINK_MODE=copy \
    UV_PYTHON_DOWNLOADS=never
RUN uv venv --no-cache --python python3 /opt/blip
COPY envs/cuda.lock.txt envs/build.lock.txt /src/envs/
WORKDIR /src
RUN uv pip install --no-cache --python /opt/blip --require-hashes --no-deps -r envs/cuda.lock.txt
# The build backend in a place of its own, which the image does not get.
RUN uv venv --no-cache --python python3 /opt/build \
    && uv pip install --no-cache --python /opt/build --require-hashes --no-deps -r envs/build.lock.txt
COPY pyproject.toml README.md LICENSE /src/
COPY blip /src/blip
COPY config/experiments /src/config/experiments
COPY config/claims.yaml /src/config/
RUN uv build --no-cache --wheel --python /opt/build --no-build-isolation --out-dir /wheel \
    && uv pip install --no-cache --python /opt/blip --no-deps --no-index --find-links /wheel blip-continual

# No RUN from here on: what a build mounts or leaves behind in a stage that runs something is not in this one.
FROM ${BASE_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="blip-continual" \
      org.opencontainers.image.description="Continual learning via bit-level information preserving (BLIP)" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=builder /opt/blip /opt/blip
# PYTHONSAFEPATH: the workflow binds the checkout as working directory, and `python -c` and `-m` would import its blip/.
# HOME and caches: the user has no entry in /etc/passwd, and under Apptainer the file system is read-only.
ENV PATH=/opt/blip/bin:$PATH \
    PYTHONSAFEPATH=1 \
    PYTHONNOUSERSITE=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    MPLCONFIGDIR=/tmp/matplotlib \
    HOME=/tmp
USER 65532:65532
WORKDIR /work
CMD ["blip", "--help"]
