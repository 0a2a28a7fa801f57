"""A Dockerfile with the targets cpu, cuda and tpu."""

from __future__ import annotations

_DOCKERFILE = """\
# docker build --target=TARGET --tag=IMAGE --file=FILE .   (in the repository)
# TARGET: cpu, cuda or tpu.
FROM python:3.11-slim-bookworm AS base
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# bubblewrap: programs of coding tasks are run in it. Debian's releases of both change.
# hadolint ignore=DL3008
RUN apt-get update \\
    && apt-get install --yes --no-install-recommends bubblewrap git \\
    && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY requirements.lock ./
RUN pip install --requirement requirements.lock
COPY setup.py pyproject.toml MANIFEST.in README.md LICENSE ./
COPY leafe_jax leafe_jax
COPY envs envs
COPY configs configs
COPY tools tools
RUN pip install --no-deps .
# No ENTRYPOINT: what starts it says "exec python -m leafe_jax.main", so that SIGTERM
# reaches the program, which saves and ends with 143.
CMD ["python", "-m", "leafe_jax.main", "--help"]

FROM base AS cpu

FROM base AS cuda
RUN pip install "jax[cuda12]==$(python -c 'import jax; print(jax.__version__)')"

FROM base AS tpu
RUN pip install "jax[tpu]==$(python -c 'import jax; print(jax.__version__)')"
"""


def dockerfile() -> str:
  return _DOCKERFILE
