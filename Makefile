# `make quickstart` and `make test` work from a clean clone where a Python package index can be reached.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: quickstart test lint format typecheck figures clean

quickstart: $(STAMP)
	$(BIN)/mop quickstart

test: $(STAMP)
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(MAKE) typecheck

# The folders search/ and embeddings/ are mop.search and mop.embeddings once installed; the type checker sees them so.
typecheck: $(STAMP)
	rm -rf build/typed && mkdir -p build/typed
	cp -r mop build/typed/mop && cp -r search build/typed/mop/search && cp -r embeddings build/typed/mop/embeddings
	cd build/typed && ../../$(BIN)/mypy --config-file ../../pyproject.toml -p mop

# Runs the notebooks on what is recorded, keeps their outputs, and writes the README's pictures (notebooks/pictures).
figures: $(STAMP)
	HF_HUB_OFFLINE=1 $(BIN)/python notebooks/run.py

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[local,dev]"
	touch $(STAMP)

clean:
	rm -rf build .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
