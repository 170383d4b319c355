# syntax=docker/dockerfile:1
# The model servers of the example: MLServer with the models of examples/flights, trained while the
# image is built. For trying things out, not for production; its packages are not hashed.
ARG PYTHON=docker.io/library/python:3.11-slim-bookworm

FROM ${PYTHON} AS flights
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN groupadd --gid 65532 flights && useradd --uid 65532 --gid 65532 --no-create-home flights
WORKDIR /src
COPY examples/flights/requirements.txt examples/flights/
RUN pip install -r examples/flights/requirements.txt
COPY examples examples
RUN python examples/flights/train.py /models && \
    python -m examples.flights.settings /models
ENV OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/src/examples/flights
USER 65532:65532
WORKDIR /models/champion
EXPOSE 8080
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/v2/models/delays/ready', timeout=2)"]
CMD ["mlserver", "start", "."]
