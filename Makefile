# Two commands: `make run` and `make test`. Everything is kept inside this folder.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
# The newest Python that the locked requirements are for; another: make PYTHON=/path/to/python3.12 …
PYTHON ?= $(shell for v in 3.13 3.12 3.11; do python$$v -c "import venv" >/dev/null 2>&1 && { command -v python$$v; break; }; done || true)
PYTHON := $(or $(PYTHON),python3)
SCENARIO ?= quickstart
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export DO_NOT_TRACK := 1

.DEFAULT_GOAL := help
.PHONY: help install run check test coverage lint bench bench-gpu up lock clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

# uv installs the locked requirements in a fifth of pip's time, and checks the same hashes. Where it cannot be had, or fails (it reads no
# pip.conf), pip does the work. As pip does, it compiles what it installs: else every process would, where Python writes no bytecode
# (PYTHONDONTWRITEBYTECODE, as images of containers have it), and importing TensorFlow and MLflow takes 17 s instead of 7.
UV_INSTALL = UV_COMPILE_BYTECODE=1 UV_COMPILE_BYTECODE_TIMEOUT=600 SSL_CERT_FILE="$${SSL_CERT_FILE:-$$PIP_CERT}" UV_HTTP_TIMEOUT=180 $(BIN)/uv pip install --python $(BIN)/python $(if $(CI),--quiet)
PIP_INSTALL = $(BIN)/python -m pip install --quiet
define INSTALL
$(UV_INSTALL) $(1) || { echo "uv could not install; pip tries, which takes a minute or two …"; $(PIP_INSTALL) $(1); }
endef

$(VENV)/.installed: requirements-uv.lock requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "Evergreen needs Python 3.11, 3.12 or 3.13; found: $$($(PYTHON) --version). Name one: make PYTHON=/path/to/python3.12 …"; exit 2; }
	@echo "Setting up $(VENV) (once; about 3 GB) …"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP_INSTALL) --no-deps --require-hashes -r requirements-uv.lock || true
	@$(call INSTALL,--no-deps --require-hashes -r requirements.lock)
	@$(call INSTALL,--no-deps --no-build-isolation -e .)
	@rm -rf $(VENV)/lib/python3*/site-packages/tensorflow/include  # 430 MB of C++ headers, for building TensorFlow's extensions
	@touch $@

# requirements-dev.lock holds only what the extra `dev` adds to requirements.lock.
$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.lock
	@$(call INSTALL,--no-deps --require-hashes -r requirements-dev.lock)
	@touch $@

install: $(VENV)/.installed  ## set up .venv from the locked, hash-checked requirements

run: install  ## set up where needed, run the quickstart (or SCENARIO=NAME), print what came of it
	@$(BIN)/evergreen run $(SCENARIO)

up: install  ## start Prefect's and MLflow's servers and a worker; Ctrl-C ends them
	@$(BIN)/evergreen up

lint: $(VENV)/.installed-dev  ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

PYTEST = $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadgroup --no-loadscope-reorder --durations=20 --durations-min=10

FAST = -m "not (slow or servers or browser)" tests/evergreen tests/test_*.py

check: lint  ## lint, type check and the unit tests that are fast, in about a minute
	$(PYTEST) -q $(FAST) --cov --cov-report=
	@echo "$$($(BIN)/coverage report --include="evergreen/*" --format=total) % of the lines of evergreen/ are covered by these tests."

coverage: $(VENV)/.installed-dev  ## all tests, and what they cover by file (commands that they start as processes do not count)
	$(PYTEST) --cov --cov-report=term:skip-covered

test: lint  ## set up where needed; lint, type check and all tests
	$(PYTEST)

bench: $(VENV)/.installed-dev  ## print the performance table, each figure beside its rival (long)
	$(BIN)/python -m bench

# CUDA's libraries have no hashes in the lock files: they are 3 GB, which nobody without a GPU should resolve or download.
bench-gpu: install  ## install CUDA's libraries, and measure training on this machine's GPU
	$(PIP_INSTALL) -e '.[gpu]'
	@$(BIN)/python -m bench.gpu

COMPILE = $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11

# --no-annotate: uv would list every package that --no-emit-package leaves out.
lock: install  ## resolve the requirements anew
	$(COMPILE) pyproject.toml --extra faces -o requirements.lock
	$(COMPILE) pyproject.toml --extra faces --extra dev --no-annotate -c requirements.lock -o requirements-dev.lock \
	  $$(sed -nE 's/^([a-z0-9._-]+)==.*/--no-emit-package \1/p' requirements.lock | sort -u)
	echo uv | $(COMPILE) - --no-annotate -o requirements-uv.lock

clean:  ## remove what can be made again: .venv and caches (never data, models or records)
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage* *.egg-info
