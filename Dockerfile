# FormulaVision in a container. Not run where this file was written: there was no Docker; the syntax was checked.
#
#   docker build -t formulavision .                                  for CPUs
#   docker build -t formulavision:cuda --build-arg DEVICE=cuda .     for NVIDIA GPUs
#   docker run --rm formulavision doctor
#   docker run --rm --gpus all -v "$PWD:/work" formulavision:cuda compare quickstart
#
# The GPU kernels are written in Triton, which needs a C compiler and Python's headers; the image has both.
ARG PYTHON=3.12
FROM python:${PYTHON}-slim
ARG DEVICE=cpu
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
# torch has one index for CPUs and one for each version of CUDA; PyPI's build for Linux is the one with CUDA.
RUN case "$DEVICE" in \
      cpu) pip install --no-cache-dir torch torchvision --index-url https://download.pytorch.org/whl/cpu ;; \
      cuda) pip install --no-cache-dir torch torchvision ;; \
      *) echo "DEVICE is cpu or cuda, not $DEVICE" >&2; exit 1 ;; \
    esac
WORKDIR /src
COPY pyproject.toml MANIFEST.in README.md LICENSE CHANGELOG.md CITATION.cff ./
COPY formulavision formulavision
COPY plugins plugins
COPY configs configs
RUN pip install --no-cache-dir . && rm -rf /src
# Files in the mounted folder belong to the user who runs the container: docker run --user "$(id -u):$(id -g)".
ENV FORMULAVISION_CACHE=/tmp/formulavision MPLCONFIGDIR=/tmp/matplotlib HOME=/tmp
WORKDIR /work
ENTRYPOINT ["formulavision"]
CMD ["--help"]
