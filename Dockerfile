# The operator's image: `docker build -t energylens:0.1.0 .`
# Pin the base image by digest in builds that must be repeatable: --build-arg PYTHON_IMAGE=python:3.13-slim@sha256:...
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY operator/ operator/
RUN python -m venv /opt/energylens \
    && python -m pip wheel --no-cache-dir --no-deps --wheel-dir /wheels . \
    && /opt/energylens/bin/pip install --no-cache-dir --no-compile /wheels/*.whl

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="energylens" \
      org.opencontainers.image.description="Serves LLMs on Kubernetes with the least energy that meets their latency objectives" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/energylens /opt/energylens
# The root file system may be read-only: no bytecode is written, and temporary files go to /tmp.
ENV PATH=/opt/energylens/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    OPENBLAS_NUM_THREADS=1 \
    HOME=/tmp
WORKDIR /tmp
# A number, so that Kubernetes can check runAsNonRoot.
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["energylens"]
CMD ["operator", "--metrics-port=8080"]
