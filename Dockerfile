# One image for all three processes: `python -m bridges sqs`, `faust -A stream_app monitor`, and `faust -A stream_app worker`, which it
# runs if nothing else is said.
# The base is pinned by its exact version; whoever builds for production adds the digest that their registry shows for it.
FROM python:3.11.15-slim-bookworm AS build

WORKDIR /build
COPY requirements.lock ./
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes --only-binary :all: -r requirements.lock \
    && /opt/venv/bin/pip uninstall --quiet --yes pip setuptools

COPY pipeline /app/pipeline
COPY bridges /app/bridges
COPY stream_app /app/stream_app
COPY docker/sitecustomize.py /app/sitecustomize.py
RUN python -m compileall -q --invalidation-mode unchecked-hash /app

FROM python:3.11.15-slim-bookworm

# The folders for secrets are made here so that a named volume mounted on one belongs to the user, too.
RUN groupadd --system --gid 10001 login-stream \
    && useradd --system --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin login-stream \
    && install -d -o 10001 -g 10001 /secrets /secrets/worker /secrets/operator /secrets/monitor /secrets/database

COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
COPY LICENSE /app/

ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    LOG_FORMAT=json \
    WEB_BIND=0.0.0.0 \
    BRIDGE_WEB_BIND=0.0.0.0 \
    MONITOR_WEB_BIND=0.0.0.0

# Nothing is written anywhere: run it with a read-only root file system.
WORKDIR /app
USER 10001:10001
EXPOSE 6060 6066 6090
STOPSIGNAL SIGTERM
CMD ["faust", "-A", "stream_app", "worker"]
