# One image, two programs: zmu-worker (the daemon) and zmu-training (one run, or on a schedule).
#   docker build -t zmu .
#   docker build -t zmu --build-arg TORCH_INDEX= .         torch of the ordinary index: on x86-64 the CUDA build
#   docker build -t zmu-demo --target demo .               the same with the simulated plant
ARG BASE_IMAGE=python:3.12-slim


FROM ${BASE_IMAGE} AS dependencies
# Where torch comes from. PyTorch's own index has CPU wheels, a fraction of the size of the CUDA build.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# The one package without a hash in the lock: the builds that the indexes have of one version differ.
ARG TORCH_VERSION=2.15.0
# Extras of pyproject.toml that the image carries; add s3, gcs or azure for a registry in an object store. The lock
# holds those of `training`; what others need beside it comes without hashes, unless LOCK names a lock that has it.
ARG EXTRAS=training
ARG LOCK=deploy/requirements.lock
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
# The environment is made without pip, which stays behind in this stage.
RUN python -m venv /pip && python -m venv --without-pip /opt/zmu
COPY pyproject.toml ./
COPY ${LOCK} requirements.lock
# An empty zmu is installed so that what it needs can be checked: a lock that has fallen behind ends the build.
RUN touch README.md LICENSE \
    && pip="/pip/bin/pip --python /opt/zmu/bin/python install" \
    && $pip --require-hashes --no-deps --only-binary :all: --requirement requirements.lock \
    && if [ -n "${TORCH_INDEX}" ]; then $pip --no-deps --index-url "${TORCH_INDEX}" "torch==${TORCH_VERSION}"; \
        else $pip "torch==${TORCH_VERSION}"; fi \
    && $pip --no-deps . \
    && if [ "${EXTRAS}" != training ]; then \
        sed --expression 's/ *\\$//' --expression '/--hash/d' requirements.lock > pins \
        && $pip --constraint pins ".[${EXTRAS}]"; \
    fi \
    && /pip/bin/pip --python /opt/zmu/bin/python check


FROM dependencies AS code
# Rust builds the compiled core. Where Debian's cannot be had, or is too old, the image has its slower twin in Python.
RUN apt-get update && apt-get install --yes --no-install-recommends cargo gcc libc6-dev || echo "no Rust"
COPY README.md LICENSE setup.py ./
COPY worker worker
COPY training training
RUN /pip/bin/pip --python /opt/zmu/bin/python install --no-deps --ignore-installed --prefix /code .


FROM dependencies AS sbom
COPY --from=code /code /opt/zmu
COPY worker/_core/Cargo.lock deploy/sbom.py ./
RUN python sbom.py --site /opt/zmu/lib/python3.*/site-packages > /sbom.cdx.json


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
COPY --from=sbom /sbom.cdx.json /usr/share/zmu/

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
    CMD ["python", "-c", "import http.client as h, os, ssl, sys; \
at = dict(host='127.0.0.1', port=int(os.environ.get('ZMU_HTTP__PORT', 9108)), timeout=3); \
tls = os.environ.get('ZMU_HTTP__SSL_CERTFILE'); \
c = h.HTTPSConnection(**at, context=ssl._create_unverified_context()) if tls else h.HTTPConnection(**at); \
c.request('GET', '/healthz'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT []
CMD ["zmu-worker", "run"]


FROM runtime AS demo
COPY deploy/__init__.py /opt/demo/deploy/
COPY deploy/demo /opt/demo/deploy/demo
ENV PYTHONPATH=/opt/demo
HEALTHCHECK NONE


FROM runtime AS zmu
