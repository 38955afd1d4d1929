# make demo       set up and run the quick-start campaign
# make dft        add GPAW to the environment (needs a C++ compiler, about half a minute)
# make potentials add CHGNet to the environment and build .venv-sevennet for SevenNet, which cannot share one with MACE (about 1.5 GB)
# make test       set up where needed, check style and types, run the tests
# make quick      style, types and the tests that need no engine, Ray or server: under two minutes
# make test-all   the slow tests too
# make benchmarks run every benchmark (each saves its results below benchmarks/results)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO := configs/nifecr_quickstart.yaml

DFT := $(VENV)/.dft-ready

SEVENNET := .venv-sevennet
POTENTIALS := $(SEVENNET)/.ready
CHGNET := $(VENV)/.chgnet-ready

QUICK := tests/architecture tests/reading tests/crystals tests/campaign/test_types.py tests/campaign/test_crystal.py \
	tests/campaign/test_seeds.py tests/campaign/test_config.py tests/campaign/test_config_checks.py tests/campaign/test_code.py \
	tests/campaign/test_ranking.py tests/campaign/test_journal.py tests/campaign/test_borders.py tests/campaign/test_shown.py

.PHONY: setup loops dft chgnet potentials demo quick unit test test-all lint benchmarks clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "oreloop needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --group test --editable .
	touch $(READY)

# GPAW is built from source. Its default build calls a C compiler on C++ and looks for MPI; this one does neither and needs no library.
dft: $(DFT)

$(DFT): $(READY)
	command -v g++ >/dev/null || { echo "GPAW needs a C++ compiler: install g++, then run make dft" >&2; exit 1; }
	printf "compiler = 'g++'\nmpi = False\nnoblas = True\nnolibxc = True\n" > $(VENV)/gpaw_siteconfig.py
	GPAW_CONFIG=$(abspath $(VENV))/gpaw_siteconfig.py $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-cache-dir \
		--constraint constraints.txt --editable ".[dft]"
	touch $(DFT)

chgnet: $(CHGNET)

$(CHGNET): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[chgnet]"
	touch $(CHGNET)

potentials: $(CHGNET) $(POTENTIALS)

$(POTENTIALS): constraints-sevennet.txt
	test -x $(SEVENNET)/bin/python || $(PYTHON) -m venv $(SEVENNET)
	$(SEVENNET)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	$(SEVENNET)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints-sevennet.txt \
		sevenn numpy scipy ase pydantic matscipy
	touch $(POTENTIALS)

demo: setup
	$(BIN)/oreloop run $(DEMO)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

quick: lint unit

loops: setup
	OMP_NUM_THREADS=1 $(BIN)/python tests/compile_loops.py

unit:
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m "not slow" -n 2 --dist loadfile $(QUICK)

test: lint loops
	$(MAKE) dft || echo "the tests of density functional theory will be skipped" >&2
	$(MAKE) chgnet || echo "the tests of CHGNet will be skipped" >&2
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile

test-all: lint loops dft
	$(BIN)/python -m pytest

benchmarks: setup dft
	$(BIN)/python -m benchmarks.md_oracle
	$(BIN)/python -m benchmarks.engine
	$(BIN)/python -m benchmarks.oracles
	$(BIN)/python -m benchmarks.mace_active
	$(BIN)/python -m benchmarks.feni_ladder

clean:
	rm -rf $(VENV) $(SEVENNET) .mypy_cache .ruff_cache .pytest_cache
