# PYTHON makes the virtual environment in .venv; everything else runs in it.
PYTHON ?= python3.11
VENV ?= .venv
CONFIG ?= configs/webshop.py
WORKDIR ?= runs/webshop
ARGS ?=
PYTHONS ?= python3.11 python3.12 python3.13
SEED ?= 0
# Two test processes, each with one XLA thread (tests/conftest.py): best on 2 cores.
TEST_WORKERS ?= 2

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
OPTIONAL := $(VENV)/.optional

# Huge pages: fresh XLA buffers cost a fraction of the page faults.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1
export PYTHONUNBUFFERED := 1

.PHONY: help run model test soak matrix docs lint format clean install
.DEFAULT_GOAL := help

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' Makefile
	@echo "  variables: PYTHON=$(PYTHON) CONFIG=$(CONFIG) WORKDIR=$(WORKDIR) ARGS=$(ARGS)"

run: $(STAMP) ## run CONFIG in WORKDIR, or go on with it; ARGS are further flags
	$(BIN)/python -m leafe_jax.main --config=$(CONFIG) --workdir=$(WORKDIR) $(ARGS)

model: models/smollm2/config.json ## SmolLM2-135M-Instruct in models/smollm2 (93 MB), for the :smollm2 configs

models/smollm2/config.json: $(STAMP)
	test -e $@ || $(BIN)/python -m pip install --quiet --disable-pip-version-check 'gguf==0.19.0'
	test -e $@ || $(BIN)/python -m tools.fetch_model smollm2 --out=models/smollm2

test: $(STAMP) $(OPTIONAL) ## all tests; ARGS go to pytest
	$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

soak: $(STAMP) ## a small run under each kind of fault once, some minutes; SEED chooses the draws
	$(BIN)/python -m tools.soak --config=tools/soak/small.py --rounds=1 --seed=$(SEED) \
		--out=runs/soak_$(SEED) $(ARGS)

matrix: ## all tests with each Python of PYTHONS that is at hand; ARGS go to pytest
	PYTHONS="$(PYTHONS)" .ci/matrix $(ARGS)

docs: $(STAMP) ## the site, in build/site; stops at a link that leads nowhere
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	$(BIN)/python -m docs.drawings
	$(BIN)/python -m mkdocs build --strict

lint: $(STAMP) ## ruff and pyright
	$(BIN)/ruff check .
	$(BIN)/pyright

format: $(STAMP) ## sort imports and apply ruff's safe fixes
	$(BIN)/ruff check --fix .

clean: ## remove caches and the virtual environment; runs stay
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

install: $(STAMP) ## the virtual environment, from requirements.lock

# Newer than the lock: up to date. Otherwise pip brings it there.
$(STAMP): requirements.lock setup.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

# Backends of single environments, for their tests.
$(OPTIONAL): requirements-optional.lock $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-optional.lock
	touch $@
