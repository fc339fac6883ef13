# The CPU image: Triton out of its wheel, the engine with both its runtimes, and the frontend. No compiler, no pip, not root.
#     docker build -f docker/cpu.Dockerfile -t youtu:cpu .          (in the repository's folder)
# BASE may be any Debian 12.
ARG BASE=docker.io/library/debian:bookworm-slim

# Python 3.11, its libpython for the program in which Triton runs a model, and libgomp for llama.cpp.
FROM ${BASE} AS python
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates libgomp1 libpython3.11 python3.11 \
    && apt-get clean \
    && rm -rf /var/lib/apt/lists/*

# What the lock pins goes into an environment without pip, by the pip of another one that stays behind.
FROM python AS install
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3.11-venv \
    && python3.11 -m venv /pip
WORKDIR /opt/youtu
COPY requirements/serve.lock requirements/openvino.lock requirements/
RUN python3.11 -m venv --without-pip .venv \
    && /pip/bin/pip --python .venv/bin/python install --no-cache-dir --disable-pip-version-check \
        --no-deps --require-hashes --only-binary :all: \
        -r requirements/serve.lock -r requirements/openvino.lock \
    && echo /opt/youtu/client > .venv/lib/python3.11/site-packages/youtu-client.pth
COPY . .
RUN .venv/bin/python -m compileall -q build client docker frontend serve \
    && ln --symbolic /data var

FROM python
# /data is the only place it writes to; a volume mounted there takes over this owner.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /data --shell /usr/sbin/nologin youtu \
    && install --directory --owner=youtu --group=youtu /data /data/downloads /data/engines
WORKDIR /opt/youtu
COPY --from=install /opt/youtu .
ENV PATH=/opt/youtu/.venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    YOUTU_DATA_DIR=/data \
    YOUTU_HOST=0.0.0.0
USER 10001:10001
VOLUME /data
EXPOSE 8080 8000 8001 8002
# An engine may have to be fetched and made first: for that long no failed probe counts.
HEALTHCHECK --start-period=1h --interval=10s --timeout=5s --retries=3 CMD ["python", "docker/health.py"]
CMD ["python", "-m", "serve"]
