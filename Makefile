# Every target makes the virtual environment when it is missing or when the requirements changed.

VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

# TensorFlow 2.15 runs on Python 3.9 to 3.11, and the pinned ArrayRecord needs 3.11.
PYTHON ?= $(shell for python in python3.11 python3 python; do \
	$$python $(VERSION_CHECK) 2>/dev/null && echo $$python && break; done)
VERSION_CHECK := -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'

BENCHMARKS := retrieval search_stages losses sampling step reset input startup time_shares scaling growth
STUDIES := emoji methods

RUN_TIME := $(VENV)/.installed
DEVELOPMENT := $(VENV)/.installed-dev
COMPARISON := $(VENV)/.installed-bench
NOTEBOOKS := $(VENV)/.installed-notebooks
LOCKING := build/lock

.PHONY: help train test test-all lint lock bench study notebooks clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

train: $(RUN_TIME)  ## Train, evaluate and export the example on real images (ARGS="--seed=1 ...")
	$(BIN)/python train.py --flagfile=configs/emoji.cfg $(ARGS)

test: $(DEVELOPMENT)  ## Run the tests (ARGS="tests/losses -k name ...")
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow" $(ARGS)

test-all: $(DEVELOPMENT)  ## Run the tests and the slow ones
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

lint: $(DEVELOPMENT)  ## Check style, types, who imports whom, the lock, and advisories where they can be looked up
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tests.project.lock
	$(BIN)/python -m tests.project.audit

lock:  ## Pin every package with its hashes in requirements.lock (minutes, needs the network)
	"$(PYTHON)" -m venv --clear $(LOCKING)
	$(LOCKING)/bin/python -m pip install --quiet --disable-pip-version-check pip==23.2.1 pip-tools==7.4.1
	CUSTOM_COMPILE_COMMAND="make lock" $(LOCKING)/bin/pip-compile --quiet --allow-unsafe --generate-hashes \
		--strip-extras --no-annotate --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
		--output-file=requirements.lock requirements-dev.txt

bench: $(COMPARISON)  ## Run every benchmark (one: BENCHMARKS="losses" ARGS=--quick)
	@for name in $(BENCHMARKS); do \
		echo "== benchmarks/$$name"; $(BIN)/python -m "benchmarks.$$name.run" $(ARGS) || exit 1; done
	@$(BIN)/python -m benchmarks.common.summary

study: $(DEVELOPMENT)  ## Repeat the studies of docs/results.md (hours; they continue where they stopped)
	@for name in $(STUDIES); do $(BIN)/python -m "studies.$$name.run" --jobs 2 --threads 1 $(ARGS) && \
		$(BIN)/python -m "studies.$$name.report" || exit 1; done

notebooks: $(NOTEBOOKS)  ## Run the tutorials and write notebooks/ (ten minutes; one: ARGS=keras)
	$(BIN)/python docs/notebooks.py $(ARGS)

clean:  ## Delete the virtual environment and caches, not runs
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(RUN_TIME): requirements.txt
	@if ! "$(PYTHON)" $(VERSION_CHECK) 2>/dev/null; then \
		found="$$("$(or $(PYTHON),python3)" --version 2>&1 | head -n 1)"; \
		echo "ccp_dml needs Python 3.11, the newest that TensorFlow 2.15 supports; found: $$found." >&2; \
		echo "Install it, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 1; fi
	@$(BIN)/python $(VERSION_CHECK) 2>/dev/null || "$(PYTHON)" -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(DEVELOPMENT): requirements-dev.txt $(RUN_TIME)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

$(NOTEBOOKS): requirements-notebooks.txt $(DEVELOPMENT)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-notebooks.txt
	@touch $@

$(COMPARISON): requirements-bench.txt $(DEVELOPMENT)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-bench.txt
	@touch $@
