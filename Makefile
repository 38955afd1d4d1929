# make demo       set up and run the quick-start campaign
# make test       set up where needed, check style and types, run the tests
# make test-all   the slow tests too
# make benchmarks run every benchmark (each saves its results below benchmarks/results)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO := configs/nifecr_quickstart.yaml

.PHONY: setup demo test test-all lint benchmarks clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "oreloop needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --group test --editable .
	touch $(READY)

demo: setup
	$(BIN)/oreloop run $(DEMO)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -m "not slow"

test-all: lint
	$(BIN)/python -m pytest

benchmarks: setup
	$(BIN)/python -m benchmarks.md_oracle
	$(BIN)/python -m benchmarks.engine

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
