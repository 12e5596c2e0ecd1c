# pusher with all its commands: `docker build -t pusher .`, then `docker run pusher /app/pusher apns -p`.
# The base image is pinned by its digest: docs/container.md says how it is updated.
# Settings: /app/config/default.yaml, or PUSHER_ variables. Keys and certificates: /app/tls.

ARG BASE=python:3.13.14-slim-bookworm@sha256:9d7f287598e1a5a978c015ee176d8216435aaf335ed69ac3c38dd1bbb10e8d64

FROM ${BASE} AS build

WORKDIR /src
RUN python3 -m venv /opt/pusher
COPY requirements.lock ./
# wheels, and the only package that has none, which is pure Python: nothing is compiled
RUN /opt/pusher/bin/python -m pip install --no-cache-dir --disable-pip-version-check --only-binary=:all: --no-binary=psycogreen --require-hashes -r requirements.lock
# the backend checks the hash of what it builds
COPY packaging/ packaging/
RUN /opt/pusher/bin/python -m pip install --no-cache-dir --disable-pip-version-check --no-deps ./packaging/sleekxmpp
COPY pyproject.toml README.md LICENSE ./
COPY config/ config/
COPY docs/pusher.1 docs/
COPY pusher/ pusher/
RUN /opt/pusher/bin/python -m pip install --no-cache-dir --disable-pip-version-check --no-deps . \
    && /opt/pusher/bin/python -m pip uninstall -qy pip setuptools

FROM ${BASE}

# the init: it reaps orphans, which the kernel gives to process 1, and passes signals on from the first instant
RUN apt-get update \
    && apt-get install -y --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --system --gid 10001 pusher \
    && useradd --system --uid 10001 --gid 10001 --home-dir /app --shell /usr/sbin/nologin pusher \
    && mkdir -p /app/config /app/tls /app/data \
    && ln -s /opt/pusher/bin/pusher /app/pusher \
    && chown pusher /app/data
COPY --from=build /opt/pusher /opt/pusher
COPY config/default.yaml /app/config/default.yaml

ENV PATH=/opt/pusher/bin:$PATH PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
# /app/data: the embedded broker, sqlite:////app/data/queue.db
VOLUME ["/app/config", "/app/tls", "/app/data"]
# numeric, so that Kubernetes can tell that it is not root
USER 10001:10001
EXPOSE 8081
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python3", "-c", "import os, urllib.request; urllib.request.urlopen(f\"http://127.0.0.1:{os.environ.get('PUSHER_ADMIN_PORT') or 8081}/healthz\", timeout=4)"]
ENTRYPOINT ["/usr/bin/tini", "--"]
CMD ["/app/pusher", "--help"]
