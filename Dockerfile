# catserve in a container: two targets, for CPUs (the last, so the default) and for GPUs.
#   docker build --target cpu  -t catserve:0.1.0 .
#   docker build --target cuda -t catserve:0.1.0-cuda .
#   docker run --read-only -p 8500:8500 -v "$PWD/models/text:/model:ro" catserve:0.1.0
# Bases are pinned by exact tag. The model is no part of the image: mount it at /model.

FROM nvidia/cuda:13.0.1-devel-ubuntu24.04 AS cuda-build
WORKDIR /catserve
COPY . .
RUN tools/install_deps.sh \
 && cmake --preset release -DCATSERVE_CUDA=ON -DBUILD_TESTING=OFF \
 && cmake --build build/release --target catserved catctl \
 && tools/image_root.sh build/release /image

FROM nvidia/cuda:13.0.1-base-ubuntu24.04 AS cuda
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="catserve" \
      org.opencontainers.image.description="Compressed-context language models over gRPC, on GPUs" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
RUN apt-get update \
 && apt-get install -y --no-install-recommends libcublas-13-0=13.0.* \
 && rm -rf /var/lib/apt/lists/*
COPY --from=cuda-build /image/usr/ /usr/
COPY --from=cuda-build /image/etc/catserve/ /etc/catserve/
USER 65532:65532
EXPOSE 8500 9500
HEALTHCHECK --interval=10s --timeout=5s --start-period=30m --retries=3 \
  CMD ["/usr/bin/catctl", "wait", "--server=127.0.0.1:8501", "--timeout_seconds=3"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/bin/catserved"]
CMD ["--backend=cuda", "--model=/model", "--config=/etc/catserve/catserve.yaml", \
     "--listen_address=0.0.0.0:8500", "--metrics_address=0.0.0.0:9500"]

FROM debian:12.12-slim AS cpu-build
WORKDIR /catserve
COPY . .
RUN tools/install_deps.sh \
 && cmake --preset release -DBUILD_TESTING=OFF \
 && cmake --build build/release --target catserved catctl \
 && tools/image_root.sh build/release /image

FROM scratch AS cpu
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="catserve" \
      org.opencontainers.image.description="Compressed-context language models over gRPC, on CPUs" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=cpu-build /image/ /
USER 65532:65532
EXPOSE 8500 9500
HEALTHCHECK --interval=10s --timeout=5s --start-period=10m --retries=3 \
  CMD ["/usr/bin/catctl", "wait", "--server=127.0.0.1:8501", "--timeout_seconds=3"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/bin/catserved"]
CMD ["--model=/model", "--config=/etc/catserve/catserve.yaml", \
     "--listen_address=0.0.0.0:8500", "--metrics_address=0.0.0.0:9500"]
