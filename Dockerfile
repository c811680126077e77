# The operator and the command line, in one image.
#
#   docker build --build-arg PYTHON_DIGEST=sha256:... -t shardgate:0.1.0 .
#
# PYTHON_DIGEST has no default: name the digest of the base image that you trust. The same base is in both stages, as the
# virtual environment refers to its Python.
ARG PYTHON_TAG=3.13-slim-bookworm
ARG PYTHON_DIGEST

FROM python:${PYTHON_TAG}@${PYTHON_DIGEST} AS build
ARG UV_VERSION=0.13.9
ENV UV_PYTHON_DOWNLOADS=never UV_NO_CACHE=1
WORKDIR /src
RUN python -m pip install --no-cache-dir --disable-pip-version-check uv==${UV_VERSION}
COPY pyproject.toml uv.lock README.md LICENSE ./
RUN uv export --frozen --no-dev --no-emit-project --format requirements-txt --quiet --output-file /tmp/requirements.txt \
 && uv venv --python python3 /opt/shardgate \
 && uv pip install --python /opt/shardgate --require-hashes --requirements /tmp/requirements.txt
COPY operator operator
RUN uv build --wheel --out-dir /tmp/wheel \
 && uv pip install --python /opt/shardgate --no-deps /tmp/wheel/shardgate-*.whl \
 && /opt/shardgate/bin/python -m compileall -q /opt/shardgate/lib

FROM python:${PYTHON_TAG}@${PYTHON_DIGEST}
RUN python -m pip uninstall --yes pip
COPY --from=build /opt/shardgate /opt/shardgate
ENV PATH=/opt/shardgate/bin:$PATH PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /tmp
USER 65532:65532
EXPOSE 9443 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
  CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:' + os.environ.get('SHARDGATE_METRICS_PORT', '8080') + '/livez', timeout=4)"]
ENTRYPOINT ["kopf", "run", "-A", "-m", "shardgate.main"]
