# Needs python3 (>= 3.11) with venv, make and a C compiler; everything else is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help run test lint check fmt docs bench faults soak lock clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*##  *' '{ printf "%-8s%s\n", $$1, $$2 }'

$(STAMP): requirements-dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "make: $(PYTHON) is older than 3.11: name a newer one, make PYTHON=python3.12 ..."; exit 1; }
	@echo "Installing into $(VENV), once: a minute or so"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

run: $(STAMP)  ## set everything up and serve on an embedded PostgreSQL (Ctrl-C stops it)
	@exec $(BIN)/gateway serve

# Hundreds of gateways are started: none compiles anew what the one before it did, whatever the environment says.
test: export PYTHONDONTWRITEBYTECODE =
test: $(STAMP)  ## set everything up and run the test suite
	$(BIN)/python -m pytest -n auto --maxprocesses 4 $(ARGS)
	@echo 'Next: make run starts a gateway, and says how to send it the first command.'

lint: $(STAMP)  ## style, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint test  ## everything CI does

fmt: $(STAMP)  ## format, and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(STAMP)  ## write docs/protocol.md, settings.md and metrics.md from the code and a live conversation
	$(BIN)/python -m pytest -q tests/test_docs.py --write-docs

LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --upgrade

bench: $(STAMP)  ## measure beside pgbench, psql and a bare echo server; under 15 minutes
	$(BIN)/python -m tests.bench $(ARGS)

faults: $(STAMP)  ## kill, cut, stop and lie, and hold the tables against what was acknowledged; under 20 minutes
	$(BIN)/python -m tests.faults $(ARGS)

soak: $(STAMP)  ## load one gateway with a fault every 20 s: memory, descriptors and tasks flat, nothing lost; 20 minutes
	$(BIN)/python -m tests.faults.soak $(ARGS)

lock: $(STAMP)  ## resolve the versions in pyproject.toml anew
	$(BIN)/python -m pip install --quiet uv
	$(LOCK) pyproject.toml -o requirements.txt
	$(LOCK) --group build -o requirements-build.txt
	$(LOCK) pyproject.toml --extra embedded --extra load --group dev -o requirements-dev.txt

clean:  ## remove what was built; the data under .data stays
	rm -rf $(VENV) dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
