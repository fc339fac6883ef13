# The GPU image: NVIDIA's container with TensorRT-LLM 1.2.1 and its Triton, this project in it. Builds engines on the
# card that will serve them, and serves. Built on a plain Debian only, never on NVIDIA's image: docs/docker.md says
# what to check.
#     docker build -f docker/gpu.Dockerfile -t youtu:gpu .          (in the repository's folder)
ARG BASE=nvcr.io/nvidia/tritonserver:26.06-trtllm-python-py3
FROM ${BASE}
USER 0
RUN apt-get update \
    && apt-get install --yes --no-install-recommends make \
    && apt-get clean \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --no-create-home --home-dir /data --shell /usr/sbin/nologin youtu \
    && install --directory --owner=youtu --group=youtu /data /data/downloads /data/engines
WORKDIR /opt/youtu
# The container's Python, which its Triton runs models in, but none of its packages: what the lock pins, beside them.
COPY requirements/serve.lock requirements/
RUN python3 -m venv --without-pip .venv \
    && python3 -m pip --python .venv/bin/python install --no-cache-dir --disable-pip-version-check \
        --no-deps --require-hashes --only-binary :all: -r requirements/serve.lock \
    && echo /opt/youtu/client > "$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/youtu-client.pth"
COPY . .
# The stamp tells make that .venv is whole; var is where make engine puts what it makes.
RUN .venv/bin/python -m compileall -q build client docker frontend serve \
    && touch .venv/.stamp \
    && ln --symbolic /data var
ENV PATH=/opt/youtu/.venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    YOUTU_DATA_DIR=/data \
    YOUTU_ENGINE=tensorrt_llm \
    YOUTU_HOST=0.0.0.0
USER 10001:10001
VOLUME /data
EXPOSE 8080 8000 8001 8002
# Weights may have to be fetched and an engine built first: for that long no failed probe counts.
HEALTHCHECK --start-period=3h --interval=10s --timeout=5s --retries=3 CMD ["python", "docker/health.py"]
# NVIDIA's own entrypoint stays: it looks after the driver's compatibility libraries.
CMD ["python", "-m", "serve"]
