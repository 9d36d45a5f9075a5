#   docker build -t iei .                                       CPU
#   docker build -t iei:gpu --build-arg TORCH_BACKEND=cu132 .   GPU: the CUDA version of the PyTorch wheels
#   docker build -t iei:lean --build-arg TORCH_BACKEND=none .   CPU, for what `iei export` has written: without torch
#
# All arguments, podman and buildah: docs/operations.md, "The image".

ARG PYTHON_VERSION=3.13
ARG BASE=docker.io/library/python:${PYTHON_VERSION}-slim

FROM ${BASE} AS build
# Which PyTorch: cpu, a CUDA version, none at all, or nothing for the one that the package index has.
ARG TORCH_BACKEND=cpu
# Another version of it than that of uv.lock.
ARG TORCH_VERSION
# uv's own variable: a folder or page of wheels, for builds that can't reach PyTorch's index.
ARG UV_FIND_LINKS
# The certificates of the base, not uv's: a company's base knows its own.
ENV UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_PYTHON_DOWNLOADS=never \
    UV_SYSTEM_CERTS=1 \
    VIRTUAL_ENV=/opt/iei
RUN --mount=type=cache,target=/root/.cache/pip pip install uv==0.13.8
WORKDIR /src
RUN uv venv "$VIRTUAL_ENV"

# The lock's versions are constraints, not requirements: torch's own CUDA packages are in the lock because PyPI's torch
# asks for them, and as requirements they would be installed next to the CPU torch, which does not. They are dropped, so
# that the chosen torch decides which of them, and in which versions, it needs.
# Without torch, transformers goes too, and what only these two need.
# Of torch, C++ headers, tests and a compiler of protobuf go: nobody builds extensions in the image.
# Dependencies come before the sources: a changed line of code does not install torch again.
COPY pyproject.toml uv.lock ./
RUN --mount=type=cache,target=/root/.cache/uv \
    uv export --quiet --frozen --no-dev --extra=grpc --no-emit-project --no-hashes --no-annotate --output-file=locked.txt \
    && sed --in-place --regexp-extended "/^(cuda|nvidia|triton)/d${TORCH_VERSION:+; s/^torch==.*/torch==$TORCH_VERSION/}" \
        locked.txt \
    && case "$TORCH_BACKEND" in \
        none) printf 'torch\ntransformers\n' >excluded.txt && set -- --excludes=excluded.txt ;; \
        ?*) set -- --torch-backend="$TORCH_BACKEND" ;; \
    esac \
    && uv pip install "$@" --constraints=locked.txt --requirements=pyproject.toml --extra=grpc \
    && find "$VIRTUAL_ENV" -regextype posix-extended -regex '.*/torch/(include|test|bin/(protoc|test_)[^/]*)' -prune \
        -exec rm -r {} +

COPY README.md LICENSE ./
COPY iei/ iei/
RUN --mount=type=cache,target=/root/.cache/uv uv pip install --no-deps .

FROM ${BASE}
LABEL org.opencontainers.image.title="IEI, Image Embedding Inference" \
      org.opencontainers.image.licenses="Apache-2.0"
# Both caches belong to the user before they become a volume: a new volume inherits that.
RUN useradd --uid 1000 --create-home iei \
    && install --directory --owner=iei --group=iei /cache /cache/huggingface /cache/iei
COPY --from=build /opt/iei /opt/iei
COPY deploy/healthcheck.py /opt/iei/bin/
ENV PATH=/opt/iei/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HF_HOME=/cache/huggingface \
    IEI_CACHE_DIR=/cache/iei \
    IEI_WORKERS=4 \
    IEI_BIND=0.0.0.0:8000
# By number, so that Kubernetes can see that it is not root.
USER 1000:1000
WORKDIR /home/iei
# For those who would rather give gunicorn's options themselves: docker run iei gunicorn server:app --preload …
COPY server.py ./
VOLUME /cache
# 8001: gRPC, where IEI_GRPC_BIND=0.0.0.0:8001 is set.
EXPOSE 8000 8001
STOPSIGNAL SIGTERM
# The first start may download a model; after that, a few seconds. No --start-interval: Debian 12's podman and buildah
# refuse the whole file for it.
HEALTHCHECK --start-period=10m --interval=10s --timeout=5s --retries=3 \
    CMD ["python", "/opt/iei/bin/healthcheck.py"]
CMD ["iei", "serve"]
