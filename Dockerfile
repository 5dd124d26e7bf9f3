# One image, two programs: zmu-worker (the daemon) and zmu-training (one run, or on a schedule).
#   docker build -t zmu .
#   docker build -t zmu --build-arg TORCH_INDEX= .         torch of the ordinary index: on x86-64 the CUDA build
#   docker build -t zmu-demo --target demo .               the same with the simulated plant
ARG BASE_IMAGE=python:3.12-slim


FROM ${BASE_IMAGE} AS dependencies
# Where torch comes from. PyTorch's own index has CPU wheels, a fraction of the size of the CUDA build.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# Extras of pyproject.toml that the image carries; add s3, gcs or azure for a registry in an object store.
ARG EXTRAS=training
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
# The environment is made without pip, which stays behind in this stage.
RUN python -m venv /pip && python -m venv --without-pip /opt/zmu
COPY pyproject.toml ./
# An empty zmu is installed for its dependencies' sake: they make a layer that a change of the code reuses.
RUN touch README.md LICENSE \
    && if [ -n "${TORCH_INDEX}" ]; then \
        torch=$(python -c "import tomllib; needs = tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies']; \
print(next(need for need in needs if need.startswith('torch')))") \
        && /pip/bin/pip --python /opt/zmu/bin/python install --no-deps --index-url "${TORCH_INDEX}" "${torch}"; \
    fi \
    && /pip/bin/pip --python /opt/zmu/bin/python install ".[${EXTRAS}]" \
    && /pip/bin/pip --python /opt/zmu/bin/python check


FROM dependencies AS code
# Rust builds the compiled core. Where Debian's cannot be had, or is too old, the image has its slower twin in Python.
RUN apt-get update && apt-get install --yes --no-install-recommends cargo gcc libc6-dev || echo "no Rust"
COPY README.md LICENSE setup.py ./
COPY worker worker
COPY training training
RUN /pip/bin/pip --python /opt/zmu/bin/python install --no-deps --ignore-installed --prefix /code .


FROM ${BASE_IMAGE} AS runtime
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="zmu" \
      org.opencontainers.image.description="Streaming anomaly detection for Kafka: worker and training" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

# A numeric user, so that Kubernetes can see that it is not root. /models is the registry: a new named volume
# mounted there takes over its owner.
RUN groupadd --gid 10001 zmu && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp zmu \
    && install -d -o zmu -g zmu /models
COPY --from=dependencies /opt/zmu /opt/zmu
COPY --from=code /code /opt/zmu

# Nothing is written outside /models and /tmp: the root filesystem can be read-only.
ENV PATH=/opt/zmu/bin:$PATH \
    HOME=/tmp \
    MPLCONFIGDIR=/tmp/matplotlib \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# The default registry, the folder `models`, is /models here; no setting is taken away from a --config file.
WORKDIR /
USER 10001:10001
EXPOSE 9108
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; \
c = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('ZMU_HTTP__PORT', 9108)), timeout=3); \
c.request('GET', '/healthz'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT []
CMD ["zmu-worker", "run"]


FROM runtime AS demo
COPY deploy/__init__.py /opt/demo/deploy/
COPY deploy/demo /opt/demo/deploy/demo
ENV PYTHONPATH=/opt/demo
HEALTHCHECK NONE


FROM runtime AS zmu
