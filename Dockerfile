# smn in a container, from the wheel that this folder makes. On x86-64 and ARM alike.
#
#   docker build -t smn .                                  # for CPUs
#   docker build -t smn --build-arg DEVICE=cuda .          # for NVIDIA's GPUs: docker run --gpus all
#   docker build -t smn --build-arg TORCH_INDEX=URL --build-arg PIP_INDEX_URL=URL .   # where mirrors take the place of
#                                                          # download.pytorch.org and of PyPI
#   docker run --rm -v "$PWD:/work" --user "$(id -u):$(id -g)" smn adapt images --arch resnet50 --out run
#
# What is downloaded and computed once lies in /cache: -v smn-cache:/cache keeps it.
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS build
ARG PIP_INDEX_URL
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:${PYTHON}-slim
ARG DEVICE=cpu
ARG TORCH_INDEX
ARG PIP_INDEX_URL
# PyPI's torch for Linux brings CUDA, some 6 GB, which a CPU has no use for
RUN case "$DEVICE" in \
      cpu) index=https://download.pytorch.org/whl/cpu ;; \
      cuda) index="${PIP_INDEX_URL:-https://pypi.org/simple}" ;; \
      *) echo "DEVICE is cpu or cuda, not $DEVICE" >&2; exit 2 ;; \
    esac \
    && pip install --no-cache-dir "torch>=2.6" "torchvision>=0.21" --index-url "${TORCH_INDEX:-$index}"
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir "$(echo /wheels/smn_cli-*.whl)[fast]" && smn --version
# any user may write here, so that --user can be whoever owns the mounted folder
RUN mkdir --mode=1777 /cache
ENV SMN_CACHE_HOME=/cache/smn HF_HOME=/cache/huggingface MPLCONFIGDIR=/cache/matplotlib
RUN useradd --uid 1000 --create-home smn
USER 1000:1000
WORKDIR /work
ENTRYPOINT ["smn"]
CMD ["--help"]
