# The commands and the library. CPU: docker build -t ccp_dml .
# GPU: docker build --build-arg EXTRA=[gpu] -t ccp_dml . and docker run --gpus all …
FROM python:3.11-slim

ARG EXTRA=""
COPY . /source
# The versions of the requirements are those that are tested together.
RUN pip install --no-cache-dir --constraint /source/requirements.txt "/source${EXTRA}" && rm -rf /source

WORKDIR /work
ENTRYPOINT ["ccp-dml-train"]
CMD ["--help"]
