# The service in a container, from the same hash-pinned lock as everywhere else.
#
#   docker build --tag mastery .
#   docker run --env-file .env --publish 8000:8000 mastery            # what the Procfile calls web
#   docker run --env-file .env mastery python -m server migrate       # what it calls release

FROM python:3.13-slim-bookworm AS packages
WORKDIR /packages
COPY requirements.txt .
RUN python -m venv /opt/mastery \
    && /opt/mastery/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements.txt

FROM python:3.13-slim-bookworm
# The numbers are fixed, so that a platform can check that it is not root (runAsNonRoot).
RUN groupadd --system --gid 10001 mastery && useradd --system --uid 10001 --gid mastery --no-create-home mastery
COPY --from=packages /opt/mastery /opt/mastery
WORKDIR /srv/mastery
COPY server ./server
COPY lua ./lua
COPY sql ./sql
COPY config ./config
COPY LICENSE ./
ENV PATH=/opt/mastery/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOST=0.0.0.0 PORT=8000
USER 10001:10001
EXPOSE 8000
# Docker asks whether the process is alive; an orchestrator asks /readyz itself.
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['PORT'] + '/livez', timeout=3)"]
# SIGTERM ends it: requests that are running are finished within 20 s.
STOPSIGNAL SIGTERM
CMD ["python", "-m", "server", "serve"]
