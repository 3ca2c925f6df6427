# `make` alone prints this list.
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: help install run test test-all check format lock audit compile fuzz bench soak demo clean

help: ## print the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## make .venv and install exactly what the lock says

$(STAMP): deploy/requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name it with: make PYTHON=python3.12 install" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv || \
	  { echo "python3 -m venv failed: on Debian and Ubuntu, apt-get install python3-venv" >&2; exit 1; }
	@echo "installing the locked packages into .venv (the first time takes about a minute)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r deploy/requirements-dev.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

run: install ## start everything on this machine: Kafka, MongoDB, API, one worker
	@exec $(BIN)/dispatcher run --local

test: install ## every test but the long ones
	@$(BIN)/python -m pytest -m "not slow"

test-all: install ## every test
	@$(BIN)/python -m pytest

check: install ## lint, types, import direction, the OpenAPI document
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo 2>/dev/null || $(BIN)/lint-imports
	@$(BIN)/dispatcher openapi | cmp -s - schemas/openapi.json || \
	  { echo "schemas/openapi.json is stale: .venv/bin/dispatcher openapi > schemas/openapi.json" >&2; exit 1; }

format: install ## format the code and sort its imports
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

lock: install ## resolve the dependencies again, newest first
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  --upgrade pyproject.toml -o deploy/requirements.lock
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  --upgrade pyproject.toml --extra otel -o deploy/requirements-otel.lock
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  --upgrade pyproject.toml --extra local --extra otel --group dev -o deploy/requirements-dev.lock
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  --upgrade --group build -o deploy/requirements-build.lock

audit: install ## look the locked packages up in the advisories
	@$(BIN)/python deploy/audit.py

compile: install ## build/compiled: a copy that uses a quarter less CPU; needs a C compiler
	@$(BIN)/python deploy/compile.py build/compiled

fuzz: install ## strangers' bytes against everything that reads them, for MINUTES=1
	@$(BIN)/python -m tests.fuzz --minutes $(or $(MINUTES),1)

bench: install ## measure throughput and latency on this machine: half an hour
	@$(BIN)/python -m tests.bench

soak: install ## the long fault runs; the longest takes MINUTES=30
	@SOAK_MINUTES=$(or $(MINUTES),30) $(BIN)/python -m pytest -m slow tests/faults

demo: install ## tell the whole story in a terminal, in under a minute
	@$(BIN)/dispatcher demo

clean: ## remove .venv, local data and build output
	@rm -rf .venv .local build dist .mypy_cache .ruff_cache .import_linter_cache
